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
        "norm_groups": 4,
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
        step: [torch.randn(batch, sum(taps), *size, generator=generator) for taps, size in zip(TAPS, sizes, strict=True)]
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
        net.updates_done = net.config.warmup_steps - 1
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
