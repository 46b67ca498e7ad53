"""The learning rate of each update, computed ahead in NumPy: any schedule costs a compiled step one look-up."""

from __future__ import annotations

import numpy as np

from fmnist_zoo.spec import Recipe


def learning_rates(recipe: Recipe, *, steps_an_epoch: int, epoch: int) -> np.ndarray:
    """The learning rates of epoch number `epoch` (0 is the first): (steps_an_epoch,) float32.

    Over the recipe's horizon of T updates in all, t = 0 the first, with W = `warmup` * T: for t < W the rate grows
    linearly, (t + 1) / W of its full value. From there, with u = (t - W) / (T - W) in [0, 1):

        constant   1
        linear     1 - u
        cosine     (1 + cos(pi u)) / 2                        Loshchilov and Hutter (2017), equation 5
        step       1, 0.1 from half of the run, 0.01 from three quarters (of T, as in He et al. 2016)
        one_cycle  from 1/25 to 1 over the first 30 % of u and to 1/(25 * 10^4) over the rest, both along half a
                   cosine (Smith and Topin 2018, with the numbers of PyTorch's OneCycleLR)
    """
    total = (recipe.horizon or recipe.epochs) * steps_an_epoch
    warmup = recipe.warmup * total
    step = np.arange(epoch * steps_an_epoch, (epoch + 1) * steps_an_epoch, dtype=np.float64)
    share = np.clip((step - warmup) / (total - warmup), 0, 1)
    if recipe.schedule == "cosine":
        factor = (1 + np.cos(np.pi * share)) / 2
    elif recipe.schedule == "linear":
        factor = 1 - share
    elif recipe.schedule == "step":
        factor = np.select([step >= 0.75 * total, step >= 0.5 * total], [0.01, 0.1], 1.0)
    elif recipe.schedule == "one_cycle":
        factor = np.where(share < 0.3, _half_cosine(1 / 25, 1, share / 0.3), _half_cosine(1, 4e-6, (share - 0.3) / 0.7))
    else:
        factor = np.ones_like(step)
    if warmup:
        factor = np.where(step < warmup, np.minimum((step + 1) / warmup, 1), factor)
    return (recipe.learning_rate * factor).astype(np.float32)


def last_learning_rate(recipe: Recipe, *, steps_an_epoch: int, epoch: int) -> float:
    """That of the last update of an epoch; the recipe's with all its digits where it is that."""
    rate = float(learning_rates(recipe, steps_an_epoch=steps_an_epoch, epoch=epoch)[-1])
    return recipe.learning_rate if np.float32(recipe.learning_rate) == rate else rate


def _half_cosine(start: float, end: float, share: np.ndarray) -> np.ndarray:
    """From `start` to `end` as `share` goes from 0 to 1."""
    return end + (start - end) * (1 + np.cos(np.pi * share)) / 2
