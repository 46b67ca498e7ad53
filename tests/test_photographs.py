"""`fmnist_zoo.photographs`: what a file becomes, and which files are refused, each with a reason of one line."""

import gzip
import io
import os
import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image

from fmnist_zoo import data
from fmnist_zoo.photographs import PhotographError, blocks, expand, photograph
from tests.idx_files import payload, write

IMAGES = np.random.default_rng(3).integers(0, 256, (30, 28, 28)).astype(np.uint8)
BOOT = data.load_data(data="mini")["fit"].images[2].reshape(28, 28)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


def read(path, invert="auto"):
    return np.concatenate(list(blocks(path, invert)))


def refused(path):
    with pytest.raises(PhotographError) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) not in str(caught.value)
    return str(caught.value)


def saved(array, format="PNG", mode=None, **options):
    """An array as an open file of a picture."""
    file = io.BytesIO()
    image = Image.fromarray(array)
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
    write(tmp_path / "plain", payload(IMAGES))
    write(tmp_path / "packed.gz", payload(IMAGES))
    for name in ("bytes.npy", "flat.npy", "plain", "packed.gz"):
        for invert, wanted in (("auto", IMAGES), ("no", IMAGES), ("yes", 255 - IMAGES)):
            np.testing.assert_array_equal(read(tmp_path / name, invert), wanted)
    np.testing.assert_array_equal(read(str(tmp_path / "one.npy")), IMAGES[:1])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "g"])
def test_floats_are_rounded_to_eight_bits(tmp_path, dtype):
    np.save(tmp_path / "floats.npy", (IMAGES / 255).astype(dtype))
    received = read(tmp_path / "floats.npy")
    assert received.dtype == np.uint8
    np.testing.assert_array_equal(received, IMAGES)


@pytest.mark.parametrize("array, text", [
    (IMAGES.astype(np.int64), "must be uint8 (0 to 255) or floats in [0, 1], received int64 of shape (30, 28, 28)"),
    (IMAGES > 5, "received bool"), (IMAGES.astype(complex), "received complex128"),
    (IMAGES[:, :27], "must be (n, 28, 28) or (n, 784), received uint8 of shape (30, 27, 28)"),
    (IMAGES[..., None], "shape (30, 28, 28, 1)"), (np.uint8(3), "shape ()"), (IMAGES[0].ravel(), "shape (784,)"),
    (IMAGES / 2.0, "received float64 of shape (30, 28, 28) with values from 0 to 127.5: divide by 255"),
    (IMAGES / 255.0 - 0.1, "values from -0.1 to 0.9"), (np.full((2, 784), np.nan), "values from nan to nan"),
    (np.full((2, 784), np.inf), "inf"), (IMAGES[:0], "holds no image"), (IMAGES[:0] / 1.0, "holds no image"),
    (np.zeros((2, 784), [("a", "f4")]), "received [('a', '<f4')]"),
])
def test_other_arrays_are_refused_with_what_was_received(tmp_path, array, text):
    np.save(tmp_path / "x.npy", array)
    assert text in refused(tmp_path / "x.npy")


def test_npy_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}, print], object), allow_pickle=True)
    assert "no npy file of numbers" in refused(tmp_path / "x.npy")


def test_npy_that_claims_too_much_or_is_cut_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(30, 28, 28)", b"(9999999999, 28, 28)"))
    assert refused(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(content[:-1])
    assert "cut short" in refused(tmp_path / "x.npy")
    for cut in (3, 7, 9, 40):
        (tmp_path / "x.npy").write_bytes(content[:cut])
        assert refused(tmp_path / "x.npy")


@pytest.mark.parametrize("content, name, text", [
    (b"", "x.png", "is empty: 0 bytes"), (b"", "x.npy", "is empty: 0 bytes"), (b"hello, world", "x.png", "none of PNG"),
    (payload(IMAGES)[:-1], "x", "cut short: the payload ends 1 bytes early"),
    (payload(IMAGES[0, 0]), "x", "not an IDX file of images"), (payload(IMAGES[:, :20]), "x", "rows of shape (20, 28)"),
    (gzip.compress(payload(IMAGES), mtime=0), "x.idx", "let its name end with .gz"),
    (gzip.compress(payload(IMAGES), mtime=0)[:500], "x.gz", "cut short"),
    (gzip.compress(b"text", mtime=0), "x.gz", "cut short"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.svg", "none of PNG"), (b"P6 1 1 255\n123", "x.ppm", "none of"),
    (payload(IMAGES[:0]), "x", "holds no image"),
])
def test_other_files_are_refused(tmp_path, content, name, text):
    (tmp_path / name).write_bytes(content)
    assert text in refused(tmp_path / name)


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_that_is_cut_short_is_refused(tmp_path, format):
    """Decoders raise all kinds of errors; only ours comes out."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    content = saved(noise, format).getvalue()
    for cut in range(1, len(content) - 24, len(content) // 30):  # a PNG ends with checksums, which may be missing
        (tmp_path / "x").write_bytes(content[:cut])
        assert refused(tmp_path / "x")


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_with_wrong_bytes_is_refused_or_read(tmp_path, format):
    random = np.random.default_rng(2)
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


def test_a_decompression_bomb_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for edge in (40, 100):  # Pillow warns of the first and raises for the second
        (tmp_path / "x.png").write_bytes(saved(scene(edge, edge)).getvalue())
        assert refused(tmp_path / "x.png") == "more than 1000 pixels; reduce it"


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    assert refused(tmp_path / "nowhere.png") == "cannot be read: No such file or directory"
    assert refused(tmp_path) == "is a folder; name the files in it"
    os.mkfifo(tmp_path / "pipe.png")
    assert "is no regular file" in refused(tmp_path / "pipe.png")


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "WEBP"])
def test_a_picture_of_28x28_is_at_most_negated(format):
    options = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(photograph(saved(BOOT, format, **options)), BOOT)
    np.testing.assert_array_equal(photograph(saved(255 - BOOT, format, **options)), BOOT)
    np.testing.assert_array_equal(photograph(saved(BOOT, format, **options), "yes"), 255 - BOOT)
    np.testing.assert_array_equal(photograph(saved(255 - BOOT, format, **options), "no"), 255 - BOOT)


def test_auto_is_right_on_the_set():
    images = data.load_data(data="mini")["validation"].images.reshape(-1, 28, 28)
    for image in images:
        np.testing.assert_array_equal(photograph(saved(image)), image)
        np.testing.assert_array_equal(photograph(saved(255 - image)), image)


def test_a_photograph_is_trimmed_stretched_centred_and_negated():
    # 120 x 60 becomes 28 x 14, with 7 columns of ground on either side
    assert (PLAIN[:, 7:21] == 195).all() and not PLAIN[:, :7].any() and not PLAIN[:, 21:].any()
    wide = photograph(saved(scene(tall=30, wide=120)))
    assert (wide[10:17] >= 190).all() and not wide[:10].any() and not wide[18:].any()


@pytest.mark.parametrize("ground, garment", [(255, 60), (0, 195), (200, 47), (30, 202)])
def test_a_ground_of_any_shade_becomes_black(ground, garment):
    assert close(photograph(saved(scene(ground=ground, garment=garment))), PLAIN)


def test_noise_and_shadow_on_the_ground_are_trimmed():
    random = np.random.default_rng(0)
    shadow = np.linspace(0, 30, 200)[None]
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_equals_the_upright_one(orientation):
    upright = scene()
    upright[90:120, 50:80] = 160  # leaves no symmetry
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
              6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    wanted = photograph(saved(upright))
    np.testing.assert_array_equal(photograph(saved(np.ascontiguousarray(turned), exif=exif)), wanted)
    assert close(photograph(saved(np.ascontiguousarray(turned), "JPEG", exif=exif)), wanted)


def test_an_orientation_that_makes_no_sense_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(photograph(saved(scene(), exif=exif)), PLAIN)
    np.testing.assert_array_equal(photograph(saved(scene(), exif=b"Exif\0\0nonsense")), PLAIN)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "L"])
def test_modes(mode):
    assert close(photograph(saved(scene(garment=0), mode=mode)), photograph(saved(scene(garment=0))))


def test_cmyk():
    assert close(photograph(saved(scene(), "JPEG", "CMYK")), PLAIN)


def test_sixteen_bits():
    for low in (scene(), BOOT):
        np.testing.assert_array_equal(photograph(saved(low.astype(np.uint16) * 257)), photograph(saved(low)))
    transparent = scene().astype(np.uint16) * 0 + 777
    transparent[90:210, 50:110] = 20_000
    received = photograph(saved(transparent, transparency=777))
    assert received.max() == 255 - (20_000 >> 8) and not received[:, :7].any()


@pytest.mark.parametrize("garment", [10, 250])
def test_transparent_becomes_a_ground_that_shows_the_garment(garment):
    """On white, a white garment would disappear."""
    received = photograph(saved(scene(channels=(4,), ground=0, garment=(garment, garment, garment, 255))))
    assert (received[:, 7:21] >= 240).all() and not received[:, :7].any()


def test_holes_take_the_colour_of_opaque_corners():
    picture = scene(channels=(4,), ground=(240, 240, 240, 255), garment=(60, 60, 60, 255))
    picture[140:150, 70:80, 3] = 0
    received = photograph(saved(picture))
    assert received[:, 7:21].max() > 180 and received[13, 13] < 40 and not received[:, :6].any()


def test_blank_pictures_become_black_and_files_of_them_are_refused(tmp_path):
    for picture in (np.zeros((50, 40, 4), np.uint8), scene(garment=255), scene(garment=250), np.zeros((1, 1), np.uint8),
                    np.zeros((28, 28, 4), np.uint8)):
        received = photograph(saved(picture))
        assert received.shape == (28, 28) and received.dtype == np.uint8 and not received.any()
        (tmp_path / "blank.png").write_bytes(saved(picture).read())
        assert refused(tmp_path / "blank.png").startswith("the picture holds nothing: ")
    np.save(tmp_path / "blank.npy", np.zeros((2, 28, 28), np.uint8))  # arrays are taken as they are
    assert not read(tmp_path / "blank.npy").any()
    assert (photograph(saved(scene(garment=255)), "no") == 255).all()


@pytest.mark.parametrize("height, width", [(1, 1), (1, 5000), (5000, 1), (3, 2), (27, 28), (29, 28), (28, 4000)])
def test_any_size(height, width):
    picture = np.full((height, width), 255, np.uint8)
    picture[height // 3:height // 2 + 1, width // 3:width // 2 + 1] = 0
    assert photograph(saved(picture)).shape == (28, 28)


def test_a_garment_thinner_than_a_pixel_is_seen():
    assert photograph(saved(scene(tall=200, top=50, wide=1))).max() > 50


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.fromarray(scene(garment=shade)) for shade in (60, 120, 255)]
    for format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        file = io.BytesIO()
        frames[0].save(file, format, save_all=True, append_images=frames[1:], **options)
        file.seek(0)
        assert close(photograph(file), PLAIN)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_photograph_is_as_a_small_one(format):
    large = np.kron(scene(), np.ones((8, 8), np.uint8))  # 2400 x 1600
    assert close(photograph(saved(large, format)), PLAIN)


def test_a_small_garment_on_a_large_ground_is_found():
    assert close(photograph(saved(scene(3000, 2000, top=2000, left=400, tall=120, wide=60))), PLAIN, 20)


def test_folders_are_expanded(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/notes.txt", ".hidden.png", ".cache/x.png", "c-images-idx3-ubyte.gz",
                 "c-labels-idx1-ubyte.gz", "a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    received = list(expand([str(tmp_path), "x.tiff", str(tmp_path / "empty")]))
    names = [os.path.relpath(path, tmp_path) for path, error in received[:4]]
    assert names == ["a.npy", "a/z.JPG", "b.png", "c-images-idx3-ubyte.gz"]
    assert not any(error for _, error in received[:5]) and received[4][0] == "x.tiff"
    assert received[5][0].endswith("empty") and received[5][1].startswith("holds no file that ends with one of .png")


def test_a_folder_without_permission_is_an_error_beside_the_files(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert list(expand([str(tmp_path)])) == [(str(tmp_path / "locked"), "cannot be read: Permission denied"),
                                             (str(tmp_path / "a.png"), "")]


def test_a_large_array_needs_little_memory(tmp_path):
    many = np.zeros((20_000, 784), np.float32)  # 63 MB
    np.save(tmp_path / "many.npy", many)
    del many
    tracemalloc.start()
    try:
        assert sum(len(block) for block in blocks(tmp_path / "many.npy")) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 45e6
    finally:
        tracemalloc.stop()


def test_filters_of_warnings_are_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "x.png").write_bytes(saved(scene()).getvalue())
    before = list(warnings.filters)
    for name in ("x.npy", "x.png"):
        for _ in blocks(tmp_path / name):
            assert warnings.filters == before
