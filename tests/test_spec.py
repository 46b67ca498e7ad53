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


def test_flops_leave_out_the_gradient_of_the_pixels():
    assert get_spec("softmax").training_flops == 4 * 784 * 10
    assert get_spec("4L").training_flops == 3_813_600


@pytest.mark.parametrize("fields, same", [
    (dict(hidden=[3, 2], dropout=0.5), dict(hidden=(3, 2), dropout=(0.5, 0.5))),
    (dict(hidden=(3, 2), dropout=(0.0, 0.0)), dict(hidden=(3, 2))), (dict(dropout=0.0), {}),
    (dict(hidden=64), dict(hidden=(64,))), (dict(hidden=(3,), dropout="0"), dict(hidden=(3,))),
    (dict(hidden=np.array([30, 20]), dropout=np.array([0.5, 0.25]), l1=np.float64(0.5)),
     dict(hidden=(30, 20), dropout=(0.5, 0.25), l1=0.5)),
])
def test_values_have_one_form(fields, same):
    spec = make(**fields)
    assert spec == make(**same) and json.dumps(spec.get_config()) == json.dumps(make(**same).get_config())


@pytest.mark.parametrize("field, value, received", [
    ("name", "", "''"), ("name", "a/b", "'a/b'"), ("name", "..", "'..'"), ("name", "-x", "'-x'"),
    ("name", "a\n", "'a\\\\n'"), ("name", 4, "4"),
    ("hidden", (3, 0), "0"), ("hidden", -5, "-5"), ("hidden", 2.5, "2.5"), ("hidden", "64", "'64'"),
    ("hidden", True, "True"), ("hidden", None, "None"),
    ("dropout", 1.0, "1.0"), ("dropout", (0.1, -0.1), "-0.1"), ("dropout", (0.1, 0.2, 0.3), r"3: \[0.1, 0.2, 0.3\]"),
    ("dropout", "much", "'much'"), ("dropout", float("nan"), "nan"), ("dropout", True, "True"),
    ("l1", -1e-3, "-0.001"), ("l1", float("inf"), "inf"), ("l1", None, "None"), ("l2", float("nan"), "nan"),
    ("initializer", "zeros", "'zeros'"), ("activation", "swish", "'swish'"), ("normalization", "group", "'group'"),
    ("description", (64, 64), r"\(64, 64\)"),
])
def test_invalid_model_is_refused_with_the_value_received(field, value, received):
    with pytest.raises(SpecError, match=f"(name|{field}).*received {received}"):
        make(**{"hidden": (3, 2), field: value})


@pytest.mark.parametrize("fields", [dict(dropout=0.3), dict(activation="gelu"), dict(normalization="batch")], ids=str)
def test_settings_of_hidden_layers_are_refused_without_them(fields):
    (name, value), = fields.items()
    with pytest.raises(SpecError, match=f"{name}.* hidden layers, and there are none.*|{name}={value}"):
        make(**fields)


@pytest.mark.parametrize("field, value, received", [
    ("epochs", 0, "0"), ("epochs", 2.5, "2.5"), ("epochs", True, "True"), ("epochs", "30", "'30'"),
    ("batch_size", 0, "0"), ("batch_size", "all", "'all'"), ("batch_size", 12.0, "12.0"),
    ("optimizer", "adamm", "'adamm'"),
    ("learning_rate", 0, "0"), ("learning_rate", -0.1, "-0.1"), ("learning_rate", float("nan"), "nan"),
    ("learning_rate", 10**400, "1000"), ("weight_decay", -1, "-1"), ("weight_decay", "some", "'some'"),
    ("validation_size", 1, "1"), ("validation_size", 2.5, "2.5"), ("validation_size", -0.1, "-0.1"),
    ("validation_size", float("inf"), "inf"), ("validation_size", True, "True"),
    ("early_stopping", -1, "-1"), ("early_stopping", 1.5, "1.5"), ("weights", "first", "'first'"),
    ("shift", 28, "28"), ("erase", 29, "29"), ("label_smoothing", 1, "1"), ("ema", 1, "1"), ("flip", 1, "1"),
    ("teacher_weight", 1.1, "1.1"), ("mixup", -0.1, "-0.1"),
])
def test_invalid_recipe_is_refused_with_the_value_received(field, value, received):
    with pytest.raises(SpecError, match=f"{field}.*received {received}"):
        Recipe(**{field: value})


@pytest.mark.parametrize("settings, complaint", [
    (dict(early_stopping=3, validation_size=0), "early_stopping=3 .*validation_size=0"),
    (dict(schedule="cosine", epochs=9, schedule_epochs=8), "past the end .* schedule_epochs=8: train fewer"),
    (dict(teacher_weight=0.3), "teacher_weight=0.3 is for a teacher, and there is none"),
    (dict(teacher_temperature=3), "teacher_temperature=3.0 is for a teacher"),
])
def test_settings_that_exclude_each_other_are_refused(settings, complaint):
    with pytest.raises(SpecError, match=complaint):
        Recipe(**settings)


@pytest.mark.parametrize("holder", [
    *map(get_spec, ("softmax", "4D_drop03_02_01", "network_B_l2", "4L,dropout=0.3_0.25_0.1,l2=1e-05")),
    Recipe(epochs=2, batch_size="full", optimizer="sgd", learning_rate=1, validation_size=500)], ids=str)
def test_spec_and_recipe_are_frozen_and_the_same_after_json(holder):
    assert type(holder).from_config(json.loads(json.dumps(holder.get_config()))) == holder
    with pytest.raises(dataclasses.FrozenInstanceError):
        holder.weights = "last"


def test_long_name_has_a_folder_of_its_own():
    long = "4L," + ",".join(f"l1=0.{digit * 300}" for digit in "12")
    folders = {make(name=name).folder for name in (long + "3", long + "4", long)}
    assert len(folders) == 3 and all(name.startswith("4L,l1=0.111") and len(name) == 200 for name in folders)
    assert make(name="x" * 200).folder == "x" * 200
    with pytest.raises(SpecError, match="at most 1000 letters"):
        make(name="x" * 1001)
