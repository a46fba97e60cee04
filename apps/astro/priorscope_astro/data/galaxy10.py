"""Galaxy10 DECaLS: one HDF5 file of 17 736 pictures in ten classes, keys ``images``, ``ans``, ``ra``, ``dec``, ..."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from priorscope.errors import InputError
from priorscope_astro.conditions.galaxy10 import CLASSES, galaxy10_condition
from priorscope_astro.data.galaxies import GalaxySet, HdfRows, hdf5_file


def read_galaxy10(path: str | PathLike[str]) -> GalaxySet:
    """Read ``Galaxy10_DECals.h5``; pictures are loaded when they are asked for.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    GalaxySet
        Ids are ``galaxy10-00000`` and up (the file has none), labels the names of the classes, captions what those say
        about Galaxy Zoo 2's questions.

    Raises
    ------
    InputError
        No such file, a key is missing, shapes do not fit (Galaxy10 SDSS, of 69 x 69 pixels, has other classes and is
        refused), or a class outside 0 to 9.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    with hdf5_file(path) as file:
        for key in ("images", "ans"):
            if key not in file:
                raise InputError(
                    f"has no {key!r}; it has {', '.join(file)}", path=path, remedy="Is it Galaxy10_DECals.h5?"
                )
        shape, kind = file["images"].shape, file["images"].dtype
        answers = np.asarray(file["ans"][()])
        columns = {name: np.asarray(file[name][()]) for name in ("ra", "dec", "redshift", "pxscale") if name in file}
    if len(shape) != 4 or shape[3] != 3 or kind != np.uint8:
        raise InputError(f"images are {kind} {list(shape)}", path=path, remedy="Expected uint8 [N, 256, 256, 3].")
    if shape[1:3] == (69, 69):
        raise InputError("is Galaxy10 SDSS, whose classes are others", path=path, remedy="Use Galaxy10_DECals.h5.")
    if answers.shape != shape[:1] or answers.dtype.kind not in "iu":
        raise InputError(f"{shape[0]} images have {answers.dtype} {list(answers.shape)} classes", path=path)
    if answers.size and (answers.min() < 0 or answers.max() >= len(CLASSES)):
        raise InputError(f"has the class {answers.max()}", path=path, remedy="Galaxy10's classes are 0 to 9.")
    tags = [galaxy10_condition(number).tags(vocabulary="all") for number in range(len(CLASSES))]
    return GalaxySet(
        tuple(f"galaxy10-{row:05d}" for row in range(shape[0])),
        HdfRows(path, "images", shape[0]),
        labels=tuple(CLASSES[int(number)] for number in answers),
        captions=tuple(tags[int(number)] for number in answers),
        columns=columns,
    )
