"""The teachers that a recipe names: finished runs, or trained models of the zoo. Imports TensorFlow."""

from __future__ import annotations

import os
from typing import Any, Callable

from trainers.config import ConfigError
from trainers.engine.network import Network
from trainers.running import trained


def load(names: str, recorded: list[dict[str, str]] | None) -> tuple[tuple[Callable[[Any], Any], ...],
                                                                     list[dict[str, str]]]:
    """The forward function of each teacher, and what a run's record says of them.

    Args:
        names: `teacher` of a recipe: absolute paths of runs' folders and names of models, separated by commas.
        recorded: what the record of the run that is resumed says; None for a new run.

    Raises:
        ConfigError: if the teachers are not those recorded.
    """
    found = [trained.load(**{"run" if os.path.isabs(name) else "model": name}) for name in names.split(",") if name]
    records = [{"title": one.title, "weights_sha256": one.weights_sha256} for one in found]
    if recorded is not None and recorded != records:
        raise ConfigError(f"the teachers have changed since this run began: they are {records}, recorded {recorded}; "
                          "put them back, or start a new run")
    return tuple(Network(one.model, one.spec).forward for one in found), records
