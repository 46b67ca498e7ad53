"""The table of scores: the published one, and how `trainers.results` makes and checks it. On the mini set."""

import csv
import json
import statistics

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import card, data, metrics, models, prediction, registry, results, sources, weights
from fmnist_zoo.__main__ import main as listing
from trainers import evaluate, results as command
from trainers.publishing import shipping
from trainers.running import trained
from trainers.running.folder import RunFolder
from trainers.train import train

PUBLISHED = results.read()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the command wrote for two seeds: its flags, the table's path, and the log folder."""
    folder = tmp_path_factory.mktemp("results")
    flags = ["--data=mini", "--models=softmax", f"--out={folder / 'table.csv'}", f"--logdir={folder / 'logs'}"]
    assert command.main([*flags, "--seeds=0,1"]) == 0
    return flags, folder / "table.csv", folder / "logs"


def rewritten(path, changes):
    """The rows of a table with the first one changed, written beside it."""
    rows = results.read(path)
    rows[0].update(changes)
    results.write(rows, beside := path.with_name("changed.csv"))
    return f"--out={beside}"


def test_every_model_has_its_rows():
    assert [(row["model"], row["seed"]) for row in PUBLISHED] \
        == [(name, seed) for name in registry.list_models() for seed in range(5)]


def test_published_rows_are_of_the_protocol():
    (digest,) = {row["data_sha256"] for row in PUBLISHED}
    mini = data.load_data(data="mini")
    assert digest != mini.sha256 and len(digest) == 64
    for row in PUBLISHED:
        recipe = fmnist_zoo.get_recipe(row["model"])
        assert row["epochs"] == recipe.epochs and 1 <= row["chosen_epoch"] <= recipe.epochs
        assert recipe.weights == "best" or row["chosen_epoch"] == recipe.epochs
        assert (10_000 * row["test_accuracy"]) % 1 == pytest.approx(0, abs=1e-6)
        assert 54_000 * row["epochs"] / row["seconds"] == pytest.approx(row["images_per_second"])
        assert set("0123456789abcdef") >= set(row["commit"])


@pytest.mark.slow
def test_the_published_data_are_the_real_ones():
    assert {row["data_sha256"] for row in PUBLISHED} == {data.load_data(("validation",)).sha256}
    assert sources.FASHION_MNIST


def test_listing_and_card_say_what_the_table_says(capsys):
    """The numbers are worked out here, from the file itself."""
    with open(results.PATH, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "4D_drop03"]
    shares = [float(row["test_accuracy"]) for row in rows]
    losses = [float(row["test_nll"]) for row in rows]
    mean, deviation = statistics.mean(shares), statistics.stdev(shares)
    listing(["4D_drop03*"])
    assert f"  {mean:.4f} ± {deviation:.4f}  {statistics.mean(losses):.3f}  " in capsys.readouterr().out
    listing(["4D_drop03"])
    text = capsys.readouterr().out
    assert f"accuracy {mean:.4f} ± {deviation:.4f}" in text and "seeds: 5" in text
    assert all(word in text for word in ("MIT licence", "intended use", "limits"))
    listing(["4D_drop03", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["score"]["accuracy"] == pytest.approx(mean) and facts["weights"]["seed"] == 0


def test_shipped_scores_are_those_of_their_row():
    for name, entry in weights.manifest().items():
        (row,) = [row for row in PUBLISHED if (row["model"], row["seed"]) == (name, entry["seed"])]
        assert abs(entry["scores"]["test_accuracy"] - row["test_accuracy"]) < 0.0002
        assert entry["scores"]["validation_accuracy"] == row["validation_accuracy"]
        assert entry["epoch"] == row["chosen_epoch"] and entry["data"]["sha256"] == row["data_sha256"]


def test_the_card_of_a_model_without_scores():
    assert "score" not in card.card(fmnist_zoo.get_spec("4L,l2=0.5"), fmnist_zoo.get_recipe("4L"))


def test_rows_are_of_the_runs(made):
    _, path, logdir = made
    rows = results.read(path)
    assert [(row["model"], row["seed"]) for row in rows] == [("softmax", 0), ("softmax", 1)]
    for row in rows:
        (folder,) = (logdir / "softmax").glob(f"*-seed{row['seed']}")
        result = RunFolder(folder).read_result()
        assert (row["chosen_epoch"], row["seconds"]) == (result["final"]["epoch"], result["seconds"])
        assert row["validation_accuracy"] == result["final"]["validation_accuracy"]
        images, labels = data.load_data(("test",), data="mini")["test"]
        logits = prediction.outputs_of(models.build_model("softmax", weights=folder / "model.keras"),
                                       prediction.as_pixels(images))
        assert row["test_accuracy"] == metrics.accuracy(logits, labels)
        assert row["test_nll"] == metrics.mean_cross_entropy(logits, labels)
        assert row["images_per_second"] == 1800 * row["epochs"] / row["seconds"]


def test_what_stands_is_used_again_and_its_test_images_stay_closed(made, monkeypatch, capsys):
    flags, path, logdir = made
    before = path.read_text()
    path.unlink()
    monkeypatch.setattr(evaluate, "measure", lambda *anything: pytest.fail("the test images were opened again"))
    assert command.main([*flags, "--seeds=0,1"]) == 0
    assert path.read_text() == before and "[1/2]" not in capsys.readouterr().out
    assert len(list((logdir / "softmax").iterdir())) == 2


def test_rows_of_other_models_stay(made):
    flags, path, _ = made
    rows = results.read(path)
    others = [{**rows[0], "model": name} for name in ("gone", "2L")]
    results.write([*others, *rows], beside := path.with_name("others.csv"))
    assert command.main([*flags[:2], f"--out={beside}", flags[3], "--seeds=1"]) == 0
    assert [row["model"] for row in results.read(beside)] == ["softmax", "softmax", "2L", "gone"]


def test_a_row_is_reproduced_to_the_last_digit(made, capsys):
    flags, path, _ = made
    before = path.read_text()
    assert command.main([*flags, "--seeds=0", "--check"]) == 0
    assert "softmax, seed 0: the same to the last digit" in capsys.readouterr().out
    assert path.read_text() == before


@pytest.mark.parametrize("change, code, said", [
    ({"test_nll": lambda row: row["test_nll"] + 1e-9}, 0, "within"),
    ({"test_accuracy": lambda row: row["test_accuracy"] + 0.2}, 1, "beyond"),
    ({"chosen_epoch": lambda row: row["chosen_epoch"] - 1}, 0, "chosen_epoch"),
    ({"data_sha256": lambda row: "0" * 64}, 1, "data_sha256"),
    ({"epochs": lambda row: row["epochs"] + 1}, 1, "epochs"),
])
def test_what_is_not_reproduced_is_told(made, capsys, change, code, said):
    flags, path, _ = made
    first = results.read(path)[0]
    changed = rewritten(path, {name: make(first) for name, make in change.items()})
    assert command.main([*flags[:2], changed, "--seeds=0", "--check"]) == code
    printed = capsys.readouterr().out
    assert "softmax, seed 0: not the same to the last digit" in printed and said in printed


def test_an_interrupted_table_keeps_its_rows(tmp_path, monkeypatch, capsys):
    flags = ["--data=mini", "--models=softmax", "--seeds=0,1", f"--out={tmp_path / 'x.csv'}", f"--logdir={tmp_path}"]
    finish = command.queue.finish
    monkeypatch.setattr(command.queue, "finish", lambda runs, logdir, stop: finish(runs[:1], logdir, stop))
    assert command.main(flags) == 128
    assert "the same command goes on where it was" in capsys.readouterr().out
    assert [row["seed"] for row in results.read(tmp_path / "x.csv")] == [0]


def test_the_dry_run_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--dry_run", "--models=4D*,softmax"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("softmax, seed 0: 30 epochs") and "20 runs, about " in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags, complaint", [
    (["--models=4D_dropp*"], "did you mean 4D_drop"),
    (["--seeds=zero"], "--seeds takes whole numbers, received zero"),
    (["--seeds=-1"], "seed must be a whole number in"),
    (["--data=mini"], "name another table with --out"),
    (["--data=mini", "--out=x", "--ship"], "without --ship"),
    (["--check", "--out=nowhere.csv", "--seeds=7"], "no published row to check"),
    (["--out=setup.cfg"], "its columns are"),
    (["--out=/nowhere/at/all.csv", "--data=mini"], "/nowhere/at: no such folder"),
])
def test_mistakes(capsys, flags, complaint):
    assert command.main(flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and complaint in lines[0]


def test_what_counts_as_reproduced():
    """The interval for a new seed, worked out here for the accuracies of four others."""
    others = [0.88, 0.89, 0.885, 0.895]
    rows = [{"model": "x", "seed": seed, "test_accuracy": share} for seed, share in enumerate(others, 1)]
    allowed = 5.840909 * statistics.stdev(others) * 2**0.5  # the 99.5 % point of t with three degrees of freedom
    for away, good in ((0.99 * allowed, True), (1.01 * allowed, False)):
        published = {**dict.fromkeys((*command.COMPARED, "versions"), 1), **rows[0], "seed": 0}
        again = {**published, "test_accuracy": published["test_accuracy"] + away}
        assert command.compare(published, again, rows)[0] == good


def test_a_damaged_table_is_told_by_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results.read, "__defaults__", (tmp_path / "x.csv",))
    path = tmp_path / "x.csv"
    path.write_text(",".join(results.COLUMNS) + "\n" + "softmax,zero" + "," * 11 + "\n")
    with pytest.raises(results.ResultsError, match="x.csv, line 2: does not read"):
        results.read(path)
    assert listing(["softmax"]) == 2 and capsys.readouterr().err.startswith("fmnist_zoo: ")


def test_shipping(tmp_path, monkeypatch):
    """Half precision where it costs nothing; full where it does; the manifest says which, and loads."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "trained")
    folder = RunFolder(train("softmax", data="mini", epochs=2, logdir=tmp_path, histogram_every=0).folder)
    said = shipping.ship([folder])
    entry = weights.entry("softmax")
    assert entry["dtype"] == "float16" and "float16" in said and entry["file"] == "softmax.safetensors"
    assert entry["step"] == 16 and entry["temperature"] == trained.calibrated(trained.from_run(folder.path)).temperature
    for received, array in zip(fmnist_zoo.load_model("softmax").get_weights(),
                               trained.from_run(folder.path).model.get_weights()):
        np.testing.assert_allclose(received, array, atol=1e-3)
    exact, own = evaluate.measure, evaluate.once(trained.from_run(folder.path))["accuracy"]
    accuracies = iter([own + 0.0002, own])  # in half precision (as two images of 10,000 away), in full
    monkeypatch.setattr(evaluate, "measure",
                        lambda *given: ({**exact(*given)[0], "accuracy": next(accuracies)}, None, None))
    shipping.ship([folder])
    assert weights.entry("softmax")["dtype"] == "float32"
