"""Published files: keys and shapes to the last one, true containers end to end, and what is refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import zlib
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.diffusion_policy import load_diffusion_policy, published_keys
from priorscope_robotics.checkpoints.folder import load_folder, save_model
from priorscope_robotics.checkpoints.lerobot import load_lerobot
from priorscope_robotics.checkpoints.lerobot_export import export_lerobot
from priorscope_robotics.checkpoints.lerobot_keys import from_lerobot, to_lerobot
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.rti import RtiPolicy
from priorscope_robotics.spec import DiscreteAction, ImageSettings, Observation, PolicySpec

LOWDIM = {"diffusion_step_embed_dim": 256, "down_dims": [256, 512, 1024], "kernel_size": 5, "n_groups": 8}
LARGE = {"diffusion_step_embed_dim": 128, "down_dims": [512, 1024, 2048], "kernel_size": 5, "n_groups": 8}
TRANSFORMER = {
    **{"n_layer": 8, "n_head": 4, "n_emb": 256, "p_drop_emb": 0.0, "p_drop_attn": 0.01},
    **{"causal_attn": True, "time_as_cond": True, "obs_as_cond": True, "n_cond_layers": 0},
}
SCHEDULER = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 100,
    "prediction_type": "epsilon",
    "variance_type": "fixed_small",
}


def robomimic_spec(obs, action):
    return PolicySpec((Observation("obs", (obs,)),), action, network_settings={**LOWDIM, "cond_predict_scale": True})


def dp_specs():
    """The published networks by the names of their manifests."""
    pusht = (Observation("obs", (20,)),)
    image = (Observation("agent_pos", (2,)), Observation("image", (3, 96, 96), "image"))
    return {
        "lowdim-pusht-cnn-inpaint": PolicySpec(pusht, 2, conditioning="inpaint", network_settings=LOWDIM),
        "lowdim-pusht-transformer": PolicySpec(
            pusht, 2, conditioning="memory", network="transformer", network_settings=TRANSFORMER
        ),
        "hybrid-image-pusht-cnn": PolicySpec(image, 2, network_settings=LARGE, image=ImageSettings(crop=(84, 84))),
        "lowdim-lift_abs-cnn-global": robomimic_spec(19, 10),
        "lowdim-can_abs-cnn-global": robomimic_spec(23, 10),
        "lowdim-square_abs-cnn-global": robomimic_spec(23, 10),
        "lowdim-tool_hang_abs-cnn-global": robomimic_spec(53, 10),
        "lowdim-transport_abs-cnn-global": robomimic_spec(59, 20),
    }


def lerobot_specs():
    state = Observation("observation.state", (2,))
    return {
        "pusht-image": PolicySpec(
            (state, Observation("observation.image", (3, 96, 96), "image")),
            2,
            network_settings=LARGE,
            image=ImageSettings(crop=(84, 84), shared=True),
            normalizer="lerobot",
        ),
        "pusht-keypoints": PolicySpec(
            (state, Observation("observation.environment_state", (16,))),
            2,
            network_settings=LARGE,
            normalizer="lerobot",
        ),
    }


def shapes(tensors):
    return {key: list(value.shape) for key, value in tensors.items()}


def on_meta(spec):
    with torch.device("meta"):
        return PolicyModel(spec)


def test_golden_manifest_robotics(golden_files):
    found = {}
    for path in golden_files("robotics_detection", "manifest-[dl][pe]*"):
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]  # the first names the columns
        found[path.name] = {key: json.loads(shape) for key, shape, _ in rows}
    specs = {f"manifest-dp-{name}.tsv": spec for name, spec in dp_specs().items()}
    for name, spec in specs.items():
        assert shapes(published_keys(spec, on_meta(spec).state_dict())) == found[name], name
    lerobot = {f"manifest-lerobot-diffusion-{name}.tsv": spec for name, spec in lerobot_specs().items()}
    for name, spec in lerobot.items():
        assert shapes(to_lerobot(spec, on_meta(spec).state_dict())) == found[name], name
    assert set(specs) | set(lerobot) == set(found)


@pytest.mark.parametrize("name", ["pusht-image", "pusht-keypoints"])
def test_lerobot_names_go_both_ways(name):
    spec = lerobot_specs()[name]
    spec = replace(spec, network_settings={**LARGE, "down_dims": [16, 32]})
    state = PolicyModel(spec).state_dict()
    back = from_lerobot(spec, to_lerobot(spec, state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


# ---- writing files as they are published ------------------------------------------------------------------------


def hashed(key, shape):
    """Random weights that depend on the key alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    value = torch.randn(tuple(shape), generator=generator)
    if len(shape) < 2:
        return 0.1 * value if key.endswith(("bias", "offset", "mean", "min")) else 1 + 0.1 * value.abs()
    return value * (1 / max(value[0].numel(), 1)) ** 0.5


def fill(spec):
    """A model of hashed weights whose constant buffers are right."""
    model = PolicyModel(spec)
    constant = ("pos_x", "pos_y", "temperature", "mask", "memory_mask")
    state = {
        key: value if key.endswith(constant) else hashed(key, value.shape) for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def dp_config(spec, **policy):
    """The settings of a checkpoint as Hydra leaves them: interpolations and all."""
    images = bool(spec.images)
    network = "transformer" if spec.network == "transformer" else "unet"
    kind = "HybridImage" if images else "Lowdim"
    model = {"_target_": "diffusion_policy.model.x", "input_dim": "${eval: ${action_dim}}", **spec.network_settings}
    found = {
        "_target_": f"diffusion_policy.workspace.Train{kind}Workspace",
        "name": "train",
        "task_name": "pusht",
        "horizon": spec.horizon,
        "n_obs_steps": spec.n_obs_steps,
        "n_action_steps": spec.n_action_steps,
        "n_latency_steps": 0,
        "obs_as_global_cond": spec.conditioning == "global",
        "training": {"use_ema": True, "seed": 42},
        "task": {"name": "pusht_lowdim", "dataset": {"zarr_path": "data/pusht.zarr"}},
        "policy": {
            "_target_": f"diffusion_policy.policy.diffusion_{network}_{'hybrid_image' if images else 'lowdim'}_policy."
            f"Diffusion{network.capitalize()}{kind}Policy",
            "horizon": "${horizon}",
            "n_obs_steps": "${n_obs_steps}",
            "n_action_steps": "${eval:'${n_action_steps}+${n_latency_steps}'}",
            "noise_scheduler": SCHEDULER,
            "oa_step_convention": True,
        },
    }
    if images:
        entries = {
            entry.name: {"shape": list(entry.shape), "type": "rgb" if entry.kind == "image" else "low_dim"}
            for entry in spec.observations
        }
        found["shape_meta"] = {"obs": entries, "action": {"shape": [spec.action_dim]}}
        found["policy"] |= {"shape_meta": "${shape_meta}", "crop_shape": [84, 84], "obs_encoder_group_norm": True}
        found["policy"] |= {"obs_as_global_cond": True, "eval_fixed_crop": True, **spec.network_settings}
    else:
        found["policy"] |= {"model": model, "obs_as_global_cond": "${obs_as_global_cond}", "obs_as_local_cond": False}
        if network == "transformer":
            found["policy"] |= {"obs_as_cond": True}
    found["policy"] |= policy
    return found


def write_ckpt(path, spec, state, *, config=None, optimizer=True):
    """What ``BaseWorkspace.save_checkpoint`` writes."""
    import dill
    from omegaconf import OmegaConf

    weights = published_keys(spec, state)
    raw = {key: torch.zeros_like(value) for key, value in weights.items()}
    content = {
        "cfg": OmegaConf.create(config or dp_config(spec)),
        "state_dicts": {"model": raw, "ema_model": weights},
        "pickles": {name: dill.dumps(value) for name, value in {"global_step": 7, "epoch": 3}.items()},
    }
    if optimizer:
        content["state_dicts"]["optimizer"] = {
            "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": 1e-4, "betas": (0.95, 0.999), "params": [0]}],
        }
    torch.save(content, path, pickle_module=dill)
    return path


def small(spec):
    if spec.network == "transformer":
        return replace(spec, network_settings={**TRANSFORMER, "n_layer": 2, "n_emb": 16, "n_head": 2})
    settings = {**spec.network_settings, "down_dims": [16, 32], "diffusion_step_embed_dim": 16}
    return replace(spec, network_settings=settings)


def observations(spec, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        entry.name: torch.rand(batch, spec.n_obs_steps, *entry.shape, generator=generator)
        for entry in spec.observations
    }


def acts_alike(first, second, names=None):
    """Both models give the same actions from the same noise."""
    seen = observations(first.spec)
    found = []
    for model in (first, second):
        given = seen if model is first or names is None else {names[key]: value for key, value in seen.items()}
        policy = FullPolicy(model, solver="ddim", steps=3)
        found.append(policy.act(given, policy.start(1), EnvironmentNoise([5])).actions)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["lowdim-pusht-cnn-inpaint", "lowdim-pusht-transformer", "lowdim-lift_abs-cnn-global", "hybrid-image-pusht-cnn"],
)
def test_checkpoint_of_diffusion_policy(tmp_path, name):
    spec = small(dp_specs()[name])
    model = fill(spec)
    path = write_ckpt(tmp_path / "epoch=0100.ckpt", spec, model.state_dict())
    loaded = load_diffusion_policy(path)
    assert loaded.spec.family == "diffusion-policy"
    assert (loaded.spec.first_action, loaded.spec.n_action_steps, loaded.spec.horizon) == (1, 8, 16)
    assert loaded.spec.conditioning == spec.conditioning
    acts_alike(model, loaded)


def test_checkpoint_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    spec = small(dp_specs()["lowdim-lift_abs-cnn-global"])
    path = write_ckpt(tmp_path / "latest.ckpt", spec, fill(spec).state_dict())
    first = load_policy(path)
    assert load_policy(path).spec == first.spec
    (copy,) = (tmp_path / "cache/robotics").iterdir()
    assert {file.name for file in copy.iterdir()} == {"config.json", "model.safetensors"}
    os.truncate(path, 100)  # another size: another file, which is damaged
    with pytest.raises(InputError, match="is not a checkpoint that can be read"):
        load_policy(path)
    acts_alike(first, load_policy(copy))


def test_two_processes_convert_the_same_checkpoint(tmp_path, monkeypatch):
    from priorscope_robotics.checkpoints import load

    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    spec = small(dp_specs()["lowdim-lift_abs-cnn-global"])
    path = write_ckpt(tmp_path / "latest.ckpt", spec, fill(spec).state_dict())
    others = []

    def save_and_be_overtaken(model, folder):
        save_model(model, folder)
        if not others:
            others.append(None)
            others[0] = load_policy(path)  # another process, from begin to end

    monkeypatch.setattr(load, "save_model", save_and_be_overtaken)
    acts_alike(load_policy(path), others[0])
    (copy,) = (tmp_path / "cache/robotics").iterdir()
    acts_alike(others[0], load_policy(copy))


class Attack:
    def __reduce__(self):
        return os.system, ("true",)


def test_forbidden_classes_are_one_line(tmp_path):
    spec = small(dp_specs()["lowdim-lift_abs-cnn-global"])
    path = tmp_path / "bad.ckpt"
    torch.save({"cfg": Attack(), "state_dicts": {"model": fill(spec).state_dict()}}, path)
    with pytest.raises(InputError, match=r"bad\.ckpt: its pickle asks for posix\.system, which is not loaded") as error:
        load_diffusion_policy(path)
    assert "\n" not in str(error.value)
    buffer = io.BytesIO()
    pickle.dump(InputError, buffer)
    torch.save({"cfg": InputError("x")}, path)
    with pytest.raises(InputError, match="asks for priorscope"):
        load_diffusion_policy(path)


def test_checkpoints_that_do_not_fit(tmp_path):
    spec = small(dp_specs()["lowdim-lift_abs-cnn-global"])
    state = fill(spec).state_dict()
    lacking = {key: value for key, value in state.items() if "final_conv.1.bias" not in key}
    with pytest.raises(InputError, match=r"1 missing \(network\.final_conv\.1\.bias\)"):
        load_diffusion_policy(write_ckpt(tmp_path / "a.ckpt", spec, lacking))
    config = dp_config(spec) | {"horizon": 15, "n_action_steps": 8}
    path = write_ckpt(tmp_path / "b.ckpt", spec, state, config=config)
    with pytest.raises(InputError, match="multiple of 2"):
        load_diffusion_policy(path)
    config = dp_config(spec, _target_="diffusion_policy.policy.ibc_dfo_policy.IbcDfoLowdim")
    path = write_ckpt(tmp_path / "c.ckpt", spec, state, config=config)
    with pytest.raises(InputError, match="IbcDfoLowdim"):
        load_diffusion_policy(path)
    (tmp_path / "d.ckpt").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"d\.ckpt: is not a checkpoint that can be read"):
        load_diffusion_policy(tmp_path / "d.ckpt")
    with pytest.raises(InputError, match="no such file"):
        load_policy(tmp_path / "e.ckpt")


# ---- LeRobot ----------------------------------------------------------------------------------------------------


def write_lerobot(folder, spec, layout):
    """A folder as LeRobot wrote it in 2024 ("old"), with statistics among the weights, or writes it now."""
    model = fill(spec)
    folder.mkdir(parents=True)
    tensors = to_lerobot(spec, model.state_dict())
    settings = spec.network_settings
    config = {
        "n_obs_steps": spec.n_obs_steps,
        "horizon": spec.horizon,
        "n_action_steps": spec.n_action_steps,
        "crop_shape": [84, 84],
        "use_group_norm": True,
        "spatial_softmax_num_keypoints": 32,
        **{name: settings[name] for name in ("down_dims", "diffusion_step_embed_dim", "kernel_size", "n_groups")},
        "use_film_scale_modulation": True,
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": 100,
        "clip_sample": True,
        "clip_sample_range": 1.0,
    }
    generator = torch.Generator().manual_seed(3)
    features = {entry.name: list(entry.shape) for entry in spec.observations} | {"action": [spec.action_dim]}
    stats = {}
    for name, shape in features.items():
        shape = [shape[0], 1, 1] if len(shape) == 3 else shape
        low = torch.rand(shape, generator=generator)
        stats[name] = {"mean": low, "std": low + 0.5} if len(shape) == 3 else {"min": low, "max": low + 2}
    if layout == "old":
        inputs = {name: shape for name, shape in features.items() if name != "action"}
        config |= {"input_shapes": inputs, "output_shapes": {"action": features["action"]}}
        modes = {name: "mean_std" if len(shape) == 3 else "min_max" for name, shape in inputs.items()}
        config |= {"input_normalization_modes": modes, "output_normalization_modes": {"action": "min_max"}}
        for name, values in stats.items():
            key = name.replace(".", "_")
            for group in ("normalize_targets", "unnormalize_outputs") if name == "action" else ("normalize_inputs",):
                tensors |= {f"{group}.buffer_{key}.{stat}": value for stat, value in values.items()}
    else:
        kinds = {"observation.state": "STATE", "observation.environment_state": "ENV", "action": "ACTION"}
        typed = {name: {"type": kinds.get(name, "VISUAL"), "shape": shape} for name, shape in features.items()}
        config |= {
            "type": "diffusion",
            "input_features": {name: value for name, value in typed.items() if name != "action"},
            "output_features": {"action": typed["action"]},
            "normalization_mapping": {
                **{"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"}
            },
        }
        file = "policy_preprocessor_step_3_normalizer_processor.safetensors"
        step = {"registry_name": "normalizer_processor", "config": {"eps": 1e-8}, "state_file": file}
        steps = [{"registry_name": "rename_observations_processor", "config": {}}, step]
        (folder / "policy_preprocessor.json").write_text(json.dumps({"name": "policy_preprocessor", "steps": steps}))
        save_file({f"{name}.{stat}": v for name, values in stats.items() for stat, v in values.items()}, folder / file)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.clone() for key, value in tensors.items()}, folder / "model.safetensors")
    return stats


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("name", ["pusht-image", "pusht-keypoints"])
def test_folder_of_lerobot(tmp_path, name, layout):
    spec = small(lerobot_specs()[name])
    stats = write_lerobot(tmp_path / "policy", spec, layout)
    model = load_policy(tmp_path / "policy")
    assert model.spec.normalizer == ("lerobot-old" if layout == "old" else "lerobot")
    middle = (stats["action"]["min"] + stats["action"]["max"]) / 2
    torch.testing.assert_close(model.actions(torch.zeros(1, 1, 2))[0, 0], middle)
    if name == "pusht-image":
        image = torch.rand(3, 96, 96)
        expected = (image - stats["observation.image"]["mean"]) / stats["observation.image"]["std"]
        torch.testing.assert_close(model.normalizer.normalize("observation.image", image), expected)
    # and out again
    export_lerobot(model, tmp_path / "again")
    acts_alike(model, load_lerobot(tmp_path / "again"))
    before, after = (load_file(tmp_path / f"{part}/model.safetensors") for part in ("policy", "again"))
    kept = {key: value for key, value in before.items() if key.startswith("diffusion.")}
    assert after.keys() == kept.keys()
    assert all(torch.equal(after[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", ["lowdim-lift_abs-cnn-global", "hybrid-image-pusht-cnn"])
def test_policies_of_others_as_lerobot_folders(tmp_path, name):
    model = fill(small(dp_specs()[name]))
    export_lerobot(model, tmp_path / "policy")
    loaded = load_lerobot(tmp_path / "policy")
    names = {"obs": "observation.state", "agent_pos": "observation.state", "image": "observation.image"}
    acts_alike(model, loaded, names)


def test_what_lerobot_does_not_have(tmp_path):
    for name in ("lowdim-pusht-cnn-inpaint", "lowdim-pusht-transformer"):
        with pytest.raises(InputError, match="LeRobot has no"):
            export_lerobot(fill(small(dp_specs()[name])), tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_a_scaled_gripper_keeps_its_unit_as_a_lerobot_folder(tmp_path):
    """LeRobot knows no scale of discrete dimensions: the statistics of the action have to tell it."""
    spec = small(dp_specs()["lowdim-lift_abs-cnn-global"])
    model = fill(replace(spec, discrete=(DiscreteAction(-1, (0.0, 1.0), scale=10.0),)))
    export_lerobot(model, tmp_path / "policy")
    loaded = load_lerobot(tmp_path / "policy")
    x = torch.rand(1, spec.horizon, spec.action_dim)
    expected = model.actions(x)
    expected[..., -1] *= 10
    torch.testing.assert_close(loaded.actions(x), expected, rtol=1e-5, atol=1e-5)


def test_lerobot_has_no_students(tmp_path):
    model = fill(small(dp_specs()["lowdim-lift_abs-cnn-global"]))
    for objective in ("consistency", "streaming"):
        model.spec = replace(model.spec, objective=objective)
        with pytest.raises(InputError, match=f"LeRobot has no policy that was trained for {objective}"):
            export_lerobot(model, tmp_path / "policy")


def test_folders_of_lerobot_that_do_not_fit(tmp_path):
    folder = tmp_path / "policy"
    write_lerobot(folder, small(lerobot_specs()["pusht-keypoints"]), "new")
    config = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"type": "act"}, "type 'act'"),
        ({"horizon": 15}, "multiple of 2"),
        ({"down_dims": [16, 64]}, "wrongly shaped"),
        ({"normalization_mapping": {"STATE": "QUANTILES"}}, "QUANTILES"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(InputError, match=message):
            load_lerobot(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "policy_preprocessor.json").unlink()
    with pytest.raises(InputError, match=r"policy_preprocessor\.json: is missing"):
        load_lerobot(folder)


def test_our_folder_keeps_everything(tmp_path):
    spec = replace(small(dp_specs()["lowdim-lift_abs-cnn-global"]), largest_moves=(0.25, 0.5), trained_on="a test")
    model = fill(spec)
    save_model(model, tmp_path / "model")
    loaded = load_folder(tmp_path / "model")
    assert loaded.spec == replace(spec, network_settings=loaded.spec.network_settings)
    acts_alike(model, loaded)


# ---- full size --------------------------------------------------------------------------------------------------


def acts_with_rti(model):
    seen = observations(model.spec)
    policy = RtiPolicy(model, [2, 1, 0], full=FullPolicy(model, solver="ddim", steps=2))
    state, noise = policy.start(1), EnvironmentNoise([0])
    for calls in (2, 3):
        out = policy.act(seen, state, noise)
        assert out.actions.shape == (1, model.spec.n_action_steps, model.spec.action_dim)
        assert bool(torch.isfinite(out.actions).all())
        assert out.calls == [calls]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lowdim-pusht-cnn-inpaint", "lowdim-pusht-transformer", "hybrid-image-pusht-cnn"])
def test_full_size_checkpoint_of_diffusion_policy(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    spec = dp_specs()[name]
    path = write_ckpt(tmp_path / "latest.ckpt", spec, fill(spec).state_dict())
    model = load_policy(path)
    acts_with_rti(model)
    # and the command, in the environment it was trained for
    words = ["robotics", "rollout", str(path), "pusht", "--out", str(tmp_path / "a.mp4"), "--max-steps", "3"]
    assert main([*words, "--policy", "ddim:2", "--n-action-steps", "2"]) == 0
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    print(f"{path.stat().st_size / 1e6:.0f} MB file, {sum(w.numel() for w in model.parameters()) / 1e6:.1f} M weights,")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB at most")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["old", "new"])
def test_full_size_folder_of_lerobot(tmp_path, layout):
    spec = lerobot_specs()["pusht-image"]
    write_lerobot(tmp_path / "policy", spec, layout)
    acts_with_rti(load_policy(tmp_path / "policy"))
    words = ["robotics", "rollout", str(tmp_path / "policy"), "pusht", "--out", str(tmp_path / "a.gif")]
    assert main([*words, "--policy", "ddim:2", "--n-action-steps", "2", "--max-steps", "3"]) == 0
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB at most")
