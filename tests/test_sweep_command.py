"""The command trainers.sweep: flags, output, TensorBoard's HParams tab, Ctrl-C."""

import csv
import os
import re
import signal
import subprocess
import sys

import pytest

from tests import helpers
from tests.conftest import ROOT
from trainers import sweep

GRID = ("--model=softmax", "--data=mini", "--epochs=2", "--tuner=grid", "--space=l2=0,0.01; learning_rate=0.001,1e38")


def test_dry_run_says_what_would_be_tried(capsys):
    assert sweep.main(["--model=5D_drop04_03_02_01", "--dry_run", "--workers=2"]) == 0
    shown = capsys.readouterr().out
    assert "dropout.4=0.0,0.1,0.2,0.3,0.4,0.5" in shown and "20736 combinations" in shown


def test_dry_run_counts_in_the_singular(tmp_path, capsys):
    assert sweep.main(["--model=4L", "--space=l2=0", "--tuner=grid", "--epochs=1", "--dry_run",
                       f"--logdir={tmp_path}"]) == 0
    assert "grid: 1 trial of 1 execution, up to 1 epoch each" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    ([], "which model"),
    (["--model=4X"], "did you mean"),
    (["--model=4L", "--space=dropout=0,2"], "in 'dropout=0,2'"),
    (["--model=4L", "--tuner=grid", "--space=dropout=0..0.5"], "a grid needs its values listed"),
    (["--model=4L", "--tuner=genetic"], "genetic"),
    (["--model=4L", "--epochs=0"], "epochs"),
    (["--model=4L", "--batch_size=x"], "--batch_size must be"),
    (["--model=4L", "--validation_size=0"], "a sweep ranks its trials by validation images"),
    (["--model=4L", "--name=../x", "--dry_run"], "--name names a folder"),
    (["--model=4L", "--dropout=0.3", "--space=dropout=0,0.1", "--dry_run"], "--dropout and --space both set dropout"),
    (["--model=4L", "--dry_run=maybe"], "--dry_run is true or false, received 'maybe'"),
    (["--model=4L", "--tuner=asha", "--space=epochs=1,2"], "take epochs out of --space"),
    (["--model=4L", "--tuner=hyperband"], "--tuner=asha does the work of hyperband"),
    (["--model=4L", "--workers=64", "--dry_run"], "--workers is at most"),
    (["--show=nowhere", "--model=4L"], "received --model"),
    (["--show=nowhere", "--dry_run"], "received --dry_run"),
    (["--model=4L", "--name=a/b", "--data=mini"], "--name names a folder"),
    (["--model=4L", "--scheduler=tcp://a:1", "--workers=2"], "drop --workers"),
    (["--model=4L", "--space=dropout=0", "word"], "belongs to no flag"),
    (["--show=nowhere"], "holds no sweep"),
])
def test_wrong_command_line_is_refused_in_words(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("sweep: ") and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep by the command, with two trials that fail; its log folder and its output."""
    folder = tmp_path_factory.mktemp("swept")
    done = subprocess.run([sys.executable, "-m", "trainers.sweep", *GRID, "--workers=1"], cwd=folder, text=True,
                          timeout=helpers.SECONDS, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return folder / "tb_logs", done


@pytest.mark.long
def test_output_has_progress_ranked_table_and_next_command(swept, capsys):
    logdir, done = swept
    path = logdir / "sweeps" / "softmax-grid-seed0"
    assert re.search(r"^\[1/4\] 0000  l2=0 learning_rate=0.001: val_loss \d\.\d{4}, the best so far", done.stdout, re.M)
    assert re.search(r"^ +1 +000[02] .* COMPLETED", done.stdout, re.M) and done.stdout.count("FAILED") == 4
    assert "python -m trainers.train --from_sweep=tb_logs/sweeps/softmax-grid-seed0" in done.stdout
    assert not done.stderr
    assert sweep.main([f"--show={path}"]) == 0
    shown = capsys.readouterr().out
    assert shown.split("\n\n")[0] in done.stdout


def groups(address):
    """What TensorBoard's HParams tab shows; nothing as long as it does not answer."""
    try:
        return helpers.session_groups(address)
    except (OSError, ValueError, LookupError):
        return []


@pytest.mark.long
def test_make_board_prints_a_link_alone_and_serves_values_metrics_and_statuses(swept):
    """TensorBoard's HTTP answers equal trials.csv."""
    logdir, _ = swept
    server = subprocess.Popen(
        ["make", "-o", ".venv/run.stamp", "board", f"RUN={sys.executable}", f"FLAGS=--logdir={logdir} --port=0"],
        cwd=ROOT, env=helpers.outside_make(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True)
    try:
        line = server.stdout.readline()
        address = re.fullmatch(r"TensorBoard \(Ctrl-C ends it\): (http://localhost:\d+/)\?smoothing=0&\S+\n", line)
        assert address, line
        helpers.until(lambda: len(groups(address[1])) == 4)
        found = groups(address[1])
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with server:  # `communicate` would leave out what `readline` has read ahead
            output, noise = server.stdout.read(), server.stderr.read()
        assert re.fullmatch(rf"and the trials of sweeps: +{address[1]}\?smoothing=0&\S+#hparams\S*\n", output), output
        assert all(line.startswith("make: ") for line in noise.splitlines())  # make was terminated, too
    with open(logdir / "sweeps" / "softmax-grid-seed0" / "trials.csv", newline="") as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    assert len(found) == len(rows) == 4
    for group in found:
        (session,) = group["sessions"]
        row = rows[session["name"].split("/")[2]]
        assert float(row["l2"]) == group["hparams"]["l2"] and float(row["seed"]) == group["hparams"]["seed"]
        assert float(row["learning_rate"]) == group["hparams"]["learning_rate"]
        assert session["status"] == {"COMPLETED": "STATUS_SUCCESS", "FAILED": "STATUS_FAILURE"}[row["status"]]
        assert session["startTimeSecs"] <= session["endTimeSecs"]
        metrics = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
        if row["status"] == "COMPLETED":
            assert metrics["selected/objective"] == pytest.approx(float(row["objective"]), rel=1e-6)


def test_second_leader_is_refused_with_the_process_of_the_first(tmp_path, capsys):
    import fcntl

    path = tmp_path / "sweeps" / "softmax-grid-seed0"
    path.mkdir(parents=True)
    with open(path / ".lock", "w") as held:
        held.write("4242")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sweep.main([*GRID, f"--logdir={tmp_path}"]) == 2
    assert "process 4242 is sweeping in this folder" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("training", [False, True], ids=["workers start", "workers train"])
def test_ctrl_c_leaves_no_traceback_and_keeps_finished_epochs(training, tmp_path):
    command = [sys.executable, "-m", "trainers.sweep", *GRID, "--epochs=2000", "--workers=2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True) as process:
        metrics = tmp_path / "tb_logs" / "sweeps" / "softmax-grid-seed0" / "0000" / "0" / "metrics.csv"
        helpers.until(lambda: process.poll() is not None or (
            metrics.exists() if training else len(helpers.children_of(process.pid)) > 2))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        output, error = process.communicate(timeout=helpers.SECONDS)
    assert process.returncode == 130, error
    assert "the same command continues" in output or "nothing had begun" in output and not training
    assert "Traceback" not in error + output
    if training:
        assert "RUNNING" in output and (metrics.parent / "checkpoints" / "latest.safetensors").exists()
