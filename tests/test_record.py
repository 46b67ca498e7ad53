"""The second table of scores, of `trainers.results --record`: shifts, seeds together, students. On the mini set."""

import json
import shutil

from fmnist_zoo import prediction, results
from trainers import results as command, train
from trainers.publishing import evaluation, records
from trainers.running import trained


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
    assert 0 < rows[0]["val_accuracy"] < 1
    table = results.read(tmp_path / "table.csv")
    assert [row["test_accuracy"] for row in table] == [row["test_accuracy"] for row in results.read(scored[1])]
    monkeypatch.setattr(evaluation, "predict_test", None)
    assert command.main(again) == 0
    assert results.read(record, results.RECORD_TYPES) == rows


def test_student_has_a_row_of_its_own_on_single_images(scored_run, tmp_path, without_xla):
    student = train.train("softmax", data="mini", epochs=1, teacher=str(scored_run.path), histogram_every=0,
                          logdir=tmp_path, verbose=False)
    records.write([trained.from_run(student.folder)], tmp_path / "record.csv")
    single, shifts = results.read(tmp_path / "record.csv", results.RECORD_TYPES)
    assert (single["kind"], shifts["kind"]) == ("student", "shifts")
    report = json.loads((student.folder / "evaluation" / "evaluation.json").read_text())
    assert single["test_accuracy"] == report["accuracy"] and shifts["test_accuracy"] == report["tta"]["accuracy"]
    assert single["val_accuracy"] == student.result["final"]["val_accuracy"]
