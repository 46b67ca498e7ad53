"""The pictures of the documentation, and the tour: `python -m benchmarks.pictures`.

    python -m benchmarks.pictures                      # ten minutes on two cores
    python -m benchmarks.pictures --only=rooms,tour

Runs the commands of the tutorials, on the real data, and copies the pictures that they write to docs/pictures. Runs and
sweeps that the log folder holds already are used. `board` and `hparams` need Debian's chromium and chromium-driver.
`tour` executes docs/tour.ipynb and stores its outputs in it.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import shutil
import sys
import tempfile
from typing import Any, Callable, Sequence

from benchmarks import command, recipes
from fmnist_zoo.errors import ZooError
from fmnist_zoo.files import atomic_write
from trainers import cli, evaluate, sweep, train
from trainers.board.hparams import FILE as DECLARATION
from trainers.running import plotting
from trainers.running.folder import RunFolder

DOCS = command.ROOT / "docs"
RUNS = {"4L": "plain", "4D_drop03": "first"}
SWEEP = "dropout_l2"
SPACE = "dropout=0,0.2,0.4; l2=0,1e-4,1e-3"
SMALL_RUNS = {"softmax": "plain", "2L": "plain"}
RANGES, RANGES_SPACE, TRIALS = "ranges2L", "dropout=0..0.5; l2=log(1e-6..1e-3); learning_rate=log(3e-4..1e-2)", 16
SHIPPED = "4D_drop03"
BEST, WORST = "5L_unrolled", (5, 10)  # the best single network, and how many rows and columns of its worst images
# The rooms of the code from left to right; those of one column do not import each other.
ROOMS = (
    (("fmnist_zoo", "models, data,\nweights, metrics"),),
    (("trainers.config", "settings\nof a run"),),
    (("trainers.engine", "network, loop,\noptimizers"),),
    (("trainers.board", "what TensorBoard\nshows"),),
    (("trainers.running", "from config\nto result"),),
    (("trainers.tuning", "sweeps"), ("trainers.publishing", "evaluate, export"),
     ("trainers.reproduction", "the report")),
    (("commands", "flags"),),
)


def rooms(options: argparse.Namespace) -> None:
    """The rooms, with an arrow from each column to the one that it imports."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.2))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(-0.5, len(ROOMS) - 0.5), ylim=(-1.7, 1.7))
    axis.axis("off")
    for column, names in enumerate(ROOMS):
        for place, (name, content) in enumerate(names):
            height = (len(names) - 1) / 2 - place
            axis.text(column, height, f"{name.removeprefix('trainers.')}\n", ha="center", va="center", weight="bold",
                      fontsize=11)
            axis.text(column, height - 0.14, content, ha="center", va="center", fontsize=8.5)
            axis.add_patch(_box(column, height))
            if column:
                nearest = 0 if len(names) == 1 else height
                axis.annotate("", (column - 0.58, nearest if len(ROOMS[column - 1]) > 1 else height / 3),
                              (column - 0.42, height), arrowprops={"arrowstyle": "->", "color": "0.3"})
    axis.text(0.5, -1.5, "an arrow points to what is imported", ha="left", fontsize=9, color="0.3")
    figure.savefig(DOCS / "pictures" / "rooms.png", dpi=88)


def _box(x: float, y: float) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x - 0.4, y - 0.38), 0.8, 0.76, boxstyle="round,pad=0,rounding_size=0.06", zorder=0,
                          facecolor="#eef1fb", edgecolor="#3f51b5")


def curves(options: argparse.Namespace) -> None:
    """Two runs of the first tutorial in one plot."""
    from trainers import runs

    _do(runs.main, ["--compare", *_finished(options.logdir, RUNS), f"--plot={DOCS / 'pictures' / 'curves.png'}"])


def board(options: argparse.Namespace) -> None:
    """The runs of `curves` in TensorBoard, as `make board` opens it."""
    from benchmarks import browser

    rows = 2 * len(RUNS)
    with tempfile.TemporaryDirectory() as folder:
        _copy_runs(options.logdir, RUNS, folder)
        with browser.served(folder, rows) as link, browser.chromium() as driver:
            browser.opened(driver, link, "timeseries")
            browser.seen(driver, browser.PINNED, lambda cards: len(cards) == 2 and all(n >= rows for _, n in cards))
            driver.save_screenshot(str(DOCS / "pictures" / "board.png"))


def lessons(options: argparse.Namespace) -> None:
    """The plots of the second tutorial's sweep, which continues if it was interrupted."""
    _do(sweep.main, ["--model=4L", f"--name={SWEEP}", "--tuner=grid", "--epochs=10", f"--space={SPACE}",
                     f"--logdir={options.logdir}"])
    with tempfile.TemporaryDirectory() as folder:
        _do(sweep.main, [f"--show={pathlib.Path(options.logdir, 'sweeps', SWEEP)}", f"--report={folder}/sweep.html"])
        for name in ("effects", "interactions"):
            _copy(pathlib.Path(folder, f"sweep-{name}.png"))


def hparams(options: argparse.Namespace) -> None:
    """Two runs and a sweep over ranges in TensorBoard's HParams: the table above the parallel coordinates."""
    from PIL import Image

    from benchmarks import browser

    _do(sweep.main, ["--model=2L", f"--name={RANGES}", "--tuner=random", "--epochs=10", f"--max_trials={TRIALS}",
                     f"--space={RANGES_SPACE}", f"--logdir={options.logdir}"])
    with tempfile.TemporaryDirectory() as folder:
        _finished(options.logdir, SMALL_RUNS)
        _copy_runs(options.logdir, SMALL_RUNS, folder)
        swept = pathlib.Path(folder, "sweeps", RANGES)
        shutil.copytree(pathlib.Path(options.logdir, "sweeps", RANGES), swept)
        shutil.copy(swept / DECLARATION, folder)
        with browser.served(folder, 2 + 2 * len(SMALL_RUNS) + TRIALS) as link, browser.chromium() as driver:
            browser.opened(driver, link, "hparams")
            browser.seen(driver, browser.TABLE, lambda cells: f"#{TRIALS - 1:04} {RANGES}" in cells)
            above = _screenshot(driver)
            browser.seen(driver, browser.PARALLEL, bool)
            browser.seen(driver, browser.LINES, lambda count: count >= len(SMALL_RUNS) + TRIALS)
            below = _screenshot(driver)
    above, below = above.crop((0, 0, above.width, 850)), below.crop((0, 64, below.width, 615))  # what is empty
    both = Image.new("RGB", (above.width, above.height + below.height))
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height))
    both.quantize(128).save(DOCS / "pictures" / "hparams.png", optimize=True)


def _screenshot(driver: Any) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def _finished(logdir: str, named: dict[str, str]) -> list[str]:
    """The folders of runs, trained if they are not there: model to name."""
    folders = [str(pathlib.Path(logdir, model, name)) for model, name in named.items()]
    for folder, (model, name) in zip(folders, named.items()):
        if not RunFolder(folder).result.exists():
            _do(train.main, [f"--model={model}", f"--run_name={name}", f"--logdir={logdir}"])
    return folders


def _copy_runs(logdir: str, named: dict[str, str], folder: str) -> None:
    for model, name in named.items():
        shutil.copytree(pathlib.Path(logdir, model, name), pathlib.Path(folder, model, name))


def trained(options: argparse.Namespace) -> None:
    """What the third tutorial shows of the shipped model: a picture to classify, and its evaluation."""
    from PIL import Image

    from fmnist_zoo import CLASS_NAMES, load_data

    images, labels = load_data(("validation",))["validation"]
    shirt = images[labels == CLASS_NAMES.index("Shirt")][0]
    Image.fromarray(shirt.reshape(28, 28)).resize((112, 112)).save(DOCS / "pictures" / "photo.png")
    _do(evaluate.main, [f"--model={SHIPPED}", f"--logdir={options.logdir}"])
    for name in ("confusion", "reliability"):
        _copy(pathlib.Path(options.logdir, SHIPPED, "shipped", "evaluation", f"{name}.png"))


def worst(options: argparse.Namespace) -> None:
    """The validation images on which the best network has the highest losses: what it says, and the label."""
    import numpy as np
    from matplotlib.figure import Figure

    from fmnist_zoo import CLASS_NAMES, load_data, metrics
    from trainers.publishing.measurement import Measured
    from trainers.running.trained import from_zoo

    best = Measured(from_zoo(BEST))
    labels = best.load("validation")["validation"].labels
    probabilities = metrics.softmax(best.logits("validation") / best.temperature)
    found = np.argsort(probabilities[np.arange(len(labels)), labels])[:WORST[0] * WORST[1]]
    images = load_data(("validation",))["validation"].images[found].reshape(-1, 28, 28)
    figure = Figure(figsize=(1.25 * WORST[1], 1.7 * WORST[0]), layout="constrained")
    for axis, place, image in zip(figure.subplots(*WORST).flat, found, images):
        says = probabilities[place].argmax()
        axis.imshow(255 - image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{CLASS_NAMES[says]} {probabilities[place, says]:.2f}\nlabel: {CLASS_NAMES[labels[place]]}",
                       fontsize=7.5)
        axis.axis("off")
    figure.savefig(DOCS / "pictures" / "worst.png", dpi=100)


def left_out(options: argparse.Namespace) -> None:
    """What the changes to a good recipe are worth: the differences in validation accuracy that benchmarks/recipes.csv
    has, for each seed and their mean."""
    from matplotlib.figure import Figure

    plan, rows = recipes.TABLES["left_out"], recipes.read(recipes.ROWS_FILE)
    accuracies = {text: [rows[key]["accuracy"] for key in keys] for text, keys in plan.keys(recipes.SEEDS).items()}
    differences = {text: [100 * (one - base) for one, base in zip(found, accuracies[""])]
                   for text, found in accuracies.items() if text}
    order = sorted(differences, key=lambda text: sum(differences[text]))
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axis = figure.subplots()
    for place, text in enumerate(order):
        mean = sum(differences[text]) / len(differences[text])
        axis.barh(place, mean, color="#3f51b5" if mean > 0 else "#f57c00", height=0.7, alpha=0.6)
        axis.plot(differences[text], [place] * len(differences[text]), "o", color="0.2", markersize=3)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(range(len(order)), order, fontsize=8.5)
    axis.set_xlabel("validation accuracy less that of the recipe, in points: mean, and each seed")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "pictures" / "left_out.png", dpi=100)


def tour(options: argparse.Namespace) -> None:
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


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    part.__name__: part for part in (rooms, curves, board, lessons, hparams, trained, worst, left_out, tour)}


def _do(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> None:
    if main(arguments):
        raise ZooError(f"a command failed: {' '.join(arguments)}")


def _copy(picture: pathlib.Path) -> None:
    shutil.copyfile(picture, DOCS / "pictures" / picture.name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.make_parser("benchmarks.pictures", __doc__)
    parser.add_argument("--only", type=command.list_of(str), default=list(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--logdir", default="tb_logs")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.only if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")

    def draw() -> int:
        for name in options.only:
            print(f"== {name}", flush=True)
            with plotting.own_settings():
                PARTS[name](options)
        return 0

    return cli.run("pictures", draw)


if __name__ == "__main__":
    sys.exit(main())
