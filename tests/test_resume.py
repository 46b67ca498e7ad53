"""An interrupted and resumed run is the uninterrupted one, bit for bit; and what may not be resumed is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import helpers
from tests.conftest import ROOT
from trainers import config
from trainers.running import folder as folders, run
from trainers.running.progress import Reporter
from trainers.train import main, train

EPOCHS = 5


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "trainers.train", *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for_rows(folder, count, process):
    deadline = time.monotonic() + 120
    while len(folders.RunFolder(folder).rows() if (folder / "metrics.csv").exists() else []) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_equal_runs(one, other):
    assert helpers.rows_without_times(one) == helpers.rows_without_times(other)
    assert helpers.state_digest(one) == helpers.state_digest(other)
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert results[0]["final"] == results[1]["final"]
    for part in ("train", "validation", ""):
        first, second = helpers.scalars(one / part), helpers.scalars(other / part)
        first.pop("images_per_second", None), second.pop("images_per_second", None)
        assert first == second


@pytest.mark.parametrize("optimizer, kills", [("adam", (0, 2)), ("momentum", (3,))])
def test_killed_in_mid_epoch(tmp_path, optimizer, kills):
    """SIGKILL while an epoch runs, at several epochs (the first before any checkpoint), then the same to the end."""
    settings = dict(data="mini", epochs=EPOCHS, batch_size=3, seed=11, optimizer=optimizer, histogram_every=2)
    whole = train("4D_drop03", logdir=tmp_path, run_name="whole", **settings).folder
    folder = tmp_path / "4D_drop03" / "killed"
    flags = [f"--{name}={value}" for name, value in settings.items()]
    process = start("--model=4D_drop03", f"--logdir={tmp_path}", "--run_name=killed", *flags)
    for rows in kills:
        wait_for_rows(folder, rows, process)
        if not rows:
            while not (folder / "config.json").exists():
                time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (folder / "result.json").exists(), "too late: the run had ended"
        process = start(f"--resume={folder}")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert_equal_runs(folder, whole)


@pytest.mark.parametrize("trainer", ["tape", "fit"])
def test_more_epochs_are_as_if_planned(tmp_path, trainer, capsys):
    settings = dict(data="mini", trainer=trainer, seed=1, logdir=tmp_path, histogram_every=1, checkpoint_every=1)
    whole = train("4D_drop03", epochs=4, run_name="whole", **settings).folder
    parts = train("4D_drop03", epochs=2, run_name="parts", **settings).folder
    assert main([f"--resume={parts}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main([f"--resume={parts}", "--epochs=4"]) == 0
    assert_equal_runs(parts, whole)


class Crash(Exception):
    """Ends a run between two epochs with nothing saved."""


def crash_after(epoch):
    calls = iter(range(epoch + 1))

    def should_stop():
        if next(calls) == epoch:
            raise Crash
        return False

    return should_stop


def test_rows_and_events_past_the_checkpoint_go(tmp_path):
    """A checkpoint every third epoch, a crash after the fifth: two epochs are written again, not twice."""
    settings = dict(data="mini", epochs=6, seed=4, checkpoint_every=3, histogram_every=1)
    whole = train("3L", logdir=tmp_path, run_name="whole", **settings).folder
    resolved = config.resolve("3L", **settings)
    folder = folders.create(tmp_path, resolved, "crashed")
    with pytest.raises(Crash):
        run.execute(folder, resolved, reporter=Reporter(), should_stop=crash_after(5))
    with open(folder.metrics, "a") as file:
        file.write("6,48,0.1")
    assert len(folder.rows()) == 6 and len(helpers.scalars(folder.path / "train")["loss"]) == 5
    assert main([f"--resume={folder.path}"]) == 0
    assert_equal_runs(folder.path, whole)


def test_ctrl_c_finishes_the_epoch_and_tells_how_to_go_on(tmp_path):
    process = start("--model=2L", "--data=mini", "--epochs=5000", f"--logdir={tmp_path}", "--run_name=one")
    folder = tmp_path / "2L" / "one"
    wait_for_rows(folder, 1, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"python -m trainers.train --resume={folder}" in output and "finishing this epoch" in errors
    assert "Traceback" not in errors
    rows = folders.RunFolder(folder).rows()
    assert helpers.checkpoints.load(folder / "checkpoints" / "latest.npz")[1]["epoch"] == len(rows)


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    process = start("--model=5L", "--data=mini", "--batch_size=1", "--epochs=500", f"--logdir={tmp_path}",
                    "--run_name=one")
    wait_for_rows(tmp_path / "5L" / "one", 1, process)
    process.send_signal(signal.SIGINT)
    assert "finishing this epoch" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - started < 1


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run that was stopped after its second epoch."""
    resolved = config.resolve("4D_drop03", data="mini", epochs=6, l2=1e-4)
    folder = folders.create(tmp_path_factory.mktemp("unfinished"), resolved, "one")
    epochs = iter((False, False, True))
    outcome = run.execute(folder, resolved, reporter=Reporter(), should_stop=lambda: next(epochs))
    assert outcome.result is None and len(outcome.history) == 2
    return folder.path


@pytest.mark.parametrize("flags, text", [
    (["--batch_size=32"], "--batch_size=32 disagrees with the run in .*, which has 256"),
    (["--epochs=5"], "--epochs=5 disagrees"), (["--dropout=0.5"], r"--dropout=\(0.5, 0.5, 0.5\) disagrees"),
    (["--seed=3"], "--seed=3 disagrees"), (["--data=fashion_mnist"], "--data=fashion_mnist disagrees"),
    (["--model=4L"], "--model=4L disagrees"), (["--run_name=x"], "drop --run_name"), (["--config=x"], "drop --config"),
])
def test_flags_that_disagree_are_refused_by_name(unfinished, flags, text, capsys):
    assert main([f"--resume={unfinished}", *flags]) == 2
    assert re.search(text, capsys.readouterr().err)


def test_flags_that_agree_are_taken(unfinished, capsys):
    flags = ["--model=4D_drop03", "--l2=1e-4", "--batch_size=256", "--dropout=0.3", "--epochs=7", "--dry_run"]
    assert main([f"--resume={unfinished}", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["epochs"] == 7


def test_latest_is_the_newest_unfinished(unfinished, capsys):
    logdir = unfinished.parent.parent
    train("2L", data="mini", epochs=1, logdir=logdir)
    (logdir / "sweeps" / "one").mkdir(parents=True, exist_ok=True)
    (logdir / "sweeps" / "one" / "config.json").write_text((unfinished / "config.json").read_text())
    (logdir / "broken" / "one").mkdir(parents=True, exist_ok=True)
    (logdir / "broken" / "one" / "config.json").write_text("{")
    assert folders.latest_unfinished(logdir).path == unfinished
    assert main([f"--logdir={logdir}", "--resume=latest", "--model=2L"]) == 2
    assert "no unfinished run of 2L" in capsys.readouterr().err


def test_two_trainers_on_one_folder(unfinished, capsys):
    with folders.RunFolder(unfinished).locked():
        assert main([f"--resume={unfinished}"]) == 2
    assert f"process {os.getpid()} is training in this folder" in capsys.readouterr().err


def test_a_stale_lock_is_no_lock(unfinished):
    (unfinished / ".lock").write_text("999999")
    with folders.RunFolder(unfinished).locked():
        assert (unfinished / ".lock").read_text() == str(os.getpid())


def test_a_damaged_checkpoint_is_named(unfinished, tmp_path, capsys):
    copy = tmp_path / "logs" / unfinished.parent.name / "copy"
    shutil.copytree(unfinished, copy)
    checkpoint = copy / "checkpoints" / "latest.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert main([f"--resume={copy}"]) == 2
    assert f"{checkpoint}: damaged, or not a checkpoint" in capsys.readouterr().err


def test_a_moved_run_leaves_nothing_above_it(tmp_path):
    folder = train("2L", data="mini", epochs=1, logdir=tmp_path / "logs", histogram_every=0).folder
    os.rename(folder, tmp_path / "moved")
    assert main([f"--resume={tmp_path / 'moved'}", "--epochs=2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "moved"]


def test_stopped_before_the_first_epoch(tmp_path):
    resolved = config.resolve("2L", data="mini", epochs=2)
    folder = folders.create(tmp_path, resolved, "one")
    assert run.execute(folder, resolved, reporter=Reporter(), should_stop=lambda: True).result is None
    assert main([f"--resume={folder.path}"]) == 0 and len(folder.rows()) == 2


def test_other_data_are_refused(unfinished, tmp_path, capsys):
    """On resume and on replay: the record says which data it was trained on."""
    copy = tmp_path / unfinished.parent.name / "copy"
    shutil.copytree(unfinished, copy)
    record = json.loads((copy / "config.json").read_text())
    record["data"]["sha256"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(record))
    for flags in ([f"--resume={copy}"], [f"--config={copy / 'config.json'}", f"--logdir={tmp_path}"]):
        assert main(flags) == 2
        assert "are not those of the recorded run: sha256" in capsys.readouterr().err
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
