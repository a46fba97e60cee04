"""Published figures that may stand next to a user's own, and the conditions under which they may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from priorscope_depth.alignment import Space
from priorscope_depth.protocols import COMPATS, PROTOCOLS, Compat, DepthProtocol, get_compat


@dataclass(frozen=True)
class PublishedRow:
    """Published figures of one method, and what must be the same for a comparison.

    Attributes
    ----------
    method, source : str
    alignment : {"depth", "disparity"}
    convention : str
        The name of the evaluation convention (:data:`COMPATS`).
    metric : str
        ``abs_rel``, as a fraction.
    values : dict
        Data set -> figure.
    """

    method: str
    metric: str
    values: dict[str, float]
    alignment: Space
    convention: str
    source: str


_E2E_README = "README of VisualComputingInstitute/diffusion-e2e-ft"


def _depth_row(method: str, percents: Sequence[float]) -> PublishedRow:
    sets = ("nyuv2", "kitti", "eth3d", "scannet", "diode")
    values = {name: round(value / 100, 4) for name, value in zip(sets, percents, strict=True)}
    return PublishedRow(method, "abs_rel", values, "depth", "marigold", _E2E_README)


#: Published figures that were read at their source. Figures known at second hand only are left out.
PUBLISHED: tuple[PublishedRow, ...] = (
    _depth_row("Stable Diffusion + E2E FT", (5.4, 9.6, 6.4, 5.8, 30.3)),
    _depth_row("Marigold + E2E FT", (5.2, 9.6, 6.2, 5.8, 30.2)),
    _depth_row("GeoWizard + E2E FT", (5.6, 9.8, 6.3, 5.9, 30.6)),
)


def published_depth(protocol: DepthProtocol, alignment: Space, compat: str | Compat) -> list[PublishedRow]:
    """Return the published rows that may stand next to a result of this protocol, alignment and convention.

    None where the protocol was changed, or where alignment or convention are others than the published ones.
    """
    if protocol != PROTOCOLS.get(protocol.name):
        return []
    convention = get_compat(compat)
    if convention != COMPATS[convention.name]:
        return []
    return [
        row
        for row in PUBLISHED
        if row.alignment == alignment and row.convention == convention.name and protocol.name in row.values
    ]
