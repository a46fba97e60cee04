"""Normalisers, masks, averages and losses against official outputs, and against what they must be by definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from priorscope.errors import InputError
from priorscope_robotics.ema import PowerAverage, power_decay
from priorscope_robotics.lerobot_normalizer import LeRobotField, LeRobotNormalizer
from priorscope_robotics.loss import clean_trajectory, policy_loss
from priorscope_robotics.mask import lowdim_mask
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.normalizer import (
    LinearNormalizer,
    absolute_action_field,
    fit_field,
    identity_field,
    image_field,
    largest_field,
    range_field,
    statistics,
)
from priorscope_robotics.spec import Diffusion, Observation, PolicySpec


def test_golden_dp_normalizer(golden_cases):
    for _, meta, tensors in golden_cases("dp_normalizer"):
        for mode in ("limits", "gaussian"):
            for offset in ("off", "nooff"):
                case = f"{mode}_{offset}"
                fields = {
                    name: fit_field(statistics(tensors[f"in.{name}"]), mode, fit_offset=offset == "off")
                    for name in ("obs", "action")
                }
                found = LinearNormalizer(fields)
                expected = {
                    key[len(case) + 4 :]: value for key, value in tensors.items() if key.startswith(f"{case}.sd.")
                }
                state = found.state_dict()
                assert set(state) == set(expected)
                for key, value in expected.items():
                    torch.testing.assert_close(state[key], value, **meta["tol"], msg=f"{case} {key}")
                for name in fields:
                    values = found.normalize(name, tensors[f"in.{name}"])
                    torch.testing.assert_close(values, tensors[f"{case}.norm.{name}"], **meta["tol"])
                    values = found.unnormalize(name, tensors[f"unnorm_in.{name}"])
                    torch.testing.assert_close(values, tensors[f"{case}.unnorm.{name}"], **meta["tol"])


def test_golden_dp_stat_normalizers(golden_cases):
    makers = {
        "range": range_field,
        "identity": identity_field,
        "abs_only": absolute_action_field,
        "dual": absolute_action_field,
    }
    for _, meta, tensors in golden_cases("dp_stat_normalizers"):
        for case, make in makers.items():
            values = tensors["in20" if case == "dual" else "in10"]
            start = f"{case}.sd.params_dict."
            stats = {name: tensors[f"{start}input_stats.{name}"] for name in ("min", "max", "mean", "std")}
            field = make(stats)
            torch.testing.assert_close(field.scale, tensors[f"{start}scale"], **meta["tol"], msg=case)
            torch.testing.assert_close(field.offset, tensors[f"{start}offset"], **meta["tol"], msg=case)
            torch.testing.assert_close(field.normalize(values), tensors[f"{case}.norm"], **meta["tol"])
        assert torch.equal(image_field().scale, tensors["img.sd.scale"])
        assert torch.equal(image_field().offset, tensors["img.sd.offset"])


def test_one_factor_for_all_dimensions():
    field = largest_field(statistics(torch.tensor([[1.0, -4.0, 0.0], [2.0, 0.0, 0.0]])))
    assert torch.equal(field.normalize(torch.tensor([2.0, -4.0, 0.0])), torch.tensor([0.5, -1.0, 0.0]))
    still = largest_field(statistics(torch.zeros(2, 3)))
    assert torch.equal(still.normalize(torch.zeros(3)), torch.zeros(3))


def test_golden_dp_mask(golden_cases):
    for _, _, tensors in golden_cases("dp_mask_generator"):
        found = {
            "inpaint": lowdim_mask((2, 6, 5), 2, 3, 2),
            "actvis": lowdim_mask((2, 6, 5), 2, 3, 2, action_visible=True),
            "glob": lowdim_mask((2, 6, 2), 2, 0, 2),
        }
        for name, mask in found.items():
            assert torch.equal(mask, tensors[name]), name


def test_mask_draws_the_number_of_observed_steps():
    mask = lowdim_mask((400, 6, 3), 2, 1, 3, fix_obs_steps=False, generator=torch.Generator().manual_seed(0))
    steps = mask[..., -1].sum(1)
    assert set(steps.tolist()) == {1, 2, 3}
    assert not mask[..., :2].any()


def test_golden_dp_ema(golden_cases):
    for _, meta, tensors in golden_cases("dp_ema"):
        settings = {
            "p075": {},
            "default_2_3": {"power": 2 / 3},
            "after10": {"update_after_step": 10, "inv_gamma": 2.0},
        }
        for name, changes in settings.items():
            found = [power_decay(int(step), **changes) for step in tensors["steps"]]
            torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), tensors[name], rtol=0, **meta["tol"])
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        model.load_state_dict({key[5:]: value for key, value in tensors.items() if key.startswith("seq0.")})
        average = PowerAverage(model)
        for update in range(1, 5):
            with torch.no_grad():
                for weight in model.parameters():
                    weight += 0.5
            model[1].running_mean += 1  # never reaches the average
            average.update(model)
            for key, value in average.average.state_dict().items():
                expected = tensors[f"ema_after{update}.{key}"]
                torch.testing.assert_close(value, expected, rtol=0, **meta["tol"], msg=f"{update} {key}")


def test_golden_dp_loss(golden_cases, weights_of, golden_spec):
    for name, meta, tensors in golden_cases("dp_loss_*"):
        model = PolicyModel(golden_spec(meta["config"]))
        model.network.load_state_dict(weights_of(tensors, "model."))
        model.normalizer.load_state_dict(weights_of(tensors, "normalizer."))
        features = model.features(model.normalized({"obs": tensors["obs"]}))
        whole = model.normalizer.normalize("obs", tensors["obs"])
        x0 = clean_trajectory(model, tensors["action"], whole if model.spec.conditioning == "inpaint" else None)
        loss = policy_loss(model, model.given(features), x0, tensors["noise"], tensors["timesteps"])
        torch.testing.assert_close(loss, tensors["loss"], atol=0, **meta["tol"], msg=name)
        if "grad.model.final_conv.1.bias" in tensors:
            loss.backward()
            torch.testing.assert_close(
                model.network.final_conv[1].bias.grad, tensors["grad.model.final_conv.1.bias"], rtol=1e-4, atol=1e-6
            )


def test_lerobot_constant_dimension_is_minus_one_and_comes_back():
    stats = {"min": torch.tensor([3.0, 0.0]), "max": torch.tensor([3.0, 4.0])}
    for shifted in (False, True):
        field = LeRobotField("MIN_MAX", stats, shifted=shifted)
        x = torch.tensor([3.0, 1.0])
        torch.testing.assert_close(field.normalize(x), torch.tensor([-1.0, -0.5]))
        torch.testing.assert_close(field.unnormalize(field.normalize(x)), x)
    # the linear normaliser makes the same dimension 0
    assert fit_field(stats | {"mean": stats["min"], "std": stats["min"]}).normalize(torch.tensor([3.0, 4.0]))[0] == 0


def test_lerobot_mean_std_on_images():
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.1
    field = LeRobotField("MEAN_STD", {"mean": mean, "std": std})
    image = torch.rand(2, 2, 3, 4, 4)
    torch.testing.assert_close(field.normalize(image), (image - mean) / std)
    assert LeRobotField("IDENTITY", {}).normalize(image) is image
    with pytest.raises(InputError, match="QUANTILES"):
        LeRobotNormalizer({"a": "QUANTILES"}, {})


def test_specs_that_do_not_fit_are_refused():
    base = {
        "observations": (Observation("obs", (3,)),),
        "action_dim": 2,
        "network_settings": {"down_dims": [8, 16, 32]},
    }
    PolicySpec(**base).check()
    with pytest.raises(InputError, match="multiple of 4"):
        PolicySpec(**base, horizon=18).check()
    with pytest.raises(InputError, match="do not fit a horizon of 16"):
        PolicySpec(**base, n_action_steps=16).check()
    with pytest.raises(InputError, match="memory"):
        PolicySpec(**base, conditioning="memory").check()


def test_observations_that_do_not_fit_name_the_key(golden_spec):
    config = {"Do": 3, "Da": 2, "T": 8, "To": 2, "n_act": 1, "glob": True}
    model = PolicyModel(golden_spec(config, diffusion=Diffusion()))
    good = torch.zeros(2, 2, 3)
    with pytest.raises(InputError, match="'obs' is missing"):
        model.normalized({"other": good})
    with pytest.raises(InputError, match=r"'obs' has shape \(4,\), the policy takes \(3,\)"):
        model.normalized({"obs": torch.zeros(2, 2, 4)})
    bad = good.clone()
    bad[1, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"'obs' is not finite \(environments \[1\]\)"):
        model.normalized({"obs": bad})
