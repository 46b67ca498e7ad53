"""An interrupted and resumed run equals the uninterrupted one to the bit; what must not be resumed is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

import fmnist_zoo
from fmnist_zoo import files
from tests import custom_zoo, helpers, runs
from tests.conftest import ROOT
from tests.test_own_training import Subclassed, dropping_inside, dropping_twice, long
from trainers.config import ConfigError, RunConfig, read_record, resolve
from trainers.engine import factory
from trainers.running import batch, provenance, run
from trainers.running.folder import RunFolder
from trainers.running.progress import Lines
from trainers.train import main, resume, train


def start(*arguments):
    return subprocess.Popen([sys.executable, "-m", "trainers.train", *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_rows(folder, count, process=None):
    def reached():
        assert process is None or process.poll() is None, process.stderr.read()
        return RunFolder(folder).table.row_count() >= count

    helpers.until(reached)


def stop_after(epochs):
    """A `should_stop` that asks to stop once so many epochs are done."""
    answers = iter([False] * epochs + [True])
    return lambda: next(answers)


class Crash(Exception):
    """Ends a run between two epochs with nothing saved."""


def crash_after(epochs):
    answers = iter([False] * epochs)

    def should_stop():
        for answer in answers:
            return answer
        raise Crash

    return should_stop


def stopped_run(logdir, done, *, model="4D_drop03", **settings):
    """A run that was stopped when so many epochs were done."""
    config = resolve(model, data="mini", **settings)
    folder = RunFolder(logdir / config.spec.folder / "one")
    outcome = helpers.execute(folder.path, config, stop_after(done))
    assert outcome.result is None and len(outcome.history) == done
    return folder.path


@pytest.mark.long
def test_run_that_is_killed_twice_equals_uninterrupted_run(tmp_path, capsys):
    """Within an epoch: by a second Ctrl-C, which leaves at once, and when it was resumed by SIGKILL."""
    settings = dict(data="mini", epochs=8, batch_size=1, seed=11, histogram_every=2, checkpoint_every=1)
    whole = train("4D_drop03", hidden=(16, 16, 16), logdir=tmp_path, run_name="whole", **settings).folder
    folder = whole.parent / "killed"
    flags = [f"--{name}={value}" for name, value in settings.items()]
    process = start("--model=4D_drop03", "--hidden=16,16,16", f"--logdir={tmp_path}", "--run_name=killed", *flags)
    wait_for_rows(folder, 2, process)
    process.send_signal(signal.SIGINT)
    assert "finishing this epoch" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=helpers.SECONDS)
    assert process.returncode == 130 and "interrupted after epoch" in output and str(folder) in output
    process = start(f"--resume={folder}")
    wait_for_rows(folder, RunFolder(folder).table.row_count() + 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists(), "too late: the run had ended"
    assert main([f"--resume={folder}"]) == 0
    assert f"process {process.pid}, the last one in this folder, ended without a word" in capsys.readouterr().out
    helpers.assert_equal_runs(folder, whole)


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGHUP, signal.SIGHUP]], ids=["ctrl-c", "terminal"])
def test_signal_finishes_the_epoch_saves_and_names_the_command_to_continue(without_xla, tmp_path, capsys, numbers):
    folder = tmp_path / "softmax" / "one"

    def interrupt():
        wait_for_rows(folder, 1)
        for number in numbers:
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    thread = threading.Thread(target=interrupt)
    thread.start()
    code = main(["--model=softmax", "--data=mini", "--epochs=5000", f"--logdir={tmp_path}", "--run_name=one"])
    thread.join()
    signal.signal(signal.SIGHUP, before)
    captured = capsys.readouterr()
    assert code == 128 + numbers[0] and captured.err.count("finishing this epoch") == 1
    assert f"python -m trainers.train --resume={folder}" in captured.out
    note = helpers.checkpoint_of(folder)
    assert note.epoch == len(RunFolder(folder).rows())


EVERYTHING = dict(schedule="cosine", warmup=0.1, label_smoothing=0.1, ema=0.9, clip_norm=0.5, shift=2, flip=True,
                  erase=6, mixup=0.3, normalization="batch", dropout=0.2, teacher="softmax")


@pytest.mark.parametrize("model, settings", [
    ("4D_drop03", {"hidden": (16, 16, 16)}), long(Subclassed, {}),
    long("3L", {"hidden": (16, 12), **EVERYTHING}),
    long("4L", {"trainer": "fit", "schedule": "cosine", "warmup": 0.2, "normalization": "batch", "dropout": 0.1}),
    long("network_B_l1", {"trainer": "scratch"}), long(Subclassed, {"trainer": "fit"}), long(dropping_inside, {}),
    long(dropping_twice, {}), long(custom_zoo.normalized, {})], ids=lambda one: getattr(one, "__name__", str(one)))
def test_resumed_run_equals_an_uninterrupted_one(without_xla, model, settings, tmp_path):
    """Also in a process that has built other models: Keras counts names and seeds of layers."""
    settings = {"data": "mini", "epochs": 2, "batch_size": 500, "histogram_every": 0, **settings}
    whole = train(model, logdir=tmp_path / "whole", **settings)
    half = train(model, logdir=tmp_path / "half", on_epoch=lambda row: True, **settings)
    factory._kept.clear()
    fmnist_zoo.build_model("5D_drop03")
    resume(half.folder)
    helpers.assert_equal_runs(half.folder, whole.folder)


@pytest.mark.long
def test_run_resumed_with_more_epochs_equals_run_planned_with_them(without_xla, tmp_path, capsys):
    settings = dict(hidden=(16, 16, 16), data="mini", seed=1, logdir=tmp_path, histogram_every=1, checkpoint_every=1)
    whole = train("4D_drop03", epochs=3, run_name="whole", **settings).folder
    parts = train("4D_drop03", epochs=2, run_name="parts", **settings).folder
    assert main([f"--resume={parts}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main([f"--resume={parts}", "--epochs=3"]) == 0
    helpers.assert_equal_runs(parts, whole)


@pytest.fixture(scope="module")
def planned(without_xla, tmp_path_factory):
    """Settings of a run with a checkpoint every third epoch, and its folder."""
    settings = dict(hidden=(16,), data="mini", epochs=6, seed=4, checkpoint_every=3, histogram_every=1,
                    optimizer="momentum")
    return settings, train("2L", logdir=tmp_path_factory.mktemp("planned"), run_name="whole", **settings).folder


@pytest.mark.parametrize("epochs", [2, long(5)])
def test_epochs_after_the_last_checkpoint_are_written_again_once(planned, tmp_path, epochs):
    """A crash before the first checkpoint, which is of epoch 3, and one after it."""
    settings, whole = planned
    config = resolve("2L", **settings)
    folder = RunFolder(tmp_path / config.spec.folder / "crashed")
    with pytest.raises(Crash):
        helpers.execute(folder.path, config, crash_after(epochs))
    with open(folder.table.path, "a") as file:
        file.write(f"{epochs + 1},48,0.1")
    assert len(folder.rows()) == len(helpers.scalars(folder.path / "train")["loss"]) == epochs
    assert main([f"--resume={folder.path}"]) == 0
    helpers.assert_equal_runs(folder.path, whole)


@pytest.fixture(scope="module")
def unfinished(without_xla, tmp_path_factory):
    """A run that was stopped after its second epoch."""
    return stopped_run(tmp_path_factory.mktemp("unfinished"), 2, hidden=(16, 16, 16), epochs=6, l2=1e-4)


@pytest.fixture
def copy(unfinished, tmp_path):
    return shutil.copytree(unfinished, tmp_path / "logs" / unfinished.parent.name / "copy")


@pytest.mark.parametrize("flags, text", [
    (["--batch_size=32"], "--batch_size=32 disagrees with the run in .*, which has 256"),
    (["--epochs=5"], "--epochs=5 disagrees"), (["--dropout=0.5"], r"--dropout=\(0.5, 0.5, 0.5\) disagrees"),
    (["--seed=3"], "--seed=3 disagrees"), (["--data=fashion_mnist"], "--data=fashion_mnist disagrees"),
    (["--model=4L"], "--model=4L disagrees"), (["--run_name=x"], "drop --run_name"), (["--config=x"], "drop --config"),
])
def test_flag_that_disagrees_is_refused_by_name(unfinished, flags, text, capsys):
    assert re.search(text, helpers.refused(capsys, main, f"--resume={unfinished}", *flags))


def test_flags_that_agree_are_accepted(unfinished, capsys):
    flags = ["--model=4D_drop03", "--hidden=16,16,16", "--l2=1e-4", "--batch_size=256", "--dropout=0.3", "--epochs=7",
             "--dry_run"]
    assert main([f"--resume={unfinished}", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["epochs"] == 7


def latest(logdir):
    with run.latest_unfinished(logdir) as found:
        return found.path


def test_latest_is_the_newest_run_that_can_continue(copy, capsys):
    """Newer ones: with a damaged checkpoint, without one, on arrays that were given in Python; and one in training."""
    logdir = copy.parent.parent
    runs.make(logdir, "finished", model="2L")
    for name, content in (("sweeps", (copy / "config.json").read_text()), ("broken", "{")):
        (logdir / name / "one").mkdir(parents=True)
        (logdir / name / "one" / "config.json").write_text(content)
    assert "no unfinished run of 2L" in helpers.refused(capsys, main, f"--logdir={logdir}", "--resume=latest",
                                                        "--model=2L")
    record = files.read_json(copy / "config.json")
    damaged, gone, arrays = (shutil.copytree(copy, copy.parent / name) for name in ("damaged", "gone", "arrays"))
    for newer, folder in enumerate((damaged, gone, arrays), start=1):
        config = {**record["config"], **({"data": "arrays"} if folder == arrays else {"checkpoint_every": 1})}
        content = {**record, "started": record["started"] + newer, "config": config}
        (folder / "config.json").write_text(json.dumps(content))
    (damaged / "checkpoints" / "latest.safetensors").write_bytes(b"PK")
    for folder in (gone, arrays):
        (folder / "checkpoints" / "latest.safetensors").unlink()
    assert latest(logdir) == copy
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith("passed over: ") for line in said)
    assert f"{gone}/checkpoints/latest.safetensors: is gone" in said[0] and f"{damaged}/checkpoints" in said[1]
    with RunFolder(copy).locked(), pytest.raises(ConfigError, match=f"but {arrays}: continue it in Python"):
        latest(logdir)
    shutil.rmtree(arrays)
    with RunFolder(copy).locked(), pytest.raises(ConfigError, match=f"but {copy}, which is training"):
        latest(logdir)


def test_run_that_ended_in_nan_is_resumed_only_by_name(without_xla, copy, capsys):
    logdir = copy.parent.parent
    with pytest.raises(run.RunError, match="NaN"):
        train("2L", hidden=(8,), data="mini", epochs=40, optimizer="sgd", learning_rate=2e30, logdir=logdir,
              run_name="nan", histogram_every=0)
    failed = logdir / "2L,hidden=8" / "nan"
    failure = json.loads((failed / "failure.json").read_text())
    assert failure["version"] == fmnist_zoo.__version__ and "NaN" in failure["reason"]
    assert latest(logdir) == copy  # which is older
    said = helpers.refused(capsys, main, f"--logdir={logdir}", "--resume=latest", "--model=2L", "--hidden=8")
    assert failure["reason"] in said and f"--resume={failed}" in said
    assert main([f"--resume={failed}"]) == 1  # tried again, to the same end
    assert "NaN" in capsys.readouterr().err


def test_start_of_a_failed_run_removes_the_mark(without_xla, copy):
    (copy / "failure.json").write_text("{")
    with pytest.raises(fmnist_zoo.errors.ZooError, match="a run that failed .for an unknown reason."):
        latest(copy.parent.parent)
    assert main([f"--resume={copy}", "--epochs=6"]) == 0
    assert not (copy / "failure.json").exists()


def test_second_trainer_in_one_folder_is_refused(unfinished, capsys):
    with RunFolder(unfinished).locked():
        said = helpers.refused(capsys, main, f"--resume={unfinished}")
    assert f"process {os.getpid()} is training in this folder" in said


def test_resumed_run_says_that_the_last_process_was_killed(without_xla, copy, capsys):
    """Looking at the run does not count as saying it."""
    (copy / ".lock").write_text("999999")
    assert main([f"--resume={copy}", "--dry_run"]) == 0
    assert "999999" not in capsys.readouterr().out
    assert main([f"--resume={copy}"]) == 0
    assert "process 999999" in (said := capsys.readouterr().out) and "out of memory" in said
    assert main([f"--resume={copy}", "--epochs=7"]) == 0  # the last one released it
    assert "out of memory" not in capsys.readouterr().out
    with RunFolder(copy).locked():
        assert (copy / ".lock").read_text() == str(os.getpid())


def test_run_in_a_moved_folder_resumes_and_writes_nothing_above_it(without_xla, copy, tmp_path):
    os.rename(copy, tmp_path / "moved")
    assert main([f"--resume={tmp_path / 'moved'}"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "moved"]


def test_run_stopped_before_its_first_epoch_leaves_no_record(without_xla, tmp_path):
    folder = RunFolder(stopped_run(tmp_path, 0, model="softmax", epochs=2))
    assert not folder.config.exists() and not folder.table.path.exists()


def test_other_data_are_refused_on_resume_and_replay(copy, tmp_path, capsys):
    record = files.read_json(copy / "config.json")
    record["data"]["sha256"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(record))
    for flags, text in (([f"--resume={copy}"], "belongs to another config"),
                        ([f"--config={copy / 'config.json'}", f"--logdir={tmp_path / 'logs'}"],
                         "are not those of the recorded run: sha256")):
        assert text in helpers.refused(capsys, main, *flags)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_record_has_an_entry_for_each_start_that_trained(without_xla, copy, tmp_path, monkeypatch, capsys):
    """Stopped after epoch 2, then started with other versions, which is noted, then crashed with nothing saved.

    A replay notes them, too.
    """
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    record = files.read_json(copy / "config.json")
    first = record["starts"][0]
    assert [one["epoch"] for one in record["starts"]] == [0] and first["environment"] == record["environment"]
    first["environment"]["versions"]["keras"] = record["environment"]["versions"]["keras"] = "3.0.0"
    first["environment"]["commit"] = record["environment"]["commit"] = "f" * 40
    more, *rest = provenance.vector_instructions()
    first["environment"]["instructions"] = record["environment"]["instructions"] = rest
    (copy / "config.json").write_text(json.dumps(record))
    config = resolve("4D_drop03", hidden=(16, 16, 16), data="mini", epochs=6, l2=1e-4, checkpoint_every=2)
    now = provenance.versions()["keras"]
    expected = f"keras {now} (was 3.0.0), ONEDNN_MAX_CPU_ISA SSE41 (was not set), a processor with {more}"
    assert main([f"--config={copy}", f"--logdir={tmp_path}", "--run_name=again", "--epochs=1"]) == 0
    assert f"trained with {expected}; its numbers may differ" in capsys.readouterr().out
    (replay,) = tmp_path.glob("*/again")
    assert [one["epoch"] for one in read_record(replay)["starts"]] == [0]
    for _ in range(2):
        with pytest.raises(Crash):
            helpers.execute(copy, config, crash_after(1), Lines())
        assert f"continues with {expected}; its numbers may differ" in capsys.readouterr().out
    again = read_record(copy)
    assert [one["epoch"] for one in again["starts"]] == [0, 2]
    assert again["environment"] == record["environment"] and again["started"] == record["started"]
    assert [one["commit"] for one in provenance.environments(again)] == ["f" * 40, provenance.commit()]


def test_reused_run_of_another_commit_and_version_is_named(tmp_path, capsys):
    data = fmnist_zoo.load_data(data="mini")
    digests = {"sha256": data.sha256, "split_sha256": data.split_sha256}
    finished = runs.make(tmp_path, "finished", data={**runs.DATA, **digests})
    config = RunConfig.from_config(read_record(finished.path)["config"])
    (folder,) = batch.finish([config], str(tmp_path), lambda: False)
    assert folder.path == finished.path
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and f"{folder.path} is used, and was trained with commit cccccccccccc" in printed
    assert "tensorflow 2.21.0" in printed and provenance.commit()[:12] in printed
