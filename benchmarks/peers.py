"""The peers of `benchmarks.epoch`: functions that train a model on a split and tell a clock when each epoch ends.

A peer imports its libraries inside its function, because it runs in a process of its own. PyTorch and JAX run in an
environment of their own, where `fmnist_zoo` has specs and data but no models: they start from the weights in a file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from typing import Any, Callable

from fmnist_zoo import get_spec
from fmnist_zoo.spec import FULL_BATCH, ModelSpec

LEARNING_RATE, EPSILON = 0.001, 1e-7  # Adam's, for all peers


@dataclasses.dataclass(frozen=True)
class Task:
    """What a peer trains: 1 + `epochs` epochs of a model at a batch size, everything random from `seed`.

    `weights` is a file of `save_weights`, for the peers outside TensorFlow.
    """

    model: str
    batch: int | str
    epochs: int
    data: str
    seed: int
    weights: str = ""

    def batch_size(self, images: int) -> int:
        """Images an update, of `images` training images."""
        return images if self.batch == FULL_BATCH else min(int(self.batch), images)


class Clock:
    """Takes the times of a peer, so that all peers are measured between the same points."""

    def __init__(self) -> None:
        self.loss = math.nan
        self.times: list[float] = []

    def start(self) -> None:
        """Data and model are ready; compiling and the first epoch come next and are timed together."""
        self.times.append(time.perf_counter())

    def epoch_done(self, loss: Any) -> None:
        """An epoch ended with this mean training loss. Reading the loss waits for asynchronous engines."""
        self.loss = float(loss)
        self.times.append(time.perf_counter())


def tape(task: Task, clock: Clock, split: Any, *, trainer: str = "tape") -> None:
    """Our engine as a run builds it, deterministic operations included."""
    from trainers.config import resolve
    from trainers.engine import process

    config = resolve(task.model, trainer=trainer, batch_size=task.batch, seed=task.seed, optimizer="adam",
                     learning_rate=LEARNING_RATE)
    process.start_tensorflow(config.threads)
    from fmnist_zoo import models
    from fmnist_zoo.backend import keras, tf
    from trainers.engine import factory

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(task.seed)
    model = models.build(config.spec, task.seed)
    clock.start()
    engine = factory.make_engine(config, model, split)
    for epoch in range(1 + task.epochs):
        means = engine.run_epoch(epoch)
        clock.epoch_done(means.loss + means.penalty)


def fit(task: Task, clock: Clock, split: Any, *, epoch_a_call: bool = False) -> None:
    """`Model.fit` on float arrays in one call, so that its input pipeline is built once.

    With its defaults, or with so many `steps_per_execution` that it returns to Python once an epoch.
    """
    from fmnist_zoo import models
    from fmnist_zoo.backend import keras

    keras.utils.set_random_seed(task.seed)
    pixels = split.images.astype("float32") / 255
    model = models.build_model(task.model, seed=task.seed)
    batch = task.batch_size(len(pixels))
    clock.start()
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"], steps_per_execution=-(-len(pixels) // batch) if epoch_a_call else 1)
    # A callback that sees epochs alone does not make fit wait for each batch.
    timer = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.epoch_done(logs["loss"]))
    model.fit(pixels, split.labels, batch_size=batch, epochs=1 + task.epochs, verbose=0, callbacks=[timer])


def torch(task: Task, clock: Clock, split: Any) -> None:
    """PyTorch as its tutorials teach it, with Adam in one kernel.

    All images are one float32 tensor in memory. Each epoch takes them in a new random order by `index_select`, which is
    several times as fast as `pixels[chosen]`; a `DataLoader` would gather the same images one by one.
    """
    import torch
    from torch import nn

    torch.manual_seed(task.seed)
    spec = get_spec(task.model)
    pixels = torch.from_numpy(split.images).float() / 255
    labels = torch.from_numpy(split.labels).long()
    model = _torch_model(spec, read_weights(task))
    kernels = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    clock.start()
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, eps=EPSILON, fused=True)

    def step(inputs: Any, targets: Any) -> Any:
        loss = loss_function(model(inputs), targets)
        if spec.l1:
            loss = loss + spec.l1 * sum(kernel.abs().sum() for kernel in kernels)
        if spec.l2:
            loss = loss + spec.l2 * sum(kernel.square().sum() for kernel in kernels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach() * len(targets)

    model.train()
    images = len(labels)
    batch = task.batch_size(images)
    for _ in range(1 + task.epochs):
        if batch == images:
            total = step(pixels, labels)
        else:
            total = torch.zeros(())
            for chosen in torch.randperm(images).split(batch):
                total += step(pixels.index_select(0, chosen), labels.index_select(0, chosen))
        clock.epoch_done(total / images)


def _torch_model(spec: ModelSpec, weights: list[Any]) -> Any:
    """`nn.Sequential` of a spec, from (batch, 784) to logits (batch, 10), with kernels and biases `weights`."""
    import torch
    from torch import nn

    layers: list[Any] = []
    for index, (fan_in, fan_out) in enumerate(zip(spec.widths, spec.widths[1:])):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights[2 * index].T))
            layer.bias.copy_(torch.from_numpy(weights[2 * index + 1]))
        layers.append(layer)
        if index < len(spec.hidden):
            layers.append(nn.ReLU())
            if spec.dropout and spec.dropout[index]:
                layers.append(nn.Dropout(spec.dropout[index]))
    return nn.Sequential(*layers)


def jax(task: Task, clock: Clock, split: Any) -> None:
    """JAX as its documentation teaches it: a pure step, `lax.scan` over an epoch's steps under `jit`, optax.

    Random bits come from the default generator, threefry: on the CPU `rbg` was not faster. All images are one float32
    array in memory (uint8 was not faster). Parameters and optimizer state are donated, and updated in place.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    spec, random = get_spec(task.model), np.random.default_rng(task.seed)
    pixels, labels = jnp.asarray(split.images, jnp.float32) / 255, jnp.asarray(split.labels, jnp.int32)
    count, batch = len(labels), task.batch_size(len(labels))
    weights = [jnp.asarray(array) for array in read_weights(task)]
    parameters = list(zip(weights[::2], weights[1::2]))
    optimizer, gradient = optax.adam(LEARNING_RATE, eps=EPSILON), jax.value_and_grad(_jax_objective(spec))
    carry = parameters, optimizer.init(parameters), jax.random.key(task.seed)
    jax.block_until_ready(pixels)

    def update(carry: Any, inputs: Any, targets: Any) -> Any:
        parameters, state, key = carry
        key, own = jax.random.split(key)
        loss, gradients = gradient(parameters, inputs, targets, own)
        updates, state = optimizer.update(gradients, state, parameters)
        return (optax.apply_updates(parameters, updates), state, key), loss * len(targets)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(carry: Any, pixels: Any, labels: Any, order: Any) -> Any:
        carry, sums = jax.lax.scan(lambda carry, chosen: update(carry, pixels[chosen], labels[chosen]), carry, order)
        return carry, sums.sum()

    step = jax.jit(update, donate_argnums=0)
    clock.start()
    for _ in range(1 + task.epochs):
        if batch == count:
            carry, total = step(carry, pixels, labels)
        else:
            order = random.permutation(count).astype(np.int32)
            whole = count - count % batch
            carry, total = steps(carry, pixels, labels, order[:whole].reshape(-1, batch))
            if whole < count:  # a smaller batch is another shape, which is compiled on its own
                carry, rest = step(carry, pixels[order[whole:]], labels[order[whole:]])
                total += rest
        clock.epoch_done(total / count)


def _jax_objective(spec: ModelSpec) -> Callable[..., Any]:
    """(parameters, images (batch, 784), labels (batch,), key) -> mean cross entropy plus penalty."""
    import jax
    import jax.numpy as jnp
    import optax

    def objective(parameters: Any, images: Any, labels: Any, key: Any) -> Any:
        flow = images
        for layer, (kernel, bias) in enumerate(parameters[:-1]):
            flow = jax.nn.relu(flow @ kernel + bias)
            rate = spec.dropout[layer] if spec.dropout else 0.0
            if rate:
                keep = jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, flow.shape)
                flow = jnp.where(keep, flow / (1 - rate), 0)
        logits = flow @ parameters[-1][0] + parameters[-1][1]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        if spec.l1:
            loss += spec.l1 * sum(jnp.abs(kernel).sum() for kernel, _ in parameters)
        if spec.l2:
            loss += spec.l2 * sum(jnp.square(kernel).sum() for kernel, _ in parameters)
        return loss

    return objective


INSIDE: dict[str, Callable[[Task, Clock, Any], None]] = {
    "tape": tape, "fit": fit, "fit_epoch": functools.partial(fit, epoch_a_call=True),
    "scratch": functools.partial(tape, trainer="scratch")}
OUTSIDE: dict[str, Callable[[Task, Clock, Any], None]] = {"torch": torch, "jax": jax}  # in the other environment


def save_weights(task: Task) -> None:
    """Writes the initial weights of `task`'s Keras model, kernel and bias in turn, to the file `task.weights`."""
    import numpy as np

    from fmnist_zoo import models

    np.savez(task.weights, *models.build_model(task.model, seed=task.seed).get_weights())


def read_weights(task: Task) -> list[Any]:
    """The inverse of `save_weights`: float32 arrays (inputs, units), (units,), ... in the order of the layers."""
    import numpy as np

    with np.load(task.weights) as arrays:
        return [arrays[name] for name in arrays.files]
