"""Writes a trained model for other programs to run: `python -m trainers.export --model=4D_drop03 --format=onnx`."""

from __future__ import annotations

import sys
from typing import Sequence

from fmnist_zoo.errors import UsageError
from trainers import cli
from trainers.publishing.exporting import Export, ExportError, destination, export
from trainers.publishing.formats import FORMATS
from trainers.running import trained

__all__ = ["Export", "ExportError", "define_flags", "export", "main"]

USAGE = """
Writes a trained model in a format that other programs run, and checks it there against Keras.

    python -m trainers.export --model=4D_drop03 --format=onnx
    python -m trainers.export --run=tb_logs/4D_drop03/<run> --format=tflite --out=garments.tflite

What is written takes (batch, 784) float32 in [0, 1], any batch, and gives (batch, 10) float32 logits: neither softmax
nor temperature is included. A model of your own may take images of (28, 28) or (28, 28, 1); then a line says so.
"""
GROUPS = {
    "What is written": ("model", "run"),
    "How and where": ("format", "out", "overwrite"),
}


def define_flags() -> cli.Flags:
    values = cli.Flags()
    values.text("model", "a name from `python -m fmnist_zoo`: the weights that come with the package")
    values.path("run", "a finished run, such as 4D_drop03/first: its chosen weights")
    values.choice("format", list(FORMATS), "saved_model: a folder, for TensorFlow; tflite: for phones and boards; "
                  "onnx: for ONNX Runtime; keras: for Keras")
    values.path("out", "the file, or the folder of a SavedModel; default: exports/<model>")
    values.switch("overwrite", "replace an --out that exists: a file, or a SavedModel")
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main("export", arguments, usage=USAGE, groups=GROUPS, define_flags=define_flags, body=_main)


def _main(values: cli.Flags) -> int:
    if not values.format:
        raise UsageError(f"which format? --format={'|'.join(FORMATS)}")
    if values.run and values.model:
        raise UsageError("--run and --model both say what is written; drop one")
    if not (values.run or values.model):
        raise UsageError("which model? --model=NAME (`python -m fmnist_zoo` lists them), or --run=FOLDER")
    run, model = values.run or "", values.model or ""
    destination(trained.spec_and_data(run=run, model=model)[0].folder, values.format, values.out, values.overwrite)
    result = export(trained.load(run=run, model=model), values.format, values.out, overwrite=values.overwrite)
    print(f"{result.path}: {result.size / 1e6:.2f} MB, probabilities within {result.difference:.1e} of Keras' on "
          f"{result.images:,} images, {result.runtime}, {result.seconds:.1f} s")
    if len(result.input) > 1:
        print(f"it takes (batch, {', '.join(map(str, result.input))}) float32 in [0, 1]")
    print(f"to run it: {result.example}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
