"""The commands of the medical app answer at once, and a mistake is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from priorscope.cli import guarded, main
from priorscope.errors import InputError
from priorscope_medical.angles import parse_angles

HEAVY = ("torch", "diffusers", "matplotlib", "scipy", "nibabel", "pydicom", "h5py", "nilearn")


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import json, sys
from priorscope.cli import main
for words in ([], ["reconstruct"], ["simulate"], ["evaluate"], ["train"]):
    try:
        main(["medical", *words, "--help"])
    except SystemExit:
        pass
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert "for research use only" in " ".join(done.stdout.split())
    assert all(verb in done.stdout for verb in ("reconstruct", "simulate", "evaluate", "train"))
    for option in ("--views", "--angles", "--method", "--prior", "--samples", "--tv-sweep", "--phantoms"):
        assert option in done.stdout


@pytest.mark.parametrize("module", ["nibabel", "pydicom", "nilearn", "h5py"])
def test_a_missing_extra_is_named(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    assert guarded(command, app="medical") == 2
    assert "pip install 'priorscope[medical]'" in capsys.readouterr().err


def test_angles(tmp_path: Path) -> None:
    assert parse_angles("0:90:1").tolist() == list(range(90))
    assert parse_angles("0:1:0.1").size == 10
    assert parse_angles("10:0:-5").tolist() == [10, 5]
    assert parse_angles("0,45.5,90").tolist() == [0, 45.5, 90]
    assert parse_angles("7").tolist() == [7]
    np.save(tmp_path / "a.npy", np.array([1, 2, 3]))
    (tmp_path / "a.txt").write_text("4\n5.5\n")
    assert parse_angles(str(tmp_path / "a.npy")).tolist() == [1, 2, 3]
    assert parse_angles(str(tmp_path / "a.txt")).tolist() == [4, 5.5]


@pytest.mark.parametrize(
    "text", ["", "0:90", "0:90:0", "90:0:1", "0:0:1", "a:b:c", "1,nan", "none.txt", "0:1e9:1", "inf:1:1"]
)
def test_angles_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="the views"):
        parse_angles(text)


def test_angles_of_a_file_that_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first second")
    with pytest.raises(InputError, match="is no list of angles"):
        parse_angles(str(tmp_path / "a.txt"))


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command ends with."""
    assert main(["medical", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--views", "0", "--method", "fbp"], "--views 0"),
        (["--angles", "0:0:1", "--method", "fbp"], "are none"),
        (["--method", "zero-filled"], "zero-filled of projections"),
        (["--task", "cs-mri", "--method", "fbp"], "fbp of k-space"),
        (["--method", "tv", "--samples", "2"], "Only dds and mbir draw samples"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--steps", "1"], "--steps 1"),
        (["--noise-factor", "nan"], "--noise-factor nan"),
        (["--seed", "-1"], "--seed -1"),
        (["--eta", "nan"], "--eta nan"),
        (["--eta", "1.5"], "--eta 1.5"),
        (["--noise", "-1"], "--noise -1"),
        (["--method", "fbp", "--electronic", "nan"], "noise of nan counts"),
        (["--method", "fbp", "--photons", "-5"], "-5.0 photons"),
        (["--method", "fbp", "--spacing", "1", "1", "1"], "spacing of its own"),
        (["--method", "tv", "--task", "cs-mri"], "--unit intensity"),
        (["--method", "tv", "--task", "cs-mri", "--unit", "intensity", "--acceleration", "nan"], "acceleration"),
        (
            ["--method=tv", "--task=cs-mri", "--unit=intensity", "--mask=equispaced", "--acceleration=nan"],
            "Give a whole number",
        ),
        (["--weight", "-1"], "--weight -1"),
        (["--prior", "nobody"], "no model is called 'nobody'"),
        (["--task", "cs-mri", "--prior", "TINY"], "CT needs a prior of attenuation"),
        (["--method", "fbp", "--slab", "5", "12"], "slices 5 to 12 of 9"),
        (["--method", "fbp", "--size", "4"], "Use at least 8"),
        (["--method", "fbp", "--unit", "intensity"], "X-ray attenuation is asked for"),
        (["--method", "tv", "--tv-weight", "0"], "--tv-weight 0"),
        (["--method", "cgls", "--iterations", "0"], "--iterations 0"),
    ],
)
def test_mistakes_leave_nothing_behind(
    words: list[str], told: str, tiny_volume: Path, tiny_prior, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tiny_prior("attenuation")) if word == "TINY" else word for word in words]
    out = tmp_path / "out"
    assert told in failed(capsys, "reconstruct", tiny_volume, "--out", out, "--device", "cpu", *words)
    assert not out.exists()


def test_files_that_are_no_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "fbp", "--out", str(tmp_path / "out")]
    assert "no such file" in failed(capsys, "reconstruct", tmp_path / "none.nii", *words)
    np.save(tmp_path / "flat.npy", np.zeros((8, 8)))
    assert "3 dimensions were expected" in failed(capsys, "reconstruct", tmp_path / "flat.npy", *words)
    values = np.zeros((3, 16, 16))
    values[1, 2, 3] = np.nan
    np.save(tmp_path / "nan.npy", values)
    assert "1 voxels that are NaN" in failed(capsys, "reconstruct", tmp_path / "nan.npy", *words)
    measured = failed(capsys, "reconstruct", tmp_path / "nan.npy", "--task", "measured", *words)
    assert "for the view angles" in measured
    for option, value in (("--pixel", "0"), ("--pitch", "nan"), ("--slice-spacing", "-1"), ("--axis-offset", "inf")):
        words[-1] = str(tmp_path / "out")
        told = failed(capsys, "reconstruct", tmp_path / "nan.npy", "--task", "measured", option, value, *words)
        assert f"{option} {float(value)}" in told
    assert not (tmp_path / "out").exists()
