"""`trainers.runs` on files: `--compare` with its plot, `--prune`, and `--verify`."""

import io
import json
import os
import re
import shutil
import sys
import time

import pytest
from PIL import Image

from tests import helpers, sweeps
from tests.runs import DATA, ENVIRONMENT, evaluate, make
from trainers import train as train_command
from trainers.running import pruning, verifying
from trainers.running.folder import RunFolder
from trainers.runs import main

LONG_AGO = time.time() - 2 * pruning.EMPTY_FOR


def run(logdir, capsys, *flags, code=0):
    """What a command prints."""
    assert main([f"--logdir={logdir}", *map(str, flags)]) == code
    return capsys.readouterr().out


def table(text):
    return {cells[0]: cells[1:] for cells in (re.split(" {2,}", line) for line in text.splitlines())}


def test_settings_that_differ_and_results_side_by_side(tmp_path, capsys):
    make(tmp_path, "one", seed=3)
    evaluate(make(tmp_path, "two", losses=(0.6, 0.2), epochs=9, l2=1e-4, early_stopping=1,
                  environment={**ENVIRONMENT, "versions": {"tensorflow": "2.22.0"}}))
    second = tmp_path / "4L,l2=0.0001" / "two"
    found = table(run(tmp_path, capsys, "--compare", "4L/one", second))
    assert found[""] == [] and found.pop("") == []
    assert found == {
        "model": ["4L", "4L"], "l2": ["0.0", "0.0001"], "epochs": ["3", "2"], "early_stopping": ["0", "1"],
        "seed": ["3", "0"], "tensorflow": ["2.21.0", "2.22.0"], "status": ["finished", "finished"],
        "best epoch": ["2", "2"], "train loss eval": ["0.1500", "0.1000"],
        "train accuracy eval": ["0.9000", "0.9000"],
        "validation loss": ["0.3000", "0.2000"], "validation accuracy": ["0.7000", "0.8000"],
        "test accuracy": ["-", "0.8000"], "seconds": ["4", "3"], "images per second": ["1200", "1200"]}
    rows = json.loads(run(tmp_path, capsys, "--compare", "4L/one", second, "--json"))
    assert [row["folder"] for row in rows] == [str(tmp_path / "4L" / "one"), str(second)]
    assert [row["val_loss"] for row in rows] == [0.3, 0.2] and [row["l2"] for row in rows] == ["0.0", "0.0001"]


def test_runs_on_other_images_do_not_compare(tmp_path, capsys):
    for name, data in (("one", DATA), ("two", {**DATA, "split_sha256": "f" * 64})):
        make(tmp_path, name, data=data)
    text = run(tmp_path, capsys, "--compare", "4L/one", "4L/two")
    assert "were not validated on the same images" in text and table(text)["split_sha256"] == ["e" * 12, "f" * 12]


def test_plot_has_the_curves_of_runs_of_other_lengths(tmp_path, capsys):
    make(tmp_path, "$a_{", losses=(0.5,))
    make(tmp_path, "two", losses=(0.6, 0.2, 0.3), finished=False, epochs=9)
    text = run(tmp_path, capsys, "--compare", "4L/$a_{", "4L/two/config.json", f"--plot={tmp_path / 'curves.png'}")
    assert text.endswith(f"written: {tmp_path / 'curves.png'}\n")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 800 and len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_trial_is_named_by_its_folder(tmp_path, capsys):
    logs = shutil.copytree(helpers.OLD_FILES / "logs", tmp_path / "logs")
    found = table(run(logs, capsys, "--compare", "sweeps/grid/0000", "sweeps/grid/0001/0"))
    assert found["dropout"] == ["none", "0.2"]
    assert main([f"--logdir={logs}", "--compare", "sweeps/grid/0000", "sweeps/grid"]) == 2
    assert "sweeps/grid: is a sweep; name a trial of it, such as sweeps/grid/0000" in capsys.readouterr().err


@pytest.fixture
def cluttered(tmp_path):
    """A log folder with one of each that `--prune` removes, and of what it must leave."""
    make(tmp_path, "finished")
    make(tmp_path, "stopped", finished=False, epochs=9)
    (make(tmp_path, "without weights").weights / "best.weights.h5").unlink()
    for name in ("killed/at_start", "4L/empty", "4L/new", "held/at_start", "sweeps/never_began"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".lock").write_text("123")
    (tmp_path / "killed" / "at_start" / ".config.json.0a1b").write_text("{")
    for name in ("random", "random-until-20260101-120000"):
        sweeps.made(tmp_path / "sweeps" / name, "dropout=0,0.5", [(0.0,), (0.5,)], lambda values, seed: 0.5)
    (tmp_path / "sweeps" / "notes-until-20260101-120000").mkdir()
    for path in ("killed", "killed/at_start", "4L/empty", "held", "held/at_start", "sweeps/never_began"):
        os.utime(tmp_path / path, (LONG_AGO, LONG_AGO))
    return tmp_path


REMOVED = {"4L/finished/checkpoints", "killed", "killed/at_start", "4L/empty", "sweeps/never_began",
           "sweeps/random-until-20260101-120000"}


def folders(logdir):
    return {path.relative_to(logdir).as_posix() for path in logdir.rglob("*") if path.is_dir()}


def test_pruning_removes_what_it_says_and_nothing_else(cluttered, capsys):
    before = folders(cluttered)
    with RunFolder(cluttered / "held" / "at_start").locked():
        text = run(cluttered, capsys, "--prune", "--dry_run")
        assert folders(cluttered) == before
        assert run(cluttered, capsys, "--prune", "--yes").startswith(text)
    gone = before - folders(cluttered)
    assert gone == REMOVED | {f"sweeps/random-until-20260101-120000/{number:04}" for number in (0, 1)}
    assert [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")] \
        == ["checkpoints of finished runs", "empty folders", "sweeps moved aside by --overwrite", "this frees 0.0 MB"]
    assert {line.strip() for line in text.splitlines() if line.startswith(" ")} \
        == {str(cluttered / name) for name in REMOVED - {"4L/finished/checkpoints"}}


def test_pruned_run_counts_as_finished_and_says_why_it_cannot_be_longer(tmp_path, capsys):
    folder = make(tmp_path, "one")
    run(tmp_path, capsys, "--prune", "--yes")
    assert not folder.checkpoint.parent.exists()
    assert run(tmp_path, capsys, "--verify") == "checked 1 run, 0 sweeps, 0 trials: no problems\n"
    assert train_command.main([f"--resume={folder.path}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert run(tmp_path, capsys, "--prune") == f"nothing to remove below {tmp_path}\n"


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A log folder without damage, of this version and of 0.1."""
    logdir = tmp_path_factory.mktemp("whole")
    shutil.copytree(helpers.OLD_FILES / "logs", logdir, dirs_exist_ok=True)
    evaluate(make(logdir, "one"))
    make(logdir, "stopped", finished=False, epochs=9, checkpoint_every=1)
    sweeps.made(logdir / "sweeps" / "two", "dropout=0,0.5", [(0.0,), (0.5,)], lambda values, seed: values["dropout"])
    return logdir


def test_whole_folder_has_no_problems(whole, capsys):
    assert run(whole, capsys, "--verify") == "checked 6 runs, 2 sweeps, 5 trials: no problems\n"
    with RunFolder(whole / "4L" / "stopped").locked():
        assert run(whole, capsys, "--verify", "--model=4L") \
            == "checked 1 run, 1 sweep, 2 trials: no problems; not checked, because they are running: 1\n"


def changed(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


OLD = "2L,hidden=2/finished"


@pytest.mark.parametrize("name, damage, text", [
    ("4L/one/metrics.csv", changed("1200.0", "1300.0"), "epochs 1 to 3 are not those that the run wrote"),
    ("4L/stopped/metrics.csv", changed("1200.0", "1300.0"), "epochs 1 to 3 are not those that the run wrote"),
    ("4L/one/metrics.csv", changed("\n2,16,", "\n2,x,16,"), "line 3 does not read"),
    ("4L/one/config.json", changed('"seed": 0', '"seed": 7'), "its content does not fit its content_sha256"),
    ("4L/one/config.json", os.truncate, "not the config.json of a run"),
    ("4L/one/result.json", changed("0.7", "0.99"), "result.json: damaged or changed; it is written again by"),
    ("4L/one/result.json", os.truncate, "result.json: damaged or changed"),
    ("4L/one/checkpoints/latest.npz", flipped, "latest.npz: "),
    ("4L/stopped/checkpoints/latest.npz", os.unlink, "is gone, and without it the run cannot continue"),
    ("4L/one/weights/best.weights.h5", os.unlink, "best.weights.h5: is gone"),
    ("4L/one/weights/best.weights.h5", flipped, "best.weights.h5: damaged or changed: its SHA-256 is not the one in"),
    ("4L/one/weights/best.weights.h5", lambda path: os.truncate(path, 3), "best.weights.h5: damaged or changed"),
    ("4L/one/model.keras", os.unlink, "model.keras: is gone"),
    ("4L/one/events.out.tfevents.1.curves", flipped, "tfevents.1.curves: damaged or changed"),
    ("4L/one/events.out.tfevents.1.curves", lambda path: path.write_bytes(path.read_bytes() + b"more"),
     "tfevents.1.curves: damaged or changed"),
    (f"{OLD}/model.keras", os.unlink, "model.keras: is gone"),
    ("4L/one/evaluation/evaluation.json", changed("0.8", "0.9"), "evaluation.json: damaged, or of other weights"),
    (f"{OLD}/metrics.csv", changed("0.245", "0.945"), "its val_accuracy is 0.245, and 0.945 by metrics.csv"),
    (f"{OLD}/config.json", changed('"seed": 8', '"seed": 7'), "one of the two was changed"),
    (f"{OLD}/result.json", changed("0.245", "0.99"), "its val_accuracy is 0.99, and 0.245 by metrics.csv"),
    (f"{OLD}/result.json", changed('"epochs": 4', '"epochs": 5'), "and metrics.csv has 4 rows"),
    (f"{OLD}/result.json", changed('_sha256": "', '_sha256": "0'), "is not that of the weights in the checkpoint"),
    (f"{OLD}/model.keras", flipped, "model.keras: damaged"),
    (f"{OLD}/train", shutil.rmtree, "event files are missing, or shorter"),
    ("sweeps/two/0001/result.json", changed("0.5", "0.4"), "its content does not fit its content_sha256"),
    ("sweeps/two/0001/proposal.json", changed("0.5", "0.4"), "its content does not fit its content_sha256"),
    ("sweeps/two/sweep.json", changed("random", "grid"), "its content does not fit its content_sha256"),
    ("sweeps/grid/0001/0/result.json", changed("0.2", "0.3"), "0001/result.json: is not what its runs came to"),
    ("sweeps/two/0001/proposal.json", os.truncate, "proposal.json: cannot be read"),
    ("sweeps/grid/0001/0/metrics.csv", changed("\n2,", "\n3,"), "line 3 is not the row of epoch 2"),
])
def test_damage_is_found(whole, tmp_path, capsys, name, damage, text):
    logdir = tmp_path / "logs"
    shutil.copytree(whole, logdir)
    damage(logdir / name, 20) if damage is os.truncate else damage(logdir / name)
    printed = run(logdir, capsys, "--verify", code=1)
    assert text in printed and not printed.splitlines()[-1].endswith("no problems")
    assert not any(problem for problem in printed.splitlines()[:-1] if str(logdir) not in problem)


def test_trial_without_the_weights_that_its_sweep_removed_is_whole(tmp_path):
    folder = make(tmp_path, "one", ranking=True)
    folder.model.unlink()
    shutil.rmtree(folder.weights)
    assert not verifying.problems(folder)
    (folder.path / "events.out.tfevents.1.curves").unlink()
    assert len(verifying.problems(folder)) == 1


@pytest.mark.parametrize("name", ["metrics.csv", "result.json", "checkpoints/latest.npz", "model.keras"])
def test_a_pipe_in_the_place_of_a_file_is_damage_and_is_not_read(tmp_path, capsys, name):
    make(tmp_path, "other")
    path = make(tmp_path, "one").path / name
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: " in run(tmp_path, capsys, "--verify", code=1)
    assert main([f"--logdir={tmp_path}", "--compare", "4L/one", "4L/other"]) == 2 * (name == "metrics.csv")
    assert ("not a regular file" in capsys.readouterr().err) == (name == "metrics.csv")
