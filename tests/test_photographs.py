"""`fmnist_zoo.photographs`: what a file becomes, and which files are refused, each with a reason of one line."""

import gzip
import io
import os

import numpy as np
import pytest
from PIL import Image

from fmnist_zoo import data
from fmnist_zoo.photographs import FORMATS, PhotographError, doubt, expand, photograph, read
from tests.idx_files import payload, write

IMAGES = np.random.default_rng(3).integers(0, 256, (30, 28, 28)).astype(np.uint8)
NPY = io.BytesIO()
np.save(NPY, IMAGES)
PACKED = gzip.compress(payload(IMAGES), mtime=0)


def refused(path):
    with pytest.raises(PhotographError) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) not in str(caught.value)
    return str(caught.value)


def saved(array, format="PNG", mode=None, **options):
    """An array as an open file of a picture."""
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(array))
    (image.convert(mode) if mode else image).save(file, format, **options)
    file.seek(0)
    return file


def scene(height=300, width=200, *, ground=255, garment=60, top=90, left=50, tall=120, wide=60, channels=()):
    """A rectangle on a plain ground."""
    picture = np.full((height, width, *channels), ground, np.uint8)
    picture[top:top + tall, left:left + wide] = garment
    return picture


PLAIN = photograph(saved(scene()))


def close(one, other, most=5.0):
    """Whether two images differ little on average; edges may be half a pixel elsewhere."""
    return np.abs(one.astype(int) - other).mean() < most


def test_arrays_are_taken_as_they_are(tmp_path):
    np.save(tmp_path / "bytes.npy", IMAGES)
    np.save(tmp_path / "flat.npy", np.asfortranarray(IMAGES.reshape(-1, 784)))
    np.save(tmp_path / "one.npy", IMAGES[0])
    for index, dtype in enumerate(("<f2", "<f4", ">f4", "<f8", "g")):
        np.save(tmp_path / f"floats{index}.npy", (IMAGES / 255).astype(dtype))
    write(tmp_path / "plain", payload(IMAGES))
    write(tmp_path / "packed.gz", payload(IMAGES))
    for path in tmp_path.iterdir():
        wanted = IMAGES[:1] if path.name == "one.npy" else IMAGES
        for invert, images in (("auto", wanted), ("no", wanted), ("yes", 255 - wanted)):
            received = read(str(path), invert)
            np.testing.assert_array_equal(received, images)
            assert received.dtype == np.uint8


@pytest.mark.parametrize("array, text", [
    (IMAGES.astype(np.int64), "received int64 of shape (30, 28, 28)"),
    (IMAGES[:, :27], "received uint8 of shape (30, 27, 28)"), (np.uint8(3), "shape ()"),
    (IMAGES / 2.0, "values from 0 to 127.5: divide by 255"), (np.full((2, 784), np.nan), "nan"),
    (IMAGES[:0], "holds no image"), (np.zeros((2, 784), [("a", "f4")]), "received [('a', '<f4')]"),
    (np.array([{}, print], object), "no npy file of numbers"),  # not unpickled
])
def test_other_arrays_are_refused_with_what_was_received(tmp_path, array, text):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    assert text in refused(tmp_path / "x.npy")


@pytest.mark.parametrize("content, name, text", [
    (b"", "x.png", "is empty"), (b"hello, world", "x.png", "none of PNG"),
    (payload(IMAGES)[:-1], "x", "the payload ends 1 bytes early"), (payload(IMAGES[:0]), "x", "holds no image"),
    (payload(IMAGES[0, 0]), "x", "not an IDX file of images"), (PACKED, "x.idx", "let its name end with .gz"),
    (PACKED[:500], "x.gz", "cut short"), (gzip.compress(b"text", mtime=0), "x.gz", "cut short"),
    (NPY.getvalue().replace(b"(30, 28, 28)", b"(9999999999, 28, 28)"), "x.npy", ""),  # claims too much
    *((NPY.getvalue()[:cut], "x.npy", "") for cut in (3, 9, -1)), (b"P6 1 1 255\n123", "x.ppm", "none of"),
])
def test_other_files_are_refused(tmp_path, content, name, text):
    (tmp_path / name).write_bytes(content)
    assert text in refused(tmp_path / name)


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_picture_is_refused_or_read(tmp_path, format):
    """Decoders raise all kinds of errors; only ours comes out."""
    random = np.random.default_rng(1)
    content = saved(random.integers(0, 256, (64, 48, 3)).astype(np.uint8), format).getvalue()
    for cut in range(1, len(content) - 24, len(content) // 30):  # a PNG ends with checksums, which may be missing
        (tmp_path / "x").write_bytes(content[:cut])
        assert refused(tmp_path / "x")
    content = saved(scene(40, 30, channels=(3,), tall=20, top=5, left=5, wide=10), format).getvalue()
    for _ in range(40):
        changed = bytearray(content)
        for place in random.integers(0, len(content), 3):
            changed[place] = random.integers(256)
        (tmp_path / "x").write_bytes(changed)
        try:
            assert read(tmp_path / "x").shape == (1, 28, 28)
        except PhotographError as error:
            assert "\n" not in str(error)


def test_bombs_folders_pipes_and_missing_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for edge in (40, 100):  # Pillow warns of the first and raises for the second
        (tmp_path / "x.png").write_bytes(saved(scene(edge, edge)).getvalue())
        assert "more than 1000 pixels" in refused(tmp_path / "x.png")
    assert "No such file" in refused(tmp_path / "nowhere.png") and "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "is no regular file" in refused(tmp_path / "pipe.png")


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "WEBP"])
def test_a_picture_of_28x28_is_at_most_negated(format):
    options = {"lossless": True} if format == "WEBP" else {}
    images = data.load_data(data="mini")["validation"].images.reshape(-1, 28, 28)
    for image in images if format == "PNG" else images[:1]:
        negative = 255 - image
        for given, invert, wanted in ((image, "auto", image), (negative, "auto", image), (image, "yes", negative),
                                      (negative, "no", negative)):
            np.testing.assert_array_equal(photograph(saved(given, format, **options), invert), wanted)


def test_a_photograph_is_trimmed_stretched_centred_and_negated():
    # 120 x 60 becomes 28 x 14, with 7 columns of ground on either side
    assert (PLAIN[:, 7:21] == 195).all() and not PLAIN[:, :7].any() and not PLAIN[:, 21:].any()
    wide = photograph(saved(scene(tall=30, wide=120)))
    assert (wide[10:17] >= 190).all() and not wide[:10].any() and not wide[18:].any()


def test_a_ground_of_any_shade_with_noise_or_shadow_becomes_black():
    for ground, garment in ((0, 195), (200, 47), (30, 202)):
        assert close(photograph(saved(scene(ground=ground, garment=garment))), PLAIN)
    random, shadow = np.random.default_rng(0), np.linspace(0, 30, 200)[None]
    for noise, shade in ((10, 0), (0, shadow), (6, shadow)):
        picture = np.clip(scene() - shade + random.normal(0, noise, (300, 200)), 0, 255).astype(np.uint8)
        received = photograph(saved(picture))
        assert close(received, PLAIN, 8) and not received[:, :6].any()


def test_a_garment_is_told_from_a_ground_of_equal_grey_by_its_colour():
    """What is trimmed is judged in RGB, as in the paper: by grey, only the black part would be seen, and fill 28."""
    picture = scene(channels=(3,), ground=(200, 200, 200), garment=(250, 182, 168))  # of the same luma, within 1
    picture[100:200, 60:100] = 0
    received = photograph(saved(picture))
    assert (received[4:24, 10:18] > 240).all() and received[:2].max() < 10 and received[26:].max() < 10


def test_a_turned_picture_equals_the_upright_one():
    upright = scene()
    upright[90:120, 50:80] = 160  # leaves no symmetry
    wanted = photograph(saved(upright))
    turned = [upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1], upright.T, np.rot90(upright),
              upright[::-1, ::-1].T, np.rot90(upright, -1)]
    exif = Image.Exif()
    for exif[0x0112], picture in enumerate([*turned, upright], 1):  # there is no orientation 9
        np.testing.assert_array_equal(photograph(saved(picture, exif=exif)), wanted)
        assert close(photograph(saved(picture, "JPEG", exif=exif)), wanted)
    np.testing.assert_array_equal(photograph(saved(upright, exif=b"Exif\0\0nonsense")), wanted)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "L", "CMYK"])
def test_modes(mode):
    assert close(photograph(saved(scene(garment=0), "JPEG" if mode == "CMYK" else "PNG", mode)),
                 photograph(saved(scene(garment=0))))


def test_sixteen_bits():
    for low in (scene(), IMAGES[0]):
        np.testing.assert_array_equal(photograph(saved(low.astype(np.uint16) * 257)), photograph(saved(low)))
    transparent = np.full((300, 200), 777, np.uint16)
    transparent[90:210, 50:110] = 20_000
    received = photograph(saved(transparent, transparency=777))
    assert received.max() == 255 - (20_000 >> 8) and not received[:, :7].any()


def test_transparent_becomes_a_ground_that_shows_the_garment():
    for garment in (10, 250):  # on white, a white garment would disappear
        received = photograph(saved(scene(channels=(4,), ground=0, garment=(garment, garment, garment, 255))))
        assert (received[:, 7:21] >= 240).all() and not received[:, :7].any()
    holed = scene(channels=(4,), ground=(240, 240, 240, 255), garment=(60, 60, 60, 255))
    holed[140:150, 70:80, 3] = 0  # takes the colour of the opaque corners
    received = photograph(saved(holed))
    assert received[:, 7:21].max() > 180 and received[13, 13] < 40 and not received[:, :6].any()


def test_blank_pictures_become_black_and_files_of_them_are_refused(tmp_path):
    for picture in (np.zeros((50, 40, 4), np.uint8), scene(garment=255), scene(garment=250), np.zeros((1, 1), np.uint8),
                    np.zeros((28, 28, 4), np.uint8)):
        received = photograph(saved(picture))
        assert received.shape == (28, 28) and received.dtype == np.uint8 and not received.any()
        (tmp_path / "blank.png").write_bytes(saved(picture).read())
        assert "holds nothing" in refused(tmp_path / "blank.png")
    np.save(tmp_path / "blank.npy", np.zeros((2, 28, 28), np.uint8))  # arrays are taken as they are
    assert not read(tmp_path / "blank.npy").any()
    assert (photograph(saved(scene(garment=255)), "no") == 255).all()


def test_pictures_and_garments_of_any_size():
    for height, width in ((1, 1), (1, 5000), (5000, 1), (3, 2), (27, 28), (29, 28), (28, 4000)):
        picture = np.full((height, width), 255, np.uint8)
        picture[height // 3:height // 2 + 1, width // 3:width // 2 + 1] = 0
        assert photograph(saved(picture)).shape == (28, 28)
    assert photograph(saved(scene(tall=200, top=50, wide=1))).max() > 50  # thinner than a pixel of the result
    assert close(photograph(saved(scene(3000, 2000, top=2000, left=400, tall=120, wide=60))), PLAIN, 20)
    for format in ("JPEG", "PNG"):
        large = np.kron(scene(), np.ones((8, 8), np.uint8))  # 2400 x 1600
        assert close(photograph(saved(large, format)), PLAIN)


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.fromarray(scene(garment=shade)) for shade in (120, 255)]
    for format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        assert close(photograph(saved(scene(), format, save_all=True, append_images=frames, **options)), PLAIN)


def test_folders_are_expanded(tmp_path, monkeypatch):
    for name in ("b.png", "a/z.JPG", "a/notes.txt", ".hidden.png", ".cache/x.png", "c-images-idx3-ubyte.gz",
                 "c-labels-idx1-ubyte.gz", "a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    wanted = [(str(tmp_path / name), "") for name in ("a.npy", "a/z.JPG", "b.png", "c-images-idx3-ubyte.gz")]
    *received, (empty, error) = expand([str(tmp_path), "x.tiff", str(tmp_path / "empty")])
    assert received == [*wanted, ("x.tiff", "")] and empty == str(tmp_path / "empty") and ".png" in error
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("empty"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)  # the superuser may read all
    assert list(expand([str(tmp_path)])) == [(empty, "cannot be read: Permission denied"), *wanted]


@pytest.mark.long
def test_what_may_be_no_garment_is_doubted_and_garments_hardly_ever():
    garments = data.load_data(("test",), data="mini")["test"].images.reshape(-1, 28, 28)
    assert sum(bool(doubt(garment)) for garment in garments) <= 3  # of 500
    lying = [doubt(np.rot90(garment)) for garment in garments[:100]]
    assert sum("turned by a quarter" in text for text in lying) >= 60
    pair = np.full((300, 600), 255, np.uint8)
    for left in (50, 350):
        pair[50:250, left:left + 200] = 255 - np.kron(garments[0], np.ones((8, 8), np.uint8))[12:212, 12:212]
    page = np.full((300, 400), 255, np.uint8)
    for line in (20, 110, 200):
        page[line:line + 20, 20:380] = 0
    for picture in (pair, page):
        assert "parts that do not touch" in doubt(photograph(saved(picture)))
    assert not doubt(np.zeros((28, 28), np.uint8))
