"""The optimizers of a recipe: Keras' own, inside the compiled step, with TensorFlow's fused kernel for Adam.

Under XLA both are one pass over each array that is written, and equally fast (0.98 to 1.03 times, measured for seven).
Adam is the kernel because the published numbers are of it, and because it is one operation where XLA does not compile:
above batch 1024 and in bfloat16. Muon is left out: its orthogonalisation takes ten times as long as the rest of an
update.
"""

from __future__ import annotations

from typing import Sequence

from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import OPTIMIZERS, Recipe

MOMENTUM = 0.9


def make_keras(recipe: Recipe, **options: float) -> keras.Optimizer:
    """The class of `keras.optimizers` with the recipe's learning rate; `options` are further arguments of it."""
    if recipe.optimizer == "momentum":
        options["momentum"] = MOMENTUM
    make = getattr(keras.optimizers, OPTIMIZERS[recipe.optimizer].keras_class)
    return make(**{"learning_rate": recipe.learning_rate, **options})


class FusedAdam(keras.optimizers.Adam):
    """Kingma and Ba (2015), the efficient form at the end of section 2: epsilon is their epsilon-hat, as in Keras."""

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """The update of one variable, in one operation."""
        place, t = self._get_variable_index(variable), tf.cast(self.iterations + 1, tf.float32)
        first, second = self._momentums[place].value, self._velocities[place].value
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=first.handle, v=second.handle, beta1_power=tf.pow(self.beta_1, t),
            beta2_power=tf.pow(self.beta_2, t), lr=tf.convert_to_tensor(learning_rate), beta1=self.beta_1,
            beta2=self.beta_2, epsilon=self.epsilon, grad=gradient)


class Optimizer:
    """The optimizer of a recipe for the tape loop, which knows the number of an update and its learning rate.

    Args:
        variables: trainable Keras variables, built.
        decays: for each, whether it decays: kernels do, biases do not.
    """

    def __init__(self, recipe: Recipe, variables: Sequence[keras.Variable], decays: Sequence[bool]):
        adam = recipe.optimizer in ("adam", "adamw")  # the decay is an option of both
        self._optimizer = FusedAdam() if adam else make_keras(recipe)
        self._optimizer.build(variables)
        self._variables, self._decays = variables, decays

    def apply(self, gradients: Sequence[tf.Tensor | None], step: tf.Tensor, *, learning_rate: tf.Tensor,
              weight_decay: tf.Tensor | None = None) -> None:
        """Update number `step` + 1 of all variables whose gradient is not None, with their constraints.

        With `weight_decay`, those that decay shrink by the share learning_rate * weight_decay before it (Loshchilov and
        Hutter 2019, Algorithm 2).
        """
        changed = [one for one in zip(gradients, self._variables, self._decays) if one[0] is not None]
        if weight_decay is not None:
            for _, variable, decays in changed:
                if decays:
                    tf.raw_ops.ResourceApplyGradientDescent(var=variable.value.handle, alpha=learning_rate,
                                                            delta=variable.value * weight_decay)
        self._optimizer.iterations.assign(tf.cast(step, self._optimizer.iterations.dtype))
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply([one[0] for one in changed], [one[1] for one in changed])

    def state(self) -> dict[str, tf.Variable]:
        """What is remembered from update to update, by number, for checkpoints."""
        optimizer = self._optimizer
        slots = [variable for variable in optimizer.variables
                 if variable is not optimizer.iterations and variable is not optimizer.learning_rate]
        return {f"optimizer/{number:03d}": variable.value for number, variable in enumerate(slots)}
