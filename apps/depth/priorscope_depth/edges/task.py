"""What is trained: the autoencoder of edge maps, then the network that generates its latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.data.images import write_png
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.decoupled import decoupled_losses
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_depth.edges.data import EdgePair
from priorscope_depth.edges.metrics import edge_scores
from priorscope_depth.edges.predictor import EdgePredictor
from priorscope_depth.training.task import item_noise

#: Weight of the divergence from a standard normal posterior, as published.
DIVERGENCE = 1e-6
#: How much more an edge pixel counts for the autoencoder: edges are a few per cent of a map.
EDGE_WEIGHT = 4.0
_SHOWN = 3


class EdgeAutoencoderTask(Task):
    """Squared plus absolute error of edge maps, where edges count more, and a little of the divergence.

    The published one's discriminator and perceptual loss are left out.
    """

    def __init__(self, predictor: EdgePredictor, held_out: Sequence[EdgePair] = ()) -> None:
        super().__init__(predictor.latents.vae)  # type: ignore[attr-defined]
        self.predictor = predictor
        self.held_out = list(held_out)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        edges = batch["edges"]
        posterior = self.model.encode(edges).latent_dist  # type: ignore[operator]
        latents = posterior.mean + posterior.std * item_noise(batch["seed"]).like(posterior.mean)
        error = self.model.decode(latents).sample - edges  # type: ignore[operator]
        weight = torch.where(edges > 0, EDGE_WEIGHT, 1.0)
        rebuilt = (weight * (error.square() + error.abs())).mean()
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return {"loss": rebuilt + DIVERGENCE * divergence, "rebuilt": rebuilt, "divergence": divergence}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """ODS of the truth through the autoencoder: what a network reaches that gets every latent right."""
        if not self.held_out:
            return {}
        maps = [rebuilt_edges(self.predictor, pair) for pair in self.held_out]
        return _scores(maps, self.held_out)

    def save(self, folder: Path) -> None:
        scale_latents(self.predictor, self.held_out)
        self.predictor.save(folder, autoencoder_only=True)


class EdgeTask(Task):
    """The losses of the decoupled process on latents; published weights, without the decoder's cross-entropy.

    Parameters
    ----------
    predictor : EdgePredictor
        Its autoencoder is trained already and stays as it is.
    held_out : sequence of EdgePair
        To look at while training.
    """

    def __init__(self, predictor: EdgePredictor, held_out: Sequence[EdgePair] = ()) -> None:
        super().__init__(predictor.unet)
        self.model.requires_grad_(True)
        predictor.latents.vae.requires_grad_(False)  # type: ignore[attr-defined]
        self.predictor = predictor
        self.held_out = list(held_out)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            x0 = self.predictor.latents.encode(batch["edges"])
        condition = Condition({"image": batch["image"]})
        noise = item_noise(batch["seed"]).like(x0)
        return decoupled_losses(self.predictor.denoiser, x0, noise, batch["time"], condition)

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        if not self.held_out:
            return {}
        results = self.predictor([pair.rgb for pair in self.held_out], items=[pair.key for pair in self.held_out])
        maps = [result.values for result in results]
        panels = []
        for pair, values in list(zip(self.held_out, maps, strict=True))[:_SHOWN]:
            panels += [Panel(pair.rgb, pair.key), Panel(_grey(pair.edges), "truth"), Panel(_grey(values), "generated")]
        run.figures.mkdir(parents=True, exist_ok=True)
        picture = figure_to_image(side_by_side(panels, columns=3, width=9.0), dpi=80)
        write_png(run.figures / f"step-{step:07d}.png", picture, overwrite=True)
        return _scores(maps, self.held_out)

    def save(self, folder: Path) -> None:
        self.predictor.save(folder)


@torch.no_grad()
def scale_latents(predictor: EdgePredictor, pairs: Sequence[EdgePair]) -> None:
    """Let latents have unit spread: the autoencoder's ``scaling_factor`` becomes one over their deviation."""
    space = predictor.latents
    spread = [space.encode(_as_input(predictor, pair)) / space.scaling for pair in pairs]  # type: ignore[attr-defined]
    if spread:
        deviation = float(torch.cat([latents.flatten() for latents in spread]).std())
        space.vae.register_to_config(scaling_factor=1 / max(deviation, 1e-6))  # type: ignore[attr-defined]
        space.scaling = float(space.vae.config.scaling_factor)  # type: ignore[attr-defined]


def _as_input(predictor: EdgePredictor, pair: EdgePair) -> torch.Tensor:
    edges = torch.from_numpy(pair.edges).float()[None, None] * 2 - 1
    return predictor.geometry.prepare(edges.to(next(predictor.latents.vae.parameters()).device))[0]  # type: ignore[attr-defined]


@torch.no_grad()
def rebuilt_edges(predictor: EdgePredictor, pair: EdgePair) -> np.ndarray:
    """The truth through the autoencoder, (H, W) in [0, 1]: the best that any latent can give."""
    latents = predictor.latents.encode(_as_input(predictor, pair))
    values = (predictor.latents.decode(latents)[0, 0] / 2 + 0.5).clamp(0, 1).cpu().numpy()
    return values[: pair.edges.shape[0], : pair.edges.shape[1]]


def _scores(maps: Sequence[np.ndarray], pairs: Sequence[EdgePair]) -> dict[str, float]:
    scores = edge_scores(maps, [pair.edges for pair in pairs], thresholds=9)
    figures = {"held_out_ods": scores.ods}
    # empty maps have no crispness
    return figures if np.isnan(scores.ac) else figures | {"held_out_ac": scores.ac}


def _grey(values: np.ndarray) -> np.ndarray:
    return (np.asarray(values, np.float32)[..., None].repeat(3, -1) * 255).round().astype(np.uint8)
