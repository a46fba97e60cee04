"""SDPose's parts against what follows from their definitions."""

from __future__ import annotations

import copy

import pytest
import torch

from priorscope.backbones.latents import PatchSpace, PixelSpace
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope_pose.sdpose.head import HEAD_KEYS, HeatmapHead
from priorscope_pose.sdpose.losses import heatmap_loss
from priorscope_pose.sdpose.network import SDPoseNetwork
from priorscope_pose.sdpose.settings import PUBLISHED, PoseSettings
from priorscope_pose.sdpose.small import SIZES, new_model, new_unet
from priorscope_pose.skeletons import COCO


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    """A small network whose head is not near zero, as a new one's is."""
    network = new_model("tiny", input_size=(32, 48), seed=3).eval().requires_grad_(False)
    for key, value in network.head.state_dict().items():
        value.add_(0.2 * draw(*value.shape, seed=len(key)))
    return network


# ---- head -------------------------------------------------------------------------------------------------------


def test_head_of_one_channel_by_hand():
    """One channel, a deconvolution that copies each pixel to four, identity, 2 y + 1: norm, SiLU, twice, by hand."""
    head = HeatmapHead(1, 1)
    kernel = torch.zeros(1, 1, 4, 4)
    kernel[0, 0, 1:3, 1:3] = 1
    head.load_state_dict(
        {
            "deconv_layers.0.weight": kernel,
            "conv_layers.0.weight": torch.ones(1, 1, 1, 1),
            "conv_layers.0.bias": torch.tensor([5.0]),  # the norm takes it off again
            "final_layer.weight": torch.full((1, 1, 1, 1), 2.0),
            "final_layer.bias": torch.ones(1),
        }
    )
    x = draw(1, 1, 3, 2)

    def norm_silu(value):
        value = (value - value.mean()) / (value.var(correction=0) + 1e-5).sqrt()
        return value * torch.sigmoid(value)

    large = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(head(x), 2 * norm_silu(norm_silu(large)) + 1)


def test_head_does_not_see_scale_nor_other_rows():
    head = HeatmapHead(8, 3)
    x = draw(2, 8, 6, 4) * 1000  # beside which the norms' eps is nothing
    both = head(x)
    assert both.shape == (2, 3, 12, 8)
    torch.testing.assert_close(head(3 * x), both, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head(x[1:]), both[1:])


def test_new_head_is_normal_and_small():
    head = HeatmapHead(64, 17)
    for name, value in head.state_dict().items():
        if name.endswith("bias"):
            assert not value.any()
        else:
            assert value.std() == pytest.approx(0.001, rel=0.1)
    assert tuple(head.state_dict()) == HEAD_KEYS


def test_head_stays_in_float32():
    head = HeatmapHead(8, 3)
    x = draw(1, 8, 6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, head(x))
    assert head(x.bfloat16()).dtype == torch.float32


def test_head_of_wrong_weights():
    state = HeatmapHead(8, 3).state_dict()
    assert HeatmapHead.from_state({key: value.half() for key, value in state.items()}).keypoints == 3
    for change, word in (
        ({"final_layer.bias": None}, "lacks final_layer.bias"),
        (
            {"deconv_layers.1.weight": torch.ones(8)},
            "unexpected deconv_layers.1.weight",
        ),  # batch norm: mmpose's own head
        ({"conv_layers.0.weight": torch.zeros(9, 8, 1, 1)}, "conv_layers.0.weight"),
        ({"final_layer.weight": torch.zeros(3)}, "shape (3,)"),
    ):
        changed = {key: value for key, value in (state | change).items() if value is not None}
        with pytest.raises(InputError) as caught:
            HeatmapHead.from_state(changed)
        assert word in str(caught.value)
    with pytest.raises(InputError, match="head of 8 channels"):
        HeatmapHead(8, 3)(draw(1, 9, 4, 4))
    with pytest.raises(InputError, match="0 keypoints"):
        HeatmapHead(8, 0)


# ---- network ----------------------------------------------------------------------------------------------------


def test_small_models_have_the_sizes_they_state():
    for size in SIZES:
        network = new_model(size, input_size=(64, 96))
        latents = draw(2, 48, 24, 16)
        assert network(latents).shape == (2, 17, 48, 32)
        assert network.settings.heatmap_size == (32, 48)
        assert network.settings.sigma == 1
        assert network.reconstruct(latents).shape == latents.shape


def test_other_taps_spaces_and_skeletons():
    network = new_model("tiny", tap="up_blocks.1", input_size=(32, 64), skeleton="crowdpose", latents=PatchSpace(2))
    assert network.heatmaps(draw(1, 3, 64, 32)).shape == (1, 14, 64, 32)
    assert network.settings.heatmap_size == (32, 64)
    assert network.head.channels == 32
    deeper = new_model("tiny", tap="mid_block", input_size=(32, 64), latents=PixelSpace())
    assert deeper.heatmaps(draw(1, 3, 64, 32)).shape[2:] == deeper.settings.heatmap_size[::-1] == (32, 16)
    lower = new_model("tiny", tap="up_blocks.0", input_size=(32, 64), latents=PixelSpace())
    assert lower.heatmaps(draw(1, 3, 64, 32)).shape[2:] == lower.settings.heatmap_size[::-1] == (64, 32)


def test_seed_fixes_new_weights_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (new_model("tiny", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["unet.conv_in.weight"], other["unet.conv_in.weight"])


def test_pretrained_unet_is_the_one_that_is_trained():
    unet = new_unet("tiny", channels=48)
    network = new_model(unet=unet, input_size=(32, 48))
    assert network.unet is unet
    assert network.training
    network(draw(2, 48, 12, 8)).square().mean().backward()
    gradients = {name for name, value in unet.named_parameters() if value.grad is not None}
    assert "conv_in.weight" in gradients
    assert "class_embedding.linear_2.weight" in gradients
    assert not [name for name in gradients if name.startswith(("conv_out", "conv_norm_out"))]
    assert all(value.grad is not None for value in network.head.parameters())


def test_task_changes_the_answer(model):
    """The class embedding is seen, and level and prompt are those of the settings."""
    latents = draw(1, 48, 12, 8)
    told = {}
    handle = model.unet.register_forward_pre_hook(
        lambda _, args, kwargs: told.update(kwargs, label=args[1]), with_kwargs=True
    )
    features = model.features(latents)
    handle.remove()
    assert told["label"].tolist() == [999]
    torch.testing.assert_close(told["class_labels"], torch.tensor([[0.841471, 0.0, 0.540302, 1.0]]))
    changed = copy.deepcopy(model)
    changed.task.copy_(changed.reconstruction_task)
    torch.testing.assert_close(changed.reconstruction_task, torch.tensor([[0.0, 0.841471, 1.0, 0.540302]]))
    assert (changed.features(latents) - features).abs().max() > 1e-4


def test_flip_test_is_symmetric(model):
    """Heatmaps of the mirrored crop are the mirrored heatmaps, left and right swapped: whatever the weights."""
    images = draw(2, 3, 48, 32)
    flip = COCO.flip_indices
    straight = model.heatmaps(images, flip_indices=flip)
    mirrored = model.heatmaps(images.flip(-1), flip_indices=flip)
    assert straight.std() > 1e-3
    torch.testing.assert_close(mirrored.flip(-1)[:, list(flip)], straight, atol=1e-5, rtol=1e-4)
    single = (model.heatmaps(images) + model.heatmaps(images.flip(-1)).flip(-1)[:, list(flip)]) / 2
    torch.testing.assert_close(straight, single, atol=1e-5, rtol=1e-4)


def test_folded_and_compiled_networks_answer_alike(model):
    latents = draw(2, 48, 12, 8)
    expected = model(latents)
    folded = copy.deepcopy(model)
    with pytest.raises(InputError, match="only a folded model"):
        folded.compile()
    folded.fold()
    torch.testing.assert_close(folded(latents), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="one task only"):
        folded.reconstruct(latents)
    folded.compile(backend="eager", fullgraph=True)  # no graph break: nothing of the pass runs by hooks
    torch.testing.assert_close(folded(latents), expected, atol=1e-5, rtol=1e-4)


def test_tap_inside_a_block_folds_too():
    network = new_model("tiny", input_size=(32, 48), tap="mid_block").eval().requires_grad_(False)
    latents = draw(1, 48, 12, 8)
    expected = network(latents)
    network.fold()
    assert not network.truncated
    torch.testing.assert_close(network(latents), expected, atol=1e-5, rtol=1e-4)


def test_posterior_of_a_certain_space_needs_noise_and_ignores_it(model):
    images = draw(2, 3, 48, 32)
    with pytest.raises(InputError, match="noise"):
        model.heatmaps(images, posterior="sample")
    with pytest.raises(InputError, match="posterior 'mean'"):
        model.heatmaps(images, posterior="mean")
    drawn = model.heatmaps(images, posterior="sample", noise=Noise.per_item([1, 2]), flip_indices=COCO.flip_indices)
    torch.testing.assert_close(drawn, model.heatmaps(images, flip_indices=COCO.flip_indices))


def test_parts_that_do_not_fit(model):
    settings = model.settings
    parts = {"unet": model.unet, "head": model.head, "latents": model.latents, "prompt": model.prompt}

    def refused(words, **changes):
        with pytest.raises(InputError, match=words):
            SDPoseNetwork(**({**parts, "settings": settings} | changes))

    refused("the head takes 17", head=HeatmapHead(17, 17))
    refused("latents of 12", latents=PatchSpace(2))
    refused("width 8", prompt=torch.zeros(1, 2, 8))
    refused("multiples of 16", settings=PoseSettings("coco", "up_blocks.2", (40, 48), (20, 24)))
    refused("no module", settings=PoseSettings("coco", "up_blocks.7", (32, 48), (16, 24)))
    with pytest.raises(InputError, match=r"\(B, 3, 48, 32\)"):
        model.heatmaps(draw(1, 3, 32, 48))
    with pytest.raises(InputError, match="size 'huge'"):
        new_model("huge")
    with pytest.raises(InputError, match="no skeleton"):
        new_model("tiny", skeleton="cat")
    with pytest.raises(InputError, match="tap"):
        new_model("tiny", tap="conv_in")


def test_published_settings():
    assert {count: settings.skeleton for count, settings in PUBLISHED.items()} == {17: "coco", 133: "coco_wholebody"}
    for settings in PUBLISHED.values():
        assert (settings.input_size, settings.heatmap_size) == ((768, 1024), (192, 256))
        assert (settings.sigma, settings.label) == (6, 999)


def test_settings_are_read_as_written(tmp_path):
    settings = PoseSettings("jhmdb", "up_blocks.1", (64, 96), (32, 48), 1.5, 500.0)
    settings.save(tmp_path)
    assert PoseSettings.load(tmp_path) == settings
    for text, word in (
        ("{", "not valid JSON"),
        ('{"family": "lotus"}', "does not describe an SDPose model"),
        ('{"family": "sdpose", "skeleton": "coco"}', "tap"),
        ('{"family": "sdpose", "skeleton": "coco", "tap": "mid_block", "input_size": 5}', "not understood"),
        ('{"family": "sdpose", "skeleton": "coco", "tap": "mid_block", "input_size": [5, 0]}', "input_size"),
    ):
        (tmp_path / "priorscope.json").write_text(text)
        with pytest.raises(InputError, match=word):
            PoseSettings.load(tmp_path)


def test_loss_counts_unlabelled_keypoints_in_the_denominator():
    target = torch.zeros(1, 2, 3, 4)
    heatmaps = torch.stack([torch.full((3, 4), 2.0), torch.full((3, 4), 100.0)])[None]
    assert heatmap_loss(heatmaps, target, torch.tensor([[1.0, 0.0]])) == 2
    with pytest.raises(InputError, match="weights"):
        heatmap_loss(heatmaps, target, torch.ones(2))
