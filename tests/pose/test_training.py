"""Whole trainings on a few drawn people: they learn, they resume, their models load."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from priorscope.backbones.stable_diffusion import with_task_switcher
from priorscope.errors import InputError
from priorscope.training.settings import LoopConfig
from priorscope_pose.configs import TrainConfig
from priorscope_pose.conv.network import SIZES, ConvPoseNetwork
from priorscope_pose.people import write_coco
from priorscope_pose.sdpose.checkpoint import load_network
from priorscope_pose.sdpose.losses import heatmap_loss
from priorscope_pose.sdpose.small import new_model
from priorscope_pose.skeletons import skeleton
from priorscope_pose.train import _video, train
from priorscope_pose.training.start import start_conv, start_sdpose
from priorscope_pose.training.task import PoseTask

LOOP = LoopConfig(
    steps=4, batch_size=4, lr=2e-3, warmup=1, ema=0.0, log_every=1, validate_every=2, checkpoint_every=2, device="cpu"
)
SMALL = (32, 48)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return write_coco(folder, range(10), height=72, width=56, progress=False)


def config_of(people, out, **changes):
    loop = replace(LOOP, **changes.pop("loop", {}))
    given = {"size": "tiny", "input_size": SMALL, "held_out": 8, **changes}
    return TrainConfig(data=str(people), out=out, loop=loop, **given)


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "examples_per_second"} for row in rows]


def test_the_loss_is_both_parts_by_hand():
    network = new_model("tiny", input_size=SMALL)
    task = PoseTask(network, reconstruction=0.5)
    image = torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8)
    target = torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8)
    heatmaps, weights = torch.rand(2, 17, 24, 16), torch.ones(2, 17)
    found = task({"image": image, "target": target, "heatmaps": heatmaps, "weights": weights})
    latents = network.encode(image.float() / 127.5 - 1)
    expected = heatmap_loss(network(latents), heatmaps, weights)
    error = (network.reconstruct(latents) - network.encode(target.float() / 127.5 - 1)).square().mean()
    torch.testing.assert_close(found["heatmaps"], expected)
    torch.testing.assert_close(found["reconstruction"], error)
    torch.testing.assert_close(found["loss"], expected + 0.5 * error)


@pytest.mark.parametrize(
    ("freeze", "weight", "tap"),
    [("none", 0.0, None), ("none", 0.1, None), ("encoder", 0.0, "up_blocks.1"), ("unet", 0, None)],
)
def test_whatever_is_trained_gets_a_gradient(freeze, weight, tap):
    network = new_model("tiny", input_size=SMALL, tap=tap)
    task = PoseTask(network, reconstruction=weight, freeze=freeze)
    sides = network.settings.heatmap_size[::-1]
    batch = {
        "image": torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8),
        "target": torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8),
        "heatmaps": torch.rand(2, 17, *sides),
        "weights": torch.ones(2, 17),
    }
    task(batch)["loss"].backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert any(name.startswith("unet.down_blocks") for name in frozen) == (freeze != "none")
    assert any(name.startswith("unet.up_blocks.0") for name in frozen) == (freeze == "unet")
    assert any(name.startswith("unet.conv_out") for name in frozen) == (not weight)
    assert not any(name.startswith("head") for name in frozen)


def test_a_resumed_run_is_the_unbroken_one(people, tmp_path):
    whole = config_of(people, tmp_path / "whole")
    train(whole)
    part = config_of(people, tmp_path / "part", loop={"max_seconds": 1e-6})
    assert train(part).step == 1  # a checkpoint between two rows of checkpoint_every
    assert train(replace(part, loop=replace(part.loop, resume=True, max_seconds=0.0))).finished
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "part")
    one, two = (load_network(tmp_path / name / "model") for name in ("whole", "part"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    for name in ("report.html", "figures/step-0000004.png", "config.yaml"):
        assert (tmp_path / "whole" / name).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sdpose", "conv"])
def test_some_steps_lower_the_loss_on_drawn_people(people, tmp_path, method):
    plain = config_of(
        people,
        tmp_path / "run",
        method=method,
        augment=False,
        held_out=0,
        sigma=1.5,
        loop={"steps": 24, "log_every": 4, "batch_size": 8, "lr": 4e-3, "lr_schedule": "constant"},
    )
    train(plain)
    losses = [row["heatmaps" if method == "sdpose" else "loss"] for row in rows_of(tmp_path / "run")]
    assert losses[-1] < 0.85 * losses[0]
    loaded = ConvPoseNetwork.load(tmp_path / "run/model") if method == "conv" else load_network(tmp_path / "run/model")
    assert loaded.settings.input_size == SMALL


def test_a_prior_is_a_start(people, tmp_path):
    loop = {"steps": 8, "log_every": 4, "validate_every": 8}
    result = train(config_of(people, tmp_path / "prior", method="prior", loop=loop))
    losses = [row["held_out_loss"] for row in rows_of(tmp_path / "prior") if "held_out_loss" in row]
    assert losses[-1] < losses[0]
    begun = start_sdpose(str(result.model), "coco", input_size=SMALL, label=20.0)
    assert begun.settings.label == 20
    trained = load_prior(result.model)
    for name, value in begun.unet.state_dict().items():
        assert torch.equal(value, trained[name]), name
    train(config_of(people, tmp_path / "pose", start=str(result.model), loop={"steps": 1, "validate_every": 9}))
    assert load_network(tmp_path / "pose/model").settings.skeleton == "coco"


def load_prior(folder):
    from safetensors.torch import load_file

    return load_file(folder / "unet/diffusion_pytorch_model.safetensors")


def test_a_prior_of_a_folder_of_pictures(people, tmp_path):
    pictures = people.parent.parent / "train2017"
    train(config_of(pictures, tmp_path / "prior", method="prior", loop={"steps": 1}))
    assert (tmp_path / "prior/model/unet/config.json").is_file()


def test_a_model_of_another_skeleton_gets_a_new_head():
    network = start_sdpose("new", "coco", size="tiny", input_size=SMALL)
    assert start_conv("new", "jhmdb", size="tiny", input_size=SMALL).head.keypoints == 15
    from priorscope_pose.training.start import _adapted

    other = _adapted(network, "crowdpose", (48, 64), 0)
    assert other.head.keypoints == 14
    assert other.unet is network.unet
    assert other.settings.heatmap_size == (24, 32)
    assert other.settings.sigma == pytest.approx(network.settings.sigma * 1.5)
    assert _adapted(network, "coco", None, 0) is network
    # Human-Art's keypoints are COCO's: what the head has learnt stays
    assert _adapted(network, "humanart", None, 0) is network
    assert _adapted(network, "humanart", (48, 64), 0).head is network.head


def test_a_conv_network_goes_on_with_human_art(tmp_path):
    folder = ConvPoseNetwork.new("tiny", input_size=SMALL).save(tmp_path / "model")
    assert start_conv(str(folder), "humanart").settings.input_size == SMALL
    with pytest.raises(InputError, match="was trained on coco"):
        start_conv(str(folder), "crowdpose")


def test_a_task_switcher_is_added_to_a_plain_unet():
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = dict(new_model("tiny", input_size=SMALL).unet.config)
    config |= {"class_embed_type": None, "projection_class_embeddings_input_dim": None}
    plain = UNet2DConditionModel.from_config(config)
    wider = with_task_switcher(plain, 0)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, wider.state_dict()[name])
    assert wider.class_embedding.linear_1.weight.shape[1] == 4


@pytest.mark.parametrize("size", ["tiny", "mini", "small"])
def test_the_conv_network_has_about_as_many_weights(size):
    sdpose = new_model(size)
    # what a pose needs: the embeddings of level, task and prompt know one value only
    used = sum(
        value.numel() for name, value in sdpose.named_parameters() if "embed" not in name and "attn2" not in name
    )
    conv = sum(value.numel() for value in ConvPoseNetwork(replaced(size), SIZES[size]).parameters())
    assert 0.75 < conv / used < 1.35


def replaced(size):
    return ConvPoseNetwork.new(size).settings


def test_conv_networks_come_back(tmp_path):
    network = ConvPoseNetwork.new("tiny", input_size=SMALL, seed=3)
    network.save(tmp_path / "model")
    again = ConvPoseNetwork.load(tmp_path / "model")
    images = torch.rand(2, 3, 48, 32) * 2 - 1
    torch.testing.assert_close(again.heatmaps(images), network.heatmaps(images))
    flipped = again.heatmaps(images, flip_indices=tuple(range(17)))
    mirrored = again.heatmaps(images.flip(-1), flip_indices=tuple(range(17)))
    torch.testing.assert_close(flipped, mirrored.flip(-1), rtol=1e-4, atol=1e-6)
    (tmp_path / "model/priorscope.json").write_text('{"family": "sdpose"}')
    with pytest.raises(InputError, match="conv network"):
        ConvPoseNetwork.load(tmp_path / "model")


@pytest.mark.slow
def test_diffpose_trains_on_drawn_clips(tmp_path):
    config = TrainConfig(
        data="people:3",
        method="diffpose",
        single_frame=True,
        input_size=SMALL,
        out=tmp_path / "run",
        held_out=1,
        loop=replace(LOOP, steps=1),
    )
    result = train(config)
    assert result.finished
    assert (result.model / "config.json").is_file()
    assert np.isfinite(rows_of(tmp_path / "run")[-1]["held_out_pixels"])
    # then a video model that begins with it
    told = {"start": str(result.model), "single_frame": False, "distance": 1}
    with pytest.raises(InputError, match="the model there has 32 48"):
        train(replace(config, out=tmp_path / "other", input_size=(48, 64), **told))
    video = train(replace(config, out=tmp_path / "video", input_size=None, **told))
    assert json.loads((video.model / "config.json").read_text())["spec"]["distance"] == 1


def test_options_of_diffpose_reach_model_and_feed(tmp_path, monkeypatch):
    monkeypatch.setattr("priorscope_pose.diffpose.clips.videos_of", lambda annotations: [])
    monkeypatch.setattr("priorscope_pose.diffpose.clips.VideoClips", lambda videos, distance: None)
    sets = SimpleNamespace(skeleton=skeleton("posetrack")), None
    plain = TrainConfig("", method="diffpose", input_size=SMALL, own_runs=0.25, half_body=0.125, distance=0)

    def begun(**changes):
        return _video(replace(plain, **changes), sets, None)

    task, feed = begun()
    assert (feed.own_runs, feed.augmentation.half_body, feed.spec) == (0.25, 0.125, task.model.spec)
    assert (feed.spec.distance, feed.spec.input_size, feed.spec.skeleton) == (0, SMALL, "posetrack")
    assert begun(distance=None)[1].spec.distance == 2
    assert begun(distance=None, single_frame=True)[1].spec.distance == 0
    task.save(tmp_path)
    for distance, expected in ((None, 0), (0, 0), (1, 1)):
        video = begun(start=str(tmp_path), input_size=None, distance=distance)[0].model
        assert (video.spec.distance, video.spec.input_size) == (expected, SMALL)
        assert torch.equal(video.learner.patch.weight, task.model.learner.patch.weight)
    for changes, words in (
        ({"size": "base"}, "--size base, but the model there has another"),
        ({"size": "tiny"}, "--size tiny of a diffpose"),
        ({"input_size": (64, 64)}, "--input-size 64 64"),
    ):
        with pytest.raises(InputError, match=words):
            begun(start=str(tmp_path), **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "people:none"}, "people:COUNT"),
        ({"data": "nowhere.json"}, "people:COUNT to draw"),
        ({"freeze": "unet", "method": "conv"}, "--freeze unet"),
        ({"scale": 1.5}, "--scale"),
        ({"reconstruction": -1.0}, "--reconstruction"),
        ({"hole": 2.0}, "hole"),
        ({"method": "diffpose", "own_runs": 1.5}, "--own-runs"),
        ({"method": "diffpose", "distance": -1}, "--distance -1"),
        ({"method": "diffpose", "distance": 2, "single_frame": True}, "--single-frame with --distance 2"),
        ({"method": "diffpose", "size": "tiny"}, "--size tiny of a diffpose"),
        ({"method": "diffpose", "input_size": (64, 90)}, "multiples of 16"),
        ({"method": "diffpose", "backbone": "somewhere"}, "--backbone with --size mini"),
        ({"method": "diffpose", "backbone": "somewhere", "start": "elsewhere"}, "--backbone with --start"),
        ({"method": "diffpose", "sigma": 2.0}, "--sigma with --method diffpose"),
        ({"single_frame": True}, "--single-frame with --method sdpose"),
        ({"method": "conv", "distance": 1}, "--distance with --method conv"),
        ({"method": "prior", "own_runs": 0.5}, "--own-runs with --method prior"),
        ({"method": "conv", "label": 50.0}, "--label with --method conv"),
        ({"method": "conv", "reconstruction": 0.01}, "--reconstruction with --method conv"),
        ({"method": "diffpose", "reconstruction": 0.01}, "--reconstruction with --method diffpose"),
        ({"method": "diffpose", "hole": 0.5}, "--hole with --method diffpose. Leave it out; it belongs to sdpose and"),
        ({"method": "prior", "hole": 0.5}, "--hole with --method prior"),
        ({"method": "conv", "save_float32": False}, "--no-save-float32 with --method conv"),
        ({"freeze": "unet", "reconstruction": 0.01}, "--reconstruction 0.01 with --freeze unet"),
        ({"augment": False, "rotation": 20.0}, "--rotation with --no-augment"),
        ({"augment": False, "hole": 0.5}, "--hole with --no-augment"),
        ({"method": "prior", "start": "somewhere"}, "starts from another"),
        ({"loop": replace(LOOP, lora=4)}, "--lora 4 for a network that begins with random weights"),
        ({"loop": replace(LOOP, gradient_checkpointing=True)}, "--gradient-checkpointing for a network that has none"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        train(TrainConfig(**{"data": "people:3", "out": tmp_path / "run", "loop": LOOP, **changes}))
    assert not (tmp_path / "run").exists()
