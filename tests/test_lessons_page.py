"""What a sweep has taught as sentences, as the text of --show, and as the page of --report."""

import html.parser
import itertools
import re

import matplotlib
import pytest

from tests import sweeps
from tests.sweeps import made
from tests.test_lessons import noise_of
from trainers import sweep
from trainers.tuning import page
from trainers.tuning.lessons import learn

RATES, PENALTIES = (0.0, 0.1, 0.2, 0.3), (0.0, 1e-4, 1e-3)
GRID = "dropout=0,0.1,0.2,0.3; l2=0,1e-4,1e-3"
COMBINATIONS = list(itertools.product(RATES, PENALTIES))
OWN = {"report.html", "effects.png", "combinations.png"}


def loss(values, seed=0):
    """Dropout of 0.2 to 0.3 with l2 up to 1e-4 is best; less dropout costs 0.02, and more l2 0.04."""
    costs = 0.02 * (values.get("dropout", 0.0) < 0.2) + 0.04 * (values.get("l2") == 1e-3)
    return 0.29 + costs + noise_of({**values, "seed": seed})


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return made(tmp_path_factory.mktemp("grid") / "sweeps" / "grid", GRID, COMBINATIONS, loss, seeds=3)


def test_sentences_name_the_group_of_the_best_and_what_the_other_values_cost(grid):
    found = page.sentences(grid, learn(grid))
    assert "The first 4 of the 12 trials" in found[0] and "the 3 seeds" in found[0]
    assert re.search(r"^l2 explains \d\d % of the variance \(p .*1e-3 costs 0\.04\d", found[1]), found
    assert "dropout" in found[2] and "12 trials for 2 hyper-parameters" in found[2]


SPECIAL = {"dropout": 0.1, "l2": 1e-4}


@pytest.mark.parametrize("space, trials, truth, expected", [
    ("l2=0", [(0.0,)], loss, ["one trial to compare"]),
    ("dropout=0,0.1", [(0.0,), (0.1,)], loss, [
        "too few to know the noise", "Too few trials to tell whether dropout matters: 2 trials leave too little"]),
    (GRID, COMBINATIONS, lambda values: 0.3, ["None of the 12 trials can be told", "dropout or l2 matters: 12 trials"]),
    (GRID, COMBINATIONS, lambda values: 0.3 - 0.1 * (values == SPECIAL), ["Trial 0004 is better than all others"]),
    ("dropout=0..0.5; l2=0,1e-4", [(rate / 96, 1e-4 * (rate % 2)) for rate in range(48)], lambda values: 0.3, [
        "No effect of dropout or l2 can be told from noise: 48 trials for 2 hyper-parameters show"]),
])
def test_sentences_of_sweeps_that_teach_little_or_one_thing(space, trials, truth, expected, tmp_path):
    def half(values, number):
        return truth(values) + noise_of({**values, "half": 4 * number})

    study = made(tmp_path / "s", space, trials, lambda values, seed: half(values, 1),
                 halves=lambda values: half(values, 2) - 0.03)
    found = " ".join(page.sentences(study, learn(study)))
    assert all(words in found for words in expected), found
    assert ("tested by" in page.text(study)) == (len(trials) > 1)


@pytest.mark.parametrize("truth, expected", [
    (lambda values, seed: 0.3, "All 12 trials are equal."),
    (lambda values, seed: loss(values, seed) if values["dropout"] == 0 else 1e20, "The first 2 of the 12 trials"),
])
def test_trials_that_are_equal_or_learned_nothing_are_no_lack_of_trials(truth, expected, tmp_path):
    study = made(tmp_path / "s", GRID, COMBINATIONS, truth, seeds=2)
    assert expected in page.text(study)


def test_nothing_is_called_best_or_costly_without_an_effect(tmp_path):
    study = made(tmp_path / "s", GRID, COMBINATIONS, lambda values, seed: 0.3 + noise_of(values))  # equal halves
    head, *rows = page.effect_rows(learn(study))
    assert head[-2:] == ("costs", "") and {row[-2:] for row in rows} == {("-", "")} and len(rows) == 7
    text = page.text(study)
    assert not re.search(r"\d(\.\d+)?e-(0?[6-9]|\d\d)\b", text), text  # of rounding


def test_trials_that_learned_nothing_and_the_first_rung_are_named(tmp_path):
    values = [(rate / 40,) for rate in range(20)]
    study = made(tmp_path / "s", "dropout=0..0.5", [*values, *values[:3]], lambda values, seed: (
        9.0 if values["dropout"] > 0.45 else 0.3 + noise_of(values)), tuner="asha", epochs=9,
        halves=lambda values: 0.3 + noise_of({**values, "half": 1}),
        lengths=[3] * 20 + [9] * 3, parents=[None] * 20 + ["0000", "0001", "0002"])
    found = " ".join(page.sentences(study, learn(study)))
    assert "3 trials of 9 epochs" in found and "the first rung: 20 trials of 3 epochs" in found
    assert "1 of 20 trials learned nothing" in found


def test_show_prints_the_lessons_and_report_writes_them(grid, capsys, tmp_path):
    path = tmp_path / "page.html"
    assert sweep.main([f"--show={grid.path}", f"--report={path}"]) == 0
    shown = capsys.readouterr().out
    assert sweep.main([f"--show={grid.path}"]) == 0
    assert shown == capsys.readouterr().out + f"page: {path}\n"
    assert f"trainers.board.serve --logdir={grid.path.parent.parent}" in shown and "report.html" not in shown
    assert re.search(r"^l2 +trend +0\.\d\d +(<|0\.0)", shown, re.M)
    assert re.search(r"^l2 +1e-3 +4 +0\.\d{4} +0\.\d{4} to 0\.\d{4} +0\.0\d{3}  worse$", shown, re.M)
    assert {one.name for one in tmp_path.iterdir()} == {"page.html", "page-effects.png", "page-combinations.png"}
    assert all(one.read_bytes()[:4] == b"\x89PNG" for one in tmp_path.glob("*.png"))
    for sentence in page.sentences(grid, learn(grid)):
        assert sentence in shown and sentence in path.read_text(encoding="utf-8")
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
    page.write(grid, tmp_path / "page.html")
    parsed = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not parsed.open and not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    sources = [value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert f"{grid.ranked[0].score:.4f}" in parsed.text


def test_names_are_escaped_in_the_page(tmp_path):
    study = made(tmp_path / "<script>alert(1)</script> & $x$".replace("/", "|"), "hidden=30_10,20; dropout=0,0.5",
                 [("30_10", 0.0), ("20", 0.0), ("20", 0.5)], lambda values, seed: 0.3 + values["dropout"])
    page.write(study, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in text and "&lt;script&gt;alert(1)&lt;|script&gt; &amp; $x$" in text and "30_10" in text
    Parsed(text)


def test_sweep_without_a_completed_trial_has_no_lessons_and_its_page_says_so(tmp_path):
    study = made(tmp_path / "s", "dropout=0,0.1", [(0.0,)], lambda values, seed: None)
    assert learn(study) is None and not page.text(study)
    page.write(study, tmp_path / "page.html")
    assert "No trial has completed." in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.long
@pytest.mark.page
def test_sweep_writes_its_page_when_it_ends(inline_pool, tmp_path):
    with matplotlib.rc_context({"text.usetex": True}):  # as of a matplotlibrc of the user's; there is no LaTeX
        table = sweep.sweep(sweeps.MODEL, sweeps.SPACE, logdir=tmp_path, name="grid", **sweeps.GRID)
    path = tmp_path / "sweeps" / "grid"
    assert OWN <= {one.name for one in path.iterdir()}
    text = Parsed((path / "report.html").read_text(encoding="utf-8")).text
    assert all(row["trial"] in text and f"{row['objective']:.4f}" in text for row in table)


@pytest.mark.page
def test_page_that_cannot_be_drawn_hides_no_result(pretending_pool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "_effects", lambda *arguments: 1 / 0)
    assert len(sweep.sweep(sweeps.MODEL, sweeps.SPACE, logdir=tmp_path, name="grid", **sweeps.GRID)) == 4
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
