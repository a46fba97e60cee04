"""Which files of RF belong together: before and after, truth, regions; of one cine or of folders by equal names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from priorscope.errors import InputError

_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
#: What `dehaze` writes beside a result called NAME: NAME-report/rf.npz.
_REPORT, _LINES = "-report", "rf.npz"


@dataclass(frozen=True)
class RfPair:
    """Files of one cine; None where there is none."""

    name: str
    before: Path
    after: Path | None = None
    truth: Path | None = None
    regions: Path | None = None


def rf_pairs(
    before: Path, after: Path | None = None, truth: Path | None = None, regions: Path | None = None
) -> list[RfPair]:
    """Pair files, or the files of folders by their names without suffix.

    Parameters
    ----------
    before : Path
        A file or a folder; the others are of the same kind. Every file of this folder needs its partners; what the
        other folders hold beyond that is not looked at.
    after : Path, optional
        A folder may hold NAME-report/rf.npz, as `dehaze` writes it, for NAME.
    truth : Path, optional
    regions : Path, optional
        May be one file for a whole folder.

    Raises
    ------
    InputError
        Nothing there, a file beside a folder, a partner that is missing, two files of one name.
    """
    others = {"after": after, "truth": truth, "regions": regions}
    if not before.is_dir():
        for path in others.values():
            if path is not None and path.is_dir():
                raise InputError("is a folder", path=path, remedy=f"Give a file, as {before.name} is one.")
        return [RfPair(before.name, before, **others)]
    firsts = _named(before)
    if not firsts:
        raise InputError(f"holds no RF ({', '.join(_SUFFIXES)})", path=before, remedy="Check the folder.")
    found: dict[str, dict[str, Path]] = {}
    for kind, path in others.items():
        if path is None:
            continue
        if not path.is_dir():
            if kind == "regions" and path.is_file():
                found[kind] = dict.fromkeys(firsts, path)
                continue
            raise InputError("is no folder", path=path, remedy=f"Give a folder, as {before} is one.")
        found[kind] = _named(path)
        missing = [name for name in firsts if name not in found[kind]]
        if missing:
            more = f" ({len(missing)} such files)" if len(missing) > 1 else ""
            raise InputError(
                f"holds nothing called {missing[0]}, as {before.name} does{more}",
                path=path,
                remedy="Files of equal names belong together.",
            )
    return [RfPair(name, file, **{kind: files[name] for kind, files in found.items()}) for name, file in firsts.items()]


def _named(folder: Path) -> dict[str, Path]:
    """Files of RF by name, in its order."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.endswith(_REPORT) and (path / _LINES).is_file():
            name, path = path.name.removesuffix(_REPORT), path / _LINES
        elif path.suffix.lower() in _SUFFIXES and path.is_file():
            name = path.stem
        else:
            continue
        if name in found:
            raise InputError(
                f"holds two files for {name}: {found[name].name} and {path.name}", path=folder, remedy="Keep one."
            )
        found[name] = path
    return found
