"""Trained models that a recipe names: first weights (also those of convolutions, as dense layers) and teachers."""

import json
import shutil

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo import metrics, registry, unrolling
from fmnist_zoo.backend import keras
from fmnist_zoo.data import load_data
from fmnist_zoo.errors import SpecError
from tests import helpers, idx_files
from tests.test_resume import stopped_run
from trainers import sweep
from trainers.config import ConfigError, read_record, resolve
from trainers.running import batch, dependencies
from trainers.running.progress import Reporter
from trainers.running.trained import from_run
from trainers.train import main, train

pytestmark = pytest.mark.usefixtures("without_xla")

layers = keras.layers
DENSE = dict(hidden=(75, 16), activation="gelu", dropout=0, data="mini", histogram_every=0)
QUICK = ["--data=mini", "--epochs=1", "--histogram_every=0"]


def tiny_conv():
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(3, 5, 6, padding="same", use_bias=False), layers.BatchNormalization(),
        layers.Activation("gelu"), layers.Conv2D(4, 3, 2, padding="valid", activation="gelu"), layers.Flatten(),
        layers.Dropout(0.5), layers.Dense(10)])


@pytest.fixture
def logdir(tmp_path):
    return tmp_path / "logs"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """The folder of a finished run; its name has a comma."""
    return train("2L", hidden=(8,), data="mini", epochs=2, logdir=tmp_path_factory.mktemp("teachers"),
                 run_name="one").folder


def pixels(count=40):
    return fmnist_zoo.load_data(("fit",), data="mini")["fit"].images[:count] / np.float32(255)


@pytest.mark.parametrize("inner, shapes", [
    ([layers.Conv2D(4, 3, 2, padding="valid", activation="gelu"), layers.Flatten()], [(75, 16), (16,)]),
    ([layers.Conv2D(4, 3, padding="same", activation="gelu"), layers.AveragePooling2D(2), layers.Flatten(),
      layers.Dropout(0.5)], [(75, 100), (100,)]),
])
def test_dense_layers_compute_what_a_sequence_of_affine_layers_and_activations_does(inner, shapes):
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Conv2D(3, 5, 6, padding="same", use_bias=False),
                              layers.BatchNormalization(), layers.Activation("gelu"), *inner, layers.Dense(10)])
    model.layers[1].set_weights([np.array([1.5, 0.5, 1]), np.array([0, 1, -1]), np.array([0.1, 0.2, 0.3]),
                                 np.array([0.5, 1, 2])])  # scale, offset, moving mean and variance
    arrays = unrolling.dense_arrays(model)
    assert [array.shape for array in arrays[2:4]] == shapes
    flow = pixels()
    for kernel, bias in zip(arrays[:-2:2], arrays[1:-2:2]):
        flow = keras.ops.convert_to_numpy(keras.activations.gelu(flow @ kernel + bias))
    expected = keras.ops.convert_to_numpy(model(pixels().reshape(-1, 28, 28, 1), training=False))
    assert np.allclose(flow @ arrays[-2] + arrays[-1], expected, atol=1e-4)
    assert inner[0].activation is keras.activations.gelu  # it was linear meanwhile


@pytest.mark.parametrize("inner, text", [
    ([layers.MaxPooling2D(7)], "max_pooling2d.*: not affine, and so no dense layer; take strides"),
    ([layers.Activation("relu"), layers.Activation("gelu")], "two activations follow each other"),
])
def test_layers_that_are_no_dense_layer_are_refused(inner, text):
    model = keras.Sequential([keras.Input((28, 28, 1)), *inner, layers.Flatten(), layers.Dense(10)])
    with pytest.raises(SpecError, match=text):
        unrolling.dense_arrays(model)


def test_network_that_is_no_sequence_is_refused():
    images = keras.Input((784,))
    flow = layers.Dense(784, activation="relu")(images)
    with pytest.raises(SpecError, match="are no sequence: add.* takes more, or something else"):
        unrolling.dense_arrays(keras.Model(images, layers.Dense(10)(layers.Add()([images, flow]))))


def test_5l_unrolled_begins_as_the_shipped_conv_strided():
    unrolled = fmnist_zoo.get_spec("5L_unrolled")
    shapes = [array.shape for array in unrolling.dense_arrays(fmnist_zoo.load_model("conv_strided"))]
    assert shapes[::2] == [(784, 2352), (2352, 1176), (1176, 768), (768, 768), (768, 10)]
    for name in ("5L_unrolled", "5L_distilled"):
        assert fmnist_zoo.get_recipe(name).initial_weights == "conv_strided"
        assert fmnist_zoo.get_spec(name).architecture == unrolled.architecture


@pytest.mark.long
def test_run_starts_from_a_convolutional_run_and_resumes_to_the_same_bits(logdir, monkeypatch, capsys):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    source = train(tiny_conv, epochs=1, data="mini", logdir=logdir, run_name="source", histogram_every=0).folder
    still = train("4L", epochs=1, learning_rate=1e-9, initial_weights=str(source), logdir=logdir, **DENSE)
    theirs = keras.ops.convert_to_numpy(from_run(source).model(pixels().reshape(-1, 28, 28, 1), training=False))
    assert np.allclose(keras.ops.convert_to_numpy(still.model(pixels())), theirs, atol=1e-3)
    settings = dict(hidden=(75, 16), activation="gelu", dropout=0.1, epochs=3, initial_weights=str(source))
    whole = train("4L", data="mini", logdir=logdir, run_name="whole", **settings)
    folder = stopped_run(logdir, 1, model="4L", **settings)
    for changed, text in ((dict(activation="relu"), "it computes other logits .* apart.; its activations must be"),
                          (dict(hidden=(75, 17)), r"that has arrays of shapes \[\(784, 75\), \(75,\), \(75, 16\)"),
                          (dict(normalization="batch"), "that has arrays of shapes")):
        with pytest.raises(ConfigError, match=text):
            train("3L", epochs=1, logdir=logdir, initial_weights=str(source), **{**DENSE, **changed})
    assert not list(logdir.glob("3L*"))
    shutil.rmtree(source)  # the checkpoint has all weights
    assert main([f"--resume={folder}"]) == 0
    helpers.assert_equal_runs(folder, whole.folder)
    assert read_record(folder)["initial_weights"] == read_record(whole.folder)["initial_weights"]


@pytest.mark.parametrize("flag, text", [
    ("--initial_weights=tests.own_zoo:no_model", "--initial_weights: no model is named 'tests.own_zoo:no_model'"),
    ("--initial_weights=4L,5L", "--initial_weights names one trained model; received 2: 4L, 5L"),
    ("--initial_weights=network_A", "=network_A has hidden layers of 300 units, and 4L of 600, 400, 200; name a"),
    ("--initial_weights=softmax", "=softmax has hidden layers of no units, and 4L of 600"),
    ("--initial_weights=4L,l2=0.1", "no trained weights come with '4L,l2=0.1'; "),
    ("--teacher=no/run", "no/run: no such folder"), ("--teacher=4LL", "no model is named '4LL'; did you mean 4L"),
    ("--teacher=here", "no model is named 'here'"), ("--teacher=here", "; the folder of that name is ./here"),
    ("--teacher=./here", "here: no run in this folder"),
])
def test_name_that_is_no_trained_model_is_refused_in_a_line(flag, text, logdir, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for dry in (["--dry_run"], []):
        said = helpers.refused(capsys, main, "--model=4L", "--data=mini", f"--logdir={logdir}", flag, *dry)
        assert text in said and not logdir.exists()
    name, _, value = flag[2:].partition("=")
    with pytest.raises(ValueError, match=name):
        sweep.sweep("4L", {"l2": [0, 1]}, tuner="grid", data="mini", logdir=logdir, **{name: value})
    assert not logdir.exists()


def test_hidden_layers_that_do_not_fit_the_convolutions_of_a_recipe_are_refused_at_once(logdir, capsys):
    for dry in (["--dry_run"], []):
        said = helpers.refused(capsys, main, "--model=5L_unrolled", "--hidden=8", "--data=mini", f"--logdir={logdir}",
                               *dry)
        assert "=conv_strided has hidden layers of 2352, 1176, 768, 768 units, and 5L_unrolled,hidden=8" in said
    with pytest.raises(ValueError, match="initial_weights=conv_strided has hidden layers"):
        sweep.sweep("5L_unrolled", {"hidden": [8, 16]}, tuner="grid", data="mini", logdir=logdir)
    assert main(["--model=5L_unrolled", "--hidden=8", "--data=mini", "--initial_weights=", "--dry_run"]) == 0


def test_folder_named_like_a_model_does_not_hide_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "4D_drop03").mkdir()
    assert main(["--model=2L", "--data=mini", "--teacher=4D_drop03", "--dry_run"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["teacher"] == "4D_drop03"


@pytest.mark.long
def test_student_learns_from_its_teachers_and_records_them(trained_run, logdir):
    images, apart = pixels(None), []
    taught = metrics.softmax(from_run(trained_run).model(images).numpy())
    for weight in (0.0, 1.0):
        student = train("2L", hidden=(8,), data="mini", epochs=3, seed=5, learning_rate=0.01, logdir=logdir,
                        teacher=f"{trained_run},conv_strided" if weight == 0 else trained_run, teacher_weight=weight)
        apart.append(np.abs(metrics.softmax(student.model(images).numpy()) - taught).mean())
        if weight == 0:
            record = read_record(student.folder)["teachers"]
    assert apart[1] < 0.7 * apart[0]
    assert [one["title"] for one in record] == [str(trained_run), "conv_strided"]
    assert record[0]["weights_sha256"] == from_run(trained_run).weights_sha256
    assert record[0]["data"]["sha256"] == read_record(trained_run)["data"]["sha256"]


@pytest.mark.long
def test_model_that_was_trained_on_other_data_or_another_split_is_noted(trained_run, logdir, tmp_path, capsys,
                                                                        pretending_pool):
    other = ["--allow_other_data", f"--data_dir={idx_files.write_set(tmp_path / 'other')}", *QUICK[1:]]
    for flags, noted in ((QUICK, ""), (["--validation_size=0.2", *QUICK], "trained with other images held out"),
                         (["--validation_size=0", *QUICK], ""), (other, "trained on other data (sha256 ")):
        for named in (f"--teacher={trained_run}", f"--initial_weights={trained_run}"):
            assert main(["--model=2L", "--hidden=8", f"--logdir={logdir}", named, *flags]) == 0
            said = capsys.readouterr().out
            assert said.count(f"{trained_run}: trained") == bool(noted) and noted in said
    settings = dict(tuner="grid", data="mini", logdir=logdir, verbose=True)
    sweep.sweep("2L", "l2=0", teacher=f"{trained_run},4L", **settings)
    said = capsys.readouterr().out
    assert "teacher 4L: trained on other data" in said and f"{trained_run}: trained" not in said


@pytest.mark.parametrize("setting", ["teacher", "initial_weights"])
def test_model_that_is_gone_when_a_run_is_resumed_is_named_by_its_setting(setting, tmp_path):
    recipe = resolve("2L", data="mini", **{setting: f"{tmp_path}/gone"}).recipe
    with pytest.raises(ConfigError, match=f"--{setting}: {tmp_path}/gone: no such folder"):
        dependencies.load_named(recipe, load_data(data="mini"), Reporter(), {}, resumed=True, begun=False)


@pytest.mark.long
def test_model_that_changed_is_refused_on_resume_and_noted_by_a_replay(logdir, capsys):
    source = train("2L", hidden=(8,), data="mini", epochs=1, logdir=logdir, run_name="source").folder
    settings = dict(model="2L", hidden=(8,), epochs=3, teacher=str(source), initial_weights=str(source))
    folder = stopped_run(logdir, 1, **settings)
    assert main([f"--resume={source}", "--epochs=2"]) == 0
    capsys.readouterr()
    said = helpers.refused(capsys, main, f"--resume={folder}")
    assert "teachers: weights_sha256 " in said and "put back what was there" in said
    assert main([f"--config={folder}", "--seed=1", f"--logdir={logdir}", "--run_name=again"]) == 0
    said = capsys.readouterr().out
    assert "teachers: weights_sha256 " in said and "initial_weights: weights_sha256 " in said
    assert "--teacher=4L disagrees with the run" in helpers.refused(capsys, main, f"--resume={folder}", "--teacher=4L")


def test_run_whose_teacher_was_trained_anew_is_not_the_run_that_the_log_folder_holds(trained_run, logdir):
    teacher = shutil.copytree(trained_run, logdir / "teachers" / "one")
    student = train("softmax", data="mini", epochs=1, teacher=f"4L,{teacher}", histogram_every=0, logdir=logdir,
                    run_name="taught")
    assert batch.existing_run(str(logdir), student.config)[0].path == student.folder
    assert main([f"--resume={teacher}", "--epochs=3"]) == 0
    assert batch.existing_run(str(logdir), student.config)[0] is None
    with pytest.raises(ConfigError, match="taught: is a run with other weights of teacher=4L,.* choose another"):
        batch.existing_run(str(logdir), student.config, "taught")


def test_run_on_other_data_is_not_the_run_that_the_log_folder_holds(logdir, tmp_path):
    """Also where only the content of the same folder differs."""
    folder, another = (idx_files.write_set(tmp_path / str(count), train=count) for count in (40, 50))
    config = resolve("softmax", epochs=1, data_dir=str(folder), allow_other_data=True, histogram_every=0)
    (first,) = batch.finish([config], str(logdir), lambda: False)
    assert batch.existing_run(str(logdir), config)[0].path == first.path
    elsewhere = resolve("softmax", epochs=1, data_dir=str(another), allow_other_data=True, histogram_every=0)
    assert batch.existing_run(str(logdir), elsewhere)[0] is None
    shutil.rmtree(folder)
    shutil.copytree(another, folder)
    assert batch.existing_run(str(logdir), config)[0] is None
