"""SDPose against the official code's own numbers, on its tiny random networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.backbones import SD2_UNET, SD_VAE
from priorscope.backbones.latents import AutoencoderSpace
from priorscope.diffusion.noise import Noise
from priorscope.features.published import PUBLISHED as CORE_TAPS
from priorscope_pose.codecs.dark import blur, log_neighbours
from priorscope_pose.codecs.peaks import find_peaks
from priorscope_pose.geometry.crop import Crops
from priorscope_pose.sdpose.head import HEAD_KEYS, HeatmapHead
from priorscope_pose.sdpose.losses import heatmap_loss
from priorscope_pose.sdpose.network import SDPoseNetwork
from priorscope_pose.sdpose.predictor import SDPosePredictor
from priorscope_pose.sdpose.settings import PUBLISHED, PoseSettings

TAPS = {"body": "up_blocks.3", "wholebody": "up_blocks.2"}


class Case:
    """A golden case: its tensors, what its JSON says, and the network with its weights."""

    def __init__(self, path, read_json, dtype=torch.float32):
        from diffusers import AutoencoderKL, UNet2DConditionModel

        self.info = read_json(path.with_suffix(".json"))
        self.tensors = load_file(path)
        self.tolerance = self.info["tolerance"]
        unet = UNet2DConditionModel(**self.info["unet_config"])
        unet.load_state_dict(self.weights("unet"))
        vae = AutoencoderKL(**self.info["vae_config"])
        missing, unexpected = vae.load_state_dict(self.weights("vae"), strict=False)
        assert not unexpected
        assert all(key.startswith(("decoder.", "post_quant_conv.")) for key in missing)
        codec = self.info["codec"]
        self.settings = PoseSettings(
            "coco",
            TAPS[self.info["scheme"]],
            tuple(codec["input_size"]),
            tuple(codec["heatmap_size"]),
            codec["sigma"],
            self.info["timestep"],
        )
        self.network = SDPoseNetwork(
            unet.eval(),
            HeatmapHead.from_state(self.weights("decoder")),
            AutoencoderSpace(vae.eval()),
            self.tensors["in.text_embed"],
            self.settings,
        ).requires_grad_(False)
        self.network.to(dtype)

    def weights(self, part):
        prefix = f"weights.{part}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def close(self, ours, name, kind):
        expected = self.tensors[f"out.{name}"]
        torch.testing.assert_close(ours, expected, atol=self.tolerance[kind], rtol=0)


@pytest.fixture(scope="module")
def cases(golden_files, read_json):
    return [Case(path, read_json) for path in golden_files("pose", "sdpose_tiny_*.safetensors")]


def test_golden_sdpose(cases, golden_files, read_json):
    assert {case.info["scheme"] for case in cases} == {"body", "wholebody"}
    for case in cases:
        network, given = case.network, case.tensors
        torch.testing.assert_close(network.task.expand(2, -1), given["in.class_labels"])
        torch.testing.assert_close(
            network.reconstruction_task.expand(2, -1), given["in.class_labels_reconstruction_assumed"]
        )
        latent = given["in.latent_mode"]
        torch.testing.assert_close(network.encode(given["in.rgb"]), latent, atol=2e-5, rtol=1e-4)
        case.close(network.features(latent), "feat", "features")
        case.close(network.features(latent), f"up_blocks.{network.settings.tap[-1]}", "features")
        case.close(network(latent), "heatmaps_mode", "heatmaps")
        case.close(network.reconstruct(latent), "unet_sample_recon_class", "features")
        plain = network.heatmaps(given["in.rgb"])
        case.close(plain, "heatmaps_mode", "heatmaps")
        loss = heatmap_loss(network(latent), given["in.loss_target"], given["in.loss_weight"])
        case.close(loss.reshape(1), "loss", "loss")
        check_sampled(case)
        check_keypoints(case)


def check_sampled(case):
    """The official call: latents drawn from the posterior, for the mirror image anew."""
    network, given = case.network, case.tensors
    flip = given["in.flip_indices"].tolist()
    rgb = given["in.rgb"]
    noise = [given["in.vae_noise"], given["in.vae_noise_flip"]]
    once = network.heatmaps(rgb, posterior="sample", noise=Noise.recorded(noise[:1]))
    case.close(once, "predict_noflip.heatmaps", "heatmaps")
    both = network.heatmaps(rgb, flip_indices=flip, posterior="sample", noise=Noise.recorded(noise))
    case.close(both, "predict_flip.heatmaps", "heatmaps")
    # the same noise for both halves is another answer: the second draw matters
    same = network.heatmaps(rgb, flip_indices=flip, posterior="sample", noise=Noise.recorded(noise[:1] * 2))
    assert (same - both).abs().max() > 10 * case.tolerance["heatmaps"]


def check_keypoints(case):
    """Decoded and in the image's pixels, where the official decoder's answer means something.

    It does not where the Hessian is as good as singular (README of the cases), nor for a channel that smoothing leaves
    without a positive value: the official code then divides by its negative maximum, which turns it upside down.
    """
    predictor = SDPosePredictor(case.network)
    codec = replace(predictor.codec, official=True)
    size = case.settings.input_size
    center = np.array(case.info["bbox_centers"], np.float32)
    scale = np.array([case.info["bbox_scales"]] * 2, np.float32)
    crops = Crops(np.zeros((2, size[1], size[0], 3), np.uint8), center, scale, "evaluated", size)
    for name in ("predict_noflip", "predict_flip"):
        heatmaps = case.tensors[f"out.{name}.heatmaps"]
        keypoints, scores = codec.decode(heatmaps)
        case.close(scores, f"{name}.scores", "scores")
        off = np.abs(crops.to_image(keypoints) - case.tensors[f"out.{name}.keypoints_image"].numpy()).max(-1)
        smoothed = blur(heatmaps.flatten(0, 1), codec.smoothing.kernel).amax((-2, -1)).view(scores.shape)
        telling = ((hessian(codec, heatmaps).abs() > 1e-4) & (smoothed > 0)).numpy()
        assert telling.sum() >= 12
        assert off[telling].max() <= case.tolerance["keypoints_px"]


def hessian(codec, heatmaps):
    """Determinant of the Hessian of the smoothed logarithm at each maximum."""
    v = log_neighbours(heatmaps, find_peaks(heatmaps), 1, codec.smoothing)
    xx, yy = (a - 2 * v[..., 1, 1] + b for a, b in ((v[..., 1, 0], v[..., 1, 2]), (v[..., 0, 1], v[..., 2, 1])))
    xy = (v[..., 2, 2] + v[..., 0, 0] - xx - yy - 2 * v[..., 1, 1]) / 2
    return xx * yy - xy * xy


def test_float64_is_exact(golden_files, read_json):
    """In float64 the answer is exact to what the tensors were stored with."""
    for path in golden_files("pose", "sdpose_tiny_*.safetensors"):
        case = Case(path, read_json, torch.float64)
        latent = case.tensors["in.latent_mode"].double()
        maps = case.network.head(case.tensors["out.feat_f64"])
        torch.testing.assert_close(maps, case.tensors["out.heatmaps_mode_f64"], atol=1e-10, rtol=1e-10)
        # features are handed on in float32
        features = case.network.features(latent).double()
        torch.testing.assert_close(features, case.tensors["out.feat_f64"], atol=1e-6, rtol=1e-6)


def test_folded_network_gives_the_same(golden_files, read_json):
    for path in golden_files("pose", "sdpose_tiny_*.safetensors"):
        case = Case(path, read_json)
        before = sum(value.numel() for value in case.network.unet.parameters())
        case.network.fold()
        assert sum(value.numel() for value in case.network.unet.parameters()) < before
        assert len(case.network.unet.up_blocks) == int(case.settings.tap[-1]) + 1
        case.close(case.network(case.tensors["in.latent_mode"]), "heatmaps_mode", "heatmaps")
        case.close(case.network.heatmaps(case.tensors["in.rgb"]), "heatmaps_mode", "heatmaps")


def test_pass_ends_at_the_tap(cases):
    """Nothing behind the tap runs: neither the last block of the whole-body model nor the output layer of either."""
    for case in cases:
        unet, ran = case.network.unet, []
        handles = [
            module.register_forward_hook(lambda *_, name=name, ran=ran: ran.append(name))
            for name, module in unet.named_modules()
            if name
        ]
        case.network.features(case.tensors["in.latent_mode"])
        for handle in handles:
            handle.remove()
        assert "up_blocks.1" in ran
        last = int(case.settings.tap[-1])
        assert not [name for name in ran if name.startswith(("conv_norm_out", "conv_out"))]
        assert not [name for name in ran for later in range(last + 1, 4) if name.startswith(f"up_blocks.{later}")]


def test_head_answers_for_every_person(cases):
    """Official ``mode=None`` hands the head a bare tensor and gets the last person only (``head_bug``)."""
    for case in cases:
        ours = case.network(case.tensors["in.latent_mode"])
        assert ours.shape[0] == 2
        bug = case.tensors["out.head_bug_raw_tensor"]
        assert bug.shape == ours.shape[1:]
        torch.testing.assert_close(ours[1], bug, atol=case.tolerance["heatmaps"], rtol=0)


def test_golden_manifest_pose(golden_files):
    """The networks that we build have the published keys and shapes; nothing is allocated."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    manifests = {
        path.stem.removeprefix("manifest-sdpose-"): _shapes(path)
        for path in golden_files("pose", "manifest-sdpose-*.tsv")
    }
    assert set(manifests) == {"decoder-body", "decoder-wholebody", "unet", "vae", "text_encoder"}
    switcher = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD2_UNET, **switcher)
        vae = AutoencoderKL(**SD_VAE)
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=1024, num_hidden_layers=23, num_attention_heads=16, intermediate_size=4096, vocab_size=49408
            )
        )
        heads = {
            name: HeatmapHead(channels, count) for name, channels, count in (("body", 320, 17), ("wholebody", 640, 133))
        }
    built = {"unet": unet.state_dict(), "vae": vae.state_dict()}
    # in files the text encoder's keys have a prefix that transformers 5 takes off
    built["text_encoder"] = {
        key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in text.state_dict().items()
    }
    built |= {f"decoder-{name}": head.state_dict() for name, head in heads.items()}
    for name, state in built.items():
        assert {key: list(value.shape) for key, value in state.items()} == manifests[name], name
    assert list(manifests["decoder-body"]) == list(HEAD_KEYS)
    counts = {name: sum(int(np.prod(shape)) for shape in shapes.values()) for name, shapes in manifests.items()}
    assert counts["unet"] == 867_556_804
    assert (counts["decoder-body"], counts["decoder-wholebody"]) == (1_746_577, 7_049_093)
    assert {count: settings.tap for count, settings in PUBLISHED.items()} == {17: TAPS["body"], 133: TAPS["wholebody"]}
    for name, taps in TAPS.items():
        assert [tap.path for tap in CORE_TAPS[f"sdpose-{name}"]] == [taps]


def _shapes(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return {key: [int(side) for side in shape.split("x")] for key, shape, _ in rows}
