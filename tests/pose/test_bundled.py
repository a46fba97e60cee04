"""The bundled model: it runs offline on a photograph, and on drawn people it does better than not looking."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import priorscope_pose
from priorscope.data.images import read_image, write_png
from priorscope.data.samples import photo
from priorscope_pose.cli import main
from priorscope_pose.configs import EvaluateConfig, ModelConfig
from priorscope_pose.data.boxes import annotated_boxes
from priorscope_pose.data.coco import read_coco
from priorscope_pose.estimators import load_estimator
from priorscope_pose.evaluate import figures_of, predict_all, predictions_of
from priorscope_pose.evaluation.mean_pose import mean_pose
from priorscope_pose.people import HELD_OUT_SEED, write_coco

FOLDER = Path(priorscope_pose.__file__).parent / "models/tiny-pose"


def test_a_photograph_offline(tmp_path, capsys):
    write_png(tmp_path / "photo.png", photo("astronaut"))
    assert main(["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "1 people in 1 images" in capsys.readouterr().out
    pictures = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".jpg")]
    assert any(read_image(path).shape == (512, 512, 3) for path in pictures)
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("*results*.json")]
    points = np.array(results[0][0]["keypoints"]).reshape(17, 3)
    assert np.isfinite(points).all()
    # it has found something to tell apart, not one place for all
    assert np.ptp(points[:, :2], axis=0).min() > 30


def test_model_card_and_size():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3.2 * 2**20
    card = (FOLDER / "README.md").read_text()
    assert "Measured" in card
    assert "Data" in card


@pytest.mark.slow
def test_better_than_not_looking(tmp_path):
    """OKS AP.5 on 100 held-out drawn people at least 0.1, and 20 times the mean pose's."""
    people = read_coco(write_coco(tmp_path, range(HELD_OUT_SEED, HELD_OUT_SEED + 100), progress=False))
    usual = mean_pose(read_coco(write_coco(tmp_path / "usual", range(200), progress=False)))
    estimator = load_estimator(ModelConfig(device="cpu", batch_size=16))
    result = predict_all(estimator, people, annotated_boxes(people), batch_size=16)
    config = EvaluateConfig("", metric="coco")
    found = figures_of(people, predictions_of(result.rows, people.skeleton), config)[0]
    trivial = figures_of(people, usual.predictions(people), config)[0]
    assert found["AP .5"] > max(0.1, 20 * trivial["AP .5"])
