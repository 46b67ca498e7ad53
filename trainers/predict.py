"""The command that says what is on pictures: `python -m trainers.predict shoe.jpg`.

`fmnist_zoo.predict` does the same from Python. The command also takes folders and the models of runs, and continues
after a broken file. TensorFlow is imported for the first file that can be read: mistakes are reported at once.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any, Callable, Sequence

from fmnist_zoo import card
from fmnist_zoo.errors import UsageError
from fmnist_zoo.spec import CLASS_NAMES
from trainers import cli
from trainers.config import find_run
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
HEAD = ["file", "label", "probability", "2nd", "probability", "3rd", "probability"]


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.texts("model", f"a model of the zoo, with the weights that come with it; default: {MODEL}; repeat it for an "
                 "ensemble")
    values.paths("run", "a finished run, such as 4L/first: its model instead; repeat it for an ensemble")
    values.path("data_dir", "where the data are whose validation images calibrate a run or an ensemble; "
                "default: where the run had them")
    values.choice("invert", ("auto", "yes", "no"), "negate intensities: a model wants a bright garment on black; auto: "
                  "where the corners of a photograph are bright; IDX and npy stay as they are", "auto")
    values.switch("json", "print JSON instead of text")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("predict", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main, words=True,
                    any_backend=True)


def _main(values: cli.Flags, words: list[str]) -> int:
    runs, models = _check(values, words)

    @functools.cache
    def source() -> tuple[list[Any], float]:
        """The models whose predictions are averaged, and what divides their logits."""
        from trainers.publishing.measurement import DataSets, Ensemble, Measured

        data_sets, members = DataSets(values.data_dir), [*map(trained.from_run, runs), *map(trained.from_zoo, models)]
        measured = [Measured(member, data_sets) for member in members]
        together = Ensemble(measured) if len(measured) > 1 else measured[0]
        return [member.model for member in members], together.temperature

    from fmnist_zoo import photographs

    entries: list[dict[str, Any]] = []
    by, rows = " and ".join([*runs, *models]), [HEAD]
    for file, error in photographs.expand(words):
        found: list[dict[str, Any]] = [{"file": file, "error": error}] if error else _look(file, values.invert, source)
        entries += [entry if "error" in entry else {**entry, "model": by} for entry in found]
        for entry in found:
            if "error" in entry:
                print(f"predict: {card.printable(file)}: {card.printable(entry['error'])}", file=sys.stderr)
                continue
            if entry["doubt"]:
                print(f"predict: {card.printable(file)}: may show no garment: {entry['doubt']}", file=sys.stderr)
            rows.append([f"{file}[{entry['index']}]" if len(found) > 1 else file])
            for top in entry[f"top{BEST}"]:
                rows[-1] += [top["name"], f"{top['probability']:.3f}"]
    if values.json:
        print("[" + ",\n ".join(map(json.dumps, entries)) + "]")
    elif rows[1:]:
        print(f"model: {card.printable(by)}\n" + card.aligned(rows, numeric=("probability",)))
    return cli.FAILURE if any("error" in entry for entry in entries) else 0


def _check(values: cli.Flags, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runs and models that are meant; refuses what can be refused before TensorFlow is imported."""
    if not words:
        raise UsageError("which files? python -m trainers.predict FILE... (see --help)")
    runs = list(dict.fromkeys(map(find_run, filter(None, values.run))))
    models = list(dict.fromkeys(values.model or ([] if runs else [MODEL])))
    if values.data_dir and not runs and len(models) == 1:
        raise UsageError(f"--data_dir={values.data_dir} is where the data are that calibrate a run or an ensemble; "
                         "drop it, or name a run")
    data = {path: trained.spec_and_data(run=path)[1] for path in runs}
    data.update({name: trained.spec_and_data(model=name)[1] for name in models})
    if len(data) > 1:
        trained.check_ensemble(data)
    return runs, models


def _look(file: str, invert: str, source: Callable[[], tuple[list[Any], float]]) -> list[dict[str, Any]]:
    """What the models see in a file: a dict for each image."""
    import numpy as np

    from fmnist_zoo import photographs, prediction

    try:
        images = photographs.read(file, invert)
    except photographs.PhotographError as error:
        return [{"file": file, "error": str(error)}]
    logits = prediction.logits_of(source()[0], photographs.as_pixels(images))
    probabilities = prediction.from_logits(logits, source()[1]).probabilities
    entries, doubt = [], photographs.doubt(images[0]) if len(images) == 1 else ""
    for index, best in enumerate(np.argsort(-logits, axis=1, kind="stable")[:, :BEST].tolist()):
        top = [{"name": CLASS_NAMES[other], "probability": float(probabilities[index, other])} for other in best]
        entries.append({"file": file, "index": index, "label": best[0], **top[0], f"top{BEST}": top, "doubt": doubt})
    return entries


if __name__ == "__main__":
    sys.exit(main())
