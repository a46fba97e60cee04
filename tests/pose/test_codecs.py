"""Codecs: what must hold by mathematics, and on heatmaps that have no answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_pose.codecs import CombinedHeatmap, MsraHeatmap, UdpHeatmap, VitPoseHeatmap
from priorscope_pose.codecs.dark import blur, gaussian, opencv_gaussian

INPUT, HEATMAP = (192, 256), (48, 64)
CODECS: dict[str, Any] = {
    "udp": UdpHeatmap(INPUT, HEATMAP, 2.0),
    "vitpose": VitPoseHeatmap(INPUT, HEATMAP, 2.0),
    "msra": MsraHeatmap(INPUT, HEATMAP, 2.0),
    "dark": MsraHeatmap(INPUT, HEATMAP, 2.0, unbiased=True),
    "combined": CombinedHeatmap(INPUT, HEATMAP),
}


def in_pixels(name: str, keypoints: torch.Tensor) -> torch.Tensor:
    """Decoded keypoints in pixels of the input."""
    return keypoints if name in ("msra", "dark") else CODECS["udp"].crop_pixels(keypoints)


@pytest.mark.parametrize(
    ("name", "atol"), [("udp", 0.05), ("vitpose", 0.05), ("msra", 2.0), ("dark", 0.1), ("combined", 1e-3)]
)
def test_decode_undoes_encode(name: str, atol: float) -> None:
    """Away from borders; the quarter step of ``msra`` is good to half a heatmap pixel, two of the input."""
    points = 40 + torch.rand(3, 20, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([112.0, 176.0])
    heatmaps, weights = CODECS[name].encode(points)
    keypoints, scores = CODECS[name].decode(heatmaps)
    assert (in_pixels(name, keypoints) - points).abs().max() <= atol
    assert weights.eq(1).all()
    assert (keypoints.dtype, scores.dtype, tuple(scores.shape)) == (torch.float32, torch.float32, (3, 20))


@pytest.mark.parametrize("heatmap", [(12, 16), (11, 12), (6, 8), (3, 2)])
def test_combined_heatmaps_narrower_than_their_window(heatmap: tuple[int, int]) -> None:
    """Where the window of 23 pixels reaches over both borders the mirror images repeat, as in OpenCV."""
    codec = CombinedHeatmap((48, 64), heatmap)
    points = torch.tensor([[[20.0, 40.0], [47.0, 0.0], [30.5, 11.25]]])
    maps, _ = codec.encode(points)
    maps[:, ::3] += torch.rand(maps[:, ::3].shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    keypoints, scores = codec.decode(maps)
    # whichever pixel is the maximum, its offsets lead to the keypoint
    torch.testing.assert_close(UdpHeatmap((48, 64), heatmap, 1.0).crop_pixels(keypoints), points, atol=1e-3, rtol=0)
    padded = np.pad(maps[0, ::3].double().numpy(), ((0, 0), (11, 11), (11, 11)), mode="reflect")
    window = np.outer(*[opencv_gaussian(23)] * 2)
    expected = (np.lib.stride_tricks.sliding_window_view(padded, (23, 23), (1, 2)) * window).sum((-2, -1))
    np.testing.assert_allclose(scores[0], expected.max((1, 2)), rtol=1e-5)


def test_udp_target_is_the_gaussian_of_its_formula() -> None:
    point = torch.tensor([[[100.3, 77.7]]])
    heatmap = UdpHeatmap((768, 1024), (192, 256), 6.0).encode(point)[0][0, 0]
    x, y = 100.3 / (767 / 191), 77.7 / (1023 / 255)
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(192.0), indexing="ij")
    expected = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 72)
    inside = ((columns - round(x)).abs() <= 18) & ((rows - round(y)).abs() <= 18)
    torch.testing.assert_close(heatmap, torch.where(inside, expected, 0), atol=1e-5, rtol=0)


def test_msra_target_has_a_whole_pixel_peak_of_one() -> None:
    heatmap = CODECS["msra"].encode(torch.tensor([[[101.9, 50.1]]]))[0][0, 0]
    assert heatmap.max() == heatmap[13, 25] == 1  # 25.475 -> 25, 12.525 -> 13
    assert heatmap[13, 26] == pytest.approx(math.exp(-1 / 8))
    assert heatmap[:7].any() == heatmap[:, :19].any() == False  # noqa: E712
    assert heatmap[7, 25] == pytest.approx(math.exp(-36 / 8))


@pytest.mark.parametrize("name", ["udp", "msra", "dark", "combined"])
def test_weights(name: str) -> None:
    points = torch.tensor([[[50.0, 60.0], [50.0, 60.0], [float("nan"), 60.0], [-900.0, 60.0], [50.0, 9000.0]]])
    visible = torch.tensor([[1.0, 0.3, 1.0, 1.0, 0.9]])
    heatmaps, weights = CODECS[name].encode(points, visible)
    maps = heatmaps.view(1, 5, -1)
    # Drawn and seen; too faint to draw; not a number; and outside, where a Gaussian has nothing to show.
    outside = visible[0, 3:].tolist() if name == "combined" else [0.0, 0.0]
    assert weights[0].tolist() == pytest.approx([1.0, 0.3, 0.0, *outside])
    assert maps.any(-1)[0, :3].tolist() == [True, False, False]
    if name != "combined":
        assert not maps[0, 3:].any()
    assert heatmaps.isfinite().all()


@pytest.mark.parametrize("name", [*CODECS])
def test_heatmaps_without_a_peak(name: str) -> None:
    """Nothing positive: the keypoint is at the maximum, unrefined, and the score is that maximum."""
    codec, maps = CODECS[name], 3 if name == "combined" else 1
    heatmaps = torch.zeros(1, 3 * maps, 64, 48)
    heatmaps[0, maps] = -1.0
    heatmaps[0, maps, 20, 30] = -0.25
    heatmaps[0, 2 * maps] = 1e-30
    keypoints, scores = codec.decode(heatmaps)
    assert keypoints.isfinite().all()
    assert keypoints[0, 0].tolist() == [0, 0]
    assert scores[0, 0] == 0
    unit = torch.tensor([4.0, 4.0]) if name in ("msra", "dark") else torch.tensor([192 / 47, 256 / 63])
    torch.testing.assert_close(keypoints[0, 1], torch.tensor([30.0, 20.0]) * unit)
    assert scores[0, 1] < 0
    if name != "combined":
        assert scores[0, 1] == -0.25
    torch.testing.assert_close(keypoints[0, 2], torch.tensor([0.0, 0.0]), atol=0.5, rtol=0)


@pytest.mark.parametrize("place", ["outside", "origin"])
def test_parity_places(place: Any) -> None:
    heatmaps = torch.full((1, 1, 64, 48), -1.0)
    heatmaps[0, 0, 20, 30] = -0.5
    keypoints, _ = MsraHeatmap(INPUT, HEATMAP, without_peak=place).decode(heatmaps)
    assert keypoints[0, 0].tolist() == ([-4, -4] if place == "outside" else [0, 0])


def reference(heatmaps: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """UDP + DARK the plain way, in float64: each heatmap as a whole, by scipy."""
    from scipy import ndimage

    count, height, width = heatmaps.shape
    points = np.empty((count, 2))
    for index, channel in enumerate(heatmaps.astype(np.float64)):
        y, x = np.unravel_index(channel.argmax(), channel.shape)
        smooth = channel
        for axis in (0, 1):
            smooth = ndimage.correlate1d(smooth, opencv_gaussian(11), axis, mode="constant")
        logs = np.pad(np.log(np.clip(smooth * (channel.max() / smooth.max()), 1e-3, 50)), 1, mode="edge")
        v = logs[y : y + 3, x : x + 3]
        gradient = np.array([v[1, 2] - v[1, 0], v[2, 1] - v[0, 1]]) / 2
        xy = (v[2, 2] - v[1, 2] - v[2, 1] + 2 * v[1, 1] - v[1, 0] - v[0, 1] + v[0, 0]) / 2
        hessian = np.array([[v[1, 2] - 2 * v[1, 1] + v[1, 0], xy], [xy, v[2, 1] - 2 * v[1, 1] + v[0, 1]]])
        hessian += np.finfo(np.float32).eps * np.eye(2)
        points[index] = np.array([x, y]) - np.linalg.solve(hessian, gradient)
    return points / (np.array([width, height]) - 1) * input_size


@pytest.mark.parametrize("noise", [0.0, 2e-3, 0.2])
def test_patches_give_what_whole_heatmaps_give(noise: float) -> None:
    """Clear and faint peaks, at borders and inside, also where the limit at 0.001 acts: the same keypoints."""
    draw = torch.Generator().manual_seed(4)
    points = torch.rand(1, 60, 2, generator=draw) * torch.tensor([191.0, 255.0])
    points[0, :4] = torch.tensor([[0.0, 0.0], [191.0, 255.0], [0.0, 130.0], [191.0, 3.0]])
    heatmaps, _ = CODECS["udp"].encode(points)
    heatmaps *= 10 ** torch.linspace(-3.2, 2.5, 60)[:, None, None]
    heatmaps += noise * torch.rand(heatmaps.shape, generator=draw)
    keypoints, scores = UdpHeatmap(INPUT, HEATMAP, official=True).decode(heatmaps)
    expected = reference(heatmaps[0].numpy(), INPUT)
    np.testing.assert_allclose(keypoints[0].numpy(), expected, atol=1e-3, rtol=1e-6)
    assert torch.equal(scores, heatmaps.amax((2, 3)))


def test_noise_does_not_carry_a_keypoint_away() -> None:
    """A noisy pixel on an even slope: hardly any curvature, so the official step leads far up the slope."""
    rows = torch.exp(-((torch.arange(64) - 31.0) ** 2) / 18)
    columns = torch.zeros(48)
    columns[14:27] = torch.exp(0.02 * torch.arange(-6.0, 7.0))
    heatmaps = (rows[:, None] * columns)[None, None]
    heatmaps[0, 0, 31, 20] += 0.14
    official, _ = UdpHeatmap(INPUT, HEATMAP, official=True).decode(heatmaps)
    ours, _ = UdpHeatmap(INPUT, HEATMAP).decode(heatmaps)
    pixel = torch.tensor([20 / 47 * 192, 31 / 63 * 256])
    assert (official[0, 0] - pixel).norm() > 5 * 4.2
    torch.testing.assert_close(ours[0, 0], pixel)


@pytest.mark.parametrize("name", [*CODECS])
def test_batches_and_half_precision(name: str) -> None:
    """Each person alone gives the same; half precision gives what its own values say."""
    points = torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([191.0, 255.0])
    heatmaps, _ = CODECS[name].encode(points)
    heatmaps = heatmaps + 0.01 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(2))
    whole, scores = CODECS[name].decode(heatmaps)
    for person in range(4):
        alone, score = CODECS[name].decode(heatmaps[person : person + 1])
        torch.testing.assert_close(alone[0], whole[person], atol=1e-4, rtol=0)
        assert torch.equal(score[0], scores[person])
    for dtype in (torch.float16, torch.bfloat16):
        low, low_scores = CODECS[name].decode(heatmaps.to(dtype))
        again, again_scores = CODECS[name].decode(heatmaps.to(dtype).float())
        torch.testing.assert_close(low, again, atol=1e-3, rtol=0)
        assert torch.equal(low_scores, again_scores)


def test_the_first_of_equal_maxima_counts() -> None:
    heatmaps = torch.zeros(1, 1, 64, 48)
    heatmaps[0, 0, 30, 40] = heatmaps[0, 0, 10, 20] = heatmaps[0, 0, 10, 33] = 1
    keypoints, _ = CODECS["udp"].decode(heatmaps)
    torch.testing.assert_close(keypoints[0, 0], torch.tensor([20 / 47 * 192, 10 / 63 * 256]), atol=1e-3, rtol=0)


def test_windows_sum_to_one_and_equal_opencvs() -> None:
    assert sum(opencv_gaussian(11)) == pytest.approx(1)
    assert opencv_gaussian(11)[4] / opencv_gaussian(11)[5] == pytest.approx(math.exp(-1 / 8))  # deviation 2
    assert gaussian(0.8, 5)[4] / gaussian(0.8, 5)[5] == pytest.approx(math.exp(-1 / 1.28))
    cv2 = pytest.importorskip("cv2")
    np.testing.assert_allclose(opencv_gaussian(17), cv2.getGaussianKernel(17, 0)[:, 0], atol=1e-12)
    image = np.random.default_rng(0).random((20, 31), dtype=np.float32)
    ours = blur(torch.from_numpy(image)[None], opencv_gaussian(11), "reflect")[0]
    np.testing.assert_allclose(ours, cv2.GaussianBlur(image, (11, 11), 0), atol=1e-6)


def test_no_person() -> None:
    for name, codec in CODECS.items():
        heatmaps, weights = codec.encode(torch.zeros(0, 17, 2))
        keypoints, scores = codec.decode(heatmaps)
        assert (weights.shape, keypoints.shape, scores.shape) == ((0, 17), (0, 17, 2), (0, 17)), name


@pytest.mark.parametrize("name", [*CODECS])
def test_bad_input(name: str) -> None:
    codec, maps = CODECS[name], 3 if name == "combined" else 1
    for shape in ((1, 3, 48, 64), (3, 64, 48)):
        with pytest.raises(InputError, match=r"heatmaps of shape .* 64, 48\] are expected"):
            codec.decode(torch.zeros(shape))
    with pytest.raises(InputError, match=r"torch\.int64; floats"):
        codec.decode(torch.zeros(1, 3, 64, 48, dtype=torch.long))
    broken = torch.rand(2, 2 * maps, 64, 48)
    broken[1, maps, 5, 5] = float("nan")
    with pytest.raises(InputError, match="heatmap 1 of person 1 holds NaN"):
        codec.decode(broken)
    broken[1, maps, 5, 5] = float("inf")
    with pytest.raises(InputError, match="heatmap 1 of person 1 holds infinite values"):
        codec.decode(broken)
    with pytest.raises(InputError, match=r"keypoints of shape \[5, 2\]"):
        codec.encode(torch.zeros(5, 2))
    with pytest.raises(InputError, match=r"visibilities \[1, 4\] for keypoints"):
        codec.encode(torch.zeros(1, 5, 2), torch.ones(1, 4))


def test_bad_settings() -> None:
    for kernel in (5, 12):
        with pytest.raises(InputError, match="blur kernel"):
            UdpHeatmap(INPUT, HEATMAP, blur_kernel=kernel)
    for codec in (UdpHeatmap, MsraHeatmap, CombinedHeatmap):
        with pytest.raises(InputError, match="unknown place 'nowhere'"):
            codec(INPUT, HEATMAP, without_peak="nowhere")
        with pytest.raises(InputError, match="two pixels or more"):
            codec(INPUT, (1, 64))
        for sigma in (0.0, -2.0, float("nan")):
            with pytest.raises(InputError, match="targets of width"):
                codec(INPUT, HEATMAP, sigma)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", [*CODECS])
def test_gpu_equals_cpu(name: str) -> None:
    points = torch.rand(4, 30, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([191.0, 255.0])
    heatmaps, weights = CODECS[name].encode(points)
    on_gpu, gpu_weights = CODECS[name].encode(points.cuda())
    torch.testing.assert_close(on_gpu.cpu(), heatmaps, atol=1e-6, rtol=1e-6)
    assert torch.equal(gpu_weights.cpu(), weights)
    noisy = heatmaps + 0.002 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(CODECS[name].decode(noisy.cuda()), CODECS[name].decode(noisy), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-3, rtol=1e-5)
