"""How long a policy takes to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from priorscope_robotics.episodes_run import CallTime, min_calls
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.policy import Policy


def time_calls(
    policy: Policy, observations: Mapping[str, torch.Tensor], calls: int, *, warm_up: int = 2
) -> list[CallTime]:
    """:func:`time_in_turns` of one policy."""
    return time_in_turns([policy], observations, calls, warm_up=warm_up)[0]


def time_in_turns(
    policies: Sequence[Policy], observations: Mapping[str, torch.Tensor], calls: int, *, warm_up: int = 2
) -> list[list[CallTime]]:
    """Time ``calls`` calls of each policy with the same observations, after ``warm_up`` that do not count.

    A policy with a warm start has its full plan in the warm-up. The policies take turns, so that what else runs on the
    machine slows all of them. On a GPU each part is waited for.
    """
    batch = len(next(iter(observations.values())))
    states = [(policy.start(batch), EnvironmentNoise(range(batch))) for policy in policies]
    times: list[list[CallTime]] = [[] for _ in policies]
    for _ in range(warm_up + calls):
        for policy, (state, noise), found in zip(policies, states, times, strict=True):
            out = policy.act(observations, state, noise)
            cold = max(out.calls) > min_calls(policy)
            found.append(CallTime(out.seconds["encoder"], out.seconds["denoiser"], cold))
    return [found[warm_up:] for found in times]


def summarise(times: Sequence[CallTime]) -> dict[str, float]:
    """Milliseconds: median and 95th percentile of all calls, and the medians of their two parts.

    ``cold_share`` is the share of calls in which an environment needed a full plan.
    """
    if not times:
        return {}
    encoder, denoiser = (np.array([getattr(one, part) for one in times]) * 1000 for part in ("encoder", "denoiser"))
    whole = encoder + denoiser
    return {
        "p50_ms": float(np.percentile(whole, 50)),
        "p95_ms": float(np.percentile(whole, 95)),
        "encoder_p50_ms": float(np.percentile(encoder, 50)),
        "denoiser_p50_ms": float(np.percentile(denoiser, 50)),
        "cold_share": float(np.mean([one.cold for one in times])),
    }
