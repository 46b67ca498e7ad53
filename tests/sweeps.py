"""What the tests of sweeps share: pools without processes, and readers of a sweep's tables."""

import csv
import pathlib

from fmnist_zoo.data import load_data
from fmnist_zoo.files import write_json
from trainers.config import RunConfig, resolve
from trainers.tuning import execution, study, workers
from trainers.tuning.plan import Plan

BATCH = 1200  # above `LARGEST_XLA_BATCH`: XLA would compile for longer than these trials train, in the workers too
MODEL = "2L"
SPACE = {"dropout": [0, 0.5], "l2": [0, 0.001]}
EPOCHS = 40
LONG = dict(model="2L", epochs=EPOCHS, dropout=0.2)  # a trial that can be killed while it trains
GRID = dict(tuner="grid", data="mini", epochs=2)


class Inline:
    """A pool without processes: a job runs in this process when its outcome is waited for.

    Attributes:
        slots: how many jobs are accepted at once.
        lose: names of jobs whose worker dies; each entry is used once.
        order: 1 if the job that was submitted first ends first, -1 for the last one.
        ran: names of the jobs that were waited for.
        jobs: the jobs themselves, by name.
    """

    def __init__(self, slots=1, lose=(), order=1):
        self.slots, self.waiting, self.lose, self.order, self.ran, self.jobs = slots, {}, list(lose), order, [], {}

    def submit(self, name, job):
        assert len(self.waiting) < self.slots
        self.waiting[name] = self.jobs[name] = job

    def wait(self, timeout):
        name = list(self.waiting)[:: self.order][0]
        job = self.waiting.pop(name)
        self.ran.append(name)
        if name in self.lose:
            self.lose.remove(name)
            return [(name, {"status": execution.DIED, "reason": "killed"})]
        return [(name, self.run(job))]

    def run(self, job):
        return execution.run(job)

    def close(self):
        pass


class Pretending(Inline):
    """An inline pool that trains nothing: losses follow from the values, and a learning rate above 1 fails."""

    def run(self, job):
        config = RunConfig.from_config(job.config)
        leader = pathlib.Path(job.sweep, execution.LEADER)
        if not leader.exists() or leader.read_text() != job.leader:
            return {"status": execution.STOPPED}
        if config.recipe.learning_rate > 1:
            return {"status": "FAILED", "reason": "NaN or infinite objective"}
        loss = config.spec.l2 + config.recipe.learning_rate + sum(config.spec.dropout) + config.seed % 3 / 10
        return {"status": "COMPLETED", "epochs": config.recipe.epochs, "seconds": 1.0, "seed": config.seed,
                "final": {"ranking_loss": loss, "ranking_accuracy": 1 / (1 + loss)}}


def make_job(sweep_folder, name, *, model="softmax", parent=None, **settings):
    """A job of a sweep in `sweep_folder`, which it makes."""
    sweep_folder.mkdir(exist_ok=True)
    (sweep_folder / execution.LEADER).write_text("me")
    data = load_data(data="mini")
    defaults = {"epochs": 1, "data": "mini", "histogram_every": 0, "checkpoint_every": 1, "batch_size": BATCH}
    return execution.Job(
        config=resolve(model, ranking=True, **{**defaults, **settings}).get_config(),
        folder=str(sweep_folder / name / "0"), parent=parent, sweep=str(sweep_folder), leader="me",
        data={"sha256": data.sha256, "split_sha256": data.split_sha256})


def replace_pool(monkeypatch, inline):
    """Makes sweeps run in the pool `inline`, whatever workers they ask for; returns it."""
    monkeypatch.setattr(workers, "make", lambda workers, scheduler, threads: inline)
    return inline


def drive(oracle, loss, *, workers=1, count=None):
    """All trials that are proposed, or the first `count`; each ends with the result `loss(trial)`; None: it failed."""
    found, running = [], []
    while True:
        answer = ""
        while len(running) < workers and len(found) != count and answer not in ("wait", "done"):
            answer = oracle.propose(len(found))
            if not isinstance(answer, str):
                found.append(study.Trial(f"{len(found):04}", answer.values, 0, answer.epochs, answer.parent))
                running.append(found[-1])
                oracle.tell(found[-1])
        if not running:
            assert answer == "done" or len(found) == count
            return found
        end(running.pop(0), loss, oracle)


def end(trial, loss, oracle):
    """Ends a trial with the result `loss(trial)`; None: it failed."""
    trial.score = loss(trial)
    trial.status = "FAILED" if trial.score is None else "COMPLETED"
    oracle.tell(trial)


def rows_of(path):
    with open(pathlib.Path(path) / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def made(path, space, trials, score, *, halves=None, seeds=1, **options):
    """A sweep in the folder `path` whose trials were not trained.

    Args:
        trials: the values of each trial, in the order of the space.
        score: score(values as a dict, seed) is the loss on the half that ranks; None: the trial failed.
        halves: halves(values as a dict) is the loss on the half that chose the epoch; default: the other less 0.03.
        options: of the plan and its `model`; `lengths`, the epochs of each trial; and `parents`, the trials that they
            continue.
    """
    lengths, parents = (options.pop(name, [None] * len(trials)) for name in ("lengths", "parents"))
    plan = Plan(options.pop("model", "4L"), space, **{
        "tuner": "random", "max_trials": None, "objective": "val_loss", "executions": seeds, "data": "mini",
        "epochs": 30, **options})
    path.mkdir(parents=True)
    write_json(path / "sweep.json", {**plan.manifest(), "started": 0.0})
    found = study.load(path)
    found.add_start({"versions": {}, "commit": "", "modules": {}}, max_trials=len(trials), planned=len(trials))
    for values, epochs, parent in zip(trials, lengths, parents):
        trial = found.add(dict(zip(found.space.names, values)), epochs, parent)
        losses = [score(trial.values, trial.seed + execution) for execution in range(seeds)]
        if None in losses:
            found.fail(trial, "NaN")
            continue
        others = [halves(trial.values) if halves else loss - 0.03 for loss in losses]
        found.complete(trial, [
            {"epochs": epochs or 30, "seconds": 1.0, "seed": trial.seed + execution, "final": {
                "ranking_loss": loss, "val_loss": other, "ranking_accuracy": 1 - loss,
                "val_accuracy": 1 - other}} for execution, (loss, other) in enumerate(zip(losses, others))])
    found.finish()
    return found
