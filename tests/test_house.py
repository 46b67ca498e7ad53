"""Rules for the code as a whole: imports between rooms, flags, the test images, the wheel."""

import ast
import graphlib
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

PACKAGES = ("fmnist_zoo", "trainers")
COMMANDS = {"trainers.train", "trainers.sweep", "trainers.evaluate", "trainers.report", "trainers.predict",
            "trainers.export", "trainers.results", "trainers.runs", "fmnist_zoo.__main__"}
# Each room may import those before it; rooms that share a place are siblings and do not import each other.
ROOMS = [
    {"fmnist_zoo"}, {"trainers.config", "trainers.settings"}, {"trainers.engine"}, {"trainers.board"},
    {"trainers.running"},
    {"trainers.tuning", "trainers.publishing", "trainers.reproduction"}, {"trainers.cli"}, {"commands"},
]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
           for package in PACKAGES for path in sorted((ROOT / package).glob("**/*.py"))}


def tree(module):
    return ast.parse(MODULES[module].read_text())


def imported(module):
    """The modules of ours that a file imports: at its top, within its functions, or for type checkers alone."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write the whole path of an imported module"
            for name in node.names:
                submodule = f"{node.module}.{name.name}"
                found.add(submodule if submodule in MODULES else node.module)
    return {name for name in found if name.split(".")[0] in PACKAGES}


def room(module):
    """The room of a module. The package `trainers` itself holds a docstring and belongs to none."""
    if module in COMMANDS and module.startswith("trainers."):
        return "commands"
    return "fmnist_zoo" if module.startswith("fmnist_zoo") else ".".join(module.split(".")[:2])


def test_every_module_is_in_a_room():
    assert {room(module) for module in MODULES} - {"trainers"} == set.union(*ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_the_same_room_or_an_earlier_one(module):
    place = {name: index for index, rooms in enumerate(ROOMS) for name in rooms} | {"trainers": 0}
    for other in imported(module):
        assert room(other) == room(module) != "commands" or place[room(other)] < place[room(module)], \
            f"{module} imports {other}"


@pytest.mark.parametrize("name", sorted(set.union(*ROOMS)))
def test_no_circle_of_imports_within_a_room(name):
    graph = {module: {other for other in imported(module) if room(other) == name and other != "fmnist_zoo"}
             for module in MODULES if room(module) == name}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_imported_by_their_own_names(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                if f"{node.module}.{name.name}" in MODULES:
                    assert name.asname in (None, f"_{name.name}"), f"{name.name} is imported as {name.asname}"


@pytest.mark.parametrize("module", MODULES)
def test_flags_are_defined_in_functions_of_commands_and_cli_alone(module):
    for node in ast.walk(tree(module)):
        name = node.attr if isinstance(node, ast.Attribute) else ""
        if name.startswith("DEFINE_") or name == "ArgumentParser":
            assert module in COMMANDS | {"trainers.cli"}
    for node in tree(module).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert "DEFINE_" not in ast.unparse(node)


def test_one_module_asks_for_the_test_images():
    asking = {module for module in MODULES for node in ast.walk(tree(module))
              if isinstance(node, ast.Constant) and node.value == "test"}
    assert asking == {"fmnist_zoo.data", "trainers.publishing.measurement"}


@pytest.mark.parametrize("module", MODULES)
def test_docstring_and_size(module):
    parsed = tree(module)
    assert ast.get_docstring(parsed)
    assert len(MODULES[module].read_text().splitlines()) <= 320
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, f"{node.name} is long"


def test_nothing_unpickles():
    for module in MODULES:
        text = MODULES[module].read_text()
        assert "import pickle" not in text and "allow_pickle=True" not in text


def test_a_command_defines_no_global_flags():
    code = ("from absl import flags; before = set(flags.FLAGS); import trainers.train; trainers.train.define_flags(); "
            "assert set(flags.FLAGS) == before")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_wheel_holds_modules_and_data_files_and_nothing_else(tmp_path):
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
    expected |= {f"fmnist_zoo/{path.name}" for path in pathlib.Path(ROOT, "fmnist_zoo").glob("*.csv")}
    assert names == expected
    assert "fmnist-zoo-train = trainers.train:main" in scripts
