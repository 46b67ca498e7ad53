"""What a person sees of a run: a bar on a terminal, a line an epoch where output is piped, nothing for a `Reporter`."""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any, Callable, Sequence, TextIO

from trainers.config import RunConfig
from trainers.engine.epoch import EpochMeans
from trainers.running import estimate


class Reporter:
    """Reports nothing; the base of those that do."""

    def header(self, facts: dict[str, Any]) -> None:
        """Before the first step."""

    def part(self, epoch: int, share: float, means: EpochMeans, images_per_second: float, seconds_left: float) -> None:
        """Within an epoch (1 is the first), `share` of it done; `seconds_left` is of the whole run."""

    def epoch(self, row: dict[str, Any], epochs: int, best_epoch: int, seconds_left: float) -> None:
        """After an epoch: its row of `metrics.csv`."""

    def trials(self, done: int, total: int, running: Callable[[], dict[str, tuple[int, int]]]) -> None:
        """Every second of a sweep: trials that ended; `running` looks up epochs done and to do of those that run."""

    def note(self, line: str) -> None:
        """Anything else worth a line."""

    def close(self) -> None:
        """After the last word, however the run ended."""


class Lines(Reporter):
    """Plain lines on standard output, or in a file."""

    def __init__(self, file: TextIO | None = None):
        self._file = file

    def header(self, facts: dict[str, Any]) -> None:
        for name, value in facts.items():
            self.note(f"{name:<11} {value}")

    def epoch(self, row: dict[str, Any], epochs: int, best_epoch: int, seconds_left: float) -> None:
        self.note(epoch_line(row, epochs, best_epoch, seconds_left))

    def note(self, line: str) -> None:
        print(line, file=self._file, flush=True)


class Bar(Lines):
    """A bar for the epoch that runs, below the lines of those that ended."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.fields[what]}"), BarColumn(bar_width=max(4, min(24, console.width - 100))),
            TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[text]}"), console=console, transient=True)
        self._task: Any = None
        self._validation = ""

    def part(self, epoch: int, share: float, means: EpochMeans, images_per_second: float, seconds_left: float) -> None:
        text = f"loss {means.loss:.4f} accuracy {means.accuracy:.4f}{self._validation}"
        if self._progress.console.width >= 100:
            text += f"  {images_per_second:.0f} images/s"
        text += f"  {estimate.clock(seconds_left)} left"
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=1.0, what="", text=text)
        self._progress.update(self._task, completed=share, what=f"epoch {epoch}", text=text)

    def trials(self, done: int, total: int, running: Callable[[], dict[str, tuple[int, int]]]) -> None:
        now = running()
        text = "  ".join(f"{name}: epoch {epochs}/{of}" for name, (epochs, of) in now.items())
        share = done + sum(epochs / of for epochs, of in now.values())
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=total, what="trials", text=text)
        self._progress.update(self._task, completed=share, text=text)

    def epoch(self, row: dict[str, Any], epochs: int, best_epoch: int, seconds_left: float) -> None:
        if row["validation_loss"] is not None:
            self._validation = f"  validation {row['validation_loss']:.4f} {row['validation_accuracy']:.4f}"
        super().epoch(row, epochs, best_epoch, seconds_left)

    def note(self, line: str) -> None:
        self._progress.console.print(line, markup=False)

    def close(self) -> None:
        self._progress.stop()  # also gives the cursor back


def for_output() -> Reporter:
    """A bar if a person looks on, else lines."""
    return Bar() if sys.stdout is not None and sys.stdout.isatty() else Lines()


def facts(record: dict[str, Any], folder: pathlib.Path, *, batch_size: int, epoch: int, steps_an_epoch: int,
          gpus: Sequence[Any]) -> dict[str, str]:
    """What stands above a run's epochs, from the `record` in its config.json; `epoch` epochs are done already."""
    config, data, environment = RunConfig.from_dict(record["config"]), record["data"], record["environment"]
    recipe, ranking = config.recipe, f", {data['ranking']} to rank" if config.ranking else ""
    return {
        "model": f"{config.spec.name}: {config.spec.description}, {config.spec.parameters} parameters",
        "data": f"{data['name']}, {data['fit']} to fit, {data['validation']} to validate{ranking}, "
                f"sha256 {data['sha256'][:12]}",
        "training": f"{config.trainer}, {recipe.optimizer} {recipe.learning_rate:g}, batch {batch_size}, "
                    f"{recipe.epochs} epochs of {steps_an_epoch} steps, seed {config.seed}",
        "device": ", ".join(gpu.name for gpu in gpus) or f"{environment['cpu']}, {environment['cores']} cores",
        "folder": str(folder),
        **({"resumed": f"after epoch {epoch}"} if epoch else {}),
    }


def epoch_line(row: dict[str, Any], epochs: int, best_epoch: int, seconds_left: float) -> str:
    """An epoch in one line; `*` marks the best so far."""
    penalty = f"  penalty {row['train_penalty']:.4f}" if row["train_penalty"] else ""
    validation = "" if row["validation_loss"] is None else (
        f"  validation loss {row['validation_loss']:.4f} accuracy {row['validation_accuracy']:.4f}"
        f"{'*' if best_epoch == row['epoch'] else ' '}")
    return (f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f} "
            f"accuracy {row['train_accuracy']:.4f}{penalty}{validation}  {row['images_per_second']:.0f} images/s  "
            f"{estimate.clock(seconds_left)} left")


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started
