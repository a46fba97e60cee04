"""PrimeDepth as one of the app's predictors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from priorscope.backbones.latents import AutoencoderSpace, Posterior
from priorscope.backbones.table import find_published
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.predictors.ensemble import ensemble_affine
from priorscope.predictors.geometry import Geometry
from priorscope.predictors.tiling import predict_tiled
from priorscope_depth.assemble import on_patches
from priorscope_depth.base import ImagePredictor, Prediction, Result
from priorscope_depth.primedepth.architecture import Architecture
from priorscope_depth.primedepth.backbone import WEIGHTS, load_trained
from priorscope_depth.primedepth.captions import Captions, TextStates
from priorscope_depth.primedepth.checkpoint import latent_space, read_networks, read_text_encoder
from priorscope_depth.primedepth.model import PrimeDepthModel, move
from priorscope_depth.primedepth.source import PRIMEDEPTH, find_checkpoint

#: Longer side that larger pictures are brought to; smaller ones keep their size.
RESOLUTION = 1024


def own_geometry() -> Geometry:
    """Ours: whole latents at every level of the U-Net, by padding, so that nothing of the picture is lost."""
    return Geometry(RESOLUTION, upscale=False, multiple=64)


def official_geometry() -> Geometry:
    """The authors' (parity): no padding, so that the autoencoder drops up to 7 rows and columns.

    Their result is short of those rows; ours is stretched to the picture's size.
    """
    return Geometry(RESOLUTION, upscale=False, multiple=1, back_antialias=False)


class PrimeDepthPredictor(ImagePredictor):
    """Disparity of pictures by PrimeDepth.

    Parameters
    ----------
    model : PrimeDepthModel
    captions : Captions
    states : callable
        The text tower's state (1, tokens, width) of a caption.
    geometry : Geometry, optional
    benchmark_geometry : Geometry, optional
        Where an evaluation protocol has set the size already. Default: that size as it is.
    name : str
    device : torch.device or str
    remarks : sequence of str
        What a user may want to know about the checkpoint.
    """

    def __init__(
        self,
        model: PrimeDepthModel,
        *,
        captions: Captions | None = None,
        states: TextStates | None = None,
        geometry: Geometry | None = None,
        benchmark_geometry: Geometry | None = None,
        name: str = "primedepth",
        device: torch.device | str = "cpu",
        remarks: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.captions = captions or Captions()
        self.states = states
        self.geometry = geometry or own_geometry()
        self.benchmark_geometry = benchmark_geometry or self.geometry.native()
        self.name = name
        self.device = torch.device(device)
        self.remarks = tuple(remarks)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        captions: Captions | None = None,
        posterior: Posterior = "mode",
        deterministic: bool = False,
        geometry: Geometry | None = None,
        resolution: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        tiled_vae: bool = False,
        compile: bool = False,
        revision: str | None = None,
    ) -> PrimeDepthPredictor:
        """Load a checkpoint by name, hub id, folder or file.

        Parameters
        ----------
        source : str or Path
            ``primedepth``, ``CVL-Heidelberg/PrimeDepth``, a file (``.ckpt``, or its state dict as ``.safetensors``),
            or a folder that holds one, or that ``train-primedepth`` wrote.
        captions : Captions, optional
            Default: the empty prompt.
        posterior : {"mode", "sample"}
            How images are encoded; the official code samples.
        deterministic : bool
            No noise at all; else each image has its own, which follows from the seed and the image's name.
        geometry : Geometry, optional
            Default: :func:`own_geometry`.
        resolution : int, optional
            Longer side that larger images are brought to, whatever the geometry says; 0: none is.
        device, precision, tiled_vae, compile, revision
            As for the other predictors. The U-Net works in ``precision``, the rest in float32.

        Raises
        ------
        InputError
            No such checkpoint, keys that do not fit, captions that are too long, options that cannot act
            (:func:`idle_options`).
        """
        where = resolve_device(device)
        idle = idle_options(source, device=where, tiled_vae=tiled_vae)
        wanted = {"tiled_vae": tiled_vae, "compile": compile, "posterior": posterior == "sample"}
        for name, asked_for in wanted.items():
            if asked_for and name in idle:
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} changes nothing of {source}: {idle[name]}", remedy=f"Leave out {option}.")
        folder = Path(source).expanduser()
        if (folder / WEIGHTS).is_file():
            if captions is not None and (captions.text or captions.by_name or captions.model is not None):
                raise InputError("a model trained here knows the empty prompt only", path=folder)
            model, own = load_trained(
                folder, dtype=resolve_dtype(precision, where), posterior=posterior, noisy=not deterministic
            )
            if isinstance(model.latents, AutoencoderSpace):
                model.latents = latent_space(model.latents.vae, model.labeller, tiled=tiled_vae)
            move(model, where, inference_layout(where))
            if compile:
                model.compile()
            # a small model works at its own resolution on every benchmark
            asked = _at(geometry or own, resolution)
            return cls(model, geometry=asked, benchmark_geometry=own, name=str(source), device=where)
        path = find_checkpoint(source, revision=revision)
        sizes = Architecture.of(path)
        states = TextStates(path, lambda: read_text_encoder(path, sizes), sizes.tokens)
        captions = captions or Captions()
        captions.load(where)
        states.prepare(captions.known or [""])  # before the other networks, so that the tower has gone when they come
        networks = read_networks(path, sizes, dtype=resolve_dtype(precision, where), tiled=tiled_vae)
        model = PrimeDepthModel(
            networks.unet,
            networks.latents,
            networks.labeller,
            states(captions.text),
            posterior=posterior,
            noisy=not deterministic,
        )
        move(model, where, inference_layout(where))
        if compile:
            model.compile()
        return cls(
            model,
            captions=captions,
            states=states,
            geometry=_at(geometry or own_geometry(), resolution),
            name=PRIMEDEPTH.name if find_published(str(source), [PRIMEDEPTH]) else path.stem,
            device=where,
            remarks=networks.notes,
        )

    @property
    def space(self) -> Literal["depth", "disparity"]:
        return "disparity"

    @property
    def network(self) -> Any:
        return self.model.unet

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.model.stochastic

    def with_geometry(self, geometry: Geometry) -> PrimeDepthPredictor:
        other = copy.copy(self)
        other.geometry = geometry
        return other

    def check_items(self, items: Sequence[int | str]) -> None:
        self.captions.check_items(items)

    def predict(
        self, rgb: torch.Tensor, *, seed: int = 0, items: Sequence[int | str] = (0,), ensemble: int = 1
    ) -> list[Prediction]:
        return self._predict(rgb, *self.told(rgb, items), seed=seed, items=items, ensemble=ensemble)

    def result(
        self, values: torch.Tensor, uncertainty: torch.Tensor | None = None, notes: dict[str, Any] | None = None
    ) -> Result:
        return super().result(values, uncertainty, {"caption": self.captions.describe(), **(notes or {})})

    def predict_tiled(
        self,
        rgb: torch.Tensor,
        *,
        tile: int,
        seed: int = 0,
        items: Sequence[int | str] = (0,),
        overlap: int | None = None,
    ) -> Prediction:
        told = self.told(rgb, items)  # of the whole picture: a tile of sky is still part of a street
        [whole] = self._predict(rgb, *told, seed=seed, items=items)
        native = self.with_geometry(self.geometry.native())
        number = count(1)

        def predict(tiles: torch.Tensor) -> torch.Tensor:
            # the same noise in every tile would repeat its pattern
            return native._predict(tiles, *told, seed=seed, items=[f"{items[0]}/tile{next(number)}"])[0].values[None]

        overlap = tile // 4 if overlap is None else overlap
        blended = predict_tiled(
            rgb.to(self.device, torch.float32), predict, tile=tile, overlap=overlap, reference=whole.values[None]
        )
        return Prediction(_stretched(blended[0]), notes=whole.notes)

    def told(self, rgb: torch.Tensor, items: Sequence[int | str]) -> tuple[list[str], torch.Tensor]:
        """The pictures' captions, and their states (B, tokens, width)."""
        captions = self.captions.of(rgb.to(self.device), items)
        if self.states is None:
            return captions, self.model.text.expand(len(captions), -1, -1)
        return captions, torch.cat([self.states(caption) for caption in captions]).to(self.device)

    def _predict(
        self,
        rgb: torch.Tensor,
        captions: Sequence[str],
        text: torch.Tensor,
        *,
        seed: int,
        items: Sequence[int | str],
        ensemble: int = 1,
    ) -> list[Prediction]:
        image, frame = self.geometry.prepare(rgb.to(self.device, torch.float32) * 2 - 1)
        members = [f"{item}/{member}" for item in items for member in range(ensemble)]
        raw = self.model(
            image,
            Noise.for_items(seed, members),
            posterior_noise=Noise.for_items(seed, [f"{item}/posterior" for item in items]),
            members=ensemble,
            text=text,
        )
        fields = self.geometry.crop(raw.float().mean(1, keepdim=True), frame)
        predictions = []
        for caption, values in zip(captions, fields.split(ensemble), strict=True):
            uncertainty = None
            if ensemble > 1:
                values, spread = ensemble_affine(values)
                uncertainty = self.geometry.restore(spread, frame)[0]
            values = _stretched(self.geometry.restore(values, frame)[0])
            predictions.append(Prediction(values, uncertainty, {"caption": caption or "empty"}))
        return predictions


def idle_options(source: str | Path, *, device: torch.device, tiled_vae: bool = False) -> dict[str, str]:
    """Options of :meth:`PrimeDepthPredictor.load` that would change nothing, and why."""
    folder = Path(source).expanduser()
    if (folder / WEIGHTS).is_file() and on_patches(folder):
        return dict.fromkeys(("tiled_vae", "posterior"), "its latents are patches of pixels, there is no autoencoder")
    if tiled_vae or device.type != "cuda":
        return {"compile": "on a CPU and with --tiled-vae its depth head works in strips of rows"}
    return {}


def _at(geometry: Geometry, resolution: int | None) -> Geometry:
    return geometry if resolution is None else replace(geometry, resolution=resolution)


def _stretched(values: torch.Tensor) -> torch.Tensor:
    """The same affine-invariant values over [0, 1]; all 0 where they are all alike."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-12)
