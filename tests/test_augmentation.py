"""Augmentation: the images that the compiled step shows equal a NumPy reference of the same random words."""

import numpy as np
import pytest
import scipy.stats

import fmnist_zoo
from fmnist_zoo import metrics
from fmnist_zoo.backend import tf
from fmnist_zoo.data import Split
from fmnist_zoo.spec import Recipe
from tests.engines import tape
from trainers.engine import randomness
from trainers.engine.augmentation import apply
from trainers.engine.epoch import epoch_order, shares_of_mixup, words as words_of_epoch


@pytest.fixture(scope="module")
def split():
    whole = fmnist_zoo.load_data(("fit",), data="mini")["fit"]
    return Split(whole.images[:600], whole.labels[:600])


def scramble(word):
    """Wellons' lowbias32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ word >> shift) * factor & 0xFFFFFFFF
    return word ^ word >> 16


def words(count, *, seed, step, stream):
    """`randomness.words` in Python's own integers, for one row of places."""
    key = 0x9E3779B9
    for part in (seed, step & 0xFFFFFFFF, step >> 32, stream):
        key = scramble(key ^ part)
    return [scramble(scramble(place ^ key) ^ scramble(key + 0x85EBCA6B & 0xFFFFFFFF)) for place in range(count)]


def augmented(images, recipe, *, seed, step):
    """What the network sees of images (n, 784) in a step, written with loops and slices: (n, 784) uint8."""
    drawn = [words(len(images), seed=seed, step=step, stream=(1 << 16) + stream) for stream in range(5)]
    seen = []
    for image, down, right, flip, row, column in zip(images.reshape(-1, 28, 28), *drawn):
        if recipe.shift:
            size = recipe.shift
            padded = np.pad(image, size)
            top, left = down % (2 * size + 1), right % (2 * size + 1)
            image = padded[top:top + 28, left:left + 28]
        if recipe.flip and flip % 2:
            image = image[:, ::-1]
        if recipe.erase:
            top, left = row % 28 - recipe.erase // 2, column % 28 - recipe.erase // 2
            image = image.copy()
            image[max(top, 0):max(top + recipe.erase, 0), max(left, 0):max(left + recipe.erase, 0)] = 0
        seen.append(image.ravel())
    return np.stack(seen)


def shown(images, recipe, *, seed=0, step=0):
    return apply(tf.constant(images), shift=recipe.shift or None, erase=recipe.erase or None, flip=recipe.flip,
                 seed=tf.constant(seed, tf.uint32), step=tf.constant(step, tf.int64)).numpy()


def test_random_words_equal_their_definition():
    for seed, step, stream in ((0, 0, 0), (2**32 - 1, 2**40 + 5, 3), (7, 12, 1 << 16)):
        ours = randomness.words((5, 4), seed=seed, step=tf.constant(step, tf.int64), stream=stream).numpy()
        np.testing.assert_array_equal(ours.ravel(), words(20, seed=seed, step=step, stream=stream))
        once = words_of_epoch(20, seed=seed, epoch=step & 0xFFFFFFFF, stream=stream)
        np.testing.assert_array_equal(once, words(20, seed=seed, step=step & 0xFFFFFFFF, stream=stream))


def test_the_order_of_images_and_their_mixtures_never_change():
    assert epoch_order(8, seed=0, epoch=0).tolist() == [1, 5, 6, 2, 0, 7, 3, 4]
    shares = shares_of_mixup(0.2, 4, seed=0, epoch=0)
    np.testing.assert_allclose(shares, [0.9968993, 2.4141376e-05, 0.5637837, 0.007308019], rtol=1e-5)


@pytest.mark.parametrize("settings", [
    dict(shift=2), dict(shift=27), dict(flip=True), dict(erase=8), dict(erase=5), dict(erase=28),
    dict(shift=3, flip=True, erase=7)], ids=str)
@pytest.mark.parametrize("seed, step", [(0, 0), (5, 2**33 + 1)])
def test_images_equal_the_reference(split, settings, seed, step):
    recipe = Recipe(**settings)
    np.testing.assert_array_equal(shown(split.images, recipe, seed=seed, step=step),
                                  augmented(split.images, recipe, seed=seed, step=step))


def test_shares_of_mixup_are_beta_and_of_each_image_and_epoch():
    shares = shares_of_mixup(0.4, 20000, seed=3, epoch=2)
    assert shares.dtype == np.float32 and scipy.stats.kstest(shares, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 1e-4
    np.testing.assert_array_equal(shares, shares_of_mixup(0.4, 20000, seed=3, epoch=2))
    for seed, epoch in ((4, 2), (3, 3)):
        assert abs(np.corrcoef(shares, shares_of_mixup(0.4, 20000, seed=seed, epoch=epoch))[0, 1]) < 0.03
    assert shares_of_mixup(0.0, 100, seed=0, epoch=0) is None


EVERYTHING = dict(shift=2, flip=True, erase=6, mixup=0.4)


@pytest.mark.parametrize("xla", [pytest.param(True, marks=pytest.mark.long), False], ids=["xla", "kernels"])
def test_training_columns_are_of_the_images_as_they_were_shown(split, xla):
    """An epoch at a learning rate that changes nothing, against the reference: two batches, the second one smaller."""
    net, engine = tape(fmnist_zoo.get_spec("2L", hidden=(16,), l2=1e-3), split, batch=400, seed=9, xla=xla,
                       optimizer="sgd", learning_rate=1e-12, **EVERYTHING)
    recipe, order = Recipe(**EVERYTHING), epoch_order(600, seed=9, epoch=0)
    shares = shares_of_mixup(recipe.mixup, 800, seed=9, epoch=0)
    losses, hits = [], []
    for step, chosen in enumerate((order[:400], order[400:])):
        share = shares[400 * step:400 * step + len(chosen)]
        images = augmented(split.images[chosen], recipe, seed=9, step=step) / np.float32(255)
        images = share[:, None] * images + (1 - share[:, None]) * np.roll(images, -1, axis=0)
        labels, others = split.labels[chosen], np.roll(split.labels[chosen], -1)
        logits = net.forward(tf.constant(images, tf.float32)).numpy()
        losses += list(share * metrics.cross_entropy(logits, labels)
                       + (1 - share) * metrics.cross_entropy(logits, others))
        hits += list(logits.argmax(axis=1) == np.where(share >= 0.5, labels, others))
    means = engine.run_epoch(0)
    assert means.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert means.accuracy == pytest.approx(np.mean(hits), abs=1.5 / 600)
    assert means.objective == pytest.approx(np.mean(losses) + float(net.penalty(net.rates)), rel=1e-5)


def test_pictures_of_the_first_batch_are_what_the_network_sees(split):
    _, engine = tape(fmnist_zoo.get_spec("softmax"), split, seed=9, **EVERYTHING)
    chosen = epoch_order(600, seed=9, epoch=0)[:250]
    seen = augmented(split.images[chosen], Recipe(**EVERYTHING), seed=9, step=0).astype(np.float32)
    share = shares_of_mixup(EVERYTHING["mixup"], 750, seed=9, epoch=0)[:250, None]
    expected = share * seen + (1 - share) * np.roll(seen, -1, axis=0)
    np.testing.assert_allclose(engine.augmented(24), expected[:24], atol=0.51)
    assert tape(fmnist_zoo.get_spec("softmax"), split, schedule="cosine", ema=0.9)[1].augmented(24) is None
