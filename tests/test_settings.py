"""A setting is written in one place, and appears in flags, columns, spaces, signatures, names and identities."""

import json
import shutil
import subprocess
import sys

import pytest

from fmnist_zoo.errors import SpecError
from fmnist_zoo.settings import OTHER_WORDS, SMALLEST, Choice, Each, Number, Size, Switch, Text, Whole, parse
from tests import make_settings
from tests.conftest import ROOT
from trainers import sweep
from trainers.config import SETTINGS, RunConfig, resolve
from trainers.tuning import plan, study


def test_generated_signature_is_up_to_date():
    assert make_settings.PATH.read_text() == make_settings.text(), "run python -m tests.make_settings"


def test_every_word_for_which_others_are_known_is_ours():
    """A name of a flag, or a value of a setting or of a flag of a sweep."""
    values = {value for known in SETTINGS.values() for value in getattr(known.kind, "values", ())}
    assert set(OTHER_WORDS) <= {*sweep.define_flags(), *values, *plan.TUNERS, *study.OBJECTIVES}


NEW = '''    gradient_noise: float = setting(0.0, Number(below=1.0), "deviation of noise that is added to gradients",
                                     group=TRAINING, column=True, searched=True)
    weights: str = '''
LOOK = '''
import json, sys
from tests import make_settings
from trainers import cli, config, sweep, train
from trainers.board import hparams
from trainers.tuning import space
plain, changed = config.resolve("4L"), config.resolve("4L", gradient_noise=0.25)
values = train.define_flags()
cli.parse(values, ["--gradient_noise=0.1"])
print(json.dumps({
    "given": cli.given_settings(values),
    "help": [any("gradient_noise" in names for names in one.GROUPS.values()) for one in (train, sweep)],
    "column": [hparams.hyperparameters(one, 256)["gradient_noise"] for one in (plain, changed)],
    "declared": "gradient_noise" in hparams._TYPES,
    "space": space.apply(plain, {"gradient_noise": 0.5}).recipe.gradient_noise,
    "searched": space.parse("gradient_noise=0,0.1", plain).text,
    "signature": "gradient_noise: float | None" in make_settings.text(),
    "identity": [one.identity for one in (plain, changed)],
    "differences": config.differences(plain, changed),
}))
'''


def test_new_setting_is_written_in_one_place(tmp_path):
    for package in ("fmnist_zoo", "trainers", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns(
            "__pycache__", "*.gz", "*.safetensors", "fixtures"))
    spec = tmp_path / "fmnist_zoo" / "spec.py"
    text = spec.read_text()
    assert text.count("    weights: str = ") == 1
    spec.write_text(text.replace("    weights: str = ", NEW))
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("identity") == ['{"hidden": [600, 400, 200]}',
                                     '{"gradient_noise": 0.25, "hidden": [600, 400, 200]}']
    assert found == {
        "given": {"gradient_noise": 0.1}, "help": [True, True], "column": [0.0, 0.25], "declared": True, "space": 0.5,
        "searched": "gradient_noise=0.0,0.1", "signature": True,
        "differences": {"gradient_noise": [0.0, 0.25]}}


@pytest.mark.parametrize("kind, text, value", [
    (Number(), "1e-05", 1e-5), (Whole(word="full"), "full", "full"), (Whole(), "7", 7), (Size(), "0.25", 0.25),
    (Choice(("a", "b")), "b", "b"), (Text(), "x y", "x y"), (Switch(), "true", True), (Switch(), "false", False),
    (Each(Number(below=1.0)), "0.3_0.2", (0.3, 0.2)), (Each(Whole(low=1)), "none", ()),
])
def test_each_kind_reads_what_it_writes(kind, text, value):
    assert parse("x", kind, text) == value and kind.write(value) == text
    assert kind.check("x", value) == value


@pytest.mark.parametrize("kind, text", [
    (Number(), "1_0"), (Number(), "nan"), (Number(low=SMALLEST), "0"), (Whole(), "1.0"), (Whole(), "full"),
    (Size(), "1"), (Choice(("a",)), "b"), (Switch(), "yes"), (Each(Number()), "0.1,,0.2"), (Each(Whole(low=1)), "0"),
])
def test_text_that_spells_no_value_is_refused(kind, text):
    with pytest.raises(SpecError, match=rf"x must be .*, received '?{text.split(',')[0]}"):
        parse("x", kind, text)


def test_every_setting_has_help_a_group_and_a_default_it_accepts():
    for name, known in SETTINGS.items():
        assert known.help and known.group and known.kind.check(name, known.default) == known.default


def test_record_without_a_setting_reads_with_its_default():
    fields = resolve("4L", threads=2).get_config()
    del fields["threads"], fields["recipe"]["weights"], fields["spec"]["initializer"]
    assert RunConfig.from_config(fields) == resolve("4L", threads=2)
