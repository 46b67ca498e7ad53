"""`python -m trainers.report`: which runs it plans, how it reuses them, and the page that it writes."""

import json
import re

import matplotlib
import numpy as np
import pytest

import fmnist_zoo
from tests import helpers
from tests.conftest import ROOT
from trainers import report
from trainers.reproduction import experiments, mistakes, page
from trainers.running import batch
from trainers.running.folder import RunFolder
from trainers.running.table import COLUMNS

pytestmark = pytest.mark.usefixtures("without_xla")
COMMITS = ("a" * 40, "b" * 40, "c" * 40 + "-dirty")


def store(folder, config):
    """Writes a finished run as training leaves it, with made-up numbers that depend on model, engine and seed.

    Seed 1 was resumed under another commit.
    """
    environments = [{"cpu": "A processor", "cores": 2, "commit": commit, "modules": {}, "versions": {
        "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6", "fmnist_zoo": "0.1.0"}} for commit in COMMITS]
    data = fmnist_zoo.load_data(**config.data_settings)
    starts = [{"epoch": epoch, "time": 1.0, "environment": one}
              for epoch, one in enumerate(environments[1:] if config.seed else environments[:1])]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({
        "config": config.get_config(), "environment": environments[config.seed],
        "started": 1.0, "starts": starts,
        "data": {"name": "mini", "sha256": data.sha256, "split_sha256": data.split_sha256, "fit": 1800,
                 "validation": 200}}))
    random = np.random.default_rng([len(config.spec.name), len(config.trainer), config.seed])
    epochs = config.recipe.epochs
    rows = [[epoch, 8 * epoch, *random.uniform(0.1, 0.9, len(COLUMNS) - 2)] for epoch in range(1, epochs + 1)]
    (folder / "metrics.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in (COLUMNS, *rows)))
    (folder / "result.json").write_text(json.dumps({
        "epochs": epochs, "stopped_early": False, "weights": "best", "final": {"epoch": 1}, "seconds": 60.0,
        "weights_sha256": "f" * 64, "metrics_sha256": RunFolder(folder).table.sha256(epochs)}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page of all experiments over two seeds, from stored runs: its folder, the flags, and what was printed."""
    folder = tmp_path_factory.mktemp("report")
    for config in report.plan(experiments.EXPERIMENTS, seeds=range(2), quick=True, data="mini"):
        store(folder / "logs" / config.spec.name / f"{config.trainer}-seed{config.seed}", config)
    flags = ["--data=mini", "--quick", "--seeds=2", f"--logdir={folder / 'logs'}"]
    with pytest.MonkeyPatch.context() as here:
        here.setattr("trainers.running.run.execute", lambda *_, **__: pytest.fail("a finished run was trained again"))
        assert report.main(flags) == 0
    return folder / "logs" / "report", (folder / "logs" / "report" / "report.md").read_text()


def test_experiments_name_the_models_of_the_catalog():
    named = {model for one in experiments.EXPERIMENTS for model in one.models}
    assert named == set(helpers.OF_THE_REPORT)
    for one in experiments.EXPERIMENTS:
        models = {*one.models}
        assert {printed.model for printed in one.printed} <= models
        assert {model for claim in one.claims for model in (claim.better, claim.worse)} <= models
    printed = {row.val_accuracy for one in experiments.EXPERIMENTS for row in one.printed} - {None}
    assert printed == set(page.PART_B_ACCURACIES)


def test_each_run_is_planned_once():
    runs = report.plan(experiments.EXPERIMENTS, seeds=range(2))
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
def test_only_selects_parts_groups_and_names(only, names):
    assert {one.name for one in experiments.select(only)} == names


@pytest.mark.parametrize("flags, text", [
    (["--only=dropuot"], "there is no experiment 'dropuot'"), (["--seeds=0"], "--seeds"),
    (["--quick=perhaps"], "--quick"),
    (["--out=setup.cfg"], "--out=setup.cfg: cannot be made"),
])
def test_wrong_flag_is_refused_in_one_line(flags, text, capsys):
    assert text in helpers.refused(capsys, report.main, *flags, "--data=mini")


@pytest.mark.long
def test_page_has_the_reports_numbers_beside_ours(made):
    _, text = made
    row = next(line for line in text.splitlines() if line.startswith("| network_A_l1 (objective) | 1 |"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2] == "12" and re.fullmatch(r"0\.\d{4} ± 0\.\d{4}", cells[3])
    assert "0.9 + (c - w) / 10" in text
    assert "Of its five validation accuracies, 5 cannot be a share of 6,000 validation images" in text
    assert 'The source is "Deep Learning Assignment 1"' in text and "A quick run: its numbers mean nothing" in text
    assert "38 runs, seeds 0, 1; 38 minutes of training on A processor, 2 cores. Data: mini, 1800 images" in text
    assert f"Runs of commit {'a' * 12}, {'b' * 12}, {'c' * 12}-dirty, page of commit " in text


@pytest.mark.long
def test_html_is_one_self_contained_file(made):
    folder, text = made
    pictures = {f"{one.name}.png" for one in experiments.EXPERIMENTS} | {"rounded.png"}
    assert {path.name for path in folder.iterdir()} == {"index.html", "report.md", *pictures}
    content = (folder / "index.html").read_text()
    sources = re.findall(r'<img[^>]* src="([^"]{0,40})', content)
    assert len(sources) == len(pictures) and all(one.startswith("data:image/png;base64,") for one in sources)
    assert "<table>" in content and "http" not in re.sub(r'base64,[^"]*', "", content)


def test_committed_page_has_the_text_of_this_code():
    text = (ROOT / "docs" / "report" / "report.md").read_text()
    assert text.startswith(f"# {page.TITLE}\n") and page.part_b_section() in text
    for one in experiments.EXPERIMENTS:
        assert f"## {one.title}\n" in text and one.note in text
        assert (ROOT / "docs" / "report" / f"{one.name}.png").exists()
        assert all(f"\n| {claim.text} | " in text for claim in one.claims)
    for mistake in mistakes.MISTAKES:
        shown = mistake.evidence if isinstance(mistake.evidence, str) else ""
        cells = [cell.replace("|", "\\|") for cell in (mistake.text, shown, mistake.remedy)]
        assert all(cell in text for cell in cells), mistake.text


@pytest.mark.long
def test_interrupted_report_continues_with_the_same_command(tmp_path, capsys):
    flags = ["--data=mini", "--quick", "--only=softmax_full_batch", f"--logdir={tmp_path}",
             f"--out={tmp_path / 'page'}"]
    runs = report.plan(experiments.select("softmax_full_batch"), seeds=[0], quick=True, data="mini")
    assert list(batch.finish(runs, str(tmp_path), lambda: any(tmp_path.glob("*/*/metrics.csv")))) == []
    (half,) = (tmp_path / "network_softmax").glob("*/metrics.csv")
    assert len(half.read_text().splitlines()) == 2  # the head and one epoch of 20
    assert report.main(flags) == 0
    assert len(half.read_text().splitlines()) == 21
    assert "| network_softmax | 20 |" in (tmp_path / "page" / "report.md").read_text()
    capsys.readouterr()
    with matplotlib.rc_context({"text.usetex": True}):  # as of a matplotlibrc of the user's; there is no LaTeX
        assert report.main(flags) == 0 and capsys.readouterr().out.startswith("written: ")  # nothing is trained again


def test_opposite_moves_of_the_two_accuracies_are_found():
    top, by_rounding = [0.5, 0.6, 0.58, 0.7], [0.90, 0.92, 0.93, 0.95]
    history = [dict(val_accuracy=a, val_rounded_accuracy=b) for a, b in zip(top, by_rounding)]
    assert page.opposite_moves(history) == (
        "from epoch 2 to 3 the argmax accuracy went from 0.6000 to 0.5800 while the rounded one went from 0.92000 to "
        "0.93000.")
    assert "never moved in opposite directions" in page.opposite_moves(history[2:])
