"""A prompt as a network sees it, computed once and then kept.

Dense predictors made from Stable Diffusion are always told the empty prompt, as its two tokens BOS and EOS; feature
extractors one fixed text. The text encoder weighs 1.3 GB; its answer weighs 8 KB (two tokens) to 320 KB.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from priorscope.backbones.loading import load_component
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError

Padding = Literal["none", "max_length"]


def cache_folder() -> Path:
    """The user's cache: $PRIORSCOPE_CACHE, else $XDG_CACHE_HOME/priorscope, else ~/.cache/priorscope."""
    named = os.environ.get("PRIORSCOPE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "priorscope"


def prompt_state(model: Path, prompt: str = "", *, padding: Padding = "none") -> torch.Tensor:
    """Last hidden state of the text encoder for ``prompt``.

    Parameters
    ----------
    model : Path
        Model folder. For the empty prompt a file ``empty_prompt.safetensors`` in it (as bundled models have) is used
        as it is; else ``text_encoder/`` and ``tokenizer/`` are loaded once and the result kept in the user's cache.
    prompt : str
        Longer texts than the encoder takes are cut at its length.
    padding : {"none", "max_length"}
        Two tokens more than the text has (Lotus, Marigold), or padded to the encoder's length (Stable Diffusion,
        E2E-FT's training).

    Returns
    -------
    Tensor (1, tokens, width), float32. Source: Lotus and Marigold pipelines, ``encode_prompt``.
    """
    own = model / "empty_prompt.safetensors"
    if own.exists() and not prompt:
        return _read_state(own)
    encoder = model / "text_encoder"
    if not (encoder / "config.json").exists():
        raise InputError(
            "has no text_encoder folder"
            if prompt
            else "has neither a text_encoder folder nor empty_prompt.safetensors",
            path=model,
            remedy="Download the text encoder and the tokenizer of the model too.",
        )
    return kept_state(_identity(encoder, prompt, padding), lambda: _encode(model, prompt, padding))


def kept_state(identity: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A text's state from the user's cache; the first time it is computed and put there.

    Parameters
    ----------
    identity
        All that the state depends on, JSON-able.
    compute : callable
        Gives the state (1, tokens, width), float32.

    Raises
    ------
    InputError
        What is in the cache is damaged.
    """
    mark = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    kept = cache_folder() / "prompts" / f"{mark}.safetensors"
    if kept.exists():
        return _read_state(kept)
    state = compute()
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(f".{os.getpid()}.tmp")
    save_file({"state": state.contiguous()}, aside)
    aside.replace(kept)
    return state


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder; InputError where it is missing or damaged."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise InputError(
            f"the tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}", path=folder
        ) from error


def _encode(model: Path, prompt: str, padding: Padding) -> torch.Tensor:
    from transformers import CLIPTextModel

    tokenizer = read_tokenizer(model / "tokenizer")
    encoder = load_component(CLIPTextModel, model / "text_encoder")
    tokens = tokenizer(
        prompt,
        padding="do_not_pad" if padding == "none" else "max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        return encoder(tokens)[0].float()


def _identity(encoder: Path, prompt: str, padding: Padding) -> list[Any]:
    """Identity of a prompt and of a text encoder without reading its gigabyte: its configuration, sizes and dates."""
    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(encoder.iterdir())
        if path.is_file()
    ]
    return [str(encoder.resolve()), prompt, padding, files, (encoder / "config.json").read_text()]


def _read_state(path: Path) -> torch.Tensor:
    try:
        state = load_file(path)["state"]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(
            f"is not a stored prompt state ({error})", path=path, remedy="Delete it, it is made again."
        ) from error
    if state.ndim != 3 or state.shape[0] != 1:
        raise InputError(f"has shape {tuple(state.shape)}, not (1, tokens, width)", path=path)
    return state
