"""Exact edges of a drawn scene: where its geometry breaks, not where its colours do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_depth.scenes import Scene

#: Share of the depth by which a neighbour lies off a pixel's own plane where one surface hides another.
JUMP = 0.04
#: Angle between neighbouring normals from which they make an edge, degrees.
CREASE = 30.0


def scene_edges(scene: Scene, *, jump: float = JUMP, crease: float = CREASE) -> NDArray[np.bool_]:
    """The pixels along which depth jumps, normals turn, or one object ends at another.

    Each pair of neighbours (to the right and below) is looked at. It is an edge if one of the two has no depth; if
    each lies off the plane of the other by more than ``jump`` of its depth; if their normals differ by more than
    ``crease``; or if they belong to different meshes (where the scene knows). Of the pair the nearer pixel is
    marked, so that an outline belongs to what it outlines; what is wider where outlines meet is thinned to one pixel.

    Parameters
    ----------
    scene : Scene
    jump : float
        Above 0.
    crease : float
        Degrees, above 0 and up to 180.

    Returns
    -------
    ndarray, bool, (H, W)
    """
    from skimage.morphology import thin

    if not jump > 0 or not 0 < crease <= 180:
        raise InputError(f"edges from a jump of {jump} and a crease of {crease} degrees", remedy="Use numbers above 0.")
    height, width = scene.depth.shape
    depth = np.where(scene.valid, scene.depth, np.inf).astype(np.float64)
    offsets = _plane_offsets(scene)
    edges = np.zeros((height, width), dtype=bool)
    for axis in (0, 1):
        one, two = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        both = scene.valid[one] & scene.valid[two]
        turned = np.einsum("hwk,hwk->hw", scene.normals[one], scene.normals[two]) < np.cos(np.radians(crease))
        apart = (offsets(one, two) > jump) & (offsets(two, one) > jump)
        broken = (scene.valid[one] != scene.valid[two]) | (both & (apart | turned))
        if scene.parts is not None:
            broken |= scene.parts[one] != scene.parts[two]
        first = depth[one] <= depth[two]
        edges[one] |= broken & first
        edges[two] |= broken & ~first
    return thin(edges)


def _plane_offsets(scene: Scene) -> Callable[[Any, Any], NDArray[np.float64]]:
    """``offsets(one, two)``: by what share of its own depth each pixel of ``two`` lies off the plane of ``one``'s."""
    height, width = scene.depth.shape
    fx, fy, cx, cy = scene.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
    v, u = np.mgrid[:height, :width] + 0.5
    # x right, y up, z towards the viewer, as the normals are
    rays = np.stack([(u - cx) / fx, -(v - cy) / fy, -np.ones((height, width))], axis=-1)
    depth = scene.depth.astype(np.float64)

    def offsets(one: Any, two: Any) -> NDArray[np.float64]:
        at_own = np.einsum("hwk,hwk->hw", scene.normals[one], rays[one])
        at_other = np.einsum("hwk,hwk->hw", scene.normals[one], rays[two])
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = depth[one] * at_own / at_other
            share = np.abs(depth[two] - expected) / depth[two]
        # the plane is never met on the neighbour's ray, or behind the camera: as far off as can be
        return np.where((expected > 0) & np.isfinite(share), share, np.inf)

    return offsets
