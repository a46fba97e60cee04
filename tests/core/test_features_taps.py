"""Taps: found where they are meant, equal to the whole forward pass, and nothing runs after the last."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from priorscope.backbones import SD2_UNET
from priorscope.backbones.folding import fold_constants
from priorscope.errors import InputError
from priorscope.features import PUBLISHED, Tap, TapSet, by_scale, pooled_attention, pooling_matrix, tapped
from priorscope.features.tap import locate_taps

SIZES = [(12, 20), (9, 7)]


def unet_like_sd(**changes):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    config = {
        "block_out_channels": (8, 8, 16, 16),
        "attention_head_dim": (2, 2, 4, 4),
        "norm_num_groups": 4,
        "cross_attention_dim": 12,
        **changes,
    }
    return UNet2DConditionModel(**{**SD2_UNET, **config}).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return unet_like_sd()


def arguments(size, batch=2):
    torch.manual_seed(1)
    return {
        "sample": torch.randn(batch, 4, *size),
        "timestep": torch.full((batch,), 261.0),
        "encoder_hidden_states": torch.randn(batch, 7, 12),
    }


def hooked(unet, paths, inputs):
    """What plain hooks on the whole forward pass see leave some modules, and its answer."""
    seen = {}
    handles = [
        unet.get_submodule(path).register_forward_hook(lambda m, a, output, path=path: seen.update({path: output}))
        for path in paths
    ]
    answer = unet(**inputs).sample
    for handle in handles:
        handle.remove()
    return {path: value[0] if isinstance(value, tuple) else value for path, value in seen.items()}, answer


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in ("ddae", "primedepth-attention")])
def test_truncated_maps_equal_those_of_the_whole_pass(unet, name):
    taps = tapped(unet, name)
    for size in SIZES:
        inputs = arguments(size)
        expected, answer = hooked(unet, [place.path for place in taps.places], inputs)
        maps = taps(**inputs)
        watched, same = taps.watch(lambda inputs=inputs: unet(**inputs).sample, stop=False)
        assert torch.equal(answer, watched)
        assert list(maps) == taps.names == list(same)
        for place in taps.places:
            value = expected[place.path]
            if value.ndim == 3:
                height, width = maps[place.name].shape[-2:]
                value = value.reshape(2, height, width, -1).permute(0, 3, 1, 2)
            assert torch.equal(maps[place.name], value)
            assert torch.equal(same[place.name], value)


def test_published_sets_count_what_is_published(unet):
    counts = {name: len(tapped(unet, name).places) for name in PUBLISHED if name != "ddae"}
    assert counts == {
        "dift": 1,
        "satdifuser": 21,
        "hyperfeatures": 12,
        "sd-dino": 3,
        "odise": 4,
        "sdpose-body": 1,
        "sdpose-wholebody": 1,
        "primedepth-attention": 32,
    }
    scales = by_scale(tapped(unet, "satdifuser")(**arguments((16, 16))))
    assert [tuple(scale.shape) for scale in scales] == [
        (2, 48, 16, 16),
        (2, 48, 8, 8),
        (2, 96, 4, 4),
        (2, 48, 2, 2),
    ]


def test_nothing_after_the_last_tap_runs(unet):
    ran = []
    handles = [
        module.register_forward_hook(lambda m, a, o, path=path: ran.append(path))
        for path, module in unet.named_modules()
    ]
    tapped(unet, [Tap("up_blocks.1.attentions.0.transformer_blocks.0.attn1"), Tap("down_blocks.0")])(
        **arguments((8, 8))
    )
    for handle in handles:
        handle.remove()
    assert ran[-1] == "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    assert "up_blocks.1.attentions.0.transformer_blocks.0.attn2" not in ran
    assert not [path for path in ran if path.startswith("up_blocks.2")]


def test_no_hook_stays_behind(unet):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())

    taps = tapped(unet, [Tap("up_blocks.1"), Tap("mid_block", "input")])
    taps(**arguments((8, 8)))
    assert hooks() == 0
    with pytest.raises(RuntimeError):
        taps(torch.zeros(1, 3, 8, 8), 1, encoder_hidden_states=torch.zeros(1, 7, 12))
    assert hooks() == 0


def test_points_around_a_residual_addition(unet):
    inputs = arguments((8, 12))
    block, layer = "up_blocks.1.resnets.0", "up_blocks.2.attentions.1.transformer_blocks.0"
    names = ("input", "branch", "sum", "output")
    maps = tapped(unet, [Tap(block, point, name=point) for point in names])(**inputs)
    shortcut = unet.get_submodule(f"{block}.conv_shortcut")(maps["input"])
    torch.testing.assert_close(maps["branch"] + shortcut, maps["sum"], atol=1e-6, rtol=1e-6)
    assert torch.equal(maps["sum"], maps["output"])
    assert torch.equal(maps["branch"], hooked(unet, [f"{block}.conv2"], inputs)[0][f"{block}.conv2"])
    maps = tapped(unet, [Tap(layer.rpartition(".transformer")[0], point, name=point) for point in names])(**inputs)
    torch.testing.assert_close(maps["input"] + maps["branch"], maps["sum"], atol=1e-6, rtol=1e-6)
    maps = tapped(
        unet, [Tap(f"{layer}.{part}", point) for part in ("attn1", "attn2", "ff") for point in ("branch", "sum")]
    )(**inputs)
    torch.testing.assert_close(
        maps[f"{layer}.attn1:sum"] + maps[f"{layer}.attn2:branch"], maps[f"{layer}.attn2:sum"], atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(
        maps[f"{layer}.attn2:sum"] + maps[f"{layer}.ff:branch"], maps[f"{layer}.ff:sum"], atol=1e-6, rtol=1e-6
    )


def test_with_and_without_resampling(unet):
    maps = tapped(
        unet,
        [
            Tap(f"{side}_blocks.*", point, name=f"{side}{{0}}{point[0]}")
            for side in ("down", "up")
            for point in ("output", "before_resampling")
        ],
    )(**arguments((16, 24)))
    assert [tuple(maps[f"down{i}o"].shape[-2:]) for i in range(4)] == [(8, 12), (4, 6), (2, 3), (2, 3)]
    assert [tuple(maps[f"down{i}b"].shape[-2:]) for i in range(4)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(maps[f"up{i}o"].shape[-2:]) for i in range(4)] == [(4, 6), (8, 12), (16, 24), (16, 24)]
    assert [tuple(maps[f"up{i}b"].shape[-2:]) for i in range(4)] == [(2, 3), (4, 6), (8, 12), (16, 24)]
    assert torch.equal(maps["up3o"], maps["up3b"])


def test_a_folded_network_keeps_its_branches():
    plain, folded = unet_like_sd(), unet_like_sd()
    inputs = arguments((8, 8), batch=1)
    fold_constants(folded, 261.0, inputs["encoder_hidden_states"])
    taps = PUBLISHED["hyperfeatures"]
    expected, maps = tapped(plain, taps)(**inputs), tapped(folded, taps)(**inputs)
    for name, value in maps.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_input(unet):
    inputs = arguments((8, 8))
    inputs["sample"].requires_grad_(True)
    tapped(unet, "up_blocks.1")(**inputs)["up_blocks.1"].square().mean().backward()
    assert inputs["sample"].grad.abs().max() > 0


def official_pooling(weights, height, width):
    """PrimeDepth's recipe on materialised weights (B, heads, N, h w)."""
    maps = weights.reshape(-1, 1, height, width)
    maps = functional.interpolate(maps, (height + 8 - height % 8, width + 8 - width % 8), mode="bilinear")
    maps = functional.avg_pool2d(maps, (max(1, height // 8), max(1, width // 8)))
    maps = functional.interpolate(maps, (8, 8), mode="bilinear")
    return maps.reshape(*weights.shape[:3], 64)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (9, 13), (4, 5), (1, 3)])
@pytest.mark.parametrize("depth", [40, 64, 80])
def test_pooled_attention_equals_pooling_the_matrix(height, width, depth):
    torch.manual_seed(0)
    query, key = (3 * torch.randn(2, 3, height * width, depth) for _ in range(2))
    scale = depth**-0.5
    weights = (query @ key.transpose(-1, -2) * scale).softmax(-1)
    expected = official_pooling(weights, height, width)
    torch.testing.assert_close(weights @ pooling_matrix(height, width), expected, atol=1e-6, rtol=1e-5)
    pooled = pooled_attention(query, key, pooling_matrix(height, width), scale)
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_attention_taps_equal_the_layers_own_weights(unet, size):
    inputs = arguments(size)
    place = "down_blocks.0.attentions.1"
    layer = f"{place}.transformer_blocks.0"
    taps = tapped(unet, PUBLISHED["primedepth-attention"])
    maps = taps(**inputs)
    seen = {}
    for name in ("attn1", "attn2"):
        attention = unet.get_submodule(f"{layer}.{name}")
        handle = attention.register_forward_pre_hook(
            lambda m, args, kwargs, name=name: seen.update({name: (args[0], kwargs.get("encoder_hidden_states"))}),
            with_kwargs=True,
        )
        unet(**inputs)
        handle.remove()
        hidden, text = seen[name]
        query, key = attention.to_q(hidden), attention.to_k(hidden if text is None else text)
        weights = attention.get_attention_scores(*(attention.head_to_batch_dim(part) for part in (query, key)))
        weights = weights.unflatten(0, (2, attention.heads))
        if name == "attn1":
            weights = official_pooling(weights, *size)
            weights = weights / weights.amax((-1, -2), keepdim=True)
        expected = weights.permute(0, 1, 3, 2).reshape(2, -1, *size)
        value = maps[f"{place}.{'self' if name == 'attn1' else 'cross'}"]
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-4)
    last = "up_blocks.3.attentions.2.cross"
    torch.testing.assert_close(
        maps[last].unflatten(1, (-1, 7)).sum(2), torch.ones(2, 2, *size), atol=1e-5, rtol=0
    )  # the weights of 7 tokens, a head


def test_pooled_attention_needs_no_matrix():
    query = torch.randn(1, 1, 96 * 96, 64)
    pool = pooling_matrix(96, 96)
    with FlopCounterMode(display=False) as counter:
        pooled_attention(query.to("meta"), query.to("meta"), pool.to("meta"), 0.125)
    assert counter.get_total_flops() == 4 * (96 * 96) ** 2 * 64
    with torch.profiler.profile(profile_memory=True) as profile:
        pooled_attention(query, query, pool, 0.125)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest < 16 * query.numel() * query.element_size()  # the matrix would be 144 times as large


def test_wrong_taps(unet):
    with pytest.raises(InputError, match=r"no module of the network is called 'up_blocks.7'.*down_blocks"):
        tapped(unet, [Tap("up_blocks.7")])
    with pytest.raises(InputError, match="several taps are called 'x'"):
        tapped(unet, [Tap("up_blocks.*", name="x")])
    with pytest.raises(InputError, match="more than the stars"):
        tapped(unet, [Tap("up_blocks.1", name="{0}")])
    with pytest.raises(InputError, match="has no residual branch"):
        tapped(unet, [Tap("conv_in", "branch")])
    with pytest.raises(InputError, match="is no attention layer"):
        tapped(unet, [Tap("conv_in", "attention")])
    with pytest.raises(InputError, match="tap point 'middle'"):
        Tap("conv_in", "middle")
    with pytest.raises(InputError, match="tap path"):
        Tap("up_blocks..1")
    with pytest.raises(InputError, match="is empty"):
        TapSet("mine", ())
    with pytest.raises(InputError, match="which is no map"):
        tapped(unet, [Tap("time_embedding")])(**arguments((8, 8)))
    with pytest.raises(InputError, match="without passing the tap 'mid_block'"):
        tapped(unet, [Tap("mid_block")]).watch(lambda: unet.conv_in(torch.zeros(1, 4, 8, 8)))
    with pytest.raises(InputError, match="8 x 0 keys"):
        pooling_matrix(8, 0)


def golden_tap(name):
    """A tap by the name that it has in flops_truncated_unet.json; None for the whole pass."""
    if name.startswith("conv_out"):
        return None
    path = name.removesuffix(" (with upsampler)")
    if path.endswith(".conv2"):
        return Tap(path.removesuffix(".conv2"), "branch", name=name)
    return Tap(path.replace(".attn1", ".transformer_blocks.0.attn1"), name=name)


def count_at(name, counter, counted):
    """A hook that notes what has been counted when it is reached."""
    return lambda module, inputs, output: counted.update({name: counter.get_total_flops()})


def test_golden_flops(golden_files, read_json):
    """Counted FLOPs of truncated forward passes at full size, on the meta device."""
    from diffusers import UNet2DConditionModel

    sd1 = {"attention_head_dim": 8, "cross_attention_dim": 768, "use_linear_projection": False}
    for path in golden_files("features", "flops_truncated_unet.json"):
        table = read_json(path)
        for case, rows in table.items():
            if not case.startswith("SD"):
                continue
            config, pixels = {**SD2_UNET, **(sd1 if case.startswith("SD1") else {})}, int(case.split("@")[1])
            with torch.device("meta"):
                unet = UNet2DConditionModel(**config)
                x, text = torch.zeros(1, 4, pixels // 8, pixels // 8), torch.zeros(1, 77, config["cross_attention_dim"])
                inputs = {"sample": x, "timestep": torch.zeros(1), "encoder_hidden_states": text}
            wanted = {name: (teraflops, golden_tap(name)) for name, teraflops, *_ in rows["cum"]}
            # the whole table by one pass that counts as it goes; for some rows a truncated pass of its own
            counted = {}
            places = locate_taps(unet, TapSet("all", tuple(tap for _, tap in wanted.values() if tap)))
            with FlopCounterMode(display=False) as counter:
                handles = [
                    unet.get_submodule(place.path).register_forward_hook(count_at(place.name, counter, counted))
                    for place in places
                ]
                unet(**inputs)
            for handle in handles:
                handle.remove()
            assert counter.get_total_flops() == pytest.approx(rows["total_TFLOP"] * 1e12, rel=0.02)
            for name, (teraflops, tap) in wanted.items():
                if tap is not None:
                    # the file has four decimals
                    assert counted[name] == pytest.approx(teraflops * 1e12, rel=0.02, abs=6e7)
            for name in list(wanted)[5:-1:20]:
                with FlopCounterMode(display=False) as counter:
                    tapped(unet, [wanted[name][1]])(**inputs)
                assert counter.get_total_flops() == counted[name]
