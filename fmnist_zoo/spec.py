"""What a model is and how it is trained, as plain data.

`ModelSpec` says what is built, `Recipe` how it is trained. Both are frozen and check themselves, so that a wrong value
is refused where it is written, before anything heavy starts. Standard library alone, because listings must not wait.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Iterable

from fmnist_zoo import own
from fmnist_zoo.errors import SpecError
from fmnist_zoo.settings import (
    DATA,
    MODEL,
    TRAINING,
    Choice,
    Each,
    Number,
    Size,
    Whole,
    check_settings,
    setting,
    settings_of,
)

PIXELS = 28 * 28
CLASSES = 10
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FULL_BATCH = "full"


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


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A fully-connected classifier: 784 pixels, ReLU layers `hidden`, 10 logits.

    Attributes:
        name: the name of its folder; the name of a changed model lists the changes (see `registry.derive`).
        hidden: units of each hidden layer, first to last; empty for the softmax classifier.
        dropout: share of units dropped after each hidden layer. A single rate is repeated for all layers. Stored as one
            rate a layer, or as `()` if nothing is dropped.
        l1, l2: the objective is mean cross entropy + l1 * sum|W| + l2 * sum W^2 over all weight matrices, not biases.
        initializer: `glorot_uniform`, or `normal_0.05`: N(0, 0.05), deviation 0.05. Biases start at zero.
        build: of a model of the user's own, the function that builds it: "my_models:cnn". It has no other architecture.

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
    initializer: str = setting("glorot_uniform", Choice(("glorot_uniform", "normal_0.05")),
                               "how the weight matrices start", group=MODEL, searched=True)
    description: str = ""
    build: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]{0,199}", self.name):
            raise SpecError("a model's name has at most 200 letters, digits and _.,=+- (it names a folder); "
                            f"received {self.name!r}")
        if not isinstance(self.description, str):
            raise SpecError(f"a description is one line of text, received {self.description!r}; "
                            "write hidden=(...) for the layers")
        if not isinstance(self.build, str):
            raise SpecError(f"a spec's build names a function, such as my_models:cnn; received {self.build!r:.80}: "
                            "fmnist_zoo.register(name, build=function) makes the spec")
        check_settings(self)
        object.__setattr__(self, "dropout", self._rates())
        self.refuse_settings(name for name, known in settings_of(ModelSpec).items()
                             if getattr(self, name) != known.default)

    def refuse_settings(self, names: Iterable[str]) -> None:
        """`SpecError` for settings of the architecture, by `names`, if a function builds the model."""
        if self.build and (received := ", ".join(names)):
            raise SpecError(f"{self.name} is built by {own.readable(self.build)}; it has no {received} to set")

    @property
    def facts(self) -> own.Facts:
        """What is known of a model that a function builds; `SpecError` if it cannot be built."""
        builder = own.builder(self.name, self.build)
        found = own.facts(builder)
        if found is None:
            from fmnist_zoo import building  # imports NumPy and TensorFlow

            found = building.facts(builder)
        return found

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
    def widths(self) -> tuple[int, ...]:
        """Units from the pixels to the logits; not of a model that a function builds."""
        return (PIXELS, *self.hidden, CLASSES)

    @property
    def weight_count(self) -> int:
        """Entries of all weight matrices."""
        return sum(fan_in * fan_out for fan_in, fan_out in zip(self.widths, self.widths[1:]))

    @property
    def parameters(self) -> int:
        """Trainable parameters: weight matrices and a bias vector a layer."""
        if self.build:
            return self.facts.parameters
        return self.weight_count + sum(self.widths[1:])

    @property
    def training_flops(self) -> int:
        """Floating-point operations of the matrix products, an image and a training step.

        Two a weight forward, four backward (gradients of weights and of inputs), less the gradient of the pixels, which
        is not computed. Of a model that a function builds: as `own.Facts` says.
        """
        if self.build:
            return self.facts.training_flops
        return 6 * self.weight_count - 2 * self.widths[0] * self.widths[1]

    @property
    def architecture(self) -> dict[str, Any]:
        """Every field but name and description."""
        return {field: value for field, value in vars(self).items()
                if field not in ("name", "description") and (value or field != "build")}

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `ModelSpec(**spec.to_dict()) == spec`."""
        fields = {**dataclasses.asdict(self), "hidden": list(self.hidden), "dropout": list(self.dropout)}
        return {name: value for name, value in fields.items() if value or name != "build"}


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
    learning_rate: float = setting(0.001, Number(above=0.0), "constant over the run", group=TRAINING, searched=True)
    weight_decay: float = setting(0.0, Number(), "decoupled decay of the weight matrices (AdamW's)", group=TRAINING,
                                  searched=True)
    validation_size: float = setting(0.1, Size(), "share, or number, of the training images held out (default 0.1)",
                                     group=DATA)
    early_stopping: int = setting(0, Whole(), "epochs without a better validation loss after which the run ends; 0: "
                                  "never", group=TRAINING)
    weights: str = setting("best", Choice(("best", "last")), "the weights that count in the end: of the lowest "
                           "validation loss, or the last", group=TRAINING)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.early_stopping and not self.validation_size:
            raise SpecError(f"early_stopping={self.early_stopping} watches the validation loss, and "
                            "validation_size=0 leaves none: drop one of the two")
