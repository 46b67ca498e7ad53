"""The formats in which a model is exported: how each is written, and how its own runtime runs the result.

Importing this file imports neither TensorFlow nor a runtime, so that a missing package is reported at once.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import importlib.util
import pathlib
import re
import warnings
from typing import Any, Callable

import numpy as np

from fmnist_zoo import custom
from fmnist_zoo.errors import UsageError

Runner = Callable[[np.ndarray], np.ndarray]  # float32 in [0, 1], as the model takes them, to (batch, 10) float32 logits

NOISE = re.compile(  # log level "info" of TensorFlow, XNNPACK and ONNX Runtime, and warnings without consequence here
    r"^I\d{4} \d\d:\d\d:\d\d|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I |^INFO: |All log messages before absl::Initialize"
    r"|Ignored (output_format|drop_control_dependency)\.|device_discovery\.cc|cpuid_info\.cc"
    r"|OP_REQUIRES failed at save_restore"  # a full disk, which is also raised
)
_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables/variables.index", "variables/variables.data-*-of-*")


@dataclasses.dataclass(frozen=True)
class Format:
    """How a Keras model of the zoo is written to a path, and how that is opened in the format's own runtime."""

    suffix: str  # of its files' names; without a leading dot, the format is a folder
    packages: tuple[str, ...]  # modules that it needs and that are not installed with the package
    runtime: str  # the module that runs it, whose version is printed
    example: str  # a line of Python that runs `{path}` on `pixels`
    write: Callable[[Any, pathlib.Path], None]  # may leave temporary files beside the path
    load: Callable[[pathlib.Path], Runner]


def find(name: str) -> Format:
    """The format of that name; `UsageError` if there is none, or packages that it needs are not installed."""
    if name not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}, received {name!r}")
    missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(f"{name} needs {' and '.join(missing)}, not installed here: "
                         'pip install "fmnist_zoo[export]"')
    return FORMATS[name]


def version(runtime: str) -> str:
    return f"{runtime} {importlib.import_module(runtime).__version__}"


def is_saved_model(path: pathlib.Path) -> bool:
    """Whether a path is the folder of a SavedModel as written here, with nothing else in it."""
    found = [entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_symlink() or entry.is_file()]
    return not path.is_symlink() and _SAVED_MODEL[0] in found and all(
        any(fnmatch.fnmatchcase(name, part) for part in _SAVED_MODEL) for name in found)


def _load_keras(path: pathlib.Path) -> Runner:
    from fmnist_zoo.backend import keras

    model = keras.saving.load_model(path)
    return lambda pixels: np.asarray(model(pixels, training=False))


def _write_saved_model(model: Any, path: pathlib.Path) -> None:
    """Does what `model.export` does, but does not track the model itself: with it, each weight is stored twice
    (keras-team/keras#23553). The variables that the function uses are tracked anyway."""
    from fmnist_zoo.backend import keras

    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda pixels: model(pixels, training=False), _signature(model))
    archive.write_out(path, verbose=False)


def _signature(model: Any) -> list[Any]:
    """The input of what is written: any batch of images in the shape that the model takes, named `pixels`."""
    from fmnist_zoo.backend import keras

    return [keras.InputSpec(shape=(None, *custom.input_shape(model)), dtype="float32", name="pixels")]


def _load_saved_model(path: pathlib.Path) -> Runner:
    from fmnist_zoo.backend import tf

    loaded = tf.saved_model.load(path)
    return lambda pixels: np.asarray(loaded.serve(pixels))


def _write_tflite(model: Any, path: pathlib.Path) -> None:
    """Converts a SavedModel written beside `path`. Keras' own export to LiteRT writes one too, but to the system's
    temporary folder, and it allows TensorFlow operations, which the plain runtime does not have."""
    from fmnist_zoo.backend import tf

    graph = path.with_name("graph")
    _write_saved_model(model, graph)
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(graph)).convert())


def _load_tflite(path: pathlib.Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(pixels: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(source, pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def _write_onnx(model: Any, path: pathlib.Path) -> None:
    """Exports by Keras and tf2onnx, which name the output `Identity:0` and its batch `unk__7`, and renames both."""
    import onnx

    _teach_erfc()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # Keras checks for it
        model.export(path, format="onnx", verbose=False, input_signature=_signature(model))
    written = onnx.load(path)
    source, target = written.graph.input[0], written.graph.output[0]
    for node in written.graph.node:
        node.output[:] = ["logits" if name == target.name else name for name in node.output]
    target.name = "logits"
    for value in (source, target):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(written, full_check=True)
    path.write_bytes(written.SerializeToString())


def _teach_erfc() -> None:
    """Lets tf2onnx write TensorFlow's operation Erfc, of which its exact GELU is made, as 1 - Erf."""
    import tf2onnx.handler

    def write(ctx: Any, node: Any, **unused: Any) -> None:
        dtype, shape, outputs = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0]), node.output
        one = ctx.make_const(f"{node.name}/one", np.ones((), np.float32)).output[0]
        erf = ctx.make_node("Erf", node.input, dtypes=[dtype], shapes=[shape]).output[0]
        ctx.remove_node(node.name)
        ctx.make_node("Sub", [one, erf], outputs=outputs, dtypes=[dtype], shapes=[shape])

    tf2onnx.handler.tf_op.register_handler(write, 9, ["Erfc"], "", {})  # ONNX has Erf since version 9


def _load_onnx(path: pathlib.Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["logits"], {"pixels": pixels})[0]


FORMATS = {
    "saved_model": Format(
        "_saved_model", (), "tensorflow",
        # The variables live only as long as the loaded object, so it needs a name.
        "import tensorflow as tf; loaded = tf.saved_model.load({path!r}); logits = loaded.serve(pixels)",
        _write_saved_model, _load_saved_model),
    "tflite": Format(
        ".tflite", ("ai_edge_litert",), "ai_edge_litert",
        "from ai_edge_litert.interpreter import Interpreter; "
        "logits = Interpreter({path!r}).get_signature_runner()(pixels=pixels)['output_0']",
        _write_tflite, _load_tflite),
    "onnx": Format(
        ".onnx", ("onnx", "tf2onnx", "onnxruntime"), "onnxruntime",
        "import onnxruntime; logits = onnxruntime.InferenceSession({path!r}).run(None, {{'pixels': pixels}})[0]",
        _write_onnx, _load_onnx),
    "keras": Format(
        ".keras", (), "keras",
        "import keras; logits = keras.saving.load_model({path!r})(pixels)",
        lambda model, path: model.save(path), _load_keras),
}
