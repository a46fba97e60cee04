"""A look at held-out people while a model trains: figures for the curve, and a picture."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from priorscope.data.images import write_png
from priorscope.evaluation.run_folder import RunFolder
from priorscope_pose.sdpose.losses import heatmap_loss
from priorscope_pose.skeletons import Skeleton, skeleton
from priorscope_pose.training.feed import NO_AUGMENTATION, codec_of, collated, example
from priorscope_pose.training.people import PersonSource

_SHOWN = 6
_TRUE, _FOUND = (80, 220, 120), (255, 120, 40)


class HeldOutPeople:
    """People that no step sees.

    Parameters
    ----------
    people : PersonSource
    settings : PoseSettings
    most : int
        How many are looked at, evenly chosen; kept in memory.
    """

    def __init__(self, people: PersonSource, settings: Any, *, most: int = 64) -> None:
        self._people, self._settings, self._most = people, settings, most

    @cached_property
    def _batch(self) -> dict[str, torch.Tensor]:
        count = len(self._people)
        chosen = np.unique(np.linspace(0, count - 1, min(self._most, count)).round().astype(int))
        random, kind = np.random.default_rng(0), skeleton(self._settings.skeleton)
        size = self._settings.input_size
        return collated(
            [example(self._people[int(place)], kind, size, NO_AUGMENTATION, random) for place in chosen],
            self._settings,
        )

    @torch.no_grad()
    def look(self, network: nn.Module, run: RunFolder, step: int) -> dict[str, float]:
        """Ask the network; leave ``figures/step-NNNNNNN.png`` with a few crops, true joints green, found ones orange.

        Returns
        -------
        dict
            ``held_out_loss``; ``held_out_pixels``, the mean distance over labelled keypoints in pixels of the crop;
            ``held_out_near``, the share of them within a twentieth of the crop's height.
        """
        device = next(network.parameters()).device
        found, losses = [], []
        for rows in torch.arange(len(self._batch["image"])).split(16):
            part = {name: value[rows].to(device) for name, value in self._batch.items()}
            heatmaps = network.heatmaps(part["image"].float() / 127.5 - 1)  # type: ignore[operator]
            losses.append(float(heatmap_loss(heatmaps, part["heatmaps"], part["weights"])) * len(rows))
            codec = codec_of(self._settings)
            found.append(codec.crop_pixels(codec.decode(heatmaps)[0]).cpu())
        points, counts = torch.cat(found).double(), self._batch["weights"] > 0
        distance = (points - self._batch["keypoints"]).norm(dim=-1)[counts]
        write_png(run.figures / f"step-{step:07d}.png", self._picture(points), overwrite=True)
        return {
            "held_out_loss": sum(losses) / len(self._batch["image"]),
            "held_out_pixels": float(distance.mean()),
            "held_out_near": float((distance <= self._settings.input_size[1] / 20).double().mean()),
        }

    def _picture(self, found: torch.Tensor) -> NDArray[np.uint8]:
        kind = skeleton(self._settings.skeleton)
        shown = []
        for row in range(min(_SHOWN, len(found))):
            crop = self._batch["image"][row].permute(1, 2, 0).numpy()
            labelled = self._batch["weights"][row].numpy() > 0
            pair = [
                _drawn(crop, points[row].numpy(), kind, labelled, colour)
                for points, colour in ((self._batch["keypoints"], _TRUE), (found, _FOUND))
            ]
            shown.append(np.concatenate(pair, 1))
        lines = [np.concatenate(shown[place : place + 3], 1) for place in range(0, len(shown) // 3 * 3, 3)]
        return np.concatenate(lines) if lines else np.concatenate(shown, 1)


def _drawn(
    crop: NDArray[np.uint8],
    points: NDArray[np.float64],
    kind: Skeleton,
    which: NDArray[np.bool_],
    colour: tuple[int, int, int],
) -> NDArray[np.uint8]:
    factor = max(1, round(256 / crop.shape[0]))
    picture = Image.fromarray(crop).resize((crop.shape[1] * factor, crop.shape[0] * factor), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(picture)
    places = [tuple((point + 0.5) * factor) for point in points]
    for one, two in kind.edges:
        if which[one] and which[two]:
            pen.line([places[one], places[two]], fill=colour, width=2)
    for place in np.flatnonzero(which):
        x, y = places[place]
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
    return np.asarray(picture)
