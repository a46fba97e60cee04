"""NCSN++ and the container its published weights come in."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from priorscope.backbones.ncsnpp import NCSNpp, _Fir, ncsnpp_denoiser
from priorscope.backbones.ncsnpp_checkpoint import load_ncsnpp
from priorscope.diffusion.score_matching import score_matching_loss
from priorscope.errors import InputError
from priorscope.training.average import WeightAverage
from priorscope.training.learning_rate import rate_factor

SMALL = {"image_size": 16, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_at": (8,), "num_scales": 20}


def network(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = NCSNpp(**{**SMALL, **changes})
        with torch.no_grad():  # new networks answer 0
            for weight in made.parameters():
                weight += 0.05 * torch.randn_like(weight)
    return made.eval()


def weights_of(case, prefix):
    return {key.removeprefix(prefix): value for key, value in case.items() if key.startswith(f"{prefix}all_modules")}


def test_golden_ncsnpp(golden_files, read_json):
    for path in golden_files("medical", "mbir_ncsnpp*.safetensors"):
        case = load_file(path)
        for made in read_json(path.with_suffix(".json"))["cases"]:
            name = made["name"]
            net = NCSNpp(
                image_size=made["image_size"],
                channels=made["nf"],
                multipliers=made["ch_mult"],
                blocks=made["num_res_blocks"],
                attention_at=made["attn_resolutions"],
                num_scales=made["num_scales"],
            ).eval()
            net.load_state_dict(weights_of(case, f"{name}.sd."))
            assert sum(weight.numel() for weight in net.parameters()) == made["params"]
            for layout in (torch.contiguous_format, torch.channels_last):
                with torch.no_grad():
                    out = net.to(memory_format=layout)(case[f"{name}.x"], case[f"{name}.sigma"])
                torch.testing.assert_close(out, case[f"{name}.out"], rtol=2e-3, atol=2e-4)


def manifest_of(path):
    """Name -> shape; the first line is a heading."""
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return {name: json.loads(shape) for name, shape, _ in rows}


def test_golden_manifest_tomography(golden_files):
    with torch.device("meta"):
        net = NCSNpp()
    assert sum(weight.numel() for weight in net.parameters()) == 61_433_601
    shapes = {f"module.{name}": list(value.shape) for name, value in net.state_dict().items()}
    trained = [f"module.{name}" for name, weight in net.named_parameters() if weight.requires_grad]
    for path in golden_files("medical", "manifest-mbir-*"):
        manifest = manifest_of(path)
        assert manifest.pop("module.sigmas") == [net.config.num_scales]
        assert list(manifest) == list(shapes)
        assert manifest == shapes
        order = path.with_name(path.name.replace("manifest", "ema-order")).with_suffix(".txt")
        assert [f"module.{name.removeprefix('module.')}" for name in order.read_text().split()] == trained


def test_golden_mbir_train(golden_files, read_json):
    for path in golden_files("medical", "mbir_train_step*.safetensors"):
        case, rate = load_file(path), read_json(path.with_suffix(".json"))["lr_at_step"]
        net = NCSNpp(**SMALL)
        net.load_state_dict(weights_of(case, "sd."))
        average = WeightAverage(net, 0.999)
        # the official average counts the weights it starts from
        average.load_state_dict({**average.state_dict(), "optimization_step": 1})
        assert rate == pytest.approx(2e-4 * rate_factor(99, 10**6, schedule="constant", warmup=5000))
        optimizer = torch.optim.Adam(net.parameters(), lr=rate)
        loss = score_matching_loss(ncsnpp_denoiser(net), case["batch"], case["z"], case["t"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update()
        torch.testing.assert_close(loss.detach(), case["loss"], rtol=1e-3, atol=0)
        torch.testing.assert_close(norm, case["grad_norm"], rtol=1e-3, atol=0)
        got, before = net.state_dict(), weights_of(case, "sd.")
        for name, value in weights_of(case, "after.").items():
            torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-7)
            # a first step of Adam is the sign of the gradient times the rate
            moved = (value - before[name]).abs() > 0.9 * rate
            torch.testing.assert_close(
                (got[name] - before[name])[moved], (value - before[name])[moved], rtol=0.1, atol=0
            )
        with average.in_place():
            got = net.state_dict()
            for name, value in weights_of(case, "ema.").items():
                torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kernel", [(1.0, 3.0, 3.0, 1.0), (1.0, 1.0), (1.0, 2.0, 4.0, 0.5, 3.0, 1.0)])
@pytest.mark.parametrize("resample", ["up", "down", ""])
def test_filter_is_zero_insertion_and_convolution(kernel, resample):
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    taps = len(kernel)
    flat = torch.outer(torch.tensor(kernel), torch.tensor(kernel)).double() / sum(kernel) ** 2
    before, after = {"up": (taps // 2, taps // 2 - 1), "down": (taps // 2 - 1,) * 2, "": (taps // 2,) * 2}[resample]
    spread = x
    if resample == "up":
        spread = x.new_zeros(2, 3, 12, 16)
        spread[..., ::2, ::2] = 4 * x
    padded = functional.pad(spread, (before, after) * 2)
    expected = torch.zeros(2, 3, padded.shape[2] - taps + 1, padded.shape[3] - taps + 1).double()
    for i in range(taps):
        for j in range(taps):
            moved = padded[..., i : i + expected.shape[2], j : j + expected.shape[3]]
            expected += flat[taps - 1 - i, taps - 1 - j] * moved
    if resample == "down":
        expected = expected[..., ::2, ::2]
    torch.testing.assert_close(_Fir(3, kernel, resample).double()(x), expected, rtol=1e-6, atol=1e-6)


def test_an_image_does_not_see_its_batch_and_any_even_size_runs():
    net = network(multipliers=(1, 1, 2), fir_kernel=(1, 1))
    x, sigma = torch.rand(3, 1, 12, 20), torch.tensor([0.02, 1.0, 300.0])
    with torch.no_grad():
        together = net(x, sigma)
        alone = torch.cat([net(x[i : i + 1], sigma[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * float(together.abs().max()))


def test_sizes_of_the_options():
    plain = network(progressive_input="none", in_channels=2, dropout=0.1)
    assert not any("Conv2d_0" in name for name in plain.state_dict())
    sigma = torch.tensor([2.0])
    x = torch.rand(1, 2, 8, 8)
    with torch.no_grad():
        assert plain(x, sigma).shape == x.shape
        unscaled = network(progressive_input="none", in_channels=2, scale_by_sigma=False, centered=True)
        torch.testing.assert_close(unscaled(2 * x - 1, sigma) / 2, plain(x, sigma))


def test_a_new_network_answers_almost_nothing_and_learns():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = NCSNpp(**SMALL)
        denoiser = ncsnpp_denoiser(net)
        clean = torch.zeros(4, 1, 16, 16)
        clean[:, :, 4:12, 4:12] = 1
        eps, t = torch.randn_like(clean), torch.linspace(0.1, 0.9, 4)
        with torch.no_grad():
            start = float(score_matching_loss(denoiser, clean, eps, t))
        assert start == pytest.approx(float(0.5 * eps.square().sum() / 4), rel=1e-2)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(20):
            optimizer.zero_grad()
            loss = score_matching_loss(denoiser, clean, eps, t)
            loss.backward()
            optimizer.step()
    assert float(loss.detach()) < 0.7 * start
    assert net.all_modules[0].W.grad is None


def test_gradient_checkpointing_changes_nothing():
    net = network().train()
    x, sigma = torch.rand(2, 1, 16, 16), torch.tensor([0.5, 3.0])
    net(x, sigma).square().sum().backward()
    expected = {name: weight.grad.clone() for name, weight in net.named_parameters() if weight.requires_grad}
    net.zero_grad()
    net.enable_gradient_checkpointing()
    net(x, sigma).square().sum().backward()
    for name, weight in net.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, expected[name])


def test_denoiser_is_told_sigma_and_gives_noise():
    net = network()
    seen = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    denoiser = ncsnpp_denoiser(net)
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        score = denoiser.raw(x, 0.5)
        prediction = denoiser(x, torch.tensor([0.5, 0.5]))
    middle = (0.01 * 378) ** 0.5
    torch.testing.assert_close(seen[0], torch.full((2,), middle))
    torch.testing.assert_close(seen[1].float(), torch.full((2,), middle))
    torch.testing.assert_close(prediction.eps, -middle * score)
    torch.testing.assert_close(prediction.x0, x + middle**2 * score)


def test_wrong_images_and_sizes():
    net = network()
    for shape in ((1, 1, 15, 16), (1, 3, 16, 16), (1, 16, 16)):
        with pytest.raises(InputError, match="shape"):
            net(torch.rand(shape), torch.ones(1))
    with pytest.raises(InputError, match="uint8"):
        net(torch.zeros(1, 1, 16, 16, dtype=torch.uint8), torch.ones(1))
    for changes in ({"channels": 3}, {"multipliers": ()}, {"blocks": 0}, {"channels": 36}, {"in_channels": 0}):
        with pytest.raises(InputError, match="channels"):
            NCSNpp(**{**SMALL, **changes})
    with pytest.raises(InputError, match="fir_kernel"):
        NCSNpp(**{**SMALL, "fir_kernel": (1, 2, 1)})
    with pytest.raises(InputError, match="progressive_input"):
        NCSNpp(**{**SMALL, "progressive_input": "output_skip"})


def test_our_own_folder(tmp_path):
    net = network(sigma_max=50.0)
    net.save_pretrained(tmp_path / "prior")
    back = load_ncsnpp(tmp_path / "prior")
    x, sigma = torch.rand(2, 1, 16, 16), torch.tensor([0.1, 9.0])
    with torch.no_grad():
        assert torch.equal(back(x, sigma), net(x, sigma))
    assert (back.config.sigma_max, back.training) == (50.0, False)
    assert not any(weight.requires_grad for weight in back.parameters())
    with pytest.raises(InputError, match="config"):
        load_ncsnpp(tmp_path / "prior", config=SMALL)


def container(net, *, sigmas=None):
    """What ``score_sde_pytorch`` saves: DataParallel's names, the average as a list, Adam's state."""
    model = {f"module.{name}": value for name, value in net.state_dict().items()}
    levels = torch.linspace(0, 1, 20, dtype=torch.float64).neg().exp() if sigmas is None else sigmas
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    moments = {i: {"step": 3, "exp_avg": w.detach(), "exp_avg_sq": w.detach()} for i, w in enumerate(trained)}
    groups = [{"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(range(len(trained)))}]
    return {
        "optimizer": {"state": moments, "param_groups": groups},
        "model": {"module.sigmas": levels, **model},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": [2 * weight.detach() for weight in trained]},
        "step": 7,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_published_container(tmp_path, zipped):
    net, path = network(), tmp_path / "checkpoint_7.pth"
    torch.save(container(net), path, _use_new_zipfile_serialization=zipped)
    average, raw = load_ncsnpp(path, config=SMALL), load_ncsnpp(path, config=SMALL, weights="raw")
    assert average.config.num_scales == 20
    assert (average.config.sigma_max, average.config.sigma_min) == (1.0, pytest.approx(torch.e**-1))
    assert not average.training
    for name, weight in net.named_parameters():
        factor = 2 if weight.requires_grad else 1  # the fixed frequencies are not averaged
        assert torch.equal(average.get_parameter(name), factor * weight)
        assert torch.equal(raw.get_parameter(name), weight)


def break_container(made, how):
    model, average = made["model"], made["ema"]["shadow_params"]
    name = "module.all_modules.4.Conv_0.weight"
    if how == "missing":
        del model["module.all_modules.0.W"]
    elif how == "unexpected":
        model["module.all_modules.99.weight"] = torch.zeros(1)
    elif how == "wrongly shaped":
        average[4] = average[4][..., :1]
        model[name] = model[name][..., :1]
    elif how == "not finite":
        average[4][..., 0] = torch.nan
    elif how == "tensors, but":
        average.pop()
    elif how == "average":
        del made["ema"]
    elif how == "sigmas":
        model["module.sigmas"] = torch.ones(20)
    elif how == "'model'":
        del made["model"]
    elif how == "more than tensors":
        made["step"] = functools.partial(os.system, "true")
    return made


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "unexpected",
        "wrongly shaped",
        "not finite",
        "tensors, but",
        "average",
        "sigmas",
        "'model'",
        "more than tensors",
    ],
)
def test_containers_that_do_not_fit(tmp_path, how):
    path = tmp_path / "checkpoint.pth"
    torch.save(break_container(container(network()), how), path)
    with pytest.raises(InputError, match=how) as error:
        load_ncsnpp(path, config=SMALL)
    assert str(path) in str(error.value)


def test_files_that_are_no_container(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(InputError, match="no such checkpoint"):
        load_ncsnpp(path)
    torch.save(container(network()), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a file of torch"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"can be read|more than tensors"):
            load_ncsnpp(path, config=SMALL)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="list"):
        load_ncsnpp(path)
    with pytest.raises(InputError, match="weights 'best'"):
        load_ncsnpp(path, weights="best")


RUN_FULL_SIZE = """
import sys, time
import torch
from priorscope.backbones.ncsnpp import ncsnpp_denoiser
from priorscope.backbones.ncsnpp_checkpoint import load_ncsnpp
start = time.perf_counter()
network = load_ncsnpp(sys.argv[1]).to(memory_format=torch.channels_last)
loaded = time.perf_counter()
with torch.no_grad():
    x0, eps = ncsnpp_denoiser(network)(torch.rand(1, 1, 256, 256), 0.5)
assert x0.shape == eps.shape == (1, 1, 256, 256) and bool(eps.isfinite().all()) and float(eps.std()) > 0
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 2**20
print(f"loaded in {loaded - start:.1f} s, a 256 slice in {time.perf_counter() - loaded:.1f} s, peak {peak:.2f} GiB")
"""


@pytest.mark.slow
def test_full_size_container(tmp_path, golden_files):
    manifest = golden_files("medical", "manifest-mbir-AAPM*")[0]
    shapes = manifest_of(manifest)
    generator = torch.Generator().manual_seed(0)
    model = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        fan = max(weight[0].numel(), 1) if weight.ndim > 1 else 100
        model[name] = weight / fan**0.5
    ratio = torch.arange(2000, dtype=torch.float64) / 1999
    model["module.sigmas"] = (torch.tensor(378.0).double().log() * (1 - ratio) + torch.tensor(0.01).log() * ratio).exp()
    order = manifest.with_name(manifest.name.replace("manifest", "ema-order")).with_suffix(".txt").read_text().split()
    shadow = [model[f"module.{name.removeprefix('module.')}"] * 0.9 for name in order]
    moments = {i: {"step": 370_000, "exp_avg": w, "exp_avg_sq": w.square()} for i, w in enumerate(shadow)}
    groups = [{"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "params": list(moments)}]
    path = tmp_path / "checkpoint_185.pth"
    average = {"decay": 0.999, "num_updates": 370_000, "shadow_params": shadow}
    optimizer = {"state": moments, "param_groups": groups}
    torch.save({"optimizer": optimizer, "model": model, "ema": average, "step": 370_000}, path)
    del model, shadow, moments, average, optimizer
    print(f"\n{path.stat().st_size / 2**30:.2f} GiB in the published layout")
    done = subprocess.run([sys.executable, "-c", RUN_FULL_SIZE, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    peak = float(done.stdout.split("peak ")[1].split()[0])
    assert peak < 3.5


def test_levels_of_the_file_fall(tmp_path):
    """The buffer of the official code: falling, and a little off the numbers it was made from."""
    net, path = network(), tmp_path / "checkpoint.pth"
    falling = torch.exp(torch.linspace(torch.tensor(378.0).double().log(), torch.tensor(0.01).double().log(), 30))
    assert all(high > low for high, low in pairwise(falling.tolist()))
    torch.save(container(net, sigmas=falling), path)
    config = load_ncsnpp(path, config=SMALL).config
    assert (config.sigma_min, config.sigma_max, config.num_scales) == (pytest.approx(0.01), pytest.approx(378.0), 30)
