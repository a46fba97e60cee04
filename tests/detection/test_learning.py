"""Targets, losses, decoding and average precision with a real network between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from priorscope_detection.checkpoints import AnchorSettings, Detector
from priorscope_detection.evaluation.ap import average_precision, measure_frame
from priorscope_detection.losses import detection_loss
from priorscope_detection.network.batch import AgentSweep, make_batch
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import SIZES
from priorscope_detection.post_processing import candidates, finish
from priorscope_detection.targets import assign


def test_a_detector_learns_a_frame_by_heart(box_surface):
    """Four cars with any heading: found after a few steps, with their headings, and not before."""
    torch.manual_seed(0)
    spec = replace(SIZES["tiny"], fusion="none")
    detector = Detector(CollaborativeDetector(spec), AnchorSettings())
    x0, y0, _, x1, y1, _ = spec.extent
    middle, span = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2]), torch.tensor([x1 - x0, y1 - y0])
    truths = torch.tensor([[0, 0, -1, 3.9, 1.6, 1.56, yaw] for yaw in (0.2, 1.7, 3.0, -2.3)], dtype=torch.float64)
    truths[:, :2] = middle + span * torch.tensor([[-0.3, -0.25], [0.3, -0.25], [-0.25, 0.28], [0.3, 0.25]])
    clouds = []
    for box in truths.numpy():
        cloud = box_surface(box, 60)
        # front ends shine, or nothing would tell the heading
        cloud[:, 3] = (cloud[:, :2] - box[:2]) @ [np.cos(box[6]), np.sin(box[6])] > 0
        clouds.append(cloud)
    points = np.concatenate(clouds)
    batch = make_batch([[AgentSweep(torch.from_numpy(points), torch.eye(4, dtype=torch.float64))]], spec)
    anchors = detector.anchor_boxes()
    targets = [assign(anchors, truths)]
    network = detector.network.train()

    def found():
        with torch.no_grad():
            return finish(candidates(*network(batch), anchors))

    def precision(result):
        return average_precision([measure_frame(result.boxes, result.scores, truths)], 0.7, overlap="3d").ap

    assert precision(found()) < 0.5
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = detection_loss(*network(batch), targets, anchors).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    result = found()
    assert precision(result) == 1
    assert len(result) == 4
    turns = result.boxes[:, 6].double() - truths[torch.cdist(result.boxes[:, :2].double(), truths[:, :2]).argmin(1), 6]
    assert float(turns.cos().min()) > 0.95
