"""Ultrasound cines in DICOM: reading B-mode, and writing derived frames. For research use only."""

from __future__ import annotations

import copy
import math
import warnings
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope import __version__
from priorscope.data.files import atomic_path, writing
from priorscope.errors import InputError
from priorscope_medical.ultrasound.cine import Cine
from priorscope_medical.ultrasound.cine_dicom_frames import cut_frames
from priorscope_medical.volumes import RESEARCH_ONLY

_ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
_TWO_DIMENSIONAL, _CENTIMETRES = 1, 3
#: Elements that tell of the source's pixels or of how they were stored, and would lie of the derived ones.
_STALE = (
    "StartTrim",
    "StopTrim",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "IconImageSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "DerivationCodeSequence",
    "RepresentativeFrameNumber",
    "FrameNumbersOfInterest",
    "FrameOfInterestDescription",
)
#: And those that map the source's values to grey, which are of another depth or direction once these are made 8 bits.
_GREY_CURVES = (
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
_KINDS = {2: "colour Doppler", 3: "pulsed-wave Doppler", 4: "continuous-wave Doppler"}


def read_dicom_cine(path: str | PathLike[str]) -> Cine:
    """Read the frames of one DICOM file of B-mode.

    Raises
    ------
    InputError
        No DICOM, no pixels, Doppler or M-mode, pixels that cannot be decoded.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    path = Path(path)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            dataset = pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise InputError("is no DICOM file", path=path, remedy="Give a file of Part 10, with its preamble.") from error
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120].rstrip(". ")
        raise InputError(f"is no DICOM file that can be read ({reason})", path=path) from error
    if any("End of file" in str(warning.message) for warning in told):
        raise InputError("is truncated", path=path, remedy="Copy it again.")
    if "PixelData" not in dataset:
        raise InputError("holds no pixels", path=path, remedy="Give an image or a cine, not a report.")
    _check_regions(dataset, path)
    notes: list[str] = []
    modality = str(dataset.get("Modality", "")) or "none"
    if modality != "US":
        notes.append(f"its modality is {modality}, ultrasound (US) was expected")
    frames = _frames(dataset, path, notes)
    pixel = _pixel(dataset, frames.shape[1:3], notes)
    rate = _frame_rate(dataset)
    if rate is None and len(frames) > 1:
        notes.append("the file gives no frame rate: 25 Hz is used")
    return Cine(frames, rate, pixel, path, "DICOM", tuple(notes), dataset)


def write_dicom_cine(
    cine: Cine,
    path: str | PathLike[str],
    *,
    how: str,
    first: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write frames as a derived DICOM object: new UIDs, the source's patient, study and calibration.

    Parameters
    ----------
    cine : Cine
        With the source's dataset, or without one: then patient and study are left blank.
    path : path-like
    how : str
        What was done, for DerivationDescription.
    first : int
        Number of the source's frame that is the first here.
    overwrite : bool

    Notes
    -----
    Pixels are stored uncompressed. SOPInstanceUID and SeriesInstanceUID are new, ImageType is DERIVED\\\\SECONDARY, and
    SourceImageSequence names the source.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    path = Path(path)
    dataset = copy.deepcopy(cine.dataset) if cine.dataset is not None else _blank(cine)
    _drop_stale(dataset, cine, first)
    if cine.dataset is not None and "SOPInstanceUID" in cine.dataset:
        source = Dataset()
        source.ReferencedSOPClassUID = cine.dataset.get("SOPClassUID", _ULTRASOUND_MULTIFRAME)
        source.ReferencedSOPInstanceUID = cine.dataset.SOPInstanceUID
        dataset.SourceImageSequence = [source]
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.ImageType = ["DERIVED", "SECONDARY", *list(dataset.get("ImageType", []))[2:]]
    dataset.DerivationDescription = f"priorscope {__version__}: {how}. {RESEARCH_ONLY}."[:1024]
    dataset.SeriesDescription = f"dehazed, {RESEARCH_ONLY}"[:64]
    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    _put_pixels(dataset, cine)
    dataset.file_meta = FileMetaDataset()  # the source's names the scanner as what wrote the file
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with atomic_path(path, overwrite=overwrite) as temporary, writing(path):
        dataset.save_as(temporary, enforce_file_format=True)
    return path


def _check_regions(dataset: Any, path: Path) -> None:
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        kind = int(region.get("RegionDataType") or 0)
        if kind in _KINDS:
            raise InputError(
                f"holds a region of {_KINDS[kind]}", path=path, remedy="Only B-mode is dehazed: export it without."
            )
        if int(region.get("RegionSpatialFormat") or _TWO_DIMENSIONAL) not in (0, _TWO_DIMENSIONAL):
            raise InputError("holds an M-mode or spectral region", path=path, remedy="Only 2D B-mode is dehazed.")


def _frames(dataset: Any, path: Path, notes: list[str]) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_color_lut

    try:
        values = dataset.pixel_array
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
            if values.dtype != np.uint8:  # tables of 16 bits
                values = (values // 257).astype(np.uint8)
            notes.append("a palette is applied: the result is RGB")
    except Exception as error:  # each decoder raises its own errors for what it cannot read
        raise InputError(
            f"has pixels that cannot be decoded: {' '.join(str(error).split())[:150]}",
            path=path,
            remedy="Copy it again, or decompress it first, for instance by dcmdjpeg.",
        ) from error
    channels = 3 if values.shape[-1] == 3 and int(dataset.get("SamplesPerPixel", 1)) == 3 else 1
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        channels = 3
    if values.ndim == (3 if channels == 3 else 2):
        values = values[None]
    if values.dtype != np.uint8:
        top = float(2 ** int(dataset.get("BitsStored", 16)) - 1)
        values = np.rint(np.clip(values / top, 0, 1) * 255).astype(np.uint8)
        notes.append(f"{dataset.get('BitsStored')} bits are reduced to 8")
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = 255 - values
        notes.append("black and white are swapped in the file (MONOCHROME1): the result is MONOCHROME2")
    return np.ascontiguousarray(values)


def _pixel(dataset: Any, shape: tuple[int, int], notes: list[str]) -> float | None:
    """Side of a pixel in mm, of the largest 2D region that lies in the picture."""
    found: list[tuple[int, float]] = []
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        try:
            right, bottom = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
            area = (right - int(region.RegionLocationMinX0)) * (bottom - int(region.RegionLocationMinY0))
            delta, unit = abs(float(region.PhysicalDeltaX)), int(region.PhysicalUnitsXDirection)
        except (AttributeError, TypeError, ValueError):
            continue
        if right > shape[1] or bottom > shape[0]:
            notes.append(
                f"its region reaches to ({right}, {bottom}), beyond its {shape[1]} x {shape[0]} pixels: the "
                "calibration belongs to a larger picture and is not used"
            )
        elif unit == _CENTIMETRES and 0 < delta < math.inf:
            found.append((area, 10 * delta))
    return max(found)[1] if found else None


def _frame_rate(dataset: Any) -> float | None:
    for name, rate in (
        ("FrameTime", lambda value: 1000 / value),
        ("CineRate", float),
        ("RecommendedDisplayFrameRate", float),
    ):
        try:
            value = float(dataset.get(name))
        except (TypeError, ValueError):
            continue
        if 0 < value < math.inf:
            return float(rate(value))
    times = dataset.get("FrameTimeVector")
    if times is not None and len(times) > 1:
        mean = float(np.mean([float(step) for step in times[1:]]))
        return 1000 / mean if mean > 0 else None
    return None


def _blank(cine: Cine) -> Any:
    """A dataset for frames that came without one."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = _ULTRASOUND_MULTIFRAME if len(cine.frames) > 1 else _ULTRASOUND
    dataset.StudyInstanceUID = generate_uid()
    dataset.Modality = "US"
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(dataset, name, "")
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.Manufacturer = ""
    dataset.SeriesNumber, dataset.InstanceNumber = "1", "1"
    if cine.pixel is not None:
        dataset.SequenceOfUltrasoundRegions = [_calibration(cine.pixel, cine.frames.shape[1:3])]
    return dataset


def _calibration(pixel: float, shape: tuple[int, ...]) -> Any:
    """The whole picture as one region of tissue with square pixels of so many mm."""
    from pydicom.dataset import Dataset

    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = _TWO_DIMENSIONAL, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = shape[1] - 1, shape[0] - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = _CENTIMETRES
    region.PhysicalDeltaX = region.PhysicalDeltaY = pixel / 10
    return region


def _drop_stale(dataset: Any, cine: Cine, first: int) -> None:
    """Take out what belongs to the source's pixels only, and fit what counts frames."""
    count = len(cine.frames)
    stored = (dataset.get("BitsStored", 8), dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    changed = int(stored[0]) != 8 or stored[1] == "MONOCHROME1"
    for name in (*_STALE, *(_GREY_CURVES if changed else ())):
        if name in dataset:
            delattr(dataset, name)
    for element in list(dataset):
        lut = element.keyword.endswith("PaletteColorLookupTableDescriptor")
        if lut or element.keyword.endswith("PaletteColorLookupTableData"):
            del dataset[element.tag]
    if dataset.get("FrameTimeVector") is not None:
        dataset.FrameTimeVector = [0.0, *list(dataset.FrameTimeVector)[first + 1 : first + count]]
    cut_frames(dataset, first, count, changed=changed)
    if count > 1 or "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = count
    if count > 1 and "FrameIncrementPointer" not in dataset:
        dataset.FrameTime = 1000 / (cine.frame_rate or 25.0)
        dataset.FrameIncrementPointer = 0x00181063


def _put_pixels(dataset: Any, cine: Cine) -> None:
    frames = np.ascontiguousarray(cine.frames)
    coloured = frames.ndim == 4
    dataset.SamplesPerPixel = 3 if coloured else 1
    dataset.PhotometricInterpretation = "RGB" if coloured else "MONOCHROME2"
    if coloured:
        dataset.PlanarConfiguration = 0
    elif "PlanarConfiguration" in dataset:
        del dataset.PlanarConfiguration
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    content = frames.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB"
