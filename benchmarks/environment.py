"""The environment of the peers that are not TensorFlow: `python -m benchmarks.environment` makes `benchmarks/.venv`.

PyTorch, JAX and scikit-learn stay out of the zoo's own environment: they pin NumPy and thread pools in ways of their
own, and nobody who trains needs them. The command is `python -m venv` and `pip install -r benchmarks/requirements.txt`
from whatever index pip is set up for; it takes a minute and 1.6 GB (with torch's CPU build). Run it again after
`requirements.txt` has changed: it starts from nothing.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
from typing import Sequence

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
FOLDER = HERE / ".venv"


def python(folder: pathlib.Path | None = None) -> pathlib.Path:
    """The interpreter of the environment in `folder` (`FOLDER`), there or not."""
    folder = folder or FOLDER
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _stamp(folder: pathlib.Path) -> pathlib.Path:
    """What was installed: a copy of the requirements, written last."""
    return folder / "requirements.txt"


def trouble(folder: pathlib.Path | None = None) -> str:
    """What keeps the environment from being used, in a line that says what to do; empty if nothing does."""
    folder = folder or FOLDER
    advice = "make it with: python -m benchmarks.environment"
    if not python(folder).exists() or not _stamp(folder).exists():
        return f"the environment benchmarks/{folder.name} is not there, or not whole; {advice}"
    if _stamp(folder).read_text() != REQUIREMENTS.read_text():
        return f"the environment benchmarks/{folder.name} is of another requirements.txt; {advice}"
    return ""


def make(folder: pathlib.Path | None = None) -> int:
    """Makes the environment anew; returns the exit code of the first command that failed, or 0."""
    folder = folder or FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    for command in ([sys.executable, "-m", "venv", str(folder)],
                    [str(python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                     "-r", str(REQUIREMENTS)]):
        code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
        if code:
            print(f"environment: {' '.join(command)} ended with exit code {code}", file=sys.stderr)
            return code
    shutil.copyfile(REQUIREMENTS, _stamp(folder))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    argparse.ArgumentParser(prog="python -m benchmarks.environment", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(arguments)
    if not trouble():
        print(f"benchmarks/{FOLDER.name} is there, and as requirements.txt says")
        return 0
    return make()


if __name__ == "__main__":
    sys.exit(main())
