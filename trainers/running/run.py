"""A run as a whole: what it returns, and what can go wrong in it.

Importing this module must not import TensorFlow: `execute` starts it with the run's number of threads. What needs it is
in `session.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Callable, Iterator, NoReturn, Sequence

from fmnist_zoo import custom
from fmnist_zoo.data import Data, load_data
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import Record, quoted
from trainers.config import ConfigError, RunConfig, read_run
from trainers.engine import compile_cache, process
from trainers.engine.epoch import NonFiniteError
from trainers.metrics_table import Row
from trainers.running import checkpoint, dependencies, listing, provenance
from trainers.running.checkpoint import Checkpoint, CheckpointError
from trainers.running.folder import SWEEPS, Held, LockedError, NewFolder, RunFolder, finished
from trainers.running.progress import Reporter

if TYPE_CHECKING:
    import keras
    from keras.callbacks import Callback


class RunError(ZooError, RuntimeError):
    """A run that failed (NaN, full disk): says what happened and what helps. Its last checkpoint is intact."""


@dataclasses.dataclass(repr=False)
class Run:
    """What `train` returns.

    Attributes:
        folder: the run's.
        config: the run, resolved.
        history: the rows of `metrics.csv`.
        result: the content of `result.json`; None if the run was interrupted.
        model: the Keras model with the weights that count; after an interruption, with the last ones. It is compiled.
        logdir: the log folder; None if the run was moved out of it.
        record: the content of `config.json`.
    """

    folder: pathlib.Path
    config: RunConfig
    history: list[Row]
    result: Record | None
    model: keras.Model | None
    logdir: pathlib.Path | None = None
    record: Record = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        final = self.result["final"] if self.result else {}
        scores = [f"{name}={final[name]:.4f}" for name in ("val_loss", "val_accuracy") if name in final]
        done = f"{len(self.history)} of {self.config.recipe.epochs} epochs" + (", interrupted" if not final else "")
        return f"Run({str(self.folder)!r}, {', '.join([done, *scores])})"

    def summary(self) -> str:
        """The result in one line, then the commands that may come next."""
        recipe = self.config.recipe
        if self.result is None and not (self.record or self.history):
            return "interrupted before the first update; the same command starts again"
        if self.result is None:
            saved = f"after epoch {len(self.history)}" if self.history else "with nothing saved yet"
            return f"interrupted {saved}; continue with\n  {self._continue()}"
        final = self.result["final"]
        validation, kept = "", "last"  # without validation the best weights are the last ones
        if "val_loss" in final:
            kept = self.result["weights"]
            validation = (f"validation loss {final['val_loss']:.4f}, "
                          f"accuracy {final['val_accuracy']:.4f}, ")
        early = f", stopped early after {self.result['epochs']}" if self.result["stopped_early"] else ""
        more = recipe.horizon or 2 * recipe.epochs
        commands = {"look at it": f"python -m trainers.board.serve --logdir={quoted(self.logdir or self.folder)}"}
        if more > recipe.epochs:
            commands["train longer"] = self._continue(more)
        if replay := provenance.replay(self.folder / "config.json", self.record, self.config.spec):
            commands["run it again"] = replay
        commands["use it"] = f"keras.saving.load_model({str(self.folder / 'model.keras')!r})"
        if self.config.spec.build and "model" not in self.record:
            # Keras does not know the user's classes, and may not have saved them
            weights = self.folder / "weights" / f"{self.result['weights']}.safetensors"
            commands["use it"] = f"fmnist_zoo.build_model({self.config.spec.name!r}, weights={str(weights)!r})"
        return "\n".join([
            f"done: {kept} weights from epoch {final['epoch']}{early}: {validation}"
            f"loss {final['train_loss']:.4f} on all fit images; {self.result['seconds']:.0f} s of training",
            *(f"  {what:<12}  {how}" for what, how in commands.items())])

    def _continue(self, epochs: int | None = None) -> str:
        """What continues the run."""
        if provenance.in_python(self.record, self.config.spec):
            return provenance.resume_call(self.folder, self.record, *([f"epochs={epochs}"] if epochs else []))
        more = f" --epochs={epochs}" * bool(epochs) + custom.flag(self.config.spec.modules)
        return f"python -m trainers.train --resume={quoted(self.folder)}{more}"


@dataclasses.dataclass
class Opened:
    """A run's folder, held by this process, with what is in it: read once, and checked.

    Attributes:
        record: `config.json`, and `config`, which it holds; None in a folder where no run has begun.
        checkpoint: the last one; None if there is none.
        logdir: the log folder; None if the folder was moved, and is not below one.
        held: how this process holds the folder.
    """

    folder: RunFolder
    record: Record | None = None
    config: RunConfig | None = None
    checkpoint: Checkpoint | None = None
    logdir: pathlib.Path | None = None
    held: Held = dataclasses.field(default_factory=Held)

    @property
    def path(self) -> pathlib.Path:
        return self.folder.path

    def refuse_without_checkpoint(self) -> NoReturn:
        raise ConfigError(f"{self.folder.checkpoint}: is gone, and without it the run cannot continue; train it again "
                          f"in another folder with --config={quoted(self.folder.config)}")


@contextlib.contextmanager
def opened(folder: RunFolder) -> Iterator[Opened]:
    """Holds the folder of a run, and reads its record, its checkpoint and its rows, before anything else is done.

    Raises:
        LockedError: if another process trains in it.
        ConfigError: for a record that is damaged, and for a checkpoint that is gone of a run that is not finished.
        CheckpointError, TableError: for a checkpoint or rows that are damaged, or are of another run than the record.
    """
    with folder.locked() as held:
        if not folder.config.exists():
            yield Opened(folder)
            return
        record, config = read_run(folder.path)
        above = [one for one in folder.path.absolute().parents[:2] if one.name == config.spec.folder]
        logdir = above[0].parent if above and above[0].parent.name != SWEEPS else None
        if logdir and not folder.path.is_absolute():  # as the run is named
            logdir = pathlib.Path(os.path.relpath(logdir))
        found = Opened(folder, record, config, logdir=logdir, held=held)
        if folder.checkpoint.exists():
            found.checkpoint = checkpoint.load(folder.checkpoint)
            data = record["data"]
            if found.checkpoint.identity != checkpoint.identity(config, data["sha256"], data["split_sha256"]):
                raise CheckpointError(f"{folder.checkpoint}: belongs to another config than the run's config.json; one "
                                      "of the two was changed")
            folder.table.check(found.checkpoint.epoch, found.checkpoint.metrics_sha256)
        elif not finished(folder.read_result(), config) and (  # a finished run may be pruned, or be a trial
                folder.result.exists() or checkpoint.was_due(config.checkpoint_every, folder.table)):
            found.refuse_without_checkpoint()
        yield found


@contextlib.contextmanager
def latest_unfinished(logdir: str | os.PathLike[str], model: str = "") -> Iterator[Opened]:
    """The newest unfinished run below `logdir`, of `model` if one is named, that can continue, opened.

    Runs of sweeps, those that failed, are training, or have saved nothing, and those of which parts are in Python do
    not count. One that is damaged is passed over with a line on standard error.

    Raises:
        ConfigError: if there is none.
    """
    reason = ""
    for line in listing.ordered(listing.runs(logdir), "started"):
        if line.status == listing.FINISHED or model and line.name != model:
            continue
        folder = RunFolder(line.folder)
        if line.status == listing.NAN:
            reason = reason or (f" but a run that failed ({line.reason or 'for an unknown reason'}); to try it again "
                                f"all the same, name it: --resume={quoted(folder.path)}")
            continue
        with contextlib.ExitStack() as held:
            try:
                found = held.enter_context(opened(folder))
            except LockedError:
                reason = reason or f" but {folder.path}, which is training"
                continue
            except ZooError as error:
                print(f"passed over: {error}", file=sys.stderr, flush=True)
                continue
            if found.record and provenance.from_python(found.record):
                reason = reason or (f" but {folder.path}: continue it in Python, by "
                                    f"{provenance.resume_call(folder.path, found.record)}")
                continue
            if not found.checkpoint:
                reason = reason or f" but {folder.path}, of which nothing is saved: name it, or start it again"
                continue
            yield found
            return
    of_model = f" of {model}" if model else ""
    raise ConfigError(f"no unfinished run{of_model} below {logdir}: nothing to resume{reason}")


def execute(place: Opened | NewFolder, config: RunConfig, *, reporter: Reporter, should_stop: Callable[[], bool],
            expected: Record | None = None, data: Data | None = None, callbacks: Sequence[Callback] = ()) -> Run:
    """Trains a run to its end, from its last checkpoint if it has one. A new folder is made before the first update.

    Args:
        should_stop: asked before the run begins, and after each epoch.
        expected: the record that a new run replays: other data than its own are refused; other teachers, or another
            environment, are noted.
        data: the training and validation images, for callers that train on the same more than once; None loads them.
        callbacks: Keras' callbacks; an error of theirs is raised when the run has its checkpoint.

    Raises:
        ConfigError: if the data are not the expected ones.
        RunError: if the objective becomes NaN or infinite, memory runs out, or a file cannot be written.
    """
    if isinstance(place, NewFolder):
        dependencies.check(config)
    past = place if isinstance(place, Opened) else Opened(place.folder, logdir=place.logdir)
    if past.folder.result.exists() and not past.checkpoint:  # it was pruned, and would train longer
        past.refuse_without_checkpoint()
    if past.held.killed:
        reporter.note(f"process {past.held.killed}, the last one in this folder, ended without a word: killed by "
                      "signal 9, probably out of memory, or the machine stopped")
        past.held.killed = ""
    recorded = past.record or expected or {}
    data = data or load_data(**config.data_settings)  # what is wrong with them is said before TensorFlow is imported
    provenance.require_data(data, recorded)
    threads = process.start_tensorflow(config.threads)
    if isinstance(place, NewFolder) and threads != config.threads:
        reporter.note(f"TensorFlow runs in this process already, with {threads} threads: this run has as many, not "
                      f"{config.threads}")
        config = dataclasses.replace(config, threads=threads)
    from fmnist_zoo.backend import tf
    from trainers.board import hparams
    from trainers.running.session import Session

    try:
        with contextlib.ExitStack() as held:
            held.enter_context(process.borrowed())
            session = Session(config, data, reporter, recorded, resumed=past.record is not None,
                              checkpoint=past.checkpoint, callbacks=callbacks)
            if should_stop():
                return Run(past.path, config, past.folder.rows(), None, session.model, past.logdir, past.record or {})
            if isinstance(place, NewFolder):
                past.folder = held.enter_context(place.made())
            if past.logdir:
                hparams.declare(past.logdir, [hparams.hyperparameters(config)])
            session.begin(past.folder)
            result = session.run(should_stop)
            done = Run(past.path, config, past.folder.rows(), result, session.model, past.logdir, session.record)
    except NonFiniteError as error:
        helps = [f"a smaller --learning_rate (this was {config.recipe.learning_rate:g})"]
        helps += ["a smaller penalty"] if config.spec.l1 or config.spec.l2 else []
        helps += ["--optimizer=adam"] if config.recipe.optimizer != "adam" else []
        raise RunError(f"{error}; training stopped{_checkpoint(past.folder)}. What usually helps: {', '.join(helps)}"
                       ) from error
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise RunError(f"out of memory: {config.spec.parameters} parameters, batch size {config.recipe.batch_size}"
                       f"{_checkpoint(past.folder)}. What usually helps: a smaller --batch_size, or fewer hidden units"
                       ) from None
    except BrokenPipeError:  # standard output was closed; the disk is not full
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        advice = "make room" if full else "make it writable"
        begun = past.folder.config.exists()
        advice += f", then continue with --resume={quoted(past.path)}" if begun else ", then start again"
        raise RunError(f"{error.filename or past.path}: cannot be written: {error.strerror or error}"
                       f"{_checkpoint(past.folder)}; {advice}") from error
    finally:
        compile_cache.add()
        reporter.close()
    if session.callbacks.error:
        raise session.callbacks.error
    return done


def left(place: Opened | NewFolder, config: RunConfig) -> Run:
    """A run that was left within an epoch, as its last checkpoint has it; without a model."""
    folder = place.folder
    if not folder.config.exists():
        return Run(folder.path, config, [], None, None)
    epoch = checkpoint.load(folder.checkpoint).epoch if folder.checkpoint.exists() else 0
    return Run(folder.path, config, folder.rows()[:epoch], None, None, record=read_run(folder.path)[0])


def _checkpoint(folder: RunFolder) -> str:
    return f"; the last good checkpoint is intact ({folder.checkpoint})" if folder.checkpoint.exists() else ""
