"""Crops of people, and the way from a crop's keypoints back to the image.

Two policies are in use for the same published models, and they give different keypoints:

``evaluated``
    The box, enlarged by 1.25 and grown to the crop's aspect ratio, through an unbiased warp, black outside the image.
    All published figures are measured so; the default.
``stretched``
    The box itself, cut out at whole pixels and stretched to the crop whatever its shape. The web demos and ComfyUI
    do this.
``classic``
    As ``evaluated`` but through the classic warp; for models of the HRNet / DCPose lineage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from priorscope.data.images import check_rgb
from priorscope.errors import InputError
from priorscope.predictors.geometry import resize
from priorscope_pose.geometry.affine import classic_matrix, invert, udp_matrix
from priorscope_pose.geometry.boxes import PADDING, center_scale, check_boxes

Policy = Literal["evaluated", "stretched", "classic"]

POLICIES: tuple[Policy, ...] = get_args(Policy)

# Three colours of a pixel in one 64-bit number, so that one multiplication weights all of them. A sum of four weighted
# values is at most 255 * 32 * 32 < 2**18 and leaves its lane of 21 bits alone.
_LANE = 21
_HALF = sum(512 << (_LANE * channel) for channel in range(3))
# Rows of a crop worked on at a time, that they stay in the processor's cache.
_ROWS = 32


@dataclass(frozen=True)
class Crops:
    """Crops of one image and where they lie in it.

    Attributes
    ----------
    images : ndarray, uint8, [N, H, W, 3]
    center, scale : ndarray, float32, [N, 2]
        Middle and size of the region each shows, in pixels of the image. ``scale.prod(1)`` is the area that OKS
        based suppression uses.
    policy : {"evaluated", "stretched", "classic"}
    size : (width, height)
        Of the crops.
    """

    images: NDArray[np.uint8]
    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    policy: Policy
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.images)

    def to_image(self, points: ArrayLike | torch.Tensor, *, official: bool = False) -> NDArray[np.float64]:
        """Keypoints [N, K, 2] as a codec's ``decode`` gives them -> pixels of the image, float64.

        Parameters
        ----------
        official : bool
            Matters with the policy ``stretched`` only: map as the web demos do. They leave out that a stretched
            pixel's middle lies at a half, which moves keypoints by up to half a pixel of the image.
        """
        points = points.detach().cpu().double().numpy() if isinstance(points, torch.Tensor) else np.asarray(points)
        if points.ndim != 3 or len(points) != len(self.center) or points.shape[-1] != 2:
            raise InputError(f"keypoints {list(points.shape)} for {len(self.center)} crops", remedy="Give [N, K, 2].")
        size = np.asarray(self.size, np.float64)
        scale, center = self.scale[:, None].astype(np.float64), self.center[:, None].astype(np.float64)
        corner = center - scale / 2
        if self.policy == "stretched" and not official:
            pixels = points * (size - 1) / size
            return (pixels + 0.5) / size * scale - 0.5 + corner
        return points / size * scale + corner


def crop_people(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    size: tuple[int, int],
    policy: Policy = "evaluated",
    *,
    padding: float = PADDING,
) -> Crops:
    """Cut the people out of an image.

    Parameters
    ----------
    image : ndarray, uint8, [H, W, 3]
        The channels keep their order.
    boxes : array_like, [N, 4]
        x1, y1, x2, y2 in pixels; N may be 0.
    size : (width, height)
        Of the crops; SDPose takes (768, 1024) and nothing else.
    policy : {"evaluated", "stretched", "classic"}
        See the module.
    padding : float
        Share by which ``evaluated`` and ``classic`` enlarge the box.

    Raises
    ------
    InputError
        An image that is not uint8 RGB, or a box that is not finite, has no area or lies outside the image.

    Notes
    -----
    Memory: the crops (2.4 MB each at 768 x 1024) and about 30 MB while one is made. The evaluated crop equals that of
    OpenCV 4 in every pixel, see :func:`warp`.
    """
    check_rgb(image)
    height, width = image.shape[:2]
    boxes = check_boxes(boxes, width, height)
    if policy == "stretched":
        return _stretched(image, boxes, size)
    if policy not in POLICIES:
        raise InputError(f"unknown crop policy {policy!r}", remedy=f"Use one of {', '.join(POLICIES)}.")
    center, scale = center_scale(boxes, size, padding)
    matrix = udp_matrix if policy == "evaluated" else classic_matrix
    return Crops(warp(image, matrix(center, scale, size), size), center, scale, policy, size)


def warp(image: NDArray[np.uint8], matrices: ArrayLike, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear affine warps of an image, black outside it, in OpenCV 4's integers.

    ``cv2.warpAffine`` (4.x, uint8, linear, constant border) rounds positions to 1/32 of a pixel and weights in whole
    numbers; so does this, and every pixel is equal. (OpenCV 5 and floating-point interpolation differ from it by up to
    six grey levels.) Maps without rotation are done one direction after the other, which gives the same numbers.

    Parameters
    ----------
    image : ndarray, uint8, [H, W, C]
        One to three channels.
    matrices : array_like, [N, 2, 3]
        From the image to each crop, as :func:`udp_matrix` gives them.
    size : (width, height)
        Of the crops.

    Returns
    -------
    ndarray, uint8, [N, height, width, C]
    """
    matrices = np.asarray(matrices, np.float64).reshape(-1, 2, 3)
    channels = image.shape[2]
    if not 1 <= channels <= 3:
        raise InputError(f"an image of {channels} channels", remedy="Warp up to three at a time.")
    crops = np.empty((len(matrices), size[1], size[0], channels), np.uint8)
    for crop, back in zip(crops, invert(matrices), strict=True):
        _warp_one(image, back, crop)
    return crops


def _warp_one(image: NDArray[np.uint8], back: NDArray[np.float64], crop: NDArray[np.uint8]) -> None:
    """Fill ``crop`` [h, w, C]; ``back`` [2, 3] leads from it to the image."""
    rows, columns = np.arange(crop.shape[0], dtype=np.float64)[:, None], np.arange(crop.shape[1], dtype=np.float64)
    (a, b, c), (d, e, f) = back
    x_along, x_across = _in_1024ths(a * columns), _in_1024ths(b * rows + c)
    y_along, y_across = _in_1024ths(d * columns), _in_1024ths(e * rows + f)
    separable = bool((x_across == x_across[0]).all() and (y_along == y_along[0]).all())
    if separable:
        x_across, y_along = x_across[0], y_along[:1]
    x, fraction_x = _in_32nds(x_along + x_across)
    y, fraction_y = _in_32nds(y_along + y_across)
    packed, left, top = _packed(image, x, y)
    height, width = packed.shape
    x0, x1 = np.clip(x - left, 0, width - 1), np.clip(x - left + 1, 0, width - 1)
    y0, y1 = np.clip(y - top, 0, height - 1), np.clip(y - top + 1, 0, height - 1)
    if separable:
        across = packed[:, x0] * (32 - fraction_x) + packed[:, x1] * fraction_x
    else:
        packed, y0, y1 = packed.ravel(), y0 * width, y1 * width
    for begin in range(0, len(crop), _ROWS):
        part = slice(begin, begin + _ROWS)
        if separable:
            above, below = across[y0[part, 0]], across[y1[part, 0]]
        else:
            left_part, right_part, rest, share = x0[part], x1[part], 32 - fraction_x[part], fraction_x[part]
            above = packed[y0[part] + left_part] * rest + packed[y0[part] + right_part] * share
            below = packed[y1[part] + left_part] * rest + packed[y1[part] + right_part] * share
        values = above * (32 - fraction_y[part]) + below * fraction_y[part] + _HALF
        for channel in range(crop.shape[2]):
            crop[part, :, channel] = np.right_shift(values, _LANE * channel + 10) & 255


def _in_1024ths(position: NDArray[np.float64]) -> NDArray[np.int64]:
    limit = 2.0**31  # OpenCV's integers end there, beyond any image
    return np.rint(position * 1024).clip(-limit, limit).astype(np.int64)


def _in_32nds(position: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whole pixels and the 32nds left over, from 1024ths of a pixel."""
    position = (position + 16) >> 5
    return position >> 5, position & 31


def _packed(image: NDArray[np.uint8], x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, int]:
    """The part of the image that is read, packed, in a frame of one black pixel; where that frame begins."""
    left, top = max(int(x.min()), 0), max(int(y.min()), 0)
    part = image[top : max(int(y.max()) + 2, top), left : max(int(x.max()) + 2, left)]
    packed = np.zeros((part.shape[0] + 2, part.shape[1] + 2), np.int64)
    for channel in range(image.shape[2]):
        packed[1:-1, 1:-1] |= part[..., channel].astype(np.int64) << (_LANE * channel)
    return packed, left - 1, top - 1


def _stretched(image: NDArray[np.uint8], boxes: NDArray[np.float32], size: tuple[int, int]) -> Crops:
    height, width = image.shape[:2]
    limits = np.array([width, height, width, height])
    corners = np.clip(boxes.astype(np.int64), 0, limits)
    # A box thinner than a pixel still shows the pixel it lies in.
    corners[:, :2] = np.minimum(corners[:, :2], limits[:2] - 1)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    crops = np.empty((len(boxes), size[1], size[0], 3), np.uint8)
    for crop, (x1, y1, x2, y2) in zip(crops, corners, strict=True):
        part = torch.from_numpy(np.ascontiguousarray(image[y1:y2, x1:x2])).permute(2, 0, 1)[None].float()
        crop[:] = resize(part, (size[1], size[0]), antialias=False)[0].round().byte().permute(1, 2, 0).numpy()
    scale = (corners[:, 2:] - corners[:, :2]).astype(np.float32)
    center = (corners[:, :2] + scale / 2).astype(np.float32)
    return Crops(crops, center, scale, "stretched", size)
