"""The weights that `trainers.results --ship` puts into the package, and predictions by several of them."""

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, files, metrics, prediction, weights
from trainers.publishing import measurement, shipping
from trainers.publishing.measurement import Measured
from trainers.running import trained
from trainers.train import train

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder in place of the package's trained weights."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "trained")
    return tmp_path / "trained"


@pytest.fixture
def measured(scored_run):
    return Measured(trained.from_run(scored_run.path))


@pytest.mark.long
def test_weights_are_shipped_in_half_precision_and_measured_once(scored_run, measured, shelf, monkeypatch):
    tested, figures = [], measurement.figures
    monkeypatch.setattr(measurement, "figures", lambda *given: tested.append(given[0]) or figures(*given))
    lines = shipping.ship([measured])
    entry = weights.entry("softmax")
    assert entry["epoch"] == scored_run.read_result()["final"]["epoch"]
    assert entry["dtype"] == "float16" and "float16" in lines
    assert entry["temperature"] == measured.temperature
    assert len(tested) == 1  # the test images are opened for those that are shipped, and no others
    shipped = fmnist_zoo.load_model("softmax").get_weights()
    for received, array in zip(shipped, measured.subject.model.get_weights()):
        np.testing.assert_allclose(received, array, atol=1e-3)
    assert sorted(path.name for path in shelf.iterdir()) == ["manifest.json", entry["file"]]


def test_dtype_of_shipped_weights_is_chosen_on_validation_images(measured, shelf, monkeypatch):
    """float16 if at most two of them change class, float32 beyond, whatever the test images say."""
    plain = Measured.logits
    labels = measured.logits("validation").argmax(axis=1)
    for changed, dtype in ((2, "float16"), (3, "float32")):
        def logits(self, split, changed=changed):
            if self is measured or split != "validation":
                return plain(self, split)
            others = labels.copy()
            others[:changed] = (others[:changed] + 1) % 10
            return np.eye(10, dtype=np.float32)[others]

        monkeypatch.setattr(Measured, "logits", logits)
        shipping.ship([measured])
        assert weights.entry("softmax")["dtype"] == dtype


def test_model_loads_at_every_moment_of_a_publication(measured, shelf, monkeypatch):
    """Shipped again with other weights: before the manifest is written, and after a kill there, the old ones load."""
    shipping.ship([measured])
    before = fmnist_zoo.load_model("softmax").get_weights()
    measured.subject.model.set_weights([array / 2 for array in before])
    monkeypatch.setattr(shipping, "write_json", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shipping.ship([Measured(measured.subject)])
    assert all(map(np.array_equal, fmnist_zoo.load_model("softmax").get_weights(), before))
    monkeypatch.setattr(shipping, "write_json", files.write_json)
    shipping.ship([Measured(measured.subject)])
    assert np.allclose(fmnist_zoo.load_model("softmax").get_weights()[0], before[0] / 2, atol=1e-4)
    assert len(list(shelf.iterdir())) == 2


def test_models_that_others_ship_are_kept(measured, shelf, monkeypatch):
    shipping.ship([measured])
    manifest = shelf / "manifest.json"
    files.write_json(manifest, {"models": {"gone": files.read_json(manifest)["models"]["softmax"]}})
    shipping.ship([measured])
    assert set(weights.manifest()) == {"softmax", "gone"}


@pytest.fixture
def shipped(measured, shelf, tmp_path):
    """The names of two models that were shipped from runs on the mini set."""
    caches = prediction._trained, prediction._temperature
    for cache in caches:
        cache.cache_clear()
    other = train("2L", hidden=(16,), data="mini", epochs=6, batch_size=64, histogram_every=0, logdir=tmp_path).folder
    shipping.ship([measured, Measured(trained.from_run(other))])
    yield list(weights.manifest())
    for cache in caches:
        cache.cache_clear()


@pytest.mark.long
def test_python_predicts_with_an_ensemble(shipped):
    images, labels = data.load_data(("validation",), data="mini")["validation"]
    each = [prediction.outputs_of(fmnist_zoo.load_model(name), prediction.as_pixels(images)) for name in shipped]
    mean = np.log(np.mean([metrics.softmax(logits) for logits in each], axis=0))
    found = fmnist_zoo.predict(images, shipped)
    wanted = metrics.softmax(mean / metrics.fit_temperature(mean, labels))
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.labels, mean.argmax(axis=1))
    alone = fmnist_zoo.predict(images, shipped[:1]).probabilities
    np.testing.assert_array_equal(alone, fmnist_zoo.predict(images, shipped[0]).probabilities)


def test_python_refuses_an_ensemble_without_common_validation_images(shipped, shelf):
    entries = files.read_json(shelf / "manifest.json")
    entries["models"][shipped[0]]["data"]["split_sha256"] = "0" * 64
    files.write_json(shelf / "manifest.json", entries)
    image = np.zeros((1, 784), np.uint8)
    with pytest.raises(fmnist_zoo.PredictionError, match="have no such images in common: " + ", ".join(shipped)):
        fmnist_zoo.predict(image, shipped)
    for names in ([], shipped[:1] * 2):
        with pytest.raises(fmnist_zoo.PredictionError, match="must be one model or different ones, received"):
            fmnist_zoo.predict(image, names)
