"""A keras.Model that is given to train: cloned, trained from its weights, resumed, and read by the commands."""

import json

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import custom, metrics, prediction, prototype, registry, weights
from fmnist_zoo.backend import keras
from fmnist_zoo.spec import SpecError
from tests import helpers
from trainers import evaluate, runs
from trainers.config import ConfigError
from trainers.running import compiled, trained
from trainers.train import main, resume, train

pytestmark = pytest.mark.usefixtures("without_xla")
layers, losses, optimizers = keras.layers, keras.losses, keras.optimizers
QUICK = dict(data="mini", epochs=3, batch_size=500, histogram_every=0)


def network(name="mine", **last):
    return keras.Sequential([keras.Input((28, 28)), layers.Flatten(name="flat"), layers.Dense(8, "relu", name="one"),
                             layers.Dropout(0.2, name="drop"), layers.Dense(10, name="two", **last)], name=name)


def images():
    found = fmnist_zoo.load_data(data="mini").validation
    return found.images.reshape(-1, 28, 28) / np.float32(255), found.labels


def test_a_clone_is_trained_from_the_models_own_weights(tmp_path):
    model = network()
    model.get_layer("one").kernel.assign(first := np.full((784, 8), 0.01, np.float32))
    before = model.get_weights()
    run = train(model, logdir=tmp_path, run_name="one", optimizer="sgd", learning_rate=1e-12, trainer="fit", **QUICK)
    for ours, own in zip(run.model.get_weights(), before, strict=True):
        np.testing.assert_allclose(ours, own, atol=1e-6)
    np.testing.assert_array_equal(model.get_layer("one").kernel, first)
    assert run.folder == tmp_path / "mine" / "one" and run.model is not model
    record = json.loads((run.folder / "config.json").read_text())["model"]
    assert record["json"]["class_name"] == "Sequential" and len(record["weights_sha256"]) == 64
    assert run.config.spec.parameters == model.count_params()


@pytest.mark.long
def test_what_happens_to_the_model_later_does_not_matter_and_a_run_resumes_to_the_same_bits(tmp_path, capsys):
    model = network()
    whole = train(model, logdir=tmp_path, **QUICK)
    half = train(model, logdir=tmp_path, on_epoch=lambda row: row["epoch"] == 1, **QUICK)
    model.set_weights([np.zeros_like(array) for array in model.get_weights()])
    assert "model=model" in half.summary()
    for flag in (str(half.folder), "latest"):
        assert main([f"--resume={flag}", f"--logdir={tmp_path}"]) == 2
        said = capsys.readouterr().err
        assert "model=model" in said and said.count("\n") == 1
    with pytest.raises(ConfigError, match="model=model"):
        resume(half.folder)
    with pytest.raises(SpecError, match="its layers, or their names, are not those"):
        resume(half.folder, model=network(name="another"))
    custom._BUILDERS.clear()  # as in a new process
    done = resume(half.folder, model=network())  # its input has another automatic name, and it has other weights
    assert done.result["weights_sha256"] == whole.result["weights_sha256"]


@pytest.mark.long
def test_without_a_checkpoint_the_first_weights_have_to_be_the_same(tmp_path):
    def killed(row):
        raise SystemExit

    model = network()
    with pytest.raises(SystemExit):
        train(model, logdir=tmp_path, run_name="one", on_epoch=killed, **QUICK)
    with pytest.raises(SpecError, match="its weights are not those"):
        resume(tmp_path / "mine" / "one", model=network())
    assert resume(tmp_path / "mine" / "one", model=model).result


def test_an_adapted_layer_stays_adapted(tmp_path):
    scaling = layers.Normalization(axis=None)
    scaling.adapt(np.linspace(3, 9, 784, dtype=np.float32).reshape(1, 784))
    model = keras.Sequential([keras.Input((784,)), scaling, layers.Dense(10)], name="adapted")
    pixels = np.random.default_rng(0).random((5, 784), np.float32)
    spec = registry.spec_of(model)
    record = spec.builder.record
    clone = fmnist_zoo.build_model(spec)
    np.testing.assert_array_equal(clone(pixels), model(pixels))
    weights.write(tmp_path / "some.safetensors", spec, clone)
    custom._BUILDERS.clear()
    prototype.restore(spec, record)
    np.testing.assert_array_equal(
        fmnist_zoo.build_model(spec, weights=tmp_path / "some.safetensors")(pixels), model(pixels))


@pytest.mark.long
def test_a_run_resumes_with_the_layer_that_it_began_with_adapted_or_not(tmp_path):
    def scaled():
        return keras.Sequential([keras.Input((784,)), layers.Normalization(axis=None, name="scaling"),
                                 layers.Dense(10, name="last")], name="scaled")

    adapted = scaled()
    adapted.layers[0].adapt(np.linspace(3, 9, 784, dtype=np.float32).reshape(1, 784))
    whole = train(adapted, logdir=tmp_path, run_name="whole", **QUICK)
    half = train(adapted, logdir=tmp_path, run_name="half", on_epoch=lambda row: row["epoch"] == 2, **QUICK)
    helpers.assert_equal_runs(whole.folder, resume(half.folder, model=scaled()).folder)


def test_a_variable_that_is_frozen_alone_is_refused():
    model = network("frozen")
    model.get_layer("one").kernel.trainable = False
    with pytest.raises(SpecError, match="one/kernel is not as trainable as its layer"):
        registry.spec_of(model)


@pytest.mark.long
def test_commands_read_the_run(tmp_path, capsys, monkeypatch):
    run = train(network(activation="softmax"), logdir=tmp_path, **QUICK, verbose=True)
    assert "its last softmax is dropped" in capsys.readouterr().out
    custom._BUILDERS.clear()
    found = trained.from_run(run.folder)
    np.testing.assert_array_equal(found.model(images()[0][:5]), run.model(images()[0][:5]))
    assert evaluate.main([f"--run={run.folder}"]) == 0
    assert runs.main([f"--logdir={tmp_path}"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main([f"--config={run.folder}"]) == 2
    assert "no file holds the weights that it began with" in capsys.readouterr().err


@pytest.mark.long
def test_loss_that_is_trained_is_the_one_of_keras(tmp_path):
    model = network()
    model.compile(optimizers.SGD(0.1, momentum=0.9), losses.SparseCategoricalCrossentropy(from_logits=True))
    run = train(model, logdir=tmp_path, **QUICK)
    recipe = run.config.recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("momentum", 0.1, 0.0)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    with pytest.raises(ConfigError, match="loss mean_squared_error, and cross entropy"):
        model.compile("adam", "mean_squared_error")
        train(model, logdir=tmp_path / "none", **QUICK)
    assert not (tmp_path / "none").exists()


def compiled_with(optimizer="adam", loss="sparse_categorical_crossentropy"):
    model = network()
    model.compile(optimizer, loss)
    return model


@pytest.mark.parametrize("model, given, taken", [
    (compiled_with(), {}, {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0, "clip_norm": 0.0}),
    (compiled_with(optimizers.AdamW(0.003, weight_decay=0.02, global_clipnorm=2.0)), {},
     {"optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.02, "clip_norm": 2.0}),
    (compiled_with(optimizers.SGD(0.3)), {"learning_rate": 0.2},
     {"optimizer": "sgd", "weight_decay": 0.0, "clip_norm": 0.0}),
    (compiled_with(optimizers.Adadelta()), {"optimizer": "lion"}, {}),
    (compiled_with(loss=losses.CategoricalCrossentropy(label_smoothing=0.1)), {"optimizer": "lion"},
     {"label_smoothing": 0.1}),
    (network(), {"epochs": 3}, {}),
])
def test_compile_is_taken_and_explicit_settings_win(model, given, taken):
    found, notes = compiled.settings(model, given)
    assert found == taken
    assert len(notes) == len(given.keys() - {"epochs"})
    assert all(f"{name}={given[name]} is given" in note for name, note in zip(given, notes))


@pytest.mark.parametrize("optimizer, text", [
    (optimizers.Adam(beta_1=0.8), "Adam\\(beta_1=0.8\\), which no recipe has"),
    (optimizers.Adadelta(), "Adadelta, which no recipe has; give optimizer='adam'"),
    (optimizers.SGD(momentum=0.9, nesterov=True), "SGD\\(nesterov=True\\)"),
    (optimizers.Adam(optimizers.schedules.CosineDecay(0.1, 10)), "learning rate CosineDecay; give schedule='cosine'"),
])
def test_an_optimizer_that_no_recipe_has_is_refused_by_name(optimizer, text):
    with pytest.raises(ConfigError, match=text):
        compiled.settings(compiled_with(optimizer), {})


class Weighted(keras.losses.SparseCategoricalCrossentropy):
    """Another loss."""


@pytest.mark.parametrize("loss, more, text", [
    (Weighted(from_logits=True), {}, "the loss Weighted"),
    (losses.SparseCategoricalCrossentropy(reduction="sum"), {}, "SparseCategoricalCrossentropy.reduction='sum'"),
    (losses.SparseCategoricalCrossentropy(ignore_class=3), {}, "ignore_class=3"),
    ("sparse_categorical_crossentropy", {"loss_weights": [3.0]}, "loss_weights"),
    (["mean_squared_error"], {}, "the loss mean_squared_error")])
def test_a_loss_that_is_not_trained_is_refused_by_name(loss, more, text):
    model = network()
    model.compile("adam", loss, **more)
    with pytest.raises(ConfigError, match=text):
        compiled.settings(model, {})
    model.compile("adam", ["sparse_categorical_crossentropy"])
    assert "label_smoothing" not in compiled.settings(model, {})[0]


def test_kernels_that_would_not_decay_are_refused_by_name():
    """In a run the kernels decay, and nothing else."""
    optimizer = optimizers.AdamW(weight_decay=0.02)
    model = compiled_with(optimizer)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert compiled.settings(model, {})[0]["weight_decay"] == 0.02
    optimizer.exclude_from_weight_decay(var_list=[model.layers[-1].kernel])
    with pytest.raises(ConfigError, match=f"exclude_from_weight_decay of {model.layers[-1].kernel.path},"):
        compiled.settings(model, {})
    assert compiled.settings(model, {"weight_decay": 0.1})[0]["optimizer"] == "adamw"


class Twice(keras.layers.Layer):
    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, units):
        return units * self.factor


class Subclassed(keras.Model):
    def __init__(self, units=8, **options):
        super().__init__(**options)
        self.first, self.last = layers.Dense(units, "relu"), layers.Dense(10)

    def call(self, pixels):
        return self.last(self.first(pixels))


def test_what_cannot_be_cloned_is_refused_in_one_line(tmp_path):
    class Local(keras.Model):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def call(self, pixels):
            return self.layer(pixels)

    model = Local(lambda pixels: pixels)
    with pytest.raises(SpecError, match="Keras cannot clone it .*give the function that builds it") as caught:
        train(model, logdir=tmp_path, **QUICK)
    assert "\n" not in str(caught.value)
    for name in ("sweeps", "a=b"):
        with pytest.raises(SpecError, match=f"'{name}' cannot name a model"):
            train(network(name=name), logdir=tmp_path, **QUICK)
    assert not list(tmp_path.iterdir())


def test_a_trained_model_of_the_zoo_is_trained_on_under_a_name_of_its_own(tmp_path):
    """Its first loss is that of the shipped weights, and the zoo's model of the name stays what it is."""
    model = fmnist_zoo.load_model("softmax")
    run = train(model, logdir=tmp_path, **{**QUICK, "epochs": 1}, learning_rate=1e-9)
    images, labels = fmnist_zoo.load_data(data="mini").validation
    logits = prediction.outputs_of(model, prediction.as_pixels(images))
    assert run.history[0]["val_loss"] == pytest.approx(metrics.mean_cross_entropy(logits, labels), abs=1e-4)
    assert run.folder.parent == tmp_path / "softmax_clone" and registry.get_spec("softmax").build == ""


@pytest.mark.long
@pytest.mark.parametrize("make", [
    Subclassed, lambda: keras.Sequential([layers.Flatten(), Twice(2.0), layers.Dense(10)]),
    lambda: keras.Sequential([keras.Input((784,)), Twice(2.0), layers.Lambda(lambda x: x / 2), layers.Dense(10)])],
    ids=["subclass", "unbuilt", "layers"])
def test_models_of_other_kinds_are_trained(make, tmp_path):
    model = make()
    if isinstance(model, Subclassed):
        model(np.zeros((1, 784), np.float32))
    run = train(model, logdir=tmp_path, **QUICK)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert resume(run.folder, model=model, epochs=4).result["epochs"] == 4
