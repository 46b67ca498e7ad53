"""`python -m fmnist_zoo`: the table, a model's card, JSON, and mistakes answered in a line."""

import json
import os
import re
import subprocess
import sys

import pytest

from fmnist_zoo import card, registry
from fmnist_zoo.__main__ import main
from fmnist_zoo.registry import get_recipe, get_spec, list_models
from fmnist_zoo.spec import ModelSpec, Recipe
from tests.conftest import ROOT

RECIPE_AND_FIGURES = {"parameters", "fixed_parameters", "training_flops", "recipe", "score", "weights"}


@pytest.fixture
def zoo_module(tmp_path, monkeypatch):
    """A module of the user's in the working folder, registering `tiny`; forgotten afterwards."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo_of_listing.py").write_text("import fmnist_zoo\nfmnist_zoo.register('tiny', 'my own', hidden=8)\n")
    yield "zoo_of_listing"
    sys.modules.pop("zoo_of_listing", None)


def assert_describes_its_model(found):
    """A model's JSON gives back its spec and its recipe."""
    assert ModelSpec(**{key: value for key, value in found.items() if key not in RECIPE_AND_FIGURES}) \
        == get_spec(found["name"])
    assert Recipe.from_config(found["recipe"]) == get_recipe(found["name"])
    assert found["parameters"] == get_spec(found["name"]).parameters
    assert found["training_flops"] == (get_spec(found["name"]).training_flops or None)


def test_table_has_every_model(capsys):
    assert main([]) == 0
    dense, built, footnote = capsys.readouterr().out.split("\n\n")
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
    assert cells["4D_drop03"][2] == "0.3"
    assert rows[list(cells).index("network_B_l2")].split("  ")[0] == "network_B_l2"
    assert "  L2 0.001  " in rows[list(cells).index("network_B_l2")]


def test_columns_are_aligned(capsys):
    main(["*L*"])
    lines = capsys.readouterr().out.splitlines()[:-2]
    start = lines[0].index("description")
    assert all(line[start - 2:start] == "  " and line[start] != " " for line in lines)


def test_markdown_table_has_the_same_cells(capsys):
    main(["*L*"])
    rows = [re.split(" {2,}", row) for row in capsys.readouterr().out.splitlines()[:-2]]
    assert main(["*L*", "--markdown"]) == 0
    head, ruler, *body = [row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines()[:-2]]
    assert [head, *body] == rows
    assert ruler == ["---"] * 4 + ["---:"] * 5 + ["---"]


def test_pattern_selects_rows_of_the_table(capsys):
    assert main(["5D*"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-2]]
    assert names == ["name", "5D_drop02", "5D_drop03", "5D_drop04_03_02_01"]


def test_card_shows_layers_recipe_and_command(capsys):
    assert main(["4D_drop03_02_01"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "4D_drop03_02_01: 4L, more dropout where there are more units"
    assert lines[3:7] == ["784 -> 600 ReLU, dropout 0.3 471000 parameters",
                          "600 -> 400 ReLU, dropout 0.2 240400 parameters",
                          "400 -> 200 ReLU, dropout 0.1 80200 parameters", "200 -> 10 logits 2010 parameters"]
    assert any(line.startswith("parameters 793610, training 3.81 MFLOP an image") for line in lines)
    assert {"epochs 30", "batch_size 256", "optimizer adam", "learning_rate 0.001", "weights best"} <= set(lines)
    assert "python -m trainers.train --model=4D_drop03_02_01" in lines


def test_card_shows_every_layer_that_holds_numbers(capsys):
    name = "4L,hidden=60_60,dropout=0.1_0.1,activation=gelu,normalization=batch"
    assert main([name]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[3:9] == [
        "784 -> 60 linear 47100 parameters", "60 -> 60 batch normalization, gelu, dropout 0.1 120 parameters",
        "60 -> 60 linear 3660 parameters", "60 -> 60 batch normalization, gelu, dropout 0.1 120 parameters",
        "60 -> 10 logits 610 parameters",
        "parameters 51610 and 240 that are not trained, training 0.21 MFLOP an image, initializer glorot_uniform, "
        "penalty -"]


def test_card_of_a_changed_model(capsys):
    assert main(["network_A,l1=0.5"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("network_A,l1=0.5: ")
    assert "penalty L1 0.5" in text and "initializer normal_0.05" in text
    assert text.rstrip().endswith("--model=network_A,l1=0.5")


@pytest.mark.parametrize("name", ["softmax", "4D_drop03_02_01", "network_B_l2", "4L,dropout=0.3_0.25_0.1,l2=1e-05"])
def test_json_of_one(capsys, name):
    assert main([name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == name
    assert_describes_its_model(found)


def test_json_of_all(capsys):
    assert main(["--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert [found["name"] for found in everything] == list_models()
    for found in everything:
        assert_describes_its_model(found)


@pytest.mark.parametrize("arguments, complaint", [
    (["4D_drop3"], "no model is named '4D_drop3'; did you mean 4D_drop03"),
    (["4D_drop3", "--json"], "no model is named '4D_drop3'; did you mean 4D_drop03"),
    (["6D*"], "no model is named '6D*'"), ([""], "no model is named ''; known: softmax, 2L"),
    (["4L,droput=0.3"], "no field 'droput'; did you mean dropout"),
    (["4L,dropout=2"], "dropout must be a number in [0, 1)"),
    (["--zoo_module=zoo_of_nobody"], "--zoo_module=zoo_of_nobody cannot be imported"),
])
def test_mistake_is_one_line(capsys, arguments, complaint):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fmnist_zoo: ") and complaint in printed.err
    assert len(printed.err.splitlines()) == 1


def test_unknown_flag_exits_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--jsn"])
    assert caught.value.code == 2
    assert "--jsn" in capsys.readouterr().err


def test_models_of_a_zoo_module_are_listed(capsys, zoo_module):
    assert main(["--zoo_module", zoo_module]) == 0
    rows = [line.split()[:5] for line in capsys.readouterr().out.splitlines()]
    assert ["tiny", "8-10", "-", "-", "6370"] in rows


def test_zoo_module_is_found_in_the_working_folder(zoo_module):
    done = subprocess.run([sys.executable, "-m", "fmnist_zoo", "tiny", f"--zoo_module={zoo_module}"],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tiny: my own")


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
