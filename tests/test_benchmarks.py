"""The benchmarks on the small data set: what they run, compute and print; no claim about speed.

PyTorch and JAX need an environment that tests do not make: here their answers are made up, but for a slow test.
"""

import json
import re

import numpy as np
import pytest

import trainers
from benchmarks import command, epoch, full_batch, limit, peers, recipe, recipes, summary, sweep, table
from fmnist_zoo import get_spec
from tests import workers
from trainers.config import resolve

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("without_xla")]


@pytest.fixture
def no_environment(monkeypatch, tmp_path):
    """The environment of PyTorch and JAX does not exist."""
    monkeypatch.setattr(command, "OUTSIDE", tmp_path / ".venv")


def run(peer, seconds, loss=0.5, turn=1, model="2L", batch=128):
    return {"round": turn, "peer": peer, "model": model, "batch": batch, "data": "fashion_mnist", "images": 54_000,
            "epoch_seconds": list(seconds), "first_epoch_seconds": 3.0, "memory_mb": 700.0,
            "loss": loss}


def limited(library, seconds, turn=1, **more):
    return {"round": turn, "library": library, "step_seconds": seconds, **more}


def test_epoch_times_peers_and_writes_all_numbers(tmp_path, capsys, no_environment, monkeypatch):
    workers.in_process(monkeypatch)
    monkeypatch.setattr(limit, "SAMPLE_SECONDS", 0.001)
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models=softmax", "--batches=128", "--rounds=1", "--epochs=1",
                       f"--json={path}"])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    assert "softmax, batch 128, 1800 images" in printed.out and "peers reach the same training loss" in printed.out
    assert all(line in printed.out for line in ("\n  tape ", "\n  fit ", "\n  limit "))
    assert len(printed.err.splitlines()) == 3  # a line a peer
    content = json.loads(path.read_text())
    assert [one["peer"] for one in content["runs"]] == ["tape", "fit"]
    assert all(one["first_epoch_seconds"] > 0 and len(one["epoch_seconds"]) == 1 for one in content["runs"])
    assert all(one["memory_mb"] > 100 for one in content["runs"])
    (found,), (tape, fit) = content["summaries"], (one["epoch_seconds"][0] for one in content["runs"])
    assert found["ratios"] == {"fit/tape": [fit / tape]}
    assert content["machine"]["cores"] and content["versions"]["fit"]["keras"]
    assert [one["library"] for one in content["limits"]] == ["tensorflow", "numpy"]  # those of this environment
    assert found["limit"]["seconds"] == pytest.approx(found["limit"]["products_seconds"]
                                                      + found["limit"]["bytes_seconds"])
    assert "| softmax | 128 |" in table.read(path)


def test_full_batch_prints_both_engines_beside_the_products(capsys):
    assert full_batch.main(["--data=mini", "--rounds=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["scratch", "tape", "products", "peak"]
    assert "1.00 times the products" in lines[2] and lines[3].endswith("1800 images")


@pytest.mark.parametrize("rates, code", [([0.1, 0.4], 0), ([0.1, 0.3], 1)])
def test_sweep_refuses_to_compare_other_trials_than_stock_keras_tuners(rates, code, monkeypatch, capsys):
    """The README's test runs both for real."""
    def run_once(peer, batch, options):
        seconds, tried = (90.0, [0.1, 0.4]) if peer == "stock" else (30.0, rates)
        return {"peer": peer, "batch": batch, "seconds": seconds, "rates": tried}

    monkeypatch.setattr(sweep, "run_once", run_once)
    assert sweep.main(["--trials=2", "--rounds=2", "--batches=128", "--workers=1"]) == code
    printed = capsys.readouterr()
    assert "  workers 1  30.0 s, 240 trials an hour, 3.00 times stock (3.00 to 3.00)" in printed.out
    assert ("MISMATCH" in printed.out) is bool(code)
    assert [line.split()[4] for line in printed.err.splitlines()] == ["stock:", "workers", "workers", "stock:"]


def test_recipes_compares_changes_with_the_recipe_and_writes_the_page(tmp_path, capsys):
    """A second time it trains nothing, by the file of rows alone, too."""
    page, rows = tmp_path / "page.md", tmp_path / "rows.csv"
    page.write_text("Before.\n" + "".join(f"{recipes.BEGIN.format(name)}\nold\n{recipes.END.format(name)}\nAfter.\n"
                                          for name in ("left_out", "alone")))
    flags = ["--table=left_out", "--data=mini", "--seeds=1,2", "--epochs=1", "--settings=hidden=16,mixup=0",
             f"--logdir={tmp_path / 'here'}", f"--page={page}", f"--rows={rows}"]
    assert recipes.main(flags) == 0
    text = page.read_text()
    lines = text.splitlines()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and text.count("old") == 1
    assert lines[4].startswith("| as it is | ")
    assert re.match(r"\| `hidden=16,mixup=0` \| [0-9.]+ \| [+-][0-9.]+ \| [0-9.e-]+ \| ", lines[5])
    assert capsys.readouterr().out.count("(tape, seed ") == 4
    assert rows.read_text().count("\n") == 5
    for again in (flags, [*flags, f"--logdir={tmp_path / 'elsewhere'}"]):
        assert recipes.main(again) == 0 and "(tape, seed " not in capsys.readouterr().out
        assert page.read_text() == text


def test_recipe_is_trained_timed_and_put_into_its_table(tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    flags = ["--model=softmax", "--settings=epochs=1", "--seeds=0,1", "--data=mini", f"--rows={rows}"]
    for _ in range(2):  # the second row takes the place of the first
        assert recipe.main(flags) == 0
        (row,) = recipe.read(rows)
        assert row["seeds"] == "0 1" and 0 < float(row["test_accuracy"]) < 1 and float(row["seconds"]) > 0
    assert "| `softmax` `epochs=1` | " in capsys.readouterr().out
    assert recipe.main([*flags, "--settings=epoch=1"]) == 2 and "epoch" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [plan.changes for plan in recipes.TABLES.values()])
def test_each_change_of_a_table_of_recipes_is_one_that_a_run_can_have(changes):
    plan = next(plan for plan in recipes.TABLES.values() if plan.changes == changes)
    for text in changes:
        assert resolve(plan.model, **{**recipes.parse(plan.base), **recipes.parse(text)}) != resolve(
            plan.model, **recipes.parse(plan.base)), text


def test_worker_that_fails_is_reported_with_its_last_line():
    answer = epoch.run_worker("limit_numpy", peers.Task("softmax", 32, 1, "mini", 0))
    assert answer["library"] == "numpy" and answer["step_seconds"] > 0 and answer["bandwidth"] > 0
    with pytest.raises(command.WorkerError, match="^limit_cudnn on softmax at batch 32 failed: .*invalid choice"):
        epoch.run_worker("limit_cudnn", peers.Task("softmax", 32, 1, "mini", 0))


def test_names_of_peers_models_and_batch_sizes():
    options = epoch.make_parser().parse_args(["--peers=tape,torch,torch_fused,limit", "--batches=32,full,32",
                                              "--models=2L,l2=1e-05,4L,l2=1e-05,2L,l2=1e-05"])
    assert options.peers == ["tape", "torch_eager", "torch_fused", "torch_compile", "limit"]
    assert options.batches == [32, "full"] and options.models == ["2L,l2=1e-05", "4L,l2=1e-05"]
    sizes = [peers.Task("2L", batch, 1, "mini", 0).batch_size(1800) for batch in ("full", 32, 5000)]
    assert sizes == [1800, 32, 1800]


@pytest.mark.parametrize("flag, text", [
    ("--peers=tape,theano", "received 'tape,theano'"), ("--batches=32,ful", "or 'full', received 'ful'"),
    ("--batches=0", "received '0'"), ("--models=2M", "no model is named '2M'"), ("--rounds=0", "at least 1"),
    ("--json=nowhere/to/be/found.json", "nowhere/to/be is not a folder")])
def test_wrong_flag_is_refused(flag, text, capsys):
    with pytest.raises(SystemExit) as error:
        epoch.main([flag])
    assert error.value.code == 2 and text in capsys.readouterr().err


@pytest.mark.parametrize("flags, text", [
    (["--peers=tape,torch_fused,jax"], "epoch: torch_fused, jax: need an environment of their own"),
    (["--peers=limit"], "epoch: --peers=limit: name a peer beside it")])
def test_peers_that_cannot_run_are_refused_before_the_first_round(flags, text, capsys, no_environment, monkeypatch):
    monkeypatch.setattr(command, "run", lambda *_: pytest.fail("a process was started"))
    assert epoch.main(flags) == 2
    printed = capsys.readouterr()
    assert text in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


def test_missing_compiler_is_reported_before_the_first_round(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "outside_python", lambda: tmp_path)
    monkeypatch.setattr(epoch.shutil, "which", lambda name: None)
    assert epoch.main(["--peers=tape,torch"]) == 2
    assert "torch_compile needs a C++ compiler" in capsys.readouterr().err


def test_rounds_alternate_in_order_and_outside_peers_start_from_the_same_weights(monkeypatch, tmp_path):
    asked = []

    def ask(arguments, what, python):
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in arguments[1:])
        asked.append((flags["worker"], flags["seed"], bool(flags["weights"])))
        return {**run(flags["worker"], [1.0]), "versions": {}}

    monkeypatch.setattr(command, "ask", ask)
    options = epoch.make_parser().parse_args(["--peers=tape,jax", "--models=2L", "--batches=128,full", "--rounds=2"])
    rounds = [epoch.one_round(options, turn, str(tmp_path)) for turn in (0, 1)]
    assert [one[0] for one in asked] == ["weights", "tape", "jax", "tape", "jax", "weights", "jax", "tape", "jax",
                                         "tape"]
    assert [one[1] for one in asked] == ["0"] * 5 + ["1"] * 5 and all(one[2] for one in asked)
    assert [len(runs) for runs, _ in rounds] == [4, 4] and "weights" not in rounds[0][0][0]


@pytest.mark.parametrize("error, code", [(command.WorkerError("fit failed: killed"), 1), (KeyboardInterrupt(), 130)])
def test_complete_rounds_are_kept_when_a_later_one_fails(monkeypatch, tmp_path, capsys, error, code):
    answers = [{**run("tape", [1.0]), "versions": {}}, {**run("fit", [3.0]), "versions": {}},
               {**run("tape", [9.0]), "versions": {}}]

    def ask(arguments, what, python):
        if not answers:
            raise error
        return answers.pop(0)

    monkeypatch.setattr(command, "ask", ask)
    path = tmp_path / "epoch.json"
    flags = ["--peers=tape,fit", "--models=2L", "--batches=128", f"--json={path}"]
    assert epoch.main([*flags, "--rounds=3"]) == code
    printed = capsys.readouterr()
    assert "1 of 3 rounds are complete" in printed.err and "3.00 (3.00 to 3.00)" in printed.out
    content = json.loads(path.read_text())
    assert content["rounds"] == 1 and len(content["runs"]) == 2
    path.unlink()
    assert epoch.main(flags) == code and "0 of 5 rounds" in capsys.readouterr().err and not path.exists()


def test_number_of_threads_is_removed_for_peers_unless_the_user_gave_it(monkeypatch):
    for given, left in (("", {}), ("8", {trainers.THREADS_VARIABLE: "8"})):
        monkeypatch.setattr(trainers, "THREADS_GIVEN", given)
        assert command.free_threads({trainers.THREADS_VARIABLE: given or str(trainers.THREADS)}) == left


def test_outside_peers_read_the_keras_models_initial_weights(tmp_path):
    from fmnist_zoo import models

    task = peers.Task("2L", 32, 1, "mini", 7, str(tmp_path / "weights.npz"))
    peers.save_weights(task)
    for found, expected in zip(peers.read_weights(task), models.build_model("2L", seed=7).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_fastest_way_of_torch_counts():
    runs = [run(peer, seconds, turn=turn) for turn in (1, 2) for peer, seconds in
            (("tape", (1.0, 1.0)), ("torch_eager", (3.0, 3.2)), ("torch_fused", (2.0, 2.2)), ("torch_compile", (2.5,)))]
    found = summary.summarize(runs, ["tape", "torch_eager", "torch_fused", "torch_compile"])
    assert found["best"] == {"torch": "torch_fused"} and found["agree"] and "limit" not in found
    assert found["ratios"]["torch_fused/tape"] == pytest.approx([2.1, 2.1])
    assert "\n  torch_fused* " in summary.describe(found)


@pytest.mark.parametrize("loss, agree", [(0.514, True), (0.516, False), (float("nan"), False)])
def test_peers_with_another_training_loss_are_reported(loss, agree):
    found = summary.summarize([run("tape", [1.0]), run("jax", [0.1], loss)], ["tape", "jax"])
    assert found["agree"] is agree and ("MISMATCH" in summary.describe(found)) is not agree


def test_chain_of_the_limit_is_the_products_of_a_training_step():
    spec, shapes = get_spec("network_B"), []

    def multiply(a, b, transpose_a, transpose_b):
        a, b = (a.T if transpose_a else a), (b.T if transpose_b else b)
        shapes.append((*a.shape, b.shape[1]))
        return a @ b

    gradients = limit._chain(multiply, *limit._arrays(spec, 4))
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
    slow = summary.summarize(runs, ["tape"], [*answers[:4], limited("tensorflow", 9e-3, 3), answers[5]])["limit"]
    assert slow["shares"]["tape"] == pytest.approx([0.516, 0.516, 0.938], abs=1e-3)
    found = summary.summarize(runs, ["tape"], answers)["limit"]
    spec = get_spec("2L")
    assert found["library"] == "tensorflow"
    assert found["products_seconds"] == pytest.approx(2e-3 * 54_000 / 128)
    assert found["bytes_seconds"] == pytest.approx(422 * 28 * spec.parameters / 10e9)  # 421.9 batches: 422 steps
    assert found["flops_per_second"] == pytest.approx(128 * spec.training_flops / 2e-3)
    assert found["shares"]["tape"] == pytest.approx([found["seconds"] / 2.0] * 3)
    text = summary.describe(summary.summarize(runs, ["tape"], answers))
    assert " 52% " in text and "numpy 1.688 s" in text


def results_file(tmp_path, **changes):
    runs = [run(peer, seconds) for peer, seconds in
            (("tape", [1.0]), ("fit", [2.5]), ("torch_eager", [4.0]), ("torch_fused", [3.0]))]
    plain = summary.summarize(runs, ["tape", "fit", "torch_eager", "torch_fused"], [
        limited("tensorflow", 1e-3), limited("numpy", 4e-3, bandwidth=100e9)])
    others = summary.summarize([run("tape", [0.5], batch="full"), run("jax", [50.0], 0.7, batch="full")],
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
        "| model | batch | `tape` | `Model.fit` | PyTorch | JAX | limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 2L | 128 | 1 s | 2.5 s (2.5x) | 3 s (3x) | - | 0.441 s (44%) |",
        "| 2L (losses differ) | full | 0.5 s | - | - | 50 s (100x) | - |"]
    assert "54000 images, medians of 5 interleaved rounds" in lines[5]
    assert lines[5].endswith("The best of PyTorch's ways: torch_fused. A processor, 2 cores; TensorFlow 2.21.0; "
                             "commit 0123456789ab.")


@pytest.mark.parametrize("changes, text", [
    (None, "cannot be read"), ({"summaries": []}, "not a file of benchmarks.epoch"),
    ({"summaries": [{}]}, "not a file of benchmarks.epoch"), ({"machine": None}, "make it with: python -m")])
def test_table_refuses_other_files(changes, text, tmp_path, capsys):
    path = tmp_path / "missing.json" if changes is None else results_file(tmp_path, **changes)
    assert table.main([str(path)]) == 2
    printed = capsys.readouterr().err
    assert text in printed and printed.count("\n") == 1


@pytest.mark.optional
@pytest.mark.slow
@pytest.mark.skipif(not command.outside_python().exists(), reason="benchmarks/.venv does not exist")
def test_all_peers_take_the_same_steps(tmp_path, capsys):
    """One update of all images an epoch: neither order nor dropout masks can differ, so the losses must agree."""
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models=2L,network_B_l1,network_B_l2", "--batches=full", "--rounds=1",
                       "--epochs=4", "--peers=tape,fit,torch,jax,limit", f"--json={path}"])
    assert code == 0, capsys.readouterr()
    found = json.loads(path.read_text())["summaries"]
    assert [len(one["peers"]) for one in found] == [6, 6, 6] and max(one["loss_spread"] for one in found) < 0.005
    assert set(found[0]["limit"]["libraries"]) == {"tensorflow", "numpy", "torch", "jax"}
