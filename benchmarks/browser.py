"""TensorBoard in headless Chromium, for screenshots and tests: Debian's chromium and chromium-driver, and selenium."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any, Callable, Iterator

from benchmarks import command
from fmnist_zoo.errors import UsageError

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SECONDS = 120  # until something is on the page
FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-3d-apis", "disable-dev-shm-usage", "disable-quic",
         "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync",
         "window-size=1500,1100")
# TensorBoard's elements are nested in shadow roots. Charts are SVG where Chromium has no WebGL.
FIND = """
    const find = (root, selector) => [...root.querySelectorAll(selector), ...[...root.querySelectorAll("*")].flatMap(
        element => element.shadowRoot ? find(element.shadowRoot, selector) : [])];
    const shown = element => element.getClientRects().length > 0;
"""
PINNED = FIND + """
    return find(document, "metrics-pinned-view scalar-card").map(card => [
        card.innerText.split("\\n")[0],
        find(card, "path").filter(path => path.style.strokeWidth == "2" && shown(path)).length])
"""
# The tab HParams: the cells of its table, and the lines of its parallel coordinates, whose tab has to be clicked.
TABLE = FIND + """
    return find(document, "tf-hparams-table-view").flatMap(table => find(table.shadowRoot, "vaadin-grid-cell-content"))
        .map(cell => cell.innerText.replace(/[\\u200b\\u200c]/g, "").trim()).filter(Boolean)
"""
PARALLEL = FIND + """
    const tab = find(document, "paper-tab").find(tab => /PARALLEL/i.test(tab.innerText));
    if (tab) tab.click();
    return Boolean(tab);
"""
LINES = FIND + """
    return find(document, "tf-hparams-parallel-coords-plot").flatMap(
        plot => find(plot.shadowRoot, ".foreground path")).length
"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Selenium's driver of a browser; `UsageError` if there is none."""
    if not (CHROMIUM and DRIVER):
        raise UsageError("no browser: apt-get install chromium chromium-driver")
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in (*FLAGS, f"user-data-dir={folder}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


@contextlib.contextmanager
def served(logdir: str | os.PathLike[str], rows: int) -> Iterator[str]:
    """The link that `make board` prints, when the server has read so many rows."""
    environment = {**os.environ, "PYTHONPATH": str(command.ROOT)}
    server = subprocess.Popen([sys.executable, "-m", "trainers.board.serve", f"--logdir={logdir}", "--port=0"],
                              cwd=command.ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    try:
        link = server.stdout.readline().split()[-1]
        until = time.monotonic() + SECONDS
        while len(found := json.load(urllib.request.urlopen(link.split("?")[0] + "data/runs"))) < rows:
            assert time.monotonic() < until, found
            time.sleep(0.5)
        yield link
    finally:
        server.terminate()
        server.communicate()


def opened(browser: Any, link: str, tab: str) -> None:
    browser.get("about:blank")  # another fragment alone would not load the page again
    browser.get(link.replace("#timeseries", f"#{tab}"))


def seen(browser: Any, script: str, enough: Callable[[Any], bool]) -> Any:
    """What a script finds on the page, as soon as it is enough."""
    until = time.monotonic() + SECONDS
    while not enough(found := browser.execute_script(script)):
        assert time.monotonic() < until, found
        time.sleep(0.2)
    return found
