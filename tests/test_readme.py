"""The README: each command and each example runs, on the mini set; tables and links are those of the project."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

import fmnist_zoo.__main__ as listing
from benchmarks import table
from fmnist_zoo import registry
from fmnist_zoo.data import load_data
from tests import workers
from tests.conftest import ROOT
from tests.sweeps import Inline
from trainers import sweep, train
from trainers.tuning import pool

README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# What a command is given beside what the README says, so that it trains for seconds.
QUICK = {
    "benchmarks.epoch": ["--data=mini", "--epochs=1", "--rounds=1", "--batches=256"],
    "benchmarks.full_batch": ["--data=mini", "--rounds=2"],
    "benchmarks.sweep": ["--data=mini", "--epochs=1", "--trials=1", "--rounds=1", "--batches=128", "--workers=1"],
    "trainers.evaluate": ["--data=mini", "--logdir=others"],
    "trainers.report": ["--data=mini", "--quick", "--only=softmax_2l"],
    "trainers.sweep": ["--data=mini", "--epochs=1", "--max_trials=2", "--logdir=others"],
    "trainers.train": ["--data=mini", "--epochs=1", "--logdir=others"],
}
RECORDED = ("--resume", "--config", "--run=", "--show")  # a run or sweep of the workplace brings its own settings
# What `make` would run. Running it sets up environments and trains for minutes.
TARGETS = {"train": "-m trainers.train", "test": "-m pytest", "board": "tensorboard.main",
           "results": "-m trainers.results", "check-results": "--check --models=softmax --seeds=0"}
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as the README's reader has it: a finished run named `first`, an unfinished one, and their own module."""
    folder = tmp_path_factory.mktemp("reader")
    settings = dict(data="mini", logdir=folder / "tb_logs")
    train.train("4D_drop03", epochs=8, run_name="first", batch_size="full", histogram_every=0, **settings)
    late = train.train("4D_drop03", epochs=1, run_name="second", **settings).folder
    (late / "result.json").unlink()
    (folder / "my_models.py").write_text(python_that_begins("from fmnist_zoo import register"))
    image = Image.fromarray(load_data(data="mini")["fit"].images[0].reshape(28, 28))
    (folder / "folder_of_images").mkdir()
    for name in ("photo.jpg", "folder_of_images/another.png"):
        image.resize((120, 120)).save(folder / name)
    with pytest.MonkeyPatch.context() as here:
        here.setattr(pool, "make", lambda workers, scheduler, threads: Inline())
        sweep.sweep("4L", {"dropout": [0, 0.2]}, tuner="grid", epochs=1, **settings)
    return folder


def python_that_begins(text):
    (block,) = [block for block in PYTHON if block.startswith(text)]
    return block


@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    monkeypatch.setattr(pool, "make", lambda workers, scheduler, threads: Inline())
    program, *arguments = shlex.split(line)
    if program == "make":
        done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert TARGETS[arguments[0]] in done.stdout
        return
    assert (program, arguments[0]) == ("python", "-m")
    module, *flags = arguments[1:]
    if not any(flag.startswith(RECORDED) for flag in flags):
        flags += QUICK.get(module, [])
    if module.startswith("benchmarks."):
        workers.in_process(monkeypatch)
    main = importlib.import_module(f"{module}.__main__" if module == "fmnist_zoo" else module).main
    assert main(flags) == 0, capsys.readouterr().err


def test_python(workplace, monkeypatch, capsys):
    """The example, word for word, but for the data."""
    import fmnist_zoo

    monkeypatch.chdir(workplace)
    load, run = fmnist_zoo.load_data, train.train
    monkeypatch.setattr(fmnist_zoo, "load_data", lambda: load(data="mini"), raising=False)
    monkeypatch.setattr(train, "train", lambda *arguments, **settings: run(*arguments, data="mini", **settings))
    exec(python_that_begins("import fmnist_zoo"), {})
    assert "validation_accuracy" in capsys.readouterr().out


def test_python_of_a_trained_model(monkeypatch, capsys):
    """The example, word for word, but for the data."""
    import fmnist_zoo

    load = fmnist_zoo.load_data
    monkeypatch.setattr(fmnist_zoo, "load_data", lambda splits: load(splits, data="mini"), raising=False)
    exec(python_that_begins("from fmnist_zoo import feature_model"), {})
    assert "4D_drop03" in capsys.readouterr().out


def test_python_of_images_of_ones_own(workplace, monkeypatch):
    """The example, word for word, but for the data."""
    import fmnist_zoo

    monkeypatch.chdir(workplace)
    load, names = fmnist_zoo.load_data, {}
    monkeypatch.setattr(fmnist_zoo, "load_data", lambda splits: load(splits, data="mini"), raising=False)
    exec(python_that_begins("from fmnist_zoo import load_data"), names)
    assert names["run"].result["epochs"] == 6


def test_python_of_a_sweep(workplace, monkeypatch, capsys):
    """The example, word for word, but for the data."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(pool, "make", lambda workers, scheduler, threads: Inline())
    run = sweep.sweep
    monkeypatch.setattr(sweep, "sweep", lambda *arguments, **settings: run(*arguments, data="mini", **settings))
    exec(python_that_begins("from trainers.sweep"), {"__name__": "__main__"})
    assert "'objective': " in capsys.readouterr().out


def test_the_table_is_what_the_listing_prints(capsys):
    assert listing.main(["--markdown"]) == 0
    block = re.search(r"<!-- models: .*? -->\n(.*?)\n<!-- /models -->", README, re.DOTALL).group(1)
    assert block == capsys.readouterr().out.strip()


def test_the_speed_is_that_of_the_last_full_run():
    block = re.search(r"<!-- speed: python -m benchmarks.table -->\n(.*?)\n<!-- /speed -->", README, re.DOTALL).group(1)
    assert block == table.read(table.RESULTS)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
