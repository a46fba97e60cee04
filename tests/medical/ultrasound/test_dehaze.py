"""The command: end to end on small screens with an untrained prior, on the real cine with the bundled one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from priorscope.errors import InputError
from priorscope_medical.cli import main
from priorscope_medical.configs import DehazeConfig
from priorscope_medical.dehaze import dehaze, report_folder, taken_off
from priorscope_medical.ultrasound.burnt_in_text import find_screen
from priorscope_medical.ultrasound.cine import read_cine


@pytest.fixture
def cine_file(screen_cine, write_dicom):
    """A DICOM file of the small screen."""
    return write_dicom(screen_cine[0])


def quick(path, out, prior, **changes):
    return DehazeConfig(path, out=out, prior=str(prior), steps=2, device="cpu", **changes)


@pytest.mark.parametrize("method", ["smooth", "dps", "semantic", "nuclear"])
def test_dicom_in_dicom_and_report_out(cine_file, screen_cine, tiny_echo, tmp_path, capsys, method):
    out = tmp_path / "cleaned.dcm"
    assert dehaze(quick(cine_file, out, tiny_echo, method=method)) == 0
    assert "for research use only" in capsys.readouterr().out
    before, after = pydicom.dcmread(cine_file), pydicom.dcmread(out)
    assert after.NumberOfFrames == 6
    assert after.FrameTime == before.FrameTime == 20.0
    assert after.SOPInstanceUID != before.SOPInstanceUID
    _, drawn, inside = screen_cine
    screen = find_screen(read_cine(cine_file))
    changed = (after.pixel_array != before.pixel_array).any((0, 3))
    assert changed[screen.sector].mean() > 0.3  # an untrained prior takes a lot off
    assert not changed[screen.kept].any()
    assert not changed[drawn & ~inside].any()
    assert (after.pixel_array <= before.pixel_array).all()
    metrics = json.loads((report_folder(out) / "metrics.json").read_text())
    assert metrics["for"] == "for research use only"
    assert metrics["kept_pixels_changed"] == 0
    assert metrics["method"] == method
    report = (report_folder(out) / "report.html").read_text()
    assert "research use only" in report
    assert "gCNR" in report
    assert f"{(before.pixel_array.astype(int) - after.pixel_array).max()} at most" in report
    video = read_cine(report_folder(out) / "before-after.mp4")
    assert (len(video.frames), video.frames.shape[1:3]) == (6, (128, 352))


def test_a_seed_fixes_the_result_and_strength_scales_it(cine_file, tiny_echo, tmp_path):
    found = {}
    for name, changes in {
        "a": {},
        "again": {},
        "other": {"seed": 1},
        "half": {"strength": 0.5},
        "none": {"strength": 0.0},
    }.items():
        assert dehaze(quick(cine_file, tmp_path / f"{name}.npy", tiny_echo, report=False, **changes)) == 0
        found[name] = np.load(tmp_path / f"{name}.npy").astype(int)
    source = read_cine(cine_file).frames.astype(int)
    np.testing.assert_array_equal(found["a"], found["again"])
    assert (found["a"] != found["other"]).any()
    np.testing.assert_array_equal(found["none"], source)
    assert np.abs((source - found["half"]) - (source - found["a"]) / 2).max() <= 1
    assert not (tmp_path / "a-report").exists()


def test_one_picture_and_a_mask_and_a_part_of_the_frames(screen_cine, cine_file, tiny_echo, tmp_path):
    Image.fromarray(screen_cine[0][0]).save(tmp_path / "one.png")
    Image.fromarray(np.full((128, 176), 255, np.uint8)).save(tmp_path / "mask.png")
    config = quick(tmp_path / "one.png", tmp_path / "out.png", tiny_echo, mask=tmp_path / "mask.png", method="semantic")
    assert dehaze(config) == 0
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (128, 176, 3)
    notes = json.loads((tmp_path / "out-report" / "metrics.json").read_text())["notes"]
    assert any("one picture" in note for note in notes)
    assert dehaze(quick(cine_file, tmp_path / "some", tiny_echo, frames=(1, 4), report=False)) == 0
    assert len(list((tmp_path / "some").glob("frame-*.png"))) == 3


def test_a_result_is_not_replaced_unasked(cine_file, tiny_echo, tmp_path):
    out = tmp_path / "x.mp4"
    assert dehaze(quick(cine_file, out, tiny_echo)) == 0
    with pytest.raises(InputError, match="exists already"):
        dehaze(quick(cine_file, out, tiny_echo))
    out.unlink()
    with pytest.raises(InputError, match="x-report"):
        dehaze(quick(cine_file, out, tiny_echo))
    assert dehaze(quick(cine_file, out, tiny_echo, overwrite=True)) == 0


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--strength", "3"], "--strength 3"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--start", "1.5"], "--start 1.5"),
        (["--omega", "-1"], "--omega -1"),
        (["--seed", "-1"], "--seed -1"),
        (["--method", "dps", "--mask", "x.png"], "--mask with dps"),
        (["--frames", "4", "2"], "frames 4 to 2"),
        (["--prior", "tiny-ekko"], "no model is called"),
        (["--out", "x.gif"], "ends in .gif"),
        (["--size", "8"], "size 8"),
        (["--attenuation", "0.5"], "--attenuation with .*for RF"),
        (["--rf-priors", "a", "b"], "--rf-priors with .*for RF"),
    ],
)
def test_wrong_options_give_one_line(cine_file, tmp_path, monkeypatch, tiny_echo, options, fact):
    monkeypatch.chdir(tmp_path)
    prior = [] if "--prior" in options else ["--prior", str(tiny_echo)]
    with pytest.raises(InputError, match=fact) as caught:
        main(["dehaze", str(cine_file), *prior, *options])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*-report"))


def test_a_source_is_never_replaced(cine_file, tiny_echo, tmp_path):
    source = tmp_path / "source.dcm"
    source.write_bytes(cine_file.read_bytes())
    with pytest.raises(InputError, match="input itself"):
        dehaze(quick(source, source, tiny_echo, overwrite=True))
    assert source.read_bytes() == cine_file.read_bytes()


def test_a_mask_of_another_size_is_refused(cine_file, tiny_echo, tmp_path):
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="10 x 10"):
        dehaze(quick(cine_file, tmp_path / "y.dcm", tiny_echo, mask=tmp_path / "mask.png", method="semantic"))


def test_what_is_taken_off_never_wraps_around():
    frames = np.array([[[3, 200]]], np.uint8)
    np.testing.assert_array_equal(taken_off(frames, np.full((1, 1, 2), 0.1, np.float32)), [[[0, 174]]])
    np.testing.assert_array_equal(taken_off(frames, np.zeros((1, 1, 2), np.float32)), frames)


@pytest.mark.slow
def test_the_published_container_runs_at_full_size(cine_file, golden_files, tmp_path, capsys):
    """Keys and shapes from the manifest, hashed weights, in zea's folder: the command runs at 256 x 256."""
    import csv
    import resource
    import zlib

    import h5py

    path = golden_files("medical", "manifest-zea-semantic*.tsv")[0]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    folder = tmp_path / "zea"
    folder.mkdir()
    config = {
        "module": "zea.models.diffusion",
        "class_name": "DiffusionModel",
        "config": {
            "name": "diffusion_model",
            "input_shape": [256, 256, 1],
            "input_range": [-1, 1],
            "min_signal_rate": 0.02,
            "max_signal_rate": 0.95,
            "network_name": "unet_time_conditional",
            "network_kwargs": {"widths": [32, 64, 96, 128], "block_depth": 2},
        },
        "registered_name": "DiffusionModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    order = {"kernel": 0, "bias": 1, "moving_mean": 0, "moving_variance": 1}
    weights = 0
    with h5py.File(folder / "model.weights.h5", "w") as file:
        for network in ("ema_network", "layers/functional"):
            for row in rows:
                layer, name = row["path"].split("/")[-2:]
                shape = json.loads(row["shape"])
                draw = np.random.default_rng(zlib.crc32(f"{network}/{row['path']}".encode()))
                values = 1 + draw.random(shape) if name == "moving_variance" else draw.normal(0, 0.02, shape)
                file[f"{network}/layers/{layer}/vars/{order[name]}"] = values.astype(np.float32)
                weights += int(np.prod(shape)) * (network == "ema_network")
        file["optimizer/vars/0"] = 1
    assert weights == 1_953_377
    config = DehazeConfig(cine_file, out=tmp_path / "out.dcm", prior=str(folder), steps=2, device="cpu", frames=(0, 3))
    assert dehaze(config) == 0
    assert pydicom.dcmread(tmp_path / "out.dcm").NumberOfFrames == 3
    described = json.loads((tmp_path / "out-report" / "metrics.json").read_text())["prior"]
    assert (described["size"], described["weights"]) == (256, 1_950_497)
    with capsys.disabled():
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def test_the_real_cine_with_the_bundled_prior(tmp_path):
    """SonoSite's apical four-chamber view in pydicom's wheel, five frames of it and few steps."""
    from pydicom.data import get_testdata_file

    source, out = Path(str(get_testdata_file("examples_ybr_color.dcm"))), tmp_path / "cleaned.dcm"
    assert dehaze(DehazeConfig(source, out=out, steps=8, frames=(0, 5), device="cpu")) == 0
    metrics = json.loads((report_folder(out) / "metrics.json").read_text())
    assert metrics["kept_pixels_changed"] == 0
    assert metrics["contrast_wall_haze_after"] > 1.05 * metrics["contrast_wall_haze_before"]
    assert metrics["haze_grey_after"] < 0.8 * metrics["haze_grey_before"]
    assert metrics["edge_steepness_ratio"] > 0.95
    assert metrics["wall_width_after"] < 1.05 * metrics["wall_width_before"]
    written = pydicom.dcmread(out)
    assert (written.PatientID, written.NumberOfFrames) == ("204", 5)
    assert float(written.FrameTime) == pytest.approx(33.333)
