"""Real galaxies that generation starts from, and how their sky level gets into the start.

Stable Diffusion's noisiest level still has signal: a run that starts from pure noise is told a mean of zero and ends
too bright. GalaxySD's authors start from a real image under noise, always the same one. Here it is one of a pool, whose
name is recorded; or the mean of the pool, in which no galaxy can be seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from priorscope.backbones.latents import LatentSpace
from priorscope.data.images import IMAGE_SUFFIXES
from priorscope.data.members import Members
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.errors import InputError
from priorscope_astro.data.galaxies import member_picture


@dataclass(frozen=True, eq=False)
class ReferencePool:
    """Reference images by their object's name.

    Parameters
    ----------
    members : Members
        A folder or an archive.
    files : mapping of str to str
        Name of an object -> relative path of its picture.
    barred : collection of str
        Names that must not be used, such as those of the test split. Names in it that have no file are fine.

    Raises
    ------
    InputError
        Nothing is left.
    """

    members: Members
    files: Mapping[str, str]
    barred: Collection[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "barred", frozenset(str(name) for name in self.barred))
        if not self.names:
            barred = f", {len(self.files)} are barred" if self.files else ""
            raise InputError(
                f"the pool has no reference image{barred}",
                path=self.members.path,
                remedy="Give images of training galaxies.",
            )

    @classmethod
    def read_names(cls, path: str | Path, barred: Collection[str] = frozenset()) -> ReferencePool:
        """All pictures of a folder, a .zip or a .tar; a picture's name is its file's without suffix.

        Raises
        ------
        InputError
            Nothing is there, no picture, or two different ones of one name.
        """
        members = Members(path)
        files: dict[str, str] = {}
        for name in members.names():
            place = PurePosixPath(name)
            if place.suffix.lower() not in IMAGE_SUFFIXES or place.name.startswith("."):
                continue
            known = files.get(place.stem)
            if known is not None and members.read(known) != members.read(name):
                raise InputError(
                    f"{name} and {known} have the same name", path=path, remedy="Names say which object it is."
                )
            files[place.stem] = name
        return cls(members, files, barred)

    @cached_property
    def names(self) -> list[str]:
        """The names that may be used, sorted."""
        return sorted(name for name in self.files if name not in self.barred)

    def choose(self, seed: int) -> str:
        """A name, fixed by the seed and by which names there are."""
        names = self.names
        return names[item_seed(seed, "reference") % len(names)]

    def read(self, name: str, side: int | None = None) -> NDArray[np.uint8]:
        """One picture: uint8 (H, W, 3), resized to a square of ``side`` pixels where it has another size.

        Raises
        ------
        InputError
            The name is barred or unknown, or the picture cannot be read.
        """
        path = self.members.path
        if name in self.barred:
            raise InputError(
                f"the reference {name} is barred", path=path, remedy="It belongs to the test split: use another."
            )
        if name not in self.files:
            raise InputError(
                f"the pool has no reference {name}", path=path, remedy="Give the folder that the plan was made with."
            )
        image = member_picture(self.members, self.files[name])
        if side is None or image.shape[:2] == (side, side):
            return image
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class LatentMoments:
    """Mean (C, h, w) of a pool's latents, and their standard deviation around it in each channel (C,)."""

    mean: torch.Tensor
    std: torch.Tensor


def encode(latents: LatentSpace, images: Sequence[NDArray[np.uint8]], device: torch.device) -> torch.Tensor:
    """Latents (B, C, h, w) of uint8 images (H, W, 3) of one size, in float32."""
    stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    with torch.no_grad():
        return latents.encode(stack.float() / 127.5 - 1).float()


def moments(
    latents: LatentSpace, pool: ReferencePool, side: int, device: torch.device, *, most: int = 64
) -> LatentMoments:
    """Moments of at most ``most`` images of a pool, evenly chosen from its sorted names.

    Raises
    ------
    InputError
        Fewer than 8 images: their mean would show each of them.
    """
    names = pool.names
    if len(names) < 8:
        raise InputError(f"the mean of {len(names)} reference images would show them", remedy="Use 8 or more.")
    chosen = [names[int(place)] for place in np.linspace(0, len(names) - 1, min(most, len(names)))]
    found = torch.cat([encode(latents, [pool.read(name, side)], device) for name in chosen])
    mean = found.mean(0)
    return LatentMoments(mean, (found - mean).square().mean((0, 2, 3)).sqrt())


def start_from_references(references: torch.Tensor, sigma: float, noise: Noise) -> torch.Tensor:
    """The published start: a reference's latent under all of the noise, ``z + sigma n``; (B, C, h, w)."""
    return references + sigma * noise.like(references)


def start_from_moments(pool: LatentMoments, batch: int, sigma: float, noise: Noise) -> torch.Tensor:
    """Draw from the normal distribution that noised latents of the pool have at this level; (batch, C, h, w).

    This is what the published start is on average, with no galaxy in it: mean + sqrt(std^2 + sigma^2) n.
    """
    drawn = noise.draw((batch, *pool.mean.shape), device=pool.mean.device)
    return pool.mean + (pool.std[:, None, None] ** 2 + sigma**2).sqrt() * drawn
