"""When a run writes a checkpoint: after each so many epochs, or by default about once a minute.

The numbers of a run do not depend on it. A checkpoint of a large model takes as long as a short epoch, and a process
that is killed loses what it trained since the last one.
"""

from __future__ import annotations

import time

from trainers.running.table import MetricsTable

SECONDS = 60.0


class Due:
    """Asked at the end of each epoch whether a checkpoint is due; it then counts as written.

    Args:
        every: epochs between checkpoints; 0: one after the first epoch that ends `SECONDS` or more after the last one,
            or after the start.
    """

    def __init__(self, every: int):
        self._every, self._last = every, time.monotonic()

    def __call__(self, epoch: int) -> bool:
        if self._every:
            return epoch % self._every == 0
        due = time.monotonic() - self._last >= SECONDS
        if due:
            self._last = time.monotonic()
        return due


def was_due(every: int, table: MetricsTable) -> bool:
    """Whether a run with this table has written a checkpoint; `TableError` if the table is damaged.

    The last row does not count: the process may have been killed between the row and the checkpoint.
    """
    if every:
        return table.row_count() > every
    return sum(row["seconds"] or 0.0 for row in table.rows(only=("epoch", "seconds"))[:-1]) >= SECONDS
