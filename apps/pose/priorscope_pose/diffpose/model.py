"""The whole model: what looks at a clip, what cleans heatmaps, and the folder it is kept in."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from priorscope.backbones.loading import load_component, model_folder
from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope.evaluation.config import config_from_plain, plain
from priorscope_pose.diffpose.backbones import TransformersEncoder, frame_encoder
from priorscope_pose.diffpose.decoder import PoseDecoder
from priorscope_pose.diffpose.heatmap_diffusion import HeatmapDiffusion
from priorscope_pose.diffpose.representation import SpatioTemporalLearner
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.published import MODELS

#: ImageNet's mean and deviation, as the lineage normalises RGB.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DiffPoseModel(ModelMixin, ConfigMixin):
    """Learner and decoder; ``save_pretrained`` writes the folder that :func:`load_diffpose` reads.

    Parameters
    ----------
    spec : dict
        A :class:`DiffPoseSpec` in plain values, as config.json holds it. :meth:`new` takes the dataclass.
    """

    @register_to_config
    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self.spec = config_from_plain(DiffPoseSpec, spec).check()
        settings = self.spec
        self.learner = SpatioTemporalLearner(
            frame_encoder(settings),
            frames=settings.frames,
            grid=settings.grid,
            width=settings.width,
            layers=settings.layers,
            heads=settings.heads,
            outside=settings.width,
        )
        self.decoder = PoseDecoder(
            settings.keypoints,
            settings.width,
            width=settings.decoder_width,
            heads=settings.decoder_heads,
            grid=settings.grid,
            interaction=settings.interaction,
        )

    @classmethod
    def new(cls, spec: DiffPoseSpec, *, seed: int = 0, backbone: str | Path | None = None) -> DiffPoseModel:
        """An untrained model, its backbone filled from a folder or hub id where ``backbone`` names one.

        Raises
        ------
        InputError
            Settings that make no sense, or weights that do not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(spec=plain(spec.check()))
        if backbone is not None:
            encoder = model.learner.encoder
            if not isinstance(encoder, TransformersEncoder):
                raise InputError("weights for a conv backbone", remedy="Use backbone 'vitpose' or 'vit'.")
            encoder.load_pretrained(backbone)
        return model

    @classmethod
    def inflated(cls, single: DiffPoseModel, distance: int) -> DiffPoseModel:
        """A model of more frames that begins with all that a single-frame one has learnt.

        Each frame begins with the single one's position embedding; of the layer that joins the frames, the key frame's
        part is the single one's and the others' is 0. The layers' attention, over all frames now, is where the two
        differ at first.

        Parameters
        ----------
        single : DiffPoseModel
            Of distance 0.
        distance : int
            Frames before and after the key frame.

        Raises
        ------
        InputError
            ``single`` has several frames.
        """
        if single.spec.distance != 0:
            raise InputError(
                f"a model of {single.spec.frames} frames cannot become one of {2 * distance + 1}",
                remedy="Begin with a single-frame one.",
            )
        model = cls.new(replace(single.spec, distance=distance))
        state = dict(single.state_dict())
        place, join = "learner.position", "learner.join.0.weight"
        width = single.spec.width
        wide = torch.zeros_like(model.state_dict()[join])
        wide[:, distance * width : (distance + 1) * width] = state[join]
        model.load_state_dict(state | {place: state[place].repeat(model.spec.frames, 1, 1), join: wide})
        return model

    @cached_property
    def diffusion(self) -> HeatmapDiffusion:
        """The decoder as a denoiser of heatmaps."""
        return HeatmapDiffusion(self.decoder, self.spec)

    def pyramid(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Everything that does not depend on noise, computed once a clip.

        Parameters
        ----------
        frames : uint8 Tensor (B, T, 3, H, W)
            RGB crops of 2 d + 1 frames, the key frame in the middle.

        Raises
        ------
        InputError
            Another number of frames, another size, or not uint8.
        """
        if frames.dtype != torch.uint8:
            raise InputError(f"crops of {frames.dtype}", remedy="Give uint8 RGB.")
        mean, std = (torch.tensor(value, device=frames.device)[:, None, None] for value in (_MEAN, _STD))
        return self.decoder.pyramid(self.learner((frames / 255 - mean) / std))

    def forward(
        self,
        frames: torch.Tensor,
        noisy: torch.Tensor,
        t: torch.Tensor,
        runs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Estimated heatmaps (B, K, h, w) of crops and a noisy signal at levels (B,): what is trained.

        With ``runs``, the arguments (eps, steps, call) of :meth:`HeatmapDiffusion.of_own_runs`, people of 1 step or
        more are shown what the network's own run has there, instead of ``noisy`` at ``t``; the others have 0 steps.
        """
        pyramid = self.pyramid(frames)
        if runs is not None and bool((runs[1] > 0).any()):
            eps, steps, call = runs
            rows = (steps > 0).nonzero().flatten()
            part = {name: value[rows] for name, value in pyramid.items()}
            x, level = self.diffusion.of_own_runs(eps[rows], steps[rows], call[rows], part)
            noisy, t = noisy.index_copy(0, rows, x), t.to(level.dtype).index_copy(0, rows, level)
        return self.diffusion.heatmaps(noisy, t, pyramid)


def load_diffpose(source: str | Path, *, device: str = "auto") -> DiffPoseModel:
    """A model from its folder or a cached hub id, in evaluation mode without gradients.

    Raises
    ------
    InputError
        It is missing, no DiffPose model, or the weights do not fit to the last key.
    """
    folder = model_folder(str(source), ("config.json", "diffusion_pytorch_model.safetensors"), MODELS)
    model = load_component(DiffPoseModel, folder, expect={"_class_name": DiffPoseModel.__name__})
    return model.to(resolve_device(device))
