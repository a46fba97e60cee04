"""Points of warped photographs found again: features of a diffusion model against SIFT and ORB.

Photographs from scikit-image's wheel are warped by known maps (homographies, thin-plate splines) and changed in
brightness and contrast, with noise. Each point of the warped picture is to be found in the photograph; true is where
the warp took it from. Points are those that SIFT (or ORB) detects in the warped picture, where that method is at its
best. SIFT and ORB answer with the key point of the photograph whose descriptor is nearest, without a ratio test, so
that every method answers for every point; "best key point" is the highest that they could reach so, since a point that
was not detected again cannot be named. "random weights" is the same network, drawn anew; "pixel patches" are 7 x 7
colours at a quarter of the size, centred. Intervals draw the photographs with replacement.

    python benchmarks/correspondence.py --model MODEL --taps up_blocks.1 --t 50
    python benchmarks/correspondence.py --model MODEL --figure docs/correspondence.png

Without --model a tiny network with random weights shows that the script runs; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from skimage.color import rgb2gray
from skimage.feature import ORB, SIFT
from skimage.transform import ProjectiveTransform, resize, warp
from torch.nn import functional

from priorscope.data.samples import photo
from priorscope.features import FeatureExtractor
from priorscope.features.correspondence import match_points, nearest
from priorscope.features.fusion import fuse
from priorscope.features.pck import correct

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket")
ALPHAS = (0.02, 0.05, 0.1)
POINTS = 100
Matcher = Callable[["Pair", NDArray[np.float64]], NDArray[np.float64]]


@dataclass
class Pair:
    """A warped picture, the photograph it came from, float [S, S, 3] in [0, 1], and the map from one to the other."""

    photo: str
    kind: str
    query: NDArray[np.float64]
    target: NDArray[np.float64]
    truth: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def square(name: str, size: int) -> NDArray[np.float64]:
    image = photo(name)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return resize(image[top : top + side, left : left + side], (size, size), anti_aliasing=True)


def homography(size: int, draw: np.random.Generator) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Turned by up to 40 degrees, 0.75 to 1.33 times the size, the corners moved by up to a tenth of the side."""
    centre = (size - 1) / 2
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (size - 1.0)
    angle, scale = np.deg2rad(draw.uniform(-40, 40)), np.exp(draw.uniform(-0.29, 0.29))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corners - centre) @ turn.T + centre + draw.uniform(-0.1, 0.1, (4, 2)) * size
    return ProjectiveTransform.from_estimate(corners, moved)


def thin_plate(size: int, draw: np.random.Generator) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Sixteen places on a grid moved, by a twentieth of the side in the mean square."""
    axis = np.linspace(0, size - 1.0, 4)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    moved = grid + draw.normal(0, 0.05, grid.shape) * size
    return RBFInterpolator(grid, moved, kernel="thin_plate_spline")


WARPS = {"homography": homography, "thin plate": thin_plate}


def make_pairs(size: int, per_kind: int, seed: int) -> list[Pair]:
    pairs = []
    for number, name in enumerate(PHOTOS):
        target = square(name, size)
        for kind_number, (kind, make) in enumerate(WARPS.items()):
            for index in range(per_kind):
                draw = np.random.default_rng([seed, number, kind_number, index])
                truth = make(size, draw)
                query = warp(target, truth, mode="reflect")
                gain, gamma = draw.uniform(0.6, 1.4), draw.uniform(0.6, 1.6)
                query = gain * query**gamma + draw.normal(0, 0.02, query.shape)
                pairs.append(Pair(name, kind, np.clip(query, 0, 1), target, truth))
    return pairs


def inside(points: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    return ((points >= 0) & (points <= size - 1)).all(1)


def detect(method: str, image: NDArray[np.float64]) -> tuple[NDArray[np.float64], torch.Tensor]:
    """Key points (x, y) and descriptors (N, D); Hamming distance is the cosine of signs."""
    detector = SIFT() if method == "SIFT" else ORB(n_keypoints=500, fast_threshold=0.03)
    detector.detect_and_extract(rgb2gray(image))
    descriptors = np.asarray(detector.descriptors, dtype=np.float32)
    return detector.keypoints[:, ::-1].astype(float), torch.from_numpy(
        descriptors if method == "SIFT" else descriptors * 2 - 1
    )


def detector_answers(
    method: str, pair: Pair, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Up to ``POINTS`` key points of the query, where the method finds them, and its key point next to the truth."""
    places, queries = detect(method, pair.query)
    targets, candidates = detect(method, pair.target)
    usable = np.flatnonzero(inside(pair.truth(places), len(pair.target)))
    chosen = draw.permutation(usable)[:POINTS]
    if not len(chosen):
        return (np.zeros((0, 2)),) * 3
    found = nearest(queries[torch.from_numpy(chosen)], candidates).indices.numpy()
    distance = np.linalg.norm(pair.truth(places[chosen])[:, None] - targets, axis=2)
    return places[chosen], targets[found], targets[distance.argmin(1)]


def tiny_extractor() -> FeatureExtractor:
    """A small U-Net on pixels with random weights, to try the script."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from priorscope.backbones.latents import PixelSpace
    from priorscope.backbones.stable_diffusion import UNetNetwork
    from priorscope.diffusion import Condition, Denoiser, VPSchedule
    from priorscope.features import AtLevels

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=8,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    denoiser = Denoiser(UNetNetwork(unet.eval()), VPSchedule.from_betas("scaled_linear"))
    condition = Condition({"text": torch.zeros(1, 1, 8)}, shared=["text"])
    return FeatureExtractor(denoiser, PixelSpace(), condition, "up_blocks.1", mode=AtLevels((50,)))


def randomise(extractor: FeatureExtractor) -> None:
    """Draw all of the U-Net's weights anew."""
    torch.manual_seed(1)
    for module in extractor.viewer.denoiser.network.unet.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def feature_matcher(extractor: FeatureExtractor, pairs: list[Pair], size: int, batch_size: int) -> Matcher:
    """Look at every picture once; maps of several taps and levels are fused at the largest one's size."""
    pictures = [np.round(image * 255).astype(np.uint8) for pair in pairs for image in (pair.query, pair.target)]
    maps = extractor(pictures, batch_size=batch_size)
    largest = max((tuple(value.shape[-2:]) for value in maps.values()), key=np.prod)
    same = [functional.interpolate(value, largest, mode="bilinear") for value in maps.values()]
    return map_matcher([fuse([value[index] for value in same]) for index in range(len(pictures))], pairs, size)


def patch_matcher(pairs: list[Pair], size: int) -> Matcher:
    """Colours around each point: what a network has to be better than."""
    rows = []
    for image in (image for pair in pairs for image in (pair.query, pair.target)):
        small = torch.from_numpy(resize(image, (size // 4, size // 4), anti_aliasing=True)).float().permute(2, 0, 1)
        patches = functional.unfold(functional.pad(small[None], (3, 3, 3, 3), mode="reflect"), 7)
        patches = patches.reshape(-1, size // 4, size // 4)
        rows.append(patches - patches.mean(0))
    return map_matcher(rows, pairs, size)


def map_matcher(rows: list[torch.Tensor], pairs: list[Pair], size: int) -> Matcher:
    """Nearest neighbours between maps, given as query, target, query, target, ..."""
    where = {id(pair): index for index, pair in enumerate(pairs)}

    def match(pair: Pair, points: NDArray[np.float64]) -> NDArray[np.float64]:
        index = where[id(pair)]
        square = (size, size)
        return (
            match_points(rows[2 * index], rows[2 * index + 1], torch.from_numpy(points).float(), square, square)
            .points.cpu()
            .numpy()
        )

    return match


def evaluate(pairs: list[Pair], matchers: dict[str, Matcher], size: int, seed: int) -> list[dict]:
    """One row a pair, point set and method, with the fraction of correct points at each threshold."""
    rows = []
    for number, pair in enumerate(pairs):
        for method in ("SIFT", "ORB"):
            points, answers, closest = detector_answers(method, pair, np.random.default_rng([seed, number]))
            if not len(points):
                continue
            true = pair.truth(points)
            predicted = {method: answers, f"{method}, best key point": closest}
            predicted |= {name: match(pair, points) for name, match in matchers.items()}
            for name, found in predicted.items():
                hits = {alpha: float(correct(found, true, size, alpha).mean()) for alpha in ALPHAS}
                rows.append(
                    {"photo": pair.photo, "warp": pair.kind, "points": method, "method": name, "count": len(points)}
                    | {f"pck@{alpha}": value for alpha, value in hits.items()}
                )
    return rows


def interval(rows: list[dict], key: str, seed: int = 0) -> tuple[float, float, float]:
    """Mean over pairs and its 95 % interval, photographs drawn with replacement."""
    by_photo = [[row[key] for row in rows if row["photo"] == name] for name in dict.fromkeys(r["photo"] for r in rows)]
    draw = np.random.default_rng(seed)
    means = [
        np.mean(np.concatenate([by_photo[i] for i in draw.integers(0, len(by_photo), len(by_photo))]))
        for _ in range(2000)
    ]
    return float(np.mean([row[key] for row in rows])), *(float(v) for v in np.quantile(means, (0.025, 0.975)))


def print_table(rows: list[dict]) -> None:
    print("| points of | warp | method | pairs | " + " | ".join(f"PCK@{alpha}" for alpha in ALPHAS) + " |")
    print("| --- | --- | --- | --- |" + " --- |" * len(ALPHAS))
    for points in ("SIFT", "ORB"):
        for kind in WARPS:
            for method in dict.fromkeys(row["method"] for row in rows if row["points"] == points):
                mine = [r for r in rows if (r["points"], r["warp"], r["method"]) == (points, kind, method)]
                cells = []
                for alpha in ALPHAS:
                    mean, low, high = interval(mine, f"pck@{alpha}")
                    cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
                print(f"| {points} | {kind} | {method} | {len(mine)} | " + " | ".join(cells) + " |")


def draw_matches(path: Path, pairs: list[Pair], match: Matcher, size: int, seed: int, *, shown: int = 24) -> None:
    """Pairs below each other, matched points joined: SIFT on the left, features on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(pairs), 2, figsize=(12, 3.1 * len(pairs)), squeeze=False, layout="constrained")
    for number, (pair, line) in enumerate(zip(pairs, axes, strict=True)):
        points, answers, _ = detector_answers("SIFT", pair, np.random.default_rng([seed, number]))
        points, answers = points[:shown], answers[:shown]
        for axis, (name, found) in zip(line, {"SIFT": answers, "features": match(pair, points)}.items(), strict=True):
            hits = correct(found, pair.truth(points), size, 0.05)
            axis.imshow(np.concatenate([pair.query, pair.target], axis=1))
            for hit in (False, True):
                for (x, y), (to_x, to_y) in zip(points[hits == hit], found[hits == hit], strict=True):
                    axis.plot([x, to_x + size], [y, to_y], "-o", lw=0.8, ms=2.5, color="#35c26b" if hit else "#e4572e")
            axis.set_title(f"{name}: {int(hits.sum())} of {len(hits)} within 5 % ({pair.kind})", fontsize=10)
            axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder, name in the model table or hub id; default: tiny random weights")
    parser.add_argument("--taps", default="dift", help="published set, or module paths separated by commas")
    parser.add_argument("--t", type=float, help="noise level; default: that of the published set")
    parser.add_argument("--ensemble", type=int, help="noisy copies; default: that of the published set")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, in pixels")
    parser.add_argument("--feature-size", type=int, help="side at which the model sees them; default: the same")
    parser.add_argument("--pairs", type=int, default=3, help="pairs for each photograph and kind of warp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="rows as JSON lines")
    parser.add_argument("--figure", type=Path, help="picture of matched points")
    arguments = parser.parse_args()
    if arguments.figure and arguments.model is None:
        parser.error("a picture of random weights shows nothing: give --model")
    taps = arguments.taps.split(",") if "," in arguments.taps else arguments.taps
    if arguments.model is None:
        extractor = tiny_extractor()
    else:
        extractor = FeatureExtractor.from_pretrained(
            arguments.model,
            taps=taps,
            t=arguments.t,
            ensemble=arguments.ensemble,
            size=arguments.feature_size or arguments.size,
            device=arguments.device,
        )
    pairs = make_pairs(arguments.size, arguments.pairs, arguments.seed)
    trained = (
        None if arguments.model is None else feature_matcher(extractor, pairs, arguments.size, arguments.batch_size)
    )
    randomise(extractor)
    matchers = {} if trained is None else {"features": trained}
    matchers["random weights"] = feature_matcher(extractor, pairs, arguments.size, arguments.batch_size)
    matchers["pixel patches"] = patch_matcher(pairs, arguments.size)
    rows = evaluate(pairs, matchers, arguments.size, arguments.seed)
    print_table(rows)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if arguments.figure and trained is not None:
        chosen = [next(pair for pair in pairs if (pair.photo, pair.kind) == want) for want in SHOWN]
        draw_matches(arguments.figure, chosen, trained, arguments.size, arguments.seed)
    return 0


SHOWN = (("astronaut", "homography"), ("chelsea", "thin plate"), ("coffee", "homography"))

if __name__ == "__main__":
    raise SystemExit(main())
