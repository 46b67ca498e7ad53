"""The teachers that a recipe names: finished runs, or trained models of the zoo."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any, Callable, Sequence

from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import cache_folder
from fmnist_zoo.spec import Recipe
from trainers.config import ConfigError, teachers_of
from trainers.running import trained
from trainers.running.progress import Reporter


def check(names: str) -> None:
    """`ConfigError`, without TensorFlow, for teachers that are no trained model or whose run is not finished."""
    for name in teachers_of(names):
        try:
            trained.spec_and_data(**_argument(name))
        except ZooError as error:
            raise ConfigError(f"--teacher: {error}") from error


def load(names: str, recorded: list[dict[str, str]] | None) -> tuple[tuple[Callable[[Any], Any], ...],
                                                                     list[dict[str, str]]]:
    """The forward function of each teacher, and what a run's record says of them. Imports TensorFlow.

    Args:
        names: `teacher` of a recipe: absolute paths of runs' folders and names of models, separated by commas.
        recorded: what the record of the run that is resumed says; None for a new run.

    Raises:
        ConfigError: if the teachers are not those recorded.
        ZooError: if there is no such trained model, or its run is not finished.
    """
    from trainers.engine.network import Network

    found = [trained.load(**_argument(name)) for name in teachers_of(names)]
    records = [{"title": one.title, "weights_sha256": one.weights_sha256} for one in found]
    if recorded is not None and recorded != records:
        raise ConfigError(f"the teachers have changed since this run began: they are {records}, recorded {recorded}; "
                          "put them back, or start a new run")
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
