"""What an epoch takes beside its updates: `python -m benchmarks.around --model=4D_drop03 --batch=128`.

A run as `trainers.train` runs it, in a folder that is thrown away: validation, the training loss with dropout off,
events, histograms and pictures, the row and the checkpoint, at the run's own intervals. An epoch is timed from the end
of the one before; what is not in its `seconds` is around. The first epoch, which compiles, is left out; the share is
that of the sums over all others, since pictures and checkpoints come every few epochs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any, Sequence

from benchmarks import command


def measure(model: str, batch: int | str, epochs: int, data: str, folder: str) -> list[tuple[float, float]]:
    """(seconds of the updates, seconds around them) of each epoch but the first."""
    from trainers import config as configs
    from trainers.running import folder as folders, progress, run

    class Watch(progress.Reporter):
        """Notes when epochs end."""

        def __init__(self) -> None:
            self.ends: list[float] = []
            self.updates: list[float] = []

        def epoch(self, row: dict[str, Any], epochs: int, best_epoch: int, seconds_left: float) -> None:
            self.ends.append(time.perf_counter())
            self.updates.append(row["seconds"])

    watch, config = Watch(), configs.resolve(model, batch_size=batch, epochs=epochs, data=data)
    run.execute(folders.create(folder, config, "run"), config, reporter=watch, should_stop=lambda: False)
    return [(updates, end - before - updates)
            for before, end, updates in zip(watch.ends, watch.ends[1:], watch.updates[1:])]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.around", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=command.model, default="4D_drop03", help="a name from `python -m fmnist_zoo`")
    parser.add_argument("--batch", type=command.batch, default=128, help="images an update; full: all")
    parser.add_argument("--epochs", type=command.count, default=30, help="at least 2: the first is left out")
    parser.add_argument("--data", choices=("fashion_mnist", "mini"), default="fashion_mnist")
    options = parser.parse_args(arguments)
    if options.epochs < 2:
        parser.error("argument --epochs: must be at least 2, since the first one is left out")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.model, options.batch, options.epochs, options.data, folder)
    updates, around = ([epoch[place] for epoch in found] for place in (0, 1))
    print(f"{options.model}, batch {options.batch}, {len(found)} epochs: updates {statistics.median(updates):.3f} s an "
          f"epoch, around them {statistics.median(around):.3f} s (median; {min(around):.3f} to {max(around):.3f}); "
          f"in all {sum(around) / sum(updates):.1%} on top")
    return 0


if __name__ == "__main__":
    sys.exit(command.interruptible(main))
