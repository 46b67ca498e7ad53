"""`make board`: TensorBoard without noise, and a link that opens it on loss and accuracy, not smoothed.

    python -m trainers.board.serve --logdir=tb_logs

The flags are TensorBoard's own. TensorFlow is not imported: TensorBoard needs it for nothing that is shown here, and
starts in a third of the time without it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import time
import types
import urllib.parse
import warnings
from typing import TYPE_CHECKING, Sequence

from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import local_path

if TYPE_CHECKING:
    from tensorboard.program import TensorBoard

RUNS = ("*/*/config.json", "*/*/*/config.json")  # the latter of several seeds
PINNED = ("loss", "accuracy")
LONG = "network_"  # models that train for 500 epochs; all others train for 30
SELECTED = 40  # of more rows that match the filter, all tabs but Time Series and HParams select none


def rows_of(logdir: pathlib.Path) -> list[str]:
    """The rows that TensorBoard will have, about; each is a folder with events."""
    runs = [path.parent for kind in RUNS for path in logdir.glob(kind)]
    others = [path for kind in ("*/*/evaluation", "*/*/*/evaluation", "sweeps/*/sweep.json", "sweeps/*/[0-9]*")
              for path in logdir.glob(kind)]
    found = [*runs, *(path / "train" for path in runs), *others]
    return [".", *(path.relative_to(logdir).as_posix() for path in found)]


def regex(rows: Sequence[str], runs: str) -> str:
    """The filter of rows in all tabs but Time Series: trials of sweeps are left out where rows would be too many."""
    ordinary = any(not row.startswith("sweeps/") for row in rows[1:])
    return (runs or "^(?!sweeps/)") if ordinary and len(rows) > SELECTED else ""


def link(address: str, rows: Sequence[str], runs: str = "") -> str:
    """The address of the Time Series tab with the charts that one looks at first, of runs that match `runs`.

    What follows the `#` holds in the other tabs: no smoothing, and the filter of rows.
    """
    cards = [{"plugin": "scalars", "tag": tag} for tag in PINNED]
    query = {"smoothing": "0", "pinnedCards": json.dumps(cards, separators=(",", ":"))}
    tabs = {"_smoothingWeight": "0"}
    if runs:
        query["runFilter"] = runs
    if chosen := regex(rows, runs):
        tabs["regexInput"] = chosen
    return f"{address}?{urllib.parse.urlencode(query)}#timeseries&{urllib.parse.urlencode(tabs)}"


def lines(address: str, logdir: pathlib.Path) -> list[str]:
    """What is printed: a link, or two where runs of 500 epochs would press all others into a corner of the charts.

    Then a line, if the other tabs will be empty at first.
    """
    rows = rows_of(logdir)
    models = {path.relative_to(logdir).parts[0] for kind in RUNS for path in logdir.glob(kind)}
    apart = {name for name in models if name.startswith(LONG)}
    filters = [f"^(?!{LONG})", f"^{LONG}"] if apart and apart != models else [""]
    titles = ("TensorBoard (Ctrl-C ends it):", f"and {LONG}*, of 500 epochs:    ")
    found = [f"{title} {link(address, rows, runs)}" for title, runs in zip(titles, filters)]
    if any(sum(bool(re.search(regex(rows, runs), row)) for row in rows) > SELECTED for runs in filters):
        found.append("The tabs besides Time Series and HParams show no run until you type a filter that matches "
                     f"{SELECTED} rows or fewer")
    return found


def warning(logdir: str) -> str:
    """What to say of a log folder before it is served; empty for one that exists."""
    if not logdir or os.path.isdir(os.path.expanduser(logdir)):
        return ""
    return f"{logdir}: no such folder yet; TensorBoard is empty until there is a run in it"


def _configure(board: TensorBoard, arguments: Sequence[str]) -> None:
    """Gives TensorBoard its flags; a wrong one ends the process with one line instead of a page of usage."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            board.configure(["tensorboard", *arguments])
    except SystemExit as end:
        if end.code:
            problem = said.getvalue().strip().rpartition("error: ")[2]
            print(f"TensorBoard does not start: {problem}; --help lists its flags", file=sys.stderr)
        raise


def main(arguments: Sequence[str]) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")  # TensorBoard's switch for "no TensorFlow"
    warnings.filterwarnings("ignore")
    import tensorboard_data_server
    from tensorboard import default, program
    from tensorboard.plugins.base_plugin import FlagsError

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    # Without --load_fast TensorBoard prints a note on it. Of pictures it would keep ten an epoch.
    ours = ["--load_fast=true" if tensorboard_data_server.server_binary() else "--load_fast=false",
            "--samples_per_plugin=images=100"]
    board = program.TensorBoard(default.get_plugins())
    try:
        _configure(board, [*ours, *arguments])
        local_path(board.flags.logdir, "logdir")
        address = board.launch()
        if board.flags.bind_all:  # this machine's full name may be localhost, which is another one elsewhere
            address = address.replace("//localhost:", f"//{socket.gethostname()}:")
    except (SpecError, FlagsError, program.TensorBoardServerException) as error:
        print(f"TensorBoard does not start: {getattr(error, 'msg', error)}", file=sys.stderr)
        return 2
    logdir = board.flags.logdir
    if said := warning(logdir):
        print(said, file=sys.stderr)
    for ending in (signal.SIGINT, signal.SIGTERM):  # at once: a second one during Python's own end would print an error
        signal.signal(ending, lambda *_: os._exit(0))
    print("\n".join(lines(address, pathlib.Path(logdir or "."))), flush=True)
    while True:
        time.sleep(1)  # `signal.pause` would miss a signal that comes just before it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
