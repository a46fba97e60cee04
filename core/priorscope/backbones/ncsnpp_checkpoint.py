"""The published container of NCSN++: a training checkpoint of ``score_sde_pytorch`` (DiffusionMBIR's .pth files)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from priorscope.backbones.loading import load_component
from priorscope.backbones.ncsnpp import NCSNpp
from priorscope.backbones.state_dict import check_weights
from priorscope.data.torch_pickle import load_mapped
from priorscope.errors import InputError

Weights = Literal["ema", "raw"]


def load_ncsnpp(source: str | Path, *, weights: Weights = "ema", config: Mapping[str, Any] | None = None) -> NCSNpp:
    """Load NCSN++ from our own folder (config.json, safetensors) or from a published training checkpoint.

    Parameters
    ----------
    source : str or Path
        A folder that ``save_pretrained`` wrote, or a .pth file with ``model`` and ``ema``.
    weights : {"ema", "raw"}
        Of a .pth file: the running average, which official sampling uses, or the weights of the last step.
    config : mapping, optional
        Of a .pth file: sizes that differ from :class:`NCSNpp`'s defaults, which are those of the published AAPM
        and knee checkpoints. The noise levels are read from the file.

    Returns
    -------
    NCSNpp
        In evaluation mode, float32, without gradients.

    Raises
    ------
    InputError
        Nothing there, a damaged file, one that wants to run code, or weights that do not fit the sizes to the last
        key.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if config is not None:
            raise InputError("a folder has its own config.json", path=path, remedy="Leave config out.")
        return load_component(NCSNpp, path)
    if weights not in ("ema", "raw"):
        raise InputError(f"weights {weights!r}", remedy="Use 'ema' or 'raw'.")
    content = _read(path)
    model = {str(key).removeprefix("module."): value for key, value in _tensors(content, "model", path).items()}
    levels = _levels(model.pop("sigmas", None), path)
    network = NCSNpp(**{**dict(config or {}), **levels})
    names = [name for name, weight in network.named_parameters() if weight.requires_grad]
    if weights == "ema":
        model |= _shadow(content, names, path)
    check_weights(network, model, path, remedy="Give the sizes it was trained with as config.")
    network.load_state_dict(model)
    network.eval()
    network.requires_grad_(False)
    return network


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(
            "no such checkpoint", path=path, remedy="Give a .pth file or a folder with config.json and safetensors."
        )
    try:
        # mapped, not read: two thirds of the file are the optimiser's
        content = load_mapped(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"holds more than tensors and plain values ({_first_line(error)})",
            path=path,
            remedy="Such a file can run code. Load it where it was made and save only 'model' and 'ema'.",
        ) from None
    except Exception as error:  # a damaged archive may raise anything
        raise InputError(
            f"is not a checkpoint that can be read ({_first_line(error)})", path=path, remedy="Download it again."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"holds a {type(content).__name__}, not a training checkpoint", path=path)
    return content


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    # torch's advice is to switch the protection off
    return text.replace("Weights only load failed.", "").strip().partition("\n")[0][:160]


def _tensors(content: dict[str, Any], name: str, path: Path) -> dict[str, torch.Tensor]:
    value = content.get(name)
    if not isinstance(value, Mapping) or not value or not all(torch.is_tensor(v) for v in value.values()):
        found = ", ".join(sorted(str(key) for key in content)[:8])
        raise InputError(f"has no weights under {name!r} (it has {found or 'nothing'})", path=path)
    return dict(value)


def _levels(sigmas: torch.Tensor | None, path: Path) -> dict[str, Any]:
    """The noise levels of the buffer ``sigmas`` (falling, float64); the configuration's where there is none."""
    if sigmas is None:
        return {}
    if sigmas.ndim != 1 or len(sigmas) < 2 or not 0 < float(sigmas[-1]) < float(sigmas[0]) < float("inf"):
        raise InputError("its buffer 'sigmas' is no falling list of noise levels", path=path)
    # exp(log()) in the file: 378.0000000000001
    return {
        "sigma_max": float(f"{float(sigmas[0]):.10g}"),
        "sigma_min": float(f"{float(sigmas[-1]):.10g}"),
        "num_scales": len(sigmas),
    }


def _shadow(content: dict[str, Any], names: list[str], path: Path) -> dict[str, torch.Tensor]:
    """The running average by name: the file holds a list, in the order of the weights that are trained."""
    ema = content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(shadow, list | tuple) or not all(torch.is_tensor(value) for value in shadow):
        raise InputError(
            "has no running average under 'ema'", path=path, remedy="weights='raw' loads those of the last step."
        )
    if len(shadow) != len(names):
        raise InputError(
            f"its running average has {len(shadow)} tensors, but this network trains {len(names)}",
            path=path,
            remedy="Give the sizes it was trained with as config.",
        )
    return dict(zip(names, shadow, strict=True))
