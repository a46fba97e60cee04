"""Cines of all kinds of files, the screen around the echoes, and derived DICOM."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from scipy.ndimage import binary_dilation

from priorscope.data.video import write_video
from priorscope.errors import InputError
from priorscope_medical.ultrasound.burnt_in_text import find_screen
from priorscope_medical.ultrasound.cine import Cine, read_cine
from priorscope_medical.ultrasound.cine_dicom import write_dicom_cine
from priorscope_medical.ultrasound.write_cine import write_cine


def grey_frames(count=4):
    return np.random.default_rng(0).integers(0, 255, (count, 40, 48), dtype=np.uint8)


def test_dicom_gives_frames_rate_and_pixels(write_dicom):
    frames = grey_frames()
    cine = read_cine(write_dicom(frames))
    np.testing.assert_array_equal(cine.frames, frames)
    assert (cine.frame_rate, cine.pixel, cine.notes) == (50.0, 0.5, ())
    rgb = np.repeat(frames[..., None], 3, -1)
    assert read_cine(write_dicom(rgb)).frames.shape == (4, 40, 48, 3)
    one = read_cine(write_dicom(frames[:1], Modality="OT"))
    assert one.frames.shape == (1, 40, 48)
    assert "OT" in one.notes[0]
    inverted = read_cine(write_dicom(frames, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted.frames, 255 - frames)


def test_palettes_and_time_vectors_are_applied(write_dicom):
    frames = grey_frames()
    table = np.arange(256, dtype=np.uint16) * 257
    tags = {"PhotometricInterpretation": "PALETTE COLOR", "FrameTimeVector": [0.0, 40.0, 40.0, 40.0], "FrameTime": None}
    for colour, values in (("Red", table), ("Green", table), ("Blue", table // 2)):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = values.astype("<u2").tobytes()
    cine = read_cine(write_dicom(frames, **tags))
    np.testing.assert_array_equal(cine.frames[..., 0], frames)
    assert abs(int(cine.frames[..., 2].max()) - 127) <= 1
    assert cine.frame_rate == pytest.approx(25.0)


def test_other_files_give_the_same_frames(tmp_path):
    frames = grey_frames()
    np.save(tmp_path / "a.npy", frames)
    np.testing.assert_array_equal(read_cine(tmp_path / "a.npy").frames, frames)
    np.save(tmp_path / "b.npy", frames.astype(np.float32) / 255)
    np.testing.assert_array_equal(read_cine(tmp_path / "b.npy").frames, frames)
    (tmp_path / "pictures").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "pictures" / f"{index}.png")
    found = read_cine(tmp_path / "pictures")
    np.testing.assert_array_equal(found.frames, frames)  # grey again, though read as RGB
    assert "25 Hz" in found.notes[0]
    assert len(read_cine(tmp_path / "pictures" / "0.png").frames) == 1
    smooth = np.repeat(np.linspace(0, 200, 48).astype(np.uint8)[None, None], 40, 1).repeat(5, 0)
    write_video(tmp_path / "v.mp4", np.repeat(smooth[..., None], 3, -1), 20)
    video = read_cine(tmp_path / "v.mp4")
    assert (video.frames.shape[:3], video.frame_rate) == ((5, 40, 48), 20.0)
    assert np.abs(255 * video.grey - smooth).max() < 4


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        (np.zeros((0, 40, 48), np.uint8), "no values"),
        (np.zeros((400, 500, 12), np.uint8), "first axis should be time"),
        (np.zeros((4, 10, 48), np.uint8), "too small"),
        (np.full((4, 40, 48), 3.0), "values from 3 to 3"),
        (np.full((4, 40, 48), np.nan), "not finite"),
        (np.zeros((4, 40, 48), np.int32), "int32"),
        (np.zeros((2, 4, 40, 48, 3), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_cine_are_refused(tmp_path, values, fact):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=fact):
        read_cine(tmp_path / "x.npy")


def test_broken_and_foreign_files_are_refused(tmp_path, write_dicom):
    for name, content, fact in (
        ("a.dcm", b"", "empty"),
        ("b.dcm", b"no dicom at all", "no DICOM"),
        ("c.mp4", b"no video", "broken"),
        ("d.doc", b"x", "suffix"),
        ("e.h5", b"x", "channel data"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=fact):
            read_cine(tmp_path / name)
    with pytest.raises(InputError, match="no such"):
        read_cine(tmp_path / "none.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        read_cine(tmp_path / "empty")
    whole = write_dicom(grey_frames()).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) - 4000])
    with pytest.raises(InputError, match=r"decoded|no DICOM"):
        read_cine(tmp_path / "cut.dcm")
    compressed = pydicom.dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    pydicom.dcmwrite(tmp_path / "whole.dcm", compressed)
    whole = (tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_cine(tmp_path / "cut.dcm")
    for region, fact in ((2, "colour Doppler"), (3, "pulsed-wave")):
        with pytest.raises(InputError, match=fact):
            read_cine(write_dicom(grey_frames(), region=region))
    for index, size in enumerate(((40, 48), (40, 52))):
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "empty" / f"{index}.png")
    with pytest.raises(InputError, match="others are"):
        read_cine(tmp_path / "empty")


def test_the_screen_is_the_sector_and_what_is_written(screen_cine, tmp_path):
    frames, drawn, inside = screen_cine
    np.save(tmp_path / "s.npy", frames)
    screen = find_screen(read_cine(tmp_path / "s.npy"))
    assert (screen.sector & inside).sum() > 0.93 * (screen.sector | inside).sum()
    assert screen.kept[drawn].mean() > 0.97
    around = binary_dilation(drawn, np.ones((3, 3)), iterations=3)
    assert (screen.kept & screen.sector & ~around).sum() < 0.03 * screen.sector.sum()
    one = find_screen(read_cine(tmp_path / "s.npy").cut((2, 3)))
    assert (one.sector & screen.sector).sum() > 0.6 * screen.sector.sum()
    mark = np.zeros_like(drawn)
    mark[60:66, 110:116] = drawn[60:66, 110:116]
    assert one.kept[mark].all()


def test_colour_that_moves_in_the_sector_is_refused(screen_cine, tmp_path):
    frames = screen_cine[0].copy()
    for index in range(len(frames)):
        frames[index, 60 + 3 * index : 70 + 3 * index, 80:96] = (220, 40, 20)
    np.save(tmp_path / "d.npy", frames)
    with pytest.raises(InputError, match="colour Doppler"):
        find_screen(read_cine(tmp_path / "d.npy"))


def test_pictures_without_echoes_are_refused(tmp_path):
    for values, fact in (
        (np.full((3, 64, 64), 9, np.uint8), "constant"),
        (np.zeros((3, 64, 64), np.uint8), "constant"),
    ):
        np.save(tmp_path / "c.npy", values)
        with pytest.raises(InputError, match=fact):
            find_screen(read_cine(tmp_path / "c.npy"))
    still = np.repeat(grey_frames(1), 5, 0)
    np.save(tmp_path / "c.npy", still)
    with pytest.raises(InputError, match="hardly anything changes"):
        find_screen(read_cine(tmp_path / "c.npy"))


def test_derived_dicom_keeps_the_patient_and_has_names_of_its_own(write_dicom, tmp_path):
    source = write_dicom(np.repeat(grey_frames()[..., None], 3, -1), FrameTimeVector=[0.0, 20.0, 21.0, 22.0])
    cine = read_cine(source)
    darker = cine.cut((1, 4)).with_frames(cine.frames[1:] // 2)
    write_dicom_cine(darker, tmp_path / "out.dcm", how="halved", first=1)
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "out.dcm")
    np.testing.assert_array_equal(after.pixel_array, darker.frames)
    assert (after.PatientName, after.PatientID, after.StudyInstanceUID) == ("Doe^Jane", "17", before.StudyInstanceUID)
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert getattr(after, name) != getattr(before, name)
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert list(after.ImageType) == ["DERIVED", "SECONDARY"]
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert "research use only" in after.DerivationDescription
    assert "research use only" in after.SeriesDescription
    assert after.NumberOfFrames == 3
    assert list(after.FrameTimeVector) == [0.0, 21.0, 22.0]
    assert after.FrameTime == 20.0
    assert after.SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.05
    assert read_cine(tmp_path / "out.dcm").pixel == 0.5
    with pytest.raises(InputError, match="exists"):
        write_dicom_cine(darker, tmp_path / "out.dcm", how="halved")


def test_derived_dicom_says_nothing_of_the_source_s_pixels(write_dicom, tmp_path):
    icon = pydicom.Dataset()
    icon.Rows, icon.Columns = 1, 2
    tags = {"IconImageSequence": [icon], "RepresentativeFrameNumber": 4, "FrameNumbersOfInterest": 3}
    source = write_dicom(grey_frames(), **tags, WindowCenter="128", WindowWidth="256")
    scanner = pydicom.dcmread(source)
    scanner.file_meta.ImplementationVersionName, scanner.file_meta.SourceApplicationEntityTitle = "SCANNER", "SCANNER"
    scanner.save_as(source)
    write_cine(read_cine(source).cut((0, 2)), tmp_path / "out.dcm", how="cut")
    after = pydicom.dcmread(tmp_path / "out.dcm")
    assert not set(tags) & {element.keyword for element in after}
    assert after.WindowCenter == 128  # the same 8 bits
    assert "SCANNER" not in str(after.file_meta)


def test_grey_curves_of_other_values_do_not_come_along(write_dicom, tmp_path):
    curves = {"WindowCenter": "2048", "WindowWidth": "4096", "PresentationLUTShape": "INVERSE"}
    source = write_dicom(grey_frames(), PhotometricInterpretation="MONOCHROME1", **curves)
    write_cine(read_cine(source), tmp_path / "out.dcm", how="swapped")
    after = pydicom.dcmread(tmp_path / "out.dcm")
    assert after.PhotometricInterpretation == "MONOCHROME2"
    assert not set(curves) & {element.keyword for element in after}


def _planes(count):
    """Overlay planes of 40 x 48 that differ, and their bits packed as DICOM has them."""
    planes = np.random.default_rng(1).integers(0, 2, (count, 40, 48), dtype=np.uint8)
    return planes, np.packbits(planes.ravel(), bitorder="little").tobytes()


def _overlay(dataset, group, packed, *, planes=None, origin=None, position=0):
    numbers = {0x0010: 40, 0x0011: 48, 0x0015: planes, 0x0051: origin, 0x0100: 1, 0x0102: position}
    for number, value in numbers.items():
        if value is not None:
            dataset.add_new((group, number), "IS" if number == 0x0015 else "US", value)
    if packed is not None:
        dataset.add_new((group, 0x3000), "OW", packed)


def test_what_is_said_of_single_frames_is_cut_with_them(write_dicom, tmp_path):
    """5 frames, of which 1 to before 3 stay; overlays from the second frame on, before them, and of all frames."""
    source = write_dicom(grey_frames(5), FrameLabelVector=list("abcde"), RWaveTimeVector=[1.0, 2.0])
    dataset = pydicom.dcmread(source)
    groups = [pydicom.Dataset() for _ in range(5)]
    for index, group in enumerate(groups):
        group.FrameContentSequence = [pydicom.Dataset()]
        group.FrameContentSequence[0].FrameLabel = f"frame {index}"
        group.FrameVOILUTSequence = [pydicom.Dataset()]
    dataset.PerFrameFunctionalGroupsSequence = groups
    planes, packed = _planes(3)
    _overlay(dataset, 0x6000, packed, planes=3, origin=2)
    _overlay(dataset, 0x6002, _planes(1)[1], planes=1, origin=1)
    _overlay(dataset, 0x6004, _planes(1)[1])
    _overlay(dataset, 0x6006, None, position=3)
    dataset.save_as(source)
    write_cine(read_cine(source).cut((1, 3)), tmp_path / "cut.dcm", how="cut", first=1)
    after = pydicom.dcmread(tmp_path / "cut.dcm")
    assert after.FrameLabelVector == ["b", "c"]
    assert "RWaveTimeVector" not in after
    kept = after.PerFrameFunctionalGroupsSequence
    assert [group.FrameContentSequence[0].FrameLabel for group in kept] == ["frame 1", "frame 2"]
    assert "FrameVOILUTSequence" in kept[0]  # the same 8 bits
    np.testing.assert_array_equal(after.overlay_array(0x6000), planes[:2])
    assert (after[0x6000, 0x0015].value, after[0x6000, 0x0051].value) == (2, 1)
    assert not [group for group in (0x6002, 0x6006) if after.group_dataset(group)]
    assert after.overlay_array(0x6004).shape == (40, 48)
    write_cine(read_cine(source).cut((0, 2)), tmp_path / "begin.dcm", how="cut")
    begin = pydicom.dcmread(tmp_path / "begin.dcm")
    np.testing.assert_array_equal(begin.overlay_array(0x6000), planes[0])
    assert begin[0x6000, 0x0051].value == 2
    assert begin.RWaveTimeVector == [1.0, 2.0]


def test_grey_curves_of_single_frames_go_where_values_were_mapped(write_dicom, tmp_path):
    source = write_dicom(grey_frames(2), PhotometricInterpretation="MONOCHROME1")
    dataset = pydicom.dcmread(source)
    for name, count in (("SharedFunctionalGroupsSequence", 1), ("PerFrameFunctionalGroupsSequence", 2)):
        groups = [pydicom.Dataset() for _ in range(count)]
        for group in groups:
            group.FrameVOILUTSequence = [pydicom.Dataset()]
            group.FrameContentSequence = [pydicom.Dataset()]
        setattr(dataset, name, groups)
    dataset.save_as(source)
    write_cine(read_cine(source), tmp_path / "out.dcm", how="swapped")
    after = pydicom.dcmread(tmp_path / "out.dcm")
    for group in (*after.SharedFunctionalGroupsSequence, *after.PerFrameFunctionalGroupsSequence):
        assert {element.keyword for element in group} == {"FrameContentSequence"}


def test_frames_without_a_source_become_dicom_too(tmp_path):
    cine = Cine(grey_frames(), 40.0, 0.31, tmp_path / "x.npy", "array")
    write_cine(cine, tmp_path / "x.dcm", how="nothing")
    again = read_cine(tmp_path / "x.dcm")
    assert again.pixel == pytest.approx(0.31)
    np.testing.assert_array_equal(again.frames, cine.frames)
    assert again.frame_rate == pytest.approx(40.0)
    assert again.dataset.PatientID == ""


def test_frames_become_pictures_arrays_and_video(tmp_path):
    cine = Cine(grey_frames(), 40.0, None, tmp_path / "x.npy", "array")
    write_cine(cine, tmp_path / "folder", how="")
    np.testing.assert_array_equal(read_cine(tmp_path / "folder").frames, cine.frames)
    write_cine(cine, tmp_path / "y.npy", how="")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), cine.frames)
    write_cine(cine, tmp_path / "y.mp4", how="")
    video = read_cine(tmp_path / "y.mp4")
    assert (len(video.frames), video.frame_rate) == (4, 40.0)
    with pytest.raises(InputError, match="one picture"):
        write_cine(cine, tmp_path / "y.png", how="")
    write_cine(cine.cut((1, 2)), tmp_path / "y.png", how="")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.png")), cine.frames[1])
    with pytest.raises(InputError, match=r"ends in \.gif"):
        write_cine(cine, tmp_path / "y.gif", how="")
    with pytest.raises(InputError, match="exists"):
        write_cine(cine, tmp_path / "folder", how="")
    (tmp_path / "folder" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="other files"):
        write_cine(cine, tmp_path / "folder", how="", overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_cine(cine, tmp_path / "file", how="", overwrite=True)
    with pytest.raises(InputError, match="frames 3 to 9"):
        cine.cut((3, 9))
