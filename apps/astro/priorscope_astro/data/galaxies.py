"""Galaxies as loaders give them: ids, pictures or flux, and what is known about each."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import read_image
from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_astro.conditions.condition import CONDITION_SIZE, Condition, Vocabulary
from priorscope_astro.conditions.cuts import Cuts
from priorscope_astro.conditions.votes import VoteTable
from priorscope_astro.data.ids import refuse_duplicates

if TYPE_CHECKING:
    from priorscope_astro.data.splits import Splits

Mode = Literal["display", "flux"]


class Pictures(Protocol):
    """Arrays by number, read when asked for; may be sent to worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[Any]: ...


def member_picture(members: Members, name: str) -> NDArray[np.uint8]:
    """One picture of a folder or archive: uint8 [H, W, 3].

    Raises
    ------
    InputError
        It is not there, or cannot be read; names it.
    """
    data = members.read(name)
    try:
        return read_image(io.BytesIO(data))
    except InputError as error:
        where = members.path / name if members.path.is_dir() else f"{members.path}: {name}"
        raise InputError(error.fact, path=where, remedy=error.remedy) from None


@dataclass(frozen=True)
class MemberPictures:
    """Pictures of a folder or archive: uint8 [H, W, 3]."""

    members: Members
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return member_picture(self.members, self.names[index])


@dataclass(frozen=True)
class EncodedPictures:
    """Pictures as encoded bytes in memory, as Hugging Face's parquet files have them: uint8 [H, W, 3]."""

    data: tuple[bytes, ...]
    path: Path | None = None
    """Where they come from, for messages."""

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        try:
            return read_image(io.BytesIO(self.data[index]))
        except InputError as error:
            where = f"the picture of row {index + 1} {error.fact}"
            raise InputError(where, path=self.path, remedy=error.remedy) from None


@contextmanager
def hdf5_file(path: Path) -> Iterator[Any]:
    """An HDF5 file, open to be read.

    Raises
    ------
    InputError
        It cannot be read.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise InputError(f"is no HDF5 file that can be read ({str(error)[:100]})", path=path) from None


@dataclass
class HdfRows:
    """Rows of a dataset of an HDF5 file, read one by one; opened anew in every process."""

    path: Path
    dataset: str
    rows: int
    _opened: tuple[int, Any] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return self.rows

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "dataset": self.dataset, "rows": self.rows, "_opened": None}

    def __getitem__(self, index: int) -> NDArray[Any]:
        import os

        import h5py

        try:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), h5py.File(self.path, "r"))
            return np.asarray(self._opened[1][self.dataset][index])
        except OSError as error:
            raise InputError(f"row {index} cannot be read ({str(error)[:80]})", path=self.path) from error


@dataclass(frozen=True)
class Selected:
    """Some of other pictures."""

    pictures: Pictures
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.pictures[self.rows[index]]


@dataclass(frozen=True)
class GalaxySet:
    """N galaxies.

    Attributes
    ----------
    ids : tuple of str
        Object ids, each once.
    images : Pictures or None
        ``display``: uint8 [H, W, 3]; ``flux``: float32 [B, H, W] in linear units.
    mode : {"display", "flux"}
    votes : VoteTable or None
        Volunteers' votes.
    labels : tuple of str or None
        One class name a galaxy.
    captions : tuple of str or None
        One caption a galaxy.
    columns : mapping
        Further columns, N values each: ra, dec (degrees), redshift, ...
    notes : tuple of str
        What the loader left out, and why.
    """

    ids: tuple[str, ...]
    images: Pictures | None = None
    mode: Mode = "display"
    votes: VoteTable | None = None
    labels: tuple[str, ...] | None = None
    captions: tuple[str, ...] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_duplicates(self.ids)
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("images", "votes", "labels", "captions")}
        for name, part in {**parts, **self.columns}.items():
            if part is not None and len(part) != len(self):
                raise InputError(f"{len(self)} galaxies have {len(part)} {name}")

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> NDArray[Any]:
        """Picture or flux of one galaxy.

        Raises
        ------
        InputError
            The set was read without pictures, or this one is broken.
        """
        if self.images is None:
            raise InputError("these galaxies were read without pictures", remedy="Name the folder or archive of them.")
        return self.images[index]

    @property
    def picture_names(self) -> tuple[str, ...] | None:
        """Where each picture lies in its folder or archive (``images/587.jpg``); None where it is no file of its own.

        A file need not be called by the object's id: Galaxy Zoo 2's are called by their asset.
        """
        rows: tuple[int, ...] = tuple(range(len(self)))
        pictures = self.images
        while isinstance(pictures, Selected):
            rows = tuple(pictures.rows[row] for row in rows)
            pictures = pictures.pictures
        return tuple(pictures.names[row] for row in rows) if isinstance(pictures, MemberPictures) else None

    def select(self, rows: Sequence[int] | NDArray[Any]) -> GalaxySet:
        """Some of the galaxies, by number or mask, in that order."""
        array = np.asarray(rows)
        places = np.flatnonzero(array) if array.dtype == bool else array.astype(np.int64)
        chosen = [int(place) for place in places]

        def some(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if values is None else tuple(values[place] for place in chosen)

        return replace(
            self,
            ids=tuple(self.ids[place] for place in chosen),
            images=None if self.images is None else Selected(self.images, tuple(chosen)),
            votes=None if self.votes is None else self.votes.select(places),
            labels=some(self.labels),
            captions=some(self.captions),
            columns={name: values[places] for name, values in self.columns.items()},
        )

    def with_votes(self, votes: VoteTable) -> GalaxySet:
        """The galaxies with votes; those whose votes do not sum are left out, and ``notes`` say so."""
        galaxies = replace(self, votes=votes)
        if votes.wrong is None:
            return galaxies
        note = f"{int(votes.wrong.sum())} objects are left out, their votes do not sum (first: {votes.fault})"
        return replace(galaxies.select(~votes.wrong), notes=(*self.notes, note))

    def by_id(self, ids: Sequence[str]) -> GalaxySet:
        """The galaxies with these ids, in that order.

        Raises
        ------
        InputError
            One is not there.
        """
        place = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in place]
        if missing:
            raise InputError(f"{len(missing)} objects are not among these {len(self)} galaxies, the first {missing[0]}")
        return self.select(np.array([place[name] for name in ids], np.int64))

    def of_split(self, splits: Splits, split: str) -> GalaxySet:
        """The galaxies of one split; every galaxy must belong to some split."""
        return self.select(splits.mask(self.ids, split))

    def with_captions(
        self,
        *,
        survey: str = "sdss",
        agreement: float = 0.5,
        cuts: Cuts | str = "majority",
        vocabulary: Vocabulary = "published",
        shuffle: int | None = None,
    ) -> GalaxySet:
        """The galaxies with captions of tags made from their votes, for training text-to-image models.

        Parameters
        ----------
        survey, agreement, vocabulary
            As in :class:`Condition` and :meth:`Condition.tag_list`.
        cuts : Cuts or str
            Which questions are well sampled.
        shuffle : int, optional
            A seed: tags in random order after the survey, fixed by the seed and the object's id.

        Raises
        ------
        InputError
            There are no votes.
        """
        if self.votes is None:
            raise InputError("these galaxies have no votes", remedy="Captions are made from those.")
        table = cuts if isinstance(cuts, Cuts) else Cuts.read(cuts)
        captions = []
        for row, name in enumerate(self.ids):
            condition = self.votes.condition(row, cuts=table, survey=survey)
            tags = condition.tag_list(agreement=agreement, vocabulary=vocabulary)
            if shuffle is not None:
                first = bool(survey)
                order = np.random.default_rng([shuffle, zlib.crc32(name.encode())]).permutation(len(tags) - first)
                tags = tags[:first] + [tags[first + place] for place in order]
            captions.append(", ".join(tags))
        return replace(self, captions=tuple(captions))

    def vectors(self, cuts: Cuts | str = "majority") -> NDArray[np.float32]:
        """Conditions (N, 74), from the votes, else from captions of known tags.

        Raises
        ------
        InputError
            There are neither, or a caption has an unknown tag.
        """
        if self.votes is not None:
            return self.votes.vectors(cuts)
        if self.captions is None:
            raise InputError("these galaxies have neither votes nor captions", remedy="Conditions come from those.")
        seen: dict[str, NDArray[np.float32]] = {}
        vectors = np.zeros((len(self), CONDITION_SIZE), np.float32)
        for row, caption in enumerate(self.captions):
            if caption not in seen:
                try:
                    seen[caption] = Condition.from_tags(caption).to_vector()
                except InputError as error:
                    fact = f"the caption of {self.ids[row]}: {error.fact}"
                    raise InputError(fact, remedy=error.remedy) from None
            vectors[row] = seen[caption]
        return vectors
