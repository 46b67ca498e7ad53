"""The records of a sweep: small JSON files, and a journal that makes many of them durable at once.

A disk takes milliseconds to sync a file, longer than all else that a leader does for a trial. So records are first
appended to a journal, many together, with one sync. Then each is written to its own file without a sync; what a power
cut loses of those is in the journal. When a sweep ends, or has `LIMIT` such files, they are synced, and the journal is
removed. So a journal is left only by a leader that was killed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import threading
from typing import Any, Mapping

from fmnist_zoo.files import append, opened, read_json, sealed, sync, write_json
from trainers.config import ConfigError

JOURNALS = ("journal-before.jsonl", "journal.jsonl")  # the first one's files are being synced
PROPOSAL, RESULT = re.compile(r"\d+/proposal\.json"), re.compile(r"\d+/result\.json")
LIMIT = 1000
AT_ONCE = 8  # threads that sync files: the file system writes its own log once for several of them


class Journal:
    """Writes records below `folder`. The names of their files are relative to it, such as 0007/result.json."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._before, self._current = (folder / name for name in JOURNALS)
        self._pending: dict[str, dict[str, Any]] = {}
        self._unsynced: list[str] = []
        self._syncing: threading.Thread | None = None

    def read(self) -> dict[str, dict[str, Any]]:
        """What the journal of a killed leader holds: the records by the names of their files.

        Torn and changed lines are ignored. A trial whose folder a person has deleted has no result: it runs again.
        """
        found = {}
        for path in (self._before, self._current):
            for line in path.read_bytes().splitlines() if path.exists() else ():
                with contextlib.suppress(ValueError, TypeError, RecursionError):
                    name, content = json.loads(line)
                    if PROPOSAL.fullmatch(name) or RESULT.fullmatch(name) and (self._folder / name).parent.is_dir():
                        found[name] = dict(opened(content))
        return found

    def add(self, name: str, content: dict[str, Any]) -> None:
        """Holds a record until `commit`."""
        self._pending[name] = content

    def commit(self) -> None:
        """Writes what was added. `OSError`, with the path, if the disk does not take it."""
        if self._pending:
            lines = [json.dumps([name, sealed(content)]) for name, content in self._pending.items()]
            append(self._current, "".join(f"{line}\n" for line in lines))
            self._write()
            if len(self._unsynced) >= LIMIT and not self._before.exists():
                os.replace(self._current, self._before)
                names, self._unsynced = self._unsynced, []
                self._syncing = threading.Thread(target=self._settle_earlier, args=[names], daemon=True)
                self._syncing.start()

    def _write(self) -> None:
        """Writes the files of what is in the journal."""
        for name, content in self._pending.items():
            path = self._folder / name
            path.parent.mkdir(exist_ok=True)
            write_json(path, content, synced=False)
        self._unsynced += self._pending
        self._pending = {}

    def _settle(self, journal: pathlib.Path, names: list[str]) -> None:
        """Syncs files, and removes the journal that holds them."""
        paths = [self._folder / name for name in names]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(_sync, paths))
            list(pool.map(_sync, {path.parent for path in paths}))
        _sync(self._folder)
        journal.unlink(missing_ok=True)

    def _settle_earlier(self, names: list[str]) -> None:
        with contextlib.suppress(OSError):  # then the journal is kept, and the next start tries again
            self._settle(self._before, names)

    def recover(self, records: Mapping[str, dict[str, Any]]) -> None:
        """Writes the files of what `read` found, and removes the journals."""
        if records:
            self._pending.update(records)
            self._write()
            self._unsynced, names = [], self._unsynced
            self._settle(self._before, names)
        for journal in (self._before, self._current):
            journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Writes and syncs all."""
        self.commit()
        if self._syncing:
            self._syncing.join()
        if self._unsynced:
            names, self._unsynced = self._unsynced, []
            self._settle(self._current, names)


def read(path: pathlib.Path, advice: str, otherwise: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The record in a file; `otherwise` if there is no file, or it is damaged.

    Raises:
        ConfigError: if it is damaged and there is no `otherwise`, with the `advice` what to do.
    """
    try:
        content = read_json(path)
        if isinstance(content, dict):
            return content
        problem = "not what a sweep wrote"
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, RecursionError) as error:
        problem = f"cannot be read: {error}"
    if otherwise is None:
        raise ConfigError(f"{path}: {problem}; {advice}")
    return otherwise


def _sync(path: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # a person has removed it
        sync(path)
