"""One run in one process: data, model, engine, and the epochs between them.

The engine does the updates; here an epoch is measured, told, and made safe. At the end of an epoch events are flushed,
then the CSV row is written, then the checkpoint, so that a process killed at any moment can be resumed from the last
checkpoint by cutting off what came after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from typing import Any, Callable

import numpy as np

from fmnist_zoo import metrics, models
from fmnist_zoo.backend import tf
from fmnist_zoo.data import Data, Split, halves, stratified_mask
from fmnist_zoo.files import publish, require_space, write_json
from trainers.board import events as summaries
from trainers.board.observer import Observer
from trainers.config import ConfigError, RunConfig, read_record
from trainers.engine import factory as engines, network as networks
from trainers.engine.epoch import EpochMeans, NonFiniteError
from trainers.running import checkpoints, progress, provenance
from trainers.running.folder import RunFolder


@dataclasses.dataclass
class State:
    """What a checkpoint holds beside the engine's variables. Patience is `epoch - best_epoch`."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    best: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


NOTED = ("epoch", "best_epoch", "best_loss", "seconds")  # the fields of a state that go into the checkpoint's note


class Session:
    """Trains the run in `folder` from its last checkpoint, or from the start where there is none.

    Args:
        data: with the splits fit and validation.
        expected: the `data` part of the record that is resumed or replayed; other data are refused.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, reporter: progress.Reporter, data: Data,
                 expected: dict[str, Any] | None):
        self.folder, self.config, self.reporter = folder, config, reporter
        self.fit, self.validation = data["fit"], data["validation"]
        self.ranking: Split | None = None
        if config.ranking:
            self.validation, self.ranking = halves(self.validation)
        record = self._record(data, expected)
        size = len(self.validation.labels) or max(1, len(self.fit.labels) // 10)
        chosen = stratified_mask(self.fit.labels, min(size, len(self.fit.labels)))
        self.sample = Split(self.fit.images[chosen], self.fit.labels[chosen])
        self.model = models.build(config.spec, config.seed)
        self.network = engines.make_network(config, self.model)
        self.batch_size = config.batch(len(self.fit.labels))
        self.engine = engines.make_engine(config, self.model, self.network, self.fit)
        self.predict = networks.make_predictor(self.network)
        self.state, events = self._load()
        if record:  # nothing is changed in the folder before all that is needed has been read
            folder.result.unlink(missing_ok=True)
            write_json(folder.config, record)
            summaries.remove(folder.path)  # TensorBoard holds on to the first HParams record it reads
            shutil.rmtree(folder.evaluation, ignore_errors=True)  # it is of weights that will not count any more
        folder.remove_partial_files()
        summaries.cut_back(folder.path, events)
        folder.cut_rows(self.state.epoch)
        self.first_epoch, self.watch = self.state.epoch, progress.Stopwatch()
        self.observer = Observer(folder.path, config, self.network, self.sample, self.validation)

    def _record(self, data: Data, expected: dict[str, Any] | None) -> dict[str, Any] | None:
        """What `config.json` is to hold, None if it holds it already; refuses data that are not the expected ones."""
        found = {"name": data.name, "sha256": data.sha256, "split_sha256": data.split_sha256,
                 "fit": len(self.fit.labels), "validation": len(self.validation.labels),
                 **({"ranking": len(self.ranking.labels)} if self.ranking else {})}
        for name in ("sha256", "split_sha256"):
            if expected and expected[name] != found[name]:
                raise ConfigError(f"the data in {data.folder} are not those of the recorded run: {name} {found[name]}, "
                                  f"recorded {expected[name]}")
        record: dict[str, Any] = {
            "config": self.config.to_dict(), "data": found, "started": time.time(), "environment": provenance.record()}
        if self.folder.config.exists():
            old = read_record(self.folder.config)
            for name in ("versions", "cpu", "threads"):
                before, now = old["environment"].get(name), record["environment"][name]
                if before != now:
                    self.reporter.note(f"this run began with {name} {before}; it goes on with {now}, and need not be "
                                       "the same to the bit")
            if old["config"] == record["config"]:
                return None
            record.update({name: old[name] for name in ("started", "environment") if name in old})
        return record

    def _load(self) -> tuple[State, dict[str, int]]:
        """State and event sizes of the last checkpoint, its arrays put in place; a new state where there is none."""
        if not self.folder.checkpoint.exists():
            self.folder.check_no_loss(self.config.checkpoint_every)
            return State(), {}
        arrays, note = checkpoints.load(self.folder.checkpoint)
        variables = self.engine.variables()
        fits = all(f"state/{name}" in arrays and arrays[f"state/{name}"].shape == tuple(variable.shape)
                   for name, variable in variables.items())
        if not self.config.owns(note.pop("identity", "")) or not fits:
            raise checkpoints.CheckpointError(f"{self.folder.checkpoint}: belongs to another config than the run's "
                                              "config.json; one of the two was changed")
        self.folder.check_rows(note["epoch"])
        for name, variable in variables.items():
            variable.assign(arrays[f"state/{name}"])
        events = note.pop("events")
        if summaries.missing(self.folder.path, events):
            self.reporter.note("event files of earlier epochs are missing: TensorBoard will show gaps")
        best = {name: arrays[f"best/{name}"] for name in self.network.names if note["best_epoch"]}
        return State(best=best, **{name: note[name] for name in NOTED}), events

    def run(self, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
        """All epochs that are left, then the end; returns `result.json`, or None if it was stopped between epochs."""
        self.reporter.header(progress.facts(
            read_record(self.folder.config), self.folder.path, batch_size=self.batch_size, epoch=self.state.epoch,
            steps_an_epoch=self.engine.steps_an_epoch, gpus=tf.config.list_logical_devices("GPU")))
        try:
            if not summaries.opened(self.folder.path):
                replay = f"python -m trainers.train --config={self.folder.config}"
                self.observer.start(self.model, batch_size=self.batch_size, replay=replay)
            while not self._over():
                if should_stop():
                    if self.state.epoch > self.first_epoch:
                        self._save()
                    return None
                row = self._epoch()
                self.reporter.epoch(row, self.config.recipe.epochs, self.state.best_epoch, self._seconds_left(0.0))
            return self._finish()
        except Exception as error:
            with contextlib.suppress(OSError):  # on a full disk the error that tells of it is the first one
                self.observer.fail(getattr(error, "step", self.state.epoch * self.engine.steps_an_epoch))
            raise
        finally:
            self.observer.close()

    def _seconds_left(self, share: float) -> float:
        """Of the run, if all goes on as in this process so far; `share` of the epoch that runs is done."""
        done = self.state.epoch - self.first_epoch + share
        return (self.config.recipe.epochs - self.first_epoch - done) * self.watch.seconds() / done

    def _over(self) -> bool:
        return self.state.epoch >= self.config.recipe.epochs or self._stopped_early()

    def _stopped_early(self) -> bool:
        patience = self.config.recipe.early_stopping
        return bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def _epoch(self) -> dict[str, Any]:
        """One epoch: updates, evaluation, and everything written. Returns its row."""
        state, count = self.state, len(self.fit.labels)
        watch = progress.Stopwatch()

        def on_part(done: int, means: EpochMeans) -> None:
            images = min(done * self.batch_size, count)
            self.reporter.part(state.epoch + 1, images / count, means, images / watch.seconds(),
                               self._seconds_left(images / count))

        means = self.engine.run_epoch(state.epoch, on_part)
        seconds = watch.seconds()
        state.epoch += 1
        state.seconds += seconds
        logits = self.predict(self.validation.images)
        row = self._row(means, seconds, logits)
        self._compare(row)
        self.observer.epoch(row, means, logits)
        self.observer.flush()
        self.folder.append_row(row)
        if state.epoch % self.config.checkpoint_every == 0 or self._over():
            self._save()
        return row

    def _row(self, means: EpochMeans, seconds: float, logits: np.ndarray) -> dict[str, Any]:
        labels, step = self.validation.labels, self.state.epoch * self.engine.steps_an_epoch
        sample = self.predict(self.sample.images)
        row: dict[str, Any] = {
            "epoch": self.state.epoch, "step": step, "seconds": seconds,
            "images_per_second": len(self.fit.labels) / seconds, "learning_rate": self.config.recipe.learning_rate,
            "train_loss": means.loss, "train_penalty": means.penalty, "train_objective": means.loss + means.penalty,
            "train_accuracy": means.accuracy,
            "train_loss_eval": metrics.mean_cross_entropy(sample, self.sample.labels),
            "train_accuracy_eval": metrics.accuracy(sample, self.sample.labels),
            "validation_loss": None, "validation_accuracy": None, "validation_rounded_accuracy": None,
            "validation_penalty": float(self.network.penalty()),
        }
        if len(labels):
            row.update(validation_loss=metrics.mean_cross_entropy(logits, labels),
                       validation_accuracy=metrics.accuracy(logits, labels),
                       validation_rounded_accuracy=metrics.rounded_accuracy(logits, labels)["value"])
        if not np.isfinite([value for value in row.values() if value is not None]).all():
            raise NonFiniteError(step - 1)
        return row

    def _compare(self, row: dict[str, Any]) -> None:
        """Keeps the weights if they are the best so far; without validation images the last are the best."""
        loss = row["validation_loss"]
        if loss is None or loss < self.state.best_loss:
            self.state.best_epoch = self.state.epoch
            self.state.best_loss = float("inf") if loss is None else loss
            self.state.best = self._weights()

    def _weights(self) -> dict[str, np.ndarray]:
        return {name: variable.numpy() for name, variable in zip(self.network.names, self.network.variables)}

    def _save(self) -> None:
        arrays = {f"state/{name}": np.asarray(variable) for name, variable in self.engine.variables().items()}
        arrays.update({f"best/{name}": array for name, array in self.state.best.items()})
        note = {**{name: getattr(self.state, name) for name in NOTED},
                "events": summaries.sizes(self.folder.path), "identity": self.config.identity}
        self.folder.checkpoint.parent.mkdir(exist_ok=True)
        checkpoints.save(self.folder.checkpoint, arrays, note)

    def _finish(self) -> dict[str, Any]:
        """Puts the weights that count in place, measures them, saves the model; returns `result.json`."""
        last = self._weights()
        chosen = self.state.best if self.config.recipe.weights == "best" else last
        epoch = self.state.best_epoch if self.config.recipe.weights == "best" else self.state.epoch
        require_space(self.folder.path, 12 * self.config.spec.parameters + (2 << 20))
        self.folder.weights.mkdir(exist_ok=True)
        for name, weights in (("best", self.state.best), ("last", last)):
            self._export(weights).save_weights(beside := self.folder.path / "saving.weights.h5")
            publish(beside, self.folder.weights / f"{name}.weights.h5")
        model = self._export(chosen)
        model.save(beside := self.folder.path / "saving.keras")
        publish(beside, self.folder.model)
        self.model.set_weights(model.get_weights())
        for variable, array in zip(self.network.variables, model.get_weights()):  # the model's own, but for scratch
            variable.assign(array)
        labels, logits = self.validation.labels, self.predict(self.validation.images)
        train_loss = metrics.mean_cross_entropy(self.predict(self.fit.images), self.fit.labels)
        final: dict[str, float] = {"epoch": epoch, "train_loss": train_loss}
        if len(labels):
            final.update(validation_loss=metrics.mean_cross_entropy(logits, labels),
                         validation_accuracy=metrics.accuracy(logits, labels))
        if self.ranking:
            apart = self.predict(self.ranking.images)
            final.update(ranking_loss=metrics.mean_cross_entropy(apart, self.ranking.labels),
                         ranking_accuracy=metrics.accuracy(apart, self.ranking.labels))
        self.observer.finish(final, logits, self.state.epoch * self.engine.steps_an_epoch)
        self.observer.flush()
        result = {"epochs": self.state.epoch, "stopped_early": self._stopped_early(),
                  "weights": self.config.recipe.weights, "final": final, "seconds": self.state.seconds,
                  "weights_sha256": checkpoints.digest(chosen)}
        write_json(self.folder.result, result)
        return result

    def _export(self, weights: dict[str, np.ndarray]) -> Any:
        """A clean Keras model (not compiled, no optimizer) with `weights`."""
        model = models.build(self.config.spec, self.config.seed)
        model.set_weights([weights[name] for name in self.network.names])
        return model
