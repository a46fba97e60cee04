"""Which heatmaps a model has, and the crops that go with them."""

from __future__ import annotations

from collections.abc import Callable

from numpy.typing import NDArray

from priorscope_pose.codecs.msra import MsraHeatmap
from priorscope_pose.codecs.udp import UdpHeatmap
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.geometry.affine import classic_matrix, udp_matrix
from priorscope_pose.geometry.crop import Policy


def codec_of(spec: DiffPoseSpec) -> MsraHeatmap | UdpHeatmap:
    """The codec that a model is trained with.

    ``msra``: whole-pixel Gaussians and a quarter offset, as DCPose, whose lineage the paper stands in. ``dark`` and
    ``udp`` are more exact on small heatmaps (ours).
    """
    if spec.codec == "udp":
        return UdpHeatmap(spec.input_size, spec.heatmap_size, spec.sigma)
    return MsraHeatmap(spec.input_size, spec.heatmap_size, spec.sigma, unbiased=spec.codec == "dark")


def policy_of(spec: DiffPoseSpec) -> Policy:
    """The crop policy whose pixels the codec counts: unbiased for ``udp``, else classic as in the lineage."""
    return "evaluated" if spec.codec == "udp" else "classic"


def matrix_of(spec: DiffPoseSpec) -> Callable[..., NDArray]:
    """The same as a function of (center, scale, size, rotation)."""
    return udp_matrix if spec.codec == "udp" else classic_matrix
