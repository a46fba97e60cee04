"""SatDiFuser's own training checkpoints, read without running anything that is in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from priorscope.data.safe_pickle import Stub, stub_type
from priorscope.data.torch_pickle import load_tensors_and
from priorscope.errors import InputError
from priorscope_remote_sensing.decoder import SD_TAPS, Decoder, DecoderConfig
from priorscope_remote_sensing.fusers import ExpertFuser
from priorscope_remote_sensing.models import build_decoder


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What a checkpoint says.

    Parameters
    ----------
    weights : dict of str to Tensor
    config : dict
        The run's settings as plain values, as far as they could be read.
    epoch, global_step : int or None
    stubbed : tuple of str
        Classes in the file that were not loaded.
    """

    weights: dict[str, torch.Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    global_step: int | None = None
    stubbed: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> OfficialCheckpoint:
    """Read a file that SatDiFuser's code wrote with ``torch.save``.

    Torch's own restricted reader is tried first. It refuses the OmegaConf objects in these files; then tensors and
    plain containers are built and every other class becomes an inert stub: nothing is imported, nothing is called.

    Raises
    ------
    InputError
        No such file, a damaged one, one that asks for system functions, or one without ``decoder_net``.
    """
    path = Path(path)
    stubbed: tuple[str, ...] = ()
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content, stubbed = _load_with_stubs(path)
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"is not a checkpoint that can be read ({str(error).partition(chr(10))[0]})", path=path
        ) from None
    weights = content.get("decoder_net") if isinstance(content, dict) else None
    if not isinstance(weights, Mapping) or not weights or not all(torch.is_tensor(v) for v in weights.values()):
        raise InputError(
            "has no weights under 'decoder_net'", path=path, remedy="Is it one of SatDiFuser's checkpoints?"
        )
    numbers = {
        name: value if isinstance(value := content.get(name), int) else None for name in ("epoch", "global_step")
    }
    config = _plain(content.get("config"))
    return OfficialCheckpoint(
        # as DistributedDataParallel saves them
        {str(key).removeprefix("module."): value.float() for key, value in weights.items()},
        config if isinstance(config, dict) else {},
        stubbed=stubbed,
        **numbers,
    )


def load_official_decoder(
    path: str | Path,
    *,
    save_steps: tuple[int, ...] | None = None,
    taps: tuple[tuple[int, ...], ...] = SD_TAPS,
    **settings: Any,
) -> Decoder:
    """A decoder with the weights of one of SatDiFuser's checkpoints, past its warm-up, in evaluation mode.

    Parameters
    ----------
    path : str or Path
    save_steps : tuple of int, optional
        Default: what the checkpoint's settings say, else (47, 45, 40).
    taps : tuple of tuple of int
        Channels of the taps by scale: not to be read off the weights. Default: a Stable-Diffusion-sized U-Net's.
    **settings
        Of :class:`DecoderConfig`, where neither weights nor settings tell: ``top_k``, ``temperature``,
        ``norm_groups``.

    Notes
    -----
    Weights of a localised fuser were trained to see the first tap of a scale only, so that is how they are used.
    """
    found = read_checkpoint(path)
    weights = found.weights
    try:
        config = _infer(found, tuple(save_steps) if save_steps else None, taps, settings)
        decoder = build_decoder(config)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    try:
        decoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the weights do not fit: {reason}", path=path, remedy="Are taps and save_steps those of the training?"
        ) from None
    if isinstance(decoder, ExpertFuser):
        decoder.end_warmup()
    return decoder.eval()


def _infer(
    found: OfficialCheckpoint,
    save_steps: tuple[int, ...] | None,
    taps: tuple[tuple[int, ...], ...],
    settings: dict[str, Any],
) -> DecoderConfig:
    weights = found.weights
    kinds = {"gw": "mixing_weights", "lw": "gate_modules.0.gate_conv.weight", "moe": "scale_moes.0.temperature"}
    kind = next((kind for kind, key in kinds.items() if key in weights), None)
    head = next((key for key in ("decoder_head.2.weight", "conv_seg.weight") if key in weights), None)
    if kind is None or head is None:
        raise InputError("its weights are those of no SatDiFuser decoder")
    first = "scale_moes.0.experts.0" if kind == "moe" else "bottleneck_layers.0"
    known: dict[str, Any] = {
        "projection_dim": len(weights[f"{first}.0.conv3.norm.weight"]),
        "res_blocks": len({key.split(".")[first.count(".") + 1] for key in weights if key.startswith(f"{first}.")}),
        "first_tap_only": kind == "lw",
    }
    if kind == "moe":
        known["experts"] = len(weights["scale_moes.0.gate_network.0.bias"])
    if head == "conv_seg.weight":
        known["channels"] = weights[head].shape[1]
    for name, official in (("top_k", "top_k"), ("temperature", "gating_tempature"), ("norm_groups", "num_norm_groups")):
        stated = _search(found.config, official)
        if isinstance(stated, int | float):
            known[name] = stated
    if save_steps is None:
        stated = _search(found.config, "save_timesteps")
        save_steps = tuple(stated) if isinstance(stated, list) and stated else (47, 45, 40)
    return DecoderConfig(
        kind,  # type: ignore[arg-type]
        "segmentation" if head == "conv_seg.weight" else "classification",
        len(weights[head]),
        **{"taps": taps, "save_steps": save_steps, **known, **settings},
    )


def _search(config: Any, name: str) -> Any:
    """The first value called ``name`` at any depth."""
    if not isinstance(config, dict):
        return None
    if name in config:
        return config[name]
    return next((value for value in (_search(part, name) for part in config.values()) if value is not None), None)


# ---- reading a pickle without trusting it -----------------------------------------------------------------------

#: No checkpoint needs these. They would be stubs like any other, but a file that names them is an attack.
_HOSTILE = ("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy", "ctypes", "webbrowser")
_HOSTILE_BUILTINS = ("eval", "exec", "compile", "open", "__import__", "getattr", "setattr", "input", "breakpoint")


def _load_with_stubs(path: Path) -> tuple[Any, tuple[str, ...]]:
    seen: list[str] = []

    def other(module: str, name: str) -> Any:
        root = module.split(".")[0]
        if root in _HOSTILE or (root in ("builtins", "__builtin__") and name in _HOSTILE_BUILTINS):
            raise InputError(
                f"asks for {module}.{name}, which no checkpoint needs", remedy="Do not trust this file; delete it."
            )
        seen.append(f"{module}.{name}")
        return stub_type(module, name)

    content = load_tensors_and(path, other)
    return content, tuple(dict.fromkeys(seen))


def _plain(value: Any, depth: int = 0) -> Any:
    """Plain values of a stub of an OmegaConf object: a node holds ``_val``, a container ``_content``."""
    if depth > 50:
        return None
    if isinstance(value, Stub):
        return _plain(vars(value).get("_content", vars(value).get("_val")), depth + 1)
    if isinstance(value, dict):
        return {str(_plain(key, depth + 1)): _plain(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, depth + 1) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else None
