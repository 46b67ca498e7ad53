"""The low-level networks from their equations, in raw TensorFlow: variables, products, softmax, loss, penalties, Adam.

This is the page that teaches; read it from top to bottom. It uses nothing of `keras.layers`, `keras.losses` or
`keras.optimizers`. Through `LowLevelNetwork` and `OPTIMIZERS` the same loop trains it that trains all other models;
tests compare it with Keras, with finite differences, and with the fast engine.

Images are (batch, 784) float32 in [0, 1], labels (batch,) int32, logits (batch, 10) float32. Each row is an example.
"""

from __future__ import annotations

from typing import Sequence

from fmnist_zoo import models
from fmnist_zoo.backend import tf
from fmnist_zoo.spec import CLASSES, ModelSpec
from trainers.engine.twin import Moment, Rates

DEVIATION = 0.05


def initial_variables(spec: ModelSpec, seed: int) -> list[tf.Variable]:
    """W1, b1, W2, b2, ...: weights drawn from N(0, 0.05), biases of zero.

    The same seed gives the same initial values as in the Keras model of the spec, so that engines can be compared.
    """
    variables = []
    for index, shape in enumerate(zip(spec.widths, spec.widths[1:])):
        layer_seed = [models.layer_seed(seed, index, of="weights"), 0]
        variables.append(tf.Variable(tf.random.stateless_normal(shape, seed=layer_seed, stddev=DEVIATION)))
        variables.append(tf.Variable(tf.zeros(shape[1])))
    return variables


def forward_pass(variables: Sequence[tf.Variable], images: tf.Tensor) -> tf.Tensor:
    """Logits: ReLU(x W + b) for each hidden layer, x W + b for the last one.

    There is no softmax here. The loss takes the logits, because softmax rounds small probabilities to 0, whose
    logarithm is lost; the logits still hold it.
    """
    flow = images
    for index in range(0, len(variables) - 2, 2):
        flow = tf.maximum(flow @ variables[index] + variables[index + 1], 0.0)
    return flow @ variables[-2] + variables[-1]


def softmax(logits: tf.Tensor) -> tf.Tensor:
    """Probabilities: exp(z_j) / sum_k exp(z_k), each row on its own.

    Subtracting the row's maximum first changes nothing, because it cancels; without it, exp overflows above 88.7.
    """
    exponentials = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True))
    return exponentials / tf.reduce_sum(exponentials, axis=1, keepdims=True)


def log_softmax(logits: tf.Tensor) -> tf.Tensor:
    """log softmax(z) = z - max z - log sum_k exp(z_k - max z).

    It is finite, and has a gradient, for all finite logits. The gradient treats the maximum as a constant, because its
    two contributions cancel.
    """
    shifted = logits - tf.stop_gradient(tf.reduce_max(logits, axis=1, keepdims=True))
    return shifted - tf.math.log(tf.reduce_sum(tf.exp(shifted), axis=1, keepdims=True))


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-sum_j y_j log p_j for each example, y one-hot: (batch,), in nats. The loss is the mean over the batch."""
    return -tf.reduce_sum(tf.one_hot(labels, CLASSES) * log_softmax(logits), axis=1)


def l1_penalty(kernels: Sequence[tf.Variable], rate: tf.Tensor) -> tf.Tensor:
    """rate * sum |w| over all weight matrices; its gradient, rate * sign(w), pulls all weights equally."""
    return rate * tf.add_n([tf.reduce_sum(tf.abs(kernel)) for kernel in kernels])


def l2_penalty(kernels: Sequence[tf.Variable], rate: tf.Tensor) -> tf.Tensor:
    """rate * sum w^2 over all weight matrices; its gradient, 2 * rate * w, pulls large weights more."""
    return rate * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])


def rounded_accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Share of entries at which the rounded probabilities equal the one-hot labels.

    This is not the accuracy over examples: nine of ten entries are zeros, which nearly every prediction gets right. It
    is 0.9 + (c - w) / 10, where c and w are the shares of examples whose top probability is above one half and right,
    or wrong (`fmnist_zoo.metrics.rounded_accuracy` returns the parts). An untrained network scores 0.9.
    """
    agree = tf.round(softmax(logits)) == tf.one_hot(labels, CLASSES)
    return tf.reduce_mean(tf.cast(agree, tf.float32))


class Adam:
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015).

    For each parameter w with gradient g, at update t = 1, 2, ... (Algorithm 1):

        m = beta_1 m + (1 - beta_1) g              first moment: a running mean of the gradient
        v = beta_2 v + (1 - beta_2) g^2            second moment: a running mean of its square
        m' = m / (1 - beta_1^t)                    m and v start at zero, and this removes
        v' = v / (1 - beta_2^t)                    the resulting bias (section 3)
        w = w - rate m' / (sqrt(v') + epsilon)     update

    The end of section 2 gives a form with fewer operations, in which epsilon (there "epsilon-hat") is added to the
    uncorrected root: rate' = rate sqrt(1 - beta_2^t) / (1 - beta_1^t), w = w - rate' m / (sqrt(v) + epsilon). Keras
    computes this form, and it is the default here. The two agree where sqrt(v) is large compared to epsilon; in early
    steps, and for tiny gradients, the second takes smaller steps.

    Args:
        variables: what is trained, in place.
        names: of the variables in checkpoints.
        beta_1, beta_2, epsilon: as in the paper; epsilon is 1e-8 there, 1e-7 in Keras.
        epsilon_hat: True for the form at the end of section 2, False for Algorithm 1.
    """

    def __init__(self, variables: Sequence[tf.Variable], names: Sequence[str] = (), *, beta_1: float = 0.9,
                 beta_2: float = 0.999, epsilon: float = 1e-7, epsilon_hat: bool = True):
        self._variables, self._names, self._epsilon = list(variables), names, epsilon
        self._beta_1, self._beta_2, self._epsilon_hat = beta_1, beta_2, epsilon_hat
        self._first = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in self._variables]
        self._second = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in self._variables]

    def apply(self, gradients: Sequence[tf.Tensor], step: tf.Tensor, *, learning_rate: tf.Tensor, **unused: object
              ) -> None:
        """Update number t = `step` + 1 of all variables."""
        t = tf.cast(step + 1, self._variables[0].dtype)
        for variable, gradient, first, second in zip(self._variables, gradients, self._first, self._second):
            first.assign(self._beta_1 * first + (1 - self._beta_1) * gradient)
            second.assign(self._beta_2 * second + (1 - self._beta_2) * tf.square(gradient))
            variable.assign_sub(self._change(first, second, t, learning_rate))

    def _change(self, first: tf.Variable, second: tf.Variable, t: tf.Tensor, learning_rate: tf.Tensor) -> tf.Tensor:
        first_bias, second_bias = 1 - tf.pow(self._beta_1, t), 1 - tf.pow(self._beta_2, t)
        if self._epsilon_hat:
            rate = learning_rate * tf.sqrt(second_bias) / first_bias
            return rate * first / (tf.sqrt(second) + self._epsilon)
        return learning_rate * (first / first_bias) / (tf.sqrt(second / second_bias) + self._epsilon)

    def state(self) -> dict[str, tf.Variable]:
        """Both moments by name, for checkpoints."""
        moments = {"first_moment": self._first, "second_moment": self._second}
        return {f"optimizer/{name}/{moment}": variable for moment, variables in moments.items()
                for name, variable in zip(self._names, variables)}


class GradientDescent:
    """w = w - rate g."""

    def __init__(self, variables: Sequence[tf.Variable], names: Sequence[str] = ()):
        self._variables = list(variables)

    def apply(self, gradients: Sequence[tf.Tensor], step: tf.Tensor, *, learning_rate: tf.Tensor, **unused: object
              ) -> None:
        """One update of all variables."""
        for variable, gradient in zip(self._variables, gradients):
            variable.assign_sub(learning_rate * gradient)

    def state(self) -> dict[str, tf.Variable]:
        """Gradient descent keeps no state."""
        return {}


OPTIMIZERS = {"adam": Adam, "sgd": GradientDescent}


class LowLevelNetwork:
    """The network of a spec, for the loop in place of an `engine.network.Network`.

    `trainers.config` refuses specs with what this page does not have, such as dropout.
    """

    fills_up = True
    cross_entropy = staticmethod(cross_entropy)

    def __init__(self, spec: ModelSpec, seed: int):
        self.variables, self.names = initial_variables(spec, seed), names(spec)
        self.weights, self.is_kernel = self.names, [True, False] * (len(self.names) // 2)
        self.state: dict[str, tf.Variable] = {}
        self.rates = Rates.of((), spec.l1, spec.l2)

    @property
    def kernels(self) -> list[tf.Variable]:
        """The weight matrices."""
        return self.variables[::2]

    def forward(self, images: tf.Tensor, moment: Moment | None = None, *,
                of_twin: bool = False) -> tf.Tensor:
        """The same in training and in evaluation."""
        return forward_pass(self.variables, images)

    def penalty(self, rates: Rates, **unused: object) -> tf.Tensor:
        """The L1 and L2 terms of the objective, those that are on."""
        total = tf.zeros(())
        if rates.l1 is not None:
            total += l1_penalty(self.kernels, rates.l1)
        if rates.l2 is not None:
            total += l2_penalty(self.kernels, rates.l2)
        return total

    def sync(self) -> None:
        """There is no Keras model to keep up to date."""


def names(spec: ModelSpec) -> list[str]:
    """The names of the variables: `weights_1`, `bias_1`, `weights_2`, ..."""
    return [f"{part}_{index + 1}" for index in range(len(spec.widths) - 1) for part in ("weights", "bias")]
