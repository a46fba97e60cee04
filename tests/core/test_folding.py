"""Folded networks answer as the plain ones do, to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from priorscope import InputError
from priorscope.backbones.folding import PhaseConv, fold_constants, lean

_SWITCHER = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}


def random_unet(channels=4, *, switcher=True, **changes):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **{
            "in_channels": channels,
            "out_channels": 4,
            "block_out_channels": (16, 32, 32),
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": (2, 4, 4),
            "cross_attention_dim": 24,
            "use_linear_projection": True,
            "norm_num_groups": 8,
            **(_SWITCHER if switcher else {}),
            **changes,
        }
    ).eval()
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return unet.requires_grad_(False)


def assert_equal_to_rounding(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("tokens", [2, 77])
@pytest.mark.parametrize("switcher", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 16, 24), (1, 8, 13, 10)])
def test_a_folded_unet_answers_as_the_plain_one(tokens, switcher, shape):
    unet = random_unet(shape[1], switcher=switcher)
    text = torch.randn(1, tokens, 24)
    task = torch.randn(1, 4) if switcher else None
    x = torch.randn(shape)
    rows = shape[0]
    told = {"class_labels": task.expand(rows, -1)} if switcher else {}
    plain = unet(x, 999, encoder_hidden_states=text.expand(rows, -1, -1), **told).sample
    folded = fold_constants(copy.deepcopy(unet), 999, text, task)
    assert_equal_to_rounding(folded(x, 999, encoder_hidden_states=text.expand(rows, -1, -1), **told).sample, plain)
    # whatever it is told
    other = folded(x, 3, encoder_hidden_states=torch.zeros(rows, 1, 24)).sample
    assert_equal_to_rounding(other, plain)
    # and the constants matter: another level gives another answer
    elsewhere = unet(x, 10, encoder_hidden_states=text.expand(rows, -1, -1), **told).sample
    assert (elsewhere - plain).abs().max() > 1e-2 * plain.abs().max()


def test_folding_drops_weights_and_cannot_be_saved_or_repeated(tmp_path):
    unet = random_unet()
    before = sum(weight.numel() for weight in unet.parameters())
    folded = fold_constants(unet, 999, torch.randn(1, 2, 24), torch.randn(1, 4))
    assert sum(weight.numel() for weight in folded.parameters()) < before
    with pytest.raises(InputError, match="cannot be saved"):
        folded.save_pretrained(tmp_path / "unet")
    with pytest.raises(InputError, match="folded already"):
        fold_constants(folded, 999, torch.randn(1, 2, 24))


def test_residual_blocks_that_scale_by_their_embedding_are_refused():
    unet = random_unet(resnet_time_scale_shift="scale_shift")
    with pytest.raises(InputError, match="cannot be folded"):
        fold_constants(unet, 999, torch.randn(1, 2, 24), torch.randn(1, 4))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_phases_are_enlargement_and_convolution(bias, layout):
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    x = torch.randn(2, 5, 6, 9).to(memory_format=layout)
    with torch.no_grad():
        expected = conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        phases = PhaseConv(conv)
        torch.testing.assert_close(phases.enlarge(x), expected, atol=1e-6, rtol=1e-5)


def test_a_lean_autoencoder_is_the_plain_one():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
    ).eval()
    vae.requires_grad_(False)
    light = copy.deepcopy(vae)
    lean(light)
    image, latents = torch.randn(2, 3, 32, 48), torch.randn(2, 4, 8, 12)
    assert_equal_to_rounding(light.encode(image).latent_dist.mean, vae.encode(image).latent_dist.mean)
    given = latents.clone()
    assert_equal_to_rounding(light.decode(latents).sample, vae.decode(latents).sample)
    assert torch.equal(latents, given)  # what is given is not overwritten
