"""Says what is on pictures: `python -m trainers.predict shoe.jpg`.

From Python, `fmnist_zoo.predict` does the same for arrays. TensorFlow is imported when the first file that reads is to
be looked at, so that a mistake is told at once.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Sequence

from absl import flags

from fmnist_zoo import card
from fmnist_zoo.spec import CLASS_NAMES
from trainers import cli as command
from trainers.running import trained
from trainers.running.trained import Trained

if TYPE_CHECKING:
    import numpy as np

USAGE = """
Says which garment is on each picture, with calibrated probabilities.

    python -m trainers.predict shoe.jpg shirts/
    python -m trainers.predict images.npy --json
    python -m trainers.predict shoe.jpg --run=tb_logs/4L/first

Takes PNG, JPEG, WebP, BMP and GIF of any size, one garment each on a plain ground; IDX and npy of 28x28 images; folders
of these. A file that does not read is a line on standard error, and exit code 1 after all others were answered.
"""
GROUPS = {"Which model": ("model", "run", "data_dir"), "How files are read": ("invert",), "What is printed": ("json",)}
INVERT = ("auto", "yes", "no")
BEST = 3  # labels told of an image
HEAD = ("file", "label", "probability", "2nd", "probability", "3rd", "probability")


class Outcome(NamedTuple):
    """Of a file's images the best classes and their probabilities, both (n, 3), most probable first; or its error."""

    file: str
    best: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    error: str = ""


def define_flags() -> flags.FlagValues:
    """The command's flags, on a `FlagValues` of its own."""
    values = flags.FlagValues()
    flags.DEFINE_string("model", "4D_drop03", "a model of the zoo, with the weights that come with it",
                        flag_values=values)
    flags.DEFINE_string("run", None, "a finished run's folder: its model instead", flag_values=values)
    flags.DEFINE_string("data_dir", None, "where the data of --run are, whose validation images calibrate it; default: "
                        "where the run had them", flag_values=values)
    flags.DEFINE_enum("invert", "auto", INVERT, "negate intensities: a model wants a bright garment on black; auto: "
                      "where the corners of a photograph are bright; IDX and npy stay as they are", flag_values=values)
    flags.DEFINE_boolean("json", False, "print JSON instead of text", flag_values=values)
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return command.main("predict", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main,
                        words=True)


def _main(values: flags.FlagValues, files: list[str]) -> int:
    _check(values, files)
    from fmnist_zoo import photographs

    @functools.cache
    def model() -> Trained:
        return trained.calibrated(trained.named(run=values.run or "", model=values.model), values.data_dir)

    outcomes = []
    for path, wrong in photographs.found(files):
        try:
            if wrong:
                raise photographs.PhotographError(wrong)
            outcomes.append(_look(path, photographs.blocks(path, values.invert), model))
        except photographs.PhotographError as error:
            print(f"predict: {_shown(path)}: {_shown(str(error))}", file=sys.stderr)
            outcomes.append(Outcome(path, error=str(error)))
    if values.json:
        print("[" + ",\n ".join(json.dumps(entry) for outcome in outcomes for entry in _entries(outcome)) + "]")
    elif rows := [row for outcome in outcomes for row in _rows(outcome)]:
        print(card.aligned([HEAD, *rows], numeric=("probability",)))
    return command.FAILURE if any(outcome.error for outcome in outcomes) else 0


def _check(values: flags.FlagValues, files: Sequence[str]) -> None:
    """Refuses what can be refused before TensorFlow is imported."""
    given = command.given(values)
    if not files:
        raise command.UsageError("which files? python -m trainers.predict FILE... (see --help)")
    if {"run", "model"} <= given:
        raise command.UsageError(f"--run={values.run} and --model={values.model} both say which model; drop one")
    if "data_dir" in given and "run" not in given:
        raise command.UsageError(f"--data_dir={values.data_dir} is where the data of --run are; drop it, or name a run")
    trained.facts(run=values.run or "", model=values.model)


def _look(path: str, blocks: Iterator[np.ndarray], model: Callable[[], Trained]) -> Outcome:
    """What the model sees in a file, whose images are let go block by block."""
    import numpy as np

    logits = np.concatenate([_logits(model(), block) for block in blocks])
    from fmnist_zoo import prediction

    best = np.argsort(-logits, axis=1, kind="stable")[:, :BEST]
    probabilities = prediction.from_logits(logits, model().temperature or 1.0).probabilities
    return Outcome(path, best, np.take_along_axis(probabilities, best, axis=1))


def _logits(source: Trained, images: np.ndarray) -> np.ndarray:
    from fmnist_zoo import prediction

    return prediction.outputs_of(source.model, prediction.as_pixels(images))


def _ranked(outcome: Outcome) -> Iterator[list[tuple[int, float]]]:
    """Of each image the best classes with their probabilities."""
    if outcome.best is not None and outcome.probabilities is not None:
        for classes, probabilities in zip(outcome.best, outcome.probabilities):
            yield list(zip(classes.tolist(), probabilities.tolist()))


def _entries(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """A file's part of the JSON: an object an image, or one that says what was wrong."""
    if outcome.error:
        yield {"file": outcome.file, "error": outcome.error}
    for index, ranked in enumerate(_ranked(outcome)):
        label, probability = ranked[0]
        top = [{"name": CLASS_NAMES[other], "probability": share} for other, share in ranked]
        yield {"file": outcome.file, "index": index, "label": label, "name": CLASS_NAMES[label],
               "probability": probability, f"top{BEST}": top}


def _rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """A file's part of the table: a row an image."""
    for index, ranked in enumerate(_ranked(outcome)):
        name = _shown(outcome.file) + (f"[{index}]" if len(outcome.best) > 1 else "")  # type: ignore[arg-type]
        yield (name, *(cell for label, share in ranked for cell in (CLASS_NAMES[label], f"{share:.3f}")))


def _shown(text: str) -> str:
    """A name may hold line ends and what a terminal obeys; a line stays a line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


if __name__ == "__main__":
    sys.exit(main())
