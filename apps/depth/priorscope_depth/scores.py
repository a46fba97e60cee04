"""What a depth evaluation found: rows, means, and a comparison that refuses to mix alignment spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from priorscope.errors import InputError
from priorscope_depth.alignment import SPACES, Space, check_space
from priorscope_depth.baselines import BASELINES
from priorscope_depth.metrics import DEPTH_METRICS, mean_over_images
from priorscope_depth.protocols import Compat, DepthProtocol
from priorscope_depth.published import PublishedRow, published_depth

if TYPE_CHECKING:
    from priorscope.evaluation.suite import Failure

Method = Literal["prediction", "constant", "plane"]


@dataclass(frozen=True)
class DepthScore:
    """Mean metrics of one method, with everything that must agree before they are compared.

    Attributes
    ----------
    label : str
    alignment : {"depth", "disparity"}
    compat : Compat
    protocol : DepthProtocol
    images : int
        Images averaged over.
    metrics : dict
        See :func:`priorscope_depth.metrics.depth_metrics`.
    """

    label: str
    alignment: Space
    compat: Compat
    protocol: DepthProtocol
    images: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class DepthEvaluation:
    """Result of :func:`priorscope_depth.evaluate.evaluate_depth`.

    Attributes
    ----------
    protocol : DepthProtocol
    compat : Compat
    predictor_space : {"depth", "disparity"}
    rows : list of dict
        One an image: ``key``, ``data_set``, ``convention``, ``valid_pixels`` and ``results``: "METHOD/SPACE" -> the
        ten metrics, and for a prediction ``scale``, ``shift`` and ``fit_pixels`` of its alignment.
    failures : list of Failure
        Images that could not be evaluated: (key, one-line error). They are in no mean.
    undefined : dict
        Alignment space that was asked for -> why the prediction has no result there.
    """

    protocol: DepthProtocol
    compat: Compat
    predictor_space: Space
    rows: list[dict[str, Any]]
    failures: list[Failure]
    undefined: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of images that were evaluated."""
        return len(self.rows)

    def alignments(self, method: Method = "prediction") -> list[Space]:
        """Return the alignment spaces in which a method has results."""
        return [space for space in SPACES if self.rows and f"{method}/{space}" in self.rows[0]["results"]]

    def per_image(self, alignment: Space, method: Method = "prediction") -> list[dict[str, Any]]:
        """Return a flat row per image: ``key``, ``valid_pixels``, metrics (and scale and shift)."""
        check_space(alignment)
        if alignment not in self.alignments(method):
            reason = (
                self.undefined.get(alignment, "it was not asked for") if method == "prediction" else "not asked for"
            )
            raise InputError(f"there is no result of {method!r} aligned in {alignment} space: {reason}")
        return [
            {"key": row["key"], "valid_pixels": row["valid_pixels"], **row["results"][f"{method}/{alignment}"]}
            for row in self.rows
        ]

    def means(self, alignment: Space, method: Method = "prediction") -> dict[str, float]:
        """Return the unweighted mean over images of the ten metrics."""
        rows = self.per_image(alignment, method)
        return mean_over_images([{name: row[name] for name in DEPTH_METRICS} for row in rows])

    def score(self, alignment: Space, method: Method = "prediction", *, label: str | None = None) -> DepthScore:
        """Return the means with their conditions, for :func:`compare`."""
        means = self.means(alignment, method)
        return DepthScore(label or method, alignment, self.compat, self.protocol, self.images, means)

    def published(self, alignment: Space) -> list[PublishedRow]:
        """Return published figures of the same protocol, images, alignment and convention; often there are none."""
        if self.images != self.protocol.images:
            return []
        return published_depth(self.protocol, alignment, self.compat)

    def summary(self) -> dict[str, Any]:
        """Return everything but the rows, JSON-able."""
        methods: tuple[Method, ...] = ("prediction", *BASELINES)
        return {
            "data_set": self.protocol.name,
            "convention": self.compat.name,
            "predictor_space": self.predictor_space,
            "images": self.images,
            "images_of_the_full_set": self.protocol.images,
            "failures": [{"key": f.key, "error": f.error} for f in self.failures],
            "undefined": dict(self.undefined),
            "means": {
                f"{method}/{space}": self.means(space, method)
                for method in methods
                for space in self.alignments(method)
            },
        }


def compare(scores: Sequence[DepthScore]) -> list[dict[str, Any]]:
    """Put scores into one table, a row each: ``label``, ``images`` and the ten metrics.

    Raises
    ------
    InputError
        The scores differ in alignment space, evaluation convention, protocol or number of images: such figures
        say nothing about each other. (DIODE's abs_rel changes by a third with the alignment space alone.)
    """
    if not scores:
        raise InputError("no scores to compare")
    for name in ("alignment", "compat", "protocol", "images"):
        found = {getattr(score, name) for score in scores}
        if len(found) > 1:
            shown = sorted(str(getattr(value, "name", value)) for value in found)
            raise InputError(
                f"scores of different {name} cannot be compared ({', '.join(shown)})",
                remedy="Evaluate all methods in one alignment space, convention and protocol, on the same images.",
            )
    return [{"label": score.label, "images": score.images, **score.metrics} for score in scores]
