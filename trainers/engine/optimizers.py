"""The optimizers as TensorFlow's fused kernels, with the numbers of `keras.optimizers` (a test compares each pair).

A fused kernel updates a variable and its slots in one operation, where Keras runs about ten; at batch 32 those ten cost
more than the matrix products. (XLA replaces the kernel by its own code, one pass over each array that is written.) The
number of the update is an argument, so the slots are the only state.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Sequence

from fmnist_zoo.backend import tf

EPSILON = 1e-7  # Keras' default for all of them
BETA_1, BETA_2 = 0.9, 0.999
MOMENTUM = 0.9
RHO = 0.9


@dataclasses.dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        apply: (variable, gradient, slots, learning_rate, t) changes variable and slots; t = 1 at the first update.
        slots: names of the arrays, shaped like the variable, that the rule keeps for each variable.
        start: their value before the first update.
    """

    apply: Callable[[Any, Any, Sequence[Any], Any, Any], None]
    slots: tuple[str, ...] = ()
    start: float = 0.0


def _adam(variable: Any, gradient: Any, slots: Sequence[Any], learning_rate: Any, t: Any) -> None:
    """Kingma and Ba (2015), the efficient form at the end of section 2: epsilon is their epsilon-hat."""
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle, m=slots[0].handle, v=slots[1].handle, beta1_power=tf.pow(BETA_1, t),
        beta2_power=tf.pow(BETA_2, t), lr=learning_rate, beta1=BETA_1, beta2=BETA_2, epsilon=EPSILON, grad=gradient)


def _sgd(variable: Any, gradient: Any, slots: Sequence[Any], learning_rate: Any, t: Any) -> None:
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)


def _momentum(variable: Any, gradient: Any, slots: Sequence[Any], learning_rate: Any, t: Any) -> None:
    """m = momentum * m - rate * g; w = w + m (Sutskever et al. 2013, equations 1 and 2)."""
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable.handle, accum=slots[0].handle, lr=learning_rate, grad=gradient, momentum=MOMENTUM)


def _rmsprop(variable: Any, gradient: Any, slots: Sequence[Any], learning_rate: Any, t: Any) -> None:
    """v = rho * v + (1 - rho) * g^2; w = w - rate * g / sqrt(v + epsilon) (Tieleman and Hinton 2012)."""
    tf.raw_ops.ResourceApplyRMSProp(
        var=variable.handle, ms=slots[0].handle, mom=slots[1].handle, lr=learning_rate, rho=RHO, momentum=0.0,
        epsilon=EPSILON, grad=gradient)


def _adagrad(variable: Any, gradient: Any, slots: Sequence[Any], learning_rate: Any, t: Any) -> None:
    """a = a + g^2; w = w - rate * g / sqrt(a) (Duchi et al. 2011). Keras adds epsilon to a; here it is in a's start."""
    tf.raw_ops.ResourceApplyAdagrad(var=variable.handle, accum=slots[0].handle, lr=learning_rate, grad=gradient)


def _adamax(variable: Any, gradient: Any, slots: Sequence[Any], learning_rate: Any, t: Any) -> None:
    """Kingma and Ba (2015), Algorithm 2."""
    tf.raw_ops.ResourceApplyAdaMax(
        var=variable.handle, m=slots[0].handle, v=slots[1].handle, beta1_power=tf.pow(BETA_1, t), lr=learning_rate,
        beta1=BETA_1, beta2=BETA_2, epsilon=EPSILON, grad=gradient)


RULES = {
    "adam": Rule(_adam, ("first_moment", "second_moment")),
    "adamw": Rule(_adam, ("first_moment", "second_moment")),  # Adam: weight decay is an option of every rule
    "sgd": Rule(_sgd),
    "momentum": Rule(_momentum, ("momentum",)),
    "rmsprop": Rule(_rmsprop, ("mean_square", "unused_momentum")),
    "adagrad": Rule(_adagrad, ("accumulator",), start=0.1 + EPSILON),
    "adamax": Rule(_adamax, ("first_moment", "infinity_norm")),
}


class Optimizer:
    """A rule with its slots for a list of variables.

    Args:
        name: a key of `RULES`.
        variables: float32 `tf.Variable`s.
        decays: for each variable, whether it decays: kernels do, biases do not.
    """

    def __init__(self, name: str, variables: Sequence[Any], decays: Sequence[bool]):
        self._rule, self._variables, self._decays = RULES[name], list(variables), list(decays)
        self.slots = [[tf.Variable(tf.fill(variable.shape, self._rule.start), trainable=False)
                       for _ in self._rule.slots] for variable in self._variables]

    def apply(self, gradients: Sequence[Any], step: Any, *, learning_rate: Any, weight_decay: Any = None) -> None:
        """Update number `step` + 1 of all variables; the learning rate is 0 where `step` is -1 (not finite).

        With `weight_decay`, the variables that decay shrink by the share learning_rate * weight_decay before it
        (Loshchilov and Hutter 2019, Algorithm 2).
        """
        t = tf.cast(step + 1, tf.float32)
        learning_rate = tf.where(step < 0, 0.0, learning_rate)
        for variable, gradient, slots, decays in zip(self._variables, gradients, self.slots, self._decays):
            if weight_decay is not None and decays:
                _sgd(variable, variable * weight_decay, (), learning_rate, t)
            self._rule.apply(variable, gradient, slots, learning_rate, t)

    def restart(self) -> None:
        """Sets all slots to their values before the first update."""
        for slots in self.slots:
            for variable in slots:
                variable.assign(tf.fill(variable.shape, self._rule.start))

    def state(self, names: Sequence[str]) -> dict[str, Any]:
        """Slot variables by name, for checkpoints."""
        return {f"optimizer/{name}/{slot}": variable for name, slots in zip(names, self.slots)
                for slot, variable in zip(self._rule.slots, slots)}
