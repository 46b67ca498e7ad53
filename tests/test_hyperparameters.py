"""Functions of the user's with hyper-parameters: keras-tuner's `build(hp)`, and plain keyword arguments."""

import inspect
import json
import pathlib

import keras_tuner
import pytest

import fmnist_zoo
from fmnist_zoo import arguments, models, registry
from fmnist_zoo.spec import ModelSpec, SpecError
from tests import hypermodels
from trainers.board import hparams
from trainers.config import SETTINGS, ConfigError, RunConfig, overlay, read_run, resolve
from trainers.sweep import main as sweep_main, sweep
from trainers.train import main, resume, train
from trainers.tuning import hypermodel, study

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
    taken = [*SETTINGS, *hparams.hyperparameters(resolve("4L")), *study.RESULTS, *inspect.signature(train).parameters,
             *inspect.signature(sweep).parameters]
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


@pytest.mark.long
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


@pytest.mark.long
def test_train_takes_arguments_of_a_function_and_a_recipe_wins_over_compile():
    run = train(hypermodels.cnn, filters=2, **SMALL)
    assert run.config.spec.name == "cnn,filters=2" and run.model.layers[0].filters == 2
    assert (run.config.recipe.optimizer, run.config.recipe.learning_rate) == ("rmsprop", 0.002)
    fmnist_zoo.register("slow", build=hypermodels.cnn, recipe=fmnist_zoo.Recipe(learning_rate=1e-4))
    run = train("slow", **SMALL)
    assert (run.config.recipe.optimizer, run.config.recipe.learning_rate) == ("rmsprop", 1e-4)


def searched(model, tuner="random", count=6, name="one", **more):
    """The table of a sweep of which the pool makes results up, and its folder."""
    table = sweep(model, tuner=tuner, max_trials=count, data="mini", epochs=9, logdir="logs", name=name, page=False,
                  **more)
    return table, study.load(f"logs/sweeps/{name}")


@pytest.mark.parametrize("function", [hypermodels.build_model, hypermodels.conditional, hypermodels.reserved])
def test_space_is_found_as_keras_tuner_finds_it(function, tmp_path):
    tuner = keras_tuner.RandomSearch(function, objective="val_loss", directory=tmp_path)
    expected = tuner.oracle.get_space().get_config()["space"]
    assert hypermodel.found(registry.spec_of(function).builder) == expected


@pytest.mark.parametrize("function", [hypermodels.build_model, hypermodels.conditional])
def test_random_tries_what_keras_tuner_tries(function, tmp_path, pretending_pool):
    class Stock(keras_tuner.RandomSearch):
        def run_trial(self, trial, **options):
            self.hypermodel.build(trial.hyperparameters)
            return 0.5

    tuner = Stock(function, max_trials=6, seed=4, directory=tmp_path)
    tuner.search(verbose=0)
    _, found = searched(function, seed=3)
    assert [{**trial.values, **trial.unused} for trial in found.trials.values()] == [
        {arguments.label(name): value for name, value in trial.hyperparameters.values.items()}
        for trial in tuner.oracle.trials.values()]


@pytest.mark.parametrize("function, tuner", [
    (hypermodels.build_model, "random"), *(pytest.param(*one, marks=pytest.mark.long) for one in (
        (hypermodels.build_model, "grid"), (hypermodels.build_model, "bayesian"), (hypermodels.build_model, "asha"),
        *((hypermodels.conditional, tuner) for tuner in ("random", "grid", "bayesian", "asha"))))])
def test_sweep_continues_as_if_it_had_not_stopped(function, tuner, pretending_pool, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    count = 23 if tuner == "bayesian" else 5  # beyond what it draws at random
    table, found = searched(function, tuner, count)
    run = pretending_pool.run
    monkeypatch.setattr(pretending_pool, "run", lambda job: stop() if job.folder.endswith("0002/0") else run(job))
    with pytest.raises(KeyboardInterrupt):
        searched(function, tuner, count, name="two")
    monkeypatch.setattr(pretending_pool, "run", run)
    again, restored = searched(function, tuner, count, name="two")
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in table]
    assert restored.space == found.space and [vars(trial) for trial in restored.trials.values()] == [
        vars(trial) for trial in found.trials.values()]
    assert len(table) >= min(count, 8) and {row["status"] for row in table} == {"COMPLETED"}
    for trial in found.trials.values():
        config = found.config(trial, 0)
        given = {arguments.label(name): value for name, value in config.spec.arguments}
        assert given == {name: value for name, value in trial.values.items()}
        asked = hypermodel.build(config, found.space, {}).values
        assert asked == given  # no more, and no less


def test_columns_of_a_space_that_grows_and_of_scopes(pretending_pool):
    _, found = searched(hypermodels.build_model)
    assert found.space.names == ("num_layers", "units_0", "hp.activation", "hp.dropout", "lr", "units_1", "units_2")
    rows = study.read_rows(found.path / "trials.csv", found.space)
    assert rows == [found.row(trial) for trial in found.trials.values()]
    for row in rows:
        units = [row.values[f"units_{index}"] is not None for index in range(3)]
        assert units == [index < row.values["num_layers"] for index in range(3)]
    table, _ = searched(hypermodels.conditional, name="two")
    assert {(row["model_type"], row["units"] is None, row["filters"] is None) for row in table} == {
        ("mlp", False, True), ("cnn", True, False)}


NESTED = [{"kind": "x"}, {"kind": "y", "wide": False}, *({"kind": "y", "wide": True, "units": n} for n in (5, 6, 7)),
          {"kind": "z"}]
SAME_NAME = [{"kind": kind, "units": n} for kind, several in (("small", (2, 3, 4)), ("large", (8, 9, 10)))
             for n in several]
SHRINKING = [*({"count": 2, "units_0": one, "units_1": other} for one in (4, 5) for other in (4, 5)),
             *({"count": 1, "units_0": one} for one in (4, 5))]


@pytest.mark.parametrize("function, tuner, combinations", [
    (hypermodels.nested, "grid", NESTED), (hypermodels.nested, "random", NESTED), (hypermodels.nested, "asha", NESTED),
    (hypermodels.same_name, "grid", SAME_NAME), (hypermodels.same_name, "random", SAME_NAME),
    (hypermodels.shrinking, "grid", SHRINKING)])
def test_each_combination_is_tried_once(function, tuner, combinations, pretending_pool):
    _, found = searched(function, tuner, None if tuner == "grid" else 12)
    tried = [trial.values for trial in found.trials.values() if not trial.parent]
    assert sorted(map(str, tried)) == sorted(map(str, combinations)) and found.is_finished


@pytest.mark.parametrize("function, space, label", [
    (hypermodels.switched, "units=2,3; biased=true,false", "biased"),
    (hypermodels.build_model, "hp.dropout=true", "hp.dropout")])
def test_switches_stay_switches(function, space, label, pretending_pool):
    table, found = searched(function, space=space, count=4)
    for trial, row in zip(found.trials.values(), study.read_rows(found.path / "trials.csv", found.space), strict=True):
        record = json.loads((found.path / trial.name / "trial.json").read_text(encoding="utf-8"))
        given = dict(found.config(trial, 0).spec.arguments)[arguments.name_of(label)]
        assert type(given) is bool and record["values"][label] is row.values[label] is given
    assert {row[label] for row in table} == {True, *[False] * ("false" in space)}
    assert [vars(trial) for trial in study.load(found.path).trials.values()] == [
        vars(trial) for trial in found.trials.values()]


def test_learning_rate_that_is_searched_in_vain_is_named(pretending_pool, capsys):
    fmnist_zoo.register("mine", build=hypermodels.build_model)
    flags = ["--data=mini", "--epochs=1", "--logdir=logs", "--model=mine", "--max_trials=1", "--page=false"]
    assert sweep_main([*flags, "--name=one", "--learning_rate=0.05"]) == 0
    assert "lr decides nothing if it is for that learning rate alone; --model=mine,lr=0.0" in capsys.readouterr().out
    assert sweep_main([*flags, "--name=two"]) == 0
    fmnist_zoo.register("cnn", build=hypermodels.cnn)  # its lr is not searched
    assert sweep_main([*flags, "--name=three", "--model=cnn", "--space=learning_rate=0.01,0.1"]) == 0
    assert "decides nothing" not in capsys.readouterr().out


def test_names_of_settings_and_columns_are_told_apart(pretending_pool):
    table, found = searched(hypermodels.reserved)
    lines = (found.path / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ("trial,hp.objective,hp.status,hp.dropout,hp.seed,lr,objective,objective_std,trained_epochs,"
                        "seed,seconds,status,reason")
    assert {row["hp.objective"] for row in table} == {4, 8} and {row["status"] for row in table} == {"COMPLETED"}
    for trial in found.trials.values():
        config = found.config(trial, 0)
        assert (config.spec.dropout, config.seed, config.recipe.optimizer) == ((), 0, "sgd")
        assert config.recipe.learning_rate == pytest.approx(trial.values["lr"], rel=1e-6)
        shown = hparams.hyperparameters(config)
        assert (shown["dropout"], shown["hp.dropout"]) == (0, trial.values["hp.dropout"])


def test_a_space_adds_settings_and_other_values(pretending_pool):
    table, found = searched(hypermodels.build_model, space="batch_size=100,200; units_0=4,5; lr=1e-3..2e-3", count=8)
    assert {row["batch_size"] for row in table} == {100, 200} and {row["units_0"] for row in table} <= {4, 5}
    assert all(1e-3 <= row["lr"] <= 2e-3 for row in table) and {row["num_layers"] for row in table} >= {1, 3}
    assert {found.config(trial, 0).recipe.batch_size for trial in found.trials.values()} == {100, 200}
    table, _ = searched("build_model,units_0=24,hp.dropout=true", name="fixed", learning_rate=0.5)
    assert {(row.get("units_0"), row.get("hp.dropout")) for row in table} == {(None, None)}
    best = json.loads(pathlib.Path("logs/sweeps/fixed/best.json").read_text(encoding="utf-8"))
    assert best["config"]["recipe"]["learning_rate"] == 0.5
    assert {"units_0": 24, "dropout": True}.items() <= best["config"]["spec"]["arguments"].items()


def test_plain_arguments_are_searched_by_a_space(pretending_pool):
    table, found = searched(hypermodels.cnn, space={"filters": [2, 3], "rate": "0.1..0.5", "kind": ["relu", "tanh"]})
    assert {row["filters"] for row in table} == {2, 3} and all(0.1 <= row["rate"] <= 0.5 for row in table)
    config = found.run_config(found.ranked[0])
    assert dict(config.spec.arguments).items() >= found.ranked[0].values.items()
    assert (config.recipe.optimizer, config.recipe.learning_rate) == ("rmsprop", 0.002)
    table, _ = searched(hypermodels.cnn, "asha", space="lr=log(1e-4..1e-2)", name="two")
    assert [row["objective"] for row in table] == pytest.approx([row["lr"] for row in table], rel=1e-5)


def test_values_with_which_a_function_raises_are_failed_trials(pretending_pool):
    table, found = searched(hypermodels.failing, "grid")
    assert [(row["units"], row["status"]) for row in table] == [(4, "COMPLETED"), (8, "FAILED")]
    assert table[1]["reason"].endswith("its function raises ValueError: eight is too many")
    assert found.is_finished


@pytest.mark.parametrize("function, more, complaint", [
    (hypermodels.build_model, {"space": "unitz_0=1,2"}, "no hyper-parameter is named 'unitz_0'; did you mean units_0"),
    (hypermodels.build_model, {"space": "units_0=a"}, "units_0 must be a whole number .*; in 'units_0=a'"),
    (hypermodels.cnn, {"space": "filterz=1,2"}, "no hyper-parameter is named 'filterz'; did you mean filters"),
    (hypermodels.cnn, {"space": "rate=0.1..0.5", "tuner": "grid"}, "a grid needs its values listed"),
    (hypermodels.fixed, {}, "--space: nothing to search, since the function of fixed asks hp for fixed values alone"),
    (hypermodels.nothing, {}, "its function returns None, not a keras.Model; is there a return"),
])
def test_a_space_that_the_function_does_not_have_is_refused(function, more, complaint):
    with pytest.raises((ConfigError, SpecError), match=complaint):
        searched(function, **more)
    assert not pathlib.Path("logs").exists()


def test_a_sweep_takes_no_model_that_is_built():
    with pytest.raises(ConfigError, match="a sweep builds a model for each trial: give it the function"):
        sweep(hypermodels.cnn())


@pytest.mark.long
def test_best_trial_of_a_function_is_trained_in_full(inline_pool):
    fmnist_zoo.register("mine", build=hypermodels.conditional)
    flags = ["--data=mini", "--epochs=1", "--logdir=logs"]
    assert sweep_main([*flags, "--model=mine", "--max_trials=2", "--page=false", "--name=s"]) == 0
    found = study.load("logs/sweeps/s")
    assert main(["--from_sweep=logs/sweeps/s", "--logdir=logs", "--run_name=best"]) == 0
    (path,) = pathlib.Path("logs").glob("mine*/best")
    config = read_run(path)[1]
    assert config == found.run_config(found.ranked[0])
    assert {arguments.label(name): value for name, value in config.spec.arguments} == found.ranked[0].values
    assert config.recipe.optimizer == found.ranked[0].values["hp.optimizer"]
