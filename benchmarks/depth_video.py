"""How much depth flickers from frame to frame; what shared noise, a start from the last frame and a fit to it change.

    OMP_NUM_THREADS=1 python benchmarks/depth_video.py [--steps 200] [--clips 2]

Drawn clips: rooms that nothing moves in, seen by a camera that slides sideways, by about a pixel a frame at the median
depth; so each surface keeps its depth, and where it appears in the next frame is known from the true depth. The
camera's faults (noise, blur, exposure) are the same in all frames. Flicker is that of `priorscope_depth.flicker`, over
the pixels that both frames show; AbsRel is after a least-squares fit in disparity for each frame.

Two models: the bundled `tiny-depth`, a regression, at its own size; and a small Marigold (four DDIM steps, terminal
SNR zero) of the same network, trained here on 48 x 64 pixels for less than a minute of CPU time: it is poor, and its
noise large, which is what the comparison needs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from priorscope.evaluation.tables import print_table
from priorscope.scenes.camera import Camera, pixel_centres
from priorscope.scenes.world import Caster, Stage
from priorscope.training.settings import LoopConfig
from priorscope_depth.alignment import fit_affine
from priorscope_depth.configs import TrainConfig
from priorscope_depth.flicker import Motion, flicker, read_out
from priorscope_depth.metrics import depth_metrics
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.scenes import HELD_OUT_SEED, write_scenes
from priorscope_depth.scenes.generate import KINDS, Scene, photograph
from priorscope_depth.video import FrameOptions, FramePredictor

FRAMES = 8
MODES = {
    "independent noise": FrameOptions("independent"),
    "shared noise (default)": FrameOptions("shared"),
    "previous, level 749": FrameOptions("previous"),
    "previous, level 499": FrameOptions("previous", level=499.0),
    "shared noise, fitted to the last": FrameOptions("shared", align=True),
    "previous, level 499, fitted to the last": FrameOptions("previous", level=499.0, align=True),
}
REGRESSION = {"as it is": FrameOptions(), "fitted to the last": FrameOptions(align=True)}


@dataclass(frozen=True)
class Clip:
    """Frames with their truth, and for every pair where the pixels of the earlier are in the later."""

    frames: list[Scene]
    motion: list[Motion]
    still: list[NDArray[np.bool_]]


def draw_clip(seed: int, height: int, width: int) -> Clip:
    """A room and a camera that slides to its right."""
    rng = np.random.default_rng([seed, 77])
    stage = KINDS["room"][0](rng)
    caster = Caster(stage.world)
    camera, depth = _view(stage, caster, rng)
    focal = camera.intrinsics(height, width)[0, 0]
    step = camera.rotation[0] * depth / focal * (width / 64)  # a pixel at a width of 64
    cameras = [Camera(camera.position + i * step, camera.rotation, camera.field_of_view) for i in range(FRAMES)]
    frames = [
        photograph(stage, caster, one, np.random.default_rng([seed, 78]), shape=(height, width)) for one in cameras
    ]
    motion, still = [], []
    for now, later, here, there in zip(frames, frames[1:], cameras, cameras[1:], strict=False):
        place, seen = _motion(now, later, here, there)
        motion.append(place)
        still.append(seen)
    return Clip(frames, motion, still)


def _view(stage: Stage, caster: Caster, rng: np.random.Generator) -> tuple[Camera, float]:
    """A proposed camera with something to see and nothing in its face, and its median depth."""
    best: tuple[float, Camera, float] | None = None
    for _ in range(12):
        camera = stage.propose(rng)
        hits = caster.cast(camera.position, camera.rays(*pixel_centres(24, 32), 24, 32))
        if len(hits.ray) < 600:
            continue
        near, median = (float(value) for value in np.quantile(hits.distance, [0.02, 0.5]))
        if best is None or near / median > best[0]:
            best = near / median, camera, median
    assert best is not None
    return best[1], best[2]


def _motion(now: Scene, later: Scene, here: Camera, there: Camera) -> tuple[Motion, NDArray[np.bool_]]:
    height, width = now.depth.shape
    rays = here.rays(*pixel_centres(height, width), height, width)
    points = here.position + rays * now.depth.reshape(-1, 1)
    seen = (points - there.position) @ there.rotation.T
    matrix = there.intrinsics(height, width)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = (matrix[0, 0] * seen[:, 0] / seen[:, 2] + matrix[0, 2] - 0.5).reshape(height, width)
        rows = (matrix[1, 1] * seen[:, 1] / seen[:, 2] + matrix[1, 2] - 0.5).reshape(height, width)
    depth, inside = read_out(later.depth.astype(np.float64), columns, rows)
    same = np.abs(depth - now.depth) < 0.01 * now.depth  # hidden or beside an edge otherwise
    return (columns, rows), inside & now.valid & same


def measure(predictor: DepthPredictor, clips: list[Clip], options: FrameOptions) -> dict[str, float]:
    """Mean flicker (in % of the range) and AbsRel over clips."""
    shapes, totals, errors = [], [], []
    calls: list[int] = []
    hook = predictor.network.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        for number, clip in enumerate(clips):
            predict = FramePredictor(predictor, f"clip{number}", options)
            values = [predict([frame.rgb], i)[0].values for i, frame in enumerate(clip.frames)]
            found = flicker(values, still=clip.still, motion=clip.motion)
            shapes.append(found.shape)
            totals.append(found.total)
            for value, frame in zip(values, clip.frames, strict=True):
                fit = fit_affine(value, frame.depth, frame.valid, "disparity")
                depth = fit.depth(value[frame.valid], 1e-3, 300.0)
                errors.append(depth_metrics(depth, frame.depth[frame.valid])["abs_rel"])
    finally:
        hook.remove()
    return {
        "flicker, shape (%)": 100 * float(np.mean(shapes)),
        "flicker, total (%)": 100 * float(np.mean(totals)),
        "AbsRel": float(np.mean(errors)),
        "calls a frame": len(calls) / (FRAMES * len(clips)),
    }


def small_marigold(folder: Path, steps: int) -> DepthPredictor:
    """A new network trained for so many steps, and loaded again."""
    from priorscope_depth.train import train

    write_scenes(folder / "scenes", range(48), height=48, width=64)
    loop = LoopConfig(
        steps=steps,
        batch_size=8,
        lr=2e-3,
        warmup=20,
        ema=0,
        log_every=100,
        validate_every=steps,
        checkpoint_every=steps,
    )
    config = TrainConfig(
        out=folder / "run",
        model="new",
        family="marigold",
        space="disparity",
        scenes=folder / "scenes",
        size=64,
        held_out=0,
        loop=loop,
    )
    return DepthPredictor.from_pretrained(train(config).model, steps=4, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training steps of the small Marigold; 0: leave it out")
    parser.add_argument("--clips", type=int, default=2)
    arguments = parser.parse_args()
    begin = time.process_time()
    seeds = range(HELD_OUT_SEED + 20_000, HELD_OUT_SEED + 20_000 + arguments.clips)
    clips = [draw_clip(seed, 192, 256) for seed in seeds]
    shares = [float(np.mean(still)) for clip in clips for still in clip.still]
    print(f"{len(clips)} clips of {FRAMES} frames; {np.mean(shares):.0%} of the pixels count", flush=True)
    tiny = DepthPredictor.from_pretrained("tiny-depth", device="cpu")
    rows = [{"frames": name, **measure(tiny, clips, options)} for name, options in REGRESSION.items()]
    print("\ntiny-depth, a regression, 192 x 256:")
    print_table(rows, ".3g")
    print(f"{time.process_time() - begin:.0f} s of CPU time", flush=True)
    if arguments.steps:
        clips = [draw_clip(seed, 48, 64) for seed in seeds]
        with tempfile.TemporaryDirectory() as folder:
            marigold = small_marigold(Path(folder), arguments.steps)
        print(f"\nsmall Marigold trained for {arguments.steps} steps, 4 steps a frame, 48 x 64:")
        rows = [{"frames": name, **measure(marigold, clips, options)} for name, options in MODES.items()]
        print_table(rows, ".3g")
        print(f"{time.process_time() - begin:.0f} s of CPU time in all", flush=True)


if __name__ == "__main__":
    main()
