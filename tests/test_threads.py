"""The number of threads within an operation, before and after TensorFlow starts."""

import os
import subprocess
import sys

import pytest

from fmnist_zoo.backend import tf
from tests.conftest import ROOT
from trainers import train
from trainers.config import ConfigError
from trainers.engine import threads


@pytest.mark.long
def test_threads_are_set_until_tensorflow_starts():
    program = """if True:
        import os, sys
        import trainers
        from trainers.engine import threads
        assert threads.in_use() == 2, "two are asked for unless somebody asked for another number"
        threads.use(3)
        assert os.environ["TF_NUM_INTRAOP_THREADS"] == "3" and threads.in_use() == 3
        import trainers.engine.epoch, trainers.engine.processor, trainers.running.progress
        assert "tensorflow" not in sys.modules, "these modules are light"
        import tensorflow as tf
        threads.use(5)
        assert tf.config.threading.get_intra_op_parallelism_threads() == threads.in_use() == 5
        tf.zeros(())
        threads.use(5)
        try:
            threads.use(2)
        except ValueError as error:
            print(error)"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_NUM_")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True, capture_output=True)
    assert "asks for 2 threads" in done.stdout and "already runs with 5" in done.stdout, done.stderr


def test_another_number_is_refused_once_tensorflow_runs():
    tf.zeros(())
    found = threads.in_use()
    threads.use(found)
    with pytest.raises(ConfigError, match=f"asks for {found + 1} threads .* start a new process, .* threads={found}"):
        threads.use(found + 1)


def test_threads_are_set_before_a_module_of_the_user_imports_keras(capsys):
    tf.zeros(())
    asked = threads.in_use() + 1
    for flags in (["--zoo_module=no_module"],):
        assert train.main(["--model=4L", f"--threads={asked}", "--dry_run", *flags]) == 2
        assert f"asks for {asked} threads" in capsys.readouterr().err


@pytest.mark.parametrize("text, number", [("3", 3), ("0", None), ("", None), ("many", None)])
def test_environment_without_a_number_means_all_cores(monkeypatch, text, number):
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", text)
    assert threads.asked("TF_NUM_INTEROP_THREADS") == (number or threads.cores())
