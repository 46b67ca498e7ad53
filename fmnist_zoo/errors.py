"""The base class of this project's errors. A command prints such an error as one line; any other is a bug."""

from __future__ import annotations


class ZooError(Exception):
    """An error with a message for the user: what is wrong, what was received, what to do.

    A subclass is also a `ValueError` (wrong input: exit code 2) or a `RuntimeError` (a failure: exit code 1).

    Attributes:
        has_lines: whether line ends in the message are its own. Others are of a name that it quotes, and a command
            prints them as escapes.
    """

    has_lines = False


class UsageError(ZooError, ValueError):
    """A combination of arguments that makes no sense."""


class SpecError(ZooError, ValueError):
    """A model, a recipe, a setting or a name that is not possible: says what was received and what is."""


class DamagedFileError(ZooError, ValueError):
    """A file that does not hold what was written to it: says which file and how it shows."""
