"""simulate-ultrasound, train-ultrasound and evaluate-ultrasound, as users call them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_medical.cli import main
from priorscope_medical.ultrasound.cine_file import read_regions, read_rf
from priorscope_medical.ultrasound.cine_scores import contrast_scores, truth_scores
from priorscope_medical.ultrasound.patches import PatchFeed, passed, training_cine
from priorscope_medical.ultrasound.quadrature import as_channels
from priorscope_medical.ultrasound.rf_prior import RfPrior
from priorscope_medical.ultrasound.simus_cines import SIMUS_SCAN


@pytest.fixture(scope="module")
def cine(tmp_path_factory):
    path = tmp_path_factory.mktemp("cine") / "cine.h5"
    assert main(["simulate-ultrasound", "--frames", "2", "--seed", "3", "--strength", "0.5", "--out", str(path)]) == 0
    return path


def test_a_simulated_file_holds_its_parts(cine):
    with h5py.File(cine) as file:
        data = {name: file[f"data/{name}"][()] for name in ("hazy", "tissue", "haze", "noise")}
        np.testing.assert_allclose(data["hazy"], data["tissue"] + 0.5 * data["haze"] + data["noise"], atol=1e-6)
        assert (
            file["data/regions"].shape == data["hazy"].shape == (2, len(file["scan/depths"]), len(file["scan/angles"]))
        )
        assert "research use only" in file.attrs["about"]
        assert (file.attrs["strength"], file.attrs["seed"], file.attrs["method"]) == (0.5, 3, "convolution")
    found = read_rf(cine)
    np.testing.assert_allclose(found.clean, data["tissue"] + data["noise"])
    assert found.regions is not None


def test_less_haze_scores_better(cine, tmp_path, capsys):
    with h5py.File(cine) as file:
        np.save(tmp_path / "after.npy", file["data/hazy"][()] - 0.4 * file["data/haze"][()])
    out = tmp_path / "run"
    assert main(["evaluate-ultrasound", str(cine), str(tmp_path / "after.npy"), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    before, after = metrics["before"], metrics["after"]
    assert after["psnr"] - before["psnr"] == pytest.approx(20 * np.log10(5), abs=0.01)
    assert after["weak_error"] == pytest.approx(before["weak_error"] / 5, rel=0.01)
    assert after["gcnr"] > before["gcnr"]
    assert after["cnr_db"] == pytest.approx(20 * np.log10(abs(after["cnr"])))
    assert before["flicker_of_input"] == 0
    assert "research use only" in capsys.readouterr().out
    assert "research use only" in (out / "report.html").read_text()


def _folders(folder, cine):
    """Two cines as .npy: hazy, less hazy (one of them as `dehaze` writes it), clean."""
    folders = {name: folder / name for name in ("hazy", "results", "clean")}
    for path in folders.values():
        path.mkdir()
    with h5py.File(cine) as file:
        data = {name: file[f"data/{name}"][()] for name in ("hazy", "tissue", "haze", "noise")}
        np.save(folder / "regions.npy", file["data/regions"][()])
    for name, share, loud in (("a", 0.4, 1.0), ("b", 0.25, 2.0)):
        np.save(folders["hazy"] / f"{name}.npy", loud * data["hazy"])
        np.save(folders["clean"] / f"{name}.npy", loud * (data["tissue"] + data["noise"]))
        after = loud * (data["hazy"] - share * data["haze"])
        if name == "a":
            np.save(folders["results"] / "a.npy", after)
        else:
            (folders["results"] / "b-report").mkdir()
            np.savez(folders["results"] / "b-report/rf.npz", tissue=after, rf=loud * data["hazy"])
    return folders


def test_folders_are_measured_by_equal_names(cine, tmp_path, capsys):
    folders = _folders(tmp_path, cine)
    words = [str(folders["hazy"]), str(folders["results"]), "--truth", str(folders["clean"])]
    out = tmp_path / "run"
    assert main(["evaluate-ultrasound", *words, "--regions", str(tmp_path / "regions.npy"), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["cines"] == 2
    gains = {name: one["after"]["psnr"] - one["before"]["psnr"] for name, one in metrics["each"].items()}
    # of strength 0.5, a keeps 0.1 and b 0.25
    assert gains == pytest.approx({"a": 20 * np.log10(5), "b": 20 * np.log10(2)}, abs=0.01)
    assert metrics["after"]["psnr"] - metrics["before"]["psnr"] == pytest.approx(10 * np.log10(10), abs=0.01)
    assert metrics["each"]["a"]["before"]["gcnr"] == pytest.approx(metrics["each"]["b"]["before"]["gcnr"], abs=1e-6)
    assert "<td>b</td>" in (out / "report.html").read_text()
    assert "psnr" in capsys.readouterr().out


def test_results_alone_are_measured_against_the_truth(cine, tmp_path):
    folders = _folders(tmp_path, cine)
    found = {}
    for name in ("hazy", "results"):
        out = tmp_path / f"run-{name}"
        assert (
            main(["evaluate-ultrasound", str(folders[name]), "--truth", str(folders["clean"]), "--out", str(out)]) == 0
        )
        found[name] = json.loads((out / "metrics.json").read_text())
    assert found["results"]["measured"]["psnr"] - found["hazy"]["measured"]["psnr"] == pytest.approx(10, abs=0.01)
    assert set(found["hazy"]["measured"]) == {"psnr", "flicker"}


def test_folders_that_do_not_fit_are_refused(cine, tmp_path):
    folders = _folders(tmp_path, cine)
    hazy, results = str(folders["hazy"]), str(folders["results"])
    one = str(folders["hazy"] / "a.npy")
    (tmp_path / "empty").mkdir()
    for words, fact in (
        ((hazy, one), "is no folder"),
        ((one, results), "is a folder"),
        ((str(tmp_path / "empty"), results), "holds no RF"),
        ((hazy, str(tmp_path / "empty")), "nothing called a"),
        ((one,), "nothing can be measured"),
        ((str(tmp_path / "nowhere"), results), "is a folder"),
        ((str(tmp_path / "nowhere.npy"),), "no such file"),
    ):
        with pytest.raises(InputError, match=fact) as caught:
            main(["evaluate-ultrasound", *words, "--out", str(tmp_path / "run")])
        assert "\n" not in str(caught.value)
    np.save(folders["results"] / "b.npy", np.zeros((2, 4, 4)))
    with pytest.raises(InputError, match="two files for b"):
        main(["evaluate-ultrasound", hazy, results, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_truth_scores_are_what_they_say():
    clean = np.random.default_rng(0).normal(size=(2, 64, 8)).astype(np.float32)
    regions = np.zeros(clean.shape, np.uint8)
    regions[:, :, 4:] = 3
    rf = clean.copy()
    rf[..., 4:] *= 1.5
    found = truth_scores(rf, clean, regions)
    assert found["weak_error"] == pytest.approx(0.5, rel=1e-5)
    rms = np.sqrt(np.mean((rf - clean) ** 2))
    assert found["psnr"] == pytest.approx(20 * np.log10(np.abs(clean).max() / rms), abs=1e-4)
    assert truth_scores(clean, clean)["flicker"] == 0


def test_speckle_wider_than_its_block_has_no_width():
    regions = np.ones((1, 64, 16), np.uint8)
    regions[:, 32:] = 2
    tone = np.cos(2 * np.pi * np.arange(64) / 4)[:, None] * np.linspace(1, 1.2, 16)
    found = contrast_scores(tone[None], regions)
    assert "fwhm_beams" not in found
    assert 0 <= found["gcnr"] <= 1


def test_training_writes_a_prior_that_dehazing_can_read_and_goes_on(tmp_path):
    options = ["--cines", "2", "--held-out", "1", "--frames", "2", "--batch-size", "2", "--log-every", "1"]
    options += ["--validate-every", "2", "--checkpoint-every", "1", "--steps", "2", "--device", "cpu", "--ema", "0.5"]
    for part in ("tissue", "haze"):
        out = tmp_path / part
        shared = ["--part", part, "--out", str(out), "--data", str(tmp_path / "data")]
        assert main(["train-ultrasound", *shared, *options]) == 0
        values = RfPrior.from_pretrained(out / "model", device="cpu").values
        assert (values.part, values.frames) == (part, 2)
        assert 0.2 < values.std < 1.5
        assert np.isfinite(json.loads((out / "metrics.json").read_text())["held_out_error_db"])
    assert len(list((tmp_path / "data").glob("*.npy"))) == 4
    assert main(["train-ultrasound", *shared, *options, "--resume"]) == 0


def test_training_cines_add_up_to_rms_one():
    found = training_cine(1, frames=1)
    total = found["tissue"] + found["haze"]
    assert float(total.abs().square().mean()) == pytest.approx(1.0, abs=1e-3)
    assert found["tissue"].dtype == torch.complex64


def test_a_probe_passes_what_lies_above_its_edge():
    depth = torch.arange(1000)[:, None]
    spacing = SIMUS_SCAN.carrier / SIMUS_SCAN.sampling
    low, high = (torch.cos(2 * torch.pi * share * spacing * depth) for share in (0.3, 1.2))
    found = passed(low + high, SIMUS_SCAN, edge=0.6, steep=0.02, tilt=0.0)
    torch.testing.assert_close(found[100:-100], high[100:-100], atol=0.02, rtol=0)


def test_patches_are_pieces_turned_mirrored_and_scaled():
    rows = torch.randn(1, 3, 40, 20, dtype=torch.complex64)
    feed = PatchFeed(as_channels(rows).numpy(), rows=40, beams=20, size=4, seed=0)
    batch = feed.batch(5, range(4))
    assert batch["image"].shape == (4, 6, 40, 20)
    assert batch["top"].tolist() == [0.0] * 4
    power = rows.abs().square()[0].sum(0)
    for image in batch["image"]:
        found = image.square().sum(0)
        ratios = [float((found / other).std() / (found / other).mean()) for other in (power, power.flip(1))]
        assert min(ratios) < 1e-4  # one factor everywhere
    again = feed.batch(5, range(1, 3))
    assert torch.equal(again["image"], batch["image"][1:3])


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda folder, cine: read_rf(folder / "none.h5"), "no such file"),
        (lambda folder, cine: read_rf(_file(folder / "a.npy", np.zeros((4, 4)))), r"shape \[4, 4\]"),
        (lambda folder, cine: read_rf(_file(folder / "a.npy", np.full((2, 4, 4), np.inf))), "not finite"),
        (lambda folder, cine: read_rf(_file(folder / "a.npy", np.zeros((2, 4, 4), complex))), "complex128"),
        (lambda folder, cine: read_rf(_bytes(folder / "a.npy")), "a.npy"),
        (lambda folder, cine: read_rf(_cut(folder / "a.npz", 0.5)), "truncated or broken"),
        (lambda folder, cine: read_rf(_zeroed(folder / "a.npz")), "truncated or broken"),
        (lambda folder, cine: read_rf(_archive(folder / "a.npz", first=RF, second=RF)), "first, second"),
        (lambda folder, cine: read_rf(_bytes(folder / "a.h5")), "truncated or no HDF5"),
        (lambda folder, cine: read_rf(_bytes(folder / "a.wav")), "neither"),
        (lambda folder, cine: read_regions(_file(folder / "r.npy", np.zeros((3, 4), int)), (2, 4, 4)), r"\[3, 4\]"),
        (lambda folder, cine: read_regions(_file(folder / "r.npy", np.full((4, 4), 9)), (2, 4, 4)), "regions from 9"),
        (lambda folder, cine: main(["simulate-ultrasound", "--out", str(cine)]), "exists already"),
        (lambda folder, cine: main(["simulate-ultrasound", "--out", str(folder / "a.txt")]), "HDF5"),
        (
            lambda folder, cine: main(
                ["simulate-ultrasound", "--frames", "1", "--out", str(_file(folder / "a.npy", RF) / "cine.h5")]
            ),
            "cannot be written",
        ),
        (
            lambda folder, cine: main(["simulate-ultrasound", "--frames", "0", "--out", str(folder / "a.h5")]),
            "Use one or more",
        ),
        (lambda folder, cine: _evaluate(folder, RF, truth=0 * RF), "truth.npy: RF without a signal"),
        (lambda folder, cine: _evaluate(folder, RF, after=0 * RF + 3), "after.npy: RF without a signal"),
        (lambda folder, cine: _evaluate(folder, RF, regions=np.ones(RF.shape, int)), "nothing can be measured"),
        (lambda folder, cine: _evaluate(folder, RF[[0, 0]], after=RF), "nothing can be measured"),
        (lambda folder, cine: truth_scores(RF, 0 * RF), "without a signal"),
        (lambda folder, cine: main(["train-ultrasound", "--frames", "0", "--out", str(folder / "t")]), "--frames 0"),
        (lambda folder, cine: main(["train-ultrasound", "--lora", "4", "--out", str(folder / "t")]), "--lora 4"),
        (
            lambda folder, cine: main(
                ["evaluate-ultrasound", str(cine), str(_file(folder / "a.npy", np.ones((1, 8, 8))))]
            ),
            "was expected",
        ),
    ],
)
def test_refusals(tmp_path, cine, make, fact):
    with pytest.raises(InputError, match=fact):
        make(tmp_path, cine)
    assert not list(tmp_path.glob("*.part*"))


def test_what_the_truth_has_no_scale_for_is_left_out(tmp_path):
    """A truth that stands still has no flicker, a region where it is 0 no error; the rest is measured."""
    regions = np.ones(RF.shape, int)
    regions[:, 40:] = 3
    truth = RF[[0, 0]].copy()
    truth[:, 40:] = 0
    metrics = _evaluate(tmp_path, RF, truth=truth, regions=regions)["measured"]
    assert set(metrics) == {"psnr", "wall_error"}
    assert metrics["wall_error"] == pytest.approx(
        np.linalg.norm(RF[:, :40] - truth[:, :40]) / np.linalg.norm(truth[:, :40]), rel=1e-5
    )


RF = np.random.default_rng(0).normal(size=(2, 80, 8)).astype(np.float32)


def _evaluate(folder, before, after=None, **others):
    """The figures of arrays that are written to files called by their names."""
    arguments = [str(_file(folder / "before.npy", before))]
    arguments += [] if after is None else [str(_file(folder / "after.npy", after))]
    for name, values in others.items():
        arguments += [f"--{name}", str(_file(folder / f"{name}.npy", values))]
    assert main(["evaluate-ultrasound", *arguments, "--out", str(folder / "run")]) == 0
    return json.loads((folder / "run" / "metrics.json").read_text())


def _archive(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def _cut(path, share):
    content = _archive(path, rf=RF).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def _zeroed(path):
    content = bytearray(_archive(path, rf=RF).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    return path


def _file(path, values):
    np.save(path, values)
    return path


def _bytes(path):
    path.write_bytes(b"nonsense" * 20)
    return path
