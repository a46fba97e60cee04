"""Figures of a cine before and after dehazing, without a truth: on regions that are found in the cine before it.

The regions depend on the input alone, never on what a method took off it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from priorscope.errors import InputError
from priorscope_medical.ultrasound.metrics import cnr, flicker, gcnr, width_at_half

Mask = NDArray[np.bool_]
Frames = NDArray[np.float32]
BINS = 256
_REACH = 14
_PROFILES = 240
HOW = (
    "Regions are found in the input: wall, the brightest 8 % of the mean over time; chamber, the darkest quarter "
    "within the convex hull of the walls; haze, in the half nearer to the probe, what lies between 15 % and 60 % of "
    "the way from chamber to wall in brightness and changes less than the median over time. That is where haze is "
    "expected; some of it may be tissue that moves little. Grey values from 0 to 255; gCNR with 256 bins; CNR of "
    "log-compressed values, (difference of means) / sqrt(sum of variances)."
)


@dataclass(frozen=True)
class Regions:
    """Parts of the sector [H, W]."""

    wall: Mask
    chamber: Mask
    haze: Mask


def find_regions(before: Frames, sector: Mask) -> Regions:
    """Wall, chamber and haze in a sequence [T, H, W].

    Raises
    ------
    InputError
        No such regions: the picture is too small or too flat.
    """
    inner = ndimage.binary_erosion(sector, iterations=max(2, round(0.01 * sector.shape[0])))
    mean = ndimage.gaussian_filter(before.mean(0, dtype=np.float64), 1.5)
    change = ndimage.gaussian_filter(before.std(0, dtype=np.float64), 3.0) / np.maximum(mean, 0.02)
    if not inner.any():
        raise InputError("the sector is too small for regions")
    wall = inner & (mean > np.percentile(mean[inner], 92))
    from skimage.morphology import convex_hull_image

    heart = inner & convex_hull_image(wall)
    chamber = heart & ~wall & (mean <= np.percentile(mean[heart], 25))
    low, high = float(mean[chamber].mean()) if chamber.any() else 0.0, float(mean[wall].mean())
    rows = np.flatnonzero(sector.any(1))
    near = np.zeros_like(sector)
    near[: (rows[0] + rows[-1]) // 2] = True
    share = (mean - low) / max(high - low, 1e-6)
    haze = inner & near & ~wall & (share > 0.15) & (share < 0.6)
    if haze.any() and len(before) > 2:
        haze &= change <= np.median(change[haze])
    return Regions(wall, chamber, haze)


def figures_of(before: Frames, after: Frames, sector: Mask, regions: Regions) -> dict[str, Any]:
    """Contrast, sharpness and rest before and after; None where a region is missing or nothing can be measured."""
    found: dict[str, Any] = {}
    for title, frames in (("before", before), ("after", after)):
        values = {name: 255 * frames[:, getattr(regions, name)] for name in ("wall", "chamber", "haze")}
        for name, own in values.items():
            found[f"{name}_grey_{title}"] = float(own.mean()) if own.size else None
        for name in ("haze", "chamber"):
            if values[name].size and values["wall"].size:
                found[f"contrast_wall_{name}_{title}"] = float(values["wall"].mean() - values[name].mean())
                found[f"gcnr_wall_{name}_{title}"] = gcnr(values["wall"], values[name], bins=BINS)
                found[f"cnr_wall_{name}_{title}"] = cnr(values["wall"], values[name])
    steep_before, steep_after = edge_steepness(before, after, sector)
    found |= {"edge_steepness_before": steep_before, "edge_steepness_after": steep_after}
    found["edge_steepness_ratio"] = steep_after / steep_before if steep_before else None
    found |= wall_widths(before, after, regions.wall)
    if len(before) > 1:
        found["change_beyond_the_input"] = flicker(after[:, sector], before[:, sector])
        pace = [float(np.abs(np.diff(frames[:, sector], axis=0)).mean()) for frames in (before, after)]
        found |= {"frame_difference_before": 255 * pace[0], "frame_difference_after": 255 * pace[1]}
    return found


def edge_steepness(before: Frames, after: Frames, sector: Mask) -> tuple[float, float]:
    """Mean gradient (grey values a pixel) where that of the input is steepest: 2 % of the sector of every frame."""
    inner = ndimage.binary_erosion(sector, iterations=4)
    means = np.zeros(2)
    for pair in zip(before, after, strict=True):
        steep = [ndimage.gaussian_gradient_magnitude(255 * frame, 1.0) for frame in pair]
        at = inner & (steep[0] >= np.percentile(steep[0][inner], 98))
        means += [float(own[at].mean()) for own in steep]
    return float(means[0] / len(before)), float(means[1] / len(before))


def wall_widths(before: Frames, after: Frames, wall: Mask, *, seed: int = 0) -> dict[str, Any]:
    """Full width at half maximum (over the profile's least value) across bright ridges, median in pixels.

    Ridges are those of the input; a profile counts where both have a width. ``profiles`` tells how many do.
    """
    draw = np.random.default_rng(seed)
    widths: list[tuple[float, float]] = []
    for index in np.unique(np.linspace(0, len(before) - 1, 6).round().astype(int)):
        for (row, column), (down, right) in _ridges(before[index], wall, _PROFILES // 6, draw):
            steps = np.arange(-_REACH, _REACH + 1)
            places = [row + down * steps, column + right * steps]
            pair = [
                ndimage.map_coordinates(frames[index], places, order=1, mode="nearest") for frames in (before, after)
            ]
            try:
                widths.append(tuple(width_at_half(_central(profile)) for profile in pair))  # type: ignore[arg-type]
            except InputError:
                continue
    if len(widths) < 10:
        return {"wall_width_before": None, "wall_width_after": None, "wall_profiles": len(widths)}
    first, second = np.array(widths).T
    return {
        "wall_width_before": float(np.median(first)),
        "wall_width_after": float(np.median(second)),
        "wall_profiles": len(widths),
    }


def _ridges(frame: NDArray[np.float32], wall: Mask, count: int, draw: np.random.Generator) -> list[Any]:
    """Places on bright ridges, and the unit vector across each."""
    from skimage.feature import hessian_matrix

    smooth = ndimage.gaussian_filter(frame.astype(np.float64), 1.0)
    rr, rc, cc = hessian_matrix(smooth, sigma=2.0, order="rc", use_gaussian_derivatives=False)
    curvature = (rr + cc) / 2 - np.hypot((rr - cc) / 2, rc)  # the most negative one
    turn = 0.5 * np.arctan2(2 * rc, rr - cc) + np.pi / 2
    strong = wall & (curvature <= np.percentile(curvature[wall], 30)) if wall.any() else wall
    places = np.argwhere(strong)
    if not len(places):
        return []
    chosen = places[draw.choice(len(places), min(count, len(places)), replace=False)]
    return [((r, c), (np.cos(turn[r, c]), np.sin(turn[r, c]))) for r, c in chosen]


def _central(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """The profile over its least value, and the peak next to its middle: what is beyond the valleys is cut off."""
    middle = len(profile) // 2
    peak = middle - 3 + int(np.argmax(profile[middle - 3 : middle + 4]))
    left = int(np.argmin(profile[: peak + 1]))
    right = peak + int(np.argmin(profile[peak:]))
    own = profile[left : right + 1]
    return np.asarray(own - own.min())
