"""Another head's anatomy for the CT prior: a magnetic resonance volume taken apart into air, soft tissue and bone.

Bone and air are both dark in such a volume. What is dark around the skull's inside is bone; elsewhere wide dark spaces
are taken for air and narrow ones for bone. The result is no CT of that head, and need not be: it only has to teach a
prior how real heads are built.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]


def pseudo_ct(head: Array, brain: NDArray[np.bool_], seed: int) -> Array:
    """Attenuation (air 0, water 1) of a head, with thresholds and values of its own for each seed.

    Parameters
    ----------
    head : array (X, Y, Z)
        T1-weighted intensities in [0, 1], voxels of 1 mm, the second axis to the front, the last up.
    brain : boolean array (X, Y, Z)
    seed : int
    """
    rng = np.random.default_rng([seed, 7])
    whole = _filled(ndimage.gaussian_filter(head, 0.7) > 0.1, 8)
    inside = _filled(ndimage.binary_dilation(brain, iterations=int(rng.integers(1, 4))), 8) & whole
    outside_mm = ndimage.distance_transform_edt(~inside)
    depth_mm = ndimage.distance_transform_edt(whole)
    dark = ndimage.gaussian_filter(head, 0.5) < rng.uniform(0.2, 0.28)

    near = (outside_mm > 0) & (outside_mm < rng.uniform(7, 13)) & (depth_mm > rng.uniform(2.5, 4))
    skull = near & ndimage.binary_closing(near & dark, iterations=2)
    rest = whole & dark & ~inside & ~skull & (depth_mm > 1.5)
    darkest = ndimage.gaussian_filter(head, 0.5) < rng.uniform(0.11, 0.15)  # eyes are brighter
    air = ndimage.binary_opening(rest & darkest, iterations=int(rng.integers(1, 3)))
    if rng.random() < 0.7:  # sinuses against the skull: in the front half, and wide
        front = np.arange(head.shape[1])[:, None] > head.shape[1] / 2
        air |= ndimage.binary_opening(skull & darkest & front & (outside_mm > 3), iterations=3)
    skull &= ~air
    walls = ndimage.binary_dilation(air) & whole & ~air

    value = np.where(whole, rng.uniform(0.98, 1.07), 0.0)
    value[whole & ~inside & (head > 0.55)] = rng.uniform(0.88, 0.97)
    value[inside] = rng.uniform(1.0, 1.05) + rng.uniform(0, 0.06) * (head[inside] - 0.5)
    hard = rng.uniform(1.6, 2.7)
    value[rest & darkest] = rng.uniform(1.1, 1.9)
    value[walls] = rng.uniform(1.0, 1.7)
    value[skull] = hard
    # the spongy layer between the tables of the skull is bright, and softer
    sponge = skull & ~ndimage.binary_dilation(dark & skull, iterations=1)
    value[sponge] = hard - rng.uniform(0.1, 0.7)
    value[air] = 0.0
    return value.astype(np.float32)


def _filled(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Closed over ``reach`` voxels, and without holes in any slice of the last axis."""
    closed = ndimage.binary_closing(np.pad(mask, reach), iterations=reach)
    closed = closed[reach:-reach, reach:-reach, reach:-reach]
    for number in range(closed.shape[2]):
        closed[:, :, number] = ndimage.binary_fill_holes(closed[:, :, number])
    return closed
