"""Recipes in runs and sweeps: exact resume, the length of a schedule, both sets of weights, teachers that change."""

import dataclasses
import json
import re

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import metrics, models, registry
from fmnist_zoo.backend import keras
from fmnist_zoo.errors import SpecError
from tests import helpers
from trainers import sweep
from trainers.config import RunConfig, overlay, resolve
from trainers.running.trained import from_run
from trainers.train import main, train
from trainers.tuning.space import SpaceError, apply, parse

pytestmark = pytest.mark.usefixtures("without_xla")

EVERYTHING = dict(schedule="cosine", warmup=0.1, label_smoothing=0.1, ema=0.9, clip_norm=0.5, shift=2, flip=True,
                  erase=6, mixup=0.3, normalization="batch", dropout=0.2)
SMALL = dict(hidden=(16, 12), checkpoint_every=1, histogram_every=0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a finished run; its name has a comma."""
    return train("2L", hidden=(8,), data="mini", epochs=2, logdir=tmp_path_factory.mktemp("teachers"),
                 run_name="one").folder


@pytest.fixture(scope="module")
def whole(teacher, tmp_path_factory):
    """A run of four epochs with every setting on, and pictures of the last one."""
    return train("3L", epochs=4, teacher=f"{teacher},softmax", logdir=tmp_path_factory.mktemp("whole"),
                 run_name="whole", data="mini", **{**SMALL, "histogram_every": 4}, **EVERYTHING)


@pytest.mark.long
def test_validation_and_kept_weights_are_of_the_mean(whole):
    images, labels = fmnist_zoo.load_data(("validation",), data="mini")["validation"]
    losses = {}
    for name in ("best", "last", "last_not_averaged"):
        model = models.build_model(whole.config.spec, weights=whole.folder / "weights" / f"{name}.safetensors")
        losses[name] = metrics.mean_cross_entropy(model(images / np.float32(255)).numpy(), labels)
    rows = whole.history
    assert losses["last"] == pytest.approx(rows[-1]["val_loss"], rel=1e-5)
    assert losses["best"] == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-5)
    assert losses["last_not_averaged"] != pytest.approx(losses["last"], rel=1e-5)
    saved = keras.saving.load_model(whole.folder / "model.keras")
    np.testing.assert_allclose(saved(images / np.float32(255)), whole.model(images / np.float32(255)), atol=1e-6)
    state = helpers.checkpoint_of(whole.folder).state
    np.testing.assert_array_equal(from_run(whole.folder).model.layers[-1].kernel, saved.layers[-1].kernel)
    raw = models.build_model(whole.config.spec, weights=whole.folder / "weights" / "last_not_averaged.safetensors")
    np.testing.assert_array_equal(raw.layers[-1].kernel, state["logits/kernel"])


@pytest.mark.long
def test_events_show_augmented_images_and_the_learning_rate(whole):
    (step, value), = helpers.summaries(whole.folder)["pictures/augmented"]
    assert step == 0 and value.tensor.string_val[2].startswith(b"\x89PNG")
    rates = helpers.scalars(whole.folder / "train")["optimizer/learning_rate"]
    assert list(rates.values()) == pytest.approx([row["learning_rate"] for row in whole.history])
    assert whole.history[0]["learning_rate"] > whole.history[-1]["learning_rate"] > 0
    for row in whole.history:
        assert row["objective"] != pytest.approx(row["loss"] + row["penalty"], rel=1e-3)


def test_events_have_no_pictures_if_none_are_asked_for(tmp_path):
    run = train("softmax", data="mini", epochs=1, batch_size="full", shift=1, histogram_every=0, logdir=tmp_path)
    assert not [tag for tag in helpers.summaries(run.folder) if tag.startswith("pictures/")]


def test_events_are_of_the_weights_that_count(tmp_path):
    run = train("softmax", data="mini", epochs=1, ema=0.9, logdir=tmp_path, histogram_every=1)
    events = helpers.summaries(run.folder)
    assert "pictures/augmented" not in events
    (_, value), = events["weights/logits/kernel"]
    kernels = [models.build_model("softmax", weights=run.folder / "weights" / f"{name}.safetensors").layers[-1].kernel
               for name in ("last", "last_not_averaged")]
    lowest = np.frombuffer(value.tensor.tensor_content)[0]
    assert lowest == pytest.approx(np.min(kernels[0]), rel=1e-6) != pytest.approx(np.min(kernels[1]), rel=1e-3)
    np.testing.assert_array_equal(run.model.layers[-1].kernel, kernels[0])


# The length of a schedule.

@pytest.mark.long
def test_run_goes_on_within_its_schedule_and_not_past_it(whole, tmp_path, capsys):
    settings = dict(schedule="one_cycle", warmup=0.1, seed=2, data="mini", **SMALL)
    folder = train("3L", epochs=2, schedule_epochs=4, logdir=tmp_path, run_name="parts", **settings).folder
    planned = train("3L", epochs=4, logdir=tmp_path, run_name="planned", **settings).folder
    assert main([f"--resume={folder}", "--epochs=4"]) == 0
    helpers.assert_equal_runs(folder, planned)
    assert f"--resume={folder} --epochs" not in capsys.readouterr().out  # there is nothing left to go on to
    for flags in (["--epochs=5"], ["--epochs=5", "--schedule_epochs=5"], ["--schedule_epochs=9"]):
        assert main([f"--resume={folder}", *flags]) == 2
        said = capsys.readouterr().err
        assert "schedule_epochs=" in said and said.count("\n") == 1, said
    assert main([f"--resume={folder}"]) == 0
    assert "of 4 epochs: so is the schedule of its learning rate; --config=" in capsys.readouterr().out


def test_schedule_is_as_long_as_the_run_unless_it_is_given():
    config = resolve("4L", schedule="cosine")
    assert config.recipe.horizon == 30 and '"schedule_epochs": 30' in config.identity
    assert "schedule_epochs" not in resolve("4L").identity
    assert overlay(config, epochs=50).recipe.horizon == 50
    assert overlay(config, epochs=50, schedule_epochs=90).recipe.horizon == 90
    assert overlay(config, schedule="constant").recipe.horizon == 0
    assert dataclasses.replace(registry.get_recipe("4N_512"), epochs=6).horizon == 6
    planned = RunConfig.from_config(resolve("4N_512", epochs=10, schedule_epochs=30).get_config())
    assert overlay(planned, epochs=20).recipe.horizon == 30  # what was given stays
    with pytest.raises(SpecError, match="epochs=31 goes past the end .* schedule_epochs=30"):
        overlay(planned, epochs=31)
    assert resolve("4L", schedule="cosine", epochs=29).identity != config.identity


@pytest.mark.parametrize("given, searched", [
    (dict(schedule="cosine"), {}), ({}, {"schedule": "cosine"}), ({}, {"warmup": 0.1})], ids=str)
def test_shorter_trial_of_a_sweep_has_the_first_part_of_its_schedule(given, searched):
    base = resolve("4L", ranking=True, epochs=9, **given)
    trials = [apply(base, searched, rung=epochs) for epochs in (1, 3, 9)]
    assert [one.recipe.horizon for one in trials] == [9, 9, 9]
    assert len({one.identity for one in trials}) == 1
    assert apply(base, {"schedule": "cosine", "epochs": 12}).recipe.horizon == 12  # which are searched themselves


def test_halving_searches_schedules(pretending_pool, tmp_path):
    table = sweep.sweep("softmax", "l2=0..0.001; schedule=cosine,constant", tuner="asha", data="mini", epochs=9,
                        logdir=tmp_path, name="one")
    lengths = set()
    for job in pretending_pool.jobs.values():
        recipe = RunConfig.from_config(job.config).recipe
        lengths.add((recipe.schedule, recipe.epochs, recipe.horizon))
    assert len({epochs for _, epochs, _ in lengths}) > 1
    assert {length for schedule, _, length in lengths if schedule == "cosine"} == {9}
    assert {length for schedule, _, length in lengths if schedule == "constant"} == {0}
    assert {row["schedule"] for row in table} == {"cosine", "constant"}


def test_winner_of_a_sweep_is_trained_with_a_schedule_of_its_own_length(inline_pool, tmp_path, capsys):
    sweep.sweep("softmax", {"schedule": ["cosine", "linear"]}, tuner="grid", data="mini", epochs=2, logdir=tmp_path,
                name="one")
    for flags, length in (([], 0), (["--epochs=5"], 0), (["--epochs=1", "--schedule_epochs=2"], 2)):
        assert main([f"--from_sweep={tmp_path / 'sweeps' / 'one'}", "--dry_run", *flags]) == 0
        assert json.loads(capsys.readouterr().out)["recipe"]["schedule_epochs"] == length


def test_values_that_exclude_each_other_are_refused():
    with pytest.raises(SpaceError, match="epochs=12, .* is not possible .* schedule_epochs=9"):
        parse("epochs=3,12; schedule=cosine; schedule_epochs=9", resolve("4L", ranking=True, epochs=9))


def test_every_setting_of_a_recipe_can_be_searched():
    text = ("label_smoothing=0..0.2; ema=0,0.999; clip_norm=0,1; shift=0..2; flip=true,false; erase=0,8; mixup=0..0.4; "
            "teacher=4L,tb_logs/one; teacher_weight=0.3,0.5; teacher_temperature=1,4; schedule=cosine,step; "
            "warmup=0,0.1; schedule_epochs=9,12")
    space = parse(text, resolve("4L", ranking=True, epochs=9))
    assert len(space.names) == 13 and parse(space.text, resolve("4L", ranking=True, epochs=9)) == space
    assert re.search(r"teacher=4L,/.*/tb_logs/one;", space.text)
