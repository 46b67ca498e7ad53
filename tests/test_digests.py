"""Trained weights are the recorded ones, to the bit, on processors for which `digests.json` has them."""

import pytest

from tests import digests


@pytest.mark.long
@pytest.mark.parametrize("name", digests.RUNS)
def test_trained_weights_never_change(name, tmp_path):
    if not digests.known():
        pytest.skip(f"no digests for {digests.here()}: python -m tests.digests writes them")
    assert digests.digest(name, tmp_path) == digests.known()[name]
