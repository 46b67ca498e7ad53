"""Keras' callbacks in a run, under all three trainers; and the model of a run, which is compiled."""

import csv
import json

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo.backend import keras
from tests import custom_zoo, helpers
from trainers.config import ConfigError
from trainers.running.trained import from_run
from trainers.train import main, resume, train

pytestmark = pytest.mark.usefixtures("without_xla")
kinds = keras.callbacks
NETWORK = dict(data="mini", epochs=4, hidden=(8,), histogram_every=0)
TRAINERS = pytest.mark.parametrize("model, trainer", [
    ("4L", "tape"),
    *(pytest.param(*case, marks=pytest.mark.long) for case in (("4L", "fit"), ("network_A", "scratch")))])


def trained(model, trainer, logdir, **settings):
    return train(model, trainer=trainer, logdir=logdir, **{**NETWORK, **settings})


def rates(run):
    return [row["learning_rate"] for row in run.history]


@TRAINERS
def test_callbacks_of_keras_work(model, trainer, tmp_path):
    seen, weights = [], []
    watching = kinds.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(epoch), on_epoch_end=lambda epoch, logs: seen.append(logs),
        on_train_end=lambda logs: seen.append("end"))
    keeping = kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(keeping.model.get_weights()))
    run = trained(model, trainer, tmp_path, learning_rate=0.02, callbacks=[
        watching, keeping, kinds.CSVLogger(tmp_path / "log.csv"), kinds.TensorBoard(tmp_path / "board"),
        kinds.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True), kinds.TerminateOnNaN(),
        kinds.ModelCheckpoint(tmp_path / "accurate.weights.h5", "val_accuracy", save_best_only=True,
                              save_weights_only=True),
        kinds.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, min_delta=10.0),
        kinds.EarlyStopping(monitor="val_objective", mode="min", patience=2, min_delta=10.0)])
    assert run.result["stopped_early"] and run.result["epochs"] == 3
    assert seen[0::2] == [0, 1, 2, "end"]
    for row, logs in zip(run.history, seen[1::2]):
        assert logs == {name: row[name] for name in row if name != "epoch" and row[name] is not None} | {
            "learning_rate": logs["learning_rate"]}
        assert logs["val_objective"] == logs["val_loss"] + logs["val_penalty"]
    with open(tmp_path / "log.csv", encoding="utf-8") as file:
        assert [float(row["val_loss"]) for row in csv.DictReader(file)] == [row["val_loss"] for row in run.history]
    assert rates(run) == [0.02, 0.02, pytest.approx(0.01)] and list(tmp_path.glob("board/validation/events*"))
    assert (tmp_path / "accurate.weights.h5").exists()
    images, labels = fmnist_zoo.load_data(data="mini").validation
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert best.evaluate(images / 255, labels, verbose=0)[0] == pytest.approx(
        min(row["val_objective"] for row in run.history), rel=1e-5)
    for ours, theirs in zip(run.model.get_weights(), weights[run.result["final"]["epoch"] - 1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert json.loads((run.folder / "config.json").read_text())["callbacks"][-1] == "EarlyStopping"


def halving():
    return kinds.LearningRateScheduler(lambda epoch, rate: rate / 2)


@TRAINERS
def test_a_resumed_run_has_the_learning_rates_and_the_bits_of_an_uninterrupted_one(model, trainer, tmp_path):
    whole = trained(model, trainer, tmp_path, callbacks=[halving()])
    half = trained(model, trainer, tmp_path, callbacks=[halving()], on_epoch=lambda row: row["epoch"] == 2)
    with pytest.raises(ConfigError, match=r"resume\(.*, callbacks=\[...\]\)"):
        resume(half.folder)
    with pytest.raises(ConfigError, match=r"callbacks=\[EarlyStopping\] disagree .* \[LearningRateScheduler\]"):
        resume(half.folder, callbacks=[kinds.EarlyStopping()])
    done = resume(half.folder, callbacks=[halving()])
    assert rates(done) == rates(whole) and rates(whole)[-1] == pytest.approx(rates(whole)[0] / 8)
    assert done.result["weights_sha256"] == whole.result["weights_sha256"]
    assert helpers.rows_without_times(done.folder) == helpers.rows_without_times(whole.folder)


@TRAINERS
def test_weights_that_a_callback_sets_are_trained_further(model, trainer, tmp_path):
    setting = kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: setting.model.set_weights(
        [np.zeros_like(array) for array in setting.model.get_weights()]))
    run = trained(model, trainer, tmp_path, epochs=2, optimizer="sgd", callbacks=[setting])
    assert run.history[1]["loss"] == pytest.approx(np.log(10), rel=2e-3)


@TRAINERS
def test_what_a_callback_does_before_the_first_epoch_is_the_runs(model, trainer, tmp_path):
    def begin(logs):
        setting.model.set_weights([np.zeros_like(array) for array in setting.model.get_weights()])
        setting.model.optimizer.learning_rate = 0.0625
        setting.model.history.history  # as in `fit`

    setting = kinds.LambdaCallback(
        on_train_begin=begin,
        on_epoch_begin=lambda epoch, logs: setattr(setting.model, "stop_training", epoch == 1))
    run = trained(model, trainer, tmp_path, optimizer="sgd", callbacks=setting)
    assert run.history[0]["loss"] == pytest.approx(np.log(10), rel=5e-3)
    assert rates(run) == [0.0625] * 2 and run.result["stopped_early"]


def test_the_selected_weights_are_there_at_the_end_and_an_error_there_takes_no_result_away(tmp_path):
    seen = []

    def end(logs):
        seen.extend(last.model.get_weights())
        raise RuntimeError("my own")

    last = kinds.LambdaCallback(on_train_end=end, on_epoch_end=lambda epoch, logs: epoch == 2 and (
        last.model.set_weights([np.zeros_like(array) for array in last.model.get_weights()])))
    with pytest.raises(RuntimeError, match="my own"):
        trained("4L", "tape", tmp_path, run_name="one", callbacks=[last])
    (folder,) = tmp_path.glob("*/one")
    kept = from_run(folder)
    assert kept.epoch == 3
    for ours, theirs in zip(seen, kept.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
def test_weights_that_early_stopping_restores_do_not_count_in_silence(tmp_path, capsys):
    run = trained(custom_zoo.cnn, "tape", tmp_path, hidden=None, verbose=True, callbacks=[kinds.EarlyStopping(
        monitor="val_accuracy", mode="min", patience=2, restore_best_weights=True)])
    assert "a callback has set weights at the end" in capsys.readouterr().out
    images, labels = fmnist_zoo.load_data(data="mini").validation
    assert run.model.evaluate(images.reshape(-1, 28, 28, 1) / 255, labels, verbose=0)[0] == pytest.approx(
        run.history[run.result["final"]["epoch"] - 1]["val_objective"], rel=1e-5)


class Batches(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        """Sets weights."""


class Validations(keras.callbacks.Callback):
    def on_test_end(self, logs=None):
        """A run has no such moment."""


@pytest.mark.parametrize("callback, settings, text", [
    (Batches(), {}, "Batches: on_train_batch_end works within an epoch"),
    (Validations(), {}, "Validations: on_test_end works within an epoch"),
    (kinds.LambdaCallback(on_train_batch_begin=print), {}, "LambdaCallback: on_train_batch_begin works within"),
    (kinds.ModelCheckpoint("x.keras", save_freq=10), {}, "ModelCheckpoint: save_freq=10"),
    (kinds.TensorBoard("x", update_freq="batch"), {}, "TensorBoard: update_freq=1"),
    (kinds.BackupAndRestore("x"), {}, "BackupAndRestore: a run has checkpoints of its own"),
    (kinds.SwapEMAWeights(), {}, "SwapEMAWeights: give ema=0.999"),
    (kinds.ReduceLROnPlateau(), {"schedule": "cosine"}, "ReduceLROnPlateau: .*schedule='constant'.*received 'cosine'"),
])
def test_what_a_compiled_epoch_cannot_call_is_refused_by_name(callback, settings, text, tmp_path):
    with pytest.raises(ConfigError, match=text):
        trained("4L", "tape", tmp_path / "logs", callbacks=[callback], **settings)
    assert not (tmp_path / "logs").exists()


def test_a_learning_rate_against_a_schedule_is_refused_when_it_is_set(tmp_path):
    setting = kinds.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(setting.model.optimizer, "learning_rate", 1))
    with pytest.raises(ConfigError, match="a callback has set the learning rate to 1, .*schedule='constant'"):
        trained("4L", "tape", tmp_path, schedule="cosine", callbacks=[setting])


@pytest.mark.parametrize("change", [
    lambda model: model.compile("sgd"), lambda model: setattr(model.layers[1], "trainable", False),
    lambda model: setattr(model.optimizer, "learning_rate", keras.optimizers.schedules.CosineDecay(0.1, 10))],
    ids=["compile", "freeze", "schedule"])
def test_what_a_compiled_program_does_not_take_over_is_refused_when_it_is_changed(change, tmp_path):
    changing = kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: change(changing.model))
    with pytest.raises(ConfigError, match="a callback has compiled the model again, given it a schedule, or changed"):
        trained("4L", "tape", tmp_path, callbacks=[changing])


def test_what_is_no_callback_is_named(tmp_path):
    with pytest.raises(TypeError, match="keras.callbacks.Callback; received <class"):
        trained("4L", "tape", tmp_path / "logs", callbacks=[kinds.EarlyStopping])


def test_an_error_of_a_callback_is_raised_after_the_checkpoint(tmp_path):
    def fail(epoch, logs):
        if epoch == 1:
            raise OSError("my own")

    with pytest.raises(OSError, match="my own"):
        trained("4L", "tape", tmp_path, run_name="one", callbacks=[kinds.LambdaCallback(on_epoch_end=fail)])
    (folder,) = tmp_path.glob("*/one")
    done = resume(folder, callbacks=[kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: None)])
    assert len(done.history) == 4 and done.record["starts"][1]["epoch"] == 2


def test_commands_say_that_callbacks_are_in_python(tmp_path, capsys):
    half = trained("4L", "tape", tmp_path, callbacks=halving(), on_epoch=lambda row: True)
    assert "callbacks=[...]" in half.summary() and "--resume" not in half.summary()
    for flag in (str(half.folder), "latest"):
        assert main([f"--resume={flag}", f"--logdir={tmp_path}"]) == 2
        said = capsys.readouterr().err
        assert "callbacks=[...]" in said and said.count("\n") == 1
    assert main([f"--config={half.folder}", f"--logdir={tmp_path}", "--epochs=1"]) == 0
    assert "had callbacks (LearningRateScheduler)" in capsys.readouterr().err


# The model of a run.

@pytest.mark.parametrize("model, settings", [
    ("4L", {"l2": 1e-3, "dropout": 0.2, "label_smoothing": 0.1}),
    pytest.param("4L", {"trainer": "fit", "l1": 1e-4}, marks=pytest.mark.long),
    pytest.param("network_A_l1", {"trainer": "scratch"}, marks=pytest.mark.long),
    pytest.param("4L", {"ema": 0.9, "l2": 1e-3}, marks=pytest.mark.long)], ids=str)
def test_the_model_of_a_run_evaluates_to_its_numbers_and_trains_on(model, settings, tmp_path):
    run = train(model, logdir=tmp_path, **{**NETWORK, "epochs": 2, **settings})
    chosen = run.history[run.result["final"]["epoch"] - 1]
    images, labels = fmnist_zoo.load_data(data="mini").validation
    loss, accuracy = run.model.evaluate(images / 255, labels, verbose=0)
    assert loss == pytest.approx(chosen["val_loss"] + chosen["val_penalty"], rel=1e-5)
    assert accuracy == pytest.approx(chosen["val_accuracy"])
    history = run.model.fit(images / 255, labels, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert run.model.optimizer.learning_rate.numpy() == np.float32(run.config.recipe.learning_rate)


class Adding(keras.layers.Layer):
    def call(self, units):
        self.add_loss(keras.ops.sum(units) * 1e-4)
        return units


def with_losses_of_its_layers():
    return keras.Sequential([keras.Input((784,)), Adding(), keras.layers.Dense(
        16, "relu", activity_regularizer=keras.regularizers.L2(0.01), kernel_regularizer="l2"), keras.layers.Dense(10)])


@pytest.mark.long
@pytest.mark.parametrize("trainer", ["tape", "fit"])
def test_losses_that_layers_add_in_a_call_are_part_of_the_penalty(trainer, tmp_path):
    run = train(with_losses_of_its_layers, data="mini", epochs=1, trainer=trainer, histogram_every=1, logdir=tmp_path)
    images, labels = fmnist_zoo.load_data(data="mini").validation
    loss = run.model.evaluate(images / 255, labels, verbose=0)[0]
    assert loss == pytest.approx(run.history[0]["val_loss"] + run.history[0]["val_penalty"], rel=1e-5)
    assert loss == pytest.approx(run.history[0]["val_objective"], rel=1e-5)
    assert run.history[0]["val_penalty"] > 0.1
