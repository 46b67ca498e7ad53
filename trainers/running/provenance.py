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


def record() -> dict[str, Any]:
    """What `config.json` says of the environment. Call it after TensorFlow was imported."""
    import keras
    import numpy
    import tensorflow

    return {
        **machine(),
        "versions": {"fmnist_zoo": fmnist_zoo.__version__, "python": platform.python_version(),
                     "tensorflow": tensorflow.__version__, "keras": keras.__version__, "numpy": numpy.__version__},
        "threads": {"intra_op": tensorflow.config.threading.get_intra_op_parallelism_threads() or _asked("INTRAOP"),
                    "inter_op": tensorflow.config.threading.get_inter_op_parallelism_threads() or _asked("INTEROP")},
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "commit": commit(),
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _asked(kind: str) -> int:
    """Threads that the environment asks TensorFlow for; without a number, or with 0, as many as there are cores."""
    text = os.environ.get(f"TF_NUM_{kind}_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else int(machine()["cores"])


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


def machine() -> dict[str, Any]:
    """The processor and how many of its cores this process may use; imports nothing heavy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": cores}


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware; False where the system does not tell."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpuinfo("flags").split())


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(name: str) -> str:
    """What Linux says of the first core; empty where it does not."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
