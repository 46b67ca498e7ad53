"""What no engine can avoid: a step's bare matrix products, and the bytes that Adam must move.

`benchmarks.epoch` measures this in each of its rounds, each library in a process of its own.

- Products: each layer's forward product, the gradient of its kernel, and that of its input except for the pixels, as
  one chain, repeated, on all cores, by TensorFlow, NumPy and, if its environment exists, JAX. The fastest one counts.
  An epoch has images / batch such chains: a smaller last batch counts in proportion.
- Bytes: a step of Adam reads parameter, two moments and gradient, and writes all but the gradient: 7 float32, 28 bytes
  a parameter. They are divided by the bandwidth of `a += b` on all cores (two reads and one write, in place as Adam's),
  on arrays as large as the 16 bytes a parameter that Adam works on, at least 1 MB (below that, starting the threads
  takes most of the time). If those fit in the processor's cache, the bandwidth is the cache's.

The limit is the sum of both. It is a yardstick, not a theorem: activations, masks, gathering images and the loss are
left out, and an engine that overlaps products and bytes might beat it.
"""

from __future__ import annotations

import concurrent.futures
import statistics
import sys
import timeit
from typing import Any, Callable, Sequence

from fmnist_zoo.spec import ModelSpec
from trainers.engine.processor import cores

BYTES_A_PARAMETER, WORKING_BYTES_A_PARAMETER = 28, 16  # of Adam
SAMPLES, SAMPLE_SECONDS = 5, 0.1


def seconds_a_turn(run: Callable[[int], Any]) -> float:
    """The median time of one turn of `run(turns)`, over samples that take long enough to be timed."""
    def timed(turns: int) -> float:
        return timeit.timeit(lambda: run(turns), number=1)

    run(1)  # compiles, warms up
    turns, took = 1, timed(1)
    while took < SAMPLE_SECONDS:
        turns = max(2 * turns, int(turns * min(100, SAMPLE_SECONDS / max(took, 1e-6))))
        took = timed(turns)
    return statistics.median(timed(turns) / turns for _ in range(SAMPLES))


def bandwidth(size: int) -> float:
    """Bytes a second of `a += b` on all cores; `a` and `b` are `size` bytes together."""
    import numpy as np

    length = max(size, 2**20) // 8 // cores()
    pairs = [(np.zeros(length, np.float32), np.zeros(length, np.float32)) for _ in range(cores())]

    def add(pair: tuple[Any, Any], turns: int) -> None:
        for _ in range(turns):
            np.add(*pair, out=pair[0])  # releases the interpreter's lock

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        seconds = seconds_a_turn(lambda turns: list(pool.map(lambda pair: add(pair, turns), pairs)))
    return 12 * length * cores() / seconds


def arrays(spec: ModelSpec, batch: int) -> tuple[Any, list[Any]]:
    """Pixels (batch, 784) and kernels, float32, scaled so that the chain stays finite."""
    import numpy as np

    random = np.random.default_rng(0)
    kernels = [random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
               for shape in zip(spec.widths, spec.widths[1:])]
    return random.random((batch, spec.widths[0]), np.float32), kernels


def chain(multiply: Callable[..., Any], pixels: Any, kernels: Sequence[Any]) -> list[Any]:
    """All products of a step; returns the kernels' gradients. `multiply(a, b, transpose_a, transpose_b)`."""
    flows = [pixels]
    for kernel in kernels:
        flows.append(multiply(flows[-1], kernel, False, False))
    back, gradients = flows.pop(), []
    for index in range(len(kernels) - 1, -1, -1):
        gradients.append(multiply(flows[index], back, True, False))
        if index:
            back = multiply(back, kernels[index], False, True)
    return gradients


def multiply(a: Any, b: Any, transpose_a: bool, transpose_b: bool) -> Any:
    """For arrays of NumPy and JAX."""
    return (a.T if transpose_a else a) @ (b.T if transpose_b else b)


def _numpy(pixels: Any, kernels: Sequence[Any]) -> Callable[[int], Any]:
    def run(turns: int) -> None:
        for _ in range(turns):
            chain(multiply, pixels, kernels)

    return run


def _tensorflow(pixels: Any, kernels: Sequence[Any]) -> Callable[[int], Any]:
    from fmnist_zoo.backend import tf

    pixels, kernels = tf.Variable(pixels), [tf.Variable(kernel) for kernel in kernels]

    @tf.function
    def loop(turns: Any) -> Any:
        total = tf.zeros(())
        for _ in tf.range(turns):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)  # one step after another
            gradients = chain(tf.matmul, pixels, kernels)
            total += tf.add_n([gradient[0, 0] for gradient in gradients])  # so that none is optimized away
        return total

    return lambda turns: loop(tf.constant(turns)).numpy()


def _jax(pixels: Any, kernels: Sequence[Any]) -> Callable[[int], Any]:
    import jax
    import jax.numpy as jnp

    pixels, kernels = jnp.asarray(pixels), [jnp.asarray(kernel) for kernel in kernels]

    def turn(_: Any, state: Any) -> Any:
        pixels, kernels, _ = state
        gradients = chain(multiply, pixels, kernels)
        # The next turn's pixels depend on this turn's result, so that XLA cannot move products out of the loop.
        return pixels.at[0, 0].set(jnp.tanh(gradients[-1][0, 0])), kernels, gradients

    @jax.jit
    def loop(turns: Any, pixels: Any, kernels: Any) -> Any:
        empty = [jnp.zeros_like(kernel) for kernel in kernels[::-1]]
        return jax.lax.fori_loop(0, turns, turn, (pixels, kernels, empty))[2]

    return lambda turns: jax.block_until_ready(loop(turns, pixels, kernels))


LIBRARIES = {"tensorflow": _tensorflow, "numpy": _numpy, "jax": _jax}


def measure(library: str, spec: ModelSpec, batch: int) -> dict[str, Any]:
    """Seconds of a step's products by `library`; with NumPy also the bandwidth in bytes a second."""
    run = LIBRARIES[library](*arrays(spec, batch))
    answer: dict[str, Any] = {"library": library, "step_seconds": seconds_a_turn(run)}
    if library == "numpy":
        answer["bandwidth"] = bandwidth(WORKING_BYTES_A_PARAMETER * spec.parameters)
    answer["version"] = sys.modules[library].__version__
    return answer
