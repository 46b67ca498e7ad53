"""Finds Fashion-MNIST's four files, or fetches them.

Folders and mirrors are tried in a fixed order. A file counts only if the SHA-256 of its uncompressed payload is the
known one, so plain MNIST under the same names and broken downloads never enter our cache. The compressed files differ
between mirrors; that, and an import of TensorFlow, rules out `keras.utils.get_file`, and the former `pooch` too.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Any

from fmnist_zoo.files import atomic_write, cache_folder
from fmnist_zoo.idx import DataError, read

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FASHION_MNIST = {
    TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MINI = {
    TRAIN_IMAGES: "4c7f94f65d0d377ff4060b4bfa9fc8b0dfe11f2b1f5cc48afdbf559cb5770790",
    TRAIN_LABELS: "f218f2ce583a4246a8872403693212077694c68f94a0aafeae2e06c74f101ee1",
    TEST_IMAGES: "0c9f79701af842bb60bd78f03a4ecb3e36a8b4dac41fa33023085a5457f71591",
    TEST_LABELS: "ae57bda60e720e922cbd08c6cf59293d3c22e40c04eec6635e76414b28d8ce18",
}
MINI_FOLDER = pathlib.Path(__file__).parent / "mini"
MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
LARGEST_DOWNLOAD = 64 << 20
SECONDS = 10.0  # without an answer, after which a mirror counts as failed
DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_SOURCE = f"Debian's package {DEBIAN_PACKAGE}"


def find_file(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """`folder/name.gz` or `folder/name`, whichever exists, or None; `DataError` if the system does not say."""
    for path in (folder / f"{name}.gz", folder / name):
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return None


def payload_sha256(path: pathlib.Path) -> str:
    """The SHA-256 of an IDX file's uncompressed payload; `DataError` if it is damaged."""
    return read(path, row=(28, 28) if "images" in path.name else ())[1]


def places() -> list[pathlib.Path]:
    """The folders that may hold Fashion-MNIST already, in the order in which they are tried."""
    keras_home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    found = [pathlib.Path(keras_home, "datasets", "fashion-mnist"), DEBIAN_FOLDER]
    with contextlib.suppress(OSError):
        found.insert(0, cache_folder())
    return found


def fetch() -> pathlib.Path:
    """Fetches and verifies all four files, from a mirror or else from Debian's package; returns our cache's folder.

    Raises:
        DataError: with a line for each source if all of them fail, or if the cache cannot be written.
    """
    import http.client

    failures = []
    try:
        cache = cache_folder()
        print(f"fetching Fashion-MNIST (31 MB) into {cache}", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch.") as scratch:
            folder = pathlib.Path(scratch)
            for source in (*MIRRORS, DEBIAN_SOURCE):
                try:
                    if source == DEBIAN_SOURCE:
                        _from_debian(folder)
                    else:
                        _from_mirror(source, folder)
                    _admit(folder, cache)
                    return cache
                except (DataError, OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
                    failures.append(f"  {source}: {' '.join(str(error).split())[:300]}")
    except OSError as error:
        raise DataError(f"the cache {error.filename} cannot be written: {error.strerror}; "
                        "set XDG_CACHE_HOME to a folder that can, or use --data_dir or --data=mini") from error
    missing = DataError("Fashion-MNIST is not on this machine, and every source failed:\n" + "\n".join(failures)
                        + "\nput its four IDX files into a folder and name it with --data_dir, or use --data=mini")
    missing.has_lines = True
    raise missing


def _admit(folder: pathlib.Path, cache: pathlib.Path) -> None:
    """Verifies the four files in `folder`, then copies them into the cache."""
    for name, expected in FASHION_MNIST.items():
        received = payload_sha256(folder / f"{name}.gz")
        if received != expected:
            raise DataError(f"{name}.gz is not Fashion-MNIST's: payload SHA-256 {received}")
    for name in FASHION_MNIST:
        with open(folder / f"{name}.gz", "rb") as source, atomic_write(cache / f"{name}.gz") as target:
            shutil.copyfileobj(source, target)


def _from_mirror(mirror: str, folder: pathlib.Path) -> None:
    for name in FASHION_MNIST:
        with _answer(f"{mirror}{name}.gz") as answer:
            content = answer.read(LARGEST_DOWNLOAD + 1)
        if len(content) > LARGEST_DOWNLOAD:
            raise DataError(f"{name}.gz is larger than {LARGEST_DOWNLOAD} bytes")
        (folder / f"{name}.gz").write_bytes(content)


def _answer(url: str) -> Any:
    """What `urlopen` returns. It would try each address of a host, and wait for names that nobody resolves."""
    import urllib.request

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=SECONDS))  # noqa: S310 (https constants above)
        except Exception as error:
            answers.put(error)

    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {SECONDS:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _from_debian(folder: pathlib.Path) -> None:
    """`apt-get download` needs no root. If the system's package lists are missing, new ones are made in `folder`."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError("this system has no apt-get and dpkg-deb")
    state = folder / "apt"
    for needed in (state / "lists" / "partial", state / "cache" / "archives" / "partial"):
        needed.mkdir(parents=True, exist_ok=True)
    wait = [f"Acquire::{protocol}::Timeout={SECONDS:.0f}" for protocol in ("http", "https")]
    options = ["-q", *(f"-o{option}" for option in ("APT::Sandbox::User=", "Acquire::Retries=0", *wait))]
    own_lists = [f"-oDir::State::Lists={state / 'lists'}", f"-oDir::Cache={state / 'cache'}"]
    try:
        _run(["apt-get", *options, "download", DEBIAN_PACKAGE], folder)
    except DataError:
        _run(["apt-get", *options, *own_lists, "update"], folder, seconds=3 * SECONDS)
        _run(["apt-get", *options, *own_lists, "download", DEBIAN_PACKAGE], folder)
    package = next(folder.glob(f"{DEBIAN_PACKAGE}_*.deb"), None)
    if package is None:
        raise DataError("apt-get downloaded no package")
    _run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")], folder)
    for name in FASHION_MNIST:
        shutil.move(folder / "unpacked" / DEBIAN_FOLDER.relative_to("/") / f"{name}.gz", folder / f"{name}.gz")


def _run(command: list[str], folder: pathlib.Path, seconds: float = 600) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL,
                              encoding="utf-8", errors="replace")
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} was not done after {seconds:.0f} seconds") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(f"{command[0]} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
