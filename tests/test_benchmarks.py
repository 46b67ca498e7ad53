"""The benchmarks, on the small data set: what they ask for, add up and say; no claim about speed.

The peers outside TensorFlow need an environment that tests do not make: here their answers are made up.
"""

import json

import numpy as np
import pytest

import trainers
from benchmarks import command, environment, epoch, limit, peers, summary, table
from fmnist_zoo import get_spec


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """The other environment is nowhere."""
    monkeypatch.setattr(environment, "FOLDER", tmp_path / ".venv")
    return tmp_path / ".venv"


def run(peer, seconds, loss=0.5, turn=1, model="2L", batch=128):
    return {"round": turn, "peer": peer, "model": model, "batch": batch, "data": "fashion_mnist", "images": 54_000,
            "epoch_seconds": list(seconds), "first_epoch_seconds": 3.0, "import_seconds": 1.0, "loss": loss}


def limited(library, seconds, turn=1, **more):
    return {"round": turn, "library": library, "step_seconds": seconds, **more}


def test_it_times_both_peers_and_keeps_the_numbers(tmp_path, capsys, outside):
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models=2L", "--batches=128", "--rounds=1", "--epochs=1", f"--json={path}"])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    assert "2L, batch 128, 1800 images" in printed.out and "the peers reach the same training loss" in printed.out
    assert all(line in printed.out for line in ("\n  tape ", "\n  fit ", "\n  fit/tape ", "\n  limit "))
    assert len(printed.err.splitlines()) == 3  # a line a peer
    content = json.loads(path.read_text())
    assert [one["peer"] for one in content["runs"]] == ["tape", "fit"]
    assert all(one["first_epoch_seconds"] > 0 and len(one["epoch_seconds"]) == 1 for one in content["runs"])
    (found,), (tape, fit) = content["summaries"], (one["epoch_seconds"][0] for one in content["runs"])
    assert found["ratios"] == {"fit/tape": [fit / tape]}
    assert content["machine"]["cores"] and content["versions"]["fit"]["keras"]
    assert [one["library"] for one in content["limits"]] == ["tensorflow", "numpy"]  # those of this environment
    assert found["limit"]["seconds"] == pytest.approx(found["limit"]["products_seconds"]
                                                      + found["limit"]["bytes_seconds"])
    assert "2L" in table.table(table.load(path))


def test_words_for_peers_and_batches():
    options = epoch.make_parser().parse_args(["--peers=tape,torch,torch_fused,limit", "--batches=32,full,32",
                                              "--models=2L,l2=1e-05,4L,l2=1e-05,2L,l2=1e-05"])
    assert options.peers == ["tape", "torch_eager", "torch_fused", "torch_compile", "limit"]
    assert options.batches == [32, "full"] and options.models == ["2L,l2=1e-05", "4L,l2=1e-05"]
    sizes = [peers.Task("2L", batch, 1, "mini", 0).batch_size(1800) for batch in ("full", 32, 5000)]
    assert sizes == [1800, 32, 1800]


@pytest.mark.parametrize("flag, said", [
    ("--peers=tape,theano", "received 'tape,theano'"), ("--batches=32,ful", "or 'full', received '32,ful'"),
    ("--batches=0", "received '0'"), ("--models=2M", "no model is named '2M'"), ("--rounds=0", "at least 1"),
    ("--json=nowhere/to/be/found.json", "nowhere/to/be is no folder")])
def test_a_wrong_flag_is_refused(flag, said, capsys):
    with pytest.raises(SystemExit) as error:
        epoch.main([flag])
    assert error.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("flags, said", [
    (["--peers=tape,torch_fused,jax"], "epoch: torch_fused, jax cannot run: the environment"),
    (["--peers=tape,sklearn", "--models=2L,4D_drop03"], "python -m benchmarks.environment"),
    (["--peers=limit"], "nobody is left to train 4D_drop03: name a peer beside limit")])
def test_what_cannot_be_is_said_before_any_round(flags, said, capsys, outside, monkeypatch):
    monkeypatch.setattr(command, "ask", lambda *_: pytest.fail("a process was started"))
    assert epoch.main(flags) == 2
    printed = capsys.readouterr()
    assert said in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


def test_the_environment_is_whole_and_of_these_requirements(outside):
    assert "not there" in environment.trouble()
    environment.python().parent.mkdir(parents=True)
    environment.python().touch()
    assert "not there, or not whole" in environment.trouble()  # pip was interrupted
    (outside / "requirements.txt").write_text("torch==1.0\n")
    assert "of another requirements.txt" in environment.trouble()
    (outside / "requirements.txt").write_text(environment.REQUIREMENTS.read_text())
    assert environment.trouble() == ""
    pins = [line for line in environment.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert [pin.split("==")[0] for pin in pins] == ["jax", "numpy", "optax", "scikit-learn", "torch"]


def test_scikit_learn_refuses_what_it_cannot_train():
    for model, notes in (("2L", []), ("network_B_l2", []), ("network_softmax", []),
                         ("4D_drop03", ["sklearn is left out: MLPClassifier has no dropout"]),
                         ("network_A_l1", ["sklearn is left out: MLPClassifier has no L1"])):
        assert epoch.willing(model, ["tape", "sklearn", "limit"]) == (
            ["tape", "limit"] if notes else ["tape", "sklearn", "limit"], notes)


def test_rounds_turn_around_and_peers_outside_start_from_the_same_weights(monkeypatch, tmp_path):
    asked = []

    def ask(arguments, what, python):
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in arguments[1:])
        asked.append((flags["worker"], flags["seed"], bool(flags["weights"])))
        return {**run(flags["worker"], [1.0]), "versions": {}}

    monkeypatch.setattr(command, "ask", ask)
    options = epoch.make_parser().parse_args(["--peers=tape,jax", "--models=2L", "--batches=128,full", "--rounds=2"])
    runs, limits = [], []
    assert list(epoch.measure(options, str(tmp_path), runs, limits)) == [1, 2]
    assert [one[0] for one in asked] == ["weights", "tape", "jax", "tape", "jax", "weights", "jax", "tape", "jax",
                                         "tape"]
    assert [one[1] for one in asked] == ["0"] * 5 + ["1"] * 5 and all(one[2] for one in asked)
    assert len(runs) == 8 and not limits and "weights" not in runs[0]


@pytest.mark.parametrize("error, code", [(command.WorkerError("fit failed: killed"), 1), (KeyboardInterrupt(), 130)])
def test_whole_rounds_outlive_what_ends_a_later_one(monkeypatch, tmp_path, capsys, error, code):
    answers = [{**run("tape", [1.0]), "versions": {}}, {**run("fit", [3.0]), "versions": {}}]

    def ask(arguments, what, python):
        if not answers:
            raise error
        return answers.pop(0)

    monkeypatch.setattr(command, "ask", ask)
    path = tmp_path / "epoch.json"
    flags = ["--peers=tape,fit", "--models=2L", "--batches=128", f"--json={path}"]
    assert epoch.main([*flags, "--rounds=3"]) == code
    printed = capsys.readouterr()
    assert "1 of 3 rounds are whole" in printed.err and "fit/tape 3.00" in printed.out
    content = json.loads(path.read_text())
    assert content["rounds"] == 1 and len(content["runs"]) == 2
    path.unlink()
    assert epoch.main(flags) == code and "0 of 5 rounds" in capsys.readouterr().err and not path.exists()


def test_our_number_of_threads_is_ours_alone(monkeypatch):
    for given, left in ((None, {}), ("8", {trainers.THREADS_VARIABLE: "8"})):
        monkeypatch.setattr(trainers, "THREADS_GIVEN", given or "")
        assert command.free_threads({trainers.THREADS_VARIABLE: given or str(trainers.THREADS)}) == left


def test_weights_go_to_the_other_peers_as_they_are(tmp_path):
    from fmnist_zoo import models

    task = peers.Task("2L", 32, 1, "mini", 7, str(tmp_path / "weights.npz"))
    peers.save_weights(task)
    for found, expected in zip(peers.read_weights(task), models.build_model("2L", seed=7).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_best_of_torch_counts():
    runs = [run(peer, seconds, turn=turn) for turn in (1, 2) for peer, seconds in
            (("tape", (1.0, 1.0)), ("torch_eager", (3.0, 3.2)), ("torch_fused", (2.0, 2.2)), ("torch_compile", (2.5,)))]
    found = summary.summarize(runs, ["tape", "torch_eager", "torch_fused", "torch_compile"])
    assert found["best"] == {"torch": "torch_fused"} and found["agree"] and "limit" not in found
    assert found["ratios"]["torch_fused/tape"] == pytest.approx([2.1, 2.1])
    assert "best of torch: torch_fused; this one counts" in summary.describe(found)


@pytest.mark.parametrize("loss, agree", [(0.514, True), (0.516, False), (float("nan"), False)])
def test_peers_that_learn_something_else_are_no_peers(loss, agree):
    found = summary.summarize([run("tape", [1.0]), run("jax", [0.1], loss)], ["tape", "jax"])
    assert found["agree"] is agree and ("MISMATCH" in summary.describe(found)) is not agree


def test_flops_and_bytes_in_closed_form():
    spec = get_spec("2L")  # 784-200-10
    assert sorted(limit.products(spec, 32)) == sorted([
        (32, 784, 200), (32, 200, 10), (784, 32, 200), (200, 32, 10), (32, 10, 200)])
    assert limit.flops(spec, 32) == 2 * 32 * (2 * 784 * 200 + 3 * 200 * 10)
    parameters = 784 * 200 + 200 + 200 * 10 + 10
    assert limit.adam_bytes(spec) == 28 * parameters and limit.working_set(spec) == 16 * parameters
    assert limit.flops(get_spec("4D_drop03"), 256) == get_spec("4D_drop03").training_flops * 256


def test_the_chain_is_the_products_of_a_step():
    spec, shapes = get_spec("network_B"), []

    def multiply(a, b, turn_a, turn_b):
        a, b = (a.T if turn_a else a), (b.T if turn_b else b)
        shapes.append((*a.shape, b.shape[1]))
        return a @ b

    gradients = limit._chain(multiply, *limit._arrays(spec, 4))
    assert sorted(shapes) == sorted(limit.products(spec, 4))
    assert [gradient.shape for gradient in gradients] == [(100, 10), (300, 100), (784, 300)]
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_the_limit_adds_products_and_bytes_and_takes_the_fastest_library():
    runs = [run("tape", [2.0], turn=turn) for turn in (1, 2, 3)]
    answers = [answer for turn in (1, 2, 3) for answer in (
        limited("tensorflow", 2e-3, turn), limited("numpy", 4e-3, turn, bandwidth=10e9, cache=32 * 10**6))]
    slow = summary.summarize(runs, ["tape"], [*answers[:4], limited("tensorflow", 9e-3, 3), answers[5]])["limit"]
    assert slow["shares"]["tape"] == pytest.approx([0.516, 0.516, 0.938], abs=1e-3)  # each by its own fastest
    found = summary.summarize(runs, ["tape"], answers)["limit"]
    spec = get_spec("2L")
    assert found["library"] == "tensorflow"
    assert found["products_seconds"] == pytest.approx(2e-3 * 54_000 / 128)
    assert found["bytes_seconds"] == pytest.approx(422 * 28 * spec.parameters / 10e9)  # 421.9 batches: 422 steps
    assert found["flops_per_second"] == pytest.approx(128 * spec.training_flops / 2e-3)
    assert found["shares"]["tape"] == pytest.approx([found["seconds"] / 2.0] * 3)
    text = summary.describe(summary.summarize(runs, ["tape"], answers, ["sklearn is left out: no dropout"]))
    for said in ("2.5 MB that it works on, within the cache of 32.0 MB", "tape 52%", "numpy 1.688 s", "\n  sklearn is"):
        assert said in text


def content(tmp_path, **changes):
    runs = [run(peer, seconds) for peer, seconds in
            (("tape", [1.0]), ("fit", [2.5]), ("torch_eager", [4.0]), ("torch_fused", [3.0]))]
    plain = summary.summarize(runs, ["tape", "fit", "torch_eager", "torch_fused"], [
        limited("tensorflow", 1e-3), limited("numpy", 4e-3, bandwidth=100e9, cache=0)])
    others = summary.summarize([run("tape", [0.5], batch="full"), run("sklearn", [50.0], 0.7, batch="full")],
                               ["tape", "sklearn"])
    path = tmp_path / "results.json"
    path.write_text(json.dumps({
        "machine": {"cpu": "A processor", "cores": 2}, "commit": "0123456789abcdef", "rounds": 5,
        "versions": {"tape": {"tensorflow": "2.21.0"}, "limit, jax": "1"}, "summaries": [plain, others], **changes}))
    return path


def test_the_table(tmp_path, capsys):
    assert table.main([str(content(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "| model | batch | `tape` | `Model.fit` | PyTorch | scikit-learn | limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 2L | 128 | 1 s | 2.5 s (2.5x) | 3 s (3x) | - | 0.441 s (44%) |",
        "| 2L (losses differ) | full | 0.5 s | - | - | 50 s (100x) | - |"]
    assert "54000 images, medians of 5 interleaved rounds" in lines[5]
    assert lines[5].endswith("The best of PyTorch's ways: torch_fused. A processor, 2 cores; TensorFlow 2.21.0; "
                             "commit 0123456789ab.")


def test_a_table_of_nothing_is_refused(tmp_path, capsys):
    assert table.main([str(tmp_path / "missing.json")]) == 2
    assert table.main([str(content(tmp_path, summaries=[]))]) == 2
    assert table.main([str(content(tmp_path, summaries=[{}]))]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "cannot be read" in said[0] and "holds no run of benchmarks.epoch; make it with" in said[1]
    assert "holds no run of benchmarks.epoch" in said[2] and len(said) == 3


@pytest.mark.slow
@pytest.mark.skipif(bool(environment.trouble()), reason=f"the peers outside TensorFlow: {environment.trouble()}")
def test_all_peers_take_the_same_steps(tmp_path, capsys):
    """One update an epoch, of all images: no order and no mask can differ, so that the losses tell all."""
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models=2L,network_B_l1,network_B_l2", "--batches=full", "--rounds=1",
                       "--epochs=4", "--peers=tape,fit,torch,jax,sklearn,limit", f"--json={path}"])
    assert code == 0, capsys.readouterr()
    found = json.loads(path.read_text())["summaries"]
    assert [len(one["peers"]) for one in found] == [7, 6, 7] and max(one["loss_spread"] for one in found) < 0.005
    assert set(found[0]["limit"]["libraries"]) == {"tensorflow", "numpy", "torch", "jax"}


def test_ctrl_c_is_a_line(capsys):
    def main():
        raise KeyboardInterrupt

    assert command.interruptible(main) == 130 and capsys.readouterr().err == "interrupted\n"
