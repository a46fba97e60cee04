"""The detector: CoAlign's backbone, every fusion from points to maps, and what a frame's result may depend on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.evaluation.config import config_from_plain, plain
from priorscope_detection.data.frame import Agent, Frame, Truth
from priorscope_detection.network.batch import AgentSweep, make_batch, sweeps_of
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.resnet_bev import ResNetBEVBackbone, ShrinkConv
from priorscope_detection.network.spec import FUSIONS, SIZES, CoDiffSpec, DetectorSpec

TINY = SIZES["tiny"]


def pose(x, y, degrees):
    angle = math.radians(degrees)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix[0, 3], matrix[1, 3] = x, y
    return matrix


def sweep(seed, to_ego=None, count=400, **told):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(count, 3, generator=generator) * torch.tensor([5.0, 2.5, 0.7])
    points = torch.cat([xyz, torch.rand(count, 1, generator=generator)], 1)
    return AgentSweep(points, pose(0, 0, 0) if to_ego is None else to_ego, **told)


def frames():
    return [
        [sweep(0), sweep(1, pose(3, 1, 30)), sweep(2, pose(-4, 0.5, -90), kind=1, delay=0.2)],
        [sweep(3), sweep(4, pose(1, -1, 5))],
    ]


def detector(fusion, seed=0, **changes):
    torch.manual_seed(seed)
    model = CollaborativeDetector(replace(TINY, fusion=fusion, **changes))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and not weight.any():  # layers that begin at zero would hide what they are given
            nn.init.normal_(weight, std=0.1, generator=generator)
        assert torch.isfinite(weight).all(), name
    return model.eval()


def test_golden_coalign(golden_files, read_json):
    for path in golden_files("robotics_detection", "coalign_resnet_backbone.safetensors"):
        case, notes = load_file(path), read_json(path.with_suffix(".json"))
        config, tolerance = notes["config"], notes["tol"]
        backbone = ResNetBEVBackbone(
            config["inplanes"],
            config["layer_nums"],
            config["layer_strides"],
            config["num_filters"],
            config["upsample_strides"],
            config["num_upsample_filter"],
        )
        shrink = ShrinkConv(sum(config["num_upsample_filter"]), case["shrunk"].shape[1])
        for start, module in (("w.backbone.", backbone), ("w.shrink.", shrink)):
            module.load_state_dict({k.removeprefix(start): v for k, v in case.items() if k.startswith(start)})
            module.eval()
        scales = backbone.scales(case["x"])
        for number, scale in enumerate(scales):
            torch.testing.assert_close(scale, case[f"scale{number}"], **tolerance)
        decoded = backbone.decode(scales)
        torch.testing.assert_close(decoded, case["decoded"], **tolerance)
        torch.testing.assert_close(backbone(case["x"]), case["decoded"], **tolerance)
        torch.testing.assert_close(shrink(decoded), case["shrunk"], **tolerance)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_from_points_to_maps(fusion):
    model = detector(fusion)
    batch = make_batch(frames(), model.spec)
    with torch.no_grad():
        maps = model(batch)
    count = {"late": 5}.get(fusion, 2)
    width, height = model.spec.head_size
    assert maps.classes.shape == (count, 2, height, width)
    assert maps.codes.shape == (count, 14, height, width)
    assert maps.direction.shape == (count, 4, height, width)
    assert all(bool(torch.isfinite(part).all()) for part in maps)
    if fusion == "late":
        return
    # a frame's result does not depend on the others in the batch
    with torch.no_grad():
        alone = model(make_batch(frames()[1:], model.spec))
    torch.testing.assert_close(alone.classes, maps.classes[1:], rtol=1e-4, atol=1e-5)
    # nor on the order of the other agents
    first = frames()[0]
    with torch.no_grad():
        turned = model(make_batch([[first[0], first[2], first[1]]], model.spec))
    torch.testing.assert_close(turned.classes, maps.classes[:1], rtol=1e-4, atol=1e-5)
    # an agent that is far away changes nothing
    with torch.no_grad():
        more = model(make_batch([[*frames()[1], sweep(9, pose(500, 0, 0))]], replace(model.spec)))
    torch.testing.assert_close(more.classes, maps.classes[1:], rtol=1e-4, atol=1e-5)
    # the others' points do matter, but where the ego is alone
    with torch.no_grad():
        ego = model(make_batch([first[:1]], model.spec))
    assert torch.allclose(ego.classes, maps.classes[:1], rtol=1e-4, atol=1e-5) == (fusion == "none")


def test_no_points_at_all():
    for fusion in FUSIONS:
        model = detector(fusion)
        empty = AgentSweep(torch.zeros(0, 4), pose(0, 0, 0))
        for mode in (False, True):
            maps = model.train(mode)(make_batch([[empty, empty]], model.spec))
            assert bool(torch.isfinite(maps.classes).all())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_says_nearly_the_same(fusion):
    model = detector(fusion)
    batch = make_batch(frames(), model.spec)
    with torch.no_grad():
        whole = model(batch).classes
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch).classes.float()
    assert (half - whole).abs().max() < 0.05 * whole.std() + 0.02
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(batch)
        sum(part.float().square().mean() for part in maps).backward()
    assert all(bool(torch.isfinite(w.grad).all()) for w in model.parameters() if w.grad is not None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fusion", FUSIONS)
def test_gpu_says_what_the_cpu_says(fusion):
    model = detector(fusion)
    sweeps = frames()
    on_gpu = [
        [replace(agent, points=agent.points.cuda(), to_ego=agent.to_ego.cuda()) for agent in frame] for frame in sweeps
    ]
    with torch.no_grad():
        expected = model(make_batch(sweeps, model.spec))
        found = model.cuda()(make_batch(on_gpu, model.spec).to("cuda"))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_full_size_training_step_on_a_gpu():
    model = CollaborativeDetector(replace(SIZES["opv2v"], fusion="codiff")).cuda().train()
    batch = make_batch([[sweep(s, pose(s, 0, 0), count=60_000) for s in range(3)]], model.spec).to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        found = model.codiff_training(batch, batch, Noise.shared(0))
        loss = found.loss + sum(part.float().square().mean() for part in found.maps)
    loss.backward()
    assert bool(torch.isfinite(loss))
    print(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most")


def test_published_attention_differs_only_where_maps_end():
    ours, published = detector("attention"), detector("attention", attend="published")
    published.load_state_dict(ours.state_dict())
    frame = [[sweep(0), sweep(1, pose(6, 0, 0))]]
    batch = make_batch(frame, ours.spec)
    with torch.no_grad():
        scales = ours.scales(batch)
        first, present = ours._sets(scales[0], batch)
        second, everyone = published._sets(scales[0], batch)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)  # the range is symmetric
    assert bool(everyone.all())
    # 6 m of 25.6 m: of 16 columns of 1.6 m four have their centres behind the other's map
    assert (~present[0, 1]).any(0).sum() == 4
    assert bool(present[0, 0].all())


def test_gradients_reach_every_weight():
    for fusion in ("attention", "v2x"):
        model = detector(fusion).train()
        maps = model(make_batch(frames(), model.spec))
        sum(part.square().sum() for part in maps).backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_stages_train_what_they_say():
    model = detector("codiff").train()
    batch = make_batch(frames(), model.spec)
    for stage, moved in {
        "codec": ("codiff.codec.",),
        "diffusion": ("codiff.network.",),
        "finetune": ("codiff.network.", "codiff.codec.decoder.", "cls_head", "reg_head", "dir_head"),
        "joint": ("",),
    }.items():
        model.set_stage(stage)
        model.zero_grad()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        if stage == "codec":
            loss = model.codec_loss(batch)
        else:
            own_runs = stage in ("finetune", "joint")
            found = model.codiff_training(batch, batch, Noise.shared(0), own_runs=own_runs)
            loss = found.loss + sum(part.square().mean() for part in found.maps)
        loss.backward()
        got = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
        assert got
        wanted = {name for name, _ in model.named_parameters() if name.startswith(moved)}
        # weights whose gradient happens to be zero: layers behind a zero, the biases before a batch norm
        assert got <= wanted
        assert len(wanted - got) <= 0.1 * len(wanted), wanted - got
        after = model.state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}  # running statistics
        parts = {"codec": {"codiff"}, "joint": {"pillar_vfe", "backbone", "codiff"}}.get(stage, set())
        assert {key.split(".")[0] for key in changed} == parts
        assert all(key.startswith("codiff.codec.") for key in changed if key.startswith("codiff."))
    with pytest.raises(InputError, match="stage 'codec' of a detector with fusion 'max'"):
        detector("max").set_stage("codec")


def test_everything_is_trained_in_mixed_precision(monkeypatch):
    """What the target was made with, without gradient, is trained by what comes after it."""
    cleared = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append(True) or clear())
    model = detector("codiff").train()
    model.set_stage("joint")
    batch = make_batch(frames(), model.spec)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.codiff_training(batch, batch, Noise.shared(0))
        loss = found.loss.float() + sum(part.float().square().mean() for part in found.maps)
    assert cleared
    loss.backward()
    for name in ("shrink_conv", "codiff.codec.encoder", "codiff.codec.decoder"):
        weights = dict(model.get_submodule(name).named_parameters())
        assert any(weight.grad is not None and bool(weight.grad.any()) for weight in weights.values()), name


def test_settings_survive_a_file():
    for spec in SIZES.values():
        assert config_from_plain(DetectorSpec, json.loads(json.dumps(plain(spec)))) == spec.check()
    for changes, message in (
        ({"layers": (1, 1)}, "one number a stage"),
        ({"up_strides": (1, 2, 2)}, "do not give maps of one size"),
        ({"fusion": "mean"}, "fusion 'mean'"),
        ({"codiff": CoDiffSpec(width=9, heads=2)}, "the heads divide"),
        ({"codiff": CoDiffSpec(start_level=0.0)}, "a run from"),
    ):
        with pytest.raises(InputError, match=message):
            replace(TINY, **changes).check()
    with pytest.raises(InputError, match="not divisible by the network's stride of 8"):
        CollaborativeDetector(replace(TINY, extent=(-12.8, -6.4, -3.0, 13.6, 6.4, 1.0)))


def test_sizes_that_can_be_trained_on_a_cpu():
    for name, most in (("tiny", 60_000), ("mini", 500_000), ("small", 900_000)):
        for fusion in ("attention", "codiff"):
            model = CollaborativeDetector(replace(SIZES[name], fusion=fusion))
            count = sum(weight.numel() for weight in model.parameters())
            print(name, fusion, count)
            assert count < most


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_an_agent_sends(fusion):
    model = detector(fusion)
    batch = make_batch(frames(), model.spec)
    with torch.no_grad():
        scales = model.scales(batch)
        sent = {"v2x": [model.own(scales)], "max": scales, "attention": scales}.get(fusion, [])
        if fusion == "codiff":
            sent = [*scales, model.codiff.codec.encode(model.own(scales))]
    assert model.spec.message_shapes == tuple(tuple(part.shape[1:]) for part in sent)


def test_frames_of_a_data_set_become_messages():
    points = [np.full((number, 4), number, np.float32) for number in (3, 2)]
    poses = [pose(10, 5, 90).numpy(), pose(10, 8, 90).numpy()]
    noisy = [poses[0], pose(10, 9, 90).numpy()]
    agents = (
        Agent("1", points[0], noisy[0], poses[0]),
        Agent("-1", points[1], noisy[1], poses[1], "infrastructure", delay=200.0),
    )
    frame = Frame("a/1", agents, Truth.of({}))
    for clean, ahead in ((True, 3.0), (False, 4.0)):
        ego, other = sweeps_of(frame, clean=clean)
        assert (ego.kind, ego.delay, other.kind, other.delay) == (0, 0.0, 1, 0.2)
        torch.testing.assert_close(ego.to_ego, pose(0, 0, 0))
        torch.testing.assert_close(other.to_ego, pose(ahead, 0, 0))
        assert torch.equal(other.points, torch.from_numpy(points[1]))


def test_batches_that_make_no_sense():
    with pytest.raises(InputError, match="at least its ego"):
        make_batch([[]], TINY)
    batch = make_batch(frames(), TINY)
    with pytest.raises(InputError, match="frames of"):
        detector("max")(replace(batch, agents=(4,)))
    with pytest.raises(InputError, match="Make the batch with the detector's settings"):
        detector("max")(make_batch(frames(), replace(TINY, cell=(1.6, 1.6, 4.0), strides=(1, 2, 2))))
    nowhere = [[sweep(0), sweep(1, torch.full((4, 4), math.nan, dtype=torch.float64))]]
    for fusion in ("attention", "codiff", "max", "v2x"):
        with pytest.raises(InputError, match="not finite"):
            detector(fusion)(make_batch(nowhere, TINY))
