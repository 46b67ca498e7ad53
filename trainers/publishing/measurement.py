"""What trained models predict of the images of their data, alone or as an ensemble, and how good that is.

Only this module and `fmnist_zoo.data` name the split `test`: training, sweeps and the choice of an epoch never see its
images. TensorFlow is imported when a model first predicts.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import time
from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from fmnist_zoo import metrics, statistics
from fmnist_zoo.spec import CLASS_NAMES
from trainers.running import provenance, trained
from trainers.running.trained import Trained

if TYPE_CHECKING:
    from fmnist_zoo.data import Data, Split


class DataSets:
    """The data that models are measured on. Each split is read once, whatever the number of models.

    Args:
        data_dir: where the data are; None: where each run had them.
    """

    def __init__(self, data_dir: str | None = None) -> None:
        self.data_dir = data_dir
        self._read: dict[Any, Data] = {}

    def load(self, subject: Trained, split: str) -> Data:
        """A split of the data of a model; raises as `trained.load_data`."""
        key = repr((split, subject.data_settings, subject.data.get("sha256"), subject.data.get("split_sha256")))
        if key not in self._read:
            self._read[key] = trained.load_data(subject, split, self.data_dir)
        return self._read[key]


class Measured:
    """A trained model with what it predicts of each split; whatever is computed is computed once.

    Attributes:
        subject: the model; of an ensemble the first member.
        data_sets: shared by all models that are measured together.
    """

    def __init__(self, subject: Trained, data_sets: DataSets | None = None) -> None:
        self.subject, self.data_sets = subject, data_sets or DataSets()
        self._logits: dict[str, np.ndarray] = {}

    def split(self, name: str) -> Split:
        """The images of a split, with their labels; raises as `trained.load_data`."""
        return self.data_sets.load(self.subject, name)[name]

    def logits(self, split: str) -> np.ndarray:
        """(n, 10), to be divided by `temperature`; raises as `trained.load_data`."""
        if split not in self._logits:
            self._logits[split] = self._predict(split)
        return self._logits[split]

    def _predict(self, split: str) -> np.ndarray:
        from fmnist_zoo import prediction

        return prediction.outputs_of(self.subject.model, prediction.as_pixels(self.split(split).images))

    @functools.cached_property
    def temperature(self) -> float:
        """Divides the logits to calibrate them; fitted on the validation images if the model does not bring it.

        It is 1 if there are no such images: for runs that held out none or were trained on arrays from Python, and for
        shipped models on the mini set, which they may have been trained on.
        """
        if self.subject.temperature is not None:
            return self.subject.temperature
        return self._fit([self.subject])

    def _fit(self, members: Sequence[Trained]) -> float:
        if not all(member.data and member.data_settings for member in members):
            return 1.0
        labels = self.split("validation").labels
        return metrics.fit_temperature(self.logits("validation"), labels) if len(labels) else 1.0

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """The content of `evaluation.json`: whose figures these are, `figures`, the environment and the date.

        Raises:
            TrainedError: if the data are not those that the model was trained on, or are split differently.
            DataError: if the data cannot be found or read.
        """
        temperature = self.temperature  # first: other data are refused before the test images are opened
        found = self.data_sets.load(self.subject, "test")
        return {**self._identity(found), "data": {"name": found.name, "sha256": found.sha256},
                **figures(self.logits("test"), found["test"].labels, temperature),
                "environment": provenance.record(), "date": time.strftime("%Y-%m-%d")}

    def _identity(self, found: Data) -> dict[str, Any]:
        one = self.subject
        return {"title": one.title, "model": one.spec.name, "seed": one.seed, "weights_sha256": one.weights_sha256}

    @property
    def tested(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the test images: probabilities (n, 10) by the calibrated model, and labels (n,)."""
        return metrics.softmax(self.logits("test") / self.temperature), self.split("test").labels

    @property
    def correct(self) -> np.ndarray:
        """Which test images are classified correctly, (n,) bool."""
        return self.logits("test").argmax(axis=1) == self.split("test").labels

    @property
    def epoch(self) -> int:
        """Of the weights, on TensorBoard's x axis."""
        return self.subject.epoch


class Ensemble(Measured):
    """Several models that predict together: the mean of their probabilities, with a temperature of its own.

    `TrainedError` for fewer than two members, or if they were trained on other data or held out other images.
    """

    def __init__(self, members: Sequence[Measured]) -> None:
        trained.check_ensemble({one.subject.title: one.subject.data for one in members})
        super().__init__(members[0].subject, members[0].data_sets)
        self.members = list(members)

    def _predict(self, split: str) -> np.ndarray:
        return metrics.mean_of_models([one.logits(split) for one in self.members])

    @functools.cached_property
    def temperature(self) -> float:
        return self._fit([one.subject for one in self.members])

    def _identity(self, found: Data) -> dict[str, Any]:
        """Also `mcnemar` against the best member: no choice of a member could make that test easier.

        The name, such as `4D_drop03x2+4L-1a2b3c4d`, is a folder's. It ends with a digest of weights and data, in any
        order of members, so that another ensemble does not replace this one.
        """
        subjects = [one.subject for one in self.members]
        digest = hashlib.sha256("".join(sorted(one.weights_sha256 for one in subjects)).encode()).hexdigest()
        counts = sorted(collections.Counter(one.spec.name for one in subjects).items())
        names = "+".join(name if count == 1 else f"{name}x{count}" for name, count in counts)
        short = hashlib.sha256(f"{digest}{found.sha256}".encode()).hexdigest()[:8]
        name = f"{names if len(names) <= 60 else f'{len(subjects)}_models'}-{short}"
        return {"title": f"ensemble of {len(subjects)}", "model": name, "name": name, "weights_sha256": digest,
                "members": [{"title": one.title, "model": one.spec.name, "seed": one.seed,
                             "weights_sha256": one.weights_sha256} for one in subjects],
                "best_member": self.best.report["title"], "mcnemar": mcnemar(self, self.best)}

    @functools.cached_property
    def best(self) -> Measured:
        """The member with the highest test accuracy; of equal ones, the lowest NLL."""
        return max(self.members, key=lambda one: (one.report["accuracy"], -one.report["nll"]))

    @property
    def epoch(self) -> int:
        return max(one.epoch for one in self.members)


def mcnemar(first: Measured, second: Measured) -> dict[str, Any]:
    """McNemar's test of two models, for a report: `against`, `alone` and `other` (images that only the first, or only
    the second, got right), `p`."""
    alone, other, p = statistics.mcnemar(first.correct, second.correct)
    return {"against": second.report["title"], "alone": alone, "other": other, "p": p}


def figures(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """What is measured of logits (n, 10) and labels (n,), ready for JSON: NLL in nats, ECE over 15 bins.

    Those named `*_calibrated` are of logits / temperature.
    """
    matrix, share = metrics.confusion_matrix(logits, labels), metrics.accuracy(logits, labels)
    columns = {name: values.tolist() for name, values in metrics.by_class(matrix).items()}
    calibrated = logits / temperature
    return {
        "images": len(labels), "accuracy": share, "accuracy_95": metrics.accuracy_interval(share, len(labels)),
        "top_2_accuracy": metrics.top_k_accuracy(logits, labels, 2),
        "rounded_accuracy": metrics.rounded_accuracy(logits, labels)["value"],
        "nll": metrics.mean_cross_entropy(logits, labels), "ece": metrics.expected_calibration_error(logits, labels),
        "temperature": temperature, "nll_calibrated": metrics.mean_cross_entropy(calibrated, labels),
        "ece_calibrated": metrics.expected_calibration_error(calibrated, labels),
        "classes": {name: {column: values[index] for column, values in columns.items()}
                    for index, name in enumerate(CLASS_NAMES)},
        "confusion": matrix.tolist(),
        "reliability": {name: values.tolist() for name, values in metrics.reliability(logits, labels).items()},
    }
