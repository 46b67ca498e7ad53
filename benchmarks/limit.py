"""What no engine can do without: a step's bare matrix products, and the bytes that Adam must move.

`benchmarks.epoch` runs this in each of its rounds; a worker is one library and one model and batch size.

- Products: each layer's forward product, the gradient of its kernel, and that of its input but for the pixels, as one
  chain, again and again, on all cores, by each library at hand (TensorFlow in the zoo's environment; NumPy, PyTorch and
  JAX in that of `benchmarks.environment`; NumPy in the zoo's if there is no other). The fastest one counts. An epoch
  has images / batch of them: a smaller last batch is taken in proportion.
- Bytes: a step of Adam reads parameter, two moments and gradient, and writes all but the gradient: 7 float32, 28 bytes
  a parameter. They are divided by the bandwidth of `a += b` on all cores (two reads, one write, in place as Adam's), on
  arrays as large as the 16 bytes a parameter that Adam works on, at least 1 MB (below, starting the threads is all that
  is timed): where those fit in the processor's cache, the bandwidth is the cache's, not the memory's, and the figure
  says so.

The limit is the sum of both. It is a yardstick, not a theorem: activations, masks, gathering images and the loss are
left out, and an engine that overlaps the two might in principle beat it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import sys
import time
from typing import Any, Callable, Sequence

from benchmarks import command, environment
from fmnist_zoo import get_spec
from fmnist_zoo.spec import ModelSpec

LIBRARIES = {"tensorflow": False, "numpy": True, "torch": True, "jax": True}  # name: in the other environment
BYTES_A_PARAMETER, WORKING_BYTES_A_PARAMETER = 28, 16
SAMPLES, SAMPLE_SECONDS = 5, 0.1


def products(spec: ModelSpec, batch: int) -> list[tuple[int, int, int]]:
    """A step's products as (m, k, n): an (m, k) matrix times a (k, n) one."""
    layers = list(zip(spec.widths, spec.widths[1:]))
    forward = [(batch, fan_in, fan_out) for fan_in, fan_out in layers]
    kernels = [(fan_in, batch, fan_out) for fan_in, fan_out in layers]
    inputs = [(batch, fan_out, fan_in) for fan_in, fan_out in layers[1:]]
    return forward + kernels + inputs


def flops(spec: ModelSpec, batch: int) -> int:
    """Floating-point operations of a step's products: a multiplication and an addition each."""
    return sum(2 * m * k * n for m, k, n in products(spec, batch))


def adam_bytes(spec: ModelSpec) -> int:
    """Bytes that a step of Adam reads and writes."""
    return BYTES_A_PARAMETER * spec.parameters


def working_set(spec: ModelSpec) -> int:
    """Bytes of parameters, moments and gradients."""
    return WORKING_BYTES_A_PARAMETER * spec.parameters


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_bytes() -> int:
    """The processor's largest cache, as Linux tells it; 0 if it does not."""
    sizes = [path.read_text().strip() for path in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("*/size")]
    units = {"K": 2**10, "M": 2**20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def seconds_a_turn(run: Callable[[int], Any]) -> float:
    """The median time of one turn of `run(turns)`, of samples that take long enough to be timed."""
    def timed(turns: int) -> float:
        started = time.perf_counter()
        run(turns)
        return time.perf_counter() - started

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
            np.add(*pair, out=pair[0])  # lets go of the interpreter's lock while it runs

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        seconds = seconds_a_turn(lambda turns: list(pool.map(lambda pair: add(pair, turns), pairs)))
    return 12 * length * cores() / seconds


def _arrays(spec: ModelSpec, batch: int) -> tuple[Any, list[Any]]:
    """Pixels (batch, 784) and kernels, float32, of a size that stays finite through the chain."""
    import numpy as np

    random = np.random.default_rng(0)
    kernels = [random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
               for shape in zip(spec.widths, spec.widths[1:])]
    return random.random((batch, spec.widths[0]), np.float32), kernels


def _chain(multiply: Callable[..., Any], pixels: Any, kernels: Sequence[Any]) -> list[Any]:
    """All products of a step; returns the kernels' gradients. `multiply(a, b, a turned, b turned)`."""
    flows = [pixels]
    for kernel in kernels:
        flows.append(multiply(flows[-1], kernel, False, False))
    back, gradients = flows.pop(), []
    for index in range(len(kernels) - 1, -1, -1):
        gradients.append(multiply(flows[index], back, True, False))
        if index:
            back = multiply(back, kernels[index], False, True)
    return gradients


def _eager(multiply: Callable[..., Any], pixels: Any, kernels: Sequence[Any]) -> Callable[[int], Any]:
    def run(turns: int) -> None:
        for _ in range(turns):
            _chain(multiply, pixels, kernels)

    return run


def _numpy(spec: ModelSpec, batch: int) -> Callable[[int], Any]:
    return _eager(lambda a, b, turn_a, turn_b: (a.T if turn_a else a) @ (b.T if turn_b else b), *_arrays(spec, batch))


def _torch(spec: ModelSpec, batch: int) -> Callable[[int], Any]:
    import torch

    pixels, kernels = _arrays(spec, batch)
    return _eager(lambda a, b, turn_a, turn_b: torch.mm(a.t() if turn_a else a, b.t() if turn_b else b),
                  torch.from_numpy(pixels), [torch.from_numpy(kernel) for kernel in kernels])


def _tensorflow(spec: ModelSpec, batch: int) -> Callable[[int], Any]:
    command.free_threads()
    from fmnist_zoo.backend import tf

    arrays = _arrays(spec, batch)
    pixels, kernels = tf.Variable(arrays[0]), [tf.Variable(kernel) for kernel in arrays[1]]

    @tf.function
    def loop(turns: Any) -> Any:
        total = tf.zeros(())
        for _ in tf.range(turns):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)  # one step after another
            gradients = _chain(lambda a, b, turn_a, turn_b: tf.matmul(a, b, turn_a, turn_b), pixels, kernels)
            total += tf.add_n([gradient[0, 0] for gradient in gradients])  # so that none is optimized away
        return total

    return lambda turns: loop(tf.constant(turns)).numpy()


def _jax(spec: ModelSpec, batch: int) -> Callable[[int], Any]:
    import jax
    import jax.numpy as jnp

    arrays = _arrays(spec, batch)
    pixels, kernels = jnp.asarray(arrays[0]), [jnp.asarray(kernel) for kernel in arrays[1]]

    def turn(_: Any, state: Any) -> Any:
        pixels, kernels, _ = state
        gradients = _chain(lambda a, b, turn_a, turn_b: (a.T if turn_a else a) @ (b.T if turn_b else b), pixels,
                           kernels)
        # The next turn's pixels hang on this one's results: else the loop would be taken apart.
        return pixels.at[0, 0].set(jnp.tanh(gradients[-1][0, 0])), kernels, gradients

    @jax.jit
    def loop(turns: Any, pixels: Any, kernels: Any) -> Any:
        empty = [jnp.zeros_like(kernel) for kernel in kernels[::-1]]
        return jax.lax.fori_loop(0, turns, turn, (pixels, kernels, empty))[2]

    return lambda turns: jax.block_until_ready(loop(turns, pixels, kernels))


def measure(library: str, spec: ModelSpec, batch: int) -> dict[str, Any]:
    """What a worker answers: seconds of a step's products, and with NumPy bytes a second for Adam."""
    make = {"tensorflow": _tensorflow, "numpy": _numpy, "torch": _torch, "jax": _jax}[library]
    answer: dict[str, Any] = {"library": library, "step_seconds": seconds_a_turn(make(spec, batch))}
    if library == "numpy":
        answer.update(bandwidth=bandwidth(working_set(spec)), cache=cache_bytes())
    answer["version"] = sys.modules[library].__version__
    return answer


def ask(model: str, batch: int) -> list[dict[str, Any]]:
    """The answers of all libraries at hand, each from a process of its own."""
    there = not environment.trouble()
    answers = []
    for library, outside in LIBRARIES.items():
        if outside and not there and library != "numpy":
            continue
        python = environment.python() if outside and there else sys.executable
        answers.append(command.ask(["benchmarks.limit", f"--library={library}", f"--model={model}", f"--batch={batch}"],
                                   f"the limit by {library} on {model} at batch {batch}", python))
    return answers


def main(arguments: Sequence[str] | None = None) -> int:
    """A worker: answers a line of JSON; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=tuple(LIBRARIES), default="numpy")
    parser.add_argument("--model", type=command.model, default="4D_drop03", help="a name from `python -m fmnist_zoo`")
    parser.add_argument("--batch", type=command.count, default=256, help="images an update")
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.library, get_spec(options.model), options.batch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
