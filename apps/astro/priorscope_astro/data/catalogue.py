"""Catalogues: read CSV, ECSV, FITS, VOTable and parquet into astropy tables; write them whole or not at all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError

if TYPE_CHECKING:
    from astropy.table import QTable

#: Suffix -> format.
_FORMATS = {
    ".csv": "csv",
    ".ecsv": "ecsv",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
}
#: What the Virtual Observatory calls usual columns (unified content descriptors).
UCDS: dict[str, str] = {
    "object_id": "meta.id;meta.main",
    "plan_id": "meta.id",
    "reference_id": "meta.id.assoc",
    "ra": "pos.eq.ra;meta.main",
    "dec": "pos.eq.dec;meta.main",
    "redshift": "src.redshift",
    "class_name": "src.morph.type",
}

#: Columns of positions, in lower case; the first that is there counts.
_POSITIONS = {"ra": ("ra", "raj2000", "_raj2000"), "dec": ("dec", "dej2000", "_dej2000", "decj2000")}


def catalogue_format(path: str | PathLike[str]) -> str:
    """Format of a catalogue, by its suffix (before .gz): csv, ecsv, fits, votable, parquet.

    Raises
    ------
    InputError
        Another suffix.
    """
    name = Path(path).name.lower().removesuffix(".gz")
    for suffix, kind in _FORMATS.items():
        if name.endswith(suffix):
            return kind
    raise InputError("is no catalogue that is known by its suffix", path=path, remedy=f"Known: {' '.join(_FORMATS)}.")


def read_catalogue(path: str | PathLike[str], *, columns: Sequence[str] | None = None) -> QTable:
    """Read a catalogue; columns keep their units, missing values are masked, bytes become text.

    Parameters
    ----------
    path : path-like
        ``.csv``, ``.ecsv``, ``.fits``, ``.vot`` / ``.xml``, ``.parquet``, each but the last also ``.gz``.
    columns : sequence of str, optional
        Only these, where they are there: a CSV of hundreds of columns is then read much faster.

    Returns
    -------
    astropy.table.QTable
        With ``meta`` as the file has it.

    Raises
    ------
    InputError
        No such file, another format, broken, or without rows.
    """
    from astropy.table import QTable, Table

    path = Path(path)
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Check the path.")
    if path.is_dir():
        raise InputError("is a folder, and a table is needed", path=path, remedy="Name the file.")
    kind = catalogue_format(path)
    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or download it again.")
    columns = None if columns is None else list(dict.fromkeys(columns))
    try:
        if kind in ("csv", "parquet"):
            return _from_arrow(path, kind, columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy warns of every unit that a standard does not list
            if kind == "votable":
                table = _read_votable(path)
            else:
                table = QTable.read(path, format="ascii.ecsv" if kind == "ecsv" else "fits")
    except InputError:
        raise
    except Exception as error:  # the parsers raise whatever they like on broken bytes
        said = "".join(character for character in " ".join(str(error).split()) if character.isprintable())
        raise InputError(f"cannot be read as {kind} ({said[:150]})", path=path, remedy="Is it whole?") from error
    if not isinstance(table, Table) or not len(table):
        raise InputError("has no rows", path=path)
    whole = [name for name in table.colnames if not hasattr(table[name], "dtype")]  # such as SkyCoord
    others = {name: table.columns.pop(name) for name in whole}
    table.convert_bytestring_to_unicode()
    for name, column in others.items():
        table[name] = column
    if columns is not None:
        table = table[[name for name in columns if name in table.colnames]]
    return QTable(table)


def _from_arrow(path: Path, kind: str, columns: Sequence[str] | None) -> QTable:
    from astropy.table import MaskedColumn, QTable
    from pyarrow import csv, parquet, string, types

    if kind == "csv":
        options = csv.ConvertOptions()
        if columns is not None:
            with csv.open_csv(path) as head:
                options.include_columns = [name for name in columns if name in head.schema.names]
        arrow = _with_whole_ids(path, csv.read_csv(path, convert_options=options))
    else:
        there = parquet.read_schema(path).names
        arrow = parquet.read_table(path, columns=None if columns is None else [c for c in columns if c in there])
    if not arrow.num_rows:
        raise InputError("has no rows", path=path)
    table = QTable()
    for name in arrow.column_names:
        column = arrow.column(name).combine_chunks()
        missing = np.asarray(column.is_null())
        if missing.all():
            continue  # an empty column has no type either
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if types.is_temporal(column.type):
            column = column.cast(string())
        text, kind = column.type in _text_types(), column.type
        if missing.any() and (text or types.is_primitive(kind)):
            column = column.fill_null("" if text else False if types.is_boolean(kind) else 0)
        values = column.to_numpy(zero_copy_only=False)
        values = values.astype(str) if text else values
        table[name] = MaskedColumn(values, mask=missing) if missing.any() else values
    return table


def _with_whole_ids(path: Path, arrow: Any) -> Any:
    """The table with ids as text where one begins with 0: as a number ``007`` would be the galaxy ``7``."""
    from pyarrow import compute, csv, string, types

    fields = [one for one in arrow.schema if types.is_integer(one.type) and one.name.lower().endswith(("id", "name"))]
    if not fields:
        return arrow
    names = [one.name for one in fields]
    options = csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, string()))
    text = csv.read_csv(path, convert_options=options)
    for name in names:
        if compute.any(compute.match_substring_regex(text[name], "^0[0-9]")).as_py():
            arrow = arrow.set_column(arrow.column_names.index(name), name, text[name])
    return arrow


def _text_types() -> tuple[Any, ...]:
    import pyarrow

    return (pyarrow.string(), pyarrow.large_string())


def _read_votable(path: Path) -> QTable:
    from astropy.io.votable import parse

    resource = parse(path)
    table = resource.get_first_table().to_table(use_names_over_ids=True)
    for info in resource.infos:
        if info.name and info.name.startswith("priorscope:"):
            table.meta[info.name.removeprefix("priorscope:")] = json.loads(info.value)
    return table


def column_text(column: Any) -> tuple[str, ...]:
    """Values of a table's column as text; '' where one is missing."""
    return tuple("" if np.ma.is_masked(value) else str(value) for value in column)


def column_values(column: Any) -> NDArray[Any]:
    """Values of a table's column without its unit; NaN where a number is missing."""
    values = getattr(column, "value", column)
    missing = np.asarray(getattr(values, "mask", False))
    array = np.asarray(getattr(values, "unmasked", values))
    return np.where(missing, np.nan, array) if missing.any() and array.dtype.kind in "iuf" else array


def positions_of(table: Any, *, path: str | PathLike[str] | None = None) -> dict[str, NDArray[np.float64]]:
    """Right ascension and declination of a table's rows, degrees: ``ra`` and ``dec``, those that it has.

    Columns are found in upper and lower case, under their VizieR names (RAJ2000, DEJ2000), or in one of coordinates.
    A column without a unit is in degrees; NaN where a value is missing.

    Raises
    ------
    InputError
        A unit that is no angle, or a column that does not hold numbers (``10:12:45.3``).
    """
    import astropy.units as u

    found: dict[str, NDArray[np.float64]] = {}
    names = {name.lower(): name for name in reversed(table.colnames)}
    for key, known in _POSITIONS.items():
        name = next((names[other] for other in known if other in names), None)
        if name is None:
            continue
        values, unit = column_values(table[name]), getattr(table[name], "unit", None)
        said = "" if unit is None else str(unit)
        if values.dtype.kind not in "iuf":
            raise InputError(
                f"its column {name} does not hold numbers, such as {str(values.flat[0])[:40]!r}",
                path=path,
                remedy="Positions are decimal degrees.",
            )
        if said and not said.lower().startswith("deg"):  # some write degrees, which is no unit of FITS
            if not u.Unit(unit).is_equivalent(u.deg):
                raise InputError(f"its column {name} is in {said}", path=path, remedy="Positions are in degrees.")
            values = values * u.Unit(unit).to(u.deg)
        found[key] = values.astype(np.float64)
    if not found:
        places = [table[name] for name in table.colnames if hasattr(table[name], "icrs")]
        if len(places) == 1:
            found = {"ra": places[0].icrs.ra.deg, "dec": places[0].icrs.dec.deg}
    return found


def write_catalogue(
    table: Any, path: str | PathLike[str], *, ucds: Mapping[str, str] | None = None, overwrite: bool = False
) -> Path:
    """Write a catalogue, atomically, in the format of the suffix.

    Parameters
    ----------
    table : astropy Table or QTable
        Columns in snake_case; ``meta`` holds plain values (text, numbers, lists, mappings).
    path : path-like
        ``.ecsv`` (units and meta kept), ``.vot`` / ``.xml`` (UCDs; meta as INFO elements), ``.fits`` (checksums; meta
        as keywords where it fits into one, else as HISTORY), ``.csv`` or ``.parquet`` (no meta).
    ucds : mapping, optional
        Column -> unified content descriptor, added to :data:`UCDS`.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        It exists, has another suffix, or cannot be written.
    """
    from astropy.table import QTable

    path = Path(path)
    kind = catalogue_format(path)
    table = QTable(table)
    with atomic_path(path, overwrite=overwrite) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "ecsv":
            table.write(temporary, format="ascii.ecsv", overwrite=True)
        elif kind == "votable":
            _write_votable(table, temporary, UCDS | dict(ucds or {}))
        elif kind == "fits":
            _write_fits(table, temporary)
        elif kind == "csv":
            plain = table.copy()
            plain.meta = {}
            plain.write(temporary, format="ascii.csv", overwrite=True)
        else:
            _write_parquet(table, temporary)
    return path


def _write_votable(table: QTable, path: Path, ucds: Mapping[str, str]) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    plain = table.copy()
    plain.meta = {}
    for name in plain.colnames:
        if name in ucds:
            plain[name].info.meta = {**(plain[name].info.meta or {}), "ucd": ucds[name]}
    tree = from_table(plain)
    for key, value in table.meta.items():
        tree.infos.append(Info(name=f"priorscope:{key}", value=json.dumps(value)))
    tree.to_xml(str(path))


def _write_fits(table: QTable, path: Path) -> None:
    from astropy.io import fits

    plain = table.copy()
    plain.meta = {}
    hdu = fits.table_to_hdu(plain)
    for key, value in table.meta.items():
        if len(key) <= 8 and key.replace("_", "").isalnum() and isinstance(value, str | int | float | bool):
            hdu.header[key.upper()] = value
        else:
            hdu.header.add_history(f"{key} = {json.dumps(value)}")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True, checksum=True)


def _write_parquet(table: QTable, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    plain = {name: getattr(table[name], "value", table[name]).tolist() for name in table.colnames}
    parquet.write_table(pyarrow.table(plain), path)
