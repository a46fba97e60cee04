"""Splits into training, validation and test galaxies, by object id, written to disk; leakage is refused.

Which split a galaxy belongs to depends on the seed and its id alone: a longer catalogue moves nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.conditions.tree import nearest
from priorscope_astro.data.catalogue import read_catalogue, write_catalogue
from priorscope_astro.data.ids import id_column, object_ids

#: Names of the splits.
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Object id -> train, validation or test."""

    of_id: Mapping[str, str]

    def __post_init__(self) -> None:
        for name, split in self.of_id.items():
            checked_split(split, what=f"object {name}")

    def __len__(self) -> int:
        return len(self.of_id)

    def ids(self, split: str) -> tuple[str, ...]:
        """The ids of a split, sorted."""
        checked_split(split)
        return tuple(sorted(name for name, where in self.of_id.items() if where == split))

    def mask(self, ids: Sequence[str], split: str) -> NDArray[np.bool_]:
        """Which of some objects belong to a split.

        Raises
        ------
        InputError
            No such split, or an object that belongs to none.
        """
        checked_split(split)
        self._refuse_unknown(ids)
        return np.array([self.of_id[name] == split for name in ids], bool)

    def guard(self, ids: Iterable[str], allowed: Sequence[str] = ("train",), *, what: str = "these galaxies") -> None:
        """Refuse leakage: every id must belong to one of the allowed splits.

        Parameters
        ----------
        ids : iterable of str
        allowed : sequence of str
        what : str
            What they are to be used for, for the message.

        Raises
        ------
        InputError
            One does not, or belongs to no split; says which and how many.
        """
        ids = list(ids)
        for split in allowed:
            checked_split(split)
        self._refuse_unknown(ids)
        wrong = [name for name in ids if self.of_id[name] not in allowed]
        if wrong:
            raise InputError(
                f"{what}: object {wrong[0]} belongs to the {self.of_id[wrong[0]]} split, and only {', '.join(allowed)} "
                f"may be used ({len(wrong)} of {len(ids)} leak)",
                remedy="Take them out, or give the splits that belong to this catalogue.",
            )

    def digest(self) -> str:
        """A mark (16 hexadecimal digits) of who belongs where."""
        content = "\n".join(f"{name} {self.of_id[name]}" for name in sorted(self.of_id))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _refuse_unknown(self, ids: Iterable[str]) -> None:
        unknown = [name for name in ids if name not in self.of_id]
        if unknown:
            raise InputError(
                f"object {unknown[0]} belongs to no split ({len(unknown)} such objects)",
                remedy="Make the splits from the whole catalogue.",
            )

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write as a table of object_id and split, in the format of the suffix (.ecsv, .csv, .fits, .vot).

        Raises
        ------
        InputError
            It exists, or cannot be written.
        """
        from astropy.table import QTable

        names = sorted(self.of_id)
        table = QTable({"object_id": np.array(names), "split": np.array([self.of_id[name] for name in names])})
        return write_catalogue(table, path, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | PathLike[str], *, column: str = "") -> Splits:
        """Read a table with a column of object ids and one named split.

        Raises
        ------
        InputError
            No such file or column, an id that is there twice (it would leak), or another name of a split.
        """
        table = read_catalogue(path)
        name = id_column(table.colnames, column, path=path)
        if "split" not in table.colnames:
            raise InputError(
                f"has no column 'split'; it has {', '.join(table.colnames[:8])}",
                path=path,
                remedy="Splits are a table of object_id and split (train, validation, test).",
            )
        ids = object_ids(table[name], path=path, column=name)
        try:
            return cls(dict(zip(ids, (str(split) for split in table["split"]), strict=True)))
        except InputError as error:
            raise InputError(error.fact, path=path, remedy=error.remedy) from None


def checked_split(name: str, *, what: str = "") -> str:
    """The name, if it is a split's.

    Raises
    ------
    InputError
        It is not; the nearest is suggested.
    """
    if name not in SPLITS:
        raise InputError(f"{what + ': ' if what else ''}there is no split {name!r}", remedy=nearest(name, SPLITS))
    return name


def make_splits(
    ids: Sequence[str],
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    groups: Sequence[Any] | None = None,
) -> Splits:
    """Divide objects at random, by their ids.

    Parameters
    ----------
    ids : sequence of str
        Each once.
    validation, test : float
        Shares, expected; the rest trains.
    seed : int
        Another seed divides otherwise.
    groups : sequence, optional
        A group an object; a group stays together (the same galaxy under several ids; :func:`sky_groups` finds them).

    Raises
    ------
    InputError
        Shares outside [0, 1) or together 1 or more, or a duplicate id.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise InputError(
            f"the shares of validation and test are {validation:g} and {test:g}",
            remedy="Each is 0 or more, and together they leave something to train on.",
        )
    ids = object_ids(np.asarray(ids, dtype=str)) if len(ids) else ()
    keys = ids if groups is None else tuple(f"group {group}" for group in groups)
    if len(keys) != len(ids):
        raise InputError(f"{len(ids)} objects have {len(keys)} groups")
    of_id = {}
    for name, key in zip(ids, keys, strict=True):
        place = int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64
        of_id[name] = "test" if place < test else "validation" if place < test + validation else "train"
    return Splits(of_id)


def sky_groups(ra: NDArray[Any], dec: NDArray[Any], *, radius: float = 2.0) -> NDArray[np.int64]:
    """Number the objects of the sky: rows closer than `radius` are one object, under whatever ids.

    Parameters
    ----------
    ra, dec : ndarray, (N,)
        Degrees.
    radius : float
        Arcsec.

    Returns
    -------
    ndarray of int, (N,)
        The number of the first row that is the same object (over chains of neighbours).

    Raises
    ------
    InputError
        Positions that are not finite or no positions, or a radius that is none.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if not 0 < radius < 3600 * 180:
        raise InputError(f"a radius of {radius:g} arcsec", remedy="Use more than 0, up to 180 degrees.")
    if any(np.asarray(place).dtype.kind not in "iuf" for place in (ra, dec)):
        raise InputError("ra and dec are no numbers", remedy="Give decimal degrees. Without positions: --sky-radius 0.")
    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    if ra.shape != dec.shape or ra.ndim != 1 or not (np.isfinite(ra) & np.isfinite(dec)).all() or (abs(dec) > 90).any():
        raise InputError(
            "ra and dec are not N finite positions in degrees",
            remedy="Declinations lie in [-90, 90]. Without positions: --sky-radius 0.",
        )
    a, d = np.radians(ra), np.radians(dec)
    points = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], 1)
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    pairs = cKDTree(points).query_pairs(chord, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ra), len(ra)))
    group = connected_components(graph, directed=False)[1]
    first = np.full(group.max() + 1 if len(group) else 0, len(group))
    np.minimum.at(first, group, np.arange(len(group)))
    return first[group]


def refuse_sky_leakage(
    splits: Splits, ids: Sequence[str], ra: NDArray[Any], dec: NDArray[Any], *, radius: float = 2.0
) -> None:
    """Refuse splits in which one place of the sky lies in two splits, under two ids.

    Raises
    ------
    InputError
        Names the first pair.
    """
    groups = sky_groups(ra, dec, radius=radius)
    for row in np.flatnonzero(groups != np.arange(len(groups))).tolist():
        one, other = ids[groups[row]], ids[row]
        if splits.of_id.get(one) != splits.of_id.get(other):
            raise InputError(
                f"objects {one} ({splits.of_id.get(one)}) and {other} ({splits.of_id.get(other)}) are the same place "
                f"of the sky within {radius:g} arcsec, in two splits",
                remedy="Make the splits with groups, or drop one of the two.",
            )
