"""`python -m fmnist_zoo`: the table, a model's card, JSON, and mistakes answered in a line."""

import fnmatch
import json
import os
import re
import subprocess
import sys

import pytest

from fmnist_zoo import card
from fmnist_zoo.__main__ import main
from fmnist_zoo.registry import get_recipe, get_spec, list_models
from fmnist_zoo.spec import ModelSpec, Recipe
from tests import helpers
from tests.conftest import ROOT

RECIPE_AND_FIGURES = {"parameters", "fixed_parameters", "training_flops", "recipe", "score", "weights"}


def printed(capsys, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_table_has_every_model(capsys):
    dense, built, footnote = printed(capsys).split("\n\n")
    (head, *rows), (built_head, *built_rows) = dense.splitlines(), built.splitlines()
    assert footnote == f"* {card.EARLIER}\n"
    assert re.split(" {2,}", head) == ["name", "layers", "dropout", "penalty", "parameters", "test accuracy", "NLL",
                                       "ECE", "seconds", "description"]
    assert built_head.split()[:2] == ["name", "parameters"]
    assert [row.split()[:2] for row in built_rows] == [["conv_strided", "46558"], ["conv_teacher", "446410"]]
    cells = {row.split()[0]: re.split(" {2,}", row) for row in rows}
    assert [*cells, "conv_strided", "conv_teacher"] == list_models()
    assert all(str(get_spec(name).parameters) == cells[name][4] for name in cells)
    assert cells["5D_drop04_03_02_01"][1:5] == ["800-600-400-200-10", "0.4/0.3/0.2/0.1", "-", "1431210"]
    assert cells["4D_drop03"][2] == "0.3" and cells["network_B_l2"][3] == "L2 0.001"
    start = head.index("description")
    assert all(row[start - 2:start] == "  " and row[start] != " " for row in rows)


def test_markdown_table_of_a_pattern_has_the_same_cells(capsys):
    rows = [re.split(" {2,}", row) for row in printed(capsys, "*L*").splitlines()[:-2]]
    assert [row[0] for row in rows[1:]] == fnmatch.filter(list_models(), "*L*")
    head, ruler, *body = [row.strip("| ").split(" | ")
                          for row in printed(capsys, "*L*", "--markdown").splitlines()[:-2]]
    assert [head, *body] == rows
    assert ruler == ["---"] * 4 + ["---:"] * 5 + ["---"]


def test_card_shows_layers_recipe_and_command(capsys):
    lines = [" ".join(line.split()) for line in printed(capsys, "4D_drop03_02_01").splitlines()]
    assert lines[0] == "4D_drop03_02_01: 4L, more dropout where there are more units"
    assert lines[3:7] == ["784 -> 600 ReLU, dropout 0.3 471000 parameters",
                          "600 -> 400 ReLU, dropout 0.2 240400 parameters",
                          "400 -> 200 ReLU, dropout 0.1 80200 parameters", "200 -> 10 logits 2010 parameters"]
    assert any(line.startswith("parameters 793610, training 3.81 MFLOP an image") for line in lines)
    assert {"epochs 30", "batch_size 256", "optimizer adam", "learning_rate 0.001", "weights best"} <= set(lines)
    assert "python -m trainers.train --model=4D_drop03_02_01" in lines


def test_card_shows_every_layer_that_holds_numbers(capsys):
    name = "4L,hidden=60_60,dropout=0.1_0.1,activation=gelu,normalization=batch"
    lines = [" ".join(line.split()) for line in printed(capsys, name).splitlines()]
    assert lines[3:9] == [
        "784 -> 60 linear 47100 parameters", "60 -> 60 batch normalization, gelu, dropout 0.1 120 parameters",
        "60 -> 60 linear 3660 parameters", "60 -> 60 batch normalization, gelu, dropout 0.1 120 parameters",
        "60 -> 10 logits 610 parameters",
        "parameters 51610 and 240 that are not trained, training 0.21 MFLOP an image, initializer glorot_uniform, "
        "penalty -"]


def test_json_gives_back_spec_and_recipe(capsys):
    everything, changed = json.loads(printed(capsys, "--json")), "4L,dropout=0.3_0.25_0.1,l2=1e-05"
    assert [found["name"] for found in everything] == list_models()
    for found in (*everything, json.loads(printed(capsys, changed, "--json"))):
        spec = get_spec(found["name"])
        assert ModelSpec(**{key: value for key, value in found.items() if key not in RECIPE_AND_FIGURES}) == spec
        assert Recipe.from_config(found["recipe"]) == get_recipe(found["name"])
        assert found["parameters"] == spec.parameters and found["training_flops"] == (spec.training_flops or None)


@pytest.mark.parametrize("arguments, complaint", [
    (["4D_drop3"], "no model is named '4D_drop3'; did you mean 4D_drop03"),
    (["4D_drop3", "--json"], "no model is named '4D_drop3'; did you mean 4D_drop03"),
    (["6D*"], "no model is named '6D*'"), ([""], "no model is named ''; known: softmax, 2L"),
    (["4L,droput=0.3"], "no field 'droput'; did you mean dropout"),
    (["4L,dropout=2"], "dropout must be a number in [0, 1)"),
    (["--zoo_module=zoo_of_nobody"], "--zoo_module=zoo_of_nobody cannot be imported"),
])
def test_mistake_is_one_line(capsys, arguments, complaint):
    assert complaint in helpers.refused(capsys, main, *arguments)


def test_unknown_flag_exits_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--jsn"])
    assert caught.value.code == 2 and "--jsn" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, text", [([], "\ntiny  "), (["tiny"], "tiny: my own")])
def test_models_of_a_module_in_the_working_folder_are_shown(tmp_path, arguments, text):
    (tmp_path / "own_zoo.py").write_text("import fmnist_zoo\nfmnist_zoo.register('tiny', 'my own', hidden=8)\n")
    done = subprocess.run([sys.executable, "-m", "fmnist_zoo", "--zoo_module=own_zoo", *arguments], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "") and text in done.stdout


def test_letters_of_a_file_name_that_the_locale_cannot_read_are_shown():
    name = "möbel".encode().decode("ascii", errors="surrogateescape")
    assert card.printable(name) == "möbel" and card.printable("a\nb\udcff") == r"a\nb\udcff"


def test_closed_pipe_is_not_an_error():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "fmnist_zoo"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE,
                          text=True, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["conv_strided", "conv_teacher"])
def test_summary_of_a_convolutional_model_is_that_of_the_built_one(name, monkeypatch):
    from fmnist_zoo import build_model, custom

    registered = get_spec(name).summary
    monkeypatch.setattr(custom.builder(name, get_spec(name).build), "summary", registered)  # what it is afterwards
    build_model(name)
    built = get_spec(name).summary
    assert (registered.input, registered.parameters, registered.fixed) == (built.input, built.parameters, built.fixed)
    assert len(built.layers) > 10
