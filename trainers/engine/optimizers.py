"""The optimizers of a recipe: Adam as TensorFlow's fused kernel, all others Keras' own, inside the compiled step.

Under XLA both are one pass over each array that is written, and equally fast (0.98 to 1.03 times, measured for seven).
Adam is the kernel because the published numbers are of it, and because it is one operation where XLA does not compile:
above batch 1024 and in bfloat16. The number of the update is an argument, so slots are the only state. Muon is left
out: its orthogonalisation takes ten times as long as the rest of an update.
"""

from __future__ import annotations

from typing import Any, Sequence

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import OPTIMIZERS, Recipe

EPSILON = 1e-7  # Keras' default
BETA_1, BETA_2 = 0.9, 0.999
MOMENTUM = 0.9


def make(recipe: Recipe, variables: Sequence[Any], names: Sequence[str],
         decays: Sequence[bool]) -> Adam | KerasOptimizer:
    """The optimizer of a recipe for the tape loop.

    Args:
        variables: trainable Keras variables.
        names: one for each.
        decays: for each, whether it decays: kernels do, biases do not.

    A gradient is a tensor, or None for a variable that does not decide the objective: that one is left alone.
    """
    if recipe.optimizer in ("adam", "adamw"):  # the decay is an option of both
        return Adam(variables, names, decays)
    return KerasOptimizer(make_keras(recipe), variables, names, decays)


def make_keras(recipe: Recipe, **options: Any) -> Any:
    """The class of `keras.optimizers` with the recipe's learning rate; `options` are further arguments of it."""
    if recipe.optimizer == "momentum":
        options["momentum"] = MOMENTUM
    make = getattr(keras.optimizers, OPTIMIZERS[recipe.optimizer].keras_class)
    return make(**{"learning_rate": recipe.learning_rate, **options})


class Adam:
    """Kingma and Ba (2015), the efficient form at the end of section 2: epsilon is their epsilon-hat, as in Keras."""

    def __init__(self, variables: Sequence[Any], names: Sequence[str], decays: Sequence[bool]):
        self._variables, self._names, self._decays = list(variables), names, decays
        self._slots = [[tf.Variable(tf.zeros(variable.shape), trainable=False) for _ in range(2)]
                       for variable in variables]

    def apply(self, gradients: Sequence[Any], step: Any, *, learning_rate: Any, weight_decay: Any = None) -> None:
        """Update number `step` + 1 of all variables; the learning rate is 0 where `step` is -1 (not finite).

        With `weight_decay`, the variables that decay shrink by the share learning_rate * weight_decay before it
        (Loshchilov and Hutter 2019, Algorithm 2).
        """
        t = tf.cast(step + 1, tf.float32)
        learning_rate = tf.where(step < 0, 0.0, learning_rate)
        for variable, gradient, (first, second), decays in zip(self._variables, gradients, self._slots, self._decays):
            if gradient is None:
                continue
            if decays:
                decay(variable.value, learning_rate, weight_decay)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle, m=first.handle, v=second.handle, beta1_power=tf.pow(BETA_1, t),
                beta2_power=tf.pow(BETA_2, t), lr=learning_rate, beta1=BETA_1, beta2=BETA_2, epsilon=EPSILON,
                grad=gradient)
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    def restart(self) -> None:
        """Sets all slots to their values before the first update."""
        for slots in self._slots:
            for variable in slots:
                variable.assign(tf.zeros_like(variable))

    def state(self) -> dict[str, Any]:
        """Slot variables by name, for checkpoints."""
        return {f"optimizer/{name}/{slot}": variable for name, slots in zip(self._names, self._slots)
                for slot, variable in zip(("first_moment", "second_moment"), slots)}


class KerasOptimizer:
    """An optimizer of Keras' with the learning rate, and the number of the update, as arguments."""

    def __init__(self, optimizer: Any, variables: Sequence[Any], names: Sequence[str], decays: Sequence[bool]):
        self._optimizer, self._variables, self._names, self._decays = optimizer, variables, names, decays
        optimizer.build(variables)
        self._start = {name: variable.numpy() for name, variable in self.state().items()}

    def apply(self, gradients: Sequence[Any], step: Any, *, learning_rate: Any, weight_decay: Any = None) -> None:
        """As `Adam.apply`."""
        learning_rate = tf.where(step < 0, 0.0, learning_rate)
        changed = [place for place, gradient in enumerate(gradients) if gradient is not None]
        for place in changed:
            if self._decays[place]:
                decay(self._variables[place].value, learning_rate, weight_decay)
        self._optimizer.iterations.assign(tf.cast(tf.maximum(step, 0), self._optimizer.iterations.dtype))
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply([gradients[place] for place in changed], [self._variables[place] for place in changed])

    def restart(self) -> None:
        """Sets all slots to their values before the first update."""
        for name, variable in self.state().items():
            variable.assign(self._start[name])

    def state(self) -> dict[str, Any]:
        """Slot variables by number, for checkpoints."""
        optimizer = self._optimizer
        slots = [variable for variable in optimizer.variables
                 if variable is not optimizer.iterations and variable is not optimizer.learning_rate]
        return {f"optimizer/{number:03d}": variable.value for number, variable in enumerate(slots)}


def decay(variable: Any, learning_rate: Any, weight_decay: Any) -> None:
    """Shrinks a variable by the share learning_rate * weight_decay; None: by nothing."""
    if weight_decay is not None:
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=variable * weight_decay)
