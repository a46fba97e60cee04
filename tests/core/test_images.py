"""Pictures in every colour mode, found in folders, written back; and those that cannot be read."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorscope.data import atomic_path, check_rgb, find_images, is_video, photo, read_image, refuse_existing, write_png
from priorscope.errors import InputError


@pytest.fixture
def colours():
    """A small picture whose corners differ, so that every flip and turn shows."""
    return np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, colours, orientation):
    stored = {  # how a camera stores an upright picture under each orientation
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](colours)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(read_image(path), colours)


def test_broken_exif_is_passed_over(tmp_path, colours):
    path = saved(tmp_path / "a.png", Image.fromarray(colours), exif=b"Exif\0\0garbage")
    np.testing.assert_array_equal(read_image(path), colours)


def test_grey_palette_and_bilevel(tmp_path, colours):
    grey = colours[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "l.png", Image.fromarray(grey))), three)
    palette = Image.fromarray(colours).quantize(256)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "p.png", palette)), np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "1.png", bilevel)), (three > 127) * 255)


def test_sixteen_bit_grey_keeps_its_white(tmp_path):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    np.testing.assert_array_equal(read_image(path)[0, :, 0], [0, 0, 1, 1, 128, 255])
    tiff = saved(tmp_path / "a.tif", Image.fromarray(values))
    np.testing.assert_array_equal(read_image(tiff), read_image(path))


def test_sixteen_bit_colour_png(tmp_path):
    """Pillow writes none, so here are the bytes of a 2 x 1 one."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = b"\0" + struct.pack(">6H", 0, 0x8080, 65535, 65535, 0, 0x4040)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels))
    (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[0, 128, 255], [255, 0, 64]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_laid_over_the_background(tmp_path, mode):
    if mode == "P":
        image = Image.new("P", (3, 1))
        image.putpalette([10, 10, 10, 200, 200, 200])
        image.putdata([0, 1, 0])
        path = saved(tmp_path / "a.png", image, transparency=0)
        expected = {255: [255, 200, 255], 0: [0, 200, 0], None: [10, 200, 10]}
    else:
        rgba = np.array([[[10, 10, 10, 0], [200, 200, 200, 255], [100, 100, 100, 51]]], np.uint8)
        path = saved(tmp_path / "a.png", Image.fromarray(rgba).convert(mode))
        expected = {255: [255, 200, 224], 0: [0, 200, 20], None: [10, 200, 100]}
    for value, wanted in expected.items():
        background = None if value is None else (value,) * 3
        np.testing.assert_array_equal(read_image(path, background=background)[0, :, 0], wanted)


def test_cmyk_jpeg(tmp_path):
    plain = Image.new("RGB", (16, 16), (200, 40, 90))
    path = saved(tmp_path / "a.jpg", plain.convert("CMYK"), quality=100)
    assert np.abs(read_image(path).astype(int) - (200, 40, 90)).max() <= 4


def test_animation_gives_its_first_frame(tmp_path):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    path = saved(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(path)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (1, 3000)])
def test_extreme_shapes(tmp_path, size):
    path = saved(tmp_path / "a.png", Image.new("RGB", size, (1, 2, 3)))
    image = read_image(path)
    assert image.shape == (size[1], size[0], 3)
    assert (image == (1, 2, 3)).all()


def test_file_object_pil_image_and_array_agree(tmp_path, colours):
    path = saved(tmp_path / "a.png", Image.fromarray(colours))
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_image(file), colours)
    np.testing.assert_array_equal(read_image(io.BytesIO(path.read_bytes())), colours)
    np.testing.assert_array_equal(read_image(Image.open(path)), colours)
    np.testing.assert_array_equal(read_image(str(path)), colours)
    np.testing.assert_array_equal(read_image(colours), colours)
    np.testing.assert_array_equal(read_image(colours.astype(np.uint16) * 257), colours)
    np.testing.assert_array_equal(read_image(colours / np.float32(255)), colours)
    np.testing.assert_array_equal(read_image(colours[..., :1]), read_image(colours[..., 0]))


def test_the_result_is_the_callers_own(colours):
    before = colours.copy()
    read_image(colours)[:] = 0
    np.testing.assert_array_equal(colours, before)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 8, 9), np.uint8), "channels last"),
        (np.zeros((2, 8, 9, 3), np.uint8), "one image at a time"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((4, 5, 3), np.int64), "int64"),
        (np.zeros((4, 5, 3), bool), "bool"),
        (np.full((4, 5, 3), np.nan), "NaN"),
        (np.full((4, 5, 3), 255.0), "white value"),
        (np.full((4, 5, 3), -0.1), "-0.1"),
    ],
)
def test_wrong_arrays(array, said):
    with pytest.raises(InputError, match=said):
        read_image(array)


def test_files_that_are_no_pictures(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(photo("chelsea")).save(whole, format="JPEG")
    contents = {
        "text.png": b"this is a text file, not a picture\n",
        "empty.png": b"",
        "cut.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "head.png": b"\x89PNG\r\n\x1a\n",
        "junk.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(InputError, match=path.name):
            read_image(path)


def test_a_png_cut_at_any_byte_is_refused(tmp_path, colours):
    data = saved(tmp_path / "a.png", Image.fromarray(colours)).read_bytes()
    for length in range(0, len(data) - 24, 3):  # the last 24 bytes are checksums and the closing chunk
        (tmp_path / "cut.png").write_bytes(data[:length])
        with pytest.raises(InputError):
            read_image(tmp_path / "cut.png")


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    bomb = saved(tmp_path / "bomb.png", Image.new("1", (20000, 20000)))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(InputError, match="178 megapixels"):
        read_image(bomb)
    large = saved(tmp_path / "large.png", Image.new("1", (2000, 1000)))
    with pytest.raises(InputError, match=r"2000 x 1000 = 2 megapixels; at most 1\.5"):
        read_image(large, max_megapixels=1.5)


def test_float_tiff_is_refused(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.zeros((3, 3), np.float32)))
    with pytest.raises(InputError, match="floating-point"):
        read_image(path)


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_find_images_keeps_folders_and_tells_twins_apart(tmp_path):
    touched(tmp_path, "x.jpeg", "x.png", "y.PNG", "b/x.jpg", "notes.txt", ".hidden.png", ".git/z.png")
    found = find_images(tmp_path)
    assert {image.stem: image.path.relative_to(tmp_path).as_posix() for image in found} == {
        "x.jpeg": "x.jpeg",
        "x.png": "x.png",
        "y": "y.PNG",
        "b/x": "b/x.jpg",
    }
    assert [image.stem for image in find_images(tmp_path, recursive=False)] == ["x.jpeg", "x.png", "y"]


def test_find_images_in_several_places(tmp_path):
    touched(tmp_path, "a/x.png", "b/x.png", "c/x.jpg", "c/only.png")
    stems = [image.stem for image in find_images([tmp_path / "a", tmp_path / "b", tmp_path / "c"])]
    assert stems == ["a/x.png", "b/x.png", "only", "x.jpg"]
    one = find_images([tmp_path / "a/x.png", tmp_path / "a", tmp_path / "a/../a/x.png"])
    assert [image.stem for image in one] == ["x"]


def test_stems_are_unique_also_where_a_name_looks_like_another_with_suffix(tmp_path):
    names = ["x.png", "x.jpg", "x.png.jpg", "X.PNG", "d/x.png", "d.x/x.png"]
    touched(tmp_path / "1", *names)
    touched(tmp_path / "2", *names)
    for order in itertools.permutations(["1", "2", "1/x.png"]):
        found = find_images([tmp_path / name for name in order])
        stems = [image.stem.lower() for image in found]
        assert len(set(stems)) == len(stems) == 12
        assert not any(stem.startswith("/") or ".." in stem for stem in stems)


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path):
    touched(tmp_path, "photo.heif2")
    assert find_images(tmp_path / "photo.heif2")[0].stem == "photo"


def test_find_images_finds_nothing(tmp_path):
    for paths in (tmp_path, tmp_path / "missing", []):
        with pytest.raises(InputError, match=r"no picture|no such"):
            find_images(paths)


def test_is_video():
    assert is_video("a/B.MP4")
    assert not is_video("a.png")


@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), "u1"), ((5, 7, 3), "u1"), ((5, 7, 4), "u1"), ((5, 7), "u2")])
def test_png_round_trip(tmp_path, shape, dtype):
    values = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    path = write_png(tmp_path / "new/folder/a.png", values)
    back = np.asarray(Image.open(path)).astype(dtype)
    np.testing.assert_array_equal(back, values)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4)), np.zeros((4, 4, 3), "u2"), np.zeros((4, 4, 2), "u1"), np.zeros((0, 4), "u1")]
)
def test_png_refuses_what_it_cannot_hold(tmp_path, values):
    with pytest.raises(InputError, match="PNG holds"):
        write_png(tmp_path / "a.png", values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), "u1"), r"uint8 array \(H, W, 3\), got uint8 array \(4, 4\)"),
        (np.zeros((4, 4, 4), "u1"), r"got uint8 array \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), "got float64 array"),
        (np.zeros((0, 4, 3), "u1"), "the image is empty"),
        ("photo.png", r"got str.*read_image gives one"),
    ],
)
def test_what_is_no_rgb_picture(image, words):
    with pytest.raises(InputError, match=words):
        check_rgb(image)
    check_rgb(np.zeros((1, 1, 3), "u1"))


def test_png_does_not_overwrite_silently(tmp_path):
    path = write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="exists already"):
        write_png(path, np.ones((2, 2), np.uint8))
    assert read_image(path).max() == 0
    write_png(path, np.ones((2, 2), np.uint8), overwrite=True)
    assert read_image(path).max() == 1


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_writing_below_a_file_is_a_users_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_png(tmp_path / "file/a.png", np.zeros((2, 2), np.uint8))


def test_results_that_are_there_are_refused_before_work(tmp_path):
    paths = [tmp_path / name for name in ("none.png", "link.png", "there.png")]
    refuse_existing(paths)
    paths[1].symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"link.png: exists already\. Use --overwrite or another --out\."):
        refuse_existing(paths)
    paths[2].touch()
    with pytest.raises(InputError, match=r"link.png: exists already \(and 1 more of the results\)"):
        refuse_existing(str(path) for path in paths)
