"""`metrics.csv`: read by its own header, damage refused with one line that names it."""

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


def test_rows_come_back_as_they_were_appended(table):
    assert table.rows() == [row(1), row(2), row(3)] and table.rows(2) == [row(1), row(2)]
    assert table.row_count() == 3


def test_missing_or_empty_file_has_no_rows(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    assert table.rows() == [] and table.row_count() == 0
    table.cut(0)
    assert not table.path.exists()
    table.path.write_text("")
    assert table.rows() == []
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


def test_file_of_another_version_keeps_its_columns(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    columns = (*reversed(COLUMNS), "a_later_column")
    table.path.write_text(",".join(columns) + "\n" + ",".join(str(row(1).get(name) or "") for name in columns) + "\n")
    table.append(row(2))
    assert tuple(table.path.read_text().splitlines()[0].split(",")) == columns
    first, second = table.rows()
    assert second == {**{name: row(2)[name] for name in COLUMNS}, "a_later_column": None}
    assert tuple(first) == columns


def changed(old, new):
    return lambda content: content.replace(old, new, 1)


@pytest.mark.parametrize("damage, text", [
    (lambda content: b"", "it has no rows, and the checkpoint was saved after epoch 3"),
    (lambda content: b"".join(content.splitlines(keepends=True)[:3]), "it has 2 rows, and the checkpoint"),
    (lambda content: content[:-1], "it has 2 rows, and the checkpoint"),
    (lambda content: content.split(b"\n", 1)[1], "its first line does not name the columns"),
    (changed(b",loss,", b",los\xff,"), "its first line does not name the columns"),
    (changed(b",penalty,", b",loss,"), "its first line does not name the columns"),
    (changed(b"\n2,16,", b"\n2,,16,"), "line 3 does not read"),
    (changed(b"\n2,16,", b"\n2,"), "line 3 does not read"),
    (changed(b"\n2,16,", b"\n2,1_6,"), "line 3 does not read: '1_6' is not a number"),
    (changed(b"\n2,16,", b"\n2,nan,"), "line 3 does not read: 'nan' is not a number"),
    (changed(b"\n2,16,", b"\n2,\x0016,"), "line 3 does not read"),
    (changed(b"\n2,16,", b"\n2,16\r,"), "line 3 does not read"),
    (changed(b"\n2,16,", b"\n3,16,"), "line 3 is not the row of epoch 2"),
    (changed(b"\n2,16,", b"\n\n2,16,"), "line 3 does not read"),
    (lambda content: bytes(range(256)) * 9, "its first line does not name the columns"),
    (changed(b"\n1,8,", b"\r\n1,8,"), "its first line does not name the columns"),
    (lambda content: content.replace(b"\n", b"\r\n"), "its first line does not name the columns"),
])
def test_damage_is_refused_in_one_line(table, damage, text):
    table.path.write_bytes(damage(table.path.read_bytes()))
    with pytest.raises(TableError, match=re.escape(text)) as caught:
        table.check(3, None)
    assert str(table.path) in str(caught.value) and "--config=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changed_digit_is_found_by_the_digest_of_the_checkpoint(table):
    digest = table.digest(2)
    table.path.write_bytes(table.path.read_bytes().replace(b"\n3,24,", b"\n3,25,"))
    table.check(2, digest)  # the row of epoch 3 is not the checkpoint's
    table.path.write_bytes(table.path.read_bytes().replace(b"\n2,16,", b"\n2,17,"))
    with pytest.raises(TableError, match="epochs 1 to 2 are not those that the run wrote"):
        table.check(2, digest)


def test_damage_after_the_checkpoint_is_cut_off(table):
    digest = table.digest(2)
    table.path.write_bytes(table.path.read_bytes() + b"\xff\x00garbage\n" + b"5,x,")
    with pytest.raises(TableError, match="line 5 does not read"):
        table.rows()
    table.check(2, digest)
    table.cut(2)
    assert table.rows() == [row(1), row(2)]
