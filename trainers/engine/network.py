"""A Keras model as the engines see it: its variables by name, which are kernels, and a forward pass of each kind.

In evaluation the model itself is called, in training its twin (`trainers.engine.twin`).
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from fmnist_zoo import custom
from fmnist_zoo.backend import keras, tf
from fmnist_zoo.spec import CLASSES, PIXELS, ModelSpec
from trainers.config import ConfigError
from trainers.engine import process, twin
from trainers.engine.twin import Moment, Rates

EVALUATION_BATCH, KERAS_BATCH = 2000, 32  # the second is the default of `evaluate`
_layers = keras.layers
NO_KERNELS = (_layers.Embedding, _layers.BatchNormalization, _layers.LayerNormalization, _layers.GroupNormalization,
              _layers.RMSNormalization, _layers.UnitNormalization)
GENERATORS = ("StatefulUniform", "StatefulStandardNormal", "StatefulTruncatedNormal", "StatefulRandom", "Rng",
              "NonDeterministicInts")
"""How the names of the operations of a `tf.random.Generator` begin: they have no seed of their own."""
PYTHON = ("PyFunc", "EagerPyFunc")  # tf.numpy_function(stateful=False) is the way to say that a function draws nothing


class Network:
    """What the tape engine trains: the variables of a Keras model, in place.

    Args:
        model: from (batch, 784), (batch, 28, 28) or (batch, 28, 28, 1) float32 in [0, 1] to logits (batch, 10).
        spec: of a model of the zoo, whose L1 and L2 are the penalty. For None, or a user's own model, its regularizers
            and losses are.
        bfloat16: compute in bfloat16 in training, but for the layer of the logits, as Keras' guide to mixed precision
            advises. The type has 8 of float32's 24 bits of precision and all of its range, so the loss needs no
            scaling. The variables that are trained are then the twin's; `sync` copies them into the model.
        jit_compile: whether XLA compiles the steps.

    Attributes:
        trainable: what the optimizer changes, as Keras variables.
        variables, names: the same as float32 `tf.Variable`s, and the path of each.
        state: the other variables, by path: moving statistics, seeds of random layers.
        weights: the paths of what a saved model holds, in the order of `model.get_weights()`.
        shape: of one image, as the model takes it.
        is_kernel: for each of `variables`, whether it is a weight matrix or a filter: it has rank 2 or more, and is not
            of an embedding or a normalization.
        rates: those of the model and its spec.
        fills_up: whether a smaller last batch is filled up with images of weight 0; else it is a batch of its own size,
            because some layer may look across the batch.
    """

    def __init__(self, model: keras.Model, spec: ModelSpec | None = None, *, bfloat16: bool = False,
                 jit_compile: bool = False):
        self.model = model
        self._spec = None if spec is None or spec.build else spec
        numbers = [index for index, rate in enumerate(spec.dropout) if rate] if spec and self._spec else None
        if spec and spec.build:
            _refuse_random(model, spec.builder)
        self._called = model
        self._twin = twin.twin_of(model, numbers, fused=not jit_compile, bfloat16=bfloat16)
        paths, learned = _paths(model), {id(variable): variable for variable in model.trainable_variables}
        trained = {id(theirs): ours for theirs, ours in self._twin.own}
        self.trainable = [trained.get(one, variable) for one, variable in learned.items()]
        self.variables = [variable.value for variable in self.trainable]
        self.names = [paths[one] for one in learned]
        self.state = {paths[id(variable)]: trained.get(id(variable), variable).value for variable in model.variables
                      if id(variable) not in learned}
        self.weights = [paths[id(variable)] for variable in model.weights]
        self.is_kernel = are_kernels(model)
        self.fills_up = self._spec is not None and self._spec.normalization != "batch"
        self.shape = custom.input_shape(model)
        l1, l2 = (self._spec.l1, self._spec.l2) if self._spec else (0.0, 0.0)
        self.rates = Rates.of([layer.rate for layer in self._twin.dropout], l1, l2)

    @property
    def kernels(self) -> list[tf.Variable]:
        """The weight matrices and filters: they decay, and the zoo's L1 and L2 are of them."""
        return [variable for variable, kernel in zip(self.variables, self.is_kernel) if kernel]

    def restart(self, model: keras.Model, spec: ModelSpec) -> None:
        """Takes the values of all variables, and the rates, from a model of the zoo of the same architecture."""
        for variable, value in zip(self.model.variables, model.variables, strict=True):
            variable.assign(value)
        for theirs, ours in self._twin.own:
            ours.assign(theirs)
        self.rates = Rates.of([rate for rate in spec.dropout if rate], spec.l1, spec.l2)

    def sync(self) -> None:
        """Gives the model the values that are trained, where it does not share them."""
        for theirs, ours in self._twin.own:
            theirs.assign(ours)

    def forward(self, images: tf.Tensor, moment: Moment | None = None, *, of_twin: bool = False) -> tf.Tensor:
        """Logits (batch, 10) float32 of images (batch, 784) float32 in [0, 1].

        Args:
            moment: None in evaluation: dropout is off, and moving statistics are used and not changed.
            of_twin: whether the twin evaluates, too: gradients by `variables` are of what is trained.
        """
        flow = images if self.shape == (PIXELS,) else tf.reshape(images, (-1, *self.shape))
        if moment is None:
            self._called = self._twin.model if of_twin else self.model
            return tf.cast(self._called(flow, training=False), tf.float32)
        self._called = self._twin.model
        with twin.during(moment):
            return tf.cast(self._twin.model(flow, training=True), tf.float32)

    def penalty(self, rates: Rates, *, of_call: bool = False) -> tf.Tensor:
        """The penalty of the objective, a float32 scalar: l1 * sum|W| + l2 * sum W^2 over the kernels of the zoo's.

        That of a user's own model is what its regularizers say of the weights. `of_call`, right after a call of
        `forward`: with all that its layers added there.
        """
        if self._spec is not None:
            terms = [] if rates.l1 is None else [rates.l1 * tf.reduce_sum(tf.abs(kernel)) for kernel in self.kernels]
            if rates.l2 is not None:
                terms += [rates.l2 * tf.reduce_sum(tf.square(kernel)) for kernel in self.kernels]
        elif of_call:
            terms = self._called.losses
        else:
            terms = [variable.regularizer(variable.value) for variable in self.trainable if variable.regularizer]
        return tf.add_n([tf.cast(term, tf.float32) for term in terms]) if terms else tf.zeros(())

    @staticmethod
    def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of each example in nats, (batch,) float32, for labels (batch,) int32."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    def without_gradient(self, batch_size: int) -> list[str]:
        """The names of the variables that do not decide the logits or the penalty: no update changes them.

        Raises:
            ConfigError: if there is nothing else, or a `tf.Variable` that Keras does not know decides them, too.
        """
        found: list[str] = []
        known = {id(variable) for variable in (*self.variables, *self.state.values())}

        def step(images: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                logits = self.forward(images, Moment(0, tf.zeros((), tf.int64), self.rates))
                objective = tf.reduce_sum(logits) + self.penalty(self.rates, of_call=True)
            unknown = [variable.name for variable in tape.watched_variables() if id(variable) not in known]
            if unknown:
                raise ConfigError(f"{self.model.name}: a layer computes with the tf.Variable {', '.join(unknown)}, "
                                  "which Keras neither trains nor saves; make it by the layer's add_weight")
            gradients = tape.gradient(objective, self.variables)
            found.extend(name for name, gradient in zip(self.names, gradients) if gradient is None)
            return [gradient for gradient in gradients if gradient is not None]

        tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((batch_size, PIXELS)))
        if len(found) == len(self.names):
            raise ConfigError(f"{self.model.name}: no gradient reaches its weights ({', '.join(found):.200}): is its "
                              "output computed from them by Keras' or TensorFlow's functions?")
        return found


def are_kernels(model: keras.Model) -> list[bool]:
    """For each trainable variable of a model, whether it is a weight matrix or a filter, which decays."""
    apart = {id(variable) for layer in model._flatten_layers() if isinstance(layer, NO_KERNELS)
             for variable in layer.variables}
    return [len(variable.shape) > 1 and id(variable) not in apart
            for variable in {id(variable): variable for variable in model.trainable_variables}.values()]


def _refuse_random(model: keras.Model, known: custom.Builder) -> None:
    """Refuses layers that draw random numbers from a state which no checkpoint has.

    A resumed run would not equal an uninterrupted one. It is asked before the twin is made: with deterministic
    operations, TensorFlow itself refuses to call such a layer, and does not name it.

    Raises:
        ConfigError: with the name of the layer.
        SpecError: for a layer that raises an error in training; in one line.
    """
    def find() -> list[tuple[str, str]]:
        try:
            return _drawn(model)
        except Exception:  # some functions of TensorFlow's raise if operations are deterministic
            with process.determinism(False):
                if found := _drawn(model):
                    return found
            raise

    drawn = custom.tried(known, "a call in training", find)
    if drawn:
        way, name = drawn[0]
        layers = {layer.name: f"{layer.name} ({type(layer).__name__})" for layer in model._flatten_layers()}
        scopes = [scope for part in name.split("/") for scope in (part.rpartition("_")[0], part)]
        inside = [layers[scope] for scope in scopes if scope in layers]  # TensorFlow may add a number to a name
        raise ConfigError(
            f"{model.name}: {f'its layer {inside[-1]}' if inside else 'a layer of it'} draws random numbers by "
            f"{way}, which a resumed run cannot repeat; give it a keras.random.SeedGenerator, and draw by "
            "keras.random, such as keras.random.dropout(x, rate, seed=self.seed_generator)")


def _drawn(model: keras.Model) -> list[tuple[str, str]]:
    """By what a call in training draws random numbers that no checkpoint has, and the name of each operation."""
    from keras.src.backend.common import global_state

    def call(images: tf.Tensor) -> tf.Tensor:
        tf.random.set_seed(0)  # of this graph
        return model(images, training=True)

    images = tf.TensorSpec((2, *custom.input_shape(model)))
    graph = tf.function(call, autograph=False).get_concrete_function(images).graph
    unseeded = global_state.get_global_attribute("global_seed_generator")
    drawn = [("Keras without a seed", consumer.name) for outside, inside in graph.captures
             if unseeded and outside is unseeded.state.value.handle for consumer in inside.consumers()]
    nodes = _nodes(graph)
    drawn += [(f"TensorFlow ({node.op})", node.name) for node in nodes if _draws(node)]
    drawn += [(f"a function that is in no program ({node.op})", node.name) for node in nodes if node.op in PYTHON]
    if not drawn and _has_own_code(model):  # of what NumPy or Python draws, a program has one draw for ever
        constants = {node.attr["value"].SerializeToString() for node in nodes if node.op == "Const"}
        again = tf.function(call, autograph=False).get_concrete_function(images).graph
        drawn = [("NumPy or Python", node.name) for node in _nodes(again)
                 if node.op == "Const" and node.attr["value"].SerializeToString() not in constants]
    return drawn


def _draws(node: tf.compat.v1.NodeDef) -> bool:
    """Whether an operation draws from a state of TensorFlow's: it has seeds, and is not a function of them."""
    from tensorflow.python.framework import op_def_registry

    if "seed2" not in node.attr:
        return node.op.startswith(GENERATORS)
    if "deterministic" in node.attr:  # tf.nn.fractional_max_pool, whose regions a seed fixes
        return not node.attr["deterministic"].b
    return op_def_registry.get(node.op).is_stateful and not ("dropout" in node.attr and node.attr["dropout"].f == 0)


def _has_own_code(model: keras.Model) -> bool:
    """Whether a layer, the function of a `Lambda`, or an activation is not of Keras."""
    parts = (part for layer in model._flatten_layers()
             for part in (layer, getattr(layer, "function", layer), getattr(layer, "activation", layer)))
    return not all(getattr(part, "__module__", "keras.").startswith("keras.") for part in parts)


def _nodes(graph: tf.Graph) -> list[tf.compat.v1.NodeDef]:
    """The operations of a program and of its functions."""
    program = graph.as_graph_def()
    return [node for part in (program.node, *(function.node_def for function in program.library.function))
            for node in part]


def _paths(model: keras.Model) -> dict[int, str]:
    """A name for each variable of a model, by its identity: its path, with a number where two have the same.

    The seeds of random layers, which are no weights, go by their names: Keras counts them over the whole process.
    """
    weights = {id(variable) for variable in model.weights}
    paths: dict[int, str] = {}
    for variable in model.variables:
        name = path = variable.path if id(variable) in weights else variable.name
        number = 1
        while path in paths.values():
            number += 1
            path = f"{name}_{number}"
        paths[id(variable)] = path
    return paths


def scale(images: tf.Tensor) -> tf.Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def make_predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (n, 784) uint8 to logits (n, 10) float32, dropout off."""
    forward = tf.function(lambda images: network.forward(scale(images)), autograph=False)
    logits = forward.get_concrete_function(tf.TensorSpec((None, PIXELS), tf.uint8))

    def predict(images: np.ndarray) -> np.ndarray:
        chunks = [logits(tf.constant(images[start:start + EVALUATION_BATCH])).numpy()
                  for start in range(0, len(images), EVALUATION_BATCH)]
        return np.concatenate([np.empty((0, CLASSES), np.float32), *chunks])

    return predict


def make_penalty(network: Network) -> Callable[[np.ndarray], float]:
    """A function from images (n, 784) uint8 to the penalty of the evaluation, which Keras' `evaluate` adds to the loss.

    What layers add in a call, such as an activity regularizer, is averaged over `evaluate`'s batches. Call this after
    `make_predictor`, which has called the model.
    """
    regularized = [variable for variable in network.model.trainable_variables if variable.regularizer]
    if len(network.model.losses) == len(regularized):
        return lambda images: float(network.penalty(network.rates))

    def of_call(images: tf.Tensor) -> tf.Tensor:
        network.forward(scale(images))
        return network.penalty(network.rates, of_call=True)

    penalty = tf.function(of_call, autograph=False, input_signature=[tf.TensorSpec((None, PIXELS), tf.uint8)])

    def mean(images: np.ndarray) -> float:
        batches = [images[start:start + KERAS_BATCH] for start in range(0, len(images), KERAS_BATCH)]
        return float(np.average([penalty(batch) for batch in batches], weights=[len(batch) for batch in batches]))

    return mean
