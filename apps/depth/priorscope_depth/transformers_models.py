"""Depth-Anything and DepthPro: predictors that are no diffusion models, for comparison, through transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

from priorscope.backbones.loading import load_component, model_folder, read_config
from priorscope.backbones.table import find_published
from priorscope.device import Precision, resolve_device, resolve_dtype
from priorscope.errors import InputError
from priorscope.predictors.compiling import compiler_failures
from priorscope.predictors.geometry import Geometry
from priorscope_depth.base import ImagePredictor, Prediction
from priorscope_depth.families import MODELS, TRANSFORMERS

_PARTS = ["config.json", "preprocessor_config.json", "model.safetensors"]
_TYPES = ("depth_anything", "depth_pro")
#: What transformers' DepthPro bounds its inverse depth by, in 1/m.
_INVERSE_BOUNDS = (1e-4, 1e4)


def is_transformers_model(source: str | Path) -> bool:
    """Whether a name, hub id or folder is one of a model that this module loads."""
    row = find_published(str(source), MODELS)
    if row is not None:
        return row.loader in TRANSFORMERS
    folder = Path(source).expanduser()
    if folder.is_dir():
        config = folder / "config.json"
        return config.is_file() and "model_type" in read_config(folder) and not (folder / "model_index.json").exists()
    return re.fullmatch(r"[\w.-]+/[\w.-]*depth-?(anything|pro)[\w.-]*", str(source), re.IGNORECASE) is not None


def load_transformers_model(
    source: str | Path,
    *,
    resolution: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    revision: str | None = None,
) -> ImagePredictor:
    """Load Depth-Anything (V1, V2, relative or metric) or DepthPro.

    Parameters
    ----------
    source : str or Path
        A name in the model table, a hub id or a folder in transformers' layout: ``config.json``,
        ``preprocessor_config.json`` and ``model.safetensors``.
    resolution : int, optional
        Depth-Anything: least length of the shorter side while processing. Default: what the folder says (518).
    device, precision, revision : str
    compile : bool
        ``torch.compile`` the network: slow first calls, one for each size, then faster ones.

    Raises
    ------
    InputError
        Unknown names, incomplete folders, folders of other models.
    """
    folder = model_folder(source, _PARTS, MODELS, revision=revision)
    kind = read_config(folder).get("model_type")
    if kind not in _TYPES:
        raise InputError(
            f"holds a {kind!r} model of transformers", path=folder, remedy=f"Read here: {', '.join(_TYPES)}."
        )
    row = find_published(str(source), MODELS)
    name = str(source) if row is None else row.name
    where = resolve_device(device)
    dtype = resolve_dtype(precision, where)
    cls = DepthAnything if kind == "depth_anything" else DepthPro
    predictor = cls.load(folder, name=name, resolution=resolution, device=where, dtype=dtype)
    if compile:
        predictor.network.compile()
    return predictor


class _FromFolder(ImagePredictor):
    """What both have in common: a network of transformers, on a device, in a dtype."""

    bounded = False

    def __init__(self, network: Any, *, name: str, size: int, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network.to(device)
        self.name = name
        self.device = device
        self.dtype = dtype
        # the network's own size, for protocols too
        self.geometry = self.benchmark_geometry = Geometry(size, multiple=1)

    @property
    def network(self) -> Any:
        return self._network

    def check_request(self, *, ensemble: int = 1, tile: int = 0, batch_size: int = 1) -> None:
        super().check_request(ensemble=ensemble, tile=tile, batch_size=batch_size)
        if tile:
            raise InputError(f"tiles with {self.name}, which looks at whole pictures", remedy="Leave out --tile.")


class DepthAnything(_FromFolder):
    """Depth-Anything V1 or V2: affine-invariant disparity, or metric depth where the folder says so.

    Pictures are resized and normalised by transformers' own processor on Pillow, so that values do not depend on
    whether torchvision is installed, and predictions go back to the picture's size bicubically, as transformers has it.

    Source: Yang et al. 2024; transformers' ``DepthAnythingForDepthEstimation``.
    """

    def __init__(
        self, network: Any, processor: Any, *, name: str, size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(network, name=name, size=size, device=device, dtype=dtype)
        self.processor = processor
        metric = network.config.depth_estimation_type == "metric"
        self.scale = "metric" if metric else "affine-invariant"
        self._space: Literal["depth", "disparity"] = "depth" if metric else "disparity"

    @classmethod
    def load(
        cls, folder: Path, *, name: str, resolution: int | None, device: torch.device, dtype: torch.dtype
    ) -> DepthAnything:
        from transformers import AutoImageProcessor
        from transformers.models.depth_anything.modeling_depth_anything import DepthAnythingForDepthEstimation

        read_config(folder, "preprocessor_config.json")  # a line of ours where it is missing or broken
        try:
            processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", local_files_only=True)
        except (ValueError, OSError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"cannot be read ({reason})", path=folder / "preprocessor_config.json") from None
        if resolution is not None and resolution < 1:
            raise InputError(
                f"a resolution of {resolution} for {name}", remedy="Leave out --resolution, or give pixels (518)."
            )
        if resolution:
            processor.size = {"height": resolution, "width": resolution}
        network = load_component(DepthAnythingForDepthEstimation, folder, dtype=dtype)
        return cls(network, processor, name=name, size=int(processor.size["height"]), device=device, dtype=dtype)

    @property
    def space(self) -> Literal["depth", "disparity"]:
        return self._space

    @torch.no_grad()
    def predict(
        self, rgb: torch.Tensor, *, seed: int = 0, items: Sequence[int | str] = (0,), ensemble: int = 1
    ) -> list[Prediction]:
        height, width = rgb.shape[-2:]
        pictures = list((rgb * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        try:
            prepared = self.processor(images=pictures, return_tensors="pt", input_data_format="channels_last")
        except (ValueError, ZeroDivisionError) as error:  # a strip that shrinks to nothing
            raise InputError(
                f"a picture of {width} x {height} pixels cannot be brought to {self.name}'s size "
                f"({' '.join(str(error).split())[:100]})",
                remedy="Crop it.",
            ) from None
        with compiler_failures():
            raw = self.network(prepared["pixel_values"].to(self.device, self.dtype)).predicted_depth.float()
        full = functional.interpolate(raw[:, None], (height, width), mode="bicubic", align_corners=False)
        if self.scale == "metric":
            full = full.clamp(min=0)
        return [Prediction(values) for values in full]


class DepthPro(_FromFolder):
    """DepthPro: metric depth, and the focal length that it assumes.

    Parameters
    ----------
    focal_length : float, optional
        Of the pictures, in pixels, where it is known; else the network's own estimate is used. ``notes`` of each result
        state ``focal_length_px`` and whose it is.

    Source: Bochkovskii et al. 2024; transformers' ``DepthProForDepthEstimation``, whose image processor needs
    torchvision: its arithmetic is written here again.
    """

    scale = "metric"

    def __init__(
        self,
        network: Any,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        name: str,
        size: int,
        device: torch.device,
        dtype: torch.dtype,
        focal_length: float | None = None,
    ) -> None:
        super().__init__(network, name=name, size=size, device=device, dtype=dtype)
        self.mean = torch.tensor(mean, device=device).reshape(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).reshape(1, 3, 1, 1)
        self.focal_length = focal_length

    @classmethod
    def load(
        cls, folder: Path, *, name: str, resolution: int | None, device: torch.device, dtype: torch.dtype
    ) -> DepthPro:
        from transformers.models.depth_pro.modeling_depth_pro import DepthProForDepthEstimation

        settings = read_config(folder, "preprocessor_config.json")
        try:
            height, width = (int(settings["size"][key]) for key in ("height", "width"))
            mean, std = (tuple(map(float, settings[key])) for key in ("image_mean", "image_std"))
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "does not state size, image_mean and image_std", path=folder / "preprocessor_config.json"
            ) from None
        if height != width or len(mean) != 3 or len(std) != 3:
            raise InputError(f"states a size of {width} x {height}", path=folder / "preprocessor_config.json")
        if resolution not in (None, width):
            raise InputError(f"a resolution of {resolution} for {name}, which works at {width}")
        if not read_config(folder).get("use_fov_model"):
            raise InputError(
                "has no head for the field of view, without which its depth is not metric",
                path=folder,
                remedy="Use a complete DepthPro folder (use_fov_model true).",
            )
        network = load_component(DepthProForDepthEstimation, folder, dtype=dtype)
        return cls(network, mean=mean, std=std, name=name, size=width, device=device, dtype=dtype)

    @property
    def space(self) -> Literal["depth", "disparity"]:
        return "depth"

    @torch.no_grad()
    def predict(
        self, rgb: torch.Tensor, *, seed: int = 0, items: Sequence[int | str] = (0,), ensemble: int = 1
    ) -> list[Prediction]:
        height, width = rgb.shape[-2:]
        side = self.geometry.resolution
        image = (rgb.to(self.device, torch.float32) - self.mean) / self.std
        image = functional.interpolate(image, (side, side), mode="bilinear", align_corners=False)
        with compiler_failures():
            output = self.network(image.to(self.dtype))
        canonical, angle = output.predicted_depth.float(), output.field_of_view.float().reshape(-1)
        if self.focal_length is None:
            focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(angle))
        else:
            focal = torch.full_like(angle, self.focal_length)
        inverse = canonical[:, None] * (width / focal).reshape(-1, 1, 1, 1)
        inverse = functional.interpolate(inverse, (height, width), mode="bilinear", align_corners=False)
        depth = 1 / inverse.clamp(*_INVERSE_BOUNDS)
        origin = "given" if self.focal_length is not None else "estimated by the model"
        return [
            Prediction(values, notes={"focal_length_px": float(f), "focal_length": origin})
            for values, f in zip(depth, focal.cpu(), strict=True)
        ]
