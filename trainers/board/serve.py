"""`make board`: TensorBoard without noise, and a link that opens it on loss and accuracy, not smoothed.

    python -m trainers.board.serve --logdir=tb_logs

The flags are TensorBoard's own. TensorFlow is not imported: TensorBoard needs it for nothing that is shown here, and
starts in a third of the time without it.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import signal
import sys
import types
import urllib.parse
import warnings
from typing import Sequence

PINNED = ("loss", "accuracy")
LONG = "network_"  # models that train for 500 epochs; all others train for 30
SELECTED = 40  # from more rows on, all tabs but Time Series and HParams open with none selected, unless a filter is set


def link(address: str, logdir: pathlib.Path, *, runs: str = "") -> str:
    """The address of the Time Series tab with the charts that one looks at first, of runs that match `runs`.

    What follows the `#` holds in the other tabs: no smoothing, and the filter of rows.
    """
    cards = [{"plugin": "scalars", "tag": tag} for tag in PINNED]
    query = {"smoothing": "0", "pinnedCards": json.dumps(cards, separators=(",", ":"))}
    tabs = {"_smoothingWeight": "0"}
    if runs:
        query["runFilter"] = runs
    ordinary = list(logdir.glob("*/*/config.json"))
    others = sum(len(list(logdir.glob(kind))) for kind in ("*/*/evaluation", "sweeps/*/sweep.json", "sweeps/*/[0-9]*"))
    if ordinary and 1 + 2 * len(ordinary) + others > SELECTED:
        tabs["regexInput"] = runs or "^(?!sweeps/)"
    return f"{address}?{urllib.parse.urlencode(query)}#timeseries&{urllib.parse.urlencode(tabs)}"


def lines(address: str, logdir: pathlib.Path) -> list[str]:
    """What is printed: a link, or two where runs of 500 epochs would press all others into a corner of the charts."""
    models = {path.parent.parent.name for path in logdir.glob("*/*/config.json")}
    apart = {name for name in models if name.startswith(LONG)}
    if not apart or apart == models:
        return [f"TensorBoard (Ctrl-C ends it): {link(address, logdir)}"]
    return [f"TensorBoard (Ctrl-C ends it): {link(address, logdir, runs=f'^(?!{LONG})')}",
            f"and {LONG}*, of 500 epochs:     {link(address, logdir, runs=f'^{LONG}')}"]


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
        board.configure(["tensorboard", *ours, *arguments])
        address = board.launch()
    except (FlagsError, program.TensorBoardServerException) as error:
        print(f"TensorBoard does not start: {getattr(error, 'msg', error)}", file=sys.stderr)
        return 2
    print("\n".join(lines(address, pathlib.Path(board.flags.logdir or "."))), flush=True)
    for ending in (signal.SIGINT, signal.SIGTERM):  # at once: a second one during Python's own end would print an error
        signal.signal(ending, lambda *_: os._exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
