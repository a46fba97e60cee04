"""What the galaxy classifier can be told. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from priorscope.errors import InputError
from priorscope.training.settings import LoopConfig


@dataclass(frozen=True)
class ClassifierConfig:
    """How a galaxy classifier is trained."""

    head: Literal["classes", "votes"] = "classes"
    """classes: one of several classes; votes: counts of volunteers at every question of the Galaxy Zoo 2 tree."""
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    """Of classes; votes have the Dirichlet-multinomial likelihood."""
    gamma: float = 2.0
    """Of the focal loss."""
    sampling: Literal["natural", "balanced"] = "natural"
    """natural: every example once a pass; balanced: every class equally often (classes only)."""
    turns: bool = True
    """Flip images and turn them by quarters at random."""
    shift: int = 2
    """Shift them at random by up to so many pixels, along both axes."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels at 1/2, 1/4, ... of the image; multiples of 8."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(
            steps=1000,
            batch_size=64,
            lr=2e-3,
            warmup=50,
            ema=0.99,
            weight_decay=0.05,
            validate_every=250,
            checkpoint_every=250,
        )
    )

    def check(self) -> None:
        """Refuse settings that make no sense.

        Raises
        ------
        InputError
            Naming the setting and its value.
        """
        self.loop.check_new()
        if self.shift < 0:
            raise InputError(f"shift {self.shift}", remedy="Use 0 or more.")
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"gamma {self.gamma}", remedy="Use 0 or more.")
        if not self.widths or any(width < 8 or width % 8 for width in self.widths):
            raise InputError(f"widths {list(self.widths)}", remedy="Use multiples of 8, at least one.")
        if self.loss != "focal" and self.gamma != ClassifierConfig.gamma:
            raise InputError(f"gamma {self.gamma} with the loss {self.loss}", remedy="It is of the focal loss.")
        if self.head == "votes" and (self.sampling == "balanced" or self.loss == "focal"):
            raise InputError("votes have no classes to balance or to focus on", remedy="Use head classes, or neither.")
