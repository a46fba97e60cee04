"""What is minimised: a diffusion policy's loss, that of a streaming one, or that of a one-step student."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path
from typing import Any

import torch

from priorscope.diffusion.losses import masked_mean
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.checkpoint import Stateful
from priorscope.training.task import Task
from priorscope_robotics.checkpoints.folder import save_model
from priorscope_robotics.loss import clean_trajectory, policy_loss
from priorscope_robotics.model import Given, PolicyModel
from priorscope_robotics.policies.consistency import ConsistencyPolicy, consistency_loss
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.policy import Policy
from priorscope_robotics.policies.streaming import streaming_levels
from priorscope_robotics.training.feed import Windows

#: Held-out windows that are looked at.
_MOST = 256


class PolicyTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.feed.WindowFeed`.

    Parameters
    ----------
    model : PolicyModel
    held_out : Windows, optional
        Windows of episodes that no step sees.
    """

    def __init__(self, model: PolicyModel, held_out: Windows | None = None) -> None:
        super().__init__(model)
        self.policy_model = [model]  # hidden: it is self.model, with its own type
        self.held_out = held_out

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        given, x0 = self.prepared(batch)
        share = batch["share"].to(x0.device)
        t = (share * self._policy.spec.diffusion.steps).long()
        return {"loss": self.loss(given, x0, batch["eps"].to(x0), t)}

    @property
    def _policy(self) -> PolicyModel:
        return self.policy_model[0]

    def prepared(self, batch: dict[str, Any]) -> tuple[Given, torch.Tensor]:
        """What conditions each plan, and the clean trajectories."""
        model = self._policy
        whole = {entry.name: batch[f"obs.{entry.name}"] for entry in model.spec.observations}
        given = model.given(model.features(model.normalized(whole)))
        features = None
        if model.spec.conditioning == "inpaint":
            features = torch.cat([model.normalizer.normalize(name, value.float()) for name, value in whole.items()], -1)
        return given, clean_trajectory(model, batch["action"].float(), features)

    def loss(self, given: Given, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Of clean trajectories, noise and levels (B,)."""
        return policy_loss(self._policy, given, x0, eps, t)

    def sampler(self) -> Policy:
        """What draws plans for the held-out error."""
        return FullPolicy(self._policy, solver="ddim", steps=min(10, self._policy.spec.diffusion.steps))

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Loss on held-out windows at fixed levels and noise, and the error of plans drawn for them.

        The error is the root mean square over executed actions, in normalised units.
        """
        if self.held_out is None or not len(self.held_out):
            return {}
        model = self._policy
        count = min(_MOST, len(self.held_out))
        chosen = torch.linspace(0, len(self.held_out) - 1, count).round().long().tolist()
        batch = {name: value.to(model.device) for name, value in self.held_out.batch(chosen).items()}
        generator = torch.Generator().manual_seed(0)
        given, x0 = self.prepared(batch)
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        t = (torch.rand(count, generator=generator) * model.spec.diffusion.steps).long().to(x0.device)
        policy = self.sampler()
        plan, _ = policy.plan(given, {}, policy.start(count), EnvironmentNoise(range(count)))
        first, last = model.spec.first_action, model.spec.first_action + model.spec.n_action_steps
        error = (plan - x0)[:, first:last, : model.spec.action_dim]
        return {
            "held_out_loss": float(self.loss(given, x0, eps, t)),
            "held_out_action_error": float(error.square().mean().sqrt()),
        }

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        save_model(self._policy, folder)


class StreamingTask(PolicyTask):
    """Every time step of a plan at a level of its own."""

    def loss(self, given: Given, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        model = self._policy
        spec = model.spec
        # the levels (B,) of the batch seed those of the time steps
        generator = torch.Generator().manual_seed(zlib.crc32(t.cpu().numpy().tobytes()))
        levels = streaming_levels(
            len(x0), spec.horizon, spec.first_action, spec.n_action_steps, spec.diffusion.steps, generator
        ).to(x0.device)
        denoiser = model.denoiser()
        noisy = given.known(denoiser.schedule.add_noise(x0, levels[..., None].expand_as(x0), eps))
        output = denoiser.network(noisy, levels, **given.condition.expand(len(x0)))
        error = (output.float() - eps.float()).square()
        return masked_mean(error if given.mask is None else torch.where(given.mask, 0.0, error))

    def sampler(self) -> Policy:
        return FullPolicy(self._policy, solver="ddim", steps=min(10, self._policy.spec.diffusion.steps))


class ConsistencyTask(PolicyTask):
    """A student of a teacher.

    Parameters
    ----------
    model : PolicyModel
        The student.
    teacher : PolicyModel
    held_out : Windows, optional
    decay : float
        Of the running average that the student is compared with.
    stride : int
        Levels of a teacher's step.
    """

    def __init__(
        self,
        model: PolicyModel,
        teacher: PolicyModel,
        held_out: Windows | None = None,
        *,
        decay: float = 0.95,
        stride: int = 5,
    ) -> None:
        super().__init__(model, held_out)
        self._hidden = [teacher.eval().requires_grad_(False), copy.deepcopy(model).eval().requires_grad_(False)]
        self._decay, self._stride = decay, stride

    def to(self, *args: Any, **kwargs: Any) -> ConsistencyTask:
        for model in self._hidden:
            model.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        found = super().forward(batch)
        if self.training:
            with torch.no_grad():  # the weights before this step's change
                for mean, weight in zip(self._hidden[1].parameters(), self._policy.parameters(), strict=True):
                    mean.lerp_(weight, 1 - self._decay)
        return found

    def loss(self, given: Given, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        teacher, target = self._hidden
        return consistency_loss(self._policy, target, teacher, given, x0, eps, t, stride=self._stride)

    def checkpoint_parts(self) -> dict[str, Stateful]:
        return {"target": self._hidden[1]}

    def sampler(self) -> Policy:
        return ConsistencyPolicy(self._policy)
