"""`python -m trainers.report`: its plan, its reuse of runs, its page, and what it says of claims."""

import re

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo.statistics import compare
from trainers import report
from trainers.reproduction import document, experiments, mistakes
from trainers.running import many as queue


def test_the_report_is_made_of_the_catalog():
    named = {model for one in experiments.EXPERIMENTS for model in one.models}
    assert named == set(fmnist_zoo.list_models())
    for one in experiments.EXPERIMENTS:
        models = {*one.models}
        assert {printed.model for printed in one.printed} <= models
        assert {model for claim in one.claims for model in (claim.better, claim.worse)} <= models


def test_each_run_is_planned_once():
    runs = report.plan(experiments.EXPERIMENTS, seeds=2)
    assert len(runs) == 2 * (7 + 11 + 1)
    assert len({(run.spec.name, run.trainer, run.seed) for run in runs}) == len(runs)
    by_model = {run.spec.name: run for run in runs if run.trainer != "fit"}
    assert by_model["network_A"].trainer == "scratch" and by_model["network_A"].recipe.epochs == 500
    assert by_model["4D_drop03"].recipe == fmnist_zoo.get_recipe("4D_drop03")


@pytest.mark.parametrize("only, names", [
    ("part_a", {"softmax_full_batch", "networks_a_b", "penalties_a", "penalties_b"}),
    ("dropout", {"dropout_4l", "dropout_5l"}),
    ("depth,penalties_b", {"softmax_2l", "depth", "penalties_b"}),
])
def test_only(only, names):
    assert {one.name for one in experiments.chosen(only)} == names


@pytest.mark.parametrize("flags, text", [
    (["--only=dropuot"], "there is no experiment 'dropuot'"), (["--seeds=0"], "--seeds"),
    (["--quick=perhaps"], "--quick"),
    (["--out=setup.cfg"], "--out=setup.cfg: cannot be made"),
])
def test_a_mistake_is_one_line(flags, text, capsys):
    assert report.main([*flags, "--data=mini"]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.err.count("\n") == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A quick report of two experiments over two seeds: its folder, its flags, what it printed."""
    folder = tmp_path_factory.mktemp("report")
    flags = ["--data=mini", "--quick", "--seeds=2", "--only=penalties_a,softmax_2l", f"--logdir={folder / 'logs'}",
             f"--out={folder / 'page'}"]
    assert report.main(flags) == 0
    return folder / "page", flags, (folder / "page" / "report.md").read_text()


def test_the_page_holds_the_reports_numbers_beside_ours(made):
    page, _, text = made
    assert {path.name for path in page.iterdir()} == {
        "index.html", "report.md", "penalties_a.png", "softmax_2l.png", "rounded.png"}
    row = next(line for line in text.splitlines() if line.startswith("| network_A_l1 (objective) | 1 |"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2] == "12" and float(cells[3].split()[0]) == pytest.approx(11.87, abs=0.1)
    text = text.replace("\n", " ")
    assert "A quick run: its numbers mean nothing" in text and "## The question about tf.round" in text
    assert "0.9 + (c - w) / 10" in text
    assert "Of its five validation accuracies, 5 are the rounded share of no count" in text


def test_the_html_is_one_self_contained_file(made):
    page, _, text = made
    content = (page / "index.html").read_text()
    sources = re.findall(r'<img[^>]* src="([^"]{0,40})', content)
    assert len(sources) == 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<table>" in content and "http" not in re.sub(r'base64,[^"]*', "", content)


def test_runs_are_reused(made, capsys):
    _, flags, text = made
    assert report.main(flags) == 0
    printed = capsys.readouterr().out
    assert "[1/" not in printed and printed.startswith("written: ")
    assert report.main([flag.replace("seeds=2", "seeds=1") for flag in flags]) == 0
    assert "[1/" not in capsys.readouterr().out


def test_an_interrupted_report_goes_on(tmp_path):
    runs = report.plan(experiments.chosen("softmax_2l"), seeds=1, quick=True, data="mini")
    answers = iter([False, False, True])  # before the run, and after each of its epochs
    assert list(queue.finish(runs, str(tmp_path), lambda: next(answers))) == []
    (half,) = (tmp_path / "softmax").glob("*/metrics.csv")
    assert len(half.read_text().splitlines()) == 2  # the head and one epoch of two
    done = list(queue.finish(runs, str(tmp_path), lambda: False))
    assert done[0].path == half.parent and len(done[0].rows()) == 2


def test_verdicts():
    better = np.array([0.30, 0.31, 0.32])
    assert compare(better, better + [0.10, 0.11, 0.09], lower_is_better=True).verdict == "holds"
    assert compare(better, better + [0.10, 0.11, 0.09], lower_is_better=False).verdict.startswith("wrong")
    assert compare(better, better + [0.01, -0.02, 0.005], lower_is_better=True).verdict == "in the noise"
    assert compare(better[:1], better[:1] + 1, lower_is_better=True).verdict == "not testable with one seed"
    found = compare(better, better + [0.10, 0.11, 0.09], lower_is_better=True)
    assert found.difference == pytest.approx(-0.1) and found.error == pytest.approx(0.01 / np.sqrt(3))
    assert found.p == pytest.approx(0.00331, rel=0.01)  # t = -17.32 on 2 degrees of freedom


def test_what_the_report_got_wrong_is_computed_now():
    shown = [row[2]({}) for row in mistakes.ROWS if row[2]]
    text = "\n".join(shown)
    assert len(mistakes.ROWS) == 19 and len(shown) == 18
    assert "as written nan, with the maximum taken out 1.0" in text and "as written nan, from logits" in text
    assert "clipped loss 23.03 with largest gradient 0," in text
    assert "L1 penalty 9.5" in text and "16 times" in text


def test_opposite_moves_are_found_in_a_run():
    top, by_rounding = [0.5, 0.6, 0.58, 0.7], [0.90, 0.92, 0.93, 0.95]
    history = [dict(validation_accuracy=a, validation_rounded_accuracy=b) for a, b in zip(top, by_rounding)]
    assert document.opposite_moves(history) == (
        "From epoch 2 to 3 the argmax accuracy went from 0.6000 to 0.5800 while the rounded one went from 0.92000 to "
        "0.93000.")
    assert "never moved apart" in document.opposite_moves(history[2:])


def test_help_lists_the_experiments(capsys):
    assert report.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in ("part_a", "dropout", "penalties_b", "--seeds", "--out"))
