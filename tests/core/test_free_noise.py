"""Long sequences: the official order and windows, and noise and fusion that keep their promises."""

from __future__ import annotations

import random

import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import Noise, fused_windows, rescheduled_noise
from priorscope.diffusion.free_noise import frame_order, window_weights, windows


def test_golden_free_noise(golden_files, read_json):
    for path in golden_files("astro_accel", "misc.json"):
        data = read_json(path)
        assert frame_order(64, window=16, stride=4, seed=0) == data["freenoise_indices_seed0_64_16_4"]
        assert len(data["freenoise_weights"]) == 4
        for window, weights in data["freenoise_weights"].items():
            assert window_weights(int(window)).tolist() == weights
        assert len(data["freenoise_views"]) == 3
        for name, expected in data["freenoise_views"].items():
            frames, window, stride = map(int, name.split("_"))
            assert windows(frames, window=window, stride=stride) == [tuple(view) for view in expected]


def test_every_window_of_whole_chunks_has_each_noise_once():
    order = frame_order(50, window=12, stride=3, seed=random.Random(5))
    for start in range(0, 50 - 12 + 1, 3):
        assert sorted(order[start : start + 12]) == list(range(12))
    assert order[:12] == list(range(12))
    assert order != frame_order(50, window=12, stride=3, seed=6)
    assert frame_order(7, window=12, stride=3) == list(range(7))


def test_noise_is_drawn_for_one_window_an_item():
    def draw(seeds, frames=20):
        return rescheduled_noise(Noise.per_item(seeds), (len(seeds), 2, frames, 3), axis=2, window=8, stride=4, seed=1)

    noise = draw([3, 4])
    assert noise.shape == (2, 2, 20, 3)
    assert torch.equal(noise[1:], draw([4]))
    assert torch.equal(noise[:, :, :8], Noise.per_item([3, 4]).draw((2, 2, 8, 3)))
    order = frame_order(20, window=8, stride=4, seed=1)
    assert torch.equal(noise[:, :, 13], noise[:, :, order[13]])
    assert torch.equal(draw([3], frames=5), Noise.per_item([3]).draw((1, 2, 5, 3)))
    for axis in (0, -2, 2, -3):
        with pytest.raises(InputError, match=f"along axis {axis}"):
            rescheduled_noise(Noise.per_item([0]), (1, 20), axis=axis)


@pytest.mark.parametrize("frames", [5, 16, 22, 24])
def test_windows_cover_a_sequence_of_any_length(frames):
    spans = windows(frames, window=16, stride=4)
    assert set(range(frames)) == {frame for start, end in spans for frame in range(start, end)}
    assert {end - start for start, end in spans} == {min(frames, 16)}


def test_what_looks_at_single_frames_is_not_changed_by_fusion():
    x = torch.randn(2, 3, 22, 4, dtype=torch.float64)
    torch.testing.assert_close(fused_windows(torch.sin, x, axis=2, window=8, stride=3), torch.sin(x))


def test_fusion_is_the_weighted_mean_of_the_windows():
    x = torch.arange(6.0)[None]

    def mean(part):
        return part.mean(1, keepdim=True).expand_as(part)

    # windows 0-3 and 2-5, means 1.5 and 3.5, weights 1 2 2 1
    expected = torch.tensor([[1.5, 1.5, (2 * 1.5 + 3.5) / 3, (1.5 + 2 * 3.5) / 3, 3.5, 3.5]])
    torch.testing.assert_close(fused_windows(mean, x, axis=1, window=4, stride=2), expected)
    assert torch.equal(fused_windows(mean, x, axis=-1, window=6, stride=2), mean(x))


def test_what_is_refused():
    for frames, window, stride in ((0, 16, 4), (20, 16, 0), (20, 16, 17), (20, 0, 0), (20, 16.0, 4), (20, 16, 0.5)):
        with pytest.raises(InputError, match="strides"):
            windows(frames, window=window, stride=stride)
        with pytest.raises(InputError, match="strides"):
            frame_order(frames, window=window, stride=stride)
    with pytest.raises(InputError, match=r"shape \(1, 4\) became \(1, 2\)"):
        fused_windows(lambda part: part[:, ::2], torch.zeros(1, 8), axis=1, window=4, stride=2)
    with pytest.raises(InputError, match=r"shape \(3, 4\) became \(1, 4\)"):  # would fit, by broadcasting
        fused_windows(lambda part: part.mean(0, keepdim=True), torch.zeros(3, 8), axis=1, window=4, stride=2)
    with pytest.raises(InputError, match="axis 2 of 2"):
        fused_windows(torch.sin, torch.zeros(1, 8), axis=2, window=4, stride=2)
