"""What TensorBoard's HParams tab and Text tab are given. A run's events are tested in test_train.py."""

import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.parse

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from fmnist_zoo.files import write_json
from tests import helpers
from tests.conftest import ROOT
from tests.runs import make
from trainers.board import events, hparams, serve, texts
from trainers.config import overlay, resolve
from trainers.tuning import leader
from trainers.tuning.study import Study

VISIBLE = 5  # metrics that TensorBoard shows at first


def declared(folder):
    """The declaration in a log folder: columns by name, and the tags of the metrics."""
    *_, event = helpers.events(folder)
    experiment = metadata.parse_experiment_plugin_data(event.summary.value[0].metadata.plugin_data.content)
    return {info.name: info for info in experiment.hparam_infos}, [info.name.tag for info in experiment.metric_infos]


def shown(folder):
    return {name for name, info in declared(folder)[0].items() if info.differs}


def values(model="4L", **settings):
    return hparams.hyperparameters(resolve(model, **settings), sweep={"name": "none", "model": model})


def test_columns_have_the_values_of_all_runs_and_those_that_differ_are_shown(tmp_path):
    hparams.declare(tmp_path, [values("2L")])
    columns, metrics = declared(tmp_path)
    assert list(columns["model"].domain_discrete) == ["2L"] and set(columns) == set(hparams._TYPES)
    assert shown(tmp_path) == {"model", "dropout", "l2", "learning_rate", "seed"}  # nothing differs yet
    assert "selected/objective" not in metrics  # parallel coordinates draw no row that lacks one, and no run has it
    hparams.declare(tmp_path, [values("4L", activation="gelu", l1=1e-5, warmup=0.1, flip=True, epochs=3)])
    columns, _ = declared(tmp_path)
    assert list(columns["model"].domain_discrete) == ["2L", "4L"]
    assert list(columns["activation"].domain_discrete) == ["gelu", "relu"]
    assert (columns["l1"].domain_interval.min_value, columns["l1"].domain_interval.max_value) == (0.0, 1e-5)
    assert len(shown(tmp_path)) == VISIBLE and {"model", "hidden"} <= shown(tmp_path)
    before = (tmp_path / hparams.FILE).read_bytes()
    hparams.declare(tmp_path, [values("2L", l1=5e-6)])
    assert (tmp_path / hparams.FILE).read_bytes() == before


def test_what_a_sweep_searches_is_shown_and_its_folder_has_the_same_declaration(tmp_path):
    sweep = tmp_path / "sweeps" / "4L-grid"
    sweep.mkdir(parents=True)
    write_json(sweep / "sweep.json", {})
    hparams.declare(tmp_path, [values(name, seed=seed) for seed, name in enumerate(("2L", "3L", "5L"))])
    hparams.declare(tmp_path, [values(mixup=0.1), values(erase=8), values(mixup=0.3)], first=["mixup", "erase"])
    assert {"mixup", "erase", "model"} <= shown(tmp_path)
    hparams.declare(tmp_path, [values("4L", batch_size=32)])
    assert {"mixup", "erase", "model"} <= shown(tmp_path)
    assert (sweep / hparams.FILE).read_bytes() == (tmp_path / hparams.FILE).read_bytes()
    columns, metrics = declared(tmp_path)
    assert metrics[0] == "selected/objective" and list(columns["sweep"].domain_discrete) == ["4L-grid", "none"]


@pytest.mark.parametrize("by_layer, names", [
    (False, {"dropout", "l2", "epochs"}), (True, {"dropout.1", "dropout.2", "l2"})])
def test_rates_of_layers_are_shown_where_they_are_searched(tmp_path, by_layer, names):
    """Else the column of their mean says it all, and they would take the places of other settings."""
    trials = [hparams.hyperparameters(
        resolve("4L", dropout=(rate, rate / 2 if by_layer else rate, rate), l2=rate / 1000, epochs=int(10 * rate)),
        sweep={"name": "rates", "model": "4L", "by_layer": by_layer}) for rate in (0.1, 0.4)]
    first = ["dropout.1", "dropout.2", "l2"] if by_layer else ["dropout", "l2", "epochs"]
    hparams.declare(tmp_path, trials, first=first)
    assert names <= shown(tmp_path) and ("dropout.1" in shown(tmp_path)) == by_layer


def test_sweep_and_data_are_columns_where_they_differ_and_texts_are_short(tmp_path):
    """In parallel coordinates a longer text runs across the next axis, and mini's losses are not those of all."""
    name = "a_sweep_of_many_rates_1"
    trial = hparams.hyperparameters(
        resolve("4L", hidden=(512, 256), dropout=(0.2, 0.1), activation="gelu", data="mini"),
        sweep={"name": name, "model": "4L,hidden=512_256"})
    hparams.declare(tmp_path, [values("4L"), trial])
    assert {"sweep", "data"} <= shown(tmp_path)
    columns, _ = declared(tmp_path)
    assert list(columns["sweep"].domain_discrete) == ["a_sweep_…rates_1", "none"]
    texts = [text for info in columns.values() for text in info.domain_discrete]
    assert max(map(len, texts)) == hparams.LONGEST


def test_runs_that_start_at_the_same_time_keep_each_others_values(tmp_path, monkeypatch):
    names, write = ["2L", "3L", "4L", "5L"], hparams._content
    monkeypatch.setattr(hparams, "_content", lambda experiment: time.sleep(0.02) or write(experiment))
    with concurrent.futures.ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: hparams.declare(tmp_path, [values(name)]), names))
    assert list(declared(tmp_path)[0]["model"].domain_discrete) == names


@pytest.mark.parametrize("content", [None, b"", b"\x08" * 40, "other columns"])
def test_declaration_that_does_not_read_is_made_again_from_the_records_of_runs(tmp_path, content):
    make(tmp_path, "whole", model="2L", hidden=(2,))
    (tmp_path / "2L" / "damaged").mkdir(parents=True)
    (tmp_path / "2L" / "damaged" / "config.json").write_text("damaged")
    if content == "other columns":
        content = hparams._declaration({"model": {"3L"}}, (), objective=False)
    if content is not None:
        (tmp_path / hparams.FILE).write_bytes(content)
    hparams.declare(tmp_path, [values("4L")])
    columns, _ = declared(tmp_path)
    assert list(columns["model"].domain_discrete) == ["2L,hidden=2", "4L"] and set(columns) == set(hparams._TYPES)


def test_true_schedule_of_dropout_is_a_column_of_its_own(tmp_path):
    """`dropout` is a number, so that it can be an axis: 0.3 for both of these."""
    rates = [values(dropout=(0.4, 0.3, 0.2)), values(dropout=0.3), values("softmax")]
    assert [one["dropout"] for one in rates] == [pytest.approx(0.3), pytest.approx(0.3), 0]
    assert [one["dropout.schedule"] for one in rates] == ["0.4_0.3_0.2", "one rate", "one rate"]
    hparams.declare(tmp_path, rates)
    columns, _ = declared(tmp_path)
    assert columns["dropout"].display_name == "dropout (mean)" and columns["dropout"].type == api_pb2.DATA_TYPE_FLOAT64
    assert list(columns["dropout.schedule"].domain_discrete) == ["0.4_0.3_0.2", "one rate"]
    assert "dropout.schedule" in shown(tmp_path)


@pytest.mark.parametrize("space, schedule", [
    ("dropout=0.1_0.2_0.3,0.2; l2=0,1e-3", "0.1_0.2_0.3"), ("l2=0,1e-3; dropout.2=0.1..0.5", "by layer")])
def test_schedule_of_a_trial_is_one_of_the_declared_values(tmp_path, space, schedule):
    """TensorBoard filters out a value that was not declared, and a range for each layer has too many to declare."""
    base = resolve("4L", ranking=True)
    study = Study(tmp_path, {"base": base.get_config(), "space": space, "tuner": "random", "objective": "val_loss",
                             "executions": 1, "given": [], "starts": [], "configs": [], "started": 0.0})
    trial = overlay(base, dropout=(0.1, 0.2, 0.3))
    start_info = started(tmp_path / "0003" / "0", trial, study.shown)
    assert start_info.hparams["dropout.schedule"].string_value == schedule
    assert schedule in {values["dropout.schedule"] for values in leader.columns(study)}


def started(folder, config, sweep):
    summary = hparams.session_start(pathlib.Path(folder), config, 256, sweep)
    event = event_pb2.Event.FromString(event_pb2.Event(summary=summary).SerializeToString())
    return metadata.parse_session_start_info_plugin_data(event.summary.value[0].metadata.plugin_data.content)


def test_trial_is_named_by_its_number_and_has_the_model_and_name_of_the_sweep(tmp_path):
    """4L with dropout 0.3 is 4D_drop03, but in a sweep of 4L it must not leave the others on the axis of models."""
    groups = set()
    for (name, started_at), execution in itertools.product((("grid", 1.0), ("grid", 2.0), ("rates", 2.0)), "01"):
        sweep = {"model": "4L", "name": name, "started": started_at}
        found = started(tmp_path / "0003" / execution, resolve("4D_drop03", ranking=True), sweep)
        assert found.hparams["model"].string_value == "4L" and found.hparams["dropout"].number_value == 0.3
        assert found.hparams["sweep"].string_value == name
        groups.add(found.group_name)
    assert len(groups) == 3  # a sweep has its own, also under a name that is used again; executions of one are joined
    assert {"".join(filter(str.isprintable, group)) for group in groups} == {"#0003"}


@pytest.mark.parametrize("name, settings, shown", [
    ("4D_drop03", {}, True), ("4D_drop03", {"seed": 7, "histogram_every": 1}, True),
    ("4D_drop03", {"epochs": 3}, False),
    ("4D_drop03", {"data": "mini"}, False), ("4D_drop03", {"l2": 1e-4}, False), ("4L", {"dropout": 0.3}, True)])
def test_published_scores_are_beside_the_published_recipe_alone(name, settings, shown):
    config = resolve(name, **settings)
    found = {"weights": "best", "epochs": 9, "stopped_early": True, "seconds": 71.2,
             "final": {"epoch": 4, "train_loss": 0.2, "train_accuracy": 0.93, "val_loss": 0.3, "val_accuracy": 0.89}}
    logits = np.eye(10)[[0, 1, 2, 3, 4, 5, 6, 7, 8, 8]]
    text = texts.result(config, found, logits, np.arange(10), "again")
    assert "\n| Ankle boot | 0.000 | Bag 1.000 |\n" in text
    assert ("Published with this recipe" in text) == shown == ("score on the" in texts.model(config, "again"))
    assert "best weights, of epoch 4 of 9 (stopped early); 71 s" in text and "```\nagain\n```" in text


@pytest.mark.parametrize("final, said", [
    ({"train_loss": 9.0, "val_loss": 2.30}, ""), ({"train_loss": 1.0, "val_loss": 3e10}, "3e+10"),
    ({"train_loss": 2.4}, "training loss 2.4"), ({"train_loss": 2.2}, "")])
def test_run_that_ends_worse_than_guessing_has_failed(final, said):
    problem = texts.worse_than_chance(final)
    assert bool(problem) == bool(said) and said in problem


# The link of `make board`.

def board_of(logdir, models, trials=0, mini=()):
    """The lines that are printed for runs of these models, of all data or of mini, and for a sweep."""
    for data, folders in (("fashion_mnist", models), ("mini", mini)):
        for model in folders:
            (logdir / model / "run.1").mkdir(parents=True)
            write_json(logdir / model / "run.1" / "config.json", {"data": {"name": data}})
    for trial in range(trials):
        (logdir / "sweeps" / "grid" / f"{trial:04}").mkdir(parents=True)
        (logdir / "sweeps" / "grid" / "sweep.json").touch()
    return serve.lines("http://localhost:6006/", logdir)


def parsed(line):
    """The filter of runs, and the tab, of a printed link."""
    link = urllib.parse.urlsplit(line.split()[-1])
    tab, _, rest = link.fragment.partition("&")
    query, tabs = urllib.parse.parse_qs(link.query), urllib.parse.parse_qs(rest)
    assert query["smoothing"] == tabs["_smoothingWeight"] == ["0"]
    assert [card["tag"] for card in json.loads(query["pinnedCards"][0])] == ["loss", "accuracy"]
    assert query.get("runFilter") == tabs.get("regexInput")
    return query.get("runFilter", [""])[0], tab


@pytest.mark.parametrize("models, trials, mini, first", [
    (["4L"], 0, [], ["4L"]), (["4L"], 3, [], ["4L"]), ([], 3, ["4L"], ["4L"]), (["2L", "4L"], 3, ["3L"], ["2L", "4L"]),
    (["network_A", "2L"], 3, ["3L"], ["2L"]), (["network_A", "network_B"], 1, [], ["network_A", "network_B"]),
    (["network_A"], 0, ["3L"], ["3L"])])
def test_first_page_has_the_runs_that_belong_together(tmp_path, models, trials, mini, first):
    (tmp_path / "4L" / "shipped-mini" / "test").mkdir(parents=True)
    first_line, *_ = board_of(tmp_path, models, trials, mini)
    regex, tab = parsed(first_line)
    rows = serve.rows_of(tmp_path)[1:]
    assert tab == "timeseries"
    of_mini = {"4L/shipped-mini/test"} if first == mini else set()
    assert {row for row in rows if re.search(regex, row)} == {f"{model}/run.1" for model in first} | of_mini


def test_seeds_of_mini_are_left_out_by_their_folder_unless_other_runs_are_in_it(tmp_path):
    board_of(tmp_path, ["4L"])
    for name, data in (*((f"mini/seed{seed}", "mini") for seed in range(5)), ("both/seed0", "mini"),
                       ("both/seed1", "fashion_mnist")):
        (tmp_path / "4L" / name).mkdir(parents=True)
        write_json(tmp_path / "4L" / name / "config.json", {"data": {"name": data}})
    regex, _ = parsed(serve.lines("http://localhost:6006/", tmp_path)[0])
    assert {row for row in serve.rows_of(tmp_path)[1:] if re.search(regex, row)} == {"4L/run.1", "4L/both/seed1"}
    assert regex.count("seed") == 1


@pytest.mark.parametrize("models, trials, tabs", [
    (["4L"], 0, ["timeseries"]), (["4L"], 1, ["timeseries", "hparams"]), ([], 1, ["timeseries", "hparams"]),
    (["4L", "network_A"], 1, ["timeseries", "timeseries", "hparams"]), (["network_A"], 0, ["timeseries"])])
def test_other_links_open_models_of_500_epochs_and_trials(tmp_path, models, trials, tabs):
    links = [parsed(line) for line in board_of(tmp_path, models, trials)]
    assert [tab for _, tab in links] == tabs
    assert len(links) < 3 or links[1][0] == "^network_"
    if trials:
        assert links[-1][0] == "" and parsed(serve.lines("http://x/", tmp_path / "sweeps" / "grid")[-1])[1] == "hparams"


@pytest.mark.parametrize("models, trials, helps", [
    (39, 50, []), (41, 0, ["type a filter"]), (0, 50, ["type a filter"]), (1, 500, ["tick the box"])])
def test_tabs_that_open_empty_are_said(tmp_path, models, trials, helps):
    lines = board_of(tmp_path, [f"2L,hidden={units}" for units in range(1, models + 1)], trials)
    said = [line for line in lines if "http" not in line]
    assert len(said) == len(helps) and all(text in line for text, line in zip(helps, said))


@pytest.mark.parametrize("flags, text", [
    ([], "does not start"),
    (["--logdir=tb_logs", "--prot=1"], "does not start: unrecognized arguments: --prot=1; --help lists its flags"),
    (["--logdir=gs://bucket/logs"], "does not start: logdir=gs://bucket/logs: is an address")])
def test_missing_and_wrong_flags_are_one_line(command, flags, text):
    done = command("trainers.board.serve", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and text in done.stderr


@pytest.mark.long
def test_make_board_serves_other_machines_if_it_is_asked_to(tmp_path):
    made = subprocess.run(["make", "--dry-run", "board", "FLAGS=--bind_all --port=0"], cwd=ROOT, text=True, check=True,
                          env=helpers.outside_make(), capture_output=True)
    serving = [sys.executable, *made.stdout.splitlines()[-1].split()[1:]]
    with subprocess.Popen(serving, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            link = urllib.parse.urlsplit(process.stdout.readline().split()[-1])
            assert link.hostname != "localhost" or socket.gethostname() == "localhost"
            with socket.create_connection(("127.0.0.1", link.port), timeout=60):
                pass
        finally:
            process.terminate()


def test_log_folder_that_does_not_exist_is_said(tmp_path):
    assert "no such folder yet" in serve.warning(str(tmp_path / "nowhere"))
    assert not any(map(serve.warning, (str(tmp_path), "")))


def test_event_file_is_named_after_those_before_it_though_the_clock_was_set_back(tmp_path, monkeypatch):
    """TensorBoard reads a folder's files in the order of their names, and does not go back."""
    for hours in (0, -1, -2):
        monkeypatch.setattr(events.time, "time_ns", lambda: 10**18 + hours * 3600 * 10**9)
        writer = events.EventWriter(tmp_path)
        writer.scalars({"hours": hours}, -hours)
        writer.close()
    assert [step for step, _ in helpers.summaries(tmp_path)["hours"]] == [0, 1, 2]
