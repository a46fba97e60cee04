"""One episode, with its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_robotics.envs.environment import Environment
from priorscope_robotics.episodes_run import CallTime, EpisodeResult, run_episodes
from priorscope_robotics.policies.policy import Policy


@dataclass
class Filmed:
    """What was seen and done in an episode."""

    result: EpisodeResult
    pictures: list[NDArray[Any]]
    """uint8 [H, W, 3], from the start on, one a step."""
    actions: list[NDArray[Any]]
    """(n_action_steps, action_dim), one a plan."""
    times: list[CallTime]


def film_episode(
    environment: Environment, policy: Policy, seed: int, *, noise_seed: int = 0, drawn: bool = True
) -> Filmed:
    """Run the episode of a seed.

    Parameters
    ----------
    environment : Environment
    policy : Policy
    seed : int
    noise_seed : int
        Of the policy's noise.
    drawn : bool
        False: no pictures.

    Raises
    ------
    InputError
        The environment cannot be drawn.
    """
    pictures: list[NDArray[Any]] = []
    actions: list[NDArray[Any]] = []
    times: list[CallTime] = []

    def draw(_: int, environment: Environment) -> None:
        picture = environment.picture() if drawn else None
        if picture is not None:
            pictures.append(picture)
        elif drawn:
            raise InputError(f"{environment.name} cannot be drawn", remedy="`rollout --out x.npz` needs no pictures.")

    (result,) = run_episodes(
        [environment],
        policy,
        [seed],
        noise_seed=noise_seed,
        times=times,
        on_step=draw,
        on_output=lambda output, _: actions.append(output.actions[0].cpu().numpy()),
    )
    return Filmed(result, pictures, actions, times)
