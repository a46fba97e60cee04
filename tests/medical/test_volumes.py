"""Volumes: where voxels lie survives reading and writing, and broken files are one line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_medical.planes import picture, shown_slices, slice_title, three_planes
from priorscope_medical.volumes import (
    Volume,
    as_attenuation,
    as_hounsfield,
    coarsened,
    intensity_scale,
    padded,
    read_volume,
    write_nifti,
)

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")


def oblique(steps: tuple[float, float, float] = (0.7, 0.8, 2.5)) -> np.ndarray:
    """A grid that is turned a little and counts to the left along its first axis."""
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-steps[0], steps[1], steps[2]])
    affine[:3, 3] = [80.5, -90.25, 12]
    return affine


def write(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def numbered() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 3000, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_nifti_goes_back_to_the_order_and_place_of_its_file(
    tmp_path: Path, numbered: np.ndarray, suffix: str, order: tuple[int, int, int]
) -> None:
    affine = oblique()
    affine = np.column_stack([affine[:, list(order)], affine[:, 3]])
    volume = read_volume(write(tmp_path / f"a{suffix}", numbered, affine))
    widest = order.index(2)
    assert volume.axes[0] == widest
    assert volume.spacing[0] == pytest.approx(2.5)
    assert volume.slice_plane == "axial"
    assert volume.unit == "HU"
    assert "guess" in volume.notes[-1]
    back: Any = nibabel.load(write_nifti(volume, tmp_path / f"b{suffix}"))
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(back.get_fdata(), numbered)
    assert back.get_data_dtype() == np.float32
    assert b"research use only" in bytes(back.header["descrip"])
    assert back.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(read_volume(tmp_path / f"b{suffix}").data, volume.data)
    with pytest.raises(InputError, match="exists already"):
        write_nifti(volume, tmp_path / f"b{suffix}")
    assert [file.name for file in tmp_path.iterdir() if "part" in file.name] == []


def test_code_of_the_space_scaling_of_values_and_micrometres(tmp_path: Path, numbered: np.ndarray) -> None:
    image = nibabel.Nifti1Image(numbered, np.diag([500.0, 500.0, 2000.0, 1.0]))
    image.set_sform(image.affine, code=4)
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "a.nii")
    with_slope: Any = nibabel.load(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.data, with_slope.get_fdata().transpose(2, 1, 0), rtol=1e-6)
    assert volume.spacing == pytest.approx((2.0, 0.5, 0.5))
    assert volume.space == 4
    back: Any = nibabel.load(write_nifti(volume, tmp_path / "b.nii"))
    assert int(back.header["sform_code"]) == 4


def test_slices_lie_in_the_plane_that_is_asked_for(tmp_path: Path, numbered: np.ndarray) -> None:
    path = write(tmp_path / "a.nii", numbered)
    assert read_volume(path).slice_plane == "axial"  # spacings are equal
    sagittal = read_volume(path, slices="sagittal")
    assert sagittal.slice_plane == "sagittal"
    np.testing.assert_array_equal(sagittal.data[0].T, numbered[0])
    assert read_volume(path, slices=1).slice_plane == "coronal"
    assert sorted(sagittal.planes) == ["axial", "coronal", "sagittal"]
    with pytest.raises(InputError, match="oblique"):
        read_volume(path, slices="oblique")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="spacing of its own"):
        read_volume(path, spacing=(1, 1, 1))


def test_rows_run_along_the_later_axis_of_the_file_whatever_was_widest(tmp_path: Path, numbered: np.ndarray) -> None:
    wide = write(tmp_path / "a.nii", numbered, np.diag([5.0, 1, 1, 1]))
    assert read_volume(wide).axes == (0, 2, 1)
    axial = read_volume(wide, slices="axial")
    assert (axial.axes, axial.spacing) == ((2, 1, 0), (1, 1, 5))
    np.testing.assert_array_equal(axial.data, read_volume(write(tmp_path / "b.nii", numbered), slices="axial").data)


def test_other_planes_of_dicom_and_arrays(tmp_path: Path) -> None:
    series = ct_series(tmp_path / "ct", [0, 2.5, 5])
    axial, sagittal = read_volume(series), read_volume(series, slices="sagittal")
    assert (axial.slice_plane, sagittal.slice_plane) == ("axial", "sagittal")
    assert sagittal.data.shape == (128, 3, 128)
    assert sagittal.spacing == pytest.approx((0.661468, 2.5, 0.661468))
    for plane in axial.planes:
        np.testing.assert_array_equal(axial.picture(plane, 2)[0], sagittal.picture(plane, 2)[0])
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3, 4, 5)))
    array = read_volume(tmp_path / "a.npy", slices="coronal", spacing=(3, 2, 1))
    assert (array.data.shape, array.spacing, array.slice_plane) == ((4, 3, 5), (2, 3, 1), "coronal")


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_pictures_do_not_depend_on_how_the_file_counts(tmp_path: Path, flips: tuple[int, int, int]) -> None:
    # Bright at the patient's right, middle at the front, dark at the head, whatever the file's directions.
    values = np.zeros((4, 5, 6), np.float32)
    values[-1], values[:, -1], values[:, :, -1] = 3, 2, 1  # right, anterior, superior in RAS
    view = values[:: flips[0], :: flips[1], :: flips[2]]
    volume = read_volume(write(tmp_path / "a.nii", view, np.diag([*map(float, flips), 1.0])))
    middle = {plane: volume.data.shape[axis] // 2 for plane, axis in volume.planes.items()}
    axial, _ = volume.picture("axial", middle["axial"])
    assert axial.shape == (5, 4)
    assert (axial[0] == 2).all()  # the front is up
    assert (axial[1:, 0] == 3).all()  # the patient's right is on the left
    coronal, _ = volume.picture("coronal", middle["coronal"])
    assert coronal.shape == (6, 4)
    assert (coronal[0] == 1).all()
    assert (coronal[1:, 0] == 3).all()
    sagittal, _ = volume.picture("sagittal", middle["sagittal"])
    assert sagittal.shape == (6, 5)
    assert (sagittal[0] == 1).all()
    assert (sagittal[1:, 0] == 2).all()


def test_tall_pictures_are_framed() -> None:
    slab = Volume(np.ones((2, 40, 30), np.float32), (1, 1, 1), np.diag([1.0, -1, 1, 1]), (0, 2, 1), "HU", Path("x"))
    assert slab.slice_plane == "sagittal"
    coronal = picture(slab, "coronal", 0)
    assert coronal.shape == (40, 27)
    assert np.isfinite(coronal).sum(1).tolist() == [2] * 40
    assert np.isfinite(coronal[:, 12:14]).all()
    assert picture(slab, "axial", 0).shape == (30, 20)
    assert np.isfinite(picture(slab, "sagittal", 0)).all()


def test_slices_are_numbered_as_in_the_whole_volume(tmp_path: Path, numbered: np.ndarray) -> None:
    volume = read_volume(write(tmp_path / "a.nii", numbered))
    assert slice_title(volume, "axial", 2, first=50) == "axial 52"
    assert slice_title(volume, "coronal", 2, first=50) == "coronal 2"
    figure = three_planes({"result": volume}, limits=(0, 1), reach=1, label="x", first=50)
    titles = [axes.get_title() for axes in figure.axes]
    assert f"result, axial {shown_slices(volume)['axial'] + 50}" in titles


def test_one_frame_of_four_dimensions_is_a_volume(tmp_path: Path, numbered: np.ndarray) -> None:
    assert read_volume(write(tmp_path / "a.nii", numbered[..., None])).data.shape == (7, 6, 5)
    with pytest.raises(InputError, match="2 frames"):
        read_volume(write(tmp_path / "b.nii", np.stack([numbered, numbered], -1)))
    with pytest.raises(InputError, match="three dimensions"):
        read_volume(write(tmp_path / "c.nii", numbered[0]))


def test_broken_volumes_are_named(tmp_path: Path, numbered: np.ndarray) -> None:
    whole = write(tmp_path / "a.nii.gz", numbered)
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:-60])
    (tmp_path / "cut.nii").write_bytes(write(tmp_path / "b.nii", numbered).read_bytes()[:-60])
    (tmp_path / "text.nii").write_text("no volume")
    (tmp_path / "none.nii").touch()
    for name in ("cut.nii.gz", "cut.nii", "text.nii"):
        with pytest.raises(InputError, match=rf"{name}: is truncated or no NIfTI"):
            read_volume(tmp_path / name)
    with pytest.raises(InputError, match="0 bytes"):
        read_volume(tmp_path / "none.nii")
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "absent.nii")
    values = numbered.astype(np.float32)
    values[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="1 voxels that are NaN"):
        read_volume(write(tmp_path / "nan.nii", values))
    with pytest.raises(InputError, match="complex64"):
        read_volume(write(tmp_path / "complex.nii", values.astype(np.complex64)))
    with pytest.raises(InputError, match="GB; at most"):
        read_volume(whole, max_gigabytes=1e-9)
    with pytest.raises(InputError, match="unit named"):
        read_volume(whole, unit="hounsfield")  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM image"):
        read_volume(tmp_path / "empty")


def test_arrays_and_folders_of_slices_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((11, 4, 5)).astype(np.float32)
    folder = tmp_path / "L067"
    folder.mkdir()
    for number, image in enumerate(values):
        np.save(folder / f"{number}.0.npy", image)
    np.save(tmp_path / "a.npy", values)
    stack = read_volume(folder, spacing=(3, 2, 1.5))
    np.testing.assert_array_equal(stack.data, values)  # 10.0 comes after 9.0
    assert stack.spacing == (3, 2, 1.5)
    assert stack.unit == "attenuation"
    assert read_volume(folder, unit="intensity").unit == "intensity"
    array = read_volume(tmp_path / "a.npy")
    np.testing.assert_array_equal(array.data, values)
    assert any("1 mm is assumed" in note for note in array.notes)
    np.testing.assert_array_equal(read_volume(write_nifti(stack, tmp_path / "a.nii.gz")).data, values)
    np.save(folder / "11.npy", values[0, :3])
    with pytest.raises(InputError, match=r"11.npy: is \[3, 5\]"):
        read_volume(folder)
    np.save(folder / "11.npy", np.full((4, 5), np.inf))
    with pytest.raises(InputError, match="20 voxels"):
        read_volume(folder)
    np.save(folder / "mask.npy", values[0])
    with pytest.raises(InputError, match="numbers"):
        read_volume(folder)
    np.save(tmp_path / "flat.npy", values[0])
    with pytest.raises(InputError, match="3 dimensions"):
        read_volume(tmp_path / "flat.npy")
    with pytest.raises(InputError, match="spacing"):
        read_volume(tmp_path / "a.npy", spacing=(0, 1, 1))


def ct_series(folder: Path, heights: list[float], **changes: Any) -> Path:
    """Slices made of pydicom's CT image, shuffled by name, brighter from slice to slice."""
    folder.mkdir(exist_ok=True)
    for number, height in enumerate(heights):
        dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
        dataset.ImagePositionPatient = [-158.0, -179.0, height]
        dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.PixelData = (dataset.pixel_array + 10 * number).astype(np.int16).tobytes()
        for name, value in changes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(folder / f"{(number * 7) % len(heights)}_{changes.get('SeriesNumber', '')}.dcm")
    return folder


def test_dicom_slices_are_sorted_by_position_and_become_hounsfield_units(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_volume(ct_series(tmp_path / "ct", [0, 2.5, 5, 7.5, 10]))
    stored = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm")).pixel_array.astype(np.float32)
    assert volume.unit == "HU"
    assert volume.spacing == pytest.approx((2.5, 0.661468, 0.661468))
    for number in range(5):
        np.testing.assert_allclose(volume.data[number], stored + 10 * number - 1024)
    # DICOM's left and back are NIfTI's minus right and minus front: the first pixel lies at the position given.
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [158, 179, 0, 1])
    np.testing.assert_allclose(volume.affine @ [1, 0, 4, 1], [158 - 0.661468, 179, 10, 1])
    assert read_volume(write_nifti(volume, tmp_path / "a.nii.gz")).planes == volume.planes


def test_dicom_traps(tmp_path: Path) -> None:
    gap = ct_series(tmp_path / "gap", [0, 2, 4, 8, 10])
    with pytest.warns(UserWarning, match="about 1 slices are missing"):
        assert read_volume(gap).spacing[0] == pytest.approx(2.5)
    with pytest.warns(UserWarning, match="apart; their mean"):
        read_volume(ct_series(tmp_path / "uneven", [0, 2, 4.2, 6]))
    twice = ct_series(tmp_path / "twice", [0, 2, 2])
    with pytest.raises(InputError, match="at one place"):
        read_volume(twice)
    raw = read_volume(ct_series(tmp_path / "raw", [0, 2], RescaleSlope=None, RescaleIntercept=None))
    assert any("no RescaleSlope" in note for note in raw.notes)
    assert raw.data.min() == 128
    with pytest.warns(UserWarning, match="InstanceNumber"):
        read_volume(ct_series(tmp_path / "lost", [0, 2], ImagePositionPatient=None))
    padding = read_volume(ct_series(tmp_path / "padding", [0], PixelPaddingValue=128))
    assert padding.data.min() == -1000
    mixed = ct_series(tmp_path / "mixed", [0, 2, 4], SeriesNumber=1)
    ct_series(mixed, [0, 2], SeriesNumber=2, SeriesInstanceUID="1.2.9")
    with pytest.raises(InputError, match=r"2 series: number 1, .*3 files.*number 2, .*2 files, UID 1\.2\.9"):
        read_volume(mixed)
    assert len(read_volume(mixed, series=2).data) == 2
    assert len(read_volume(mixed, series="1.2.9").data) == 2
    with pytest.raises(InputError, match="no series match 5"):
        read_volume(mixed, series=5)
    other = ct_series(tmp_path / "turned", [0, 2])
    ct_series(other, [4], ImageOrientationPatient=[0, 1, 0, 1, 0, 0], SeriesNumber="4")
    with pytest.raises(InputError, match="oriented otherwise"):
        read_volume(other)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_volume(pydicom.data.get_testdata_file("MR_truncated.dcm"))
    with pytest.raises(InputError, match="colour image"):
        read_volume(pydicom.data.get_testdata_file("SC_rgb_rle.dcm"))
    with pytest.raises(InputError, match="holds no image"):
        read_volume(pydicom.data.get_testdata_file("rtplan.dcm"))
    empty = read_volume(ct_series(tmp_path / "empty", [0, 2], RescaleSlope="", RescaleIntercept=""))
    assert any("2 of 2 slices have no RescaleSlope" in note for note in empty.notes)
    np.testing.assert_array_equal(empty.data, raw.data)
    with pytest.raises(InputError, match="a RescaleSlope of 0"):
        read_volume(ct_series(tmp_path / "zero", [0], RescaleSlope=0))
    coarse = ct_series(tmp_path / "coarse", [0, 2], SeriesNumber=1)
    ct_series(coarse, [4], SeriesNumber=2, PixelSpacing=[1, 1])
    with pytest.raises(InputError, match="has pixels of"):
        read_volume(coarse)
    (tmp_path / "scan.h5").write_bytes(b"")
    with pytest.raises(InputError, match="--task measured"):
        read_volume(tmp_path / "scan.h5")
    (tmp_path / "note.txt").write_text("no image")
    with pytest.raises(InputError, match="no volume file"):
        read_volume(tmp_path / "note.txt")


def test_shifted_slices_keep_their_place(tmp_path: Path) -> None:
    folder = ct_series(tmp_path / "tilt", [0, 2, 4])
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.ImagePositionPatient[1] = -179 + 0.5 * float(dataset.ImagePositionPatient[2])
        dataset.save_as(file)
    with pytest.warns(UserWarning, match="gantry tilt"):
        volume = read_volume(folder)
    assert volume.spacing[0] == pytest.approx(2)
    np.testing.assert_allclose(volume.affine @ [0, 0, 2, 1], [158, 179 - 2, 4, 1])


def test_real_implicit_series(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("medical") / "vs_seg_001_dicom"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    volume = read_volume(folder)
    assert volume.data.shape == (6, 512, 512)
    assert volume.spacing == pytest.approx((1.5, 0.41015625, 0.41015625))
    assert volume.unit == "intensity"
    assert any("no RescaleSlope" in note for note in volume.notes)
    assert volume.slice_plane == "axial"


def test_real_head(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    file = shared_data("medical") / "cranium_ct_hu.nii.gz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    volume = read_volume(shutil.copy(file, tmp_path / "head.nii.gz"))
    assert volume.data.shape == (108, 256, 256)
    assert volume.spacing[0] == pytest.approx(1.5)
    bone = int(((volume.data >= 226) & (volume.data <= 3071)).sum())
    assert bone == 475759  # as many as InVesalius' own mask


def stack(shape: tuple[int, int, int], unit: Any = "HU") -> Volume:
    values = np.random.default_rng(1).normal(0, 400, shape).astype(np.float32)
    return Volume(values, (2.5, 0.8, 0.7), oblique(), (2, 1, 0), unit, Path("made"))


def test_units() -> None:
    volume = stack((2, 3, 4)).with_data(np.full((2, 3, 4), -1024.0))
    assert (as_attenuation(volume).data == 0).all()
    bone = volume.with_data(np.full((2, 3, 4), 1200.0))
    np.testing.assert_allclose(as_attenuation(bone).data, 2.2)
    np.testing.assert_allclose(as_hounsfield(as_attenuation(bone)).data, 1200, rtol=1e-6)
    with pytest.raises(InputError, match="unknown intensities"):
        as_attenuation(stack((2, 3, 4), "intensity"))
    assert intensity_scale(np.linspace(0, 1000, 1001, dtype=np.float32)) == pytest.approx(999)
    with pytest.raises(InputError, match="are 0"):
        intensity_scale(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(InputError, match="values of shape"):
        volume.with_data(np.zeros((2, 3, 5)))


def brightest(volume: Volume) -> np.ndarray:
    """Where the largest value lies, in mm."""
    return volume.affine @ [*np.argwhere(volume.data == volume.data.max())[0][[2, 1, 0]], 1]


def test_padding_leaves_voxels_in_their_place_and_cutting_undoes_it() -> None:
    volume = stack((3, 5, 8))
    larger = padded(volume, (9, 11))
    assert larger.data.shape == (3, 9, 11)
    assert larger.data.min() == min(-1000, volume.data.min())
    np.testing.assert_allclose(brightest(larger), brightest(volume))
    back = padded(larger, (5, 8))
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine)


def test_coarser_pixels_are_means_of_blocks_at_their_middle() -> None:
    volume = stack((2, 6, 9))
    coarse = coarsened(volume, 3)
    assert coarse.data.shape == (2, 2, 3)
    assert coarse.spacing == pytest.approx((2.5, 2.4, 2.1))
    np.testing.assert_allclose(coarse.data[1, 1, 2], volume.data[1, 3:6, 6:9].mean(), rtol=1e-5)
    np.testing.assert_allclose(coarse.affine @ [2, 1, 1, 1], volume.affine @ [7, 4, 1, 1])
    with pytest.raises(InputError, match="cannot be coarsened by 4"):
        coarsened(volume, 4)
