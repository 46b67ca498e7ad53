"""`fmnist_zoo.backend`: known noise of TensorFlow's start is dropped; everything else reaches standard error."""

import os
import subprocess
import sys

import pytest

from fmnist_zoo.backend import without_noise
from tests.conftest import ROOT

NOISE = b"I0000 oneDNN custom operations are on. You may see ...\n"


@pytest.mark.parametrize("shell", [True, False], ids=["with sh", "without sh"])
def test_noise_is_dropped_and_other_lines_are_printed(capfd, monkeypatch, tmp_path, shell):
    started = []

    def start(*arguments, popen=subprocess.Popen, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not shell:
        monkeypatch.setenv("PATH", "/nowhere")
    with without_noise():
        os.write(2, NOISE + b"W0000 a warning\n")
        assert not list(tmp_path.iterdir())
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "W0000 a warning\nlater\n"
    assert [process.returncode for process in started] == [0] * shell  # ended and waited for


def test_an_error_prints_everything(capfd):
    with pytest.raises(ImportError), without_noise():
        os.write(2, NOISE + b"W0000 a warning\n")
        raise ImportError
    assert capfd.readouterr().err.encode() == NOISE + b"W0000 a warning\n"


def test_an_unwritable_temporary_folder_is_no_reason_to_fail(capfd, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        with without_noise():
            os.write(2, NOISE)
    assert capfd.readouterr().err.encode() == NOISE


@pytest.mark.parametrize("death", ["os.abort()", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_what_tensorflow_prints_before_it_kills_the_process_is_shown(tmp_path, death):
    (tmp_path / "keras.py").touch()
    printed = NOISE + b"F0000 Check failed: x\n"
    (tmp_path / "tensorflow.py").write_text(f"import os\nos.write(2, {printed!r})\n{death}\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", "import fmnist_zoo.backend"], capture_output=True, text=True,
                          env=environment)
    assert done.returncode and done.stderr == "F0000 Check failed: x\n"
