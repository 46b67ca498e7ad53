"""`python -m trainers.predict`: what it prints, which files and models it takes, and what it refuses."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import fmnist_zoo
from fmnist_zoo import data, metrics, prediction
from fmnist_zoo.spec import CLASS_NAMES
from tests import helpers
from tests.idx_files import payload, write
from trainers import predict
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
    by, head, *rows = [[cell.strip() for cell in line.split("  ") if cell] for line in captured.out.splitlines()]
    assert by == ["model: 4D_drop03"] and head == list(predict.HEAD) and not captured.err
    assert [os.path.basename(row[0]) for row in rows] == ["two.npy[0]", "two.npy[1]", "one.png"]
    code, entries, errors = answers(*files)
    assert code == 0 and not errors
    assert [(entry["file"], entry["index"]) for entry in entries] == [
        (str(files[0]), 0), (str(files[0]), 1), (str(files[1]), 0)]
    labels, probabilities = fmnist_zoo.predict(IMAGES[:3])
    for row, entry, label, shares in zip(rows, entries, labels, probabilities, strict=True):
        assert set(entry) == {"file", "index", "label", "name", "probability", "top3", "doubt", "model"}
        assert all(set(other) == {"name", "probability"} for other in entry["top3"])
        best = np.argsort(-shares)[:3]
        names = [CLASS_NAMES[other] for other in best]
        assert names == [other["name"] for other in entry["top3"]] == row[1::2]
        assert (entry["label"], entry["name"]) == (label, names[0])
        assert entry["probability"] == entry["top3"][0]["probability"] == pytest.approx(shares[label], **CLOSE)
        assert [other["probability"] for other in entry["top3"]] == pytest.approx(shares[best], **CLOSE)
        assert row[2::2] == [f"{other['probability']:.3f}" for other in entry["top3"]]


def test_a_picture_that_may_show_no_garment_is_a_line_beside_its_answer(tmp_path, answers, capsys):
    files = [picture(tmp_path / f"{quarters}.png", np.rot90(IMAGES[0], quarters)) for quarters in (0, 1)]
    code, (upright, lying), errors = answers(*files)
    assert code == 0 and not upright["doubt"] and lying["doubt"]
    assert errors == [f"predict: {files[1]}: may show no garment: {lying['doubt']}"]
    np.save(tmp_path / "two.npy", np.stack([np.rot90(image) for image in IMAGES[:2]]))
    assert answers(tmp_path / "two.npy")[2] == []  # arrays are in the set's own form


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
    assert captured.err.splitlines() == errors and len(captured.out.splitlines()) == 3
    assert predict.main(paths[:1]) == 1 and not capsys.readouterr().out  # no table without rows


@pytest.fixture(scope="module")
def run(tmp_path_factory, without_xla):
    return train("2L", data="mini", epochs=2, logdir=tmp_path_factory.mktemp("logs"), histogram_every=0)


def test_the_models_of_runs_are_used_with_a_temperature_of_their_own(run, tmp_path, answers):
    other = train("2L", data="mini", epochs=1, seed=1, logdir=tmp_path, histogram_every=0)
    path = picture(tmp_path / "x.png", IMAGES[0])
    labels = data.load_data(("validation",), data="mini")["validation"].labels
    for runs in ([run], [run, other]):
        code, (entry,), errors = answers(path, *(f"--run={one.folder}" for one in (*runs, run)))  # one is named twice
        assert code == 0 and not errors and entry["model"] == " and ".join(str(one.folder) for one in runs)
        logits = prediction.logits_of([one.model for one in runs], prediction.as_pixels(IMAGES))
        temperature = metrics.fit_temperature(logits, labels)
        assert abs(temperature - 1) > 0.01
        assert entry["probability"] == pytest.approx(metrics.softmax(logits[:1] / temperature).max(), **CLOSE)


def test_runs_that_cannot_be_used_are_refused(run, tmp_path, capsys):
    unfinished = shutil.copytree(run.folder, tmp_path / "run")
    (unfinished / "result.json").unlink()
    path = picture(tmp_path / "x.png", IMAGES[0])
    for arguments, text in (([f"--run={unfinished}"], str(unfinished)),
                            ([f"--run={run.folder}", f"--data_dir={tmp_path}"], "drop data_dir"),
                            ([f"--run={run.folder}", "--model=4L"], "no member was trained on")):
        assert text in helpers.refused(capsys, predict.main, path, *arguments)


@pytest.mark.parametrize("arguments, text", [
    ([], "which files?"),
    (["x.png", "--model=4L,l2=0.5"], "no trained weights come with '4L,l2=0.5'"),
    (["x.png", "--run=a", "--model=4L"], "a: no such folder"),
    (["x.png", "--model=4L", "--model=4X"], "no model is named '4X'"),
    (["x.png", "--invrt=yes"], "there is no flag --invrt; did you mean invert?"),
    (["x.png", "--invert=Yes"], "--invert must be one of auto, yes, no, received 'Yes'; did you mean yes?"),
    (["x.png", "--data_dir=a"], "--data_dir=a is where the data are that calibrate a run"),
])
def test_a_mistake_is_one_line(arguments, text, capsys):
    assert text in helpers.refused(capsys, predict.main, *arguments)


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
    assert len(output.splitlines()) == 4 and "\x1b" not in output and "\\udcff" in output
