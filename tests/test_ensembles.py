"""Ensembles of shipped models in Python: `fmnist_zoo.predict` with several names."""

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, metrics, prediction, weights
from fmnist_zoo.files import read_json, write_json
from trainers.publishing import shipping
from trainers.publishing.measurement import Measured
from trainers.running import trained
from trainers.train import train

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, without_xla):
    """The folders of two finished runs on the same data, never evaluated."""
    logdir = tmp_path_factory.mktemp("logs")
    return [train("2L", hidden=(units,), data="mini", epochs=6, batch_size=64, histogram_every=0,
                  logdir=logdir).folder for units in (32, 16)]


def mini(split):
    return data.load_data((split,), data="mini")[split]


@pytest.fixture
def shipped(runs, tmp_path, monkeypatch):
    """The names of models that were shipped from two runs on the mini set."""
    for cached in (prediction._trained, prediction._temperature):
        cached.cache_clear()
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    shipping.ship([Measured(trained.from_run(path)) for path in runs])
    yield list(weights.manifest())
    for cached in (prediction._trained, prediction._temperature):
        cached.cache_clear()


@pytest.mark.long
def test_python_predicts_with_an_ensemble(shipped):
    images, labels = mini("validation")
    models = [fmnist_zoo.load_model(name) for name in shipped]
    each = [prediction.outputs_of(model, prediction.as_pixels(images)) for model in models]
    mean = np.log(np.mean([metrics.softmax(logits) for logits in each], axis=0))
    found = fmnist_zoo.predict(images, shipped)
    wanted = metrics.softmax(mean / metrics.fit_temperature(mean, labels))
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.labels, mean.argmax(axis=1))
    alone = fmnist_zoo.predict(images, shipped[:1]).probabilities
    np.testing.assert_array_equal(alone, fmnist_zoo.predict(images, shipped[0]).probabilities)


def test_python_refuses_an_ensemble_without_common_validation_images(shipped):
    path = weights.FOLDER / "manifest.json"
    entries = read_json(path)
    entries["models"][shipped[0]]["data"]["split_sha256"] = "0" * 64
    write_json(path, entries)
    images = mini("validation").images
    with pytest.raises(fmnist_zoo.PredictionError, match="have no such images in common: " + ", ".join(shipped)):
        fmnist_zoo.predict(images, shipped)
    for names in ([], shipped[:1] * 2):
        with pytest.raises(fmnist_zoo.PredictionError, match="must be one model or different ones, received"):
            fmnist_zoo.predict(images, names)
