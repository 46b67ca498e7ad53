"""Records and tables that a log folder or the package holds: JSON, CSV and journals of runs, sweeps and weights."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import pathlib
import random
from typing import Any, Sequence

from fmnist_zoo import card, registry, results, weights
from fmnist_zoo.files import opened, read_json, sealed
from tests import runs as made_runs, sweeps
from tests.campaign import mutators
from tests.campaign.inputs import Target
from tests.campaign.targets import command, output, refused, wrong
from trainers import runs, sweep, train
from trainers.config import RunConfig, read_run
from trainers.running import comparing, listing, provenance, trained, verifying
from trainers.running.folder import RunFolder
from trainers.tuning import study

SPACE = "dropout=0,0.2; l2=log(1e-6..1e-2)"
OLD = pathlib.Path(__file__).parents[2] / "fixtures" / "v0.1.0" / "logs" / "2L,hidden=2,dropout=0.1"
SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"model": "softmax", "optimizer": "sgd", "batch_size": "full", "validation_size": 500},
    {"model": "4D_drop03_02_01", "schedule": "cosine", "warmup": 0.1, "ema": 0.9, "l2": 1e-5, "ranking": True},
    {"model": "network_A", "trainer": "scratch"},
    {"model": "2L", "hidden": (20, 20), "residual": True, "trainer": "fit", "normalization": "batch", "seed": 7})


def spelled(rng: random.Random, content: Any, others: Sequence[bytes] = (b"{}",)) -> bytes:
    """A record after some changes, with a digest that fits it, one that does not, or none."""
    plain = opened(content) if rng.random() < 0.9 else content
    changed = mutators.record(rng, plain)
    if isinstance(changed, dict) and rng.random() < 0.5:
        with contextlib.suppress(TypeError):
            changed = sealed(changed)
    return mutators.dumped(rng, changed, others)


class InRun(Target):
    """A file of a run that was made up; the first byte of an input says which run, the second what reads it."""

    file: str
    finished = True
    batch = 1000

    def prepare(self, folder: pathlib.Path) -> None:
        self.runs = [made_runs.make(folder / "logs", f"run{number}", finished=self.finished, losses=(0.5, 0.3, 0.4),
                                    epochs=3 if self.finished else 5, **{"model": "4L", **settings})
                     for number, settings in enumerate(SETTINGS)]
        for one in self.runs if self.finished else ():
            made_runs.evaluate(one)
        self.whole = [(one.path / self.file).read_bytes() for one in self.runs]
        self.other = made_runs.make(folder / "logs", "other")

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self.whole))
        return bytes([number, rng.randrange(5)]) + self.change(rng, self.whole[number])

    def change(self, rng: random.Random, whole: bytes) -> bytes:
        return spelled(rng, json.loads(whole))

    def check(self, content: bytes) -> None:
        one, how = self.runs[content[0]], content[1]
        path = one.path / self.file
        path.write_bytes(content[2:])
        try:
            self.read(one)
            if how == 0:
                command(train.main, [f"--resume={one.path}", "--dry_run"])
            elif how == 1:
                verifying.problems(one)
                with output():
                    listing.table([line for line in [listing.run(str(one.path), one.path.parent.name)] if line])
            elif how == 2:
                refused(lambda: comparing.text(comparing.read([str(one.path), str(self.other.path)], "logs")))
            elif how == 3:
                command(runs.main, [f"--logdir={one.path.parents[1]}", "--json"])
            else:
                refused(lambda: trained.spec_and_data(run=str(one.path)))
        finally:
            path.write_bytes(self.whole[content[0]])

    def read(self, one: RunFolder) -> None:
        pass


class Config(InRun):
    """`config.json`: a config that is read is written and read back as the same."""

    name, file = "config", "config.json"

    def change(self, rng: random.Random, whole: bytes) -> bytes:
        if rng.random() < 0.2:
            whole = (OLD / "fit" / "config.json").read_bytes()
        return spelled(rng, json.loads(whole))

    def read(self, one: RunFolder) -> None:
        found, said = refused(lambda: read_run(one.config))
        if said:
            return
        record, config = found
        if RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) != config or not config.owns(config.identity):
            wrong("is not read back as the same")
        refused(lambda: provenance.environments(record))
        command(train.main, [f"--config={one.config}", "--dry_run"])


class Result(InRun):
    name, file = "result", "result.json"

    def read(self, one: RunFolder) -> None:
        one.read_result()


class Evaluation(InRun):
    name, file = "evaluation", "evaluation/evaluation.json"


class Metrics(InRun):
    """`metrics.csv` of a run that is not finished, against Python's csv."""

    name, file, finished, batch = "metrics", "metrics.csv", False, 2000

    def change(self, rng: random.Random, whole: bytes) -> bytes:
        return mutators.table(rng, whole, self.whole)

    def read(self, one: RunFolder) -> None:
        found, said = refused(one.table.rows)
        refused(lambda: one.table.check(3, None))
        if said or not found:
            return
        header, *lines = (line for line in one.table.path.read_bytes().split(b"\n")[:-1])
        for row, line in zip(found, lines, strict=True):
            names = header.decode(errors="replace").rstrip("\r").split(",")
            cells = dict(zip(names, line.decode().rstrip("\r").split(",")))
            for name, value in row.items():
                if value is None and cells[name] or value is not None and float(cells[name]) != value:
                    wrong(f"other numbers: {name} is {value!r}, and {cells[name]!r} in the file")
        if [row["epoch"] for row in found] != list(range(1, len(found) + 1)):
            wrong("other epochs")


class Sweep(Target):
    """The records of a sweep; the first byte of an input says which file it is, the second what reads it."""

    name, batch = "sweep", 500
    _files = ("sweep.json", "0000/proposal.json", "0001/result.json", "0003/result.json", "starts.json",
              "journal.jsonl")

    def prepare(self, folder: pathlib.Path) -> None:
        self.path = folder / "logs" / "sweeps" / "one"
        found = sweeps.made(self.path, SPACE,
                            [(0.0, 1e-5), (0.2, 1e-4), (0.2, 1e-3), (0.0, 0.01)],
                            lambda values, seed: None if values["l2"] == 1e-3 else values["dropout"] + values["l2"])
        found.add_start({"versions": {"fmnist_zoo": "0.3"}, "commit": "c" * 40, "modules": {}, "trials": 4})
        result = json.loads((self.path / "0001" / "result.json").read_bytes())
        journal = "".join(json.dumps([name, read_json(self.path / name)]) + "\n" for name in self._files[1:4])
        (self.path / "journal.jsonl").write_text(journal + json.dumps(["0001/result.json", result]) + "\n")
        self.whole = [(self.path / name).read_bytes() for name in self._files]
        (self.path / "journal.jsonl").unlink()

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self._files))
        whole = self.whole[number]
        if self._files[number] != "journal.jsonl":
            return bytes([number, rng.randrange(6)]) + spelled(rng, json.loads(whole), self.whole)
        lines = whole.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = mutators.dumped(rng, mutators.record(rng, json.loads(lines[place])), self.whole)
        content = b"\n".join(lines) + b"\n"
        content = mutators.damaged(rng, content, self.whole) if rng.random() < 0.3 else content
        return bytes([number, rng.randrange(6)]) + content

    def check(self, content: bytes) -> None:
        name, how = self._files[content[0]], content[1]
        path = self.path / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content[2:])
        try:
            found, said = refused(lambda: study.load(self.path))
            if not said:
                self._check(found)
            if how == 0:
                command(sweep.main, [f"--show={self.path}"])
            elif how == 1:
                command(runs.main, [f"--logdir={self.path.parents[1]}"])
            elif how == 2:
                command(train.main, [f"--from_sweep={self.path}", "--dry_run"])
            elif how == 3:
                command(train.main, [f"--from_sweep={self.path / '0001'}", "--dry_run"])
            elif how == 4:
                command(runs.main, [f"--logdir={self.path.parents[1]}", "--verify"], failures=True)
            else:
                command(sweep.main, ["--model=4L", "--data=mini", "--name=one", f"--space={SPACE}",
                                     f"--logdir={self.path.parents[1]}", "--dry_run"])
        finally:
            path.unlink() if before is None else path.write_bytes(before)

    @staticmethod
    def _check(found: study.Study) -> None:
        """What is read can be listed, and ranked trials have numbers."""
        found.table()
        for trial in found.ranked:
            if not isinstance(trial.score, float) or not math.isfinite(trial.score):
                wrong(f"{trial.name} is ranked by {trial.score!r}")
        for trial in found.trials.values():
            refused(lambda: found.config(trial, 0))


class Manifest(Target):
    """The manifest of the weights in the package."""

    name, batch = "manifest", 1000

    def prepare(self, folder: pathlib.Path) -> None:
        whole = read_json(weights.FOLDER / "manifest.json")
        self._whole = {"models": {name: whole["models"][name] for name in list(whole["models"])[:2]}}
        self.path = folder / "manifest.json"

    def make(self, rng: random.Random) -> bytes:
        return spelled(rng, self._whole)

    def check(self, content: bytes) -> None:
        self.path.write_bytes(content)
        before, weights.FOLDER = weights.FOLDER, self.path.parent
        try:
            found, said = refused(weights.manifest)
            for name in found or ():
                if name in registry.list_models():
                    refused(lambda: card.card(registry.get_spec(name), registry.get_recipe(name)))
                    refused(lambda: trained.spec_and_data(model=name))
                    refused(lambda: weights.read_shipped(registry.get_spec(name)))
        finally:
            weights.FOLDER = before


class Scores(Target):
    """`results.csv`: what is read is written and read back as the same."""

    name, batch = "scores", 2000

    def prepare(self, folder: pathlib.Path) -> None:
        self._whole = b"".join(results.PATH.read_bytes().splitlines(keepends=True)[:6])
        self.path = folder / "results.csv"

    def make(self, rng: random.Random) -> bytes:
        return mutators.table(rng, self._whole, (self._whole,))

    def check(self, content: bytes) -> None:
        self.path.write_bytes(content)
        found, said = refused(lambda: results.read(self.path))
        if said or not found:
            return
        results.write(found, self.path)
        if results.read(self.path) != found:
            wrong("is not read back as the same")
        with open(self.path, newline="") as file:
            plain = list(csv.DictReader(file))
        if [float(row["test_nll"]) for row in plain] != [row["test_nll"] for row in found]:
            wrong("other numbers")
        refused(lambda: results.scores(found))


TARGETS = (Config(), Result(), Evaluation(), Metrics(), Sweep(), Manifest(), Scores())
