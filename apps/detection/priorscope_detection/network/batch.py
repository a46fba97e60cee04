"""What a detector is given: the sweeps of several frames' agents, and how they stand to their ego vehicles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from priorscope.errors import InputError
from priorscope_detection.data.frame import Frame
from priorscope_detection.fusion.agents import check_agents, ego_rows
from priorscope_detection.fusion.early import merge_points
from priorscope_detection.network.spec import DetectorSpec
from priorscope_detection.pillars import PillarGrid, Pillars, collate_pillars, group_points


@dataclass(frozen=True)
class AgentBatch:
    """Frames side by side, the ego vehicle first in each; N agents in B frames.

    Attributes
    ----------
    pillars : Pillars
        Of N clouds, each in its agent's own LiDAR frame.
    agents : tuple of int
        Agents of each frame; they add up to N.
    to_ego : Tensor (N, 4, 4)
        Where each agent is believed to be: carries its points into the ego's frame. With pose noise, the noisy ones.
    kinds : int64 Tensor (N,)
        0 a vehicle, 1 a road-side unit.
    delays : Tensor (N,)
        Age of each message, seconds.
    """

    pillars: Pillars
    agents: tuple[int, ...]
    to_ego: torch.Tensor
    kinds: torch.Tensor
    delays: torch.Tensor

    @property
    def egos(self) -> list[int]:
        """Row of each frame's ego vehicle."""
        return ego_rows(self.agents)

    def to(self, device: torch.device | str) -> AgentBatch:
        """The same on another device."""
        return replace(
            self,
            pillars=self.pillars.to(device),
            to_ego=self.to_ego.to(device),
            kinds=self.kinds.to(device),
            delays=self.delays.to(device),
        )


@dataclass(frozen=True)
class AgentSweep:
    """One agent's message: points (N, 4) in its LiDAR frame, and where it says it is."""

    points: torch.Tensor
    to_ego: torch.Tensor
    kind: int = 0
    delay: float = 0.0


def sweeps_of(frame: Frame, *, clean: bool = False) -> list[AgentSweep]:
    """The messages of a frame, the ego's first.

    Parameters
    ----------
    frame : Frame
        As its data set gives it, or disturbed (:mod:`priorscope_detection.noise`).
    clean : bool
        Place the agents by their clean poses instead of by those they tell.
    """
    moves = torch.from_numpy(frame.to_ego(clean=clean))
    return [
        AgentSweep(torch.from_numpy(agent.points), move, int(agent.kind == "infrastructure"), agent.delay / 1000)
        for agent, move in zip(frame.agents, moves, strict=True)
    ]


def make_grid(spec: DetectorSpec) -> PillarGrid:
    """The grid of a detector; its range must fit its strides (InputError)."""
    return PillarGrid(spec.extent, spec.cell).check_stride(spec.total_stride)


def make_batch(frames: Sequence[Sequence[AgentSweep]], spec: DetectorSpec) -> AgentBatch:
    """Group the points of frames for a detector.

    For early fusion a frame's clouds become one, in the ego's frame; for the ego alone (``none``) the others are left
    out.

    Parameters
    ----------
    frames : sequence of sequence of AgentSweep
        The ego first in each.
    spec : DetectorSpec

    Raises
    ------
    InputError
        A frame without agents, and whatever :func:`~priorscope_detection.pillars.group_points` refuses.
    """
    grid = make_grid(spec)
    if any(not frame for frame in frames) or not frames:
        raise InputError("a frame without agents", remedy="Every frame has at least its ego vehicle.")
    if spec.fusion == "early":
        frames = [
            [replace(frame[0], points=merge_points([a.points for a in frame], torch.stack([a.to_ego for a in frame])))]
            for frame in frames
        ]
    elif spec.fusion == "none":
        frames = [frame[:1] for frame in frames]
    agents = [agent for frame in frames for agent in frame]
    parts = [
        group_points(agent.points, grid, max_points=spec.max_points, max_pillars=spec.max_pillars) for agent in agents
    ]
    return AgentBatch(
        collate_pillars(parts),
        check_agents([len(frame) for frame in frames], len(agents)),
        torch.stack([agent.to_ego for agent in agents]).double(),
        torch.tensor([agent.kind for agent in agents]),
        torch.tensor([agent.delay for agent in agents], dtype=torch.float32),
    )
