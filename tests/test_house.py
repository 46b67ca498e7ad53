"""Rules for the code as a whole: imports, flags, what starts without TensorFlow, the test images, the wheel."""

import ast
import configparser
import functools
import graphlib
import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

PACKAGES = ("fmnist_zoo", "trainers")
COMMANDS = ("trainers.train", "trainers.sweep", "trainers.evaluate", "trainers.report", "trainers.predict",
            "trainers.export", "trainers.results", "trainers.runs")
# Each room may import those before it; rooms that share a place are siblings and do not import each other.
ROOMS = [
    {"fmnist_zoo"}, {"trainers.config", "trainers.settings", "trainers.metrics_table"}, {"trainers.engine"},
    {"trainers.board"}, {"trainers.running"},
    {"trainers.tuning", "trainers.publishing", "trainers.reproduction"}, {"trainers.cli"}, {"commands"},
]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
           for package in PACKAGES for path in sorted((ROOT / package).glob("**/*.py"))}


@functools.cache
def nodes(module):
    """All nodes of a file's syntax tree, the module itself first."""
    return list(ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


@functools.cache
def imported(module):
    """The modules of ours that a file imports: at its top, within its functions, or for type checkers alone."""
    found = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{name.name}" for name in node.names}
            found |= submodules & set(MODULES) or {node.module or ""}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def room(module):
    """The room of a module. The package `trainers` itself holds what its import does, and belongs to none."""
    if module in COMMANDS:
        return "commands"
    return "fmnist_zoo" if module.startswith("fmnist_zoo") else ".".join(module.split(".")[:2])


def test_imports_point_to_the_same_room_or_an_earlier_one():
    place = {name: index for index, rooms in enumerate(ROOMS) for name in rooms} | {"trainers": 0}
    assert {room(module) for module in MODULES} == set(place)
    assert [f"{module} imports {other}" for module in MODULES for other in imported(module)
            if not (room(other) == room(module) != "commands" or place[room(other)] < place[room(module)])] == []


def test_no_circle_of_imports_within_a_room():
    for name in sorted(set.union(*ROOMS)):
        graphlib.TopologicalSorter({
            module: {other for other in imported(module) if room(other) == name and other != "fmnist_zoo"}
            for module in MODULES if room(module) == name}).prepare()


def test_text_is_opened_as_utf_8():
    """`open`, `read_text` and `write_text` take the encoding of the machine if they are not told one."""
    wrong = []
    for module in MODULES:
        for node in nodes(module):
            if isinstance(node, ast.Call) and not any(word.arg == "encoding" for word in node.keywords):
                binary = any(not isinstance(mode, ast.Constant) or "b" in str(mode.value) for mode in node.args[1:2])
                if getattr(node.func, "attr", "") in ("read_text", "write_text") or (
                        getattr(node.func, "id", "") == "open" and not binary):
                    wrong.append(f"{module}:{node.lineno}: {ast.unparse(node):.60}")
    assert wrong == []


def test_flags_are_defined_in_functions_of_commands_and_cli_alone():
    wrong = [f"{module}: {node.attr}" for module in set(MODULES) - {*COMMANDS, "trainers.cli", "fmnist_zoo.__main__"}
             for node in nodes(module)
             if isinstance(node, ast.Attribute) and node.attr.startswith(("DEFINE_", "ArgumentParser"))]
    wrong += [f"{module}: at its top" for module in MODULES for node in nodes(module)[0].body
              if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) and "DEFINE_" in ast.unparse(node)]
    assert wrong == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_in_a_group_and_explained(name, capsys):
    command = importlib.import_module(name)
    listed = [flag for flags in command.GROUPS.values() for flag in flags]
    assert sorted(listed) == sorted(set(command.define_flags()) - {"flagfile", "undefok"})
    assert command.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert [flag for flag in listed if f"--{flag}" not in output] == []


def test_one_module_asks_for_the_test_images():
    """As an argument, or an index; a folder and a method have that name, too."""
    asking = {module for module in MODULES for node in nodes(module)
              for one in (getattr(node, "args", []) if isinstance(node, ast.Call) else [getattr(node, "slice", None)])
              if isinstance(one, ast.Constant) and one.value == "test"}
    assert asking == {"fmnist_zoo.data", "trainers.publishing.measurement", "trainers.results"}  # the last by a flag


HEAVY = {"tensorflow", "keras", "keras_tuner", "tensorboard", "dask", "sklearn", "matplotlib", "rich"}
# What must be quick, or refused before anything is loaded: its exit code, after the forbidden modules.
QUICK = [(HEAVY | {"numpy", "PIL"}, [
    ("fmnist_zoo.__main__", [], 0), ("fmnist_zoo.__main__", ["--help"], 0),
    ("fmnist_zoo.__main__", ["4L", "--json"], 0), ("fmnist_zoo.__main__", ["conv_strided"], 0),
    ("trainers.train", ["--help"], 0), ("trainers.train", ["--model=4L", "--dry_run"], 0),
    ("trainers.train", ["--model=4X"], 2),
    ("trainers.runs", ["--help"], 0), ("trainers.runs", ["--logdir=tests/nowhere"], 2),
    ("trainers.predict", ["--help"], 0), ("trainers.predict", [], 2), ("trainers.predict", ["x.png", "--model=4X"], 2),
]), (HEAVY, [
    ("trainers.train", ["--resume=nowhere"], 2),
    ("trainers.evaluate", ["--help"], 0), ("trainers.evaluate", ["--run=tests"], 2),
    ("trainers.evaluate", ["--model=x"], 2), ("trainers.predict", ["tests/conftest.py"], 1),
    ("trainers.export", ["--help"], 0), ("trainers.export", ["--model=4D_drop3", "--format=onnx"], 2),
    ("trainers.export", ["--run=tests", "--format=keras"], 2),
    ("trainers.sweep", ["--help"], 0), ("trainers.sweep", ["--model=5D_drop04_03_02_01", "--dry_run"], 0),
    ("trainers.results", ["--help"], 0), ("trainers.report", ["--help"], 0),
])]
PROGRAM = """import importlib, json, sys
heavy, calls = json.loads(sys.argv[1])
for module, arguments, expected in calls:
    try:
        code = importlib.import_module(module).main(arguments)
    except SystemExit as end:
        code = end.code or 0
    found = sorted(set(heavy) & set(sys.modules))
    assert not found and code == expected, f"{module} {arguments}: exit code {code}, imported {found}"
from absl import flags
assert "model" not in flags.FLAGS, "a command defines global flags"
"""


@pytest.mark.parametrize("forbidden, calls", QUICK, ids=["nothing", "no TensorFlow"])
def test_listings_help_and_refusals_import(forbidden, calls):
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps([sorted(forbidden), calls])], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["fmnist_zoo", "trainers.train", "trainers.runs"])
def test_on_windows_one_line_says_where_it_runs(module):
    code = "import runpy, sys; sys.platform, sys.modules['fcntl'] = 'win32', None; runpy.run_module(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, module], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "WSL2" in done.stderr


@pytest.mark.long
def test_wheel_holds_modules_and_data_files_and_nothing_else(tmp_path):
    copy = tmp_path / "source"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tb_logs"))
    built = subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy],
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        scripts = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    expected = {str(path.relative_to(ROOT)) for path in MODULES.values()}
    expected |= {f"{package}/py.typed" for package in PACKAGES}
    expected |= {str(path.relative_to(ROOT)) for folder in ("mini/*", "trained/*", "*.csv")
                 for path in pathlib.Path(ROOT, "fmnist_zoo").glob(folder)}
    assert names == expected
    settings = configparser.ConfigParser()
    settings.read_string(scripts)
    assert {entry.partition(":")[0] for entry in settings["console_scripts"].values()} == {
        *COMMANDS, "fmnist_zoo.__main__"}
