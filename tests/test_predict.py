"""`trainers.predict` on files, with a model that was trained on the mini set."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fmnist_zoo
from fmnist_zoo import data
from fmnist_zoo.spec import CLASS_NAMES
from tests.idx_files import payload, write
from tests.test_command import LIGHT
from trainers import predict

VALIDATION = data.load_data(("validation",), data="mini")["validation"]
IMAGES = VALIDATION.images.reshape(-1, 28, 28)
pytestmark = pytest.mark.usefixtures("shipped")


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


def test_the_table(tmp_path, capsys):
    np.save(tmp_path / "three.npy", IMAGES[:3])
    picture(tmp_path / "one.png", IMAGES[3])
    assert predict.main([str(tmp_path / "three.npy"), str(tmp_path / "one.png")]) == 0
    captured = capsys.readouterr()
    head, *rows = [line.split("  ") for line in captured.out.splitlines()]
    cells = [[cell.strip() for cell in row if cell] for row in rows]
    assert [cell.strip() for cell in head if cell] == list(predict.HEAD) and not captured.err
    assert [os.path.basename(row[0]) for row in cells] == ["three.npy[0]", "three.npy[1]", "three.npy[2]", "one.png"]
    labels, probabilities = fmnist_zoo.predict(IMAGES[:4])
    for row, label, shares in zip(cells, labels, probabilities):
        order = np.argsort(-shares)[:3]
        assert row[1] == CLASS_NAMES[label]
        assert row[1:] == [cell for other in order for cell in (CLASS_NAMES[other], f"{shares[other]:.3f}")]


def test_json(tmp_path, answers):
    np.save(tmp_path / "two.npy", IMAGES[:2])
    code, entries, errors = answers(tmp_path / "two.npy", picture(tmp_path / "one.png", IMAGES[2]))
    assert code == 0 and not errors
    names = [str(tmp_path / name) for name in ("two.npy", "two.npy", "one.png")]
    assert [(entry["file"], entry["index"]) for entry in entries] == list(zip(names, (0, 1, 0)))
    labels, probabilities = fmnist_zoo.predict(IMAGES[:3])
    for entry, label, shares in zip(entries, labels, probabilities):
        assert set(entry) == {"file", "index", "label", "name", "probability", "top3"}
        assert entry["label"] == label and entry["name"] == CLASS_NAMES[label] == entry["top3"][0]["name"]
        assert entry["probability"] == pytest.approx(shares[label]) == entry["top3"][0]["probability"]
        assert [other["probability"] for other in entry["top3"]] == pytest.approx(sorted(shares)[:-4:-1])
        assert all(set(other) == {"name", "probability"} for other in entry["top3"])


def test_a_broken_file_is_a_line_and_the_others_go_on(tmp_path, answers, capsys):
    good = picture(tmp_path / "good.png", IMAGES[0])
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    np.save(tmp_path / "odd.npy", IMAGES[:, :5])
    write(tmp_path / "short.gz", payload(IMAGES)[:-9])  # known to be broken after its last block
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


def test_nothing_but_broken_files(tmp_path, answers, capsys):
    (tmp_path / "x.png").write_bytes(b"")
    code, entries, errors = answers(tmp_path / "x.png")
    assert code == 1 and len(entries) == len(errors) == 1
    assert predict.main([str(tmp_path / "x.png")]) == 1
    assert not capsys.readouterr().out


def test_folders_and_idx(tmp_path, answers):
    picture(tmp_path / "a.png", IMAGES[5])
    write(tmp_path / "b" / "some-idx3-ubyte.gz", payload(IMAGES[6:8]))
    (tmp_path / "notes.txt").write_text("no picture")
    code, entries, _ = answers(tmp_path)
    assert code == 0 and [entry["label"] for entry in entries] == fmnist_zoo.predict(IMAGES[5:8]).labels.tolist()


def test_invert(tmp_path, answers):
    np.save(tmp_path / "x.npy", 255 - IMAGES[:20])
    wanted = fmnist_zoo.predict(IMAGES[:20]).labels.tolist()
    assert [entry["label"] for entry in answers(tmp_path / "x.npy", "--invert=yes")[1]] == wanted
    assert [entry["label"] for entry in answers(tmp_path / "x.npy")[1]] != wanted
    for index in range(3):
        path = picture(tmp_path / f"{index}.png", 255 - IMAGES[index])
        assert answers(path)[1][0]["probability"] == pytest.approx(fmnist_zoo.predict(IMAGES)[1][index].max())


def drawn(image, ground=255, noise=0.0):
    """A garment dark on light, in a photograph of 300x200."""
    large = np.asarray(Image.fromarray(255 - image).resize((200, 200), Image.Resampling.BICUBIC)) * (ground / 255)
    canvas = np.full((200, 300), float(ground))
    canvas[:, 50:250] = large
    canvas += np.random.default_rng(0).normal(0, noise, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def test_a_photograph_is_recognised_as_the_image_that_it_is_of(tmp_path, answers):
    """Nearly always: where an image's outermost rows are nearly black, they are trimmed with the ground."""
    kinds = {"plain.png": {}, "plain.jpg": {}, "grey.png": {"ground": 200}, "noisy.jpg": {"noise": 8.0}}
    wanted = fmnist_zoo.predict(IMAGES[:30]).labels
    for name, options in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        for index, image in enumerate(IMAGES[:30]):
            picture(folder / f"{index:02d}-{name}", drawn(image, **options))
        code, entries, _ = answers(folder)
        received = [entry["label"] for entry in entries]
        assert code == 0 and np.mean(received == wanted) >= 0.85, name
    sure = int(np.argmax(fmnist_zoo.predict(IMAGES).probabilities.max(axis=1)))
    _, entries, _ = answers(picture(tmp_path / "sure.png", drawn(IMAGES[sure])))
    assert entries[0]["label"] == fmnist_zoo.predict(IMAGES).labels[sure]


def test_a_run_of_ones_own(mini_run, shipped, tmp_path, answers):
    path = picture(tmp_path / "x.png", IMAGES[0])
    code, entries, errors = answers(path, f"--run={mini_run.folder}")
    assert code == 0 and not errors
    _, same, _ = answers(path, "--model=4D_drop03")
    assert entries[0]["label"] == same[0]["label"]
    assert entries[0]["probability"] == pytest.approx(same[0]["probability"], rel=1e-4)  # by the same temperature


@pytest.mark.parametrize("arguments, text", [
    ([], "which files?"), (["--json"], "which files?"), (["x.png", "--model=4X"], "no model is named '4X'"),
    (["x.png", "--model=4L,l2=0.5"], "no trained weights come with '4L,l2=0.5'"),
    (["x.png", "--run=nowhere"], "nowhere: no such folder"),
    (["x.png", "--run=a", "--model=4L"], "--run=a and --model=4L both say which model; drop one"),
    (["x.png", "--invrt=yes"], "Unknown command line flag 'invrt'"), (["x.png", "--invert=maybe"], "--invert"),
    (["x.png", "--data_dir=a"], "--data_dir=a is where the data of --run are"),
])
def test_a_mistake_is_one_line_and_imports_nothing_heavy(arguments, text, capsys):
    assert predict.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("predict: ") and captured.err.count("\n") == 1
    assert text in captured.err and not captured.out
    light = [sys.executable, "-c", LIGHT, "trainers.predict", *arguments]
    done = subprocess.run(light, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr


def test_a_run_that_cannot_be_used_is_a_mistake(mini_run, tmp_path, capsys):
    path = picture(tmp_path / "x.png", IMAGES[0])
    unfinished = shutil.copytree(mini_run.folder, tmp_path / "run")
    (unfinished / "result.json").unlink()
    assert predict.main([str(path), f"--run={unfinished}"]) == 2
    assert "this run has not come to its end" in capsys.readouterr().err
    assert predict.main([str(path), f"--run={mini_run.folder}", f"--data_dir={tmp_path}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and not captured.out


def test_every_flag_is_in_a_group_and_explained(capsys):
    listed = [name for names in predict.GROUPS.values() for name in names]
    assert sorted(listed) == sorted(predict.define_flags()) and len(listed) == len(set(listed))
    assert predict.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"--{name}" in output for name in listed)


def test_help_and_broken_files_import_no_tensorflow(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    code = ("import sys; from trainers import predict; code = predict.main(sys.argv[1:]); "
            "sys.exit('imported' if {'tensorflow', 'keras'} & set(sys.modules) else code)")
    for arguments, wanted, said in ((["--help"], 0, ""), ([str(tmp_path)], 1, "x.png: is empty: 0 bytes\n")):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == wanted and done.stderr.endswith(said) and done.stderr.count("\n") == bool(said)


def test_names_that_would_break_a_line(tmp_path, answers, capsys):
    bad = tmp_path / "a\n\x1b[31mb.png"
    picture(bad, IMAGES[0])
    code, entries, _ = answers(bad)
    assert code == 0 and entries[0]["file"] == str(bad)
    undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    picture(tmp_path / "x.png", IMAGES[0]).rename(undecodable)
    (tmp_path / "b\nb.png").write_bytes(b"")
    code, entries, errors = answers(tmp_path)
    assert code == 1 and len(entries) == 3 and len(errors) == 1 and "b\\nb.png" in errors[0]
    assert predict.main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 3 and "\x1b" not in output and "\\udcff" in output
