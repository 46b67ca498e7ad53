"""Crashes and kills for as long as you like: each part's cases in turn, from where the last campaign ended.

    python -m tests.campaign --hours=1 --seed=0         # all parts
    python -m tests.campaign --hours=8 crash_points     # one part
    python -m tests.campaign --case=ID crash_points     # one case again, as a failure names it

Exit code 1 if a case failed, now or before. A failure is forgotten when its case is repeated and holds.
"""

from __future__ import annotations

import functools
import pathlib
import signal
import sys
from typing import Sequence

from benchmarks import command
from fmnist_zoo.errors import ZooError
from tests.campaign import crash_points, driver, kills

PARTS = {part.name: part for part in (crash_points.CrashPoints(), kills.Kills())}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("tests.campaign", f"{__doc__}\nParts:\n" + "\n".join(
        f"  {name:<14} {part.about}" for name, part in PARTS.items()))
    parser.add_argument("parts", nargs="*", metavar="part", help="which parts; all without one")
    parser.add_argument("--hours", type=float, default=1.0, help="when to stop; 1 by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="repeat the case of this id instead")
    parser.add_argument("--state", type=pathlib.Path, default=command.ROOT / "build" / "campaign",
                        help="the folder that remembers what was done; build/campaign by default")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parts = [PARTS[name] for name in options.parts or PARTS]
    try:
        campaign = driver.Campaign(parts, options.seed, options.state, functools.partial(print, flush=True))
        held = campaign.repeat(options.case) if options.case else campaign.run(3600 * options.hours)
        print(campaign.lines())
        return 0 if held else 1
    except ZooError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
