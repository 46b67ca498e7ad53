"""A run as a whole: what it returns, and what can go wrong in it.

Importing this module must not import TensorFlow: `execute` sets the number of threads first. What needs TensorFlow is
in `session.py`.
"""

from __future__ import annotations

import dataclasses
import errno
import pathlib
from typing import Any, Callable

from fmnist_zoo import custom
from fmnist_zoo.data import Data, load_data
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import quoted
from fmnist_zoo.spec import ARRAYS
from trainers.board import hparams
from trainers.config import RunConfig
from trainers.engine import compile_cache, threads
from trainers.engine.epoch import NonFiniteError
from trainers.running.folder import RunFolder
from trainers.running.progress import Reporter


class RunError(ZooError, RuntimeError):
    """A run that failed (NaN, full disk): says what happened and what helps. Its last checkpoint is intact."""


@dataclasses.dataclass
class Run:
    """What `train` returns.

    Attributes:
        folder: the run's.
        config: the run, resolved.
        history: the rows of `metrics.csv`.
        result: the content of `result.json`; None if the run was interrupted.
        model: the Keras model with the weights that count; after an interruption, with the last ones.
    """

    folder: pathlib.Path
    config: RunConfig
    history: list[dict[str, Any]]
    result: dict[str, Any] | None
    model: Any

    def summary(self) -> str:
        """The result in one line, then the commands that may come next."""
        recipe = self.config.recipe
        if self.result is None:
            return f"interrupted after epoch {len(self.history)}; continue with\n  {self._continue()}"
        final = self.result["final"]
        validation, kept = "", "last"  # without validation the best weights are the last ones
        if "val_loss" in final:
            kept = self.result["weights"]
            validation = (f"validation loss {final['val_loss']:.4f}, "
                          f"accuracy {final['val_accuracy']:.4f}, ")
        early = f", stopped early after {self.result['epochs']}" if self.result["stopped_early"] else ""
        more = recipe.horizon or 2 * recipe.epochs
        commands = {"look at it": f"python -m trainers.board.serve --logdir={quoted(self.folder.parent.parent)}"}
        if more > recipe.epochs:
            commands["train longer"] = self._continue(more)
        if not self._in_python:
            record, module = quoted(self.folder / "config.json"), custom.flag(self.config.spec.modules)
            commands["run it again"] = f"python -m trainers.train --config={record}{module}"
        commands["use it"] = f"keras.saving.load_model({str(self.folder / 'model.keras')!r})"
        if self.config.spec.build:  # Keras does not know the user's classes, and may not have saved them
            weights = self.folder / "weights" / f"{self.result['weights']}.weights.h5"
            commands["use it"] = f"fmnist_zoo.build_model({self.config.spec.name!r}, weights={str(weights)!r})"
        return "\n".join([
            f"done: {kept} weights from epoch {final['epoch']}{early}: {validation}"
            f"loss {final['train_loss']:.4f} on all fit images; {self.result['seconds']:.0f} s of training",
            *(f"  {what:<12}  {how}" for what, how in commands.items())])

    @property
    def _in_python(self) -> bool:
        """Whether its images, or the function that builds its model, are in this process alone."""
        spec = self.config.spec
        return self.config.data == ARRAYS or bool(spec.build) and custom.builder(spec.name, spec.build).in_main

    def _continue(self, epochs: int | None = None) -> str:
        """What continues the run."""
        if self._in_python:
            more = f", epochs={epochs}" * bool(epochs) + ", data=(images, labels)" * (self.config.data == ARRAYS)
            return f"trainers.train.resume({str(self.folder)!r}{more})"
        more = f" --epochs={epochs}" * bool(epochs) + custom.flag(self.config.spec.modules)
        return f"python -m trainers.train --resume={quoted(self.folder)}{more}"


def execute(folder: RunFolder, config: RunConfig, *, reporter: Reporter, should_stop: Callable[[], bool],
            expected: dict[str, Any] | None = None, data: Data | None = None) -> Run:
    """Trains a run to its end, from its last checkpoint if it has one.

    Args:
        should_stop: asked after each epoch.
        expected: the record that is resumed or replayed: other data than its own are refused, and so are, if it
            is resumed, other teachers or first weights.
        data: the training and validation images, for callers that train on the same more than once; None loads them.

    Raises:
        ConfigError: if another process trains in this folder, the data are not the expected ones, or TensorFlow
            already runs with another number of threads.
        RunError: if the objective becomes NaN or infinite, memory runs out, or a file cannot be written.
    """
    threads.use(config.threads)
    data = data or load_data(**config.data_settings)  # what is wrong with them is said before TensorFlow is imported
    with compile_cache.enabled(config.threads):
        from fmnist_zoo.backend import tf
    from trainers.running.session import Session

    tf.config.experimental.enable_op_determinism()
    try:
        parent = folder.path.absolute().parent
        if parent.name == config.spec.folder:  # otherwise the folder was moved, and is not below a log folder
            hparams.declare(parent.parent, [hparams.hyperparameters(config)])
        with folder.locked():
            session = Session(folder, config, reporter, data, expected)
            result = session.run(should_stop)
            return Run(folder.path, config, folder.rows(), result, session.model)
    except NonFiniteError as error:
        helps = [f"a smaller --learning_rate (this was {config.recipe.learning_rate:g})"]
        helps += ["a smaller penalty"] if config.spec.l1 or config.spec.l2 else []
        helps += ["--optimizer=adam"] if config.recipe.optimizer != "adam" else []
        raise RunError(f"{error}; training stopped{_checkpoint(folder)}. What usually helps: {', '.join(helps)}"
                       ) from error
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise RunError(f"out of memory: {config.spec.parameters} parameters, batch size {config.recipe.batch_size}"
                       f"{_checkpoint(folder)}. What usually helps: a smaller --batch_size, or fewer hidden units"
                       ) from None
    except BrokenPipeError:  # standard output was closed; the disk is not full
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        advice = "make room" if full else "make it writable"
        begun = folder.config.exists()
        advice += f", then continue with --resume={quoted(folder.path)}" if begun else ", then start again"
        raise RunError(f"{error.filename or folder.path}: cannot be written: {error.strerror or error}"
                       f"{_checkpoint(folder)}; {advice}") from error
    finally:
        compile_cache.add()
        reporter.close()


def _checkpoint(folder: RunFolder) -> str:
    return f"; the last good checkpoint is intact ({folder.checkpoint})" if folder.checkpoint.exists() else ""
