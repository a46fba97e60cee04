"""U-Nets on larger samples: what the deep layers see, and that nothing of it stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from priorscope import InputError
from priorscope.diffusion import Denoiser, Noise, ResolutionAware, VPSchedule, sample, spaced_times
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.resolution_aware import coarser

TEXT = torch.linspace(-1, 1, 40).reshape(1, 5, 8)


def middle_size(unet, x):
    seen = []
    hook = unet.mid_block.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    with torch.no_grad():
        output = unet(x, 500, TEXT).sample
    hook.remove()
    assert output.shape == x.shape
    return seen[0]


@pytest.mark.parametrize(
    ("size", "factor", "middle"), [((16, 16), 2, (4, 4)), ((13, 22), 2, (4, 6)), ((32, 16), 4, (4, 2))]
)
def test_the_middle_sees_the_trained_size(small_unet, size, factor, middle):
    unet, x = small_unet(), torch.randn(1, 4, *size)
    plain = middle_size(unet, x)
    with coarser(unet, factor):
        assert middle_size(unet, x) == middle
    assert middle_size(unet, x) == plain


def test_three_levels_with_odd_sides(small_unet):
    blocks = {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    }
    unet = small_unet(**blocks, up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"))
    x = torch.randn(1, 4, 20, 20)
    with coarser(unet, 2):
        assert middle_size(unet, x) == (3, 3)  # 20, 5, 3: which doubling alone would not undo
    with coarser(unet, 2, level=1):
        assert middle_size(unet, x) == (3, 3)  # 20, 10, 3
    with pytest.raises(InputError, match="no downsampling 2"), coarser(unet, 2, level=2):
        pass


def test_an_enlarged_sample_is_sampled_down_as_the_small_one(small_unet):
    """The dilated convolution sees each pixel of a sample that was enlarged by repetition once."""
    unet = small_unet()
    down, up = unet.down_blocks[0].downsamplers[0], unet.up_blocks[0].upsamplers[0]
    x = torch.randn(2, 8, 10, 6)
    plain = down(x)
    for factor in (2, 3):
        large = x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        with coarser(unet, factor):
            torch.testing.assert_close(down(large), plain, atol=1e-6, rtol=1e-5)
            assert up(torch.randn(2, 16, 5, 3)).shape[-2:] == large.shape[-2:]


def test_stages_of_a_run(small_unet):
    unet = small_unet()
    strides = []
    unet.down_blocks[0].downsamplers[0].conv.register_forward_hook(lambda conv, *_: strides.append(conv.stride[0]))
    schedule = VPSchedule.from_betas()
    denoiser = Denoiser(lambda x, t, **kw: unet(x, t, **kw).sample, schedule)
    condition = Condition({"encoder_hidden_states": TEXT}, shared=["encoder_hidden_states"])
    x, times = Noise.per_item([0]).draw((1, 4, 16, 16)), spaced_times(schedule, 5)
    model = ResolutionAware(denoiser, unet, [(0.3, 4), (0.6, 2)])
    result = sample(model, x, times, condition=condition)
    assert strides == [8, 8, 4, 2, 2]
    assert torch.equal(result, sample(model, x, times, condition=condition))
    plain = sample(denoiser, x, times, condition=condition)
    assert not torch.equal(result, plain)
    assert torch.equal(plain, sample(ResolutionAware(denoiser, unet, [(1.0, 1)]), x, times, condition=condition))


def test_nothing_stays_after_an_error(small_unet):
    unet = small_unet()
    conv = unet.down_blocks[0].downsamplers[0].conv
    with pytest.raises(RuntimeError), coarser(unet, 2):
        raise RuntimeError
    assert (conv.stride, conv.dilation, conv.padding) == ((2, 2), (1, 1), (1, 1))
    assert not any(part._forward_pre_hooks for part in unet.modules())


def test_what_is_refused(small_unet):
    unet = small_unet()
    for stages in ([], [(0.4, 2), (0.3, 1)], [(0.0, 2)], [(1.2, 2)], [(0.4, 0)], [(0.4, 1.5)]):
        with pytest.raises(InputError):
            ResolutionAware(Denoiser(unet, VPSchedule.from_betas()), unet, stages)
    with pytest.raises(InputError, match="padded by 1"), coarser(small_unet(downsample_padding=0), 2):
        pass
    flat = nn.Module()
    flat.down_blocks = flat.up_blocks = nn.ModuleList()
    for unknown in (flat, nn.Linear(2, 2)):
        with pytest.raises(InputError, match="do not pair"), coarser(unknown, 2):
            pass
