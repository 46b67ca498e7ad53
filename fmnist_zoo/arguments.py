"""Arguments of a function that builds a model: plain values by name, and how both are written as text.

A function takes keyword arguments with a number, a text or a bool as default, or `hp`, as keras-tuner's functions do.
Names and values go into names of models, which are names of folders, and into spaces of sweeps. Standard library alone.
"""

from __future__ import annotations

import inspect
import math
import re
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from fmnist_zoo.errors import SpecError
from fmnist_zoo.settings import LARGEST, Kind, Number, Switch, Text, Whole

if TYPE_CHECKING:
    import keras

Scalar = bool | int | float | str
Arguments = tuple[tuple[str, Scalar], ...]  # names and values, in the order of the names

# Settings of a run, further columns of TensorBoard's HParams tab and of a sweep's table, entries of its record of the
# best trial, and what `train` and `sweep` take beside settings. A test compares.
RESERVED = frozenset("""
    hidden dropout l1 l2 initializer activation normalization
    epochs batch_size optimizer learning_rate weight_decay validation_size early_stopping schedule warmup
    schedule_epochs label_smoothing ema clip_norm shift flip erase mixup initial_weights teacher teacher_weight
    teacher_temperature weights
    trainer precision jit_compile seed threads data data_dir allow_other_data checkpoint_every histogram_every ranking
    model build sweep trial objective objective_std trained_epochs seconds status reason rank values config retrain
    logdir run_name name verbose on_epoch callbacks space tuner max_trials factor executions start workers scheduler
    tls_ca tls_cert tls_key trust_network max_failures overwrite page settings
""".split())
PREFIX = "hp."  # of the label of an argument whose name is reserved
_INTEGER, _FLOAT = re.compile("-?[0-9]+"), re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def of_function(function: Callable[..., keras.Model]) -> tuple[bool, dict[str, Scalar]]:
    """Whether a function takes `hp`, and the defaults of its other arguments that are plain values.

    Raises:
        TypeError, ValueError: if it has no signature, or further arguments without a default.
    """
    signature = inspect.signature(function)
    first = next(iter(signature.parameters.values()), None)
    takes_hp = first is not None and first.name == "hp" and first.default is first.empty
    signature.bind(*[None] * takes_hp)
    return takes_hp, {name: known.default for name, known in signature.parameters.items()
                      if isinstance(known.default, Scalar) and known.kind is not known.POSITIONAL_ONLY}


def canonical(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Arguments:
    """Arguments in their one form; `SpecError` for values that are not plain."""
    try:
        found = dict(values)
    except (TypeError, ValueError):
        raise SpecError(f"arguments are values by name, such as {{'units': 64}}; received {values!r:.80}") from None
    for name, value in found.items():
        value = found[name] = value.item() if hasattr(value, "item") else value  # of NumPy
        if not isinstance(name, str) or not isinstance(value, Scalar) or \
                isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"an argument has a name, and is a finite number, a text or a bool; received {name!r:.80}: "
                            f"{value!r:.80}")
    return tuple(sorted(found.items()))


def kind_of(value: Scalar) -> Kind:
    """The values that an argument takes which has this one."""
    if isinstance(value, bool):
        return Switch()
    if isinstance(value, int):
        return Whole(low=-2**31)
    return Number(low=-LARGEST) if isinstance(value, float) else Text()


def label(name: str) -> str:
    """The name of an argument in names of models, spaces, tables and HParams: its own, unless that is reserved."""
    return PREFIX + name if name.partition(".")[0] in RESERVED or name.startswith(PREFIX) else name


def name_of(label: str) -> str:
    """The argument with a label."""
    return label.removeprefix(PREFIX)


def write(value: Scalar) -> str:
    """The text that `read` turns back into `value`, with the letters of a folder's name."""
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    text = escaped(value)
    if value and isinstance(read(text), str):
        return text
    return f"+{ord(value[0]):02x}{text[1:]}" if value else "+"  # a text that would read as a number


def read(text: str) -> Scalar:
    """The value that a text spells: a whole number, a number, true or false, or else the text."""
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else unescaped(text)


def escaped(text: str) -> str:
    """With `+` and two hexadecimal digits for each byte that a folder's name, or a list, must not have."""
    return re.sub("[^A-Za-z0-9_.-]", lambda found: "".join(f"+{byte:02x}" for byte in found[0].encode()), text)


def unescaped(text: str) -> str:
    """The inverse of `escaped`."""
    parts = re.split("((?:[+][0-9a-f]{2})+)", text)
    return "".join(bytes.fromhex(part.replace("+", "")).decode(errors="replace") if index % 2 else part
                   for index, part in enumerate(parts)) if text != "+" else ""
