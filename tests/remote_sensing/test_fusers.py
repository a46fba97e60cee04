"""SatDiFuser's fusers and heads: published values, batches, sizes, sparse against dense experts, wrong features."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope_remote_sensing.decoder import DecoderConfig
from priorscope_remote_sensing.fusers import load_balance, official_load_balance
from priorscope_remote_sensing.models import build_decoder

TAPS = ((4, 8), (8,), (16, 4))
ALL = [(fuser, head) for fuser in ("gw", "lw", "moe") for head in ("classification", "segmentation")]
#: "atol 1e-5 rtol 1e-4" of the cases.
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def config(fuser="gw", head="classification", **changes):
    settings = {
        "num_classes": 3,
        "taps": TAPS,
        "save_steps": (40, 47),
        "projection_dim": 16,
        "norm_groups": 2,
        "experts": 4,
        "warmup_steps": 0,
        "channels": 8,
    }
    return DecoderConfig(fuser, head, **{**settings, **changes})


def decoder(*args, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_decoder(config(*args, **changes))


def random_features(batch=3, sizes=((8, 12), (4, 6), (2, 3)), steps=(47, 40), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        step: [
            torch.randn(batch, sum(taps), *size, generator=generator) for taps, size in zip(TAPS, sizes, strict=True)
        ]
        for step in steps
    }


def rows(features, part):
    return {step: [scale[part] for scale in scales] for step, scales in features.items()}


def golden_config(case):
    given = case["config"]
    names = {"gating_tempature": "temperature", "num_experts": "experts", "num_norm_groups": "norm_groups"}
    names |= {"num_res_blocks": "res_blocks", "save_timesteps": "save_steps"}
    _, _, fuser, head = case["name"].split("_")
    settings = {names.get(key, key): value for key, value in given.items()}
    settings["taps"] = list(settings.pop("feature_dims").values())
    assert settings.pop("align_corners", False) is False
    assert set(settings.pop("rescales", [1])) == {1}
    head = {"cls": "classification", "seg": "segmentation"}[head]
    # the official "lw" reads the first tap of a scale in place of all
    return DecoderConfig.from_dict({"fuser": fuser, "head": head, "first_tap_only": fuser == "lw", **settings})


def test_golden_satdifuser_fuser(golden_files, read_json):
    cases = [
        path
        for path in golden_files("features", "satdifuser_fuser_*")
        if path.suffix == ".json" and path.stem != "satdifuser_fuser_inputs"
    ]
    assert cases
    for path in cases:
        case = {"name": path.stem, **read_json(path)}
        tensors = load_file(path.with_suffix(".safetensors"))
        features: dict[int, list[torch.Tensor]] = {}
        for key, value in sorted(load_file(path.with_name(case["inputs"])).items()):
            features.setdefault(int(key.split(".")[1]), []).append(value)
        net = build_decoder(golden_config(case)).eval()
        net.load_state_dict({key[2:]: value for key, value in tensors.items() if key.startswith("w.")})
        size = case["output_shape"] and tuple(case["output_shape"])
        with torch.no_grad():
            check_case(net, features, size, tensors)


def check_case(net, features, size, tensors):
    calls = sum(key.startswith("out.call") for key in tensors)
    if calls:
        net.official_counter = True
        for call in range(1, calls + 1):
            fused = net.fuse(features)
            torch.testing.assert_close(net.decode(fused.maps, size), tensors[f"out.call{call}"], **CLOSE)
            torch.testing.assert_close(official_load_balance(fused.gates)[None], tensors[f"misc.call{call}"], **CLOSE)
        net.official_counter = False
        net.updates_done.fill_(net.config.warmup_steps - 1)
        torch.testing.assert_close(net(features, size), tensors["out.call1"], **CLOSE)
        net.update_done()
    expected = tensors.get("out", tensors.get("out.call3"))
    fused = net.fuse(features)
    torch.testing.assert_close(net.decode(fused.maps, size), expected, **CLOSE)
    for index, scale in enumerate(fused.maps):
        name = f"fused.{index}" if f"fused.{index}" in tensors else f"fused_after_warmup.{index}"
        torch.testing.assert_close(scale, tensors[name], **CLOSE)
    if net.config.fuser == "lw":
        for index, gate in enumerate(fused.gates):
            torch.testing.assert_close(gate, tensors[f"misc.{index}"], **CLOSE)
    elif net.config.fuser == "gw":
        torch.testing.assert_close(fused.gates[0], tensors["misc"], **CLOSE)
    elif "misc" in tensors:
        torch.testing.assert_close(official_load_balance(fused.gates)[None], tensors["misc"], **CLOSE)
    for index in range(len(expected)):
        alone = net(rows(features, slice(index, index + 1)), size)
        torch.testing.assert_close(alone[0], expected[index], **CLOSE)


@pytest.mark.parametrize(("fuser", "head"), ALL)
@pytest.mark.parametrize("sizes", [((8, 12), (4, 6), (2, 3)), ((9, 5), (5, 3), (3, 2)), ((1, 1), (1, 1), (1, 1))])
def test_any_size_and_any_batch(fuser, head, sizes):
    """Non-square maps, maps that do not halve exactly, single pixels; images do not see each other."""
    net = decoder(fuser, head).eval()
    features = random_features(sizes=sizes)
    size = (13, 7) if head == "segmentation" else None
    with torch.no_grad():
        whole = net(features, size)
        alone = torch.cat([net(rows(features, slice(i, i + 1)), size) for i in range(3)])
    assert whole.shape == ((3, 3, 13, 7) if size else (3, 3))
    torch.testing.assert_close(whole, alone, atol=1e-5 * float(whole.abs().max()), rtol=0)
    assert float((whole[0] - whole[1]).abs().max()) > 1e-4


@pytest.mark.parametrize("fuser", ["gw", "lw", "moe"])
def test_one_pass_over_all_steps_equals_one_pass_a_step(fuser):
    """The published order of weights, spelled out: the cleanest step first, then the taps of all scales."""
    net = decoder(fuser).eval()
    features = random_features()
    with torch.no_grad():
        fused = net.fuse(features)
        first = 0
        for scale, widths in enumerate(TAPS):
            if fuser == "moe":
                moe = net.scale_moes[scale]
                expected = sum(slow_experts(moe, features[step][scale], net.config.top_k) for step in (47, 40)) / 2
            else:
                parts, weights = [], []
                for rank, step in enumerate((47, 40)):
                    for tap, x in enumerate(features[step][scale].split(widths, 1)):
                        parts.append(net.bottleneck_layers[first + tap](x))
                        weights.append(fused.gates[0][rank * 5 + first + tap] if fuser == "gw" else None)
                if fuser == "lw":
                    weights = list(fused.gates[scale].unsqueeze(2).unbind(1))
                expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
            torch.testing.assert_close(fused.maps[scale], expected, atol=1e-6, rtol=1e-5)
            first += len(widths)


def slow_experts(moe, x, top_k):
    """Every expert on every image, then all but the best thrown away."""
    logits = moe(x, 0, top_k)[1]
    best, chosen = logits.topk(top_k, 1)
    shares = torch.zeros_like(logits).scatter(1, chosen, best.softmax(1))
    return sum(shares[:, e, None, None, None] * expert(x) for e, expert in enumerate(moe.experts))


def test_localised_gates_sum_to_one_and_see_every_tap():
    net = decoder("lw").eval()
    features = random_features()
    with torch.no_grad():
        fused = net.fuse(features)
        for gate in fused.gates:
            torch.testing.assert_close(gate.sum(1), torch.ones_like(gate.sum(1)))
        for scale, widths in enumerate(TAPS):
            for tap in range(len(widths)):
                changed = {step: [x.clone() for x in scales] for step, scales in features.items()}
                changed[47][scale][:, sum(widths[:tap]) : sum(widths[: tap + 1])] *= -1
                assert not torch.allclose(net.fuse(changed).maps[scale], fused.maps[scale], atol=1e-4)


def test_official_localised_fuser_is_blind_to_later_taps():
    taps = ((4, 4), (8,), (16, 16))
    features = {step: [torch.randn(2, sum(widths), 4, 4) for widths in taps] for step in (40, 47)}
    changed = {step: [scales[0].clone(), *scales[1:]] for step, scales in features.items()}
    for scales in changed.values():
        scales[0][:, 4:] = 0
    for blind in (True, False):
        net = decoder("lw", taps=taps, first_tap_only=blind).eval()
        assert torch.equal(net(features), net(changed)) is blind
    with pytest.raises(InputError, match="equally wide"):
        config("lw", first_tap_only=True)
    with pytest.raises(InputError, match="for 'lw'"):
        config("gw", taps=taps, first_tap_only=True)


def test_experts_computed_are_those_chosen():
    net = decoder("moe", experts=4, top_k=2).eval()
    seen = [0] * 4
    for index, expert in enumerate(net.scale_moes[0].experts):
        expert.register_forward_hook(lambda _, args, __, index=index: seen.__setitem__(index, len(args[0])))
    with torch.no_grad():
        net(random_features(batch=5))
    assert sum(seen) == 2 * 5 * 2  # steps, images, experts an image
    seen[:] = [0] * 4
    net.updates_done.fill_(-1)
    with torch.no_grad():
        net(random_features(batch=5))
    assert seen == [10] * 4


def test_sparse_experts_have_the_gradients_of_dense_ones():
    """An expert that no image chose has zero gradients, not none: several processes must agree on them."""
    net = decoder("moe", experts=4, top_k=1).train()
    features = random_features(batch=1)
    net(features).square().sum().backward()
    moe = net.scale_moes[1]
    given = {name: parameter.grad.clone() for name, parameter in moe.named_parameters()}
    zero = [e for e in range(4) if all(not given[n].any() for n in given if n.startswith(f"experts.{e}."))]
    assert len(zero) >= 2  # two steps of one image choose at most two
    for parameter in net.parameters():
        assert parameter.grad is not None
    net.zero_grad()
    stack = [torch.cat([features[step][s] for step in (47, 40)]) for s in range(3)]
    maps = [slow_experts(m, x, 1).mean(0, keepdim=True) for m, x in zip(net.scale_moes, stack, strict=True)]
    net.decode(maps).square().sum().backward()
    for name, parameter in moe.named_parameters():
        torch.testing.assert_close(parameter.grad, given[name], atol=1e-6, rtol=1e-4)


def test_warmup_counts_updates_and_nothing_else():
    net = decoder("moe", warmup_steps=2).eval()
    features = random_features()
    with torch.no_grad():
        dense = net(features)
        assert torch.equal(net(features), dense)  # evaluation does not count
        net.update_done()
        assert torch.equal(net(features), dense)
        net.update_done()
        sparse = net(features)
    assert not torch.allclose(sparse, dense, atol=1e-4)
    assert "updates_done" not in net.state_dict()
    fresh = decoder("moe", warmup_steps=2).eval()
    fresh.load_state_dict(net.state_dict())
    fresh.end_warmup()
    with torch.no_grad():
        assert torch.equal(fresh(features), sparse)
    net.keep_counter()
    resumed = decoder("moe", warmup_steps=2)
    resumed.keep_counter()
    resumed.load_state_dict(net.state_dict())
    assert int(resumed.updates_done) == 2


def test_load_balance_is_a_divergence_from_even_use():
    even = torch.full((2, 6, 4), 0.25)
    one = torch.zeros(2, 6, 4)
    one[..., 2] = 1
    torch.testing.assert_close(load_balance([even, even]), torch.tensor(0.0))
    torch.testing.assert_close(load_balance([one]), torch.tensor(math.log(4)))
    torch.testing.assert_close(load_balance([even, one]), torch.tensor(math.log(4) / 2))
    # images that each use one expert, but not the same one, are balanced
    torch.testing.assert_close(load_balance([torch.eye(4)[None]]), torch.tensor(0.0))
    torch.testing.assert_close(official_load_balance([even, one]), torch.tensor(-math.log(4) / 2))
    logits = torch.randn(1, 8, 4, requires_grad=True)
    before = load_balance([logits.softmax(-1)])
    before.backward()
    after = load_balance([(logits - logits.grad).softmax(-1)])
    assert after < before


@pytest.mark.parametrize(("fuser", "head"), ALL)
def test_every_weight_learns(fuser, head):
    net = decoder(fuser, head).train()
    logits = net(random_features(batch=4))
    labels = torch.randint(0, 3, (4, *logits.shape[2:]), generator=torch.Generator().manual_seed(0))
    torch.nn.functional.cross_entropy(logits, labels).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    silent = {name for name, parameter in net.named_parameters() if not parameter.grad.any()}
    assert not {name for name in silent if "experts" not in name and "bias" not in name}


def test_half_precision_features():
    net = decoder("gw").eval()
    features = random_features()
    half = {step: [scale.half() for scale in scales] for step, scales in features.items()}
    with torch.no_grad():
        torch.testing.assert_close(net(half), net(features), atol=5e-3, rtol=0)


def test_wrong_features():
    net = decoder("gw").eval()
    features = random_features()
    for wrong, word in (
        ({47: features[47]}, r"no features of save steps \[40\]"),
        ({**features, 40: features[40][:2]}, "expected"),
        ({**features, 40: [scale[:, 1:] for scale in features[40]]}, "expected"),
        ({**features, 40: [scale[0] for scale in features[40]]}, "expected"),
        ({**features, 40: [scale[:, :, 1:] for scale in features[40]]}, "differ in shape"),
    ):
        with pytest.raises(InputError, match=word):
            net(wrong)


def test_single_image_cannot_train_segmentation():
    net = decoder("gw", "segmentation").train()
    with pytest.raises(InputError, match="batches of 2"):
        net(random_features(batch=1))
    assert torch.isfinite(net(random_features(batch=2))).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"fuser": "mean"}, "fuser"),
        ({"head": "detection"}, "head"),
        ({"num_classes": 0}, "classes"),
        ({"save_steps": ()}, "save steps"),
        ({"save_steps": (47, 47)}, "repeat"),
        ({"taps": ((4,), ())}, "tap"),
        ({"projection_dim": 20}, "projection_dim"),
        ({"top_k": 5}, "top_k"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"norm_groups": 0}, "norm_groups"),
        ({"res_blocks": 0}, "res_blocks"),
        ({"channels": 0}, "channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"pool_scales": (1, 0)}, "pool_scales"),
    ],
)
def test_senseless_settings(changes, word):
    with pytest.raises(InputError, match=word):
        config(**changes)


def test_settings_survive_json():
    import json

    given = config("moe", "segmentation", top_k=3)
    assert DecoderConfig.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    with pytest.raises(InputError, match="unknown settings of a decoder: colour"):
        DecoderConfig.from_dict({**given.to_dict(), "colour": 1})
    with pytest.raises(InputError, match="num_classes"):
        DecoderConfig.from_dict({"fuser": "gw", "head": "classification"})
    with pytest.raises(InputError):
        DecoderConfig.from_dict({**given.to_dict(), "save_steps": 47})


def test_two_processes_normalise_as_one(tmp_path):
    """The batch norms of a segmentation head see the batch of all processes: same statistics, same gradients."""
    import torch.multiprocessing as processes

    processes.spawn(train_half, (str(tmp_path),), nprocs=2)
    net, loss = segmenter_loss(slice(0, 4))
    loss.backward()
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, parameter in net.named_parameters():
        mean = (halves[0]["grad"][name] + halves[1]["grad"][name]) / 2
        # a bias before a batch norm has no gradient but rounding
        torch.testing.assert_close(mean, parameter.grad, atol=2e-6, rtol=1e-3)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(halves[0]["buffers"][name], buffer, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(halves[1]["buffers"][name], halves[0]["buffers"][name], atol=0, rtol=0)


def segmenter_loss(part):
    net = decoder("gw", "segmentation", dropout=0.0).train()
    logits = net(rows(random_features(batch=4), part))
    target = torch.randn(4, *logits.shape[1:], generator=torch.Generator().manual_seed(3))
    return net, (logits - target[part]).square().mean()


def train_half(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    net, loss = segmenter_loss(slice(2 * rank, 2 * rank + 2))
    loss.backward()
    grad = {name: parameter.grad for name, parameter in net.named_parameters()}
    torch.save({"grad": grad, "buffers": dict(net.named_buffers())}, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
