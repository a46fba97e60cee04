"""DiffPose's networks: what must hold whatever their weights are."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from priorscope.errors import InputError
from priorscope_pose.diffpose.decoder import Interact, PoseDecoder, lookup_mask
from priorscope_pose.diffpose.heatmap_diffusion import sample_heatmaps
from priorscope_pose.diffpose.layers import StepEmbedding, TransformerLayer
from priorscope_pose.diffpose.model import DiffPoseModel, load_diffpose
from priorscope_pose.diffpose.spec import PRESETS, DiffPoseSpec

SPEC = DiffPoseSpec(
    skeleton="crowdpose",
    distance=1,
    input_size=(32, 48),
    backbone="conv",
    backbone_settings={"widths": [4, 8, 8, 16]},
    width=16,
    layers=2,
    heads=2,
    decoder_width=16,
    decoder_heads=2,
)


@pytest.fixture(scope="module")
def model():
    return DiffPoseModel.new(SPEC, seed=1).eval().requires_grad_(False)


def crops(batch, frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, frames, 3, 48, 32), generator=generator, dtype=torch.uint8)


def test_a_layer_by_hand():
    torch.manual_seed(0)
    layer = TransformerLayer(4, 1).double()
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    normed = layer.norm1(x)[0]
    query, key, value = (normed @ layer.qkv.weight.T + layer.qkv.bias).split(4, -1)
    seen = (query @ key.T / 2).softmax(-1) @ value
    middle = x + layer.out(seen)
    torch.testing.assert_close(layer(x), middle + layer.ffn(layer.norm2(middle)))


def test_a_step_s_sinusoids():
    embedding = StepEmbedding(8, 8)
    seen = []
    embedding.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    embedding(torch.tensor([0, 3]))
    rates = torch.tensor([10_000.0 ** (-place / 4) for place in range(4)])
    torch.testing.assert_close(seen[0][0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(seen[0][1], torch.cat([(3 * rates).sin(), (3 * rates).cos()]))


def test_equal_frames_are_one_frame():
    """Where all frames are told the same place, attention over T copies is attention over one."""
    clip = DiffPoseModel.new(replace(SPEC, distance=2), seed=3).eval()
    single = DiffPoseModel.new(SPEC.single_frame(), seed=4).eval()
    with torch.no_grad():
        clip.learner.position.copy_(clip.learner.position[:1].expand(5, -1, -1))
        state = clip.learner.state_dict()
        state["position"] = state["position"][:1]
        # the MLP that joins the frames then sees the sum of its T parts
        state["join.0.weight"] = state["join.0.weight"].unflatten(1, (5, -1)).sum(1)
        single.learner.load_state_dict(state)
        frames = crops(2, 1) / 255
        found = clip.learner(frames.expand(-1, 5, -1, -1, -1))
        torch.testing.assert_close(found, single.learner(frames), atol=2e-5, rtol=1e-4)


def test_neighbours_count_and_their_order_too(model):
    frames = crops(1, 3)
    given = model.pyramid(frames)["f1"]
    other = frames.clone()
    other[:, 0] = 255 - other[:, 0]
    assert float((model.pyramid(other)["f1"] - given).abs().max()) > 1e-3
    assert float((model.pyramid(frames.flip(1))["f1"] - given).abs().max()) > 1e-3


def test_the_mask_is_the_sigmoid_of_the_largest_channel():
    noisy = torch.tensor([[[[0.0, 1.0]], [[-2.0, 3.0]]]])
    torch.testing.assert_close(lookup_mask(noisy)[0, 0, 0], torch.tensor([0.0, 3.0]).sigmoid())


def test_an_open_mask_reads_everything_twice_and_a_shut_one_once():
    torch.manual_seed(0)
    meet = Interact(4, 3)
    features = torch.randn(1, 4, 5, 6)
    whole = meet.whole(features)
    opened = meet(torch.full_like(features, 50.0), features, whole)
    torch.testing.assert_close(opened, meet.local(features) + whole)
    torch.testing.assert_close(meet(torch.full_like(features, -200.0), features, whole), whole)


def test_the_interaction_is_a_convolution_of_both_side_by_side():
    torch.manual_seed(0)
    meet = Interact(4, 3)
    noisy, features = torch.randn(2, 2, 4, 5, 6)
    joined = torch.nn.Conv2d(8, 4, 3, padding=1)
    joined.load_state_dict({"weight": torch.cat([meet.local.weight, meet.whole.weight], 1), "bias": meet.whole.bias})
    wanted = joined(torch.cat([lookup_mask(noisy) * features, features], 1))
    torch.testing.assert_close(meet(noisy, features, meet.whole(features)), wanted, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_a_lookup():
    torch.manual_seed(0)
    meet = Interact(3, 3).double()
    noisy = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a, b: meet(a, b, meet.whole(b)), (noisy, features))
    # only the largest channel steers, by the sigmoid's slope
    total = (lookup_mask(noisy) * features).sum()
    (found,) = torch.autograd.grad(total, noisy)
    top = noisy.argmax(1, keepdim=True)
    mask = noisy.amax(1, keepdim=True).sigmoid()
    wanted = torch.zeros_like(noisy).scatter(1, top, mask * (1 - mask) * features.sum(1, keepdim=True))
    torch.testing.assert_close(found, wanted)


def test_both_noise_and_clip_are_learnt_from():
    """A loss reaches every weight: of the backbone, the learner and the decoder."""
    model = DiffPoseModel.new(SPEC, seed=2)
    noisy = torch.randn(2, 14, 12, 8, generator=torch.Generator().manual_seed(0))
    model(crops(2, 3), noisy, torch.tensor([10, 900])).square().sum().backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum()]
    assert not still


@pytest.mark.parametrize("interaction", ["lookup", "concat"])
def test_the_step_and_the_noise_matter(interaction):
    torch.manual_seed(0)
    decoder = PoseDecoder(14, 16, width=16, heads=2, grid=(3, 2), interaction=interaction).requires_grad_(False)
    pyramid = decoder.pyramid(torch.randn(1, 16, 3, 2))
    noisy = torch.randn(2, 1, 14, 12, 8)
    found = decoder(noisy[0], torch.tensor([5]), **pyramid)
    assert found.shape == (1, 14, 12, 8)
    assert float((decoder(noisy[1], torch.tensor([5]), **pyramid) - found).abs().max()) > 1e-4
    assert float((decoder(noisy[0], torch.tensor([800]), **pyramid) - found).abs().max()) > 1e-4


def test_a_clip_s_answer_does_not_depend_on_the_batch(model):
    frames = crops(4, 3)
    whole = sample_heatmaps(model.diffusion, model.pyramid(frames), [1, 2, 3, 4], steps=2, ensemble=2)
    alone = sample_heatmaps(model.diffusion, model.pyramid(frames[2:3]), [3], steps=2, ensemble=2)
    torch.testing.assert_close(alone[0], whole[2], atol=1e-5, rtol=0)


def test_the_backbone_is_asked_once_and_the_decoder_once_a_step_and_draw(model):
    counts = {"learner": 0, "decoder": 0}

    def count(name):
        return lambda _, given: counts.__setitem__(name, counts[name] + len(given[0]))

    hooks = [getattr(model, name).register_forward_pre_hook(count(name)) for name in counts]
    sample_heatmaps(model.diffusion, model.pyramid(crops(2, 3)), [0, 1], steps=3, ensemble=5)
    for hook in hooks:
        hook.remove()
    assert counts == {"learner": 2, "decoder": 2 * 3 * 5}


def test_a_folder_gives_back_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = load_diffpose(tmp_path / "model", device="cpu")
    assert again.spec == SPEC
    assert not again.training
    state = again.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    noisy, t = torch.randn(1, 14, 12, 8), torch.tensor([400])
    torch.testing.assert_close(again(crops(1, 3), noisy, t), model(crops(1, 3), noisy, t))
    copied = copy.deepcopy(again)
    assert copied.diffusion.decoder is copied.decoder


def test_an_incomplete_folder_is_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["learner.position"]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing keys \(learner.position\)"):
        load_diffpose(tmp_path)
    with pytest.raises(InputError, match="no such model folder"):
        load_diffpose(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": (100, 128)}, "multiples of 16"),
        ({"backbone": "resnet"}, "backbone 'resnet'"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"distance": -1}, "distance -1"),
        ({"heads": 3}, "heads"),
        ({"skeleton": "dog"}, "no skeleton 'dog'"),
        ({"backbone_settings": {"width": 3}}, "backbone_settings of conv"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(InputError, match=message):
        DiffPoseModel.new(replace(SPEC, **change))


def test_crops_that_do_not_fit(model):
    with pytest.raises(InputError, match="a model of 3 frames of 32 x 48"):
        model.pyramid(crops(1, 5))
    with pytest.raises(InputError, match="uint8"):
        model.pyramid(crops(1, 3).float())


def test_the_small_configuration_is_small():
    model = DiffPoseModel.new(PRESETS["mini"])
    assert 1.3e6 < sum(weight.numel() for weight in model.parameters()) < 1.7e6
    assert model.spec.heatmap_size == (24, 32)
    assert model.spec.frames == 5


@pytest.mark.parametrize("kind", ["vitpose", "vit"])
def test_pretrained_backbones_of_transformers(kind, tmp_path):
    from transformers import (
        ViTConfig,
        ViTForImageClassification,
        VitPoseBackboneConfig,
        VitPoseConfig,
        VitPoseForPoseEstimation,
    )

    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "vitpose":
        inner = VitPoseBackboneConfig(**settings, image_size=[48, 32], out_indices=[2])
        published = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=inner, num_labels=17))
        backbone, shape = published.backbone, "feature_maps"
    else:
        settings |= {"intermediate_size": 32}
        # a square checkpoint of the same number of cells, 9 of them, does not exist for 3 x 2: it is interpolated
        published = ViTForImageClassification(ViTConfig(**settings, image_size=48))
        backbone, shape = published.vit, "last_hidden_state"
    published.eval().save_pretrained(tmp_path)
    spec = replace(SPEC, backbone=kind, backbone_settings=settings)
    model = DiffPoseModel.new(spec, backbone=tmp_path).eval().requires_grad_(False)
    frames = torch.rand(2, 3, 48, 32)
    found = model.learner.encoder(frames)
    assert found.shape == (2, 16, 3, 2)
    if kind == "vitpose":
        wanted = getattr(backbone(frames), shape)[-1]
    else:
        wanted = getattr(backbone(frames, interpolate_pos_encoding=True), shape)[:, 1:]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), wanted.detach(), atol=1e-4, rtol=1e-3)
    # the folder of the whole model holds the backbone
    model.save_pretrained(tmp_path / "whole")
    again = load_diffpose(tmp_path / "whole", device="cpu")
    torch.testing.assert_close(again.learner.encoder(frames), found)
    with pytest.raises(InputError, match="do not fit"):
        DiffPoseModel.new(replace(spec, backbone_settings=settings | {"hidden_size": 32}), backbone=tmp_path)
