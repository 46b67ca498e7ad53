"""Exports: each format runs in its own runtime, wrong calls are refused, and no incomplete file is left."""

import dataclasses
import errno
import os
import resource
import sys

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import files, metrics
from fmnist_zoo.errors import UsageError
from tests import helpers
from trainers.export import ExportError, export, main
from trainers.publishing.formats import FORMATS
from trainers.running import trained
from trainers.train import train

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def softmax():
    """A trained model without a hidden layer."""
    return trained.from_zoo("softmax")


@pytest.fixture(scope="module")
def pixels():
    return fmnist_zoo.load_data(data="mini")["validation"].images.astype(np.float32) / np.float32(255)


@pytest.fixture
def change_format(monkeypatch):
    """Changes fields of a format for this test: `change_format(name, load=..., write=...)`."""
    return lambda name, **fields: monkeypatch.setitem(FORMATS, name, dataclasses.replace(FORMATS[name], **fields))


def content(path):
    """Every file below a path, hidden ones too, with its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def assert_same(received, expected):
    assert received.shape == expected.shape and received.dtype == np.float32
    assert (received.argmax(axis=1) == expected.argmax(axis=1)).all()
    # What the product promises; float32 sums in another order differ by about 1e-6.
    assert np.abs(metrics.softmax(received) - metrics.softmax(expected)).max() < 1e-5


@pytest.mark.parametrize("format", [pytest.param(name, marks=pytest.mark.long) if name in ("tflite", "onnx") else name
                                    for name in FORMATS])
def test_file_gives_what_keras_gives(format, pixels, tmp_path, monkeypatch, capfd):
    """By the command, with a model that has dropout, in any batch, by the line that it prints, too."""
    monkeypatch.chdir(tmp_path)
    assert main(["--model=4D_drop03", f"--format={format}"]) == 0
    output = capfd.readouterr()
    name = f"exports/4D_drop03{FORMATS[format].suffix}"
    assert output.err == "" and os.listdir(tmp_path) == ["exports"]
    assert os.listdir("exports") == [os.path.basename(name)]  # and nothing hidden
    model = fmnist_zoo.load_model("4D_drop03")
    first, second = output.out.splitlines()
    assert first.startswith(f"{name}: 3.") and "on 2,000 images" in first  # each weight once
    for batch in (1, 7, 200):
        variables = {"pixels": pixels[:batch]}
        exec(second.removeprefix("to run it: "), variables)
        assert_same(np.asarray(variables["logits"]), model(pixels[:batch]).numpy())


@pytest.mark.parametrize("format", ["saved_model", "keras"])  # a folder, and a file
def test_function_replaces_only_when_asked(format, softmax, tmp_path):
    path = tmp_path / f"a name{FORMATS[format].suffix}"
    result = export(softmax, format, path)
    assert result.path == path and result.images == 2000 and 0 <= result.difference <= 1e-5
    assert result.size == sum(map(len, content(tmp_path).values())) < 100_000
    like = tmp_path / "own"  # permissions are those of a file or folder that the user makes
    like.mkdir() if path.is_dir() else like.touch()
    assert path.stat().st_mode == like.stat().st_mode
    before = content(tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        export(softmax, format, path)
    assert content(tmp_path) == before
    assert export(softmax, format, path, overwrite=True).size == pytest.approx(result.size, rel=0.01)
    assert sorted(os.listdir(tmp_path)) == [path.name, "own"]


def test_run_is_exported_and_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    run = train("softmax", data="mini", epochs=1, histogram_every=0, logdir=tmp_path / "logs", run_name="x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--run=~/logs/softmax/x", "--format=keras", "--out=~/model.keras"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["logs", "model.keras"]
    (run.folder / "result.json").unlink()
    assert main([f"--run={run.folder}", "--format=keras", f"--out={tmp_path / 'y.keras'}"]) == 2


def swapped(logits):
    return logits[:, ::-1]


@pytest.mark.parametrize("format, wrong, message", [
    ("saved_model", swapped, "of 2000 images get another class"),
    ("keras", lambda logits: logits * np.float32(1.001), r"0 of 2000 images"),
    ("keras", lambda logits: logits * np.float32("nan"), "nan"),
    ("keras", lambda logits: logits[:, :9], r"\(1, 9\)"),
])
def test_failed_check_leaves_nothing(format, wrong, message, softmax, tmp_path, change_format):
    load = FORMATS[format].load

    def load_wrong(path):
        run = load(path)
        return lambda pixels: wrong(run(pixels))

    change_format(format, load=load_wrong)
    with pytest.raises(ExportError, match=f"not written: .*{message}"):
        export(softmax, format, tmp_path / f"model{FORMATS[format].suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments, message", [
    (["--model=4D_drop03"], "which format? --format=saved_model|tflite|onnx|keras"),
    (["--format=onnx"], "which model? --model=NAME"),
    (["--format=onnx", "--model=4L", "--run=x"], "--run and --model both say what is written"),
    (["--format=pickle", "--model=4L"], "must be one of saved_model, tflite, onnx, keras, received 'pickle'"),
    (["--format=onnx", "--model=4D_dro03"], "4D_drop03"),
    (["--format=onnx", "--run=."], "no run in this folder"),
])
def test_wrong_flags_are_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in helpers.refused(capsys, main, *arguments) and os.listdir(tmp_path) == []


@pytest.mark.parametrize("format, out, message", [
    ("onnx", "model.tflite", "ends with .onnx"),
    ("tflite", "none/model.tflite", "there is no folder .*none; make it first"),
    ("saved_model", "a[b]", "reads . and . in a path as a pattern"),
    ("onnx", "folder.onnx", "--overwrite replaces only a file"),
    ("saved_model", "file", "--overwrite replaces only the folder of a SavedModel"),
    ("saved_model", "folder.onnx", "--overwrite replaces only the folder of a SavedModel"),
    ("saved_model", "mixed", "with nothing else in it"),
    ("zip", "model.zip", "format must be one of saved_model, tflite, onnx, keras, received 'zip'"),
])
def test_wrong_out_is_refused_and_nothing_is_changed(format, out, message, softmax, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "mixed" / "variables").mkdir(parents=True)
    (tmp_path / "mixed" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "mixed" / "variables" / "notes.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(UsageError, match=message):
        export(softmax, format, tmp_path / out, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("format, package", [("tflite", "ai_edge_litert"), ("onnx", "tf2onnx")])
def test_missing_package_is_named(format, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    error = helpers.refused(capsys, main, "--model=softmax", f"--format={format}", f"--out={tmp_path / 'm'}.{format}")
    assert f"needs {package}" in error and 'pip install "fmnist_zoo[export]"' in error


@pytest.mark.parametrize("format", ["saved_model", "keras"])
def test_full_disk_is_one_line_and_leaves_nothing(format, tmp_path, capfd):
    path = tmp_path / f"model{FORMATS[format].suffix}"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))  # the model is 31 kB
    try:
        code = main(["--model=softmax", f"--format={format}", f"--out={path}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capfd.readouterr().err
    assert code == 1 and error.count("\n") == 1
    assert str(path) in error and "File too large" in error and "room" in error
    assert os.listdir(tmp_path) == []


def test_old_folder_comes_back_if_the_new_one_cannot_take_its_place(softmax, tmp_path, monkeypatch):
    def refuse(beside, path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    path = export(softmax, "saved_model", tmp_path / "model").path
    before = content(tmp_path)
    monkeypatch.setattr(files, "publish", refuse)
    with pytest.raises(ExportError, match="Input/output error"):
        export(softmax, "saved_model", path, overwrite=True)
    assert content(tmp_path) == before and os.listdir(tmp_path) == ["model"]
