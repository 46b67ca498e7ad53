"""What a person sees of a run or a sweep: a bar on a terminal or in a notebook, plain lines where output is piped.

The base class `Reporter` shows nothing. Nothing here may import TensorFlow: sweeps and commands show progress too.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, TextIO

if TYPE_CHECKING:
    from trainers.engine.epoch import EpochMeans
    from trainers.metrics_table import Row


class Reporter:
    """The interface, and a reporter that shows nothing."""

    def header(self, lines: dict[str, str]) -> None:
        """Before the first step: what is trained on what, by titles."""

    def part(self, epoch: int, share: float, means: EpochMeans, images_per_second: float, seconds_left: float) -> None:
        """Within an epoch (1 is the first) of which `share` is done; `seconds_left` is for the whole run."""

    def epoch(self, row: Row, epochs: int, best_epoch: int, seconds_left: float) -> None:
        """After an epoch: its row of `metrics.csv`."""

    def trials(self, done: int, total: int, running: dict[str, tuple[int, int]]) -> None:
        """Every second of a sweep: `done` of `total` trials; and of each running trial, by its name, how many epochs
        are done, and how many it has."""

    def note(self, line: str) -> None:
        """Anything else that is worth a line."""

    def close(self) -> None:
        """At the very end, however the run ended."""


class Lines(Reporter):
    """Plain lines on standard output, or in a file."""

    def __init__(self, file: TextIO | None = None):
        self._file = file

    def header(self, lines: dict[str, str]) -> None:
        for title, text in lines.items():
            self.note(f"{title:<11} {text}")

    def epoch(self, row: Row, epochs: int, best_epoch: int, seconds_left: float) -> None:
        self.note(epoch_line(row, epochs, best_epoch, seconds_left))

    def note(self, line: str) -> None:
        try:
            print(line, file=self._file, flush=True)
        except OSError as error:  # of a full disk, without a name; a reader that is gone stays a BrokenPipeError
            raise OSError(error.errno, error.strerror, getattr(self._file, "name", "standard output")) from error


class Moving(Lines):
    """The lines of the epochs or trials before, and below them a bar for the current epoch, or for a sweep.

    A subclass draws the bar in `_move`, and takes it away in `close`: another run may follow.
    """

    _room = 0  # letters for what a person may want to know beside the bar
    _validation = ""

    def _move(self, what: str, share: float, text: str) -> None:
        raise NotImplementedError

    def part(self, epoch: int, share: float, means: EpochMeans, images_per_second: float, seconds_left: float) -> None:
        what, left = f"epoch {epoch}", f"  {clock(seconds_left)} left"
        text = f"loss {means.loss:.4f} accuracy {means.accuracy:.4f}"
        for more in (self._validation, f"  {images_per_second:.0f} images/s"):
            text += more if len(what + text + more + left) < self._room else ""
        self._move(what, share, text + left)

    def trials(self, done: int, total: int, running: dict[str, tuple[int, int]]) -> None:
        share = (done + sum(epochs / of for epochs, of in running.values())) / total
        self._move("trials", share, "  ".join(f"{name}: epoch {epochs}/{of}" for name, (epochs, of) in running.items()))

    def epoch(self, row: Row, epochs: int, best_epoch: int, seconds_left: float) -> None:
        if row["val_loss"] is not None:
            self._validation = f"  validation {row['val_loss']:.4f} {row['val_accuracy']:.4f}"
        super().epoch(row, epochs, best_epoch, seconds_left)


class Bar(Moving):
    """On a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(highlight=False, soft_wrap=True)
        width = max(4, min(24, console.width - 100))
        self._room = console.width - width - len("  100 %  ")
        self._progress = Progress(
            TextColumn("{task.fields[what]}"), BarColumn(bar_width=width), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[text]}"), console=console, transient=True)
        self._task: Any = None

    def _move(self, what: str, share: float, text: str) -> None:
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=1.0, what=what, text=text)
        self._progress.update(self._task, completed=share, what=what, text=text)

    def note(self, line: str) -> None:
        self._progress.console.print(line, markup=False)

    def close(self) -> None:
        self._progress.stop()  # which also shows the cursor again
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task, self._validation = None, ""


class Notebook(Moving):
    """One output of a notebook's cell.

    Rich's own bar needs the package ipywidgets in a notebook. This one needs IPython alone, which each notebook has.
    """

    SECONDS = 0.25  # between two updates: a notebook keeps up with no more

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bar, self._shown = "", 0.0
        self._handle: Any = None

    def _move(self, what: str, share: float, text: str) -> None:
        self._bar = f"{what}  {'━' * round(24 * share):<24}  {share:>4.0%}  {text}"
        self._show()

    def note(self, line: str) -> None:
        self._lines.append(line)
        self._show()

    def close(self) -> None:
        self._bar = ""
        self._show(now=True)

    def _show(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._shown < self.SECONDS:
            return
        self._shown = time.monotonic()
        content = {"text/plain": "\n".join([*self._lines, self._bar]).rstrip("\n")}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class Handing(Reporter):
    """Shows what another reporter shows, and hands each epoch's row to a function, which may ask the run to stop.

    Attributes:
        stop: whether the function asked for it, or raised an error.
        error: what it raised; None for nothing. A run ends with its checkpoint first.
    """

    def __init__(self, shown: Reporter, function: Callable[[Row], object]):
        self._shown, self._function, self.stop = shown, function, False
        self.error: Exception | None = None
        for name in ("header", "part", "trials", "note", "close"):
            setattr(self, name, getattr(shown, name))

    def epoch(self, row: Row, epochs: int, best_epoch: int, seconds_left: float) -> None:
        self._shown.epoch(row, epochs, best_epoch, seconds_left)
        try:
            self.stop = bool(self._function(dict(row)))
        except Exception as error:
            self.error, self.stop = error, True


def for_output() -> Reporter:
    """A bar on a terminal or in a notebook, else lines."""
    if in_notebook():
        return Notebook()
    return Bar() if _on_terminal() else Lines()


def for_caller(verbose: bool | None) -> Reporter:
    """What a caller in Python sees: None: a bar where a person looks, a terminal or a notebook, and nothing elsewhere.

    True: as `for_output`; False: nothing.
    """
    shown = in_notebook() or _on_terminal() if verbose is None else verbose
    return for_output() if shown else Reporter()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None  # None where IPython is imported and runs no shell
    return shell is not None and hasattr(shell, "kernel")


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def epoch_line(row: Row, epochs: int, best_epoch: int, seconds_left: float) -> str:
    """An epoch in one line; `*` marks the best so far."""
    penalty = f"  penalty {row['penalty']:.4f}" if row["penalty"] else ""
    validation = ""
    if row["val_loss"] is not None:
        best = "*" if best_epoch == row["epoch"] else " "
        validation = (f"  validation loss {row['val_loss']:.4f} "
                      f"accuracy {row['val_accuracy']:.4f}{best}")
    return (f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['loss']:.4f} "
            f"accuracy {row['accuracy']:.4f}{penalty}{validation}  {row['images_per_second']:.0f} images/s  "
            f"{clock(seconds_left)} left")


def clock(seconds: float) -> str:
    """`0:05`, `12:34`, `1:02:03`."""
    whole = round(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02}"
