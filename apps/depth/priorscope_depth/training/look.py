"""A look at held-out images while a model trains: figures for the curve, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.run_folder import RunFolder
from priorscope_depth.alignment import fit_affine
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.predictor import DepthPredictor

if TYPE_CHECKING:
    from priorscope_depth.pairs.pair import TrainingPair

#: Metres between which aligned depth is clipped, as in the protocols: beyond, a disparity says nothing.
_NEAREST, _FARTHEST = 1e-3, 300.0
_SHOWN = 3


class HeldOut:
    """Images with their truth that are never trained on.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        Kept in memory; a few dozen are enough for a curve.
    """

    def __init__(self, pairs: Sequence[TrainingPair]) -> None:
        self.pairs = list(pairs)

    def look(self, predictor: DepthPredictor, run: RunFolder, step: int) -> dict[str, float]:
        """Predict all of them; leave ``figures/step-NNNNNNN.png`` with the first three.

        Returns
        -------
        dict
            ``held_out_abs_rel`` and ``held_out_delta1`` after an affine fit in the model's space, or
            ``held_out_mean_angle`` in degrees for normals.
        """
        rows, panels = [], []
        results = predictor([pair.rgb for pair in self.pairs], batch_size=8, items=[pair.key for pair in self.pairs])
        for number, (pair, result) in enumerate(zip(self.pairs, results, strict=True)):
            row, shown = _angles(pair, result) if predictor.task == "normals" else _depths(pair, result)
            rows.append(row)
            if number < _SHOWN:
                panels += [Panel(pair.rgb, pair.key), *shown]
        run.figures.mkdir(parents=True, exist_ok=True)
        from priorscope.data.images import write_png

        picture = figure_to_image(side_by_side(panels, columns=3, width=9.0), dpi=80)
        write_png(run.figures / f"step-{step:07d}.png", picture, overwrite=True)
        return {f"held_out_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _depths(pair: TrainingPair, result: object) -> tuple[dict[str, float], list[Panel]]:
    from priorscope_depth.results import DepthResult

    assert isinstance(result, DepthResult)
    valid = pair.valid & (pair.depth > _NEAREST) & (pair.depth < _FARTHEST)
    if not valid.any():
        raise InputError(
            f"no depth of the held-out {pair.key} lies between {_NEAREST} and {_FARTHEST:.0f} metres",
            remedy="Check --depth-scale, or leave the look out with --held-out 0.",
        )
    fit = fit_affine(result.values, pair.depth, valid, result.space)
    depth = fit.depth(result.values, _NEAREST, _FARTHEST)
    figures = depth_metrics(depth, pair.depth, valid)
    truth = np.where(valid, 1 / np.maximum(pair.depth, _NEAREST), 0)
    lo, hi = (float(value) for value in np.quantile(truth[valid], [0.02, 0.98]))
    shown = [
        Panel(truth, "truth", lo=lo, hi=hi, label="disparity (1/m)", cmap="magma", valid=valid),
        Panel(1 / depth, f"AbsRel {figures['abs_rel']:.3f}", lo=lo, hi=hi, label="disparity (1/m)", cmap="magma"),
    ]
    return {"abs_rel": figures["abs_rel"], "delta1": figures["delta1"]}, shown


def _angles(pair: TrainingPair, result: object) -> tuple[dict[str, float], list[Panel]]:
    from priorscope_depth.results import NormalsResult

    assert isinstance(result, NormalsResult)
    assert pair.normals is not None
    known = np.linalg.norm(pair.normals, axis=-1) > 0.5
    cosine = np.clip((pair.normals * result.values).sum(-1)[known], -1, 1)
    angle = float(np.degrees(np.arccos(cosine)).mean()) if known.any() else 0.0
    pictures = [((normals + 1) / 2 * 255).round().astype(np.uint8) for normals in (pair.normals, result.values)]
    return {"mean_angle": angle}, [Panel(pictures[0], "truth"), Panel(pictures[1], f"{angle:.1f} degrees")]
