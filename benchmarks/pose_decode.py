"""UDP + DARK decoding of a batch, ours against one person at a time. ``python benchmarks/pose_decode.py [--small]``

The other side is mmpose's ``UDPHeatmap.decode`` where mmpose can be imported; else a re-statement of it in numpy and
OpenCV, written here from its published steps: per person, every channel of the heatmaps is smoothed, scaled to its old
maximum, clipped and put to the logarithm as a whole, then a Newton step is read off. The first line says which one ran.
With --device cuda ours decodes there, from heatmaps that lie there; theirs, being numpy, has to fetch them first.

Heatmaps, 192 x 256 each, made up: Gaussians of sigma 6 and height 0.1 to 1 on noise of 0.002, every joint seen
("clear"); the same with a fifth of the joints unseen, where nothing but noise round 0 is left, the limit at 0.001 acts
and we too smooth the whole heatmap ("noisy"); noise alone, so that this happens to every one ("worst"). Both sides get
the same ones, in turns, in one process; the ratio is the median over pairs of neighbouring runs. On one CPU thread the
time is that of the processor (other work on the machine does not count), else that of the wall.

Differences of official=True are over all keypoints whose Hessian has a determinant above 1e-4; nearer to singular,
theirs, in float32, depends on rounding. The default leaves a keypoint at its maximum where the step is longer than the
window's radius; its differences are over the others, and those left are counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.evaluation.tables import print_table
from priorscope_pose.codecs.dark import log_neighbours
from priorscope_pose.codecs.peaks import find_peaks
from priorscope_pose.codecs.udp import UdpHeatmap

Decode = Callable[[NDArray[np.float32]], tuple[NDArray, NDArray]]

INPUT, HEATMAP, SIGMA, KERNEL = (768, 1024), (192, 256), 6.0, 11


def decode_person(heatmaps: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Keypoints [K, 2] and scores [K] of one person's heatmaps [K, H, W]."""
    import cv2

    count, height, width = heatmaps.shape
    flat = heatmaps.reshape(count, -1)
    y, x = np.divmod(flat.argmax(1), width)
    scores = flat.max(1)
    border = KERNEL // 2
    logs = np.empty((count, height + 2, width + 2), np.float32)
    for index, channel in enumerate(heatmaps):
        padded = np.zeros((height + 2 * border, width + 2 * border), np.float32)
        padded[border:-border, border:-border] = channel
        smooth = cv2.GaussianBlur(padded, (KERNEL, KERNEL), 0)[border:-border, border:-border]
        smooth = np.log(np.clip(smooth * (channel.max() / smooth.max()), 1e-3, 50))
        logs[index] = np.pad(smooth, 1, mode="edge")

    joint = np.arange(count)

    def at(right: int, down: int) -> NDArray[np.float32]:
        return logs[joint, y + 1 + down, x + 1 + right]

    gradient = np.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], 1)[..., None] / 2
    xx, yy = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    xy = (at(1, 1) - at(1, 0) - at(0, 1) + 2 * at(0, 0) - at(-1, 0) - at(0, -1) + at(-1, -1)) / 2
    hessian = np.stack([np.stack([xx, xy], 1), np.stack([xy, yy], 1)], 1) + np.finfo(np.float32).eps * np.eye(2)
    points = np.stack([x, y], 1) - (np.linalg.inv(hessian) @ gradient)[..., 0]
    return points / (np.array(HEATMAP) - 1) * INPUT, scores


def their_decoder() -> tuple[str, Decode]:
    """mmpose's decoder of one person, or ours of its steps; with a name for the table."""
    try:
        from mmpose import __version__
        from mmpose.codecs import UDPHeatmap
    except ImportError:
        return "our re-statement of mmpose's decoder (mmpose is not installed)", decode_person
    codec = UDPHeatmap(input_size=INPUT, heatmap_size=HEATMAP, sigma=SIGMA, blur_kernel_size=KERNEL)

    def decode(heatmaps: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        keypoints, scores = codec.decode(heatmaps)
        return keypoints[0], scores[0]

    return f"mmpose {__version__}", decode


def make_heatmaps(people: int, joints: int, kind: str) -> torch.Tensor:
    """[people, joints, 256, 192], float32, the same every time."""
    draw = torch.Generator().manual_seed(3)
    heatmaps = torch.empty(people, joints, HEATMAP[1], HEATMAP[0])
    codec = UdpHeatmap(INPUT, HEATMAP, SIGMA)
    for person in range(people):
        noise = torch.randn(joints, HEATMAP[1], HEATMAP[0], generator=draw)
        if kind == "worst":
            heatmaps[person] = 1e-3 * noise.abs()
            continue
        points = torch.rand(1, joints, 2, generator=draw) * torch.tensor(INPUT)
        clear, _ = codec.encode(points)
        height = 0.1 + 0.9 * torch.rand(joints, 1, 1, generator=draw)
        seen = (torch.rand(joints, 1, 1, generator=draw) > (0.2 if kind == "noisy" else 0.0)).float()
        heatmaps[person] = clear[0] * height * seen + 2e-3 * noise
    return heatmaps


def compare(name: str, joints: int, people: int, repeats: int, device: str, theirs: Decode) -> dict[str, str]:
    heatmaps = make_heatmaps(people, joints, name).to(device)
    codec = UdpHeatmap(INPUT, HEATMAP, SIGMA)

    def batched(codec: UdpHeatmap = codec) -> tuple[NDArray, NDArray]:
        keypoints, scores = codec.decode(heatmaps)
        return keypoints.cpu().numpy(), scores.cpu().numpy()

    def person_by_person() -> tuple[NDArray, NDArray]:
        results = [theirs(person) for person in heatmaps.cpu().numpy()]
        return np.stack([keypoints for keypoints, _ in results]), np.stack([scores for _, scores in results])

    (ours, our_scores), (other, other_scores) = batched(), person_by_person()
    official, _ = batched(UdpHeatmap(INPUT, HEATMAP, SIGMA, without_peak="outside", official=True))
    sure = (abs(determinants(heatmaps, codec)) > 1e-4).cpu().numpy() & (other_scores > 0)
    kept = np.abs(ours - official).max(-1) > 1e-3
    gap = np.abs(official - other).max(-1)[sure].max(initial=0)
    default = np.abs(ours - other).max(-1)[sure & ~kept].max(initial=0)
    assert np.abs(our_scores - other_scores).max() <= 1e-6

    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds: list[tuple[float, float]] = []
    for _ in range(repeats):
        times = []
        for decode in (batched, person_by_person):
            begin = clock()
            decode()
            times.append(clock() - begin)
        seconds.append((times[0], times[1]))
    ratios = [b / a for a, b in seconds]
    total = people * joints
    return {
        "heatmaps": f"{name}, {joints} joints x {people}",
        "ours": f"{1e3 * statistics.median(a for a, _ in seconds):.1f} ms",
        "theirs": f"{1e3 * statistics.median(b for _, b in seconds):.0f} ms",
        "times less": f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        "official=True differs by": f"{gap:.1e} px",
        "default differs by": f"{default:.1e} px",
        "not compared": f"{total - int(sure.sum())} of {total}",
        "left at the maximum": f"{int((kept & sure).sum())}",
    }


def determinants(heatmaps: torch.Tensor, codec: UdpHeatmap) -> torch.Tensor:
    v = log_neighbours(heatmaps, find_peaks(heatmaps), 1, codec.smoothing)
    xx, yy = v[..., 1, 2] - 2 * v[..., 1, 1] + v[..., 1, 0], v[..., 2, 1] - 2 * v[..., 1, 1] + v[..., 0, 1]
    straight = v[..., 1, 2] + v[..., 1, 0] + v[..., 2, 1] + v[..., 0, 1]
    return xx * yy - ((v[..., 2, 2] + v[..., 0, 0] - straight + 2 * v[..., 1, 1]) / 2) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="two people, two repeats: does it run?")
    parser.add_argument("--people", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of OpenCV")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    import cv2

    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    people, repeats = (2, 2) if options.small else (options.people, options.repeats)
    name, theirs = their_decoder()
    print(
        f"theirs: {name}; numpy {np.__version__}, OpenCV {cv2.__version__}, torch {torch.__version__} on "
        f"{options.device}, {options.threads} thread(s); medians of {repeats} pairs"
    )
    rows = [
        compare(kind, joints, people, repeats, options.device, theirs)
        for kind, joints in (("clear", 133), ("noisy", 133), ("worst", 133), ("clear", 17))
    ]
    print_table(rows)


if __name__ == "__main__":
    main()
