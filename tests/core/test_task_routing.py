"""Denoising task routing: the official masks and router, and a routed DiT that trains, saves and samples."""

from __future__ import annotations

import contextlib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from priorscope import InputError
from priorscope.diffusion import Denoiser, VPSchedule, sample, spaced_times
from priorscope.training import RoutingConfig, add_routing
from priorscope.training.task_routing import routing_masks, routing_starts, routing_width


class Block(nn.Module):
    """x + tanh(x W^T)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x + torch.tanh(x @ self.weight.T)


class Chain(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.transformer_blocks = nn.ModuleList(blocks)

    def forward(self, x, timestep):
        for block in self.transformer_blocks:
            x = block(x)
        return x


@pytest.fixture
def dit():
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DiTTransformer2DModel(2, 8, in_channels=2, num_layers=2, sample_size=4, num_embeds_ada_norm=6)
    nn.init.normal_(model.proj_out_2.weight)
    return model.eval()


def test_golden_training_aids(golden_files, read_json):
    for path in golden_files("astro_accel", "training.safetensors"):
        data, cases = load_file(path), read_json(path.with_suffix(".json"))["cases"]
        names = [name for name in cases if name.startswith("dtr_D")]
        assert len(names) == 6
        for name in names:
            case = cases[name]
            config = RoutingConfig(case["beta"], case["alpha"], case["tasks"])
            starts = routing_starts(case["channels"], config)
            assert starts.tolist() == data[f"{name}.start"].tolist()
            assert (routing_width(case["channels"], config), starts[-1]) == (case["width"], case["last_start"])
            masks = routing_masks(case["channels"], config)
            if f"{name}.mask" in data:
                assert torch.equal(masks, data[f"{name}.mask"])
            assert set(masks.sum(1).tolist()) == {case["width"]}
        case = cases["dtr_router"]
        network = Chain(Block(data["dtr_router.W"]))
        add_routing(network, RoutingConfig(case["beta"], case["alpha"], case["D"]))
        with torch.no_grad():
            routed = network(data["dtr_router.x"], data["dtr_router.t"])
        torch.testing.assert_close(routed, data["dtr_router.y"], atol=1e-5, rtol=1e-5)


def test_images_and_one_level_for_all_items():
    config, x = RoutingConfig(0.5, 1.0, 10), torch.randn(3, 8, 4, 5)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    network = Chain(block)
    routing = add_routing(network, config)
    mask = routing_masks(8, config)[7].reshape(1, 8, 1, 1)
    with torch.no_grad():
        whole = network(x, 7)
        expected = nn.functional.conv2d(mask * x, block[0].weight, block[0].bias, padding=1) + (1 - mask) * x
        torch.testing.assert_close(whole, expected)
        assert torch.equal(whole, network(x, torch.tensor([7.0, 7.0, 7.0])))  # steps are told as floats
    routing.remove()
    with torch.no_grad():
        assert torch.equal(network(x, 7), block(x))


def test_sequences_whose_channels_come_first():
    """A temporal U-Net's blocks: channels are the second axis there, also where there are as many time steps."""
    config, block = RoutingConfig(0.5, 1.0, 10), nn.Conv1d(8, 8, 3, padding=1)
    network = Chain(block)
    add_routing(network, config)
    mask = routing_masks(8, config)[[2, 7]][:, :, None]
    for length in (5, 8):
        x = torch.randn(2, 8, length)
        with torch.no_grad():
            expected = nn.functional.conv1d(mask * x, block.weight, block.bias, padding=1) + (1 - mask) * x
            torch.testing.assert_close(network(x, torch.tensor([2, 7])), expected)


def test_all_channels_for_every_level_is_the_plain_network(dit):
    x, t, labels = torch.randn(2, 2, 4, 4), torch.tensor([3, 900]), torch.tensor([0, 5])
    with torch.no_grad():
        plain = dit(x, t, labels).sample
        add_routing(dit, RoutingConfig(beta=1.0))
        torch.testing.assert_close(dit(x, t, labels).sample, plain)


def test_a_dit_is_routed_trained_saved_and_loaded(dit, tmp_path):
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    x, t, labels = torch.randn(2, 2, 4, 4), torch.tensor([3, 900]), torch.tensor([0, 5])
    keys = set(dit.state_dict())
    with torch.no_grad():
        plain = dit(x, t, labels).sample
    add_routing(dit, RoutingConfig(0.5, 2.0))
    assert set(dit.state_dict()) == keys
    with torch.no_grad():
        routed = dit(x, t, labels).sample
        assert not torch.allclose(routed, plain)
        each = [dit(x[row : row + 1], t[row : row + 1], labels[row : row + 1]).sample for row in (0, 1)]
    torch.testing.assert_close(torch.cat(each), routed)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            dit.enable_gradient_checkpointing()
        dit.train().zero_grad()
        torch.manual_seed(0)  # of the label dropout
        dit(x, t, labels).sample.square().mean().backward()
        gradients.append([weight.grad.clone() for weight in dit.parameters() if weight.grad is not None])
    torch.testing.assert_close(*gradients)
    dit.save_pretrained(tmp_path / "dit")
    loaded = DiTTransformer2DModel.from_pretrained(tmp_path / "dit").eval()
    add_routing(loaded)
    with torch.no_grad():
        assert torch.equal(loaded(x, t, labels).sample, routed)


def test_a_routing_that_is_removed_is_forgotten(dit, tmp_path):
    """A model that was made plain again must not be saved as a routed one; one that was loaded as such stays one."""
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    routing = add_routing(dit, RoutingConfig(0.5, 2.0))
    with pytest.raises(InputError, match="have a task routing already"):
        add_routing(dit, RoutingConfig(0.7))
    routing.remove()
    dit.save_pretrained(tmp_path / "plain")
    with pytest.raises(InputError, match="not trained with task routing"):
        add_routing(DiTTransformer2DModel.from_pretrained(tmp_path / "plain"))
    add_routing(dit, RoutingConfig(0.5, 2.0))
    dit.save_pretrained(tmp_path / "routed")
    loaded = DiTTransformer2DModel.from_pretrained(tmp_path / "routed")
    for _ in range(2):
        routing = add_routing(loaded)
        assert routing.config == RoutingConfig(0.5, 2.0)
        routing.remove()


def test_two_passes_before_one_backward_with_checkpointing(dit):
    """What is computed again belongs to the levels of its own pass, not to those of the last."""
    x, t, labels = torch.randn(2, 2, 4, 4), torch.tensor([[3, 900], [700, 20]]), torch.tensor([0, 5])
    add_routing(dit, RoutingConfig(0.5, 2.0))
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            dit.enable_gradient_checkpointing()
        dit.train().zero_grad()
        torch.manual_seed(0)  # of the label dropout
        sum(dit(x, levels, labels).sample.square().mean() for levels in t).backward()
        gradients.append([weight.grad.clone() for weight in dit.parameters() if weight.grad is not None])
    torch.testing.assert_close(*gradients)


def test_few_steps_are_told_as_steps_of_training():
    """A run of 4 steps takes the routes of the steps it stands at, not those of 0 ... 3."""
    schedule = VPSchedule.from_betas()
    network = Chain(Block(torch.zeros(8, 8)))
    routing = add_routing(network, RoutingConfig())
    taken = []
    network.transformer_blocks[0].register_forward_pre_hook(lambda *_: taken.append(routing._now.tolist()))
    sample(Denoiser(network, schedule), torch.randn(1, 5, 8), spaced_times(schedule, 4, "leading"))
    assert taken == [[750], [500], [250], [0]]


def test_what_is_refused(dit):
    x = torch.randn(1, 5, 8)
    network = Chain(Block(torch.eye(8)))
    with pytest.raises(InputError, match="not trained with task routing"):
        add_routing(dit)
    with pytest.raises(InputError, match="no transformer_blocks"):
        add_routing(nn.Linear(2, 2), RoutingConfig())
    for config in (RoutingConfig(0.0), RoutingConfig(1.1), RoutingConfig(alpha=0.0), RoutingConfig(tasks=1)):
        with pytest.raises(InputError):
            add_routing(network, config)
    routing = add_routing(network, RoutingConfig(tasks=10))
    for level in (10, -1):
        with pytest.raises(InputError, match="routes for 10"):
            network(x, level)
    routing.remove()
    add_routing(network, RoutingConfig(beta=0.1))
    with pytest.raises(InputError, match="is none"):
        network(x, 1)
    alone = Block(torch.eye(8))
    network = Chain(alone)
    add_routing(network, RoutingConfig())
    for before in ((), (4,), (2000,)):  # also after a pass, and after one that failed
        with contextlib.suppress(InputError):
            network(torch.zeros(1, 5, 8), *before)
        with pytest.raises(InputError, match="outside its network"):
            alone(x)
    wider = Chain(nn.Linear(8, 9))
    add_routing(wider, RoutingConfig())
    with pytest.raises(InputError, match="keep the shape"):
        wider(x, 1)
