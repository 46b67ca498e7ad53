"""Models of a user's own: functions that return a Keras model, called so that a seed gives the same weights anywhere.

A spec holds the name of its build function alone, so that a run's record stays plain data; the function itself is kept
here. What it returns is checked before anything is trained. Importing this module imports neither Keras nor NumPy.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import inspect
import math
import os
import random
import re
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from fmnist_zoo import arguments
from fmnist_zoo.errors import SpecError
from fmnist_zoo.files import Record

if TYPE_CHECKING:
    import keras

SHAPES = ((784,), (28, 28), (28, 28, 1))  # of an image, as a model may take it
CLASSES = 10
FAINT, RESCALED = 0.005, 0.1  # differences of logits between a black and a white image: of any model, with Rescaling
IMAGES = 4  # of noise, that a new model is tried on
GIVEN = "keras.Model"  # instead of a module, for a model that was given as an object: see `prototype`
_MAIN = "__main__"
# Keras' state of this thread that layers are made from: counters of automatic names, and random numbers.
_KERAS_STATE = ("object_name_uids", "global_seed_generator", "global_random_seed")
# What `keras.config` sets in this thread, beside floatx, layout and epsilon; and the caller's `keras.name_scope`.
_KERAS_CONFIG = ("dtype_policy", "name_scope_stack", "traceback_filtering", "interactive_logging", "flash_attention",
                 "safe_mode_saving")

_one_at_a_time = threading.RLock()  # what `isolated` replaces is of the whole process


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """What is known of such a model once it was built.

    Attributes:
        input: the shape of an image: (784,), (28, 28) or (28, 28, 1).
        parameters: how many are trained; `fixed`: how many are not, such as moving means.
        layers: the lines of Keras' `model.summary()`. Empty for the zoo's own until they are built.
    """

    input: tuple[int, ...]
    parameters: int
    fixed: int
    layers: tuple[str, ...] = ()


class Builder:
    """The function that builds the model `name`, and the modules that a run of it depends on.

    Attributes:
        build: the function's module and qualified name, for the spec.
        takes_hp: whether it takes keras-tuner's `HyperParameters`; they then have the arguments as values.
        defaults: of its arguments that are plain values.
        arguments: that it is called with; what it does not find among them has its default.
        modules: SHA-256 of the source of the module that registers it, and of the function's if that is another one;
            none for a model of the zoo.
        summary: of the model that this process built last; None before, unless it was registered with one.
        notes: what to tell the user of that model, a line each.
        record: of a `keras.Model` that was given as an object; None for a function.
        prototype: a reference to that object, which may be gone.

    Raises:
        SpecError: if it is not a function that can be called without arguments, or with `hp` alone.
    """

    def __init__(self, name: str, function: Callable[..., keras.Model], module: str, *, build: str = "",
                 record: Record | None = None):
        problem = "" if not hasattr(function, "layers") or inspect.isclass(function) else "this is a model"
        try:
            self.takes_hp, self.defaults = arguments.of_function(function)
        except (TypeError, ValueError) as error:
            problem = str(error)
        if problem:
            raise SpecError(f"build={function!r:.80}: expected a function that returns a new keras.Model in each call, "
                            "and takes hp, as keras-tuner's do, or no argument without a default (use "
                            f"functools.partial); {problem}")
        self.arguments: arguments.Arguments = ()
        self._with: dict[arguments.Arguments, Builder] = {}
        inner = getattr(function, "func", function)  # of a `functools.partial`
        self.name, self.function, self.record = name, function, record
        self.prototype: weakref.ref[keras.Model] | None = None
        # a spawned process imports the main script as __mp_main__
        home, module = (_MAIN if one == "__mp_main__" else one for one in (inner.__module__ or module, module))
        self.build = build or f"{home}:{getattr(inner, '__qualname__', type(inner).__qualname__)}"
        zoo = home.startswith("fmnist_zoo.")  # its version says what such a model is
        self.modules = {} if zoo or record else {one: _digest(one, inner) for one in (module, home)}
        self.summary: ModelSummary | None = None
        self.notes: list[str] = []

    @property
    def in_main(self) -> bool:
        """Whether a script or a notebook defines it, and may define it again."""
        return self.build.startswith(_MAIN + ":")

    def takes(self, label: str) -> bool:
        """Whether the function may have the argument with a label; a function that takes `hp` says so when called."""
        return self.takes_hp or label in map(arguments.label, self.defaults)

    def given(self, values: arguments.Arguments) -> Builder:
        """The same function with arguments; its models have a summary and notes of their own."""
        if values == self.arguments:
            return self
        if values not in self._with:
            known = self._with[values] = copy.copy(self)
            known.arguments, known.summary, known.notes = values, None, []
        return self._with[values]

    def call(self, hp: Any = None) -> tuple[Any, arguments.Arguments]:
        """What the function returns, and all arguments that it was called with, or asked `hp` for.

        Args:
            hp: keras-tuner's `HyperParameters` with the arguments as values; None: new ones.

        Raises:
            SpecError: if it does not ask `hp` for one of the arguments.
        """
        values = {**self.defaults, **dict(self.arguments)}
        if self.takes_hp:
            hp = hp or hyperparameters(self.arguments)
            model = self.function(hp)
            known = {one.name for one in hp.space}
            if unknown := [name for name, _ in self.arguments if name not in known]:
                raise SpecError(f"its function asks hp for no {', '.join(unknown)}; it asks for "
                                f"{', '.join(sorted(known))}")
            values = {name: value for name, value in hp.values.items()
                      if hp.is_active(name) and not isinstance(value, (list, dict, type(None)))}
        else:
            model = self.function(**dict(self.arguments))
        return model, arguments.canonical(values)


def hyperparameters(values: arguments.Arguments = ()) -> Any:
    """keras-tuner's `HyperParameters` with values, which a function gets that asks for them."""
    from fmnist_zoo.backend import without_noise

    with without_noise():
        import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


_BUILDERS: dict[str, Builder] = {}  # by the name of the model; those of models that were given, by their `build`
# The variables of all built models, by identity.
_VARIABLES: weakref.WeakValueDictionary[int, keras.Variable] = weakref.WeakValueDictionary()


def add(known: Builder) -> None:
    """Makes it the builder of its model."""
    _BUILDERS[known.build if known.record else known.name] = known


def builder(name: str, build: str, modules: Mapping[str, str] | None = None) -> Builder:
    """The builder of a model's `name` and `build`, without arguments; `modules` are those in the record of its run.

    Raises:
        SpecError: if the module that registers it was not imported, with what to do.
    """
    name = name if name in _BUILDERS else name.partition(",")[0]
    found = _BUILDERS.get(build) or _BUILDERS.get(name)
    if found and found.build == build:
        return found
    if build.startswith(GIVEN):
        raise SpecError(f"{name} was given in Python as a keras.Model; give it again there")
    module, _, qualified = build.partition(":")
    function: Any = None if found else sys.modules.get(module)  # not registered if it was trained by `train(function)`
    for part in qualified.split("."):
        function = getattr(function, part, None)
    if callable(function):
        known = Builder(name, function, module)
        if known.build == build:
            add(known)
            return known
    if module == _MAIN:
        raise SpecError(f"{name} is built by {qualified} of a script or notebook: register it in this process first, "
                        "or move it to a module and train it again with --zoo_module")
    module = next(iter(modules or {}), module)
    other = f", and the {name} of this process by {readable(found.build)}" if found else ""
    raise SpecError(f"{name} is built by {readable(build)}{other}; name its module: --zoo_module={module} "
                    f"(in Python: import {module})")


def flag(modules: Mapping[str, str]) -> str:
    """What commands need for a model with these modules, " --zoo_module=my_models"; empty without, or in a notebook."""
    module = next(iter(modules), _MAIN)
    return "" if module == _MAIN else f" --zoo_module={module}"


def readable(build: str) -> str:
    """`my_models.cnn` for a spec's `build` "my_models:cnn"."""
    if build.startswith(GIVEN):
        return "a clone of a keras.Model"
    return build.replace(":", ".")


def _digest(module: str, function: Callable[..., keras.Model]) -> str:
    """SHA-256 of a module's source, or of the function's alone in a notebook; empty where there is no source."""
    spawned = sys.modules.get("__mp_main__") if module == _MAIN else None  # a script while a spawned process imports it
    path = getattr(spawned or sys.modules.get(module), "__file__", None)
    try:
        if path and os.path.isfile(path):
            with open(path, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return ""


def build(known: Builder, seed: int) -> keras.Model:
    """A new model of a build function, with initial weights that follow from the seed, without a softmax at its end.

    Raises:
        SpecError: for a function that raises, or returns anything but a new model from images to logits; in one line.
    """
    from fmnist_zoo.backend import keras  # before the user's code, which would import it with its noise

    with _refusals(known):
        model = _called_until_built(known, seed)
        _check_variables(model)
        _check_steps(model)
        with isolated(seed):
            known.notes = []
            model, dropped = _without_softmax(model)
            if dropped:
                known.notes.append("its last softmax is dropped, since training is on logits: the model returns logits")
            _check_outputs(model, _on_images(model, input_shape(model)))
            contrast, kinds = _contrast(model), map(type, model._flatten_layers())
            if 0 < contrast < (RESCALED if keras.layers.Rescaling in kinds else FAINT):
                known.notes.append(f"its logits for a black and for a white image differ by {contrast:.1g} at most: "
                                   "images come in [0, 1], so a Rescaling(1/255) makes them all black")
    _VARIABLES.update((id(variable), variable) for variable in model.weights)
    known.summary = _summary(model)
    return model


def returned(known: Builder, hp: Any = None) -> tuple[Any, arguments.Arguments]:
    """What a build function returns, as it is, and its arguments, as `Builder.call`; checked by `build` alone.

    Of a `keras.Model` that was given as an object, it is that object, with what its `compile` was given.

    Raises:
        SpecError: for a function that raises; in one line.
    """
    from fmnist_zoo.backend import keras  # noqa: F401  (before the user's code, as in `build`)

    if known.prototype and (model := known.prototype()):
        return model, known.arguments
    with _refusals(known), isolated(0):
        return _called(known, hp)


def tried(known: Builder, what: str, action: Callable[[], Any]) -> Any:
    """What an action returns that calls a built model, such as `what` "a call in training".

    Raises:
        SpecError: if it raises anything; in one line.
    """
    with _refusals(known):
        return _run(what, action)


@contextlib.contextmanager
def _refusals(known: Builder) -> Iterator[None]:
    """Says of which model a `SpecError` is."""
    try:
        yield
    except SpecError as error:
        given = "".join(f" with {name}={value}" if not index else f", {name}={value}"
                        for index, (name, value) in enumerate(known.arguments))
        raise SpecError(f"{known.name}, built by {readable(known.build)}{given}, cannot be trained: {error}"
                        ) from error.__cause__


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Keras' defaults for new layers are float32, channels last and 1e-7 within the block, whatever the process has.

    There is no scope of names around them. Afterwards all that `keras.config` sets is what it was.
    """
    from keras.src.backend.common import global_state  # Keras offers no public way to unset its policy

    from fmnist_zoo.backend import keras

    config = keras.config
    with contextlib.ExitStack() as after:
        after.callback(config.set_floatx, config.floatx())
        after.callback(config.set_image_data_format, config.image_data_format())
        after.callback(config.set_epsilon, config.epsilon())
        for name in _KERAS_CONFIG:
            after.callback(global_state.set_global_attribute, name, global_state.get_global_attribute(name))
        config.set_floatx("float32")
        config.set_image_data_format("channels_last")
        config.set_epsilon(1e-7)
        for name in ("dtype_policy", "name_scope_stack"):
            global_state.set_global_attribute(name, None)
        yield


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """The block runs as in a new process after `keras.utils.set_random_seed(seed)`, in float32.

    Afterwards the random states of Python, NumPy, Keras and TensorFlow (PyTorch, where it is imported), Keras' counters
    of names and its dtypes are what they were. TensorFlow forgets how far operations with a seed of their own have
    come; there is no way to ask. Another thread waits until the block ends.
    """
    import numpy as np
    from keras.src.backend.common import global_state
    from keras.src.random import seed_generator

    with _one_at_a_time, contextlib.ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        # Keras draws seeds from Python's generator, and so do other threads, such as those of a dask worker.
        after.callback(setattr, seed_generator, "python_random", seed_generator.python_random)
        seed_generator.python_random = random.Random(seed)
        for name in _KERAS_STATE:
            after.callback(global_state.set_global_attribute, name, global_state.get_global_attribute(name))
            global_state.set_global_attribute(name, seed if name == "global_random_seed" else None)
        after.enter_context(in_float32())
        random.seed(seed)
        np.random.seed(seed)
        if tensorflow := sys.modules.get("tensorflow"):
            from tensorflow.python.eager import context

            eager = context.context()
            for name in ("_seed", "_rng"):  # the second does not exist before the first call of `set_seed`
                after.callback(setattr, eager, name, getattr(eager, name, None))
            tensorflow.random.set_seed(seed)
        if torch := sys.modules.get("torch"):
            after.callback(torch.set_rng_state, torch.get_rng_state())
            torch.manual_seed(seed)
        yield


def input_shape(model: keras.Model) -> tuple[int, ...]:
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
    raise SpecError(f"it takes images of shape {shape_text(found[1:])}; images are "
                    f"{', '.join(map(shape_text, SHAPES))}")


def _declared(model: keras.Model) -> tuple[int | None, ...] | None:
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
        batch, *shape = inputs[0].shape
        if batch is not None:
            raise SpecError(f"its batch is fixed to {batch} images; leave it open: keras.Input({shape_text(shape)})")
        return (batch, *shape)
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    return tuple(shape) if shape else None


def _called_until_built(known: Builder, seed: int) -> keras.Model:
    """What the function returns, with its variables made: a model that declares no input is tried on images."""
    from fmnist_zoo.backend import keras

    problems: dict[str, list[str]] = {}  # by what went wrong, the shapes with which it did
    for shape in SHAPES:
        with isolated(seed):
            model, _ = _called(known)
            if any(_VARIABLES.get(id(variable)) is variable for variable in model.weights):
                raise SpecError("its function returns layers that it has returned before, so that one run would start "
                                "from the weights of another; make a new model, of new layers, in each call")
            if _declared(model):
                return model
            try:
                if isinstance(model, keras.Sequential):  # a call on images would fix its batch
                    _run("a call on images", lambda: model.build((None, *shape)))
                outputs = _on_images(model, shape)
            except SpecError as error:
                problems.setdefault(str(error), []).append(shape_text(shape))
                continue
        if getattr(outputs, "shape", None) == (IMAGES, CLASSES):
            return model
        problems.setdefault(f"it returns {_described(outputs)}", []).append(shape_text(shape))
    raise SpecError(f"it declares no input, and gives (batch, {CLASSES}) logits for images of no shape: " + "; ".join(
        f"with {', '.join(shapes)} {problem}" for problem, shapes in problems.items()))


def _called(known: Builder, hp: Any = None) -> tuple[keras.Model, arguments.Arguments]:
    """As `Builder.call`, of which the first was checked to be a model."""
    from fmnist_zoo.backend import keras

    model, values = _run("its function", lambda: known.call(hp))
    if not isinstance(model, keras.Model):
        found = "None" if model is None else type(model).__qualname__
        raise SpecError(f"its function returns {found}, not a keras.Model" + "; is there a return?" * (model is None))
    return model, values


def _on_images(model: keras.Model, shape: tuple[int, ...]) -> Any:
    """What the model returns for `IMAGES` images of noise."""
    import numpy as np

    noise = np.random.default_rng(0).random((IMAGES, *shape), np.float32)
    return _run("a call on images", lambda: model(noise, training=False))


def _run(what: str, action: Callable[[], Any]) -> Any:
    """What the user's code returns; it may raise anything, which becomes one line."""
    try:
        return action()
    except SpecError:
        raise
    except Exception as error:
        text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras prints its messages in bold
        raise SpecError(f"{what} raises {type(error).__name__}: {' '.join(text.split())[:300]}") from error


def _check_variables(model: keras.Model) -> None:
    from fmnist_zoo.backend import keras

    for layer in (*model._flatten_layers(include_self=False), model):
        policy = layer.dtype_policy
        other = "float" in layer.compute_dtype and layer.compute_dtype != "float32"
        container = isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras.")  # computes nothing
        if (other or policy.quantization_mode) and not (container or isinstance(layer, keras.layers.InputLayer)):
            raise SpecError(f"its layer {layer.name} computes in {policy.quantization_mode or layer.compute_dtype}, "
                            "and the layers of a model are float32 here; give it no dtype, and do not quantize it "
                            "(to compute in bfloat16, train with --precision=mixed_bfloat16)")
    if not model.trainable_variables:
        raise SpecError("it has no variable that is trainable")
    for variable in model.weights:
        if "float" in variable.dtype and variable.dtype != "float32":
            raise SpecError(f"its variable {variable.path} is {variable.dtype}; weights are float32 "
                            "(--precision=mixed_bfloat16 computes in bfloat16, and keeps weights in float32)")


def _check_steps(model: keras.Model) -> None:
    """Refuses methods of the user's class that say what is trained, and that no trainer calls."""
    from fmnist_zoo.backend import keras

    own = [name for name in ("train_step", "compute_loss")
           if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own:
        raise SpecError(f"its class has {' and '.join(own)} of its own, which training would not call: the trainers "
                        "have steps of their own, and minimise the cross entropy; make it of a class without")


def _without_softmax(model: keras.Model) -> tuple[keras.Model, bool]:
    """The model without a softmax at its end, in a layer of its own or as the activation of the last one.

    Also whether there was one. What is last in a subclassed model, only its own code knows.
    """
    from fmnist_zoo.backend import keras

    outputs: Any = getattr(model, "outputs", None) or ()
    if len(outputs) != 1:
        return model, False
    last = outputs[0]._keras_history.operation
    if type(last).__name__ == "Softmax":  # the layer, or keras.ops.softmax
        return keras.Model(model.inputs[0], last.input, name=model.name), True
    dropped = getattr(last, "activation", None) is keras.activations.softmax
    if dropped:
        last.activation = keras.activations.linear
    return model, dropped


def _contrast(model: keras.Model) -> float:
    """The largest difference between the logits of a black image and of a white one."""
    import numpy as np

    from fmnist_zoo.backend import keras

    both = np.stack([np.zeros(input_shape(model), np.float32), np.ones(input_shape(model), np.float32)])
    black, white = keras.ops.convert_to_numpy(_run("a call on images", lambda: model(both, training=False)))
    return float(np.abs(white - black).max())


def _check_outputs(model: keras.Model, outputs: Any) -> None:
    """They are logits, not probabilities, for `IMAGES` images of noise."""
    if getattr(outputs, "shape", None) != (IMAGES, CLASSES):
        raise SpecError(f"it returns {_described(outputs)}; logits are (batch, {CLASSES}), one for each class")
    import numpy as np

    from fmnist_zoo.backend import keras

    logits = keras.ops.convert_to_numpy(outputs)
    if logits.dtype != np.float32:
        raise SpecError(f"it returns {logits.dtype}; give its last layer dtype='float32'")
    if not np.isfinite(logits).all():
        raise SpecError("it returns numbers that are not finite for images of noise")
    last = getattr(getattr(model.layers[-1], "activation", None), "__name__", "") if model.layers else ""
    sums_to_one = (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3)
    if sums_to_one or last in ("softmax", "sigmoid"):
        activation = last if last == "sigmoid" else "softmax"
        raise SpecError(f"it returns probabilities; return logits: drop the {activation} at its end")


def _described(outputs: Any) -> str:
    if isinstance(outputs, (list, tuple, dict)):
        return f"{len(outputs)} outputs"
    shape = getattr(outputs, "shape", None)
    return type(outputs).__qualname__ if shape is None else shape_text(("batch", *shape[1:]))


def shape_text(shape: Any) -> str:
    """`(28, 28, 1)`; a name, or None, stays as it is."""
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _summary(model: keras.Model) -> ModelSummary:
    trained, everything = (sum(math.prod(variable.shape) for variable in variables)
                           for variables in (model.trainable_variables, model.weights))
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lambda text, **options: lines.extend(text.splitlines()))
    return ModelSummary(input_shape(model), trained, everything - trained, tuple(lines))
