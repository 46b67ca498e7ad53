"""Lists, compares and cleans up runs: `python -m trainers.runs`. It imports no TensorFlow.

100 runs take 0.2 s of a processor, and 10,000 take 3 s; a third of that is to read and check the configs.
"""

from __future__ import annotations

import csv
import json
import sys
from typing import Any, Sequence

from fmnist_zoo.card import printable
from fmnist_zoo.errors import UsageError, ZooError
from trainers import cli
from trainers.running import comparison, listing, pruning
from trainers.running.folder import in_use
from trainers.running.listing import DAMAGED, FINISHED, INTERRUPTED, RUNNING, SORTS, SWEEP, Line

USAGE = """
Lists the runs and sweeps below a log folder, the newest first.

    python -m trainers.runs
    python -m trainers.runs --model="4D*" --sort=val_loss --limit=10
    python -m trainers.runs --compare 4L/first 4D_drop03/first --plot=curves.png
    python -m trainers.runs --compare 4L 4D_drop03
    python -m trainers.runs --prune --dry_run

Scores are of the selected weights: of the best epoch so far, for network_* of the last one. A sweep is one line, with
the scores of its best trial on the half of the validation images that ranks; --model also finds it by its base model.
"""
GROUPS = {"Which runs": ("logdir", "model", "seeds", "sort", "limit"), "How they are printed": ("json", "csv"),
          "Side by side": ("compare", "plot"), "Less on the disk": ("prune", "yes", "dry_run")}
MODES = {"list": ("model", "seeds", "sort", "limit", "json", "csv"), "compare": ("plot", "json", "csv"),
         "prune": ("yes", "dry_run")}  # and the flags that each takes
SHOWN = 5  # reasons below a table


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.path("logdir", "the log folder", "tb_logs")
    values.text("model", "a name or a pattern such as 4D*", "*")
    values.text("sort", f"a column, the best first; with - before it, the worst: {', '.join(SORTS)}", "started")
    values.switch("seeds", "show finished runs that differ in their seed alone as one line, with the means")
    values.whole("limit", "how many are printed")
    values.switch("json", "print JSON, with all digits")
    values.switch("csv", "print CSV, with all digits")
    values.switch("compare", "the runs whose folders follow: the settings that differ, and the results, side by "
                  "side. Several seeds count as one by the folder that holds them: mean, deviation, and differences "
                  "that are paired by seed")
    values.path("plot", "with --compare, a .png file: write their curves to it; of several seeds mean and deviation")
    values.switch("prune", "remove the checkpoints of finished runs (--resume with more --epochs needs them); says "
                  "what that frees, and asks")
    values.switch("yes", "with --prune: do not ask")
    values.switch("dry_run", "with --prune: say what it would free, and stop")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("runs", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main, words=True,
                    any_backend=True)


def _main(values: cli.Flags, words: list[str]) -> int:
    _check(values, words)
    if values.compare:
        return _compare(comparison.read(words, values.logdir), values)
    if values.prune:
        return _prune(values)
    every = (*listing.runs(values.logdir), *map(sweep_line, listing.sweeps(values.logdir)))
    lines = [line for line in every if line.matches(values.model)]
    lines = list(map(listing.mean, listing.over_seeds(lines))) if values.seeds else lines
    lines = listing.ordered(lines, values.sort)
    shown = lines[:values.limit]
    if values.json or values.csv:
        rows = [line.to_dict() for line in shown]
        if values.json:
            print(json.dumps(rows, indent=2))
        else:
            _print_csv(rows, listing.COLUMNS)
    elif not lines:
        of = f" of {values.model}" if values.model != "*" else ""
        print(f"no run{of} below {values.logdir}; a run's folder is <logdir>/<model>/<run>")
    else:
        print(listing.table(shown))
        if len(shown) < len(lines):
            print(f"{len(shown)} of {len(lines)}")
        _print_reasons([line for line in shown if line.status == DAMAGED])
    return 0


def _check(values: cli.Flags, words: Sequence[str]) -> None:
    mode = next((name for name in ("compare", "prune") if values[name].value), "list")
    wrong = sorted(cli.given(values) - {"logdir", "zoo_module", mode, *MODES[mode]})
    if wrong and mode == "list":
        raise UsageError(f"--{wrong[0]} goes with --{next(name for name in MODES if wrong[0] in MODES[name])}")
    if wrong:
        raise UsageError(f"--{wrong[0]} does not go with --{mode}")
    if values.json and values.csv:
        raise UsageError("--json and --csv are two formats; give one of them")
    if words and mode != "compare":
        raise UsageError(f"received {words[0]!r}, which belongs to no flag; --compare takes folders of runs")


def sweep_line(path: str) -> Line:
    """The line of the sweep in a folder."""
    from trainers.tuning import study  # takes a quarter of the time of a short listing

    line = Line(path, kind=SWEEP)
    try:
        found = study.load(path)
    except (ZooError, OSError) as error:
        line.reason = str(error)
        return line
    line.name, line.validated_on = found.base.spec.name, listing.ranked_on(found.base)
    line.data_sha256, line.split_sha256 = (found.manifest["data"].get(name, "") for name in ("sha256", "split_sha256"))
    line.started = found.manifest["started"]
    line.changes = f"{found.manifest['tuner']}: {found.space.text} {listing.changes(found.base)}".rstrip()
    planned = 0 if found.is_finished or not found.starts else found.starts[-1]["planned"]
    line.planned_epochs, line.epochs = max(planned, len(found.trials)), len(found.ended)
    line.seconds = sum(trial.seconds or 0.0 for trial in found.ended)
    line.status = RUNNING if in_use(path) else FINISHED if found.is_finished else INTERRUPTED
    if found.ranked:
        finals = [one["final"] for one in found.ranked[0].executions]
        line.val_loss, line.val_accuracy = (
            sum(final[name] for final in finals) / len(finals) for name in ("ranking_loss", "ranking_accuracy"))
    return line


def _print_csv(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_reasons(damaged: Sequence[Line]) -> None:
    for line in damaged[:SHOWN]:
        print(f"runs: {printable(line.reason)}", file=sys.stderr)
    if len(damaged) > SHOWN:
        print(f"runs: {len(damaged) - SHOWN} more are damaged; --json says why", file=sys.stderr)


def _compare(runs: list[comparison.Compared], values: cli.Flags) -> int:
    picture = None if values.plot is None else comparison.picture(runs, values.plot)
    if values.json or values.csv:
        rows = comparison.to_dicts(runs)
        if values.json:
            print(json.dumps({"runs": rows, "differences": [one._asdict() for one in comparison.differences(runs)]},
                             indent=2))
        else:
            _print_csv(rows, list(rows[0]))
    else:
        print(comparison.text(runs))
    if picture:
        comparison.plot(runs, picture)
        if not (values.json or values.csv):
            print(f"\nwritten: {values.plot}")
    return 0


def _prune(values: cli.Flags) -> int:
    found = pruning.find(values.logdir)
    if not found:
        print(f"nothing to remove below {values.logdir}")
        return 0
    print(f"checkpoints of finished runs: {len(found)}, {_size(found)}")
    if values.dry_run:
        return 0
    if not values.yes:
        try:
            answer = input("remove them? [y/N] ")
        except EOFError:
            print()
            raise UsageError("--prune asks before it removes, and nobody answered: add --yes, or --dry_run") from None
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    removed = [one for one in found if pruning.remove(one)]
    print(f"removed: {_size(removed)}")
    if len(removed) < len(found):
        print(f"{len(found) - len(removed)} were left, because a process has begun to use them")
    return 0


def _size(some: Sequence[pruning.Removable]) -> str:
    return f"{sum(one.bytes for one in some) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
