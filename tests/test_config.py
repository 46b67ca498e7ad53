"""Settings laid over recipes; what does not go together is refused by name."""

import dataclasses
import json

import pytest

import fmnist_zoo
from fmnist_zoo.spec import OPTIMIZERS
from trainers import config as configs
from trainers.config import ConfigError, RunConfig, resolve


@pytest.mark.parametrize("name", fmnist_zoo.list_models())
def test_defaults_are_the_recipe(name):
    config = resolve(name)
    assert config.recipe == fmnist_zoo.get_recipe(name) and config.spec == fmnist_zoo.get_spec(name)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_find_their_place():
    config = resolve("4L", dropout=0.3, epochs=7, seed=5, batch_size="full", l2=None)
    assert config.spec.name == "4D_drop03"
    assert (config.recipe.epochs, config.recipe.batch_size, config.seed) == (7, "full", 5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_brings_keras_learning_rate(optimizer):
    import keras

    from trainers.engine.fit import make_optimizer

    config = resolve("2L", optimizer=optimizer)
    assert isinstance(make_optimizer(config.recipe), keras.optimizers.Optimizer)
    assert OPTIMIZERS[optimizer].learning_rate == pytest.approx(
        float(type(make_optimizer(config.recipe))().learning_rate))
    assert resolve("2L", optimizer=optimizer, learning_rate=0.5).recipe.learning_rate == 0.5


def test_long_runs_save_and_draw_less_often():
    assert (resolve("network_A").checkpoint_every, resolve("network_A").histogram_every) == (50, 100)
    assert (resolve("4L").checkpoint_every, resolve("4L").histogram_every) == (3, 6)
    assert resolve("network_A", checkpoint_every=1).checkpoint_every == 1


@pytest.mark.parametrize("settings, text", [
    (dict(precision="float16"), "one of float32, mixed_bfloat16; received 'float16'"),
    (dict(precision="mixed_bfloat16", hidden=()), "is for hidden layers"),
    (dict(precision="mixed_bfloat16", trainer="fit"), "is for --trainer=tape; received 'fit'"),
    (dict(trainer="keras"), "received 'keras'"), (dict(seed=-1), "received -1"),
    (dict(seed=2**32), "received 4294967296"),
    (dict(checkpoint_every=0), "received 0"), (dict(data="cifar"), "received 'cifar'"),
    (dict(data="mini", data_dir="x"), "drop --data_dir"), (dict(allow_other_data=True), "--allow_other_data needs"),
    (dict(epoch=3), "no setting 'epoch'; did you mean epochs"), (dict(epochs=0), "received 0"),
    (dict(epochs=2.5), "received 2.5"), (dict(validation_size=0, early_stopping=3), "validation_size=0 leaves none"),
    (dict(dropout=1.0), "received 1.0"), (dict(batch_size="half"), "received 'half'"),
    (dict(learning_rate=float("nan")), "received nan"),
])
def test_refusals_say_what_was_received(settings, text):
    with pytest.raises(ValueError, match=text):
        resolve("4L", **settings)


def test_differences_name_settings():
    old = resolve("4L")
    new = configs.overlay(old, l2=0.5, batch_size=32)
    found = configs.differences(old, new)
    assert found == {"l2": (0.0, 0.5), "batch_size": (256, 32)}


def test_a_spec_nobody_registered():
    spec = dataclasses.replace(fmnist_zoo.get_spec("2L"), name="mine", hidden=(17,))
    config = resolve(spec, dropout=0.1)
    assert config.spec.name == "mine,dropout=0.1" and config.recipe == fmnist_zoo.Recipe()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}', '{"config": {"spec": {}, "recipe": {}}}'])
def test_a_broken_record_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="config.json: not the config.json of a run"):
        configs.read_record(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        configs.read_record(tmp_path / "nothing.json")
