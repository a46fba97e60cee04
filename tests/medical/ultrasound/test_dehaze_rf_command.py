"""The command on RF: simulated lines and channel data in, pictures and lines out, with untrained or bundled priors."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pydicom
import pytest

from priorscope.errors import InputError
from priorscope_medical.cli import main
from priorscope_medical.configs import DehazeConfig
from priorscope_medical.dehaze import dehaze
from priorscope_medical.dehaze_rf import read_recording
from priorscope_medical.evaluate_ultrasound import evaluate_ultrasound
from priorscope_medical.ultrasound.channel_data import Transmit
from priorscope_medical.ultrasound.cine import read_cine
from priorscope_medical.ultrasound.cine_file import read_rf, write_simulated
from priorscope_medical.ultrasound.echo_lines import LineScan
from priorscope_medical.ultrasound.rf_dehaze import dehaze_rf
from priorscope_medical.ultrasound.rf_pictures import rf_pictures
from priorscope_medical.ultrasound.rf_prior import RfPrior, RfValues
from priorscope_medical.ultrasound.rf_simulator import simulate_cine
from priorscope_medical.ultrasound.scan_conversion import Sector
from priorscope_medical.ultrasound_configs import EvaluateUltrasoundConfig

SCAN = LineScan(Sector((20e-3, 60e-3), (-0.5, 0.5)), samples=520, beams=32)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rf")
    cine = simulate_cine(1, frames=3, scan=SCAN, density=1e7)
    write_simulated(folder / "cine.h5", cine, strength=1.0, seed=1, method="convolution")
    return folder / "cine.h5", cine


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors")
    for seed, part in enumerate(("tissue", "haze")):
        RfPrior.new(RfValues(part, frames=3), seed=seed).save_pretrained(folder / part)
    return str(folder / "tissue"), str(folder / "haze")


def test_rf_in_dicom_and_lines_out(simulated, untrained, tmp_path, capsys):
    path, cine = simulated
    out = tmp_path / "cleaned.dcm"
    config = DehazeConfig(path, out=out, rf_priors=untrained, steps=2, device="cpu", strength=0.5)
    assert dehaze(config) == 0
    assert "for research use only" in capsys.readouterr().out
    dataset = pydicom.dcmread(out)
    assert dataset.NumberOfFrames == 3
    assert "research use only" in dataset.DerivationDescription
    folder = tmp_path / "cleaned-report"
    lines = np.load(folder / "rf.npz")
    assert lines["tissue"].shape == cine.tissue.shape
    np.testing.assert_allclose(lines["tissue"] + 0.5 * lines["haze"], cine.hazy(1.0), atol=1e-4)
    metrics = json.loads((folder / "metrics.json").read_text())
    removed = 0.5 * lines["haze"].astype(float)
    assert metrics["removed_db"] == pytest.approx(
        10 * np.log10(np.square(removed).sum() / np.square(lines["rf"].astype(float)).sum()), abs=0.01
    )
    assert metrics["for"] == "for research use only"
    report = (folder / "report.html").read_text()
    assert "research use only" in report
    assert str(metrics["removed_db"]) not in report  # rounded
    assert not any("one frame" in note for note in metrics["notes"])
    assert len(read_cine(folder / "before-after.mp4").frames) == 3


def test_strength_0_leaves_the_picture_as_it_is(simulated, untrained, tmp_path, capsys):
    path, _ = simulated
    config = DehazeConfig(path, out=tmp_path / "none.npy", rf_priors=untrained, steps=1, device="cpu", strength=0)
    assert dehaze(replace(config, report=False)) == 0
    lines = read_recording(config).lines
    pictures, _ = rf_pictures(lines.rf, lines.points, dynamic_range=config.dynamic_range)
    np.testing.assert_array_equal(np.load(tmp_path / "none.npy"), pictures)
    assert "one frame does not tell what moves" not in capsys.readouterr().out
    assert dehaze(replace(config, report=False, frames=(1, 2), overwrite=True)) == 0
    assert "one frame does not tell what moves" in capsys.readouterr().out
    assert not (tmp_path / "none-report").exists()


def test_levels_are_the_function_s(simulated, untrained, tmp_path):
    path, cine = simulated
    config = DehazeConfig(path, out=tmp_path / "few.mp4", rf_priors=untrained, steps=2, samples=1, device="cpu")
    assert dehaze(replace(config, last=0.5, start=0.6)) == 0
    found = np.load(tmp_path / "few-report" / "rf.npz")
    priors = [RfPrior.from_pretrained(folder, device="cpu") for folder in untrained]
    carrier = SCAN.carrier / SCAN.sampling
    wanted = dehaze_rf(cine.hazy(1.0), *priors, steps=2, start=0.6, last=0.5, carrier=carrier, device="cpu")
    np.testing.assert_allclose(found["tissue"], wanted.tissue, atol=1e-5)


def test_gain_over_depth(simulated, untrained):
    path, _ = simulated
    plain = read_recording(DehazeConfig(path))
    gained = read_recording(DehazeConfig(path, attenuation=0.5))
    depths = np.linalg.norm(plain.lines.points, axis=-1)[:, 0]
    decibel = 2 * 0.5 * SCAN.carrier / 1e6 * 100 * depths  # there and back, in cm
    np.testing.assert_allclose(
        gained.lines.rf, plain.lines.rf * 10 ** (decibel / 20)[:, None].astype(np.float32), rtol=2e-3, atol=1e-5
    )


def test_gain_over_depth_of_lines_that_are_side_by_side(echoes, tmp_path):
    path = _planes(tmp_path / "echoes.hdf5", echoes((Transmit(),)))
    plain, gained = (read_recording(DehazeConfig(path, carrier=5e6, attenuation=dB)) for dB in (0.0, 0.5))
    decibel = 2 * 0.5 * 5 * 100 * plain.lines.points[:, 0, 2]  # of the outermost line as of any: its own depth
    wanted = plain.lines.rf * 10 ** (decibel / 20)[:, None].astype(np.float32)
    np.testing.assert_allclose(gained.lines.rf, wanted, rtol=2e-3, atol=1e-6 * np.abs(wanted).max())


def test_the_band_can_be_stated_where_the_file_does_not(echoes, tmp_path):
    """At 9.2 MHz the mirror image of a 5 MHz pulse lies 0.8 MHz away: narrower bands alone can be told from it."""
    path = _planes(tmp_path / "sparse.hdf5", echoes((Transmit(),), sampling=9.2e6))
    for options, said in (
        ({}, r"the carrier is not stated.*--carrier"),
        ({"carrier": 5e6}, r"its width is not stated.*--bandwidth"),
        ({"carrier": 5e6, "bandwidth": 0.5}, "onto its mirror image"),
    ):
        with pytest.raises(InputError, match=said):
            read_recording(DehazeConfig(path, **options))
    assert read_recording(DehazeConfig(path, carrier=5e6, bandwidth=0.15)).lines.rf.any()


def _planes(path, data):
    """A PICMUS file of one plane wave."""
    with h5py.File(path, "w") as file:
        group = file.create_group("US/US_DATASET0000")
        group["data/real"] = data.samples[0].swapaxes(1, 2)
        group["angles"], group["initial_time"] = np.zeros(1), 0.0
        group["probe_geometry"] = data.elements.T
        group["sampling_frequency"], group["sound_speed"] = data.sampling, data.speed
        group["modulation_frequency"] = 0.0
    return path


def test_the_lines_written_are_evaluated_not_their_input(simulated, untrained, tmp_path):
    path, _ = simulated
    assert dehaze(DehazeConfig(path, out=tmp_path / "x.mp4", rf_priors=untrained, steps=1, device="cpu")) == 0
    written = tmp_path / "x-report" / "rf.npz"
    np.testing.assert_array_equal(read_rf(written, dehazed=True).rf, np.load(written)["tissue"])
    assert evaluate_ultrasound(EvaluateUltrasoundConfig(path, written, out=tmp_path / "run")) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["after"]["psnr"] != metrics["before"]["psnr"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.pop("scan"), "has no scan"),
        (lambda file: file.pop("scan/angles"), "has no angles"),
        (lambda file: _put(file, file["data/hazy"][()].swapaxes(1, 2)), "another order"),
        (lambda file: _put(file, 0 * file["data/hazy"][()]), "without a signal"),
        (lambda file: _put(file, 0 * file["data/hazy"][()] + 3), "without a signal|clipped"),
        (lambda file: _put(file, np.clip(file["data/hazy"][()], -0.01, 0.01)), "clipped"),
    ],
)
def test_broken_lines_are_refused(simulated, untrained, tmp_path, change, said):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(simulated[0].read_bytes())
    with h5py.File(copy, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=said):
        dehaze(DehazeConfig(copy, out=tmp_path / "x.mp4", rf_priors=untrained, steps=1, device="cpu"))


def _put(file, values):
    del file["data/hazy"]
    file["data/hazy"] = values


def test_lines_without_a_signal_are_refused_whoever_asks(untrained):
    tissue, haze = (RfPrior.from_pretrained(folder, device="cpu") for folder in untrained)
    for value in (0.0, 7.0):
        with pytest.raises(InputError, match="without a signal"):
            dehaze_rf(np.full((3, 200, 16), value, np.float32), tissue, haze, carrier=0.25, steps=1, device="cpu")


def test_frames_that_are_not_there_are_refused(simulated, echoes, tmp_path):
    planes = _planes(tmp_path / "echoes.hdf5", echoes((Transmit(),)))
    for path, carrier in ((simulated[0], None), (planes, 5e6)):
        for frames in ((0, 9), (2, 1), (-2, 1)):
            with pytest.raises(InputError, match="frames"):
                read_recording(DehazeConfig(path, frames=frames, carrier=carrier))


def test_channel_data_are_beamformed(shared_data, tmp_path):
    path = shared_data("medical") / "ultrasound/PWI_disk.mat"
    out = tmp_path / "disk.png"
    assert dehaze(DehazeConfig(path, out=out, frames=(0, 1), steps=2, device="cpu")) == 0
    (picture,) = read_cine(out).grey
    # the disk is brighter than what surrounds it
    middle = picture[len(picture) // 3, picture.shape[1] // 2 - 20 : picture.shape[1] // 2 + 20].mean()
    assert middle > 2 * picture[-20:].mean()


def test_wrong_inputs(simulated, tmp_path):
    path, _ = simulated
    (tmp_path / "torn.h5").write_bytes(path.read_bytes()[:5000])
    for words, said in {
        (str(path), "--method", "dps"): "this is RF",
        (str(path), "--attenuation", "50"): "--attenuation",
        (str(path), "--bandwidth", "0.6"): "made already",
        (str(path), "--carrier", "5e6"): "made already",
        (str(path), "--bandwidth", "60"): "--bandwidth 60",
        (str(path), "--last", "0"): "--last 0",
        (str(path), "--precision", "bfloat16"): "this is RF",
        (str(path), "--rf-priors", "tiny-rf-haze", "tiny-rf-tissue"): "priors of haze and tissue",
        (str(tmp_path / "torn.h5"),): "torn.h5",
    }.items():
        with pytest.raises(InputError, match=said):
            main(["dehaze", *words, "--out", str(tmp_path / "x.mp4")])
    with pytest.raises(InputError, match="is one picture"):
        dehaze(DehazeConfig(path, out=tmp_path / "x.png"))
    assert not list(tmp_path.glob("x*"))
