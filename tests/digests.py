"""Digests of trained weights, on mini: `python -m tests.digests` writes those of this machine into `digests.json`.

Weights are the same to the bit on processors with the same instructions, under the same TensorFlow. So the file holds
them for each such pair that they were computed on. Run it after numbers were changed on purpose.
"""

import hashlib
import json
import pathlib
import tempfile
from typing import Any

from fmnist_zoo import files
from trainers.engine.processor import vector_instructions
from trainers.running import provenance
from trainers.train import train

PATH = pathlib.Path(__file__).with_suffix(".json")
RUNS: dict[str, dict[str, Any]] = {
    "softmax": dict(epochs=3, seed=0), "2L": dict(epochs=3, seed=1), "4D_drop03": dict(epochs=2, seed=3),
    "network_softmax": dict(epochs=20, seed=1), "4N_512": dict(epochs=2, seed=0),
    "4N_512_mixup": dict(epochs=1, seed=0),
}


def here() -> str:
    """What the digests are of: the processor, a hash of its vector instructions, and TensorFlow's version."""
    instructions = hashlib.sha256(" ".join(vector_instructions()).encode()).hexdigest()[:8]
    return f"{provenance.machine()['cpu']} {instructions}, tensorflow {provenance.versions()['tensorflow']}"


def known() -> dict[str, str]:
    """The digests of this machine by name; none for one that the file does not have."""
    found: dict[str, str] = files.read_json(PATH).get(here(), {})
    return found


def digest(name: str, logdir: str) -> str:
    """SHA-256 of the weights that a run of a model ends with."""
    run = train(name, data="mini", verbose=False, logdir=logdir, **RUNS[name])
    assert run.result
    return str(run.result["weights_sha256"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {name: digest(name, folder) for name in RUNS}
    files.write_json(PATH, {**files.read_json(PATH), here(): found})
    print(json.dumps(found, indent=2))
