"""Files that hold images, numbers or weights: IDX, pictures, npy, checkpoints, safetensors."""

from __future__ import annotations

import gzip
import io
import json
import pathlib
import random
import struct
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image

from fmnist_zoo import idx, photographs, registry, weights
from fmnist_zoo.data import load_data
from tests.campaign import mutators
from tests.campaign.inputs import Target
from tests.campaign.targets import refused, wrong
from trainers.running import checkpoints

_PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
IMAGES = struct.pack(">4I", idx.IMAGES_MAGIC, 3, 28, 28) + _PIXELS.tobytes()
LABELS = struct.pack(">2I", idx.LABELS_MAGIC, 20) + bytes(range(10)) * 2


class Idx(Target):
    """An IDX file, plain or packed, against a decoder of four lines."""

    name, batch = "idx", 4000

    def make(self, rng: random.Random) -> bytes:
        content, words = rng.choice(((IMAGES, 4), (LABELS, 2)))
        kind = rng.randrange(3)
        if kind == 0:
            content = mutators.idx_header(rng, content, words)
        elif kind == 1:
            content = mutators.damaged(rng, content, (IMAGES, LABELS))
        packed = rng.random() < 0.5
        if packed:
            content = gzip.compress(content, rng.choice((0, 1, 9)), mtime=0)
        if kind == 2:
            content = mutators.damaged(rng, content, (gzip.compress(LABELS), IMAGES))
        return bytes([packed, words]) + content

    def check(self, content: bytes) -> None:
        packed, words, content = content[0], content[1], content[2:]
        path = pathlib.Path("data.gz" if packed else "data")
        path.write_bytes(content)
        row = (28, 28) if words == 4 else ()
        found, said = refused(lambda: list(idx.blocks(path, row=row)))
        try:
            raw = gzip.decompress(content) if packed else content
        except (OSError, EOFError, zlib.error):
            raw = b""
        header = struct.Struct(">4I" if row else ">2I")
        right = len(raw) >= header.size and header.unpack_from(raw) == (
            idx.IMAGES_MAGIC if row else idx.LABELS_MAGIC, (len(raw) - header.size) // (784 if row else 1), *row)
        right = right and (len(raw) - header.size) % (784 if row else 1) == 0
        if right != (not said):
            wrong(f"{'refused' if said else 'taken'}, and it is {'right' if right else 'wrong'}: {said}")
        if right and b"".join(block.tobytes() for block in found) != raw[header.size:]:
            wrong("other numbers")


class DataFolder(Target):
    """The four files of a data set of one's own."""

    name, batch = "data_folder", 1000

    def prepare(self, folder: pathlib.Path) -> None:
        (folder / "train-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", idx.IMAGES_MAGIC, 20, 28, 28) + bytes(20 * 784))

    def make(self, rng: random.Random) -> bytes:
        content = mutators.idx_header(rng, LABELS, 2) if rng.random() < 0.2 else mutators.damaged(
            rng, LABELS, (IMAGES, LABELS))
        return bytes([rng.randrange(4)]) + content

    def check(self, content: bytes) -> None:
        pathlib.Path("train-labels-idx1-ubyte").write_bytes(content[1:])
        size = (0, 0.1, 2, 19)[content[0]]
        found, said = refused(lambda: load_data(data_dir=".", allow_other_data=True, validation_size=size))
        if not said:
            labels = np.concatenate([found["fit"].labels, found["validation"].labels])
            if sorted(labels.tolist()) != sorted(content[9:]) or len(labels) != 20 or labels.max() > 9:
                wrong("other labels")


def _pictures() -> list[bytes]:
    whole = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 20, 4), np.uint8), "RGBA")
    found = []
    for kind, modes in {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"),
                        "WEBP": ("RGB", "RGBA"), "BMP": ("1", "L", "P", "RGB"), "GIF": ("L", "P")}.items():
        for mode in modes:
            file = io.BytesIO()
            if mode == "I;16":
                Image.fromarray(np.arange(600, dtype=np.uint16).reshape(30, 20) * 100).save(file, kind)
            else:
                whole.convert(mode).save(file, kind, **({"transparency": 3} if mode == "P" and kind != "BMP" else {}))
            found.append(file.getvalue())
    for options in ({"format": "JPEG", "progressive": True}, {"format": "PNG", "optimize": True, "dpi": (9, 9)},
                    {"format": "JPEG", "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00"
                     b"\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"}):
        file = io.BytesIO()
        whole.convert("RGB").resize((28, 28) if "dpi" in options else (40, 25)).save(file, **options)
        found.append(file.getvalue())
    return found


class Pictures(Target):
    """A picture for `predict`: 28x28 numbers, always the same, or one line."""

    name, batch = "pictures", 1000
    _known = _pictures()

    def make(self, rng: random.Random) -> bytes:
        content = rng.choice(self._known)
        if content.startswith(b"\x89PNG") and rng.random() < 0.5:
            content = _chunk(rng, content)
        else:
            content = mutators.damaged(rng, content, self._known)
        return bytes([rng.randrange(3)]) + content

    def check(self, content: bytes) -> None:
        path, invert = pathlib.Path("picture"), photographs.INVERT[content[0]]
        path.write_bytes(content[1:])
        found, said = refused(lambda: np.concatenate(list(photographs.blocks(path, invert))))
        again, _ = refused(lambda: np.concatenate(list(photographs.blocks(path, invert))))
        if said:
            return
        if found.shape[1:] != (28, 28) or found.dtype != np.uint8 or not np.array_equal(found, again):
            wrong(f"not images: {found.dtype} {found.shape}")
        pixels = photographs.as_pixels(found)
        if pixels.shape[1:] != (784,) or not (0 <= pixels.min() and pixels.max() <= 1):
            wrong("not pixels")


def _chunk(rng: random.Random, content: bytes) -> bytes:
    """A PNG with a chunk that was changed and has the right checksum, or that is there twice, or is gone."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4:place + 8], content[place + 8:place + 8 + length]))
        place += 12 + length
    number = rng.randrange(len(chunks))
    kind, body = chunks[number]
    what = rng.randrange(5)
    if what < 3:
        chunks[number] = kind, mutators.damaged(rng, body, (body, b"x"))
    elif what == 3:
        packed = b"a\0\0" + zlib.compress(bytes(2_000_000))
        chunks.insert(rng.randrange(len(chunks)), rng.choice((
            (kind, body), (b"tRNS", rng.randbytes(2)), (b"gAMA", body), (b"zTXt", packed), (b"iCCP", packed),
            (b"PLTE", rng.randbytes(6)), (b"eXIf", rng.randbytes(40)))))
    else:
        del chunks[number]
    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks)


def _npy() -> list[bytes]:
    found = []
    for array in (_PIXELS, _PIXELS[0], _PIXELS.reshape(3, 784), _PIXELS[:1].astype(np.float32) / 255,
                  _PIXELS[:1].astype(np.float16) / 300, _PIXELS[:1].astype(">f8") / 255, np.asfortranarray(_PIXELS[:2]),
                  _PIXELS[:1].astype(np.int32), np.zeros((0, 784), np.uint8)):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


class Npy(Target):
    """An npy file, against `numpy.load`."""

    name, batch = "npy", 4000
    _known = _npy()

    def make(self, rng: random.Random) -> bytes:
        content = rng.choice(self._known)
        end = content.index(b"\n") + 1
        if rng.random() < 0.5:
            header = mutators.word(rng, content[10:end].decode(), (
                "<f4", "|O", "(1, 28, 28)", "(-1, 784)", "True", "[('a', '<f4')]"))
            packed = header.encode("utf-8", "surrogatepass")[:60_000]
            return content[:8] + struct.pack("<H", len(packed)) + packed + content[end:]
        return mutators.damaged(rng, content, self._known)

    def check(self, content: bytes) -> None:
        path = pathlib.Path("images.npy")
        path.write_bytes(content)
        found, said = refused(lambda: np.concatenate(list(photographs.blocks(path))))
        if not said and content.startswith(b"\x93NUMPY"):
            with warnings.catch_warnings(action="ignore"):
                right = np.load(io.BytesIO(content), allow_pickle=False)
            if right.dtype != np.uint8:
                right = np.rint(right.astype(np.float32) * np.float32(255)).astype(np.uint8)
            if not np.array_equal(found, right.reshape(-1, 28, 28)):
                wrong("other numbers")


NOTE = {"epoch": 3, "best_epoch": 2, "best_loss": 0.3, "seconds": 4.5, "events": {"train/events.out.tfevents.1": 90},
        "identity": "{}", "metrics_sha256": "0" * 64}


class Checkpoints(Target):
    """A checkpoint: its digest holds, or it is refused."""

    name, batch = "checkpoints", 1500

    def prepare(self, folder: pathlib.Path) -> None:
        (folder / "whole").mkdir()
        for number, arrays in enumerate(self._arrays()):
            checkpoints.save(folder / "whole" / str(number), arrays, NOTE)

    @staticmethod
    def _arrays() -> list[dict[str, np.ndarray]]:
        return [{"state/kernel": np.ones((2, 3), np.float32), "state/step": np.array(7)}, {"best/a": np.zeros((0, 4))}]

    def make(self, rng: random.Random) -> bytes:
        file, arrays = io.BytesIO(), rng.choice(self._arrays())
        note = mutators.record(rng, {**NOTE, "sha256": checkpoints.digest(arrays)})
        if rng.random() < 0.4:
            text = mutators.dumped(rng, note, (b"{}",))
        else:
            text = json.dumps({**NOTE, "sha256": checkpoints.digest(arrays)}).encode()
        entries = {f"{name}.npy": _saved(array) for name, array in arrays.items()}
        entries["note.json.npy"] = _saved(np.frombuffer(text, np.uint8))
        if rng.random() < 0.3:  # a part with a right checksum
            name = rng.choice(list(entries))
            entries[name] = mutators.damaged(rng, entries[name], list(entries.values()))
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED) as archive:
            for name, body in entries.items():
                if rng.random() < 0.03:
                    name = mutators.word(rng, name)[:20_000].encode(errors="replace").decode()
                archive.writestr(zipfile.ZipInfo(name), body)
        content = file.getvalue()
        return mutators.damaged(rng, content, (content,)) if rng.random() < 0.5 else content

    def check(self, content: bytes) -> None:
        path = pathlib.Path("latest.npz")
        path.write_bytes(content)
        found, said = refused(lambda: checkpoints.load(path))
        if said:
            return
        arrays, note = found
        if sum(array.nbytes for array in arrays.values()) > len(content):
            wrong("holds more than the file")
        refused(lambda: checkpoints.check_note(path, note))


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class Weights(Target):
    """A safetensors file of a small model, against a parser of five lines."""

    name, batch = "safetensors", 4000
    _spec = registry.get_spec("2L", hidden=(2,))

    def prepare(self, folder: pathlib.Path) -> None:
        rng = np.random.default_rng(0)
        arrays = [rng.random(shape, np.float32) for shape in weights.shapes(self._spec).values()]
        weights.write("whole", self._spec, arrays, dtype="float16")
        type(self)._whole = pathlib.Path("whole").read_bytes()

    _whole = b""

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return mutators.damaged(rng, self._whole, (self._whole,))
        size = int.from_bytes(self._whole[:8], "little")
        header = json.loads(self._whole[8:8 + size])
        if rng.random() < 0.5:
            changed = mutators.record(rng, json.loads(header["__metadata__"]["architecture"]))
            header["__metadata__"]["architecture"] = mutators.dumped(rng, changed, (b"{}",)).decode("utf-8", "replace")
        else:
            header = mutators.record(rng, header)
        text = mutators.dumped(rng, header, (b"{}",))
        return len(text).to_bytes(8, "little") + text + self._whole[8 + size:]

    def check(self, content: bytes) -> None:
        path = pathlib.Path("model.safetensors")
        path.write_bytes(content)
        found, said = refused(lambda: weights.read(path, self._spec))
        if said:
            return
        size = int.from_bytes(content[:8], "little")
        header, body = json.loads(content[8:8 + size]), content[8 + size:]
        for array, name in zip(found, weights.shapes(self._spec)):
            begin, end = header[name]["data_offsets"]
            kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I16": "<i2", "U16": "<u2", "I8": "i1", "U8": "u1",
                    "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8", "BOOL": "?"}[header[name]["dtype"]]
            right = np.frombuffer(body[begin:end], kind).reshape(array.shape).astype(np.float32)
            if not np.array_equal(array, right):
                wrong(f"other numbers in {name}")


TARGETS = (Idx(), DataFolder(), Pictures(), Npy(), Checkpoints(), Weights())
