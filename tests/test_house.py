"""The house's own rules: where imports point, flags are defined and test images are opened, and what is packed."""

import ast
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

PACKAGES = ("fmnist_zoo", "trainers")
COMMANDS = {"trainers.train", "trainers.sweep", "trainers.evaluate", "trainers.report", "trainers.predict",
            "trainers.export", "trainers.results", "fmnist_zoo.__main__"}
# A file may import those of the rows above its own.
ROWS = [
    {"fmnist_zoo.spec", "fmnist_zoo.metrics", "fmnist_zoo.files", "fmnist_zoo.idx", "fmnist_zoo.backend"},
    {"fmnist_zoo.results", "fmnist_zoo.weights"},
    {"fmnist_zoo.registry", "fmnist_zoo.sources", "fmnist_zoo.card"},
    {"fmnist_zoo.catalog", "fmnist_zoo.data"},
    {"fmnist_zoo"},
    {"fmnist_zoo.models", "fmnist_zoo.__main__"},
    {"fmnist_zoo.prediction"},
    {"trainers"},
    {"trainers.config", "trainers.checkpoints", "trainers.network", "trainers.optimizers", "trainers.pictures",
     "trainers.provenance", "trainers.command", "trainers.as_written",
     "trainers.experiments", "trainers.statistics", "trainers.figures", "trainers.photographs"},
    {"trainers.summaries", "trainers.folder", "trainers.loop", "trainers.lowlevel", "trainers.estimate",
     "trainers.space"},
    {"trainers.fit", "trainers.progress", "trainers.observer", "trainers.oracle"},
    {"trainers.study"},
    {"trainers.engines", "trainers.mistakes", "trainers.trained", "trainers.formats", "trainers.evaluation",
     "trainers.projector"},
    {"trainers.document", "trainers.evaluate", "trainers.predict", "trainers.export"},
    {"trainers.session", "trainers.shipping"},
    {"trainers.run", "trainers.page", "trainers.plan"},
    {"trainers.queue"},
    {"trainers.trial"},
    {"trainers.pool"},
    {"trainers.search"},
    {"trainers.train", "trainers.report", "trainers.sweep", "trainers.results"},
]
RANK = {module: rank for rank, row in enumerate(ROWS) for module in row}
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
           for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))}


def tree(module):
    return ast.parse(MODULES[module].read_text())


def imported(module):
    """Modules of ours that a file imports, at its top or within its functions; not those for type checkers alone."""
    found = set()
    parsed = tree(module)
    for branch in ast.walk(parsed):
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING":
            branch.body = []
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" if f"{node.module}.{name.name}" in MODULES else node.module
                      for name in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def test_every_file_has_its_place():
    assert set(MODULES) == set(RANK)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    package_itself = {"fmnist_zoo"} if module.startswith("fmnist_zoo.") else set()
    for other in imported(module) - package_itself:
        assert RANK[other] < RANK[module], f"{module} imports {other}"
    if module.startswith("fmnist_zoo"):
        assert not [other for other in imported(module) if other.startswith("trainers")]


@pytest.mark.parametrize("module", MODULES)
def test_flags_are_defined_in_commands_alone_and_within_functions(module):
    for node in ast.walk(tree(module)):
        name = node.attr if isinstance(node, ast.Attribute) else ""
        if name.startswith("DEFINE_") or name == "ArgumentParser":
            assert module in COMMANDS
    for node in tree(module).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert "DEFINE_" not in ast.unparse(node)


@pytest.mark.parametrize("module", MODULES)
def test_only_evaluate_asks_for_the_test_images(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and node.value == "test":
            assert module in ("trainers.evaluate", "fmnist_zoo.data"), "the split 'test' is asked for by evaluate alone"


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_and_sizes(module):
    parsed = tree(module)
    assert ast.get_docstring(parsed)
    assert len(MODULES[module].read_text().splitlines()) <= 260
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, f"{node.name} is long"


def test_nothing_unpickles():
    for module in MODULES:
        text = MODULES[module].read_text()
        assert "import pickle" not in text and "allow_pickle=True" not in text


def test_flags_of_a_command_stay_off_the_global_ones():
    code = ("from absl import flags; before = set(flags.FLAGS); import trainers.train; trainers.train.define_flags(); "
            "assert set(flags.FLAGS) == before")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_wheel_holds_what_it_needs_and_nothing_else(tmp_path):
    copy = tmp_path / "source"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__"))
    built = subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy],
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        scripts = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    expected = {str(path.relative_to(ROOT)) for path in MODULES.values()}
    expected |= {f"{package}/py.typed" for package in PACKAGES}
    expected |= {f"fmnist_zoo/mini/{path.name}" for path in pathlib.Path(ROOT, "fmnist_zoo", "mini").iterdir()}
    expected |= {f"fmnist_zoo/trained/{path.name}" for path in pathlib.Path(ROOT, "fmnist_zoo", "trained").iterdir()}
    assert names == expected | {"fmnist_zoo/results.csv"}
    assert "fmnist-zoo-train = trainers.train:main" in scripts
