"""The processor of this machine; imports nothing heavy."""

from __future__ import annotations

import os
import pathlib
import platform
import re
from typing import Any


def machine() -> dict[str, Any]:
    """The processor's name, and how many of its cores this process may use.

    A virtual machine may say "AMD EPYC" of each generation; where Linux has family and model, they are a part of it.
    """
    name, family = _cpuinfo("model name"), _cpuinfo("cpu family")
    number = f" (family {family}, model {_cpuinfo('model')})" if family else ""
    return {"cpu": f"{name}{number}" if name else platform.processor() or platform.machine(), "cores": cores()}


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware; False where the system does not say."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpuinfo("flags").split())


def features() -> str:
    """The processor's name and the instructions that it has, as one text; empty where the system does not say."""
    known = _instructions()
    return f"{platform.machine()} {_cpuinfo('model name')} {known}" if known else ""


def vector_instructions() -> list[str]:
    """Those sets of instructions, by Linux' names, by which libraries choose how they compute."""
    vectors = re.compile("amx|asimd|avx|bf16|f16c|fma|i8mm|s?sse|sve")
    return sorted(name for name in _instructions().split() if vectors.match(name))


def _instructions() -> str:
    return _cpuinfo("flags") or _cpuinfo("Features")  # of x86, of ARM


def _cpuinfo(name: str) -> str:
    """What Linux reports of the first core under `name`; empty on other systems."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")
