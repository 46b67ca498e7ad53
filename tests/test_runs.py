"""`trainers.runs`: lists, compares, and cleans up runs, damaged, half-written and foreign folders among them."""

import csv
import io
import json
import os
import pathlib
import re
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from fmnist_zoo import statistics
from fmnist_zoo.errors import ZooError
from tests import helpers, sweeps
from tests.runs import DATA, ENVIRONMENT, evaluate, make
from trainers import evaluate as evaluate_command, export as export_command, train as train_command
from trainers.config import ConfigError, read_run, resolve
from trainers.running import batch, comparison, pruning, trained
from trainers.running.folder import RunFolder, in_use
from trainers.running.run import opened
from trainers.runs import main


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A log folder with a run of each status, not to be changed."""
    logdir = tmp_path_factory.mktemp("logs")
    evaluate(make(logdir, "done", started=4e9, seed=3))
    evaluate(make(logdir, "early", losses=(0.2, 0.6), started=3e9, epochs=30, early_stopping=1), weights_sha256="other")
    make(logdir, "stopped", model="4D_drop03", started=5e9, finished=False, epochs=9, dropout=(0.4, 0.3, 0.2))
    make(logdir, "new", model="softmax", losses=(), started=2e9, finished=False, epochs=9)
    failed = make(logdir, "failed", started=1e9, finished=False, epochs=9, learning_rate=9)
    failed.write_failure("NaN or infinite objective at step 31")
    return logdir


def listed(logdir, capsys, *flags):
    assert main([f"--logdir={logdir}", "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def lines(logdir, capsys, *flags):
    """The table, a list of cells a row, and what was written to standard error."""
    assert main([f"--logdir={logdir}", *flags]) == 0
    captured = capsys.readouterr()
    return [re.split(" {2,}", line) for line in captured.out.splitlines()], captured.err


def test_table_has_a_line_a_run_the_newest_first(logs, capsys):
    (head, *rows), errors = lines(logs, capsys)
    assert head == ["model", "changes", "status", "epochs", "validation loss", "accuracy", "test accuracy", "seconds",
                    "folder"]
    assert [row[:-1] for row in rows] == [
        ["4D_drop03", "dropout=0.4_0.3_0.2 epochs=9 data=mini", "interrupted", "3/9", "0.3000", "0.7000", "-", "4"],
        ["4L", "epochs=3 seed=3 data=mini", "finished", "3/3", "0.3000", "0.7000", "0.8000", "4"],
        ["4L", "early_stopping=1 data=mini", "finished", "2/30", "0.2000", "0.8000", "-", "3"],
        ["softmax", "epochs=9 data=mini", "interrupted", "0/9", "-", "-", "-", "0"],
        ["4L", "epochs=9 learning_rate=9.0 data=mini", "NaN", "3/9", "0.3000", "0.7000", "-", "4"]]
    assert rows[1][-1] == str(logs / "4L" / "done") and not errors


def test_run_that_a_process_holds_is_running(logs, capsys):
    folder = RunFolder(logs / "4D_drop03,dropout=0.4_0.3_0.2" / "stopped")
    with folder.locked():
        assert [one["status"] for one in listed(logs, capsys)][:2] == ["running", "finished"]
        assert in_use(folder.path)
    assert not in_use(folder.path) and listed(logs, capsys)[0]["status"] == "interrupted"


def test_runs_that_differ_in_their_seed_alone_are_one_line(tmp_path, capsys):
    for seed, losses in enumerate(((0.5, 0.3), (0.5, 0.2), (0.4, 0.1))):
        evaluate(make(tmp_path, f"seeds/seed{seed}", losses=losses, seed=seed))
    make(tmp_path, "other", l2=1e-4)
    make(tmp_path, "unfinished", finished=False, epochs=9, seed=4)
    one = next(one for one in listed(tmp_path, capsys, "--seeds") if one["seeds"] == 3)
    assert one["val_loss"] == pytest.approx(0.2) and one["test_accuracy"] == pytest.approx(0.8)
    assert one["val_loss_std"] == pytest.approx(0.1) and one["test_accuracy_std"] == pytest.approx(0)
    assert one["folder"] == str(tmp_path / "4L" / "seeds") and "(3 seeds)" in one["changes"]
    assert len(listed(tmp_path, capsys, "--seeds")) == 3 and len(listed(tmp_path, capsys)) == 5
    assert any("0.2000 ± 0.1000" in row for row in lines(tmp_path, capsys, "--seeds")[0])
    make(tmp_path, "another", losses=(0.5, 0.3), seed=5)  # beside the folder
    assert [one["folder"] for one in listed(tmp_path, capsys, "--seeds") if one["seeds"] == 4] == [str(tmp_path / "4L")]


def test_runs_that_differ_in_callbacks_are_not_several_seeds(tmp_path, capsys):
    for seed in range(3):
        folder = make(tmp_path, f"seed{seed}", seed=seed)
        if seed:
            helpers.change(folder.config, lambda record: record.update(callbacks=["EarlyStopping"]))
    found = listed(tmp_path, capsys, "--seeds")
    assert sorted((one["seeds"], "callbacks=EarlyStopping" in one["changes"]) for one in found) == [
        (1, False), (2, True)]


def test_scores_of_other_validation_images_are_marked(tmp_path, capsys):
    """The images of most lines have no mark: those of two runs, against a sweep's half, and another split."""
    make(tmp_path, "one", losses=(0.3,))
    make(tmp_path, "two", losses=(0.4,), seed=1)
    (head, *rows), _ = lines(tmp_path, capsys)
    assert not any("[" in cell for row in rows for cell in row)
    make(tmp_path, "mini", losses=(0.2,), data={**DATA, "sha256": "f" * 64, "name": "mini", "validation": 20})
    sweeps.made(tmp_path / "sweeps" / "one", "dropout=0,0.5", [(0.0,), (0.5,)], lambda values, seed: 0.1)
    (head, *rows, foot), _ = lines(tmp_path, capsys, "--sort=val_loss")
    assert [row[4] for row in rows] == ["0.1000 [1]", "0.2000 [2]", "0.3000", "0.4000"]
    assert [row[5] for row in rows] == ["0.9000 [1]", "0.8000 [2]", "0.7000", "0.6000"]
    assert foot == ["validated on 200 images of mini, but [1] on the half of mini that ranks; [2] on 20 images of "
                    "mini: these scores do not compare"]


def test_seeds_are_distinct_and_on_the_same_data(tmp_path, capsys):
    """Of a run and its replay the newer one counts; other images, or others held out, are a line of their own."""
    for name, seed, started, loss in (("one", 0, 1e9, 0.9), ("replay", 0, 2e9, 0.1), ("two", 1, 1e9, 0.3)):
        make(tmp_path, name, losses=(loss,), seed=seed, started=started)
    for seed, key in enumerate(("sha256", "split_sha256"), start=2):
        make(tmp_path, key, losses=(0.5,), seed=seed, data={**DATA, key: "f" * 64})
    found = listed(tmp_path, capsys, "--seeds")
    assert sorted((one["seeds"], one["val_loss"]) for one in found) == [(1, 0.5), (1, 0.5), (2, pytest.approx(0.2))]


def test_sweeps_are_a_line_each(tmp_path, capsys):
    made = sweeps.made(tmp_path / "sweeps" / "one", "dropout=0,0.5; l2=0,0.001",
                       [(0.0, 0.0), (0.5, 0.0), (0.5, 0.001)], lambda values, seed: values["dropout"] or 0.25)
    _, row = lines(tmp_path, capsys)[0]
    assert row == ["4L", "random: dropout=0.0,0.5; l2=0.0,0.001 data=mini", "finished", "3/3 trials", "0.2500",
                   "0.7500", "-", "3", str(made.path)]
    made.add({"dropout": 0.0, "l2": 0.001})
    made.add_start({"versions": {}, "commit": "", "modules": {}}, max_trials=4, planned=4)
    assert lines(tmp_path, capsys)[0][1][2:4] == ["interrupted", "3/4 trials"]
    (made.path / "0001" / "trial.json").write_text("{half")
    (damaged,) = listed(tmp_path, capsys)
    assert damaged["status"] == "damaged" and str(made.path / "0001" / "trial.json") in damaged["reason"]


def test_models_are_chosen_by_pattern_with_and_without_changes(logs, capsys):
    assert {one["name"] for one in listed(logs, capsys, "--model=4D*")} == {"4D_drop03,dropout=0.4_0.3_0.2"}
    assert [one["model"] for one in listed(logs, capsys, "--model=4L")] == ["4L"] * 3
    assert [one["model"] for one in listed(logs, capsys, "--model=*dropout=0.4*")] == ["4D_drop03"]
    assert main([f"--logdir={logs}", "--model=6L"]) == 0
    assert capsys.readouterr().out == f"no run of 6L below {logs}; a run's folder is <logdir>/<model>/<run>\n"


@pytest.mark.parametrize("sort, names", [
    ("val_loss", ["early", "stopped", "done", "failed", "new"]),
    ("-val_loss", ["stopped", "done", "failed", "early", "new"]),
    ("test_accuracy", ["done", "stopped", "early", "new", "failed"]),
    ("-started", ["failed", "new", "early", "done", "stopped"]),
    ("model", ["stopped", "done", "early", "failed", "new"]),
])
def test_sorted_best_first_with_unknown_values_last(logs, capsys, sort, names):
    found = listed(logs, capsys, f"--sort={sort}")
    assert [os.path.basename(one["folder"]) for one in found] == names
    assert listed(logs, capsys, f"--sort={sort}", "--limit=2") == found[:2]


def test_limit_says_how_many_there_are(logs, capsys):
    rows, _ = lines(logs, capsys, "--limit=2")
    assert len(rows) == 4 and rows[-1] == ["2 of 5"]


def test_csv_holds_what_json_holds(logs, capsys):
    expected = listed(logs, capsys)
    assert main([f"--logdir={logs}", "--csv"]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert found == [{name: "" if value is None else str(value) for name, value in one.items()} for one in expected]


def test_damaged_half_written_and_foreign_folders(tmp_path, capsys):
    """Damage is a line and a reason; what is no run is left out; the others are listed as before."""
    make(tmp_path, "whole")
    before = listed(tmp_path, capsys)
    rows = make(tmp_path, "rows", finished=False, epochs=9)
    rows.table.path.write_text(rows.table.path.read_text().replace("\n2,16,", "\n2,x,16,"))
    for name, content in (
            ("4L/half/config.json", '{"config": {"spec"'), ("4L/bytes/config.json", "\udcff"),
            ("4L/wrong/config.json", '{"config": {"spec": {"name": "4L"}}}'), ("4L/list/config.json", "[]"),
            ("notes/theirs/config.json", '{"editor": "vim"}'), ("sweeps/half/sweep.json", '{"base": '),
            ("notes/config.json", "{}"), ("killed/at_start/.lock", "123"), (".git/objects/one", ""), ("a file", "")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, errors="surrogateescape")
    (tmp_path / "4L" / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    found = listed(tmp_path, capsys)
    assert [one for one in found if one["status"] != "damaged"] == before
    damaged = {os.path.basename(one["folder"]): one for one in found if one["status"] == "damaged"}
    assert set(damaged) == {"half", "bytes", "wrong", "list", "rows", "theirs"} and len(found) == len(before) + 7
    assert "line 3 does not read" in damaged["rows"]["reason"] and damaged["rows"]["planned_epochs"] == 9
    assert "not the config.json of a run" in damaged["wrong"]["reason"] and damaged["bytes"]["model"] == "4L"
    rows, errors = lines(tmp_path, capsys)
    assert len(rows) == 1 + len(found) and errors.count("\n") == 6
    assert all(line.startswith("runs: ") for line in errors.splitlines())
    assert errors.splitlines()[-1] == "runs: 2 more are damaged; --json says why"


def test_names_cannot_control_the_terminal(tmp_path, capsys):
    make(tmp_path, "one").path.rename(tmp_path / "4L" / "o\x1b[2Jn\ne")
    assert main([f"--logdir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and len(printed.splitlines()) == 2 and r"o\x1b[2Jn\ne" in printed


def test_model_of_a_module_that_is_not_imported(tmp_path, capsys):
    folder = make(tmp_path, "one", seed=1)
    helpers.change(folder.config, lambda record: record["config"]["spec"].update(name="mine,l2=0.1"))
    assert listed(tmp_path, capsys)[0]["changes"] == "l2=0.1 epochs=3 seed=1 data=mini"


@pytest.mark.parametrize("flags, text", [
    (["--sort=foo"], "--sort=foo is no column; these are: model, folder, "),
    (["--sort=validation_loss"], "did you mean val_loss"), (["--sort=-accuracy"], "did you mean val_accuracy"),
    (["--json", "--csv"], "two formats"), (["--limit=0"], "--limit must be a whole number of at least 1, received 0"),
    (["one"], "received 'one'"), (["--plot=x.png"], "--plot goes with --compare"),
    (["--prune", "--model=4L"], "--model does not go with --prune"),
    (["--compare", "4L/done", "4L/done"], "two runs or more"),
    (["--compare", "4L/done", "4L/early", "--plot=/nonexistent/c.png"], "c.png: there is no folder /nonexistent"),
    (["--compare", "4L/done", "4L/nothing"], "4L/nothing: no such folder"),
    (["--compare", "4L/done", "4L/early", "--plot=x.pdf"], "must end with .png"),
    (["--compare", "4L", "4L/done"], "4L: has runs with other settings, or that are not finished; name a run, or a"),
    (["--logdir=nowhere"], "nowhere: no such folder"),
])
def test_mistake_is_one_line(logs, capsys, flags, text):
    assert text in helpers.refused(capsys, main, f"--logdir={logs}", *flags)


def run(logdir, capsys, *flags, code=0):
    """What a command prints."""
    assert main([f"--logdir={logdir}", *map(str, flags)]) == code
    return capsys.readouterr().out


def table(text):
    return {cells[0]: cells[1:] for cells in (re.split(" {2,}", line) for line in text.splitlines())}


def test_settings_that_differ_and_results_side_by_side(tmp_path, capsys):
    make(tmp_path, "one", seed=3)
    evaluate(make(tmp_path, "two", losses=(0.6, 0.2), epochs=9, l2=1e-4, early_stopping=1,
                  environment={**ENVIRONMENT, "versions": {"tensorflow": "2.22.0"},
                               "switches": {"TF_ENABLE_ONEDNN_OPTS": "0"}}))
    second = tmp_path / "4L,l2=0.0001" / "two"
    found = table(run(tmp_path, capsys, "--compare", "4L/one", second))
    assert found[""] == [] and found.pop("") == []
    assert found == {
        "model": ["4L", "4L"], "l2": ["0.0", "0.0001"], "epochs": ["3", "2"], "early_stopping": ["0", "1"],
        "seed": ["3", "0"], "tensorflow": ["2.21.0", "2.22.0"], "TF_ENABLE_ONEDNN_OPTS": ["not set", "0"],
        "status": ["finished", "finished"],
        "best epoch": ["2", "2"], "train loss": ["0.1500", "0.1000"], "train accuracy": ["0.9000", "0.9000"],
        "val loss": ["0.3000", "0.2000"], "val accuracy": ["0.7000", "0.8000"],
        "test accuracy": ["-", "0.8000"], "seconds": ["4", "3"], "images per second": ["1200", "1200"]}
    rows = json.loads(run(tmp_path, capsys, "--compare", "4L/one", second, "--json"))["runs"]
    assert [row["folder"] for row in rows] == [str(tmp_path / "4L" / "one"), str(second)]
    assert [row["val_loss"] for row in rows] == [0.3, 0.2] and [row["l2"] for row in rows] == ["0.0", "0.0001"]


def test_runs_on_other_images_do_not_compare(tmp_path, capsys):
    for name, data in (("one", DATA), ("two", {**DATA, "split_sha256": "f" * 64})):
        make(tmp_path, name, data=data)
    text = run(tmp_path, capsys, "--compare", "4L/one", "4L/two")
    assert "were not validated on the same images" in text and table(text)["split_sha256"] == ["e" * 12, "f" * 12]


def test_several_seeds_side_by_side_are_paired_and_corrected(tmp_path, capsys):
    """Each by its model, its folder, or a run; seeds 0 to 3 and 1 to 4 have three in common."""
    losses = {"4L": (0.50, 0.52, 0.51, 0.55), "2L": (0.40, 0.44, 0.43, 0.45), "3L": (0.50, 0.51, 0.53, 0.54)}
    for model, first in (("4L", 0), ("2L", 1), ("3L", 0)):
        for seed, loss in enumerate(losses[model], first):
            make(tmp_path, f"seeds/seed{seed}", model=model, losses=(0.9, loss), seed=seed)
    make(tmp_path, "seeds/seed9", model="2L", finished=False, epochs=9, seed=9)
    text = run(tmp_path, capsys, "--compare", "4L", "2L/seeds", tmp_path / "3L", f"--plot={tmp_path / 'band.png'}")
    found = table(text)
    assert found["seed"] == ["0, 1, 2, 3", "1, 2, 3, 4", "0, 1, 2, 3"]
    assert found["train loss"][0] == "0.2600 ± 0.0108" and "0.5200 ± 0.0216" in text
    paired = [re.split(" {2,}", line) for line in text.splitlines() if "seeds - " in line]
    assert [row[:3] for row in paired] == [
        [figure, pair, count] for figure in ("val loss", "val accuracy")
        for pair, count in (("2L/seeds - 4L/seeds", "3"), ("3L/seeds - 4L/seeds", "4"), ("3L/seeds - 2L/seeds", "3"))]
    rows = json.loads(run(tmp_path, capsys, "--compare", "4L", "2L", "3L", "--json"))
    assert [(row["folder"], row["seed"], row["val_loss"]) for row in rows["runs"][:2]] == [
        (str(tmp_path / "4L" / "seeds" / f"seed{seed}"), seed, losses["4L"][seed]) for seed in range(2)]
    first = rows["differences"][0]
    test = stats.ttest_rel(losses["2L"][:3], losses["4L"][1:])
    assert first["seeds"] == [1, 2, 3] and first["difference"] == pytest.approx(np.mean([-0.12, -0.07, -0.12]))
    assert [first["low"], first["high"]] == pytest.approx(list(test.confidence_interval(0.95)))
    plain = [stats.ttest_rel(*pair).pvalue for pair in ((losses["2L"][:3], losses["4L"][1:]),
                                                        (losses["3L"], losses["4L"]),
                                                        (losses["3L"][1:], losses["2L"][:3]))] * 2
    assert [one["p"] for one in rows["differences"]] == pytest.approx(statistics.holm(plain))
    with Image.open(tmp_path / "band.png") as picture:
        assert picture.width > 800
    assert "corrected for 6 comparisons by Holm" in text


def test_seeds_that_have_no_partner_are_not_tested(tmp_path, capsys):
    for seed in range(2):
        make(tmp_path, f"seeds/seed{seed}", seed=seed)
        make(tmp_path, f"seeds/seed{seed + 5}", model="2L", seed=seed + 5)
    text = run(tmp_path, capsys, "--compare", "4L", "2L")
    assert "nothing can be tested" in text and "± 0.0000" in text
    make(tmp_path, "seeds/seed7", model="3L", seed=0, data={**DATA, "sha256": "f" * 64})
    text = run(tmp_path, capsys, "--compare", "4L", "3L")
    assert "not validated on the same images" in text and "paired" not in text
    assert json.loads(run(tmp_path, capsys, "--compare", "4L", "3L", "--json"))["differences"] == []


def test_folders_are_named_from_here_or_from_the_root(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        make(pathlib.Path("tb_logs"), name)
    assert run("tb_logs", capsys, "--compare", "4L/one", tmp_path / "tb_logs/4L/two").split()[:2] == ["one", "two"]
    assert "two runs or more" in helpers.refused(capsys, main, "--compare", "4L/one", tmp_path / "tb_logs/4L/one")


def test_plot_has_the_curves_of_runs_of_other_lengths(tmp_path, capsys):
    make(tmp_path, "$a_{", losses=(0.5,))
    make(tmp_path, "two", losses=(0.6, 0.2, 0.3), finished=False, epochs=9)
    with matplotlib.rc_context({"text.usetex": True}):  # as of a matplotlibrc of the user's; there is no LaTeX
        text = run(tmp_path, capsys, "--compare", "4L/$a_{", "4L/two/config.json", f"--plot={tmp_path / 'curves.png'}")
    assert text.endswith(f"written: {tmp_path / 'curves.png'}\n")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 800 and len(picture.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize("count", [3, 10])
def test_plot_names_each_curve_once_a_panel_or_in_one_legend(count, tmp_path):
    """Each has a look of its own, and a run without an epoch has neither a curve nor a name."""
    names = [f"run{index}" for index in range(count)]
    for index, name in enumerate(names):
        make(tmp_path, name, losses=(0.5, 0.4 + index / 100))
    make(tmp_path, "new", losses=(), finished=False, epochs=9)
    figure = comparison._curves(comparison.read([f"4L/{name}" for name in (*names, "new")], str(tmp_path)))
    beside = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert [sorted(panel) for panel in beside] == [names if count == 3 else []] * 2
    assert legends == (names if count == 10 else [])
    drawn = [line for line in figure.axes[0].lines if line.get_linestyle() == "-" and line.get_marker() != "None"]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == count


def test_trial_is_named_by_its_folder(tmp_path, capsys):
    for number, rate in enumerate((0.0, 0.2)):
        folder = make(tmp_path, "one", dropout=(rate,) * 3)
        (tmp_path / "sweeps" / "grid" / f"{number:04}").mkdir(parents=True)
        folder.path.rename(tmp_path / "sweeps" / "grid" / f"{number:04}" / "0")
    (tmp_path / "sweeps" / "grid" / "sweep.json").write_text("{}")
    found = table(run(tmp_path, capsys, "--compare", "sweeps/grid/0000", "sweeps/grid/0001/0"))
    assert found["dropout"] == ["none", "0.2_0.2_0.2"]
    said = helpers.refused(capsys, main, f"--logdir={tmp_path}", "--compare", "sweeps/grid/0000", "sweeps/grid")
    assert "sweeps/grid: is a sweep; name a trial of it, such as sweeps/grid/0000" in said


def test_pruning_removes_what_it_says_and_nothing_else(tmp_path, capsys):
    pruned = [make(tmp_path, "finished"), make(tmp_path, "seeds/seed1", seed=1)]
    make(tmp_path, "stopped", finished=False, epochs=9)
    next((make(tmp_path, "without weights").weights).glob("best.*")).unlink()
    helpers.change(make(tmp_path, "edited").config, lambda record: record.update(note="mine"))
    sweeps.made(tmp_path / "sweeps" / "random", "dropout=0,0.5", [(0.0,), (0.5,)], lambda values, seed: 0.5)
    (pruned[1].checkpoint.parent / "mine").write_text("of a person")
    before = set(tmp_path.rglob("*"))
    text = run(tmp_path, capsys, "--prune", "--dry_run")
    assert re.fullmatch(r"checkpoints of finished runs: 2, 0.0 MB\n", text) and set(tmp_path.rglob("*")) == before
    assert run(tmp_path, capsys, "--prune", "--yes").startswith(text)
    assert before - set(tmp_path.rglob("*")) == {*(folder.checkpoint for folder in pruned),
                                                 pruned[0].checkpoint.parent}


@pytest.mark.parametrize("settings, said", [
    ({}, "is finished, 3 of 3 epochs: --resume=tb_logs/4L/one with more --epochs continues from its end"),
    (dict(epochs=9), "is finished, 3 of 9 epochs: it stopped early; --config=tb_logs/4L/one/config.json with"),
    (dict(epochs=9, finished=False), "was interrupted after 3 of 9 epochs: continue it with --resume=tb_logs/4L/one;"),
])
def test_a_name_that_is_taken_is_answered_by_what_that_run_is(settings, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(pathlib.Path("tb_logs"), "one", **settings)
    answer = helpers.refused(capsys, train_command.main, "--model=4L", "--run_name=one")
    assert f"tb_logs/4L/one {said}" in answer and "choose another --run_name" in answer


def test_a_run_is_named_alike_in_every_command_and_in_python(tmp_path, monkeypatch, capsys):
    """With the log folder before it or without; what is printed is as it was given."""
    monkeypatch.chdir(tmp_path)
    folders = [make(pathlib.Path("tb_logs"), name) for name in ("one", "two")]
    moved = make(pathlib.Path("logs"), "three").path
    for name in ("4L/one", "tb_logs/4L/one", "4L/one/config.json", "./tb_logs/4L/one/"):
        assert train_command.main([f"--resume={name}"]) == 0
        assert capsys.readouterr().out.startswith("tb_logs/4L/one is finished, 3 of 3 epochs: --resume=tb_logs/4L/one ")
        assert "4L/one/weights/best" in helpers.refused(capsys, evaluate_command.main, f"--run={name}", "--run=4L/two")
        assert "4L/one/weights/best" in helpers.refused(capsys, export_command.main, f"--run={name}", "--format=keras")
        with pytest.raises(ZooError, match="^tb_logs/4L/one/weights/best"):
            trained.from_run(name)
        assert run("tb_logs", capsys, "--compare", name, "4L/two").splitlines()[0].split() == ["one", "two"]
        for setting in ("teacher", "initial_weights"):
            assert train_command.main(["--model=4L", f"--{setting}={name}", "--dry_run"]) == 0
            assert json.loads(capsys.readouterr().out)["recipe"][setting] == str(tmp_path / "tb_logs/4L/one")
        assert train_command.main([f"--config={name}", "--seed=1", "--dry_run"]) == 0
        assert json.loads(capsys.readouterr().out)["seed"] == 1
    with pytest.raises(ConfigError, match="--epochs=1 disagrees with the run in tb_logs/4L/one, which has 3"):
        train_command.resume("4L/one", epochs=1)
    assert train_command.main(["--resume=4L/three", "--logdir=logs"]) == 0
    assert capsys.readouterr().out.startswith(f"{moved} is finished")
    assert resolve("4L", logdir="logs", teacher="4L/three").recipe.teacher == str(tmp_path / moved)
    monkeypatch.chdir(folders[0].path)
    with opened(RunFolder(".")) as found:
        assert str(found.logdir) == "../.."


def test_pruned_run_counts_as_finished_and_says_why_it_cannot_be_longer(tmp_path, capsys):
    folder = make(tmp_path, "one")
    run(tmp_path, capsys, "--prune", "--yes")
    assert not folder.checkpoint.parent.exists() and listed(tmp_path, capsys)[0]["status"] == "finished"
    said = helpers.refused(capsys, train_command.main, f"--resume={folder.path}", "--epochs=9")
    assert f"{folder.checkpoint}: is gone" in said
    with pytest.raises(ConfigError, match="is gone"):
        train_command.resume(folder.path)
    assert train_command.main([f"--resume={folder.path}"]) == 0
    assert "is finished, 3 of 3 epochs: its checkpoint was removed; --config=" in capsys.readouterr().out
    assert run(tmp_path, capsys, "--prune") == f"nothing to remove below {tmp_path}\n"


def test_damaged_result_of_a_pruned_run_is_refused_by_its_name(tmp_path, capsys):
    """Resuming the run cannot write it again."""
    folder = make(tmp_path, "one")
    run(tmp_path, capsys, "--prune", "--yes")
    folder.result.write_text(folder.result.read_text().replace('"epochs": 3', '"epochs": 2'))
    for main_of, flags in ((train_command.main, [f"--resume={folder.path}"]),
                           (train_command.main, [f"--resume={folder.path}", "--epochs=9"]),
                           (evaluate_command.main, [f"--run={folder.path}"])):
        said = helpers.refused(capsys, main_of, *flags)
        assert f"{folder.result}: damaged" in said and f"--config={folder.config}" in said
    line, = listed(tmp_path, capsys)
    assert line["status"] == "damaged" and str(folder.result) in line["reason"]
    assert batch.existing_run(str(tmp_path), read_run(folder.path)[1]) == (None, {})


@pytest.mark.parametrize("answer, code, text", [
    ("y\n", 0, "removed: "), ("n\n", 0, "nothing was removed"), ("\n", 0, "nothing was removed"),
    ("", 2, "nobody answered: add --yes, or --dry_run"),
])
def test_pruning_asks(tmp_path, capsys, monkeypatch, answer, code, text):
    folder = make(tmp_path, "one")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert main([f"--logdir={tmp_path}", "--prune"]) == code
    captured = capsys.readouterr()
    assert text in captured.out + captured.err and folder.checkpoint.exists() == (answer != "y\n")


def test_run_that_is_resumed_meanwhile_keeps_its_checkpoint(tmp_path):
    folder = make(tmp_path, "one")
    (one,) = pruning.find(tmp_path)
    with folder.locked():
        assert not pruning.remove(one)
    folder.result.unlink()
    assert not pruning.remove(one) and folder.checkpoint.exists()
