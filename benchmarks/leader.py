"""What the leader of a sweep costs, with trials that train nothing: `python -m benchmarks.leader --trials 100 1000`.

For each count of trials N, one line: the leader's milliseconds a trial on the way from the count before; seconds to
load the sweep, to tell a new tuner of its trials, and for the tuner's next proposal; and seconds of `--show`, imports
included. Times are of the processor, except for `--show`.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, Sequence

from benchmarks import command

SPACE = "dropout=0..0.5; l1=log(1e-7..1e-3); l2=log(1e-7..1e-3); learning_rate=log(1e-4..1e-2)"


class Stub:
    """A pool whose jobs end as soon as they are waited for; losses follow from the values."""

    slots = 2

    def __init__(self) -> None:
        self._jobs: list[tuple[str, Any]] = []

    def submit(self, name: str, job: Any) -> None:
        self._jobs.append((name, job))

    def wait(self, timeout: float) -> list[tuple[str, dict[str, Any]]]:
        jobs, self._jobs = self._jobs, []
        return [(name, self._outcome(job.config)) for name, job in jobs]

    def _outcome(self, config: dict[str, Any]) -> dict[str, Any]:
        epochs = config["recipe"]["epochs"]
        loss = abs(config["recipe"]["learning_rate"] - 1e-3) * 100 + config["spec"]["l2"] + 1 / epochs
        metrics = {f"{part}_{kind}": loss for part in ("train", "val", "ranking") for kind in ("loss", "accuracy")}
        return {"status": "COMPLETED", "epochs": epochs, "seconds": 1.0, "seed": config["seed"], "pid": 1, "trials": 1,
                "memory_mb": 1000.0, "began": 1.0, "ended": 2.0, "final": {"epoch": 1, **metrics}}

    def close(self) -> None:
        pass


def lead(folder: str, tuner: str, trials: int) -> dict[str, float]:
    """Leads a sweep from what is in `folder` to `trials` trials; seconds of the processor."""
    from fmnist_zoo.files import write_json
    from trainers.running import progress
    from trainers.tuning import leader, study
    from trainers.tuning.plan import Plan

    plan = Plan("4L", SPACE, tuner=tuner, max_trials=trials, objective="val_loss", executions=1, epochs=27, data="mini")
    path = pathlib.Path(folder)
    if not (path / "sweep.json").exists():
        write_json(path / "sweep.json", {**plan.manifest(), "started": time.time()})
    before = len(study.load(path).trials)
    boss = leader.Leader(study.load(path), plan, Stub(), progress.Reporter(), max_failures=5)
    watch = time.process_time()
    boss.run(lambda: False)
    seconds = time.process_time() - watch
    watch = time.process_time()
    found = study.load(path)
    loaded = time.process_time()
    tuned = plan.tuner_for()
    begun = time.process_time()
    for trial in found.trials.values():
        tuned.tell(trial)
    told = time.process_time()
    tuned.propose(len(found.trials))
    return {"trial": seconds / max(1, len(found.trials) - before), "load": loaded - watch, "tell": told - begun,
            "propose": time.process_time() - told}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.leader", __doc__)
    parser.add_argument("--trials", nargs="+", type=command.count, default=[100, 1000, 10_000], help="counts of trials")
    parser.add_argument("--tuner", default="random", help="of the sweep")
    parser.add_argument("--lead", help="lead the sweep in this folder to the first count, and print the times as JSON")
    values = parser.parse_args(arguments)
    if values.lead:
        print(json.dumps(lead(values.lead, values.tuner, values.trials[0])))
        return 0
    memory = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None  # a disk takes milliseconds to sync a small file
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        print(f"{'trials':>7} {'ms a trial':>10} {'load s':>7} {'tell s':>7} {'propose s':>9} {'show s':>7}")
        for count in values.trials:
            took = command.ask(["benchmarks.leader", f"--tuner={values.tuner}", f"--lead={folder}",
                                f"--trials={count}"], "the leader")
            watch = time.perf_counter()
            subprocess.run([sys.executable, "-m", "trainers.sweep", f"--show={folder}"], check=True,
                           stdout=subprocess.DEVNULL)
            show = time.perf_counter() - watch
            print(f"{count:>7} {1000 * took['trial']:>10.2f} {took['load']:>7.2f} {took['tell']:>7.2f} "
                  f"{took['propose']:>9.2f} {show:>7.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
