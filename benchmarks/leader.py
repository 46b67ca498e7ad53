"""What the leader of a sweep costs, with trials that train nothing: `python -m benchmarks.leader --trials 100 1000`.

For each count of finished trials N, one line: the leader's time a further trial (100 of them), and a trial on the way
from the count before; seconds to load the sweep and to restore the tuner from it; seconds of `--show`; the process's
memory over that of its imports. Times are of the processor, except for `--show`.
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

FURTHER = 100
SPACE = "dropout=0..0.5; l1=log(1e-7..1e-3); l2=log(1e-7..1e-3); learning_rate=log(1e-4..1e-2)"


class Stub:
    """A pool whose jobs end as soon as they are waited for; losses follow from the values."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self._jobs: list[tuple[str, Any]] = []

    def submit(self, name: str, job: Any) -> None:
        self._jobs.append((name, job))

    def wait(self, timeout: float) -> list[tuple[str, dict[str, Any]]]:
        jobs, self._jobs = self._jobs, []
        return [(name, self._outcome(job.config)) for name, job in jobs]

    def _outcome(self, config: dict[str, Any]) -> dict[str, Any]:
        recipe = config["recipe"]
        loss = abs(recipe["learning_rate"] - 1e-3) * 100 + config["spec"]["l2"] + 1 / recipe["epochs"]
        parts = ("train", "val", "ranking")
        metrics = {f"{part}_{kind}": loss for part in parts for kind in ("loss", "accuracy")}
        return {"status": "COMPLETED", "epochs": config["recipe"]["epochs"], "seconds": 1.0, "seed": config["seed"],
                "pid": 1, "trials": 1, "memory_mb": 1000.0, "began": 1.0, "ended": 2.0,
                "final": {"epoch": 1, **metrics}}

    def close(self) -> None:
        pass


def lead(folder: str, tuner: str, trials: int) -> dict[str, float]:
    """Leads a sweep from what is in `folder` to `trials` trials; seconds and megabytes."""
    from trainers.running import progress
    from trainers.tuning import leader, start
    from trainers.tuning.execution import peak_memory
    from trainers.tuning.plan import Plan

    plan = Plan("4L", SPACE, tuner=tuner, max_trials=trials, objective="val_loss", executions=1, epochs=27, data="mini")
    path = pathlib.Path(folder)
    manifest = plan.manifest()
    oracle = plan.tuner_for(plan.space)
    memory = peak_memory()
    watch = time.process_time()
    found = start.open_or_create(path, manifest)
    loaded, watch = time.process_time() - watch, time.process_time()
    before = len(found.trials)
    boss = leader.Leader(found, Stub(), oracle, max_trials=None if tuner == "asha" else plan.max_trials,
                         planned=plan.planned, max_failures=5, reporter=progress.Reporter(),
                         environment={name: manifest[name] for name in ("versions", "commit", "modules")})
    first: list[float] = []

    def should_stop() -> bool:
        first.append(time.process_time())
        return False

    boss.run(should_stop)
    end = time.process_time()
    return {"load": loaded, "replay": first[0] - watch, "trial": (end - first[0]) / max(1, len(found.trials) - before),
            "memory": peak_memory() - memory}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.leader", __doc__)
    parser.add_argument("--trials", nargs="+", type=command.count, default=[100, 1000, 3000, 10_000],
                        help="counts of finished trials")
    parser.add_argument("--tuner", default="random", help="of the sweep")
    parser.add_argument("--folder", help="one that is kept; default: a temporary one")
    parser.add_argument("--lead", type=command.count,
                        help="lead the sweep in --folder to so many trials, and print the times as JSON")
    values = parser.parse_args(arguments)
    if values.lead:
        print(json.dumps(lead(values.folder, values.tuner, values.lead)))
        return 0
    memory = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None  # a disk takes milliseconds to sync a small file
    with tempfile.TemporaryDirectory(dir=memory) as temporary:
        folder = pathlib.Path(values.folder or temporary) / values.tuner
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'trials':>7} {'ms a trial':>10} {'of all':>8} {'load s':>7} {'replay s':>8} {'show s':>7} {'MB':>6}")
        for count in values.trials:
            whole, more = (command.ask(["benchmarks.leader", f"--tuner={values.tuner}", f"--folder={folder}",
                                        f"--lead={trials}"], "the leader") for trials in (count, count + FURTHER))
            watch = time.perf_counter()
            subprocess.run([sys.executable, "-m", "trainers.sweep", f"--show={folder}"], check=True,
                           stdout=subprocess.DEVNULL)
            show = time.perf_counter() - watch
            print(f"{count:>7} {1000 * more['trial']:>10.2f} {1000 * whole['trial']:>8.2f} {more['load']:>7.2f} "
                  f"{more['replay']:>8.2f} {show:>7.2f} {more['memory']:>6.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
