"""Whether a run fits into this machine's memory, from its arithmetic: refused before it starts, without TensorFlow.

What is counted is the least that a run holds at once, so nothing is refused that would fit.
"""

from __future__ import annotations

import pathlib
import re
from typing import Iterator, Sequence

from fmnist_zoo.spec import PIXELS, Recipe
from trainers.config import MIXED, ConfigError, RunConfig
from trainers.running import estimate

SLOTS = {"adam": 2, "sgd": 0, "momentum": 1, "rmsprop": 1, "adagrad": 1, "adamax": 2, "adamw": 2, "nadam": 2, "lion": 1}
FLOAT = 4  # bytes
MEMINFO, CGROUP, CGROUPS = (pathlib.Path(path) for path in ("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup"))


class MemoryShortage(ConfigError):
    """A run that needs more memory than this machine has."""


def check(config: RunConfig) -> None:
    """`MemoryShortage` if a run needs more memory than is free here; where the system does not say, nothing happens."""
    required, free = needed(config), available()
    if free is not None and required > free:
        spec, recipe = config.spec, config.recipe
        raise MemoryShortage(
            f"{spec.name} needs at least {_size(required)} of memory to train ({spec.parameters} parameters, "
            f"{recipe.optimizer}, batch size {recipe.batch_size}), and {_size(free)} are free: take fewer units or a "
            "smaller --batch_size, or make memory free")


def shortages(configs: Sequence[RunConfig]) -> list[MemoryShortage]:
    """Why some of these runs would be refused; the error of the largest one is the last."""
    found = []
    for config in sorted(configs, key=needed):
        try:
            check(config)
        except MemoryShortage as error:
            found.append(error)
    return found


def needed(config: RunConfig) -> int:
    """Bytes that a run holds at once in any case; 0 for a model that a function builds, whose size is not known here.

    In float32, these are what training changes (parameters, moments of the optimizer, averages of `ema`), of which
    `tape` has a copy in case an update is not finite; a gradient of each parameter; the best weights so far; the Keras
    model, unless `fit` trains that; and the outputs of the hidden layers for a batch. To them come the fit images.
    Measured peaks were 1.6 to 2.7 times as much, less what TensorFlow itself takes.
    """
    if config.spec.build:
        return 0
    spec, images = config.spec, estimate.fit_images(config)
    arrays = copies(config.recipe) * (2 if config.trainer == "tape" else 1) + 2 + (config.trainer != "fit")
    pixels = images * PIXELS * (FLOAT if config.trainer == "fit" else 1)
    outputs = config.batch(images) * sum(spec.hidden) * (2 if config.precision == MIXED else FLOAT)
    return FLOAT * arrays * spec.parameters + pixels + outputs


def copies(recipe: Recipe) -> int:
    """How many arrays of a parameter's shape training changes."""
    return 1 + SLOTS[recipe.optimizer] + bool(recipe.ema)


def available() -> int | None:
    """Bytes that this process may still take, by Linux and its control groups; None where the system does not say."""
    kilobytes = _number(MEMINFO, r"^MemAvailable:\s+(\d+) kB$")
    free = [] if kilobytes is None else [1024 * kilobytes]
    for folder in _groups():
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free.append(max(0, limit - used + _cached(folder / "memory.stat")))
    return min(free, default=None)


def _groups() -> Iterator[pathlib.Path]:
    """The folders of this process's control groups that may limit its memory, of version 2 and of version 1."""
    for line in _text(CGROUP).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            root = CGROUPS if number == "0" else CGROUPS / "memory"
            group = root / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _cached(path: pathlib.Path) -> int:
    """Bytes of files that a control group has in memory, which the system takes back when it needs them."""
    known = dict(re.findall(r"^(\w+) (\d+)$", _text(path), re.MULTILINE))
    whole = "total_" if "total_active_file" in known else ""  # version 1 lists those of the group alone, too
    return sum(int(known.get(f"{whole}{name}_file", 0)) for name in ("active", "inactive"))


def _number(path: pathlib.Path, pattern: str = r"^(\d+)$") -> int | None:
    """The first number in a file that a pattern finds; None if there is none."""
    found = re.search(pattern, _text(path), re.MULTILINE)
    return int(found[1]) if found else None


def _text(path: pathlib.Path) -> str:
    """The content of a file of the system; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _size(size: int) -> str:
    """`1.5 GB`, `20 MB`."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
