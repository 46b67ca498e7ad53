"""Tries faults for as long as one likes: each part's cases in turn, from where the last campaign ended.

    python -m tests.campaign --hours=1 --seed=0         # all parts
    python -m tests.campaign --hours=8 crash_points     # one part
    python -m tests.campaign --case=ID crash_points     # one case again, as a failure names it
    python -m tests.campaign --hours=0 --page=docs/campaign.md    # the table of what was tried so far, on its page

Exit code 1 if a case failed, now or before; a failed case that holds when it is repeated counts as mended.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import pkgutil
import signal
import sys
from typing import Any, Sequence

from benchmarks import command
from tests import campaign
from tests.campaign import driver

BEGIN, END = "<!-- campaign: python -m tests.campaign -->", "<!-- /campaign -->"


def main(arguments: Sequence[str] | None = None) -> int:
    for module in pkgutil.iter_modules(campaign.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{campaign.__name__}.{module.name}")
    parser = command.make_parser("tests.campaign", f"{__doc__}\nParts:\n" + "\n".join(
        f"  {name:<14} {part.about}" for name, part in driver.PARTS.items()))
    parser.add_argument("parts", nargs="*", metavar="part", help="which parts; all without one")
    parser.add_argument("--hours", type=_hours, default=1.0, help="when to stop; 1 by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="repeat the case of this id instead")
    parser.add_argument("--state", type=pathlib.Path, default=command.ROOT / "build" / "campaign",
                        help="the folder that remembers what was done; build/campaign by default")
    parser.add_argument("--page", type=pathlib.Path, help="the page whose table is replaced, such as docs/campaign.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in driver.PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(driver.PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return driver.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> bool:
    parts = [driver.PARTS[name] for name in dict.fromkeys(options.parts or driver.PARTS)]
    runner = driver.Campaign(parts, options.seed, options.state, _say)
    held = runner.repeat(options.case) if options.case else runner.run(3600 * options.hours)
    text = driver.table(options.state)
    print(text)
    if options.page:
        before = options.page.read_text().partition(BEGIN)[2].partition(END)[0]
        command.replace_between(options.page, BEGIN, END, driver.table(options.state, before))
    return held


def _say(text: Any) -> None:
    print(text, flush=True)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of hours from 0 on, received {text!r}")
    return hours


if __name__ == "__main__":
    sys.exit(main())
