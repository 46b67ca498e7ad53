"""One run in one process: data, model, engine, and the loop over epochs.

The engine does the updates; a session measures each epoch, reports it and saves it. At the end of an epoch it flushes
the events, then writes the CSV row, then the checkpoint. So a process that is killed at any moment can be resumed from
the last checkpoint: what was written after it is cut off. Importing this module imports TensorFlow, which `run.execute`
has started.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import Callable, Sequence

import numpy as np

from fmnist_zoo import card, metrics, models, weights
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.data import Data, Split, halves, stratified_sample
from fmnist_zoo.files import Record, make_folder, require_space, write_json
from fmnist_zoo.settings import settings_of
from fmnist_zoo.spec import Recipe
from trainers.board import events
from trainers.board.observer import Observer
from trainers.config import RunConfig
from trainers.engine import factory
from trainers.engine.epoch import EpochMeans, NonFiniteError
from trainers.engine.network import Network, make_penalty
from trainers.metrics_table import COLUMNS, Row
from trainers.running import dependencies, progress, provenance
from trainers.running.callbacks import Callbacks, compile_model
from trainers.running.checkpoint import Checkpoint, CheckpointError, Due, fits, identity
from trainers.running.folder import RunFolder

AUGMENTED = 24  # images of the first batch that TensorBoard shows as they are trained
SAID = ("trainer", "optimizer", "learning_rate", "schedule", "warmup", "batch_size", "epochs", "seed", "data",
        "threads")  # settings that other lines of a run's header name


class Session:
    """Trains a run from its last checkpoint, or from the start if there is none.

    The constructor builds what is trained and changes no file. `begin` writes the record, and `run` trains.

    Args:
        data: with the splits fit and validation.
        recorded: `config.json` of the run that continues, or is replayed; empty for another new run.
        resumed: the run continues, and other first weights or teachers than recorded are refused; a replay notes them.
        checkpoint: its last one; None if there is none.
        callbacks: Keras' callbacks.

    Raises:
        ConfigError: for first weights or teachers that are refused, or a callback that cannot work.
        CheckpointError: if the checkpoint is of another model.
    """

    def __init__(self, config: RunConfig, data: Data, reporter: progress.Reporter, recorded: Record, *,
                 resumed: bool, checkpoint: Checkpoint | None, callbacks: Sequence[keras.callbacks.Callback]):
        self.callbacks = Callbacks(callbacks, config.recipe)
        self.config, self.data, self.reporter = config, data, reporter
        self.recorded, self.resumed = recorded, resumed
        self.fit, self.validation = data["fit"], data["validation"]
        self.ranking: Split | None = None
        if config.ranking:
            self.validation, self.ranking = halves(self.validation)
        self.sample = stratified_sample(self.fit, len(self.validation.labels) or max(1, len(self.fit.labels) // 10))
        self.batch_size = config.batch(len(self.fit.labels))
        self.state = checkpoint or Checkpoint(identity=identity(config, data.sha256, data.split_sha256))
        self.first_epoch = self.state.epoch
        self._build_engine()
        if checkpoint:
            self._load(checkpoint)

    def _build_engine(self) -> None:
        """The model with its first weights, and the engine that trains it."""
        config = self.config
        self.model = self._build()
        self.builder = config.spec.builder if config.spec.build else None
        known, needed = self.state.state, weights.shapes(self.model)
        if self.builder and {name: known[name].shape for name in needed if name in known} == needed:
            # before the program is made: an adapted Normalization computes ahead with its weights
            weights.assign(self.model, [known[name] for name in needed])
        for note in self.builder.notes if self.builder else ():
            self.reporter.note(f"{config.spec.name}: {note}")
        found, self.named = dependencies.load_named(config.recipe, self.data, self.reporter, self.recorded,
                                                    resumed=self.resumed, begun=bool(self.state.epoch))
        for one in found["initial_weights"]:
            dependencies.transfer(self.model, config.spec, one, self.fit.images)
        teachers = tuple(Network(one.model, one.spec).forward for one in found["teacher"])
        self.engine = factory.take(config, self.model, self.fit, teachers=teachers,
                                   origin=(self.data.sha256, self.data.split_sha256))
        network = self.engine.network
        self.penalty = make_penalty(network) if config.spec.build else lambda _: float(network.penalty(network.rates))
        if config.trainer != "fit":  # `FitEngine` compiles its model itself
            self._compile()
        if self.engine.idle:
            self.reporter.note(f"no gradient reaches {', '.join(self.engine.idle)}: the rest is trained")

    def _load(self, checkpoint: Checkpoint) -> None:
        """Assigns the variables of a checkpoint."""
        variables = self.engine.variables()
        if not fits(checkpoint.state, variables) or not fits(checkpoint.best, self._weights()):
            raise CheckpointError("checkpoints/latest.safetensors has other arrays than the model of the run's "
                                  "config.json; one of the two was changed: put a copy back, or train the run again "
                                  "with --config")
        for name, variable in variables.items():
            variable.assign(checkpoint.state[name])
        if checkpoint.learning_rate is not None:
            self.engine.set_learning_rate(checkpoint.learning_rate)

    def begin(self, folder: RunFolder) -> None:
        """Records this start in the run's folder, and cuts its files back to the checkpoint."""
        self.folder, self.record = folder, self._record()
        if not self.resumed or self.recorded["config"] != self.config.get_config():
            folder.result.unlink(missing_ok=True)
            events.remove(folder.path)  # TensorBoard keeps the first HParams record that it reads
            shutil.rmtree(folder.evaluation, ignore_errors=True)  # it is of weights that will no longer count
        write_json(folder.config, self.record)
        folder.cut_back(self.state.epoch)
        if not events.cut_back(folder.path, self.state.events):
            self.reporter.note("event files of earlier epochs are missing: TensorBoard will show gaps")
        self.observer = Observer(folder.path, self.config, self.engine.network, self.sample, self.validation,
                                 replay=provenance.replay(folder.config, self.record, self.config.spec),
                                 sweep=self.recorded.get("sweep"))
        self.started, self.due = time.perf_counter(), Due(self.config.checkpoint_every)

    def _record(self) -> Record:
        """What `config.json` will hold."""
        data = self.data
        sizes = {"fit": len(self.fit.labels), "validation": len(self.validation.labels),
                 **({"ranking": len(self.ranking.labels)} if self.ranking else {})}
        start: Record = {"epoch": self.state.epoch, "time": time.time(),
                         "environment": provenance.record(self.config)}
        # A start from which no epoch was saved had no part in the weights.
        known = [one for one in self.recorded.get("starts", []) if not self.resumed or one["epoch"] < self.state.epoch]
        for one in known[-1:]:
            for note in provenance.notes(one["environment"], start["environment"], replays=not self.resumed):
                self.reporter.note(note)
        starts = [*(known if self.resumed else []), start]
        given = {"sweep": self.recorded.get("sweep"), "callbacks": self.callbacks.names,
                 "model": self.builder.record if self.builder else None}
        return {"config": self.config.get_config(), **self.named,
                **{name: value for name, value in given.items() if value}, "jit_compile": self.config.compiles,
                "data": {"name": data.name, "sha256": data.sha256, "split_sha256": data.split_sha256, **sizes},
                "started": starts[0]["time"], "environment": starts[0]["environment"], "starts": starts}

    def run(self, should_stop: Callable[[], bool]) -> Record | None:
        """Trains all remaining epochs; returns `result.json`, or None if it was stopped between two epochs."""
        self.reporter.header(self._header())
        try:
            if not events.opened(self.folder.path):
                augmented = self.engine.augmented(AUGMENTED) if self.config.histogram_epochs else None
                self.observer.start(self.model, self.batch_size, augmented)
            self.callbacks.start(self.model, self.engine, self.state, self.reporter)
            while not self._over():
                begun = self.state.epoch > self.first_epoch
                if begun and should_stop() or self.callbacks.error:
                    if begun:
                        self._save()
                    return None
                self.callbacks.begin_epoch()
                if self.callbacks.error:
                    continue
                row = self._epoch()
                self.reporter.epoch(row, self.config.recipe.epochs, self.state.best_epoch, self._seconds_left(0.0))
            result = self._finish()
            self.callbacks.finish()
            return result
        except Exception as error:
            with contextlib.suppress(OSError):  # on a full disk the first error is the one to report
                self.observer.fail(self.state.epoch, error)
                if isinstance(error, NonFiniteError):
                    self.folder.write_failure(str(error))
            raise
        finally:
            self._put_in_place(self._weights(), self.model)
            if self.config.trainer == "fit":
                self._compile()
            factory.keep(self.engine)
            self.observer.close()

    def _header(self) -> dict[str, str]:
        """The lines above a run's epochs, by their titles."""
        spec, recipe, data, environment = (
            self.config.spec, self.config.recipe, self.record["data"], self.record["starts"][-1]["environment"])
        ranking = f", {data['ranking']} to rank" if self.ranking else ""
        varying = f" ({recipe.schedule}, warmup {recipe.warmup:g})" if recipe.horizon else ""
        everything = {**vars(recipe), **vars(self.config)}
        others = [f"{name}={known.kind.write(everything[name])}" for name, known in
                  {**settings_of(Recipe), **settings_of(RunConfig)}.items()
                  if name not in SAID and everything[name] != known.default]
        every = " (all images)" if self.batch_size == len(self.fit.labels) else ""
        gpus = ", ".join(gpu.name for gpu in tf.config.list_logical_devices("GPU"))
        header = {
            "model": f"{spec.name}{f': {spec.description}' * bool(spec.description)}, {spec.parameters} parameters",
            "data": f"{data['name']}, {data['fit']} to fit, {data['validation']} to validate{ranking}, "
                    f"sha256 {data['sha256'][:12]}",
            "training": f"{self.config.trainer}, {recipe.optimizer} {recipe.learning_rate:g}{varying}, "
                        f"batch {self.batch_size}{every}, {card.counted(recipe.epochs, 'epoch')} of "
                        f"{card.counted(self.engine.steps_an_epoch, 'step')}, seed {self.config.seed}",
            **({"settings": " ".join(others)} if others else {}),
            "device": gpus or f"{environment['cpu']}, {_threads(environment)}",
            "folder": str(self.folder.path),
        }
        of_user = spec.modules or "model" in self.record  # the zoo's own are convolutions, slower by XLA
        if of_user and self.config.jit_compile == "auto" and self.config.trainer == "tape":
            header["training"] += ", jit_compile off; --jit_compile=true may be faster"
        if self.config.threads < environment["cores"] and not self.state.epoch:
            header["device"] += f"; --threads={environment['cores']} changes the last digits"
        if self.state.epoch:
            header["resumed"] = f"after epoch {self.state.epoch}"
        return header

    def _seconds_left(self, share: float) -> float:
        """Until the run ends, at the pace of this process so far; `share` of the current epoch is done."""
        done = self.state.epoch - self.first_epoch + share
        return (self.config.recipe.epochs - self.first_epoch - done) * (time.perf_counter() - self.started) / done

    def _over(self) -> bool:
        return self.state.epoch >= self.config.recipe.epochs or self._stopped_early()

    def _stopped_early(self) -> bool:
        patience = self.config.recipe.early_stopping
        return self.state.stopped or bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def _epoch(self) -> Row:
        """Trains one epoch, measures it and writes its events, row and checkpoint; returns the row."""
        state, count = self.state, len(self.fit.labels)
        started = time.perf_counter()

        def on_part(done: int, means: EpochMeans) -> None:
            images = min(done * self.batch_size, count)
            self.reporter.part(state.epoch + 1, images / count, means, images / (time.perf_counter() - started),
                               self._seconds_left(images / count))

        means = self.engine.run_epoch(state.epoch, on_part)
        seconds = time.perf_counter() - started
        state.epoch += 1
        state.seconds += seconds
        with self.engine.counting():
            logits = self.engine.predict(self.validation.images)
            row = self._row(means, seconds, logits)
            self._compare(row)
            ranking = self._ranking()
            self.observer.epoch(row, logits)
            if self.config.recipe.weights == "last" or state.best_epoch == state.epoch:
                self.observer.selected(row, ranking, state.seconds, state.epoch)
        self.observer.flush()
        self.folder.table.append(row)
        self.callbacks.end_epoch(row)
        if self.due(state.epoch) or self._over():
            self._save()
        return row

    def _row(self, means: EpochMeans, seconds: float, logits: np.ndarray) -> Row:
        labels, step = self.validation.labels, self.state.epoch * self.engine.steps_an_epoch
        sample = self.engine.predict(self.sample.images)
        row: Row = dict.fromkeys(COLUMNS) | {
            "epoch": self.state.epoch, "step": step, "seconds": seconds,
            "images_per_second": len(self.fit.labels) / seconds,
            "learning_rate": self.engine.learning_rate(self.state.epoch - 1),
            "loss": means.loss, "penalty": means.penalty, "objective": means.objective,
            "accuracy": means.accuracy,
            "train_loss": metrics.mean_cross_entropy(sample, self.sample.labels),
            "train_accuracy": metrics.accuracy(sample, self.sample.labels),
            "gradient_norm": means.gradient_norm, "weight_norm": means.weight_norm,
        }
        if len(labels):
            penalty = self.penalty(self.validation.images)
            row |= {**_measured("val", logits, labels), "val_penalty": penalty,
                    "val_rounded_accuracy": metrics.rounded_accuracy(logits, labels)["value"]}
            row["val_objective"] = row["val_loss"] + penalty
        if not np.isfinite([value for value in row.values() if value is not None]).all():
            raise NonFiniteError(step - 1)
        return row

    def _compare(self, row: Row) -> None:
        """Keeps the weights if they are the best so far; without validation images the last are the best."""
        loss = row["val_loss"]
        if loss is None or loss < self.state.best_loss:
            self.state.best_epoch = self.state.epoch
            self.state.best_loss = float("inf") if loss is None else loss
            self.state.best = self._weights()

    def _weights(self, *, averaged: bool = True) -> dict[str, np.ndarray]:
        return {name: variable.numpy() for name, variable in self.engine.weights(averaged=averaged).items()}

    def _save(self) -> None:
        self.observer.sync()
        state = self.state
        state.state = {name: np.asarray(variable) for name, variable in self.engine.variables().items()}
        state.events = events.sizes(self.folder.path)
        state.metrics_sha256 = self.folder.table.sha256(state.epoch)
        make_folder(self.folder.checkpoint.parent)
        state.save(self.folder.checkpoint)
        state.state = {}  # a copy of all variables

    def _finish(self) -> Record:
        """Puts the weights that count in place, measures them, saves the model; returns `result.json`.

        Of a trial the weights that count are saved alone: those of most trials are removed when it has ended.
        """
        last = self._weights()
        chosen = self.state.best if self.config.recipe.weights == "best" else last
        epoch = self.state.best_epoch if self.config.recipe.weights == "best" else self.state.epoch
        require_space(self.folder.path, 4 * sum(array.nbytes for array in last.values()) + (2 << 20))  # HDF5 crashes
        kept = {"best": self.state.best, "last": last}
        if self.config.recipe.ema:
            kept["last_not_averaged"] = self._weights(averaged=False)
        if self.ranking:
            kept, clean = {self.config.recipe.weights: chosen}, self.model
        else:
            clean = self._build()  # not compiled, no optimizer
        for name, arrays in kept.items():
            self._put_in_place(arrays, clean)
            make_folder(self.folder.weights)
            weights.write(self.folder.weight_file(name), self.config.spec, clean)
        self._put_in_place(chosen, clean)
        problem = None if self.ranking else self.folder.save_model(clean)
        if problem and not self.config.spec.build:
            raise problem
        if problem:
            said = " ".join(f"{type(problem).__name__}: {problem}".split())
            self.reporter.note(f"model.keras is not written, because Keras cannot save this model ({said}); weights/ "
                               "has its weights")
        for name, variable in self.engine.weights().items():  # those of `scratch`, and averages, are not the model's
            variable.assign(chosen[name])
        with self.engine.counting():
            labels, logits = self.validation.labels, self.engine.predict(self.validation.images)
            training = self.sample if self.ranking else self.fit  # all images would take a trial a third of an epoch
            final = {"epoch": epoch, **_measured("train", self.engine.predict(training.images), training.labels)}
            if len(labels):
                final |= _measured("val", logits, labels)
            final |= self._ranking()
            result = {"epochs": self.state.epoch, "stopped_early": self._stopped_early(),
                      "weights": self.config.recipe.weights, "final": final, "seconds": self.state.seconds,
                      "weights_sha256": weights.digest(clean),
                      "metrics_sha256": self.folder.table.sha256(self.state.epoch)}
            self.observer.finish(result, self.folder.table.rows()[epoch - 1], logits)
        write_json(self.folder.result, result)
        return result

    def _ranking(self) -> dict[str, float]:
        """Of a trial: the metrics of the weights that count on the images that choose no epoch."""
        if not self.ranking:
            return {}
        return _measured("ranking", self.engine.predict(self.ranking.images), self.ranking.labels)

    def _compile(self) -> None:
        """The model for `evaluate` and `fit` of Keras, and for callbacks."""
        compile_model(self.model, self.engine.network, self.config.recipe)

    def _build(self) -> keras.Model:
        return models.build(self.config.spec, self.config.seed)

    def _put_in_place(self, arrays: dict[str, np.ndarray], model: keras.Model) -> None:
        weights.assign(model, [arrays[name] for name in self.engine.network.weights])


def _threads(environment: Record) -> str:
    """`2 of 16 threads` of a recorded environment, and on fewer cores `2 threads on 1 core`."""
    threads, cores = environment["threads"]["intra_op"], environment["cores"]
    return f"{threads} of {card.counted(cores, 'thread')}" if threads <= cores else \
        f"{card.counted(threads, 'thread')} on {card.counted(cores, 'core')}"


def _measured(on: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    loss, accuracy = metrics.mean_cross_entropy(logits, labels), metrics.accuracy(logits, labels)
    return {f"{on}_loss": loss, f"{on}_accuracy": accuracy}
