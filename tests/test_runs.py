"""`trainers.runs`: lists, compares, cleans up and checks runs, damaged, half-written and foreign folders among them."""

import csv
import io
import json
import os
import re
import shutil

import pytest

from tests import helpers, sweeps
from tests.runs import evaluate, make
from trainers.running.folder import RunFolder, in_use
from trainers.runs import GROUPS, define_flags, main

FINISHED_OLD = "2L,hidden=2/finished"


@pytest.fixture
def old(tmp_path):
    """A log folder of version 0.1: a finished run, three unfinished ones and an unfinished sweep of three trials."""
    return shutil.copytree(helpers.OLD_FILES / "logs", tmp_path / "old")


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


def test_files_of_version_0_1_and_their_sweep_are_listed(old, capsys):
    found = listed(old, capsys)
    assert [(one["kind"], one["model"], one["status"], one["epochs"]) for one in found] == [
        ("sweep", "2L", "interrupted", None), ("run", "2L", "finished", 4), ("run", "network_A", "interrupted", 4),
        ("run", "2L", "interrupted", 3), ("run", "2L", "interrupted", 3)]
    result = json.loads((old / FINISHED_OLD / "result.json").read_text())
    assert {name: found[1][name] for name in ("val_loss", "val_accuracy", "seconds", "best_epoch")} == {
        **{name: result["final"][name] for name in ("val_loss", "val_accuracy")},
        "seconds": result["seconds"], "best_epoch": 4}
    assert found[1]["test_accuracy"] == 0.25 and found[1]["started"] == "2026-11-24T20:50:39Z"
    best = json.loads((old / "sweeps" / "grid" / "best.json").read_text())
    assert (found[0]["val_loss"], found[0]["trials"], found[0]["ended_trials"]) == (best["objective"], 3, 2)
    assert found[2]["best_epoch"] == 4  # the last weights of network_* count


def test_sweeps_are_a_line_each(tmp_path, capsys):
    made = sweeps.made(tmp_path / "sweeps" / "one", "dropout=0,0.5; l2=0,0.001",
                       [(0.0, 0.0), (0.5, 0.0), (0.5, 0.001)], lambda values, seed: values["dropout"] or 0.25)
    _, row = lines(tmp_path, capsys)[0]
    assert row == ["4L", "random: dropout=0.0,0.5; l2=0.0,0.001 data=mini", "finished", "3/3 trials", "0.2500",
                   "0.7500", "-", "3", str(made.path)]
    (made.path / "0002" / "result.json").unlink()
    assert [one["status"] for one in listed(tmp_path, capsys)] == ["interrupted"]
    (made.path / "0001" / "result.json").write_text("{half")
    (damaged,) = listed(tmp_path, capsys)
    assert damaged["status"] == "damaged" and str(made.path / "0001" / "result.json") in damaged["reason"]


def test_models_are_chosen_by_pattern_with_and_without_changes(logs, capsys):
    assert {one["name"] for one in listed(logs, capsys, "--model=4D*")} == {"4D_drop03,dropout=0.4_0.3_0.2"}
    assert [one["model"] for one in listed(logs, capsys, "--model=4L")] == ["4L"] * 3
    assert [one["model"] for one in listed(logs, capsys, "--model=*dropout=0.4*")] == ["4D_drop03"]
    assert main([f"--logdir={logs}", "--model=6L"]) == 0
    assert capsys.readouterr().out == f"no run of 6L below {logs}; a run's folder is <logdir>/<model>/<run>\n"


@pytest.mark.parametrize("sort, names", [
    ("val_loss", ["early", "stopped", "done", "failed", "new"]),
    ("-val_loss", ["stopped", "done", "failed", "early", "new"]),
    ("val_accuracy", ["early", "stopped", "done", "failed", "new"]),
    ("test_accuracy", ["done", "stopped", "early", "new", "failed"]),
    ("-started", ["failed", "new", "early", "done", "stopped"]),
    ("epochs", ["stopped", "done", "failed", "early", "new"]),
    ("model", ["stopped", "done", "early", "failed", "new"]),
])
def test_sorted_best_first_with_unknown_values_last(logs, capsys, sort, names):
    found = listed(logs, capsys, f"--sort={sort}")
    assert [os.path.basename(one["folder"]) for one in found] == names


def test_limit_says_how_many_there_are(logs, capsys):
    rows, _ = lines(logs, capsys, "--limit=2")
    assert len(rows) == 4 and rows[-1] == ["2 of 5"]
    assert len(listed(logs, capsys, "--limit=2")) == 2


def test_csv_holds_what_json_holds(logs, capsys):
    expected = listed(logs, capsys)
    assert main([f"--logdir={logs}", "--csv"]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert found == [{name: "" if value is None else str(value) for name, value in one.items()} for one in expected]


def test_damaged_half_written_and_foreign_folders(tmp_path, capsys):
    """Damage is a line and a reason; what is no run is left out; the others are listed as before."""
    logs = tmp_path
    make(logs, "whole")
    before = listed(logs, capsys)
    for name, content in (("half", '{"config": {"spec"'), ("deep", "[" * 100_000), ("bytes", "\udcff"),
                          ("wrong", json.dumps({"config": {"spec": {"name": "4L"}}}))):
        (logs / "4L" / name).mkdir()
        (logs / "4L" / name / "config.json").write_text(content, errors="surrogateescape")
    rows = make(logs, "rows", finished=False, epochs=9)
    rows.table.path.write_text(rows.table.path.read_text().replace("\n2,16,", "\n2,x,16,"))
    place = make(logs, "place", finished=False, epochs=9)
    place.table.path.unlink()
    place.table.path.mkdir()
    for path in ("killed/at_start", "4L/empty", ".git/objects", "notes"):
        (logs / path).mkdir(parents=True)
    (logs / "killed" / "at_start" / ".lock").write_text("123")
    (logs / "notes" / "config.json").write_text("{}")
    (logs / "notes" / "theirs").mkdir()
    (logs / "notes" / "theirs" / "config.json").write_text('{"editor": "vim"}')
    (logs / "a file").write_text("text")
    (logs / "sweeps").mkdir()
    (logs / "sweeps" / "half").mkdir()
    (logs / "sweeps" / "half" / "sweep.json").write_text('{"base": ')
    (logs / "link").symlink_to("nowhere")
    found = listed(logs, capsys)
    assert [one for one in found if one["status"] != "damaged"] == before
    damaged = {os.path.basename(one["folder"]): one for one in found if one["status"] == "damaged"}
    assert set(damaged) == {"half", "deep", "bytes", "wrong", "rows", "place"} and len(found) == len(before) + 7
    assert "line 3 does not read" in damaged["rows"]["reason"] and damaged["rows"]["planned_epochs"] == 9
    assert "not the config.json of a run" in damaged["deep"]["reason"] and damaged["deep"]["model"] == "4L"
    rows, errors = lines(logs, capsys)
    assert len(rows) == 1 + len(found) and errors.count("\n") == 6
    assert all(line.startswith("runs: ") for line in errors.splitlines())
    assert errors.splitlines()[-1] == "runs: 2 more are damaged; --json says why"


@pytest.mark.parametrize("content", ["", "[]", '{"epochs": 3}'])
def test_result_that_does_not_read_leaves_what_the_rows_say(tmp_path, capsys, content):
    make(tmp_path, "one").result.write_text(content)
    (found,) = listed(tmp_path, capsys)
    assert (found["status"], found["epochs"], found["val_loss"]) == ("interrupted", 3, 0.3)


def test_values_that_are_no_numbers_are_unknown(tmp_path, capsys):
    folder = make(tmp_path, "one", started=float("inf"))
    helpers.change(folder.result, lambda result: result["final"].update(
        val_loss=float("nan"), val_accuracy="high"))
    (found,) = listed(tmp_path, capsys)
    assert (found["status"], found["val_loss"], found["val_accuracy"], found["started"]) \
        == ("finished", None, None, None)


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
    (["--sort=loss"], "--sort=loss is no column; these are: folder, "),
    (["--sort=modle"], "is no column; these are: folder, kind, model, "),
    (["--json", "--csv"], "two formats"), (["--limit=0"], "--limit must be a whole number of at least 1, received 0"),
    (["--limit=x"], "--limit must be a whole number of at least 1, received 'x'"), (["one"], "received 'one'"),
    (["--plot=x.png"], "--plot goes with --compare"), (["--yes"], "--yes goes with --prune"),
    (["--prune", "--verify"], "--prune and --verify are two things"),
    (["--prune", "--model=4L"], "--model does not go with --prune"),
    (["--compare"], "two runs or more"), (["--compare", "4L/done"], "two runs or more"),
    (["--compare", "4L/done", "4L/done"], "4L/done and 4L/done are the same run"),
    (["--compare", "4L/done", "4L/early", "--plot=/nonexistent/c.png"], "c.png: there is no folder /nonexistent"),
    (["--compare", "4L/done", "4L/nothing"], "4L/nothing: no run in this folder"),
    (["--compare", "4L/done", "4L/early", "--plot=x.pdf"], "must end with .png"),
    (["--logdir=nowhere"], "nowhere: no such folder"), (["--logdir=nowhere", "--prune"], "nowhere: no such folder"),
])
def test_mistake_is_one_line(logs, capsys, flags, text):
    assert main([f"--logdir={logs}", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("runs: ") and captured.err.count("\n") == 1 and text in captured.err
    assert not captured.out


def test_every_flag_is_in_a_group():
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(define_flags())
