"""What a model is and how it is trained, as plain data.

`ModelSpec` says what is built, `Recipe` how it is trained. Both are frozen and validate themselves, so that a wrong
value is refused where it is written, before anything heavy starts. This file imports the standard library alone: the
listings must answer in a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from fmnist_zoo.errors import ZooError

PIXELS = 28 * 28
CLASSES = 10
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
INITIALIZERS = ("glorot_uniform", "normal_0.05")
FULL_BATCH = "full"


class SpecError(ZooError, ValueError):
    """A model, a recipe or a name that cannot be: says what was received and what would do."""


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
}


def _number(field: str, value: Any, *, low: float = 0.0, below: float = math.inf) -> float:
    """`value` as a finite float in [low, below)."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise SpecError(f"{field} must be a number, received {value!r:.80}") from None
    if isinstance(value, bool) or not low <= number < below:  # NaN fails every comparison
        bounds = f"in [{low:g}, {below:g})" if below < math.inf else f"finite and at least {low:g}"
        raise SpecError(f"{field} must be {bounds}, received {value!r}")
    return number


def _whole(field: str, value: Any, *, low: int) -> int:
    """`value` as an int of at least `low`; a float or a bool is refused, so that 2.5 never becomes 2."""
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        number = None
    if number is None or isinstance(value, bool) or number < low:
        raise SpecError(f"{field} must be a whole number of at least {low}, received {value!r}")
    return int(number)


def _sequence(value: Any) -> tuple[Any, ...]:
    return tuple(value) if hasattr(value, "__iter__") and not isinstance(value, str) else (value,)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A fully-connected classifier: 784 pixels, ReLU layers `hidden`, 10 logits.

    Attributes:
        name: a folder's name; for a changed model it names the changes (see `registry.derive`).
        hidden: units of each hidden layer, first to last; empty for the softmax classifier.
        dropout: share of units dropped after each hidden layer; one rate serves all layers. Stored as one rate a
            layer, or as `()` where nothing is dropped.
        l1, l2: the objective is mean cross entropy + l1 * sum|W| + l2 * sum W^2 over all weight matrices, no bias.
        initializer: `glorot_uniform`, or `normal_0.05`: N(0, 0.05), deviation 0.05. Biases start at zero.
        description: one line.

    Raises:
        SpecError: for a value that no model can have.
    """

    name: str
    hidden: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    initializer: str = "glorot_uniform"
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]{0,199}", self.name):
            raise SpecError("a model's name is letters, digits and _.,=+-, at most 200 of them (it names a folder); "
                            f"received {self.name!r}")
        if not isinstance(self.description, str):
            raise SpecError(f"a description is one line of text, received {self.description!r}; "
                            "write hidden=(...) for the layers")
        hidden = tuple(_whole("hidden", units, low=1) for units in _sequence(self.hidden))
        rates = tuple(_number("dropout", rate, below=1.0) for rate in _sequence(self.dropout))
        rates_given = any(rates)
        if len(rates) == 1:
            rates *= len(hidden)
        if rates and len(rates) != len(hidden):
            raise SpecError(
                f"dropout needs one rate, or one for each of the {len(hidden)} hidden layers {list(hidden)}; "
                f"received {len(rates)}: {list(rates)}"
            )
        if not any(rates):
            if rates_given:
                raise SpecError(f"dropout comes after hidden layers, and there are none; received {self.dropout!r}")
            rates = ()
        if self.initializer not in INITIALIZERS:
            raise SpecError(f"initializer must be one of {', '.join(INITIALIZERS)}; received {self.initializer!r}")
        for field, value in (("hidden", hidden), ("dropout", rates), ("l1", _number("l1", self.l1)),
                             ("l2", _number("l2", self.l2))):
            object.__setattr__(self, field, value)

    @property
    def widths(self) -> tuple[int, ...]:
        """Units from the pixels to the logits."""
        return (PIXELS, *self.hidden, CLASSES)

    @property
    def weights(self) -> int:
        """Entries of all weight matrices."""
        return sum(fan_in * fan_out for fan_in, fan_out in zip(self.widths, self.widths[1:]))

    @property
    def parameters(self) -> int:
        """Trainable parameters: weight matrices and a bias vector a layer."""
        return self.weights + sum(self.widths[1:])

    @property
    def training_flops(self) -> int:
        """Floating-point operations of the matrix products, an image and a training step.

        Two a weight forward, four backward (gradients of weights and of inputs), less the gradient of the pixels,
        which nobody needs.
        """
        return 6 * self.weights - 2 * self.widths[0] * self.widths[1]

    @property
    def architecture(self) -> dict[str, Any]:
        """What tells two models apart: every field but the words."""
        return {field: getattr(self, field) for field in ("hidden", "dropout", "l1", "l2", "initializer")}

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; `ModelSpec(**spec.to_dict()) == spec`."""
        return {**dataclasses.asdict(self), "hidden": list(self.hidden), "dropout": list(self.dropout)}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained unless told otherwise.

    Attributes:
        epochs: passes over the fit images.
        batch_size: images a step, or "full" for all of them.
        optimizer: one of `OPTIMIZERS`.
        learning_rate: constant over the run.
        weight_decay: decoupled decay of the weight matrices, a step and unit of learning rate (AdamW's); 0 is off.
        validation_size: share of the training images (below 1) or their number held out; 0 holds out none.
        early_stopping: epochs without a better validation loss after which training ends; 0 is off.
        weights: which weights count in the end, "best" (lowest validation loss) or "last".
    """

    epochs: int = 30
    batch_size: int | str = 256
    optimizer: str = "adam"
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    validation_size: float = 0.1
    early_stopping: int = 0
    weights: str = "best"

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", _whole("epochs", self.epochs, low=1))
        if self.batch_size != FULL_BATCH:
            batch_size = _whole("batch_size (a number or 'full')", self.batch_size, low=1)
            object.__setattr__(self, "batch_size", batch_size)
        if self.optimizer not in OPTIMIZERS:
            raise SpecError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; received {self.optimizer!r}")
        object.__setattr__(self, "learning_rate", _number("learning_rate", self.learning_rate))
        if self.learning_rate == 0:
            raise SpecError("learning_rate must be above 0, received 0: nothing would be learned")
        object.__setattr__(self, "weight_decay", _number("weight_decay", self.weight_decay))
        size = _number("validation_size", self.validation_size)
        if size > 1 and size != int(size) or size == 1:
            raise SpecError(f"validation_size must be a share below 1 or a whole number of images above 1, "
                            f"received {self.validation_size!r}")
        object.__setattr__(self, "validation_size", int(size) if size > 1 or size == 0 else size)
        object.__setattr__(self, "early_stopping", _whole("early_stopping", self.early_stopping, low=0))
        if self.early_stopping and not self.validation_size:
            raise SpecError(f"early_stopping={self.early_stopping} watches the validation loss, and "
                            "validation_size=0 leaves none: drop the one or the other")
        if self.weights not in ("best", "last"):
            raise SpecError(f"weights must be 'best' or 'last', received {self.weights!r}")
