"""A run's folder, `<logdir>/<model>/<run>/`: its files, who may write to them, and what a resumed run removes.

    config.json  metrics.csv  result.json  failure.json  model.keras  weights/  checkpoints/latest.safetensors
    train/  test/
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import time
from typing import IO, TYPE_CHECKING, Iterator

from fmnist_zoo.files import Record, local_path, lock, make_folder, naming, publish, quoted, read_json, write_json
from trainers.config import ConfigError, RunConfig, read_run
from trainers.metrics_table import Row
from trainers.running.table import MetricsTable

if TYPE_CHECKING:
    import keras

SWEEPS = "sweeps"
ENSEMBLES = "ensembles"  # their evaluations: <logdir>/ensembles/<name>/test
EVALUATION = "evaluation.json"
SHIPPED = ("shipped", "shipped-mini")  # folders for evaluations of the package's trained models, beside the runs
LOCK = ".lock"
PARTIAL_FILES = (".config.json.*", ".metrics.csv.*", ".result.json.*", ".failure.json.*", ".*.safetensors.*",
                 "saving.*")


class LockedError(ConfigError):
    """Another process holds the folder."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.config, self.table = self.path / "config.json", MetricsTable(self.path / "metrics.csv")
        self.result, self.failure = self.path / "result.json", self.path / "failure.json"
        self.model, self.weights = self.path / "model.keras", self.path / "weights"
        self.checkpoint = self.path / "checkpoints" / "latest.safetensors"
        self.evaluation = self.path / "test"  # a row of TensorBoard, whose dots are of the test images

    def locked(self) -> contextlib.AbstractContextManager[Held]:
        """Holds the folder for this process."""
        return locked(self.path, "training")

    def rows(self) -> list[Row]:
        """`metrics.csv` with its numbers read back; `TableError` if it is damaged, or not what a finished run wrote."""
        result = self.read_result() or {}
        if result:
            self.table.check(result["epochs"], result["metrics_sha256"])
        return self.table.rows()

    def read_result(self) -> Record | None:
        """`result.json` of a finished run; None if it is missing, or damaged (resuming the run writes it again).

        `ConfigError` if it is damaged and cannot be written again, because the checkpoint was removed.
        """
        try:
            result = read_json(self.result)
            result["epochs"], result["stopped_early"], result["final"]["epoch"]
            result["weights_sha256"], result["metrics_sha256"]
            return dict(result)
        except (OSError, ValueError, TypeError, LookupError):
            if self.checkpoint.exists() or not self.result.exists():
                return None
        raise ConfigError(f"{self.result}: damaged or changed, and without its checkpoint the run cannot write it "
                          f"again; put a copy back, or train the run again with --config={quoted(self.config)}")

    def write_failure(self, reason: str) -> None:
        """Marks the run as one that would fail again, so that `latest_unfinished` does not choose it."""
        write_json(self.failure, {"reason": reason})

    def read_failure(self) -> str:
        """Why the run failed; empty if it did not, or if that does not read."""
        try:
            return str(read_json(self.failure)["reason"])
        except (OSError, ValueError, TypeError, LookupError):
            return ""

    def weight_file(self, name: str) -> pathlib.Path:
        """That of the weights `best`, `last` or `last_not_averaged`."""
        return self.weights / f"{name}.safetensors"

    def save_model(self, model: keras.Model) -> Exception | None:
        """Writes `model.keras`. Returns the error of Keras, which raises anything for a layer that it cannot describe.

        There is then no such file. `OSError` if it cannot be written.
        """
        beside = self.path / "saving.keras"
        try:
            model.save(beside)
        except OSError:
            raise
        except Exception as error:
            beside.unlink(missing_ok=True)
            self.model.unlink(missing_ok=True)
            return error
        publish(beside, self.model)
        return None

    def cut_back(self, epoch: int) -> None:
        """Undoes what was written after an epoch."""
        self.failure.unlink(missing_ok=True)
        self.table.cut(epoch)
        self.remove_partial_files()

    def remove_partial_files(self) -> None:
        """Removes the files that a killed process did not finish. Call it while holding the lock."""
        for folder in (self.path, self.checkpoint.parent, self.weights):
            for pattern in PARTIAL_FILES:
                for path in folder.glob(pattern):
                    path.unlink()


@dataclasses.dataclass
class Held:
    """A folder that this process holds.

    Attributes:
        killed: the number of the process that held it last, if that one was killed, or the machine stopped; else empty.
            Set it to "" when the user knows. Otherwise the next process that holds the folder says it once more.
    """

    killed: str = ""


@contextlib.contextmanager
def locked(folder: pathlib.Path, doing: str) -> Iterator[Held]:
    """Holds a folder for this process. The lock ends with the process, so no stale lock is ever left.

    Raises:
        LockedError: if another process holds it, naming that process.
    """
    with open(folder / LOCK, "a+b", buffering=0) as file:  # closing a buffer would write again what the disk refused
        held = any(_hold(file, wait) for wait in (0, 0.02, 0.04))  # `in_use` holds it for microseconds
        file.seek(0)
        holder = file.read().decode(errors="replace").strip()
        if not held:
            raise LockedError(f"{folder}: process {holder or 'unknown'} is {doing} in this folder; wait for it to end")
        with naming(folder / LOCK):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        found = Held(holder)
        try:
            yield found
        finally:
            with contextlib.suppress(OSError):  # the disk may have become read-only
                file.truncate(0)
                file.write(found.killed.encode())


def _hold(file: IO, wait: float) -> bool:
    time.sleep(wait)
    return lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, os.path.dirname(file.name))


def in_use(folder: str | os.PathLike[str]) -> bool:
    """Whether a process holds a folder by `locked`; changes nothing in it."""
    try:
        with open(os.path.join(folder, LOCK), encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody ever held it, or it cannot be read
        pass
    return False


def check_writable(path: str | os.PathLike[str], advice: str) -> None:
    """`ConfigError` with the advice unless files can be made in a folder, or in the nearest one above it that exists.

    So what takes long is not computed for nothing.
    """
    path = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
    above = next(one for one in (path, *path.parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{above}: cannot be written; {advice}")


def names_folder(name: str) -> bool:
    """Whether `name` is a plain folder name: one path component, printable, not hidden."""
    return os.sep not in name and name.isprintable() and name.strip() == name and not name.startswith(".")


def _names_run(name: str) -> bool:
    return bool(name) and names_folder(name) and name not in ("train", "validation", *SHIPPED)


class NewFolder:
    """A folder for a new run, by default named after the time and the seed; it is made just before the first update.

    A name is free if its folder holds no more than a process leaves that is killed as it starts. It may have a folder
    before it, which holds the runs of several seeds: `seeds/seed0`.

    Raises:
        ConfigError: if the name is not a folder name or is taken, or the folder could not be made.
    """

    def __init__(self, logdir: str | os.PathLike[str], config: RunConfig, run_name: str = ""):
        names = run_name.split("/")
        if run_name and (len(names) > 2 or not all(map(_names_run, names))):
            raise ConfigError(f"--run_name names a folder below {logdir}/{config.spec.folder}, received {run_name!r}; "
                              f"{', '.join(SHIPPED)} are for the trained models of the package")
        self.logdir = pathlib.Path(local_path(logdir, "logdir"))
        parent = self.logdir / config.spec.folder
        if len(names) == 2 and (parent / names[0] / "config.json").exists():
            raise ConfigError(f"{parent / names[0]} is a run, and holds no others; choose another --run_name")
        name = run_name or f"{time.strftime('%Y%m%d-%H%M%S')}-seed{config.seed}"
        names = [name] if run_name else [name, *(f"{name}-{number}" for number in range(2, 100))]
        self._paths = [parent / one for one in names]
        self.path = next((path for path in self._paths if _is_free(path)), self._paths[0])
        if not _is_free(self.path):
            raise self._taken()
        check_writable(parent, "choose another --logdir or --run_name")

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)

    @contextlib.contextmanager
    def made(self) -> Iterator[RunFolder]:
        """Makes it, another one if another process was faster and nobody gave a name, and holds it."""
        self._make()
        with self.folder.locked() as held:
            held.killed = ""  # of a process that had trained nothing
            yield self.folder

    def _make(self) -> None:
        for self.path in self._paths:
            try:
                make_folder(self.path, exist_ok=False)
                return
            except FileExistsError:
                if _is_free(self.path):
                    return
            except OSError as error:
                raise ConfigError(f"{self.path}: cannot be made: {error.strerror}; "
                                  "choose another --logdir or --run_name") from error
        raise self._taken()

    def _taken(self) -> ConfigError:
        folder, said = RunFolder(self.path), f"{self.path} exists already"
        with contextlib.suppress(ConfigError):  # a folder of something else, or a damaged run
            config, result = read_run(self.path)[1], folder.read_result()
            done, of = len(folder.table.rows()), f"of {config.recipe.epochs} epochs"
            said = f"{self.path} was interrupted after {done} {of}: continue it with --resume={quoted(self.path)}"
            if result and finished(result, config):
                said = completed(folder, config, result)
            elif in_use(self.path):
                said = f"{self.path} is being trained, {done} {of} are done"
        return ConfigError(f"{said}; for a new run choose another --run_name")


def _is_free(path: pathlib.Path) -> bool:
    return not os.path.lexists(path) or is_empty(path) and not in_use(path)


def is_empty(path: pathlib.Path) -> bool:
    """Whether a folder holds no more than what a run leaves that is killed as it starts."""
    try:
        return all(name == LOCK or name.startswith(".config.json.") for name in os.listdir(path))
    except OSError:
        return False


def finished(result: Record | None, config: RunConfig) -> bool:
    """Whether what `read_result` returned is of a run that trained to its end under this config."""
    return result is not None and (result["stopped_early"] or result["epochs"] >= config.recipe.epochs)


def completed(folder: RunFolder, config: RunConfig, result: Record) -> str:
    """What a finished run is, and how it can be trained longer."""
    again = f"--config={quoted(folder.config)} with more --epochs is a new run of that length"
    longer = f"--resume={quoted(folder.path)} with more --epochs continues from its end"
    if result["stopped_early"]:
        longer = f"it stopped early; --config={quoted(folder.config)} with --early_stopping=0 trains longer"
    elif config.recipe.horizon == config.recipe.epochs:
        longer = f"so is the schedule of its learning rate; {again}"
    elif not folder.checkpoint.exists():
        longer = f"its checkpoint was removed; {again}"
    return f"{folder.path} is finished, {result['epochs']} of {config.recipe.epochs} epochs: {longer}"


def read_evaluation(folder: pathlib.Path, *, weights_sha256: str, data_sha256: str) -> Record | None:
    """The report in the folder of an evaluation; None if there is none, it is damaged, or of other weights or data."""
    try:
        report = read_json(folder / EVALUATION)
        same = report["weights_sha256"] == weights_sha256 and report["data"]["sha256"] == data_sha256
        return dict(report) if same else None
    except (OSError, ValueError, TypeError, LookupError):
        return None
