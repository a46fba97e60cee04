"""All that an evaluation found, for metrics.json and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.evaluation.distances import plain_rows
from priorscope_astro.evaluation.look import Look
from priorscope_astro.evaluation.sample import Sample
from priorscope_astro.evaluation.shapes import Shapes
from priorscope_astro.evaluation.sky import Sky
from priorscope_astro.memorisation import Memorisation


@dataclass
class Findings:
    """All that an evaluation found, for the report; what was not looked at is None or empty, and ``notes`` say why."""

    generated: Sample
    real: Sample
    look: Look | None
    rare: str
    against: str
    generated_pictures: NDArray[np.uint8]
    real_pictures: NDArray[np.uint8]
    shapes: tuple[Shapes, Shapes] | None = None
    shape_rows: list[dict[str, Any]] = field(default_factory=list)
    features: str = ""
    distance_rows: list[dict[str, Any]] = field(default_factory=list)
    skies: tuple[Sky, Sky] | None = None
    sky_rows: list[dict[str, Any]] = field(default_factory=list)
    copies: Memorisation | None = None
    nearest: NDArray[np.uint8] | None = None
    agreement_rows: list[dict[str, Any]] = field(default_factory=list)
    classifier: str = ""
    class_rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rare_rows: list[dict[str, Any]] = field(default_factory=list)
    found: tuple[NDArray[np.uint8], list[str]] | None = None
    prevalence: float | None = None
    catalogue: Any = None
    notes: list[str] = field(default_factory=list)

    @property
    def mode(self) -> str:
        """display or flux."""
        return self.generated.mode

    def metrics(self) -> dict[str, Any]:
        """Everything that is a number, for metrics.json."""
        copies = self.copies
        return {
            "mode": self.mode,
            "photometric": self.mode == "flux",
            "generated": len(self.generated),
            "real": len(self.real),
            "against": self.against,
            "feature_space": self.features,
            "distances": plain_rows(self.distance_rows),
            "shapes": self.shape_rows,
            "sky": self.sky_rows,
            "memorisation": None
            if copies is None
            else {
                "below_threshold": copies.copies,
                "interval": list(copies.interval),
                "quantile": copies.quantile,
                "threshold": copies.threshold,
                "copied": copies.copied,
            },
            "agreement": self.agreement_rows,
            "classifier": self.classifier,
            "classes": self.class_rows,
            "rare": {"class": self.rare, "prevalence": self.prevalence, "searches": self.rare_rows},
            "notes": self.notes,
        }
