"""Channel data: what each element of a probe has recorded after each transmitted wave. For research use only.

Coordinates are metres: x along the probe, z away from it, y across; times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

#: Share of samples at the largest or least value above which a recording counts as clipped, and as useless.
CLIPPED, USELESS = 1e-3, 0.1
#: The note of a reader that found no carrier; dropped where the user gives it.
NO_CARRIER = "the file does not state the pulse's frequency"


@dataclass(frozen=True)
class Transmit:
    """A transmitted wave. Its time zero is when it passes ``origin``.

    Parameters
    ----------
    start : float
        Time of the first sample in s.
    angle : float
        Direction of a plane wave in radians, from z towards x.
    source : (x, y, z), optional
        In m: where a focused wave comes together (in front of the probe), or where a diverging one seems to come from
        (behind it). None: a plane wave.
    origin : (x, y, z)
        In m.
    """

    start: float = 0.0
    angle: float = 0.0
    source: tuple[float, float, float] | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        values = [self.start, self.angle, *self.origin, *(self.source or ())]
        if not all(math.isfinite(value) for value in values) or self.source == self.origin:
            raise InputError(f"a transmit with {self}", remedy="Give finite numbers, and a source off the origin.")

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector along which the wave passes the origin."""
        if self.source is None:
            return (math.sin(self.angle), 0.0, math.cos(self.angle))
        there = [a - b for a, b in zip(self.source, self.origin, strict=True)]
        sign = 1.0 if there[2] >= 0 else -1.0
        length = math.sqrt(sum(value**2 for value in there))
        return (sign * there[0] / length, sign * there[1] / length, sign * there[2] / length)


@dataclass(frozen=True)
class ChannelData:
    """Echoes as the elements recorded them.

    Parameters
    ----------
    samples : ndarray [frames, transmits, samples, elements]
        Real (RF) or complex (IQ, demodulated with exp(-2 pi i carrier t)); float32 or complex64.
    sampling : float
        Samples a second, in Hz.
    carrier : float or None
        Centre frequency of the pulse in Hz; of IQ the frequency it was demodulated with.
    elements : ndarray (elements, 3)
        Positions in m.
    transmits : tuple of Transmit
    speed : float
        Of sound, in m/s.
    bandwidth : float, optional
        Of the pulse in parts of the carrier, between -6 dB points; 0.6, say.
    frame_rate : float, optional
        In Hz.
    source : Path, optional
    notes : tuple of str
        What had to be assumed or was found while reading.
    dead : tuple of int
        Elements without a signal, which beamforming leaves out.

    Raises
    ------
    InputError
        Shapes or numbers that do not belong together.
    """

    samples: NDArray[Any]
    sampling: float
    carrier: float | None
    elements: NDArray[np.float64]
    transmits: tuple[Transmit, ...]
    speed: float = 1540.0
    bandwidth: float | None = None
    frame_rate: float | None = None
    source: Path | None = None
    notes: tuple[str, ...] = ()
    dead: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.samples.ndim != 4 or 0 in self.samples.shape:
            raise InputError(
                f"channel data of shape {list(self.samples.shape)}",
                path=self.source,
                remedy="[frames, transmits, samples, elements] was expected, none of them 0.",
            )
        if self.elements.ndim != 2 or self.elements.shape[1] != 3 or not np.isfinite(self.elements).all():
            raise InputError(f"element positions of shape {list(self.elements.shape)}, (elements, 3) was expected")
        _check_axes(self.samples.shape, len(self.elements), len(self.transmits), self.source)
        for name in ("sampling", "speed"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}", path=self.source, remedy="It must be positive.")
        for name in ("carrier", "bandwidth", "frame_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}", path=self.source, remedy="It must be positive.")
        if not 100 < self.speed < 10_000:
            raise InputError(f"sound at {self.speed:g} m/s", path=self.source, remedy="Tissue has about 1540 m/s.")

    @property
    def is_iq(self) -> bool:
        """Whether the samples are complex."""
        return np.iscomplexobj(self.samples)

    @property
    def pitch(self) -> float:
        """Median distance of neighbouring elements in m."""
        if len(self.elements) < 2:
            return 0.0
        return float(np.median(np.linalg.norm(np.diff(self.elements, axis=0), axis=1)))

    def times(self, transmit: int) -> NDArray[np.float64]:
        """Times of the samples of a transmit in s."""
        return self.transmits[transmit].start + np.arange(self.samples.shape[2]) / self.sampling

    def frames(self, chosen: slice) -> ChannelData:
        """Some of the frames."""
        return replace(self, samples=self.samples[chosen])


def linear_array(count: int, pitch: float) -> NDArray[np.float64]:
    """Positions (count, 3) of elements in a row along x, ``pitch`` metres apart, centred at 0."""
    positions = np.zeros((count, 3))
    positions[:, 0] = (np.arange(count) - (count - 1) / 2) * pitch
    return positions


def checked(data: ChannelData) -> ChannelData:
    """Look at the samples themselves: the same data with its dead elements and notes, or a refusal.

    Raises
    ------
    InputError
        Values that are not finite, no signal at all, or more than a tenth of the samples clipped.
    """
    samples = data.samples
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise InputError(f"{bad} samples are not finite", path=data.source, remedy="Repair or leave out those frames.")
    flat = (samples == samples[:, :, :1]).all(axis=(0, 1, 2))
    dead = tuple(np.flatnonzero(flat).tolist())
    notes = list(data.notes)
    if len(dead) == samples.shape[3]:
        raise InputError("every channel is constant: there is no signal", path=data.source, remedy="Check the file.")
    if dead:
        notes.append(f"{len(dead)} of {samples.shape[3]} channels are constant and left out")
    notes += clipping_notes(samples[..., ~flat], data.source)
    return replace(data, dead=dead, notes=tuple(notes))


def clipping_notes(samples: NDArray[Any], path: Path | None) -> tuple[str, ...]:
    """What to tell of clipped samples; InputError where more than a tenth are."""
    share = clipped_share(samples)
    if share > USELESS:
        raise InputError(
            f"{100 * share:.0f} % of the samples are clipped",
            path=path,
            remedy="Record with less gain: no method brings them back.",
        )
    return (f"{100 * share:.1f} % of the samples are clipped",) if share > CLIPPED else ()


def clipped_share(samples: NDArray[Any]) -> float:
    """Share of the samples that are not 0 which stand at the largest or the least value there is.

    Of a signal with room to spare it is a few samples in all.
    """
    worst = 0.0
    for part in (samples.real, samples.imag) if np.iscomplexobj(samples) else (samples,):
        at_rail = (part == part.max()) | (part == part.min())
        signal = part != 0
        worst = max(worst, float((at_rail & signal).sum()) / max(1, int(signal.sum())))
    return worst


def _check_axes(shape: Sequence[int], elements: int, transmits: int, path: Path | None) -> None:
    if shape[3] == elements and shape[1] == transmits:
        return
    places = {"frames": shape[0], "transmits": shape[1], "samples": shape[2], "elements": shape[3]}
    fact = ", ".join(f"{name} {length}" for name, length in places.items())
    others = [name for name, length in places.items() if length == elements and name != "elements"]
    remedy = f"The {others[0]} axis has as many: are axes in another order?" if others else None
    raise InputError(
        f"channel data is read as {fact}, but the probe has {elements} elements and there are {transmits} transmits",
        path=path,
        remedy=remedy,
    )
