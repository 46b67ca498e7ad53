"""The benchmarks on the small data set: what they run, compute and print; no claim about speed.

PyTorch and JAX need an environment that tests do not make: here their answers are made up, but for a slow test.
"""

import json
import re

import numpy as np
import pytest

from benchmarks import command, epoch, limit, peers, recipes, table
from fmnist_zoo import get_spec
from tests import workers
from trainers.config import resolve

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("without_xla")]


def run(peer, seconds, loss=0.5, turn=1, model="2L", batch=128):
    return {"round": turn, "peer": peer, "model": model, "batch": batch, "data": "fashion_mnist", "images": 54_000,
            "epoch_seconds": list(seconds), "first_epoch_seconds": 3.0, "memory_mb": 700.0,
            "loss": loss}


def limited(library, seconds, turn=1, **more):
    return {"round": turn, "library": library, "step_seconds": seconds, **more}


@pytest.mark.parametrize("model, batch, other", [("softmax", "128", "fit"), ("network_softmax", "full", "scratch")])
def test_epoch_times_peers_and_writes_all_numbers(model, batch, other, tmp_path, capsys, monkeypatch):
    workers.in_process(monkeypatch)
    monkeypatch.setattr(limit, "SAMPLE_SECONDS", 0.001)
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", f"--models={model}", f"--batches={batch}", "--rounds=1", "--epochs=1",
                       "--peers", "tape", other, "limit", f"--json={path}"])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    assert f"{model}, batch {batch}, 1800 images" in printed.out
    assert all(f"\n  {line} " in printed.out for line in ("tape", other, "limit"))
    assert len(printed.err.splitlines()) == 3  # a line a peer
    content = json.loads(path.read_text())
    assert [one["peer"] for one in content["runs"]] == ["tape", other]
    assert all(one["first_epoch_seconds"] > 0 and len(one["epoch_seconds"]) == 1 and one["memory_mb"] > 100
               for one in content["runs"])
    (found,), (ours, theirs) = content["summaries"], (one["epoch_seconds"][0] for one in content["runs"])
    assert found["ratios"] == {f"{other}/tape": [theirs / ours]} and found["agree"]
    assert content["machine"]["cores"] and content["versions"]["tape"]["keras"]
    assert [one["library"] for one in content["limits"]] == ["tensorflow", "numpy"]  # those of this environment
    assert found["limit"]["seconds"] == pytest.approx(found["limit"]["products_seconds"]
                                                      + found["limit"]["bytes_seconds"])
    assert f"| {model} | {batch} |" in table.read(path)


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


def test_short_training_is_timed_and_put_into_its_table(tmp_path, capsys, monkeypatch):
    workers.in_process(monkeypatch)
    rows = tmp_path / "rows.csv"
    flags = ["--table=short", "--model=softmax", "--seeds", "0", "1", "--data=mini", f"--rows={rows}"]
    for _ in range(2):  # the second row takes the place of the first
        assert recipes.main([*flags, "--settings=epochs=1"]) == 0
        (row,) = recipes.read(rows)
        assert row["seeds"] == "0 1" and 0 < float(row["test_accuracy"]) < 1 and float(row["seconds"]) > 0
    assert "| `softmax` `epochs=1` | " in capsys.readouterr().out
    assert recipes.main([*flags, "--settings=epoch=1"]) == 2 and "epoch" in capsys.readouterr().err


@pytest.mark.parametrize("plan", recipes.COMPARISONS.values())
def test_each_change_of_a_comparison_is_one_that_a_run_can_have(plan):
    for change in plan.changes:
        assert resolve(plan.model, **recipes.parse(plan.settings(change))) != resolve(
            plan.model, **recipes.parse(plan.recipe)), change


def test_worker_that_fails_is_reported_with_its_last_line():
    with pytest.raises(command.WorkerError, match="^limit_cudnn on softmax at batch 32 failed: .*invalid choice"):
        epoch.run_worker("limit_cudnn", peers.Task("softmax", 32, 1, "mini", 0))


@pytest.mark.parametrize("flag, text", [
    ("--peers=theano", "'theano'"), ("--batches=ful", "received 'ful'"),
    ("--batches=0", "received '0'"), ("--models=2M", "no model is named '2M'"), ("--rounds=0", "at least 1"),
    ("--json=nowhere/to/be/found.json", "nowhere/to/be is not a folder")])
def test_wrong_flag_is_refused(flag, text, capsys):
    with pytest.raises(SystemExit) as error:
        epoch.main([flag])
    assert error.value.code == 2 and text in capsys.readouterr().err


@pytest.mark.parametrize("flags, text", [
    (["--peers", "tape", "torch", "jax"], "epoch: torch, jax: need an environment of their own"),
    (["--peers=limit"], "epoch: --peers=limit: name a peer beside it")])
def test_peers_that_cannot_run_are_refused_before_the_first_round(flags, text, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "OUTSIDE", tmp_path)
    monkeypatch.setattr(command, "ask", lambda *_: pytest.fail("a process was started"))
    assert epoch.main(flags) == 2
    printed = capsys.readouterr()
    assert text in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


@pytest.mark.parametrize("loss, agree", [(0.514, True), (0.516, False), (float("nan"), False)])
def test_peers_with_another_training_loss_are_reported(loss, agree):
    found = table.summarize([run("tape", [1.0]), run("jax", [0.1], loss)], ["tape", "jax"])
    assert found["agree"] is agree and ("MISMATCH" in table.describe(found)) is not agree


def test_chain_of_the_limit_is_the_products_of_a_training_step():
    spec, shapes = get_spec("network_B"), []

    def multiply(a, b, transpose_a, transpose_b):
        product = limit.multiply(a, b, transpose_a, transpose_b)
        shapes.append((product.shape[0], a.size // product.shape[0], product.shape[1]))
        return product

    gradients = limit.chain(multiply, *limit.arrays(spec, 4))
    assert sorted(shapes) == sorted([(4, 784, 300), (4, 300, 100), (4, 100, 10),  # forward
                                     (784, 4, 300), (300, 4, 100), (100, 4, 10),  # gradients of kernels
                                     (4, 10, 100), (4, 100, 300)])  # gradients of inputs
    assert sum(2 * m * k * n for m, k, n in shapes) == 4 * spec.training_flops
    assert [gradient.shape for gradient in gradients] == [(100, 10), (300, 100), (784, 300)]
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_limit_adds_products_and_bytes_by_the_fastest_library_of_each_round():
    runs = [run("tape", [2.0], turn=turn) for turn in (1, 2, 3)]
    answers = [answer for turn in (1, 2, 3) for answer in (
        limited("tensorflow", 2e-3, turn), limited("numpy", 4e-3, turn, bandwidth=10e9))]
    slow = table.summarize(runs, ["tape"], [*answers[:4], limited("tensorflow", 9e-3, 3), answers[5]])["limit"]
    assert slow["shares"]["tape"] == pytest.approx([0.516, 0.516, 0.938], abs=1e-3)
    summary = table.summarize(runs, ["tape"], answers)
    found, spec = summary["limit"], get_spec("2L")
    assert found["products_seconds"] == pytest.approx(2e-3 * 54_000 / 128)
    assert found["bytes_seconds"] == pytest.approx(422 * 28 * spec.parameters / 10e9)  # 421.9 batches: 422 steps
    assert found["flops_per_second"] == pytest.approx(128 * spec.training_flops / 2e-3)
    assert found["shares"]["tape"] == pytest.approx([found["seconds"] / 2.0] * 3)
    assert " 52% " in table.describe(summary) and "numpy 1.688 s" in table.describe(summary)


def results_file(tmp_path, **changes):
    plain = table.summarize([run("tape", [1.0]), run("fit", [2.5])], ["tape", "fit"],
                            [limited("tensorflow", 1e-3), limited("numpy", 4e-3, bandwidth=100e9)])
    others = table.summarize([run("tape", [0.5], batch="full"), run("jax", [50.0], 0.7, batch="full")],
                             ["tape", "jax"])
    path = tmp_path / "results.json"
    path.write_text(json.dumps({
        "machine": {"cpu": "A processor", "cores": 2}, "commit": "0123456789abcdef", "rounds": 5,
        "versions": {"tape": {"tensorflow": "2.21.0"}, "limit, jax": "1"}, "summaries": [plain, others], **changes}))
    return path


def test_table_of_the_readme(tmp_path, capsys):
    assert table.main([str(results_file(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "| model | batch | `tape` | `Model.fit` | JAX | limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| 2L | 128 | 1 s | 2.5 s (2.5x) | - | 0.441 s (44%) |",
        "| 2L (losses differ) | full | 0.5 s | - | 50 s (100x) | - |"]
    assert "54000 images, medians of 5 interleaved rounds" in lines[5]
    assert lines[5].endswith("A processor, 2 cores; TensorFlow 2.21.0; commit 0123456789ab.")


@pytest.mark.parametrize("changes", [None, {"summaries": []}, {"summaries": [{}]}, {"machine": None}])
def test_table_refuses_other_files(changes, tmp_path, capsys):
    path = tmp_path / "missing.json" if changes is None else results_file(tmp_path, **changes)
    assert table.main([str(path)]) == 2
    printed = capsys.readouterr().err
    assert f"table: {path}: " in printed and "python -m benchmarks.epoch" in printed and printed.count("\n") == 1


@pytest.mark.optional
@pytest.mark.slow
@pytest.mark.skipif(not command.outside_python().exists(), reason="benchmarks/.venv does not exist")
def test_all_peers_take_the_same_steps(tmp_path, capsys):
    """One update of all images an epoch: neither order nor dropout masks can differ, so the losses must agree."""
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models", "2L", "network_B_l1", "network_B_l2", "--batches=full", "--rounds=1",
                       "--epochs=4", "--peers", "tape", "fit", "torch", "jax", "limit", f"--json={path}"])
    assert code == 0, capsys.readouterr()
    found = json.loads(path.read_text())["summaries"]
    assert [len(one["peers"]) for one in found] == [4, 4, 4] and max(one["loss_spread"] for one in found) < 0.005
    assert set(found[0]["limit"]["libraries"]) == {"tensorflow", "numpy", "jax"}
