"""Calls build functions of the user's: the same bits for the same seed in any process, only models that can be trained.

A build function has no seed of its own. So the global random states and Keras' counters of layer names are set before
it is called, and restored afterwards. Importing this module does not import Keras.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from typing import Any, Callable, Iterator

import numpy as np

from fmnist_zoo import own
from fmnist_zoo.errors import SpecError
from fmnist_zoo.own import Builder, Facts, Layer

SHAPES = ((784,), (28, 28), (28, 28, 1))  # of an image, as a model may take it
CLASSES = 10
IMAGES = 4  # of noise, that a new model is tried on
# TensorFlow's operations that count; of others the costs are small, and not counted for the zoo's own models either.
_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Conv3D", "DepthwiseConv2dNative")


def build(known: Builder, seed: int) -> Any:
    """A new model from a build function, with weights of its own that follow from the seed: built, float32.

    The first call in a process builds it twice, to see whether that is so, and notes what is known of the model.

    Raises:
        SpecError: for a function that raises, or gives anything but a model from images to logits; in one line.
    """
    from fmnist_zoo.backend import keras  # noqa: F401  (before the user's code, which would import it with its noise)

    label = f"{known.name}, built by {own.readable(known.build)},"
    model = _checked(label, known, seed)
    if not known.checked:
        _check_independence(label, model, _checked(label, known, seed))
        known.checked = True
        known.facts = None  # what the cache says is of the same source, but that source may import others
    if known.facts is None:
        own.keep(known, _measured(model))
    return model


def facts(known: Builder) -> Facts:
    """What is known of a model, by building it."""
    build(known, seed=0)
    assert known.facts
    return known.facts


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random states as `keras.utils.set_random_seed(seed)` leaves them in a new process, until the block ends.

    Those of Python, NumPy, Keras and TensorFlow (PyTorch, where it is imported), and Keras' counters of automatic
    names, are then what they were before. TensorFlow forgets how far operations with a seed of their own have come;
    there is no way to ask.
    """
    from keras.src.backend.common import global_state  # Keras offers no public way to read what it would reset
    from keras.src.random import seed_generator

    fresh: dict[str, Any] = {"global_random_seed": seed, "global_seed_generator": None, "object_name_uids": None,
                             "name_scope_stack": None}
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        for attribute, value in fresh.items():
            stack.callback(global_state.set_global_attribute, attribute, global_state.get_global_attribute(attribute))
            global_state.set_global_attribute(attribute, value)
        random.seed(seed)
        np.random.seed(seed)
        # Keras draws seeds from Python's generator, and so do other threads, such as those of a dask worker.
        stack.callback(setattr, seed_generator, "python_random", seed_generator.python_random)
        seed_generator.python_random = random.Random(seed)
        if "tensorflow" in sys.modules:
            from tensorflow.python.eager import context

            eager = context.context()
            stack.callback(_restore, eager, eager._seed, getattr(eager, "_rng", None))
            context.set_global_seed(seed)
        if "torch" in sys.modules:
            torch = sys.modules["torch"]
            stack.callback(torch.set_rng_state, torch.get_rng_state())
            torch.manual_seed(seed)
        yield


def _restore(eager: Any, seed: int | None, generator: Any) -> None:
    """Sets TensorFlow's global seed, and the generator of seeds for its operations; None if it had none yet."""
    eager._set_global_seed(seed)  # clears the kernels that were made under the other seed
    if generator is not None:
        eager._rng = generator


def input_shape(model: Any) -> tuple[int, ...]:
    """The shape of an image as a model takes it: one of `SHAPES`.

    Raises:
        SpecError: if it takes images of another shape, or several inputs.
    """
    found = _declared(model)
    if found is None:
        raise SpecError(f"the model {model.name} was never called, so its input is not known; call it on images first")
    for shape in SHAPES:
        if len(found) == len(shape) + 1 and all(size in (None, expected) for size, expected in zip(found[1:], shape)):
            return shape
    raise SpecError(f"it takes images of shape {_text(found[1:])}; images are {', '.join(map(_text, SHAPES))}")


def _declared(model: Any) -> tuple[Any, ...] | None:
    """The shape of a model's only input with its batch; None if it is not known yet, or the model never says."""
    inputs = getattr(model, "inputs", None)
    if inputs:
        if len(inputs) > 1:
            names = ", ".join(tensor.name for tensor in inputs)
            raise SpecError(f"it takes {len(inputs)} inputs ({names}), and there is nothing but the pixels of an image "
                            "to give; compute the others from them inside the model")
        if inputs[0].dtype != "float32":
            raise SpecError(f"its input is {inputs[0].dtype}, and images come as float32 in [0, 1]; declare "
                            "keras.Input(..., dtype='float32') and convert them inside the model")
        return tuple(inputs[0].shape)
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    return tuple(shape) if shape else None


def _checked(label: str, known: Builder, seed: int) -> Any:
    """A built model of the function; `SpecError` if that, or the model, is not as it must be."""
    try:
        model = _built(known, seed)
        shape, declared = input_shape(model), _declared(model)
        if declared and getattr(model, "inputs", None) and declared[0] is not None:
            raise SpecError(f"its batch is fixed to {declared[0]} images; leave it open: keras.Input({shape})")
        _check_weights(model)
        noise = np.random.default_rng(0).random((IMAGES, *shape), np.float32)
        with seeded(seed):
            _check_outputs(model, _call(model, noise))
    except SpecError as error:
        raise SpecError(f"{label} cannot be trained: {error}") from error.__cause__
    return model


def _built(known: Builder, seed: int) -> Any:
    """What the function returns, with its variables made: a model that declares no input is tried on images."""
    from fmnist_zoo.backend import keras

    with seeded(seed):
        model = _called(known)
    if getattr(model, "inputs", None) or _declared(model):
        return model
    problems: dict[str, list[str]] = {}  # by what went wrong, the shapes with which it did
    for shape in SHAPES:
        try:
            with seeded(seed):
                model = _called(known)
                if isinstance(model, keras.Sequential):  # a call on images would fix its batch
                    _run(lambda: model.build((None, *shape)))
                outputs = _call(model, np.zeros((IMAGES, *shape), np.float32))
        except SpecError as error:
            problems.setdefault(str(error), []).append(_text(shape))
            continue
        if getattr(outputs, "shape", None) == (IMAGES, CLASSES):
            return model
        problems.setdefault(f"it returns {_described(outputs)}", []).append(_text(shape))
    raise SpecError(f"it declares no input, and gives (batch, {CLASSES}) logits for images of no shape: " + "; ".join(
        f"with {', '.join(shapes)} {problem}" for problem, shapes in problems.items()))


def _called(known: Builder) -> Any:
    from fmnist_zoo.backend import keras

    try:
        model = known.function()
    except Exception as error:
        raise SpecError(f"its function raises {_one_line(error)}") from error
    if not isinstance(model, keras.Model):
        raise SpecError(f"its function returns {f'{model!r:.60}' if model is None else type(model).__qualname__}, not "
                        f"a keras.Model{'' if model is not None else '; is there a return?'}")
    return model


def _call(model: Any, images: np.ndarray) -> Any:
    return _run(lambda: model(images, training=False))


def _run(action: Callable[[], Any]) -> Any:
    """What Keras does with the user's layers, which may raise anything."""
    try:
        return action()
    except Exception as error:
        raise SpecError(f"a call on images raises {_one_line(error)}") from error


def _check_weights(model: Any) -> None:
    if not model.trainable_variables:
        raise SpecError("it has no variable that is trainable")
    for variable in model.weights:
        if "float" in variable.dtype and variable.dtype != "float32":
            raise SpecError(f"its variable {variable.path} is {variable.dtype}; weights are float32 "
                            "(--precision=mixed_bfloat16 computes in bfloat16, and keeps weights in float32)")


def _check_outputs(model: Any, outputs: Any) -> None:
    """Logits, not probabilities, for `IMAGES` images of noise."""
    if getattr(outputs, "shape", None) != (IMAGES, CLASSES):
        raise SpecError(f"it returns {_described(outputs)}; logits are (batch, {CLASSES}), one for each class")
    from fmnist_zoo.backend import keras

    logits = keras.ops.convert_to_numpy(outputs)
    if logits.dtype != np.float32:
        raise SpecError(f"it returns {logits.dtype}; give its last layer dtype='float32'")
    if not np.isfinite(logits).all():
        raise SpecError("it returns numbers that are not finite for images of noise")
    last = getattr(getattr(model.layers[-1], "activation", None), "__name__", "") if model.layers else ""
    sums_to_one = (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3)
    if sums_to_one or last in ("softmax", "sigmoid"):
        activation = last if last in ("softmax", "sigmoid") else "softmax"
        raise SpecError(f"it returns probabilities; return logits: drop the {activation} at its end")


def _check_independence(label: str, model: Any, again: Any) -> None:
    """Two calls must give models that share nothing and start equal."""
    shared = {id(variable) for variable in model.weights} & {id(variable) for variable in again.weights}
    if again is model or shared:
        raise SpecError(f"{label} cannot be trained: its function returns the same "
                        f"{'model' if again is model else 'layers'} in each call, so that one run would start from the "
                        "weights of another; make new ones in each call")
    for first, second in zip(model.weights, again.weights):
        if first.path != second.path or not np.array_equal(first.numpy(), second.numpy()):
            raise SpecError(f"{label} cannot be trained: its {first.path} is another in each call with the same seed; "
                            "leave random numbers to Keras, or take them from np.random, which --seed sets")


def _described(outputs: Any) -> str:
    if isinstance(outputs, (list, tuple, dict)):
        return f"{len(outputs)} outputs"
    shape = getattr(outputs, "shape", None)
    return type(outputs).__qualname__ if shape is None else _text(("batch", *shape[1:]))


def _text(shape: Any) -> str:
    """`(28, 28, 1)`; a name, or None, stays as it is."""
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _measured(model: Any) -> Facts:
    shape = input_shape(model)
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    everything = sum(int(np.prod(variable.shape)) for variable in model.weights)
    layers = tuple(Layer(layer.name, type(layer).__name__, _output_shape(layer), int(layer.count_params()))
                   for layer in model.layers if type(layer).__name__ != "InputLayer")
    return Facts(shape, trained, everything - trained, 3 * _forward_flops(model, shape), layers)


def _output_shape(layer: Any) -> str:
    try:
        return _text(tuple(layer.output.shape)[1:])
    except (AttributeError, ValueError, TypeError):  # a part of a subclassed model, shared, or with several outputs
        return "-"


def _forward_flops(model: Any, shape: tuple[int, ...]) -> int:
    """Of the products of one image's forward pass; 0 if TensorFlow does not count them."""
    if "tensorflow" not in sys.modules:
        return 0
    import tensorflow as tf
    from tensorflow.python.framework import ops

    logger = tf.get_logger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it warns that the counting of convolutions is of version 1
        graph = tf.function(lambda images: model(images, training=False), autograph=False).get_concrete_function(
            tf.TensorSpec((1, *shape), tf.float32)).graph
        return sum(int(ops.get_stats_for_node_def(graph, operation.node_def, "flops").value or 0)
                   for operation in graph.get_operations() if operation.type in _PRODUCTS)
    except Exception:  # statistics are a convenience, and their functions are not public
        return 0
    finally:
        logger.setLevel(level)
