"""The ten classes of Galaxy10 DECaLS, and what they say about the questions of the Galaxy Zoo 2 tree."""

from __future__ import annotations

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.tree import nearest

#: Names of the classes, in the order of their numbers 0 to 9.
CLASSES: tuple[str, ...] = (
    "Disturbed",
    "Merging",
    "Round Smooth",
    "In-between Round Smooth",
    "Cigar Round Smooth",
    "Barred Spiral",
    "Unbarred Tight Spiral",
    "Unbarred Loose Spiral",
    "Edge-on without Bulge",
    "Edge-on with Bulge",
)

_TAGS: tuple[str, ...] = (
    "disturbed galaxy",
    "merger",
    "completely round galaxy",
    "in-between round galaxy",
    "cigar shaped galaxy",
    "spiral galaxy, bar-shaped structure in the center of galaxy",
    "spiral galaxy, no bar, tightly wound spiral arms",
    "spiral galaxy, no bar, loosely wound spiral arms",
    "without edge-on bulge",
    "with rounded edge-on bulge",  # or boxy: the class does not tell. Rounded is the usual one (86 % of such votes)
)


def galaxy10_condition(kind: int | str, *, survey: str = "") -> Condition:
    """The condition that says what a Galaxy10 class says.

    Parameters
    ----------
    kind : int or str
        Number 0 to 9, or name.
    survey : str
        As in :class:`Condition`.

    Raises
    ------
    InputError
        No such class.
    """
    if isinstance(kind, str):
        if kind not in CLASSES:
            raise InputError(f"Galaxy10 has no class {kind!r}", remedy=nearest(kind, CLASSES))
        kind = CLASSES.index(kind)
    if not 0 <= kind < len(CLASSES):
        raise InputError(f"Galaxy10 has no class {kind}", remedy="Its classes are 0 to 9.")
    return Condition.from_tags(", ".join(filter(None, (survey, _TAGS[kind]))))
