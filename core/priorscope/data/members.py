"""Files of an archive or a folder, by relative path: read in place, from any process."""

from __future__ import annotations

import os
import tarfile
import threading
import zipfile
import zlib
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from priorscope.errors import InputError

_Archive: TypeAlias = tarfile.TarFile | zipfile.ZipFile
_Entry: TypeAlias = tarfile.TarInfo | zipfile.ZipInfo


class Members:
    """Files of a .tar, a .zip or a folder, by relative path.

    Parameters
    ----------
    path : path-like
        A .tar (not compressed, for random access), a .zip, or a folder.

    Raises
    ------
    InputError
        Nothing is there, or it is another kind of file or cut short (found when it is first read).

    Notes
    -----
    Opened when first read, and again in every process that reads it, so it may be sent to workers. Names with and
    without a leading "./" are the same.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._opened: tuple[int, _Archive, dict[str, _Entry]] | None = None
        self._lock = threading.Lock()
        if not self.path.exists():
            raise InputError("no such file or folder", path=self.path, remedy="Give a .tar, a .zip or a folder.")

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def names(self) -> list[str]:
        """Relative paths of all files, sorted."""
        if self.path.is_dir():
            return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        with self._lock:
            return sorted(self._archive()[1])

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises
        ------
        InputError
            It is not there, it leads outside the folder, or the archive is cut short.
        """
        name = _normal(name)
        if self.path.is_dir():
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise InputError(f"the name {name!r} leads outside", path=self.path)
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise self._missing(name) from error
        with self._lock:  # an archive has one file position
            archive, index = self._archive()
            if name not in index:
                raise self._missing(name)
            try:
                entry = index[name]
                if isinstance(archive, zipfile.ZipFile):
                    assert isinstance(entry, zipfile.ZipInfo)
                    return archive.read(entry)
                assert isinstance(entry, tarfile.TarInfo)
                file = archive.extractfile(entry)
                data = b"" if file is None else file.read()
                if file is None or len(data) != entry.size:
                    raise tarfile.ReadError("unexpected end of data")
                return data
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                raise InputError(
                    f"{name} cannot be read: {error}", path=self.path, remedy="Download the archive again."
                ) from error

    def _missing(self, name: str) -> InputError:
        return InputError(f"{name} is not in it", path=self.path, remedy="Is it complete, and the right one?")

    def _archive(self) -> tuple[_Archive, dict[str, _Entry]]:
        # a forked worker must not share the file position of its parent
        if self._opened is None or self._opened[0] != os.getpid():
            archive: _Archive
            index: dict[str, _Entry]  # not names: a tar looks for a name from its last entry to its first
            try:
                if zipfile.is_zipfile(self.path):
                    archive = zipfile.ZipFile(self.path)
                    index = {_normal(info.filename): info for info in archive.infolist() if not info.is_dir()}
                else:
                    archive = tarfile.open(self.path, "r:")  # noqa: SIM115 - stays open for the process
                    index = {_normal(info.name): info for info in archive.getmembers() if info.isfile()}
            except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
                raise InputError(
                    f"is not an uncompressed .tar or a .zip that can be read ({error})",
                    path=self.path,
                    remedy="Download it again, or extract it and give the folder.",
                ) from error
            self._opened = (os.getpid(), archive, index)
        return self._opened[1], self._opened[2]


def _normal(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name
