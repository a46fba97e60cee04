"""The networks give what the official ones give, have the published keys, and refuse what does not fit."""

from __future__ import annotations

import torch

from priorscope_robotics.networks.image_encoder import ImageEncoder, SpatialSoftmax, encoder_keys
from priorscope_robotics.networks.transformer import TransformerForDiffusion
from priorscope_robotics.networks.unet1d import ConditionalUnet1D


def test_golden_dp_unet1d(golden_cases, weights_of):
    for name, meta, tensors in golden_cases("dp_unet1d_*"):
        net = ConditionalUnet1D(**meta["config"])
        net.load_state_dict(weights_of(tensors))
        net.eval()
        for case in ("b2h16", "b3h8"):
            names = [key for key in ("global_cond", "local_cond") if f"{case}.{key}" in tensors]
            inputs = {key: tensors[f"{case}.{key}"] for key in names}
            x, t = tensors[f"{case}.x"], tensors[f"{case}.t"]
            with torch.no_grad():
                torch.testing.assert_close(net(x, t, **inputs), tensors[f"{case}.out_t_batch"], **meta["tol"], msg=name)
                torch.testing.assert_close(
                    net(x, torch.tensor(42), **inputs), tensors[f"{case}.out_t42"], **meta["tol"]
                )
                double = {key: value.double() for key, value in inputs.items()}
                found = net.double()(x.double(), t, **double)
                torch.testing.assert_close(found, tensors[f"{case}.out64_t_batch"], rtol=1e-6, atol=1e-6)
                net.float()


def test_a_single_plan_is_as_one_of_many():
    """A batch of one goes another way through the convolutions; it follows the weights when they change."""
    torch.manual_seed(0)
    settings = {"down_dims": [16, 32], "diffusion_step_embed_dim": 16, "kernel_size": 5, "n_groups": 8}
    net = ConditionalUnet1D(2, 6, **settings).double().eval().requires_grad_(False)
    x, t, g = torch.randn(3, 8, 2).double(), torch.tensor([1, 5, 50]), torch.randn(3, 6).double()
    for _ in range(2):
        alone = torch.cat([net(x[i : i + 1], t[i : i + 1], g[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(alone, net(x, t, g), rtol=1e-12, atol=1e-12)
        for weight in net.parameters():
            weight.mul_(1.1)
    assert not any("laid" in key for key in net.state_dict())


def test_golden_dp_transformer(golden_cases, weights_of):
    for name, meta, tensors in golden_cases("dp_transformer_*"):
        net = TransformerForDiffusion(**meta["config"])
        net.load_state_dict(weights_of(tensors))
        net.eval()
        with torch.no_grad():
            found = net(tensors["x"], tensors["t"], tensors.get("cond"))
        torch.testing.assert_close(found, tensors["out"], **meta["tol"], msg=name)


def test_golden_dp_image_encoder(golden_cases):
    for _, meta, tensors in golden_cases("dp_image_obs_encoder*"):
        weights = {}
        encoder = ImageEncoder((3, 96, 96), (84, 84)).eval()
        state = encoder.state_dict()
        official = {}
        for key in state:
            for ours, theirs in encoder_keys("image"):
                if f"encoders.image.{key}".startswith(ours):
                    official[theirs.removeprefix("obs_encoder.") + f"encoders.image.{key}"[len(ours) :]] = key
                    break
        for index, key in enumerate(meta["param_order"]):
            shape = state[official[key]].shape
            w = torch.randn(shape, generator=torch.Generator().manual_seed(1000 + index))
            if w.ndim == 1:
                w = 1 + 0.1 * w if key.endswith("weight") else 0.1 * w
            else:
                w = w * (2 / w[0].numel()) ** 0.5
            weights[official[key]] = w
        missing, unexpected = encoder.load_state_dict(weights, strict=False)
        assert not unexpected
        assert set(missing) == {"pool.temperature", "pool.pos_x", "pool.pos_y"}
        with torch.no_grad():
            found = torch.cat([tensors["agent_pos"], encoder(tensors["image"])], -1)
        torch.testing.assert_close(found, tensors["features"], **meta["tol"])
        softmax = SpatialSoftmax(5, 4, 6, 3)

        small = {key[len("w.ss.") :]: value for key, value in tensors.items() if key.startswith("w.ss.")}
        softmax.load_state_dict(small)
        torch.testing.assert_close(softmax(tensors["ss.x"]), tensors["ss.out"], **meta["tol"])
