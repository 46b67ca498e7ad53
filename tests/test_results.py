"""The table of scores: the published one, and how `trainers.results` writes and checks it. On the mini set."""

import csv
import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import threading

import pytest

import fmnist_zoo
from fmnist_zoo import card, data, files, metrics, models, prediction, registry, results, weights
from fmnist_zoo.__main__ import main as listing
from tests import helpers
from trainers import results as command, train
from trainers.config import resolve
from trainers.publishing import measurement, scores
from trainers.running import batch, provenance, trained
from trainers.running.folder import RunFolder

pytestmark = pytest.mark.usefixtures("without_xla")
PUBLISHED = results.read()


def row_of(folder):
    return scores.row(measurement.Measured(trained.from_run(folder)))


def test_published_rows_follow_the_protocol():
    """Five seeds of each model that has rows. Those of 1.0 say which engine trained them, and in how many seconds."""
    (digest,) = {row["data_sha256"] for row in PUBLISHED}
    assert digest != data.load_data(data="mini").sha256 and len(digest) == 64
    singles = list(filter(results.is_single, PUBLISHED))
    names = list(dict.fromkeys(row["model"] for row in PUBLISHED))
    assert [(row["model"], row["seed"]) for row in singles] == [
        (name, str(seed)) for name in names for seed in range(5)]
    assert all(row["seed"] == "0 1 2 3 4" for row in PUBLISHED if results.is_ensemble(row))
    for row in singles:
        assert 1 <= row["chosen_epoch"] <= row["epochs"]
        assert (10_000 * row["test_accuracy"]) % 1 == pytest.approx(0, abs=1e-6)
        assert set("0123456789abcdef") >= set(row["commit"])
        if row["engine"]:
            assert len(row["engine"]) == len(row["weights_sha256"]) == 64
            recipe = fmnist_zoo.get_recipe(row["model"])
            assert row["epochs"] == recipe.epochs
            assert (recipe.teacher, recipe.initial_weights) == (row["teacher"], row["initial_weights"])
            assert 54_000 * row["epochs"] / row["images_per_second"] == pytest.approx(row["seconds"])


def test_listing_and_card_say_what_the_table_says(capsys):
    """The expected numbers are computed here, from the file itself."""
    with open(results.PATH, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "4D_drop03"]
    shares = [float(row["test_accuracy"]) for row in rows]
    losses = [float(row["test_nll"]) for row in rows]
    mean, deviation = statistics.mean(shares), statistics.stdev(shares)
    listing(["4D_drop03*"])
    printed = capsys.readouterr().out
    assert f"  {mean:.4f} ± {deviation:.4f}*  {statistics.mean(losses):.3f}  " in printed and card.EARLIER in printed
    listing(["4D_drop03"])
    text = capsys.readouterr().out
    assert f"accuracy {mean:.4f} ± {deviation:.4f}" in text and "seeds: 5" in text
    assert all(word in text for word in ("MIT licence", "intended use", "limits"))
    listing(["4D_drop03", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["score"]["accuracy"] == pytest.approx(mean) and found["weights"]["seed"] == 0
    (together,) = [row for row in PUBLISHED if row["model"] == "4N_512" and results.is_ensemble(row)]
    listing(["4N_512"])
    assert f"ensemble: accuracy {together['test_accuracy']:.4f}" in (text := capsys.readouterr().out)
    assert "score" not in card.card(fmnist_zoo.get_spec("4L,l2=0.5"), fmnist_zoo.get_recipe("4L"))


def test_shipped_scores_are_those_of_their_row():
    scored_names = {row["model"] for row in PUBLISHED}
    for name, entry in weights.manifest().items():
        if name not in scored_names:  # a start or a teacher
            continue
        (row,) = [row for row in PUBLISHED if (row["model"], row["seed"]) == (name, str(entry["seed"]))]
        assert abs(entry["scores"]["test_accuracy"] - row["test_accuracy"]) < 0.0002
        assert entry["scores"]["val_accuracy"] == row["val_accuracy"]
        assert entry["epoch"] == row["chosen_epoch"] and entry["data"]["sha256"] == row["data_sha256"]


def test_rows_are_those_of_the_runs(scored):
    _, path, logdir = scored
    rows = results.read(path)
    assert [(row["model"], row["seed"]) for row in rows] == [("softmax", "0"), ("softmax", "1")]
    for row in rows:
        (folder,) = (logdir / "softmax").glob(f"*-seed{row['seed']}")
        result = RunFolder(folder).read_result()
        assert (row["chosen_epoch"], row["seconds"]) == (result["final"]["epoch"], result["seconds"])
        assert row["val_accuracy"] == result["final"]["val_accuracy"]
        images, labels = data.load_data(("test",), data="mini")["test"]
        logits = prediction.outputs_of(models.build_model("softmax", weights=folder / "weights" / "best.safetensors"),
                                       prediction.as_pixels(images))
        assert row["test_accuracy"] == metrics.accuracy(logits, labels)
        assert row["test_nll"] == metrics.mean_cross_entropy(logits, labels)
        assert row["images_per_second"] == 1800 * row["epochs"] / row["seconds"]
        environment = RunFolder(folder).path / "config.json"
        assert row["processor"] == files.read_json(environment)["environment"]["cpu"]


def test_ensemble_of_all_seeds_is_a_row_of_its_own(scored, tmp_path, monkeypatch):
    """Data are read once a split, and each network predicts each split once."""
    flags, path, before = scored
    logdir, out = shutil.copytree(before, tmp_path / "logs"), tmp_path / "x.csv"
    predicted, loaded, predict, load = [], [], prediction.outputs_of, trained.load_data
    monkeypatch.setattr(prediction, "outputs_of", lambda *given: predicted.append(given) or predict(*given))
    monkeypatch.setattr(trained, "load_data", lambda *given: loaded.append(given[1]) or load(*given))
    assert command.main([*flags[:3], f"--out={out}", f"--logdir={logdir}", "--seeds=0,1", "--ensemble"]) == 0
    assert sorted(loaded) == ["test", "validation"] and len(predicted) == 2 * 2
    *singles, together = results.read(out)
    assert singles == results.read(path) and together["seed"] == "0 1"
    (report,) = [files.read_json(one) for one in logdir.glob("ensembles/*/test/evaluation.json")]
    assert together["test_accuracy"] == report["accuracy"] and 0 < together["val_accuracy"] < 1
    assert results.scores([*singles, together])["softmax"].together == report["accuracy"]


def test_student_s_row_names_its_teacher(scored_run, tmp_path, without_xla):
    student = train.train("softmax", data="mini", epochs=1, teacher=str(scored_run.path), histogram_every=0,
                          logdir=tmp_path, verbose=False)
    row = scores.row(measurement.Measured(trained.from_run(student.folder)))
    assert row["teacher"] == str(scored_run.path) and row["engine"] == provenance.engine(student.config)


def test_row_names_each_commit_and_all_versions_that_trained_the_run(scored_run, tmp_path):
    """The run was started, resumed under another commit and TensorFlow, and resumed once more without a change."""
    folder = shutil.copytree(scored_run.path, tmp_path / "run")
    record = files.read_json(folder / "config.json")
    first = {**record["environment"], "commit": "a" * 40, "versions": {"tensorflow": "2.20.0", "keras": "3.15.1"}}
    second = {**first, "commit": "b" * 40, "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"}}
    record["starts"] = [{"epoch": epoch, "time": 0.0, "environment": environment}
                        for epoch, environment in ((0, first), (3, second), (5, second))]
    (folder / "config.json").write_text(json.dumps({**record, "environment": first}))
    row = row_of(folder)
    assert row["commit"] == f"{'a' * 40} then {'b' * 40}"
    assert row["versions"] == "tensorflow=2.20.0 keras=3.15.1 then tensorflow=2.21.0 keras=3.15.1"
    assert row_of(scored_run.path)["commit"] == record["environment"]["commit"]


def test_what_the_same_engine_has_made_is_not_made_again(scored, tmp_path, monkeypatch, capsys):
    """Neither a run that the log folder holds, nor a row that the table holds; with other sources, both are."""
    flags, path, before = scored
    logdir, table = shutil.copytree(before, tmp_path / "logs"), tmp_path / "x.csv"
    flags = [*flags[:3], f"--out={table}"]
    with monkeypatch.context() as patch:
        patch.setattr(trained, "load_data", lambda *arguments: pytest.fail("the test images were opened again"))
        assert command.main([*flags, "--seeds=2", f"--logdir={logdir}"]) == 0
        assert command.main([*flags, "--seeds=2", f"--logdir={tmp_path / 'empty'}"]) == 0
    assert table.read_text() == path.read_text() and "[1/" not in capsys.readouterr().out
    monkeypatch.setattr(provenance, "engine", lambda config: "f" * 64)
    assert command.main([*flags, "--seeds=1", f"--logdir={logdir}"]) == 0
    assert "[1/1] softmax" in capsys.readouterr().out and len(list((logdir / "softmax").iterdir())) == 3
    again, same = results.read(table)
    assert again["engine"] == "f" * 64 and same == results.read(path)[1]
    assert again["weights_sha256"] == results.read(path)[0]["weights_sha256"]


def test_engine_is_of_code_and_recipe_and_not_of_the_rest(monkeypatch):
    """Words change it as little as another model does; a recipe does, and the weights of a teacher."""
    assert provenance._code('"""A module."""\n\n# Why.\nX = 1\n\n\ndef f():\n    """A function."""\n    return X\n') \
        == "X = 1\ndef f():\n    return X"
    run = resolve("4L")
    before = provenance.engine(run)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    registry.register("another", hidden=(7,))
    assert provenance.engine(dataclasses.replace(run, seed=run.seed + 1)) == before
    assert len({before, *(provenance.engine(resolve(name, **changes)) for name, changes in (
        ("4L", {"epochs": 2}), ("3L", {}), ("4L", {"teacher": "conv_teacher"}), ("conv_strided", {})))}) == 5
    taught = provenance.engine(resolve("5L_distilled"))
    other = {name: {**entry, "sha256": "0" * 64} for name, entry in weights.manifest().items()}
    monkeypatch.setattr(weights, "manifest", lambda: other)
    assert provenance.engine(resolve("5L_distilled")) != taught and provenance.engine(run) == before


def test_commit_is_of_the_modules_alone(tmp_path, monkeypatch):
    """A table that has just got its first row does not make the second one's commit look changed."""
    module, table = tmp_path / "trainers" / "running" / "provenance.py", tmp_path / "results.csv"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.commit() == "unknown"
    for path in (module, table):
        path.write_text("before")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = provenance.commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    table.write_text("after")
    assert provenance.commit() == commit
    module.write_text("after")
    assert provenance.commit() == f"{commit}-dirty"


def test_rows_of_other_models_are_kept(scored, tmp_path):
    flags, path, _ = scored
    rows = results.read(path)
    others = [{**rows[0], "model": name} for name in ("gone", "2L")]
    results.write([*others, rows[0]], tmp_path / "others.csv")
    assert command.main([*flags[:3], f"--out={tmp_path / 'others.csv'}", flags[4], "--seeds=1,"]) == 0
    assert [row["model"] for row in results.read(tmp_path / "others.csv")] == ["softmax", "softmax", "2L", "gone"]


def test_rows_that_are_written_at_the_same_time_are_all_kept(scored, tmp_path):
    row, table = results.read(scored[1])[0], tmp_path / "table.csv"

    def add(first):
        for seed in range(first, first + 10):
            scores.add([{**row, "seed": str(seed)}], table)

    threads = [threading.Thread(target=add, args=(10 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["seed"] for row in results.read(table)] == [str(seed) for seed in range(40)]
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_row_is_reproduced_to_the_last_digit(scored, capsys):
    flags, path, _ = scored
    before = path.read_text()
    assert command.main([*flags, "--seeds=1", "--check"]) == 0
    assert "softmax, seed 0: the same to the last digit" in capsys.readouterr().out
    assert path.read_text() == before


@pytest.mark.parametrize("change, code, message", [
    ({"test_nll": lambda row: row["test_nll"] + 1e-9}, 0, "within"),
    ({"test_accuracy": lambda row: row["test_accuracy"] + 0.2}, 1, "beyond"),
    ({"chosen_epoch": lambda row: row["chosen_epoch"] - 1}, 0, "chosen_epoch"),
    ({"data_sha256": lambda row: "0" * 64}, 1, "data_sha256"),
    ({"epochs": lambda row: row["epochs"] + 1}, 1, "epochs"),
])
def test_row_that_is_not_reproduced_is_compared(scored, scored_run, tmp_path, monkeypatch, capsys, change, code,
                                                message):
    monkeypatch.setattr(batch, "finish", lambda *arguments: [scored_run])  # it was trained once
    flags, path, _ = scored
    rows = results.read(path)
    rows[0].update({name: make(rows[0]) for name, make in change.items()})
    results.write(rows, tmp_path / "changed.csv")
    assert command.main([*flags[:3], f"--out={tmp_path / 'changed.csv'}", "--seeds=1", "--check"]) == code
    printed = capsys.readouterr().out
    assert "softmax, seed 0: not the same to the last digit" in printed and message in printed


def test_limit_of_a_reproduced_value():
    """The interval for a new seed, computed here for the accuracies of four others."""
    others = [0.88, 0.89, 0.885, 0.895]
    rows = [{"model": "x", "seed": str(seed), "val_accuracy": 0.9, "test_accuracy": share}
            for seed, share in enumerate(others, 1)]
    rows.append({**rows[0], "seed": "1 2 3 4", "test_accuracy": 1.0})  # an ensemble is no other seed
    allowed = 5.840909 * statistics.stdev(others) * 2**0.5  # the 99.5 % point of t with three degrees of freedom
    for away, good in ((0.99 * allowed, True), (1.01 * allowed, False)):
        published = {**dict.fromkeys((*scores.COMPARED, "versions", "processor", "engine"), 1), **rows[0],
                     "seed": "0"}
        again = {**published, "test_accuracy": published["test_accuracy"] + away}
        assert scores.compare(published, again, rows)[0] == good


def test_interrupted_command_keeps_its_rows(scored, scored_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "finish", lambda *arguments, current: [scored_run])
    flags, table = scored[0], tmp_path / "x.csv"
    assert command.main([*flags[:3], f"--out={table}", flags[4], "--seeds=0,1"]) == 128
    assert "the same command continues" in capsys.readouterr().out
    assert [row["seed"] for row in results.read(table)] == ["0"]


def test_dry_run_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--dry_run", "--models=4D*,softmax"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("softmax, seed 0: 30 epochs") and printed.endswith("\n20 runs\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags, message", [
    (["--models=4D_dropp*"], "did you mean 4D_drop"),
    (["--seeds=zero"], "--seeds must be how many seeds"),
    (["--seeds=-1,"], "--seeds must be a whole number"),
    (["--data=mini"], "name another table with --out"),
    (["--data=mini", "--out=x", "--ship"], "without --ship"),
    (["--ensemble", "--seeds=1"], "two members or more"),
    (["--check", "--out=nowhere.csv", "--models=2L", "--seeds=7,"], "no published row to check"),
    (["--out=x.csv", "--data=mini"], "which models are to be in your table? --models="),
    (["--out=setup.cfg", "--models=2L"], "setup.cfg: not a table of results: its columns are"),
    (["--out=/nowhere/at/all.csv", "--models=2L", "--data=mini"], "/nowhere/at: no such folder"),
])
def test_wrong_flags_are_refused(capsys, monkeypatch, flags, message):
    monkeypatch.setattr(batch, "finish", lambda *arguments: pytest.fail("it trains, and writes the package's table"))
    assert message in helpers.refused(capsys, command.main, *flags)


@pytest.mark.parametrize("more", [[], [f"--out={results.PATH}"], ["--out=x.csv", "--ship"]], ids=str)
def test_models_that_are_not_of_the_zoo_never_enter_its_table_or_weights(more, capsys):
    registry.register("mine", "of a person", hidden=(8,))
    assert "mine is none of them" in helpers.refused(capsys, command.main, "--models=mine", "--seeds=1", *more)
    assert "to try things out" in helpers.refused(capsys, command.main, "--data=mini", *more)


def test_network_of_all_images_has_a_row_of_its_own(scored, tmp_path):
    """It has no validation accuracy, and is no part of the model's score."""
    flags, path, _ = scored
    table = shutil.copy(path, tmp_path / "x.csv")
    more = [*flags[:3], f"--out={table}", f"--logdir={tmp_path}", "--seeds=1", "--all_images"]
    assert command.main(more) == 0
    rows = results.read(table)
    assert [(row["seed"], row["val_accuracy"] is None) for row in rows] == [("0", False), ("1", False), ("0", True)]
    assert rows[:2] == results.read(path) and rows[2]["chosen_epoch"] == rows[2]["epochs"]
    score, alone = results.scores(rows)["softmax"], results.scores(rows[:2])["softmax"]
    assert score.of_all == rows[2]["test_accuracy"] and dataclasses.replace(score, of_all=None) == alone
    assert command.main([*more, "--check"]) == 0


def test_published_table_is_written_back_to_the_byte(tmp_path):
    results.write(PUBLISHED, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == results.PATH.read_bytes()


@pytest.mark.parametrize("text, message", [
    (",".join(results.COLUMNS[:-1]), "not a table of results: its columns are .*, expected .*, engine"),
    (",".join(results.COLUMNS) + "\nsoftmax,0", "line 2: has more or fewer cells"),
    (",".join(results.COLUMNS) + "\nsoftmax,0" + ",x" * (len(results.COLUMNS) - 2), "line 2: cannot be read")])
def test_what_is_no_table_is_named_with_its_line(tmp_path, monkeypatch, capsys, text, message):
    path = tmp_path / "x.csv"
    monkeypatch.setattr(results.read, "__defaults__", (path,))
    path.write_text(text + "\n")
    with pytest.raises(results.ResultsError, match=f"x.csv.*{message}"):
        results.read(path)
    assert "x.csv" in helpers.refused(capsys, listing, "softmax")
