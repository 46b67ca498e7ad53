"""A sweep's space: what its text means, that it reads back as itself, and that a wrong one shows the place."""

import dataclasses
import math

import pytest
from hypothesis import given, strategies as st

from fmnist_zoo import catalog, registry
from trainers import config as configs
from trainers.tuning import space as spaces

BASE = configs.resolve("4L", data="mini")


@pytest.mark.parametrize("text, size, values", [
    ("dropout=0,0.1,0.5", 3, (0.0, 0.1, 0.5)),
    (" l2 = 0 , 1e-5,1e-4 ;", 3, (0.0, 1e-5, 1e-4)),
    ("dropout=0..0.5", None, (0.0, 0.5)),
    ("l2=log(1e-6..1e-2)", None, (1e-6, 1e-2)),
    ("batch_size=32,full", 2, (32, "full")),
    ("epochs=2..9", None, (2, 9)),
    ("hidden=300_100,none", 2, ("300_100", "none")),
    ("dropout=0.3_0.2_0.1,0", 2, ("0.3_0.2_0.1", 0.0)),
    ("dropout.2=.25..0.5", None, (0.25, 0.5)),
])
def test_values_are_those_of_the_text_exactly(text, size, values):
    space = spaces.parse(text, BASE)
    assert space.parameters[0].values == values and space.size == size
    assert [type(value) for value in space.parameters[0].values] == [type(value) for value in values]
    assert spaces.parse(space.text, BASE) == space


@given(st.lists(st.floats(0, 0.999, allow_subnormal=False), min_size=1, max_size=6, unique=True),
       st.lists(st.floats(1e-12, 10), min_size=2, max_size=2, unique=True))
def test_what_is_written_reads_back(rates, ends):
    space = spaces.parse({"dropout": rates, "l2": "log({}..{})".format(*sorted(ends))}, BASE)
    assert spaces.parse(space.text, BASE) == space
    assert space.parameters[0].values == tuple(rates)


@pytest.mark.parametrize("text, place, problem", [
    ("dropout=0,0.1,x", "x", "takes a number"),
    ("dropuot=1", "dropuot", "did you mean dropout"),
    ("l2=0,-1", "-1", "at least 0"),
    ("l2=0,nan", "nan", "at least 0"),
    ("l2=0,1_0", "1_0", "takes a number"),
    ("l1=0; dropout=0,1", "1", "[0, 1)"),
    ("l2=log(0..1)", "log(0..1)", "above 0"),
    ("dropout.4=0,0.1", "dropout.4", "dropout.1 to dropout.3"),
    ("dropout.x=0,0.1", "dropout.x", "dropout.1 to dropout.3"),
    ("dropout=0; dropout.1=0.1", "dropout.1", "keep one"),
    ("l2=1e-5..1e-6", "1e-5..1e-6", "smaller number to a larger"),
    ("optimizer=adam,lion", "lion", "must be one of"),
    ("optimizer=a..b", "a..b", "no range"),
    ("l2=0,log(1e-5..1e-3)", "0,log(1e-5..1e-3)", "alone"),
    ("dropout=0,0.1_0.2", "dropout=0,0.1_0.2", "does not go together"),
    ("hidden=300_100,300; dropout=0.2_0.1", "dropout=0.2_0.1", "does not go together"),
    ("batch_size=1.5", "1.5", "whole number"),
    ("l2=", "l2=", "needs values"),
    ("l2", "l2", "needs values"),
    ("dropout=0.1,0.10", "0.10", "twice"),
    ("hidden=300,0", "0", "at least 1"),
    ("", "", "nothing to search"),
    ("dropout=0,,1", ",", "takes a number"),
])
def test_a_wrong_space_shows_the_place(text, place, problem):
    with pytest.raises(spaces.SpaceError, match=r"--space, character \d+") as caught:
        spaces.parse(text, BASE)
    message, shown, mark = str(caught.value).split("\n")
    assert problem in message and shown[2:] == text
    start = len(mark) - len(mark.lstrip())
    assert shown[start:start + mark.count("^")].strip() == place
    assert f"character {start - 1}:" in message


def test_a_range_is_refused_where_values_must_be_listed():
    with pytest.raises(spaces.SpaceError, match="a grid needs its values listed"):
        spaces.parse("l2=0,1e-4; dropout=0..0.5", BASE, listed_only=True)


def test_values_become_the_run_they_say():
    config = spaces.apply(BASE, {"dropout.1": 0.5, "dropout.3": 0.1, "l2": 1e-4, "batch_size": "full"}, seed=7)
    assert config.spec.dropout == (0.5, 0.0, 0.1) and config.spec.l2 == 1e-4
    assert config.recipe.batch_size == "full" and config.seed == 7
    assert spaces.apply(BASE, {"hidden": "none"}).spec.hidden == ()
    assert spaces.apply(BASE, {"dropout": "0.3_0.2_0.1"}).spec.name == "4D_drop03_02_01"
    assert spaces.apply(BASE, {"optimizer": "sgd"}).recipe.learning_rate == 0.01
    assert spaces.apply(BASE, {"hidden": "300_100", "dropout.2": 0.2}).spec.dropout == (0.0, 0.2)


@pytest.mark.parametrize("name", registry.list_models())
def test_every_model_has_a_default_space(name):
    base = configs.resolve(name)
    space = spaces.parse(catalog.default_space(base.spec), base)
    assert {"l1", "l2"} <= set(space.names)
    assert all(0.0 in parameter.values for parameter in space.parameters)
    rates = [parameter for parameter in space.names if parameter.startswith("dropout")]
    schedule = len(set(base.spec.dropout)) > 1
    assert len(rates) == (len(base.spec.hidden) if schedule else bool(base.spec.hidden))
    assert space.size == math.prod(len(parameter.values) for parameter in space.parameters)


def test_a_space_is_plain_data():
    parameter = spaces.parse("dropout=0,0.1", BASE).parameters[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameter.name = "l2"
