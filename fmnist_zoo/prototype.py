"""Models that a caller gives as a `keras.Model`: clones of it are trained, from its own weights.

A spec has the digest of its layers and weights, `keras.Model:<digest>`, as `build`. There is no code to call again, so
a run's record holds Keras' JSON of the layers; the weights that it begins with are in this process alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
import weakref
from typing import TYPE_CHECKING, Mapping, Sequence, TypeGuard

from fmnist_zoo import custom, weights
from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import Record
from fmnist_zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras
    import numpy as np


def is_model(model: object) -> TypeGuard[keras.Model]:
    """Whether it is a `keras.Model`, and no class or function that makes one; does not import Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def add(model: keras.Model, name: str) -> ModelSpec:
    """The spec of a model. What happens to the model afterwards changes nothing.

    Raises:
        SpecError: for a model that cannot be cloned.
    """
    record = _record(model)
    build = f"{custom.GIVEN}:{hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]}"
    spec = ModelSpec(name=name, description="a keras.Model", build=build)
    restore(spec, record, model)
    return spec


def add_again(spec: ModelSpec, record: Record, model: keras.Model, *, begun: bool) -> None:
    """Lets a run continue with a model like the one that it began with.

    Args:
        record: of the model, in the record of the run.
        begun: the run has weights of its own, and those of `model` do not matter.

    Raises:
        SpecError: if it has other layers, or other weights where these matter.
    """
    found = _record(model)
    if _without_numbers(found["json"]) != _without_numbers(record["json"]):
        raise SpecError(f"model={model.name}: its layers, or their names, are not those that the run began with")
    if not begun and found["weights_sha256"] != record["weights_sha256"]:
        raise SpecError(f"model={model.name}: its weights are not those that the run began with, and the run has saved "
                        "none; begin a new one")
    restore(spec, record, model)


def restore(spec: ModelSpec, record: Record, model: keras.Model | None = None) -> None:
    """Lets the model of a run be built from the JSON in its record; without `model`, with weights from a file."""
    kinds, arrays = _kinds(model), model.get_weights() if model is not None and model.built else []
    known = custom.Builder(spec.name, lambda: _built(record["json"], kinds, arrays), custom.GIVEN, build=spec.build,
                           record=dict(record))
    known.prototype = weakref.ref(model) if model is not None else None
    custom.add(known)


def _record(model: keras.Model) -> Record:
    """Keras' JSON of the layers of a model that was checked to be clonable, and the SHA-256 of its weights."""
    from fmnist_zoo.backend import keras

    arrays = model.get_weights() if model.built else []
    try:
        layers = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
        layers.pop("compile_config", None)
        with custom.isolated(0):
            clone = _built(layers, _kinds(model), arrays)
    except Exception as error:  # a layer of the user's raises anything
        said = " ".join(str(error).split())
        raise SpecError(f"model={model.name}: Keras cannot clone it ({type(error).__name__}: {said:.200}); give the "
                        "function that builds it, or a get_config to its classes") from error
    frozen = [ours.path for ours, theirs in zip(model.weights, clone.weights) if ours.trainable != theirs.trainable]
    if frozen:
        raise SpecError(f"model={model.name}: {', '.join(frozen)} is not as trainable as its layer, which a clone "
                        "would not be told; set trainable of whole layers")
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return {"json": layers, "weights_sha256": total.hexdigest()}


def _kinds(model: keras.Model | None) -> dict[str, type[keras.layers.Layer]]:
    """The classes of a model and its layers by name, for Keras to find those of the user's."""
    return {type(layer).__name__: type(layer) for layer in model._flatten_layers()} if model is not None else {}


def _built(layers: Record, kinds: Mapping[str, type[keras.layers.Layer]], arrays: Sequence[np.ndarray]
           ) -> keras.Model:
    """A new model of these layers and, where there are arrays, with these weights."""
    from fmnist_zoo.backend import keras

    layers = copy.deepcopy(layers)  # Keras puts objects into it
    model = keras.saving.deserialize_keras_object(layers, custom_objects=kinds, safe_mode=not kinds)
    if arrays:
        weights.assign(model, arrays)
    return model


def _without_numbers(layers: Record) -> str:
    """JSON without the numbers that Keras appends to automatic names: it counts them over a whole process."""
    return re.sub(r'"([a-z][a-z0-9_]*?)_\d+"', r'"\1"', json.dumps(layers, sort_keys=True))
