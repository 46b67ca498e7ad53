"""The pieces of work that are crashed: each prepares a folder, works in it, and can be told to continue there.

Commands are called in this process, which stays warm. What they print is kept, and shown where a case fails.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
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
    from trainers.tuning import leader

    with tape_without_xla(), mock.patch.object(leader, "write_page", lambda study: None):
        yield


class Training:
    """A run that is continued by `--resume`, or begun again where there is nothing to resume.

    Args:
        done: epochs that were trained before.
        finished: whether that was all that was planned, and the run is made longer.
        every: epochs between checkpoints; 0: as by default.
    """

    def __init__(self, *, done: int = 0, finished: bool = False, every: int = 1):
        self._done, self._finished, self._every = done, finished, every

    def prepare(self, root: pathlib.Path) -> None:
        """What was there before."""
        from trainers import train

        if self._done:
            train.train(MODEL, data="mini", batch_size=sweeps.BATCH, checkpoint_every=self._every, histogram_every=0,
                        epochs=self._done if self._finished else 4, on_epoch=lambda row: row["epoch"] == self._done,
                        logdir=root / "logs", run_name="one", verbose=False)

    def command(self, root: pathlib.Path) -> Answer:
        """The work itself, which may fail."""
        from trainers import train

        if self._done:
            return call(train.main, f"--resume={root / RUN}", "--epochs=4")
        return call(train.main, f"--model={MODEL}", *SETTINGS, f"--checkpoint_every={self._every}",
                    "--histogram_every=0", "--epochs=4", f"--logdir={root / 'logs'}", "--run_name=one")

    def again(self, root: pathlib.Path) -> str | None:
        """Does after a crash what a person would do; what went wrong with it in one line."""
        from trainers import train

        answer = call(train.main, f"--resume={root / RUN}", "--epochs=4")
        if answer.code and not (root / RUN / "config.json").exists():
            answer = self.command(root)
        return None if answer.code == 0 else f"exit code {answer.code}: {answer.error}"

    def outcome(self, root: pathlib.Path) -> Any:
        """All that must be equal afterwards, as JSON can hold it."""
        return helpers.run_outcome(root / RUN)


class Sweeping:
    """A sweep with these flags, continued by the same command; its trials run in this process."""

    def __init__(self, *flags: str):
        self._flags = flags

    def prepare(self, root: pathlib.Path) -> None:
        """Nothing was there before."""

    def command(self, root: pathlib.Path) -> Answer:
        from trainers import sweep
        from trainers.tuning import workers

        with mock.patch.object(workers, "make", lambda workers, scheduler, threads: sweeps.Inline()):
            return call(sweep.main, f"--model={MODEL}", *SETTINGS, *self._flags, f"--logdir={root / 'logs'}",
                        "--name=one")

    def again(self, root: pathlib.Path) -> str | None:
        answer = self.command(root)
        return None if answer.code == 0 else f"exit code {answer.code}: {answer.error}"

    def outcome(self, root: pathlib.Path) -> Any:
        from trainers.running.folder import RunFolder

        path = root / "logs" / "sweeps" / "one"
        runs = {config.parent.parent.name: RunFolder(config.parent) for config in sorted(path.glob("*/0/config.json"))}
        return {"table": sweeps.without_times(sweeps.rows_of(path)),
                "rows": {name: helpers.rows_without_times(run.path) for name, run in runs.items()},
                "weights": {name: (run.read_result() or {}).get("weights_sha256") for name, run in runs.items()}}


ALL: dict[str, Any] = {
    "run": Training(), "seldom": Training(every=0), "resume": Training(done=2),
    "longer": Training(done=2, finished=True),
    "sweep": Sweeping("--space=learning_rate=log(1e-3..1e-1)", "--tuner=random", "--max_trials=6", "--epochs=2"),
    "asha": Sweeping("--space=learning_rate=log(1e-3..1e-1)", "--tuner=asha", "--max_trials=6", "--epochs=4")}
