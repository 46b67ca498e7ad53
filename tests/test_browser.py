"""TensorBoard as a person sees it: a real one, started by `make board`'s command, in headless Chromium.

Needs Debian's packages chromium and chromium-driver, and selenium.
"""

import pytest

from benchmarks.browser import CHROMIUM, DRIVER, FIND, LINES, PARALLEL, PINNED, TABLE, chromium, opened, seen, served
from tests.helpers import session_groups

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver")]
MODELS = ("softmax", "2L", "3L", "4L")  # ordinary runs; a fifth one fails
TRIALS, FAILED = 30, 1


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


def errors(browser):
    return [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Their log folder: a run is two rows, a trial one; one run ends worse than guessing."""
    from tests import sweeps
    from tests.conftest import tape_without_xla
    from trainers.sweep import sweep
    from trainers.train import train

    logdir = tmp_path_factory.mktemp("trained")
    settings = dict(data="mini", epochs=3, logdir=logdir)
    with pytest.MonkeyPatch.context() as monkeypatch, tape_without_xla():
        for model in MODELS:
            train(model, run_name="one", histogram_every=1, **settings)
        train("softmax", run_name="worse", learning_rate=1e4, histogram_every=1, **settings)
        sweeps.replace_pool(monkeypatch, sweeps.Inline())
        sweep("softmax", {"learning_rate": [1e-3, 3e-3, 1e-2], "l2": [0, 1e-5, 1e-4, 1e-3, 1e-2],
                          "batch_size": [600, 1200]}, tuner="grid", name="grid", **settings)
    return logdir


@pytest.fixture(scope="module")
def board(trained):
    with served(trained, 2 + 2 * (len(MODELS) + 1) + TRIALS) as link:
        yield link


def test_charts_of_loss_and_accuracy_have_a_line_for_each_row_of_a_run(board, browser):
    opened(browser, board, "timeseries")
    lines = 2 * (len(MODELS) + 1)
    found = seen(browser, PINNED, lambda cards: len(cards) == 2 and all(count >= lines for _, count in cards))
    assert found == [["loss", lines], ["accuracy", lines]]
    assert not errors(browser)


def test_pictures_are_shown_although_there_are_more_than_forty_rows(board, browser):
    opened(browser, board, "images")
    loaded = "find(document, 'tf-image-loader').flatMap(loader => find(loader.shadowRoot, 'img'))"
    seen(browser, f"{FIND} return {loaded}.filter(image => shown(image) && image.naturalWidth > 100).length",
         lambda count: count >= 3)
    tags = browser.execute_script(f"{FIND} return find(document, 'tf-image-loader').map(e => e.tag)")
    assert {"pictures/confusion", "pictures/first_layer"} <= set(tags)
    assert not errors(browser)


def test_hparams_show_runs_trials_and_a_failure(board, browser):
    opened(browser, board, "hparams")
    cells = seen(browser, TABLE, lambda cells: "#0009" in cells)
    assert cells[:12] == ["Trial ID", "Show Metrics", "batch_size", "l2", "learning_rate", "model", "sweep",
                          "objective", "validation loss", "validation accuracy", "train loss", "epoch kept"]
    groups = session_groups(board)
    assert len(groups) == len(MODELS) + 1 + TRIALS
    failed = [group["name"] for group in groups if group["sessions"][0]["status"] == "STATUS_FAILURE"]
    assert failed[-1].startswith("worse softmax") and len(failed) < len(groups) / 2
    complete = sum(group["sessions"][0]["status"] == "STATUS_SUCCESS" and group["name"].startswith("#")
                   for group in groups)  # a run has no objective
    seen(browser, PARALLEL, bool)
    assert seen(browser, LINES, lambda count: count >= complete) == complete  # of the parallel coordinates
    assert not errors(browser)


def test_graph_and_text_are_shown(board, browser):
    opened(browser, board, "graphs")
    seen(browser, FIND + "return find(document, 'g.node').map(node => node.textContent).join(' ')",
         lambda text: "images" in text and "logits" in text)
    opened(browser, board, "text")
    seen(browser, FIND + "return find(document, 'h2').map(heading => heading.innerText)", lambda headings: {
        f"{model}: finished" for model in MODELS} <= set(headings) and any(
            heading.startswith("softmax: failed, worse than chance") for heading in headings))
    assert not errors(browser)
