"""``priorscope robotics train``: a policy from demonstrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import TrainConfig
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.data.open import open_episodes
from priorscope_robotics.data.sequences import fewer, held_out_mask
from priorscope_robotics.spec import PolicySpec
from priorscope_robotics.training.feed import WindowFeed, Windows
from priorscope_robotics.training.report import write_report
from priorscope_robotics.training.start import chosen_observations, scaled_actions, start_model, trained_dimensions
from priorscope_robotics.training.task import ConsistencyTask, PolicyTask, StreamingTask


def train(config: TrainConfig) -> FitResult:
    """Train, or go on training, as ``config`` says; the model folder is ``out/model``.

    Raises
    ------
    InputError
        For options that do not fit together, data that cannot be read or do not fit a checkpoint, a loss that is not
        finite, and a folder that cannot be written.
    """
    _check(config)
    accelerator = make_accelerator(config.loop)
    given = load_policy(config.start or config.teacher).spec if config.start or config.teacher else None
    names = [entry.name for entry in given.observations] if given else list(config.observe)
    episodes = chosen_observations(open_episodes(config.data, names), names)
    learnt, held = _split(config, _scaled(config, given, episodes))
    model, teacher = start_model(config, learnt, accelerator.device)
    windows, held_windows = Windows(model.spec, learnt), Windows(model.spec, held)
    if not len(windows):
        raise InputError(
            f"no episode of {episodes.title} is long enough for plans of {model.spec.horizon} steps",
            remedy="Use a shorter --horizon.",
        )
    # made only now, so that a mistake above leaves nothing behind
    run = RunFolder.create(
        config.out, config, resume=config.loop.resume, may_differ=("out", *(f"loop.{name}" for name in MAY_DIFFER))
    )
    accelerator.wait_for_everyone()
    looked_at = held_windows if len(held_windows) else None
    if config.objective == "consistency":
        assert teacher is not None
        task: PolicyTask = ConsistencyTask(model, teacher, looked_at)
    elif config.objective == "streaming":
        task = StreamingTask(model, looked_at)
    else:
        task = PolicyTask(model, looked_at)
    if accelerator.is_main_process:
        weights = sum(weight.numel() for weight in task.parameters() if weight.requires_grad)
        print(
            f"{episodes.title}: {len(learnt)} episodes to learn from ({len(windows)} plans), {len(held)} held out; "
            f"{weights / 1e6:.2f} M weights."
        )
    result = fit(task, WindowFeed(windows, config.loop.batch_size, config.loop.seed), config.loop, run, accelerator)
    if accelerator.is_main_process:
        write_report(run, result, load_policy(result.model), learnt, len(held))
    return result


def _scaled(config: TrainConfig, given: PolicySpec | None, episodes: Episodes) -> Episodes:
    """With actions as the network sees them."""
    dims = trained_dimensions(config, episodes.actions.shape[1]) if given is None else given.discrete
    if given is not None and episodes.actions.shape[1] != given.action_dim:
        return episodes  # refused later, with both sizes
    return replace(episodes, actions=scaled_actions(episodes.actions, dims))


def _split(config: TrainConfig, episodes: Episodes) -> tuple[Episodes, Episodes]:
    held = held_out_mask(len(episodes), config.held_out if len(episodes) > 1 else 0.0, config.split_seed)
    learnt = fewer(~held, config.max_episodes or None, config.split_seed)
    return episodes.select(learnt), episodes.select(np.asarray(held))


def _check(config: TrainConfig) -> None:
    config.loop.check()
    for name in ("horizon", "n_obs_steps", "n_action_steps", "noise_steps"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    for name in ("crop", "max_episodes", "split_seed"):
        if getattr(config, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 0 or more.")
    if not 0 <= config.held_out < 1:
        raise InputError(f"--held-out {config.held_out}", remedy="Use a share below 1.")
    if not config.discrete_scale > 0:
        raise InputError(f"--discrete-scale {config.discrete_scale}", remedy="Use a number above 0.")
    if config.loop.lora or config.loop.gradient_checkpointing:
        raise InputError("--lora and --gradient-checkpointing are for large networks", remedy="Leave them out.")
    if config.start and config.teacher:
        raise InputError("--start and --teacher", remedy="A student starts from its teacher: leave --start out.")


def main(arguments: list[str] | None = None) -> Path:
    """``python -m priorscope_robotics.train``, for ``accelerate launch``."""
    import tyro

    return train(tyro.cli(TrainConfig, args=arguments)).model


if __name__ == "__main__":
    import sys

    from priorscope.cli import run_training

    sys.exit(run_training(main, app="robotics"))
