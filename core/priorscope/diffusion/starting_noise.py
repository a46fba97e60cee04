"""One good starting noise for every input: chosen once on a calibration set, saved, used again.

A deterministic solver maps its starting noise to a result; some noises give better results than others on every
input. To choose one and keep it also takes away the differences between runs, at no cost.

Source: Ma et al. 2024 (optimal boundary conditions of diffusion ODEs), who look for the noise that is best on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from priorscope.data.files import atomic_path
from priorscope.data.weights_file import save_file
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.errors import InputError


class StartingNoise(Noise):
    """A noise that every item of every batch starts from, at any size.

    Parameters
    ----------
    values : Tensor (C, ...)
        Of one item: channels, then the axes that may have other sizes.
    score : float
        Its mean distance on the calibration set, where it was chosen on one.

    Notes
    -----
    Other sizes follow one rule: the noise is repeated periodically from the first corner on, and cut off. So a
    smaller size is the first corner of the noise and a larger one tiles it. The number of channels cannot change.

    Every draw gives the same values: it is meant for the start of a run with a deterministic solver, whose only draw
    that is. A stochastic solver needs another noise.
    """

    def __init__(self, values: torch.Tensor, score: float = math.nan) -> None:
        if values.ndim < 1 or values.numel() == 0 or not bool(torch.isfinite(values).all()):
            raise InputError(f"a starting noise of shape {tuple(values.shape)} that is empty or not finite")
        self.values = values.detach().cpu().float().clone()
        self.score = float(score)

    def draw(
        self, shape: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """The noise for a batch of ``shape`` (B, C, ...): the same for all items."""
        batch, *item = shape
        if len(item) != self.values.ndim or item[0] != self.values.shape[0]:
            raise InputError(
                f"a starting noise of shape {tuple(self.values.shape)} was asked for items of {tuple(shape[1:])}",
                remedy="Choose one with the model's number of channels and axes.",
            )
        values = self.values
        for axis, size in enumerate(item[1:], 1):
            values = values.index_select(axis, torch.arange(size) % values.shape[axis])
        return values.to(device, dtype).expand(batch, *values.shape).clone()

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the values and the score as safetensors and return the path.

        Raises
        ------
        InputError
            A file that exists already or cannot be written.
        """
        path = Path(path)
        with atomic_path(path, overwrite=overwrite) as temporary:
            save_file({"noise": self.values.contiguous()}, temporary, metadata={"score": repr(self.score)})
        return path

    @classmethod
    def load(cls, path: str | PathLike[str]) -> StartingNoise:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            No such file, or no starting noise in it.
        """
        remedy = "Give a file that StartingNoise.save wrote."
        try:
            with safe_open(path, "pt") as file:
                if "noise" not in file.keys():  # noqa: SIM118 (no mapping)
                    raise InputError("holds no starting noise", path=path, remedy=remedy)
                values, score = file.get_tensor("noise"), (file.metadata() or {}).get("score", "nan")
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot be read ({error})", path=path, remedy=remedy) from error
        try:
            return cls(values, float(score))
        except ValueError as error:
            raise InputError(f"holds no starting noise ({error})", path=path, remedy=remedy) from error


def choose_starting_noise(
    generate: Callable[[torch.Tensor, Any], Any],
    calibration: Iterable[tuple[Any, Any]],
    distance: Callable[[Any, Any], Any],
    shape: Sequence[int],
    *,
    candidates: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> StartingNoise:
    """The best of ``candidates`` noises on a calibration set.

    Parameters
    ----------
    generate : callable
        ``generate(noise, given) -> result``: a run from ``noise`` (1, \\*shape), standard normal, for one input, with a
        deterministic solver. Scale the noise to the first level where that is not 1.
    calibration : iterable of (given, wanted)
        Inputs and the results they should have; a hundred or more, unlike those that the noise will be judged on.
    distance : callable
        ``distance(result, wanted) -> float``, at least 0: a perceptual distance, an error of depths.
    shape : sequence of int
        (C, ...) of one item's noise.
    candidates : int
        Noises to try, at least 1; candidate i is the noise of item i at ``seed``
        (:meth:`~priorscope.diffusion.Noise.for_items`).
    seed : int
    progress : bool
        Show a bar.

    Returns
    -------
    StartingNoise
        With the mean distance as its ``score``.

    Raises
    ------
    InputError
        An empty calibration set, no candidates, a shape that is none, distances that are negative or no numbers, no
        candidate with finite ones.

    Notes
    -----
    A candidate is dropped as soon as the distances so far exceed the best one's sum, which changes nothing in the
    choice and saves runs. The score flatters: it is the minimum over candidates on the set they were chosen on, so
    judge the noise on other data.
    """
    pairs = list(calibration)
    if not pairs:
        raise InputError("an empty calibration set", remedy="Give pairs of an input and the result it should have.")
    if not isinstance(candidates, Integral) or candidates < 1:
        raise InputError(f"{candidates} candidates", remedy="Use a whole number of 1 or more.")
    if not isinstance(shape, Sequence) or not shape or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise InputError(f"a starting noise of shape {shape!r}", remedy="Give (C, ...) of one item.")
    best, least = None, math.inf
    for candidate in _track(int(candidates), progress):
        noise = Noise.per_item([item_seed(seed, candidate)]).draw((1, *shape))
        total = 0.0
        with torch.no_grad():
            for given, wanted in pairs:
                total += _checked(distance(generate(noise.clone(), given), wanted))
                if not total < least:
                    break
        if total < least:
            best, least = noise[0], total
    if best is None:
        raise InputError(
            f"none of {candidates} starting noises gave finite distances",
            remedy="Look at generate and distance with one noise and one pair.",
        )
    return StartingNoise(best, least / len(pairs))


def _checked(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the distance gave {str(value)[:80]!r}", remedy="Return one number.") from error
    if number < 0:
        raise InputError(f"a distance of {number}", remedy="Return one that is at least 0 and lower where better.")
    return math.inf if math.isnan(number) else number


def _track(count: int, progress: bool) -> Iterable[int]:
    if not progress:
        return range(count)
    from rich.progress import track

    return track(range(count), description="starting noises")
