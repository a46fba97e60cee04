"""Image-text pairs, as GalaxySD is trained on: NAME.jpg beside NAME.txt, whose text is the caption."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path, PurePosixPath

from priorscope.data.files import atomic_path, write_text
from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_astro.data.galaxies import GalaxySet, MemberPictures

_PICTURES = (".jpg", ".jpeg", ".png")


def read_pairs(path: str | PathLike[str]) -> GalaxySet:
    """Read a folder (with sub-folders) or .zip of pairs.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    GalaxySet
        Ids are the files' stems; captions are the texts, in one line each.

    Raises
    ------
    InputError
        No pair there, a picture without text or a text without picture, an empty or undecodable caption, or two
        pictures of one stem.
    """
    members = Members(path)
    pictures: dict[str, str] = {}
    texts: dict[str, str] = {}
    for name in members.names():
        file = PurePosixPath(name)
        if file.name.startswith(".") or "__MACOSX" in file.parts:
            continue
        if file.suffix.lower() in _PICTURES:
            if file.stem in pictures:
                raise InputError(
                    f"{name} and {pictures[file.stem]} have the same name", path=path, remedy="Names are the ids."
                )
            pictures[file.stem] = name
        elif file.suffix.lower() == ".txt":
            texts[str(file.with_suffix(""))] = name
    if not pictures:
        raise InputError("holds no picture", path=path, remedy="Pairs are NAME.jpg and NAME.txt.")
    captions = []
    for name in pictures.values():
        text = texts.pop(str(PurePosixPath(name).with_suffix("")), None)
        if text is None:
            raise InputError(f"{name} has no .txt beside it", path=path, remedy="Each picture needs its caption.")
        try:
            caption = " ".join(members.read(text).decode("utf-8").split())
        except UnicodeDecodeError:
            raise InputError(f"{text} is not UTF-8 text", path=path) from None
        if not caption:
            raise InputError(f"{text} is empty", path=path, remedy="Write its tags, separated by commas.")
        captions.append(caption)
    if texts:
        raise InputError(f"{next(iter(texts.values()))} has no picture beside it", path=path, remedy="Remove it.")
    return GalaxySet(tuple(pictures), MemberPictures(members, tuple(pictures.values())), captions=tuple(captions))


def write_pairs(galaxies: GalaxySet, folder: str | PathLike[str], captions: Sequence[str] | None = None) -> Path:
    """Write galaxies as such pairs, JPEG of quality 95 (for training GalaxySD or other text-to-image models).

    Parameters
    ----------
    galaxies : GalaxySet
        Of mode display.
    folder : path-like
        Files that are there are not replaced.
    captions : sequence of str, optional
        Default: those of `galaxies`.

    Raises
    ------
    InputError
        No captions, flux instead of pictures, an id that is no file name, or a file is there already.
    """
    from PIL import Image

    texts = captions if captions is not None else galaxies.captions
    if texts is None or len(texts) != len(galaxies):
        raise InputError("there is not one caption a galaxy", remedy="Render them from conditions: Condition.tags().")
    if galaxies.mode != "display":
        raise InputError("these galaxies are flux, not pictures", remedy="Make pictures by imaging.lupton first.")
    folder = Path(folder)
    for row, (name, text) in enumerate(zip(galaxies.ids, texts, strict=True)):
        if not name or name.startswith(".") or PurePosixPath(name).name != name:
            raise InputError(f"the id {name!r} is no file name")
        with atomic_path(folder / f"{name}.jpg") as temporary:
            Image.fromarray(galaxies.image(row)).save(temporary, format="JPEG", quality=95)
        write_text(folder / f"{name}.txt", text)
    return folder
