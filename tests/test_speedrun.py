"""The speedrun: who takes a record, what the peers learn, and the records on their page."""

import pytest

from benchmarks import command, speedrun, torch_recipe
from fmnist_zoo.errors import UsageError

pytestmark = pytest.mark.usefixtures("without_xla")
SHORT = "hidden=16,activation=gelu,optimizer=adamw,schedule=cosine,label_smoothing=0.1,epochs=3,weights=last"


@pytest.mark.parametrize("seconds, accuracy, code, line", [
    (5.0, 0.91, 0, "a new record for 0.90"), (9.0, 0.91, 1, "challenger: takes 9.0 s, not less than the record's 8.0"),
    (5.0, 0.89, 1, "challenger: the mean test accuracy 0.8900 is below 0.90")])
def test_a_faster_recipe_that_is_as_good_takes_the_record(seconds, accuracy, code, line, monkeypatch, tmp_path,
                                                          capsys):
    """The README's test measures for real."""
    def ask(arguments, what, python):
        mine = f"--settings={SHORT}" in arguments
        return {"seconds": seconds if mine else 8.0, "validation_accuracy": 0.9, "commit": "abc",
                "test_accuracy": accuracy if mine else 0.905}

    monkeypatch.setattr(command, "ask", ask)
    flags = [f"--records={tmp_path / 'records.csv'}", "--check=0.90", "--peers=tape,fit"]
    assert speedrun.main([*flags, "--settings=epochs=9"]) == 0
    before = speedrun.read(tmp_path / "records.csv")
    assert before["0.90"].settings == "epochs=9" and before["0.90"].fit_seconds == 8.0
    assert speedrun.main([*flags, f"--settings={SHORT}", "--by=somebody"]) == code
    assert line in capsys.readouterr().out
    after = speedrun.read(tmp_path / "records.csv")
    assert (after == before) is bool(code) and (code or after["0.90"].by == "somebody")


@pytest.mark.long
def test_peers_of_the_speedrun_learn_what_our_loop_learns():
    found = {peer: speedrun.work(peer, "4L", SHORT.replace("epochs=3", "epochs=10"), 0, "mini")
             for peer in ("tape", "fit")}
    try:
        found["torch"] = speedrun.work("torch", "4L", SHORT.replace("epochs=3", "epochs=10"), 0, "mini")
    except ImportError:
        pass
    assert {one["validation_accuracy"] > 0.6 and one["seconds"] > 0 for one in found.values()} == {True}


def test_torch_refuses_a_recipe_that_it_does_not_have():
    config = speedrun.config_of("4L", "erase=4,l2=1e-4", 0, data="mini")
    with pytest.raises(UsageError, match="has no erase, l1 or l2"):
        torch_recipe.check(config.spec, config.recipe)
    config = speedrun.config_of("4L", "initial_weights=4L", 0, data="mini")
    with pytest.raises(UsageError, match="has no initial_weights=4L"):
        torch_recipe.check(config.spec, config.recipe)


def test_the_records_reach_their_targets_and_the_page_shows_them():
    records = speedrun.read()
    for target, record in records.items():
        assert record.test_accuracy >= float(target)
        assert speedrun.config_of(record.model, record.settings, 0, data="fashion_mnist").recipe.weights == "last"
    page = (command.ROOT / "docs" / "speedrun.md").read_text()
    assert page.split(speedrun.BEGIN)[1].split(speedrun.END)[0].strip() == (speedrun.table(records) if records else "")
