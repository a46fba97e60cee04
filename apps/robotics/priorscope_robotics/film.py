"""Pictures of an episode as a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.data.video import VideoWriter
from priorscope.errors import InputError


def write_film(path: Path, pictures: Sequence[NDArray[np.uint8]], fps: float, *, overwrite: bool = False) -> Path:
    """Write *.mp4 (H.264) or *.gif (at most 25 pictures a second)."""
    if path.suffix == ".mp4":
        with VideoWriter(path, fps, overwrite=overwrite) as writer:
            for picture in pictures:
                writer.write(picture)
        return path
    if path.suffix != ".gif":
        raise InputError(f"a film cannot be written as {path.suffix or 'a file without suffix'}", path=path)
    from PIL import Image

    step = max(1, round(fps / 25))
    frames: list[Any] = [Image.fromarray(picture).quantize(128) for picture in pictures[::step]]
    with atomic_path(path, overwrite=overwrite) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=1000 * step / fps, loop=0)
    return path


def strip(pictures: Sequence[NDArray[np.uint8]], count: int = 6, side: int = 192) -> NDArray[np.uint8]:
    """Some of the pictures beside each other, from the first to the last."""
    from PIL import Image

    places = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int)
    small = [np.asarray(Image.fromarray(pictures[place]).resize((side, side))) for place in places]
    gap = np.full((side, 4, 3), 255, np.uint8)
    parts = [part for picture in small for part in (picture, gap)]
    return np.concatenate(parts[:-1], 1)


def beside(films: Sequence[Sequence[NDArray[np.uint8]]], titles: Sequence[Sequence[str]]) -> list[NDArray[np.uint8]]:
    """Films of equal height beside each other; one that is over shows its last picture until all are.

    Parameters
    ----------
    films : sequence of sequences of array
        Pictures uint8 [H, W, 3].
    titles : sequence of sequences of str
        What stands above each film, for each of its pictures.
    """
    from PIL import Image, ImageDraw, ImageFont

    bar = 24
    font = ImageFont.load_default(14)

    def titled(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
        image = Image.new("RGB", (picture.shape[1], picture.shape[0] + bar), "white")
        image.paste(Image.fromarray(picture), (0, bar))
        ImageDraw.Draw(image).text((6, 4), title, "black", font)
        return np.asarray(image)

    found = []
    for step in range(max(len(film) for film in films)):
        places = [min(step, len(film) - 1) for film in films]
        parts = [titled(film[k], title[k]) for film, title, k in zip(films, titles, places, strict=True)]
        gap = np.full((parts[0].shape[0], 8, 3), 255, np.uint8)
        found.append(np.concatenate([piece for part in parts for piece in (part, gap)][:-1], 1))
    return found
