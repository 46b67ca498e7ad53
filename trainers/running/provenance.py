"""Where a number comes from: versions, machine, commit, command line."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from fmnist_zoo import custom, prototype, weights
from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import Record, quoted
from fmnist_zoo.spec import ARRAYS, ModelSpec
from fmnist_zoo.version import __version__
from trainers.config import ConfigError, RunConfig, names_in
from trainers.engine import process
from trainers.engine.processor import machine, vector_instructions

if TYPE_CHECKING:
    from fmnist_zoo.data import Data

FROM_PYTHON = {"data": "data=(images, labels)", "model": "model=model", "callbacks": "callbacks=[...]"}
LIBRARIES = ("tensorflow", "keras", "numpy")
DESCRIPTIONS = ("catalog.py", "convolutional.py")  # modules of fmnist_zoo that describe models, each for itself
# Variables by which libraries choose how they compute: the last digits of a run may depend on them.
SWITCHES = ("DNNL_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
            "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS")


def record(config: RunConfig | None = None) -> Record:
    """The environment of a start of a run with that config. Call it after TensorFlow was imported."""
    import tensorflow

    return {
        "modules": config.spec.modules if config else {},
        **machine(),
        "versions": versions(),
        "threads": {"intra_op": process.threads_in_use(),
                    "inter_op": tensorflow.config.threading.get_inter_op_parallelism_threads()
                    or process.threads_asked("TF_NUM_INTEROP_THREADS")},
        "instructions": vector_instructions(),
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
        "commit": commit(),
        "engine": engine(config) if config else "",
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def require_builder(path: str | os.PathLike[str], spec: ModelSpec, record: Record) -> None:
    """`ConfigError` if the model of the run at `path` is built by a function of a module that was not imported.

    A model that was given in Python is built from the JSON in the record, if it is not in this process.
    """
    if not spec.build:
        return
    try:
        custom.builder(spec.name, spec.build, record.get("environment", {}).get("modules"))
    except SpecError as error:
        if "model" not in record:
            raise ConfigError(f"{os.fspath(path)}: its model {error}") from None
        prototype.restore(spec, record["model"])


def from_python(record: Record) -> dict[str, str]:
    """The arguments that `trainers.train.resume` needs beside the folder of a run, because no file holds them."""
    needed = {"data": record["config"]["data"] == ARRAYS, "model": "model" in record,
              "callbacks": "callbacks" in record}
    return {name: FROM_PYTHON[name] for name, given in needed.items() if given}


def resume_call(path: str | os.PathLike[str], record: Record, *more: str) -> str:
    """The call that continues in Python the run of a folder with this record."""
    arguments = (repr(os.fspath(path)), *more, *from_python(record).values())
    return f"trainers.train.resume({', '.join(arguments)})"


def replay(path: str | os.PathLike[str], record: Record, spec: ModelSpec) -> str:
    """The command that trains a run again from its `config.json`; empty if parts of it are in Python alone."""
    if in_python(record, spec):
        return ""
    return f"python -m trainers.train --config={quoted(path)}{custom.flag(spec.modules)}"


def in_python(record: Record, spec: ModelSpec) -> bool:
    """Whether a run's images, its callbacks, or what builds its model are in the process alone that trained it."""
    return bool(from_python(record) or spec.build and spec.builder.in_main)


def require_data(data: Data, record: Record) -> None:
    """`ConfigError` if the data are not those that the record of a run has, if it has some."""
    for name in ("sha256", "split_sha256"):
        found, recorded = getattr(data, name), record.get("data", {}).get(name)
        if recorded not in (None, found):
            raise ConfigError(f"the data in {data.folder} are not those of the recorded run: {name} {found}, recorded "
                              f"{recorded}")


def versions(*more: str) -> dict[str, str]:
    """Versions of this package, of Python, of the libraries that compute and of `more`, without importing these."""
    found = {"fmnist_zoo": __version__, "python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # installed under another name, such as tensorflow-cpu
            found[name] = importlib.import_module(name).__version__
    return found


def commit() -> str:
    """The git commit of this code, with `-dirty` if a module was changed since; "unknown" outside a checkout."""
    folder = pathlib.Path(__file__).parents[2]
    try:
        known, changed, tracked = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10) for command in (
                ["rev-parse", "HEAD"], ["diff", "--quiet", "HEAD", "--", "*.py"],
                ["ls-files", "--error-unmatch", __file__]))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    if known.returncode or tracked.returncode:  # the package is installed within a repository of something else
        return "unknown"
    return known.stdout.strip() + "-dirty" * bool(changed.returncode)


def engine(config: RunConfig) -> str:
    """The SHA-256 of what decides, beside data and seed, what a run computes.

    It is of the code of `fmnist_zoo` and `trainers/engine`, without comments and docstrings, of the model and the
    recipe, and of the shipped weights that this names. Another model in the zoo changes no run.
    """
    spec, recipe = config.spec, config.recipe
    names = names_in(recipe.initial_weights) + names_in(recipe.teacher)
    shipped = weights.manifest() if names else {}
    named = {name: shipped[name]["sha256"] for name in names if name in shipped}
    built = _code(inspect.getsource(spec.builder.function)) if spec.build.startswith("fmnist_zoo.") else spec.modules
    described = json.dumps([spec.architecture, recipe.get_config(), named, built], sort_keys=True)
    return hashlib.sha256(f"{_sources()}\n{described}".encode()).hexdigest()


@functools.cache
def _sources() -> str:
    """The code that all runs have in common."""
    root = pathlib.Path(__file__).parents[2]
    paths = sorted([*(root / "fmnist_zoo").glob("*.py"), *(root / "trainers" / "engine").glob("*.py")])
    return "\n".join(f"{path.relative_to(root).as_posix()}\n{_code(path.read_text(encoding='utf-8'))}"
                     for path in paths if path.name not in DESCRIPTIONS)


def _code(source: str) -> str:
    """The lines of a module or a function without docstrings, comments and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            text = node.body[0]
            lines[text.lineno - 1:text.end_lineno] = [""] * ((text.end_lineno or 0) - text.lineno + 1)
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def environments(record: Record) -> list[Record]:
    """The environment of each start that trained a run's weights, from its `config.json`."""
    return [start["environment"] for start in record["starts"]]


def numerics(environment: Record) -> dict[str, str]:
    """What the last digits of a run may depend on, by name: versions, the processor, threads, and `SWITCHES`."""
    return {**environment["versions"], "cpu": environment["cpu"], "threads": str(environment["threads"]["intra_op"]),
            **dict.fromkeys(SWITCHES, "not set"), **environment["switches"]}


def differences(before: Record, now: Record) -> str:
    """What may change the last digits of a run from one environment to another; empty if nothing does.

    For example "tensorflow 2.22.0 (was 2.21.0)".
    """
    old, new = numerics(before), numerics(now)
    changed = [f"{name} {value} (was {old[name]})" for name, value in new.items() if old[name] != value]
    more, fewer = (" ".join(sorted(set(one["instructions"]) - set(other["instructions"])))
                   for one, other in ((now, before), (before, now)))
    changed += [f"a processor {word} {names}" for word, names in (("with", more), ("without", fewer)) if names]
    return ", ".join(changed)


def changed_modules(before: Record, now: Record) -> str:
    """Modules of the user's whose source differs between two environments, by name; empty if none does."""
    return ", ".join(name for name, sha256 in now.get("modules", {}).items()
                     if before.get("modules", {}).get(name) != sha256)


def notes(before: Record, now: Record, *, replays: bool) -> list[str]:
    """What to tell the user of a run that continues, or replays another one, in another environment."""
    since, does, other = ("the recorded run", "is trained", "the recorded run") if replays else (
        "this run's last start", "continues", "a run without this change")
    found = []
    if modules := changed_modules(before, now):
        found.append(f"the source of {modules} has changed since {since}: its numbers may differ from those of {other}")
    if changed := differences(before, now):
        found.append(f"this run {does} with {changed}; its numbers may differ in the last digits from those of {other}")
    return found


def describe(environment: Record) -> str:
    """Commit, versions and modules of the user's in one line."""
    named = [f"{name} {version}" for name, version in environment["versions"].items()]
    named += [f"{name} {sha256[:12]}" for name, sha256 in environment["modules"].items()]
    return ", ".join([f"commit {environment['commit'][:12]}", *named])
