"""What every training can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from priorscope.errors import InputError

RateSchedule = Literal["constant", "cosine", "linear", "exponential", "one-cycle"]


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, on what, and how often to look."""

    steps: int = 2000
    """Optimiser steps in all."""
    batch_size: int = 16
    """Examples an optimiser step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts a batch is cut into, one after the other, where it does not fit into memory."""
    lr: float = 3e-4
    """Highest learning rate; a new small network learns well with 2e-3, a large published one with 3e-5."""
    lr_schedule: RateSchedule = "cosine"
    """Course of the learning rate after the warm-up; exponential is Marigold's and E2E-FT's, one-cycle GalaxySD's (it
    has a warm-up of its own kind)."""
    lr_final: float = 0.01
    """Share of the learning rate that is left at the end."""
    warmup: int = 100
    """Steps of the linear warm-up."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Adam is Marigold's; it ignores the weight decay."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient; 0: no limit."""
    ema: float = 0.999
    """Decay of the weights' running average, which is what gets saved; 0: save the weights themselves."""
    gradient_checkpointing: bool = False
    """Compute activations twice and keep fewer of them: less memory, more time."""
    lora: int = 0
    """Train low-rank updates of this rank instead of all weights (needs peft); 0: all weights."""
    max_seconds: float = 0.0
    """Stop after this time with a checkpoint; --resume goes on. 0: no limit."""
    log_every: int = 50
    """Steps between two rows of metrics.jsonl."""
    validate_every: int = 500
    """Steps between two looks at held-out data."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    tensorboard: bool = False
    """Write the curves for TensorBoard too, to out/tensorboard (needs tensorboard)."""
    workers: int = 0
    """Processes that prepare batches; 0: this one does."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Mixed precision: auto is bfloat16 on a GPU and float32 on the CPU; the weights stay in float32."""
    device: str = "auto"
    """auto, cpu, cuda."""
    seed: int = 0
    """Fixes weights, order, augmentation and noise."""
    resume: bool = False
    """Go on with a run that was cut off; where there is none, start it."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before anything is made or loaded.

        Raises
        ------
        InputError
            Naming the option and its value.
        """
        for name in ("steps", "batch_size", "accumulate", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{_flag(name)} {getattr(self, name)}", remedy="Use 1 or more.")
        for name in ("warmup", "max_seconds", "weight_decay", "clip", "lora", "workers", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{_flag(name)} {getattr(self, name)}", remedy="Use 0 or more.")
        if self.batch_size % self.accumulate:
            raise InputError(
                f"--accumulate {self.accumulate} does not divide --batch-size {self.batch_size}",
                remedy="Choose --batch-size as a multiple of --accumulate.",
            )
        if not 0 < self.lr < float("inf"):
            raise InputError(f"--lr {self.lr}", remedy="Use a number above 0.")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema {self.ema}", remedy="Use 0 (no average) or a number below 1.")
        if self.lora and importlib.util.find_spec("peft") is None:
            raise InputError(
                f"--lora {self.lora} needs peft, which is not installed", remedy="pip install 'priorscope[lora]'."
            )
        if not 0 <= self.lr_final <= 1 or (self.lr_schedule == "exponential" and self.lr_final == 0):
            raise InputError(f"--lr-final {self.lr_final}", remedy="Use a share from 0 to 1 (above 0 for exponential).")

    def check_new(self, *, checkpointing: bool = False) -> None:
        """:meth:`check`, for a network that begins with random weights: low-rank updates would leave them random.

        Parameters
        ----------
        checkpointing : bool
            Whether the network has gradient checkpointing.

        Raises
        ------
        InputError
            Naming the option and its value.
        """
        self.check()
        if self.lora:
            raise InputError(
                f"--lora {self.lora} for a network that begins with random weights", remedy="Leave it out."
            )
        if self.gradient_checkpointing and not checkpointing:
            raise InputError("--gradient-checkpointing for a network that has none", remedy="Leave it out.")


#: Settings that may change when a run is resumed. The first group does not change what is learned; the second is
#: what helps a run whose loss broke down, and each change is noted in environment.json.
MAY_DIFFER = (
    "resume",
    "max_seconds",
    "device",
    "workers",
    "tensorboard",
    "checkpoint_every",
    "gradient_checkpointing",
    "lr",
    "clip",
    "precision",
)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
