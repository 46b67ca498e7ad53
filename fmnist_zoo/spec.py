"""What a model is and how it is trained, as plain data.

`ModelSpec` says what is built, `Recipe` how it is trained. Both are frozen and check themselves, so that a wrong value
is refused where it is written, before anything heavy starts. Standard library alone, because listings must not wait.
"""

from __future__ import annotations

import dataclasses
import hashlib
import operator
import re
from typing import Any, Iterable, Mapping

from fmnist_zoo import custom, local
from fmnist_zoo.arguments import Arguments, canonical, label
from fmnist_zoo.errors import SpecError
from fmnist_zoo.settings import (
    DATA,
    MODEL,
    SMALLEST,
    TRAINING,
    Choice,
    Each,
    Number,
    Size,
    Switch,
    Text,
    Whole,
    check_settings,
    setting,
    settings_of,
)

PIXELS = 28 * 28
CLASSES = 10
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FULL_BATCH = "full"
ARRAYS = "arrays"  # the data of a run whose images were given in Python; no file holds them
BUILT = ("build", "arguments")  # fields of a model of the user's alone
LONGEST_FOLDER = 200  # file systems take names of 255 bytes, and files beside it have longer ones
DENSE, ACTIVATION, DROPOUT = "dense", "activation", "dropout"  # kinds of layers
BATCH_NORM, LAYER_NORM = "batch", "layer"  # normalization over the batch, or over the units of a layer
ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "hard_silu", "mish", "softplus", "tanh", "sigmoid")
LOCAL = "local"
INITIALIZERS = ("glorot_uniform", "normal_0.05", "glorot_normal", "he_normal", "he_uniform", "lecun_normal", LOCAL)


@dataclasses.dataclass(frozen=True)
class OptimizerDefaults:
    """The class in `keras.optimizers`, and what a run uses if the optimizer is chosen without these settings."""

    keras_class: str
    learning_rate: float = 0.001
    weight_decay: float = 0.0


OPTIMIZERS = {
    "adam": OptimizerDefaults("Adam"),
    "sgd": OptimizerDefaults("SGD", learning_rate=0.01),
    "momentum": OptimizerDefaults("SGD", learning_rate=0.01),
    "rmsprop": OptimizerDefaults("RMSprop"),
    "adagrad": OptimizerDefaults("Adagrad"),
    "adamax": OptimizerDefaults("Adamax"),
    "adamw": OptimizerDefaults("AdamW", weight_decay=0.004),
    "nadam": OptimizerDefaults("Nadam"),
    "lion": OptimizerDefaults("Lion"),
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer as plain data: it is built, counted, named in files and shown by this.

    Attributes:
        name: in the Keras model; its weights are stored under it.
        kind: DENSE, ACTIVATION, DROPOUT, BATCH_NORM or LAYER_NORM.
        fan_in, units: entries of its input and of its output, an image.
        index: of its block; 0 for the first hidden layer. Initial weights and dropout masks follow from it.
        activation: what a dense layer applies to its output, or an activation layer to its input; empty for nothing.
        rate: of dropout.
    """

    name: str
    kind: str
    fan_in: int
    units: int
    index: int
    activation: str = ""
    rate: float = 0.0

    @property
    def parameters(self) -> int:
        """Numbers that gradients change: kernel and bias, or scale and offset."""
        if self.kind == DENSE:
            return (self.fan_in + 1) * self.units
        return 2 * self.units if self.kind in (BATCH_NORM, LAYER_NORM) else 0

    @property
    def fixed(self) -> int:
        """Numbers that gradients do not change: a moving mean and variance."""
        return 2 * self.units if self.kind == BATCH_NORM else 0


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A fully-connected classifier: 784 pixels, hidden layers, 10 logits.

    Dense layers have a kernel and a bias. Hidden layer i maps x to dropout(activation(normalization(dense_i(x)))),
    where each of the three is the identity if the spec has none: normalized before the activation, as Ioffe and
    Szegedy (2015) do. The logits are a dense layer of the last x.

    Attributes:
        name: that of a changed model lists the changes (see `registry.derive`).
        hidden: units of each hidden layer, first to last; empty for the softmax classifier.
        dropout: share of units dropped in each hidden layer. A single rate is repeated for all layers. Stored as one
            rate a layer, or as `()` if nothing is dropped.
        l1, l2: the objective is mean cross entropy + l1 * sum|W| + l2 * sum W^2 over the kernels of all dense layers
            that are trained, and over nothing else.
        initializer: of these kernels: `normal_0.05` is N(0, 0.05), deviation 0.05; `local` is `he_normal`, and in
            hidden layers zero but near a unit's place in the image (`fmnist_zoo.local`); the others are Keras'. Biases
            start at zero.
        activation: Keras' function of that name; the slope of `leaky_relu` is 0.2, and `gelu` is the exact one.
        normalization: `batch` (momentum 0.9) or `layer`, both with epsilon 1e-5, a scale and an offset.
        build: the function that builds a model of the user's own, "my_models:cnn"; of the model, the spec says nothing
            more than
        arguments: which the function is given, plain values by name. They are stored in pairs, in the order of the
            names; a mapping is taken, too.

    Raises:
        SpecError: for a value that no model can have.
    """

    name: str
    hidden: tuple[int, ...] = setting(
        (), Each(Whole(low=1)), "units of the hidden layers, such as 300,100; none for no hidden layer", group=MODEL,
        searched=True)
    dropout: tuple[float, ...] = setting(
        (), Each(Number(below=1.0)), "share dropped after each hidden layer: one rate, or one a layer such as "
        "0.3,0.2,0.1", group=MODEL, searched=True)
    l1: float = setting(0.0, Number(), "factor of the sum of |W| in the objective", group=MODEL, searched=True)
    l2: float = setting(0.0, Number(), "factor of the sum of W^2 in the objective", group=MODEL, searched=True)
    initializer: str = setting("glorot_uniform", Choice(INITIALIZERS), "how the weight matrices start", group=MODEL,
                               searched=True)
    activation: str = setting("relu", Choice(ACTIVATIONS), "of the hidden layers", group=MODEL, searched=True)
    normalization: str = setting("none", Choice(("none", BATCH_NORM, LAYER_NORM)), "before the activation", group=MODEL,
                                 searched=True)
    description: str = ""
    build: str = ""
    arguments: Arguments = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]{0,999}", self.name):
            raise SpecError("a model's name has at most 1000 letters, digits and _.,=+- (it names a folder); "
                            f"received {self.name!r}")
        if not isinstance(self.description, str):
            raise SpecError(f"a description is one line of text, received {self.description!r}; "
                            "write hidden=(...) for the layers")
        if not isinstance(self.build, str):
            raise SpecError(f"a spec's build names a function, such as my_models:cnn; received {self.build!r:.80}: "
                            "fmnist_zoo.register(name, build=function) makes the spec")
        check_settings(self)
        object.__setattr__(self, "arguments", canonical(self.arguments))
        if self.arguments and not self.build:
            raise SpecError(f"arguments are for a function that builds the model, and {self.name} has none")
        object.__setattr__(self, "dropout", self._rates())
        self.refuse_settings(name for name, known in settings_of(ModelSpec).items()
                             if getattr(self, name) != known.default)
        if self.initializer == LOCAL:
            local.sides(self.hidden)
        for name in ("activation", "normalization") if not self.hidden else ():
            value, known = getattr(self, name), settings_of(ModelSpec)[name]
            if value != known.default:  # a name must say what is built
                raise SpecError(f"{name}={known.kind.write(value)} is for hidden layers, and there are none")

    def refuse_settings(self, names: Iterable[str]) -> None:
        """`SpecError` for settings of the architecture, by `names`, if a function builds the model."""
        if self.build and (received := list(names)):
            own = [label(name) for name in received if self.builder.takes(label(name))]
            raise SpecError(f"{self.name} is built by {custom.readable(self.build)}; it has no {', '.join(received)} "
                            "to set" + f"; an argument of its function is called {', '.join(own)}" * bool(own))

    @property
    def builder(self) -> custom.Builder:
        """The function that builds it, with its arguments; `SpecError` as `custom.builder`."""
        return custom.builder(self.name, self.build).given(self.arguments)

    @property
    def modules(self) -> dict[str, str]:
        """SHA-256 of the source, by name, of the user's modules that build it; `SpecError` as `custom.builder`."""
        return self.builder.modules if self.build else {}

    @property
    def summary(self) -> custom.ModelSummary | None:
        """Layers and parameters of a model that a function builds; None if this process has not built it, unless it
        was registered with a summary."""
        return self.builder.summary if self.build else None

    def _built(self) -> custom.ModelSummary:
        """The same, for which the model is built if it was not yet; `SpecError` if it cannot be trained."""
        if self.builder.summary is None:
            custom.build(self.builder, seed=0)  # imports NumPy and TensorFlow
        assert self.builder.summary
        return self.builder.summary

    def _rates(self) -> tuple[float, ...]:
        """One dropout rate for each hidden layer; `()` if nothing is dropped."""
        rates = self.dropout * len(self.hidden) if len(self.dropout) == 1 else self.dropout
        if any(self.dropout) and not self.hidden:
            raise SpecError(f"dropout follows hidden layers, and there are none; received {list(self.dropout)}")
        if rates and len(rates) != len(self.hidden):
            raise SpecError(f"dropout needs one rate, or one for each of the {len(self.hidden)} hidden layers "
                            f"{list(self.hidden)}; received {len(rates)}: {list(rates)}")
        return rates if any(rates) else ()

    @property
    def folder(self) -> str:
        """The name of its folder and of its files: its name, cut and made unique by a digest where it is too long."""
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:12]
        return self.name if len(self.name) <= LONGEST_FOLDER else f"{self.name[:LONGEST_FOLDER - 13]}-{digest}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Units from the pixels to the logits; not of a model that a function builds."""
        return (PIXELS, *self.hidden, CLASSES)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What is built, from the pixels to the logits; not of a model that a function builds."""
        found = []
        for index, (fan_in, units) in enumerate(zip(self.widths, self.hidden)):
            number, normalized = index + 1, self.normalization != "none"
            found.append(Layer(f"dense_{number}", DENSE, fan_in, units, index, "" if normalized else self.activation))
            if normalized:
                found += [Layer(f"norm_{number}", self.normalization, units, units, index),
                          Layer(f"activation_{number}", ACTIVATION, units, units, index, self.activation)]
            if self.dropout and self.dropout[index]:
                found.append(Layer(f"dropout_{number}", DROPOUT, units, units, index, rate=self.dropout[index]))
        return (*found, Layer("logits", DENSE, self.widths[-2], CLASSES, len(self.hidden)))

    @property
    def parameters(self) -> int:
        """Parameters that gradients change: weight matrices, biases, scales and offsets of normalization.

        A model that a function builds is built to count them, unless this process did so before: see `summary`.
        """
        return self._built().parameters if self.build else sum(layer.parameters for layer in self.layers)

    @property
    def fixed_parameters(self) -> int:
        """Stored numbers that gradients do not change: moving statistics of normalization."""
        return self._built().fixed if self.build else sum(layer.fixed for layer in self.layers)

    @property
    def training_flops(self) -> int:
        """Floating-point operations of the matrix products, an image and a training step.

        Two a weight forward, four backward (gradients of weights and of inputs), less the gradient of the pixels, which
        is not computed. 0 for a model that a function builds: it is not counted.
        """
        if self.build:
            return 0
        first, *others = map(operator.mul, self.widths, self.widths[1:])
        return 4 * first + 6 * sum(others)

    @property
    def architecture(self) -> dict[str, Any]:
        """Every field but name and description."""
        return {field: value for field, value in vars(self).items()
                if field not in ("name", "description") and (value or field not in BUILT)}

    def get_config(self) -> dict[str, Any]:
        """Its fields, for JSON; `from_config` is the inverse."""
        fields = {**vars(self), "hidden": list(self.hidden), "dropout": list(self.dropout),
                  "arguments": dict(self.arguments)}
        return {name: value for name, value in fields.items() if value or name not in BUILT}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `get_config`; `SpecError` for a field that there is not."""
        return cls(**_fields(cls, config))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained unless a run says otherwise; `SpecError` for a value that no recipe can have.

    `weight_decay` is for each step and unit of learning rate.
    """

    epochs: int = setting(30, Whole(low=1), "passes over the fit images", group=TRAINING, searched=True, decides=False)
    batch_size: int | str = setting(256, Whole(low=1, word=FULL_BATCH), "images an update, or full", group=TRAINING,
                                    searched=True)
    optimizer: str = setting("adam", Choice(tuple(OPTIMIZERS)), "a new one comes with Keras' learning rate for it",
                             group=TRAINING, searched=True)
    learning_rate: float = setting(0.001, Number(low=SMALLEST), "constant over the run, or the highest of --schedule",
                                   group=TRAINING, searched=True)
    weight_decay: float = setting(0.0, Number(), "decoupled decay of the weight matrices (AdamW's)", group=TRAINING,
                                  searched=True)
    validation_size: float = setting(0.1, Size(), "share, or number, of the training images held out (default 0.1)",
                                     group=DATA)
    early_stopping: int = setting(0, Whole(), "epochs without a better validation loss after which the run ends; 0: "
                                  "never", group=TRAINING)
    schedule: str = setting("constant", Choice(("constant", "cosine", "linear", "one_cycle", "step")),
                            "the learning rate over the run; step: a tenth from half, a hundredth from three quarters",
                            group=TRAINING, searched=True)
    warmup: float = setting(0.0, Number(below=1.0), "share of all updates over which the learning rate grows from zero",
                            group=TRAINING, searched=True)
    schedule_epochs: int = setting(0, Whole(), "epochs of the whole schedule; 0: those of the run, which may train a "
                                   "first part of it", group=TRAINING, searched=True)
    label_smoothing: float = setting(0.0, Number(below=1.0), "share of a label that is spread over all classes, in "
                                     "what is minimised alone", group=TRAINING, searched=True)
    ema: float = setting(0.0, Number(below=1.0), "decay of an exponential mean of the weights, such as 0.999, which is "
                         "then what is validated and kept", group=TRAINING, searched=True)
    clip_norm: float = setting(0.0, Number(), "largest norm of all gradients together; 0: any", group=TRAINING,
                               searched=True)
    shift: int = setting(0, Whole(below=28), "pixels by which each training image is shifted at most, both ways",
                         group=TRAINING, searched=True)
    flip: bool = setting(False, Switch(), "mirror half of the training images, left to right", group=TRAINING,
                         searched=True)
    erase: int = setting(0, Whole(below=29), "side of a square that is erased in each training image", group=TRAINING,
                         searched=True)
    mixup: float = setting(0.0, Number(), "mix training images in pairs, by shares of Beta(mixup, mixup)",
                           group=TRAINING, searched=True)
    initial_weights: str = setting("", Text(), "those of a finished run (its folder) or of a model that comes "
                                   "with weights; convolutions become dense layers", group=TRAINING)
    teacher: str = setting("", Text(), "a finished run's folder, or a trained model's name, whose probabilities the "
                           "model learns too; several separated by commas: their mean", group=TRAINING, searched=True)
    teacher_weight: float = setting(0.5, Number(high=1.0), "share of the teacher's part in the loss",
                                    group=TRAINING, searched=True)
    teacher_temperature: float = setting(2.0, Number(low=SMALLEST), "divides both logits in the teacher's part",
                                         group=TRAINING, searched=True)
    weights: str = setting("best", Choice(("best", "last")), "the weights that count in the end: of the lowest "
                           "validation loss, or the last", group=TRAINING)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.early_stopping and not self.validation_size:
            raise SpecError(f"early_stopping={self.early_stopping} watches the validation loss, and "
                            "validation_size=0 leaves none: drop one of the two")
        for name in ("teacher_weight", "teacher_temperature"):
            value, known = getattr(self, name), settings_of(Recipe)[name]
            if not self.teacher and value != known.default:
                raise SpecError(f"{name}={known.kind.write(value)} is for a teacher, and there is none: name one with "
                                "--teacher, or drop it")
        if self.horizon and self.epochs > self.horizon:
            raise SpecError(f"epochs={self.epochs} goes past the end of the learning rate's schedule, "
                            f"schedule_epochs={self.schedule_epochs}: train fewer epochs, or start a new run with "
                            "more of both")

    @property
    def horizon(self) -> int:
        """Epochs over which the learning rate varies: `schedule_epochs`, or all; 0 for a constant rate."""
        varies = self.schedule != "constant" or self.warmup > 0
        return (self.schedule_epochs or self.epochs) if varies else 0

    def get_config(self) -> dict[str, Any]:
        """Its fields, for JSON; `from_config` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recipe:
        """The inverse of `get_config`; `SpecError` for a field that there is not."""
        return cls(**_fields(cls, config))


def _fields(kind: type[ModelSpec] | type[Recipe], config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in a config; `SpecError` for one that there is not."""
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := [name for name in config if name not in known]:
        raise SpecError(f"a {kind.__name__} has no {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    return dict(config)
