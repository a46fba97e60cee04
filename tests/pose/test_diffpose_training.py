"""DiffPose learns, and answers in pixels of the image."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.settings import LoopConfig
from priorscope_pose.data.annotations import PersonAnnotation
from priorscope_pose.diffpose.augmentation import NONE
from priorscope_pose.diffpose.clips import Video, VideoClips
from priorscope_pose.diffpose.feed import DiffPoseFeed, held_out
from priorscope_pose.diffpose.model import DiffPoseModel
from priorscope_pose.diffpose.predictor import DiffPosePredictor
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.diffpose.task import DiffPoseTask, crop_points, heatmap_loss

SPEC = DiffPoseSpec(
    skeleton="crowdpose",
    distance=1,
    input_size=(32, 48),
    codec="udp",
    sigma=1.5,
    scale=0.3,
    backbone="conv",
    backbone_settings={"widths": [8, 16, 24, 32]},
    width=32,
    layers=1,
    heads=2,
    decoder_width=24,
    decoder_heads=2,
)


def blobs(count, seed=0):
    """A video in which a red and a green spot jump about: even keypoints are on the red one, odd ones on the green."""
    random = np.random.default_rng(seed)
    yy, xx = np.mgrid[:60, :40]
    frames, people = [], []
    for number in range(count):
        red, green = random.uniform([8, 10], [31, 49], (2, 2))
        spots = [np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 18) for x, y in (red, green)]
        frames.append((255 * np.stack([*spots, np.zeros_like(spots[0])], -1)).astype(np.uint8))
        points = np.stack([[*(red if k % 2 == 0 else green), 1.0] for k in range(14)])
        people.append([PersonAnnotation(number, number, np.array([4.0, 6.0, 36.0, 54.0]), points, 1.0)])
    return Video("blobs", frames, people)


def test_the_loss_by_hand():
    estimate, truth = torch.tensor([[[[3.0]], [[5.0]]]]), torch.tensor([[[[1.0]], [[1.0]]]])
    assert float(heatmap_loss(estimate, truth, torch.tensor([[1.0, 0.0]]))) == 2.0  # 2^2 over both keypoints


def test_a_few_blobs_are_learnt():
    clips = VideoClips([blobs(4)], 1)
    feed = DiffPoseFeed(clips, SPEC, batch_size=4, augmentation=NONE)
    model = DiffPoseModel.new(SPEC)
    task = DiffPoseTask(model, clips)
    before = task.eval().validate(None, 0)
    optimizer = torch.optim.AdamW(task.parameters(), betas=(0.9, 0.99))
    task.train()
    for step in range(130):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 15)
        task(feed.batch(step, range(4)))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    after = task.eval().validate(None, 130)
    assert before["held_out_pixels"] > 8
    assert after["held_out_pixels"] < 2
    assert after["held_out_near"] > 0.85
    assert after["held_out_loss"] < 0.3 * before["held_out_loss"]
    # the same through the predictor, in pixels of the image
    video = clips.videos[0]
    boxes = [[person.box for person in people] for people in video.people]
    predictor = DiffPosePredictor(model.requires_grad_(False))
    found = predictor(video.frames, boxes, steps=2, ensemble=2)
    truth = np.stack([people[0].keypoints[:, :2] for people in video.people])
    error = np.linalg.norm(np.stack([pose.keypoints[0] for pose in found]) - truth, axis=-1)
    assert np.median(error) < 2.5  # a pixel of the crop is 1.25 of the image
    assert np.mean([pose.scores.mean() for pose in found]) > 0.4


def test_own_runs_replace_what_the_network_is_shown(monkeypatch):
    feed = DiffPoseFeed(VideoClips([blobs(8)], 1), SPEC, batch_size=8, augmentation=NONE, own_runs=0.5)
    batches = [feed.batch(step, range(8)) for step in range(40)]
    steps, call = (torch.cat([batch[name] for batch in batches]) for name in ("steps", "call"))
    assert 0.4 < float((steps > 0).double().mean()) < 0.6
    assert set(steps.tolist()) == set(range(9))
    assert bool((call < steps.clamp(min=1)).all())
    assert int(call.max()) >= 6
    # the gradient is of the last call alone, and people without a run see their noised heatmaps
    batch, model = batches[0], DiffPoseModel.new(SPEC)
    seen = {}
    monkeypatch.setattr(model.diffusion, "heatmaps", lambda x, t, pyramid: seen.update(x=x, t=t) or torch.zeros_like(x))
    DiffPoseTask(model)(batch)
    own = batch["steps"] > 0
    noisy = model.diffusion.noised(batch["heatmaps"], batch["t"], batch["eps"])
    torch.testing.assert_close(seen["x"][~own], noisy[~own])
    assert seen["t"][~own].tolist() == batch["t"][~own].tolist()
    assert bool(((seen["x"] - noisy)[own].abs().amax((1, 2, 3)) > 0.01).all())
    assert not seen["x"].requires_grad
    first = own & (batch["call"] == 0)
    assert bool(first.any())
    assert set(seen["t"][first].tolist()) == {999.0}


def test_a_video_model_begins_with_what_a_single_frame_one_knows():
    single = DiffPoseModel.new(replace(SPEC, distance=0), seed=3)
    video = DiffPoseModel.inflated(single, 2)
    assert video.spec == replace(SPEC, distance=2)
    frames = torch.randint(0, 256, (2, 1, 3, 48, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noisy, t = torch.randn(2, 14, 12, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([999, 400])
    still = video(frames.expand(-1, 5, -1, -1, -1), noisy, t)  # five times the same picture
    torch.testing.assert_close(still, single(frames, noisy, t), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="of 5 frames cannot become one of 3"):
        DiffPoseModel.inflated(video, 1)


def test_the_loop_trains_and_saves(tmp_path):
    clips = VideoClips([blobs(4)], 1)
    config = LoopConfig(
        steps=4, batch_size=4, warmup=1, log_every=1, validate_every=4, checkpoint_every=2, device="cpu", ema=0.9
    )
    run = RunFolder.create(tmp_path / "run", config)
    task = DiffPoseTask(DiffPoseModel.new(SPEC), clips, most=2)
    result = fit(task, DiffPoseFeed(clips, SPEC, 4), config, run, make_accelerator(config))
    rows = run.history()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert {"held_out_loss", "held_out_pixels", "held_out_near"} <= rows[-1].keys()
    predictor = DiffPosePredictor.from_pretrained(result.model, device="cpu")
    assert predictor.model.spec == SPEC
    assert json.loads((result.model / "config.json").read_text())["_class_name"] == "DiffPoseModel"


@pytest.fixture(scope="module")
def predictor():
    return DiffPosePredictor(DiffPoseModel.new(SPEC, seed=5).requires_grad_(False), name="small")


@pytest.fixture(scope="module")
def clip():
    frames = np.random.default_rng(0).integers(0, 256, (4, 60, 40, 3), dtype=np.uint8)
    boxes = [[[4, 6, 36, 54], [0, 0, 20, 30]], [], [[2, 3, 30, 50]], [[4, 6, 36, 54]]]
    return frames, boxes


def test_results_are_named_and_shaped(predictor, clip):
    frames, boxes = clip
    scores = [[0.9, 0.5], [], [0.4], [0.3]]
    found = predictor(frames, boxes, box_scores=scores, steps=1)
    assert [len(pose) for pose in found] == [2, 0, 1, 1]
    assert found[0].keypoints.shape == (2, 14, 2)
    assert found[0].box_scores.tolist() == pytest.approx([0.9, 0.5])
    assert (found[0].skeleton, found[0].crop, found[0].model) == ("crowdpose", "evaluated", "small")
    np.testing.assert_allclose(found[2].regions, [[47 * 1.25 * 32 / 48, 47 * 1.25]])
    assert predictor(frames[:0], []) == []


def test_results_depend_on_seed_item_and_place_only(predictor, clip):
    frames, boxes = clip
    whole = predictor(frames, boxes, steps=2, ensemble=2)
    parts = predictor(list(frames), boxes, steps=2, ensemble=2, batch_size=1)
    other = predictor(frames, boxes, steps=2, ensemble=2, seed=1)
    named = predictor(frames, boxes, steps=2, ensemble=2, item="another")
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    assert not np.allclose(whole[0].scores, other[0].scores, atol=1e-5)
    assert not np.allclose(whole[0].scores, named[0].scores, atol=1e-5)


def test_a_mirrored_clip_has_mirrored_heatmaps(predictor):
    """With the flip test, a network that sees a symmetric clip says something symmetric, up to the noise."""
    half = np.random.default_rng(0).integers(0, 256, (1, 3, 3, 48, 16), dtype=np.uint8)
    crops = torch.from_numpy(np.concatenate([half, half[..., ::-1]], -1))
    spec = predictor.model.spec
    quiet = DiffPosePredictor(_without_noise(predictor.model))
    found = quiet.heatmaps(crops, [0], steps=1, flip_test=True)
    order = list(predictor.skeleton.flip_indices)
    torch.testing.assert_close(found, found.flip(-1)[:, order], atol=1e-5, rtol=0)
    alone = quiet.heatmaps(crops, [0], steps=1)
    assert not torch.allclose(alone, alone.flip(-1)[:, order], atol=1e-3)
    assert found.shape[-2:] == (spec.heatmap_size[1], spec.heatmap_size[0])


def _without_noise(model):
    import copy

    blind = copy.deepcopy(model)
    blind.decoder.lift.weight.zero_()
    return blind


def test_half_precision_is_close(predictor, clip):
    frames, boxes = clip
    half = DiffPosePredictor(predictor.model, dtype=torch.bfloat16)
    exact, rough = (p(frames, boxes, steps=2) for p in (predictor, half))
    assert rough[0].scores.dtype == np.float32
    np.testing.assert_allclose(rough[0].scores, exact[0].scores, atol=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[]]}, "boxes of 1 frames for a clip of 4"),
        ({"boxes": [[[1, 1, 1, 9]], [], [], []]}, "has no area"),
        ({"boxes": [[], [[90, 1, 95, 9]], [], []]}, "outside"),
        ({"frames": np.zeros((4, 60, 40), np.uint8)}, "uint8 array"),
        ({"numbers": [1, 2]}, "2 frame numbers"),
        ({"batch_size": 0}, "batch size of 0"),
        ({"steps": 0}, "0 steps"),
        ({"ensemble": 0}, "ensemble of 0"),
    ],
)
def test_questions_that_make_no_sense(predictor, clip, change, message):
    frames, boxes = clip
    asked = {"frames": frames, "boxes": boxes, "steps": 1} | change
    with pytest.raises(InputError, match=message):
        predictor(asked.pop("frames"), asked.pop("boxes"), **asked)


def test_frames_of_several_sizes_are_refused(predictor):
    frames = [np.zeros((60, 40, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)]
    with pytest.raises(InputError, match="frame 1 is"):
        predictor(frames, [[[2, 3, 30, 30]], []], steps=1)


def test_held_out_keypoints_are_where_their_heatmaps_say():
    spec = replace(SPEC, sigma=1.0)  # wider ones reach over the border, where udp's refinement is biased
    batch = held_out(VideoClips([blobs(3)], 1), spec, 3)
    points = crop_points(DiffPoseModel.new(spec), batch["heatmaps"])
    assert float((points - batch["keypoints"]).norm(dim=-1).max()) < 0.5
