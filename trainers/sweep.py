"""Searches dropout, L1, L2 and more: `python -m trainers.sweep --model=4L`.

Trials train through the same loop as `trainers.train`, in worker processes. The same command continues a sweep that was
stopped or killed. Half of the validation images choose a trial's epoch, the other half rank the trials.
"""

from __future__ import annotations

import os
import pathlib
import sys
import textwrap
from typing import Any, Callable, Mapping, Sequence, Unpack

from fmnist_zoo import card, prototype
from fmnist_zoo.errors import UsageError
from fmnist_zoo.files import quoted
from fmnist_zoo.settings import DATA, MODEL, OUTPUT, TRAINING
from fmnist_zoo.spec import ModelSpec
from trainers import cli
from trainers.config import LOGDIR, ConfigError, find_sweep
from trainers.running import progress
from trainers.settings import Settings
from trainers.tuning import page, workers as pools
from trainers.tuning.cluster import Scheduler
from trainers.tuning.halving import FACTOR
from trainers.tuning.leader import earlier, execute, sweep_folder
from trainers.tuning.plan import MAX_TRIALS, Plan
from trainers.tuning.space import NAMES
from trainers.tuning.study import OBJECTIVES, RUNNING, Study, load

USAGE = """
Searches hyper-parameters of a model with keras-tuner or by successive halving, and logs each trial to TensorBoard's
HParams tab. The same command continues a sweep that was stopped or killed; no finished trial is lost.

    python -m trainers.sweep --model=4L --tuner=grid --space="dropout=0,0.2,0.4; l2=0,1e-5,1e-4"
    python -m trainers.sweep --model=4L --tuner=bayesian --space="dropout=0..0.5; l2=log(1e-6..1e-3)" --max_trials=20
    python -m trainers.sweep --model=4L --tuner=asha --space="dropout=0..0.5; l2=log(1e-6..1e-3)" --epochs=27
    python -m trainers.sweep --show=tb_logs/sweeps/4L-grid-seed0 --report=4L.html

In --space, 0,0.1,0.2 are tried exactly; 0..0.5 is a range, log(1e-6..1e-2) a logarithmic one. Without --space: dropout,
L1 and L2. Names:
""" + textwrap.fill(", ".join(NAMES), 110) + """.
A schedule of dropout rates is 0.3_0.2_0.1, widths are 300_100; dropout.1 is the rate of the first hidden layer.
"""
GROUPS = {
    "What is searched": ("model", "space", "start", "tuner", "max_trials", "factor", "objective", "executions"),
    "What a trial trains": cli.settings_in(MODEL),
    "How a trial trains": cli.settings_in(TRAINING),
    "On what": cli.settings_in(DATA),
    "Where it runs": ("workers", "scheduler", "tls_ca", "tls_cert", "tls_key", "trust_network", "max_failures"),
    "Where it goes": ("logdir", "name", "overwrite", "page", *cli.settings_in(OUTPUT)),
    "Other": ("show", "report", "dry_run"),
}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    cli.define_settings(values)
    values.text("model", "a name from `python -m fmnist_zoo`")
    values.text("space", "the values that are tried; see above")
    values.texts("start", "a combination that is tried first, such as dropout=0.3; l2=0, which has a value for each "
                 "name in --space; may be given several times")
    values.text("tuner", "random, grid, bayesian: keras-tuner's oracles; asha: asynchronous successive halving, which "
                "trains the best for longer", "random")
    values.whole("max_trials", f"default {MAX_TRIALS} for random and bayesian; the whole plan for grid; of "
                 f"asha the combinations, without promotions: {MAX_TRIALS}, or as many as it takes to fill each "
                 "rung. May be raised later")
    values.whole("factor", "of asha: each rung trains so many times longer, and one in so many is promoted (default "
                 f"{FACTOR})")
    values.choice("objective", list(OBJECTIVES), "on the half of the validation images that chose no epoch", "val_loss")
    values.whole("executions", "runs of each trial, with seeds of their own; their mean ranks it", 1)
    values.whole("workers", "trials at once on this machine, each with its share of the cores and a gigabyte of memory "
                 f"(default: one for each core, at most {pools.MOST}). What asha and bayesian try depends on which "
                 "trials end first; with 1, each sweep tries the same")
    values.text("scheduler", "a dask scheduler's address, such as tls://host:8786, instead of --workers; needs the "
                "extra [distributed]", "")
    values.path("tls_ca", "for tls://, the file with the certificate of the cluster's authority (PEM); the default is "
                "that of dask's configuration", "")
    values.path("tls_cert", "the file with this client's certificate", "")
    values.path("tls_key", "the file with its key, if that is not in --tls_cert", "")
    values.switch("trust_network", "nobody else is on the network: connect to a scheduler on another host without TLS")
    values.whole("max_failures", "failed trials of this start after which the sweep ends", 5)
    values.path("logdir", "the log folder, for TensorBoard too", LOGDIR)
    values.text("name", "the sweep's folder below <logdir>/sweeps; default: model, tuner and seed", "")
    values.switch("overwrite", "rename the sweep that has this name, and start a new one")
    values.switch("page", "write report.html, with what the sweep has taught, into its folder when it ends", True)
    values.path("show", "a sweep's folder: print its table and what it has taught, finished or running, and stop")
    values.path("report", "an .html file: with --show, write that as a page with plots, which are PNG files beside it, "
                "too")
    values.switch("dry_run", "print the space and its size, and stop")
    return values


def sweep(model: str | ModelSpec | Callable[..., Any], space: str | Mapping[str, Any] | None = None, *,
          tuner: str = "random", max_trials: int | None = None, factor: int | None = None,
          objective: str = "val_loss", executions: int = 1,
          start: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = (), workers: int | None = None,
          scheduler: str = "", tls_ca: str = "", tls_cert: str = "", tls_key: str = "",
          trust_network: bool = False, max_failures: int = 5,
          logdir: str | os.PathLike[str] = LOGDIR, name: str = "", overwrite: bool = False, page: bool = True,
          verbose: bool | None = None, **settings: Unpack[Settings]) -> list[dict[str, Any]]:
    """Runs a sweep, or continues the one of the same name. Workers import your script: guard the call with `__main__`.

    Args:
        model: a name, a spec, or a function that builds the model; one of a module, which the workers can import.
        space: as `--space`, or a mapping such as `{"dropout": [0, 0.2], "l2": "log(1e-6..1e-2)"}`; None: the default,
            or what the function asks `hp` for. That is searched with a `space`, too, which adds settings to it, or has
            other values for some of it.
        start: as `--start`, or a mapping such as `{"dropout": 0.2, "l2": 1e-5}`, or a list of them.
        verbose: whether to show what the command shows; None: if this is a notebook or standard output is a terminal.
        **settings: of the trials, named as the flags of `trainers.train`: `epochs`, `batch_size`, `data`, `seed`, ...

    All other arguments are as the command's flags of the same names.

    Returns:
        The rows of `trials.csv` as dicts: completed trials ranked, best first, then the others.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the running epochs are saved; after a second one, at once.
        ValueError: for settings that are not possible (`SpaceError`, `ConfigError`, `SpecError`, `DataError`).
        SweepError, TrialError, PoolError: if the sweep cannot continue; finished trials are kept.
    """
    if prototype.is_model(model):
        raise ConfigError("a sweep builds a model for each trial: give it the function that returns yours")
    plan = Plan(model, space, tuner=tuner, max_trials=max_trials, objective=objective, executions=executions,
                factor=factor, start=start, logdir=logdir, **settings)
    return _lead(plan, sweep_folder(plan, logdir, name), workers=workers, max_failures=max_failures,
                 scheduler=_scheduler(scheduler, tls_ca, tls_cert, tls_key, trust_network),
                 overwrite=overwrite, draw=page, reporter=progress.for_caller(verbose)).rows()


def _lead(plan: Plan, path: pathlib.Path, *, overwrite: bool, reporter: progress.Reporter, **options: Any) -> Study:
    """Runs the sweep; `cli.Interrupted` once its running epochs are saved if a signal has asked for it."""
    stop = cli.StopSignal()
    with stop:
        study = execute(plan, path, overwrite=overwrite, reporter=reporter, should_stop=stop, **options)
    if study is None:
        raise cli.Interrupted(stop.number, "interrupted before the first epoch: nothing is left of the sweep")
    if isinstance(reporter, progress.Lines):  # which shows something
        reporter.note(_summary(study))
        reporter.close()
    if not study.is_finished:
        again = "the same command without --overwrite" if overwrite else "the same command"
        raise cli.Interrupted(stop.number, f"interrupted; {again} continues")
    return study


def _scheduler(address: str, tls_ca: str, tls_cert: str, tls_key: str, trusted: bool) -> Scheduler | None:
    certificates = {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
    if not address and any(certificates.values()):
        raise UsageError(f"--{next(name for name, path in certificates.items() if path)} is for --scheduler=tls://...")
    return Scheduler(address, **certificates, trusted=trusted) if address else None


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("sweep", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: cli.Flags) -> int:
    if values.report is not None and not values.show:
        raise UsageError("--report goes with --show=FOLDER; a sweep writes report.html into its folder when it ends")
    if values.show:
        others = sorted(cli.given(values) - {"show", "report", "zoo_module"})
        if others:
            raise UsageError(f"--show prints a sweep that is there, and takes --report alone; received --{others[0]}")
        return _show(load(find_sweep(values.show)), values.report)
    if not values.model:
        raise UsageError("which model? --model=NAME; `python -m fmnist_zoo` lists them")
    plan = Plan(values.model, values.space, tuner=values.tuner, max_trials=values.max_trials,
                objective=values.objective, executions=values.executions, factor=values.factor, start=values.start,
                logdir=values.logdir, **cli.given_settings(values))
    scheduler = _scheduler(values.scheduler, values.tls_ca, values.tls_cert, values.tls_key, values.trust_network)
    path = sweep_folder(plan, values.logdir, values.name)
    if values.dry_run:
        pools.check(values.workers, scheduler, plan.base.spec)
        earlier(path, plan.record(), overwrite=values.overwrite)
        print(plan.text(str(path)))
        return 0
    _lead(plan, path, workers=values.workers, scheduler=scheduler, max_failures=values.max_failures,
          overwrite=values.overwrite, draw=values.page, reporter=progress.for_output())
    return 0


def _show(study: Study, report: str | None) -> int:
    """Prints what a sweep has found, and writes its page if one is asked for."""
    if report is None:
        print(_summary(study))
        return 0
    path = pathlib.Path(os.path.expanduser(report))
    if path.suffix != ".html" or path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--report names an .html file in a folder that exists, received {report!r}")
    print(_summary(study))
    page.write(study, path)
    print(f"page: {path}")
    return 0


def _summary(study: Study) -> str:
    """The ranked table, what the trials say together, and what can be done next: train the best trial, and so on."""
    if not study.trials:
        return f"{study.path}: no trial has begun"
    lines = [study.table(), ""]
    if study.ranked:
        running = sum(trial.status == RUNNING for trial in study.trials.values())
        lines += [page.text(study), "", f"{study.manifest['objective']} on validation images that chose no epoch; "
                  f"{card.counted(len(study.ended), 'trial')} ended" + (f", {running} unfinished" if running else ""),
                  f"  {'train the best':<14}  {study.retrain}"]
        report = study.path / page.NAME
        if report.exists():
            lines.append(f"  {'see its plots':<14}  {report}")
    board = f"python -m trainers.board.serve --logdir={quoted(study.path.parent.parent)}"
    return "\n".join([*lines, f"  {'compare trials':<14}  {board}  (tab HParams)"])


if __name__ == "__main__":
    sys.exit(main())
