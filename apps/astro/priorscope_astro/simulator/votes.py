"""Volunteers who look at simulated galaxies and walk through the decision tree of Galaxy Zoo 2.

How likely each answer is follows from what is true of the galaxy: volunteers mistake what is close to a border (an axis
ratio between round and in between, a bulge between noticeable and obvious), overlook faint structure, and now and then
click at random. The numbers are ours, made to look like the published tables; nothing is fitted to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.tree import ANSWER, ANSWERS, ANSWERS_OF, ASKED_AFTER, QUESTIONS, SLICES
from priorscope_astro.simulator.galaxy import Galaxy

Array = NDArray[np.float64]

#: Galaxies differ in how people see them: the shares at a question are drawn from a Dirichlet distribution about
#: :func:`vote_shares`, whose concentrations add up to this.
SPREAD = 30.0
#: Share of random clicks.
_CARELESS = 0.02
#: Borders between answers: axis ratio (cigar, in between, round), share of the bulge (no, just noticeable, obvious,
#: dominant), pitch in degrees (tight, medium, loose).
_ROUNDNESS, _BULGE, _PITCH = (0.4, 0.8), (0.05, 0.21, 0.42), (15.0, 24.0)
_ODD = {
    "ring": "t08_odd_feature_a19_ring",
    "merger": "t08_odd_feature_a24_merger",
    "dust_lane": "t08_odd_feature_a38_dust_lane",
}


def exact_answers(galaxy: Galaxy) -> dict[str, str]:
    """Question -> the answer that is true, for the questions that true answers lead to.

    Of two merging galaxies neither bar nor arms nor bulge is *the* answer: those questions are left out.
    """
    true = {
        "t01_smooth_or_features": "a02_features_or_disk" if galaxy.disc or galaxy.partner else "a01_smooth",
        "t02_edgeon": "a04_yes" if galaxy.edge_on else "a05_no",
        "t03_bar": "a06_bar" if galaxy.bar else "a07_no_bar",
        "t04_spiral": "a08_spiral" if galaxy.arms else "a09_no_spiral",
        "t05_bulge_prominence": ("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant")[
            _between(galaxy.bulge, _BULGE)
        ],
        "t06_odd": "a14_yes" if galaxy.kind in _ODD else "a15_no",
        "t07_rounded": ("a18_cigar_shaped", "a17_in_between", "a16_completely_round")[
            _between(galaxy.axis_ratio, _ROUNDNESS)
        ],
        "t09_bulge_shape": "a27_no_bulge" if not galaxy.bulge else "a26_boxy" if galaxy.boxy else "a25_rounded",
        "t10_arms_winding": ("a28_tight", "a29_medium", "a30_loose")[_between(galaxy.pitch, _PITCH)],
        "t11_arms_number": ("a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4")[min(max(galaxy.arms, 1), 5) - 1],
    }
    found: dict[str, str] = {}
    for question in QUESTIONS:
        if galaxy.partner and question in ("t03_bar", "t04_spiral", "t05_bulge_prominence"):
            continue
        if not ASKED_AFTER[question] or any(found.get(ANSWER[name].question) == name for name in ASKED_AFTER[question]):
            found[question] = _ODD[galaxy.kind] if question == "t08_odd_feature" else f"{question}_{true[question]}"
    return found


def exact_condition(galaxy: Galaxy) -> Condition:
    """:func:`exact_answers` as shares of 0 and 1."""
    answers = exact_answers(galaxy)
    return Condition(
        {question: tuple(float(name == answers[question]) for name in ANSWERS_OF[question]) for question in answers}
    )


def vote_shares(galaxy: Galaxy) -> dict[str, Array]:
    """Question -> expected share of each answer among those who are asked, in the tree's order; sums are 1."""
    odd = 0.82 if galaxy.kind in _ODD else 0.07
    flat = 0.85 if galaxy.edge_on else 0.3 if galaxy.axis_ratio < 0.35 else 0.03
    shares = {
        "t01_smooth_or_features": _first(galaxy),
        "t02_edgeon": [flat, 1 - flat],
        "t03_bar": _yes_no(0.08 + (0.5 + 1.1 * galaxy.bar_share if galaxy.bar else 0)),
        "t04_spiral": _yes_no(0.1 + (0.5 + 0.45 * galaxy.arm_share if galaxy.arms else 0)),
        "t05_bulge_prominence": _ordered(galaxy.bulge, _BULGE, 0.03 + 0.12 * galaxy.bulge),
        "t06_odd": [odd, 1 - odd],
        "t07_rounded": _ordered(galaxy.axis_ratio, _ROUNDNESS, 0.07)[::-1],
        "t08_odd_feature": _odd_feature(galaxy),
        "t09_bulge_shape": [0.1, 0.05, 0.85]
        if not galaxy.bulge
        else [0.3, 0.6, 0.1]
        if galaxy.boxy
        else [0.8, 0.1, 0.1],
        "t10_arms_winding": _ordered(galaxy.pitch, _PITCH, 4.0) if galaxy.arms else [0.4, 0.3, 0.3],
        "t11_arms_number": _arms_number(galaxy),
    }
    mixed = {}
    for question in QUESTIONS:
        share = np.asarray(shares[question], np.float64)
        mixed[question] = (1 - _CARELESS) * share / share.sum() + _CARELESS / len(share)
    return mixed


def volunteer_votes(galaxy: Galaxy, volunteers: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Votes (37,) for each answer, in the order of ANSWERS, of volunteers who are asked what the tree asks.

    Parameters
    ----------
    galaxy : Galaxy
    volunteers : int
        Each answers the first question once.
    random : numpy.random.Generator
    """
    shares = vote_shares(galaxy)
    counts = np.zeros(len(ANSWERS), np.int64)
    for question in QUESTIONS:  # in the tree's order a question comes after those that lead to it
        before = ASKED_AFTER[question]
        asked = int(sum(counts[ANSWERS.index(name)] for name in before)) if before else volunteers
        seen = random.dirichlet(SPREAD * shares[question])  # also where nobody is asked: later draws stay the same
        counts[SLICES[question]] = random.multinomial(asked, seen / seen.sum())
    return counts


def _first(galaxy: Galaxy) -> list[float]:
    if galaxy.partner:
        features = 0.7
    elif galaxy.edge_on:
        features = 0.86
    elif galaxy.disc:
        features = min(0.35 + 0.7 * max(galaxy.arm_share, galaxy.ring_share, 1.8 * galaxy.bar_share), 0.95)
    else:
        features = 0.1 + (0.15 if galaxy.axis_ratio < 0.35 else 0) + (0.2 if galaxy.dust else 0)
    return [0.97 - features, features, 0.03]


def _odd_feature(galaxy: Galaxy) -> Array:
    names = ANSWERS_OF["t08_odd_feature"]
    share = np.full(len(names), 0.02)
    share[names.index("t08_odd_feature_a23_other")] = 0.06
    if galaxy.kind in _ODD:
        share[names.index(_ODD[galaxy.kind])] = 0.8
    else:
        share[:] = 1.0
    if galaxy.kind == "merger":
        share[names.index("t08_odd_feature_a21_disturbed")] = 0.15
    return share


def _arms_number(galaxy: Galaxy) -> Array:
    share = np.full(6, 0.02)
    share[5] = 0.12 + 0.1 * (galaxy.pitch < 12)  # cannot tell
    if galaxy.arms:
        place = min(galaxy.arms, 5) - 1
        share[place] = 0.75
        for neighbour in (place - 1, place + 1):
            if 0 <= neighbour < 5:
                share[neighbour] += 0.06 * (galaxy.arms > 2) + 0.02
    else:
        share[5] = 0.6
    return share


def _yes_no(yes: float) -> list[float]:
    return [min(yes, 0.95), 1 - min(yes, 0.95)]


def _between(value: float, borders: Sequence[float]) -> int:
    return int(np.searchsorted(borders, value, side="right"))


def _ordered(value: float, borders: Sequence[float], blur: float) -> Array:
    """Shares of the intervals between borders for a value that is seen with a Gaussian error."""
    below = ndtr((np.asarray(borders) - value) / blur)
    return np.diff(below, prepend=0.0, append=1.0)
