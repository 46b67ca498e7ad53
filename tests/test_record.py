"""The second table of scores, of `trainers.results --record`: test-time shifts, and seeds together. On the mini set."""

import json
import shutil

from fmnist_zoo import prediction, results
from trainers import results as command
from trainers.publishing import evaluation


def test_record_has_the_same_networks_with_shifts_and_together(scored, tmp_path, monkeypatch):
    """Each network predicts each set of images once as they are and once with shifts; the second time none does."""
    flags, _, before = scored
    logdir, record = tmp_path / "logs", tmp_path / "record.csv"
    shutil.copytree(before, logdir, ignore=shutil.ignore_patterns("evaluation"))
    again = [*flags[:2], f"--out={tmp_path / 'table.csv'}", f"--logdir={logdir}", "--seeds=0,1", f"--record={record}"]
    predicted, predict = [], prediction.logits_of
    monkeypatch.setattr(prediction, "logits_of", lambda *given: predicted.append(given) or predict(*given))
    assert command.main(again) == 0
    assert len(predicted) == 2 * 2 * 2  # networks, sets, with and without shifts
    rows = results.read(record, results.RECORD_TYPES)
    assert [(row["kind"], row["seeds"]) for row in rows] == [
        ("shifts", "0"), ("shifts", "1"), ("ensemble", "0 1"), ("ensemble, shifts", "0 1")]
    own = [json.loads(path.read_text()) for path in sorted(logdir.glob("softmax/*/evaluation/evaluation.json"))]
    (report,) = [json.loads(path.read_text()) for path in logdir.glob("ensembles/*/evaluation/evaluation.json")]
    assert sorted(row["test_accuracy"] for row in rows[:2]) == sorted(one["tta"]["accuracy"] for one in own)
    assert [row["test_accuracy"] for row in rows[2:]] == [report["accuracy"], report["tta"]["accuracy"]]
    assert rows[2]["weights_sha256"] == report["weights_sha256"] == rows[3]["weights_sha256"]
    assert 0 < rows[0]["validation_accuracy"] < 1
    table = results.read(tmp_path / "table.csv")
    assert [row["test_accuracy"] for row in table] == [row["test_accuracy"] for row in results.read(scored[1])]
    monkeypatch.setattr(evaluation, "predict_test", None)
    assert command.main(again) == 0
    assert results.read(record, results.RECORD_TYPES) == rows
