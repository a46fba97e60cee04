"""``priorscope medical evaluate``: figures of every plane, TV in its favour, resumable."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation import suite
from priorscope.evaluation.image_metrics import over_slices, psnr, ssim
from priorscope.evaluation.run_folder import RunFolder
from priorscope_medical import evaluation_report
from priorscope_medical.configs import AcquisitionConfig, EvaluateConfig
from priorscope_medical.evaluate import acquisition, list_items, parse_task
from priorscope_medical.evaluation_report import summary
from priorscope_medical.planes import picture, shown_slices
from priorscope_medical.scores import mean_psnr, plane_scores
from priorscope_medical.volumes import read_volume

Make = Callable[[str], Path]
TASKS = ["--tasks", "sv-ct-8", "la-ct-60", "--methods", "dds", "dds-2d", "tv", "sirt", "zero-filled"]


def words(volume: Path, prior: Path, out: Path, *more: str) -> list[str]:
    quick = ["--steps=3", "--samples=2", "--iterations=5", "--step=10", "--device=cpu"]
    return ["medical", "evaluate", str(volume), *TASKS, f"--prior={prior}", f"--out={out}", *quick, *more]


def test_evaluate(tiny_volume: Path, tiny_prior: Make, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert main(words(tiny_volume, tiny_prior("attenuation"), out, "--tv-sweep", "0.3", "3", "100")) == 0
    printed = capsys.readouterr().out
    assert "range of values 4" in printed
    assert "for research use only" in printed
    assert "is the best for this volume of 0.03:" in printed
    rows = {row["key"]: row for row in map(json.loads, (out / "items.jsonl").read_text().splitlines())}
    # what projections cannot use is left out
    methods = ("dds", "dds-2d", "tv", "sirt")
    assert set(rows) == {f"tiny/{task}/{method}" for task in ("sv-ct-8", "la-ct-60") for method in methods}
    row = rows["tiny/sv-ct-8/tv"]
    best = max(row["tv_sweep"], key=lambda one: one["mean_psnr"])
    assert row["tv_weight"] == best["weight"] != 10
    assert mean_psnr({name: row[name] for name in row if name.startswith("psnr")}) == pytest.approx(best["mean_psnr"])
    # the figures are those of the files
    truth, made = (
        read_volume(out / f"volumes/tiny/sv-ct-8-{name}.nii.gz", unit="attenuation") for name in ("truth", "sirt")
    )
    for plane, axis in truth.planes.items():
        for name, metric in (("psnr", psnr), ("ssim", ssim)):
            each = over_slices(partial(metric, data_range=4.0), made.data.clip(min=0), truth.data, axis)
            assert rows["tiny/sv-ct-8/sirt"][f"{name}_{plane}"] == pytest.approx(float(each.mean()), abs=1e-5)
    diffusion = rows["tiny/sv-ct-8/dds"]
    assert diffusion["network_calls_per_slice"] == 6
    assert diffusion["psnr_axial"] > diffusion["one_sample_psnr_axial"]  # the mean of samples of pure noise is nearer
    assert diffusion["psnr_axial"] != rows["tiny/sv-ct-8/dds-2d"]["psnr_axial"]
    metrics = RunFolder(out).metrics()
    assert metrics["data_range"] == {"CT": 4.0}
    assert [one["method"] for one in metrics["tasks"]["la-ct-60"]] == [
        "dds, mean of 2",
        "dds, one sample",
        "dds-2d, mean of 2",
        "dds-2d, one sample",
        "tv",
        "sirt",
    ]
    report = (out / "report.html").read_text()
    for text in (
        "SIMULATED MEASUREMENTS",
        "la-ct-60",
        "in its favour",
        "for research use only",
        "nothing else is clipped",
    ):
        assert text in report
    assert (out / "figures/tiny-la-ct-60.png").is_file()


def test_killed_and_resumed(tiny_volume: Path, tiny_prior: Make, tmp_path: Path, fork: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("priorscope_medical.evaluate.write_report", lambda *_: None)
    prior, out = tiny_prior("attenuation"), tmp_path / "killed"
    assert main(words(tiny_volume, prior, tmp_path / "whole", "--tv-sweep", "0.3")) == 0

    def killed() -> int:
        append, count = suite.append_jsonl, 0

        def late(path: Path, row: Any) -> None:
            nonlocal count
            count += 1
            if count == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            append(path, row)

        suite.append_jsonl = late
        return main(words(tiny_volume, prior, out, "--tv-sweep", "0.3"))

    assert fork(killed) == -signal.SIGKILL
    assert main(words(tiny_volume, prior, out, "--tv-sweep", "0.3")) == 2
    assert main(words(tiny_volume, prior, out, "--tv-sweep", "1", "--resume")) == 2
    assert main(words(tiny_volume, prior, out, "--tv-sweep", "0.3", "--resume")) == 0
    found = [RunFolder(folder).metrics()["tasks"] for folder in (tmp_path / "whole", out)]
    for task, rows in found[0].items():
        for first, second in zip(rows, found[1][task], strict=True):
            for name in first:
                if name != "seconds":
                    assert second[name] == (
                        pytest.approx(first[name]) if isinstance(first[name], float) else first[name]
                    )


def test_one_bad_volume_does_not_stop_the_others(tiny_volume: Path, tmp_path: Path, capsys: Any) -> None:
    flat = tmp_path / "flat.npy"
    np.save(flat, np.zeros((8, 8), np.float32))
    tasks = ["--tasks", "sv-ct-4", "--methods", "fbp", f"--out={tmp_path / 'run'}", "--size=16", "--device=cpu"]
    assert main(["medical", "evaluate", str(flat), str(tiny_volume), *tasks]) == 1
    printed = capsys.readouterr().out
    assert "failed: flat.npy/sv-ct-4/fbp" in printed
    assert "3 dimensions were expected" in printed
    assert len(RunFolder(tmp_path / "run").metrics()["tasks"]["sv-ct-4"]) == 1


def test_tasks() -> None:
    assert parse_task("sv-ct-8") == ("sv-ct", 8)
    assert parse_task("cs-mri-2.5") == ("cs-mri", 2.5)
    for wrong in ("sv-ct", "sv-ct-0", "sv-ct-2.5", "la-ct--5", "mri-4", "la-ct-nan"):
        with pytest.raises(InputError, match="a task named"):
            parse_task(wrong)
    kind, acquire = acquisition("la-ct-120", AcquisitionConfig(step=2, angles="0,1"))
    assert (kind, acquire.span, acquire.step, acquire.angles) == ("la-ct", 120, 2, None)
    items = list_items(
        EvaluateConfig((Path("a/x.nii.gz"), Path("b/x.nii.gz")), tasks=("cs-mri-4",), methods=("fbp", "tv"))
    )
    assert [item.key for item in items] == ["a_x.nii.gz/cs-mri-4/tv", "b_x.nii.gz/cs-mri-4/tv"]


def test_pictures_are_of_the_plane_that_was_measured(tiny_volume: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Also where pixels are wider than slices are apart, so that the file alone would be read along another axis."""
    seen: list[Any] = []
    compared = evaluation_report._compared
    monkeypatch.setattr(evaluation_report, "_compared", lambda *given: seen.append(given) or compared(*given))
    words = [str(tiny_volume), "--tasks", "sv-ct-4", "--methods", "fbp", "--size=8", "--slab", "3", "6", "--device=cpu"]
    assert main(["medical", "evaluate", *words, f"--out={tmp_path / 'run'}"]) == 0
    (truth, results, _, first), *others = seen
    assert not others
    for volume in (truth, results["fbp"]):
        assert (volume.slice_plane, volume.data.shape) == ("axial", (3, 8, 8))
    assert first == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tasks", "sv-ct"], "a task named 'sv-ct'"),
        (["--tasks", "cs-mri-4", "--methods", "fbp"], "nothing to evaluate"),
        (["--tasks", "sv-ct-4", "sv-ct-4", "--methods", "fbp"], "names sv-ct-4 twice"),
        (["--methods", "tv", "--tv-sweep", "0"], "--tv-sweep"),
        (["--methods", "tv", "--tv-sweep", "1", "nan"], "--tv-sweep"),
        (["--data-range", "inf"], "--data-range inf"),
        (["--methods", "fbp", "--data-range", "0"], "--data-range 0"),
        (["--samples", "0"], "--samples 0"),
    ],
)
def test_mistakes(more: list[str], told: str, tiny_volume: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["medical", "evaluate", str(tiny_volume), f"--out={tmp_path / 'run'}", *more]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_scores_of_thin_and_of_perfect_volumes(tiny_volume: Path) -> None:
    volume = read_volume(tiny_volume, unit="attenuation")
    thin = volume.with_data(volume.data)
    scores = plane_scores(thin, volume.with_data(np.maximum(volume.data, 0)), 4.0)
    # values below 0 count as 0, so all slices are met exactly
    assert all(scores[name] is None for name in scores if name.startswith("psnr"))
    assert scores["ssim_axial"] == pytest.approx(1)
    with pytest.raises(InputError, match="volumes of"):
        plane_scores(volume, read_volume(tiny_volume, unit="HU", slices=0), 4.0)


def test_an_empty_slice_counts_in_a_plane_and_hardly_in_the_volume(tiny_volume: Path) -> None:
    truth = read_volume(tiny_volume, unit="attenuation")
    truth = truth.with_data(np.zeros_like(truth.data))
    off = np.full_like(truth.data, 0.4)
    off[:1] = 0.04
    part = 1 / len(off)
    scores = plane_scores(truth.with_data(off), truth, 4.0)
    assert scores[f"psnr_{truth.slice_plane}"] == pytest.approx(40 * part + 20 * (1 - part))
    assert scores["psnr_volume"] == pytest.approx(-10 * np.log10(0.01**2 * part + 0.1**2 * (1 - part)))


def test_summary_takes_means_over_volumes() -> None:
    rows = [
        {"volume": name, "task": "sv-ct-8", "method": "fbp", "psnr_axial": value, "data_range": 4.0, "seconds": 1.0}
        for name, value in (("a", 20.0), ("b", 30.0), ("c", None))
    ]
    found = summary(rows)["sv-ct-8"]
    assert len(found) == 1
    assert found[0]["psnr axial"] == 25
    assert found[0]["ssim axial"] is None


def test_pictures_show_what_lies_where(tiny_volume: Path) -> None:
    volume = read_volume(tiny_volume, unit="HU")
    at = shown_slices(volume)
    assert set(at) == {"axial", "coronal", "sagittal"}
    bone = np.argwhere(volume.data > 500).mean(0)
    codes = {plane: volume.planes[plane] for plane in at}
    assert abs(at["axial"] - 4) <= 1
    image = picture(volume, "axial", round(bone[codes["axial"]]))
    assert image.shape == (32, 32)
    # slices of 3 mm and pixels of 1.25: rows are repeated
    assert picture(volume, "coronal", at["coronal"]).shape == (round(9 * 3 / 1.25), 32)
    # rows of the file run to the front, columns to the left: the dense part lies behind the middle, on the left
    rows, columns = np.argwhere(image > 500).mean(0)
    assert rows > 16
    assert columns > 16
