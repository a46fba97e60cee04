"""Lotus, Marigold, E2E-FT and GenPercept: one predictor for depth and normals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from priorscope.backbones.latents import Posterior, load_latent_space
from priorscope.backbones.loading import model_folder
from priorscope.backbones.prompt import prompt_state
from priorscope.backbones.stable_diffusion import load_unet
from priorscope.backbones.table import find_published
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.noise import Noise
from priorscope.evaluation.cost import CostLog
from priorscope.evaluation.run_folder import RunFolder
from priorscope.predictors.ensemble import ensemble_affine, ensemble_normals
from priorscope.predictors.geometry import Geometry
from priorscope.predictors.latent import LatentMemory, LatentPredictor
from priorscope.predictors.tiling import predict_tiled
from priorscope_depth.assemble import PARTS, build_predictor, check_posterior, own_settings, scheduler_config
from priorscope_depth.base import ImagePredictor, Prediction
from priorscope_depth.families import MODELS, Recipe, recognise


class DepthPredictor(ImagePredictor):
    """Predict depth, disparity or surface normals from photographs.

    ``predictor = DepthPredictor.from_pretrained("lotus-depth-d-v2-0-disparity")``, then ``predictor(image)``.

    Parameters
    ----------
    latent : LatentPredictor
        The model, image in [-1, 1] to prediction in [-1, 1].
    recipe : Recipe
        Its family, task and space.
    geometry : Geometry
        How images are brought to a size that the network takes.
    benchmark_geometry : Geometry, optional
        The same where an evaluation protocol has set the size already. Default: that size as it is.
    name : str
        For results.
    device, dtype
        Where ``latent`` works, and the precision of images and latents; the U-Net may have a lower one.
    """

    def __init__(
        self,
        latent: LatentPredictor,
        recipe: Recipe,
        *,
        geometry: Geometry | None = None,
        benchmark_geometry: Geometry | None = None,
        name: str = "",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.latent = latent
        self.recipe = recipe
        self.geometry = geometry or Geometry()
        self.benchmark_geometry = benchmark_geometry or self.geometry.native()
        self.name = name
        self.device = torch.device(device)
        self.dtype = dtype

    @property
    def network(self) -> Any:
        return self.latent.denoiser.network.unet  # type: ignore[attr-defined]

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.latent.stochastic

    def with_geometry(self, geometry: Geometry) -> DepthPredictor:
        return DepthPredictor(
            self.latent, self.recipe, geometry=geometry, name=self.name, device=self.device, dtype=self.dtype
        )

    @property
    def task(self) -> Literal["depth", "normals"]:
        return self.recipe.task

    @property
    def space(self) -> Literal["depth", "disparity"]:
        """The space of depth values; "depth" for normals, where it says nothing."""
        return self.recipe.space

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "tiny-depth",
        *,
        family: str | None = None,
        task: str | None = None,
        space: str | None = None,
        steps: int | None = None,
        posterior: Posterior | None = None,
        geometry: Geometry | None = None,
        resolution: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        tiled_vae: bool = False,
        fold: bool = True,
        compile: bool = False,
        revision: str | None = None,
    ) -> DepthPredictor:
        """Load a model by its name in the model table, from a hub id or from a folder.

        Parameters
        ----------
        source : str or Path
            ``priorscope models`` lists the names. Published folders are in diffusers' layout; only ``unet``,
            ``vae``, ``scheduler`` and, once, ``text_encoder`` and ``tokenizer`` are read.
        family, task, space : str, optional
            For folders whose name does not tell.
        steps : int, optional
            Solver steps, for Marigold; the others are one-step models.
        posterior : {"mode", "sample"}, optional
            How the image is encoded. Default: the mode, deterministic; Lotus' own code samples.
        geometry : Geometry, optional
            Default: longer side at the model's resolution, padded to a multiple of 8, bilinear back.
        resolution : int, optional
            Processing resolution; 0 keeps each image's size. Default 768, or what the model folder says.
        device, precision : str
        tiled_vae : bool
            Bounds the autoencoder's memory on large images.
        fold : bool
            Compute once what never changes (:mod:`priorscope.backbones.folding`): the same answers to rounding,
            in less time and memory. Such a model cannot be trained or saved.
        compile : bool
            ``torch.compile`` the U-Net and the decoder: slow first calls, one for each size, then faster ones.
        revision : str, optional
            On the hub.

        Raises
        ------
        InputError
            Unknown names, incomplete folders, weights of another family.
        """
        folder = model_folder(source, PARTS, MODELS, revision=revision)
        recipe = recognise(folder, name=str(source), family=family, task=task, space=space)
        where = resolve_device(device)
        dtype = resolve_dtype(precision, where)
        settings = own_settings(folder)
        # the autoencoder and the sampled state stay in float32: bfloat16 has 8 bits, a 16-bit depth map wants more
        latents = load_latent_space(folder / "vae", tiled=tiled_vae)
        check_posterior(posterior, str(source), latents)
        # before the U-Net, so that the text encoder has gone when that comes
        prompt = prompt_state(folder, padding=recipe.family.prompt)
        expected = {
            "in_channels": latents.channels * len(recipe.family.inputs),
            "class_embed_type": "projection" if recipe.family.task_switcher else None,
            "cross_attention_dim": prompt.shape[-1],
        }
        unet = load_unet(folder / "unet", dtype=dtype, expect=expected)
        layout = inference_layout(where)
        unet.to(where, memory_format=layout)
        latents.to(where, memory_format=layout)
        if fold:
            latents.lean()
        latent = build_predictor(
            unet,
            latents,
            prompt,
            recipe,
            scheduler=scheduler_config(folder, recipe),
            steps=settings.get("steps") if steps is None else steps,
            posterior=posterior or "mode",
            device=where,
            dtype=dtype,
        )
        if fold:
            latent.fold()
        if compile:
            latent.compile()
        if geometry is None:
            geometry = Geometry(settings.get("resolution", 768), multiple=settings.get("multiple", 8))
        # a small model of ours works at its own resolution on every benchmark
        benchmark_geometry = geometry if (folder / "priorscope.json").exists() else geometry.native()
        if resolution is not None:
            geometry = replace(geometry, resolution=resolution)
        row = find_published(str(source), MODELS)
        name = str(source) if row is None else row.name
        return cls(
            latent,
            recipe,
            geometry=geometry,
            benchmark_geometry=benchmark_geometry,
            name=name,
            device=where,
        )

    def predict(
        self,
        rgb: torch.Tensor,
        *,
        seed: int = 0,
        items: Sequence[int | str] = (0,),
        ensemble: int = 1,
        memory: LatentMemory | None = None,
    ) -> list[Prediction]:
        """Predict for a batch of tensors.

        Parameters
        ----------
        rgb : Tensor (B, 3, H, W) in [0, 1]
        memory : LatentMemory, optional
            For frames of a video: start from the last call's latents.

        Returns
        -------
        list of Prediction, one an image
            Values (K, H, W) at the image's size: K = 1 in [0, 1] for depth and disparity; K = 3, unit vectors,
            for normals. Uncertainty (1, H, W), None without an ensemble.
        """
        image, frame = self.geometry.prepare(rgb.to(self.device, torch.float32) * 2 - 1)
        raw = self.raw(image, seed=seed, items=items, ensemble=ensemble, memory=memory)
        fields = self.geometry.crop(self.read(raw), frame)
        predictions = []
        for members in fields.split(ensemble):
            uncertainty = None
            if ensemble > 1:
                reduce = ensemble_affine if self.task == "depth" else ensemble_normals
                members, uncertainty = reduce(members)
                uncertainty = self.geometry.restore(uncertainty, frame)[0]
            values = self.geometry.restore(members, frame)[0]
            predictions.append(Prediction(self._unit(values), uncertainty))
        return predictions

    def raw(
        self,
        image: torch.Tensor,
        *,
        seed: int,
        items: Sequence[int | str],
        ensemble: int = 1,
        memory: LatentMemory | None = None,
    ) -> torch.Tensor:
        """The decoded prediction (B * ensemble, 3, h, w) in about [-1, 1] for prepared images in [-1, 1]."""
        members = [f"{item}/{member}" for item in items for member in range(ensemble)]
        decoded = self.latent(
            image.to(self.dtype),
            Noise.for_items(seed, members),
            posterior_noise=Noise.for_items(seed, [f"{item}/posterior" for item in items]),
            members=ensemble,
            memory=memory,
        )
        return decoded.float()

    def read(self, decoded: torch.Tensor) -> torch.Tensor:
        """Values out of a decoded image (B, 3, h, w): depth (B, 1, h, w) in [0, 1] or normals (B, 3, h, w)."""
        if self.task == "depth":
            if self.recipe.family.clamp_channels:
                decoded = decoded.clamp(-1, 1)
            return (decoded.mean(1, keepdim=True).clamp(-1, 1) + 1) / 2
        normals = decoded.clamp(-1, 1)
        if self.recipe.family.normals_x == "left":
            normals = normals * torch.tensor([-1.0, 1.0, 1.0], device=normals.device).reshape(1, 3, 1, 1)
        return self._unit(normals, dim=1)

    def predict_tiled(
        self,
        rgb: torch.Tensor,
        *,
        tile: int,
        overlap: int | None = None,
        seed: int = 0,
        items: Sequence[int | str] = (0,),
    ) -> Prediction:
        """Predict one large image in tiles at its own resolution, each aligned to a prediction of the whole.

        Parameters
        ----------
        rgb : Tensor (1, 3, H, W) in [0, 1]
        tile, overlap : int
            Side of the tiles and least overlap (default a quarter), in pixels.

        Returns
        -------
        Prediction
            Without uncertainty.
        """
        whole = self.predict(rgb, seed=seed, items=items)[0][0][None]
        native = self.with_geometry(self.geometry.native())

        number = count(1)

        def predict(tiles: torch.Tensor) -> torch.Tensor:
            # the same noise in every tile would repeat its pattern; its own place gives each tile its own
            return native.predict(tiles, seed=seed, items=[f"{items[0]}/tile{next(number)}"])[0][0][None]

        blended = predict_tiled(
            rgb.to(self.device, torch.float32),
            predict,
            tile=tile,
            overlap=tile // 4 if overlap is None else overlap,
            reference=whole if self.task == "depth" else None,
        )[0]
        return Prediction(self._unit(blended) if self.task == "normals" else blended)

    def _unit(self, values: torch.Tensor, dim: int = 0) -> torch.Tensor:
        if self.task == "depth":
            return values
        return values / values.norm(dim=dim, keepdim=True).clamp(min=1e-6)


class NativePredictor:
    """A predictor as the evaluation asks it: tensors in, tensors out, at the input's own size.

    Parameters
    ----------
    predictor : ImagePredictor
    seed, ensemble : int
        As for the predictor itself; the noise of an image derives from the seed and the image's key.
    geometry : Geometry, optional
        Default: the predictor's ``benchmark_geometry``, since protocols set the size outside.
    run : RunFolder, optional
        Where every call's cost is noted.
    """

    def __init__(
        self,
        predictor: ImagePredictor,
        *,
        seed: int = 0,
        ensemble: int = 1,
        geometry: Geometry | None = None,
        run: RunFolder | None = None,
    ) -> None:
        self.geometry = geometry or predictor.benchmark_geometry
        self.predictor = predictor.with_geometry(self.geometry)
        self.device = predictor.device
        self.space, self.scale = predictor.space, predictor.scale
        self.seed = seed
        self.ensemble = ensemble
        self.cost = None if run is None else CostLog(run, predictor.network, predictor.device)

    def __call__(self, rgb: torch.Tensor, items: Sequence[int | str] | None = None) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, H, W) depth or disparity, or (B, 3, H, W) normals."""
        names = list(range(len(rgb))) if items is None else items
        with nullcontext() if self.cost is None else self.cost.call(len(rgb)):
            predicted = self.predictor.predict(rgb, seed=self.seed, items=names, ensemble=self.ensemble)
            values = [prediction.values for prediction in predicted]
        stacked = torch.stack(values)
        return stacked[:, 0] if self.predictor.task == "depth" else stacked
