"""`metrics.csv`: rows come back as they were appended; damage is refused with one line that names it."""

import re

import pytest

from tests import faults
from trainers.metrics_table import COLUMNS
from trainers.running.table import MetricsTable, TableError


def row(epoch, **changes):
    return {**{name: epoch + place / 8 for place, name in enumerate(COLUMNS)}, "epoch": epoch, "step": 8 * epoch,
            "val_loss": None, **changes}


@pytest.fixture
def table(tmp_path):
    made = MetricsTable(tmp_path / "metrics.csv")
    for epoch in (1, 2, 3):
        made.append(row(epoch))
    return made


@pytest.mark.parametrize("content", [None, ""])
def test_missing_or_empty_file_has_no_rows(tmp_path, content):
    table = MetricsTable(tmp_path / "metrics.csv")
    if content is not None:
        table.path.write_text(content)
    assert table.rows() == [] and table.row_count() == 0
    table.append(row(1))
    assert table.rows() == [row(1)]


def test_row_without_line_end_is_what_a_killed_process_left_and_does_not_count(table):
    table.path.write_text(table.path.read_text() + "4,32,0.")
    assert table.rows() == [row(1), row(2), row(3)] and table.row_count() == 3
    table.cut(3)
    table.append(row(4))
    assert [one["epoch"] for one in table.rows()] == [1, 2, 3, 4]


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("place", [2, 3])
def test_row_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path, epochs, place):
    """The disk is full once: as the row is written, or synced."""
    table = MetricsTable(tmp_path / "metrics.csv")
    for epoch in range(epochs):
        table.append(row(epoch + 1))
    before = table.path.read_bytes() if epochs else b""
    full = faults.Faults(tmp_path, "ENOSPC", place)
    with faults.injected(full), pytest.raises(OSError, match="No space left") as found:
        table.append(row(epochs + 1))
    assert found.value.filename == str(table.path) and table.path.read_bytes() == before


def changed(old, new):
    return lambda content: content.replace(old, new, 1)


@pytest.mark.parametrize("damage, text", [
    (lambda content: content.split(b"\n", 1)[1], "its first line does not name the columns"),
    (changed(b",loss,", b",los\xff,"), "its first line does not name the columns"),
    (changed(b"\n2,16,", b"\n2,,16,"), "line 3 does not read"),
    (changed(b"\n2,16,", b"\n2,x,"), "line 3 does not read"),
    (changed(b"\n2,16,", b"\n3,16,"), "line 3 is not the row of epoch 2"),
    (lambda content: content.replace(b"\n", b"\r\n"), "its first line does not name the columns"),
])
def test_damage_is_refused_in_one_line(table, damage, text):
    table.path.write_bytes(damage(table.path.read_bytes()))
    with pytest.raises(TableError, match=re.escape(text)) as caught:
        table.rows()
    assert str(table.path) in str(caught.value) and "--config=" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage, text", [
    (lambda content: b"", "it has 0 rows, and the run saved 3"),
    (lambda content: content[:-1], "it has 2 rows, and the run saved 3"),
    (changed(b"\n3,24,", b"\n3,25,"), "epochs 1 to 3 are not those that the run wrote")])
def test_rows_of_a_checkpoint_that_are_gone_or_changed_are_refused(table, damage, text):
    digest = table.digest(3)
    table.path.write_bytes(damage(table.path.read_bytes()))
    with pytest.raises(TableError, match=text):
        table.check(3, digest)


def test_damage_after_the_checkpoint_is_cut_off(table):
    digest = table.digest(2)
    table.path.write_bytes(table.path.read_bytes() + b"\xff\x00garbage\n" + b"5,x,")
    with pytest.raises(TableError, match="line 5 does not read"):
        table.rows()
    table.check(2, digest)
    table.cut(2)
    assert table.rows() == [row(1), row(2)]
