"""Functions of the user's with hyper-parameters: keras-tuner's `build(hp)`, and plain keyword arguments."""

import json
import pathlib

import pytest

import fmnist_zoo
from fmnist_zoo import arguments, models, registry
from fmnist_zoo.spec import ModelSpec, SpecError
from tests import hypermodels
from trainers.board import hparams
from trainers.config import SETTINGS, ConfigError, RunConfig, overlay, read_run, resolve
from trainers.train import main, resume, train

SMALL = dict(data="mini", epochs=1, histogram_every=0)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("value", [1, -3, True, False, 0.1, 1e-5, 1e16, "relu", "3", "-3.5", "1e+5", "true", "max pool",
                                   "a,b=c/ä", "", "+", "+41"], ids=repr)
def test_values_are_read_back_from_a_name_that_a_folder_can_have(value):
    spec = ModelSpec("mine", build="no:function", arguments={"x": value})
    text = arguments.write(value)
    assert (arguments.read(text), type(arguments.read(text))) == (value, type(value))
    ModelSpec(f"mine,x={text}", build="no:function")  # a name that is possible
    assert ModelSpec.from_config(json.loads(json.dumps(spec.get_config()))) == spec
    assert hash(spec)


@pytest.mark.parametrize("wrong", [{"x": [1]}, {"x": None}, {"x": float("nan")}, {3: 4}, 5], ids=repr)
def test_arguments_are_plain_values(wrong):
    with pytest.raises(SpecError, match="argument.* received"):
        ModelSpec("mine", build="no:function", arguments=wrong)


def test_no_setting_and_no_column_is_the_label_of_an_argument():
    taken = [*SETTINGS, *hparams.hyperparameters(resolve("4L"))]
    assert arguments.RESERVED.issuperset(name.partition(".")[0] for name in taken)
    labels = {name: arguments.label(name) for name in ("units", "lr", "dropout", "dropout.1", "seed", "hp.lr", "x.y")}
    assert labels == {"units": "units", "lr": "lr", "dropout": "hp.dropout", "dropout.1": "hp.dropout.1",
                      "seed": "hp.seed", "hp.lr": "hp.hp.lr", "x.y": "x.y"}


def test_a_function_with_keywords_has_a_name_for_each_change():
    base = fmnist_zoo.register("cnn", build=hypermodels.cnn)
    assert dict(base.arguments) == {"filters": 4, "rate": 0.3, "kind": "relu", "lr": 0.002}
    spec = fmnist_zoo.get_spec("cnn", filters=8, rate=0)
    assert spec.name == "cnn,filters=8,rate=0.0" and fmnist_zoo.get_spec(spec.name) == spec
    assert fmnist_zoo.get_spec(spec.name, filters=4, rate=0.3) == base
    assert models.build_model(spec).layers[0].filters == 8
    assert spec.parameters != base.parameters
    first, second = resolve(base), resolve("cnn", filters=8, batch_size=64)
    assert second.spec.name == "cnn,filters=8" and first.identity != second.identity
    assert RunConfig.from_config(json.loads(json.dumps(second.get_config()))) == second
    assert overlay(second, filters=4).spec == base


def test_what_a_function_does_not_take_is_refused():
    fmnist_zoo.register("cnn", build=hypermodels.cnn)
    fmnist_zoo.register("mine", build=hypermodels.build_model)
    with pytest.raises(ConfigError, match="no setting 'filterz'; did you mean filters"):
        resolve("cnn", filterz=3)
    with pytest.raises(SpecError, match="filters must be a whole number .*received 2.5"):
        resolve("cnn", filters=2.5)
    with pytest.raises(SpecError, match="no dropout to set; an argument of its function is called hp.dropout"):
        resolve("mine", dropout=0.2)
    with pytest.raises(SpecError, match="with unitz=3, cannot be trained: its function asks hp for no unitz; it asks "
                                        "for activation, dropout, lr, num_layers, units_0$"):
        models.build_model(registry.get_spec("mine", unitz=3))
    with pytest.raises(ConfigError, match="no setting 'units'"):
        resolve("4L", units=3)


def test_function_of_keras_tuner_is_trained_with_its_defaults_and_its_compile():
    fmnist_zoo.register("mine", build=hypermodels.build_model)
    run = train("mine", **SMALL)
    assert run.config.spec.name == "mine" and dict(run.config.spec.arguments) == {
        "num_layers": 1, "units_0": 8, "activation": "relu", "dropout": False, "lr": 1e-4}
    assert (run.config.recipe.optimizer, run.config.recipe.learning_rate) == ("adam", 1e-4)
    record, config = read_run(run.folder)
    assert config == run.config and record["config"]["spec"]["arguments"]["units_0"] == 8
    values = hparams.hyperparameters(config)
    assert (values["units_0"], values["hp.dropout"], values["dropout"], values["lr"]) == (8, "false", 0.0, 1e-4)


def test_arguments_of_a_command_are_in_the_name_of_the_model(capsys):
    fmnist_zoo.register("mine", build=hypermodels.build_model)
    flags = ["--data=mini", "--epochs=1", "--histogram_every=0", "--logdir=logs"]
    assert main([*flags, "--model=mine,num_layers=2,units_1=16,hp.dropout=true,lr=0.003", "--learning_rate=0.01"]) == 0
    assert "learning_rate=0.01 is given: learning_rate=0.003 of compile is not used" in capsys.readouterr().out
    (folder,) = runs()
    assert folder.parent.name == "mine,hp.dropout=true,lr=0.003,num_layers=2,units_1=16"
    config = read_run(folder)[1]
    units = [layer.units for layer in models.build_model(config.spec).layers if hasattr(layer, "units")]
    assert config.recipe.learning_rate == 0.01 and units == [8, 16, 10]
    assert main([f"--config={folder / 'config.json'}", "--logdir=logs", "--run_name=again"]) == 0
    assert read_run(folder.parent / "again")[1] == config
    longer = resume(folder, epochs=2)
    assert len(longer.history) == 2 and longer.config.spec == config.spec


def runs():
    return [path.parent for path in pathlib.Path("logs").glob("*/*/config.json")]


def test_train_takes_arguments_of_a_function_and_a_recipe_wins_over_compile():
    run = train(hypermodels.cnn, filters=2, **SMALL)
    assert run.config.spec.name == "cnn,filters=2" and run.model.layers[0].filters == 2
    assert (run.config.recipe.optimizer, run.config.recipe.learning_rate) == ("rmsprop", 0.002)
    fmnist_zoo.register("slow", build=hypermodels.cnn, recipe=fmnist_zoo.Recipe(learning_rate=1e-4))
    run = train("slow", **SMALL)
    assert (run.config.recipe.optimizer, run.config.recipe.learning_rate) == ("rmsprop", 1e-4)
