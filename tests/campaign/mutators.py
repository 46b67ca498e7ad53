"""Damages inputs: bytes, JSON, tables, words. All that is random follows from the generator that is given."""

from __future__ import annotations

import json
import random
import struct
from typing import Any, Callable, Sequence

BOUNDS = (0, 1, -1, 2, 3, 9, 10, 27, 28, 29, 127, 128, 255, 256, 783, 784, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1,
          2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -2**31, -2**63)
FLOATS = (0.0, -0.0, 0.1, 0.5, 1.0, 1.5, -1.0, 1e-320, 1e-45, 1e38, 3.5e38, 1e308, float("inf"), float("-inf"),
          float("nan"))
TEXTS = ("", " ", "x", "0", "1", "-1", "1.0", "1e5", "1e999", "nan", "inf", "true", "none", "None", "full", "../x", "/",
         "..", "a/b", "\x00", "\n", "a\nb", "\r", "\t", "\x1b[31m", "é", "\u202e", "\ud800", "\U0001f45a", "٣", "１",
         "1_0", " 1", "x" * 300, "x" * 5000, "1" * 5000, "%s", "{}", "~", "$HOME", "a,b", "a=b", ";", "'", '"', "-",
         "--", "2L", "4L,l2=0.1", "softmax", "COMPLETED", "FAILED", "9999999", "0" * 64)


def damaged(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes after one to four changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(_BYTES)(rng, data, others)
    return bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    """Near the start as often as anywhere: that is where headers are."""
    return rng.randrange(min(len(data), 64) if rng.random() < 0.4 else len(data)) if data else 0


def _flip(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] = rng.choice((0, 1, 10, 32, 44, 127, 128, 255, rng.randrange(256)))


def _cut(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_place(rng, data):]


def _remove(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(rng, data)
    del data[start:start + rng.choice((1, 2, 4, 8, rng.randrange(1, 200)))]


def _repeat(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = data[start:start + rng.randrange(1, 100)] * rng.choice((1, 1, 2, 20))


def _insert(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = rng.randbytes(rng.choice((1, 2, 8, 100)))


def _number(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    size, start = rng.choice((1, 2, 4, 8)), _place(rng, data)
    value = rng.choice(BOUNDS) % 2**(8 * size)
    data[start:start + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other, start = rng.choice(others), _place(rng, data)
    begin = rng.randrange(len(other) + 1)
    data[start:] = other[begin:]


_BYTES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _set, _cut, _remove, _repeat, _insert, _number, _number, _splice)


def value(rng: random.Random) -> Any:
    """Anything that JSON can hold."""
    kind = rng.randrange(9)
    if kind < 2:
        return rng.choice(BOUNDS)
    if kind < 4:
        return rng.choice(FLOATS)
    if kind < 6:
        return rng.choice(TEXTS)
    return rng.choice(([], {}, None, True, False, [value(rng)], {"x": 1}, {rng.choice(TEXTS): value(rng)},
                       [1, [2, [3]]], nested(rng.choice((3, 50)))))


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def record(rng: random.Random, content: Any) -> Any:
    """A copy of what JSON holds, after one to three changes."""
    found = json.loads(json.dumps(content))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = _changed(rng, found)
    return found


def _changed(rng: random.Random, content: Any) -> Any:
    places = _places(content)
    if not places or rng.random() < 0.02:
        return value(rng)
    holder, key = rng.choice(places)
    what, old = rng.randrange(8), holder[key]
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice((*TEXTS, *holder))] = holder.pop(key)
    elif what == 2:
        other, where = rng.choice(places)
        try:
            holder[key], other[where] = other[where], old
        except (LookupError, TypeError):  # one of the two was within the other
            pass
    elif what == 3:
        holder[key] = _other_type(rng, old)
    elif what == 4 and isinstance(old, list):
        old.insert(rng.randrange(len(old) + 1), value(rng))
    elif what == 4 and isinstance(old, dict):
        old[rng.choice(TEXTS)] = value(rng)
    else:
        holder[key] = _near(rng, old) if rng.random() < 0.5 else value(rng)
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Where values are: (the dict or list that holds one, its key), all levels."""
    found, left = [], [content]
    while left:
        holder = left.pop()
        if isinstance(holder, (dict, list)):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            found += [(holder, key) for key in keys]
            left += [holder[key] for key in keys]
    return found


def _other_type(rng: random.Random, old: Any) -> Any:
    if isinstance(old, str):
        return rng.choice(([old], {old: 1}, len(old), float(len(old)), bool(old)))
    if isinstance(old, (int, float)):
        return rng.choice((str(old), [old], float(old) if abs(old) < 2**63 else 1.5, bool(old), -old))
    return rng.choice((str(old)[:50], len(old) if isinstance(old, (list, dict)) else 0, [old]))


def _near(rng: random.Random, old: Any) -> Any:
    if isinstance(old, bool) or old is None:
        return not old
    if isinstance(old, (int, float)):
        return rng.choice((old + 1, old - 1, old * 10, -old, old * 2))
    if isinstance(old, str):
        return word(rng, old)
    return old


def dumped(rng: random.Random, content: Any, others: Sequence[bytes]) -> bytes:
    """JSON in one of its spellings, at times damaged or nested beyond what a parser takes."""
    text = json.dumps(content, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.01:
        text = rng.choice(("[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "[" + "1," * 1000 + "1]", text[1:],
                           "\ufeff" + text))
    data = text.encode("utf-8", "surrogatepass")
    return damaged(rng, data, others) if rng.random() < 0.1 else data


def word(rng: random.Random, text: str, known: Sequence[str] = ()) -> str:
    """A text after a change of a few letters or of a part between separators."""
    place = rng.randrange(len(text) + 1)
    what = rng.randrange(6)
    if what == 0:
        return text[:place] + text[place + rng.randrange(1, 4):]
    if what == 1:
        return text[:place] + rng.choice((*TEXTS, *known)) + text[place:]
    if what == 2 and text:
        return text[:place] + chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x250)))) + text[place + 1:]
    if what == 3:
        return text[:place] + rng.choice("=,;_.+-()/ 0123456789") + text[place:]
    if what == 4:
        separator = rng.choice("=,;_.")
        parts = text.split(separator)
        parts[rng.randrange(len(parts))] = rng.choice((*TEXTS, *map(str, BOUNDS), *map(repr, FLOATS), *known))
        return separator.join(parts)
    return text + rng.choice("=,;_.") + rng.choice((text, *known, *TEXTS))


CELLS = ("", "0", "1", "-1", "2", "nan", "inf", "-inf", "1e5", "1e999", "0x10", "+5", "1_0", " 1", "1 ", "٣", "１",
         "1" * 400, "1" * 5000, "x", '"', '"1"', "\x00", "1.0", "-0.0", "True", "None", "é", "1e-400", ".5", "5.",
         "1,2", "0b1", "infinity", "1\r")


def table(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A CSV file after a change of cells, rows or columns."""
    if rng.random() < 0.2:
        return damaged(rng, content, others)
    rows = [line.split(",") for line in content.decode("utf-8", "replace").split("\n")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row, what = rng.choice(rows), rng.randrange(8)
        cell = rng.randrange(len(row))
        if what < 3:
            row[cell] = rng.choice(CELLS)
        elif what == 3:
            del row[cell]
            row += [] if row else [""]
        elif what == 4:
            row.insert(cell, row[cell])
        elif what == 5:
            rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))
        elif what == 6 and len(rows) > 1:
            del rows[rng.randrange(len(rows))]
        else:  # a column of all rows: moved, or given twice
            other = rng.randrange(len(row))
            for one in rows:
                if len(one) > max(cell, other):
                    one[cell], one[other] = (one[other], one[cell]) if rng.random() < 0.8 else (one[cell], one[cell])
    end = rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
    return end.join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def idx_header(rng: random.Random, content: bytes, words: int) -> bytes:
    """An IDX file with one of the numbers of its header changed."""
    place, number = 4 * rng.randrange(words), rng.choice(BOUNDS) % 2**32
    return content[:place] + struct.pack(">I", number) + content[place + 4:]
