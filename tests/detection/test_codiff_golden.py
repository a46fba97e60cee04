"""What of CoDiff's release can be run: its U-Net, schedule, loss and sampling; OpenCOOD's compressor."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.noise import Noise
from priorscope_detection.codiff.codec import NaiveCompressor
from priorscope_detection.codiff.released import (
    RELEASED_CROP,
    clamped,
    cosine_log_snr,
    released_diffusion,
    released_loss,
    released_sample,
)
from priorscope_detection.codiff.released_unet import ReleasedUnet


def test_golden_codiff(golden_files, read_json):
    for path in golden_files("robotics_detection", "codiff_diffusion_*.safetensors"):
        case, notes = load_file(path), read_json(path.with_suffix(".json"))
        config, tolerance = notes["config"], notes["tol"]
        network = ReleasedUnet(config["dim"], config["ch"], config["mults"])
        network.load_state_dict({key[2:]: value for key, value in case.items() if key.startswith("w.")})
        network.eval()
        with torch.no_grad():
            out = network(case["x"], case["log_snr"], case["condition"])
        torch.testing.assert_close(out, case["out"], **tolerance)
        torch.testing.assert_close(cosine_log_snr(case["sched.t"].double()).float(), case["sched.log_snr"], **tolerance)
        denoiser = released_diffusion(network)
        noised = denoiser.schedule.add_noise(case["q.x_start"], case["q.times"].double(), case["q.noise"])
        torch.testing.assert_close(noised, case["q.x_noised"], **tolerance)
        torch.testing.assert_close(
            denoiser.label(case["q.times"].double(), noised).float(), case["q.log_snr"], **tolerance
        )
        loss = released_loss(
            denoiser, case["q.x_start"], case["loss.noise"], case["q.times"], case["condition"], crop=RELEASED_CROP
        )
        torch.testing.assert_close(loss, case["loss.value"], **tolerance)
        # one step from .6 to .475: the mean and the variance of what comes next
        condition = Condition({"condition": case["condition"]})
        schedule = denoiser.schedule
        with torch.no_grad():
            prediction = clamped(case["x"], 0.6, denoiser(case["x"], 0.6, condition), None, schedule=schedule)
        (a, s), (a_next, s_next) = schedule(0.6), schedule(0.475)
        c = 1 - (a * s_next / (s * a_next)) ** 2
        mean = a_next * prediction.x0 + s_next * (1 - c) ** 0.5 * prediction.eps
        torch.testing.assert_close(mean, case["pm.mean"], **tolerance)
        torch.testing.assert_close(torch.tensor(s_next**2 * c), case["pm.var"], check_dtype=False, **tolerance)
        for steps in (8, 4, 20):
            noise = Noise.recorded(case[f"sample{steps}.noise"])
            found = released_sample(denoiser, case["sample.condition"], steps, noise)
            torch.testing.assert_close(found, case[f"sample{steps}.out"], **tolerance)


def test_golden_opencood(golden_files, read_json):
    for path in golden_files("robotics_detection", "opencood_naive_compressor.safetensors"):
        case, tolerance = load_file(path), read_json(path.with_suffix(".json"))["tol"]
        width, code = case["x"].shape[1], case["code"].shape[1]
        codec = NaiveCompressor(width, width // code)
        codec.load_state_dict({key[2:]: value for key, value in case.items() if key.startswith("w.")})
        codec.eval()
        torch.testing.assert_close(codec.encoder(case["x"]), case["code"], **tolerance)
        torch.testing.assert_close(codec(case["x"]), case["out"], **tolerance)


def test_released_network_has_the_published_weights(golden_files, read_manifest):
    (path,) = golden_files("robotics_detection", "manifest-codiff-DifussionFusion.tsv")
    with torch.device("meta"):
        ours = ReleasedUnet().state_dict()
    published = read_manifest(path)
    shapes = {key: list(value.shape) for key, value in ours.items()}
    # the same module under two names, and the convolution that halves the agents' latents
    assert {key.removeprefix("diffusion.unet."): v for key, v in published.items() if ".unet." in key} == shapes
    twice = {key.removeprefix("diffusion.diffusion.model."): v for key, v in published.items() if ".model." in key}
    assert twice == shapes
    rest = {key for key in published if ".unet." not in key and ".model." not in key}
    assert rest == {"diffusion.conv_layer_downsample.weight", "diffusion.conv_layer_downsample.bias"}
    assert sum(value.numel() for value in ours.values()) > 93_000_000


def test_norm_over_channels_does_not_see_the_width_of_the_map():
    torch.manual_seed(0)
    for width_norm in (True, False):
        network = ReleasedUnet(8, 2, (1,), width_norm=width_norm)
        norm = network.downs[0][0].block1.norm
        x = torch.randn(1, 8, 4, 4)
        same = torch.allclose(norm(x.repeat(1, 1, 1, 4))[..., :4], norm(x))
        assert same != width_norm
