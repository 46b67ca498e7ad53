"""The page `train_step` trains to the numbers of our loop."""

import re

import numpy as np
import pytest

import fmnist_zoo
from fmnist_zoo.spec import Recipe
from tests import engines
from tests.conftest import ROOT
from trainers.engine import train_step


@pytest.mark.long
def test_it_trains_to_the_numbers_of_the_loop():
    split, spec = fmnist_zoo.load_data(data="mini").fit, fmnist_zoo.get_spec("4L", hidden=(32, 16), l2=1e-3)
    model, rows = train_step.train(spec, Recipe(epochs=3, batch_size=engines.BATCH), split, seed=0)
    net, engine = engines.tape(spec, split)
    for epoch, row in enumerate(rows):
        means = engine.run_epoch(epoch)
        assert (row["loss"], row["accuracy"]) == pytest.approx((means.loss, means.accuracy), abs=1e-5)
    for ours, theirs in zip(model.get_weights(), net.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_page_shows_lines_of_the_code():
    page = (ROOT / "docs" / "how-to" / "train_step.md").read_text(encoding="utf-8")
    code = "".join((ROOT / "trainers" / "engine" / name).read_text(encoding="utf-8")
                   for name in ("train_step.py", "loop.py"))
    shown = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2 and all(block in code for block in shown)
