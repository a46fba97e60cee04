"""The detector: each agent's points to maps, maps brought together, boxes out. Keys are CoAlign's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import nn

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope_detection.codiff.codec import reconstruction_loss
from priorscope_detection.codiff.model import AgentSet, CoDiff
from priorscope_detection.fusion.agents import as_sets, check_agents, presence
from priorscope_detection.fusion.plain import attention_fusion, max_fusion
from priorscope_detection.fusion.v2x import V2XFusion
from priorscope_detection.fusion.warp import coverage, warp_to_ego
from priorscope_detection.network.batch import AgentBatch, make_grid
from priorscope_detection.network.heads import HeadMaps, make_heads
from priorscope_detection.network.pillar_vfe import PillarVFE, scatter_to_map
from priorscope_detection.network.resnet_bev import ResNetBEVBackbone, ShrinkConv
from priorscope_detection.network.spec import DetectorSpec, Stage, Start


class CoDiffTraining(NamedTuple):
    """Loss of the diffusion, and what the heads make of its estimate, for a loss of the boxes."""

    loss: torch.Tensor
    maps: HeadMaps


class CollaborativeDetector(nn.Module):
    """PointPillars on a residual backbone, with one of the fusions.

    Parameters
    ----------
    spec : DetectorSpec

    Notes
    -----
    Where agents meet: ``max`` and ``attention`` at each of the backbone's scales (CoAlign), ``v2x`` before the heads;
    ``codiff`` is ``attention``, then diffusion. ``none``, ``late`` and ``early`` are one network: which points it is
    given, and what is done with its boxes, makes the difference.
    Keys of the weights are those of CoAlign's ``point_pillar_baseline_multiscale``; ``v2x`` and ``codiff`` have more.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec.check()
        self.grid = make_grid(spec)
        self.pillar_vfe = PillarVFE(
            spec.pillar_filters,
            use_norm=spec.use_norm,
            use_absolute_xyz=spec.use_absolute_xyz,
            with_distance=spec.with_distance,
        )
        self.backbone = ResNetBEVBackbone(
            spec.pillar_filters[-1], spec.layers, spec.strides, spec.filters, spec.up_strides, spec.up_filters
        )
        self.shrink_conv: nn.Module = ShrinkConv(sum(spec.up_filters), spec.shrink) if spec.shrink else nn.Identity()
        for name, head in make_heads(spec.feature_width, spec.anchors, spec.direction_bins).items():
            self.add_module(name, head)
        if spec.fusion == "v2x":
            self.v2x = V2XFusion(spec.feature_width, spec.v2x_heads, spec.v2x_windows)
        if spec.fusion == "codiff":
            self.codiff = CoDiff(spec.feature_width, spec.codiff)
        self._stage: Stage | None = None

    def forward(
        self,
        batch: AgentBatch,
        *,
        seeds: Sequence[int] | None = None,
        steps: int | None = None,
        start: Start | None = None,
    ) -> HeadMaps:
        """Heads of B frames in their egos' frames; with late fusion of all N agents, each in its own.

        Parameters
        ----------
        batch : AgentBatch
        seeds : sequence of int, optional
            CoDiff: one a frame; default 0.
        steps, start
            CoDiff: see :meth:`~priorscope_detection.codiff.model.CoDiff.refine`.
        """
        scales = self.scales(batch)
        if self.spec.fusion == "late":
            return self.heads(self.own(scales))
        fused = self.fuse(scales, batch)
        if self.spec.fusion == "codiff":
            told = self.told(fused, scales, batch)
            latent = self.codiff.refine(told, seeds or [0] * len(batch.agents), steps=steps, start=start)
            fused = self.codiff.feature(latent, fused)
        return self.heads(fused)

    def scales(self, batch: AgentBatch) -> list[torch.Tensor]:
        """Maps (N, filters[i], H_i, W_i) of all agents, each in its own frame."""
        check_agents(batch.agents, batch.pillars.clouds)
        if batch.pillars.grid != self.grid:
            raise InputError(
                f"points grouped over {batch.pillars.grid.extent} m in cells of {batch.pillars.grid.cell} m, a "
                f"detector of {self.grid.extent} in {self.grid.cell}",
                remedy="Make the batch with the detector's settings.",
            )
        return self.backbone.scales(scatter_to_map(self.pillar_vfe(batch.pillars), batch.pillars))

    def own(self, scales: Sequence[torch.Tensor]) -> torch.Tensor:
        """Each agent's own feature (N, C, H, W), in its own frame."""
        return self.shrink_conv(self.backbone.decode(scales))

    def fuse(self, scales: Sequence[torch.Tensor], batch: AgentBatch) -> torch.Tensor:
        """The fused feature (B, C, H, W) in the egos' frames; for CoDiff the coarse one."""
        fusion = self.spec.fusion
        if max(batch.agents) == 1 and fusion != "v2x":
            return self.own(scales)  # alone, and in order
        if fusion in ("none", "early", "late"):
            return self.own([scale[batch.egos] for scale in scales])
        if fusion == "v2x":
            sets, present = self._sets(self.own(scales), batch)
            return self.v2x(sets, present, as_sets(batch.kinds, batch.agents), as_sets(batch.delays, batch.agents))
        fused = []
        for scale in scales:
            if fusion == "max":
                fused.append(max_fusion(self._warped(scale, batch), presence(batch.agents, scale.device)))
            else:
                fused.append(attention_fusion(*self._sets(scale, batch)))
        return self.own(fused)

    def heads(self, feature: torch.Tensor) -> HeadMaps:
        """Boxes' maps of features (B, C, H, W)."""
        names = ("cls_head", "reg_head", "dir_head") if self.spec.direction_bins else ("cls_head", "reg_head")
        maps = [getattr(self, name)(feature) for name in names]
        return HeadMaps(maps[0], maps[1], maps[2] if len(maps) == 3 else None)

    def told(self, fused: torch.Tensor, scales: Sequence[torch.Tensor], batch: AgentBatch) -> AgentSet:
        """What CoDiff is told: the coarse feature and the agents' own."""
        return self.codiff.agent_set(
            fused, self.own(scales), batch.agents, batch.to_ego, self.spec.extent, batch.kinds, batch.delays
        )

    def codec_loss(self, batch: AgentBatch) -> torch.Tensor:
        """Loss of CoDiff's codec on the agents' own features and the fused ones."""
        scales = self.scales(batch)
        features = torch.cat([self.own(scales), self.fuse(scales, batch)])
        return reconstruction_loss(self.codiff.codec, features)

    def codiff_training(
        self, batch: AgentBatch, clean: AgentBatch, noise: Noise, *, own_runs: bool = False
    ) -> CoDiffTraining:
        """A training step of CoDiff's diffusion.

        Parameters
        ----------
        batch : AgentBatch
            The messages as they arrive: with pose noise and delay.
        clean : AgentBatch
            The same frames with right poses and no delay. Only its fused feature is used, as the target. Where the
            points are the same (``clean.pillars is batch.pillars``) they go through the backbone once.
        noise : Noise
        own_runs : bool
            Learn from whole runs instead of from random levels
            (:meth:`~priorscope_detection.codiff.model.CoDiff.estimate_of_run`).
        """
        if len(clean.agents) != len(batch.agents):
            raise InputError(f"{len(clean.agents)} clean frames for {len(batch.agents)}")
        scales = self.scales(batch)
        with torch.no_grad():
            # without delay only the poses differ
            seen = scales if clean.pillars is batch.pillars else self.scales(clean)
            target = self.codiff.codec.encode(self.fuse(seen, clean))
        # older versions of torch would reuse the weights that mixed precision cast there, which carry no gradient
        torch.clear_autocast_cache()
        fused = self.fuse(scales, batch)
        told = self.codiff.dropped(self.told(fused, scales, batch), noise)
        found = (self.codiff.estimate_of_run if own_runs else self.codiff.estimate)(target, told, noise)
        return CoDiffTraining(found.loss, self.heads(self.codiff.feature(found.latent, fused)))

    def set_stage(self, stage: Stage | None) -> None:
        """Say what is trained; the rest keeps its weights and its running statistics, also in training mode.

        ``detector``: all but CoDiff. ``codec``: CoDiff's codec. ``diffusion``: its denoiser. ``finetune``: the
        denoiser, the decoder and the heads. ``joint`` and None: everything.
        """
        stages = get_args(Stage)
        if stage is not None and stage not in stages:
            raise InputError(f"stage {stage!r}", remedy=f"Use {', '.join(stages[:-1])} or {stages[-1]}.")
        if stage not in (None, "detector") and self.spec.fusion != "codiff":
            raise InputError(f"stage {stage!r} of a detector with fusion {self.spec.fusion!r}")
        self._stage = stage
        for name, weight in self.named_parameters():
            weight.requires_grad_(self._trained(name))
        self.train(self.training)

    def train(self, mode: bool = True) -> CollaborativeDetector:
        """Training mode of what the stage trains."""
        super().train(mode)
        if mode and self._stage is not None:
            for name, module in self.named_modules():
                if name and not self._learns(name):
                    module.training = False
        return self

    def _trained(self, name: str) -> bool:
        if self._stage == "finetune":
            return name.startswith(("codiff.network.", "codiff.codec.decoder.", *_HEADS))
        return self._learns(name)

    def _learns(self, name: str) -> bool:
        """Whether running statistics under this name are learned in the present stage."""
        inside = f"{name}."
        if self._stage in (None, "joint"):
            return True
        if self._stage == "detector":
            return not inside.startswith("codiff.")
        if self._stage == "codec":
            return inside.startswith("codiff.codec.")
        return (
            inside.startswith(("codiff.network.", *_HEADS))
            if self._stage == "finetune"
            else inside.startswith("codiff.network.")
        )

    def _warped(self, maps: torch.Tensor, batch: AgentBatch) -> torch.Tensor:
        """Maps as sets in the egos' frames."""
        published = self.spec.attend == "published"
        return as_sets(warp_to_ego(maps, batch.to_ego, self.spec.extent, published=published), batch.agents)

    def _sets(self, maps: torch.Tensor, batch: AgentBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps as sets in the egos' frames, and who takes part where (B, L, H, W)."""
        sets = self._warped(maps, batch)
        present = presence(batch.agents, maps.device)[:, :, None, None]
        if self.spec.attend == "published":
            return sets, present.expand(-1, -1, *maps.shape[2:])
        covered = coverage(batch.to_ego, self.spec.extent, *maps.shape[2:]).to(maps.device)
        covered[batch.egos] = True
        return sets, present & as_sets(covered, batch.agents)


_HEADS = ("cls_head.", "reg_head.", "dir_head.")
