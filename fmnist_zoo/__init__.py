"""fmnist_zoo: fully-connected Keras models for Fashion-MNIST.

    import fmnist_zoo
    fmnist_zoo.list_models("4D*")
    model = fmnist_zoo.build_model("4D_drop03", seed=0)    # new
    model = fmnist_zoo.load_model("4D_drop03")             # trained
    images, labels = fmnist_zoo.load_data().fit            # data.validation: those that are held out
    labels, probabilities = fmnist_zoo.predict("shoe.jpg")

Names that need NumPy or TensorFlow are imported when they are first used, so that listings stay fast.
"""

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"] and __name__ in sys.orig_argv:  # Ctrl-C ends `python -m fmnist_zoo` without a traceback
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    import fcntl  # noqa: F401  (locks on folders)
except ImportError:
    sys.exit("fmnist_zoo runs on Linux and macOS. On Windows use it within WSL2 (`wsl --install`), or in a hosted "
             "notebook such as Colab or Kaggle.")

from fmnist_zoo import catalog as _catalog  # noqa: F401  (registers the models)
from fmnist_zoo.registry import derive, get_recipe, get_spec, list_models, register
from fmnist_zoo.spec import CLASS_NAMES, ModelSpec, Recipe, SpecError
from fmnist_zoo.version import __version__  # noqa: F401

if TYPE_CHECKING:
    from fmnist_zoo.data import Data, DataError, Split, load_data
    from fmnist_zoo.models import build_model, feature_model, load_model
    from fmnist_zoo.prediction import PredictionError, Predictions, predict
    from fmnist_zoo.weights import WeightsError

_LAZY = {
    "Data": "data", "DataError": "data", "Split": "data", "load_data": "data",
    "build_model": "models", "feature_model": "models", "load_model": "models",
    "PredictionError": "prediction", "Predictions": "prediction", "predict": "prediction",
    "WeightsError": "weights",
}

__all__ = [
    "CLASS_NAMES", "Data", "DataError", "ModelSpec", "PredictionError", "Predictions", "Recipe", "SpecError", "Split",
    "WeightsError", "build_model", "derive", "feature_model", "get_recipe", "get_spec", "list_models", "load_data",
    "load_model", "predict", "register",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fmnist_zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fmnist_zoo.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
