"""What a sweep has taught as sentences, as the text of --show, and as the page of --report."""

import html.parser
import itertools
import re
import shutil

import matplotlib
import pytest

from tests import sweeps
from tests.sweeps import made
from tests.test_lessons import noise_of
from trainers import sweep
from trainers.tuning import figures, lessons_page, sentences
from trainers.tuning.lessons import learn
from trainers.tuning.study import load

RATES, PENALTIES = (0.0, 0.1, 0.2, 0.3), (0.0, 1e-4, 1e-3)
GRID = "dropout=0,0.1,0.2,0.3; l2=0,1e-4,1e-3"
COMBINATIONS = list(itertools.product(RATES, PENALTIES))


def loss(values, seed=0):
    """Dropout of 0.2 to 0.3 with l2 up to 1e-4 is best; less dropout costs 0.02, and more l2 0.04."""
    costs = 0.02 * (values.get("dropout", 0.0) < 0.2) + 0.04 * (values.get("l2") == 1e-3)
    return 0.29 + costs + noise_of({**values, "seed": seed})


def said(study):
    return " ".join(sentences.sentences(learn(study), study.space))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return made(tmp_path_factory.mktemp("grid") / "sweeps" / "grid", GRID, COMBINATIONS, loss, seeds=3)


def test_sentences_name_the_group_of_the_best_and_what_the_other_values_cost(grid):
    found = said(grid)
    assert ("The 4 trials with dropout from 0.2 and l2 up to 1e-4 are one group: they cannot be told from the best."
            in found), found
    assert re.search(r"dropout of 0\.1 or less costs 0\.0(19|20|21).*; l2 of 1e-3 costs 0\.0(39|40|41) \(mean val_loss",
                     found), found
    assert re.search(r"l2 explains \d\d % of the variance between trials, dropout \d\d %\.", found)
    assert "the noise is estimated from the 3 seeds of each trial." in found
    assert "No interaction can be told from noise." in found


SPECIAL = {"dropout": 0.1, "l2": 1e-4}


@pytest.mark.parametrize("space, trials, truth, expected", [
    ("l2=0", [(0.0,)], loss, ["one trial alone has no rival", "No hyper-parameter has two values"]),
    ("dropout=0,0.1", [(0.0,), (0.1,)], loss, ["cannot be told: these trials are too few to know the noise",
                                               "2 trials leave no estimate of the noise"]),
    ("l2=0,1e-4,1e-3; dropout=0,0.1,0.2,0.3", [values[::-1] for values in COMBINATIONS], lambda values: 0.3, [
        "No trial can be told from the best: all 12 are within the noise.",
        "No hyper-parameter has an effect that these trials can tell from noise."]),
    (GRID, COMBINATIONS, lambda values: 0.3 - 0.1 * (values == SPECIAL), [
        "Trial 0004 (dropout=0.1 l2=0.0001) is better than each of the 11 others by more than the noise."]),
    (GRID, COMBINATIONS, lambda values: 0.3 + 0.1 * (values == SPECIAL), [
        "11 of 12 trials cannot be told from the best, and no hyper-parameter sets them apart"]),
    ("activation=relu,gelu,tanh; dropout=0..0.5", [
        (name, rate / 20) for name in ("relu", "gelu", "tanh") for rate in range(8)],
     lambda values: 0.3 + 0.05 * (values["activation"] == "tanh"), [
         "The 16 trials with activation relu or gelu are one group", "activation of tanh costs 0.050"]),
])
def test_sentences_of_sweeps_that_teach_little_or_one_thing(space, trials, truth, expected, tmp_path):
    def half(values, number):
        return truth(values) + noise_of({**values, "half": number})

    found = said(made(tmp_path / "s", space, trials, lambda values, seed: half(values, 1),
                      halves=lambda values: half(values, 2) - 0.03))
    for words in expected:
        assert words in found, found


def test_neighbouring_values_are_named_together(tmp_path):
    values = [(10 ** (-5 + number / 25),) for number in range(100)]
    found = said(made(tmp_path / "s", "learning_rate=log(1e-5..1e-1)", values, lambda values, seed: (
        0.3 + noise_of(values) + 0.05 * (not 2.2e-4 < values["learning_rate"] < 4.6e-3)), halves=lambda values: 0.3))
    assert re.search(r"learning_rate below 2\.2e-4 or above 0\.0046 costs 0\.0(49|50|51)", found), found


def test_show_prints_the_lessons_and_report_writes_them(grid, capsys, tmp_path):
    path = tmp_path / "page.html"
    assert sweep.main([f"--show={grid.path}", f"--report={path}"]) == 0
    shown = capsys.readouterr().out
    assert sweep.main([f"--show={grid.path}"]) == 0
    assert shown == capsys.readouterr().out + f"page: {path}\n"
    assert "what the sweep has taught, from 12 trials of 30 epochs, each the mean of 3 seeds:" in shown
    assert re.search(r"^l2 +1e-3 +4 +0\.\d{4} +0\.\d{4} +0\.0\d{3}  worse$", shown, re.M)
    assert re.search(r"^dropout +0\.\d\d +\S+ +0\.\d\d", shown, re.M)
    assert {one.name for one in tmp_path.iterdir()} == {
        "page.html", "page-objective.png", "page-importance.png", "page-effects.png", "page-interactions.png"}
    assert all(one.read_bytes()[:4] == b"\x89PNG" for one in tmp_path.glob("*.png"))
    for sentence in sentences.sentences(learn(grid), grid.space):
        assert sentence in shown and sentence in path.read_text()
    assert not list(grid.path.glob("*.html"))  # --show changes nothing in the sweep's folder


class Parsed(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole_and_names_nothing_outside(grid, tmp_path):
    lessons_page.write(grid, tmp_path / "page.html")
    parsed = Parsed((tmp_path / "page.html").read_text())
    assert not parsed.open and not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    sources = [value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 4 and all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "7.8431" not in parsed.text and f"{grid.ranked[0].score:.4f}" in parsed.text


def test_names_are_escaped_in_the_page(tmp_path, capsys):
    study = made(tmp_path / "<script>alert(1)</script> & $x$".replace("/", "|"), "hidden=30_10,20; dropout=0,0.5",
                 [("30_10", 0.0), ("20", 0.0), ("20", 0.5)], lambda values, seed: 0.3 + values["dropout"])
    lessons_page.write(study, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;alert(1)&lt;|script&gt; &amp; $x$" in text and "30_10" in text
    Parsed(text)


def test_sweep_without_a_completed_trial_has_no_lessons_and_its_page_says_so(tmp_path):
    study = made(tmp_path / "s", "dropout=0,0.1", [(0.0,)], lambda values, seed: None)
    assert learn(study) is None
    lessons_page.write(study, tmp_path / "page.html")
    assert "No trial has completed yet." in (tmp_path / "page.html").read_text()


@pytest.mark.long
@pytest.mark.page
def test_sweep_writes_its_page_when_it_ends(finished_sweep, tmp_path):
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    with matplotlib.rc_context({"text.usetex": True}):  # as of a matplotlibrc of the user's; there is no LaTeX
        assert sweep.sweep(sweeps.MODEL, sweeps.SPACE, logdir=tmp_path / "logs", name="grid", **sweeps.GRID) == table
    path = tmp_path / "logs" / "sweeps" / "grid"
    assert {"report.html", "objective.png", "importance.png", "effects.png", "interactions.png"} <= {
        one.name for one in path.iterdir()}
    text = Parsed((path / "report.html").read_text()).text
    assert all(row["trial"] in text and f"{row['objective']:.4f}" in text for row in table)
    assert learn(load(path)).noise.source == "halves"


@pytest.mark.page
def test_page_that_cannot_be_drawn_hides_no_result(finished_sweep, tmp_path, monkeypatch, capsys):
    logdir, table = finished_sweep
    shutil.copytree(logdir, tmp_path / "logs")
    monkeypatch.setattr(figures, "trials", lambda study: 1 / 0)
    assert sweep.sweep(sweeps.MODEL, sweeps.SPACE, logdir=tmp_path / "logs", name="grid", **sweeps.GRID) == table
    error = capsys.readouterr().err
    assert "report.html is not written" in error and "division by zero" in error and error.count("\n") == 1


@pytest.mark.parametrize("shown, report, message", [
    (True, "page.txt", "--report names an .html file in a folder that exists, received 'page.txt'"),
    (True, "nowhere/page.html", "in a folder that exists"), (True, "", "--report names an .html file"),
    (False, "page.html", "--report goes with --show=FOLDER"),
])
def test_wrong_report_is_refused_in_words(shown, report, message, grid, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sweep.main([f"--show={grid.path}" if shown else "--model=4L", f"--report={report}"]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
