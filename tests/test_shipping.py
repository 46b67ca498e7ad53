"""The weights that `trainers.results --ship` puts into the package, their precision, and the manifest."""

import dataclasses

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, weights
from tests import helpers
from trainers.publishing import evaluation, shipping
from trainers.running import trained
from trainers.running.folder import RunFolder

OLD_RUN = helpers.OLD_FILES / "logs" / "2L,hidden=2" / "finished"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder in place of the package's trained weights."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "trained")
    return tmp_path / "trained"


def test_weights_are_shipped_in_half_precision_and_measured_once(scored_run, shelf, monkeypatch):
    measured, measure = [], evaluation.measure
    monkeypatch.setattr(evaluation, "measure", lambda *given: measured.append(given[0]) or measure(*given))
    lines = shipping.ship([scored_run])
    entry, kept = weights.entry("softmax"), scored_run.read_result()["final"]["epoch"]
    assert entry["dtype"] == "float16" and "float16" in lines and entry["file"] == "softmax.safetensors"
    assert entry["step"] == 8 * kept  # 1,800 images in batches of 256
    assert entry["temperature"] == trained.calibrated(trained.from_run(scored_run.path)).temperature
    assert [subject.model.get_weights()[0].tolist() for subject in measured] \
        == [fmnist_zoo.load_model("softmax").get_weights()[0].tolist()]  # those that are shipped, and no others
    for received, array in zip(fmnist_zoo.load_model("softmax").get_weights(),
                               trained.from_run(scored_run.path).model.get_weights()):
        np.testing.assert_allclose(received, array, atol=1e-3)
    assert sorted(path.name for path in shelf.iterdir()) == ["manifest.json", "softmax.safetensors"]


def test_dtype_of_shipped_weights_is_chosen_on_validation_images(scored_run, shelf, monkeypatch):
    """float16 if at most two of them change class, float32 beyond, whatever the test images say."""
    for changed, dtype in ((2, "float16"), (3, "float32")):
        monkeypatch.setattr(shipping, "_changed_classes", lambda first, second, images: changed)
        shipping.ship([scored_run])
        assert weights.entry("softmax")["dtype"] == dtype


def test_weights_beyond_half_precision_are_shipped_in_full(scored_run, shelf, monkeypatch):
    """Weights of 1e-9 are 0 in float16, and the classes of most images change."""
    subject = trained.from_run(scored_run.path)
    subject.model.set_weights([1e-9 * array for array in subject.model.get_weights()])
    monkeypatch.setattr(trained, "from_run", lambda path: dataclasses.replace(subject, temperature=1.0))
    shipping.ship([scored_run])
    assert weights.entry("softmax")["dtype"] == "float32"


def test_weights_are_shipped_in_full_without_validation_images(scored_run, shelf, monkeypatch):
    load_data = trained.load_data

    def none(subject, split, data_dir=None):
        found = load_data(subject, split, data_dir)
        if split == "validation":
            found.splits[split] = data.Split(np.empty((0, 784), np.uint8), np.empty(0, np.uint8))
        return found

    monkeypatch.setattr(trained, "load_data", none)
    shipping.ship([scored_run])
    assert weights.entry("softmax")["dtype"] == "float32"


def test_model_that_another_process_ships_during_a_measurement_is_kept(scored_run, shelf, monkeypatch):
    measure = evaluation.measure

    def slow(*given):
        if not weights.manifest():
            monkeypatch.setattr(evaluation, "measure", measure)
            shipping.ship([RunFolder(OLD_RUN)])
        return measure(*given)

    monkeypatch.setattr(evaluation, "measure", slow)
    shipping.ship([scored_run])
    assert set(weights.manifest()) == {"softmax", "2L,hidden=2"}
