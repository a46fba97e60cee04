"""SDPose models on disk: the published folders, the single file, and our own folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from priorscope.backbones.latents import LatentSpace, PatchSpace, PixelSpace, load_latent_space
from priorscope.backbones.loading import locate, model_folder, save_component
from priorscope.backbones.prompt import prompt_state
from priorscope.backbones.stable_diffusion import TASK_SWITCHER, load_unet
from priorscope.backbones.table import find_published
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope_pose.published import FILES, MODELS
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.network import SDPoseNetwork
from priorscope_pose.sdpose.settings import FILE, PUBLISHED, PoseSettings
from priorscope_pose.sdpose.single_file import read_head, read_single_file
from priorscope_pose.skeletons import skeleton

#: What is fetched of a published folder. Not the text encoder (1.4 GB): its answer to the empty prompt is stored here.
PARTS: tuple[str, ...] = ("model_index.json", FILE, "empty_prompt.safetensors", "unet", "vae", "decoder")

_DECODER = Path("decoder/decoder.safetensors")
_PROMPT = "empty_prompt.safetensors"


def load_network(
    source: str | Path, *, dtype: torch.dtype = torch.float32, revision: str | None = None
) -> SDPoseNetwork:
    """Load a model by its name in the model table, a hub id, a folder or a file.

    Parameters
    ----------
    source : str or Path
        A folder as published (``unet/``, ``vae/``, ``decoder/decoder.safetensors``; a text encoder is used where
        there is one), one that :func:`save_network` wrote, or a single safetensors file
        (:mod:`priorscope_pose.sdpose.single_file`).
    dtype : torch.dtype
        Of the U-Net. Autoencoder and head are in float32 always.
    revision : str, optional
        On the hub.

    Returns
    -------
    SDPoseNetwork
        On the CPU, in evaluation mode, without gradients, not folded.

    Raises
    ------
    InputError
        Unknown names, incomplete downloads, missing or unexpected keys, parts of different models.
    """
    path = _located(source, revision)
    return _from_file(path, dtype) if path.is_file() else _from_folder(path, dtype)


def load_head(source: str | Path, *, revision: str | None = None) -> tuple[HeatmapHead, PoseSettings]:
    """A model's head alone, in evaluation mode, and how it is asked and read; the rest is not read.

    Parameters and errors as for :func:`load_network`. The head has no gradients.
    """
    path = _located(source, revision)
    if path.is_file():
        head = read_head(path)
        settings = _published_settings(head, path)
    else:
        head = _read_head(path / _DECODER)
        settings = _settings(head, path)
    return head.eval().requires_grad_(False), settings


def _located(source: str | Path, revision: str | None) -> Path:
    """The folder or single file of a model."""
    row = find_published(str(source), MODELS)
    if row is not None and row.loader == "sdpose-file":
        file = FILES[row.source]
        path = locate(row.source, [file], revision=revision) / file
        if not path.is_file():
            raise InputError("is missing in the download", path=path, remedy=f"Fetch {file} of {row.source} again.")
        return path
    if row is None and Path(source).expanduser().is_file():
        return Path(source).expanduser()
    return model_folder(source, list(PARTS), MODELS, revision=revision)


def _from_folder(folder: Path, dtype: torch.dtype) -> SDPoseNetwork:
    head = _read_head(folder / _DECODER)
    settings = _settings(head, folder)
    latents = load_latent_space(folder / "vae")
    # before the U-Net, so that the text encoder has gone when that comes
    prompt = _empty_prompt(folder)
    unet = load_unet(
        folder / "unet",
        dtype=dtype,
        expect={"in_channels": latents.channels, "cross_attention_dim": prompt.shape[-1]},
        # the published configuration need not state it; official code passes it by hand
        settings=TASK_SWITCHER,
    )
    return _assemble(unet, head, latents, prompt, settings, folder)


def _from_file(path: Path, dtype: torch.dtype) -> SDPoseNetwork:
    unet, latents, head = read_single_file(path, dtype=dtype)
    return _assemble(unet, head, latents, _empty_prompt(None), _published_settings(head, path), path)


def _assemble(
    unet: Any, head: HeatmapHead, latents: LatentSpace, prompt: torch.Tensor, settings: PoseSettings, path: Path
) -> SDPoseNetwork:
    try:
        if len(skeleton(settings.skeleton)) != head.keypoints:
            raise InputError(f"a head of {head.keypoints} keypoints for the skeleton {settings.skeleton!r}")
        network = SDPoseNetwork(unet, head, latents, prompt, settings)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    return network.eval().requires_grad_(False)


def _read_head(path: Path) -> HeatmapHead:
    if not path.is_file():
        raise InputError("is missing", path=path, remedy="Is this an SDPose folder, downloaded completely?")
    try:
        return HeatmapHead.from_state(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"is no safetensors file that can be read ({error})", path=path) from None
    except InputError as error:
        raise InputError(error.fact, path=path, remedy="Is it the decoder of an SDPose model?") from None


def _settings(head: HeatmapHead, folder: Path) -> PoseSettings:
    return PoseSettings.load(folder) if (folder / FILE).exists() else _published_settings(head, folder)


def _published_settings(head: HeatmapHead, path: Path) -> PoseSettings:
    settings = PUBLISHED.get(head.keypoints)
    if settings is None:
        known = " and ".join(str(count) for count in PUBLISHED)
        raise InputError(
            f"has a head of {head.keypoints} keypoints; the published models have {known}",
            path=path,
            remedy=f"Put a {FILE} beside unet/ that states skeleton, tap and sizes.",
        )
    return settings


def _empty_prompt(folder: Path | None) -> torch.Tensor:
    """The folder's own state of the empty prompt; else the stored one of Stable Diffusion 2's text encoder."""
    if folder is not None and ((folder / _PROMPT).exists() or (folder / "text_encoder").exists()):
        return prompt_state(folder)
    return prompt_state(Path(__file__).parent)


def save_network(network: SDPoseNetwork, folder: str | Path, *, half: bool = False) -> Path:
    """Write a model as a folder that :func:`load_network` takes: that of the published ones, and ``priorscope.json``.

    Parameters
    ----------
    network : SDPoseNetwork
        Not folded.
    folder : str or Path
        Must not exist, or be empty.
    half : bool
        Store U-Net and autoencoder in float16: half the size, and enough to predict with. The head stays in float32.
    """
    folder = Path(folder)
    if getattr(network.unet, "is_folded", False):
        raise InputError("a folded model cannot be saved", remedy="Load it with fold=False.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("exists already and would be overwritten", path=folder, remedy="Choose another folder.")
    dtype = torch.float16 if half else torch.float32
    save_component(network.unet, folder / "unet", dtype=dtype)
    space = network.latents
    if isinstance(space, PatchSpace | PixelSpace):
        (folder / "vae").mkdir()
        config = {"_class_name": "PatchSpace", "patch": space.factor}
        (folder / "vae/config.json").write_text(json.dumps(config) + "\n")
    else:
        save_component(space.vae, folder / "vae", dtype=dtype)  # type: ignore[attr-defined]
    (folder / "decoder").mkdir()
    save_file(_on_cpu(network.head, torch.float32), folder / _DECODER)
    save_file({"state": network.get_buffer("prompt").float().cpu().contiguous()}, folder / _PROMPT)
    network.settings.save(folder)
    return folder


def _on_cpu(module: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {key: value.detach().to("cpu", dtype).contiguous() for key, value in module.state_dict().items()}
