"""What the teachers of a recipe say of images."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any, Callable, Sequence

from fmnist_zoo.files import cache_folder
from fmnist_zoo.spec import Recipe
from trainers.running.progress import Reporter
from trainers.running.trained import Trained


def of(recipe: Recipe, models: Sequence[Trained], images: Any, origin: Sequence[str], reporter: Reporter
       ) -> tuple[tuple[Callable[[Any], Any], ...], Any]:
    """A function from images (batch, 784) float32 to logits for each teacher, and their logits of all views.

    Those are None without `teacher_views`; else `distillation.logits_of_views`, kept in the cache, since it may take
    minutes. Imports TensorFlow.

    Args:
        models: the teachers.
        origin: what identifies `images`.
        reporter: is given a line before the computation begins.
    """
    from trainers.engine.network import Network

    forwards = tuple(Network(one.model, one.spec).forward for one in models)
    return forwards, _logits_of_views(recipe, forwards, models, images, origin, reporter)


def _logits_of_views(recipe: Recipe, forwards: Sequence[Callable[[Any], Any]], models: Sequence[Trained],
                     images: Any, origin: Sequence[str], reporter: Reporter) -> Any:
    if not recipe.teacher_views:
        return None
    from trainers.engine import distillation
    from trainers.running import checkpoints

    views = (2 * recipe.shift + 1) ** 2 * (1 + recipe.flip)
    key = json.dumps([[one.weights_sha256 for one in models], list(origin), recipe.shift, recipe.flip])
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
