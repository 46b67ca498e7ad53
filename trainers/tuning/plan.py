"""A sweep as it was asked for: checked, counted and estimated before anything heavy starts. No TensorFlow."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any, Mapping

from fmnist_zoo import __version__, catalog
from fmnist_zoo.spec import ModelSpec
from trainers import config as configs
from trainers.config import ConfigError
from trainers.running import estimate
from trainers.tuning import oracle as oracles, space as spaces, study as studies

MAX_TRIALS = 30  # of random and bayesian; grid and hyperband have an end of their own
LIBRARIES = ("tensorflow", "keras", "keras-tuner", "numpy")


def require_counts(**counts: Any) -> None:
    """`ConfigError` for what is no whole number of at least 1."""
    for field, number in counts.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"{field} must be a whole number of at least 1, received {number!r}")


class Plan:
    """A sweep as it was asked for, checked, before anything heavy starts."""

    def __init__(self, model: str | ModelSpec, space: str | Mapping[str, Any] | None, *, tuner: str,
                 max_trials: int | None, objective: str, executions: int, **settings: Any):
        for field, value, known in (("tuner", tuner, oracles.TUNERS), ("objective", objective, studies.OBJECTIVES)):
            if value not in known:
                raise ConfigError(f"{field} must be one of {', '.join(known)}; received {value!r}")
        require_counts(executions=executions, max_trials=1 if max_trials is None else max_trials)
        self.given = sorted(name for name, value in settings.items() if value is not None)
        sparing = {"histogram_every": 0, "checkpoint_every": 1}
        self.base = configs.resolve(model, ranking=True, **{
            **sparing, **{name: settings[name] for name in self.given}})
        self.tuner, self.objective, self.executions = tuner, objective, executions
        self.space = spaces.parse(catalog.default_space(self.base.spec) if space is None else space, self.base,
                                  listed_only=tuner == "grid")
        if tuner == "hyperband" and "epochs" in self.space.names:
            raise ConfigError("--tuner=hyperband sets the epochs itself, up to --epochs: take epochs out of --space")
        self.max_trials = self._limit(max_trials)

    def _limit(self, asked: int | None) -> int:
        size = self.space.size or sys.maxsize
        if self.tuner == "hyperband":
            rounds = oracles.hyperband_rounds(self.base.recipe.epochs)
            return min(asked or sys.maxsize, sum(trials for trials, _ in rounds))
        if self.tuner == "bayesian":  # it may propose again what it tried
            return asked or MAX_TRIALS
        return min(asked or (size if self.tuner == "grid" else MAX_TRIALS), size)

    def name(self) -> str:
        return f"{self.base.spec.name}-{self.tuner}-seed{self.base.seed}"

    def seconds(self) -> tuple[float, float]:
        """The least and the most that all trials should take, one after the other, all cores at work."""
        ends = [estimate.seconds(config) for config in self.space.corners(self.base)]
        if self.tuner == "hyperband":
            epochs = sum(trials * more for trials, more in oracles.hyperband_rounds(self.base.recipe.epochs))
            trials = epochs / self.base.recipe.epochs
        else:
            trials = self.max_trials
        overhead = 2.0 * self.max_trials * self.executions
        low, high = (trials * self.executions * end + overhead for end in (min(ends), max(ends)))
        return low, high

    def text(self, workers: int, folder: str) -> str:
        """What `--dry_run` prints."""
        from trainers.running.provenance import machine

        low, high = (estimate.clock(seconds / min(workers, machine()["cores"])) for seconds in self.seconds())
        count = self.space.size
        size = "endless" if count is None else f"{count} combination{'s' * (count > 1)}"
        return "\n".join([
            f"model       {self.base.spec.name}: {self.base.spec.description}",
            f"space       {self.space.text}", f"size        {size}",
            f"tuner       {self.tuner}: {self.max_trials} trial{'s' * (self.max_trials > 1)} of {self.executions} "
            f"execution{'s' * (self.executions > 1)}, up to {self.base.recipe.epochs} epochs each",
            f"objective   {self.objective}",
            f"time        about {low if low == high else f'{low} to {high}'} on this machine, a guess",
            f"folder      {folder}"])

    def manifest(self) -> dict[str, Any]:
        """What `sweep.json` holds; reads the data for their digests."""
        from fmnist_zoo.data import load_data
        from trainers.running import provenance

        data = load_data(**self.base.data_settings)
        return {"base": self.base.to_dict(), "given": self.given, "space": self.space.text, "tuner": self.tuner,
                "objective": self.objective, "executions": self.executions,
                "data": {"sha256": data.sha256, "split_sha256": data.split_sha256},
                "versions": {"fmnist_zoo": __version__, **{library: importlib.metadata.version(library)
                                                           for library in LIBRARIES}},
                "commit": provenance.commit()}
