"""The teachers that a recipe names: finished runs, or trained models of the zoo."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import cache_folder
from fmnist_zoo.spec import Recipe
from trainers.config import ConfigError, teachers_of
from trainers.running import trained
from trainers.running.progress import Reporter

if TYPE_CHECKING:
    from fmnist_zoo.data import Data


def check(names: str) -> None:
    """`ConfigError`, without TensorFlow, for teachers that are no trained model or whose run is not finished."""
    for name in teachers_of(names):
        try:
            trained.spec_and_data(**_argument(name))
        except ZooError as error:
            raise ConfigError(f"--teacher: {error}") from error


def notes(names: Sequence[str], data: Mapping[str, str]) -> list[str]:
    """What to tell the user, without TensorFlow, of teachers that may know images which validate the trials of a sweep.

    Args:
        names: `teacher` of each recipe.
        data: `sha256` and `split_sha256` of the data of the sweep.
    """
    found = {name: trained.spec_and_data(**_argument(name))[1] for text in names for name in teachers_of(text)}
    return [_may_know(name) for name, known in found.items() if any(known[key] != data[key] for key in data)]


def _may_know(teacher: str) -> str:
    return (f"teacher {teacher} was trained on other data, or with other images held out: it may have learned images "
            "that validate its student, whose validation scores are then too good")


def load(names: str, recorded: list[dict[str, Any]] | None, data: Data, reporter: Reporter
         ) -> tuple[tuple[Callable[[Any], Any], ...], list[dict[str, Any]]]:
    """The forward function of each teacher, and what a run's record says of them. Imports TensorFlow.

    Args:
        names: `teacher` of a recipe: absolute paths of runs' folders and names of models, separated by commas.
        recorded: what the record of the run that is resumed or replayed says; None for a new run.
        data: those of the run.
        reporter: is given a line for each teacher that may know images which validate the run.

    Returns:
        Functions from images to logits, and a record for each: `title`, `weights_sha256`, and `same_split`, whether it
        was trained on the same images, with the same ones held out.

    Raises:
        ConfigError: if the teachers are not those recorded.
        ZooError: if there is no such trained model, or its run is not finished.
    """
    from trainers.engine.network import Network

    found = [trained.load(**_argument(name)) for name in teachers_of(names)]
    records: list[dict[str, Any]] = []
    for one in found:
        same = one.data.get("sha256") == data.sha256 and one.data["split_sha256"] == data.split_sha256
        records.append({"title": one.title, "weights_sha256": one.weights_sha256, "same_split": same})
        if not same and len(data["validation"].labels):
            reporter.note(_may_know(one.title))
    for name in ("title", "weights_sha256"):
        now, before = [one[name] for one in records], [one[name] for one in recorded or records]
        if now != before:
            raise ConfigError(f"the teachers have changed since the recorded run began: {name} {', '.join(now)}, "
                              f"recorded {', '.join(before)}; put them back, or name those of a new run by --teacher")
    return tuple(Network(one.model, one.spec).forward for one in found), records


def logits_of_views(recipe: Recipe, forwards: Sequence[Callable[[Any], Any]], records: list[dict[str, str]],
                    images: Any, origin: Sequence[str], reporter: Reporter) -> Any:
    """`distillation.logits_of_views` of a recipe, kept in the cache, since it may take minutes; None without.

    Args:
        records: of the teachers, as `load` returns them.
        origin: what identifies `images`.
        reporter: is given a line before the computation begins.
    """
    if not recipe.teacher_views:
        return None
    from trainers.engine import distillation
    from trainers.running import checkpoints

    views = (2 * recipe.shift + 1) ** 2 * (1 + recipe.flip)
    key = json.dumps([[one["weights_sha256"] for one in records], list(origin), recipe.shift, recipe.flip])
    path = cache_folder() / "teachers" / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"
    if path.exists():
        with contextlib.suppress(checkpoints.CheckpointError):  # damaged: computed once more
            return checkpoints.load(path)[0]["logits"]
    reporter.note(f"computing the logits of {len(forwards)} teacher{'s' * (len(forwards) > 1)} for {views} views of "
                  f"{len(images)} images; they are kept in {path.parent}")
    found = distillation.logits_of_views(forwards, images, shift=recipe.shift, flip=recipe.flip)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.save(path, {"logits": found}, {})
    return found


def _argument(name: str) -> dict[str, str]:
    return {"run" if os.path.isabs(name) else "model": name}
