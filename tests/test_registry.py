"""Names of models: the catalog against the report, changed models, models of the user."""

import re
import sys

import pytest
from hypothesis import given, settings, strategies as st

from fmnist_zoo.registry import derive, get_recipe, get_spec, list_models, load_zoo_module, register
from fmnist_zoo.spec import ModelSpec, Recipe, SpecError

FOUR, FIVE, NORMAL = (600, 400, 200), (800, 600, 400, 200), "normal_0.05"
REPORT: dict[str, dict] = {  # REPORT.md, section 1
    "softmax": {}, "2L": dict(hidden=200), "3L": dict(hidden=(400, 200)), "4L": dict(hidden=FOUR),
    "5L": dict(hidden=FIVE),
    "4D_drop02": dict(hidden=FOUR, dropout=0.2), "4D_drop03": dict(hidden=FOUR, dropout=0.3),
    "4D_drop03_02_01": dict(hidden=FOUR, dropout=(0.3, 0.2, 0.1)),
    "5D_drop02": dict(hidden=FIVE, dropout=0.2), "5D_drop03": dict(hidden=FIVE, dropout=0.3),
    "5D_drop04_03_02_01": dict(hidden=FIVE, dropout=(0.4, 0.3, 0.2, 0.1)),
    "network_softmax": dict(initializer=NORMAL), "network_A": dict(hidden=300, initializer=NORMAL),
    "network_B": dict(hidden=(300, 100), initializer=NORMAL),
    "network_A_l1": dict(hidden=300, l1=0.001, initializer=NORMAL),
    "network_A_l2": dict(hidden=300, l2=0.001, initializer=NORMAL),
    "network_B_l1": dict(hidden=(300, 100), l1=0.001, initializer=NORMAL),
    "network_B_l2": dict(hidden=(300, 100), l2=0.001, initializer=NORMAL),
}
CATALOG = [*REPORT, "4N_512", "4N_512_mixup", "5N_local", "5L_unrolled", "5L_distilled", "conv_strided", "conv_teacher"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into a new working folder, which is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    yield lambda name, text: (tmp_path / f"{name}.py").write_text(text)
    for path in tmp_path.glob("zoo_of_*.py"):
        sys.modules.pop(path.stem, None)


def test_catalog_holds_the_models_of_the_report():
    assert list_models() == CATALOG


def test_fields_are_listed_once():
    with pytest.raises(SpecError, match="^a model has no field 'zzz'; fields: hidden, dropout, [a-z0-9_, ]*$"):
        get_spec("4L", zzz=1)
    for name, fields in REPORT.items():
        assert get_spec(name).architecture == ModelSpec(name, **fields).architecture


@pytest.mark.parametrize("name", REPORT)
def test_recipes_equal_those_of_the_report(name):
    full_batch = Recipe(epochs=500, batch_size="full", optimizer="adam", learning_rate=0.001, weights="last")
    batches = Recipe(epochs=30, batch_size=256, optimizer="adam", learning_rate=0.001, weights="best")
    assert get_recipe(name) == (full_batch if name.startswith("network_") else batches)


@pytest.mark.parametrize("pattern, names", [
    ("4D*", ["4D_drop02", "4D_drop03", "4D_drop03_02_01"]), ("?L", ["2L", "3L", "4L", "5L"]), ("4L", ["4L"]),
    ("*_l[12]", ["network_A_l1", "network_A_l2", "network_B_l1", "network_B_l2"]), ("4d*", []), ("", []),
])
def test_patterns(pattern, names):
    assert list_models(pattern) == names


@pytest.mark.parametrize("wrong, hint", [
    ("4D_drop3", r"did you mean 4D_drop03"), ("network_a", "did you mean network_A"),
    ("SoftMax", r"did you mean softmax\?"), ("zzzzzzzz", "known: softmax, 2L, .*network_B_l2")])
def test_unknown_name_is_refused_with_the_nearest_names(wrong, hint):
    for look_up in (get_spec, get_recipe):
        with pytest.raises(SpecError, match=f"no model is named '{wrong}'; {hint}"):
            look_up(wrong)


@pytest.mark.parametrize("call", [
    lambda: get_spec("4L", droput=0.3), lambda: get_spec("4L,droput=0.3"), lambda: register("mine", droput=0.3)])
def test_unknown_field_is_refused_with_the_nearest_fields(call):
    with pytest.raises(SpecError, match="no field 'droput'; did you mean dropout?.*hidden, dropout, l1, l2, init"):
        call()
    assert list_models() == CATALOG


@pytest.mark.parametrize("name", ["a,b", "a=b", "sweeps", "a/b", "", ".", "4L"])
def test_name_that_is_invalid_or_taken_is_refused(name):
    with pytest.raises(SpecError, match=re.escape(repr(name))):
        register(name, hidden=(1, 2, 3))
    assert get_spec("4L").hidden == (600, 400, 200)


@pytest.mark.parametrize("base, changes, name", [
    ("4L", {"dropout": (0.3, 0.25, 0.1), "l2": 1e-5}, "4L,dropout=0.3_0.25_0.1,l2=1e-05"),
    ("4D_drop03", {"hidden": (), "dropout": ()}, "softmax"),
    ("network_A", {"hidden": ()}, "network_softmax"),
    ("2L", {"hidden": (), "l1": 0.1}, "2L,hidden=none,l1=0.1"),
    ("4L", {"normalization": "batch", "initializer": "he_normal"}, "4L,initializer=he_normal,normalization=batch"),
    ("4L", {"dropout": 0.3}, "4D_drop03"), ("4D_drop03", {"dropout": 0.0}, "4L"),
    ("4L", {"dropout": [0.3, 0.2, 0.1]}, "4D_drop03_02_01"), ("network_B", {"l2": 0.001}, "network_B_l2"),
    ("4L", {"dropout": None, "l1": 0}, "4L"),
])
def test_name_of_a_changed_model_lists_its_changes(base, changes, name):
    spec = get_spec(base, **changes)
    assert spec.name == name
    assert get_spec(name) == spec
    assert spec.architecture == {**ModelSpec("x", **{**get_spec(base).architecture, **{
        field: value for field, value in changes.items() if value is not None}}).architecture}


@pytest.mark.parametrize("base", ["4D_drop03", "5D_drop04_03_02_01", "4N_512", "5N_local"])
def test_without_hidden_layers_nothing_is_left_of_what_was_for_them(base):
    assert get_spec(base, hidden=()) is get_spec("softmax")
    assert get_spec(f"{base},hidden=none") is get_spec("softmax")
    assert get_spec(base, hidden=(), l2=0.5).dropout == ()
    with pytest.raises(SpecError, match="dropout follows hidden layers"):
        get_spec(base, hidden=(), dropout=0.2)


def test_model_changed_twice_is_named_after_its_registered_base_and_has_its_recipe():
    assert derive(get_spec("4L,l1=0.1"), l2=0.2) == get_spec("4L,l1=0.1,l2=0.2")
    assert derive(get_spec("4L,l1=0.1"), l1=0) is get_spec("4L")
    assert get_recipe("network_A,l1=0.5") == get_recipe("network_A") != get_recipe("4L")


RATE = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(st.integers(1, 5000), max_size=4).flatmap(lambda hidden: st.fixed_dictionaries(
    {"hidden": st.just(hidden), "dropout": st.just([]) | st.lists(RATE, min_size=len(hidden), max_size=len(hidden))},
    optional={"l1": st.floats(0, 1e6), "l2": st.floats(0, 1e6)}))


@settings(deadline=None)
@given(st.sampled_from(list(REPORT)), CHANGES)
def test_derived_name_is_a_folder_name_and_reads_back(base, changes):
    spec = get_spec(base, **changes)
    assert get_spec(spec.name) == spec
    assert spec.architecture == ModelSpec("x", initializer=spec.initializer, **{
        "l1": get_spec(base).l1, "l2": get_spec(base).l2, **changes}).architecture
    assert re.fullmatch(r"[A-Za-z0-9][\w.,=+-]*", spec.name, re.ASCII) and len(spec.name) < 256


@pytest.mark.parametrize("name, complaint", [
    ("4L,l1=", "l1 .*received ''"), ("4L,hidden=1e3", "hidden .*whole number.*received '1e3'"),
    ("4L,dropout=a_b", "dropout .*received 'a_b'"),
    ("4L,activation=Gelu", "activation must be one of relu, .*received 'Gelu'"),
    ("4L,l1=nan", "l1 .*received nan"), ("4L,dropout=0.1_0.2", "3 hidden layers .*received 2"), ("4L,", "no field ''"),
])
def test_unreadable_name_of_a_changed_model_is_refused(name, complaint):
    with pytest.raises(SpecError, match=complaint):
        get_spec(name)


def test_module_of_the_user_is_searched_in_the_working_folder_first_and_adds_models(module, tmp_path_factory,
                                                                                    monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "zoo_of_mine.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.syspath_prepend(elsewhere)
    module("zoo_of_mine", "from fmnist_zoo import register\nregister('tiny', 'my own', hidden=8, dropout=0.5)\n")
    path = list(sys.path)
    load_zoo_module("zoo_of_mine")
    assert list_models() == [*CATALOG, "tiny"]
    assert get_spec("tiny") == ModelSpec("tiny", (8,), (0.5,), description="my own")
    assert get_spec("softmax", hidden=8, dropout=0.5).name == "tiny"
    assert sys.path == path


@pytest.mark.parametrize("text, complaint", [
    (None, "--zoo_module=zoo_of_errors cannot be imported: ModuleNotFoundError: No module named 'zoo_of_errors'"),
    ("register(", "--zoo_module=zoo_of_errors cannot be imported: SyntaxError: .*line 1"),
    ("1 / 0", "--zoo_module=zoo_of_errors cannot be imported: ZeroDivisionError: division by zero"),
    ("import fmnist_zoo\nfmnist_zoo.register('4L')", "'4L' is registered already"),
])
def test_error_in_a_module_of_the_user_is_one_line(module, text, complaint):
    if text:
        module("zoo_of_errors", text)
    path = list(sys.path)
    with pytest.raises(SpecError, match=complaint) as caught:
        load_zoo_module("zoo_of_errors")
    assert "\n" not in str(caught.value)
    assert sys.path == path
