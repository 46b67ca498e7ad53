"""What the assignment report got wrong, with evidence for each point: a table of the page.

Evidence that depends on no run is text: a small experiment with the report's own functions. Other evidence is computed
from the runs.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Sequence

import numpy as np

from trainers.reproduction.experiments import Runs


def _mean(runs: Runs, model: str, column: str) -> float:
    """A column of the last epoch, averaged over seeds."""
    return float(np.mean([history[-1][column] for history in runs[model]]))


def _best_epoch_on_scoring_images(runs: Runs) -> str:
    scores = [row["val_accuracy"] for row in runs["4L"][0]]
    return (f"4L: the best of {len(scores)} epochs on the images that score it shows {max(scores):.4f}, the mean of "
            f"the last five {np.mean(scores[-5:]):.4f}")


def _objectives(runs: Runs) -> str:
    rows = {model: runs[model][0][-1] for model in ("network_A_l1", "network_A_l2")}
    return "; ".join(f"{model}: objective {row['val_loss'] + row['val_penalty']:.3f} = loss "
                     f"{row['val_loss']:.3f} + penalty {row['val_penalty']:.3f}"
                     for model, row in rows.items())


def _dropout_on_and_off(runs: Runs) -> str:
    row = runs["4D_drop03"][0][-1]
    return (f"4D_drop03, last epoch: train loss {row['loss']:.3f} with dropout on, {row['train_loss']:.3f} "
            f"with it off, validation loss {row['val_loss']:.3f}")


def _dropout_in_loss_and_accuracy(runs: Runs) -> str:
    return "; ".join(f"{model} {_mean(runs, model, 'val_loss'):.3f} / "
                     f"{_mean(runs, model, 'val_accuracy'):.4f}"
                     for model in ("4L", "4D_drop02", "4D_drop03", "4D_drop03_02_01"))


def _overconfidence(runs: Runs) -> str:
    history = runs["4L"][0]
    best, last = min(history, key=lambda row: row["val_loss"]), history[-1]
    return (f"4L from epoch {best['epoch']} to {last['epoch']}: validation loss {best['val_loss']:.3f} to "
            f"{last['val_loss']:.3f}, accuracy {best['val_accuracy']:.4f} to "
            f"{last['val_accuracy']:.4f}: more confident, not more often wrong")


def _depth(runs: Runs) -> str:
    return "validation loss, last epoch: " + ", ".join(
        f"{model} {_mean(runs, model, 'val_loss'):.3f}" for model in ("2L", "3L", "4L", "5L"))


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A mistake of the report."""

    text: str  # what the report does or says
    remedy: str  # what this project does instead
    evidence: str | Callable[[Runs], str] = ""  # text, or a function that computes it from the runs of `models`
    models: Sequence[str] = ()

    def shown(self, runs: Runs) -> str:
        """The evidence as text; if runs are missing, the models that were not run."""
        if isinstance(self.evidence, str):
            return self.evidence
        missing = [model for model in self.models if model not in runs]
        return f"(not run: {', '.join(missing)})" if missing else self.evidence(runs)


MISTAKES = (
    Mistake("softmax does not subtract the maximum", "the loss is computed from logits, by log-softmax",
            "logits (89, 0, ..., 0): the largest probability is nan as written, 1.0000 with the maximum subtracted"),
    Mistake("the clipped prediction is computed, but the unclipped one is used", "the loss is computed from logits",
            "one class underflows: loss nan as written, 2.1972 from logits"),
    Mistake("the clip itself", "the loss is computed from logits",
            "a confident miss: clipped loss 23.03 with largest gradient 0, from logits 60.00 with 1"),
    Mistake("all layers share one scalar bias", "each layer has a bias vector",
            "softmax layer, bias 0 or 3: the probabilities differ only by rounding, less than 1e-06"),
    Mistake("data are (784, m) in one place and transposed in another", "one layout, (batch, 784); shapes are checked",
            "softmax over axis 0 of a (100, 10) batch raises no error; an example's 'probabilities' then sum to 0.04 "
            "to 0.23"),
    Mistake("a full-batch update is called an epoch", "every log counts updates as well as epochs",
            "500 full-batch epochs are 500 updates; 30 epochs at batch 256 are 6330"),
    Mistake("no seed, one run", "several seeds: mean, standard deviation, paired tests",
            "5L minus 4L is 0.9071 - 0.9049 = +0.0022; on 10,000 images a single accuracy has a standard error of "
            "0.0029"),
    Mistake("choices are made on the test set",
            "choices are made on a split of the training images; the test images stay closed",
            _best_epoch_on_scoring_images, ["4L"]),
    Mistake("the L1 and L2 equations have the mean squared error, and L1 lacks the absolute value",
            "cross entropy + rate * sum |w|, or + rate * sum w^2",
            "network A at the start: sum w = 2, sum |w| = 9518: without the absolute value the signs cancel, and the "
            "penalty has no lower bound"),
    Mistake('"L1 starts at 12, L2 at 3, because L2 is more aggressive"',
            "loss, penalty and objective are logged separately",
            "network A at the start, rate 0.001: L1 penalty 9.52, L2 penalty 0.60: L1's is 16 times as large, because "
            "|w| is far larger than w^2 for small w"),
    Mistake("objectives of L1 and L2 are compared with each other", "validation loss and accuracy are compared",
            _objectives, ["network_A_l1", "network_A_l2"]),
    Mistake("train loss with dropout on is compared with validation loss with dropout off",
            "train loss is also evaluated with dropout off", _dropout_on_and_off, ["4D_drop03"]),
    Mistake('"dropout sets weights to zero"', "it zeroes activations, others for each sample and step",
            "rate 0.3 on activations of 1: 30.0% are zero, the mean stays 1.000; no weight changes"),
    Mistake('dropout "improved" 4L (validation loss / accuracy)', "both are shown", _dropout_in_loss_and_accuracy,
            ["4L", "4D_drop02", "4D_drop03", "4D_drop03_02_01"]),
    Mistake("overfitting is judged by the loss alone", "loss and accuracy are shown together", _overconfidence, ["4L"]),
    Mistake("Adam's beta_2 is 0.99; its epsilon is 1e-9 in one place and 1e-8 in another",
            "0.999 and Keras' 1e-7, stated",
            "a gradient of 10, then 99 of 1: Adam moves 0.0595 with beta_2 = 0.999, 0.0638 with 0.99"),
    Mistake("momentum is written as beta m + eta g and explained as (1 - beta) g", "the paper's equations",
            "after 200 gradients of 1: beta m + g gives 10.00, beta m + (1 - beta) g gives 1.00"),
    Mistake('"more connections overfit less", "deeper performs better"', "measured over seeds: see the claims",
            _depth, ["2L", "3L", "4L", "5L"]),
    Mistake('"normalization" for regularization, "adaptive machine learning"', "the standard terms"),
)
