"""JAX on the CPU, as its documentation teaches it: a pure step, `lax.scan` over an epoch's steps under `jit`, optax.

Random bits come from the default generator, threefry: on the CPU `rbg` was not faster. All images are one float32 array
in memory (uint8 was not faster). Parameters and optimizer state are donated, so that they are updated in place.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

from benchmarks.peers import EPSILON, LEARNING_RATE, Clock, Task, read_weights
from fmnist_zoo import get_spec
from fmnist_zoo.spec import ModelSpec


def make_objective(spec: ModelSpec) -> Callable[..., Any]:
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


def run(task: Task, clock: Clock, split: Any) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    spec, random = get_spec(task.model), np.random.default_rng(task.seed)
    pixels, labels = jnp.asarray(split.images, jnp.float32) / 255, jnp.asarray(split.labels, jnp.int32)
    count, batch = len(labels), task.batch_size(len(labels))
    weights = [jnp.asarray(array) for array in read_weights(task)]
    parameters = list(zip(weights[::2], weights[1::2]))
    optimizer, gradient = optax.adam(LEARNING_RATE, eps=EPSILON), jax.value_and_grad(make_objective(spec))
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
