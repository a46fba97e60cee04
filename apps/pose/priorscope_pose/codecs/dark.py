"""Sub-pixel maxima by a Newton step on the logarithm of the smoothed heatmap.

DARK (Zhang et al., CVPR 2020) in the two forms in use: with differences over one pixel (UDP, SDPose, ViTPose) and over
two (the classic codec). The published decoders smooth and take the logarithm of whole heatmaps, channel by channel; but
a step asks for a few values round the maximum only, so just the patch they depend on is smoothed here, for all
heatmaps at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from priorscope.errors import InputError
from priorscope_pose.codecs.peaks import Peaks

_EPS = torch.finfo(torch.float32).eps
# Pixels smoothed as a whole at a time: on a CPU a few channels, which then stay in its cache; on a GPU 64 of 192 x 256.
_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 22}


@dataclass(frozen=True)
class Smoothing:
    """What is done to a heatmap before the step.

    Attributes
    ----------
    kernel : tuple of float
        Weights of the Gaussian window, an odd number of them.
    border : {"zero", "reflect"}
        What lies outside the heatmap: nothing, or its mirror image (edge pixels doubled).
    restore : bool
        Scale the smoothed heatmap to the maximum it had.
    floor, ceiling : float
        Limits of its values before the logarithm.
    official : bool
        Take every step, as the published decoders do. By default a maximum stays where it is if the step is longer than
        the window's radius, within which lie the values it was taken from, or if the smoothed heatmap is nowhere
        positive. (Restoring its maximum would then turn it upside down, and the step lead to a minimum.)
    """

    kernel: tuple[float, ...]
    border: str = "zero"
    restore: bool = True
    floor: float = 1e-3
    ceiling: float = 50.0
    official: bool = False


def opencv_gaussian(size: int) -> tuple[float, ...]:
    """Weights of OpenCV's Gaussian window of ``size`` pixels, whose deviation follows from the size (11: 2.0)."""
    if size < 9 or size % 2 == 0:
        raise InputError(f"a blur kernel of {size} pixels", remedy="Use an odd size of 9 or more; published: 11.")
    return gaussian(0.3 * ((size - 1) * 0.5 - 1) + 0.8, size // 2)


def gaussian(deviation: float, radius: int) -> tuple[float, ...]:
    """Weights of a Gaussian window of 2 ``radius`` + 1 pixels, of sum 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / deviation) ** 2)
    return tuple((weights / weights.sum()).tolist())


def newton_step(heatmaps: torch.Tensor, peaks: Peaks, smoothing: Smoothing) -> torch.Tensor:
    """Step [N, K, 2] (x, y; heatmap pixels) from the maximum to that of the parabola through its neighbours.

    As mmpose's ``refine_keypoints_dark_udp``, float64. The Hessian gets float32's epsilon added to its diagonal; where
    it is nearly singular a step may lead anywhere.
    """
    v = log_neighbours(heatmaps, peaks, 1, smoothing)
    gx, gy = (v[..., 1, 2] - v[..., 1, 0]) / 2, (v[..., 2, 1] - v[..., 0, 1]) / 2
    xx = v[..., 1, 2] - 2 * v[..., 1, 1] + v[..., 1, 0] + _EPS
    yy = v[..., 2, 1] - 2 * v[..., 1, 1] + v[..., 0, 1] + _EPS
    straight = v[..., 1, 2] + v[..., 1, 0] + v[..., 2, 1] + v[..., 0, 1]
    xy = (v[..., 2, 2] + v[..., 0, 0] - straight + 2 * v[..., 1, 1]) / 2
    return _solve(xx, xy, yy, gx, gy, smoothing)


def wide_newton_step(heatmaps: torch.Tensor, peaks: Peaks, smoothing: Smoothing) -> torch.Tensor:
    """As :func:`newton_step` with second differences over two pixels: mmpose's ``refine_keypoints_dark``.

    No step where the maximum lies within two pixels of the border, or the Hessian is singular.
    """
    v = log_neighbours(heatmaps, peaks, 2, smoothing)
    gx, gy = (v[..., 2, 3] - v[..., 2, 1]) / 2, (v[..., 3, 2] - v[..., 1, 2]) / 2
    xx = (v[..., 2, 4] - 2 * v[..., 2, 2] + v[..., 2, 0]) / 4
    yy = (v[..., 4, 2] - 2 * v[..., 2, 2] + v[..., 0, 2]) / 4
    xy = (v[..., 3, 3] - v[..., 1, 3] - v[..., 3, 1] + v[..., 1, 1]) / 4
    height, width = heatmaps.shape[-2:]
    inside = (peaks.x > 1) & (peaks.x < width - 2) & (peaks.y > 1) & (peaks.y < height - 2)
    return torch.where(inside[..., None], _solve(xx, xy, yy, gx, gy, smoothing), 0)


def _solve(
    xx: torch.Tensor, xy: torch.Tensor, yy: torch.Tensor, gx: torch.Tensor, gy: torch.Tensor, smoothing: Smoothing
) -> torch.Tensor:
    determinant = xx * yy - xy * xy
    step = torch.stack([yy * gx - xy * gy, xx * gy - xy * gx], -1) / -determinant[..., None]
    taken = determinant != 0
    if not smoothing.official:
        taken &= step.norm(dim=-1) <= len(smoothing.kernel) // 2
    return torch.where(taken[..., None], step, 0)


def log_neighbours(heatmaps: torch.Tensor, peaks: Peaks, reach: int, smoothing: Smoothing) -> torch.Tensor:
    """Logarithm of the smoothed heatmaps round their maxima, [N, K, 2 reach + 1, 2 reach + 1], float64.

    Outside the heatmap the nearest value inside counts. Heatmaps without a positive maximum give zeros.
    """
    values = _smoothed_neighbours(heatmaps, peaks, reach, smoothing)
    if smoothing.restore:
        values = values * _factor(heatmaps, peaks, values, smoothing)[..., None, None]
    values = torch.where(peaks.positive[..., None, None], values.clamp(smoothing.floor, smoothing.ceiling), 1)
    return values.log()


def _smoothed_neighbours(heatmaps: torch.Tensor, peaks: Peaks, reach: int, smoothing: Smoothing) -> torch.Tensor:
    height, width = heatmaps.shape[-2:]
    radius = len(smoothing.kernel) // 2
    # Round the maximum: every pixel that a neighbour's window covers.
    offsets = torch.arange(-radius - reach, radius + reach + 1, device=heatmaps.device)
    x, y = peaks.x[..., None] + offsets, peaks.y[..., None] + offsets
    if smoothing.border == "reflect":
        x, y = _mirrored(x, width), _mirrored(y, height)
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    index = y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :]
    patches = heatmaps.flatten(2).gather(-1, index.flatten(2)).view(index.shape).double()
    patches = patches * (inside_y[..., :, None] & inside_x[..., None, :])
    # Rows of this matrix: the window, moved on by a pixel each.
    windows = torch.zeros(2 * reach + 1, len(offsets), dtype=torch.float64)
    for row in range(2 * reach + 1):
        windows[row, row : row + 2 * radius + 1] = torch.tensor(smoothing.kernel, dtype=torch.float64)
    windows = windows.to(heatmaps.device)
    values = windows @ patches @ windows.T
    # A neighbour outside the heatmap is replaced by the nearest inside.
    near = torch.arange(-reach, reach + 1, device=heatmaps.device)
    columns = (peaks.x[..., None] + near).clamp(0, width - 1) - peaks.x[..., None] + reach
    rows = (peaks.y[..., None] + near).clamp(0, height - 1) - peaks.y[..., None] + reach
    values = values.gather(-1, columns[..., None, :].expand(values.shape))
    return values.gather(-2, rows[..., :, None].expand(values.shape))


def _mirrored(index: torch.Tensor, length: int) -> torch.Tensor:
    index = index % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def _mirrored_within(index: torch.Tensor, length: int) -> torch.Tensor:
    """As :func:`_mirrored`, but no pixel is doubled: the edge ones are the mirrors."""
    index = index % max(2 * length - 2, 1)
    return torch.minimum(index, 2 * length - 2 - index)


def _factor(heatmaps: torch.Tensor, peaks: Peaks, values: torch.Tensor, smoothing: Smoothing) -> torch.Tensor:
    """What brings the smoothed heatmap back to its maximum, [N, K], float64; 1 where any factor gives the same step.

    A factor is a constant in the logarithm, and no difference knows of it, unless the limits act. It is 1 or more, for
    a mean of pixels is not above their maximum, and it lifts no value above that maximum. For most heatmaps this
    settles what the limits do: nothing, or make all values equal. The others are smoothed as a whole.
    """
    scores = peaks.scores.double()
    settled = (values.amin((-2, -1)) >= smoothing.floor) & (scores <= smoothing.ceiling)
    if not smoothing.official:
        settled |= scores <= smoothing.floor
    factors = torch.ones_like(scores).flatten()
    height, width = heatmaps.shape[-2:]
    together = max(1, _PIXELS.get(heatmaps.device.type, 1 << 22) // (height * width))
    for chunk in (peaks.positive & ~settled).flatten().nonzero()[:, 0].split(together):
        smoothed = blur(heatmaps.flatten(0, 1)[chunk].float(), smoothing.kernel).amax((-2, -1)).double()
        usable = smoothed != 0 if smoothing.official else smoothed > 0
        factors[chunk] = torch.where(usable, scores.flatten()[chunk] / smoothed, 1)
    return factors.view(scores.shape)


def blur(channels: torch.Tensor, kernel: tuple[float, ...], border: str = "constant") -> torch.Tensor:
    """[M, H, W] smoothed in both directions; outside lies zero, or with ``border="reflect"`` the mirror image.

    (Mirrored at the middle of the edge pixels, OpenCV's default.) Sums of shifted copies: the same float32 on every
    device, whatever matrix products are allowed to do there.
    """
    radius = len(kernel) // 2
    for axis, padding in ((-2, (0, 0, radius, radius)), (-1, (radius, radius))):
        length = channels.shape[axis]
        if border == "reflect":  # as often as the window needs, unlike torch's own padding
            index = torch.arange(-radius, length + radius, device=channels.device)
            padded = channels.index_select(axis, _mirrored_within(index, length))
        else:
            padded = functional.pad(channels, padding)
        channels = padded.narrow(axis, 0, length) * kernel[0]
        for shift, weight in enumerate(kernel[1:], 1):
            channels.add_(padded.narrow(axis, shift, length), alpha=weight)
    return channels
