"""Echoes of one point, as a probe records them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from priorscope_medical.ultrasound.beamforming import transmit_delay
from priorscope_medical.ultrasound.channel_data import ChannelData, linear_array

CARRIER, SPEED, BANDWIDTH = 5e6, 1540.0, 0.5
ELEMENTS = linear_array(64, 0.3e-3)
POINT = np.array([2e-3, 0.0, 20e-3])


def pulse(time):
    """A Gaussian pulse whose spectrum is at -6 dB at the edges of the band."""
    width = math.sqrt(2 * math.log(2)) / (math.pi * BANDWIDTH * CARRIER)
    return np.exp(-(time**2) / (2 * width**2)) * np.cos(2 * np.pi * CARRIER * time)


def echoes(waves, *, point=POINT, sampling=4 * CARRIER, duration=40e-6, elements=ELEMENTS):
    """What the elements record of one point: the pulse, delayed by the way there and back."""
    count = round(duration * sampling)
    back = np.linalg.norm(point - elements, axis=1) / SPEED
    samples = []
    for wave in waves:
        time = wave.start + np.arange(count)[:, None] / sampling
        samples.append(pulse(time - float(transmit_delay(wave, point, SPEED)) - back))
    return ChannelData(np.stack(samples)[None].astype(np.float32), sampling, CARRIER, elements, tuple(waves), SPEED)


@pytest.fixture(scope="session", name="echoes")
def _echoes() -> Callable[..., ChannelData]:
    """``echoes(waves)``: RF of a point at x = 2 mm, z = 20 mm under 64 elements, at 5 MHz."""
    return echoes


@pytest.fixture(scope="session")
def screen_cine():
    """A scanner's screen: a simulated heart behind haze, text and a green mark.

    RGB frames uint8 [6, 128, 176, 3], where something is drawn, and where the sector is.
    """
    from PIL import Image, ImageDraw

    from priorscope_medical.ultrasound.bmode_simulator import simulate_bmode
    from priorscope_medical.ultrasound.multipath_haze import Haze

    made = simulate_bmode(3, frames=6, size=112, haze=Haze(level=0.0))
    frames = np.zeros((6, 128, 176, 3), np.uint8)
    frames[:, 10:122, 32:144] = np.rint(255 * made.hazy)[..., None]
    screen = Image.new("RGB", (176, 128))
    pen = ImageDraw.Draw(screen)
    pen.text((2, 2), "Gen S", fill=(200, 200, 200))
    pen.text((84, 60), "x1", fill=(250, 250, 250))
    pen.ellipse((110, 60, 115, 65), fill=(40, 200, 90))
    drawn = np.asarray(screen)
    inside = np.zeros((128, 176), bool)
    inside[10:122, 32:144] = made.inside
    return np.where(drawn.any(-1, keepdims=True), drawn, frames), drawn.any(-1), inside


@pytest.fixture(scope="session")
def tiny_echo(tmp_path_factory):
    """Folder of an untrained prior of B-mode pictures of 32 x 32 pixels."""
    from priorscope_medical.ultrasound.bmode_prior import EchoPrior, EchoValues

    folder = tmp_path_factory.mktemp("echo") / "prior"
    EchoPrior.new(EchoValues(size=32, patch=2), (8, 8), depth=1, seed=0, device="cpu").save_pretrained(folder)
    return folder


@pytest.fixture
def write_dicom(tmp_path):
    """``write_dicom(frames, **tags)``: a multi-frame ultrasound file with a patient and a private tag."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def make(frames, name="cine.dcm", **tags):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.PatientName, dataset.PatientID, dataset.Modality = "Doe^Jane", "17", "US"
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
        coloured = frames.ndim == 4
        dataset.SamplesPerPixel = 3 if coloured else 1
        dataset.PhotometricInterpretation = "RGB" if coloured else "MONOCHROME2"
        if coloured:
            dataset.PlanarConfiguration = 0
        dataset.NumberOfFrames, (dataset.Rows, dataset.Columns) = len(frames), frames.shape[1:3]
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.FrameTime, dataset.FrameIncrementPointer = 20.0, 0x00181063
        region = Dataset()
        region.RegionSpatialFormat, region.RegionDataType = 1, tags.pop("region", 1)
        region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = frames.shape[2] - 1, frames.shape[1] - 1
        region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
        region.PhysicalDeltaX = region.PhysicalDeltaY = 0.05
        dataset.SequenceOfUltrasoundRegions = [region]
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        dataset.PixelData = frames.tobytes() + b"\0" * (frames.size % 2)
        dataset["PixelData"].VR = "OB"
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return make
