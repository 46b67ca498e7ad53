"""`python -m trainers.predict`: what it prints, which files and models it takes, and what it refuses."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import fmnist_zoo
from fmnist_zoo import data, metrics, photographs, prediction
from fmnist_zoo.spec import CLASS_NAMES
from tests.idx_files import payload, write
from trainers import predict
from trainers.publishing.measurement import Measured
from trainers.running import trained
from trainers.train import train

IMAGES = data.load_data(("validation",), data="mini")["validation"].images.reshape(-1, 28, 28)
# The command predicts file by file. In batches of other sizes, products are summed in another order, and processors
# differ in it too: logits of about 20 change by some 1e-6 of themselves, and probabilities by as much as logits do.
CLOSE = {"rel": 1e-4, "abs": 1e-7}


@pytest.fixture
def answers(capsys):
    """Runs the command with `--json`: its exit code, what it printed as JSON, the lines of its errors."""

    def answer(*arguments):
        code = predict.main([*map(str, arguments), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err.splitlines()

    return answer


def picture(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_table_and_json_show_the_best_three_classes_of_each_image(tmp_path, answers, capsys):
    np.save(tmp_path / "two.npy", IMAGES[:2])
    files = [tmp_path / "two.npy", picture(tmp_path / "one.png", IMAGES[2])]
    assert predict.main([str(file) for file in files]) == 0
    captured = capsys.readouterr()
    head, *rows = [[cell.strip() for cell in line.split("  ") if cell] for line in captured.out.splitlines()]
    assert head == list(predict.HEAD) and not captured.err
    assert [os.path.basename(row[0]) for row in rows] == ["two.npy[0]", "two.npy[1]", "one.png"]
    code, entries, errors = answers(*files)
    assert code == 0 and not errors
    assert [(entry["file"], entry["index"]) for entry in entries] == [
        (str(files[0]), 0), (str(files[0]), 1), (str(files[1]), 0)]
    labels, probabilities = fmnist_zoo.predict(IMAGES[:3])
    for row, entry, label, shares in zip(rows, entries, labels, probabilities, strict=True):
        assert set(entry) == {"file", "index", "label", "name", "probability", "top3"}
        assert all(set(other) == {"name", "probability"} for other in entry["top3"])
        best = np.argsort(-shares)[:3]
        names = [CLASS_NAMES[other] for other in best]
        assert names == [other["name"] for other in entry["top3"]] == row[1::2]
        assert (entry["label"], entry["name"]) == (label, names[0])
        assert entry["probability"] == entry["top3"][0]["probability"] == pytest.approx(shares[label], **CLOSE)
        assert [other["probability"] for other in entry["top3"]] == pytest.approx(shares[best], **CLOSE)
        assert row[2::2] == [f"{other['probability']:.3f}" for other in entry["top3"]]


def test_a_broken_file_is_a_line_and_all_others_are_answered(tmp_path, answers, capsys):
    good = picture(tmp_path / "good.png", IMAGES[0])
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    np.save(tmp_path / "odd.npy", IMAGES[:, :5])
    write(tmp_path / "short.gz", payload(IMAGES)[:-9])  # found to be broken after its last block
    (tmp_path / "empty").mkdir()
    files = ["zero.png", "cut.png", "odd.npy", "good.png", "short.gz", "empty", "nowhere.jpg"]
    paths = [str(tmp_path / name) for name in files]
    code, entries, errors = answers(*paths)
    assert code == 1 and [entry["file"] for entry in entries] == paths
    broken = [entry for entry in entries if "error" in entry]
    assert [set(entry) for entry in broken] == [{"file", "error"}] * 6 and entries[3]["index"] == 0
    assert errors == [f"predict: {entry['file']}: {entry['error']}" for entry in broken]
    assert predict.main(paths) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == errors and len(captured.out.splitlines()) == 2
    assert predict.main(paths[:1]) == 1 and not capsys.readouterr().out  # no table without rows


def test_folders_and_idx(tmp_path, answers):
    picture(tmp_path / "a.png", IMAGES[5])
    write(tmp_path / "b" / "some-idx3-ubyte.gz", payload(IMAGES[6:8]))
    (tmp_path / "notes.txt").write_text("no picture")
    code, entries, _ = answers(tmp_path)
    assert code == 0 and [entry["label"] for entry in entries] == fmnist_zoo.predict(IMAGES[5:8]).labels.tolist()


def test_invert(tmp_path, answers):
    np.save(tmp_path / "x.npy", 255 - IMAGES[:20])
    wanted = fmnist_zoo.predict(IMAGES[:20])
    assert [entry["label"] for entry in answers(tmp_path / "x.npy", "--invert=yes")[1]] == wanted.labels.tolist()
    assert [entry["label"] for entry in answers(tmp_path / "x.npy")[1]] != wanted.labels.tolist()
    (entry,) = answers(picture(tmp_path / "x.png", 255 - IMAGES[0]))[1]
    assert entry["probability"] == pytest.approx(wanted.probabilities[0].max(), **CLOSE)
    assert predict.define_flags()["invert"].parser.enum_values == list(photographs.INVERT)


@pytest.fixture(scope="module")
def run(tmp_path_factory, without_xla):
    return train("2L", data="mini", epochs=2, logdir=tmp_path_factory.mktemp("logs"), histogram_every=0)


def test_the_model_of_a_run_is_used_with_its_temperature(run, tmp_path, answers):
    code, entries, errors = answers(picture(tmp_path / "x.png", IMAGES[0]), f"--run={run.folder}")
    assert code == 0 and not errors
    temperature = Measured(trained.from_run(run.folder)).temperature
    logits = run.model(IMAGES[:1].reshape(1, 784).astype(np.float32) / 255).numpy()
    assert temperature != 1 and entries[0]["probability"] == pytest.approx(
        metrics.softmax(logits / temperature).max(), **CLOSE)


def test_several_runs_are_an_ensemble_with_a_temperature_of_its_own(run, tmp_path, answers):
    other = train("2L", data="mini", epochs=1, seed=1, logdir=tmp_path, histogram_every=0)
    path = picture(tmp_path / "x.png", IMAGES[0])
    code, (entry,), errors = answers(path, f"--run={run.folder}", f"--run={other.folder}")
    assert code == 0 and not errors
    labels = data.load_data(("validation",), data="mini")["validation"].labels
    logits = prediction.logits_of([run.model, other.model], prediction.as_pixels(IMAGES))
    temperature = metrics.fit_temperature(logits, labels)
    assert abs(temperature - 1) > 0.01
    assert entry["probability"] == pytest.approx(metrics.softmax(logits[:1] / temperature).max(), **CLOSE)
    (alone,) = answers(path, f"--run={run.folder}", f"--run={run.folder}/")[1]  # one run, named twice
    assert alone == answers(path, f"--run={run.folder}")[1][0] != entry


def test_an_ensemble_of_other_validation_images_is_refused(run, tmp_path, capsys):
    path = picture(tmp_path / "x.png", IMAGES[0])
    assert predict.main([str(path), f"--run={run.folder}", "--model=4L"]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert "no member was trained on" in line and "of mini" in line and "of fashion_mnist" in line


def test_a_run_that_cannot_be_used_is_refused(run, tmp_path, capsys):
    path = picture(tmp_path / "x.png", IMAGES[0])
    unfinished = shutil.copytree(run.folder, tmp_path / "run")
    (unfinished / "result.json").unlink()
    assert predict.main([str(path), f"--run={unfinished}"]) == 2
    assert str(unfinished) in capsys.readouterr().err
    assert predict.main([str(path), f"--run={run.folder}", f"--data_dir={tmp_path}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and not captured.out


MISTAKES = [
    ([], "which files?"), (["--json"], "which files?"), (["x.png", "--model=4X"], "no model is named '4X'"),
    (["x.png", "--model=4L,l2=0.5"], "no trained weights come with '4L,l2=0.5'"),
    (["x.png", "--run=nowhere"], "nowhere: no such folder"),
    (["x.png", "--run=a", "--model=4L"], "a: no such folder"),
    (["x.png", "--model=4L", "--model=4X"], "no model is named '4X'"),
    (["x.png", "--invrt=yes"], "Unknown command line flag 'invrt'"), (["x.png", "--invert=maybe"], "--invert"),
    (["x.png", "--data_dir=a"], "--data_dir=a is where the data are that calibrate a run"),
]


@pytest.mark.parametrize("arguments, text", MISTAKES)
def test_a_mistake_is_one_line(arguments, text, capsys):
    assert predict.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("predict: ") and captured.err.count("\n") == 1
    assert text in captured.err and not captured.out


def test_control_characters_in_a_name_are_escaped_in_text_and_kept_in_json(tmp_path, answers, capsys):
    bad = picture(tmp_path / "a\n\x1b[31mb.png", IMAGES[0])
    undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    picture(tmp_path / "x.png", IMAGES[0]).rename(undecodable)
    (tmp_path / "b\nb.png").write_bytes(b"")
    code, entries, errors = answers(tmp_path)
    assert code == 1 and {entry["file"] for entry in entries} == {str(bad), undecodable, str(tmp_path / "b\nb.png")}
    assert len(errors) == 1 and "b\\nb.png" in errors[0]
    assert predict.main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 3 and "\x1b" not in output and "\\udcff" in output
