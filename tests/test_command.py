"""The command line of training: help, `--dry_run`, piped output; a mistake of the user is one line and exit code 2."""

import importlib
import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys

import pytest

from fmnist_zoo import registry
from tests import helpers
from tests.conftest import ROOT
from trainers import cli
from trainers.config import resolve
from trainers.engine.epoch import EpochMeans
from trainers.running import progress
from trainers.running.run import Run
from trainers.train import main


@pytest.mark.parametrize("flags, text", [
    ([], "which model? --model=NAME"),
    (["--model=4D_drop3"], "no model is named '4D_drop3'; did you mean 4D_drop03"),
    (["--model=4L", "--epoch=3"], "there is no flag --epoch; did you mean epochs"),
    (["--model=4L", "--LR=0.1"], "there is no flag --LR; did you mean learning_rate?"),
    (["--model=4L", "--zzzzzz=0.1"], "there is no flag --zzzzzz; --help lists them"),
    (["--model=4L", "--optimizer=SGD"], "received 'SGD'; did you mean sgd?"),
    (["--model=4L", "--data=fmnist"], "received 'fmnist'; did you mean fashion_mnist?"),
    (["--model=4L", "--epochs"], "--epochs needs a value: --epochs=..."),
    (["--model=4L", "--run_name", "--dry_run"], "--run_name needs a value, --run_name=...; received the next flag"),
    (["--epochs", "--model=4L"], "--epochs needs a value, --epochs=...; received the next flag, --model=4L"),
    (["--model=4L", "--epochs=many"], "--epochs"),
    (["--model=4L", "extra"], "received 'extra', which belongs to no flag; flags are written --name=value"),
    (["4L", "--epochs=3"], "received '4L', which belongs to no flag; did you mean --model=4L?"),
    (["--model=4L", "--hidden=10,x"], "--hidden must be a whole number of at least 1, or one for each"),
    (["--model=softmax", "--dropout=0.3"], "there are none"),
    (["--config=nothing.json"], "nothing.json: cannot be read"), (["--config=x", "--model=4L"], "drop --model=4L"),
    (["--resume=nowhere"], "such file or directory; `python -m trainers.runs` lists"),
    (["--resume=latest", "--logdir=nowhere"], "nowhere: no such folder"),
    (["--model=4L", "--zoo_module=no_such_module"], "--zoo_module=no_such_module cannot be imported"),
    (["--model=4L", "--run_name=../x", "--dry_run"], "received '../x'"),
    (["--model=4L", f"--epochs={10**30}"], f"--epochs must be a whole number below {2**31}, received {10**30}"),
    (["--model=4L", "--learning_rate=1e-320"],
     "--learning_rate must be a float32 above 0, received 1e-320"),
    (["--model=4L", "--l2=1e39"], "--l2 must be a float32 of at least 0, received 1e+39"),
    (["--model=4L", "--logdir=setup.cfg"], "choose another --logdir"),
])
def test_mistake_is_one_line(flags, text, capsys):
    assert text in helpers.refused(capsys, main, *flags)


def test_dry_run_prints_the_resolved_run_and_leaves_nothing(tmp_path, capsys):
    assert main(["--model=4L", "--hidden=300,100", "--l1=1e-6", "--optimizer=momentum", "--dry_run",
                 f"--logdir={tmp_path / 'logs'}"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["spec"]["name"] == "4L,hidden=300_100,l1=1e-06" and shown["parameters"] == 266610
    assert shown["recipe"]["learning_rate"] == 0.01
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_piped_output_is_plain_lines_and_a_user_module_is_needed_once(command, tmp_path):
    """One process with a module of the user's own: what it prints to a pipe; its record replays without the module."""
    (tmp_path / "my_models.py").write_text(
        "from fmnist_zoo import register\nregister('tiny', 'mine', hidden=(8,), dropout=0.1)\n")
    done = command("trainers.train", "--zoo_module=my_models", "--model=tiny", "--data=mini", "--epochs=3",
                   "--batch_size=5000", "--shift=2", "--label_smoothing=0.1", "--logdir=logs", "--run_name=one",
                   cwd=tmp_path)
    assert done.returncode == 0 and "tiny: mine, 6370 parameters" in done.stdout, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["model", "data", "training", "settings", "device", "folder"]
    assert ", batch 1800 (all images), 3 epochs of 1 step, seed 0" in lines[2]
    assert lines[3].split()[1:] == ["label_smoothing=0.1", "shift=2"]
    assert [line.split()[1] for line in lines[6:9]] == ["1/3", "2/3", "3/3"]
    assert all("validation loss" in line and "images/s" in line and line.endswith("left") for line in lines[6:9])
    assert lines[9].startswith("done: best weights from epoch")
    assert lines[10].endswith("python -m trainers.board.serve --logdir=logs")
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert not done.stderr  # neither start-up lines nor warnings
    assert "tiny" not in registry._MODELS
    assert main([f"--config={tmp_path / 'logs/tiny/one/config.json'}", f"--logdir={tmp_path / 'others'}"]) == 0


@pytest.mark.parametrize("width, shown, hidden", [
    (60, "", "validation images/s"), (80, "images/s", "validation"), (100, "validation", "images/s"),
    (140, "validation images/s", "")])
def test_bar_shows_what_a_terminal_has_room_for(width, shown, hidden, monkeypatch):
    from rich.console import Console

    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=out, force_terminal=True, width=width))
    out = io.StringIO()
    bar = progress.Bar()
    for _ in range(2):  # a run, and the one after it
        bar._validation = "  validation 0.5000 0.8000"
        before = len(out.getvalue())
        bar.part(12, 0.5, EpochMeans(0.5, 0.0, 0.75), 12345.0, 65.0)
        bar.close()
        said = out.getvalue()[before:]
        assert "epoch 12" in said and " 50 %" in said and "accuracy 0.7500" in said and "1:05 left" in said
        assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l") >= 0  # the cursor is shown again
        assert all(word in said for word in shown.split()) and not any(word in said for word in hidden.split())


def test_terminal_that_closes_stops_a_command_which_then_ends_in_order(tmp_path):
    """The command leads the terminal's session, as a shell does, so that the kernel signals to it."""
    code = ("import fcntl, pathlib, signal, sys, termios, time\nfrom trainers import cli\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup\n"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "with cli.StopSignal() as stop:\n"
            "    stop(), print('ready', flush=True)\n"
            "    while not stop():\n        time.sleep(0.01)\n"
            "    time.sleep(0.1)  # for a second signal\n"
            "    print('saved', flush=True)\n"
            "    pathlib.Path('number').write_text(str(stop.number))\n")
    ours, its = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdin=its, stdout=its, stderr=its, start_new_session=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        os.close(its)
        with open(ours, "rb", buffering=0, closefd=False) as screen:
            assert screen.readline() == b"ready\r\n"  # to its end, so that the command is in no write
        os.close(ours)
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "number").read_text() == str(int(signal.SIGHUP))


@pytest.mark.parametrize("command, flags", [
    *((name, ["--logdir=gs://bucket/logs"]) for name in ("train", "sweep", "evaluate", "results", "report", "runs")),
    *(("train", [flag]) for flag in ("--resume=gs://bucket/run", "--config=gs://bucket/run", "--from_sweep=s3://b")),
    *(("train", ["--model=2L", flag]) for flag in ("--data_dir=gs://bucket/data", "--initial_weights=gs://bucket/run")),
    *((name, ["--run=gs://bucket/run"]) for name in ("evaluate", "predict", "export")), ("sweep", ["--show=gs://b/x"]),
    ("runs", ["--compare", "gs://bucket/run"]), ("predict", ["https://example.org/shoe.jpg"])], ids=str)
def test_a_bucket_is_refused(command, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"trainers.{command}").main
    assert f"{flags[-1].removeprefix('--')}: is an address" in helpers.refused(capsys, main, *flags)
    assert not any(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("name, imported", [("trainers.train", "absl"), ("fmnist_zoo", "difflib")])
def test_a_signal_while_python_imports_a_command_ends_it_without_a_traceback(name, imported, tmp_path):
    (tmp_path / f"{imported}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([sys.executable, "-m", name], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # it may be ignored here
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli.StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop() and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("result", [None, {
    "final": {"epoch": 1, "train_loss": 0.5}, "stopped_early": False, "epochs": 3, "seconds": 1.0, "weights": "best"}])
def test_commands_to_copy_are_quoted(tmp_path, result):
    folder = tmp_path / "my logs" / "4L" / "it's one"
    config = resolve("4L", data="mini")
    summary = Run(folder, config, [{"epoch": 1}], result, object(), tmp_path / "my logs",
                  {"config": config.get_config()}).summary()
    words = [shlex.split(line[line.index("python -m"):]) for line in summary.splitlines() if "python -m" in line]
    given = dict(word.split("=", 1) for one in words for word in one if "=" in word)
    expected = {"--resume": str(folder)}
    if result:
        expected |= {"--config": str(folder / "config.json"), "--logdir": str(tmp_path / "my logs"), "--epochs": "60"}
    assert given == expected


def test_standard_output_on_a_full_disk_is_named(monkeypatch, capsys, tmp_path):
    def on_full_disk(command):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert command() == 1
        return capsys.readouterr().err

    for body in (lambda: print("text") or 0, lambda: print("x" * 100_000) or 0):
        assert on_full_disk(lambda: cli.run("runs", body)) \
            == "runs: standard output: No space left on device; make room\n"
    error = on_full_disk(lambda: main(["--model=softmax", "--data=mini", "--epochs=1", f"--logdir={tmp_path}"]))
    assert "standard output: cannot be written: No space left on device; make room" in error and error.count("\n") == 1
