"""A model of a structured-light or active-stereo sensor: what it does to exact depth, effect by effect.

A projector (or second camera) stands beside the camera; depth is f b / disparity. From that follow its faults:

- shadow: what the projector does not see, on one side of whatever stands out, has no depth;
- borders: a matching window that lies on two surfaces often finds nothing;
- grazing: a surface seen at a flat angle returns too little light, the more surely the flatter;
- noise: of disparity, alike everywhere and shared by neighbours, so that depth errs with its square;
- steps: disparity comes in fractions of a pixel, so that depth comes in steps that grow with its square;
- range: nothing nearer or farther.

The model is ours, made of textbook geometry; its numbers are fitted to no product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


@dataclass(frozen=True)
class StructuredLight:
    """A sensor; each effect is switched off by the value its description names.

    Attributes
    ----------
    focal : float
        Focal length in widths of the image (0.9: 58 degrees across).
    baseline : float
        Metres from the camera to the projector, which stands on the right.
    shadow : bool
        False: everything is lit.
    border : float
        Share of pixels without depth where the matching window lies on two surfaces; 0: none.
    window : int
        Side of that window, pixels, odd.
    grazing : float
        Cosine of incidence below which depth is lost for sure; from twice as much on it is kept. 0: never lost.
    noise : float
        Standard deviation of disparity, in pixels of an image 640 wide; 0: none.
    correlation : float
        Reach of the noise, standard deviation of the Gaussian it is smoothed by, pixels; 0: each pixel its own.
    step : float
        Of disparity, in pixels of an image 640 wide; 0: continuous.
    near, far : float
        Range in metres; 0 and infinity: unlimited.
    """

    focal: float = 0.9
    baseline: float = 0.075
    shadow: bool = True
    border: float = 0.5
    window: int = 5
    grazing: float = 0.1
    noise: float = 0.15
    correlation: float = 1.0
    step: float = 0.125
    near: float = 0.4
    far: float = 4.5

    def __post_init__(self) -> None:
        fine = self.focal > 0 and self.baseline > 0 and self.window >= 1 and self.window % 2 == 1
        fine = fine and 0 <= self.border <= 1 and 0 <= self.grazing < 0.5 and self.noise >= 0
        if not (fine and self.correlation >= 0 and self.step >= 0 and 0 <= self.near < self.far):
            raise InputError(f"a sensor with {self}", remedy="See the limits of each number in its documentation.")

    @classmethod
    def perfect(cls, **changes: float | bool | int) -> StructuredLight:
        """One without faults, but for those given: ``perfect(noise=0.1)``."""
        off = {"shadow": False, "border": 0.0, "grazing": 0.0, "noise": 0.0, "step": 0.0, "near": 0.0, "far": np.inf}
        return cls(**(off | changes))  # type: ignore[arg-type]

    def scan(self, depth: NDArray[np.floating], seed: int) -> NDArray[np.float32]:
        """What the sensor reports.

        Parameters
        ----------
        depth : ndarray (H, W)
            Exact planar depth in metres; 0 where there is none.
        seed : int
            Fixes what is drawn.

        Returns
        -------
        ndarray, float32, (H, W)
            Metres; 0 where nothing is measured.
        """
        depth = checked_depth(depth)
        draw = np.random.default_rng([seed, 17])
        # always drawn, so that one effect switched off leaves the others' draws as they were
        lost, flat, white = draw.random(depth.shape), draw.random(depth.shape), draw.standard_normal(depth.shape)
        known = depth > 0
        disparity = np.where(known, self.disparity_of(depth), 0)
        measured = known.copy()
        if self.shadow:
            measured &= ~self.shadowed(disparity, known)
        if self.border:
            measured &= ~(self._on_two_surfaces(disparity, known) & (lost < self.border))
        if self.grazing:
            sight = rays_of(depth.shape, self.focal)
            sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
            cosine = np.abs(np.einsum("hwk,hwk->hw", normals_of(depth, self.focal), sight))
            chance = np.clip(2 - cosine / self.grazing, 0, 1)
            measured &= ~(flat < chance)
        pixels = depth.shape[1] / 640
        if self.noise:
            disparity = disparity + self.noise * pixels * _smoothed(white, self.correlation)
        if self.step:
            grain = self.step * pixels
            disparity = np.round(disparity / grain) * grain
        measured &= disparity > 0
        found = self.disparity_of(np.where(measured, disparity, 1.0))
        measured &= (found >= self.near) & (found <= self.far)
        return np.where(measured, found, 0).astype(np.float32)

    def disparity_of(self, depth: NDArray[np.floating]) -> NDArray[np.floating]:
        """f b / z in pixels for an image as wide as ``depth`` (H, W); the same formula turns disparity into depth."""
        with np.errstate(divide="ignore"):
            return self.focal * depth.shape[1] * self.baseline / depth

    def shadowed(self, disparity: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels that the projector on the right does not see.

        Along a row, pixel u is seen there at u - disparity. Where a pixel farther right is seen as far left or more,
        something nearer stands between u and the projector.
        """
        columns = np.arange(disparity.shape[1])[None]
        place = np.where(known, columns - disparity, np.inf)
        # the leftmost place of everything to the right of each pixel
        beyond = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
        beyond = np.concatenate([beyond[:, 1:], np.full((len(place), 1), np.inf)], axis=1)
        return known & (beyond <= place)

    def _on_two_surfaces(self, disparity: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where disparities within the window differ by more than a slanted surface's would, or some have none.

        A slant may change them by half a pixel from one pixel to the next, and one pixel is allowed besides.
        """
        from scipy.ndimage import maximum_filter, minimum_filter

        # in pixels of an image 640 wide, as the other numbers are
        values = np.where(known, disparity * 640 / disparity.shape[1], 0)
        size = self.window
        return known & (maximum_filter(values, size) - minimum_filter(values, size) > 1 + 0.5 * (size - 1))


def checked_depth(depth: NDArray[np.floating]) -> NDArray[np.float64]:
    """A depth map (H, W) in metres as float64, 0 where there is none, or an InputError."""
    depth = np.asarray(depth)
    if depth.ndim != 2 or depth.dtype.kind != "f" or min(depth.shape) < 2:
        raise InputError(
            f"depth is floating point [H, W], 2 x 2 pixels at least, not {depth.dtype} {list(depth.shape)}"
        )
    if not np.isfinite(depth).all() or depth.min() < 0:
        raise InputError("depth holds NaN, infinite or negative values", remedy="Mark what is unknown with 0.")
    return depth.astype(np.float64)


def rays_of(shape: tuple[int, int], focal: float) -> NDArray[np.float64]:
    """Directions of sight (H, W, 3) with z = -1: x right, y up, z towards the viewer."""
    height, width = shape
    v, u = np.mgrid[:height, :width] + 0.5
    length = focal * width
    return np.stack([(u - width / 2) / length, -(v - height / 2) / length, -np.ones(shape)], axis=-1)


def normals_of(depth: NDArray[np.floating], focal: float) -> NDArray[np.float64]:
    """Unit normals (H, W, 3) of a depth map, from the nearer neighbour on each side; facing the viewer."""
    points = rays_of(depth.shape, focal) * depth[..., None]
    along, down = (_nearer_difference(points, axis) for axis in (1, 0))
    normals = np.cross(down, along)
    normals *= np.where(np.einsum("hwk,hwk->hw", normals, points) > 0, -1, 1)[..., None]
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def _nearer_difference(points: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The step to the next point or from the one before, whichever is shorter: it stays on one surface."""
    step = np.diff(points, axis=axis)
    first = np.take(step, [0], axis=axis)
    last = np.take(step, [-1], axis=axis)
    ahead, behind = np.concatenate([step, last], axis=axis), np.concatenate([first, step], axis=axis)
    shorter = np.linalg.norm(ahead, axis=-1) <= np.linalg.norm(behind, axis=-1)
    return np.where(shorter[..., None], ahead, behind)


def _smoothed(white: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian-smoothed white noise, again of variance 1 far from the border."""
    from scipy.ndimage import gaussian_filter

    if not sigma:
        return white
    impulse = np.zeros((8 * int(np.ceil(sigma)) + 9,) * 2)
    impulse[impulse.shape[0] // 2, impulse.shape[0] // 2] = 1
    left = np.sqrt(np.square(gaussian_filter(impulse, sigma, mode="wrap")).sum())
    return gaussian_filter(white, sigma, mode="wrap") / left
