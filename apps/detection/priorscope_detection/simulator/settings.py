"""What can be set of the simulator; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Literal

from priorscope.errors import InputError

Kind = Literal["any", "crossing", "bend", "street"]
#: Seconds from one moment of a scenario to the next, and that a LiDAR takes for a turn.
STEP = 0.1


@dataclass(frozen=True)
class LidarSettings:
    """A rotating LiDAR."""

    beams: int = 32
    """Lasers, evenly spread over the angles below."""
    columns: int = 1024
    """Firings a turn."""
    lowest: float = -25.0
    """Angle of the lowest laser above the horizon, degrees."""
    highest: float = 3.0
    """Angle of the highest laser, degrees."""
    reach: float = 100.0
    """Metres; nothing further comes back."""
    range_noise: float = 0.02
    """Standard deviation along the ray, metres."""
    dropout: float = 0.04
    """Chance that a return is lost whatever it hit."""
    compensated: bool = True
    """Points are those of the moment of the stamp: the sensor's own motion during a turn is taken out. Otherwise they
    stay as measured, skewed by up to speed x period."""

    def __post_init__(self) -> None:
        if self.beams < 1 or self.columns < 8 or self.beams * self.columns > 4_000_000:
            raise InputError(
                f"a LiDAR of {self.beams} beams and {self.columns} columns cannot be simulated",
                remedy="Use 1 beam or more, 8 columns or more, 4 million rays a turn at most.",
            )
        if not -90 < self.lowest <= self.highest < 90:
            raise InputError(
                f"a LiDAR's beams from {self.lowest:g} to {self.highest:g} degrees",
                remedy="Use lowest up to highest, between -90 and 90.",
            )
        if not (0 < self.reach < inf and 0 <= self.range_noise < inf and 0 <= self.dropout < 1):
            raise InputError(
                f"a LiDAR of reach {self.reach:g} m, range noise {self.range_noise:g} m, dropout {self.dropout:g}",
                remedy="Use a reach above 0, noise of 0 or more, a dropout of 0 or more, below 1.",
            )


@dataclass(frozen=True)
class StreetSettings:
    """A scenario: streets, traffic, agents."""

    kind: Kind = "any"
    """crossing, bend, street; any draws one of them."""
    cars: int = 3
    """Connected cars, the ego among them."""
    road_side_unit: bool = True
    """A LiDAR on a pole of 5 m; its agent is called -1."""
    frames: int = 10
    """Moments, 100 ms apart."""
    lidar: LidarSettings = field(default_factory=LidarSettings)
    spread: float = 40.0
    """The other connected cars are at most this far from the ego, metres."""
    traffic: float = 1.0
    """Moving vehicles, as a multiple of the usual."""
    parked: float = 0.6
    """Share of the parking places that is taken."""
    tilt: float = 0.3
    """Standard deviation of a car's roll and pitch, degrees; the pose tells them."""
    listed_hits: int = 1
    """A vehicle is in an agent's list if at least so many of its rays hit it; 0: all within reach, as in CARLA."""
    extent: float = 110.0
    """Half the length of a street, metres."""

    def __post_init__(self) -> None:
        if self.kind not in ("any", "crossing", "bend", "street"):
            raise InputError(f"no street is of the kind {self.kind!r}", remedy="Choose any, crossing, bend, street.")
        if self.cars < 1 or self.cars > 16 or self.frames < 1 or self.listed_hits < 0:
            raise InputError(
                f"a scenario of {self.cars} connected cars and {self.frames} frames, vehicles listed from "
                f"{self.listed_hits} hits",
                remedy="Use 1 to 16 cars, 1 frame or more, 0 hits or more.",
            )
        for name, most in (("spread", inf), ("traffic", 3.0), ("parked", 1.0), ("tilt", inf), ("extent", inf)):
            value = getattr(self, name)
            if not (0 <= value <= most and isfinite(value)):
                limit = "" if most == inf else f" and {most:g} at most"
                raise InputError(
                    f"{name} of a scenario is {value:g}, which is not a number of 0 or more{limit}",
                    remedy=f"Mend --streets.{name}.",
                )
        if self.extent < 60:
            raise InputError(f"streets of half length {self.extent:g} m", remedy="Give 60 m or more.")


#: What the bundled model has learned: two connected cars and a road-side unit, close together, LiDARs of 24 beams.
COMPACT = StreetSettings(
    cars=2, spread=25.0, lidar=LidarSettings(beams=24, columns=512, lowest=-22.0, highest=2.0, reach=60.0)
)
