"""The part `fuzz`: damaged files, records, tables, words, each taken with the right meaning or refused in one line.

A worker process of its own tries them in batches, so that one that takes too much time or memory is found and named: an
input has a second of the processor, and a gigabyte beyond what the worker takes when it starts.

    python -m tests.campaign.fuzz config --batches=20 --keep=tests/campaign/corpus    # one target, and keep what fails
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import mmap
import os
import pathlib
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Iterator, Sequence

from tests.campaign.driver import Case, Part, register
from tests.campaign.inputs import ROOT, failures, keep, prepared, targets

BYTES = 1 << 30  # that an input may take
SILENT = 60.0  # seconds on the clock without a next input, after which a worker is ended
BATCHES = 40  # of a worker, which is then replaced: caches grow


def serve() -> None:
    """Tries the batches that standard input names, a JSON line each, and answers each with a line."""
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), io.TextIOWrapper(io.BytesIO())
    known = targets()
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, resource.RLIM_INFINITY))
    for line in sys.stdin:
        order = json.loads(line)
        target, folder = known[order["target"]], pathlib.Path(order["folder"])
        with open(order["index"], "r+b") as file, mmap.mmap(file.fileno(), 8) as shared, prepared(target, folder):
            def note(index: int) -> None:
                shared[:] = index.to_bytes(8, "little")

            found = [(index, said) for index, said, _ in failures(target, order["seed"], order["batch"], note)]
        print(json.dumps(found), file=answers, flush=True)


class Worker:
    """The process that runs `serve`."""

    def __init__(self) -> None:
        code = "from tests.campaign import fuzz; fuzz.serve()"
        self._process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.batches = 0

    def run(self, target: str, seed: int, batch: int, folder: pathlib.Path) -> list[tuple[int, str]]:
        """What failed of a batch: index and reason of each input."""
        self.batches += 1
        index = folder / "index"
        index.write_bytes(bytes(8))
        (folder / "inside").mkdir()
        order = {"target": target, "seed": seed, "batch": batch, "index": str(index), "folder": str(folder / "inside")}
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            seen, until = b"", time.monotonic() + SILENT
            while not select.select([self._process.stdout], [], [], 1.0)[0]:
                if (now := index.read_bytes()) != seen:
                    seen, until = now, time.monotonic() + SILENT
                if time.monotonic() > until:
                    return self._end(index, f"hangs: nothing for {SILENT:g} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return [(number, said) for number, said in json.loads(line)] if line else self._end(index, "the process died")

    def _end(self, index: pathlib.Path, said: str) -> list[tuple[int, str]]:
        self.close()
        self.batches = BATCHES
        return [(int.from_bytes(index.read_bytes(), "little"), said)]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Fuzz(Part):
    name = "fuzz"
    about = "inputs that were damaged: data, pictures, records, tables, checkpoints, weights, flags, spaces, names"

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def cases(self, seed: int) -> Iterator[Case]:
        known = targets()
        for batch in itertools.count():
            for name, target in known.items():
                yield Case(f"{name}-{batch}", (name, seed, batch), target.batch)

    def find(self, seed: int, id: str) -> Case | None:
        name, _, batch = id.rpartition("-")
        known = targets()
        return Case(id, (name, seed, int(batch)), known[name].batch) if name in known and batch.isdecimal() else None

    def run(self, case: Case, folder: pathlib.Path) -> str | None:
        if self._worker and self._worker.batches >= BATCHES:
            self._worker.close()
            self._worker = None
        self._worker = self._worker or Worker()
        name, seed, batch = case.content
        found = self._worker.run(name, seed, batch, folder)
        return f"input {found[0][0]}: {found[0][1]}; {len(found)} of {case.tries} failed" if found else None


register(Fuzz())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args(arguments)
    known, seen = targets(), {"": ""}
    for name in options.targets or known:
        start, tried = time.process_time(), options.batches * known[name].batch
        for batch in range(options.first, options.first + options.batches):
            folder = pathlib.Path(tempfile.mkdtemp())
            with prepared(known[name], folder):
                for index, said, content in failures(known[name], options.seed, batch):
                    place = f"{name} {said.split(':')[0]} {said.rpartition('(')[2]}"
                    if place not in seen:
                        print(f"{name} {batch} {index}: {said}\n    {content[:300]!r}", flush=True)
                        seen[place] = said
                        if options.keep:
                            keep(ROOT / options.keep, name, said, content)
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {tried} in {time.process_time() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
