"""Strict loading: what a published folder holds must be what the module needs, to the last key."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from priorscope.backbones.table import PublishedModel, find_published, refuse_by_hand, unknown_model
from priorscope.data.files import write_text
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

_WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)

_OTHER_COPIES = ("*.bin", "*.msgpack", "*.onnx", "*.pb", "*.fp16.*", "*non_ema*")


def _holds_weights(folder: Path) -> bool:
    """Whether a sub-folder needs no second look: it has weights, or is one that has none (scheduler, tokenizer)."""
    names = {path.name for path in folder.iterdir()}
    return bool(names & set(_WEIGHTS)) or "config.json" not in names


def locate(source: str | Path, parts: Sequence[str], *, revision: str | None = None) -> Path:
    """The local folder of a model: ``source`` itself, or its copy in the Hugging Face cache.

    Parameters
    ----------
    source : str or Path
        A local folder, or a hub id ``owner/name``, which is downloaded once.
    parts : sequence of str
        Sub-folders and files needed (``"unet"``, ``"model_index.json"``); nothing else is downloaded.
    revision : str, optional
        Branch, tag or commit on the hub.

    Raises
    ------
    InputError
        Neither a folder nor reachable: names what to do.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError("is a file, not a model folder", path=folder, remedy="Give the folder that holds unet/.")
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError("no such model folder", path=name, remedy="Check the path; `priorscope models` lists names.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [pattern for part in parts for pattern in (part, f"{part}/*")]
    try:
        # repositories often hold the same weights three times; the float32 safetensors are enough
        found = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHER_COPIES))
        lacking = [f"{part}/*" for part in parts if (found / part).is_dir() and not _holds_weights(found / part)]
        if lacking:
            snapshot_download(name, revision=revision, allow_patterns=lacking)
        return found
    except LocalEntryNotFoundError:
        raise InputError(
            f"the model {name} is not in the local cache and the hub cannot be reached",
            remedy=f"On a machine with network run `hf download {name}`, then give the folder it prints.",
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the model {name} could not be fetched from the hub: {reason}",
            remedy=f"Check the name, or run `hf download {name}` elsewhere and give the folder it prints.",
        ) from None


def model_folder(
    source: str | Path, parts: Sequence[str], rows: Sequence[PublishedModel], *, revision: str | None = None
) -> Path:
    """The local folder of a model by its name in the model table, its path, or its hub id.

    A name wins over a folder of the same name in the working directory: ``./name`` means the folder.

    Parameters
    ----------
    source : str or Path
    parts : sequence of str
        As for :func:`locate`.
    rows : sequence of PublishedModel
        The names that are known here.
    revision : str, optional

    Raises
    ------
    InputError
        Unknown names, models that have to be fetched by hand, and whatever :func:`locate` refuses.
    """
    row = find_published(str(source), rows)
    refuse_by_hand(row)
    if row is None and "/" not in str(source) and not Path(source).expanduser().exists():
        raise unknown_model(str(source), rows)
    return locate(source if row is None else row.source, parts, revision=revision)


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The JSON file ``name`` of ``folder`` as a dictionary."""
    path = folder / name
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            "is missing", path=path, remedy="Is this a model folder in diffusers' layout, downloaded completely?"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not valid JSON ({error})", path=path) from None
    if not isinstance(config, dict):
        raise InputError("does not hold a JSON object", path=path)
    return config


def load_component(
    cls: type[ModuleT],
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    expect: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> ModuleT:
    """Load a diffusers or transformers module from its sub-folder, and refuse any key that does not fit.

    diffusers itself only warns about missing keys and leaves those weights random.

    Parameters
    ----------
    cls : type
        A class with ``from_pretrained``.
    folder : Path
        ``config.json`` and weights (safetensors, or a torch file read with ``weights_only=True``).
    dtype : torch.dtype
        Of the loaded weights.
    expect : dict, optional
        Values that the configuration must have, checked before the weights are read.
    settings : dict, optional
        Values that win over the configuration, where published files do not state what their code passes by hand.

    Returns
    -------
    module in evaluation mode, without gradients
    """
    config = read_config(folder) | (settings or {})
    for key, value in (expect or {}).items():
        if config.get(key) != value:
            raise InputError(
                f"{cls.__name__} has {key} = {config.get(key)!r}, but this model family needs {value!r}",
                path=folder,
                remedy="These are the weights of another family: check --model and --family.",
            )
    if not any((folder / name).exists() for name in _WEIGHTS) and not list(folder.glob("*.fp16.safetensors")):
        raise InputError("holds no weights", path=folder, remedy="Was the download complete?")
    variant = None if any((folder / name).exists() for name in _WEIGHTS) else "fp16"
    dtype_key = "torch_dtype" if "diffusers" in cls.__module__ else "dtype"
    kwargs: dict[str, Any] = {dtype_key: dtype, "variant": variant, "output_loading_info": True, **(settings or {})}
    try:
        module, info = cls.from_pretrained(str(folder), local_files_only=True, **kwargs)  # type: ignore[attr-defined]
    except (RuntimeError, ValueError, TypeError, OSError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"cannot be loaded as {cls.__name__}: {' '.join(lines[:3])[:400]}", path=folder) from error
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in info.get(kind, []))
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            problems.append(f"{len(keys)} {kind.replace('_', ' ')} ({', '.join(keys[:3])}{more})")
    if problems:
        raise InputError(
            f"the weights do not fit {cls.__name__}: {'; '.join(problems)}",
            path=folder,
            remedy="Is it the right model family and a complete download?",
        )
    module.eval()
    module.requires_grad_(False)
    return module


def save_component(module: Any, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a diffusers module as :func:`load_component` reads it, without the path that it was loaded from.

    Parameters
    ----------
    module : ModelMixin
    folder : Path
        Must not exist.
    dtype : torch.dtype
        Of the written weights.
    """
    folder.mkdir(parents=True)
    module.save_config(folder)
    config = {key: value for key, value in read_config(folder).items() if key != "_name_or_path"}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n", overwrite=True)
    weights = {key: value.detach().to("cpu", dtype).contiguous() for key, value in module.state_dict().items()}
    save_file(weights, folder / _WEIGHTS[0], metadata={"format": "pt"})
