"""Compiled programs are kept between processes, and nothing in their folder can break a run."""

import os
import pathlib
import subprocess
import sys

import pytest

from trainers.engine import compile_cache

PROGRAM = """
import os, sys
from trainers.train import train
run = train("2L", hidden=8, data="mini", epochs=1, verbose=False, logdir=sys.argv[1])
own = [path.name for folder in __import__("trainers.engine.compile_cache").engine.compile_cache._own
       for path in folder.glob("*.pb") if path.stat().st_nlink == 1]
print(run.result["weights_sha256"], len(own), os.environ.get("TF_XLA_FLAGS"))
"""


def trained(tmp_path, **environment):
    """The digest of the weights, how many programs were compiled and not found, and the flags afterwards."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "logs")], capture_output=True, text=True,
                          env={**os.environ, compile_cache.VARIABLE: "1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
                               **environment})
    assert done.returncode == 0 and "CacheEntry" not in done.stderr, done.stderr
    digest, compiled, flags = done.stdout.split(None, 2)
    return digest, int(compiled), flags.strip()


@pytest.mark.long
def test_second_process_does_not_compile_and_damage_is_not_loaded(tmp_path):
    digest, compiled, flags = trained(tmp_path)
    kept = [path for path in (tmp_path / "cache").rglob("xla*") if path.is_file()]
    assert len(kept) > 0 and flags == "None"
    assert not list((tmp_path / "cache").rglob(compile_cache.PROCESS + "*"))
    assert trained(tmp_path, TF_XLA_FLAGS="--tf_xla_clustering_debug=false")[::2] == (
        digest, "--tf_xla_clustering_debug=false")
    for path in kept:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert trained(tmp_path)[0] == digest
    assert all(path.name.endswith(compile_cache.sha256_of(path)) for path in kept if path.exists())


@pytest.mark.skipif(not compile_cache.features(), reason="the system does not say what the processor can do")
def test_folder_is_the_users_alone_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compile_cache, "_own", [])
    own = compile_cache._folder(2)
    assert own.parent.stat().st_mode & 0o777 == 0o700
    assert own.parent != compile_cache._folder(1).parent  # another number of threads
    for number, path in enumerate(own / f"{name}.pb" for name in "abc"):
        path.write_bytes(bytes(1000 + number))
    compile_cache.add()
    assert sorted(path.name for path in compile_cache._folder(2).iterdir()) == ["a.pb", "b.pb", "c.pb"]
    monkeypatch.setattr(compile_cache, "LARGEST", 1500)
    assert len(list(compile_cache._folder(2).iterdir())) == 1
    os.chmod(own.parent, 0o755)
    assert compile_cache._folder(2) is None


@pytest.mark.parametrize("environment", [
    {compile_cache.VARIABLE: "0"}, {"XDG_CACHE_HOME": "/proc/none"},
    {compile_cache.FLAGS: f"{compile_cache.FLAG}=elsewhere"}], ids=str)
def test_is_off(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "tensorflow")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with compile_cache.enabled(2):
        assert os.environ == before
    assert not list(pathlib.Path(tmp_path).iterdir())
