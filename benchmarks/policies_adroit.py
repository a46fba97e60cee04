"""The part of policies.py on human demonstrations: Adroit's door, 25 episodes by people with a glove."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.data.open import open_episodes
from priorscope_robotics.data.sequences import held_out_mask
from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.policies.named import make_policy
from priorscope_robotics.policies.noise import EnvironmentNoise

DATA = Path(__file__).resolve().parents[2] / "shared/data/robotics/adroit_door_human_25demos.npz"
POLICIES = ("ddpm", "ddim:3", "ddim:3:trailing", "rti:2,1,0")
#: Actions ahead that errors are taken over: those of a plan that the network was trained to be executed.
AHEAD = 8


def held_out_errors(run: Path, share: float, steps: int = 0, split_seed: int = 42) -> Iterator[dict[str, Any]]:
    """Rows: the normaliser's range, then the error of each policy and of plain guesses on the held-out episodes.

    Parameters
    ----------
    run : Path
        Run folder of `train`.
    share : float
        Share of the episodes that the training held out.
    steps : int
        Steps of the episodes; 0: as many as the shortest has.
    """
    model = load_policy(run)
    episodes = open_episodes(DATA, [entry.name for entry in model.spec.observations])
    held = held_out_mask(len(episodes), share, split_seed)
    learnt, unseen = episodes.select(~held), episodes.select(held)
    yield _ranges(model, learnt, unseen)
    starts = np.concatenate([[0], unseen.ends[:-1]])
    steps = steps or int((unseen.ends - starts).min()) - AHEAD
    rows = starts[None, :] + np.arange(steps)[:, None]  # (steps, episodes)
    truth = unseen.actions[rows[..., None] + np.arange(AHEAD)]  # (steps, episodes, AHEAD, A)
    for text in POLICIES:
        plans, calls = _planned(model, text, unseen, starts, rows)
        yield _error(model, text, plans, truth) | {"calls": calls}
    for text, plans in _plain(model, learnt, unseen, starts, rows):
        yield _error(model, text, plans, truth)


def _ranges(model: PolicyModel, learnt: Episodes, unseen: Episodes) -> dict[str, Any]:
    found: dict[str, Any] = {"what": "range"}
    for name, part in (("learnt", learnt), ("held_out", unseen)):
        size = _normalized(model, part.actions).abs()
        found |= {
            f"{name}_episodes": len(part),
            f"{name}_least": float(part.actions.min()),
            f"{name}_greatest": float(part.actions.max()),
            f"{name}_beyond_share": float((size > 1 + 1e-5).float().mean()),
            f"{name}_farthest": float(size.max()),
        }
    return found


def _normalized(model: PolicyModel, actions: NDArray[Any]) -> torch.Tensor:
    return model.normalizer.normalize(ACTION, torch.from_numpy(np.asarray(actions, np.float32)))


def _planned(
    model: PolicyModel, text: str, unseen: Episodes, starts: NDArray[Any], rows: NDArray[Any]
) -> tuple[NDArray[Any], float]:
    """Plans along the recordings, a new one at every step: (steps, episodes, AHEAD, A); and calls for each."""
    policy = make_policy(model, text, n_action_steps=1)
    count = rows.shape[1]
    state, noise = policy.start(count), EnvironmentNoise(range(count))
    first, plans, calls = model.spec.first_action, [], 0
    for now in rows:
        back = np.arange(1 - model.spec.n_obs_steps, 1)
        seen = np.maximum(now[:, None] + back, starts[:, None])
        found = {
            entry.name: torch.from_numpy(unseen.observations[entry.name][seen]) for entry in model.spec.observations
        }
        out = policy.act(found, state, noise)
        plans.append(out.plan[:, first : first + AHEAD].numpy())
        calls += sum(out.calls)
    return np.stack(plans), calls / rows.size


def _plain(
    model: PolicyModel, learnt: Episodes, unseen: Episodes, starts: NDArray[Any], rows: NDArray[Any]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Guesses without a network."""
    shape = (*rows.shape, AHEAD, learnt.actions.shape[1])
    yield "mean action", np.broadcast_to(learnt.actions.mean(0), shape)
    before = unseen.actions[np.maximum(rows - 1, starts)]
    yield "last action", np.broadcast_to(before[:, :, None], shape)
    # of learnt steps with enough of their episode left
    ends = learnt.ends[np.searchsorted(learnt.ends, np.arange(learnt.steps), side="right")]
    usable = np.nonzero(ends - np.arange(learnt.steps) >= AHEAD)[0]
    name = model.spec.observations[0].name
    known, asked = (
        model.normalizer.normalize(name, torch.from_numpy(values))
        for values in (learnt.observations[name][usable], unseen.observations[name][rows.ravel()])
    )
    nearest = usable[torch.cdist(asked, known).argmin(1).numpy()].reshape(rows.shape)
    yield "nearest observation", learnt.actions[nearest[..., None] + np.arange(AHEAD)]


def _error(model: PolicyModel, text: str, plans: NDArray[Any], truth: NDArray[Any]) -> dict[str, Any]:
    """Root mean squares, in the actions' unit and in normalised ones, of the first action and of all AHEAD."""
    off = np.asarray(plans, np.float64) - truth
    normal = (_normalized(model, plans) - _normalized(model, truth)).double()
    return {
        "what": text,
        "error_first": float(np.sqrt(np.mean(off[:, :, 0] ** 2))),
        "error": float(np.sqrt(np.mean(off**2))),
        "normalised_error": float(normal.square().mean().sqrt()),
        "plans": int(off.shape[0] * off.shape[1]),
        "least": float(plans.min()),
        "greatest": float(plans.max()),
    }
