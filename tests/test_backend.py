"""`fmnist_zoo.backend`: the user chooses Keras' backend; known noise of TensorFlow's start is dropped."""

import contextlib
import gc
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import backend, data, prediction
from fmnist_zoo.backend import chosen, keras, without_noise
from tests.conftest import ROOT

OTHERS = [pytest.param(name, marks=[pytest.mark.optional, pytest.mark.skipif(
    not importlib.util.find_spec(name), reason=f"needs {name}")]) for name in ("jax", "torch")]
NOISE = b"I0000 oneDNN custom operations are on. You may see ...\n"


@pytest.mark.parametrize("error, noise", [(None, b""), (ImportError, NOISE), (KeyboardInterrupt, b"")])
def test_noise_is_dropped_unless_an_error_leaves_the_block(capfd, error, noise):
    with pytest.raises(error) if error else contextlib.nullcontext(), without_noise():
        os.write(2, NOISE + b"W0000 a warning\n")
        if error:
            raise error
    os.write(2, b"later\n")
    assert capfd.readouterr().err.encode() == noise + b"W0000 a warning\nlater\n"


def test_an_unwritable_temporary_folder_is_no_reason_to_fail(capfd, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        with without_noise():
            os.write(2, NOISE)
    assert capfd.readouterr().err.encode() == NOISE


def python(code, *arguments, **environment):
    """Runs code in a process of its own, in which only `environment` chooses a backend."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], text=True, capture_output=True,
                          env={**kept, "PYTHONPATH": str(ROOT), **environment})


PREDICTS = """
import sys, numpy as np, fmnist_zoo
from fmnist_zoo import backend, data, prediction
images = data.load_data(("validation",), data="mini")["validation"].images
model, pixels = fmnist_zoo.load_model("4D_drop03"), prediction.as_pixels(images)
saved = backend.keras.saving.load_model(sys.argv[1])
new = fmnist_zoo.build_model("2L", seed=5), fmnist_zoo.build_model("2L,dropout=0.1", seed=5)
assert all(map(np.array_equal, *(one.get_weights() for one in new)))
np.savez(sys.argv[2], logits=prediction.outputs_of(model, pixels), saved=prediction.outputs_of(saved, pixels),
         features=prediction.outputs_of(fmnist_zoo.feature_model(model), pixels),
         probabilities=fmnist_zoo.predict(images, "4L").probabilities)
assert backend.keras.config.backend() == backend.chosen() == sys.argv[3] and "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_every_backend_predicts_as_tensorflow_does(backend, tmp_path):
    saved = fmnist_zoo.build_model("2L", seed=1)
    saved.save(tmp_path / "x.keras")
    done = python(PREDICTS, tmp_path / "x.keras", tmp_path / "found.npz", backend, KERAS_BACKEND=backend)
    assert done.returncode == 0 and not done.stderr, done.stderr
    images = data.load_data(("validation",), data="mini")["validation"].images
    model, pixels = fmnist_zoo.load_model("4D_drop03"), prediction.as_pixels(images)
    expected = {"logits": prediction.outputs_of(model, pixels), "saved": prediction.outputs_of(saved, pixels),
                "features": prediction.outputs_of(fmnist_zoo.feature_model(model), pixels),
                "probabilities": fmnist_zoo.predict(images, "4L").probabilities}
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(expected)
        for name, values in expected.items():
            # Each backend sums products of float32 in an order of its own: 1e-6 of the largest value was measured.
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * np.abs(values).max())


@pytest.mark.parametrize("environment, backend", [
    ({}, "tensorflow"), ({"KERAS_BACKEND": ""}, "tensorflow"), ({"KERAS_BACKEND": "jax"}, "jax"),
    ({"KERAS_HOME": "home"}, "torch"), ({"KERAS_HOME": "home", "KERAS_BACKEND": "jax"}, "jax"),
    ({"KERAS_HOME": "damaged"}, "tensorflow"),
])
def test_the_backend_is_chosen_as_keras_chooses_it(tmp_path, environment, backend):
    for name, content in (("home", json.dumps({"backend": "torch"})), ("damaged", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keras.json").write_text(content)
    kerases = {name: str(tmp_path / value) if name == "KERAS_HOME" else value for name, value in environment.items()}
    done = python("import sys; from fmnist_zoo import backend; print(backend.chosen(), 'keras' in sys.modules)",
                  HOME=str(tmp_path), **kerases)
    assert done.stdout.split() == [backend, "False"], done.stderr


def test_the_backend_that_keras_was_imported_with_counts(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert keras.config.backend() == "tensorflow" == chosen()


@pytest.mark.parametrize("backend", ["jacks", "jax"])
def test_a_backend_that_cannot_be_imported_is_an_error_of_ours(tmp_path, backend):
    (tmp_path / "jax.py").write_text("raise ImportError('no jax here')")
    done = python("import fmnist_zoo\nfrom fmnist_zoo.backend import BackendError\n"
                  "try: fmnist_zoo.build_model('2L')\nexcept BackendError as error: print(error)",
                  KERAS_BACKEND=backend, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert f"Keras' backend is '{backend}', which cannot be imported" in done.stdout, done.stderr


@pytest.mark.parametrize("command", ["train --model=2L", "sweep --model=2L --space=l2=0,1", "evaluate --model=2L",
                                     "export --model=2L", "report", "results"])
def test_commands_refuse_another_backend_in_one_line(monkeypatch, capsys, command):
    monkeypatch.setattr("fmnist_zoo.backend.chosen", lambda: "jax")
    name, *arguments = command.split()
    main = importlib.import_module(f"trainers.{name}").main
    assert main(arguments) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line == (f"{name}: trainers needs TensorFlow, and the chosen backend of Keras is 'jax'; start it again with "
                    "KERAS_BACKEND=tensorflow (fmnist_zoo alone works with any)")
    assert main(["--help"]) == 0


@pytest.mark.parametrize("command, text", [("runs", "no run below"), ("predict nothing.png", "nothing.png: ")])
def test_commands_that_train_nothing_take_any_backend(monkeypatch, capsys, tmp_path, command, text):
    monkeypatch.setattr("fmnist_zoo.backend.chosen", lambda: "jax")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tb_logs").mkdir()
    name, *arguments = command.split()
    importlib.import_module(f"trainers.{name}").main(arguments)
    said = "".join(capsys.readouterr())
    assert text in said and "needs TensorFlow" not in said


def test_only_a_process_that_is_alone_imports_without_what_keras_wraps(monkeypatch):
    def found():
        with contextlib.suppress(ImportError):
            return importlib.import_module("wave")

    monkeypatch.setattr(backend, "WRAPPED", ("wave",))
    monkeypatch.setattr(gc, "freeze", lambda: None)
    for alone in (False, True):
        monkeypatch.setattr(backend, "_alone", alone)
        monkeypatch.delitem(sys.modules, "wave", raising=False)
        with backend.quick_imports():
            assert bool(found()) != alone and gc.isenabled() != alone
        assert found() and gc.isenabled()
