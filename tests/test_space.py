"""The space of a sweep: its text, its values, and the refusal of wrong ones."""

import dataclasses
import math

import pytest
from hypothesis import given, strategies as st

from fmnist_zoo import catalog, registry
from trainers.config import resolve
from trainers.tuning.plan import Plan
from trainers.tuning.space import SpaceError, apply, parse, parse_start, spell_start

BASE = resolve("4L", data="mini")


@pytest.mark.parametrize("text, size, values", [
    ("dropout=0,0.1,0.5", 3, (0.0, 0.1, 0.5)),
    (" l2 = 0 , 1e-5,1e-4 ;", 3, (0.0, 1e-5, 1e-4)),
    ("dropout=0..0.5", None, (0.0, 0.5)),
    ("l2=log(1e-6..1e-2)", None, (1e-6, 1e-2)),
    ("batch_size=32,full", 2, (32, "full")),
    ("epochs=2..9", 8, (2, 9)),
    ("hidden=300_100,none", 2, ("300_100", "none")),
    ("dropout=0.3_0.2_0.1,0", 2, ("0.3_0.2_0.1", 0.0)),
    ("dropout.2=.25..0.5", None, (0.25, 0.5)),
    ("activation=relu,gelu", 2, ("relu", "gelu")), ("shift=0,2", 2, (0, 2)),
    ("flip=true,False; hidden=9_9,8_8_4", 4, ("true", "false")),
])
def test_values_are_exactly_those_of_the_text(text, size, values):
    space = parse(text, BASE)
    assert space.parameters[0].values == values and space.size == size
    assert [type(value) for value in space.parameters[0].values] == [type(value) for value in values]
    assert parse(space.text, BASE) == space


@given(st.lists(st.floats(0, 0.999, allow_subnormal=False), min_size=1, max_size=6, unique=True),
       st.lists(st.floats(1e-12, 10), min_size=2, max_size=2, unique=True))
def test_canonical_text_reads_back_as_the_same_space(rates, ends):
    space = parse({"dropout": rates, "l2": "log({}..{})".format(*sorted(ends))}, BASE)
    assert parse(space.text, BASE) == space
    assert space.parameters[0].values == tuple(rates)


@pytest.mark.parametrize("text, quoted, problem", [
    ("dropout=0,0.1,x", "dropout=0,0.1,x", "received 'x'"),
    ("dropuot=1", "dropuot=1", "did you mean dropout"),
    ("l1=0; l2=0,-1", "l2=0,-1", "at least 0, received -1"),
    ("l2=0,nan", "l2=0,nan", "at least 0, received nan"),
    ("l2=0,1_0", "l2=0,1_0", "received '1_0'"),
    ("l1=0; dropout=0,1", "dropout=0,1", "[0, 1)"),
    ("l2=log(0..1)", "l2=log(0..1)", "above 0"),
    ("dropout.4=0,0.1", "dropout.4=0.0", "dropout.4 needs 4 hidden layers; there are 3"),
    ("dropout.x=0,0.1", "dropout.x=0,0.1", "dropout.1 is the rate"),
    ("dropout=0; dropout.1=0.1", "dropout.1=0.1", "keep one"),
    ("dropout.1=0; dropout=0.1", "dropout=0.1", "keep one"),
    ("l2=0; l2=1", "l2=1", "keep one"),
    ("l2=1e-5..1e-6", "l2=1e-5..1e-6", "smaller number to a larger"),
    ("optimizer=adam,lio", "optimizer=adam,lio", "must be one of"),
    ("optimizer=a..b", "optimizer=a..b", "no range"),
    ("l2=0,log(1e-5..1e-3)", "l2=0,log(1e-5..1e-3)", "without other values"),
    ("dropout=0,0.1_0.2", "dropout=0.1_0.2", "is not possible for 4L: dropout needs one rate"),
    ("hidden=9_9,none; activation=relu,gelu,silu", "hidden=none, activation=gelu", "not possible for 4L: activation="),
    ("flip=0,1", "flip=0,1", "flip must be true or false, received '0'"),
    ("hidden=300_100,300; dropout=0.2_0.1", "hidden=300, dropout=0.2_0.1", "is not possible"),
    ("batch_size=1.5", "batch_size=1.5", "whole number"),
    ("l2=", "l2=", "needs values"),
    ("l2", "l2", "needs values"),
    ("dropout=0.1,0.10", "dropout=0.1,0.10", "listed twice"),
    ("hidden=300,0", "hidden=300,0", "at least 1"),
    ("", "", "nothing to search"),
    ("dropout=0,,1", "dropout=0,,1", "received ''"),
    ("validation_size=0.1,0.2", "validation_size=0.1,0.2", "give one value for all trials, as --validation_size"),
    ("seed=0,1", "seed=0,1", "--executions=3 trains each trial with three seeds"),
    ("lr=1e-3,1e-2", "lr=1e-3,1e-2", "did you mean learning_rate?"), ("WD=0,1", "WD=0,1", "did you mean weight_decay?"),
    ("activation=relu,swish", "swish", "did you mean silu?"), ("optimizer=Adam", "Adam", "did you mean adam?"),
    ("dropout=0;0.1", "0.1", "are separated by semicolons, and the values of one by commas"),
])
def test_wrong_space_is_refused_in_one_line_that_quotes_the_part(text, quoted, problem):
    with pytest.raises(SpaceError, match="^--space: [^\n]*$") as caught:
        parse(text, BASE)
    assert problem in str(caught.value) and quoted in str(caught.value)


def test_values_that_exclude_the_engine_are_refused():
    base = resolve("network_A", trainer="scratch", data="mini")
    with pytest.raises(SpaceError, match="optimizer=rmsprop is not possible for network_A: --trainer=scratch"):
        parse("optimizer=adam,rmsprop", base)


@pytest.mark.parametrize("given, rate, decay", [((), 0.001, 0.004), (("learning_rate",), 0.05, 0.004),
                                                (("learning_rate", "weight_decay", "dropout"), 0.05, 0.0)])
def test_settings_given_by_hand_outlive_a_searched_optimizer(given, rate, decay):
    base = resolve("4D_drop03", learning_rate=0.05)
    recipe = apply(base, {"optimizer": "adamw", "hidden": "300_100"}, given=given).recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adamw", rate, decay)
    searched = apply(base, {"optimizer": "adamw", "learning_rate": 0.2}, given=given).recipe
    assert searched.learning_rate == 0.2


def test_plan_records_the_settings_given_by_hand():
    plan = Plan("2L", "optimizer=adam,sgd", tuner="grid", max_trials=None, objective="val_loss", executions=1,
                learning_rate=0.05, data="mini", epochs=None)
    assert plan.manifest()["given"] == ["data", "learning_rate"]


def test_grid_refuses_a_range():
    with pytest.raises(SpaceError, match="a grid needs its values listed"):
        parse("l2=0,1e-4; dropout=0..0.5", BASE, listed_only=True)


def test_values_are_laid_over_the_base_run():
    config = apply(BASE, {"dropout.1": 0.5, "dropout.3": 0.1, "l2": 1e-4, "batch_size": "full"}, seed=7)
    assert config.spec.dropout == (0.5, 0.0, 0.1) and config.spec.l2 == 1e-4
    assert config.recipe.batch_size == "full" and config.seed == 7
    assert apply(BASE, {"hidden": "none"}).spec.hidden == ()
    assert apply(BASE, {"dropout": "0.3_0.2_0.1"}).spec.name == "4D_drop03_02_01"
    assert apply(BASE, {"optimizer": "sgd"}).recipe.learning_rate == 0.01
    assert apply(BASE, {"hidden": "300_100", "dropout.2": 0.2}).spec.dropout == (0.0, 0.2)


@pytest.mark.parametrize("name", [name for name in registry.list_models() if not registry.get_spec(name).build])
def test_every_model_has_a_valid_default_space(name):
    base = resolve(name)
    space = parse(catalog.default_space(base.spec), base)
    assert {"l1", "l2"} <= set(space.names)
    assert all(0.0 in parameter.values for parameter in space.parameters)
    rates = [parameter for parameter in space.names if parameter.startswith("dropout")]
    schedule = len(set(base.spec.dropout)) > 1
    assert len(rates) == (len(base.spec.hidden) if schedule else bool(base.spec.hidden))
    assert space.size == math.prod(len(parameter.values) for parameter in space.parameters)


def test_space_is_frozen():
    parameter = parse("dropout=0,0.1", BASE).parameters[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameter.name = "l2"


RANGES = "dropout=0..0.5; l2=log(1e-6..1e-3); batch_size=32,full; epochs=2..9; hidden=300_100,300"


@pytest.mark.parametrize("start", [
    "dropout=.3; l2=1e-5; batch_size=full; epochs=3; hidden=300_100",
    {"dropout": 0.3, "l2": 1e-5, "batch_size": "full", "epochs": 3, "hidden": (300, 100)},
    ["hidden=300_100; dropout=0.3; epochs=3;l2=0.00001; batch_size=full"],
])
def test_given_combination_reads_back_as_the_same(start):
    space = parse(RANGES, BASE)
    points = parse_start(start, space)
    assert points == [{"dropout": 0.3, "l2": 1e-5, "batch_size": "full", "epochs": 3, "hidden": "300_100"}]
    assert list(points[0]) == list(space.names) and parse_start(spell_start(points), space) == points
    assert apply(BASE, points[0]).spec.hidden == (300, 100)


REST = "; l2=1e-5; batch_size=32; epochs=3; hidden=300"


@pytest.mark.parametrize("start, problem", [
    ("dropout=0.3", "l2, batch_size, epochs, hidden are missing; in 'dropout=0.3'"),
    ("dropout=0.3" + REST.replace("1e-5", "0"), "l2=0 is outside --space (l2=log(1e-06..0.001))"),
    ("dropout=0.6" + REST, "dropout=0.6 is outside --space (dropout=0.0..0.5)"),
    ("dropout=0.3_0.2_0.1" + REST, "dropout=0.3_0.2_0.1 is outside --space"),
    ("dropout=0.3" + REST.replace("300", "30"), "hidden=30 is outside --space (hidden=300_100,300)"),
    ("dropout=0.3" + REST.replace("=3;", "=2.5;"), "received '2.5'"),
    ("dropout=0.3; l1=0" + REST, "'l1' is not in --space"),
    ("dropout=0.3; dropout=0.2" + REST, "dropout has two values"),
    (["dropout=0.3" + REST, "dropout=0.30" + REST], "it is given twice"),
    ([3], "received 3"),
    ("dropout" + REST, "received ''"),
])
def test_wrong_start_is_refused_in_one_line(start, problem):
    with pytest.raises(SpaceError, match="^--start: [^\n]*$|^--start is [^\n]*$") as caught:
        parse_start(start, parse(RANGES, BASE))
    assert problem in str(caught.value)
