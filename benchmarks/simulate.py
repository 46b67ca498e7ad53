"""How many workers and trials a sweep can lead: `python -m benchmarks.simulate --workers=1000 --trials=100000`.

The leader, its files and the oracle are real; trials last `--seconds` and train nothing. `--pool=clock` is within this
process: its clock jumps to the end of the next trial, so that only the leader takes time. `--pool=local` and
`--pool=cluster` are real workers that sleep; those of a cluster are threads of one process.

"utilisation" is the share of the workers' time within trials, after each worker has had one and until the last one
begins. "leader" is its work between two trials that end: propose, submit, record, write files. Beside its seconds are
those of the processor, which other programs on the machine do not change; waits for the disk are in the former alone.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import random
import subprocess
import sys
import tempfile
import time
import types
from typing import Any, Iterator, Sequence

from benchmarks import command
from trainers import cli
from trainers.tuning import leader, pool, start, trial
from trainers.tuning.plan import Plan
from trainers.tuning.scheduler import Scheduler
from trainers.tuning.study import COMPLETED, Study
from trainers.tuning.workers import AT_ONCE

SPACE = "l2=log(1e-6..1e-2); learning_rate=log(1e-4..1e-2)"
SECONDS = "SIMULATED_SECONDS"  # an environment variable, for the workers


def outcome(began: float, ended: float) -> dict[str, Any]:
    loss = random.random()
    return {"status": COMPLETED, "epochs": 1, "seconds": ended - began, "seed": 0, "memory_mb": 0.0, "began": began,
            "ended": ended, "final": {"ranking_loss": loss, "ranking_accuracy": 1 / (1 + loss)}}


def sleep(job: dict[str, Any], share: Any = None) -> dict[str, Any]:
    """In the place of `trial.run`."""
    began = time.time()
    time.sleep(float(os.environ[SECONDS]))
    return outcome(began, time.time())


def nothing(*arguments: Any) -> None:
    """In the place of `trial.warm` and `trial.take_share`."""


class Clock:
    """A pool whose trials end when its clock says so. It runs while the leader works, and jumps while it waits.

    Attributes:
        moments: when the first trial began, and when each `every`th one had ended, by a clock that does not jump, and
            by the processor's.
    """

    def __init__(self, workers: int, seconds: float, every: int):
        self.slots, self._seconds, self.every = workers, seconds, every
        self._running: list[tuple[float, str, float]] = []
        self._jumped, self._done = 0.0, 0
        self.moments: list[tuple[float, float]] = []

    def time(self) -> float:
        return time.perf_counter() + self._jumped

    def sleep(self, seconds: float) -> None:
        self._jumped += seconds

    def submit(self, name: str, job: dict[str, Any]) -> None:
        if not self.moments:
            self._note()
        now = self.time()
        heapq.heappush(self._running, (now + self._seconds * random.uniform(0.5, 1.5), name, now))

    def wait(self, timeout: float) -> list[tuple[str, dict[str, Any]]]:
        self._jumped += max(0.0, min(self._running[0][0] - self.time(), timeout))
        outcomes: list[tuple[str, dict[str, Any]]] = []
        while self._running and self._running[0][0] <= self.time() and len(outcomes) < AT_ONCE:
            ended, name, began = heapq.heappop(self._running)
            outcomes.append((name, outcome(began, ended)))
            self._done += 1
            if not self._done % self.every:
                self._note()
        return outcomes

    def _note(self) -> None:
        self.moments.append((time.perf_counter(), time.process_time()))

    def close(self) -> None:
        pass


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str]:
    """The address of a scheduler, in a process of its own with its workers."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.simulate", "--serve", f"--workers={workers}"],
                               stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout and process.stdin
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()  # ends it
        process.wait(60)


def serve(workers: int) -> None:
    import distributed

    trial.take_share = nothing  # type: ignore[assignment]
    with distributed.LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, protocol="tcp",
                                  host="127.0.0.1", dashboard_address="127.0.0.1:0") as made:
        print(made.scheduler_address, flush=True)
        sys.stdin.read()


def utilisation(study: Study, workers: int) -> tuple[float, float]:
    """The share of the workers' time within trials, and trials begun a second."""
    results = [done.result or {} for done in study.ranked]
    spans = sorted((one["began"], one["ended"]) for result in results for one in result["executions"])
    first, last = spans[min(workers, len(spans) // 2)][0], spans[-1][0]
    busy = sum(max(0.0, min(ended, last) - max(began, first)) for began, ended in spans)
    return busy / (workers * (last - first)), sum(first <= began < last for began, _ in spans) / (last - first)


def simulate(options: argparse.Namespace, folder: str) -> None:
    os.environ[SECONDS] = str(options.seconds)
    plan = Plan("softmax", SPACE, tuner=options.tuner, max_trials=options.trials, objective="val_loss", executions=1,
                data="mini", epochs=1)
    scheduler, clock = None, None
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, start, "_write_page", start._write_page)
        setattr(start, "_write_page", nothing)
        if options.pool == "clock":
            clock = Clock(options.workers, options.seconds, max(1, options.trials // 10))
            stack.callback(setattr, pool, "make", pool.make)
            stack.callback(setattr, leader, "time", leader.time)
            pool.make = lambda workers, scheduler, threads: clock
            leader.time = types.SimpleNamespace(  # type: ignore[assignment]
                monotonic=clock.time, sleep=clock.sleep, time=time.time)
        else:
            trial.run, trial.warm = sleep, nothing  # type: ignore[assignment]
        if options.pool == "cluster":
            scheduler = Scheduler(stack.enter_context(cluster(options.workers)))
        from trainers.tuning import figures  # noqa: F401
        from trainers.tuning.oracle import Oracle

        Oracle(options.tuner, plan.space, lower_is_better=True, seed=0, epochs=1)  # which imports TensorFlow
        before, began = time.process_time(), time.perf_counter()
        study, _ = start.execute(plan, workers=options.workers, scheduler=scheduler, max_failures=1, logdir=folder,
                                 name="simulated", overwrite=False, verbose=False, should_stop=lambda: False)
    seconds, wall = time.process_time() - before, time.perf_counter() - began
    share, rate = utilisation(study, options.workers)
    print(f"{options.pool}: {options.workers} workers, {len(study.ended)} trials of {options.seconds:g} s: utilisation "
          f"{share:.3f}, {rate:.1f} trials a second; {1000 * seconds / len(study.ended):.2f} ms CPU a trial, "
          f"{command.peak_memory_mb():.0f} MB at most in this process, {wall:.0f} s")
    if clock:
        for name, moments in zip(("", "CPU "), zip(*clock.moments)):
            parts = [(after - before) / clock.every * 1000 for before, after in zip(moments, moments[1:])]
            print(f"leader, ms {name}a trial, by tenths of the trials: " + " ".join(f"{part:.2f}" for part in parts))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.simulate", __doc__)
    parser.add_argument("--pool", choices=("clock", "local", "cluster"), default="clock")
    parser.add_argument("--workers", type=command.count, default=32)
    parser.add_argument("--trials", type=command.count, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trial; with --pool=clock half to one and a "
                        "half times so many")
    parser.add_argument("--tuner", choices=("random", "bayesian"), default="random")
    parser.add_argument("--folder", help="for the sweep; default: a temporary one (100,000 trials need 1.2 GB)")
    parser.add_argument("--serve", action="store_true", help="run a scheduler and workers until the input ends")
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.workers)
        return 0

    def body() -> int:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            simulate(options, folder)
        return 0

    return cli.run("simulate", body)


if __name__ == "__main__":
    sys.exit(main())
