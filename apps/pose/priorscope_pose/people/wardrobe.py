"""What people wear and how they look: shapes of clothes and hair, and the materials for them and the skin."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np

from priorscope.scenes.materials import Look, Material

from .flesh import Outfit

HAIR = ("none", "short", "short", "short", "long", "long", "tail", "afro")


def random_outfit(rng: np.random.Generator) -> Outfit:
    skirt = rng.uniform(0.5, 1.25) if rng.uniform() < 0.14 else 0.0
    sleeves = (0.0, rng.uniform(0.4, 0.75), rng.uniform(0.4, 0.75), rng.uniform(1.1, 1.7), 2.0, 2.0)
    legs = (rng.uniform(0.5, 0.95), rng.uniform(1.1, 1.6), 2.0, 2.0, 2.0, 2.0)
    return Outfit(
        sleeve=float(sleeves[int(rng.integers(6))]),
        leg=float(legs[int(rng.integers(6))]) if skirt == 0 else float(rng.choice([0.0, 0.0, 2.0])),
        loose=0.03 * rng.uniform() ** 2 + 0.004,
        hem=float(rng.choice([0.0, 0.03, 0.08, 0.16])) * rng.uniform(0.6, 1.1),
        skirt=skirt,
        hair=HAIR[int(rng.integers(len(HAIR)))],
        hat=bool(rng.uniform() < 0.18),
    )


def _tone(rng: np.random.Generator, value: tuple[float, float], saturation: float) -> tuple[float, float, float]:
    """A colour for cloth: many clothes are nearly black, white, grey or blue."""
    kind = rng.uniform()
    if kind < 0.25:
        return (g := rng.uniform(0.08, 0.97), g, g)
    hue = rng.normal(0.6, 0.04) if kind < 0.45 else rng.uniform()
    return colorsys.hsv_to_rgb(hue % 1, saturation * rng.uniform() ** 0.6, rng.uniform(*value))


def materials(rng: np.random.Generator, look: Look) -> dict[str, Material]:
    """A material for each role of `flesh.Piece`."""
    # from pale to dark: hue and saturation go with the value as they do in skin
    pale = rng.uniform() ** 0.7
    skin = colorsys.hsv_to_rgb(0.055 + 0.02 * rng.uniform(), 0.62 - 0.3 * pale + 0.06 * rng.normal(), 0.3 + 0.62 * pale)
    hair = colorsys.hsv_to_rgb(0.07, rng.uniform(0.1, 0.7), float(rng.choice([0.08, 0.14, 0.25, 0.45, 0.75])))

    def plain(tone: tuple[float, float, float], contrast: float = 0.15, gloss: float = 0.0) -> Material:
        return look.material(("plain",), tone, contrast=(0.3 * contrast, contrast), gloss=gloss)

    def cloth() -> Material:
        tone = _tone(rng, (0.12, 1.0), 0.9)
        if rng.uniform() < 0.5:
            return look.material(("plain", "smooth_noise", "weave"), tone, contrast=(0.05, 0.3), width=(0.3, 1.0))
        patterns = ("stripes", "plaid", "dots", "speckle", "checker", "collage", "waves")
        return look.material(
            patterns, tone, _tone(rng, (0.05, 0.8), 0.8), width=(0.25, 0.9), turn=float(rng.choice([0.0, np.pi / 2]))
        )

    skin_look = plain(skin, gloss=0.05)
    shirt = cloth()
    if rng.uniform() < 0.1:
        # a print on the chest
        shirt = replace(look.picture(width=(0.5, 1.0)), polish=0.0, gloss=0.0)
    return {
        "skin": skin_look,
        "hair": plain(hair, 0.5, gloss=0.1),
        "eyes": plain((0.08, 0.06, 0.05), 0.1, gloss=0.3),
        "mouth": plain((0.62 * skin[0], 0.35 * skin[1] + 0.05, 0.4 * skin[2]), 0.1),
        "shirt": shirt,
        "sleeve": shirt if rng.uniform() < 0.85 else cloth(),
        "trousers": cloth(),
        "shoes": plain(_tone(rng, (0.08, 1.0), 0.8), 0.3, gloss=0.1),
        "hat": cloth(),
    }
