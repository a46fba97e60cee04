"""Sweeps of every public file format, and files that are broken."""

import struct

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_detection.data.lzf import lzf_decompress
from priorscope_detection.data.pcd import read_pcd, write_pcd
from priorscope_detection.data.points import read_points

POINTS = np.random.default_rng(0).normal(scale=20, size=(500, 4)).astype(np.float32)


def header(encoding, count=500, fields="x y z intensity", sizes="4 4 4 4", kinds="F F F F", more=""):
    return (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {kinds}\n{more}"
        f"WIDTH {count}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {encoding}\n"
    ).encode()


def lzf_literals(data):
    """LZF that copies nothing."""
    return b"".join(bytes([len(data[i : i + 32]) - 1]) + data[i : i + 32] for i in range(0, len(data), 32))


@pytest.fixture
def written(tmp_path):
    def write(content, name="sweep.pcd"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def test_ascii_binary_and_compressed_are_the_same_points(written):
    text = "\n".join(" ".join(repr(float(value)) for value in row) for row in POINTS).encode()
    columns = POINTS.T.tobytes()
    packed = lzf_literals(columns)
    for content in (
        header("ascii") + text + b"\n",
        header("binary") + POINTS.tobytes(),
        header("binary_compressed") + struct.pack("<II", len(packed), len(columns)) + packed,
    ):
        sweep = read_points(written(content))
        np.testing.assert_array_equal(sweep.points, POINTS)
        assert sweep.points.dtype == np.float32
        assert sweep.dropped == 0


def test_what_is_written_is_read(tmp_path):
    path = write_pcd(tmp_path / "a.pcd", POINTS)
    np.testing.assert_array_equal(read_points(path).points, POINTS)
    with pytest.raises(InputError, match="exists already"):
        write_pcd(path, POINTS)
    with pytest.raises(InputError, match=r"\(500, 3\)"):
        write_pcd(tmp_path / "b.pcd", POINTS[:, :3])


@pytest.mark.parametrize(
    ("block", "plain"),
    [
        (b"\x02abc", b"abc"),
        (b"\x00a\xe0\x06\x00", b"a" * 16),  # length 7 + 6 + 2 from one back: overlaps what it writes
        (b"\x03abcd\x20\x03", b"abcdabc"),  # length 3 from 4 back
        (b"\x01ab\x60\x01\x00z", b"abababaz"[:2] + b"ababa" + b"z"),
        (b"\x1f" + bytes(range(32)) + b"\x1f" + bytes(range(32)) * 1 + b"\x20\x3f", None),
    ],
)
def test_lzf_by_hand(block, plain):
    if plain is None:  # a copy of 3 from 64 back
        plain = bytes(range(32)) * 2 + bytes([0, 1, 2])
    assert lzf_decompress(block, len(plain)) == plain


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"\x05abc", "literals"),
        (b"\x00a\xe0", "reference"),
        (b"\x00a\x20\x01", "before the start"),
        (b"\x02abc", "3 bytes, 4"),
        (b"\x04abcde", "more than the 4"),
    ],
)
def test_broken_lzf(block, message):
    with pytest.raises(ValueError, match=message):
        lzf_decompress(block, 4)


def test_fields_of_other_types(written):
    table = np.zeros(3, [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("_", "V4"), ("ring", "<u2"), ("intensity", "u1")])
    table["x"], table["intensity"], table["ring"] = [1.5, 2.5, 3.5], [0, 51, 255], 7
    head = header("binary", 3, "x y z _ ring intensity", "8 8 8 1 2 1", "F F F U U U", "COUNT 1 1 1 4 1 1\n")
    path = written(head + table.tobytes())
    sweep = read_points(path, full_scale=255)
    np.testing.assert_allclose(sweep.points[:, 3], [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_array_equal(sweep.points[:, 0], [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(read_pcd(path)["ring"], [7, 7, 7])


def test_intensity_in_the_red_of_rgb(written):
    rgb = np.array([0x00FF0000, 0x00330000, 0x0000FFFF], "<u4").view("<f4")
    table = np.concatenate([POINTS[:3, :3], rgb[:, None]], axis=1).astype("<f4")
    sweep = read_points(written(header("binary", 3, "x y z rgb") + table.tobytes()))
    np.testing.assert_allclose(sweep.points[:, 3], [1, 0.2, 0], rtol=1e-6)
    no_colour = header("binary", 3, "x y z", "4 4 4", "F F F") + POINTS[:3, :3].tobytes()
    np.testing.assert_array_equal(read_points(written(no_colour)).points[:, 3], 0)


def test_fields_whose_names_come_several_times(written):
    table = np.arange(24, dtype="<f4").reshape(3, 8)
    for fields in ("_1 _ x y z _ _6 i", "__1 _ x y z _1 _ i", "a a x y z X _ i"):
        head = header("binary", 3, fields, "4 " * 8, "F " * 8)
        np.testing.assert_array_equal(read_points(written(head + table.tobytes())).points, table[:, [2, 3, 4, 7]])


def test_bin(written):
    np.testing.assert_array_equal(read_points(written(POINTS.tobytes(), "a.bin")).points, POINTS)
    five = np.concatenate([POINTS, np.ones((500, 1), np.float32)], axis=1)
    np.testing.assert_array_equal(read_points(written(five.tobytes(), "a.pcd.bin")).points, POINTS)
    np.testing.assert_array_equal(read_points(written(five.tobytes(), "b.bin"), columns=5).points, POINTS)


def test_points_that_are_not_finite_are_left_out_and_counted(written):
    bad = POINTS.copy()
    bad[3, 0], bad[7, 3], bad[9, 2] = np.nan, np.inf, -np.inf
    sweep = read_points(written(bad.tobytes(), "a.bin"))
    assert sweep.dropped == 3
    np.testing.assert_array_equal(sweep.points, np.delete(POINTS, [3, 7, 9], axis=0))
    with pytest.raises(InputError, match="none of its 500 points is finite"):
        read_points(written(np.full_like(POINTS, np.nan).tobytes(), "b.bin"))


def test_a_sweep_without_returns_is_a_sweep(written):
    for encoding in ("ascii", "binary", "binary_compressed"):
        assert read_points(written(header(encoding, 0))).points.shape == (0, 4)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.pcd", "is empty"),
        (b"", "a.bin", "is empty"),
        (b"ply\nformat", "a.pcd", "no PCD header"),
        (header("binary") + POINTS.tobytes()[:-5], "a.pcd", "7995 bytes of data, 8000 were announced"),
        (header("ascii") + b"1 2 3 4\n", "a.pcd", "4 numbers, 2000"),
        (header("ascii", 1) + b"1 2 three 4\n", "a.pcd", "no number"),
        (header("binary_compressed") + b"\0\0", "a.pcd", "2 bytes of data, 8"),
        (header("binary_compressed") + struct.pack("<II", 9, 8000) + b"\0", "a.pcd", "1 bytes of data, 9"),
        (header("binary_compressed") + struct.pack("<II", 2, 8000) + b"\0a", "a.pcd", "gives 1 bytes, 8000"),
        (header("binary_compressed") + struct.pack("<II", 2, 2**32 - 1) + b"\0a", "a.pcd", "header announces 8000"),
        (header("binary", 2_000_000_000), "a.pcd", "announces 2000000000 points"),
        (header("binary", -1), "a.pcd", "announces -1 points"),
        (header("binary", "many"), "a.pcd", "no whole number"),
        (header("lz4"), "a.pcd", "DATA lz4"),
        (header("binary", kinds="F F F Q"), "a.pcd", "TYPE Q"),
        (header("binary", sizes="4 4 4"), "a.pcd", "4 fields, 3 sizes"),
        (header("binary", 1, more="COUNT 2 1 1 1\n") + b"\0" * 20, "a.pcd", "field x has 2 values a point"),
        (header("binary", 1, more="COUNT 1 1 1 4\n") + b"\0" * 28, "a.pcd", "field intensity has 4 values a point"),
        (header("binary", 1, "a b c d") + b"\0" * 16, "a.pcd", "no field x, y, z"),
        (b"\0" * 30, "a.bin", "30 bytes, no multiple of 16"),
        (b"x", "a.las", "no LiDAR sweep"),
    ],
)
def test_broken_files(written, content, name, message):
    path = written(content, name)
    with pytest.raises(InputError, match=message) as error:
        read_points(path)
    assert str(path) in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "a.pcd")
    (tmp_path / "b.pcd").mkdir()
    with pytest.raises(InputError, match="is a folder, a sweep is a file"):
        read_points(tmp_path / "b.pcd")


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_no_more_is_read_of_a_file_than_it_announces(written, encoding):
    import tracemalloc

    body = {
        "ascii": b"1 2 3 4\n",
        "binary": b"\0" * 16,
        "binary_compressed": struct.pack("<II", 17, 16) + b"\x0f" + b"\0" * 16,
    }
    path = written(header(encoding, 1) + body[encoding], "a.pcd")
    with path.open("ab") as file:
        file.truncate(300_000_000)
    tracemalloc.start()
    assert len(read_points(path).points) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_intensities_of_a_sweep_by_itself(written):
    """Shares as KITTI and OPV2V have them, bytes as nuScenes and DAIR-V2X: a network knows the former."""
    points = np.array([[1, 2, 3, 0.5], [4, 5, 6, 1.0]], np.float32)
    for scale, name in ((1, "a.bin"), (255, "b.bin")):
        path = written((points * np.array([1, 1, 1, scale], np.float32)).tobytes(), name)
        np.testing.assert_allclose(read_points(path, full_scale=None).points, points)
        np.testing.assert_allclose(read_points(path).points[:, 3], points[:, 3] * scale)


def test_ten_million_points_in_bounded_memory(tmp_path):
    import tracemalloc

    count = 10_000_000
    path = tmp_path / "a.bin"
    with open(path, "wb") as file:
        file.truncate(16 * count)
    tracemalloc.start()
    sweep = read_points(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sweep.points.shape == (count, 4)
    assert peak < 3 * 16 * count
