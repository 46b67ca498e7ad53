"""Every command of the README is run, on the mini set; its table is what the listing prints."""

import re
import shlex
import subprocess

import pytest
from PIL import Image

import fmnist_zoo.__main__ as listing
from benchmarks import epoch, full_batch, sweep as sweep_benchmark, table
from fmnist_zoo import registry
from fmnist_zoo.data import load_data
from tests.conftest import ROOT
from tests.sweeps import Inline
from trainers import evaluate, export, predict, report, sweep, train
from trainers.tuning import pool

README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
QUICK = ["--data=mini", "--epochs=1"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as the README's reader has it: a finished run named `first`, an unfinished one, and their own module."""
    folder = tmp_path_factory.mktemp("reader")
    settings = dict(data="mini", logdir=folder / "tb_logs")
    train.train("4D_drop03", epochs=30, run_name="first", batch_size="full", histogram_every=0, **settings)
    late = train.train("4D_drop03", epochs=1, run_name="second", **settings).folder
    (late / "result.json").unlink()
    (folder / "my_models.py").write_text(python_that_begins("from fmnist_zoo import register"))
    image = Image.fromarray(load_data(data="mini")["fit"].images[0].reshape(28, 28))
    (folder / "folder_of_images").mkdir()
    for name in ("photo.jpg", "folder_of_images/another.png"):
        image.resize((120, 120)).save(folder / name)
    with pytest.MonkeyPatch.context() as here:
        here.setattr(pool, "make", lambda workers, scheduler: Inline())
        sweep.sweep("4L", {"dropout": [0, 0.2]}, tuner="grid", epochs=1, **settings)
    return folder


def python_that_begins(text):
    (block,) = [block for block in PYTHON if block.startswith(text)]
    return block


@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.delitem(__import__("sys").modules, "my_models", raising=False)
    monkeypatch.setattr(pool, "make", lambda workers, scheduler: Inline())
    program, *arguments = shlex.split(line)
    if program == "make":  # what it would run; running it sets up environments and trains for minutes
        done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        runs = {"train": "-m trainers.train", "test": "-m pytest", "board": "tensorboard.main",
                "results": "-m trainers.results", "check-results": "--check --models=softmax --seeds=0"}
        assert runs[arguments[0]] in done.stdout
        return
    assert (program, arguments[0]) == ("python", "-m")
    module, flags = arguments[1], arguments[2:]
    if module == "benchmarks.epoch":
        flags = [*flags, "--data=mini", "--epochs=1", "--rounds=1", "--batches=256"]
    elif module == "benchmarks.full_batch":
        flags = [*flags, "--data=mini", "--rounds=2"]
    elif module == "benchmarks.sweep":
        flags = [*flags, "--data=mini", "--epochs=1", "--trials=2", "--rounds=1", "--batches=128", "--workers=1"]
    elif module == "trainers.sweep" and not flags[0].startswith("--show"):
        flags = [*flags, "--data=mini", "--epochs=1", "--max_trials=2", "--logdir=others"]
    elif module == "trainers.evaluate" and not any(flag.startswith("--run") for flag in flags):
        flags = [*flags, "--data=mini", "--logdir=others"]
    elif module == "trainers.report":
        flags = [*flags, "--data=mini", "--quick", "--only=dropout"]
    elif module == "trainers.train" and not any(flag.startswith(("--resume", "--config")) for flag in flags):
        flags = [*flags, *QUICK, "--logdir=others"]  # its runs must not meet those that stand in the workplace
    main = {"fmnist_zoo": listing.main, "trainers.train": train.main, "benchmarks.epoch": epoch.main,
            "benchmarks.full_batch": full_batch.main, "trainers.report": report.main, "trainers.sweep": sweep.main,
            "benchmarks.sweep": sweep_benchmark.main, "trainers.evaluate": evaluate.main,
            "trainers.predict": predict.main, "trainers.export": export.main}[module]
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


def test_python_of_a_sweep(workplace, monkeypatch, capsys):
    """The example, word for word, but for the data."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(pool, "make", lambda workers, scheduler: Inline())
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
    assert block == table.table(table.load(table.RESULTS))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
