"""The pieces of work that are crashed: each prepares a folder, works in it, and can be told to continue there.

Commands are called in this process, which stays warm. What they print is kept, and shown where a case fails.
"""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import shutil
from typing import Any, Callable, Iterator, NamedTuple
from unittest import mock

from tests import helpers, sweeps
from tests.conftest import tape_without_xla

MODEL = "softmax"
RUN = pathlib.Path("logs", MODEL, "one")
SETTINGS = ("--data=mini", f"--batch_size={sweeps.BATCH}")  # so large that nothing is compiled, in workers neither


class Answer(NamedTuple):
    """What a command answered: its exit code, and what it wrote to standard error."""

    code: int
    error: str

    @property
    def refused(self) -> bool:
        """Whether it is a refusal as a person should get it: one line."""
        return self.code in (1, 2) and self.error.count("\n") == 1


def call(main: Callable[..., int], *arguments: Any) -> Answer:
    """Runs a command in this process. `KeyboardInterrupt` if Ctrl-C interrupted it."""
    out, error = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main([str(argument) for argument in arguments])
    if code > 128:
        raise KeyboardInterrupt
    return Answer(code, error.buffer.getvalue().decode())


@contextlib.contextmanager
def quiet_engine() -> Iterator[None]:
    """Nothing is compiled by XLA, and a sweep draws no page: both take longer than what is tried."""
    from trainers.tuning import start

    with tape_without_xla(), mock.patch.object(start, "_write_page", lambda study: None):
        yield


class Work:
    """A piece of work in a folder.

    Attributes:
        name: names it in the ids of cases.
        most: how many of its states a seed tries; None: all.
    """

    name: str
    most: int | None = None

    def prepare(self, root: pathlib.Path) -> None:
        """What was there before."""

    def command(self, root: pathlib.Path) -> Answer:
        """The work itself, which may fail."""
        raise NotImplementedError

    def act(self, root: pathlib.Path) -> None:
        """The work, undisturbed."""
        answer = self.command(root)
        assert answer.code == 0, answer.error

    def again(self, root: pathlib.Path) -> str | None:
        """Does after a crash what a person would do; what went wrong with it in one line."""
        answer = self.command(root)
        return None if answer.code == 0 else f"exit code {answer.code}: {answer.error}"

    def outcome(self, root: pathlib.Path) -> Any:
        """All that must be equal afterwards, as JSON can hold it."""
        raise NotImplementedError


class Training(Work):
    """A run that is continued by `--resume`, or begun again where there is nothing to resume.

    Args:
        done: epochs that were trained before.
        finished: whether that was all that was planned, and the run is made longer.
        every: epochs between checkpoints; 0: as by default.
    """

    def __init__(self, name: str, *, done: int = 0, finished: bool = False, every: int = 1):
        self.name, self._done, self._finished, self._every = name, done, finished, every
        self._flags = (f"--model={MODEL}", *SETTINGS, f"--checkpoint_every={every}", "--histogram_every=0")

    def prepare(self, root: pathlib.Path) -> None:
        from trainers import evaluate, train

        if self._done:
            train.train(MODEL, data="mini", batch_size=sweeps.BATCH, checkpoint_every=self._every, histogram_every=0,
                        epochs=self._done if self._finished else 4, on_epoch=lambda row: row["epoch"] == self._done,
                        logdir=root / "logs", run_name="one", verbose=False)
        if self._finished:
            assert call(evaluate.main, f"--run={root / RUN}").code == 0

    def command(self, root: pathlib.Path) -> Answer:
        return self._resume(root) if self._done else self._begin(root)

    def _begin(self, root: pathlib.Path) -> Answer:
        from trainers import train

        return call(train.main, *self._flags, "--epochs=4", f"--logdir={root / 'logs'}", "--run_name=one")

    def _resume(self, root: pathlib.Path) -> Answer:
        from trainers import train

        return call(train.main, f"--resume={root / RUN}", "--epochs=4")

    def again(self, root: pathlib.Path) -> str | None:
        answer = self._resume(root)
        if answer.refused and not (root / RUN / "config.json").exists():
            answer = self._begin(root)
        return None if answer.code == 0 else f"exit code {answer.code}: {answer.error}"

    def outcome(self, root: pathlib.Path) -> Any:
        return helpers.run_outcome(root / RUN)


class Evaluating(Work):
    """The evaluation of a finished run."""

    name = "evaluate"

    def prepare(self, root: pathlib.Path) -> None:
        Training("run").act(root)

    def command(self, root: pathlib.Path) -> Answer:
        from trainers import evaluate

        return call(evaluate.main, f"--run={root / RUN}")

    def outcome(self, root: pathlib.Path) -> Any:
        report = json.loads((root / RUN / "evaluation" / "evaluation.json").read_text())
        for name in ("environment", "content_sha256", "date", "title"):
            report.pop(name, None)
        return {**helpers.run_outcome(root / RUN), "report": report,
                "files": sorted(path.name for path in (root / RUN / "evaluation").glob("*.png"))}


class Sweeping(Work):
    """A sweep, continued by the same command; from then on its trials run in this process.

    Args:
        workers: processes that train while the sweep is recorded; 0: this one trains.
        flags: of `trainers.sweep`.
    """

    def __init__(self, name: str, *flags: str, workers: int = 0, most: int | None = None):
        self.name, self._flags, self._workers, self.most = name, flags, workers, most

    def act(self, root: pathlib.Path) -> None:
        answer = self._sweep(root) if self._workers else self.command(root)
        assert answer.code == 0, answer.error

    def _sweep(self, root: pathlib.Path) -> Answer:
        from trainers import sweep

        return call(sweep.main, f"--model={MODEL}", *SETTINGS, *self._flags, f"--workers={max(1, self._workers)}",
                    f"--logdir={root / 'logs'}", "--name=one")

    def command(self, root: pathlib.Path) -> Answer:
        from trainers.tuning import workers

        inline = sweeps.Inline(slots=max(1, self._workers))
        with mock.patch.object(workers, "make", lambda workers, scheduler, threads: inline), \
                mock.patch.object(shutil, "_USE_CP_SENDFILE", False):  # strace does not show what sendfile copies
            return self._sweep(root)

    def outcome(self, root: pathlib.Path) -> Any:
        from trainers.running.folder import RunFolder

        path = root / "logs" / "sweeps" / "one"
        runs = {config.parent.parent.name: RunFolder(config.parent) for config in sorted(path.glob("*/0/config.json"))}
        return {"table": sweeps.without_times(sweeps.rows_of(path)),
                "rows": {name: helpers.rows_without_times(run.path) for name, run in runs.items()},
                "weights": {name: (run.read_result() or {}).get("weights_sha256") for name, run in runs.items()},
                "journals": sorted(one.name for one in path.glob("journal*"))}


ALL: dict[str, Work] = {work.name: work for work in (
    Training("run"), Training("seldom", every=0), Training("resume", done=2), Training("longer", done=2, finished=True),
    Evaluating(),
    Sweeping("sweep", "--space=learning_rate=log(1e-3..1e-1)", "--tuner=random", "--max_trials=6", "--epochs=2",
             workers=2, most=300),
    Sweeping("asha", "--space=learning_rate=log(1e-3..1e-1)", "--tuner=asha", "--max_trials=6", "--epochs=4", most=300),
)}
