"""What the campaign's part `fuzz` found: its corpus is tried again, and so are a few new inputs of each target."""

import json

import pytest

from fmnist_zoo.errors import UsageError
from tests.campaign import inputs, mutators
from tests.campaign.targets import command, refused
from trainers.config import RunConfig, resolve

TARGETS = inputs.targets()
NEW = 25  # inputs of a target


@pytest.mark.parametrize("name", TARGETS)
def test_what_failed_once_and_new_inputs_are_taken_or_refused(name, tmp_path):
    target = TARGETS[name]
    known = [(said, content) for one, said, content in inputs.corpus() if one == name]
    with inputs.prepared(target, tmp_path):
        made = [("new", target.make(inputs.generator(name, 0, -1, index))) for index in range(NEW)]
        found = [(said, content[:200], failure) for said, content in known + made
                 if (failure := inputs.failure(target, content))]
    assert not found


def test_corpus_is_small():
    assert sum(path.stat().st_size for path in inputs.CORPUS.iterdir()) < 500_000
    assert {name for name, _, _ in inputs.corpus()} <= set(TARGETS)


def test_a_wrong_answer_a_crash_and_a_loop_are_failures(tmp_path):
    class Wrong(inputs.Target):
        def check(self, content):
            if content == b"loop":
                while True:
                    pass
            refused(lambda: (_ for _ in ()).throw(UsageError(content.decode())))

    with inputs.prepared(Wrong(), tmp_path):
        assert inputs.failure(Wrong(), b"one line") is None
        assert "a refusal that says nothing" in inputs.failure(Wrong(), b"")
        assert "UnicodeDecodeError" in inputs.failure(Wrong(), b"\xff")
        assert "took more than 1 s" in inputs.failure(Wrong(), b"loop")


def test_command_that_prints_a_traceback_or_two_lines_is_wrong(capsys):
    import sys

    for printed, code in (("one\n", 3), ("one\ntwo\n", 2), ("", 2)):
        def main(arguments):
            print(printed, end="", file=sys.stderr)
            return code

        with pytest.raises(AssertionError, match=f"exit code {code}"):
            command(main, [])


def test_inputs_follow_from_their_seed_and_most_differ():
    for name, target in TARGETS.items():
        if name in ("names", "idx", "npy", "pictures", "checkpoints"):
            made = [[target.make(inputs.generator(name, seed, 0, index)) for index in range(40)] for seed in (0, 0, 1)]
            assert made[0] == made[1] != made[2]
            assert len(set(made[0])) > 30


def test_changed_record_is_a_copy():
    whole = resolve("4L").to_dict()
    before = json.dumps(whole)
    for index in range(50):
        mutators.record(inputs.generator("x", 0, 0, index), whole)
    assert json.dumps(whole) == before and RunConfig.from_dict(json.loads(before)) == resolve("4L")
