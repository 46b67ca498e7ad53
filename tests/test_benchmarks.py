"""The benchmark of an epoch, end to end on the small data set: two processes, no claim about speed."""

import json

from benchmarks import epoch


def test_it_times_both_peers_and_keeps_the_numbers(tmp_path, capsys):
    path = tmp_path / "epoch.json"
    code = epoch.main(["--data=mini", "--models=2L", "--batches=128", "--rounds=1", "--epochs=1", f"--json={path}"])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    assert "2L, batch 128, 1800 images" in printed.out and "the peers reach the same training loss" in printed.out
    assert all(line in printed.out for line in ("\n  tape ", "\n  fit ", "\n  fit/tape "))
    assert len(printed.err.splitlines()) == 2  # a line a process
    content = json.loads(path.read_text())
    assert [run["peer"] for run in content["runs"]] == ["tape", "fit"]
    assert all(run["first_epoch_seconds"] > 0 and len(run["epoch_seconds"]) == 1 for run in content["runs"])
    (summary,) = content["summaries"]
    tape, fit = (run["epoch_seconds"][0] for run in content["runs"])
    assert summary["ratios"] == {"fit/tape": [fit / tape]}
    assert content["machine"]["cores"] and content["versions"]["fit"]["keras"]
