"""Reading back what a run left on disk."""

import contextlib
import csv
import json
import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import time
import urllib.request

from tensorboard.compat.proto import event_pb2

from fmnist_zoo import list_models, tensors
from fmnist_zoo.files import read_json
from trainers.running import checkpoint, progress, run
from trainers.running.folder import RunFolder

OF_THE_REPORT = list_models()[:list_models().index("4N_512")]  # the catalog lists what goes beyond it last
TIMES = ("seconds", "images_per_second")
SECONDS = 300  # far more than anything that is waited for takes on an idle machine


def until(condition, why=lambda: ""):
    """Waits until the condition holds; fails after `SECONDS` with what `why` returns."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, why()
        time.sleep(0.02)


def children_of(pid):
    """Ids of the processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in found.split()]


def outside_make():
    """The environment without what a `make` around the tests left there: a `make` within would print its folder."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def free_port():
    """A free port of this machine, below the range from which Linux assigns ports to clients."""
    while True:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(20_000, 30_000)))
            return free.getsockname()[1]


def listens(port):
    """Whether something on this machine accepts connections there."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def session_groups(link):
    """All that the HParams tab of the TensorBoard behind a link shows."""
    ask = {"experimentName": "", "colParams": [], "startIndex": 0, "sliceSize": 5000, "includeMetrics": True,
           "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]}
    request = urllib.request.Request(link.split("?")[0] + "data/plugin/hparams/session_groups",
                                     json.dumps(ask).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["sessionGroups"]


def events(folder):
    """All events of one folder, oldest file first; every byte of every file must belong to a record."""
    found = []
    for path in sorted(pathlib.Path(folder).glob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            assert place + length + 16 <= len(content), f"{path} ends within a record"
            found.append(event_pb2.Event.FromString(content[place + 12:place + 12 + length]))
            place += length + 16
    return found


def summaries(folder):
    """Tag to a list of (step, value) of one folder."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    return found


def scalars(folder):
    """Tag to {step: float} for the scalars of one folder; a step that was written twice fails."""
    found = {}
    for tag, values in summaries(folder).items():
        if values[0][1].metadata.plugin_data.plugin_name == "scalars":
            steps = [step for step, _ in values]
            assert len(steps) == len(set(steps)), f"{tag} was written twice at one step"
            found[tag] = {step: struct.unpack("<f", value.tensor.tensor_content)[0] if value.tensor.tensor_content
                          else value.tensor.float_val[0] for step, value in values}
    return found


def refused(capsys, main, *flags):
    """The one line with which a command refuses its flags; it prints nothing else."""
    assert main(list(map(str, flags))) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"\w+: .+\n", captured.err) and not captured.out, captured
    return captured.err.rstrip()


def change(path, how):
    """Changes a record; it is then without a digest, as if a person had edited it on purpose."""
    content = read_json(path)
    how(content)
    pathlib.Path(path).write_text(json.dumps(content))


def rows_without_times(folder):
    """`metrics.csv` as text cells, less the two columns that equal runs may differ in."""
    with open(pathlib.Path(folder) / "metrics.csv", newline="") as file:
        return [{name: cell for name, cell in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def execute(path, config, should_stop, reporter=None):
    """Trains the run in a folder, which is made if it is missing."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True, exist_ok=True)
    with run.opened(folder) as found:
        return run.execute(found, config, reporter=reporter or progress.Reporter(), should_stop=should_stop)


def state_digest(folder):
    """SHA-256 of all arrays of a run's checkpoint: weights, optimizer state, best weights."""
    found = checkpoint_of(folder)
    return tensors.digest_of(found.state) + tensors.digest_of(found.best)


def checkpoint_of(folder):
    return checkpoint.load(pathlib.Path(folder) / "checkpoints" / "latest.safetensors")


def run_outcome(folder):
    """All that must be equal of two equal runs, as JSON holds it: weights, optimizer, rows, result, curves."""
    result = json.loads((pathlib.Path(folder) / "result.json").read_text(encoding="utf-8"))
    curves = {part: {tag: values for tag, values in scalars(pathlib.Path(folder) / part).items()
                     if not tag.startswith("speed/")} for part in ("", "train")}
    return plain({"state": state_digest(folder), "rows": rows_without_times(folder), "curves": curves,
                  **{name: result.get(name) for name in ("final", "weights_sha256", "epochs", "stopped_early")}})


def assert_equal_runs(one, other):
    """Two runs are equal to the bit, but for their times."""
    found = difference(run_outcome(other), run_outcome(one))
    assert found is None, found


def plain(content):
    """The content as JSON gives it back."""
    return json.loads(json.dumps(content))


def difference(expected, found, place=""):
    """The first place at which two contents of JSON differ, in one line; None if they are equal."""
    if type(expected) is not type(found) or not isinstance(expected, (dict, list)):
        same = expected == found and type(expected) is type(found)
        return None if same else f"{place or 'it'} is {found!r:.200}, undisturbed {expected!r:.200}"
    keys = {*expected, *found} if isinstance(expected, dict) else range(max(len(expected), len(found)))
    for key in sorted(keys):
        ours, theirs = (one.get(key, "missing") if isinstance(one, dict) else one[key] if key < len(one) else "missing"
                        for one in (expected, found))
        if what := difference(ours, theirs, f"{place}.{key}".strip(".")):
            return what
    return None
