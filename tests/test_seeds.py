"""Several seeds as one: `train --seeds`, what continues it, and what compares and evaluates it."""

import json
import os
import signal

import numpy as np
import pytest
from scipy import stats
from tensorboard.plugins.hparams import metadata

from fmnist_zoo import files, registry, results
from tests import helpers
from tests.runs import make
from tests.test_runs import listed
from trainers import evaluate, results as results_command
from trainers.board import hparams, serve
from trainers.config import ConfigError, located, names_in, read_run
from trainers.engine import compile_cache
from trainers.publishing import measurement, scores
from trainers.running import progress, trained
from trainers.running.folder import RunFolder
from trainers.train import main, train

QUICK = ["--data=mini", "--epochs=2", "--batch_size=full", "--histogram_every=0"]
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory, without_xla):
    """Two models with three seeds each."""
    folder = tmp_path_factory.mktemp("logs")
    for model in ("softmax", "2L"):
        assert main([f"--model={model}", *QUICK, f"--logdir={folder}", "--seeds=3"]) == 0
    return folder


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_each_seed_is_a_run_in_one_folder(logdir, capsys):
    found = {one["folder"]: one["seed"] for one in listed(logdir, capsys, "--model=softmax")}
    assert found == {str(logdir / "softmax" / "seeds" / f"seed{seed}"): seed for seed in range(3)}
    alone = train("softmax", data="mini", epochs=2, batch_size="full", histogram_every=0, seed=1,
                  logdir=logdir / "alone")
    (same,) = (path for path, seed in found.items() if seed == 1)
    assert helpers.rows_without_times(same) == helpers.rows_without_times(alone.folder)


def test_the_same_command_trains_no_seed_again_and_adds_others(logdir, capsys):
    before = written(logdir / "2L")
    assert main(["--model=2L", *QUICK, f"--logdir={logdir}", "--seeds=0,2,1"]) == 0
    printed = capsys.readouterr().out
    assert written(logdir / "2L") == before and "[1/3]" not in printed
    losses = [one["val_loss"] for one in listed(logdir, capsys, "--model=2L")]
    assert f"3 seeds of 2L: validation loss {np.mean(losses):.4f} ± {np.std(losses, ddof=1):.4f}" in printed
    assert main(["--model=2L", *QUICK, f"--logdir={logdir}", "--seeds=7,", "--run_name=more"]) == 0
    assert RunFolder(logdir / "2L" / "more" / "seed7").result.exists()


def test_interrupted_seeds_continue_with_the_same_command(logdir, tmp_path, capsys, monkeypatch):
    class Interrupting(progress.Reporter):
        def epoch(self, row, *others):
            if row["epoch"] == 1 and (tmp_path / "softmax/seeds/seed1").exists():
                os.kill(os.getpid(), signal.SIGINT)

    flags = ["--model=softmax", *QUICK, f"--logdir={tmp_path}", "--seeds=3"]
    with monkeypatch.context() as patched:
        patched.setattr(progress, "for_output", Interrupting)
        assert main(flags) == 128 + signal.SIGINT
    assert "1 of 3 seeds are finished; the same command continues" in capsys.readouterr().out
    assert len(RunFolder(tmp_path / "softmax/seeds/seed1").rows()) == 1
    before = written(tmp_path / "softmax/seeds/seed0")
    assert main(flags) == 0 and written(tmp_path / "softmax/seeds/seed0") == before
    for seed in range(3):
        assert (helpers.rows_without_times(tmp_path / f"softmax/seeds/seed{seed}")
                == helpers.rows_without_times(logdir / f"softmax/seeds/seed{seed}"))


@pytest.mark.parametrize("flags, text", [
    (["--seeds=3", "--epochs=3"], "seed0: is a run with epochs=2; choose another --run_name"),
    (["--seeds=9,0", "--epochs=3"], "seed0: is a run with epochs=2; choose another --run_name"),
    (["--seeds=3", "--seed=1"], "--seed and --seeds both name seeds"), (["--seeds=1,1"], "each seed once"),
    (["--seeds=0"], "--seeds must be how many seeds, 1 to 100, or a list such as 0,3,7; received '0'"),
    (["--seeds=1-3"], "received '1-3'"), (["--seeds=1000"], "1 to 100"), (["--seeds=a,b"], "--seeds"),
    (["--seeds=,"], "--seeds"), (["--seeds=-1,2"], "--seeds"),
    (["--seeds=2", "--run_name=a/b"], "--run_name names a folder"), (["--seeds=2", "--run_name=/a"], "--run_name"),
    (["--seeds=2", "--run_name=train"], "--run_name"), (["--seeds=2", "--run_name=shipped"], "--run_name"),
], ids=str)
def test_mistake_is_one_line_and_trains_nothing(logdir, capsys, flags, text):
    before = written(logdir)
    assert text in helpers.refused(capsys, main, "--model=softmax", *QUICK, f"--logdir={logdir}", *flags)
    assert written(logdir) == before


def test_run_is_no_folder_for_seeds_and_the_folder_of_seeds_is_no_run(logdir, tmp_path, capsys):
    make(tmp_path, "plain", model="softmax")
    flags = ["--model=softmax", *QUICK]
    assert "plain is a run, and holds no others" in helpers.refused(
        capsys, main, *flags, f"--logdir={tmp_path}", "--run_name=plain", "--seeds=2")
    assert "exists already" in helpers.refused(capsys, main, *flags, f"--logdir={logdir}", "--run_name=seeds")
    assert "drop --seeds" in helpers.refused(capsys, main, f"--resume={logdir}/softmax/seeds/seed0", "--seeds=3")
    assert "the command that began them" in helpers.refused(capsys, main, f"--resume={logdir}/softmax/seeds")
    with pytest.raises(ConfigError, match="softmax/seeds: holds several seeds; name one of its folders"):
        trained.from_run(logdir / "softmax" / "seeds")
    assert located("initial_weights", "softmax/seeds", logdir) == str(logdir / "softmax" / "seeds")


def test_run_with_callbacks_is_not_taken_for_a_seed(tmp_path, capsys):
    make(tmp_path, "seeds/seed0", model="softmax")
    helpers.change(tmp_path / "softmax/seeds/seed0/config.json", lambda record: record.update(callbacks=["Mine"]))
    said = helpers.refused(capsys, main, "--model=softmax", "--data=mini", "--epochs=3", f"--logdir={tmp_path}",
                           "--seeds=1")
    assert "other data, or callbacks" in said


def test_board_shows_the_rows_and_one_hparams_group(logdir):
    rows = serve.rows_of(logdir)
    assert {"softmax/seeds/seed0", "softmax/seeds/seed0/train", "2L/seeds/seed2"} <= set(rows)
    folder = logdir / "softmax" / "seeds" / "seed1"
    summary = hparams.session_start(folder, read_run(folder)[1], 256)
    content = metadata.parse_session_start_info_plugin_data(summary.value[0].metadata.plugin_data.content)
    assert content.group_name == "seeds softmax"
    (logdir / hparams.FILE).unlink()
    hparams.declare(logdir, [])
    assert max(hparams._read(logdir / hparams.FILE)["seed"]) >= 2


def test_longer_run_of_a_seed_stays_in_its_log_folder(tmp_path, capsys):
    flags = ["--model=softmax", *QUICK, f"--logdir={tmp_path}", "--seeds=1"]
    assert main(flags) == 0
    assert main([f"--resume={tmp_path}/softmax/seeds/seed0", "--epochs=3"]) == 0
    assert f"serve --logdir={tmp_path}\n" in capsys.readouterr().out
    assert "epochs=3; choose another" in helpers.refused(capsys, main, *flags)


def test_evaluation_is_of_each_run_once_and_paired(logdir, capsys, monkeypatch):
    flags = [f"--run={logdir}/softmax", "--run=2L/seeds", f"--logdir={logdir}"]
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    shares = {model: [files.read_json(logdir / model / f"seeds/seed{seed}/test/evaluation.json")["accuracy"]
                      for seed in range(3)] for model in ("softmax", "2L")}
    for values in shares.values():
        assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in printed
    monkeypatch.setattr(measurement.Measured, "_predict", lambda *given: pytest.fail("the test images were opened"))
    assert evaluate.main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [report["seed"] for report in found["reports"]] == [0, 1, 2] * 2
    accuracy, nll = found["differences"]
    assert accuracy["difference"] == pytest.approx(np.mean(shares["2L"]) - np.mean(shares["softmax"]))
    test = stats.ttest_rel(shares["2L"], shares["softmax"])
    assert accuracy["p"] >= test.pvalue and [accuracy["low"], accuracy["high"]] == pytest.approx(
        list(test.confidence_interval(0.95)))
    assert nll["figure"] == "nll" and nll["seeds"] == [0, 1, 2]


def test_results_of_one_s_own_open_the_test_images_only_when_told(tmp_path, capsys, monkeypatch):
    """The table has the run that is there; only `--check` trains."""
    monkeypatch.setitem(registry._MODELS, "mine", (registry.ModelSpec("mine"), registry.Recipe(epochs=2)))
    monkeypatch.setenv(compile_cache.VARIABLE, "0")
    assert main(["--model=mine", "--data=mini", "--seeds=1", f"--logdir={tmp_path}"]) == 0
    flags = ["--models=mine", "--data=mini", "--seeds=1", f"--logdir={tmp_path}", f"--out={tmp_path}/mine.csv"]
    with monkeypatch.context() as patched:
        patched.setattr(trained, "load_data", lambda *given: pytest.fail("the test images were opened"))
        assert results_command.main(flags) == 0
    (row,) = results.read(tmp_path / "mine.csv")
    assert row["test_accuracy"] is None and 0 < row["val_accuracy"] < 1 and row["model"] == "mine"
    assert results_command.main([*flags, "--check"]) == 0
    assert results_command.main([*flags, "--test"]) == 0
    assert results.read(tmp_path / "mine.csv")[0]["test_accuracy"] > 0.3
    assert len(list(tmp_path.glob("mine/**/config.json"))) == 1
    capsys.readouterr()
    assert "add --test" in helpers.refused(capsys, results_command.main, *flags, "--seeds=2", "--ensemble")


def test_rows_of_changed_models_follow_those_of_the_zoo():
    names = names_in("4L,dropout=0.5_0.4_0.3,4*_drop03,softmax")
    assert [(run.spec.name, run.seed) for run in scores.plan(names, [3])] == [
        ("softmax", 3), ("4D_drop03", 3), ("4L,dropout=0.5_0.4_0.3", 3)]
