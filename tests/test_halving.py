"""Asynchronous successive halving: what is drawn and promoted, that sweeps repeat and continue, and the same bits."""

import itertools
import math
import random
import shutil

import pytest

from tests import helpers
from tests.sweeps import Inline, Pretending, drive, end, replace_pool, without_times
from trainers import sweep
from trainers.config import RunConfig, read_record, resolve
from trainers.running.folder import RunFolder
from trainers.tuning import study, workers
from trainers.tuning.halving import Asha, planned, rungs
from trainers.tuning.space import parse, parse_start
from trainers.tuning.study import Trial

BASE = resolve("4L", data="mini")
ASKED = dict(model="softmax", space="l2=0..0.001; learning_rate=log(1e-4..1e-1)", tuner="asha", data="mini", epochs=9,
             max_trials=20, name="asha")
LISTED = "dropout=0,0.1,0.3_0.2_0.1; batch_size=32,full; shift=0..2"


def make(space="dropout=0..0.5", *, epochs=9, combinations=100, **settings):
    return Asha(parse(space, BASE), **{**dict(lower_is_better=True, seed=0, epochs=epochs, factor=3,
                                              combinations=combinations), **settings})


@pytest.mark.parametrize("epochs, factor, expected", [
    (27, 3, [1, 3, 9, 27]), (30, 3, [2, 4, 10, 30]), (26, 3, [3, 9, 26]), (8, 2, [1, 2, 4, 8]), (2, 3, [2]),
    (1, 3, [1]),
])
def test_rungs_end_with_the_epochs_asked_for(epochs, factor, expected):
    assert rungs(epochs, factor) == expected


def test_number_of_trials_is_about_that_of_the_rungs():
    assert [planned(combinations, 27, 3) for combinations in (27, 100, 1)] == [27 + 9 + 3 + 1, 100 + 33 + 11 + 3, 4]


def test_promotions_are_those_computed_by_hand():
    """The rungs are of 1, 3 and 9 epochs. Each line has the epochs and the parent of a proposal, and its loss."""
    asha, trials = make(), []
    for number, (epochs, parent, loss) in enumerate([
        (1, None, 0.5), (1, None, 0.3), (1, None, 0.4),
        (3, "0001", 0.25),  # the best of three; alone in its rung, it waits
        (1, None, 0.1),
        (3, "0004", 0.05),  # the best of four; 0001 is second now, and was promoted before
        (1, None, None),  # a failed trial counts: 4 + 1 trials, of which one may be promoted
        (1, None, 0.2),
        (3, "0007", 0.15),  # two of six: 0004, and 0007
        (9, "0005", 0.04),  # the best of three in the second rung comes before new combinations
        (1, None, 0.1),
        (3, "0010", 0.2),  # two of seven: 0004 and its equal, which now come before 0007
        (1, None, 0.1),  # third of eight
        (1, None, 0.9),
        (3, "0012", 0.2),  # three of nine
    ]):
        proposal = asha.propose(number)
        assert proposal[1:] == (epochs, parent)
        if parent:
            assert proposal.values == trials[int(parent)].values
        trials.append(Trial(f"{number:04}", proposal.values, 0, *proposal[1:]))
        asha.tell(trials[-1])
        end(trials[-1], lambda trial: loss, asha)


def test_high_objectives_are_promoted_where_high_is_good():
    found = drive(make(lower_is_better=False), lambda trial: (0.1, 0.9, 0.5, 0.0)[trial.number], count=4)
    assert found[3].parent == "0001"


def falling(trial):
    return trial.values["dropout"] / trial.epochs


def test_tuner_that_is_told_of_the_trials_goes_on_as_the_one_before():
    """A new tuner takes over after each number of trials, and gets these in a random order."""
    whole = drive(make(combinations=30), falling)
    for left in range(len(whole)):
        again = make(combinations=30)
        for trial in random.Random(left).sample(whole[:left], left):
            again.tell(trial)
        assert again.propose(left) == (whole[left].values, whole[left].epochs, whole[left].parent)


@pytest.mark.parametrize("combinations, workers", [(27, 1), (27, 5), (4, 1), (1, 3), (81, 2)])
def test_best_third_of_each_rung_is_promoted_and_one_reaches_the_last(combinations, workers):
    found = drive(make(combinations=combinations, epochs=27), falling, workers=workers)
    assert sum(one.parent is None for one in found) == combinations
    assert max(one.epochs for one in found) == 27
    for lower, upper in itertools.pairwise((1, 3, 9, 27)):
        promoted = {one.parent for one in found if one.epochs == upper}
        ranked = sorted((one for one in found if one.epochs == lower), key=lambda one: one.values["dropout"])
        assert {one.name for one in ranked[:len(ranked) // 3]} <= promoted
    assert len(found) >= sum(math.floor(combinations / 3**level) for level in range(4))


def test_sweep_of_failures_ends():
    assert len(drive(make(combinations=9), loss=lambda trial: None)) == 9
    found = drive(make(combinations=9), loss=lambda one: None if one.parent else one.values["dropout"])
    assert {one.epochs for one in found} == {1, 3} and len(found) >= 12


@pytest.mark.parametrize("seed", range(3))
def test_listed_values_are_all_drawn_once_after_the_given_ones(seed):
    given = ["dropout=0.1; batch_size=full; shift=2", "shift=0; dropout=0.3_0.2_0.1; batch_size=32"]
    start = parse_start(given, parse(LISTED, BASE))
    first, other = (make(LISTED, epochs=1, seed=one, start=start) for one in (seed, seed + 1))
    drawn = [trial.values for trial in drive(first, lambda trial: 0.5)]
    assert drawn[:2] == start
    every = itertools.product((0.0, 0.1, "0.3_0.2_0.1"), (32, "full"), range(3))
    assert sorted((tuple(values.values()) for values in drawn), key=str) == sorted(every, key=str)
    assert [trial.values for trial in drive(other, lambda trial: 0.5)] != drawn


def test_ranges_are_drawn_evenly_with_their_ends():
    space = "dropout=0..0.5; l2=log(1e-6..1e-2); shift=2..4; batch_size=log(16..1024)"
    drawn = [trial.values for trial in drive(make(space, epochs=1, combinations=600), lambda trial: 0.5)]
    for values in drawn:
        assert 0 <= values["dropout"] <= 0.5 and 1e-6 <= values["l2"] <= 1e-2 and 16 <= values["batch_size"] <= 1024
        assert type(values["shift"]) is int and type(values["batch_size"]) is int
    assert {values["shift"] for values in drawn} == {2, 3, 4}
    for name, middle in (("dropout", 0.25), ("l2", 1e-4), ("batch_size", 128)):
        assert 240 < sum(values[name] < middle for values in drawn) < 360


class Halved(Pretending):
    """Losses that fall with the epochs; `chance` of no result in time, and an end in any order."""

    def __init__(self, slots=1, seed=None):
        super().__init__(slots)
        self.dice = random.Random(seed) if seed is not None else None

    def wait(self, timeout):
        if self.dice:
            if self.dice.random() < 0.5:
                return []
            self.order = self.dice.choice((1, -1))
        return super().wait(timeout)

    def run(self, job):
        outcome = super().run(job)
        if outcome["status"] == "COMPLETED":
            epochs = RunConfig.from_config(job.config).recipe.epochs
            outcome["final"]["ranking_loss"] = round(outcome["final"]["ranking_loss"], 3) + 1 / epochs
        return outcome


class Killed(BaseException):
    pass


def swept(logdir, monkeypatch, inline, **changes):
    replace_pool(monkeypatch, inline)
    return sweep.sweep(**{**ASKED, **changes}, logdir=logdir)


@pytest.fixture
def calm(tmp_path, monkeypatch):
    """The table of a sweep with one worker that nothing interrupted."""
    return swept(tmp_path / "calm", monkeypatch, Halved())


def test_one_worker_finds_the_same_whatever_the_timing(calm, tmp_path, monkeypatch):
    assert len(calm) > 26 and max(row["trained_epochs"] for row in calm) == 9
    for seed in range(3):
        assert swept(tmp_path / str(seed), monkeypatch, Halved(seed=seed)) == calm


def kill_at_writes(patch, dice):
    """Ends the leader before or after one of the next times that it writes records, or a file of one."""
    left = [dice.randrange(1, 16)]

    def deadly(real):
        def write(*arguments, **how):
            left[0] -= 1
            if left[0] < 0 or not left[0] and dice.random() < 0.5:
                raise Killed
            real(*arguments, **how)
            if not left[0]:
                raise Killed

        return write

    patch.setattr(study, "write_json", deadly(study.write_json))


@pytest.mark.parametrize("slots", [1, 4])
def test_leader_that_is_killed_at_any_moment_loses_nothing(slots, calm, tmp_path, monkeypatch):
    dice, kills, table = random.Random(slots), 0, None
    while table is None:
        with monkeypatch.context() as patch:
            kill_at_writes(patch, dice)
            inline = Halved(slots, seed=kills if slots > 1 else None)
            try:
                table = swept(tmp_path / "killed", patch, inline)
            except Killed:
                kills += 1
    assert kills > 5
    if slots == 1:
        assert table == calm
    assert all(row["status"] == "COMPLETED" for row in table)
    found = study.load(tmp_path / "killed" / "sweeps" / "asha")
    drawn = [trial.values for trial in found.trials.values() if not trial.parent]
    assert drawn == [trial.values for trial in
                     study.load(tmp_path / "calm" / "sweeps" / "asha").trials.values() if not trial.parent]
    assert len({trial.parent for trial in found.trials.values() if trial.parent}) == len(table) - 20


def test_finished_sweep_starts_no_worker_and_more_combinations_continue_it(calm, tmp_path, monkeypatch):
    few = swept(tmp_path / "logs", monkeypatch, Halved(), max_trials=4)
    assert [row["trained_epochs"] for row in few].count(9) == 1  # by the algorithm alone, four promote one, once
    with monkeypatch.context() as patch:
        patch.delattr(workers, "make")
        assert sweep.sweep(**{**ASKED, "max_trials": 4}, logdir=tmp_path / "logs") == few
    more = swept(tmp_path / "logs", monkeypatch, Halved())
    assert {row["trial"] for row in few} < {row["trial"] for row in more}
    assert {(row["l2"], row["learning_rate"]) for row in more} == {(row["l2"], row["learning_rate"]) for row in calm}


@pytest.mark.long
@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize("kept", [True, False])
def test_promoted_trial_equals_an_uninterrupted_run_bit_for_bit(kept, tmp_path, monkeypatch):
    states = {}

    class Forgetting(Inline):
        """Before a promoted trial runs, the checkpoint of its parent is deleted, unless `kept`."""

        def run(self, job):
            if job.parent:
                assert RunFolder(job.parent).checkpoint.exists()
                if not kept:
                    shutil.rmtree(RunFolder(job.parent).checkpoint.parent)
            outcome = super().run(job)
            states[job.folder] = helpers.state_digest(job.folder)
            return outcome

    replace_pool(monkeypatch, Forgetting())
    table = sweep.sweep("2L", "dropout=0.1..0.5", tuner="asha", factor=2, epochs=4, max_trials=4, schedule="cosine",
                        data="mini", name="asha", logdir=tmp_path)
    last = next(row["trial"] for row in table if row["trained_epochs"] == 4)
    promoted = tmp_path / "sweeps" / "asha" / last / "0"
    config = RunConfig.from_config(read_record(promoted)["config"])
    assert config.recipe.epochs == config.recipe.horizon == 4
    (tmp_path / "alone").mkdir()
    alone = helpers.execute(tmp_path / "alone", config, lambda: False)
    assert helpers.rows_without_times(promoted) == helpers.rows_without_times(alone.folder)
    assert states[str(promoted)] == helpers.state_digest(alone.folder)
    assert RunFolder(promoted).read_result()["final"] == alone.result["final"]


@pytest.mark.parametrize("wrong, message", [
    (dict(space="epochs=1,2", epochs=None), "--tuner=asha sets the epochs itself"),
    (dict(factor=1), "factor must be a whole number of at least 2"),
    (dict(tuner="random", factor=3), "--factor is for --tuner=asha; received --tuner=random"),
])
def test_wrong_halving_is_refused(wrong, message, pretending_pool, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep.sweep(**{**ASKED, **wrong}, logdir=tmp_path)


def test_other_factor_is_another_sweep(calm, tmp_path):
    with pytest.raises(ValueError, match="holds another sweep: factor was 3, now 2"):
        sweep.sweep(**ASKED, factor=2, logdir=tmp_path / "calm")
    assert without_times(calm)
