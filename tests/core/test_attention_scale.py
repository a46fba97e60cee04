"""Attention that scales with the number of tokens: the formula, and which layers of a U-Net it reaches."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from priorscope import InputError
from priorscope.diffusion.attention_scale import attention_scale, scaled_attention


def test_golden_attention_scale(golden_files, read_json):
    for path in golden_files("astro_accel", "misc.json"):
        cases = read_json(path)["attention_scale"]
        assert len(cases) == 16
        for name, expected in cases.items():
            width, tokens, trained = (int(part[1:]) for part in name.split("_"))
            assert attention_scale(width, tokens, trained) == pytest.approx(expected, rel=1e-12)


def test_as_many_tokens_as_in_training_give_the_usual_scale():
    assert attention_scale(40, 4096, 4096) == 1 / math.sqrt(40)
    for width, tokens, trained in ((40, 16, 1), (40, 0, 16), (0, 16, 16)):
        with pytest.raises(InputError):
            attention_scale(width, tokens, trained)


def test_a_layer_attends_with_that_scale(small_unet):
    unet = small_unet()
    layer = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    x = torch.randn(2, 144, 8, generator=torch.Generator().manual_seed(0))
    query, key, value = (
        part(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in (layer.to_q, layer.to_k, layer.to_v)
    )
    scale = attention_scale(query.shape[-1], 144, 64)  # 12 x 12 after training on 8 x 8
    attended = functional.scaled_dot_product_attention(query, key, value, scale=scale)
    expected = layer.to_out[0](attended.transpose(1, 2).flatten(2))
    plain = layer(x)
    with scaled_attention(unet):
        torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)
    assert (plain - expected).abs().max() > 1e-5
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize("size", [(8, 8), (13, 11)])
def test_every_level_knows_its_trained_size(small_unet, size):
    """On the trained size all factors are 1 exactly, also where levels halve odd sides."""
    unet = small_unet(attention_head_dim=4, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    x = torch.randn(1, 4, 16, 16)[..., : size[0], : size[1]]
    text = torch.randn(1, 5, 8)
    with torch.no_grad():
        plain = unet(x, 500, text).sample
        with scaled_attention(unet, size):
            assert torch.equal(unet(x, 500, text).sample, plain)
        with scaled_attention(unet, (4, 4)):
            assert not torch.equal(unet(x, 500, text).sample, plain)
        assert torch.equal(unet(x, 500, text).sample, plain)


def test_attention_to_text_is_left_alone(small_unet):
    unet = small_unet()
    with scaled_attention(unet):
        hooked = {name for name, part in unet.named_modules() if part._forward_hooks}
    assert hooked == {name for name, _ in unet.named_modules() if name.endswith("attn1.to_q")}
    assert len(hooked) == 4  # one down, one in the middle, two up
    assert not any(part._forward_hooks for part in unet.modules())


def test_pixel_unets_too_and_what_cannot_be_scaled(small_unet):
    from diffusers.models.unets.unet_2d import UNet2DModel

    config = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    config |= {"in_channels": 1, "out_channels": 1, "attention_head_dim": 4, "add_attention": False}
    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    unet = UNet2DModel(**config, down_block_types=down, up_block_types=up).eval()
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        plain = unet(x, 10).sample
        with scaled_attention(unet, (16, 16)):
            assert torch.equal(unet(x, 10).sample, plain)
        with scaled_attention(unet):
            assert not torch.equal(unet(x, 10).sample, plain)
    bare = UNet2DModel(**config, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    with pytest.raises(InputError, match="no self-attention"), scaled_attention(bare):
        pass
    unet = small_unet(sample_size=None)
    with pytest.raises(InputError, match="trained on") as caught, scaled_attention(unet):
        pass
    assert "trained_size" in caught.value.remedy
    unet.fuse_qkv_projections()
    with pytest.raises(InputError, match="fused"), scaled_attention(unet, (8, 8)):
        pass
    assert not any(part._forward_hooks for part in unet.modules())
