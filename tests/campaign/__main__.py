"""Crashes and kills for as long as you like: each part's cases in turn, from where the last campaign ended.

    python -m tests.campaign --hours=1 --seed=0         # all parts
    python -m tests.campaign --hours=8 crash_points     # one part
    python -m tests.campaign --case=ID crash_points     # one case again, as a failure names it

Exit code 1 if a case failed, now or before. A failure is forgotten when its case is repeated and holds.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
from typing import Any, Sequence

from benchmarks import command
from fmnist_zoo.errors import ZooError
from tests.campaign import crash_points, driver, kills

PARTS = {part.name: part for part in (crash_points.CrashPoints(), kills.Kills())}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("tests.campaign", f"{__doc__}\nParts:\n" + "\n".join(
        f"  {name:<14} {part.about}" for name, part in PARTS.items()))
    parser.add_argument("parts", nargs="*", metavar="part", help="which parts; all without one")
    parser.add_argument("--hours", type=_hours, default=1.0, help="when to stop; 1 by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="repeat the case of this id instead")
    parser.add_argument("--state", type=pathlib.Path, default=command.ROOT / "build" / "campaign",
                        help="the folder that remembers what was done; build/campaign by default")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parts = [PARTS[name] for name in dict.fromkeys(options.parts or PARTS)]
    try:
        campaign = driver.Campaign(parts, options.seed, options.state, _say)
        held = campaign.repeat(options.case) if options.case else campaign.run(3600 * options.hours)
        _say("\n".join(one.line() for one in campaign.progress.values()))
        return 0 if held else 1
    except ZooError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


def _say(text: Any) -> None:
    print(text, flush=True)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of hours from 0 on, received {text!r}")
    return hours


if __name__ == "__main__":
    sys.exit(main())
