"""Where a number comes from: versions, machine, commit, command line."""

from __future__ import annotations

import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import fmnist_zoo
from trainers.engine import threads
from trainers.engine.processor import machine


def record() -> dict[str, Any]:
    """What `config.json` says of the environment. Call it after TensorFlow was imported."""
    import keras
    import numpy
    import tensorflow

    return {
        **machine(),
        "versions": {"fmnist_zoo": fmnist_zoo.__version__, "python": platform.python_version(),
                     "tensorflow": tensorflow.__version__, "keras": keras.__version__, "numpy": numpy.__version__},
        "threads": {"intra_op": threads.in_use(),
                    "inter_op": tensorflow.config.threading.get_inter_op_parallelism_threads()
                    or threads.asked("TF_NUM_INTEROP_THREADS")},
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "commit": commit(),
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def commit() -> str:
    """The git commit of this code, with `-dirty` where it was changed since; "unknown" outside a checkout."""
    folder = pathlib.Path(__file__).parent
    try:
        described, tracked = (subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10)
                              for command in (["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
                                              ["ls-files", "--error-unmatch", __file__]))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    if described.returncode or tracked.returncode:  # installed below somebody's repository, this is not its code
        return "unknown"
    return described.stdout.strip()
