"""The plan of a sweep: what the user asked for, checked and counted before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Mapping

from fmnist_zoo import arguments, card, catalog
from fmnist_zoo.settings import Choice, Whole
from fmnist_zoo.spec import ModelSpec
from trainers.config import LOGDIR, ConfigError, overlay, resolve
from trainers.running import dependencies, provenance
from trainers.tuning import halving
from trainers.tuning.oracle import ORACLES, Oracle
from trainers.tuning.space import Space, apply, kinds_of, of_function, parse, parse_start, spell_start
from trainers.tuning.study import OBJECTIVES

if TYPE_CHECKING:
    import keras

COUNT = Whole(low=1)
TUNERS = (*ORACLES, "asha")
GRID = 10  # values that keras-tuner's grid has of a range of floats that a function asks for
MAX_TRIALS = 30  # default of random, bayesian and asha; a grid ends by itself


class Plan:
    """A checked sweep; the arguments are those of `trainers.sweep.sweep`.

    Raises:
        SpecError, ConfigError: for settings, or a space, that are invalid or do not go together.
    """

    def __init__(self, model: str | ModelSpec | Callable[..., keras.Model], space: str | Mapping[str, Any] | None, *,
                 tuner: str, max_trials: int | None, objective: str, executions: int, factor: int | None = None,
                 start: Any = None, logdir: str | os.PathLike[str] = LOGDIR, **settings: Any):
        if tuner == "hyperband":
            raise ConfigError("--tuner=asha does the work of hyperband: it trains many combinations for few epochs, "
                              "and the best of them for more; received --tuner=hyperband")
        Choice(TUNERS).check("tuner", tuner)
        Choice(tuple(OBJECTIVES)).check("objective", objective)
        COUNT.check("executions", executions)
        if max_trials is not None:
            COUNT.check("max_trials", max_trials)
        self.given = sorted(name for name, value in settings.items() if value is not None)
        given = {name: settings[name] for name in self.given}
        self.base = resolve(model, logdir=logdir, ranking=True, **{"histogram_every": 0, **given})
        self.tuner, self.objective, self.executions = tuner, objective, executions
        default = "" if self._asks else catalog.default_space(self.base.spec)
        self.space = self._space(default if space is None else space)
        searched = (parameter.values for parameter in self.space.parameters if parameter.name == "teacher")
        teachers = [self.base.recipe.teacher, *(str(names) for values in searched for names in values)]
        for names in teachers:
            dependencies.check(overlay(self.base, teacher=names))
        self.named = {"teacher": teachers, "initial_weights": [self.base.recipe.initial_weights]}
        for parameter in self.space.parameters:
            if parameter.name == "hidden":  # initial weights fit one architecture
                for widths in parameter.values:
                    dependencies.check(apply(self.base, {"hidden": widths}))
        twice = [name for name in self.space.names if name in self.given]
        if twice:
            raise ConfigError(f"--{twice[0]} and --space both set {twice[0]}; drop one (without --space, this sweep "
                              f"searches {default})")
        self.start = parse_start(start, self.space, kinds_of(self.base.spec, self.space.configs))
        if self.start and tuner == "grid":
            raise ConfigError("--start is for tuners that choose what to try; a grid tries every combination: drop it")
        if factor is not None and tuner != "asha":
            raise ConfigError(f"--factor is for --tuner=asha; received --tuner={tuner}")
        self.factor = halving.FACTOR if factor is None else factor
        Whole(low=2).check("factor", self.factor)
        if tuner == "asha" and "epochs" in self.space.names:
            raise ConfigError("--tuner=asha sets the epochs itself, up to --epochs: take epochs out of --space")
        self.max_trials = self._limit(max_trials)

    @property
    def _asks(self) -> bool:
        """Whether a function builds the model that asks for hyper-parameters."""
        return bool(self.base.spec.build) and self.base.spec.builder.takes_hp

    def _space(self, space: str | Mapping[str, Any]) -> Space:
        """What is searched; imports TensorFlow if a function has to be called for it."""
        listed_only = self.tuner == "grid"
        if not self._asks:
            return parse(space, self.base, listed_only=listed_only)
        from trainers.tuning import hypermodel

        configs = hypermodel.found(self.base.spec.builder)
        given = parse(space, self.base, listed_only=listed_only, configs=configs).parameters
        asked = {parameter.name for parameter in of_function(configs)}
        others = {name: hypermodel.config_of(dataclasses.replace(parameter, name=name)) for parameter in given
                  if parameter.name in asked and (name := arguments.name_of(parameter.name))}
        configs = hypermodel.replaced(configs, others)
        own = (parameter for parameter in given if parameter.name not in asked)
        return Space((*of_function(configs), *own), tuple(configs))

    def _limit(self, max_trials: int | None) -> int:
        """How many trials the sweep has at most; of asha how many combinations, of which it promotes some."""
        if self.tuner == "asha":  # the default is as many as it takes for one to be promoted to the last rung
            rungs = halving.rungs(self.base.recipe.epochs, self.factor)
            max_trials = max_trials or max(MAX_TRIALS, self.factor ** (len(rungs) - 1))
        if self.tuner == "bayesian":  # it may propose a combination again
            return max_trials or MAX_TRIALS
        size = self.space.size or sys.maxsize
        return min(max_trials or (size if self.tuner == "grid" else MAX_TRIALS), size)

    def name(self) -> str:
        """The default name of the sweep's folder."""
        return f"{self.base.spec.folder}-{self.tuner}-seed{self.base.seed}"

    def tuner_for(self) -> Oracle | halving.Asha:
        """What proposes the trials; imports keras-tuner if it is one of its oracles."""
        settings: dict[str, Any] = dict(
            lower_is_better=OBJECTIVES[self.objective].lower_is_better, seed=self.base.seed, start=self.start)
        if self.tuner == "asha":
            return halving.Asha(self.space, epochs=self.base.recipe.epochs, factor=self.factor,
                                combinations=self.max_trials, **settings)
        return Oracle(self.tuner, self.space, **settings)

    @property
    def planned(self) -> int:
        """How many trials the sweep has; of asha about how many, with its promotions; of a function's grid, too."""
        if self.tuner == "asha":
            return halving.planned(self.max_trials, self.base.recipe.epochs, self.factor)
        if self.tuner == "grid":  # of a function it may have more, or fewer
            return min(self.max_trials, math.prod(parameter.count or GRID for parameter in self.space.parameters))
        return self.max_trials

    def text(self, folder: str) -> str:
        """What `--dry_run` prints."""
        trials = "every combination" if self.max_trials == sys.maxsize else card.counted(self.max_trials, "trial")
        epochs = f"up to {card.counted(self.base.recipe.epochs, 'epoch')} each"
        if self.tuner == "asha":
            rungs = halving.rungs(self.base.recipe.epochs, self.factor)
            trials = f"{card.counted(self.max_trials, 'combination')} in about {card.counted(self.planned, 'trial')}"
            epochs = f"rungs of {', '.join(map(str, rungs))} epochs"
        size = "endless" if self.space.size is None else card.counted(self.space.size, "combination")
        if self.space.configs:
            size = "what the function asks for, which may be more with other values"
        return "\n".join([
            f"model       {self.base.spec.name}: {self.base.spec.description}",
            f"space       {self.space.text}",
            f"size        {size}",
            f"tuner       {self.tuner}: {trials} of {card.counted(self.executions, 'execution')}, {epochs}",
            *(f"start       {point}" for point in spell_start(self.start)),
            f"objective   {self.objective}",
            f"folder      {folder}"])

    def record(self) -> dict[str, Any]:
        """The part of `manifest` for which no data are read."""
        return {"base": self.base.get_config(), "given": self.given, "space": Space(self.space.own).text,
                "configs": list(self.space.configs), "asked": Space(of_function(self.space.configs)).text,
                "tuner": self.tuner,
                "factor": self.factor if self.tuner == "asha" else None, "start": spell_start(self.start),
                "objective": self.objective, "executions": self.executions, "named": dependencies.digests(self.named)}

    def manifest(self) -> dict[str, Any]:
        """The content of a new `sweep.json`; reads the data for their digests."""
        from fmnist_zoo.data import load_data

        data = load_data(**self.base.data_settings)
        return {**self.record(), "data": {"sha256": data.sha256, "split_sha256": data.split_sha256}, "starts": []}

    def environment(self) -> dict[str, Any]:
        """What a start records: versions, commit and modules of the user's; imports none of the libraries."""
        proposing = {"bayesian": ("keras-tuner", "scikit-learn", "scipy"), "asha": ()}.get(self.tuner, ("keras-tuner",))
        return {"versions": provenance.versions(*proposing), "commit": provenance.commit(),
                "modules": self.base.spec.modules}
