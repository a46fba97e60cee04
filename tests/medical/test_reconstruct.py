"""``priorscope medical reconstruct`` and ``simulate``: in place, resumable, the same for every batch size."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from priorscope.cli import main
from priorscope.evaluation.run_folder import RunFolder
from priorscope.inverse.mri import AsComplex
from priorscope_medical import reconstruct as command
from priorscope_medical.configs import AcquisitionConfig, FileConfig, ReconstructConfig, SolverConfig, VolumeConfig
from priorscope_medical.from_file import calibration_block, measured_problem
from priorscope_medical.grid import finer_object, slab, square
from priorscope_medical.methods import classical, data_weight, diffusion
from priorscope_medical.problem import estimated_noise
from priorscope_medical.score_prior import Autocast, load_prior
from priorscope_medical.tasks import open_volume, simulated_problem
from priorscope_medical.volumes import read_volume

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def volume(tiny_volume: Path) -> Any:
    return open_volume(tiny_volume, VolumeConfig(unit="HU"))


@pytest.fixture(scope="module")
def problem(volume: Any) -> Any:
    return simulated_problem(volume, "sv-ct", AcquisitionConfig(), size=16)


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else; two tests read reports."""
    monkeypatch.setattr("priorscope_medical.report.reconstruction_report", lambda *_: None)


def run(*words: object) -> int:
    return main(["medical", "reconstruct", *map(str, words)])


def corner(path: Path, voxel: tuple[int, int, int]) -> np.ndarray:
    return nibabel.load(path).affine[:3] @ [*voxel, 1]


def test_dds_writes_a_volume_in_its_place(tiny_volume: Path, tiny_prior: Make, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = [tiny_volume, f"--prior={tiny_prior('attenuation')}", "--steps=4", "--samples=3", f"--out={out}"]
    assert run(*words, "--device=cpu") == 0
    printed = capsys.readouterr().out
    assert "SIMULATED MEASUREMENTS" in printed
    assert "for research use only" in printed
    given, made = nibabel.load(tiny_volume), nibabel.load(out / "volume.nii.gz")
    assert made.shape == (16, 16, 9)
    assert "for research use only" in str(made.header["descrip"])
    assert nibabel.aff2axcodes(made.affine) == nibabel.aff2axcodes(given.affine)
    # the corner of the first voxel stays where it was
    assert corner(out / "volume.nii.gz", (-0.5, -0.5, -0.5)) == pytest.approx(
        corner(tiny_volume, (-0.5, -0.5, -0.5)), abs=1e-4
    )
    assert made.header.get_zooms() == pytest.approx((2.5, 2.5, 3.0))
    samples = [command.load_tensors(out / f"checkpoints/sample-{k}.safetensors")[0]["x"] for k in range(3)]
    stack = 1000 * (torch.stack(samples)[:, :, 0] - 1)
    mean, std = (read_volume(out / name, unit="HU").data for name in ("volume.nii.gz", "std.nii.gz"))
    assert mean == pytest.approx(stack.mean(0).numpy(), abs=0.02)
    assert std == pytest.approx(stack.std(0).numpy(), rel=1e-3, abs=0.05)
    assert float(std.min()) > 0
    metrics = RunFolder(out).metrics()
    assert metrics["simulated"] is True
    assert len(metrics["residual_per_slice"]) == 9
    assert metrics["network_calls_per_slice"] == 12
    assert metrics["psnr_axial"] > 5
    rows = RunFolder(out).history()
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[3]["residual"] < rows[0]["residual"]
    assert all(row["seconds_per_step"] > 0 for row in rows)
    assert sum(row["seconds_per_step"] for row in rows) < metrics["seconds"]
    report = (out / "report.html").read_text()
    for text in ("SIMULATED MEASUREMENTS", "for research use only", "Convergence", "Standard deviation", "coronal"):
        assert text in report


@pytest.mark.parametrize(
    ("method", "steps", "noted"), [("mbir", 499, True), ("mbir", 500, False), ("mbir", None, False), ("dds", 20, False)]
)
def test_few_levels_of_mbir_are_noted(method: Any, steps: int | None, noted: bool, problem: Any, capsys: Any) -> None:
    config = ReconstructConfig(Path("head.nii"), method=method, solver=SolverConfig(steps=steps))
    notes = command._told(config, problem, None)
    told = f"mbir with {steps} noise levels"
    assert any(told in note for note in notes) == noted
    assert (f"note: {told}" in capsys.readouterr().out) == noted


@pytest.mark.parametrize("method", ["dds", "mbir"])
def test_batches_do_not_matter(method: Any, problem: Any, tiny_prior: Make) -> None:
    # the default's 40 conjugate gradients a step enlarge the network's rounding between batches to 2e-5 here
    tiny = str(tiny_prior("attenuation"))
    config = SolverConfig(prior=tiny, device="cpu", steps=3, weight=0.04, cg_iterations=15)
    prior = load_prior(config, "attenuation")
    whole = diffusion(problem, method, prior, replace(config, batch_size=9))
    for size in (1, 4):
        parts = diffusion(problem, method, prior, replace(config, batch_size=size))
        assert float((parts - whole).abs().max()) < 1e-5 * float(whole.abs().max())


def test_a_slab_draws_the_noise_of_the_whole(volume: Any, problem: Any, tiny_prior: Make) -> None:
    part = simulated_problem(volume, "sv-ct", AcquisitionConfig(), size=16, slices=(3, 6))
    torch.testing.assert_close(part.y, problem.y[3:6])
    assert part.grid.affine[:3, 3] - problem.grid.affine[:3, 3] == pytest.approx([0, 0, 9])
    # many conjugate gradients would enlarge the rounding of products with three columns instead of nine
    config = SolverConfig(prior=str(tiny_prior("attenuation")), device="cpu", steps=3, weight=0.0, cg_iterations=4)
    prior = load_prior(config, "attenuation")
    whole = diffusion(problem, "dds", prior, config)
    few = diffusion(replace(part, noise=problem.noise), "dds", prior, config)
    torch.testing.assert_close(few, whole[3:6], atol=1e-4, rtol=1e-4)


def test_a_dim_slab_of_a_brain_keeps_the_scale_of_the_whole(volume: Any) -> None:
    ramp = volume.with_data((volume.data + 1000) * np.linspace(0.1, 1, 9, dtype=np.float32)[:, None, None], "intensity")
    acquire = AcquisitionConfig(acceleration=2, snr=0)
    whole, part = (
        simulated_problem(ramp, "cs-mri", acquire, size=16, slices=slices, noise=0.01) for slices in (None, (0, 3))
    )
    assert part.scale == whole.scale
    torch.testing.assert_close(part.y, whole.y[:3])
    assert float(part.truth.max()) < 0.5


def test_samples_of_neighbouring_seeds_differ(problem: Any, tiny_prior: Make) -> None:
    config = SolverConfig(prior=str(tiny_prior("attenuation")), device="cpu", steps=2)
    prior = load_prior(config, "attenuation")
    drawn = [
        diffusion(problem, "dds", prior, replace(config, seed=seed), sample=sample)
        for seed, sample in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(float((drawn[a] - drawn[b]).abs().max()) > 1e-3 for a, b in ((0, 1), (1, 2), (0, 2)))


@pytest.mark.usefixtures("without_report")
def test_a_run_that_is_interrupted_says_how_to_go_on(
    tiny_volume: Path, tiny_prior: Make, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = tmp_path / "run"
    words = [tiny_volume, f"--prior={tiny_prior('attenuation')}", "--steps=4", "--checkpoint-every=1", "--slab", 2, 4]
    words += [f"--out={out}", "--device=cpu"]
    save = command.save_state

    def interrupted(path: Path, state: Any) -> None:
        save(path, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "save_state", interrupted)
        assert run(*words) == 130
    told = capsys.readouterr().err
    assert "is not finished; the same command with --resume goes on" in told
    assert not (out / "volume.nii.gz").exists()
    assert run(*words, "--resume") == 0
    assert "going on after step 1 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["dds", "mbir"])
@pytest.mark.usefixtures("without_report")
def test_killed_and_resumed(
    method: str, tiny_volume: Path, tiny_prior: Make, tmp_path: Path, fork: Any, capsys: Any
) -> None:
    words = [tiny_volume, f"--prior={tiny_prior('attenuation')}", f"--method={method}", "--steps=8", "--device=cpu"]
    words += ["--checkpoint-every=2", "--slab", 2, 6, "--weight=0.04"]
    if method == "dds":
        words += ["--samples=2"]
    assert run(*words, f"--out={tmp_path / 'whole'}") == 0
    out = tmp_path / "killed"

    def killed() -> int:
        save, count = command.save_state, 0

        def late(path: Path, state: Any) -> None:
            nonlocal count
            count += 1
            if count == (6 if method == "dds" else 3):  # within the second sample
                os.kill(os.getpid(), signal.SIGKILL)
            save(path, state)

        command.save_state = late
        return run(*words, f"--out={out}")

    assert fork(killed) == -signal.SIGKILL
    assert not (out / "volume.nii.gz").exists()
    assert (out / f"checkpoints/state-{1 if method == 'dds' else 0}.safetensors").is_file()
    assert run(*words, f"--out={out}") == 2  # there is a run
    assert run(*words, f"--out={out}", "--resume", "--eta=0.5") == 2  # another configuration
    assert "another configuration; these keys differ: solver.eta" in capsys.readouterr().err
    # another batch size may be taken
    assert run(*words, f"--out={out}", "--resume", "--batch-size=5") == 0
    assert "going on after step 4 of 8" in capsys.readouterr().out
    runs = [tmp_path / "whole", out]
    volumes = [nibabel.load(folder / "volume.nii.gz").get_fdata() for folder in runs]
    assert volumes[1] == pytest.approx(volumes[0], abs=1e-5 * np.abs(volumes[0]).max())
    histories = [RunFolder(folder).history() for folder in runs]
    assert [row["step"] for row in histories[1]] == [row["step"] for row in histories[0]]
    assert [row["residual"] for row in histories[1]] == pytest.approx(
        [row["residual"] for row in histories[0]], rel=1e-3
    )
    assert not list((out / "checkpoints").glob("state-*"))


@pytest.mark.usefixtures("without_report")
def test_a_damaged_checkpoint_is_named(tiny_volume: Path, tiny_prior: Make, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = [tiny_volume, f"--prior={tiny_prior('attenuation')}", "--steps=2", f"--out={out}", "--device=cpu"]
    assert run(*words) == 0
    (out / "checkpoints/sample-0.safetensors").write_bytes(b"torn")
    assert run(*words, "--resume") == 2
    assert "sample-0.safetensors: is truncated or no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "method"),
    [("sv-ct", "fbp"), ("la-ct", "sirt"), ("sv-ct", "tv"), ("cs-mri", "zero-filled"), ("cs-mri", "tv")],
)
@pytest.mark.usefixtures("without_report")
def test_classical_methods(task: str, method: str, tiny_volume: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    unit = ["--unit=intensity"] if task == "cs-mri" else []
    words = [tiny_volume, f"--task={task}", f"--method={method}", "--step=5", "--acceleration=2", "--iterations=10"]
    assert run(*words, *unit, f"--out={out}", "--device=cpu") == 0
    made = nibabel.load(out / "volume.nii.gz")
    # without a prior the grid is the volume's own
    assert made.shape == (32, 32, 9)
    assert made.affine == pytest.approx(nibabel.load(tiny_volume).affine, abs=1e-4)
    assert nibabel.load(out / "truth.nii.gz").get_fdata().max() > 900
    assert RunFolder(out).metrics()["psnr_coronal"] > 5


def test_one_view_is_legal(tiny_volume: Path, tmp_path: Path, capsys: Any) -> None:
    words = [tiny_volume, "--views=1", "--method=sirt", "--size=16", "--iterations=5", f"--out={tmp_path / 'run'}"]
    assert run(*words, "--device=cpu") == 0
    assert "sirt from 1 view of 9 slices" in capsys.readouterr().out
    report = (tmp_path / "run/report.html").read_text()
    assert "1 view from 0 to 0 degrees" in report
    assert "Convergence" in report


@pytest.mark.usefixtures("without_report")
def test_radians_are_suspected(tiny_volume: Path, tmp_path: Path, capsys: Any) -> None:
    words = [tiny_volume, "--angles=0:3.1:0.4", "--method=fbp", "--size=16", f"--out={tmp_path / 'run'}"]
    assert run(*words, "--device=cpu") == 0
    assert "are they radians?" in capsys.readouterr().out


@pytest.mark.usefixtures("without_report")
def test_simulated_files_come_back(volume: Any, tiny_volume: Path, tmp_path: Path, capsys: Any) -> None:
    ct = tmp_path / "ct.h5"
    simulated = ["medical", "simulate", str(tiny_volume), "--unit=HU"]
    assert main([*simulated, "--views=20", f"--out={ct}"]) == 0
    told = capsys.readouterr().out.splitlines()[-1].partition("reconstruct it: priorscope ")[2].split()
    # conjugate gradients would enlarge the rounding of the stored values
    assert main([*told, "--method=sirt", "--iterations=20", f"--out={tmp_path / 'run'}", "--device=cpu"]) == 0
    result = read_volume(tmp_path / "run/volume.nii.gz", unit="HU").data
    problem = simulated_problem(volume, "sv-ct", AcquisitionConfig(views=20), size=16)
    direct = problem.written(problem.on_grid(classical(problem, "sirt", SolverConfig(iterations=20))[0]))
    assert result == pytest.approx(direct.data, abs=0.5)
    given, made = (nibabel.load(tmp_path / name) for name in ("ct-truth.nii.gz", "run/volume.nii.gz"))
    assert made.affine == pytest.approx(given.affine, abs=1e-4)
    truth = read_volume(tmp_path / "ct-truth.nii.gz", unit="HU").data
    assert truth == pytest.approx(1000 * (problem.truth[:, 0].numpy() - 1), abs=0.01)
    metrics = RunFolder(tmp_path / "run").metrics()
    assert not any("radians" in note for note in metrics["notes"])
    read = measured_problem(ct, FileConfig(), AcquisitionConfig(angles="0:3.1:0.155"), VolumeConfig(), size=16)
    assert sum("are they radians" in note for note in read.notes) == 1
    assert metrics["simulated"] is False
    assert metrics["measurement"]["water_per_mm"] == pytest.approx(0.02)
    assert "psnr_axial" not in metrics
    assert main([*simulated, f"--out={ct}"]) == 2
    assert "exists already" in capsys.readouterr().err
    for words, what in (
        (["--geometry=fan", f"--out={tmp_path / 'f.h5'}"], "fan"),
        ([f"--out={tmp_path / 'f.npy'}"], "HDF5"),
    ):
        assert main([*simulated, *words]) == 2
        assert what in capsys.readouterr().err


def test_measured_kspace_of_coils(tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :32] - 15.5
    data = np.stack([(np.hypot(y, x) < 10 + k) + 0.5 * (np.hypot(y - 3, x) < 4) for k in range(2)])
    np.save(tmp_path / "mr.npy", data.astype(np.float32))
    words = ["medical", "simulate", str(tmp_path / "mr.npy"), "--task=cs-mri", "--unit=intensity", "--size=32"]
    words += ["--coils=4", "--acceleration=2", "--centre-fraction=0.4", "--snr=200", f"--out={tmp_path / 'k.h5'}"]
    assert main(words) == 0
    problem = measured_problem(tmp_path / "k.h5", FileConfig(), AcquisitionConfig(), VolumeConfig())
    assert problem.modality == "MRI"
    assert isinstance(problem.operator.inner, AsComplex)
    image, _ = classical(problem, "cgls", SolverConfig(iterations=10))
    found, truth = problem.written(problem.on_grid(image)).data, read_volume(tmp_path / "k-truth.nii.gz").data
    assert found.shape == truth.shape
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.1 * truth.max()
    one = measured_problem(tmp_path / "k.h5", FileConfig(), AcquisitionConfig(), VolumeConfig(slab=(1, 2)))
    assert len(one.y) == 1
    assert list(one.names) == [1]
    assert one.grid.affine[:3, 3] - problem.grid.affine[:3, 3] == pytest.approx([0, 0, 1])
    assert any("how the patient lies" in note for note in one.notes)  # an array does not know either


def test_calibration_block() -> None:
    lines = np.zeros(20, bool)
    lines[[1, 8, 9, 10, 11, 12, 18]] = True
    assert calibration_block(lines) == 4
    points = np.zeros((12, 20), bool)
    points[3:9, 7:13] = True
    assert calibration_block(points) == 6
    assert calibration_block(np.ones((6, 8), bool)) == 6


def test_square_grid_keeps_sums_and_places(volume: Any) -> None:
    same = square(volume, 32)
    assert same.data == pytest.approx(volume.data, abs=1e-3)
    assert same.affine == pytest.approx(volume.affine)
    coarse = square(volume, 12)
    assert coarse.data.mean((1, 2)) == pytest.approx(volume.data.mean((1, 2)), abs=0.01)
    fine, factor = finer_object(volume, 12)
    assert (factor, fine.data.shape[1]) == (3, 36)
    assert fine.data.reshape(9, 12, 3, 12, 3).mean((2, 4)) == pytest.approx(coarse.data, abs=0.01)
    wide = square(slab(volume, (2, 5)), 40, pixel=2.0)
    assert wide.data[:, :8].max() == -1000  # air around what was there
    assert wide.data.shape == (3, 40, 40)
    # a voxel's middle in mm: rows and columns are equally far on both sides
    for one in (coarse, fine, wide):
        middle = [(count - 1) / 2 for count in one.data.shape]
        voxel = np.empty(3)
        voxel[list(one.axes)] = middle
        assert (one.affine @ [*voxel, 1])[:2] == pytest.approx((volume.affine @ [15.5, 15.5, 0, 1])[:2])


def test_noise_is_estimated() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(1, 100, 64)[None, None, :, None]
    y = ramp + 0.5 * torch.randn(4, 1, 64, 30, generator=generator)
    assert estimated_noise(y, "CT") == pytest.approx(0.5, rel=0.05)
    # an object that is rough along the detector and the views, as coarse pixels make it, and smooth over the slices
    rough = (
        torch.rand(1, 1, 64, 30, generator=generator) * 30 * (1 + torch.linspace(0, 1, 24) ** 2)[:, None, None, None]
    )
    y = 20 + rough + 0.5 * torch.randn(24, 1, 64, 30, generator=generator)
    assert estimated_noise(y, "CT") == pytest.approx(0.5, rel=0.05)
    kspace = 0.3 * torch.view_as_complex(torch.randn(4, 2, 64, 40, 2, generator=generator))
    assert estimated_noise(kspace, "MRI") == pytest.approx(0.3, rel=0.05)
    assert estimated_noise(torch.ones(1, 1, 8, 3), "CT") == pytest.approx(1e-4)


def test_tv_weight_means_the_same_for_every_number_of_views(volume: Any) -> None:
    few, many = (
        simulated_problem(volume, "sv-ct", AcquisitionConfig(views=views), size=16).operator for views in (10, 40)
    )
    assert data_weight(few) / data_weight(many) == pytest.approx(4, rel=0.05)


def test_mixed_precision_answers_in_the_samples_type(tiny_prior: Make) -> None:
    prior = load_prior(SolverConfig(prior=str(tiny_prior("attenuation")), device="cpu"), "attenuation")
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, mixed = (
            model(x, 300.0) for model in (prior.denoiser, Autocast(prior.denoiser, prior.device, torch.bfloat16))
        )
    assert mixed.x0.dtype == torch.float32
    assert not torch.equal(mixed.x0, exact.x0)
    torch.testing.assert_close(mixed.x0, exact.x0, atol=0.03, rtol=0.03)


def test_checkpoints_without_meaning_ask_for_it(tmp_path: Path, tiny_volume: Path, capsys: Any) -> None:
    assert run(tiny_volume, f"--prior={tmp_path / 'checkpoint_185.pth'}", f"--out={tmp_path / 'run'}") == 2
    assert "--prior-scale" in capsys.readouterr().err
    assert run(tiny_volume, f"--prior={tmp_path / 'c.pth'}", "--prior-scale=2", f"--out={tmp_path / 'run'}") == 2
    assert "no such checkpoint" in capsys.readouterr().err


def test_priors_that_say_what_they_are(tmp_path: Path, tiny_volume: Path, tiny_prior: Make, capsys: Any) -> None:
    prior = tiny_prior("attenuation")
    words = [tiny_volume, f"--out={tmp_path / 'run'}", "--device=cpu"]
    assert run(*words, f"--prior={prior}", "--prior-scale=2") == 2
    assert "says itself what its numbers mean" in capsys.readouterr().err
    for network in ("unet", "ncsnpp"):
        broken = tmp_path / network
        shutil.copytree(prior, broken)
        (broken / network).mkdir(exist_ok=True)
        for values, told in (('{"unit": "attenuation"}', "offset"), ('{"unit": "HU", "offset": 0, "scale": 1}', "HU")):
            (broken / "values.json").write_text(values)
            assert run(*words, f"--prior={broken}") == 2
            error = capsys.readouterr().err
            assert "values.json: holds unknown or no settings" in error
            assert told in error
    assert not (tmp_path / "run").exists()


def test_least_squares_of_kspace_stop_where_they_have_converged(volume: Any) -> None:
    """A mask has two or three singular values: further steps of conjugate gradients would only gather rounding."""
    intensities = volume.with_data(volume.data + 1000, "intensity")
    acquire = AcquisitionConfig(acceleration=2, snr=0)
    problem = simulated_problem(intensities, "cs-mri", acquire, size=32, noise=0.01)
    few, many = (classical(problem, "cgls", SolverConfig(iterations=count))[0] for count in (6, 60))
    torch.testing.assert_close(many, few, atol=1e-3, rtol=1e-3)
    assert float(problem.residuals(many).max()) < 0.05
    zero_filled, _ = classical(problem, "zero-filled", SolverConfig())
    assert float((many - problem.truth).norm()) < float((zero_filled - problem.truth).norm())
