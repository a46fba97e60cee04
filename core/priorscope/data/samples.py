"""Pictures that every installation has, because scikit-image's wheel holds them. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import read_image
from priorscope.errors import InputError

FOCAL_PIXELS = 994.978
BASELINE_METRES = 0.193001
DISPARITY_OFFSET_PIXELS = 31.086

_PHOTOS = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
PHOTO_NAMES = tuple(sorted(_PHOTOS))


@dataclass(frozen=True)
class StereoSample:
    """A stereo pair with dense true depth, seen from the left camera."""

    left: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    right: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    disparity: NDArray[np.float32]
    """[H, W] pixels, without the offset of the principal points; 0 where unknown (see `valid`)."""
    depth: NDArray[np.float32]
    """[H, W] planar depth (z) in metres; 0 where unknown."""
    valid: NDArray[np.bool_]
    """[H, W], where depth is known."""
    intrinsics: NDArray[np.float64]
    """[3, 3] in pixels, pixel centres at +0.5. The principal point is assumed, see :func:`motorcycle`."""
    baseline: float
    """Distance of the cameras in metres."""


def motorcycle() -> StereoSample:
    """The Motorcycle pair of the Middlebury 2014 stereo data set, at a quarter of its size (500 x 741).

    Depth is focal * baseline / (disparity + offset) with focal 994.978 px, baseline 193.001 mm and offset
    31.086 px. Unknown disparities are +inf in the wheel's file (its documentation says NaN): here they are
    False in `valid`. The principal point is not in the wheel: the image centre is assumed, which shifts a
    point cloud sideways but changes no depth.

    Returns
    -------
    StereoSample

    References
    ----------
    D. Scharstein et al., High-resolution stereo datasets with subpixel-accurate ground truth, GCPR 2014;
    calibration as in the documentation of ``skimage.data.stereo_motorcycle``.
    """
    with np.load(_wheel_file("motorcycle_disp.npz"), allow_pickle=False) as arrays:
        raw = np.asarray(arrays["arr_0"], np.float64)
    valid = np.isfinite(raw) & (raw + DISPARITY_OFFSET_PIXELS > 0)
    disparity = np.where(valid, raw, 0.0)
    depth = np.where(valid, FOCAL_PIXELS * BASELINE_METRES / (disparity + DISPARITY_OFFSET_PIXELS), 0.0)
    height, width = raw.shape
    intrinsics = np.array([[FOCAL_PIXELS, 0, width / 2], [0, FOCAL_PIXELS, height / 2], [0, 0, 1]])
    return StereoSample(
        left=read_image(_wheel_file("motorcycle_left.png")),
        right=read_image(_wheel_file("motorcycle_right.png")),
        disparity=disparity.astype(np.float32),
        depth=depth.astype(np.float32),
        valid=valid,
        intrinsics=intrinsics,
        baseline=BASELINE_METRES,
    )


def photo(name: str) -> NDArray[np.uint8]:
    """A photograph from scikit-image's wheel, uint8 [H, W, 3].

    Parameters
    ----------
    name : str
        One of ``PHOTO_NAMES``.

    Raises
    ------
    InputError
        For another name (scikit-image would download it).
    """
    if name not in _PHOTOS:
        raise InputError(f"there is no built-in photograph {name!r}", remedy=f"Known: {', '.join(PHOTO_NAMES)}.")
    return read_image(_wheel_file(_PHOTOS[name]))


def _wheel_file(name: str) -> Path:
    import skimage

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise InputError(
            "this version of scikit-image came without the sample",
            path=path,
            remedy="pip install 'scikit-image>=0.25,<0.27'",
        )
    return path
