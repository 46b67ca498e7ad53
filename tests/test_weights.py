"""Trained weights: written and read back, refused if damaged or of another model, and right where they are shipped."""

import dataclasses

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import data, metrics, models, prediction, registry, results, tensors, weights
from fmnist_zoo.__main__ import main as listing
from fmnist_zoo.spec import Recipe
from fmnist_zoo.weights import WeightsError

SPEC = fmnist_zoo.get_spec("4D_drop03,hidden=6_4_4")
SHIPPED = fmnist_zoo.list_models(trained=True)


@pytest.fixture
def model():
    return models.build(SPEC, 3)


@pytest.fixture
def file(tmp_path, model):
    path = tmp_path / "some.safetensors"
    weights.write(path, SPEC, model)
    return path


@pytest.mark.parametrize("dtype, error", [("float32", 0), ("float16", 2**-11)])
def test_written_weights_are_read_back(tmp_path, model, dtype, error):
    digest = weights.write(tmp_path / "x.safetensors", SPEC, model, dtype=dtype)
    assert weights.write(tmp_path / "x.safetensors", SPEC, model, dtype=dtype) == digest
    found = weights.read(tmp_path / "x.safetensors", SPEC, model, sha256=digest)
    for received, array in zip(found, model.get_weights(), strict=True):
        assert received.dtype == np.float32
        np.testing.assert_allclose(received, array, rtol=error, atol=1e-7 if error else 0)


def test_other_weights_under_the_name_of_a_shipped_file_are_refused(file, model):
    digest = weights.write(file, SPEC, model)
    weights.write(file, SPEC, models.build(SPEC, 4))
    with pytest.raises(WeightsError, match=f"its SHA-256 is .*, expected {digest}; install the package again"):
        weights.read(file, SPEC, model, sha256=digest)


@pytest.mark.parametrize("other", ["4L,hidden=6_4_4", "4D_drop03", "softmax"])
def test_weights_of_another_model_are_refused(file, other):
    with pytest.raises(WeightsError, match="belongs to another model than"):
        fmnist_zoo.build_model(other, weights=file)


def test_a_file_of_the_user_is_loaded_unless_it_is_damaged_or_not_finite(file, model):
    found = fmnist_zoo.build_model(SPEC, seed=9, weights=file)
    assert all(map(np.array_equal, found.get_weights(), model.get_weights()))
    model.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    weights.write(file, SPEC, model)
    with pytest.raises(WeightsError, match="not finite"):
        fmnist_zoo.build_model(SPEC, weights=file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=f"{file.name}: damaged, or "):
        fmnist_zoo.build_model(SPEC, weights=file)


def test_arrays_that_contradict_the_note_are_refused(file, model):
    tensors.write_arrays(file, {"x": np.zeros(3, np.float32)}, {"architecture": SPEC.architecture})
    with pytest.raises(WeightsError, match="does not hold the arrays"):
        weights.read(file, SPEC, model)


@pytest.mark.parametrize("source, complaint", [
    ("nowhere.safetensors", "cannot be read"), (".", "cannot be read"), ("setup.cfg", "setup.cfg: damaged, or "),
    ("model.keras", "keras.saving.load_model opens")])
def test_wrong_source_is_refused(source, complaint):
    with pytest.raises(WeightsError, match=complaint):
        fmnist_zoo.build_model(SPEC, weights=source)


def test_model_without_trained_weights_is_refused():
    with pytest.raises(WeightsError, match=r"no trained weights come with '4L,l2=0.5'; .*trained=True"):
        fmnist_zoo.load_model("4L,l2=0.5")


def test_damaged_manifest_and_missing_file_are_refused(tmp_path, monkeypatch, capsys):
    whole = (weights.FOLDER / "manifest.json").read_text(encoding="utf-8")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert fmnist_zoo.list_models(trained=True) == []
    for damaged in ("{", "[]", whole.replace("float16", "float61")):
        (tmp_path / "manifest.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(WeightsError, match="manifest.json: is damaged: .*; install the package again"):
            fmnist_zoo.load_model("softmax")
        assert listing(["softmax"]) == 2 and capsys.readouterr().err.count("\n") == 1
    (tmp_path / "manifest.json").write_text(whole, encoding="utf-8")
    with pytest.raises(WeightsError, match="softmax.safetensors: cannot be read: No such file.*install the package"):
        fmnist_zoo.load_model("softmax")


def test_every_model_of_the_zoo_is_trained():
    """But the student, whose weights come when all are trained again."""
    assert set(registry.list_models()) - set(SHIPPED) == {"5L_distilled"}
    entries = weights.manifest().values()
    assert sum((weights.FOLDER / entry["file"]).stat().st_size for entry in entries) < 44e6
    assert {path.name for path in weights.FOLDER.iterdir()} == {"manifest.json", *(entry["file"] for entry in entries)}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_matches_its_entry(name):
    """Its accuracy on the 500 test images of the mini set is within five standard errors of the published one."""
    entry = weights.entry(name)
    assert fmnist_zoo.ModelSpec.from_config(entry["spec"]) == fmnist_zoo.get_spec(name)
    recipe = fmnist_zoo.get_recipe(name)
    epochs = 8 if name == "conv_teacher" else recipe.epochs  # a first one, of a shorter training
    assert Recipe.from_config(entry["recipe"]) == dataclasses.replace(recipe, epochs=epochs)
    images, labels = data.load_data(("test",), data="mini")["test"]
    model = fmnist_zoo.load_model(name)
    logits = prediction.outputs_of(model, prediction.as_pixels(images))
    published = entry["scores"]["test_accuracy"]
    assert abs(metrics.accuracy(logits, labels) - published) < 5 * np.sqrt(published * (1 - published) / 500)


@pytest.mark.optional
@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_has_the_published_scores(name):
    """On all 10,000 images: exactly the manifest's accuracy, and within one image of the row, which is of float32."""
    entry = weights.entry(name)
    images, labels = data.load_data(("test",)).test
    logits = prediction.outputs_of(fmnist_zoo.load_model(name), prediction.as_pixels(images))
    assert metrics.accuracy(logits, labels) == entry["scores"]["test_accuracy"]
    assert metrics.mean_cross_entropy(logits, labels) == pytest.approx(entry["scores"]["test_nll"], abs=1e-5)
    for row in results.read():
        if (row["model"], row["seed"]) == (name, str(entry["seed"])):
            assert metrics.accuracy(logits, labels) == pytest.approx(row["test_accuracy"], abs=1.5e-4)
            assert metrics.mean_cross_entropy(logits, labels) == pytest.approx(row["test_nll"], abs=1e-4)
