"""The teachers that a recipe names: finished runs, or trained models of the zoo."""

from __future__ import annotations

import os
from typing import Any, Callable

from fmnist_zoo.errors import ZooError
from trainers.config import ConfigError, teachers_of
from trainers.running import trained


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


def _argument(name: str) -> dict[str, str]:
    return {"run" if os.path.isabs(name) else "model": name}
