"""Galaxies from whatever layout is there: the reader is chosen by what a folder or file holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.conditions.votes import GALAXY_DATASETS, VoteTable
from priorscope_astro.data.catalogue import column_text, positions_of, read_catalogue
from priorscope_astro.data.fits_stamps import read_fits_stamps
from priorscope_astro.data.galaxies import GalaxySet, hdf5_file
from priorscope_astro.data.galaxy10 import read_galaxy10
from priorscope_astro.data.galaxy_datasets import holds_votes, read_galaxy_datasets, shards
from priorscope_astro.data.gz2 import read_gz2
from priorscope_astro.data.ids import id_column, object_ids
from priorscope_astro.data.pairs import read_pairs
from priorscope_astro.data.stamps import Stamps, read_stamps

_STAMPS = ("stamps.npz", "stamps.h5")
_HDF5 = (".h5", ".hdf5")
#: Of a vote table's columns; a table of true answers has its question's column alone.
_FIRST_ANSWER = ANSWERS[0]


def read_galaxies(
    path: str | PathLike[str],
    *,
    mode: Literal["display", "flux"] = "display",
    pictures: bool = True,
    label_column: str = "",
    ids: str = "",
) -> GalaxySet:
    """Read galaxies.

    Parameters
    ----------
    path : path-like
        A folder: Galaxy Zoo 2 (``gz2_hart16.csv``; simulated surveys too), galaxy-datasets (parquet), or image-text
        pairs, or FITS stamps. A file: Galaxy10 (.h5), stamps (.npz, .h5), galaxy-datasets' parquet (of several files
        of one table any one), or a catalogue (.csv, .ecsv, .fits, .vot, .parquet), with vote columns or with a column
        of classes.
    mode : {"display", "flux"}
        In a folder that holds both, pictures or the flux of ``stamps.npz``.
    pictures : bool
        Whether pictures are wanted; of the files, parquet alone may have some.
    label_column : str
        A column of class names, where there is a table.
    ids : str
        The column of object ids of a catalogue; by default the first usual name.

    Raises
    ------
    InputError
        Nothing that is known, a column that is named where there is no table, or as the reader of that layout says.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, mode, pictures, label_column, ids)
    if not path.exists():
        raise InputError("no such file or folder", path=path, remedy="Check the path.")
    if path.suffix == ".npz" or (path.suffix in _HDF5 and holds_flux(path)):
        refuse_columns(path, "stamps", label_column, ids)
        return read_stamps(path).galaxies()
    if path.suffix in _HDF5:
        refuse_columns(path, "Galaxy10's pictures", label_column, ids)
        return read_galaxy10(path)
    if path.suffix == ".parquet" and not label_column and not ids and holds_votes(path):
        return read_galaxy_datasets(path, pictures=pictures and holds_votes(path, pictures=True))
    return _from_table(path, label_column, ids)


def read_flux(path: str | PathLike[str]) -> Stamps:
    """Read stamps of flux: a .npz or .h5 file, or a folder that holds stamps.npz, stamps.h5 or FITS files.

    Raises
    ------
    InputError
        Nothing of that is there, or as its reader says.
    """
    path = Path(path)
    if not path.is_dir():
        return read_stamps(path)
    file = stamps_file(path)
    if file is not None:
        return read_stamps(file)
    if next(path.rglob("*.fits*"), None) is not None:
        return read_fits_stamps(path)
    raise InputError(f"has no {' or '.join(_STAMPS)}, nor FITS files", path=path, remedy="Flux is read from stamps.")


def holds_flux(path: Path) -> bool:
    """Whether a file or folder holds flux (and perhaps pictures too): what :func:`read_flux` reads."""
    if path.is_dir():
        return stamps_file(path) is not None or (
            _pictures(path) == "" and next(path.rglob("*.fits*"), None) is not None
        )
    if path.suffix in _HDF5 and path.is_file():
        with hdf5_file(path) as file:
            return "flux" in file
    return path.suffix == ".npz"


def stamps_file(folder: Path) -> Path | None:
    """The file of stamps in a folder, stamps.npz or stamps.h5; None where there is none."""
    return next((folder / name for name in _STAMPS if (folder / name).is_file()), None)


def refuse_columns(path: Path, what: str, label_column: str = "", ids: str = "") -> None:
    """Raise where a column of classes or ids is named of galaxies (``what``) that are no table.

    Raises
    ------
    InputError
        Naming the option and its value.
    """
    for option, name, part in (("class-column", label_column, "classes"), ("id-column", ids, "ids")):
        if name:
            raise InputError(
                f"--{option} {name} is of a table, and {what} have their own {part}",
                path=path,
                remedy="Leave it out, or give a table.",
            )


def _from_folder(path: Path, mode: str, pictures: bool, label_column: str, ids: str) -> GalaxySet:
    if mode == "flux":
        refuse_columns(path, "stamps", label_column, ids)
        return read_flux(path).galaxies()
    layout = _pictures(path)
    if layout == "gz2":
        refuse_columns(path, "Galaxy Zoo 2's files", ids=ids)
        return read_gz2(path, pictures=pictures, label_column=label_column)
    if layout == "galaxy-datasets":
        refuse_columns(path, "galaxy-datasets", label_column, ids)
        return read_galaxy_datasets(path, pictures=pictures)
    if layout == "pairs":
        refuse_columns(path, "image-text pairs", label_column, ids)
        return read_pairs(path)
    raise InputError(
        "holds no galaxies in a layout that is known",
        path=path,
        remedy="Known: Galaxy Zoo 2 (gz2_hart16.csv), galaxy-datasets (parquet), pairs (NAME.jpg, NAME.txt).",
    )


def _pictures(folder: Path) -> str:
    """The layout of a folder of pictures; '' where it is none that is known."""
    if any(folder.glob("gz2_hart16.csv*")):
        return "gz2"
    if any(folder.glob("*.parquet")) or any(folder.glob("data/*.parquet")):
        return "galaxy-datasets"
    return "" if next(folder.rglob("*.txt"), None) is None else "pairs"


def _from_table(path: Path, label_column: str, ids: str) -> GalaxySet:
    if path.suffix == ".parquet" and len(shards(path)) > 1:
        raise InputError(
            f"is one of {len(shards(path))} files of a table, which are read together without columns of your own",
            path=path,
            remedy="Join them into one file, or leave --class-column and --id-column out.",
        )
    table = read_catalogue(path)
    name = id_column(table.colnames, ids, path=path)
    names = object_ids(table[name], path=path, column=name)
    first = f"{GALAXY_DATASETS['t01_smooth_or_features'][0]}_smooth"
    has_votes = first in table.colnames or any(column.startswith(_FIRST_ANSWER) for column in table.colnames)
    if not has_votes and not label_column:
        raise InputError(
            f"has neither votes nor a named column of classes; it has {', '.join(table.colnames[:12])}",
            path=path,
            remedy="Name the column of classes: --class-column.",
        )
    labels = None
    if label_column:
        id_column(table.colnames, label_column, path=path)  # says which is missing
        labels = tuple(name.strip() for name in column_text(table[label_column]))
    galaxies = GalaxySet(names, labels=labels, columns=positions_of(table, path=path))
    if not has_votes:
        return galaxies
    columns = {column: table[column] for column in table.colnames}
    return galaxies.with_votes(VoteTable.from_columns(columns, path=path, ids=names, tolerate=0.01))
