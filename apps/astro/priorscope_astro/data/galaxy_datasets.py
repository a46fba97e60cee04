"""Galaxy Zoo 2 as Zoobot's galaxy-datasets keeps it: parquet catalogues of vote counts, beside or with pictures.

Two layouts: the package's folder (``gz2_train_catalog.parquet``, ``gz2_test_catalog.parquet``,
``images/SUBFOLDER/FILENAME``), and Hugging Face's parquet files, whose column ``image`` holds the encoded picture: one
file, or several (``data/train-00000-of-00004.parquet``, ...), which must all be there.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_astro.conditions.votes import GALAXY_DATASETS, VoteTable
from priorscope_astro.data.galaxies import EncodedPictures, GalaxySet, MemberPictures, Pictures
from priorscope_astro.data.ids import id_column, object_ids

#: Names of the files of a table that Hugging Face has cut; some end in a mark of their own.
_SHARD = re.compile(r"(?P<name>.*)-(?P<place>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")


def read_galaxy_datasets(
    root: str | PathLike[str],
    split: Literal["train", "test"] = "train",
    *,
    pictures: bool = True,
    tolerate: float = 0.01,
) -> GalaxySet:
    """Read the training or test galaxies.

    Parameters
    ----------
    root : path-like
        The folder, or one parquet file; of several files of one table any one names them all.
    split : {"train", "test"}
        Which catalogue of a folder.
    pictures : bool
        Whether pictures are wanted.
    tolerate : float
        Largest share of objects whose votes may not sum: those are left out, and ``notes`` say so.

    Returns
    -------
    GalaxySet
        With raw vote fractions: these catalogues have counts only, and do not say which odd feature was seen.

    Raises
    ------
    InputError
        A file or column is missing, ids are not unique, votes do not sum, or a picture is missing.
    """
    import pyarrow

    root = Path(root)
    paths = shards(root if root.is_file() else _catalogue(root, split))
    path = paths[0]
    votes = [f"{question}_{answer}" for question, answers in GALAXY_DATASETS.values() for answer in answers]
    wanted = {*votes, "id_str", "ra", "dec", "subfolder", "filename", "file_loc", "redshift"}
    wanted |= {"image"} if pictures else set()
    try:
        table = pyarrow.concat_tables([_read(shard, wanted) for shard in paths])
    except pyarrow.ArrowInvalid as error:
        raise InputError(
            f"and the {len(paths) - 1} files beside it have different columns ({str(error)[:100]})", path=path
        ) from None
    if not table.num_rows:
        raise InputError("has no rows", path=path)
    name = id_column(table.column_names, path=path)
    ids = object_ids(table.column(name).to_numpy(), path=path, column=name)
    columns = {column: table.column(column).to_numpy() for column in table.column_names if column in votes}
    shown: Pictures | None = None
    if pictures:
        shown = _encoded(table, path) if "image" in table.column_names else _files(table, path.parent)
    return GalaxySet(
        ids,
        shown,
        columns={key: table.column(key).to_numpy() for key in ("ra", "dec", "redshift") if key in table.column_names},
    ).with_votes(VoteTable.from_columns(columns, path=path, ids=ids, tolerate=tolerate))


def holds_votes(path: Path, *, pictures: bool = False) -> bool:
    """Whether a parquet file has these votes, and pictures in it or beside it where those are wanted."""
    names = _schema(path)
    votes = f"{GALAXY_DATASETS['t01_smooth_or_features'][0]}_smooth" in names
    return votes and (not pictures or "image" in names or (path.parent / "images").is_dir())


def shards(path: Path) -> list[Path]:
    """All files of the table that one of them belongs to: itself, or NAME-00000-of-0000N.parquet and its like.

    Raises
    ------
    InputError
        One is missing, or there twice.
    """
    match = _SHARD.fullmatch(path.stem)
    if match is None:
        return [path]
    count = int(match["count"])
    of_place: dict[int, Path] = {}
    for file in sorted(path.parent.glob(f"*{path.suffix}")):
        other = _SHARD.fullmatch(file.stem)
        if other is None or (other["name"], other["count"]) != (match["name"], match["count"]):
            continue
        place = int(other["place"])
        if place in of_place or place >= count:
            raise InputError(
                f"and {of_place.get(place, path).name} are not two of {count} files of a table",
                path=file,
                remedy="Remove the one that is too many.",
            )
        of_place[place] = file
    missing = [place for place in range(count) if place not in of_place]
    if missing:
        raise InputError(
            f"is one of {count} files of a table, and number {missing[0]:05d} is missing ({len(missing)} are)",
            path=path,
            remedy="Download all of them.",
        )
    return [of_place[place] for place in range(count)]


def _schema(path: Path) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(path).names)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"is no parquet file that can be read ({str(error)[:100]})", path=path) from None


def _read(path: Path, wanted: set[str]) -> Any:
    import pyarrow
    from pyarrow import parquet

    names = _schema(path)
    try:
        return parquet.read_table(path, columns=[name for name in names if name in wanted])
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"is no parquet file that can be read ({str(error)[:100]})", path=path) from None


def _catalogue(root: Path, split: str) -> Path:
    if split not in ("train", "test"):
        raise InputError(f"there is no split {split!r}", path=root, remedy="galaxy-datasets has train and test.")
    if not root.is_dir():
        raise InputError("no such file or folder", path=root, remedy="Check the path.")
    for pattern in (f"gz2_{split}_catalog.parquet", f"*{split}*.parquet", f"data/*{split}*.parquet"):
        found = sorted(root.glob(pattern))
        tables = {tuple(shards(path)) for path in found}
        if len(tables) > 1:
            raise InputError(
                f"has {len(tables)} catalogues of the {split} split", path=root, remedy="Name one of the files."
            )
        if found:
            return found[0]
    raise InputError(f"has no gz2_{split}_catalog.parquet", path=root, remedy="Name the file if it has another name.")


def _encoded(table: object, path: Path) -> EncodedPictures:
    column = table.column("image").to_pylist()  # type: ignore[attr-defined]
    data = [value.get("bytes") if isinstance(value, dict) else value for value in column]
    pictures = [value for value in data if isinstance(value, bytes)]
    if len(pictures) != len(data):
        row = next(row for row, value in enumerate(data) if not isinstance(value, bytes))
        raise InputError(f"row {row + 1} has no picture in its column 'image'", path=path)
    return EncodedPictures(tuple(pictures), path)


def _files(table: object, folder: Path) -> MemberPictures:
    names = table.column_names  # type: ignore[attr-defined]
    if "subfolder" not in names or "filename" not in names:
        raise InputError(
            "the catalogue has neither pictures nor the columns subfolder and filename",
            path=folder,
            remedy="Read it with pictures=False if only votes are wanted.",
        )
    parts = zip(table.column("subfolder").to_pylist(), table.column("filename").to_pylist(), strict=True)  # type: ignore[attr-defined]
    files = tuple(f"{subfolder}/{filename}" for subfolder, filename in parts)
    members = Members(folder / "images")
    there = set(members.names())
    missing = np.flatnonzero([name not in there for name in files])
    if len(missing):
        raise InputError(
            f"{files[missing[0]]} is not there ({len(missing)} of {len(files)} pictures are missing)",
            path=members.path,
            remedy="Unpack images_gz2.tar.gz here.",
        )
    return MemberPictures(members, files)
