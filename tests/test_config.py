"""Settings laid over recipes; settings that exclude each other are refused by name."""

import dataclasses
import json
import pathlib

import pytest

import fmnist_zoo
from fmnist_zoo.errors import SpecError
from fmnist_zoo.spec import OPTIMIZERS, ModelSpec, Recipe
from trainers.config import ConfigError, RunConfig, overlay, read_record, resolve


@pytest.mark.parametrize("name", fmnist_zoo.list_models())
def test_defaults_are_the_recipe(name):
    config = resolve(name)
    assert config.recipe == fmnist_zoo.get_recipe(name) and config.spec == fmnist_zoo.get_spec(name)
    assert RunConfig.from_config(json.loads(json.dumps(config.get_config()))) == config


def test_settings_reach_spec_recipe_and_run():
    config = resolve("4L", dropout=0.3, epochs=7, seed=5, batch_size="full", l2=None)
    assert config.spec.name == "4D_drop03"
    assert (config.recipe.epochs, config.recipe.batch_size, config.seed) == (7, "full", 5)


def test_the_recipe_of_a_registered_model_may_name_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fmnist_zoo.register("student", recipe=Recipe(teacher="4L,tb_logs/one"), hidden=(9,))
    assert resolve("student").recipe.teacher == f"4L,{tmp_path}/tb_logs/one"
    assert resolve("student", teacher="4L").recipe.teacher == "4L"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_new_optimizer_comes_with_the_learning_rate_of_keras(optimizer):
    import keras

    from trainers.engine.fit import make_optimizer

    config = resolve("2L", optimizer=optimizer)
    assert isinstance(make_optimizer(config.recipe), keras.optimizers.Optimizer)
    assert OPTIMIZERS[optimizer].learning_rate == pytest.approx(
        float(type(make_optimizer(config.recipe))().learning_rate))
    assert resolve("2L", optimizer=optimizer, learning_rate=0.5).recipe.learning_rate == 0.5


def test_long_runs_write_pictures_less_often():
    assert (resolve("network_A").histogram_epochs, resolve("4L").histogram_epochs) == (100, 6)
    assert resolve("network_A", histogram_every=1).histogram_epochs == 1
    assert overlay(resolve("4L", epochs=3), epochs=100).histogram_epochs == 20  # not that of three epochs


@pytest.mark.parametrize("settings, text", [
    (dict(precision="float16"), "one of float32, mixed_bfloat16, received 'float16'"),
    (dict(precision="mixed_bfloat16", hidden=()), "is for hidden layers"),
    (dict(precision="mixed_bfloat16", trainer="fit"), "is for --trainer=tape; received 'fit'"),
    (dict(trainer="keras"), "received 'keras'"), (dict(seed=-1), "received -1"),
    (dict(seed=2**32), "received 4294967296"), (dict(data="cifar"), "received 'cifar'"),
    (dict(data="mini", data_dir="x"), "drop --data_dir"), (dict(allow_other_data=True), "--allow_other_data needs"),
    (dict(epoch=3), "no setting 'epoch'; did you mean epochs"), (dict(dropout=1.0), "received 1.0"),
    (dict(lr=0.1), r"no setting 'lr'; did you mean learning_rate\?$"), (dict(bs=8), r"did you mean batch_size\?$"),
    (dict(n_epochs=3), r"did you mean epochs\?$"), (dict(optimizer="SGD"), r"received 'SGD'; did you mean sgd\?$"),
    (dict(activation="swish"), r"received 'swish'; did you mean silu\?$"),
])
def test_refusal_names_the_value_received(settings, text):
    with pytest.raises(ValueError, match=text):
        resolve("4L", **settings)


def test_spec_that_is_not_registered_has_the_default_recipe():
    spec = dataclasses.replace(fmnist_zoo.get_spec("2L"), name="mine", hidden=(17,))
    config = resolve(spec, dropout=0.1)
    assert config.spec.name == "mine,dropout=0.1" and config.recipe == fmnist_zoo.Recipe()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}', '{"config": {"spec": {}, "recipe": {}}}'])
def test_broken_record_is_refused_with_its_path(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="config.json: not the config.json of a run"):
        read_record(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_record(tmp_path / "nothing.json")


def test_folder_of_data_is_recorded_so_that_it_serves_in_any_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for named in ("mine", pathlib.Path("mine"), tmp_path / "other" / ".." / "mine"):
        assert resolve("softmax", data_dir=named).data_dir == str(tmp_path / "mine")
    monkeypatch.setenv("FMNIST_ZOO_DATA", "mine")
    assert resolve("softmax", allow_other_data=True).data_dir == str(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("softmax", data_dir="~/mine").data_dir == str(tmp_path / "mine")
    assert resolve("softmax").data_dir == ""
    with pytest.raises(SpecError, match="data_dir must be text, received 3"):
        resolve("softmax", data_dir=3)


def test_threads_of_the_environment_are_recorded(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    assert resolve("softmax").threads == 2
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "8")
    assert resolve("softmax").threads == 8 and resolve("softmax", threads=1).threads == 1
    assert resolve("softmax").identity != resolve("softmax", threads=2).identity


def test_scratch_is_judged_by_content_not_by_name():
    assert resolve("4L", trainer="scratch", initializer="normal_0.05").spec.name == "4L,initializer=normal_0.05"
    for name, wrong in (("4L", "initializer=glorot_uniform"), ("network_A,dropout=0.3", "dropout="),
                        ("4L,initializer=normal_0.05,dropout=0.1_0.1_0.1", "dropout="),
                        ("network_A,activation=gelu", "activation=gelu"),
                        ("network_A,normalization=layer", "normalization=layer")):
        with pytest.raises(ConfigError, match=f"--trainer=scratch .* received .*{wrong}"):
            resolve(name, trainer="scratch")
    with pytest.raises(ConfigError, match="received network_A with optimizer=adamw, weight_decay=0.004"):
        resolve("network_A", trainer="scratch", optimizer="adamw")


@pytest.mark.parametrize("kind", [Recipe, ModelSpec])
def test_field_that_there_is_not_is_named(kind):
    with pytest.raises(SpecError, match=f"a {kind.__name__} has no 'momentums'; known: .*, "):
        kind.from_config({"momentums": 1})
