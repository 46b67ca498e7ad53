"""Models that a function of the user's builds: which function builds which model, and what is known of the model.

A spec holds the function's name alone, so that a run's record stays plain data; the function itself is kept here. The
number of parameters and the layers are known only once the function was called, which needs TensorFlow. They are
kept in the user's cache, by a digest of the source, so that a listing is fast the next time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
import sys
from typing import Any, Callable, Mapping

from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import cache_folder, read_json, write_json
from fmnist_zoo.version import __version__

_MAIN, _PACKAGE = "__main__", "fmnist_zoo."


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of such a model; `shape` is of its output, without the batch, and "-" where Keras does not know it."""

    name: str
    kind: str
    shape: str
    parameters: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of such a model once it was built.

    Attributes:
        input: the shape of an image: (784,), (28, 28) or (28, 28, 1).
        parameters: how many are trained; `fixed`: how many are not, such as moving means.
        training_flops: of matrix products and convolutions, an image and a training step: three times those of the
            forward pass. 0 where they cannot be counted.
        layers: empty for the zoo's own, which are described in their function's docstring.
    """

    input: tuple[int, ...]
    parameters: int
    fixed: int
    training_flops: int
    layers: tuple[Layer, ...] = ()


class Builder:
    """The function that builds the model `name`, the module that registers it, and what is known of the model.

    Attributes:
        build: the function's module and qualified name, for the spec.
        modules: SHA-256 of the source of the module that registers it, and of the function's if that is another one;
            none for a model of the zoo.
        facts: None until the model was built, or read from the cache.
        checked: whether the function was called in this process, and found to give a model that can be trained.

    Raises:
        SpecError: if it is not a function that can be called without arguments.
    """

    def __init__(self, name: str, function: Callable[[], Any], module: str):
        if not callable(function) or hasattr(function, "layers") and not inspect.isclass(function):
            raise SpecError(f"build={function!r:.80}: expected a function that returns a new keras.Model in each call")
        try:
            inspect.signature(function).bind()
        except TypeError:
            raise SpecError(f"the function that builds {name} is called without arguments; {_qualified(function)} "
                            f"takes {inspect.signature(function)}: give them defaults, or use functools.partial"
                            ) from None
        except ValueError:  # a built-in one, whose arguments are not known
            pass
        self.name, self.function = name, function
        home = _real(getattr(_underlying(function), "__module__", None) or module)
        self.build = f"{home}:{_qualified(function)}"
        own = home.startswith(_PACKAGE)  # a model of the zoo: its version says what it is
        self.modules = {} if own else {one: _digest(one, function) for one in (_real(module), home)}
        self.facts: Facts | None = None
        self.checked = own

    @property
    def in_main(self) -> bool:
        """Whether a script or a notebook defines it, and may define it again."""
        return self.build.startswith(_MAIN + ":")


_BUILDERS: dict[str, Builder] = {}


def add(known: Builder) -> None:
    """Makes it the builder of its model."""
    _BUILDERS[known.name] = known


def builds(spec_name: str, build: str, function: Any) -> bool:
    """Whether `function` builds the model of a spec's `name` and `build`."""
    found = _BUILDERS.get(spec_name)
    return found is not None and (found.build, found.function) == (build, function)


def builder(name: str, build: str, modules: Mapping[str, str] | None = None) -> Builder:
    """The builder of a spec's `name` and `build`; `modules` are those in the record of its run.

    Raises:
        SpecError: if the module that registers it was not imported, with what to do.
    """
    found = _BUILDERS.get(name)
    if found and found.build == build:
        return found
    module, _, function = build.partition(":")
    unregistered = None if found else _find(module, function)
    if unregistered:  # it was trained by `train(function)`
        known = Builder(name, unregistered, module)
        if known.build == build:
            add(known)
            return known
    if module == _MAIN:
        raise SpecError(f"{name} is built by {function} of a script or notebook: register it in this process first, "
                        "or move it to a module and train it again with --zoo_module")
    module = next(iter(modules or {}), module)
    other = f", and the {name} of this process by {readable(found.build)}" if found else ""
    raise SpecError(f"{name} is built by {readable(build)}{other}; name its module: --zoo_module={module} "
                    f"(in Python: import {module})")


def _find(module: str, function: str) -> Callable[[], Any] | None:
    """A function of a module that was imported already; None if there is none."""
    found: Any = sys.modules.get(module)
    for part in function.split("."):
        found = getattr(found, part, None)
    return found if callable(found) else None


def flag(modules: Mapping[str, str]) -> str:
    """What commands need for a model with these modules, " --zoo_module=my_models"; empty without, or in a notebook."""
    module = next(iter(modules), _MAIN)
    return "" if module == _MAIN else f" --zoo_module={module}"


def readable(build: str) -> str:
    """`my_models.cnn` for a spec's `build` "my_models:cnn"."""
    return build.replace(":", ".")


def facts(known: Builder) -> Facts | None:
    """What this process or the cache knows of a model; None if it was not built yet."""
    if known.facts is None:
        known.facts = _read(_cached(known))
    return known.facts


def keep(known: Builder, found: Facts) -> None:
    """Remembers what a build has shown, in this process and in the cache; one that cannot be written is no error."""
    known.facts = found
    path = _cached(known)
    if path:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, dataclasses.asdict(found))


def _cached(known: Builder) -> pathlib.Path | None:
    """The cache's file for a model; None if the source of its function is not known."""
    if not all(known.modules.values()):
        return None
    key = json.dumps([known.name, known.build, known.modules, __version__])
    return cache_folder() / "models" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _read(path: pathlib.Path | None) -> Facts | None:
    """A file of the cache; None if there is none or it is damaged."""
    if path is None:
        return None
    try:
        stored = read_json(path)
        layers = tuple(Layer(**layer) for layer in stored.pop("layers"))
        stored.pop("version", None)
        found = Facts(**{**stored, "input": tuple(stored["input"])}, layers=layers)
        whole = isinstance(found.parameters, int) and isinstance(found.training_flops, int)
        return found if whole and all(isinstance(layer.parameters, int) for layer in layers) else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _real(module: str) -> str:
    """A spawned process imports the main script under another name."""
    return _MAIN if module == "__mp_main__" else module


def _underlying(function: Any) -> Any:
    """The function itself of a `functools.partial`."""
    return getattr(function, "func", function)


def _qualified(function: Any) -> str:
    """`cnn`; of an object that can be called, the name of its class."""
    function = _underlying(function)
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _digest(module: str, function: Any) -> str:
    """SHA-256 of a module's source, or of the function's alone in a notebook; empty where there is no source."""
    path = getattr(sys.modules.get(module), "__file__", None)
    try:
        if path and os.path.isfile(path):
            with open(path, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        return hashlib.sha256(inspect.getsource(_underlying(function)).encode()).hexdigest()  # of a notebook
    except (OSError, TypeError):
        return ""
