"""What surfaces look like: a texture with a physical size, two colours it runs between, and gloss.

`Look` draws the materials of one scene. To add a family (wood, metal, ...), add a method and use it in the objects.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from .textures import PATTERNS, texture_bank

_PATTERNS = tuple(PATTERNS)

Colour = NDArray[np.floating]


@dataclass(frozen=True)
class Material:
    """A surface.

    Attributes
    ----------
    texture : int
        Index in the texture bank.
    repeat : float
        Copies of the texture a metre.
    angle, shift : float, (2,)
        Turn (radians) and offset (copies) of the texture on the surface.
    dark, light : (3,)
        Linear colours 0..1 for texture values 0 and 1.
    gloss, sharpness : float
        Strength and exponent of the highlight.
    metal : float
        0..1, how much it mirrors its surroundings whatever the angle, in its own colour.
    glow : float
        Light of its own, as a multiple of its colour (lamps, windows, screens).
    polish : float
        0..1, how much it mirrors as glass, water, varnish do: little where it is faced, nearly all at a glancing angle.
    rough : float
        Blur of what is mirrored: the spread of the mirrored directions, about radians.
    ripple : float
        Slope of waves (water).
    stain : float
        0..1, how much slow stains, which do not repeat with the texture, darken and lighten it.
    """

    texture: int
    repeat: float
    angle: float
    shift: tuple[float, float]
    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    gloss: float = 0.0
    sharpness: float = 20.0
    metal: float = 0.0
    glow: float = 0.0
    polish: float = 0.0
    rough: float = 0.0
    ripple: float = 0.0
    stain: float = 0.0


def as_arrays(materials: list[Material]) -> dict[str, NDArray[np.float32]]:
    """One array a property over all materials, for lookup by material number."""
    return {
        field.name: np.array([getattr(material, field.name) for material in materials], dtype=np.float32)
        for field in fields(Material)
    }


def _linear(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    r, g, b = (min(max(c, 0.0), 1.0) ** 2.2 for c in colour)
    return r, g, b


class Look:
    """Draws the materials of a scene.

    With one scene in six the families are ignored and every surface gets any pattern in any colours, so that a model
    cannot rely on wood being brown.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.wild = rng.uniform() < 1 / 6
        self.hue = rng.uniform()

    def colour(
        self, hue: float | None = None, saturation: float = 0.5, value: tuple[float, float] = (0.15, 0.95)
    ) -> tuple[float, float, float]:
        """A colour (display values 0..1): any hue, or near `hue`; saturation up to `saturation`."""
        rng = self.rng
        h = rng.uniform() if hue is None else hue + rng.normal() * 0.03
        return colorsys.hsv_to_rgb(h % 1, saturation * rng.uniform() ** 0.7, rng.uniform(*value))

    def material(
        self,
        patterns: tuple[str, ...],
        light: tuple[float, float, float],
        dark: tuple[float, float, float] | None = None,
        *,
        width: tuple[float, float] = (0.5, 2.0),
        contrast: tuple[float, float] = (0.3, 0.8),
        turn: float = 0.0,
        finish: dict[str, float] | None = None,
        **surface: float,
    ) -> Material:
        """A material with one of the patterns, between two display colours; `width` is its size in metres.

        `surface` and `finish` are other attributes of `Material`.
        """
        rng = self.rng
        surface |= finish or {}
        if self.wild and "glow" not in surface:
            return self.anything()
        names = texture_bank().names[patterns[int(rng.integers(len(patterns)))]]
        texture = names[int(rng.integers(len(names)))]
        if dark is None:
            keep = 1 - rng.uniform(*contrast)
            r, g, b = (c * keep for c in light)
            dark = (r, g, b)
        return Material(
            texture,
            1 / rng.uniform(*width),
            turn,
            (rng.uniform(), rng.uniform()),
            _linear(dark),
            _linear(light),
            **surface,
        )

    def anything(self) -> Material:
        """Any pattern or photograph, any colours, any gloss."""
        rng = self.rng
        photograph = rng.uniform() < 0.35
        group = texture_bank().names["photograph" if photograph else _PATTERNS[int(rng.integers(len(_PATTERNS)))]]
        light = _linear(self.colour(saturation=0.6, value=(0.4, 1.0)))
        dark = _linear(self.colour(saturation=0.6, value=(0.0, 0.6)))
        if photograph and rng.uniform() < 0.7:
            dark, light = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return Material(
            group[int(rng.integers(len(group)))],
            1 / float(np.exp(rng.uniform(np.log(0.2), np.log(3.0)))),
            rng.uniform(0, 2 * np.pi) if rng.uniform() < 0.5 else 0.0,
            (rng.uniform(), rng.uniform()),
            dark,
            light,
            gloss=0.5 * rng.uniform() ** 3,
            sharpness=float(np.exp(rng.uniform(1.5, 5))),
            metal=0.5 * rng.uniform() ** 4,
            polish=rng.uniform() if rng.uniform() < 0.2 else 0.0,
            rough=0.3 * rng.uniform() ** 2,
        )

    def _varnish(self, share: float, *, rough: float = 0.15) -> dict[str, float]:
        """Polish, for `share` of the surfaces, and how blurred it mirrors."""
        rng = self.rng
        if rng.uniform() >= share:
            return {}
        return {"polish": rng.uniform(0.3, 1.0), "rough": rough * rng.uniform() ** 1.5}

    def wood(self) -> Material:
        gloss = 0.25 * self.rng.uniform() ** 2
        tone = self.colour(0.08, 0.75, (0.25, 0.9))
        turn = self._quarter()
        return self.material(("grain", "grain", "planks"), tone, gloss=gloss, turn=turn, finish=self._varnish(0.2))

    def metal(self) -> Material:
        tone = self.colour(None, 0.15, (0.25, 0.95))
        metal, rough = self.rng.uniform(0.2, 0.9), 0.5 * self.rng.uniform() ** 1.5
        patterns = ("grain", "plain", "speckle")
        return self.material(patterns, tone, contrast=(0.1, 0.4), gloss=0.6, sharpness=60, metal=metal, rough=rough)

    def mirror(self) -> Material:
        tone = self.colour(None, 0.1, (0.85, 1.0))
        return self.material(("plain",), tone, contrast=(0.0, 0.1), metal=self.rng.uniform(0.75, 0.95))

    def car_paint(self) -> Material:
        tone = self.colour(None, self.rng.uniform(0, 0.9), (0.05, 1.0))
        metal = 0.25 * self.rng.uniform() ** 2
        return self.material(("plain",), tone, contrast=(0.0, 0.15), gloss=0.4, sharpness=80, metal=metal, polish=1.0)

    def water(self) -> Material:
        tone = self.colour(float(self.rng.choice([0.1, 0.3, 0.5, 0.58])), 0.6, (0.12, 0.45))
        ripple = 0.12 * self.rng.uniform() ** 1.5
        patterns = ("smooth_noise", "plain")
        return self.material(patterns, tone, contrast=(0.1, 0.5), gloss=0.5, sharpness=120, polish=1.0, ripple=ripple)

    def plastic(self) -> Material:
        tone = self.colour(None, 0.95, (0.08, 1.0))
        return self.material(
            ("plain", "plain", "smooth_noise"),
            tone,
            contrast=(0.05, 0.3),
            gloss=self.rng.uniform(0, 0.4),
            sharpness=40,
            finish=self._varnish(0.35),
        )

    def rubber(self) -> Material:
        return self.material(("speckle", "waves", "plain"), self.colour(None, 0.1, (0.08, 0.3)), gloss=0.08)

    def glass(self) -> Material:
        """A pane seen from outside: dark, mirroring the sky."""
        tone = self.colour(0.58, 0.4, (0.1, 0.45))
        metal = self.rng.uniform(0.05, 0.6)
        patterns = ("plain", "smooth_noise")
        return self.material(patterns, tone, contrast=(0.2, 0.8), gloss=0.5, sharpness=80, metal=metal, polish=1.0)

    def lit_window(self) -> Material:
        """A pane with a light behind it."""
        tone = self.colour(0.11, 0.5, (0.7, 1.0))
        return self.material(
            ("plain", "collage"), tone, contrast=(0.1, 0.7), polish=0.7, glow=self.rng.uniform(0.2, 0.7)
        )

    def fabric(self) -> Material:
        patterns = ("weave", "speckle", "plaid", "stripes", "dots", "smooth_noise")
        return self.material(patterns, self.colour(None, 0.7), self.colour(None, 0.7), width=(0.15, 0.8))

    def paper(self) -> Material:
        """Cardboard, books, labels, packages."""
        if self.rng.uniform() < 0.35:
            return self.picture(width=(0.15, 0.6))
        patterns = ("lettering", "collage", "plain", "stripes")
        hue = 0.09 if self.rng.uniform() < 0.4 else None
        return self.material(patterns, self.colour(hue, 0.6, (0.5, 1.0)), width=(0.1, 0.6), contrast=(0.2, 0.9))

    def picture(self, *, width: tuple[float, float] = (0.5, 1.5), shift: bool = True, glow: float = 0.0) -> Material:
        """A photograph in its own colours."""
        names = texture_bank().names["photograph"]
        tint = self.colour(None, 0.3, (0.7, 1.0))
        offset = (self.rng.uniform(), self.rng.uniform()) if shift else (0.0, 0.0)
        texture = names[int(self.rng.integers(len(names)))]
        repeat = 1 / self.rng.uniform(*width)
        polish = self.rng.uniform(0, 1) if self.rng.uniform() < 0.4 else 0.0
        return Material(
            texture, repeat, 0.0, offset, (0.0, 0.0, 0.0), _linear(tint), gloss=0.1, glow=glow, polish=polish
        )

    def view(self) -> Material:
        """A window seen from inside: what is outside, bright and often nearly white, behind glass."""
        pale = self.rng.uniform() < 0.5
        if pale:
            tone = self.colour(0.58, 0.15, (0.9, 1.0))
            patterns = ("smooth_noise", "plain")
            glow = self.rng.uniform(0.8, 3.0)
            return self.material(patterns, tone, width=(2, 5), contrast=(0.05, 0.5), glow=glow, polish=0.6)
        return replace(self.picture(width=(2, 5), glow=self.rng.uniform(0.4, 2.5)), polish=0.8)

    def wall(self) -> Material:
        patterns = (
            "plain",
            "plain",
            "plain",
            "plain",
            "bricks",
            "tiles",
            "stripes",
            "speckle",
            "dots",
            "smooth_noise",
            "brick",
        )
        tone = self.colour(self.hue if self.rng.uniform() < 0.5 else 0.12, 0.35, (0.5, 1.0))
        stain = 0.5 * self.rng.uniform() ** 2
        return self.material(patterns, tone, width=(0.6, 2.5), contrast=(0.1, 0.5), stain=stain)

    def floor(self) -> Material:
        patterns = ("planks", "planks", "tiles", "checker", "speckle", "weave", "marble", "stones", "smooth_noise")
        tone = self.colour(0.08 if self.rng.uniform() < 0.6 else None, 0.5, (0.3, 0.9))
        surface = {"gloss": 0.3 * self.rng.uniform() ** 2, "sharpness": 30.0, "stain": 0.6 * self.rng.uniform()}
        surface |= self._varnish(0.45, rough=0.12)
        return self.material(patterns, tone, width=(0.6, 2.0), turn=self._quarter(), finish=surface)

    def facade(self) -> Material:
        tone = self.colour(0.07, 0.5, (0.4, 1.0))
        patterns = ("windows", "windows", "bricks", "plain", "planks", "stones", "brick", "speckle")
        pattern = patterns[int(self.rng.integers(len(patterns)))]
        width = (2.5, 8.0) if pattern == "windows" else (1.2, 5.0)
        return self.material((pattern,), tone, width=width, contrast=(0.4, 0.9), stain=self.rng.uniform())

    def asphalt(self) -> Material:
        surface = {"stain": self.rng.uniform(0.2, 1.0)}
        if self.rng.uniform() < 0.2:
            # wet
            surface |= {"polish": self.rng.uniform(0.5, 1.0), "rough": self.rng.uniform(0.0, 0.1)}
        patterns = ("speckle", "speckle", "plain", "gravel")
        return self.material(patterns, self.colour(None, 0.1, (0.25, 0.6)), width=(1.0, 4.0), finish=surface)

    def paving(self) -> Material:
        patterns = ("tiles", "stones", "bricks", "speckle", "gravel", "brick")
        return self.material(patterns, self.colour(0.1, 0.2, (0.4, 0.85)), stain=self.rng.uniform(0, 0.8))

    def leaf(self) -> Material:
        hue = self.rng.choice([0.28, 0.25, 0.22, 0.12])
        tone = self.colour(float(hue), 0.9, (0.25, 0.75))
        return self.material(("foliage", "foliage", "smooth_noise", "speckle"), tone, width=(0.4, 1.5))

    def ground(self) -> Material:
        hue = float(self.rng.choice([0.26, 0.24, 0.1, 0.08, 0.13]))
        tone = self.colour(hue, 0.7, (0.3, 0.8))
        patterns = ("foliage", "speckle", "speckle", "stones", "grain", "grass", "grass", "gravel")
        return self.material(patterns, tone, width=(1.0, 4.0), stain=self.rng.uniform(0.5, 1.0))

    def stone(self) -> Material:
        patterns = ("speckle", "stones", "marble", "plain", "gravel")
        return self.material(patterns, self.colour(0.1, 0.25, (0.3, 0.85)), stain=self.rng.uniform(0, 0.8))

    def skin(self) -> Material:
        return self.material(("plain",), self.colour(0.06, 0.6, (0.35, 0.95)), contrast=(0.05, 0.2), gloss=0.05)

    def lamp(self) -> Material:
        return self.material(("plain",), (1.0, 0.95, 0.85), contrast=(0.0, 0.1), glow=self.rng.uniform(1.5, 4.0))

    def any_object(self) -> Material:
        """For things in general."""
        draws = (self.wood, self.metal, self.plastic, self.plastic, self.fabric, self.paper, self.anything)
        return draws[int(self.rng.integers(len(draws)))]()

    def _quarter(self) -> float:
        return float(self.rng.integers(2)) * np.pi / 2
