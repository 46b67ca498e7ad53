"""ModelSpec and Recipe: the values they refuse, and their counts of parameters and FLOPs."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from fmnist_zoo import get_spec
from fmnist_zoo.spec import ModelSpec, Recipe, SpecError


def make(**fields: Any) -> ModelSpec:
    """A spec of any values, also of wrong types."""
    return ModelSpec(**{"name": "x", **fields})


@pytest.mark.parametrize("name, parameters", [
    ("softmax", 7850), ("network_softmax", 7850), ("network_A", 238510), ("network_B", 266610),
    ("2L", 159010), ("3L", 396210), ("4L", 793610), ("5L", 1431210),
])
def test_parameter_counts_equal_those_of_the_report(name, parameters):
    assert get_spec(name).parameters == parameters


def test_flops_of_4L():
    assert get_spec("4L").training_flops == 3_813_600
    assert get_spec("4L").training_flops * 60_000 == pytest.approx(228.8e9, rel=1e-3)


def test_flops_of_softmax_count_forward_and_weight_gradient_alone():
    assert get_spec("softmax").training_flops == 4 * 784 * 10


def test_single_rate_is_repeated_for_all_layers():
    assert make(hidden=(3, 2), dropout=0.5).dropout == (0.5, 0.5)
    assert make(hidden=(3, 2), dropout=0.5) == make(hidden=[3, 2], dropout=[0.5, 0.5])


def test_no_dropout_is_stored_as_an_empty_tuple():
    assert make(hidden=(3, 2), dropout=0).dropout == ()
    assert make(hidden=(3, 2), dropout=(0.0, 0.0)) == make(hidden=(3, 2))
    assert make(dropout=0.0) == make()


def test_one_hidden_layer_may_be_a_number():
    assert make(hidden=64) == make(hidden=(64,))


def test_numpy_values_become_python_values():
    spec = make(hidden=np.array([30, 20]), dropout=np.array([0.5, 0.25]), l1=np.float64(0.5))
    assert spec == make(hidden=(30, 20), dropout=(0.5, 0.25), l1=0.5)
    assert json.loads(json.dumps(spec.get_config()))["hidden"] == [30, 20]


@pytest.mark.parametrize("field, value, received", [
    ("name", "", "''"), ("name", "a/b", "'a/b'"), ("name", "..", "'..'"), ("name", "-x", "'-x'"),
    ("name", "a\n", "'a\\\\n'"), ("name", 4, "4"),
    ("hidden", (3, 0), "0"), ("hidden", -5, "-5"), ("hidden", 2.5, "2.5"), ("hidden", "64", "'64'"),
    ("hidden", True, "True"), ("hidden", None, "None"),
    ("dropout", 1.0, "1.0"), ("dropout", (0.1, -0.1), "-0.1"), ("dropout", (0.1, 0.2, 0.3), r"3: \[0.1, 0.2, 0.3\]"),
    ("dropout", "much", "'much'"), ("dropout", float("nan"), "nan"), ("dropout", True, "True"),
    ("l1", -1e-3, "-0.001"), ("l1", float("inf"), "inf"), ("l1", None, "None"),
    ("l2", -2, "-2"), ("l2", float("nan"), "nan"), ("l2", False, "False"),
    ("initializer", "zeros", "'zeros'"), ("activation", "swish", "'swish'"), ("normalization", "group", "'group'"),
])
def test_invalid_model_is_refused_with_the_value_received(field, value, received):
    with pytest.raises(SpecError, match=f"(name|{field}).*received {received}"):
        make(**{"hidden": (3, 2), field: value})


def test_dropout_without_hidden_layers_is_refused():
    with pytest.raises(SpecError, match="dropout follows hidden layers, and there are none; received .0.3."):
        make(dropout=0.3)


@pytest.mark.parametrize("field, value, received", [
    ("epochs", 0, "0"), ("epochs", 2.5, "2.5"), ("epochs", True, "True"), ("epochs", "30", "'30'"),
    ("batch_size", 0, "0"), ("batch_size", "all", "'all'"), ("batch_size", 12.0, "12.0"),
    ("optimizer", "adamm", "'adamm'"),
    ("learning_rate", 0, "0"), ("learning_rate", -0.1, "-0.1"), ("learning_rate", float("nan"), "nan"),
    ("weight_decay", -1, "-1"), ("weight_decay", "some", "'some'"),
    ("validation_size", 1, "1"), ("validation_size", 2.5, "2.5"), ("validation_size", -0.1, "-0.1"),
    ("validation_size", float("inf"), "inf"), ("validation_size", True, "True"),
    ("early_stopping", -1, "-1"), ("early_stopping", 1.5, "1.5"),
    ("weights", "first", "'first'"),
])
def test_invalid_recipe_is_refused_with_the_value_received(field, value, received):
    with pytest.raises(SpecError, match=f"{field}.*received {received}"):
        Recipe(**{field: value})


def test_early_stopping_needs_a_validation_set():
    with pytest.raises(SpecError, match="early_stopping=3 .*validation_size=0"):
        Recipe(early_stopping=3, validation_size=0)


@pytest.mark.parametrize("size, stored", [(0, 0), (0.0, 0), (0.25, 0.25), (6000, 6000), (6000.0, 6000)])
def test_validation_size_is_a_share_or_a_count(size, stored):
    recipe = Recipe(validation_size=size)
    assert recipe.validation_size == stored
    assert type(recipe.validation_size) is type(stored)


@pytest.mark.parametrize("name", ["softmax", "4D_drop03_02_01", "network_B_l2", "4L,dropout=0.3_0.25_0.1,l2=1e-05"])
def test_spec_is_the_same_after_json(name):
    spec = get_spec(name)
    assert ModelSpec.from_config(json.loads(json.dumps(spec.get_config()))) == spec


def test_recipe_is_the_same_after_json():
    recipe = Recipe(epochs=2, batch_size="full", optimizer="sgd", learning_rate=1, validation_size=500)
    assert Recipe.from_config(json.loads(json.dumps(recipe.get_config()))) == recipe


def test_specs_and_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(get_spec("4L"), "l1", 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Recipe(), "epochs", 1)


def test_long_name_has_a_folder_of_its_own():
    long = "4L," + ",".join(f"l1=0.{digit * 300}" for digit in "12")
    folders = {make(name=name).folder for name in (long + "3", long + "4", long)}
    assert len(folders) == 3 and all(name.startswith("4L,l1=0.111") and len(name) == 200 for name in folders)
    assert make(name="x" * 200).folder == "x" * 200
    with pytest.raises(SpecError, match="at most 1000 letters"):
        make(name="x" * 1001)


def test_number_too_large_for_a_float_is_refused():
    with pytest.raises(SpecError, match="learning_rate"):
        Recipe(learning_rate=10**400)


def test_description_that_is_not_text_is_refused():
    with pytest.raises(SpecError, match=r"description.*received \(64, 64\)"):
        make(description=(64, 64))


def test_rates_given_as_text_may_be_zero():
    assert make(hidden=(3,), dropout="0").dropout == ()
