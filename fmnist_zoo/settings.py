"""One place for a setting: a dataclass field that carries its kind of value, its help and where it appears.

    learning_rate: float = setting(0.001, Number(low=SMALLEST), "step size of the optimizer", group=TRAINING)

From such fields of `ModelSpec`, `Recipe` and `trainers.config.RunConfig` everything else is generated: checks, flags,
`--help`, columns of TensorBoard's HParams tab, the names of `--space`, the signatures of `train` and `sweep`, names of
changed models. Standard library alone, because listings must not wait for imports.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import operator
import os
import re
from typing import Any, Iterable

from fmnist_zoo.errors import SpecError

MODEL, TRAINING, DATA, OUTPUT = "model", "training", "data", "output"  # groups of `--help`

SMALLEST, LARGEST = 2.0**-126, 2.0**128 - 2.0**104  # float32 above 0; smaller ones are flushed to 0

OTHER_WORDS = {  # for our names and values, in lower case: those of other libraries, and what people abbreviate
    "learning_rate": "lr rate step_size", "weight_decay": "wd decay", "batch_size": "bs batch minibatch_size",
    "epochs": "n_epochs num_epochs max_epochs", "optimizer": "opt optim momentum", "early_stopping": "patience",
    "validation_size": "validation_split val_split", "schedule": "scheduler lr_schedule",
    "clip_norm": "global_clipnorm grad_clip max_grad_norm", "label_smoothing": "smoothing ls",
    "ema": "use_ema ema_decay ema_momentum", "seed": "random_seed random_state", "precision": "amp dtype policy",
    "initial_weights": "pretrained finetune", "teacher": "distill distillation", "jit_compile": "xla jit",
    "hidden": "units layers widths hidden_units hidden_layers hidden_layer_sizes", "dropout": "drop rate p_drop",
    "activation": "act nonlinearity", "initializer": "init kernel_initializer",
    "normalization": "norm bn batchnorm batch_norm batch_normalization layernorm layer_norm layer_normalization",
    "l2": "kernel_regularizer", "batch": "batchnorm batch_norm batch_normalization bn", "layer": "layernorm layer_norm",
    "silu": "swish", "hard_silu": "hard_swish hardswish", "relu": "relu6 rectifier", "momentum": "sgdm nesterov",
    "glorot_uniform": "xavier xavier_uniform glorot", "glorot_normal": "xavier_normal", "he_normal": "kaiming_normal",
    "he_uniform": "kaiming_uniform kaiming he", "mixed_bfloat16": "bf16 bfloat16 fp16 float16 mixed_float16 mixed",
    "fashion_mnist": "fmnist fashion", "bayesian": "bayes", "val_loss": "validation_loss", "logdir": "logs output_dir",
    "val_accuracy": "acc accuracy val_acc validation_accuracy",
}


class Kind:
    """The values that a setting takes, in Python and as text."""

    @property
    def words(self) -> str:
        """What it takes, as an error message says it."""
        return "text"

    def check(self, name: str, value: Any) -> Any:
        """`value` in its one canonical form; `SpecError` if setting `name` cannot have it."""
        if not isinstance(value, (str, os.PathLike)):
            raise refuse(name, self, value)
        return os.fspath(value)

    def read(self, text: str) -> Any:
        """The value that `text` spells, not checked yet; `ValueError` if it spells none."""
        return text

    def write(self, value: Any) -> str:
        """The text that `read` turns back into `value`; valid in a folder's name."""
        return str(value)


def refuse(name: str, kind: Kind, received: Any) -> SpecError:
    """The error for a value that a setting cannot have."""
    text = " ".join(repr(received).split())  # of an array it has lines
    return SpecError(f"{name} must be {kind.words}, received {text:.80}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """'did you mean ...?' for a name or value that is none of `known`; empty if none of them is like it."""
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    typed = name.lower().replace("-", "_")
    meant = [ours for ours, others in OTHER_WORDS.items() if typed in others.split()]
    close = [typed] if typed in folded else [ours for ours in meant if ours in folded] if meant else \
        difflib.get_close_matches(typed, folded, n=3, cutoff=0.5)
    return f"did you mean {', '.join(folded[candidate] for candidate in close)}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The same; all known names if none is like it."""
    known = list(known)
    return suggestion(name, known) or f"known: {', '.join(known) or 'none'}"


def parse(name: str, kind: Kind, text: str) -> Any:
    """The checked value that `text` spells; `SpecError` if there is none."""
    try:
        value = kind.read(text)
    except ValueError:
        raise refuse(name, kind, text) from None
    return kind.check(name, value)


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A finite number in [low, high], and less than `below`.

    Training computes in float32: what that takes for infinity is refused. `low=SMALLEST` refuses what it takes for 0.
    """

    low: float = 0.0
    high: float = LARGEST
    below: float = math.inf

    @property
    def words(self) -> str:
        if self.below < math.inf:
            return f"a number in [{self.low:g}, {self.below:g})"
        if self.high < LARGEST:
            return f"a number in [{self.low:g}, {self.high:g}]"
        return "a float32 above 0" if self.low == SMALLEST else f"a float32 of at least {self.low:g}"

    def check(self, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise refuse(name, self, value) from None
        if isinstance(value, bool) or not self.low <= number <= self.high or number >= self.below:  # True for NaN
            raise refuse(name, self, value)
        return number

    def read(self, text: str) -> float:
        if "_" in text:  # Python reads 1_0 as 10
            raise ValueError(text)
        return float(text)


@dataclasses.dataclass(frozen=True)
class Whole(Kind):
    """An int in [low, below), or the one `word` that is allowed instead. A float or a bool is refused."""

    low: int = 0
    below: int = 2**31
    word: str = ""

    @property
    def words(self) -> str:
        bounds = f"of at least {self.low}" if self.below == 2**31 else f"in [{self.low}, {self.below})"
        return f"a whole number {bounds}" + (f", or {self.word}" if self.word else "")

    def check(self, name: str, value: Any) -> int | str:
        if self.word and isinstance(value, str) and value == self.word:
            return self.word
        try:
            number = operator.index(value)
        except TypeError:
            raise refuse(name, self, value) from None
        if number >= self.below:
            raise SpecError(f"{name} must be a whole number below {self.below}, received {value!r:.80}")
        if isinstance(value, bool) or number < self.low:
            raise refuse(name, self, value)
        return number

    def read(self, text: str) -> int | str:
        if text == self.word and self.word:
            return text
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise ValueError(text)
        return int(text)


@dataclasses.dataclass(frozen=True)
class Size(Number):
    """A share in [0, 1) or a whole number above 1."""

    words = "a share in [0, 1) or a whole number above 1"

    def check(self, name: str, value: Any) -> float:
        size = super().check(name, value)
        if size < 1:
            return size or 0
        if size == 1 or size != int(size):
            raise refuse(name, self, value)
        return int(size)


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of some words; `unwritten` are further ones, which no text spells: a function sets them."""

    values: tuple[str, ...]
    unwritten: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"one of {', '.join(self.values)}"

    def check(self, name: str, value: Any) -> str:
        if isinstance(value, str) and value in self.values + self.unwritten:
            return value
        hint = suggestion(value, self.values) if isinstance(value, str) else ""
        raise SpecError(f"{refuse(name, self, value)}{hint and '; ' + hint}")

    def read(self, text: str) -> str:
        if text in self.unwritten:
            raise ValueError(text)
        return text


@dataclasses.dataclass(frozen=True)
class Switch(Kind):
    """True or false."""

    words = "true or false"

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise refuse(name, self, value)
        return value

    def read(self, text: str) -> bool:
        return ("false", "true").index(text.lower()) == 1  # Python writes True

    def write(self, value: bool) -> str:
        return str(value).lower()


@dataclasses.dataclass(frozen=True)
class Automatic(Switch):
    """True, false, or "auto": as other settings suggest."""

    words = "auto, true or false"

    def check(self, name: str, value: Any) -> Any:
        return value if isinstance(value, str) and value == "auto" else super().check(name, value)

    def read(self, text: str) -> Any:
        return text if text == "auto" else super().read(text)


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """Any text, or a path."""


@dataclasses.dataclass(frozen=True)
class Each(Kind):
    """A tuple with one value for each hidden layer; a single value may be given without its tuple.

    As text `0.3,0.2,0.1` or `0.3_0.2_0.1` (commas separate the values of a sweep and the fields of a model's name), and
    `none` for the empty tuple.
    """

    of: Number | Whole

    @property
    def words(self) -> str:
        return f"{self.of.words}, or one for each hidden layer"

    def check(self, name: str, value: Any) -> tuple[Any, ...]:
        values = tuple(value) if hasattr(value, "__iter__") and not isinstance(value, str) else (value,)
        return tuple(self.of.check(name, one) for one in values)

    def read(self, text: str) -> tuple[Any, ...]:
        return () if text == "none" else tuple(self.of.read(part) for part in re.split("[,_]", text))

    def write(self, value: tuple[Any, ...]) -> str:
        return "_".join(map(self.of.write, value)) or "none"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one setting.

    Attributes:
        name: of the field, of the flag `--name`, of the column and in `--space`.
        default: without a recipe that says otherwise.
        group: its heading in `--help`: MODEL, TRAINING, DATA or OUTPUT.
        column: whether TensorBoard's HParams tab has a column for it, as it has for all that are searched.
        searched: whether a sweep can search it.
        decides: whether the numbers of an epoch depend on it. If so, a checkpoint belongs to one value of it.
    """

    name: str
    default: Any
    kind: Kind
    help: str
    group: str
    column: bool
    searched: bool
    decides: bool


def setting(default: Any, kind: Kind, help: str, *, group: str, column: bool = False, searched: bool = False,
            decides: bool = True) -> Any:
    """A dataclass field that is a setting; the arguments are the attributes of `Setting`."""
    known = dict(kind=kind, help=help, group=group, column=column or searched, searched=searched, decides=decides)
    return dataclasses.field(default=default, metadata={"setting": known})


@functools.cache
def settings_of(holder: type) -> dict[str, Setting]:
    """The settings of a dataclass by name, in the order of its fields."""
    return {field.name: Setting(field.name, field.default, **field.metadata["setting"])
            for field in dataclasses.fields(holder) if "setting" in field.metadata}


def check_settings(instance: Any) -> None:
    """Puts each setting of a frozen dataclass into its canonical form; for `__post_init__`."""
    holder: type = type(instance)
    for name, known in settings_of(holder).items():
        object.__setattr__(instance, name, known.kind.check(name, getattr(instance, name)))
