"""Caches of passes: what runs, what is reused, what is refused, and that nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from priorscope.backbones.folding import fold_constants
from priorscope.backbones.ncsnpp import NCSNpp, ncsnpp_denoiser
from priorscope.backbones.stable_diffusion import UNetNetwork
from priorscope.caching import (
    DeepCache,
    EncoderPropagation,
    Every,
    FirstBlockCache,
    KeySteps,
    PriorNoise,
    TaylorMemory,
    TaylorSeer,
    Threshold,
)
from priorscope.caching.policies import as_policy
from priorscope.diffusion import (
    ClassifierFreeGuidance,
    Condition,
    Denoiser,
    InBatches,
    Prediction,
    ResolutionAware,
    StepInfo,
    VPSchedule,
    ddim,
    heun,
    sample,
    spaced_times,
)
from priorscope.errors import InputError

VP = VPSchedule.from_betas()
TIMES = spaced_times(VP, 6)
TEXT = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(5))


class Plain(nn.Module):
    """A network of diffusers behind a wrapper that the cache has to look into."""

    def __init__(self, unet, **kwargs):
        super().__init__()
        self.unet = unet
        self.kwargs = kwargs

    def forward(self, x, label):
        return self.unet(x, label, **self.kwargs).sample


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noisy(network):
    """New networks answer nearly 0."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for weight in network.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return network.eval().requires_grad_(False)


def pixel_unet(layers=1):
    from diffusers.models.unets.unet_2d import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return noisy(
            UNet2DModel(
                in_channels=1,
                out_channels=1,
                block_out_channels=(4, 8),
                layers_per_block=layers,
                norm_num_groups=2,
                attention_head_dim=4,
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            )
        )


def dit(layers=3):
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=1,
            out_channels=1,
            num_layers=layers,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=10,
        )
    return noisy(made)


def score_net(**changes):
    sizes = {"image_size": 16, "channels": 8, "multipliers": (1, 2), "blocks": 2, "attention_at": (8,)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return noisy(NCSNpp(**{**sizes, **changes}))


class Case:
    """A denoiser, the network within, and what it is asked about."""

    def __init__(self, denoiser, network, shape, condition=None):
        self.denoiser, self.network, self.shape, self.condition = denoiser, network, shape, condition

    def ask(self, x, index, *, level=None, total=9, call=0, run=None):
        level = self.levels[index] if level is None else level
        with torch.no_grad():
            return self.denoiser(x, level, self.condition, StepInfo(index, total, call, run)).eps

    @property
    def levels(self):
        return spaced_times(self.denoiser.schedule, 9)

    def sample(self, x, model=None, times=None, **kwargs):
        model = self.denoiser if model is None else model
        return sample(model, x, times or self.levels[:7], condition=self.condition, **kwargs)


def make(kind, small_unet):
    if kind == "text":
        unet = noisy(small_unet(layers_per_block=2))
        return Case(Denoiser(UNetNetwork(unet), VP), unet, (2, 4, 8, 8), Condition({"text": TEXT}, shared=["text"]))
    if kind == "folded":
        unet = fold_constants(noisy(small_unet()), 400.0, TEXT)
        return Case(Denoiser(UNetNetwork(unet), VP), unet, (2, 4, 8, 8), Condition({"text": TEXT}, shared=["text"]))
    if kind == "ncsnpp":
        net = score_net()
        return Case(ncsnpp_denoiser(net), net, (2, 1, 8, 8))
    network = pixel_unet() if kind == "pixel" else dit()
    extra = {"class_labels": torch.tensor([3])} if kind == "dit" else {}
    return Case(Denoiser(Plain(network, **extra), VP), network, (2, 1, 8, 8) if kind == "pixel" else (1, 1, 8, 8))


@pytest.fixture
def case(request, small_unet):
    return make(request.param, small_unet)


def branches(network):
    if isinstance(network, NCSNpp):
        return range(len(network.config.multipliers) * (network.config.blocks + 1))
    return range(sum(len(block.resnets) + 1 for block in network.down_blocks))


def deep_module(network, branch):
    """The module whose output is the deep feature, found from the numbers of modules that run on the way up."""
    if isinstance(network, NCSNpp):
        blocks = network.config.blocks
        level, layer = divmod(branch, blocks + 1)
        ups = [
            m for m in network.all_modules if type(m).__name__ == "ResidualBlock" and m.Conv_2.__class__ is nn.Conv2d
        ]
        ups = [m for m in ups if m.resample.__class__ is nn.Identity][
            -(len(network.config.multipliers) * (blocks + 1)) :
        ]
        first = ups[len(ups) - level * (blocks + 1) - layer - 1]
        modules = list(network.all_modules)
        return modules[next(i for i, m in enumerate(modules) if m is first) - 1]
    level = 0
    while branch >= len(network.down_blocks[level].resnets) + 1:
        branch -= len(network.down_blocks[level].resnets) + 1
        level += 1
    place = len(network.up_blocks) - 1 - level
    up = network.up_blocks[place]
    before = len(up.resnets) - 2 - branch
    if before >= 0:
        return up.attentions[before] if hasattr(up, "attentions") else up.resnets[before]
    return network.up_blocks[place - 1] if place else network.mid_block


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("case", ["text", "folded", "pixel", "ncsnpp"], indirect=True)
def test_a_partial_pass_is_a_full_one_with_the_last_deep_feature(case):
    old, new = draw(*case.shape), draw(*case.shape, seed=2)
    for branch in branches(case.network):
        module, kept = deep_module(case.network, branch), []
        handle = module.register_forward_hook(lambda m, a, output, kept=kept: kept.append(first(output).clone()))
        plain = case.ask(old, 0)
        handle.remove()
        give = lambda m, a, o, kept=kept: (kept[0], *o[1:]) if isinstance(o, tuple) else kept[0]  # noqa: E731
        handle = module.register_forward_hook(give)
        expected = case.ask(new, 1)
        handle.remove()
        with DeepCache(2, branch=branch).on(case.denoiser) as run:
            assert torch.equal(case.ask(old, 0), plain)
            assert torch.equal(case.ask(new, 1), expected), branch
            assert torch.equal(case.ask(new, 2), case.ask(new, 2, total=1))
        assert (run.full, run.partial) == (2, 1)
        assert not torch.equal(expected, case.ask(new, 1)) or branch == len(branches(case.network)) - 1


def test_branches_count_the_layers_of_each_level(small_unet):
    """A U-Net of one and three residual blocks a level has 2 + 4 branches."""
    unet = noisy(small_unet(layers_per_block=(1, 3)))
    one = Case(Denoiser(UNetNetwork(unet), VP), unet, (1, 4, 8, 8), Condition({"text": TEXT}))
    ran = []
    for block in (*unet.down_blocks, *unet.up_blocks):
        for layer in block.resnets:
            layer.register_forward_hook(lambda *_: ran.append(1))
    counts = []
    for branch in range(6):
        with DeepCache(2, branch=branch).on(one.denoiser):
            one.ask(draw(*one.shape), 0)
            ran.clear()
            one.ask(draw(*one.shape), 1)
            counts.append(len(ran))
    # one on the way up, and for each branch more one more on each side; a downsampler is no residual block
    assert counts == [1, 3, 4, 6, 8, 10]
    with pytest.raises(InputError, match="branch 6 of a U-Net with 6"):
        DeepCache(2, branch=6).on(one.denoiser)


METHODS = {
    "deep": lambda policy: DeepCache(policy, branch=1),
    "deep, linear": lambda policy: DeepCache(policy, order=1),
    "encoder": lambda policy: EncoderPropagation(policy),
    "modules": lambda policy: TaylorSeer(policy, order=2, modules=["mid_block", "up_blocks.*.resnets.*"]),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ["text", "folded", "pixel"], indirect=True)
def test_every_step_in_full_is_no_cache_bit_by_bit(case, name):
    x = draw(*case.shape)
    plain = case.sample(x)
    with METHODS[name](Every(1)).on(case.denoiser) as run:
        assert torch.equal(case.sample(x), plain)
    assert (run.full, run.partial) == (6, 0)
    with METHODS[name](3).on(case.denoiser) as run:
        assert not torch.equal(case.sample(x), plain)
    assert run.full + run.partial == 6
    assert torch.equal(case.sample(x), plain)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ["text", "pixel"], indirect=True)
def test_what_does_not_change_is_recalled_exactly(case, name):
    x = draw(*case.shape)
    plain = case.ask(x, 0, level=300.0)
    with METHODS[name]([0]).on(case.denoiser) as run:
        assert all(torch.equal(case.ask(x, index, level=300.0), plain) for index in range(4))
    assert (run.full, run.partial) == (1, 3)


@pytest.mark.parametrize("sides", [(13, 13), (13, 7)])
def test_odd_sizes(small_unet, sides):
    """Skips and the deep feature fit, and give what a full pass gives where nothing has changed."""
    case = make("text", small_unet)
    x = draw(1, 4, *sides)
    plain = case.ask(x, 0, level=300.0)
    methods = [DeepCache([0], branch=branch) for branch in branches(case.network)]
    methods += [DeepCache(Threshold(0.0), branch=branch) for branch in branches(case.network) if branch]
    methods += [EncoderPropagation([0]), TaylorSeer([0], modules=["mid_block", "up_blocks.*.resnets.*"])]
    for method in methods:
        with method.on(case.denoiser) as run:
            assert all(torch.equal(case.ask(x, index, level=300.0), plain) for index in range(3))
        assert (run.full, run.partial) == (1, 2)


@pytest.mark.parametrize("kind", ["pixel", "dit"])
def test_sides_that_a_network_cannot_divide_are_refused(kind, small_unet):
    case = make(kind, small_unet)
    methods = [TaylorSeer(2, modules=["conv_in" if kind == "pixel" else "transformer_blocks.*.ff"])]
    methods += [DeepCache(2), EncoderPropagation(2)] if kind == "pixel" else [FirstBlockCache(2)]
    for method in methods:
        for sides in ((13, 13), (8, 13)):
            refused = pytest.raises(InputError, match=f"samples of {sides[0]} x 13.*multiples of 2")
            with method.on(case.denoiser), refused:
                case.sample(draw(1, 1, *sides))
    if kind == "pixel":  # on a coarser grid every upsampling is told where to go back to
        with DeepCache(2).on(case.denoiser) as run:
            model = ResolutionAware(case.denoiser, case.network, [(1.0, 2)])
            assert case.sample(draw(1, 1, 13, 13), model).shape == (1, 1, 13, 13)
        assert (run.full, run.partial) == (3, 3)


def hooks(network):
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in network.modules() for kind in kinds)


class Stop(RuntimeError):
    pass


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ["text", "folded"], indirect=True)
def test_nothing_is_left_behind(case, name):
    def stop(info, x, s):
        if info.index == 2:
            raise Stop

    x = draw(*case.shape)
    plain = case.sample(x)
    state = {path: sorted(vars(module)) for path, module in case.network.named_modules()}
    run = METHODS[name](3).on(case.denoiser)
    with pytest.raises(Stop), run:
        case.sample(x, callback=stop)
    assert hooks(case.network) == 0
    assert {path: sorted(vars(module)) for path, module in case.network.named_modules()} == state
    assert case.denoiser.cache is None
    assert not run._memories
    assert torch.equal(case.sample(x), plain)
    with run:  # and may be used again
        assert hooks(case.network) or name == "modules"
        again = case.sample(x)
    with METHODS[name](3).on(case.denoiser):
        assert torch.equal(again, case.sample(x))


def test_a_pass_that_fails_is_not_recalled(small_unet):
    case = make("text", small_unet)
    x, plain = draw(*case.shape), make("text", small_unet).sample(draw(*case.shape))
    with DeepCache(Every(2)).on(case.denoiser):
        handle = case.network.conv_out.register_forward_hook(lambda *_: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            case.ask(x, 0)
        handle.remove()
        assert torch.equal(case.ask(x, 1), case.ask(x, 1, total=1))
    assert torch.equal(case.sample(x), plain)


def test_what_a_failed_pass_leaves_is_not_used(small_unet):
    """A transformer's second stream fails between the first blocks and the last; the first stream goes on."""
    case = make("dit", small_unet)
    x = draw(*case.shape)
    with FirstBlockCache([0]).on(case.denoiser):
        case.ask(x, 0)
        expected = case.ask(2 * x, 1)
    with FirstBlockCache([0]).on(case.denoiser) as run:
        case.ask(x, 0)
        handle = case.network.transformer_blocks[1].register_forward_hook(lambda *_: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            case.ask(-x, 0, call=1)
        handle.remove()
        assert torch.equal(case.ask(2 * x, 1), expected)
    assert run.cut.middle is None


def test_every_run_starts_afresh(small_unet):
    """Also after one that was broken off, of another batch, or of another size; and in a step's middle."""
    case = make("text", small_unet)
    x, other = draw(2, 4, 8, 8), draw(3, 4, 12, 8)

    def stop(info, x, s):
        raise Stop

    with DeepCache(3).on(case.denoiser):
        expected = case.sample(x)
    with DeepCache(3).on(case.denoiser):
        expected_other = case.sample(other)
    with DeepCache(3).on(case.denoiser) as run:
        assert torch.equal(case.sample(x), expected)
        assert torch.equal(case.sample(other), expected_other)
        with pytest.raises(Stop):
            case.sample(other[:2, :, :8], callback=stop)
        assert torch.equal(case.sample(x), expected)
        before = run.full
        case.ask(x, 1, run=run)
        case.ask(x[:1], 2, run=run)  # fewer items than a step before: nothing fits
        assert run.full == before + 2
        case.ask(x[:1], 0, run=run)  # without a run of its own, a step that falls back starts a new one
        assert run.full == before + 3


def test_guidance_and_batches_have_memories_of_their_own(small_unet):
    case = make("text", small_unet)
    x = draw(3, 4, 8, 8)
    free = Condition({"text": torch.zeros(1, 3, 8)}, shared=["text"])
    joint = ClassifierFreeGuidance(case.denoiser, free, 3.0)
    apart = ClassifierFreeGuidance(case.denoiser, free, 3.0, batched=False)
    with DeepCache(3).on(joint) as run:
        expected = case.sample(x, joint)
        assert (run.full, run.partial) == (2, 4)
    for model, passes in ((apart, 2), (InBatches(joint, 2), 2), (InBatches(apart, 2), 4)):
        with DeepCache(3).on(model) as run:
            found = case.sample(x, model)
        assert (run.full, run.partial) == (2 * passes, 4 * passes)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_solver_that_asks_twice_a_step(small_unet):
    """Heun: a step is whole or not, at both calls, and each call has its own features."""
    case = make("text", small_unet)
    x = draw(*case.shape)
    plain = case.sample(x, step=heun)
    with DeepCache(1).on(case.denoiser):
        assert torch.equal(case.sample(x, step=heun), plain)
    seen = []
    handle = case.network.mid_block.register_forward_hook(lambda *_: seen.append(1))
    with DeepCache(3).on(case.denoiser) as run:
        case.sample(x, step=heun)
    handle.remove()
    assert (run.full, run.partial, len(seen)) == (4, 8, 4)
    with (
        EncoderPropagation(3, parallel=case.levels[:7]).on(case.denoiser),
        pytest.raises(InputError, match="asks twice"),
    ):
        case.sample(x, step=heun)


def test_steps_are_counted_by_the_loop(small_unet):
    """Levels that repeat (time travel) are other steps."""
    case = make("text", small_unet)
    levels = case.levels
    times = [*levels[:3], *levels[1:4]]
    seen = []
    with DeepCache([0, 3]).on(case.denoiser) as run:
        handle = case.network.mid_block.register_forward_hook(lambda *_: seen.append(run.full + run.partial))
        case.sample(draw(*case.shape), times=times)
        handle.remove()
    assert seen == [0, 3]


def test_calls_outside_of_a_loop_are_as_without(small_unet):
    case = make("text", small_unet)
    x = draw(*case.shape)
    plain = case.denoiser(x, 500.0, case.condition)
    with DeepCache(3).on(case.denoiser) as run:
        for _ in range(3):
            found = case.denoiser(x, 500.0, case.condition)
            assert torch.equal(found.eps, plain.eps)
        case.sample(x, times=case.levels[:2])
    assert (run.full, run.partial) == (0, 0)
    assert not run._memories


# gradients


class Posterior:
    needs_grad = True

    def __call__(self, x, t, prediction, info):
        gradient = torch.autograd.grad(prediction.x0.square().sum(), x)[0]
        return Prediction(prediction.x0 - gradient, prediction.eps)


@pytest.mark.parametrize("policy", [1, 3])
def test_gradients_are_refused(small_unet, policy):
    case = make("text", small_unet)
    x = draw(*case.shape)
    case.sample(x, constraint=Posterior())
    with DeepCache(policy).on(case.denoiser), pytest.raises(InputError, match="gradients cannot flow"):
        case.sample(x, constraint=Posterior())
    case.network.conv_in.weight.requires_grad_(True)
    with DeepCache(policy).on(case.denoiser) as run:
        case.sample(x)
        with pytest.raises(InputError, match="gradients cannot flow"):
            case.denoiser(x, 500.0, case.condition, StepInfo(0, 9))
        case.denoiser(x, 500.0, case.condition).eps.sum().backward()  # not a step: a plain pass
    assert case.network.conv_in.weight.grad.abs().sum() > 0
    assert run.full + run.partial == 6


# refusals


def test_policies_that_mean_nothing():
    for wrong in (0, -1, 2.5, True, None, object(), [], [-1], [0.5], ["a"], "75ls", "often", {}, Every):
        with pytest.raises(InputError):
            DeepCache(wrong)
    with pytest.raises(InputError, match=r"no set of key steps is called '75ls'\. Use an interval.*50ls"):
        EncoderPropagation("75ls")
    for wrong in ({"offset": -1}, {"warm_up": 1.0}, {"last": True}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Every(2, **wrong)
    for wrong in (-0.1, float("nan"), "x"):
        with pytest.raises(InputError, match="threshold"):
            Threshold(wrong)
    with pytest.raises(InputError, match="for 50 steps, but the run has 20"):
        KeySteps("50ls").should_compute(StepInfo(0, 20))
    for order in (-1, 1.0, True):
        with pytest.raises(InputError, match="Taylor expansion of order"):
            DeepCache(2, order=order)
    for branch in (-1, 1.5, True):
        with pytest.raises(InputError, match="branch"):
            DeepCache(2, branch=branch)
    with pytest.raises(InputError, match="branch 0"):
        DeepCache(Threshold(0.1))
    for make_one in (EncoderPropagation, TaylorSeer):
        with pytest.raises(InputError, match="a threshold looks"):
            make_one(Threshold(0.1))
    with pytest.raises(InputError, match="first blocks"):
        FirstBlockCache(blocks=0)
    with pytest.raises(InputError, match="prior noise"):
        PriorNoise(torch.zeros(1), scale=float("nan"))
    with pytest.raises(InputError, match="modules"):
        TaylorSeer(modules="mid_block")


def test_policies():
    def full(policy, total=12):
        return [k for k in range(total) if as_policy(policy).should_compute(StepInfo(k, total))]

    assert full(4) == full(Every(4)) == [0, 4, 8]
    assert full(Every(4, offset=2)) == [2, 6, 10]
    assert full(Every(5, warm_up=3, last=2)) == [0, 1, 2, 5, 10, 11]
    assert full(KeySteps(iter([7, 0, 3]))) == full([7, 0, 3]) == [0, 3, 7]
    limit = Threshold(0.1, warm_up=1, last=1)
    decisions = [limit.should_compute(StepInfo(k, 3), 0.05) for k in range(3)]
    assert decisions == [True, False, True]
    assert [limit.should_compute(StepInfo(1, 3), change) for change in (None, 0.1, 0.11, float("nan"))] == [
        True,
        False,
        True,
        True,
    ]
    for interval in (4, np.int64(4)):
        assert full(TaylorSeer(interval).policy) == [0, 1, 5, 9]
        assert full(DeepCache(interval).policy) == [0, 4, 8]


@pytest.mark.parametrize("by_change", [False, True])
def test_the_first_pass_is_full_whatever_a_policy_says(small_unet, by_change):
    class Never:
        def should_compute(self, info, change=None):
            return False

    Never.by_change = by_change
    case = make("text", small_unet)
    with DeepCache(Never(), branch=1).on(case.denoiser) as run:
        case.sample(draw(*case.shape))
    assert (run.full, run.partial) == (1, 5)


def test_networks_that_are_not_known(small_unet):
    case = make("text", small_unet)
    x = draw(*case.shape)
    strange = Denoiser(lambda x, label: x, VP)
    for method in (DeepCache(2), EncoderPropagation(2), FirstBlockCache(2), TaylorSeer(2)):
        with pytest.raises(InputError, match="no network that it knows"):
            method.on(strange)
    with pytest.raises(InputError, match=r"no network that it knows.*DiT"):
        FirstBlockCache(2).on(case.denoiser)
    with pytest.raises(InputError, match="does not know Linear"):
        DeepCache(2).on(strange, network=nn.Linear(1, 1))
    with pytest.raises(InputError, match="wraps no Denoiser"):
        DeepCache(2).on(lambda x, t: x)
    for method in (DeepCache(2), TaylorSeer(2, modules=["mid_block"])):
        with pytest.raises(InputError, match="not the one that the denoiser asks"):
            method.on(Denoiser(Plain(pixel_unet()), VP), network=pixel_unet())
    two = nn.ModuleList([pixel_unet(), pixel_unet()])
    experts = Denoiser(Plain(two), VP)
    assert all(DeepCache(2).on(experts, network=one).network is one for one in two)
    closed = Denoiser(lambda x, label: case.network(x, label, TEXT.expand(len(x), -1, -1)).sample, VP)
    with DeepCache(2).on(closed, network=case.network) as run:
        sample(closed, x, TIMES)
    assert (run.full, run.partial) == (3, 3)
    with pytest.raises(InputError, match="2 networks"):
        DeepCache(2).on(Denoiser(nn.Sequential(pixel_unet(), pixel_unet()), VP))
    with pytest.raises(InputError, match="no module of the UNet2DModel is called 'nowhere'"):
        TaylorSeer(2, modules=["nowhere"]).on(Denoiser(Plain(pixel_unet()), VP))
    with pytest.raises(InputError, match="3 first blocks of 3"):
        FirstBlockCache(2, blocks=3).on(Denoiser(dit(), VP))
    net = score_net()
    with pytest.raises(InputError, match=r"branch 6 of an NCSN\+\+ with 6"):
        DeepCache(2, branch=6).on(ncsnpp_denoiser(net))
    with pytest.raises(InputError, match="threshold cannot decide within NCSN"):
        DeepCache(Threshold(0.1), branch=1).on(ncsnpp_denoiser(net))
    with pytest.raises(InputError, match="no network that it knows"):
        EncoderPropagation(2).on(ncsnpp_denoiser(net))


def test_a_network_is_found_without_a_look_into_it(small_unet):
    """Entering a cache must cost nothing beside a pass; a network that is shared is one."""

    class Counting(DeepCache):
        def knows(self, network):
            asked.append(network)
            return super().knows(network)

    asked: list = []
    case = make("text", small_unet)
    assert Counting(2).on(case.denoiser).network is case.network
    assert asked == [case.network]
    shared = Plain(case.network)
    shared.also = nn.Sequential(case.network)
    assert DeepCache(2).on(Denoiser(shared, VP)).network is case.network
    inner = nn.Sequential(nn.Linear(2, 2))
    nested = Denoiser(nn.Sequential(inner), VP)
    assert TaylorSeer(2, modules=["0"]).on(nested, network=inner).network is inner


def test_unets_that_cannot_be_cut(small_unet):
    from diffusers.models.unets.unet_2d import UNet2DModel

    skip = UNet2DModel(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("SkipDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "SkipUpBlock2D"),
    )
    with pytest.raises(InputError, match="SkipDownBlock2D cannot be cut"):
        DeepCache(2).on(Denoiser(Plain(skip), VP))
    case = make("text", small_unet)
    case.network.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    with pytest.raises(InputError, match="FreeU"):
        DeepCache(2).on(case.denoiser)
    case.network.disable_freeu()
    middle, case.network.mid_block = case.network.mid_block, None
    with pytest.raises(InputError, match="without a middle block"):
        EncoderPropagation(2).on(case.denoiser)
    case.network.mid_block = middle
    residuals = {"mid_block_additional_residual": torch.zeros(1), "down_block_additional_residuals": ()}
    controlled = Denoiser(lambda x, t: case.network(x, t, TEXT.expand(len(x), -1, -1), **residuals).sample, VP)
    for method in (DeepCache(2), EncoderPropagation(2)):
        with method.on(controlled, case.network), pytest.raises(InputError, match="additional_residual"):
            sample(controlled, draw(*case.shape), TIMES)


def test_two_caches(small_unet):
    case = make("text", small_unet)
    with DeepCache(2).on(case.denoiser) as run:
        with pytest.raises(InputError, match="has a cache already"), EncoderPropagation(2).on(case.denoiser):
            pass
        with pytest.raises(InputError, match="has a cache already"), run:
            pass
        twin = Denoiser(UNetNetwork(case.network), VP)
        with pytest.raises(InputError, match="replaced already"), DeepCache(3).on(twin):
            pass
        case.sample(draw(*case.shape))
    assert (run.full, run.partial) == (3, 3)
    assert hooks(case.network) == 0


# encoder propagation


@pytest.mark.parametrize("case", ["text", "pixel"], indirect=True)
def test_decoding_ahead_is_decoding_in_turn(case):
    x, times = draw(*case.shape), case.levels[:7]
    batches = []
    with EncoderPropagation(Every(4, offset=1)).on(case.denoiser) as run:
        expected = case.sample(x)
        alone = (run.full, run.partial)
    handle = case.network.conv_out.register_forward_hook(lambda m, a, output: batches.append(len(output)))
    with EncoderPropagation(Every(4, offset=1), parallel=times).on(case.denoiser) as run:
        for size in (2, 1):
            found = case.sample(x[:size])
            assert (found - expected[:size]).abs().max() < 1e-5 * expected.abs().max()
        with pytest.raises(InputError, match="a run of 8 steps, but parallel= lists 7 levels"):
            case.sample(x, times=case.levels[:9])
    handle.remove()
    with (
        EncoderPropagation(3, parallel=[900.0, *times[1:]]).on(case.denoiser),
        pytest.raises(InputError, match="at step 0 the U-Net is told 999, not the label 900"),
    ):
        case.sample(x)
    # step 0 because nothing is stored yet, 1 and 5 by the policy; 2, 3 and 4 together
    assert alone == (3, 3)
    assert batches == [2, 2, 6, 2, 1, 1, 3, 1, 2]


def test_prior_noise_is_added_late():
    x = draw(2, 3)
    prior = PriorNoise(x, scale=0.5, below=400.0)
    assert torch.equal(prior(x, 400.0), x)
    assert torch.equal(prior(x, 399.0), 1.5 * x)

    def network(x, label):
        return torch.tanh(x)

    model = Denoiser(network, VP)
    asked = prior.unseen(model)(prior(x, 100.0), 100.0)
    alpha, sigma = VP(100.0)
    torch.testing.assert_close(asked.eps, torch.tanh(x))
    torch.testing.assert_close(alpha * asked.x0 + sigma * asked.eps, prior(x, 100.0))
    assert torch.equal(prior.unseen(model)(x, 600.0).x0, model(x, 600.0).x0)


def test_a_coarser_grid_for_the_first_steps(small_unet):
    """Where the grid changes, what is stored does not fit and a pass is full."""
    case = make("text", small_unet)
    x = draw(1, 4, 16, 16)
    model = ResolutionAware(case.denoiser, case.network, [(0.4, 2)])  # 3 of 6 steps
    plain = case.sample(x, model)
    for branch in branches(case.network):
        with DeepCache(1, branch=branch).on(model):
            assert torch.equal(case.sample(x, model), plain)
        with DeepCache(2, branch=branch).on(model) as run:
            assert torch.isfinite(case.sample(x, model)).all()
        assert (run.full, run.partial) == (4, 2)
    with TaylorSeer([0], modules=["mid_block", "up_blocks.0.resnets.*"]).on(model) as run:
        case.sample(x, model)
    assert (run.full, run.partial) == (2, 4)
    with EncoderPropagation(2).on(model), pytest.raises(InputError, match="a coarser grid"):
        case.sample(x, model)


# thresholds


@pytest.mark.parametrize("branch", [1, 2, 3])
def test_a_threshold_decides_within_the_pass(small_unet, branch):
    case = make("text", small_unet)
    x = draw(*case.shape)
    plain = case.sample(x)
    with DeepCache(Threshold(0.0), branch=branch).on(case.denoiser) as run:
        assert torch.equal(case.sample(x), plain)
        assert (run.full, run.partial) == (6, 0)
    with DeepCache([0], branch=branch).on(case.denoiser):
        expected = case.sample(x)
    ran = []
    names = [n for n, _ in case.network.named_modules() if n.split(".")[-2:-1] in (["resnets"], ["attentions"])]
    handles = [
        case.network.get_submodule(n).register_forward_hook(lambda *_, n=n: ran.append(n)) for n in [*names, "conv_in"]
    ]
    with DeepCache(Threshold(1e9), branch=branch).on(case.denoiser) as run:
        assert torch.equal(case.sample(x), expected)
        assert (run.full, run.partial) == (1, 5)
    threshold, ran = sorted(ran), []
    for handle in handles:
        handle.remove()
    handles = [
        case.network.get_submodule(n).register_forward_hook(lambda *_, n=n: ran.append(n)) for n in [*names, "conv_in"]
    ]
    with DeepCache([0], branch=branch).on(case.denoiser):
        case.sample(x)
    assert threshold == sorted(ran)  # nothing runs twice
    with DeepCache(Threshold(1e9, warm_up=2, last=1), branch=branch).on(case.denoiser) as run:
        case.sample(x)
    assert (run.full, run.partial) == (3, 3)


def test_the_largest_change_of_a_batch_decides():
    memory = TaylorMemory(Threshold(0.5))
    before = torch.ones(2, 1, 3)
    info = [StepInfo(k, 5) for k in range(5)]
    assert memory.should_compute(info[0], before)
    memory.store("f", before, info[0])
    assert not memory.should_compute(info[1], before * torch.tensor([1.4, 1.0])[:, None, None])
    assert memory.should_compute(info[2], before * torch.tensor([1.6, 1.0])[:, None, None])  # mean over both: 0.3
    assert not memory.should_compute(info[3], before * torch.tensor([1.6, 1.0])[:, None, None])  # since that pass: 0
    assert memory.should_compute(info[4], before * float("nan"))


@pytest.mark.parametrize("limit", [0.02, 0.1, 0.3])
def test_first_block_cache_is_that_of_diffusers(small_unet, limit):
    from diffusers import FirstBlockCacheConfig
    from diffusers.hooks import apply_first_block_cache
    from diffusers.hooks.hooks import CacheContext, _set_cache_context

    case = make("dit", small_unet)
    x = draw(*case.shape)
    states = [x + 0.05 * index * draw(*case.shape, seed=3) for index in range(9)]
    reference = dit()
    apply_first_block_cache(reference, FirstBlockCacheConfig(threshold=limit))
    ran, expected, full = [], [], []
    reference.transformer_blocks[1].ff.register_forward_hook(lambda *_: ran.append(1))
    _set_cache_context(reference, CacheContext("only"))
    for index, state in enumerate(states):
        ran.clear()
        with torch.no_grad():
            label = torch.full((1,), case.levels[index])
            expected.append(reference(state, label, class_labels=torch.tensor([3])).sample)
        full.append(bool(ran))
    with FirstBlockCache(Threshold(limit)).on(case.denoiser) as run:
        found, decided = [], []
        for index, state in enumerate(states):
            before = run.full
            found.append(case.ask(state, index))
            decided.append(run.full > before)
    assert decided == full
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    assert 1 <= sum(full) <= 9


@pytest.mark.parametrize("blocks", [1, 2])
def test_later_blocks_of_a_transformer_are_recalled(small_unet, blocks):
    case = make("dit", small_unet)
    x = draw(*case.shape)
    plain = case.sample(x)
    with FirstBlockCache(1, blocks=blocks).on(case.denoiser):
        assert torch.equal(case.sample(x), plain)
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, k=k: ran.append(k))
        for k, block in enumerate(case.network.transformer_blocks)
    ]
    results = []
    for policy in ([0, 3], Threshold(1e9)):
        ran.clear()
        with FirstBlockCache(policy, blocks=blocks).on(case.denoiser) as run:
            results.append([case.ask(x, index, level=300.0) for index in range(6)])
        expected = list(range(3)) * run.full + list(range(blocks)) * run.partial
        assert sorted(ran) == sorted(expected)
        assert run.full == (2 if policy == [0, 3] else 1)
    for handle in handles:
        handle.remove()
    for found in (*results[0], *results[1]):
        torch.testing.assert_close(found, case.ask(x, 0, level=300.0))
    assert not torch.equal(case.ask(x, 0, level=300.0), case.ask(x, 0, level=600.0))


# forecasts of modules


def test_taylorseer_forecasts_what_is_polynomial():
    """A module whose output is a line in the step is forecast to rounding; a parabola needs order 2."""

    class Curve(nn.Module):
        def __init__(self, power):
            super().__init__()
            self.power, self.step, self.calls = power, 0, 0

        def forward(self, x):
            self.calls += 1
            return torch.full_like(x, float(self.step)) ** self.power

    for power, order, exact in ((1, 1, True), (1, 0, False), (2, 1, False)):
        inner = Curve(power)
        denoiser = Denoiser(Wrapped(inner), VP, "sample")
        x, errors = torch.ones(1, 2, dtype=torch.float64), []
        with TaylorSeer(3, order=order, modules=["inner"]).on(denoiser) as run, torch.no_grad():
            for step in range(11):
                inner.step = step
                errors.append(denoiser(x, 500.0, None, StepInfo(step, 11)).x0[0, 0].item() - step**power)
        assert inner.calls == run.full == len([0, 1, 4, 7, 10])
        assert (max(map(abs, errors)) < 1e-12) == exact


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, label):
        return self.inner(x)


def test_taylorseer_leaves_gates_and_modulation_to_the_step(small_unet):
    case = make("dit", small_unet)
    x = draw(*case.shape)
    ran = {"attn1": 0, "ff": 0, "norm1": 0}
    for block in case.network.transformer_blocks:
        block.attn1.to_q.register_forward_hook(lambda *_: ran.__setitem__("attn1", ran["attn1"] + 1))
        block.ff.net[0].register_forward_hook(lambda *_: ran.__setitem__("ff", ran["ff"] + 1))
        block.norm1.register_forward_hook(lambda *_: ran.__setitem__("norm1", ran["norm1"] + 1))
    with TaylorSeer(4, order=1).on(case.denoiser) as run:
        case.sample(x)
    assert (run.full, run.partial) == (3, 3)  # 0, 1, 5
    assert ran == {"attn1": 9, "ff": 9, "norm1": 18}


def test_a_module_that_runs_twice_or_gives_no_tensor_is_refused():
    class Twice(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, label):
            return self.inner(self.inner(x))

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    x = torch.ones(1, 2)
    for network, message in ((Twice(nn.Identity()), "more than once a pass"), (Wrapped(Pair()), "gives a tuple")):
        denoiser = Denoiser(network, VP)
        with TaylorSeer(2, modules=["inner"]).on(denoiser), pytest.raises(InputError, match=message), torch.no_grad():
            denoiser(x, 500.0, None, StepInfo(0, 4))


def test_a_feature_that_the_network_overwrites_is_refused():
    """Reused as it is, what the network adds in place would be added again at every step."""

    class Adds(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, label):
            return self.inner(x).add_(1.0)

    denoiser, x = Denoiser(Adds(nn.Sigmoid()), VP, "sample"), torch.ones(1, 2)
    for order in (0, 1):
        with TaylorSeer(3, order=order, modules=["inner"]).on(denoiser), pytest.raises(InputError, match="overwritten"):
            sample(denoiser, x, TIMES)


def test_a_loop_of_ones_own_may_reset(small_unet):
    case = make("text", small_unet)
    x = draw(*case.shape)
    with DeepCache(5).on(case.denoiser) as run:
        case.ask(x, 1)
        case.ask(x, 2)
        run.reset()
        case.ask(x, 2)
    assert (run.full, run.partial) == (2, 1)


def test_ddim_with_fresh_noise_and_a_callback(small_unet):
    """What the loop offers goes on working: stochastic solvers, callbacks, the state's own dtype."""
    from functools import partial

    from priorscope.diffusion import Noise

    case = make("text", small_unet)
    x, seen = draw(*case.shape).double(), []
    with DeepCache(2).on(case.denoiser) as run:
        found = case.sample(
            x, step=partial(ddim, eta=1.0), noise=Noise.per_item([1, 2]), callback=lambda info, x, s: seen.append(info)
        )
    assert found.dtype == torch.float64
    assert [info.index for info in seen] == list(range(6))
    assert (run.full, run.partial) == (3, 3)
