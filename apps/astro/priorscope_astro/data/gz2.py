"""Galaxy Zoo 2: the vote table of Hart et al. (2016), the mapping to file names, and the JPEGs.

The published files: ``gz2_hart16.csv`` (or .csv.gz; ids ``dr7objid``), ``gz2_filename_mapping.csv`` (objid, sample,
asset_id; Zenodo 3565489) and ``images_gz2.zip`` (``images/ASSET_ID.jpg``, 424 x 424). Willett et al.'s tables (ids
``objid``) have the same vote columns and are read too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path, PurePosixPath

import numpy as np

from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_astro.conditions.condition import VoteKind
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.conditions.votes import VoteTable
from priorscope_astro.data.catalogue import column_text, column_values, positions_of, read_catalogue
from priorscope_astro.data.galaxies import GalaxySet, MemberPictures
from priorscope_astro.data.ids import ID_COLUMNS, id_column, object_ids

_VOTES = ("gz2_hart16.csv", "gz2_hart16.csv.gz")
_MAPPINGS = ("gz2_filename_mapping.csv", "gz2_filename_mapping.csv.gz")
_IMAGES = ("images_gz2.zip", "images", "images_gz2")
_OTHERS = ("gz2_class", "total_classifications", "total_votes", "redshift")


def read_gz2(
    root: str | PathLike[str],
    *,
    votes: str | PathLike[str] | None = None,
    mapping: str | PathLike[str] | None = None,
    images: str | PathLike[str] | None = None,
    pictures: bool = True,
    sample: str | None = None,
    kind: VoteKind = "debiased",
    label_column: str = "",
    more: Sequence[str] = (),
    tolerate: float = 0.01,
) -> GalaxySet:
    """Read a folder of Galaxy Zoo 2's files.

    Parameters
    ----------
    root : path-like
        The folder that holds them under their published names; or the vote table itself.
    votes, mapping, images : path-like, optional
        Where they have other names. `images` is a folder or a .zip of ASSET_ID.jpg.
    pictures : bool
        Whether pictures are wanted; without, neither mapping nor images are needed.
    sample : str, optional
        Rows of the mapping that count: original, stripe82, ... Default: original, or the only one there is.
    kind : {"debiased", "weighted_fraction", "fraction"}
        Which vote fractions to take.
    label_column : str
        A column of class names, where the table has one.
    more : sequence of str
        Further columns to keep.
    tolerate : float
        Largest share of objects whose votes may not sum: those are left out. More is an error.

    Returns
    -------
    GalaxySet
        Of mode display. Objects without a picture, or whose votes do not sum, are left out; ``notes`` say how many.

    Raises
    ------
    InputError
        A file or column is missing, ids are there twice or not exact, votes do not sum, or no object has a picture.
    """
    root = Path(root)
    folder = root if root.is_dir() else root.parent
    table_path = Path(votes) if votes is not None else root if root.is_file() else _first(folder, _VOTES, "vote table")
    wanted = [*ID_COLUMNS, "sample", "ra", "dec", *_OTHERS, *more, *([label_column] if label_column else [])]
    wanted += [f"{answer}_{part}" for answer in ANSWERS for part in ("count", kind)]
    table = read_catalogue(table_path, columns=wanted)
    for name in (*more, *([label_column] if label_column else [])):
        id_column(table.colnames, name, path=table_path)  # says which is missing
    name = id_column(table.colnames, path=table_path)
    ids = object_ids(table[name], path=table_path, column=name)
    columns = {column: table[column] for column in table.colnames}
    galaxies = GalaxySet(
        ids,
        labels=tuple(name.strip() for name in column_text(table[label_column])) if label_column else None,
        columns={key: column_values(table[key]) for key in (*_OTHERS, *more) if key in table.colnames}
        | positions_of(table, path=table_path),
    ).with_votes(VoteTable.from_columns(columns, kind=kind, path=table_path, ids=ids, tolerate=tolerate))
    if not pictures:
        return galaxies
    mapping_path = Path(mapping) if mapping is not None else _first(folder, _MAPPINGS, "file-name mapping")
    members = Members(images if images is not None else _first(folder, _IMAGES, "images"))
    return _with_pictures(galaxies, read_mapping(mapping_path, sample=sample), members, mapping_path)


def read_mapping(path: str | PathLike[str], *, sample: str | None = None) -> dict[str, str]:
    """Object id -> asset id, of one sample (default: original, or the only one there is).

    Raises
    ------
    InputError
        A column is missing, no row is of that sample (names those there are), or an object is there twice.
    """
    table = read_catalogue(path, columns=["objid", "sample", "asset_id"])
    for name in ("objid", "sample", "asset_id"):
        if name not in table.colnames:
            raise InputError(f"has no column {name!r}", path=path, remedy="It has objid, sample, asset_id.")
    samples = np.asarray(table["sample"]).astype(str)
    there = sorted(set(samples))
    sample = sample or (there[0] if len(there) == 1 else "original")
    rows = np.flatnonzero(samples == sample)
    if not len(rows):
        raise InputError(f"has no row of the sample {sample!r}", path=path, remedy=f"It has {', '.join(there)}.")
    ids = object_ids(table["objid"][rows], path=path, column="objid")
    assets = object_ids(table["asset_id"][rows], path=path, column="asset_id")
    return dict(zip(ids, assets, strict=True))


def _with_pictures(galaxies: GalaxySet, mapping: dict[str, str], members: Members, mapping_path: Path) -> GalaxySet:
    files: dict[str, str] = {}
    for file in members.names():
        path = PurePosixPath(file)
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and not path.name.startswith("."):
            files[path.stem] = file
    unmapped = [name for name in galaxies.ids if name not in mapping]
    if len(unmapped) == len(galaxies):
        raise InputError(
            f"none of the {len(galaxies)} objects of the vote table is in it (first: {galaxies.ids[0]})",
            path=mapping_path,
            remedy="Is it the mapping of this table, and are the ids whole?",
        )
    rows = [row for row, name in enumerate(galaxies.ids) if mapping.get(name) in files]
    if not rows:
        raise InputError(
            f"holds no picture of the {len(galaxies)} objects",
            path=members.path,
            remedy="Pictures are named ASSET_ID.jpg; is it complete?",
        )
    found = galaxies.select(rows)
    names = tuple(files[mapping[name]] for name in found.ids)
    missing = len(galaxies) - len(unmapped) - len(rows)
    notes = [f"{len(unmapped)} objects are not in the file-name mapping"] if unmapped else []
    notes += [f"{missing} objects have no picture in {members.path.name}"] if missing else []
    return replace(found, images=MemberPictures(members, names), notes=(*found.notes, *notes))


def _first(folder: Path, names: Sequence[str], what: str) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"has no {what} ({' or '.join(names)})", path=folder, remedy="Name it, if it is called otherwise.")
