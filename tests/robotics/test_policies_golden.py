"""Sampling and warm starts against the official runs, with their noise."""

from __future__ import annotations

import torch

from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.solvers.one_step import ddim
from priorscope.diffusion.spacing import spaced_times
from priorscope_robotics.loss import policy_loss
from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.noise_schedule import published_ddpm, training_schedule
from priorscope_robotics.policies.denoise import clip_constraint, denoise
from priorscope_robotics.policies.discrete import robomimic_grippers
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.rti import RtiPolicy
from priorscope_robotics.spec import Diffusion, Observation, PolicySpec


def test_golden_dp_sampling(golden_cases, weights_of):
    for _, meta, tensors in golden_cases("dp_schedulers_and_sampling"):
        settings = dict(meta["config_unet"])
        spec = PolicySpec(
            observations=(Observation("obs", (3,)),),
            action_dim=settings.pop("input_dim"),
            network_settings={key: value for key, value in settings.items() if key != "global_cond_dim"},
        )
        for name, kind in {"cos": "squaredcos_cap_v2", "lin": "linear"}.items():
            schedule, step = (
                training_schedule(Diffusion(beta_schedule=kind)),
                published_ddpm(Diffusion(beta_schedule=kind)),
            )
            found = torch.from_numpy(schedule.alphas_cumprod.copy())
            torch.testing.assert_close(found.float(), tensors[f"{name}.alphas_cumprod"], rtol=1e-6, atol=1e-9)
            for clip in (0, 1):
                model = PolicyModel(PolicySpec(**{**vars(spec), "diffusion": Diffusion(clip=float(clip))})).eval()
                model.network.load_state_dict(weights_of(tensors))
                denoiser = model.denoiser(schedule)
                given = model.given(tensors["global_cond"].unflatten(1, (2, 3)))
                x, drawn = tensors["x_init"], 0
                with torch.no_grad():
                    for t in range(99, -1, -1):
                        rest = Noise.recorded([tensors["ddpm_noise"][drawn]] if t else [])
                        x = denoise_one(model, denoiser, given, x, t, rest, step)
                        drawn += 1
                        key = f"ddpm100_{name}_clip{clip}.after_t{t}"
                        if key in tensors:
                            torch.testing.assert_close(x, tensors[key], **meta["tol"], msg=named(key))
                    if not clip:
                        continue
                    for count in (8, 10, 16, 100):
                        levels = spaced_times(schedule, count, "leading")[:-1]
                        assert levels == tensors[f"ddim{count}_{name}.timesteps"].tolist()
                        # where T is no multiple of the steps the last jump goes to t - T // steps, below 0: clean
                        x = denoise(model, denoiser, given, tensors["x_init"], levels, step=ddim)
                        torch.testing.assert_close(x, tensors[f"ddim{count}_{name}.out"], **meta["tol"])


def named(what):
    return lambda message: f"{what}: {message}"


def denoise_one(model, denoiser, given, x, t, noise, step):
    """One step t -> t - 1."""

    constraint = clip_constraint(denoiser, model.spec.diffusion.clip, step)
    return sample(denoiser, x, [t, t - 1], step=step, noise=noise, condition=given.condition, constraint=constraint)


def test_golden_rti(golden_cases, weights_of, golden_spec):
    for name, meta, tensors in golden_cases("rti_*"):
        config = meta["config"]
        discrete = ()
        if config.get("disc"):
            discrete = robomimic_grippers(config["Da"], factor=config["factor"], scaled=config["scale"])
        model = PolicyModel(golden_spec(config, discrete=discrete)).eval()
        model.network.load_state_dict(weights_of(tensors, "model."))
        model.normalizer.load_state_dict(weights_of(tensors, "normalizer."))
        schedule = "linear-as-released" if isinstance(config["sched"], str) else "checkpoint"
        policy = RtiPolicy(model, config["steps"], jumps="official", shift=1, schedule=schedule, jump=0.0)
        state = policy.start(2)
        tol = {key: value for key, value in meta["tol"].items() if key in ("rtol", "atol")}
        for cycle in range(5):
            noise = Noise.recorded(tensors[f"cycle{cycle}.noise"])
            out = policy.act({"obs": tensors[f"cycle{cycle}.obs"]}, state, noise)
            where = f"{name} cycle {cycle}"
            torch.testing.assert_close(out.actions, tensors[f"cycle{cycle}.action"], **tol, msg=named(where))
            torch.testing.assert_close(out.plan, tensors[f"cycle{cycle}.action_pred"], **tol, msg=named(where))
            torch.testing.assert_close(state.guess, tensors[f"cycle{cycle}.guess_after"], **tol, msg=named(where))
            if f"cycle{cycle}.obs_pred" in tensors:
                found = model.normalizer.unnormalize("obs", state.guess[..., config["Da"] :])
                torch.testing.assert_close(found, tensors[f"cycle{cycle}.obs_pred"], **tol, msg=named(where))
            for dim in discrete:
                index = dim.index
                assert torch.equal(out.actions[..., index], tensors[f"cycle{cycle}.action"][..., index]), where
            assert out.calls == [100 if cycle == 0 else len(config["steps"])] * 2
            assert noise.drawn == len(noise.tensors), where


def test_golden_lerobot(golden_cases, weights_of, golden_unet):
    from priorscope_robotics.checkpoints.lerobot_keys import from_lerobot

    for _, meta, tensors in golden_cases("lerobot_*"):
        config = meta["config"]
        spec = PolicySpec(
            observations=(Observation("observation.state", (2,)), Observation("observation.environment_state", (4,))),
            action_dim=2,
            horizon=config["horizon"],
            n_obs_steps=config["n_obs_steps"],
            n_action_steps=config["n_action_steps"],
            first_action=config["n_obs_steps"] - 1,
            network_settings={**golden_unet, **{key: config[key] for key in ("down_dims", "kernel_size", "n_groups")}},
            normalizer="lerobot",
        )
        model = PolicyModel(spec).eval()
        model.load_state_dict(from_lerobot(spec, weights_of(tensors)))
        observations = {entry.name: tensors[entry.name] for entry in spec.observations}
        given = model.given(model.features(model.normalized(observations)))
        x0 = model.normalizer.normalize(ACTION, tensors["action"])
        for name, valid in {"loss": None, "loss_masked": ~tensors["action_is_pad"]}.items():
            loss = policy_loss(model, given, x0, tensors["loss.noise"], tensors["loss.t"], valid=valid)
            torch.testing.assert_close(loss, tensors[name], **meta["tol"], msg=name)
        policy = FullPolicy(model)
        noise = Noise.recorded([tensors["sample.x_init"], *tensors["sample.noise"]])
        out = policy.act(observations, policy.start(2), noise)
        torch.testing.assert_close(out.actions, tensors["sample.actions"], **meta["tol"])
