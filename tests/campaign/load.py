"""The part `load`: many trainings at once, many readers of TensorBoard, a sweep of 2,000 trials.

What was measured on the way is in the state folder, in a JSON file for each case. That of a sweep can be drawn:

    python -m tests.campaign.load build/campaign/load/sweep-2000.json docs/pictures/load.png
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, Iterator, Sequence

from benchmarks import browser
from fmnist_zoo.files import read_json, write_json
from tests.campaign import work
from tests.campaign.driver import Case, Part, register
from tests.campaign.processes import BIG, ended, flags_of, kill, started
from trainers.config import read_run

CASES = ("sweep:2000", "trainings:15", "readers:20:200")
SEEDS = 5  # of the trainings; each runs several times, and once alone
NETWORK = {"model": "2L", "hidden": 32, "data": "mini", "batch_size": BIG, "epochs": 8}
SHORT: dict[str, Any] = {"data": "mini", "batch_size": BIG, "epochs": 1, "histogram_every": 0}
MODELS = ("softmax", "2L", "3L")
SPACE = "l2=log(1e-7..1e-3); learning_rate=log(1e-4..1e-2)"
HOURS = 4  # in which a sweep must end
GROWTH_MB = 100  # of a sweep's leader from its first tenth on
FASTER = 2.0  # the leader's processor time for a trial at the end, by that at the beginning
APPEARS = 120  # seconds within which TensorBoard shows the last run
POINTS = 40  # of a line of the picture
PAUSE = 0.2  # seconds of a reader between two pages


class Load(Part):
    name = "load"
    about = "a sweep of 2,000 trials, 15 trainings at once in a folder, 20 readers of TensorBoard while 200 runs come"

    def cases(self, seed: int) -> Iterator[Case]:
        first = seed % len(CASES)  # other seeds begin with other cases
        return map(Case, (*CASES[first:], *CASES[:first]))

    def find(self, seed: int, id: str) -> Case | None:
        return Case(id) if id.split(":")[0] in ("trainings", "readers", "sweep") else None

    def run(self, case: Case, folder: pathlib.Path) -> str | None:
        kind, *counts = case.id.split(":")
        loads: dict[str, Callable[..., tuple[str | None, dict[str, Any]]]] = {
            "trainings": trainings, "readers": readers, "sweep": sweep}
        failure, measured = loads[kind](folder, *map(int, counts))
        self.keep.mkdir(parents=True, exist_ok=True)
        write_json(self.keep / f"{case.id.replace(':', '-')}.json", measured)
        return failure


def megabytes(process: int) -> float:
    """The memory that a process holds now; 0 if it is gone."""
    try:
        return int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    except OSError:
        return 0.0


def processor_seconds(process: int) -> float:
    """The time of the processor that a process has taken, without its children; 0 if it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    return [int(number) for path in pathlib.Path(f"/proc/{process}/task").glob("*/children")
            for number in path.read_text().split()]


def trainings(folder: pathlib.Path, count: int) -> tuple[str | None, dict[str, Any]]:
    """So many trainings that start at once, each without a name for its run; and each different one alone."""
    begun = time.monotonic()
    seconds: dict[int, float] = {}
    processes = [started("trainers.train", flags_of({**NETWORK, "seed": number % SEEDS, "logdir": folder / "together"}),
                         folder / f"{number}.txt") for number in range(count)]
    try:
        while len(seconds) < count:
            for number, process in enumerate(processes):
                if number not in seconds and process.poll() is not None:
                    seconds[number] = time.monotonic() - begun
            time.sleep(0.02)
    finally:
        for process in processes:
            kill(process)
    took = sorted(seconds.values())
    measured = {"seconds": took, "slowest by fastest": took[-1] / took[0]}
    for number, process in enumerate(processes):
        if process.returncode:
            return f"exit code {process.returncode}: {(folder / f'{number}.txt').read_text()[-300:]!r}", measured
    return _compared(folder, count), measured


def _compared(folder: pathlib.Path, count: int) -> str | None:
    """Whether the runs that trained together are all there, and each equals the one that trained alone."""
    from trainers.board import hparams

    found = collections.defaultdict(list)
    for path in sorted((folder / "together").glob("*/*/config.json")):
        found[read_run(path)[1].seed].append(path.parent)
    if (runs := sum(map(len, found.values()))) != count:
        return f"{count} trainings left {runs} folders"
    for seed, paths in found.items():
        flags = flags_of({**NETWORK, "seed": seed, "logdir": folder / "alone", "run_name": seed})
        if code := ended(started("trainers.train", flags, folder / "alone.txt")):
            return f"exit code {code} alone: {(folder / 'alone.txt').read_text()[-300:]!r}"
        (alone,) = (folder / "alone").glob(f"*/{seed}")
        expected = work.plain(work.run_outcome(alone))
        for path in paths:
            if other := work.difference(expected, work.plain(work.run_outcome(path))):
                return f"{path.name}, seed {seed}: {other}"
    columns = hparams._read(folder / "together" / hparams.FILE)
    if columns.get("seed") != {min(found), max(found)}:
        return f"TensorBoard's declaration has the seeds {columns.get('seed')}, not all of {sorted(found)}"
    return None


class Reader(threading.Thread):
    """Fetches what TensorBoard's page does, again and again, until it has seen all runs.

    Attributes:
        problems: what was wrong with an answer.
        seconds: how long each took.
    """

    def __init__(self, link: str, runs: int, until: threading.Event):
        super().__init__(daemon=True)
        self.address, self._runs, self._until = link.split("?")[0], runs, until
        self.problems: list[str] = []
        self.seconds: list[float] = []
        self.complete = False

    def run(self) -> None:
        while not (self._until.wait(PAUSE) or self.complete or self.problems):
            try:
                self.complete = self._page()
            except (OSError, ValueError, LookupError, TypeError) as error:
                self.problems.append(f"{type(error).__name__}: {error}")

    def _page(self) -> bool:
        """The tabs Time Series, Scalars and HParams; whether all runs are on each."""
        rows, tags = self.get("runs"), self.get("plugin/scalars/tags")
        shown = self.get("plugin/timeseries/tags")["scalars"]["tagDescriptions"]
        named = [row for row in tags if "loss" in tags[row]]
        if "loss" in shown:
            asked = urllib.parse.urlencode({"requests": json.dumps([{"plugin": "scalars", "tag": "loss"}])})
            (series,) = self.get("plugin/timeseries/timeSeries", asked)
            if missing := [row for row in named if row not in series["runToSeries"]]:
                raise ValueError(f"no points of {missing[0]}")
        if named:
            self.get(f"plugin/scalars/scalars?{urllib.parse.urlencode({'tag': 'loss', 'run': named[-1]})}")
        self.get("plugin/hparams/experiment", {"experimentName": ""})
        groups = self.get("plugin/hparams/session_groups", {
            "experimentName": "", "colParams": [], "startIndex": 0, "sliceSize": 100,
            "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]})
        # A run is two rows; the log folder itself is one without scalars.
        return (len(rows), len(tags), groups["totalSize"]) == (2 * self._runs + 1, 2 * self._runs, self._runs)

    def get(self, what: str, body: Any = None) -> Any:
        """An answer as JSON; a dict goes out as JSON, a text as a form."""
        kind = "application/x-www-form-urlencoded" if isinstance(body, str) else "application/json"
        data = body.encode() if isinstance(body, str) else body and json.dumps(body).encode()
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self.address}data/{what}", data, {
                    "Content-Type": kind}), timeout=browser.SECONDS) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            said = error.read()[:200] if isinstance(error, urllib.error.HTTPError) else b""
            raise ValueError(f"{what}: {error} {said!r}") from None
        finally:
            self.seconds.append(time.monotonic() - begun)


def readers(folder: pathlib.Path, count: int, runs: int) -> tuple[str | None, dict[str, Any]]:
    """So many readers of one server, while the log folder grows to so many runs."""
    from trainers import train

    logdir, over, memory = folder / "logs", threading.Event(), []

    def add(number: int) -> None:
        train.train(MODELS[number % len(MODELS)], **SHORT, seed=number, logdir=logdir, verbose=False)

    with work.quiet_engine():
        add(0)
        with browser.served(logdir, 3) as link:
            (server,) = [child for child in children(os.getpid()) if b"trainers.board.serve" in _command(child)]
            some = [Reader(link, runs, over) for _ in range(count)]
            try:
                for reader in some:
                    reader.start()
                for number in range(1, runs):
                    add(number)
                    memory.append(sum(map(megabytes, (server, *children(server)))))
                until = time.monotonic() + APPEARS
                while time.monotonic() < until and any(reader.is_alive() for reader in some):
                    time.sleep(0.1)
                memory.append(sum(map(megabytes, (server, *children(server)))))
            finally:
                over.set()
                for reader in some:
                    reader.join()
    seconds = sorted(second for reader in some for second in reader.seconds)
    measured = {"answers": len(seconds), "median seconds": seconds[len(seconds) // 2], "slowest": seconds[-1],
                "server MB at first": memory[0], "server MB at the end": memory[-1]}
    problems = [problem for reader in some for problem in reader.problems]
    problems += [f"not all of {runs} runs after {APPEARS} s" for reader in some if not (reader.complete or problems)]
    return (f"{len(problems)} of {count} readers: {problems[0]}" if problems else None), measured


def _command(process: int) -> bytes:
    return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()


def sweep(folder: pathlib.Path, count: int) -> tuple[str | None, dict[str, Any]]:
    """A sweep of so many trials with one worker; its leader's memory and processor time are read once a second."""
    flags = flags_of({"model": "softmax", **SHORT, "tuner": "random", "space": SPACE, "max_trials": count,
                      "workers": 1, "logdir": folder, "name": "one"})
    samples, until = [], time.monotonic() + 3600 * HOURS
    leader = started("trainers.sweep", flags, folder / "output.txt")
    try:
        while leader.poll() is None and time.monotonic() < until:
            samples.append((time.time(), megabytes(leader.pid), processor_seconds(leader.pid),
                            sum(map(processor_seconds, children(leader.pid)))))
            time.sleep(1.0)
    finally:
        kill(leader)
    if leader.returncode:
        return f"exit code {leader.returncode}: {(folder / 'output.txt').read_text()[-300:]!r}", {}
    return measured_sweep(folder / "sweeps" / "one", count, samples)


def measured_sweep(path: pathlib.Path, count: int, samples: Sequence[tuple[float, float, float, float]]
                   ) -> tuple[str | None, dict[str, Any]]:
    """Whether all trials are there and the leader stayed as it was.

    Args:
        samples: (Unix time, MB, seconds of the processor) of the leader, and those seconds of its worker.

    Returns:
        Also lists, one number a trial in the order in which they ended: the leader's `memory` (MB) and `processor`
        (seconds so far), the `worker`'s peak (MB) and `training` (seconds of the processor so far), `seconds` since the
        trial before ended, and `own`, between the trial's begin and its end.
    """
    from trainers.tuning import study

    trials = study.load(path).ended
    runs = [run for trial in trials for run in (trial.result or {})["executions"]]
    ends = [run["ended"] for run in runs]
    last, at = 0, []
    for end in ends:
        while last + 1 < len(samples) and samples[last + 1][0] <= end:
            last += 1
        at.append(samples[last])
    measured = {"memory": [one[1] for one in at], "processor": [one[2] for one in at],
                "training": [one[3] for one in at],
                "worker": [run["memory_mb"] for run in runs], "processes": len({run["pid"] for run in runs}),
                "seconds": [end - before for before, end in zip([runs[0]["began"], *ends], ends)],
                "own": [run["ended"] - run["began"] for run in runs]}
    if len({tuple(trial.values.values()) for trial in trials if trial.status == study.COMPLETED}) != count:
        return f"{len(trials)} trials ended, {len(runs)} of them well, instead of {count}", measured
    return not_flat(measured), measured


def not_flat(measured: dict[str, Any]) -> str | None:
    """What of the leader grew over a sweep."""
    memory, processor, count = measured["memory"], measured["processor"], len(measured["memory"])
    tenth, quarter = count // 10, count // 4
    if (grown := memory[-1] - memory[tenth]) > GROWTH_MB:
        return f"the leader grew by {grown:.0f} MB between trials {tenth} and {count}"
    first, last = processor[tenth + quarter] - processor[tenth], processor[-1] - processor[-1 - quarter]
    if last > FASTER * first:
        return f"the leader took {last:.1f} s for the last {quarter} trials, and {first:.1f} s for as many before"
    return None


def draw(measured: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """A picture of a sweep's memory and time over its trials."""
    from matplotlib.figure import Figure

    count = len(measured["own"])
    size = max(1, count // POINTS)
    ends = range(size, count, size)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    memory, time_ = figure.subplots(1, 2)
    memory.plot(measured["memory"], label="leader")
    memory.plot(measured["worker"], label="worker, at its peak")
    memory.set(xlabel="trials that have ended", ylabel="memory, MB", ylim=(0, None))
    for name, key in (("leader", "processor"), ("worker", "training")):
        total = measured[key]
        time_.plot(ends, [max(0.0, total[end] - total[end - size]) / size for end in ends],
                   label=f"{name}, of the processor")
    time_.plot(ends, [sum(measured["seconds"][end - size:end]) / size for end in ends], color="0.7", zorder=0,
               label="on the clock, of a shared core")
    time_.set(xlabel="trials that have ended", ylabel=f"seconds a trial, means of {size}", ylim=(0, None))
    for axis in (memory, time_):
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=88)


register(Load())

if __name__ == "__main__":
    draw(read_json(sys.argv[1]), sys.argv[2])
