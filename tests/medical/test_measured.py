"""Measured data: counts become line integrals, the axis is found, k-space in fastMRI's layout keeps its meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope.inverse.mri import from_kspace, to_kspace
from priorscope.inverse.parallel_beam import ParallelBeam
from priorscope_medical.kspace import centre_crop, read_kspace, write_kspace
from priorscope_medical.measured import read_sinogram, write_sinogram
from priorscope_medical.placement import placed, placement
from priorscope_medical.rotation_axis import find_axis
from priorscope_medical.volumes import Volume

h5py = pytest.importorskip("h5py")

VIEWS = np.arange(24) * 7.5


def blobs(size: int = 40, slices: int = 2) -> torch.Tensor:
    """Smooth spots off the middle, within the circle that every view sees; attenuation per mm."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    image = 0.03 * np.exp(-((y - 5) ** 2 + (x + 7) ** 2) / 30) + 0.02 * np.exp(-((y + 6) ** 2 + (x - 2) ** 2) / 12)
    return torch.from_numpy(np.stack([image, 0.5 * image[::-1]])[:slices, None].copy()).float()


def projections(angles: np.ndarray = VIEWS, axis_offset: float = 0.0) -> np.ndarray:
    """Line integrals [slices, 1, detectors, views] at a pitch of 0.5 mm."""
    return ParallelBeam(40, angles, pixel=0.5, pitch=0.5, axis_offset=axis_offset)(blobs()).numpy()


def exchange(path: Path, **changes: Any) -> Path:
    """A Data Exchange file: counts of 50000 in a beam that is uneven, above a dark current of 100."""
    true = projections()[:, 0]  # slices, detectors, views
    beam = 50000 * (1 + 0.2 * np.sin(np.arange(true.shape[1]) / 5))
    counts = 100 + beam[:, None] * np.exp(-true)
    content: dict[str, Any] = {
        "exchange/data": np.rint(counts).transpose(2, 0, 1).astype(np.uint16),
        "exchange/data_white": np.rint(np.broadcast_to(beam + 100, (3, 2, len(beam)))).astype(np.uint16),
        "exchange/data_dark": np.full((2, 2, len(beam)), 100, np.uint16),
        "exchange/theta": VIEWS,
    }
    with h5py.File(path, "w") as file:
        for name, values in (content | changes).items():
            if values is not None:
                file[name] = values
    return path


def test_counts_become_line_integrals(tmp_path: Path) -> None:
    found = read_sinogram(exchange(tmp_path / "a.h5"), pitch=0.5)
    np.testing.assert_allclose(found.data, projections(), atol=5e-4)
    np.testing.assert_allclose(found.angles, VIEWS)
    assert (found.clamped, found.dead) == (0, 0)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights, np.exp(-found.data), rtol=1e-5)
    assert any("axis_offset_mm" in note for note in found.notes)
    operator = found.operator(40, pixel=0.5)
    np.testing.assert_allclose(operator(blobs()).numpy(), found.data, atol=5e-4)
    assert operator.check_measurement(torch.from_numpy(found.data)) is not None
    with pytest.raises(InputError, match=r"has 58 detectors, the geometry 64"):
        found.operator(40, detectors=64)
    some = read_sinogram(tmp_path / "a.h5", pitch=0.5, rows=(1, 2))
    np.testing.assert_array_equal(some.data, found.data[1:])
    np.testing.assert_allclose(found.relative(0.02).numpy(), found.data / 0.02, rtol=1e-6)
    with pytest.raises(InputError, match="that of water"):
        found.relative()


def test_dead_detectors_are_filled_and_dark_rays_clamped_and_neither_has_weight(tmp_path: Path) -> None:
    whole = exchange(tmp_path / "a.h5")
    with h5py.File(whole, "r+") as file:
        file["exchange/data_white"][:, :, 20] = 100
        file["exchange/data"][3, 1, 30] = 90  # less than the dark current
    with pytest.warns(UserWarning, match="1 of 2784 rays"):
        found = read_sinogram(whole, pitch=0.5)
    assert (found.clamped, found.dead) == (1, 2)
    assert found.weights is not None
    assert (found.weights[:, 0, 20] == 0).all()
    assert found.weights[1, 0, 30, 3] == 0
    assert found.weights[0, 0, 30, 3] > 0
    assert found.data[1, 0, 30, 3] == pytest.approx(-np.log(1e-4))
    np.testing.assert_allclose(found.data[:, 0, 20], projections()[:, 0, 20], atol=0.05)
    with h5py.File(whole, "r+") as file:
        file["exchange/data_white"][:] = 0
    with pytest.raises(InputError, match="nowhere above the dark"):
        read_sinogram(whole)


def test_layouts_and_units_of_angles(tmp_path: Path) -> None:
    true = projections()
    stack = true[:, 0].transpose(0, 2, 1)
    np.savez(tmp_path / "a.npz", sinogram=stack, theta=VIEWS)
    np.testing.assert_array_equal(read_sinogram(tmp_path / "a.npz").data, true)
    np.save(tmp_path / "a.npy", stack)
    np.testing.assert_array_equal(read_sinogram(tmp_path / "a.npy", angles=VIEWS).data, true)
    np.save(tmp_path / "one.npy", stack[0])
    np.testing.assert_array_equal(read_sinogram(tmp_path / "one.npy", angles=VIEWS).data, true[:1])
    np.save(tmp_path / "thick.npy", np.exp(-stack.transpose(1, 0, 2)))
    found = read_sinogram(tmp_path / "thick.npy", angles=VIEWS, order="projections", values="transmission")
    np.testing.assert_allclose(found.data, true, atol=1e-5)
    with pytest.warns(UserWarning, match="are they transmissions"):
        read_sinogram(tmp_path / "thick.npy", angles=VIEWS, order="projections")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["scan/line_integrals"] = stack
        file["scan/turn"] = np.deg2rad(VIEWS)
        file["scan/turn"].attrs["units"] = "radian"
    found = read_sinogram(tmp_path / "b.h5", dataset="scan/line_integrals", angles="scan/turn")
    np.testing.assert_allclose(found.angles, VIEWS)
    with pytest.warns(UserWarning, match="are they radians"):
        read_sinogram(tmp_path / "a.npy", angles=np.deg2rad(VIEWS))


def test_written_projections_are_read_with_their_geometry(tmp_path: Path) -> None:
    true = projections(axis_offset=1.25)
    path = write_sinogram(
        tmp_path / "a.h5", true, VIEWS, pitch=0.5, axis_offset=1.25, slice_spacing=3, water_per_mm=0.02
    )
    found = read_sinogram(path)
    np.testing.assert_array_equal(found.data, true)
    assert (found.pitch, found.axis_offset, found.slice_spacing, found.water_per_mm) == (0.5, 1.25, 3, 0.02)
    assert found.notes == ()
    np.testing.assert_allclose(found.operator(40)(blobs()).numpy(), true, atol=1e-6)
    assert found.operator().domain == (1, 58, 58)
    with pytest.raises(InputError, match="exists already"):
        write_sinogram(path, true, VIEWS, pitch=0.5)


def test_measurements_keep_the_place_of_their_slices(tmp_path: Path) -> None:
    """Whatever the file's directions and whatever grid the result gets: oblique, tilted, some slices only."""
    affine = np.array([[0.1, -0.2, 3.0, 7], [1.9, 0.1, 0.3, -20], [0.2, 2.0, 0.1, 11], [0, 0, 0, 1]])
    spacing = tuple(float(step) for step in np.linalg.norm(affine[:3, [2, 0, 1]], axis=0))
    volume = Volume(np.zeros((5, 6, 8), np.float32), spacing, affine, (2, 0, 1), "HU", Path("x"), 4)  # type: ignore[arg-type]
    data = np.ones((5, 1, 9, 4), np.float32)
    path = write_sinogram(tmp_path / "a.h5", data, [0, 30, 60, 90], pitch=2, place=placement(volume))
    place = read_sinogram(path).place
    assert place is not None
    blank = Volume(volume.data, spacing, np.eye(4), (2, 1, 0), "HU", path, 0)  # type: ignore[arg-type]
    same = placed(blank, place)
    assert same.affine == pytest.approx(affine)
    assert (same.axes, same.space) == ((2, 0, 1), 4)
    half = replace(blank, data=blank.data[2:, :3, :4], spacing=(spacing[0], 2 * spacing[1], 2 * spacing[2]))
    # the corner of the first voxel of the third slice
    corner = placed(half, place, first=2).affine @ [-0.5, -0.5, 0, 1]
    assert corner == pytest.approx(affine @ [-0.5, -0.5, 2, 1])
    assert read_sinogram(write_sinogram(tmp_path / "b.h5", data, [0, 30, 60, 90], pitch=2)).place is None
    for name, value in (("directions", np.zeros((3, 3))), ("file_axes", [0, 1, 1]), ("middle_mm", [0, np.nan, 0])):
        broken = write_sinogram(tmp_path / f"{name}.h5", data, [0, 30, 60, 90], pitch=2, place=placement(volume))
        with h5py.File(broken, "a") as file:
            file.attrs[name] = value
        with pytest.raises(InputError, match="broken attributes"):
            read_sinogram(broken)


@pytest.mark.parametrize("attribute", ["pitch_mm", "axis_offset_mm", "water_per_mm"])
@pytest.mark.parametrize("value", ["about 1", np.nan])
def test_attributes_that_are_no_numbers_are_named(tmp_path: Path, attribute: str, value: Any) -> None:
    path = write_sinogram(tmp_path / "a.h5", np.ones((2, 1, 9, 4), np.float32), [0, 30, 60, 90], pitch=2)
    with h5py.File(path, "a") as file:
        file.attrs[attribute] = value
    with pytest.raises(InputError, match=f"{attribute} is {value}"):
        read_sinogram(path)


@pytest.mark.parametrize("offset", [0.0, 1.3, -2.15])
@pytest.mark.parametrize("angles", [VIEWS, np.arange(25) * 7.5, np.arange(40) * 9.0, np.arange(20) * 5.0])
def test_axis_is_found(offset: float, angles: np.ndarray) -> None:
    # A half turn without and with its end, a whole turn, and 95 degrees.
    sinogram = projections(angles, offset)
    assert find_axis(sinogram, angles, 0.5) == pytest.approx(offset, abs=0.02)
    noisy = sinogram + 0.002 * np.random.default_rng(0).standard_normal(sinogram.shape)
    assert find_axis(noisy, angles, 0.5) == pytest.approx(offset, abs=0.2)


def test_axis_that_cannot_be_found() -> None:
    with pytest.raises(InputError, match="do not show the axis"):
        find_axis(projections(np.array([0.0, 3.0, 6.0])), [0, 3, 6])
    with pytest.raises(InputError, match="nothing absorbs"):
        find_axis(np.zeros((1, 1, 8, 4)), [0, 45, 90, 135])
    with pytest.raises(InputError, match="4 views and 3 angles"):
        find_axis(np.ones((1, 1, 8, 4)), [0, 45, 90])


def test_wrong_projections(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(InputError, match="no such file"):
        read_sinogram(path)
    with pytest.raises(InputError, match="24 views; there are 23 angles"):
        read_sinogram(exchange(path, **{"exchange/theta": VIEWS[1:]}))
    with pytest.raises(InputError, match=r"data_white has shape \[2, 57\]; \(exposures, 2, 58\)"):
        read_sinogram(exchange(path, **{"exchange/data_white": np.ones((2, 57))}))
    with pytest.raises(InputError, match="no open beam"):
        read_sinogram(exchange(path, **{"exchange/data_white": None}))
    with pytest.raises(InputError, match="has no dataset exchange/theta or angles or theta"):
        read_sinogram(exchange(path, **{"exchange/theta": None}))
    with pytest.raises(InputError, match="no view angle"):
        read_sinogram(exchange(path, **{"exchange/theta": VIEWS[:0]}))
    with pytest.raises(InputError, match="not finite"):
        read_sinogram(exchange(path, **{"exchange/theta": np.full(24, np.nan)}))
    with pytest.raises(InputError, match="2784 values that are not finite"):
        read_sinogram(exchange(path, **{"exchange/data": np.full((24, 2, 58), np.nan)}))
    with pytest.raises(InputError, match="complex"):
        read_sinogram(exchange(path, **{"exchange/data": np.ones((24, 2, 58), np.complex64)}))
    whole = exchange(path)
    for change in ({"rows": (1, 9)}, {"pitch": 0.0}, {"floor": 2.0}, {"order": "views"}, {"max_gigabytes": 1e-9}):
        with pytest.raises(InputError):
            read_sinogram(whole, **change)  # type: ignore[arg-type]
    (tmp_path / "cut.h5").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "cut.npz").write_bytes(b"PK")
    for name in ("cut.h5", "text.h5", "cut.npz"):
        with pytest.raises(InputError, match="is truncated or no"):
            read_sinogram(tmp_path / name)


HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>64</x><y>36</y><z>1</z></matrixSize>
<fieldOfView_mm><x>280</x><y>157.5</y><z>4.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>32</x><y>32</y><z>1</z></matrixSize>
<fieldOfView_mm><x>140</x><y>140</y><z>4.5</z></fieldOfView_mm></reconSpace>
</encoding></ismrmrdHeader>"""


def fastmri(path: Path, *, coils: int = 0, mask: np.ndarray | None = None, header: str | None = HEADER) -> np.ndarray:
    """A miniature in fastMRI's layout: readout 64 of which 32 are the image, 36 columns; returns the images."""
    random = np.random.default_rng(0)
    shape = (3, coils, 64, 36) if coils else (3, 64, 36)
    images = (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)
    kspace = to_kspace(torch.from_numpy(images)).numpy()
    magnitude = np.abs(images) if not coils else np.sqrt((np.abs(images) ** 2).sum(1))
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace if mask is None else kspace * mask
        file["reconstruction_rss" if coils else "reconstruction_esc"] = centre_crop(magnitude, (32, 32))
        if header is not None:
            file["ismrmrd_header"] = header
        if mask is not None:
            file["mask"] = mask
        file.attrs.update(max=float(magnitude.max()), acquisition="CORPD_FBK", patient_id="miniature")
    return images


@pytest.mark.parametrize("coils", [0, 3])
def test_fastmri(tmp_path: Path, coils: int) -> None:
    images = fastmri(tmp_path / "a.h5", coils=coils)
    found = read_kspace(tmp_path / "a.h5")
    assert found.data.shape == (3, coils or 1, 64, 36)
    assert found.size == (32, 32)
    assert found.spacing == (4.5, 4.375, 4.375)
    assert found.mask.all()
    back = from_kspace(torch.from_numpy(found.data)).numpy()
    np.testing.assert_allclose(back.reshape(images.shape), images, atol=1e-5)
    magnitude = np.sqrt((np.abs(back) ** 2).sum(1))
    assert found.reference is not None
    np.testing.assert_allclose(centre_crop(magnitude, found.size), found.reference, atol=1e-5)
    # The readout is cut before: the same rows, and all columns still there.
    cut = found.without_oversampling()
    assert cut.data.shape[2:] == (32, 36)
    np.testing.assert_allclose(from_kspace(torch.from_numpy(cut.data)).numpy(), back[:, :, 16:48], atol=1e-5)
    np.testing.assert_array_equal(read_kspace(tmp_path / "a.h5", slices=(1, 2)).data, found.data[1:2])
    if coils:
        with pytest.raises(InputError, match="3 coils and sensitivities of 1"):
            found.operator()
    else:
        there = found.operator()(torch.from_numpy(images[:, None]))
        np.testing.assert_allclose(there.numpy(), found.data, atol=1e-5)


def test_mask_of_the_file_or_of_the_zeros(tmp_path: Path) -> None:
    mask = np.zeros(36, np.float32)
    mask[[0, 4, 9, 16, 17, 18, 19, 25, 33]] = 1
    fastmri(tmp_path / "a.h5", mask=mask)
    found = read_kspace(tmp_path / "a.h5")
    np.testing.assert_array_equal(found.mask, mask > 0)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["mask"]
    np.testing.assert_array_equal(read_kspace(tmp_path / "a.h5").mask, mask > 0)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["kspace"][..., 33] = 0  # padding: within the mask, yet without values
        file["mask"] = mask
    assert int(read_kspace(tmp_path / "a.h5").mask.sum()) == 8
    assert found.without_oversampling().mask.shape == (36,)


def test_points_are_written_and_read(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    mask = random.random((20, 24)) < 0.4
    data = (random.standard_normal((2, 1, 20, 24)) * mask).astype(np.complex64)
    path = write_kspace(tmp_path / "a.h5", data, mask, spacing=(3, 1.5, 1.25))
    found = read_kspace(path)
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_array_equal(found.mask, mask)
    assert (found.size, found.spacing) == ((20, 24), (3, 1.5, 1.25))
    np.save(tmp_path / "a.npy", data[:, 0])
    plain = read_kspace(tmp_path / "a.npy", spacing=(3, 1, 1))
    np.testing.assert_array_equal(plain.mask, mask)
    assert found.without_oversampling() is found
    with pytest.raises(InputError, match="readout is undersampled"):
        type(found)(**{**vars(found), "size": (10, 10)}).without_oversampling()


def test_wrong_kspace(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    fastmri(path, header="<ismrmrdHeader>")
    with pytest.raises(InputError, match="broken ismrmrd_header"):
        read_kspace(path)
    fastmri(path, header=HEADER.replace("<x>32</x>", "<x>320</x>"))
    with pytest.raises(InputError, match="320 rows"):
        read_kspace(path)
    fastmri(path, header=HEADER.replace("<y>32</y>", "<y>40</y>"))
    narrow = read_kspace(path)  # as in fastMRI's brains: narrower than the image asked for
    assert narrow.size == (36, 36)
    assert any("36 columns" in note for note in narrow.notes)
    for wrong, fact in (
        ({"kspace": np.ones((2, 8, 8))}, "complex"),
        ({"kspace": np.zeros((2, 8, 8), np.complex64)}, "zero everywhere"),
        ({"kspace": np.full((2, 8, 8), np.nan + 0j)}, "128 values that are not finite"),
        ({"kspace": np.ones((2, 8, 8), complex), "mask": np.ones(7)}, r"mask of shape \[7\]"),
        ({"kspace": np.ones((2, 8, 8), complex), "mask": np.full(8, 0.5)}, "other than 0 and 1"),
        ({"data": np.ones((2, 8, 8), complex)}, r"no dataset kspace for the k-space; it holds data \[2, 8, 8\]"),
    ):
        np.savez(tmp_path / "a.npz", **wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=fact):
            read_kspace(tmp_path / "a.npz")
    fastmri(path)
    with pytest.raises(InputError, match="slices 2 to 1"):
        read_kspace(path, slices=(2, 1))
    with pytest.raises(InputError, match="middle 9 x 3"):
        centre_crop(np.zeros((8, 8)), (9, 3))
