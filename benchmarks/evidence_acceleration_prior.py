"""The networks of evidence_acceleration.py: a small diffusion model of galaxies, with or without a training aid, and
small encoders that say what a picture shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from evidence_acceleration_galaxies import KINDS, SHAPE, SIDE, Galaxies
from torch import nn
from torch.nn import functional

from priorscope.diffusion import Condition, Denoiser, VPSchedule, annealed_noise, denoising_loss
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training import (
    MAY_DIFFER,
    Alignment,
    AlignmentConfig,
    CurriculumConfig,
    DifficultyCurriculum,
    LoopConfig,
    Perturbation,
    PerturbationConfig,
    RoutingConfig,
    Task,
    add_routing,
    fit,
    make_accelerator,
)
from priorscope.training.checkpoint import Stateful
from priorscope.training.order import Order

#: DDPM's. In Stable Diffusion's last step 7 % of the image is left: galaxies that begin with pure noise come out dim.
SCHEDULE = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)
PATCH = 2
HEAD = 128
#: Of a teacher's map that is aligned with, and of the features that pictures are compared by.
TEACHER_WIDTH, FEATURES = 64, 64


@dataclass(frozen=True)
class Aid:
    """What helps a training along; by default nothing."""

    weighting: Any = "output"
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    routing: RoutingConfig | None = None
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)
    coarse_noise: float = 0.0
    """Strength of the noise's coarse levels at the highest level (annealed multi-resolution noise)."""


def aids(steps: int) -> dict[str, Aid]:
    """Every aid alone, at its published numbers where there are some that do not depend on the training's length."""
    return {
        "plain": Aid(),
        "min-SNR": Aid(weighting="min-snr"),
        "curriculum": Aid(curriculum=CurriculumConfig(clusters=5, patience=2)),
        "task routing": Aid(routing=RoutingConfig()),
        "alignment": Aid(alignment=AlignmentConfig(features=0.5, stop=round(0.6 * steps))),
        "alignment first": Aid(
            alignment=AlignmentConfig(features=0.5, warmup=round(0.1 * steps), stop=round(0.6 * steps))
        ),
        "perturbation": Aid(perturbation=PerturbationConfig("gaussian")),
        "coarse noise": Aid(coarse_noise=0.9),
        # added after the first curriculum's last group had joined when the learning rate was nearly 0
        "hasty curriculum": Aid(curriculum=CurriculumConfig(clusters=5, patience=1)),
    }


class GalaxyNetwork(nn.Module):
    """A U-Net on blocks of 2 x 2 pixels: (B, 1, 32, 32), levels (B,), kinds (B,) -> (B, 1, 32, 32)."""

    def __init__(self, widths: tuple[int, ...], seed: int) -> None:
        super().__init__()
        plain = len(widths) - 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet = UNet2DModel(
                sample_size=SIDE // PATCH,
                in_channels=PATCH**2,
                out_channels=PATCH**2,
                block_out_channels=widths,
                layers_per_block=1,
                down_block_types=(*["DownBlock2D"] * plain, "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * plain),
                norm_num_groups=8,
                attention_head_dim=16,
                num_class_embeds=len(KINDS),
            )

    def forward(self, x: torch.Tensor, label: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        blocks = functional.pixel_unshuffle(x, PATCH)
        return functional.pixel_shuffle(self.unet(blocks, label, class_labels=kind, return_dict=False)[0], PATCH)


def denoiser_of(network: GalaxyNetwork) -> Denoiser:
    return Denoiser(network, SCHEDULE, "v")


def told(kinds: np.ndarray | torch.Tensor) -> Condition:
    return Condition({"kind": torch.as_tensor(kinds)})


class GalaxyTask(Task):
    """v-prediction at random levels, with an aid.

    Level and noise are drawn first in every step, so that all aids but the curriculum see the same ones.
    """

    def __init__(self, network: GalaxyNetwork, aid: Aid, teacher: Encoder | None) -> None:
        super().__init__(network)
        self.denoiser = denoiser_of(network)
        self.aid = aid
        self.curriculum = DifficultyCurriculum(SCHEDULE, aid.curriculum)
        self.perturbation = Perturbation(aid.perturbation)
        network.unet.class_embedding.register_forward_hook(lambda module, inputs, output: self.perturbation(output))
        if aid.routing is not None:
            add_routing(network.unet, aid.routing, blocks=routed_blocks(network.unet))
        self.alignment: Alignment | None = None
        if aid.alignment.features:
            block = network.unet.down_blocks[1].resnets[-1]  # 8 x 8, as the teacher's map
            self.alignment = Alignment(aid.alignment, block, block.out_channels, TEACHER_WIDTH, hidden=HEAD)
            self._teacher: Callable[[torch.Tensor], torch.Tensor] = frozen(teacher)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x0 = batch["image"]
        t, eps = self.curriculum.draw(len(x0)), torch.randn(x0.shape)
        if self.aid.coarse_noise:
            draws = np.random.default_rng(int(torch.randint(2**31, ()))).spawn(len(x0))
            eps = annealed_noise(x0, (t / SCHEDULE.start).tolist(), draws, strength=self.aid.coarse_noise)
        loss = denoising_loss(self.denoiser, x0, eps, t, told(batch["kind"]), weighting=self.aid.weighting)
        if self.alignment is None:
            return {"loss": loss}
        needed = self.alignment.config.weights(self.step).features > 0
        return self.alignment(self.step, loss, features=self._teacher(x0) if needed else None)

    def told(self, means: dict[str, float]) -> None:
        self.curriculum.told(means["loss"])

    def checkpoint_parts(self) -> dict[str, Stateful]:
        head = {} if self.alignment is None else {"head": self.alignment.head}
        return {"curriculum": self.curriculum, **head}  # type: ignore[dict-item]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        torch.save(self.model.state_dict(), folder / "network.pt")


def routed_blocks(unet: UNet2DModel) -> list[nn.Module]:
    """The residual blocks that keep their number of channels, and the attentions."""
    parts = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    resnets = [block for part in parts for block in part.resnets if block.in_channels == block.out_channels]
    attentions = [block for part in parts for block in getattr(part, "attentions", None) or ()]
    return [*resnets, *attentions]


@dataclass(frozen=True)
class GalaxyFeed:
    """Galaxies in a fixed order, mirrored at random."""

    galaxies: Galaxies
    size: int
    seed: int

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        order = Order(len(self.galaxies.images), self.seed).batch(step, self.size)
        places = [order[row].item for row in rows]
        images = self.galaxies.images[places].astype(np.float32)
        mirrored = np.random.default_rng([self.seed, step]).random(self.size)[rows.start : rows.stop] < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
        return {"image": torch.from_numpy(images[:, None]), "kind": torch.from_numpy(self.galaxies.kinds[places])}


@dataclass(frozen=True)
class Trained:
    """What a training has come to."""

    finished: bool
    history: list[dict[str, Any]]
    joined: int
    """Groups of levels that have joined, where there is a curriculum."""


def train(
    out: Path, widths: tuple[int, ...], aid: Aid, galaxies: Galaxies, config: LoopConfig, teacher: Encoder | None
) -> Trained:
    """Train, or go on; the network is left in ``out/model``."""
    config.check()
    differ = tuple(f"loop.{name}" for name in MAY_DIFFER)
    asked = {"aid": repr(aid), "widths": widths, "loop": vars(config)}
    run = RunFolder.create(out, asked, resume=True, may_differ=differ)
    task = GalaxyTask(GalaxyNetwork(widths, config.seed), aid, teacher)
    result = fit(task, GalaxyFeed(galaxies, config.batch_size, config.seed), config, run, make_accelerator(config))
    return Trained(result.finished, run.history(), task.curriculum.joined)


def trained(out: Path, widths: tuple[int, ...], aid: Aid) -> Denoiser:
    """The denoiser that :func:`train` has left, in eval mode."""
    network = GalaxyNetwork(widths, 0)
    network.load_state_dict(torch.load(out / "model/network.pt", weights_only=True))
    if aid.routing is not None:
        add_routing(network.unet, aid.routing, blocks=routed_blocks(network.unet))
    network.eval().requires_grad_(False)
    return denoiser_of(network)


class Encoder(nn.Module):
    """A small convolutional network that learns the kind and the shape of a galaxy."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.early = nn.Sequential(_halved(1, 32), _halved(32, TEACHER_WIDTH))
            self.late = nn.Sequential(_halved(TEACHER_WIDTH, 96), nn.Conv2d(96, FEATURES, 3, padding=1), nn.SiLU())
            self.head = nn.Linear(FEATURES, len(KINDS) + len(SHAPE))

    def map(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, 32, 32) -> tokens (B, 64, TEACHER_WIDTH) of 8 x 8 places."""
        return self.early(images).flatten(2).transpose(1, 2)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, 32, 32) -> (B, FEATURES)."""
        return self.late(self.early(images)).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, 32, 32) -> logits of the kinds and the shape, (B, kinds + shape)."""
        return self.head(self.features(images))


def _halved(width: int, wider: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.SiLU())


def train_encoder(galaxies: Galaxies, seed: int, steps: int) -> Encoder:
    """An encoder by cross-entropy of the kind and squared error of the shape, scaled to variance 1."""
    encoder = Encoder(seed)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=1e-2)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    shape = torch.from_numpy((galaxies.shape - galaxies.shape.mean(0)) / galaxies.shape.std(0))
    kinds, images = torch.from_numpy(galaxies.kinds), torch.from_numpy(galaxies.images.astype(np.float32))[:, None]
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,), generator=draw)
        found = encoder(images[chosen])
        loss = functional.cross_entropy(found[:, : len(KINDS)], kinds[chosen])
        loss = loss + functional.mse_loss(found[:, len(KINDS) :], shape[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return encoder.eval().requires_grad_(False)


def frozen(teacher: Encoder | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """The teacher's map as a function, so that its weights are no part of what is trained."""
    assert teacher is not None, "the alignment needs a teacher"
    return torch.no_grad()(teacher.map)
