"""Trained weights: which are shipped, how they are verified, read and written.

The package holds one file of weights for each model (`trained/<model>.safetensors`: arrays and text, nothing that can
execute) and a manifest with each file's origin, scores and SHA-256. Importing this file imports neither NumPy nor
TensorFlow, so that a listing can say which models are trained.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, Sequence

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write, read_json
from fmnist_zoo.settings import settings_of
from fmnist_zoo.spec import ModelSpec, Recipe

if TYPE_CHECKING:
    import numpy as np

SHIPPED = "fashion_mnist"  # the value of `weights=` for the weights that come with the package
FOLDER = pathlib.Path(__file__).parent / "trained"
_FIELDS = {"file": str, "sha256": str, "bytes": int, "dtype": str, "seed": int, "step": int, "spec": dict,
           "recipe": dict, "data": dict, "scores": dict, "temperature": float, "date": str}


class WeightsError(ZooError, ValueError):
    """Weights are missing, damaged, or belong to another model: says which and why."""


def manifest() -> dict[str, dict[str, Any]]:
    """The entries of all shipped weights by model name, none if nothing is shipped; `WeightsError` if it is damaged."""
    path = FOLDER / "manifest.json"
    try:
        known: dict[str, dict[str, Any]] = read_json(path)["models"]
        for name, found in known.items():
            wrong = [field for field, kind in _FIELDS.items() if not isinstance(found[field], kind)]
            accuracy = found["scores"]["test_accuracy"]
            plain = os.path.basename(found["file"]) == found["file"] and found["file"].isprintable()
            scored = isinstance(accuracy, (int, float)) and 0 <= accuracy <= 1
            if wrong or not plain or not scored or len(found["sha256"]) != 64:
                raise ValueError(f"{name}: wrong {', '.join(wrong) or 'file, sha256 or scores'}")
            Recipe(**found["recipe"])
        return known
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WeightsError(f"{path}: is damaged: {_said(error)}; install the package again") from error


def entry(name: str) -> dict[str, Any]:
    """The manifest's entry for a model; `WeightsError` if the zoo has no weights for it."""
    known = manifest()
    if name not in known:
        raise WeightsError(f"no trained weights come with {name!r}; fmnist_zoo.list_models(trained=True) lists the "
                           "models that have some; train it, and use --run=FOLDER or weights=FILE")
    return known[name]


def shapes(spec: ModelSpec, model: Any = None) -> dict[str, tuple[int, ...]]:
    """Of a model's arrays by name, in the order of `model.get_weights()`: `dense_1/kernel`, ..., `logits/bias`.

    `model` is the Keras model, which is needed of a spec that a function builds; its layers name the arrays.
    """
    if spec.build:
        found: dict[str, tuple[int, ...]] = {}
        for variable in model.weights:
            name, number = variable.path, 1
            while name in found:  # nested models may name two layers alike
                number += 1
                name = f"{variable.path}_{number}"
            found[name] = tuple(variable.shape)
        return found
    return {f"{layer.name}/{array}": shape for layer in spec.layers for array, shape in layer.arrays.items()}


def read_shipped(spec: ModelSpec, model: Any = None) -> list[np.ndarray]:
    """The shipped weights of a model, as from `read`, verified by their SHA-256."""
    found = entry(spec.name)
    return read(FOLDER / found["file"], spec, sha256=found["sha256"], model=model)


def read(path: str | os.PathLike[str], spec: ModelSpec, *, sha256: str = "", model: Any = None) -> list[np.ndarray]:
    """A model's arrays, float32, in the order of `shapes`, from a safetensors file.

    Args:
        sha256: of the file; empty: any.
        model: as in `shapes`.

    Raises:
        WeightsError: if the file is missing, was changed or truncated, or belongs to another model than `spec`.
    """
    import numpy as np
    import safetensors.numpy

    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        advice = "; install the package again" if sha256 else ""
        raise WeightsError(f"{path}: cannot be read: {error.strerror}{advice}") from error
    received = hashlib.sha256(content).hexdigest()
    if sha256 and received != sha256:
        raise WeightsError(f"{path}: was changed or truncated: its SHA-256 is {received}, expected {sha256}; "
                           "install the package again")
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
        stored = ModelSpec("stored", **json.loads(header["__metadata__"]["architecture"]))
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged, or not weights of this zoo: {_said(error)}") from error
    if stored.architecture != spec.architecture:
        raise WeightsError(f"{path}: belongs to another model than {spec.name}: {_architecture(stored)}, "
                           f"expected {_architecture(spec)}")
    found, expected = {name: array.shape for name, array in arrays.items()}, shapes(spec, model)
    if found != expected:
        raise WeightsError(f"{path}: does not hold the arrays of {spec.name}: {found}, expected {expected}")
    with np.errstate(over="ignore"):  # float64 beyond float32's range becomes infinite, and is refused below
        weights = [arrays[name].astype(np.float32) if arrays[name].dtype.kind == "f" else arrays[name]
                   for name in expected]
    if not all(np.isfinite(array).all() for array in weights):
        raise WeightsError(f"{path}: holds numbers that are not finite")
    return weights


def digest(spec: ModelSpec, model: Any) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a Keras model's arrays."""
    from fmnist_zoo import tensors

    return tensors.digest_of(dict(zip(shapes(spec, model), model.get_weights())))


def write(path: str | os.PathLike[str], spec: ModelSpec, weights: Sequence[np.ndarray], *, dtype: str = "",
          model: Any = None) -> str:
    """Writes weights, in the order of `shapes`, as `dtype` (empty: their own); returns the file's SHA-256."""
    import safetensors.numpy

    arrays = {name: array.astype(dtype or array.dtype) for name, array in zip(shapes(spec, model), weights)}
    # One entry of metadata: safetensors writes several in no fixed order, which would change the SHA-256.
    content = safetensors.numpy.save(arrays, {"architecture": _architecture(spec)})
    with atomic_write(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def _said(error: Exception) -> str:
    """An error in one line, which may quote what a file holds."""
    return " ".join(str(error).split())[:300]


def _architecture(spec: ModelSpec) -> str:
    """The settings that make models different, without those at their default, as JSON: for a file's header."""
    defaults = {"build": "", **{name: known.default for name, known in settings_of(ModelSpec).items()}}
    return json.dumps({name: value for name, value in spec.architecture.items() if value != defaults[name]})
