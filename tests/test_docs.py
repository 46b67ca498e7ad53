"""The documentation as a whole: links, the site and its navigation, the cluster that a page sets up."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import urllib.parse

import pytest

from tests.conftest import ROOT
from tests.helpers import free_port
from tests.test_readme import CLUSTER, PAGES, blocks

ALL = {**PAGES, str(CLUSTER.relative_to(ROOT)): CLUSTER.read_text(),
       "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()}


def anchors(text):
    """Of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", ALL[page]):
        address, _, anchor = target.partition("#")
        if urllib.parse.urlparse(address).scheme:
            continue
        path = (ROOT / page).parent / address if address else ROOT / page
        assert path.exists(), target
        if page.startswith("docs"):
            assert path.resolve().is_relative_to(ROOT / "docs"), f"{target} would lead out of the site"
        if anchor:
            assert anchor in anchors(path.read_text()), target


def test_each_page_and_picture_is_found():
    """Pages by the navigation of the site, pictures by a page."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in ALL:
        if page.startswith("docs"):
            assert f": {page.removeprefix('docs/')}\n" in navigation
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert any(picture.name in text for text in ALL.values()), picture.name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="`make docs` installs MkDocs")
def test_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "site" / "reference" / "trainers.html").read_text()
    assert "Trains a model in a new run folder" in reference and ":::" not in reference


@pytest.mark.slow
def test_cluster_as_its_page_says(tmp_path):
    """Its commands, in a shell, on this host alone: certificate, scheduler, worker, sweep."""
    pytest.importorskip("distributed")
    port = str(free_port())
    dask = f"{sys.executable} -m distributed.cli.dask_"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    named, servers = "", contextlib.ExitStack()
    with servers:
        for line in "\n".join(blocks("sh", CLUSTER.read_text())).splitlines():
            line = line.replace("tls://a:8786", f"tls://127.0.0.1:{port}").replace("--port 8786", f"--port {port}")
            line = line.replace("--nworkers 2", "--nworkers 1").replace("python -m", f"{sys.executable} -m")
            if line.startswith("pip "):
                continue
            if line.startswith("TLS="):
                named = line
            elif line.startswith("dask "):
                start = f"{named}; exec {line.replace('dask ', dask, 1)} --host 127.0.0.1"
                server = subprocess.Popen(["bash", "-c", start], cwd=tmp_path, env=environment,
                                          stderr=subprocess.DEVNULL)
                servers.callback(server.wait)
                servers.callback(server.terminate)
            else:
                line += " --data=mini --epochs=1 --max_trials=2" if "trainers.sweep" in line else ""
                done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, text=True,
                                      capture_output=True, timeout=400)
                assert done.returncode == 0, done.stderr
        assert "2 trials ended" in done.stdout
