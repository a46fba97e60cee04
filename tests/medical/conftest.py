"""A prior and a volume small enough for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny_prior(unit)``: folder of an untrained prior on slices of 16 x 16 pixels of 2.5 mm."""
    from priorscope_medical.prior import SlicePrior, SliceValues

    folders: dict[str, Path] = {}

    def make(unit: Any = "attenuation") -> Path:
        if unit not in folders:
            values = SliceValues(unit, 0.5, 0.625, patch=2, size=16, pixel=2.5)
            folders[unit] = tmp_path_factory.mktemp("prior") / unit
            SlicePrior.new(values).save_pretrained(folders[unit])
        return folders[unit]

    return make


@pytest.fixture(scope="session")
def tiny_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NIfTI file of 9 x 32 x 32 voxels in HU, oblique to no axis but flipped in two: a dense ellipsoid in water."""
    from priorscope_medical.volumes import Volume, write_nifti

    z, y, x = np.mgrid[:9, :32, :32].astype(np.float64)
    body = np.hypot(np.hypot((y - 15) / 13, (x - 17) / 11), (z - 4) / 8) < 1
    bone = np.hypot(np.hypot((y - 12) / 4, (x - 20) / 3), (z - 5) / 3) < 1
    data = (np.where(body, 40.0, -1000.0) + 900.0 * bone).astype(np.float32)
    affine = np.array([[-1.25, 0, 0, 7], [0, 1.25, 0, -20], [0, 0, 3.0, 11], [0, 0, 0, 1]])
    volume = Volume(data, (3.0, 1.25, 1.25), affine, (2, 1, 0), "HU", Path("tiny"))
    return write_nifti(volume, tmp_path_factory.mktemp("volume") / "tiny.nii.gz")
