"""Names of weights in HCP-Diffusion's files, and in the networks of diffusers and transformers.

HCP-Diffusion, which GalaxySD was trained with, writes ``base:NAME`` (``base_ema:NAME`` for averaged weights,
``lora:...`` for low-rank updates). Published text encoders have the prefix ``text_model.`` before every name, and may
hold ``position_ids``, which are no weight; transformers 5 has dropped both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from priorscope.errors import InputError

Kind = Literal["base", "base_ema"]
T = TypeVar("T")

_TEXT = "text_model."
_NO_WEIGHT = "embeddings.position_ids"


def from_hcp(weights: Mapping[str, T], kind: Kind = "base") -> dict[str, T]:
    """The weights of a network in an HCP file, by the names that diffusers and transformers 5 give them.

    Parameters
    ----------
    weights : mapping
        Published name -> anything.
    kind : {"base", "base_ema"}
        The weights as trained, or their running average.

    Raises
    ------
    InputError
        Names without a prefix, low-rank updates, or no weights of this kind.
    """
    kinds: dict[str, dict[str, T]] = {}
    for key, value in weights.items():
        prefix, colon, name = key.partition(":")
        kinds.setdefault(prefix if colon else "", {})[name if colon else key] = value
    others = sorted(set(kinds) - {"base", "base_ema"})
    if "" in others:
        example = next(iter(kinds[""]))
        raise InputError(
            f"holds {example}, without HCP-Diffusion's prefix 'base:'",
            remedy="Weights with plain names are loaded from a diffusers folder.",
        )
    if others:
        raise InputError(
            f"holds {', '.join(others)} weights, which change a network in part",
            remedy="Merge them into the network's weights first, then give that file.",
        )
    if kind not in kinds:
        found = ", ".join(sorted(kinds)) or "nothing"
        raise InputError(f"holds no {kind}: weights (it holds {found})")
    return {bare_name(key): value for key, value in kinds[kind].items() if bare_name(key) != _NO_WEIGHT}


def to_hcp(weights: Mapping[str, T], kind: Kind = "base", *, text_encoder: bool = False) -> dict[str, T]:
    """The inverse of :func:`from_hcp`: what HCP-Diffusion calls these weights."""
    prefix = f"{kind}:{_TEXT}" if text_encoder else f"{kind}:"
    return {f"{prefix}{bare_name(key)}": value for key, value in weights.items()}


def bare_name(key: str) -> str:
    """A name of a text encoder's weight without the old prefix; others are as they are."""
    return key.removeprefix(_TEXT)
