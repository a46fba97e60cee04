"""Make the bundled ``tiny-pose``: a small SDPose, on drawn people of all kinds.

    OMP_NUM_THREADS=1 python benchmarks/pose_tiny.py [--start prior|new] [--max-seconds 1200] [--out /tmp/pose_tiny]

prior: a prior is pretrained without keypoints on the same pictures (5 000 steps), then all of it is trained with them
(13 000). new: 18 000 steps from new weights. Either takes about 45 minutes of one core, and goes on where it was cut
off. At the end: OKS AP on held-out people, beside the mean pose's, and the model in float16 in OUT/START/tiny-pose, to
be copied to apps/pose/priorscope_pose/models.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from evidence_pose_data import merged
from evidence_rows import TimeLimit
from safetensors.torch import load_file, save_file

from priorscope.data.files import write_text
from priorscope.training.settings import LoopConfig
from priorscope_pose.configs import EvaluateConfig, ModelConfig, TrainConfig
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.boxes import annotated_boxes
from priorscope_pose.data.coco import read_coco
from priorscope_pose.estimators import load_estimator
from priorscope_pose.evaluate import figures_of, predict_all, predictions_of
from priorscope_pose.evaluation.mean_pose import mean_pose
from priorscope_pose.people import HELD_OUT_SEED, write_coco
from priorscope_pose.sdpose.checkpoint import load_network, save_network
from priorscope_pose.train import train

CROP = (64, 80)
PICTURES, HELD_OUT = 8000, 400
#: Beyond the seeds that evaluation, training's looks, the evidence and the demo take.
HELD_OUT_FIRST = HELD_OUT_SEED + 700_000
PRIOR_STEPS, STEPS = 5000, 18_000
LOOP = LoopConfig(batch_size=16, lr=1e-3, log_every=200, checkpoint_every=200, device="cpu", resume=True)
PRIOR = TrainConfig("", method="prior", input_size=CROP, rotation=20.0, scale=0.2, half_body=0.0)
POSE = TrainConfig(
    "", input_size=CROP, sigma=1.5, rotation=30.0, scale=0.25, half_body=0.1, hole=0.3, reconstruction=0.0, label=50.0
)


class Maker(TimeLimit):
    """Every step from pictures to the model, within a time."""

    def __init__(self, out: Path, max_seconds: float) -> None:
        super().__init__(max_seconds)
        self.out = out

    def pieces(self, name: str, first: int, count: int) -> list[Path]:
        """Annotation files of a set; what is missing is drawn."""
        paths = []
        for start in range(0, count, 500):
            folder = self.out / name / f"{start:05d}"
            path = folder / "annotations/person_keypoints_p.json"
            if not path.exists():
                self.seconds_left()
                write_coco(folder, range(first + start, first + min(start + 500, count)), split="p", people=1)
            paths.append(path)
        return paths

    def drawn(self, name: str, first: int, count: int) -> Annotations:
        parts = [read_coco(path) for path in self.pieces(name, first, count)]
        return Annotations(parts[0].skeleton, tuple(image for part in parts for image in part))

    def whole_file(self, name: str, count: int) -> tuple[Path, Path]:
        """All pieces of a set as one annotation file, and the folder that its file names start from."""
        folder = self.out / name
        path = folder / "all.json"
        if not path.exists():
            write_text(path, json.dumps(merged(self.pieces(name, 0, count), folder)))
        return path, folder

    def trained(self, name: str, config: TrainConfig, steps: int) -> Path:
        path, folder = self.whole_file("learnt", PICTURES)
        loop = replace(LOOP, steps=steps, max_seconds=self.seconds_left())
        result = train(replace(config, data=str(path), images=folder, out=self.out / name, held_out=0, loop=loop))
        if not result.finished:
            raise SystemExit("the time is used up; the same command goes on")
        return result.model

    def measured(self, model: Path) -> None:
        people = self.drawn("held-out", HELD_OUT_FIRST, HELD_OUT)
        usual = mean_pose(self.drawn("usual", PICTURES, 500))
        estimator = load_estimator(ModelConfig(model=str(model), device="cpu", batch_size=16))
        found = predict_all(estimator, people, annotated_boxes(people), batch_size=16)
        assert not found.failures
        for name, predictions in (
            ("tiny-pose", predictions_of(found.rows, people.skeleton)),
            ("mean pose", usual.predictions(people)),
        ):
            figures = figures_of(people, predictions, EvaluateConfig("", metric="coco"))[0]
            print(name, {key: round(figures[key], 4) for key in ("AP", "AP .5", "AP .75", "AR")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/pose_tiny"))
    parser.add_argument("--start", choices=("prior", "new"), default="prior")
    parser.add_argument("--max-seconds", type=float, default=1200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    maker = Maker(options.out, options.max_seconds)
    start, steps = "new", STEPS
    if options.start == "prior":
        start, steps = str(maker.trained("prior-run", PRIOR, PRIOR_STEPS)), STEPS - PRIOR_STEPS
    model = maker.trained(f"{options.start}/run", replace(POSE, start=start), steps)
    bundled = options.out / options.start / "tiny-pose"
    if not bundled.exists():
        save_network(load_network(model), bundled, half=True)
        head = bundled / "decoder/decoder.safetensors"
        save_file({name: value.half() for name, value in load_file(head).items()}, head)
    maker.measured(bundled)


if __name__ == "__main__":
    main()
