"""Trained weights: which are shipped, how they are verified, read and written.

The package holds one file of weights for each model (`trained/<model>.safetensors`, as `tensors` writes it) and a
manifest with each file's origin, scores and SHA-256. Importing this module imports neither NumPy nor TensorFlow, so
that a listing can say which models are trained.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Sequence

from fmnist_zoo.errors import DamagedFileError, ZooError
from fmnist_zoo.files import Record, read_json
from fmnist_zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras
    import numpy as np

FOLDER = pathlib.Path(__file__).parent / "trained"


class WeightsError(ZooError, ValueError):
    """Weights are missing, damaged, or belong to another model: says which and why."""


def manifest() -> dict[str, Record]:
    """The entries of all shipped weights by model name, none if nothing is shipped; `WeightsError` if it is damaged."""
    path = FOLDER / "manifest.json"
    try:
        entries: dict[str, Record] = read_json(path)["models"]
        return entries
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise WeightsError(f"{path}: is damaged: {error}; install the package again") from error


def entry(name: str) -> Record:
    """The manifest's entry for a model; `WeightsError` if the zoo has no weights for it."""
    known = manifest()
    if name not in known:
        raise WeightsError(f"no trained weights come with {name!r}; fmnist_zoo.list_models(trained=True) lists the "
                           "models that have some; train it, and name its run's folder instead")
    return known[name]


def shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Of a Keras model's arrays by name, in the order of `get_weights`: `dense_1/kernel`, ..., `logits/bias`."""
    found: dict[str, tuple[int, ...]] = {}
    for variable in model.weights:
        name, number = variable.path, 1
        while name in found:  # nested models may name two layers alike
            number += 1
            name = f"{variable.path}_{number}"
        found[name] = tuple(variable.shape)
    return found


def read_shipped(spec: ModelSpec, model: keras.Model) -> list[np.ndarray]:
    """The shipped weights of a model, as from `read`, verified by their SHA-256."""
    found = entry(spec.name)
    return read(FOLDER / found["file"], spec, model, sha256=found["sha256"])


def read(path: str | os.PathLike[str], spec: ModelSpec, model: keras.Model, *, sha256: str = "") -> list[np.ndarray]:
    """Arrays for `model.set_weights`, float32, from a file that `write` wrote.

    Args:
        model: the Keras model of `spec`.
        sha256: what `write` returned; empty: any.

    Raises:
        WeightsError: if the file is missing or damaged, or belongs to another model than `spec`.
    """
    import numpy as np

    from fmnist_zoo import tensors

    advice = "; install the package again" if sha256 else ""
    try:
        arrays, note = tensors.read_arrays(path)
        stored = ModelSpec("stored", **note["architecture"]).architecture
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}{advice}") from error
    except DamagedFileError as error:
        raise WeightsError(f"{error}{advice}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: holds no weights of this zoo: {error}") from error
    if sha256 and note["sha256"] != sha256:
        raise WeightsError(f"{path}: was changed: its SHA-256 is {note['sha256']}, expected {sha256}{advice}")
    if stored != spec.architecture:
        raise WeightsError(f"{path}: belongs to another model than {spec.name}: with "
                           f"{dict(stored.items() - spec.architecture.items())}, expected "
                           f"{dict(spec.architecture.items() - stored.items())}")
    found, expected = {name: array.shape for name, array in arrays.items()}, shapes(model)
    if found != expected:
        raise WeightsError(f"{path}: does not hold the arrays of {spec.name}: {found}, expected {expected}")
    weights = [arrays[name].astype(np.float32) if arrays[name].dtype.kind == "f" else arrays[name] for name in expected]
    if not all(np.isfinite(array).all() for array in weights):
        raise WeightsError(f"{path}: holds numbers that are not finite")
    return weights


def assign(model: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    """`model.set_weights`, also for layers that prepare their weights ahead, such as an adapted `Normalization`."""
    model.set_weights(arrays)
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def digest(model: keras.Model) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a Keras model's arrays."""
    from fmnist_zoo import tensors

    return tensors.digest_of(dict(zip(shapes(model), model.get_weights())))


def write(path: str | os.PathLike[str], spec: ModelSpec, model: keras.Model, *, dtype: str = "") -> str:
    """Writes the weights of `spec`'s Keras model as `dtype` (empty: their own); returns the SHA-256 of the content."""
    from fmnist_zoo import tensors

    arrays = {name: array.astype(dtype or array.dtype) for name, array in zip(shapes(model), model.get_weights())}
    return tensors.write_arrays(path, arrays, {"architecture": spec.architecture})
