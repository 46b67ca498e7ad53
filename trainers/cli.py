"""What the commands share: flags, those of a run's settings among them, a grouped `--help`, one line for a mistake.

Each command keeps its flags in a `Flags` of its own, so that importing a command defines none. Nothing here may import
TensorFlow.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import signal
import sys
import textwrap
import threading
from typing import Any, Callable, Mapping, Sequence

from absl import flags

from fmnist_zoo import backend, card, registry, settings
from fmnist_zoo.errors import SpecError, UsageError, ZooError
from fmnist_zoo.files import local_path
from fmnist_zoo.settings import Choice, Switch, Whole
from trainers.config import SETTINGS, THREADS, THREADS_VARIABLE

USAGE, FAILURE = 2, 1
MOST_SEEDS = 100  # that a number alone asks for
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Flags(flags.FlagValues):
    """The flags of one command; each method defines one, whose value is `default` unless it is given."""

    def text(self, name: str, help: str, default: str | None = None) -> None:
        flags.DEFINE(_Parser(name), name, default, help, flag_values=self)

    def path(self, name: str, help: str, default: str | None = None) -> None:
        """A file or folder on this machine, with `~` expanded."""
        flags.DEFINE(_Parser(name, functools.partial(local_path, name=name)), name, default, help, flag_values=self)

    def paths(self, name: str, help: str) -> None:
        """It may be given several times."""
        self._several(_Parser(name, functools.partial(local_path, name=name)), help)

    def texts(self, name: str, help: str) -> None:
        """It may be given several times."""
        self._several(_Parser(name), help)

    def _several(self, parser: _Parser, help: str) -> None:
        flags.DEFINE_multi(parser, flags.ArgumentSerializer(), parser.name, [], help, flag_values=self)
        self[parser.name].help = help  # absl adds that it may be repeated

    def whole(self, name: str, help: str, default: int | None = None) -> None:
        """A whole number from 1 on."""
        kind = Whole(low=1, below=2**31)
        flags.DEFINE(_Parser(name, functools.partial(settings.parse, name, kind)), name, default, help,
                     flag_values=self)

    def seed_list(self, name: str, help: str, default: Sequence[int] | None = None) -> None:
        """How many seeds, from 0 on, or a list with commas: `5`, `0,3,7`, `3,`. The value is a list."""
        flags.DEFINE(_Parser(name, _seeds), name, default, help, flag_values=self)

    def switch(self, name: str, help: str, default: bool = False) -> None:
        flags.DEFINE_boolean(name, default, help, flag_values=self)

    def choice(self, name: str, values: Sequence[str], help: str, default: str | None = None) -> None:
        read = functools.partial(settings.parse, name, Choice(tuple(values)))
        flags.DEFINE(_Parser(name, read), name, default, f"{help} ({', '.join(values)})", flag_values=self)


def parse(values: Flags, arguments: Sequence[str], *, words: bool = False) -> list[str]:
    """Parses `arguments` (without the program's name) into `values`; returns the words that belong to no flag.

    Raises:
        UsageError: for unknown flags (with the nearest ones), wrong values, and, without `words`, for words that belong
            to no flag.
    """
    values.set_gnu_getopt(words)
    try:
        rest = values(["command", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = settings.suggestion(error.flagname, values) or "--help lists them"
        raise UsageError(f"there is no flag --{card.printable(error.flagname)}; {hint}") from None
    except flags.Error as error:
        cause = error.__context__  # of a setting; absl puts its own sentence before the message
        message = f"--{cause}" if isinstance(cause, SpecError) else str(error)
        if cause and cause.args[:1] == ("Non-boolean argument to boolean flag",):
            flag = str(error).partition("=")[0].removeprefix("flag ")
            message = f"{flag} is true or false, received {cause.args[1]!r}"
        if isinstance(cause, StopIteration):
            flag = message.rpartition(" ")[2]
            message = f"{flag} needs a value: {flag}=..."
        raise UsageError(card.printable(message.replace("\n", " "))) from None
    if rest and not words:
        meant = f"did you mean --model={rest[0]}?" if "model" in values and rest[0] in registry.list_models() else \
            "flags are written --name=value (see --help)"
        raise UsageError(f"received {rest[0]!r}, which belongs to no flag; {meant}")
    return rest


class _Parser(flags.ArgumentParser):
    """Reads the value of a flag by a function; refuses a flag without a value that took the next flag for it."""

    def __init__(self, name: str, read: Callable[[str], Any] = str):
        super().__init__()
        self.name, self._read = name, read

    def parse(self, argument: Any) -> Any:
        if not isinstance(argument, str):  # a default
            return argument
        if argument.startswith("--"):  # as in `--run_name --dry_run`
            raise SpecError(f"{self.name} needs a value, --{self.name}=...; received the next flag, {argument}")
        return self._read(argument)


def _seeds(text: str) -> list[int]:
    if "," not in text:
        with contextlib.suppress(SpecError):
            return list(range(settings.parse("seeds", Whole(low=1, below=MOST_SEEDS + 1), text)))
        raise SpecError(f"seeds must be how many seeds, 1 to {MOST_SEEDS}, or a list such as 0,3,7; received "
                        f"{text!r}")
    found = [settings.parse("seeds", SETTINGS["seed"].kind, one) for one in text.removesuffix(",").split(",")]
    if len(set(found)) < len(found):
        raise SpecError(f"seeds must list each seed once; received {text!r}")
    return found


def define_settings(values: Flags) -> None:
    """Defines a flag for each setting of a run. Its value is None unless it is given, so that the recipe decides."""
    for name, known in SETTINGS.items():
        if isinstance(known.kind, Switch):
            flags.DEFINE_boolean(name, None, known.help, flag_values=values)
            continue
        help = f"{known.help} ({', '.join(known.kind.values)})" if isinstance(known.kind, Choice) else known.help
        parser = _Parser(name, functools.partial(settings.parse, name, known.kind))
        flags.DEFINE(parser, name, None, help, flag_values=values)


def settings_in(group: str) -> list[str]:
    """The flags of settings in a group of `--help`, such as `fmnist_zoo.settings.TRAINING`."""
    return [name for name, known in SETTINGS.items() if known.group == group]


def given_settings(values: Flags) -> dict[str, Any]:
    """The settings whose flags are given, with their values."""
    return {name: values[name].value for name in SETTINGS if name in values and values[name].present}


def given(values: Flags) -> set[str]:
    """Names of the flags that are given."""
    return {name for name in values if values[name].present}


def help_text(usage: str, groups: Mapping[str, Sequence[str]], values: Flags) -> str:
    """`--help`: what the command does, then its flags group by group."""
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [usage.strip()]
    for group, names in groups.items():
        lines += ["", f"{group}:"]
        for name in names:
            flag = values[name]
            head = f"  --{name}" if flag.boolean else f"  --{name}=..."
            if len(head) > 24:
                lines.append(head)
                head = ""
            lines += textwrap.wrap(flag.help, width, initial_indent=f"{head:<26}", subsequent_indent=" " * 26)
    return "\n".join(lines)


def main(name: str, arguments: Sequence[str] | None, *, usage: str, groups: Mapping[str, Sequence[str]],
         define_flags: Callable[[], Flags], body: Callable[..., int], words: bool = False,
         any_backend: bool = False) -> int:
    """Runs a command on its arguments (None: the process's own) and returns the exit code.

    Prints `--help`, or calls `body` with the flags and, with `words`, arguments that belong to no flag, such as files.
    Each command has the flag `--zoo_module`; its module is imported before the body runs. Another backend of Keras than
    TensorFlow is refused, except with `any_backend`, by a command that trains and converts nothing.
    """

    if arguments is None and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see trainers/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def answer() -> int:
        values, received = define_flags(), list(sys.argv[1:] if arguments is None else arguments)
        values.text("zoo_module", "a module of yours that registers more models; what is done with a model that a "
                    "function of it builds needs it each time")
        if {"--help", "-help", "-h", "--helpfull"} & set(received):
            print(help_text(usage, {**groups, "Models of your own": ("zoo_module",)}, values))
            return 0
        rest = parse(values, received, words=words)
        if arguments is None:
            backend.alone()
        if not any_backend:
            backend.need_tensorflow()
        threads = "threads" in values and values.threads or os.environ.get(THREADS_VARIABLE) or THREADS
        with backend.environment(THREADS_VARIABLE, str(threads)):  # whatever starts TensorFlow, such as a zoo module
            if values.zoo_module:
                registry.load_zoo_module(values.zoo_module)
            return body(values, list(map(local_path, rest))) if words else body(values)

    return run(name, answer)


def run(name: str, body: Callable[[], int]) -> int:
    """Runs a command's body; a person's mistake becomes one line on standard error and exit code 2, a failed run 1."""
    try:
        if sys.stdout is not None:
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code = body()
        print(end="", flush=True)
        return code
    except ZooError as error:
        lines = str(error).split("\n") if error.has_lines else [str(error)]
        print(f"{name}: " + "\n".join(map(card.printable, lines)), file=sys.stderr)
        _settle_output()
        return USAGE if isinstance(error, ValueError) else FAILURE
    except BrokenPipeError:
        _settle_output()
        return FAILURE
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if error.filename is None and not full:
            raise
        where = card.printable(str(error.filename or "standard output"))
        print(f"{name}: {where}: {error.strerror}{'; make room' if full else ''}", file=sys.stderr)
        _settle_output()
        return FAILURE
    except KeyboardInterrupt as error:
        if str(error):
            print(error, flush=True)
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def _settle_output() -> None:
    """Writes what is left for standard output, or discards what that does not take: Python would try once more as it
    ends, and print an error of its own."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Interrupted(KeyboardInterrupt):
    """A signal, `number`, ended what ran; the text says what is saved, and how to continue."""

    def __init__(self, number: int, text: str = ""):
        super().__init__(text)
        self.number = number


class StopSignal:
    """Turns the first Ctrl-C (or SIGTERM, or SIGUSR1) into a wish to stop after this epoch; the second one raises
    `Interrupted`. So does the first one until somebody asks whether to stop, since nothing has begun by then.

    A terminal that closes (SIGHUP) is such a wish, too. It may send the signal twice, so a second one changes nothing;
    output to the terminal is then discarded. Under `nohup`, which ignores the signal, it stays ignored.

    A context manager, after which the caller's handlers are back; call it to ask whether to stop. Python takes handlers
    in its main thread alone: in another one, signals are the caller's.
    """

    def __init__(self) -> None:
        self.number, self._asked = 0, False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        self._asked = True
        return bool(self.number)

    def __enter__(self) -> StopSignal:
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                before = signal.getsignal(number)  # None: a handler that is not Python's
                if before is not None and (number, before) != (signal.SIGHUP, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            self._leave_terminal()
            if self.number:
                return
        if self.number or not self._asked:
            raise Interrupted(number, "" if self._asked else "interrupted before the first update; start it again")
        self.number = number
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # the signal may come within another print
            print("\nfinishing this epoch, then saving; once more to leave at once", file=sys.stderr, flush=True)

    def _leave_terminal(self) -> None:
        """A terminal that is gone refuses output, which would end the run with an error before it has saved."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
