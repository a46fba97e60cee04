"""How far made galaxies are from real ones, in two spaces."""

from __future__ import annotations

import numpy as np
import torch
from evidence_acceleration_galaxies import KINDS, Galaxies
from evidence_acceleration_prior import Encoder
from numpy.typing import NDArray

COMPONENTS = 64


class Judge:
    """Squared MMD to held-out galaxies in two spaces, and how many are of the kind that was asked for.

    Parameters
    ----------
    encoder : Encoder
    learnt : Galaxies
        Both spaces are scaled by them.
    held_out : Galaxies
    """

    def __init__(self, encoder: Encoder, learnt: Galaxies, held_out: Galaxies) -> None:
        self.encoder = encoder
        pixels = learnt.images.reshape(len(learnt.images), -1).astype(np.float64)
        self.mean = pixels.mean(0)
        variance, axes = np.linalg.eigh(np.cov(pixels.T))
        self.axes = axes[:, -COMPONENTS:] / np.sqrt(variance[-COMPONENTS:])
        features = self._features(learnt.images)
        self.centre, self.spread = features.mean(0), features.std(0)
        self.held_out = {name: place(held_out.images) for name, place in self.spaces.items()}
        self.within = {name: _between(points, points) for name, points in self.held_out.items()}

    @property
    def spaces(self):  # type: ignore[no-untyped-def]
        """Name -> function from images (N, H, W) to points (N, d)."""
        return {
            "encoder": lambda images: (self._features(images) - self.centre) / self.spread,
            "pixels": lambda images: (images.reshape(len(images), -1) - self.mean) @ self.axes,
        }

    def __call__(self, images: NDArray[np.float32], kinds: NDArray[np.int64]) -> dict[str, float]:
        """``encoder`` and ``pixels``, with the standard errors that the draw of images causes; ``right_kind``."""
        found = {}
        for name, place in self.spaces.items():
            points, held_out = place(images), self.held_out[name]
            inner, outer = _between(points, points), _kernel(points, held_out).mean(1)
            found[name] = float(inner.mean() + self.within[name].mean() - 2 * outer.mean())
            found[f"{name}_error"] = float(2 * (inner - outer).std(ddof=1) / len(images) ** 0.5)
        with torch.no_grad():
            logits = torch.cat([self.encoder(part)[:, : len(KINDS)] for part in _batches(images)])
        return found | {"right_kind": float((logits.argmax(1).numpy() == kinds).mean())}

    def _features(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        with torch.no_grad():
            return torch.cat([self.encoder.features(part) for part in _batches(images)]).double().numpy()


def _batches(images: NDArray[np.float32]):  # type: ignore[no-untyped-def]
    return torch.from_numpy(np.asarray(images, np.float32))[:, None].split(500)


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _between(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean kernel of each point with the others."""
    kernel = _kernel(x, y)
    return (kernel.sum(1) - np.diag(kernel)) / (len(x) - 1)
