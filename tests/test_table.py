"""`metrics.csv`: rows come back as they were appended; damage is refused with one line that names it."""

import errno
import os

import pytest

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
def test_row_that_cannot_be_synced_leaves_the_file_as_it_was(tmp_path, monkeypatch, epochs):
    table = MetricsTable(tmp_path / "metrics.csv")
    for epoch in range(epochs):
        table.append(row(epoch + 1))
    before = table.path.read_bytes() if epochs else b""
    monkeypatch.setattr(os, "fsync", lambda descriptor: full())
    with pytest.raises(OSError, match="No space left") as found:
        table.append(row(epochs + 1))
    assert found.value.filename == str(table.path) and table.path.read_bytes() == before


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("old, new, text", [
    (b",loss,", b",los\xff,", "its first line does not name the columns"),
    (b"\n2,16,", b"\n2,x,", "line 3 does not read"), (b"\n2,16,", b"\n3,16,", "line 3 is not the row of epoch 2")])
def test_damage_is_refused_in_one_line(table, old, new, text):
    table.path.write_bytes(table.path.read_bytes().replace(old, new, 1))
    with pytest.raises(TableError, match=text) as caught:
        table.rows()
    assert str(table.path) in str(caught.value) and "--config=" in str(caught.value)
    assert "\n" not in str(caught.value)
