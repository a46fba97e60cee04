"""The published container of zea's diffusion models: config.json beside a Keras 3 ``model.weights.h5``.

Read by h5py alone. Keras numbers layers by class in the order in which the model holds them:
``<network>/layers/conv2d_3/vars/0`` is a kernel, ``vars/1`` its bias; of a normalisation without scale the mean and the
variance. The running average that sampling uses is a network of its own in the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from priorscope.backbones.loading import read_config
from priorscope.errors import InputError
from priorscope_medical.ultrasound.angle_schedule import AngleSchedule
from priorscope_medical.ultrasound.zea_unet import ZeaBlock, ZeaUNet

Weights = Literal["ema", "raw"]
Layer = Sequence[NDArray[Any]]


def load_zea(source: str | Path, *, weights: Weights = "ema") -> tuple[ZeaUNet, AngleSchedule, tuple[float, float]]:
    """Load a diffusion model that zea has saved.

    Parameters
    ----------
    source : str or Path
        A folder with config.json and model.weights.h5.
    weights : {"ema", "raw"}
        The running average, which zea samples with, or the weights of the last step.

    Returns
    -------
    ZeaUNet, AngleSchedule, (float, float)
        In evaluation mode without gradients; and the range of values of its images.

    Raises
    ------
    InputError
        Nothing there, another class or network, a damaged file, weights that do not fit the sizes.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise InputError("no such folder", path=folder, remedy="Give the folder of config.json and model.weights.h5.")
    if (folder / "diffusion_pytorch_model.safetensors").exists():
        raise InputError("is a folder of this project's, not zea's", path=folder, remedy="Use ZeaUNet.from_pretrained.")
    config = _model_config(read_config(folder), folder / "config.json")
    network = ZeaUNet(**network_sizes(config, folder / "config.json"))
    convolutions, norms = read_keras_layers(folder / "model.weights.h5", weights)
    fill(network, convolutions, norms, folder / "model.weights.h5")
    schedule = AngleSchedule(config.get("min_signal_rate", 0.02), config.get("max_signal_rate", 0.95))
    low, high = config.get("input_range", (0, 1))
    return network.eval().requires_grad_(False), schedule, (float(low), float(high))


def network_sizes(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """:class:`ZeaUNet`'s parameters from the configuration of a zea ``DiffusionModel``."""
    sizes = dict(config.get("network_kwargs") or {})
    for name in ("widths", "block_depth"):
        if name in config:
            sizes.setdefault(name, config[name])
    kind = config.get("network_name", "unet_time_conditional")
    normalisation = sizes.pop("normalization", "batch_norm")
    if kind != "unet_time_conditional" or normalisation != "batch_norm":
        raise InputError(
            f"is a {kind} network with {normalisation}",
            path=path,
            remedy="Only unet_time_conditional with batch_norm is read.",
        )
    shape = config.get("input_shape") or config.get("image_shape")
    if not isinstance(shape, list) or len(shape) != 3:
        raise InputError(f"input_shape is {shape!r}, (height, width, channels) was expected", path=path)
    names = {
        "widths": "widths",
        "block_depth": "block_depth",
        "embedding_min_frequency": "lowest_frequency",
        "embedding_max_frequency": "highest_frequency",
        "embedding_dims": "embedding",
    }
    unknown = sorted(set(sizes) - set(names))
    if unknown:
        raise InputError(
            f"network_kwargs has {', '.join(unknown)}", path=path, remedy="Such a network is not known here."
        )
    return {
        "image_channels": int(shape[-1]),
        **{names[key]: value for key, value in sizes.items() if value is not None},
    }


def read_keras_layers(path: Path, weights: Weights = "ema") -> tuple[list[Layer], list[Layer]]:
    """Arrays of the convolutions and of the normalisations of a network in a Keras 3 weights file, in its order."""
    if weights not in ("ema", "raw"):
        raise InputError(f"weights {weights!r}", remedy="Use 'ema' or 'raw'.")
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading HDF5 needs h5py", path=path, remedy="pip install 'priorscope[medical]'") from error
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Was the download complete?")
    try:
        with h5py.File(path, "r") as file:
            networks: dict[str, dict[str, dict[int, NDArray[Any]]]] = {}

            def visit(name: str, item: Any) -> None:
                found = re.fullmatch(r"(?:(.*)/)?layers/((?:conv2d|batch_normalization)(?:_\d+)?)/vars/(\d+)", name)
                if found and isinstance(item, h5py.Dataset):
                    layers = networks.setdefault(found[1] or "", {})
                    layers.setdefault(found[2], {})[int(found[3])] = np.asarray(item, dtype=np.float32)

            file.visititems(visit)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"is truncated or no HDF5 file ({reason})", path=path, remedy="Copy it again.") from error
    layers = networks[_choose(networks, weights, path)]
    return _in_order(layers, "conv2d"), _in_order(layers, "batch_normalization")


def fill(network: ZeaUNet, convolutions: Iterable[Layer], norms: Iterable[Layer], path: Path | None = None) -> None:
    """Put Keras' arrays into ``network``, in its order; kernels are (height, width, in, out).

    Of a block's convolutions the one of a single pixel is the shortcut, wherever it stands among them.
    """
    left = list(convolutions)
    try:
        _set_conv(network.begin, left.pop(0))
        for block, norm in zip(network.blocks(), norms, strict=True):
            _set_norm(block.norm, norm)
            count = 2 if isinstance(block.shortcut, nn.Identity) else 3
            own, left = left[:count], left[count:]
            wide = [layer for layer in own if layer[0].shape[0] != 1]
            narrow = [layer for layer in own if layer[0].shape[0] == 1]
            for module, layer in zip(_convs(block), [*wide, *narrow], strict=True):
                _set_conv(module, layer)
        _set_conv(network.end, left.pop(0))
    except (IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"does not hold the layers of a U-Net of widths {list(network.config.widths)} and "
            f"{network.config.block_depth} blocks a level ({error})",
            path=path,
            remedy="Do config.json and the weights belong together?",
        ) from None
    except _Misfit as error:
        raise InputError(str(error), path=path, remedy="Do config.json and the weights belong together?") from None
    if left:
        raise InputError(f"holds {len(left)} convolutions too many", path=path)


class _Misfit(Exception):
    pass


def _convs(block: ZeaBlock) -> list[nn.Conv2d]:
    convs: list[nn.Conv2d] = [block.conv_0, block.conv_1]
    return [*convs, block.shortcut] if isinstance(block.shortcut, nn.Conv2d) else convs


def _set_conv(module: nn.Conv2d, layer: Layer) -> None:
    kernel, bias = layer
    weight = torch.from_numpy(np.ascontiguousarray(np.transpose(kernel, (3, 2, 0, 1))))
    _copy(module.weight, weight)
    assert module.bias is not None
    _copy(module.bias, torch.from_numpy(np.array(bias)))


def _set_norm(module: nn.BatchNorm2d, layer: Layer) -> None:
    mean, variance = layer
    assert module.running_mean is not None
    assert module.running_var is not None
    _copy(module.running_mean, torch.from_numpy(np.array(mean)))
    _copy(module.running_var, torch.from_numpy(np.array(variance)))


def _copy(target: torch.Tensor, value: torch.Tensor) -> None:
    if target.shape != value.shape:
        raise _Misfit(f"holds a weight of shape {tuple(value.shape)} where {tuple(target.shape)} was expected")
    with torch.no_grad():
        target.copy_(value)


def _choose(networks: Mapping[str, Any], weights: Weights, path: Path) -> str:
    """Which of the networks in a file: the one called ema, or the other one."""
    averages = [name for name in networks if "ema" in name.split("/")[0]]
    others = [name for name in networks if name not in averages]
    wanted = averages if weights == "ema" else others
    if not averages and len(others) == 1:
        return others[0]  # a bare network
    if len(wanted) != 1:
        listed = ", ".join(name or "(root)" for name in sorted(networks)) or "none"
        raise InputError(f"holds no single {weights} network; those with layers: {listed}", path=path)
    return wanted[0]


def _in_order(layers: Mapping[str, Mapping[int, NDArray[Any]]], kind: str) -> list[Layer]:
    numbered = {}
    for name, arrays in layers.items():
        if re.fullmatch(rf"{kind}(_\d+)?", name):
            number = int(name.removeprefix(kind).lstrip("_") or 0)
            numbered[number] = [arrays[index] for index in sorted(arrays)]
    return [numbered[number] for number in sorted(numbered)]


def _model_config(config: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The arguments in Keras' serialisation of an object."""
    name = config.get("class_name")
    if name not in ("DiffusionModel", "UNetTimeConditional") or not isinstance(config.get("config"), dict):
        raise InputError(f"describes {name!r}, a zea DiffusionModel was expected", path=path)
    return json.loads(json.dumps(config["config"]))
