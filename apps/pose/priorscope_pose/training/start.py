"""What a training starts from: new weights, a prior, Stable Diffusion 2, or a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from priorscope.backbones.latents import load_latent_space
from priorscope.backbones.loading import locate, read_config
from priorscope.backbones.prompt import prompt_state
from priorscope.backbones.stable_diffusion import TASK_SWITCHER, load_unet, with_task_switcher
from priorscope.errors import InputError
from priorscope_pose.conv.network import ConvPoseNetwork
from priorscope_pose.sdpose.checkpoint import load_network
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.network import SDPoseNetwork
from priorscope_pose.sdpose.settings import PoseSettings
from priorscope_pose.sdpose.small import new_model
from priorscope_pose.skeletons import skeleton as find_skeleton

#: The name of a network with new weights.
NEW = "new"
_PRIOR_PARTS = ("unet", "vae", "empty_prompt.safetensors", "text_encoder", "tokenizer")


def start_sdpose(
    start: str,
    skeleton: str,
    *,
    size: str = "mini",
    input_size: tuple[int, int] | None = None,
    sigma: float | None = None,
    label: float | None = None,
    seed: int = 0,
) -> SDPoseNetwork:
    """An SDPose network to train.

    Parameters
    ----------
    start : str
        ``new``; a trained model (name, hub id, folder, file); or a prior: a folder with ``unet/`` and ``vae/`` but
        no ``decoder/``, as ``train --method prior`` writes and as Stable Diffusion 2 is published.
    skeleton : str
        Of the data. A model of other keypoints gets a new head.
    size : str
        Of a new network (:data:`priorscope_pose.sdpose.small.SIZES`).
    input_size : tuple of int, optional
        (width, height) of the crops. Default: the model's own; 96 x 128 for a small one, 768 x 1024 for a prior with
        an autoencoder.
    sigma : float, optional
        Of the targets, in heatmap pixels; of a trained model only where its head is new.
    label : float, optional
        The level that the U-Net is told. Default: the model's own; 999 as published.
    seed : int
        Of new weights.

    Raises
    ------
    InputError
        No such model, or one that does not fit.
    """
    find_skeleton(skeleton)
    if start == NEW:
        network = new_model(size, skeleton=skeleton, input_size=input_size or (96, 128), sigma=sigma, seed=seed)
    elif (folder := _prior_folder(start)) is not None:
        network = _from_prior(folder, skeleton, input_size, sigma, seed)
    else:
        network = load_network(start).requires_grad_(True)
        network = _adapted(network, skeleton, input_size, seed)
    if label is not None:
        network.settings = replace(network.settings, label=label)
    return network.train()


def start_conv(
    start: str,
    skeleton: str,
    *,
    size: str = "mini",
    input_size: tuple[int, int] | None = None,
    sigma: float | None = None,
    seed: int = 0,
) -> ConvPoseNetwork:
    """A plain conv network: ``new``, or one that was trained on the same skeleton and crops.

    Raises
    ------
    InputError
        It was trained on others.
    """
    if start == NEW:
        return ConvPoseNetwork.new(size, skeleton=skeleton, input_size=input_size or (96, 128), sigma=sigma, seed=seed)
    network = ConvPoseNetwork.load(start)
    settings = network.settings
    if not _same_keypoints(settings.skeleton, skeleton) or input_size not in (None, settings.input_size):
        raise InputError(
            f"was trained on {settings.skeleton} and crops of {settings.input_size}",
            path=start,
            remedy="Use --start new.",
        )
    return network.requires_grad_(True).train()


def _prior_folder(start: str) -> Path | None:
    """The local folder of a prior; None where ``start`` is something else."""
    here = Path(start).expanduser()
    if here.is_dir():
        return here if (here / "unet").is_dir() and not (here / "decoder").is_dir() else None
    if "stable-diffusion" in start:
        return locate(start, _PRIOR_PARTS)
    return None


def _from_prior(
    folder: Path, skeleton: str, input_size: tuple[int, int] | None, sigma: float | None, seed: int
) -> SDPoseNetwork:
    latents = load_latent_space(folder / "vae")
    small = latents.factor < 8
    if input_size is None:
        input_size = (96, 128) if small else (768, 1024)
    if read_config(folder / "unet").get("class_embed_type") is None:
        unet = with_task_switcher(load_unet(folder / "unet", expect={"in_channels": latents.channels}), seed)
    else:
        unet = load_unet(folder / "unet", expect={"in_channels": latents.channels}, settings=TASK_SWITCHER)
    network = new_model(skeleton=skeleton, input_size=input_size, latents=latents, unet=unet, sigma=sigma, seed=seed)
    state = prompt_state(folder)
    if state.shape[-1] != unet.config.cross_attention_dim:
        raise InputError(f"has a prompt of width {state.shape[-1]}", path=folder, remedy="Is it one model's folder?")
    network.prompt = state
    return network


def _same_keypoints(one: str, other: str) -> bool:
    """Whether two skeletons are one but for their name, as Human-Art's and COCO's: a head serves both."""
    return find_skeleton(one).keypoints == find_skeleton(other).keypoints


def _adapted(network: SDPoseNetwork, skeleton: str, input_size: tuple[int, int] | None, seed: int) -> SDPoseNetwork:
    """The network for other keypoints or other crops; the same object where neither changes."""
    own = network.settings
    same = _same_keypoints(own.skeleton, skeleton)
    if same and input_size in (None, own.input_size):
        return network
    head = network.head
    if not same:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = HeatmapHead(head.channels, len(find_skeleton(skeleton)))
    size = input_size or own.input_size
    factor = own.heatmap_size[0] / own.input_size[0]
    heatmap = (round(size[0] * factor), round(size[1] * factor))
    sigma = own.sigma * heatmap[0] / own.heatmap_size[0]
    settings = PoseSettings(skeleton, own.tap, size, heatmap, sigma, own.label, own.task, own.reconstruction_task)
    return SDPoseNetwork(network.unet, head, network.latents, network.get_buffer("prompt"), settings)
