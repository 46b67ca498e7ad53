"""`make board`: TensorBoard without noise, and links: to loss and accuracy, not smoothed, and to HParams.

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
from typing import TYPE_CHECKING, Iterable, Sequence

from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import local_path, read_json
from trainers.metrics_table import FULL_BATCH

if TYPE_CHECKING:
    from tensorboard.program import TensorBoard

TITLE = "TensorBoard (Ctrl-C ends it):"
RUNS = ("*/*/config.json", "*/*/*/config.json")  # the latter of several seeds
PINNED = ("loss", "accuracy")
SELECTED = 40  # of more rows that match the filter, all tabs but Time Series and HParams select none
ALL_SELECTED = 500  # of more rows, matching or not, Time Series selects none


def rows_of(logdir: pathlib.Path) -> list[str]:
    """The rows that TensorBoard will have, about; each is a folder with events."""
    runs = [path.parent for path in _records(logdir)]
    others = [path for kind in ("*/*/test", "*/*/*/test", "sweeps/*/sweep.json", "sweeps/*/[0-9]*")
              for path in logdir.glob(kind)]
    found = [*runs, *(path / "train" for path in runs if (path / "train").exists()), *others]
    return [".", *(path.relative_to(logdir).as_posix() for path in found)]


def _records(logdir: pathlib.Path) -> list[pathlib.Path]:
    return [path for kind in RUNS for path in logdir.glob(kind)]


def pages(logdir: pathlib.Path) -> dict[str, str]:
    """Title to filter of runs, a regular expression, for each page of runs whose curves fit on one chart.

    Trials of sweeps are left out, and runs of mini where there are others: their losses are much higher. Models that
    train for 500 epochs, on a page of their own, would press all others into a corner.
    """
    data = {path.parent.relative_to(logdir).as_posix(): _data(path) for path in _records(logdir)}
    if not data:
        return {TITLE: ""}
    ordinary = {name: kind for name, kind in data.items() if not name.startswith(FULL_BATCH)} or data
    out = ["sweeps/"] if any(logdir.glob("sweeps/*/sweep.json")) else []
    if any(kind != "mini" for kind in ordinary.values()):
        of_mini = [name for name, kind in ordinary.items() if kind == "mini"]
        of_mini += [path.relative_to(logdir).as_posix() for path in logdir.glob("*/shipped-mini")]
        out += [f"(?:{'|'.join(map(re.escape, _shortened(of_mini, data)))})(?:/|$)"] if of_mini else []
    if len(ordinary) < len(data):
        return {TITLE: _without([FULL_BATCH, *out]), f"and {FULL_BATCH}*, of 500 epochs:": f"^{FULL_BATCH}"}
    return {TITLE: _without(out)}


def _shortened(out: Sequence[str], names: Iterable[str]) -> list[str]:
    """The folders `out`, but one folder for all the seeds that it holds; the link is long enough without them."""
    kept = {parent for name in set(names).difference(out) for parent in pathlib.PurePosixPath(name).parents}
    groups = (name if name.count("/") < 2 or pathlib.PurePosixPath(name).parent in kept else name.rpartition("/")[0]
              for name in out)
    return list(dict.fromkeys(groups))


def _without(beginnings: Sequence[str]) -> str:
    return f"^(?!{'|'.join(beginnings)})" if beginnings else ""


def _data(config: pathlib.Path) -> str:
    """The name of a run's data; empty if its record does not say it."""
    try:
        return str(read_json(config)["data"]["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def link(address: str, runs: str = "", tab: str = "timeseries") -> str:
    """The address of a tab; Time Series has the charts that one looks at first, of runs that match `runs`.

    What follows the `#` holds in the other tabs: no smoothing, and the filter of rows.
    """
    cards = [{"plugin": "scalars", "tag": tag} for tag in PINNED]
    query = {"smoothing": "0", "pinnedCards": json.dumps(cards, separators=(",", ":"))}
    tabs = {"_smoothingWeight": "0"}
    if runs:
        query["runFilter"] = tabs["regexInput"] = runs
    return f"{address}?{urllib.parse.urlencode(query)}#{tab}&{urllib.parse.urlencode(tabs)}"


def lines(address: str, logdir: pathlib.Path) -> list[str]:
    """What is printed: a link for each of `pages`, one to HParams where there is a sweep; then a line, if tabs will be
    empty at first."""
    rows, filters = rows_of(logdir), pages(logdir)
    links = {title: link(address, runs) for title, runs in filters.items()}
    if any(logdir.glob("sweeps/*/sweep.json")) or (logdir / "sweep.json").exists():
        links["and the trials of sweeps:"] = link(address, tab="hparams")
    found = [f"{title:<{max(map(len, links))}} {there}" for title, there in links.items()]
    if any(sum(bool(re.search(runs, row)) for row in rows) > SELECTED for runs in filters.values()):
        found.append("The tabs besides Time Series and HParams show no run until you type a filter that matches "
                     f"{SELECTED} rows or fewer")
    if len(rows) > ALL_SELECTED:
        found.append(f"Time Series selects none of {len(rows)} rows: tick the box above them, which selects all that "
                     "match the filter")
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
