"""The process of the caller: a run takes its threads and its determinism, and leaves the rest as it was."""

import concurrent.futures
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import warnings

import matplotlib
import numpy as np
import pytest
from keras.src.backend.common import global_state
from tensorflow.python.framework import config as framework

from fmnist_zoo import models, registry
from fmnist_zoo.backend import keras, tf
from tests import custom_zoo, helpers
from tests.conftest import ROOT
from trainers.config import read_run
from trainers.engine import process
from trainers.running.folder import RunFolder
from trainers.train import main, resume, train


def python(code, *, cores=None, **environment):
    """What a program prints in a process of its own, on so many cores, without a number of threads asked for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_NUM_", "KERAS_"))}
    usable = [str(core) for core in sorted(os.sched_getaffinity(0))][:cores] if cores else []
    pinned = ["taskset", "-c", ",".join(usable)] if cores else []
    done = subprocess.run([*pinned, sys.executable, "-c", code], text=True, capture_output=True,
                          timeout=helpers.SECONDS, env={**kept, "PYTHONPATH": str(ROOT), **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def state():
    """What a program can see of its process, by name."""
    return {
        "environment": dict(os.environ), "folder": os.getcwd(), "path": list(sys.path), "warnings": warnings.filters[:],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "output": [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)], "streams": sys.stderr,
        "hooks": (sys.excepthook, threading.excepthook), "python": random.getstate(),
        "numpy": str(np.random.get_state()), "floatx": keras.config.floatx(), "epsilon": keras.config.epsilon(),
        "format": keras.config.image_data_format(), "policy": keras.config.dtype_policy().name,
        "determinism": framework.is_op_determinism_enabled(), "jit": tf.config.optimizer.get_jit(),
        "eager": tf.config.functions_run_eagerly(), "threads": process.threads_in_use(),
        "matplotlib": matplotlib.get_backend()}


def draws():
    """The next random numbers of TensorFlow and Keras, and a shuffled data set."""
    return (float(tf.random.normal(())), float(keras.random.normal(())),
            list(tf.data.Dataset.range(9).shuffle(9).as_numpy_iterator()))


@pytest.mark.parametrize("model, trainer, policy, floatx", [
    ("2L", "tape", "float64", "float64"), *(pytest.param(*case, marks=pytest.mark.long) for case in (
        ("2L", "fit", "mixed_bfloat16", "float32"), (custom_zoo.cnn, "tape", "float32", "float32"),
        (custom_zoo.cnn, "fit", "float64", "float64")))])
def test_a_run_leaves_the_process_as_it_was(without_xla, tmp_path, model, trainer, policy, floatx):
    keras.utils.set_random_seed(5)
    expected = draws()
    keras.utils.set_random_seed(5)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        before, within = state(), []
        run = train(model, data="mini", epochs=1, batch_size=900, trainer=trainer, logdir=tmp_path,
                    on_epoch=lambda row: within.append(state()))
        assert state() == before and within[0]["determinism"] and not before["determinism"]
        assert {layer.compute_dtype for layer in run.model.layers} == {"float32"}
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert draws() == expected
    plain = train(model, data="mini", epochs=1, batch_size=900, trainer=trainer, logdir=tmp_path, run_name="plain")
    assert plain.result["weights_sha256"] == run.result["weights_sha256"]


def test_determinism_that_the_caller_has_chosen_stays(without_xla, tmp_path):
    tf.config.experimental.enable_op_determinism()
    train("softmax", data="mini", epochs=1, logdir=tmp_path)
    assert framework.is_op_determinism_enabled()


def test_what_a_build_function_chooses_does_not_reach_later_models():
    with pytest.raises(ValueError, match="layer dense\\w* computes in float16, .* --precision=mixed_bfloat16"):
        train(custom_zoo.half, data="mini", epochs=1)
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in models.build_model("2L").layers} == {"float32"}

    def choosing():
        keras.config.set_image_data_format("channels_first")
        keras.config.set_epsilon(1e-2)
        return keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])

    models.build(registry.spec_of(choosing))
    assert (keras.config.image_data_format(), keras.config.epsilon()) == ("channels_last", 1e-7)


def choosing_what_keras_does():
    keras.config.disable_traceback_filtering()
    keras.config.disable_interactive_logging()
    keras.config.enable_unsafe_deserialization()
    return keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])


def test_what_a_build_function_chooses_of_keras_ends_with_it(tmp_path):
    train(choosing_what_keras_does, data="mini", epochs=1, logdir=tmp_path)
    assert keras.config.is_traceback_filtering_enabled() and keras.config.is_interactive_logging_enabled()
    assert not global_state.get_global_attribute("safe_mode_saving")


def test_scopes_of_the_caller_change_no_numbers(without_xla, tmp_path):
    def digest(name):
        return train("softmax", data="mini", epochs=1, logdir=tmp_path, run_name=name).result["weights_sha256"]

    plain = digest("plain")
    with keras.name_scope("mine"):
        assert digest("scoped") == plain
    tf.config.run_functions_eagerly(True)
    try:
        assert digest("eager") == plain and tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("scope, said", [
    (lambda: tf.Graph().as_default(), "the scope of a tf.Graph"), (tf.GradientTape, "a tf.GradientTape"),
    (lambda: tf.distribute.OneDeviceStrategy("/cpu:0").scope(), "the scope of a tf.distribute.Strategy")])
def test_training_within_a_scope_of_tensorflow_is_refused_in_one_line(scope, said, tmp_path):
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    for what in ("softmax", model):
        with scope(), pytest.raises(ValueError, match=f"training was called within .*{said}; call it outside"):
            train(what, data="mini", epochs=1, logdir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_layout_of_images_that_the_caller_chose_is_not_for_the_models_of_the_zoo():
    keras.config.set_image_data_format("channels_first")
    try:
        assert models.build_model("conv_strided").output_shape == (None, 10)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.long
def test_runs_in_threads_wait_for_each_other(without_xla, tmp_path):
    """Each has the weights that it has alone, and all are trained in float32 with deterministic operations."""
    registry.spec_of(custom_zoo.normalized)

    def weights(number, folder):
        run = train("normalized" if number % 2 else "2L", data="mini", epochs=1, batch_size=900, seed=number,
                    logdir=tmp_path, run_name=f"{folder}{number}")
        return run.result["weights_sha256"]

    alone = [weights(number, "alone") for number in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: weights(number, "together"), range(4))) == alone
    assert not framework.is_op_determinism_enabled()


@pytest.mark.long
def test_a_callback_may_train_another_model(without_xla, tmp_path):
    others = []

    def on_epoch(row):
        if row["epoch"] == 1:
            others.append(train("softmax", data="mini", epochs=1, logdir=tmp_path / "inner"))

    settings = {"hidden": (8,), "data": "mini", "epochs": 2}
    outer = train("2L", **settings, logdir=tmp_path / "outer", on_epoch=on_epoch)
    alone = train("2L", **settings, logdir=tmp_path / "alone"), train("softmax", data="mini", epochs=1, logdir=tmp_path)
    assert [run.result["weights_sha256"] for run in (outer, *others)] == [
        run.result["weights_sha256"] for run in alone]


@pytest.mark.parametrize("number", [
    signal.SIGINT, *(pytest.param(one, marks=pytest.mark.long) for one in (signal.SIGTERM, signal.SIGUSR1))])
def test_a_signal_from_python_is_raised_after_the_checkpoint(without_xla, tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="interrupted after epoch 2; continue with\n.*--resume=") as caught:
        train("softmax", data="mini", epochs=9, logdir=tmp_path, run_name="one",
              on_epoch=lambda row: row["epoch"] == 2 and os.kill(os.getpid(), number))
    assert caught.value.number == number and signal.getsignal(number) == before
    folder = RunFolder(tmp_path / "softmax" / "one")
    assert helpers.checkpoint_of(folder.path).epoch == len(folder.rows()) == 2
    assert resume(folder.path).result["epochs"] == 9


@pytest.mark.parametrize("every, said", [(1, "after epoch 2; continue"), (0, "with nothing saved yet; continue")])
def test_a_second_signal_says_what_is_saved(without_xla, tmp_path, every, said, capsys):
    def twice(row):
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it goes on")

    with pytest.raises(KeyboardInterrupt, match=f"{said}.*\n.*--resume="):
        train("softmax", data="mini", epochs=9, checkpoint_every=every, logdir=tmp_path, on_epoch=twice)
    assert capsys.readouterr().err.count("once more to leave at once") == 1
    code = main(["--resume=latest", "--dry_run", f"--logdir={tmp_path}"])
    error = capsys.readouterr().err
    assert (code, "of which nothing is saved" in error) == ((0, False) if every else (2, True))


def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    return custom_zoo.cnn()


def test_a_signal_before_the_first_update_leaves_at_once_and_no_folder(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt, match="before the first update"):
        train(interrupted, data="mini", logdir=tmp_path)
    assert main(["--model=interrupted", "--data=mini", f"--logdir={tmp_path}"]) == 130
    said = capsys.readouterr()
    assert not list(tmp_path.iterdir()) and not said.err and said.out.count("\n") == 1


def _in_a_fork(folder, said):
    for work in (lambda: train("softmax", data="mini", epochs=1, logdir=folder), lambda: models.build_model("2L")):
        try:
            work()
        except ValueError as error:
            said.send(str(error))


def test_a_forked_process_is_refused_in_one_line(tmp_path):
    tf.zeros(())
    ours, its = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a fork beside threads
        child = multiprocessing.get_context("fork").Process(target=_in_a_fork, args=(tmp_path, its))
        child.start()
    try:
        for _ in range(2):
            assert ours.poll(60), "it hangs"
            assert "TensorFlow ran before this process was forked" in ours.recv()
    finally:
        child.kill()
        child.join()
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_process_forked_from_a_program_that_did_not_know_us_is_refused(tmp_path):
    said = python(f"""if True:
        import os, sys, keras
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.predict(keras.ops.ones((8, 4)), verbose=0)
        if os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        from trainers.train import train
        try:
            train("softmax", data="mini", epochs=1, logdir={str(tmp_path)!r})
        except ValueError as error:
            print(error, flush=True)
        os._exit(0)""")
    assert "TensorFlow ran before this process was forked" in said and not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("cores", [1, 2])
def test_a_process_that_has_started_tensorflow_trains_with_its_threads(tmp_path, cores):
    """It notes them in the record; a new process that continues takes those of the record."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this system pins no process")
    program = f"""if True:
        import keras, numpy as np, os, signal
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        x, y = np.zeros((8, 4)), np.zeros((8, 2))
        model.fit(x, y, verbose=0)
        before = dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]
        from trainers.train import train
        assert (dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]) == before
        run = train("softmax", data="mini", epochs=1, logdir={str(tmp_path)!r}, run_name="one", verbose=True)
        model.fit(x, y, verbose=0)
        assert dict(os.environ) == before[0]
        print("threads", run.config.threads)"""
    said = python(program, cores=cores)
    assert f"threads {cores}\n" in said and f", {cores} of {cores} thread" in said
    record = read_run(tmp_path / "softmax" / "one")[0]
    assert record["config"]["threads"] == record["environment"]["threads"]["intra_op"] == cores
    said = python(f"import sys; from trainers import train; sys.exit(train.main(['--resume={tmp_path}/softmax/one', "
                  "'--epochs=2']))", cores=2)
    assert f", {cores} of 2 threads" in said and "last digits" not in said


@pytest.mark.long
def test_a_run_has_two_threads_on_any_number_of_cores(tmp_path):
    said = python(f"""if True:
        import sys, os, signal
        before = dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]
        from trainers import train
        assert (dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]) == before
        assert "tensorflow" not in sys.modules
        run = train.train("softmax", data="mini", epochs=1, logdir={str(tmp_path)!r}, verbose=True)
        assert dict(os.environ) == before[0]
        print("threads", run.config.threads)""", cores=1)
    assert "2 threads on 1 core" in said and "threads 2\n" in said and "TensorFlow runs" not in said


def test_another_number_of_threads_is_noted(without_xla, tmp_path, capsys):
    found = process.start_tensorflow(process.threads_in_use())
    run = train("softmax", data="mini", epochs=1, threads=found + 1, logdir=tmp_path, verbose=True)
    assert f"already, with {found} threads: this run has as many, not {found + 1}" in capsys.readouterr().out
    assert run.config.threads == process.start_tensorflow(found + 1) == found


@pytest.mark.parametrize("text, number", [("3", 3), ("0", None), ("", None), ("many", None)])
def test_environment_without_a_number_means_all_cores(monkeypatch, text, number):
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", text)
    assert process.threads_asked("TF_NUM_INTEROP_THREADS") == (number or process.cores())
