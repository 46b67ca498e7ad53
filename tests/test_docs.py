"""The documentation as a whole: links, the site and its navigation, the cluster that a page sets up."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import urllib.parse

import pytest

from benchmarks.browser import CHROMIUM, DRIVER, chromium, seen
from tests.conftest import ROOT
from tests.helpers import free_port, listens, until
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


@pytest.mark.parametrize("page", ALL)
def test_files_of_the_repository_that_a_page_names_exist(page):
    named = re.findall(r"`((?:tests|trainers|benchmarks|fmnist_zoo|docs)/[\w/]+\.\w+)`", ALL[page])
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_each_page_and_picture_is_found():
    """Pages by the navigation of the site, pictures by a page."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in ALL:
        if page.startswith("docs"):
            assert f": {page.removeprefix('docs/')}\n" in navigation
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert any(picture.name in text for text in ALL.values()), picture.name


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built without a warning."""
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


needs_mkdocs = pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="`make docs` installs MkDocs")


@pytest.mark.slow
@needs_mkdocs
def test_site_has_docstrings_and_the_notebook_with_its_outputs(site):
    reference = (site / "reference" / "trainers.html").read_text(encoding="utf-8")
    assert "Trains a model in a new run folder" in reference and ":::" not in reference
    tour = (site / "tour.html").read_text(encoding="utf-8")
    assert tour.count('src="data:image/png;base64,') >= 3 and "4D_drop03_02_01" in tour
    assert 'href="tour.html"' in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@needs_mkdocs
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver")
@pytest.mark.parametrize("page", ["index.html", "tutorials/train.html"])
def test_site_is_searched_also_when_it_is_opened_as_a_file(page, site):
    with chromium() as browser:
        browser.get((site / page).as_uri())
        fields = "return [...document.querySelectorAll('.md-search__input')].filter(field => field.checkVisibility())"
        (field,) = seen(browser, fields, bool)
        field.send_keys("McNemar")
        found = seen(browser, "return [...document.querySelectorAll('.md-search-result__link')].map(e => e.href)", bool)
        assert all(link.startswith("file://") for link in found)
        assert any("train.html" in link for link in found)


@pytest.mark.slow
def test_job_for_slurm_continues_its_run_when_it_is_started_again(tmp_path):
    """Its script, where `srun` runs the command, and Slurm's signal comes after an epoch, in each of two jobs."""
    page = PAGES["docs/how-to/slurm.md"]
    (script,) = re.findall(r'^```bash title="job.sh"\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)
    script = script.replace("4D_drop03", "softmax").replace(
        "--model=softmax", "--model=softmax --data=mini --epochs=100000 --batch_size=full")
    beside = f"""
        srun() {{ {sys.executable} "${{@:2}}" & local run=$! rows=$(cat $FOLDER/metrics.csv 2>/dev/null | wc -l)
                  until [ $(cat $FOLDER/metrics.csv 2>/dev/null | wc -l) -gt $((rows + 1)) ]; do sleep 0.1; done
                  kill -USR1 $run; wait $run; }}
        scontrol() {{ echo "$1 $2"; }}
        """
    environment, rows = {**os.environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "7"}, [0]
    for _ in range(2):
        done = subprocess.run(["bash", "-c", beside + script], cwd=tmp_path, env=environment, text=True,
                              capture_output=True, timeout=300)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "requeue 7", done
        table = tmp_path / "tb_logs" / "softmax" / "first" / "metrics.csv"
        rows.append(len(table.read_text(encoding="utf-8").splitlines()))
    assert 0 < rows[1] < rows[2] < 100000


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
                if line.startswith("dask scheduler"):
                    until(lambda: listens(int(port)))
            else:
                line += " --data=mini --epochs=1 --max_trials=2" if "trainers.sweep" in line else ""
                done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, text=True,
                                      capture_output=True, timeout=400)
                assert done.returncode == 0, done.stderr
        assert "2 trials ended" in done.stdout
