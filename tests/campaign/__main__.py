"""Crashes and kills for as long as you like, of both parts in turn.

    python -m tests.campaign --hours=1 --seed=0
    python -m tests.campaign --hours=8 crash_points     # one part
    python -m tests.campaign --case=ID crash_points     # one case again, as a failure names it

Exit code 1 if a case failed.
"""

from __future__ import annotations

import itertools
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from typing import Any, Iterator, Sequence

from benchmarks import command
from tests.campaign import crash_points, kills

PARTS = {"crash_points": crash_points, "kills": kills}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("tests.campaign", f"{__doc__}\nParts:\n" + "\n".join(
        f"  {name:<14} {part.ABOUT}" for name, part in PARTS.items()))
    parser.add_argument("parts", nargs="*", metavar="part", help="which parts; all without one")
    parser.add_argument("--hours", type=float, default=1.0, help="when to stop; 1 by default")
    parser.add_argument("--seed", type=int, default=0, help="another one has other cases")
    parser.add_argument("--case", help="repeat the case of this id of a part instead")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    names = options.parts or list(PARTS)
    if options.case and len(names) > 1:
        parser.error(f"--case={options.case}: name its part")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end, tried, failed = time.monotonic() + 3600 * options.hours, 0, 0
    try:
        for name, id in [(names[0], options.case)] if options.case else in_turn(names, options.seed):
            if failure := attempt(PARTS[name], options.seed, id):
                failed += 1
                print(f"FAILED {failure}; repeat it with --seed={options.seed} --case={id} {name}", flush=True)
            tried += 1
            if time.monotonic() >= end:
                break
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    print(f"{tried} tried, {failed} failed")
    return 1 if failed else 0


def in_turn(names: Sequence[str], seed: int) -> Iterator[tuple[str, str]]:
    streams = {name: PARTS[name].ids(seed) for name in names}
    for name in itertools.cycle(names):
        yield name, next(streams[name])


def attempt(part: Any, seed: int, id: str) -> str | None:
    """Tries a case in a folder of its own; an exception is a failure, told with its last place."""
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        try:
            return part.attempt(seed, id, pathlib.Path(folder))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {' '.join(str(error).split())} ({place.filename}:{place.lineno})"


if __name__ == "__main__":
    sys.exit(main())
