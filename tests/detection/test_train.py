"""Training: examples, their changes, stages, resuming, refusals; on streets of seconds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import read_jsonl
from priorscope.training.order import Place
from priorscope.training.settings import LoopConfig
from priorscope_detection.checkpoints import AnchorSettings, load_detector
from priorscope_detection.configs import TrainConfig
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.rigid import count_in_boxes, move_boxes, move_points
from priorscope_detection.messages import in_range, messages, vehicles_only
from priorscope_detection.network.spec import SIZES
from priorscope_detection.noise import Disturbance
from priorscope_detection.simulator.settings import LidarSettings, StreetSettings
from priorscope_detection.simulator.write import write_opv2v
from priorscope_detection.train import _check, train
from priorscope_detection.training.augmentation import Augmentation, transformed
from priorscope_detection.training.feed import Conditions, FrameFeed
from priorscope_detection.training.sources import check_split, simulated_count, split_sequences

STREETS = StreetSettings(
    kind="crossing", cars=2, frames=2, spread=15.0, tilt=1.0, lidar=LidarSettings(beams=12, columns=256)
)
#: CoDiff's parts by the stage that trains them.
TRAINED = {
    "codec": ("codiff.codec.",),
    "diffusion": ("codiff.network.",),
    "finetune": ("codiff.network.", "codiff.codec.decoder.", "cls_head.", "reg_head.", "dir_head."),
    "joint": ("codiff.", "pillar_vfe.", "backbone.", "shrink_conv.", "cls_head.", "reg_head.", "dir_head."),
}


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    """Two scenarios of two frames; two cars and a road-side unit."""
    return write_opv2v(tmp_path_factory.mktemp("streets"), [0, 1], STREETS, progress=False)


@pytest.fixture(scope="module")
def frames(streets):
    return open_frames(streets)


def config_of(data, out, *, steps=2, **changes) -> TrainConfig:
    usual = {
        "steps": steps,
        "batch_size": 2,
        "lr": 2e-3,
        "warmup": 1,
        "log_every": 1,
        "validate_every": 100,
        "ema": 0.5,
    }
    loop = LoopConfig(**usual | changes.pop("loop", {}))
    usual_options = {"size": "tiny", "held_out": 0, "max_delay": 100.0}
    return TrainConfig(str(data), out=out, loop=loop, **usual_options | changes)


@pytest.fixture(scope="module")
def detector_run(streets, tmp_path_factory):
    """A run of stage detector with attention."""
    out = tmp_path_factory.mktemp("runs") / "detector"
    train(config_of(streets, out, steps=3))
    return out


@pytest.fixture(scope="module")
def codec_run(streets, detector_run):
    out = detector_run.parent / "codec"
    train(config_of(streets, out, stage="codec", start=str(detector_run)))
    return out


def feed_of(frames, *, fusion="attention", **changes) -> FrameFeed:
    spec = replace(SIZES["tiny"], fusion=fusion)
    how = Conditions(Disturbance(0.4, 0.4, delay=changes.pop("delay", 0.0)), True, Augmentation())
    usual = {"batch_size": 2, "seed": 3, "conditions": how}
    return FrameFeed(frames, tuple(range(len(frames))), spec, AnchorSettings(), **usual | changes)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_changed_frame_is_the_same_street(frames, seed):
    """Points stay in their boxes, and what one agent saw still falls on what the other saw."""
    frame = frames.read(0)
    similarity = Augmentation(rotation=180, scaling=0.2).draw(np.random.default_rng(seed))
    changed = transformed(frame, similarity)
    assert frame.points_in_boxes().sum() > 50
    # points on a box's face may fall to either side of it
    assert abs(changed.points_in_boxes() - frame.points_in_boxes()).sum() <= 2
    expected = move_points(similarity, frame.merged_points())
    np.testing.assert_allclose(changed.merged_points(), expected, atol=2e-4)
    np.testing.assert_allclose(np.linalg.det(changed.ego.pose), 1, atol=1e-9)


def test_similarities_mirror_half_and_keep_to_their_limits():
    drawn = [Augmentation(True, 10.0, 0.05).draw(np.random.default_rng(seed)) for seed in range(200)]
    lengths = np.array([each[2, 2] for each in drawn])
    mirrored = np.array([np.linalg.det(each) < 0 for each in drawn])
    turns = np.degrees([np.arctan2(each[1, 0], each[0, 0]) for each in drawn])
    assert 70 < mirrored.sum() < 130
    assert 0.95 <= lengths.min() < 0.96
    assert 1.04 < lengths.max() <= 1.05
    assert 9 < abs(turns).max() <= 10
    still = Augmentation(False, 0.0, 0.0).draw(np.random.default_rng(0))
    np.testing.assert_array_equal(still, np.eye(4))


def test_messages_are_levelled_and_lose_nothing(frames):
    """Level and planar motion together are the whole pose; a LiDAR on a pole then sees the street within the range."""
    frame = frames.read(0)
    pole = next(n for n, agent in enumerate(frame.agents) if agent.kind == "infrastructure")
    for sweep, agent, move in zip(messages(frame), frame.agents, frame.to_ego(), strict=True):
        there = move_points(sweep.to_ego.numpy(), sweep.points.numpy())
        np.testing.assert_allclose(there, move_points(move, agent.points), atol=1e-4)
        np.testing.assert_array_equal(sweep.to_ego[2], [0, 0, 1, 0])
    bottom = SIZES["tiny"].extent[2]
    own = messages(frame, published=True)[pole].points
    assert (own[:, 2] < bottom).float().mean() > 0.5
    assert (messages(frame)[pole].points[:, 2] < bottom).float().mean() < 0.1


def test_only_vehicles_are_measured(frames):
    frame = frames.read(0)
    truth = replace(frame.truth, classes=("pedestrian", "vehicle.bicycle", *["vehicle.car"] * (len(frame.truth) - 2)))
    assert vehicles_only(replace(frame, truth=truth)).truth.ids == truth.ids[2:]


def test_batches_are_fixed_by_seed_and_step(frames):
    feed = feed_of(frames, delay=100.0, with_clean=True)
    once, again, other = feed.batch(1, range(2)), feed.batch(1, range(2)), feed.batch(5, range(2))
    assert torch.equal(once["agents"].pillars.points, again["agents"].pillars.points)
    assert torch.equal(once["agents"].to_ego, again["agents"].to_ego)
    assert not torch.equal(once["agents"].to_ego, other["agents"].to_ego)
    second = feed.batch(1, range(1, 2))
    assert second["key"] == once["key"][1:]
    assert torch.equal(second["agents"].to_ego, once["agents"].to_ego[once["agents"].agents[0] :])
    assert torch.equal(second["targets"][0].codes, once["targets"][1].codes)


def test_what_happens_to_examples_is_what_the_command_says(streets, tmp_path):
    usual = _check(config_of(streets, tmp_path, max_delay=0.0))
    assert usual == Conditions(Disturbance(0.4, 0.4, drop=0.1), True, Augmentation(True, 45.0, 0.05), 70.0, False)
    options = {"pose_noise": 0.1, "yaw_noise": 0.2, "laplace": True, "noisy_ego": False, "max_delay": 300.0}
    options |= {"drop_agents": 0.3, "vary_noise": False, "flip": False, "rotation": 5.0, "scaling": 0.01}
    found = _check(config_of(streets, tmp_path, reach=30.0, published_frames=True, **options))
    how = Disturbance(0.1, 0.2, "laplace", ego=False, delay=300.0, drop=0.3)
    assert found == Conditions(how, False, Augmentation(False, 5.0, 0.01), 30.0, True)


def test_examples_follow_their_conditions(frames):
    def sweeps(**changes):
        disturbance = {"position": 2.0, "yaw": 0.0, "ego": False} | changes.pop("how", {})
        feed = feed_of(frames, conditions=Conditions(Disturbance(**disturbance), **changes))
        return feed.example(Place(0, 0)).sweeps

    right = sweeps(how={"position": 0.0})
    whole = sweeps()
    offset = [(a.to_ego - b.to_ego)[:2, 3].norm() for a, b in zip(whole, right, strict=True)]
    assert offset[0] == 0
    assert min(offset[1:]) > 0.3
    # with --vary-noise a part of the same draw, one for all agents
    shares = [
        float((a.to_ego - b.to_ego)[:2, 3].norm() / far)
        for a, b, far in zip(sweeps(vary=True)[1:], right[1:], offset[1:], strict=True)
    ]
    assert 0 < shares[0] < 1
    assert shares == pytest.approx([shares[0]] * 2)
    assert len(sweeps(reach=0.1)) == 1
    assert len(sweeps(how={"drop": 1.0})) == 1
    levelled, own = sweeps(how={"yaw": 0.0, "position": 0.0}), sweeps(how={"position": 0.0}, published=True)
    unit = next(name for name, sweep in enumerate(own) if sweep.kind)
    # the unit's LiDAR is on a pole: in its own frame the ground lies far below
    assert float(own[unit].points[:, 2].median()) < float(levelled[unit].points[:, 2].median()) - 2


def test_the_clean_side_has_right_poses_and_no_delay(frames):
    still = feed_of(frames, with_clean=True)
    batch = still.batch(0, range(2))
    assert batch["clean"].pillars is batch["agents"].pillars
    assert not torch.allclose(batch["clean"].to_ego, batch["agents"].to_ego)
    late = feed_of(frames, with_clean=True, delay=100.0)
    seen = [late.example(Place(epoch, 1)) for epoch in range(8)]
    assert {each.late for each in seen} == {True, False}
    example = next(each for each in seen if each.late)
    assert example.clean is not None
    # the ego's own sweep is never late
    assert torch.equal(example.clean[0].points, example.sweeps[0].points)
    assert not torch.equal(example.clean[1].points[:50], example.sweeps[1].points[:50])
    assert [sweep.delay for sweep in example.sweeps] == [0.0, 0.1, 0.1]
    assert not any(sweep.delay for sweep in example.clean)


def test_the_diffusions_target_is_what_right_poses_give(frames):
    """Moved by the clean messages, the other agents' points fall on the true boxes; by the noisy ones fewer do."""
    how = Conditions(Disturbance(2.0, 5.0), False, Augmentation())
    feed = feed_of(frames, with_clean=True, conditions=how)
    inside = {"clean": 0, "arrived": 0}
    for place in range(4):
        example = feed.example(Place(0, place))
        assert example.clean is not None
        for name, sweeps in (("clean", example.clean), ("arrived", example.sweeps)):
            for sweep in sweeps[1:]:
                points = move_points(sweep.to_ego.numpy(), sweep.points.numpy())
                inside[name] += int(count_in_boxes(points, example.truths[0]).sum())
    assert inside["clean"] > 100
    assert inside["arrived"] < 0.7 * inside["clean"]


@pytest.mark.parametrize("fusion", ["none", "late"])
def test_single_agents_learn_what_they_see_themselves(frames, fusion):
    feed = feed_of(frames, fusion=fusion, delay=100.0)
    example = feed.example(Place(0, 1))
    assert not example.late
    assert len(example.truths) == (1 if fusion == "none" else len(example.sweeps))
    for boxes, sweep in zip(example.truths, example.sweeps, strict=False):
        assert (count_in_boxes(sweep.points.numpy(), boxes) > 0).all()
        assert in_range(boxes, feed.spec.extent).all()
    assert sum(map(len, example.truths)) > 0
    # in the ego's frame they are boxes of the frame
    ego = example.truths[0]
    fused = replace(feed, spec=replace(feed.spec, fusion="attention")).example(Place(0, 1)).truths[0]
    assert len(fused) >= len(ego)
    assert all(np.abs(fused - box).max(1).min() < 1e-6 for box in ego)


def test_late_fusions_boxes_meet_in_the_egos_frame(frames):
    """Each agent's own targets, moved by its message, are true boxes of the ego's frame."""
    how = Conditions(Disturbance(0.4, 0.4), True, Augmentation())
    late = feed_of(frames, fusion="late", conditions=how)
    fused = feed_of(frames, conditions=how)
    met = 0
    for item in range(len(frames)):
        truths = fused.example(Place(0, item)).truths[0]
        example = late.example(Place(0, item))
        for boxes, sweep in zip(example.truths[1:], example.sweeps[1:], strict=True):
            there = move_boxes(sweep.to_ego.numpy(), boxes)
            for box in there[in_range(there, late.spec.extent)]:
                difference = truths - box
                difference[:, 6] = np.sin(difference[:, 6])
                assert np.abs(difference).max(1).min() < 1e-6
                met += 1
    assert met > 0


def test_whole_sequences_are_held_out(frames):
    learnt, held = split_sequences(frames, 1)
    assert (learnt, held) == ([0, 1, 2, 3], [])  # a tenth at most
    many = _Many()
    learnt, held = split_sequences(many, 3)
    assert held == [57, 58, 59]
    assert learnt == list(range(57))


class _Many:
    title, period = "many", 100.0

    def __len__(self):
        return 60

    def sequence(self, index):
        return str(index // 3)


@pytest.mark.parametrize("fusion", ["late", "early", "v2x"])
def test_other_fusions_train(streets, tmp_path, fusion):
    train(config_of(streets, tmp_path / "run", fusion=fusion, steps=1))
    assert load_detector(tmp_path / "run/model").spec.fusion == fusion


def test_a_training_is_resumed_with_the_same_losses(streets, detector_run, tmp_path):
    config = config_of(streets, tmp_path / "run", steps=3, loop={"max_seconds": 1e-6})
    done = train(config)
    assert (done.step, done.finished) == (1, False)
    done = train(replace(config, loop=replace(config.loop, max_seconds=0.0, resume=True)))
    assert (done.step, done.finished) == (3, True)

    def told(folder):
        rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row["step"] in (2, 3)]
        return [{name: row[name] for name in ("step", "loss", "classes", "boxes", "grad_norm")} for row in rows]

    assert told(tmp_path / "run") == told(detector_run)
    report = (tmp_path / "run/report.html").read_text()
    assert "not finished" not in report
    assert f"A detector trained on {streets}" in report  # "of train", the folder's name alone, says something else
    model, other = load_detector(tmp_path / "run/model"), load_detector(detector_run / "model")
    assert model.trained_on == "train"
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


def changed_weights(before, after) -> set[str]:
    old, new = load_detector(before / "model").network.state_dict(), load_detector(after / "model").network.state_dict()
    return {name for name, value in new.items() if name not in old or not torch.equal(value, old[name])}


def test_stages_train_their_own_part_only(streets, detector_run, codec_run, tmp_path):
    changed = changed_weights(detector_run, codec_run)
    assert changed
    assert {name for name in changed if not name.startswith("codiff.")} == set()
    assert load_detector(codec_run / "model").spec.fusion == "codiff"
    before = codec_run
    for stage in ("diffusion", "finetune", "joint"):
        after = tmp_path / stage
        train(config_of(streets, after, stage=stage, start=str(before)))
        changed = changed_weights(before, after)
        assert all(any(name.startswith(part) for name in changed) for part in TRAINED[stage]), changed
        assert {name for name in changed if not name.startswith(TRAINED[stage])} == set()
        losses = read_jsonl(after / "metrics.jsonl")[-1]
        assert ("boxes" in losses) == (stage in ("finetune", "joint"))
        before = after


def test_simulated_streets_are_driven_into_the_run_folder(tmp_path):
    settings = replace(STREETS, frames=1)
    config = config_of("simulated:1", tmp_path / "run", steps=1, streets=settings, held_out=1, max_delay=0.0)
    train(config)
    names = sorted(path.name for path in (tmp_path / "run/streets").glob("*/street_*"))
    assert names == ["street_000000", "street_1000000000"]
    last = read_jsonl(tmp_path / "run/metrics.jsonl")[-1]
    assert {"held_out_loss", "held_out_ap"} <= last.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "codec"}, "starts from a detector with attention"),
        ({"stage": "diffusion", "start": "DETECTOR"}, "cannot start from a detector with fusion attention"),
        ({"start": "CODEC"}, "cannot go back"),
        ({"start": "nowhere"}, "nowhere"),
        ({"extent": (-12.8, -6.4, -3.0, 12.0, 6.4, 1.0)}, "not divisible"),
        ({"max_delay": 150.0}, "no whole number of frames"),
        ({"max_delay": 150.0, "data": "simulated:1"}, "no whole number of frames"),
        ({"start": "DETECTOR", "fusion": "max"}, "--fusion max, but the detector there has the fusion attention"),
        ({"start": "DETECTOR", "size": "micro"}, "--size micro"),
        ({"start": "DETECTOR", "extent": (-6.4, -6.4, -3.0, 6.4, 6.4, 1.0)}, "--extent"),
        ({"stage": "joint", "start": "CODEC", "size": "micro"}, "--size micro"),
        ({"stage": "joint", "start": "CODEC", "fusion": "max"}, "--fusion max"),
        ({"stage": "codec", "start": "DETECTOR", "extent": (-6.4, -6.4, -3.0, 6.4, 6.4, 1.0)}, "--extent"),
        ({"stage": "joint", "start": "CODEC", "box_weight": 0.0}, "--box-weight 0"),
        ({"stage": "joint", "start": "CODEC"}, "stage joint starts from a trained diffusion, the one there is as new"),
        ({"stage": "finetune", "start": "CODEC"}, "Train --stage diffusion from it first"),
        ({"rotation": 200.0}, "--rotation"),
        ({"scaling": 1.0}, "--scaling"),
        ({"pose_noise": -1.0}, "position"),
        ({"drop_agents": 2.0}, "drop"),
        ({"held_out": -1}, "--held-out"),
        ({"reach": 0.0}, "--reach"),
        ({"box_weight": 1.0}, "--box-weight"),
        ({"loop": {"lora": 4}}, "--lora"),
        ({"streets": STREETS}, r"--streets\.\* are of simulated streets"),
        ({"data": "simulated:1", "layout": "opv2v"}, "--layout opv2v, but the streets are simulated"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(streets, detector_run, codec_run, tmp_path, changes, words):
    known = {"DETECTOR": str(detector_run), "CODEC": str(codec_run)}
    changes = {name: known.get(value, value) if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(InputError, match=words) as caught:
        train(config_of(changes.pop("data", streets), tmp_path / "run", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_nobody_learns_from_what_she_measures_by(streets, tmp_path):
    for split in ("train", "validate"):
        shutil.copytree(streets, tmp_path / "opv2v" / split)
    assert len(open_frames(tmp_path / "opv2v")) == 8
    with pytest.raises(
        InputError, match=r"opv2v: holds several splits: train, validate; .*Name one, such as .*opv2v/train"
    ):
        train(config_of(tmp_path / "opv2v", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "opv2v/train").rename(tmp_path / "opv2v/town1")
    (tmp_path / "opv2v/validate").rename(tmp_path / "opv2v/town2")
    train(config_of(tmp_path / "opv2v", tmp_path / "run", steps=1))  # no splits by their names


@pytest.mark.parametrize(
    ("splits", "refused"),
    [
        (("test_culver_city", "train"), True),
        (("train", "val"), True),
        (("Test", "Training"), True),
        (("munich", "valencia"), False),  # places, not splits
        (("testtrack", "town"), False),
        (("test",), False),
    ],
)
def test_splits_by_their_names(splits, refused):
    frames = SimpleNamespace(splits=splits)
    if refused:
        with pytest.raises(InputError, match="holds several splits"):
            check_split(frames, "data")
    else:
        check_split(frames, "data")


@pytest.mark.parametrize("data", ["simulated:", "simulated:0", "simulated:x", "simulated:-3"])
def test_a_number_of_scenarios_is_asked_for(data):
    with pytest.raises(InputError, match="number of scenarios"):
        simulated_count(data)
    assert simulated_count("simulated:12") == 12
    assert simulated_count("folder") is None
