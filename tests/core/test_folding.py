"""A folded U-Net answers as the unfolded one asked with the same constants."""

from __future__ import annotations

import copy

import pytest
import torch

from priorscope.backbones.folding import PhaseConv, fold_constants, lean
from priorscope.backbones.stable_diffusion import SD2_UNET, UNetNetwork
from priorscope.errors import InputError

SWITCHER = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
TINY = {
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
}
#: Stable Diffusion 2's blocks, a tenth as wide.
NARROW_SD2 = SD2_UNET | {
    "block_out_channels": (32, 64, 128, 128),
    "attention_head_dim": (1, 2, 4, 4),
    "cross_attention_dim": 64,
}


def make(sizes, channels=4, switcher=True, **changes):
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**sizes | {"in_channels": channels} | (SWITCHER if switcher else {}) | changes)
        for parameter in unet.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return unet.eval().requires_grad_(False)


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ask(unet, sample, label, text, task):
    rows = len(sample)
    network = UNetNetwork(unet)
    task = None if task is None else task.expand(rows, -1)
    with torch.no_grad():
        return network(sample, torch.full((rows,), float(label)), text=text.expand(rows, -1, -1), task=task)


def difference(ours, plain):
    return ((ours - plain).abs().max() / plain.abs().max()).item()


@pytest.mark.parametrize("sizes", [TINY, NARROW_SD2], ids=["tiny", "sd2"])
@pytest.mark.parametrize("channels", [4, 8], ids=["regression", "generative"])
@pytest.mark.parametrize("tokens", [1, 2, 77])
def test_folded_equals_unfolded(sizes, channels, tokens):
    switcher = tokens == 2
    unet = make(sizes, channels, switcher)
    text = draw(1, tokens, sizes["cross_attention_dim"])
    task = draw(1, 4) if switcher else None
    folded = fold_constants(copy.deepcopy(unet), 999, text, task)
    for rows, height, width in ((1, 8, 8), (3, 16, 24), (2, 9, 13)):  # odd: the U-Net crops its enlarged maps
        sample = draw(rows, channels, height, width)
        plain = ask(unet, sample, 999, text, task)
        ours = ask(folded, sample, 999, text, task)
        assert ours.shape == plain.shape
        assert difference(ours, plain) < 1e-5


def test_folded_equals_unfolded_in_float64():
    unet, text, task = make(TINY).double(), draw(1, 2, 16).double(), draw(1, 4).double()
    sample = draw(2, 4, 8, 8).double()
    plain = ask(unet, sample, 1, text, task)
    assert difference(ask(fold_constants(unet, 1, text, task), sample, 1, text, task), plain) < 1e-13


def test_bfloat16_loses_no_more_folded():
    unet, text, task, sample = make(NARROW_SD2), draw(1, 2, 64), draw(1, 4), draw(2, 4, 16, 16)
    exact = ask(unet, sample, 999, text, task)
    low = unet.to(torch.bfloat16)
    plain = ask(low, sample, 999, text, task)
    ours = ask(fold_constants(low, 999, text, task), sample, 999, text, task)
    assert (ours - exact).std() < 1.3 * (plain - exact).std()


def test_the_constants_are_those_that_were_folded():
    """Another level, prompt or task than the folded one gives another answer before, and the same after."""
    unet, sample = make(TINY), draw(1, 4, 8, 8)
    text, task, other_text, other_task = draw(1, 2, 16), draw(1, 4), draw(1, 2, 16, seed=5), draw(1, 4, seed=6)
    plain = ask(unet, sample, 999, text, task)
    others = [(1, text, task), (999, other_text, task), (999, text, other_task)]
    for other in others:
        assert difference(ask(unet, sample, *other), plain) > 1e-3
    folded = fold_constants(copy.deepcopy(unet), 999, text, task)
    for other in others:
        assert difference(ask(folded, sample, *other), plain) < 1e-5


def test_unused_weights_are_gone():
    unet = make(NARROW_SD2)
    folded = fold_constants(copy.deepcopy(unet), 999, draw(1, 2, 64), draw(1, 4))
    names = [name for name, _ in folded.named_parameters()]
    assert not [name for name in names if "time_emb" in name or "class_emb" in name]
    assert not [name for name in names if "attn2.to_" in name]

    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    dropped = sum(
        parameter.numel()
        for name, parameter in unet.named_parameters()
        if "time_emb" in name or "class_emb" in name or "attn2.to_" in name
    )
    # in their place: heads x tokens logits and answers of each width, and the bias of the answer
    layers = [(32, 1)] * 5 + [(64, 2)] * 5 + [(128, 4)] * 6
    assert count(folded) == count(unet) - dropped + sum(width * (2 * 2 * heads + 1) for width, heads in layers)


def test_a_folded_network_is_neither_folded_again_nor_saved(tmp_path):
    text, task = draw(1, 2, 16), draw(1, 4)
    folded = fold_constants(make(TINY), 999, text, task)
    with pytest.raises(InputError, match="folded already"):
        fold_constants(folded, 999, text, task)
    with pytest.raises(InputError, match=r"cannot be saved.*fold=False"):
        folded.save_pretrained(tmp_path / "unet")
    assert not (tmp_path / "unet").exists()


def test_what_cannot_be_folded_is_refused_and_left_as_it_was():
    unet = make(TINY, resnet_time_scale_shift="scale_shift")
    sample, text, task = draw(1, 4, 8, 8), draw(1, 2, 16), draw(1, 4)
    before = ask(unet, sample, 999, text, task)
    with pytest.raises(InputError, match="cannot be folded"):
        fold_constants(unet, 999, text, task)
    assert torch.equal(ask(unet, sample, 999, text, task), before)


def test_wrong_constants():
    with pytest.raises(InputError, match="task"):
        fold_constants(make(TINY), 999, draw(1, 2, 16))
    with pytest.raises(InputError, match="task"):
        fold_constants(make(TINY, switcher=False), 999, draw(1, 2, 16), draw(1, 4))
    with pytest.raises(InputError, match="prompt"):
        fold_constants(make(TINY), 999, draw(2, 2, 16), draw(1, 4))
    with pytest.raises(InputError, match="prompt"):
        fold_constants(make(TINY), 999, draw(1, 2, 17), draw(1, 4))
    with pytest.raises(InputError, match="level"):
        fold_constants(make(TINY), float("nan"), draw(1, 2, 16), draw(1, 4))


def test_lean_alone_keeps_the_answer_at_every_level():
    """What a run of several steps gets: nothing folded."""
    unet, text, task, sample = make(NARROW_SD2), draw(1, 2, 64), draw(1, 4), draw(2, 4, 9, 12)
    leaner = copy.deepcopy(unet)
    lean(leaner)
    for label in (1, 500, 999):
        assert difference(ask(leaner, sample, label, text, task), ask(unet, sample, label, text, task)) < 1e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_phases_of_an_enlargement(layout, bias, size):
    conv = torch.nn.Conv2d(6, 5, 3, padding=1, bias=bias).requires_grad_(False)
    small = draw(2, 6, *size).to(memory_format=layout)
    expected = conv(torch.nn.functional.interpolate(small, scale_factor=2.0, mode="nearest"))
    ours = PhaseConv(conv).enlarge(small)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="doubling"):
        PhaseConv(conv).enlarge(small, (3, 3))
