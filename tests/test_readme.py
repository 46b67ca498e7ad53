"""README and docs: each command and each example runs, on the mini set; tables and links are those of the project."""

import configparser
import importlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

import fmnist_zoo.__main__ as listing
from benchmarks import recipes, table
from fmnist_zoo import registry
from fmnist_zoo.data import load_data
from tests import helpers, idx_files, workers
from tests.conftest import ROOT
from tests.sweeps import Inline, replace_pool
from trainers import sweep, train

README = (ROOT / "README.md").read_text()
CLUSTER = ROOT / "docs" / "how-to" / "cluster.md"  # its commands need each other: tests/test_docs.py runs them
PAGES = {str(path.relative_to(ROOT)): path.read_text()
         for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if path != CLUSTER}


def blocks(language, text):
    """The code in the blocks of a language that have no title, or in those with it."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


EXERCISES = [page for page in PAGES if page.startswith("docs/exercises/")]  # the commands of each need each other
COMMANDS = list(dict.fromkeys(
    line for page, text in PAGES.items() if page not in EXERCISES for block in blocks("sh", text)
    for line in block.splitlines()))
# What a command is given beside what a page says, so that it trains for seconds.
QUICK = {
    "benchmarks.epoch": ["--data=mini", "--epochs=1", "--rounds=1", "--batches=256"],
    "benchmarks.recipes": ["--data=mini", "--epochs=1", "--seeds=1", "--settings=hidden=8,epochs=1", "--logdir=others",
                           "--rows=rows.csv"],
    "trainers.evaluate": ["--data=mini", "--logdir=others"],
    "trainers.report": ["--data=mini", "--quick", "--only=softmax_2l"],
    "trainers.results": ["--models=softmax", "--seeds=1", "--logdir=others"],
    "trainers.sweep": ["--data=mini", "--epochs=1", "--max_trials=2", "--logdir=others"],
    "trainers.train": ["--data=mini", "--epochs=1", "--logdir=others"],
}
RECORDED = ("--resume", "--config", "--run=", "--show")  # a run or sweep of the workplace brings its own settings
# Minutes; the others take seconds.
SLOW = ("--format=tflite", "--ensemble", "--seed=1", "--schedule_epochs=60", "--run_name=winner", "seed0/0001",
        "--hidden=512,256", "--model=5L_unrolled", "--model=5L_distilled", "benchmarks.recipes", "how-to/python.md")
# What `make` would run. Running it sets up environments and trains for minutes.
TARGETS = {"train": "-m trainers.train", "test": "-m pytest", "board": "-m trainers.board.serve",
           "notebook": "-m notebook tour.ipynb", "results": "-m trainers.results",
           "check-results": "--check --models=softmax --seeds=0", "campaign": "-m tests.campaign"}
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a reader has it: runs, one of them unfinished, sweeps, a module of their own, pictures, data."""
    folder = tmp_path_factory.mktemp("reader")
    settings = dict(data="mini", logdir=folder / "tb_logs", batch_size="full", histogram_every=0)
    for name in ("first", "tutorial"):
        train.train("4D_drop03", epochs=8, run_name=name, **settings)
    for name in ("plain", "tutorial"):
        train.train("4L", epochs=1, run_name=name, **settings)
    for model in ("4L", "4D_drop03"):
        assert train.main([f"--model={model}", "--seeds=2", "--run_name=mini", "--epochs=1", "--data=mini",
                           "--batch_size=full", "--histogram_every=0", f"--logdir={folder / 'tb_logs'}"]) == 0
    late = train.train("4D_drop03", epochs=1, run_name="second", **settings).folder
    (late / "result.json").unlink()
    train.train("softmax", epochs=1, run_name="seed0", **settings).folder.parent.rename(folder / "tb_logs/conv_teacher")
    for name in ("my_models", "hyper_models"):
        (module,) = re.findall(rf'^```python title="{name}.py"\n(.*?)^```$', "\n".join(PAGES.values()),
                               re.DOTALL | re.MULTILINE)
        (folder / f"{name}.py").write_text(module)
    image = Image.fromarray(load_data(data="mini")["fit"].images[0].reshape(28, 28))
    (folder / "folder_of_images").mkdir()
    for name in ("photo.jpg", "folder_of_images/another.png"):
        image.resize((120, 120)).save(folder / name)
    idx_files.copy_mini(folder / "my_idx_files")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "recipes.md", folder / "docs")
    with pytest.MonkeyPatch.context() as here:
        replace_pool(here, Inline())
        for name in ("", "dropout_l2"):
            sweep.sweep("4L", {"dropout": [0, 0.2]}, tuner="grid", epochs=1, name=name, **settings)
    return folder


@pytest.fixture
def reader(workplace, monkeypatch, inline_pool):
    """This process is in the workplace, and what a page does to the zoo is undone."""
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    for name in ("my_models", "hyper_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # it registers models again


def marked(snippets):
    """`snippets` as parameters of a test."""
    return [pytest.param(one, marks=pytest.mark.slow if any(part in one for part in SLOW) else pytest.mark.long)
            for one in snippets]


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("python")])
def test_command_of_the_shell(line):
    program, *arguments = shlex.split(line)
    if program == "make":
        done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True,
                              env=helpers.outside_make())
        assert done.returncode == 0, done.stderr
        assert TARGETS[arguments[0]] in done.stdout
    elif program == "pip":
        settings = configparser.ConfigParser()
        settings.read(ROOT / "setup.cfg")
        extra = re.fullmatch(r"fmnist_zoo\[(\w+)\]", arguments[1])[1]
        assert arguments[0] == "install" and extra in settings["options.extras_require"]
    else:
        assert line == ". .venv/bin/activate"


@pytest.mark.parametrize("line", marked(line for line in COMMANDS if line.startswith("python")))
def test_command(line, reader, monkeypatch, capsys):
    program, option, module, *flags = shlex.split(line)
    assert (program, option) == ("python", "-m")
    if not any(flag.startswith(RECORDED) for flag in flags) or "--dry_run" in flags:
        flags += [flag for flag in QUICK.get(module, []) if "--rows=short.csv" not in flags or "--rows" not in flag]
    if any(flag.startswith("--data_dir") for flag in flags):
        flags.remove("--data=mini")
    if module.startswith("benchmarks."):
        workers.in_process(monkeypatch)
    main = importlib.import_module(f"{module}.__main__" if module == "fmnist_zoo" else module).main
    assert main(flags) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("page", EXERCISES)
def test_commands_of_an_exercise(page, inline_pool, tmp_path, monkeypatch, capsys):
    """In their order, in a new folder, on mini as the page says, but for one epoch."""
    monkeypatch.chdir(tmp_path)
    for line in (line for block in blocks("sh", PAGES[page]) for line in block.splitlines()):
        module, *flags = shlex.split(line)[2:]
        quick = ["--epochs=1"] if module in ("trainers.train", "trainers.sweep") else []
        assert importlib.import_module(module).main([*flags, *quick]) == 0, (line, capsys.readouterr().err)


def on_mini(function):
    """`function`, which takes its data from the mini set if the caller does not say from where."""
    return lambda *arguments, data="mini", **settings: function(*arguments, data=data, **settings)


@pytest.mark.parametrize("page", marked(page for page, text in PAGES.items() if blocks("python", text)))
def test_python(page, reader, monkeypatch):
    """The examples of a page, one after the other in one session, word for word but for the data."""
    import fmnist_zoo
    from trainers import export

    monkeypatch.setattr(fmnist_zoo, "load_data", on_mini(load_data), raising=False)
    monkeypatch.setattr(train, "train", on_mini(train.train))
    monkeypatch.setattr(sweep, "sweep", on_mini(sweep.sweep))
    if "4D_drop03.onnx" in PAGES[page]:
        pytest.importorskip("onnxruntime")
        export.main(["--model=4D_drop03", "--format=onnx", "--overwrite"])
    session = {"__name__": "__main__"}
    for block in blocks("python", PAGES[page]):
        exec(compile(block, page, "exec"), session)
    if page == "README.md":
        assert session["run"].result["epochs"] == 3 and session["found"].labels.shape == (5,)


def test_the_table_is_what_the_listing_prints(capsys):
    for page in (README, (ROOT / "docs" / "record.md").read_text(encoding="utf-8")):
        command, block = re.search(r"<!-- models: (.*?) -->\n(.*?)\n<!-- /models -->", page, re.DOTALL).groups()
        assert listing.main(shlex.split(command)[3:]) == 0
        assert block == capsys.readouterr().out.strip()


@pytest.mark.parametrize("page, name, command", [
    ("README.md", "speed", table.main), ("docs/record.md", "short", recipes.main),
    ("docs/record.md", "recipes", recipes.main)])
def test_tables_of_benchmarks_are_those_of_their_rows(page, name, command, capsys):
    flags, block = re.search(rf"<!-- {name}: python -m benchmarks.\w+ ?(.*) -->\n((?s:.*?))\n<!-- /{name} -->",
                             (ROOT / page).read_text(encoding="utf-8")).groups()
    assert command(flags.split()) == 0 and capsys.readouterr().out == block + "\n"
