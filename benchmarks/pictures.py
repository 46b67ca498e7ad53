"""The pictures of the documentation, and the tour: `python -m benchmarks.pictures`.

    python -m benchmarks.pictures                      # ten minutes on two cores
    python -m benchmarks.pictures --only worst tour

Runs the commands of the tutorials, on the real data, and copies the pictures that they write to docs/pictures. Runs and
sweeps that the log folder holds already are used. `board` and `hparams` need Debian's chromium and chromium-driver.
`tour` executes docs/tour.ipynb and stores its outputs in it.
"""

from __future__ import annotations

import io
import pathlib
import shutil
import sys
import tempfile
from typing import Callable, Sequence

from benchmarks import command
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write
from trainers import cli, evaluate, sweep, train
from trainers.running.folder import RunFolder

DOCS = command.ROOT / "docs"
PICTURES = DOCS / "pictures"
RUNS = {"4L": "tutorial", "4D_drop03": "tutorial"}  # of the first tutorial: model to name
SMALL_RUNS = {"softmax": "plain", "2L": "plain"}
SHIPPED = "4D_drop03"
BEST, WORST = "5L_unrolled", 48  # the best single network, and how many of its worst images


def curves(logdir: pathlib.Path) -> None:
    """Two runs of the first tutorial in one plot."""
    from trainers import runs

    _do(runs.main, "--compare", *_finished(logdir / "curves", RUNS), f"--plot={PICTURES / 'curves.png'}")


def compare(logdir: pathlib.Path) -> None:
    """The same two models with five seeds each, on the mini set."""
    from trainers import runs

    for model in RUNS:
        _do(train.main, f"--model={model}", "--seeds=5", "--data=mini", "--run_name=mini", f"--logdir={logdir}")
    _do(runs.main, "--compare", *(str(logdir / model / "mini") for model in RUNS), f"--plot={PICTURES / 'compare.png'}")


def board(logdir: pathlib.Path) -> None:
    """The same runs in TensorBoard, as `make board` opens it."""
    from benchmarks import browser

    rows = 2 * len(_finished(logdir / "curves", RUNS))
    with browser.served(logdir / "curves", rows) as link, browser.chromium() as driver:
        browser.opened(driver, link, "timeseries")
        browser.seen(driver, browser.PINNED, lambda cards: len(cards) == 2 and all(n >= rows for _, n in cards))
        driver.save_screenshot(str(PICTURES / "board.png"))


def lessons(logdir: pathlib.Path) -> None:
    """The plots of the second tutorial's sweep, which continues if it was interrupted."""
    _do(sweep.main, "--model=4L", "--name=dropout_l2", "--tuner=grid", "--epochs=10",
        "--space=dropout=0,0.2,0.4; l2=0,1e-4,1e-3", f"--logdir={logdir}")
    with tempfile.TemporaryDirectory() as folder:
        _do(sweep.main, f"--show={logdir / 'sweeps' / 'dropout_l2'}", f"--report={folder}/sweep.html")
        for name in ("effects", "combinations"):
            shutil.copy(pathlib.Path(folder, f"sweep-{name}.png"), PICTURES)


def hparams(logdir: pathlib.Path) -> None:
    """Two runs and a sweep over ranges in TensorBoard's HParams: the table above the parallel coordinates."""
    from PIL import Image

    from benchmarks import browser

    logdir, name, trials = logdir / "hparams", "ranges2L", 16
    runs = len(_finished(logdir, SMALL_RUNS))
    _do(sweep.main, "--model=2L", f"--name={name}", "--tuner=random", "--epochs=10", f"--max_trials={trials}",
        "--space=dropout=0..0.5; l2=log(1e-6..1e-3); learning_rate=log(3e-4..1e-2)", f"--logdir={logdir}")
    with browser.served(logdir, 2 + 2 * runs + trials) as link, browser.chromium() as driver:
        browser.opened(driver, link, "hparams")
        browser.seen(driver, browser.TABLE, lambda cells: f"#{trials - 1:04}" in cells)
        above = driver.get_screenshot_as_png()
        browser.seen(driver, browser.PARALLEL, bool)
        browser.seen(driver, browser.LINES, lambda count: count >= trials)
        below = driver.get_screenshot_as_png()
    both = Image.new("RGB", (1500, 1401))
    for shot, (top, bottom), place in ((above, (0, 850), 0), (below, (64, 615), 850)):  # the rest is empty
        both.paste(Image.open(io.BytesIO(shot)).convert("RGB").crop((0, top, 1500, bottom)), (0, place))
    both.quantize(128).save(PICTURES / "hparams.png", optimize=True)


def _finished(logdir: pathlib.Path, named: dict[str, str]) -> list[str]:
    """The folders of runs, model to name, trained if they are not there."""
    for model, name in named.items():
        if not RunFolder(logdir / model / name).result.exists():
            _do(train.main, f"--model={model}", f"--run_name={name}", f"--logdir={logdir}")
    return [str(logdir / model / name) for model, name in named.items()]


def trained(logdir: pathlib.Path) -> None:
    """What the third tutorial shows of the shipped model: a picture to classify, and its evaluation."""
    from PIL import Image

    from fmnist_zoo import CLASS_NAMES, load_data

    images, labels = load_data(("validation",))["validation"]
    shirt = images[labels == CLASS_NAMES.index("Shirt")][0]
    Image.fromarray(shirt.reshape(28, 28)).resize((112, 112)).save(PICTURES / "photo.png")
    _do(evaluate.main, f"--model={SHIPPED}", f"--logdir={logdir}")
    for name in ("confusion", "reliability"):
        shutil.copy(logdir / SHIPPED / "shipped" / "test" / f"{name}.png", PICTURES)


def worst(logdir: pathlib.Path) -> None:
    """The validation images on which the best network has the highest losses."""
    import numpy as np

    from fmnist_zoo import load_data, metrics
    from trainers.board import pictures
    from trainers.publishing.measurement import Measured
    from trainers.running.trained import from_zoo

    best = Measured(from_zoo(BEST))
    images, labels = load_data(("validation",))["validation"]
    logits = best.logits("validation") / best.temperature
    losses = metrics.cross_entropy(logits, labels)
    found = np.argsort(-losses, kind="stable")[:WORST]
    pictures.worst(images[found], labels[found], logits[found].argmax(axis=1), losses[found]).save(
        PICTURES / "worst.png", optimize=True)


def tour(logdir: pathlib.Path) -> None:
    """Executes the notebook in an empty folder, and stores its outputs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of this execution
    with atomic_write(DOCS / "tour.ipynb") as file:
        file.write(nbformat.writes(notebook).encode() + b"\n")


PARTS: dict[str, Callable[[pathlib.Path], None]] = {
    part.__name__: part for part in (curves, compare, board, lessons, hparams, trained, worst, tour)}


def _do(main: Callable[[Sequence[str]], int], *arguments: str) -> None:
    if main(arguments):
        raise ZooError(f"a command failed: {' '.join(arguments)}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.pictures", __doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--logdir", type=pathlib.Path, default="tb_logs/pictures")
    options = parser.parse_args(arguments)

    def draw() -> int:
        for name in options.only:
            print(f"== {name}", flush=True)
            PARTS[name](options.logdir)
        return 0

    return cli.run("pictures", draw)


if __name__ == "__main__":
    sys.exit(main())
