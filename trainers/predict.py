"""The command that says what is on pictures: `python -m trainers.predict shoe.jpg`.

`fmnist_zoo.predict` does the same from Python. The command also takes folders and the models of runs, and continues
after a broken file. TensorFlow is imported for the first file that can be read: mistakes are reported at once.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from fmnist_zoo import card
from fmnist_zoo.errors import UsageError
from fmnist_zoo.spec import CLASS_NAMES
from trainers import cli
from trainers.running import trained

USAGE = """
Says which garment is on each picture, with calibrated probabilities.

    python -m trainers.predict shoe.jpg shirts/
    python -m trainers.predict images.npy --json
    python -m trainers.predict shoe.jpg --run=tb_logs/4L/first
    python -m trainers.predict shoe.jpg --model=4L --model=4D_drop03

Takes PNG, JPEG, WebP, BMP and GIF of any size, one garment each on a plain ground; IDX and npy of 28x28 images; folders
of these. Several models are an ensemble: the mean of their probabilities. A file that cannot be read is one line on
standard error; all others are answered, and the exit code is 1.
"""
GROUPS = {"Which model": ("model", "run", "data_dir"), "How files are read": ("invert",),
          "What is printed": ("json",)}
MODEL = "4D_drop03"
BEST = 3  # classes printed for each image
HEAD = ("file", "label", "probability", "2nd", "probability", "3rd", "probability")


class Outcome(NamedTuple):
    """For each image of a file the best classes with their probabilities, most probable first; or an error."""

    file: str
    images: list[list[tuple[int, float]]]
    error: str = ""


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.texts("model", f"a model of the zoo, with the weights that come with it; default: {MODEL}; repeat it for an "
                 "ensemble")
    values.texts("run", "a finished run's folder: its model instead; repeat it for an ensemble")
    values.text("data_dir", "where the data are whose validation images calibrate a run or an ensemble; "
                "default: where the run had them")
    values.choice("invert", ("auto", "yes", "no"), "negate intensities: a model wants a bright garment on black; auto: "
                  "where the corners of a photograph are bright; IDX and npy stay as they are", "auto")
    values.switch("json", "print JSON instead of text")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("predict", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main, words=True,
                    any_backend=True)


class Source(NamedTuple):
    """The models whose predictions are averaged, and what divides their logits."""

    models: list[Any]
    temperature: float


def _main(values: cli.Flags, words: list[str]) -> int:
    runs, models = _check(values, words)
    from fmnist_zoo import photographs

    @functools.cache
    def source() -> Source:
        from trainers.publishing.measurement import DataSets, Ensemble, Measured

        members = [*map(trained.from_run, runs), *map(trained.from_zoo, models)]
        data_sets = DataSets(values.data_dir)
        measured = [Measured(member, data_sets) for member in members]
        together = Ensemble(measured) if len(measured) > 1 else measured[0]
        return Source([member.model for member in members], together.temperature)

    outcomes = []
    for file, error in photographs.expand(words):
        outcome = Outcome(file, [], error) if error else _look(file, values.invert, source)
        if outcome.error:
            print(f"predict: {card.printable(file)}: {card.printable(outcome.error)}", file=sys.stderr)
        outcomes.append(outcome)
    if values.json:
        print("[" + ",\n ".join(json.dumps(entry) for outcome in outcomes for entry in _entries(outcome)) + "]")
    elif rows := [row for outcome in outcomes for row in _rows(outcome)]:
        print(card.aligned([HEAD, *rows], numeric=("probability",)))
    return cli.FAILURE if any(outcome.error for outcome in outcomes) else 0


def _check(values: cli.Flags, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runs and models that are meant; refuses what can be refused before TensorFlow is imported."""
    if not words:
        raise UsageError("which files? python -m trainers.predict FILE... (see --help)")
    runs = list(dict.fromkeys(map(os.path.normpath, filter(None, values.run))))
    models = list(dict.fromkeys(values.model or ([] if runs else [MODEL])))
    if values.data_dir and not runs and len(models) == 1:
        raise UsageError(f"--data_dir={values.data_dir} is where the data are that calibrate a run or an ensemble; "
                         "drop it, or name a run")
    data = {path: trained.spec_and_data(run=path)[1] for path in runs}
    data.update({name: trained.spec_and_data(model=name)[1] for name in models})
    if len(data) > 1:
        trained.check_ensemble(data)
    return runs, models


def _look(file: str, invert: str, source: Callable[[], Source]) -> Outcome:
    """What the models see in a file, of which one block of images is in memory at a time."""
    import numpy as np

    from fmnist_zoo import photographs, prediction

    try:
        logits = np.concatenate([prediction.logits_of(source().models, photographs.as_pixels(block))
                                 for block in photographs.blocks(file, invert)])
    except photographs.PhotographError as error:
        return Outcome(file, [], str(error))
    best = np.argsort(-logits, axis=1, kind="stable")[:, :BEST]
    probabilities = prediction.from_logits(logits, source().temperature).probabilities
    shares = np.take_along_axis(probabilities, best, axis=1)
    return Outcome(file, [list(zip(*image)) for image in zip(best.tolist(), shares.tolist())])


def _entries(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """An object of the JSON for each image, or one with the error."""
    if outcome.error:
        yield {"file": outcome.file, "error": outcome.error}
    for index, ranked in enumerate(outcome.images):
        label, probability = ranked[0]
        top = [{"name": CLASS_NAMES[other], "probability": share} for other, share in ranked]
        yield {"file": outcome.file, "index": index, "label": label, "name": CLASS_NAMES[label],
               "probability": probability, f"top{BEST}": top}


def _rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """A file's part of the table: a row for each image."""
    for index, ranked in enumerate(outcome.images):
        name = outcome.file + (f"[{index}]" if len(outcome.images) > 1 else "")
        yield (name, *(cell for label, share in ranked for cell in (CLASS_NAMES[label], f"{share:.3f}")))


if __name__ == "__main__":
    sys.exit(main())
