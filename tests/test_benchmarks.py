"""The benchmarks on the small data set: what they run, compute and print; no claim about speed.

PyTorch and JAX need an environment that tests do not make: here their answers are made up, but for a slow test.
"""

import json
import re

import pytest
from PIL import Image

from benchmarks import command, cores, epoch, recipes, sweeps, table
from fmnist_zoo import statistics
from tests import workers
from trainers.config import resolve

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("without_xla")]


@pytest.mark.parametrize("model, batch, others", [("softmax", "128", ["fit", "fit_epoch"]),
                                                  ("network_softmax", "full", ["scratch"])])
def test_epoch_times_peers_and_writes_all_numbers(model, batch, others, tmp_path, capsys, monkeypatch):
    workers.in_process(monkeypatch)
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", f"--models={model}", f"--batches={batch}", "--rounds=1", "--epochs=1",
                       "--peers", "tape", *others, f"--json={path}"])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    assert f"{model}, batch {batch}, 1800 images" in printed.out
    assert all(f"\n  {line} " in printed.out for line in ("tape", *others))
    assert len(printed.err.splitlines()) == 1 + len(others)  # a line a peer
    content = json.loads(path.read_text())
    assert [one["peer"] for one in content["runs"]] == ["tape", *others]
    assert all(one["first_epoch_seconds"] > 0 and len(one["epoch_seconds"]) == 1 and one["memory_mb"] > 100
               and one["cores"] in ("near", "far", "changed") for one in content["runs"])
    (found,), (ours, *theirs) = table.summaries(content["runs"]), (one["epoch_seconds"][0] for one in content["runs"])
    assert found["ratios"] == {f"{other}/tape": [one / ours] for other, one in zip(others, theirs)} and found["agree"]
    assert content["machine"]["cores"] and content["versions"]["tape"]["keras"]
    assert f"| {model} | {batch} |" in table.read(path)


def test_runs_on_near_cores_are_compared_with_each_other():
    seconds = {"tape": [1.0, 2.0, 1.0, 1.1], "fit": [3.0, 8.0, 6.0, 3.3]}
    apart = {"tape": [(270, 280), (570, 580), (275, 270), (270, 270)],
             "fit": [(280, 270), (580, 590), (580, 570), (270, 280)]}
    runs = [{"round": turn + 1, "peer": peer, "model": "2L", "batch": 32, "data": "mini", "images": 1800, "loss": 0.5,
             "epoch_seconds": [seconds[peer][turn]] * 2, "first_epoch_seconds": 4.0, "memory_mb": 500.0,
             "round_trip_ns": apart[peer][turn]} for turn in range(4) for peer in ("tape", "fit")]
    cores.name_kinds(runs)
    assert [run["cores"] for run in runs] == ["near", "near", "far", "far", "near", "far", "near", "near"]
    found = table.summarize(runs, ["tape", "fit"])
    assert found["ratios"] == {"fit/tape": pytest.approx([3.0, 3.0])} and (found["used"], found["cores"]) == (5, "near")
    assert "cores near in 5 of 8 runs" in table.describe(found)
    runs[0]["round_trip_ns"] = runs[7]["round_trip_ns"] = (270, 580)
    cores.name_kinds(runs)
    assert [run["cores"] for run in runs].count("changed") == 2
    found = table.summarize(runs, ["tape", "fit"])
    assert found["cores"] == "" and len(found["ratios"]["fit/tape"]) == 4  # one round of a kind is too few of four
    assert table.summarize(runs[2:4], ["tape", "fit"])["cores"] == "far"


def test_round_trip_between_two_cores_takes_less_than_a_millisecond():
    assert 0 <= cores.round_trip() < 1e6


def test_recipes_compares_changes_with_the_recipe_and_writes_the_page(tmp_path, capsys):
    """A second time it trains nothing, by the file of rows alone, too."""
    page, rows = tmp_path / "page.md", tmp_path / "rows.csv"
    begin, end = "<!-- recipes: python -m benchmarks.recipes --table=left_out -->", "<!-- /recipes -->"
    page.write_text(f"Before.\n{begin}\nold\n{end}\nAfter.\n")
    flags = ["--table=left_out", "--data=mini", "--seeds", "1", "2", "--epochs=1", "--settings=hidden=16,mixup=0",
             f"--logdir={tmp_path / 'here'}", f"--page={page}", f"--rows={rows}"]
    assert recipes.main(flags) == 0
    text = page.read_text()
    lines = text.splitlines()
    assert lines[:2] == ["Before.", begin] and lines[-2:] == [end, "After."] and "old" not in text
    assert lines[4].startswith("| as it is | ")
    assert re.match(r"\| `hidden=16,mixup=0` \| [0-9.]+ \| [+-][0-9.]+ \| [0-9.e-]+ \| ", lines[5])
    assert capsys.readouterr().out.count("(tape, seed ") == 4
    assert rows.read_text().count("\n") == 5
    for again in (flags, [*flags, f"--logdir={tmp_path / 'elsewhere'}"]):
        assert recipes.main(again) == 0 and "(tape, seed " not in capsys.readouterr().out
        assert page.read_text() == text


def test_p_of_a_comparison_is_corrected_for_all_of_its_tests_and_the_certain_changes_are_told(tmp_path):
    """Two changes and two figures are four tests: the smallest p is multiplied by four, the next by three."""
    values = {"": (0.3, 0.31, 0.29), "flip=true": (0.2, 0.21, 0.1901), "shift=1": (0.31, 0.29, 0.3)}
    by_change = {change: [{"nll": nll, "accuracy": 0.9 + index / 1000, "epoch": 1, "seconds": 1}
                          for index, nll in enumerate(losses)] for change, losses in values.items()}
    lines = recipes.comparison_table(by_change).splitlines()
    p = float(lines[3].split("|")[4])
    alone = statistics.paired([0.2, 0.21, 0.1901], values[""]).p
    assert p == pytest.approx(4 * alone, rel=0.05) and lines[4].split("|")[4].strip() == "1"
    assert recipes.comparison_table(by_change, certain=True).splitlines() == lines[:4]
    recipes.plot(by_change, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 500


def test_short_training_is_timed_and_put_into_its_table(tmp_path, capsys, monkeypatch):
    workers.in_process(monkeypatch)
    rows = tmp_path / "rows.csv"
    flags = ["--table=short", "--model=softmax", "--seeds", "0", "1", "--data=mini", f"--rows={rows}"]
    for _ in range(2):  # the second row takes the place of the first
        assert recipes.main([*flags, "--settings=epochs=1"]) == 0
        (row,) = recipes.read(rows)
        assert row["seeds"] == "0 1" and 0 < float(row["test_accuracy"]) < 1
        assert min(float(row["seconds"]), float(row["cached_seconds"])) > 0
    assert "| `softmax` `epochs=1` | " in capsys.readouterr().out
    assert recipes.main([*flags, "--settings=epoch=1"]) == 2 and "epoch" in capsys.readouterr().err


@pytest.mark.parametrize("plan", recipes.COMPARISONS.values())
def test_each_change_of_a_comparison_is_one_that_a_run_can_have(plan):
    for change in plan.changes:
        assert resolve(plan.model, **recipes.parse(plan.settings(change))) != resolve(
            plan.model, **recipes.parse(plan.recipe)), change


@pytest.mark.parametrize("flag, text", [
    ("--peers=theano", "'theano'"), ("--batches=ful", "received 'ful'"),
    ("--batches=0", "received '0'"), ("--models=2M", "no model is named '2M'"), ("--rounds=0", "at least 1"),
    ("--json=nowhere/to/be/found.json", "nowhere/to/be is not a folder")])
def test_wrong_flag_is_refused(flag, text, capsys):
    with pytest.raises(SystemExit) as error:
        epoch.main([flag])
    assert error.value.code == 2 and text in capsys.readouterr().err


def test_peers_that_cannot_run_are_refused_before_the_first_round(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "OUTSIDE", tmp_path)
    monkeypatch.setattr(command, "ask", lambda *_: pytest.fail("a process was started"))
    assert epoch.main(["--peers", "tape", "torch", "jax"]) == 2
    printed = capsys.readouterr()
    assert "epoch: torch, jax: need an environment of their own" in printed.err
    assert len(printed.err.splitlines()) == 1 and not printed.out


@pytest.mark.optional
@pytest.mark.slow
@pytest.mark.skipif(not command.outside_python().exists(), reason="benchmarks/.venv does not exist")
def test_all_peers_take_the_same_steps(tmp_path, capsys):
    """One update of all images an epoch: neither order nor dropout masks can differ, so the losses must agree."""
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models", "2L", "network_B_l1", "network_B_l2", "--batches=full", "--rounds=1",
                       "--epochs=4", "--peers", "tape", "fit", "fit_epoch", "torch", "jax", f"--json={path}"])
    assert code == 0, capsys.readouterr()
    found = table.summaries(json.loads(path.read_text())["runs"])
    assert [len(one["peers"]) for one in found] == [5, 5, 5] and max(one["loss_spread"] for one in found) < 0.005


def test_parts_of_a_sweep_are_all_of_its_seconds():
    trials = [({"began": 10.0, "ended": 20.0}, [4.0, 2.0, 2.0]), ({"began": 21.0, "ended": 29.0}, [2.0, 2.0, 2.0])]
    parts = sweeps._parts(trials, 1.0, 32.0)
    assert parts == {"start": 9.0, "first": 2.0, "epochs": 12.0, "trials": 4.0, "idle": 4.0}
    assert sum(parts.values()) == 32.0 - 1.0
