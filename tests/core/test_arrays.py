"""Arrays from files: values and dtypes as stored, nothing unpickled, broken files refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from priorscope.data import read_array, write_npy, write_npz
from priorscope.errors import InputError


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i8", "c8", "?"])
def test_npy_and_npz_round_trip(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2, (3, 4)).astype(dtype)
    for path in (
        write_npy(tmp_path / "a.npy", values),
        write_npz(tmp_path / "a.npz", {"x": values}),
        write_npz(tmp_path / "b.npz", {"x": values}, compress=False),
    ):
        back = read_array(path)
        assert back.dtype == values.dtype
        np.testing.assert_array_equal(back, values)
        back[0] = 0  # the caller's own, not a read-only map of the file
    assert len(list(tmp_path.iterdir())) == 3


def test_npz_with_several_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"depth": np.ones((2, 2)), "space": "depth"})
    np.testing.assert_array_equal(read_array(path, key="depth"), np.ones((2, 2)))
    with pytest.raises(InputError, match="depth, space"):
        read_array(path)
    with pytest.raises(InputError, match="no array 'nope'"):
        read_array(path, key="nope")
    with pytest.raises(InputError, match="numbers were expected"):
        read_array(path, key="space")


def test_png_values_are_not_scaled(tmp_path):
    wide = np.array([[0, 1, 1000, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "a.png")
    back = read_array(tmp_path / "a.png")
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, wide)
    narrow = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(narrow).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_array(tmp_path / "b.png"), narrow)


def test_exr(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    rgb = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": rgb}).write(str(tmp_path / "rgb.exr"))
    OpenEXR.File(header, {"Z": rgb[..., 0].astype(np.float16)}).write(str(tmp_path / "z.exr"))
    OpenEXR.File(header, {"RGB": rgb, "Z": rgb[..., 1].copy()}).write(str(tmp_path / "two.exr"))
    np.testing.assert_array_equal(read_array(tmp_path / "rgb.exr"), rgb)
    np.testing.assert_array_equal(read_array(tmp_path / "rgb.exr", key="G"), rgb[..., 1])
    z = read_array(tmp_path / "z.exr", ndim=2)
    assert z.dtype == np.float16
    np.testing.assert_array_equal(z, rgb[..., 0].astype(np.float16))
    np.testing.assert_array_equal(read_array(tmp_path / "two.exr", key="Z"), rgb[..., 1])
    with pytest.raises(InputError, match="RGB, Z"):
        read_array(tmp_path / "two.exr")
    data = (tmp_path / "rgb.exr").read_bytes()
    (tmp_path / "cut.exr").write_bytes(data[:-40])
    (tmp_path / "text.exr").write_text("no")
    for name in ("cut.exr", "text.exr"):
        with pytest.raises(InputError, match=name):
            read_array(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_never_loaded(tmp_path, suffix):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    path = tmp_path / f"a{suffix}"
    save = np.save if suffix == ".npy" else np.savez
    save(path, np.array([Bomb(), None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        read_array(path)


def test_objects_are_not_written(tmp_path):
    with pytest.raises(InputError, match="Python objects"):
        write_npz(tmp_path / "a.npz", {"x": np.array([None])})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_cut_text_and_empty_files(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    values = np.random.default_rng(0).integers(0, 65535, (40, 40)).astype(np.uint16)
    {".npy": np.save, ".npz": lambda p, a: np.savez(p, a=a), ".png": lambda p, a: Image.fromarray(a).save(p)}[suffix](
        whole, values
    )
    data = whole.read_bytes()
    for name, content in {"cut": data[: len(data) // 2], "text": b"hello, world", "empty": b""}.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            read_array(path)
        assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much(tmp_path):
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
        file.write(bytes(100))
    with pytest.raises(InputError, match=r"a\.npy"):
        read_array(path)
    zeros = write_npz(tmp_path / "z.npz", {"x": np.zeros(200_000)})
    with pytest.raises(InputError, match="memory"):
        read_array(zeros, max_gigabytes=0.001)


def test_checks_on_request(tmp_path):
    path = write_npy(tmp_path / "a.npy", np.array([[1.0, np.nan]]))
    assert np.isnan(read_array(path)[0, 1])
    with pytest.raises(InputError, match="1 NaN"):
        read_array(path, allow_nonfinite=False)
    assert read_array(path, ndim=(2, 3)).shape == (1, 2)
    with pytest.raises(InputError, match="3 dimensions"):
        read_array(path, ndim=3)
    with pytest.raises(InputError, match="no values"):
        read_array(write_npy(tmp_path / "e.npy", np.zeros((0, 3))))
    with pytest.raises(InputError, match="one array without a name"):
        read_array(path, key="x")


def test_other_paths(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"x")
    for path, said in [(tmp_path / "no.npy", "no such"), (tmp_path, "folder"), (tmp_path / "a.mat", r"\.npz")]:
        with pytest.raises(InputError, match=said):
            read_array(path)


def test_nothing_is_overwritten_silently(tmp_path):
    path = write_npy(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InputError, match="exists already"):
        write_npy(path, np.ones(3))
    assert read_array(path).max() == 0
    with pytest.raises(InputError, match=r"end in \.npy"):
        write_npy(tmp_path / "a.txt", np.zeros(3))
