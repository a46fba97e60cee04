"""Networks of published dehazing code, and the container of zea's weights."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import FunctionSchedule
from priorscope.diffusion.simple_sde import SimpleVESchedule
from priorscope.diffusion.solvers import ddim
from priorscope.errors import InputError
from priorscope_medical.ultrasound.angle_schedule import AngleSchedule, angle_times
from priorscope_medical.ultrasound.ncsnv2 import NCSNv2, load_keras_weights, ncsnv2_denoiser
from priorscope_medical.ultrasound.zea_checkpoint import fill, load_zea
from priorscope_medical.ultrasound.zea_unet import ZeaUNet, zea_denoiser


def nchw(x):
    return x.permute(0, 3, 1, 2)


def test_golden_ncsnv2(golden_files, read_json):
    for path in golden_files("medical", "joint_ncsnv2*.safetensors"):
        data = load_file(path)
        for case in read_json(path.with_suffix(".json"))["cases"]:
            name = case["name"]
            arrays = {
                key.split(".", 3)[3]: value.numpy() for key, value in data.items() if key.startswith(f"{name}.w.")
            }
            assert len(arrays) == case["n_weights"]
            network = NCSNv2(case["image_shape"][-1], case["channels"], case["kernel_size"]).eval()
            load_keras_weights(network, arrays)
            x, expected = nchw(data[f"{name}.x"]), nchw(data[f"{name}.out"])
            with torch.no_grad():
                out = network(x)
                assert (out - expected).abs().max() < 1e-5 * expected.abs().max()
                # the score is the output over sigma
                schedule = SimpleVESchedule()
                eps = ncsnv2_denoiser(network, schedule)(x, 0.5).eps
            torch.testing.assert_close(-eps / schedule(0.5)[1], out / schedule(0.5)[1])


def test_golden_zea(golden_files):
    """Schedule, network and DDIM step."""
    for path in golden_files("medical", "zea_diffusion*.safetensors"):
        data = load_file(path)
        schedule = AngleSchedule()
        for t, noise, signal in zip(
            data["t"].flatten().tolist(), data["noise_rates"].flatten(), data["signal_rates"].flatten(), strict=True
        ):
            assert schedule(t) == pytest.approx((float(signal), float(noise)), abs=1e-5)
            assert schedule.label(t) == pytest.approx(float(noise) ** 2, abs=1e-5)
        half = FunctionSchedule(lambda t: np.where(t < 1, 0.6, 0.9), lambda t: np.where(t < 1, 0.8, 0.19**0.5))
        eps = data["eps"]
        model = Denoiser(lambda x, label, eps=eps: eps, half)
        x = 0.9 * data["x0"] + 0.19**0.5 * eps
        moved, _ = ddim(model, x, 1.0, 0.0, None, None)
        torch.testing.assert_close(moved, data["ddim_next"], rtol=0, atol=1e-5)
    for path in golden_files("medical", "zea_unet*.safetensors"):
        data = load_file(path)
        arrays = [data[key].numpy() for key in sorted(key for key in data if key.startswith("w."))]
        names = sorted(key for key in data if key.startswith("w."))
        layers = {}
        for key, array in zip(names, arrays, strict=True):
            layers.setdefault(key.split(".")[2].split("|")[0], []).append(array)
        network = ZeaUNet(1, [4, 8], 1).eval()
        fill(
            network,
            [layer for name, layer in layers.items() if name.startswith("conv2d")],
            [layer for name, layer in layers.items() if name.startswith("batch")],
        )
        with torch.no_grad():
            out = network(nchw(data["x"]), data["noise_rate_sq"].flatten())
        torch.testing.assert_close(out, nchw(data["out"]), rtol=0, atol=2e-3)


def manifest(path):
    with open(path, newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    path_at, shape_at = rows[0].index("path"), rows[0].index("shape")
    return {row[path_at]: json.loads(row[shape_at]) for row in rows[1:] if row}


def test_golden_manifest_dehazing(golden_files):
    """The networks take arrays of the published names and shapes at full width."""
    for path in golden_files("medical", "manifest-joint-*.tsv"):
        shapes = manifest(path)
        network = NCSNv2(3, 64, 4)
        load_keras_weights(network, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        parameters = sum(weight.numel() for weight in network.parameters())
        moving = sum(int(np.prod(shape)) for name, shape in shapes.items() if "moving" in name)
        assert parameters + moving == sum(int(np.prod(shape)) for shape in shapes.values())
    sizes = {"tiny": ([4, 8], 1), "semantic": ([32, 64, 96, 128], 2)}
    for path in golden_files("medical", "manifest-zea-*.tsv"):
        widths, depth = next(size for name, size in sizes.items() if name in path.name)
        fill(ZeaUNet(1, widths, depth), *keras_layers(manifest(path), lambda shape: np.zeros(shape, np.float32)))


def keras_layers(shapes, make):
    layers = {}
    for name, shape in shapes.items():
        layers.setdefault(name.split("/")[0], []).append(make(shape))
    convolutions = [layer for name, layer in layers.items() if name.startswith("conv2d")]
    return convolutions, [layer for name, layer in layers.items() if name.startswith("batch")]


@pytest.fixture
def zea_folder(tmp_path):
    """``zea_folder(network, **config)``: a folder as zea writes it, with the network as its running average."""

    def make(network, **changes):
        config = {
            "module": "zea.models.diffusion",
            "class_name": "DiffusionModel",
            "config": {
                "name": "diffusion_model",
                "input_shape": [16, 16, 1],
                "input_range": [-1, 1],
                "min_signal_rate": 0.02,
                "max_signal_rate": 0.95,
                "network_name": "unet_time_conditional",
                "network_kwargs": {"widths": list(network.config.widths), "block_depth": network.config.block_depth},
            }
            | changes,
            "registered_name": "DiffusionModel",
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        with h5py.File(tmp_path / "model.weights.h5", "w") as file:
            for place, factor in (("ema_network", 1.0), ("layers/functional", 2.0)):
                write_network(file.create_group(f"{place}/layers"), network, factor)
            file.create_group("optimizer/vars").create_dataset("0", data=1)
        return tmp_path

    return make


def write_network(group, network, factor):
    """Layers in Keras' order: of a block the two convolutions, then the shortcut."""
    convolutions, norms = [network.begin], []
    for block in network.blocks():
        norms.append(block.norm)
        convolutions += [block.conv_0, block.conv_1]
        if isinstance(block.shortcut, torch.nn.Conv2d):
            convolutions.append(block.shortcut)
    convolutions.append(network.end)
    for kind, layers in (("conv2d", convolutions), ("batch_normalization", norms)):
        for index, layer in enumerate(layers):
            variables = group.create_group(f"{kind}_{index}" if index else kind).create_group("vars")
            if kind == "conv2d":
                variables["0"] = factor * layer.weight.detach().permute(2, 3, 1, 0).numpy()
                variables["1"] = layer.bias.detach().numpy()
            else:
                variables["0"], variables["1"] = layer.running_mean.numpy(), layer.running_var.numpy()


def random_network(widths=(4, 8), depth=1, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ZeaUNet(1, list(widths), depth)
        for block in network.blocks():
            block.norm.running_mean.normal_()
            block.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def test_zea_folders_load_their_running_average(zea_folder):
    made = random_network()
    folder = zea_folder(made)
    network, schedule, span = load_zea(folder)
    assert span == (-1.0, 1.0)
    assert schedule == AngleSchedule(0.02, 0.95)
    x, label = torch.randn(2, 1, 16, 16), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        torch.testing.assert_close(network(x, label), made(x, label))
        raw, _, _ = load_zea(folder, weights="raw")
        assert not torch.allclose(raw(x, label), made(x, label))
    out = sample(zea_denoiser(network, schedule), torch.randn(1, 1, 16, 16), angle_times(3))
    assert out.isfinite().all()


@pytest.mark.slow
def test_zea_container_at_full_width(zea_folder):
    """The published sizes: both networks and room for an optimiser, about 24 MB."""
    made = random_network((32, 64, 96, 128), 2)
    network, schedule, _ = load_zea(zea_folder(made, input_shape=[256, 256, 1]))
    for ours, theirs in zip(network.state_dict().values(), made.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    out = sample(zea_denoiser(network, schedule), torch.randn(1, 1, 256, 256), angle_times(2))
    assert out.isfinite().all()


def test_zea_folders_that_do_not_fit_are_refused(zea_folder, tmp_path):
    folder = zea_folder(random_network())
    with pytest.raises(InputError, match="no such folder"):
        load_zea(tmp_path / "nowhere")
    content = (folder / "model.weights.h5").read_bytes()
    (folder / "model.weights.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated"):
        load_zea(folder)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_zea(folder)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"network_kwargs": {"widths": [4, 16], "block_depth": 1}}, "shape"),
        ({"network_kwargs": {"widths": [4, 8], "block_depth": 2}}, "does not hold|shape"),
        ({"network_kwargs": {"widths": [4, 8], "block_depth": 1, "normalization": "group_norm"}}, "group_norm"),
        ({"network_name": "dit_time_conditional"}, "dit_time_conditional"),
        ({"network_kwargs": {"widths": [4, 8], "block_depth": 1, "heads": 2}}, "heads"),
        ({"input_shape": [16]}, "input_shape"),
    ],
)
def test_zea_configurations_that_do_not_fit_are_refused(zea_folder, changes, fact):
    with pytest.raises(InputError, match=fact):
        load_zea(zea_folder(random_network(), **changes))


def test_ncsnv2_refuses_weights_of_another_width():
    network = NCSNv2(1, 4, 3)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    arrays = {
        f"sequential_{number}/conv2d_{number}/kernel": module.weight.detach().permute(2, 3, 1, 0).numpy()
        for number, module in enumerate(convolutions)
    }
    with pytest.raises(InputError, match="normalisations"):
        load_keras_weights(network, arrays)


def test_networks_take_other_sizes_and_say_which_they_do_not():
    assert NCSNv2(1, 4, 4).eval()(torch.zeros(1, 1, 13, 9)).shape == (1, 1, 13, 9)
    with pytest.raises(InputError, match="multiples of 2"):
        random_network()(torch.zeros(1, 1, 15, 16), torch.zeros(1))
    assert angle_times(2) == [1.0, 0.5, -1.0]
    with pytest.raises(InputError, match="signal rates"):
        AngleSchedule(0.9, 0.1)
