"""What RF priors learn from: patches of convolved cines, in rows of I and Q, tissue and haze apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from priorscope.training.order import Order
from priorscope_medical.ultrasound.echo_lines import LineScan
from priorscope_medical.ultrasound.multipath_haze import random_haze
from priorscope_medical.ultrasound.quadrature import Quadrature, as_channels, carrier_of
from priorscope_medical.ultrasound.rf_prior import Part
from priorscope_medical.ultrasound.rf_simulator import simulate_cine
from priorscope_medical.ultrasound.scan_conversion import Sector
from priorscope_medical.ultrasound.simus_cines import random_near_ventricle

PARTS: tuple[Part, Part] = ("tissue", "haze")
#: Cines begin one after the other; those of held-out patches from here on.
HELD_OUT_FROM = 10**6


def training_cine(seed: int, *, frames: int, noise: float = -50.0) -> dict[Part, torch.Tensor]:
    """Tissue and haze of a random scan, complex64 (frames, rows, beams), in units of their sum's RMS."""
    draw = np.random.default_rng([seed, 7])
    sector = Sector((10e-3, 90e-3), (-math.radians(35), math.radians(35)))
    scan = LineScan(
        sector,
        samples=1010,
        beams=64,
        carrier=2.43e6,
        bandwidth=draw.uniform(0.55, 0.75),
        beam_width=draw.uniform(1.2, 2.1),
    )
    ventricle = random_near_ventricle(draw)
    # the sidelobes of a real beam fill the blood pool
    levels = list(ventricle.levels)
    levels[2] = draw.uniform(-46, -20)
    ventricle = replace(ventricle, levels=tuple(levels))  # type: ignore[arg-type]
    haze = replace(random_haze(draw), smear=draw.uniform(2.5, 14), reach=draw.uniform(20e-3, 120e-3))
    cine = simulate_cine(
        seed,
        frames=frames,
        frame_rate=draw.uniform(35, 70),
        scan=scan,
        ventricle=ventricle,
        haze=haze,
        noise=noise,
        density=4e6,
        begin=draw.uniform(0, ventricle.period),
    )
    tissue, clutter = (torch.from_numpy(part) for part in (cine.clean, cine.haze))
    # probes pass other bands than a Gaussian's, and detours differ in how much of the direct echo is left
    edge, steep, tilt = draw.uniform(0.4, 0.8), draw.uniform(0.02, 0.1), draw.uniform(-1.5, 1.5)
    tissue, clutter = (passed(part, scan, edge=edge, steep=steep, tilt=tilt) for part in (tissue, clutter))
    smooth = draw.uniform(0.1, 1.1)
    clutter = torch.from_numpy(gaussian_filter1d(clutter.numpy(), smooth, axis=2, mode="nearest"))
    clutter *= float(np.sqrt(np.mean(cine.haze**2)) / clutter.square().mean().sqrt())
    tissue *= float(np.sqrt(np.mean(cine.clean**2)) / tissue.square().mean().sqrt())
    hazy = tissue + clutter
    way = Quadrature(scan.samples, carrier_of(hazy))
    scale = way.forward(hazy).abs().square().mean().sqrt()
    return {"tissue": way.forward(tissue) / scale, "haze": way.forward(clutter) / scale}


def passed(rf: torch.Tensor, scan: LineScan, *, edge: float, steep: float, tilt: float) -> torch.Tensor:
    """RF (..., samples, beams) through a probe that passes what lies above ``edge`` carriers, and tilts the rest.

    ``steep`` is the edge's width in carriers, ``tilt`` the slope of the logarithm of the gain over carriers.
    """
    frequency = torch.fft.rfftfreq(rf.shape[-2], 1 / scan.sampling).float()[:, None] / scan.carrier
    response = torch.sigmoid((frequency - edge) / steep) * torch.exp(tilt * (frequency - 1).clamp(-0.7, 0.7))
    return torch.fft.irfft(torch.fft.rfft(rf, dim=-2) * response, rf.shape[-2], dim=-2)


def write_cines(folder: Path, count: int, *, frames: int, seed: int, first: int = 0) -> None:
    """Simulate cines into ``folder``/PART.npy, float16 (cines, 2 frames, rows, beams); those there already stay."""
    paths = {part: folder / f"{part}-{seed}-{first}-{count}-{frames}.npy" for part in PARTS}
    if all(path.exists() for path in paths.values()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[Part, list[NDArray[np.float16]]] = {part: [] for part in PARTS}
    for index in range(count):
        found = training_cine(seed * HELD_OUT_FROM * 10 + first + index, frames=frames)
        for part in PARTS:
            kept[part].append(as_channels(found[part]).numpy().astype(np.float16))
    rows = min(len(one[0]) for one in kept["tissue"])
    for part, path in paths.items():
        aside = path.with_suffix(".part.npy")
        np.save(aside, np.stack([one[:, :rows] for one in kept[part]]))
        aside.rename(path)


def read_cines(folder: Path, part: Part, count: int, *, frames: int, seed: int, first: int = 0) -> NDArray[Any]:
    """What :func:`write_cines` wrote, memory-mapped."""
    return np.load(folder / f"{part}-{seed}-{first}-{count}-{frames}.npy", mmap_mode="r")


@dataclass(frozen=True)
class PatchFeed:
    """A :class:`priorscope.training.feed.Feed` of patches at random places of the cines.

    Parameters
    ----------
    cines : array (N, 2 frames, rows, beams)
        I and Q.
    rows, beams : int
        Of a patch.
    size : int
        Of a batch.
    seed : int
    loudness : float
        Patches are scaled by up to so many dB either way.
    """

    cines: NDArray[Any]
    rows: int
    beams: int
    size: int
    seed: int
    loudness: float = 2.5

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        """``image`` (rows, 2 frames, H, W), ``top`` (rows,), the row where each begins, and ``seed`` for its noise."""
        places = Order(len(self.cines), self.seed).batch(step, self.size)
        images, tops, seeds = [], [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row])
            image, top = self.patch(places[row].item, rng)
            images.append(image)
            tops.append(top)
            seeds.append(places[row].noise_seed(self.seed))
        return {
            "image": torch.from_numpy(np.stack(images)),
            "top": torch.tensor(tops, dtype=torch.float32),
            "seed": torch.tensor(seeds),
        }

    def patch(self, item: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], int]:
        """A patch (2 frames, rows, beams), mirrored, run backwards and turned in phase at random, and its first row."""
        cine = self.cines[item]
        top = int(rng.integers(cine.shape[1] - self.rows + 1))
        left = int(rng.integers(cine.shape[2] - self.beams + 1))
        found = np.asarray(cine[:, top : top + self.rows, left : left + self.beams], np.float32)
        pairs = found.reshape(-1, 2, self.rows, self.beams)
        pairs = pairs[..., ::-1] if rng.random() < 0.5 else pairs
        pairs = pairs[::-1] if rng.random() < 0.5 else pairs
        turn = rng.uniform(0, 2 * np.pi)
        factor = np.float32(10 ** (rng.uniform(-self.loudness, self.loudness) / 20))
        cos, sin = factor * np.float32(np.cos(turn)), factor * np.float32(np.sin(turn))
        turned = np.stack([cos * pairs[:, 0] - sin * pairs[:, 1], sin * pairs[:, 0] + cos * pairs[:, 1]], 1)
        return turned.reshape(-1, self.rows, self.beams), top
