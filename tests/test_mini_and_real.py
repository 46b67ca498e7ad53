"""The mini set as it ships, and the real set behind it (slow; skipped if it cannot be found or fetched)."""

import pytest

from fmnist_zoo import results, sources
from fmnist_zoo.data import DataError, load_data


def test_mini_is_small_and_brings_its_licence():
    files = [sources.MINI_FOLDER / f"{name}.gz" for name in sources.MINI]
    assert sum(path.stat().st_size for path in files) < 1.2e6
    licence = (sources.MINI_FOLDER / "LICENSE").read_text()
    assert "Zalando" in licence and "MIT" in licence


SHA256 = "d1fd84a877f3b78fa9a171b3de73f93e7b6f69ed94bada3feae9d96821401f5c"


def test_published_scores_are_of_the_real_set():
    assert {row["data_sha256"] for row in results.read()} == {SHA256}


@pytest.fixture(scope="module")
def real():
    """All splits of Fashion-MNIST, which the developer may have."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("XDG_CACHE_HOME")
            return load_data(("fit", "validation", "test"))
    except DataError as error:
        if "every source failed" not in str(error):
            raise
        pytest.skip(str(error))


def pairs(*splits):
    """The images as bytes, with their labels."""
    return {(image.tobytes(), int(label)) for split in splits for image, label in zip(*split)}


@pytest.mark.optional
@pytest.mark.slow
def test_the_real_set_and_its_split_never_change(real):
    assert real.name == "fashion_mnist"
    assert real.sha256 == SHA256
    assert real.split_sha256 == "591efed90083c7655c44a75fbabb6ecb39d0dd639b69725839a6872e9136b2a6"
    assert [split.images.shape for split in real.splits.values()] == [(54000, 784), (6000, 784), (10000, 784)]
    for split, each in zip(real.splits.values(), (5400, 600, 1000)):
        assert [int((split.labels == label).sum()) for label in range(10)] == [each] * 10


@pytest.mark.optional
@pytest.mark.slow
def test_mini_is_a_subset_of_the_real_set(real):
    mini = load_data(("fit", "validation", "test"), data="mini")
    drawn = pairs(mini["fit"], mini["validation"])
    assert len(drawn) == 2000 and drawn <= pairs(real["fit"])
    assert pairs(mini["test"]) <= pairs(real["test"])
