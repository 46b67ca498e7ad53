"""Runs that cannot fit into memory are refused before they start; what is counted is what training holds."""

import pytest

import fmnist_zoo
from fmnist_zoo import models
from fmnist_zoo.spec import OPTIMIZERS
from trainers import sweep
from trainers.config import resolve
from trainers.engine import factory
from trainers.running import memory
from trainers.train import main, resume, train
from trainers.tuning import trial

pytestmark = pytest.mark.usefixtures("without_xla")
HUGE = ["--model=4L", "--hidden=100000,100000", "--data=mini"]


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Sets the files in which the system says what memory it has."""
    for name in ("MEMINFO", "CGROUP", "CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / name)

    def write(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    return write


MEMINFO = {"MEMINFO": "MemTotal: 9000000 kB\nMemAvailable:    5000000 kB\nSwapFree: 0 kB\n"}
VERSION_2 = {"CGROUP": "0::/user/job\n", "CGROUPS/user/memory.max": "3000000000\n",
             "CGROUPS/user/memory.current": "1500000000\n", "CGROUPS/user/job/memory.max": "max\n",
             "CGROUPS/user/memory.stat": "anon 9\nfile 500000000\ninactive_file 300000000\nactive_file 100000000\n",
             "CGROUPS/user/job/memory.current": "1000\n"}
VERSION_1 = {"CGROUP": "4:memory:/job\n1:cpu:/\n0::/\n", "CGROUPS/memory/job/memory.limit_in_bytes": "2000000000",
             "CGROUPS/memory/job/memory.usage_in_bytes": "1200000000",
             "CGROUPS/memory/job/memory.stat": "inactive_file 1\nactive_file 2\ntotal_inactive_file 30\n"
                                               "total_active_file 40\n",
             "CGROUPS/memory/memory.limit_in_bytes": "9223372036854771712",
             "CGROUPS/memory/memory.usage_in_bytes": "4000000000"}


@pytest.mark.parametrize("files, expected", [
    ({}, None), (MEMINFO, 5_120_000_000), ({**MEMINFO, **VERSION_2}, 1_900_000_000), (VERSION_1, 800_000_070),
    ({**MEMINFO, "CGROUP": "0::/\n"}, 5_120_000_000),
])
def test_free_memory_is_the_least_that_the_system_and_its_control_groups_leave(system, files, expected):
    system(files)
    assert memory.available() == expected


def test_run_that_does_not_fit_is_refused_in_one_line_before_it_leaves_a_folder(system, tmp_path, capsys):
    system(MEMINFO)
    for flags in (["--dry_run"], []):
        assert main([*HUGE, f"--logdir={tmp_path / 'logs'}", *flags]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "needs at least 363 GB of memory to train (10079600010 parameters" in error
        assert "5.12 GB are free" in error
        assert not list((tmp_path / "logs").glob("*/*"))
    assert main([*HUGE[:1], "--dry_run", "--data=mini"]) == 0


def test_run_that_fitted_is_refused_where_it_no_longer_does(system, tmp_path, capsys):
    folder = train("softmax", data="mini", epochs=1, logdir=tmp_path / "logs").folder
    system({"MEMINFO": "MemAvailable: 100 kB\n"})
    assert main([f"--resume={folder}", "--epochs=2", "--dry_run"]) == 2
    assert "needs at least 2 MB of memory to train" in capsys.readouterr().err
    with pytest.raises(memory.MemoryShortage):
        resume(folder, epochs=2)


def test_trial_that_does_not_fit_fails_and_others_go_on(system, tmp_path):
    system({"MEMINFO": "MemAvailable: 100 kB\n"})
    (tmp_path / trial.LEADER).write_text("me")
    config = resolve("softmax", data="mini", epochs=1, ranking=True, histogram_every=0)
    found = trial.run({"config": config.to_dict(), "folder": str(tmp_path / "0000" / "0"), "parent": None,
                       "sweep": str(tmp_path), "leader": "me", "expected": None})
    assert found["status"] == "FAILED" and "needs at least 2 MB of memory" in found["reason"]


def test_sweep_of_which_no_trial_fits_is_refused_before_it_starts(system, tmp_path, capsys):
    system(MEMINFO)
    for flags in (["--dry_run"], []):
        assert sweep.main([*HUGE, "--space=l2=0,1e-5", f"--logdir={tmp_path}", *flags]) == 2
        assert "needs at least 363 GB of memory" in capsys.readouterr().err
        assert not list(tmp_path.glob("sweeps/*"))


def test_dry_run_names_the_largest_trial_that_does_not_fit(system, tmp_path, capsys):
    system(MEMINFO)
    flags = ["--model=4L", "--data=mini", "--space=hidden=20_20,100000_100000,200000_100000", "--dry_run"]
    assert sweep.main([*flags, f"--logdir={tmp_path}"]) == 0
    assert "trials that do not fit will fail: 4L,hidden=200000_100000 needs" in capsys.readouterr().out
    assert sweep.main([*flags, "--scheduler=tcp://127.0.0.1:9", f"--logdir={tmp_path}"]) == 0
    assert "do not fit" not in capsys.readouterr().out


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_arrays_that_are_counted_are_those_that_training_changes(optimizer):
    config = resolve("2L", data="mini", hidden=(20,), optimizer=optimizer, ema=0.9)
    model = models.build(config.spec, 0)
    engine = factory.make_engine(config, model, factory.make_network(config, model),
                                 fmnist_zoo.load_data(data="mini")["fit"])
    entries = sum(variable.shape.num_elements() for variable in engine.variables().values() if variable.shape.rank)
    assert entries == config.spec.parameters * memory.copies(config.recipe)


def test_parts_of_the_need():
    def difference(before, **settings):
        usual = {"data": "mini", "batch_size": 100, **before}
        return memory.needed(resolve("2L", **{**usual, **settings})) - memory.needed(resolve("2L", **usual))

    parameters = resolve("2L").spec.parameters
    assert difference({}, ema=0.9) == 8 * parameters == -difference({"optimizer": "adam"}, optimizer="lion")
    assert difference({}, batch_size="full") == 4 * 1700 * 200
    assert difference({"optimizer": "sgd"}, trainer="fit") == 3 * 1800 * 784 - 8 * parameters
    assert memory.needed(resolve("4D_drop03")) < 100e6
