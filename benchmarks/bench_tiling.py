"""How visible are the seams of tiled prediction?

Predicts larger procedural scenes (384 x 512) in tiles and measures, on the lines where a tile begins or ends, how much
more the prediction jumps than on parallel lines 12 pixels away. Three ways: our tiles (aligned to a prediction of the
whole, feathered), the same without alignment, and plain abutting tiles. Also AbsRel against the whole prediction.

    python benchmarks/bench_tiling.py --count 24
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from priorscope.predictors.tiling import predict_tiled, tile_starts
from priorscope_depth.alignment import fit_affine
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.scenes import HELD_OUT_SEED, render_scene

HEIGHT, WIDTH, TILE, OVERLAP, AWAY = 384, 512, 256, 64, 12


def seam_excess(prediction: np.ndarray, tile: int, overlap: int) -> float:
    """Mean jump across tile borders less that across parallel lines nearby, in units of the prediction's range."""
    excess = []
    for axis, length in enumerate(prediction.shape):
        jumps = np.abs(np.diff(prediction, axis=axis)).mean(axis=1 - axis)
        starts = tile_starts(length, tile, overlap)
        lines = [start - 1 for start in starts[1:]] + [start + tile - 1 for start in starts[:-1]]
        for line in lines:
            nearby = [jumps[at] for at in (line - AWAY, line + AWAY) if 0 <= at < len(jumps)]
            excess.append(jumps[line] - np.mean(nearby))
    return float(np.mean(excess))


def abs_rel(prediction: np.ndarray, scene) -> float:
    fit = fit_affine(prediction, scene.depth, scene.valid, "disparity")
    return depth_metrics(fit.depth(prediction, 1e-3, 300.0), scene.depth, scene.valid)["abs_rel"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--model", default="tiny-depth")
    arguments = parser.parse_args()
    predictor = DepthPredictor.from_pretrained(arguments.model)
    native = DepthPredictor(predictor.latent, predictor.recipe, geometry=predictor.geometry.native())

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        return native.predict(tiles)[0][0][None]

    rows: dict[str, list[tuple[float, float]]] = {}
    for index in range(arguments.count):
        scene = render_scene(HELD_OUT_SEED + 5_000 + index, height=HEIGHT, width=WIDTH)
        rgb = torch.tensor(scene.rgb).permute(2, 0, 1)[None] / 255
        whole = predictor.predict(rgb)[0][0][None]
        results = {
            "whole image": (whole, OVERLAP),
            "tiles, aligned and feathered": (
                predict_tiled(rgb, predict, tile=TILE, overlap=OVERLAP, reference=whole),
                OVERLAP,
            ),
            "tiles, feathered only": (predict_tiled(rgb, predict, tile=TILE, overlap=OVERLAP), OVERLAP),
            "tiles side by side": (predict_tiled(rgb, predict, tile=TILE // 2, overlap=0), 0),
        }
        for name, (prediction, overlap) in results.items():
            field = prediction[0, 0].numpy()
            field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
            tile = TILE if overlap else TILE // 2
            rows.setdefault(name, []).append((seam_excess(field, tile, overlap), abs_rel(field, scene)))
    print(f"{arguments.count} scenes of {HEIGHT} x {WIDTH}, tiles of {TILE} overlapping by {OVERLAP}")
    print(f"{'':32}{'seam excess':>12}{'AbsRel':>9}")
    for name, values in rows.items():
        seam, error = np.mean(values, axis=0)
        print(f"{name:32}{seam:12.5f}{error:9.3f}")


if __name__ == "__main__":
    main()
