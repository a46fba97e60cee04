"""Detectors of transformers' RT-DETR family. Pictures are prepared by Pillow, so torchvision is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.backbones.loading import locate, read_config
from priorscope.device import Precision, resolve_device, resolve_dtype
from priorscope.errors import InputError
from priorscope_pose.data.boxes import ImageBoxes
from priorscope_pose.detectors.base import Shown, image_boxes

#: ``model_type`` of the families whose queries score every class by itself (a sigmoid), as the code below reads them.
FAMILIES: tuple[str, ...] = ("rt_detr", "rt_detr_v2", "d_fine", "rf_detr")

_PREPARATION = "preprocessor_config.json"
_PARTS = ("config.json", _PREPARATION, "model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class TransformersDetector:
    """Find people with a detector of :data:`FAMILIES`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        For object detection; its ``id2label`` names a person.
    preparation : dict
        As its ``preprocessor_config.json``: ``size`` with height and width, ``rescale_factor``, ``do_normalize``,
        ``image_mean`` and ``image_std``, ``resample``.
    name : str
        For results.

    Raises
    ------
    InputError
        Another family, no person among its classes, or pictures of no fixed size.
    """

    def __init__(self, model: Any, preparation: dict[str, Any], *, name: str = "") -> None:
        self.model = model.eval()
        self.name = name
        kind = model.config.model_type
        if kind not in FAMILIES:
            raise InputError(f"{name or 'the detector'} is a {kind}", remedy=f"Use one of {', '.join(FAMILIES)}.")
        labels = {str(label).lower(): int(number) for number, label in model.config.id2label.items()}
        if "person" not in labels:
            raise InputError(
                f"{name or 'the detector'} knows no person",
                remedy=f"It finds {', '.join(list(labels)[:5])}; take one that was trained on COCO or Objects365.",
            )
        self.person = labels["person"]
        size = preparation.get("size") or {}
        if not {"height", "width"} <= set(size):
            raise InputError(
                f"{name or 'the detector'} takes pictures of no fixed size ({size})",
                remedy=f"State size as height and width in its {_PREPARATION}.",
            )
        self.size = (int(size["width"]), int(size["height"]))
        self.preparation = preparation

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str = "auto", precision: Precision = "auto", revision: str | None = None
    ) -> TransformersDetector:
        """Load a detector from a folder or by its hub id, such as ``PekingU/rtdetr_v2_r18vd``.

        Parameters
        ----------
        source : str or Path
        device, precision : str
        revision : str, optional
            On the hub.

        Raises
        ------
        InputError
            It is neither there nor reachable, of another family, or weights lack.
        """
        from transformers import AutoModelForObjectDetection
        from transformers.utils import logging

        folder = locate(source, _PARTS, revision=revision)
        kind = read_config(folder).get("model_type")
        if kind not in FAMILIES:
            raise InputError(f"is a {kind}, no detector known here", path=source, remedy=f"Use {', '.join(FAMILIES)}.")
        preparation = read_config(folder, _PREPARATION)
        where = resolve_device(device)
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model, info = AutoModelForObjectDetection.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"cannot be loaded by transformers ({reason})", path=source) from None
        finally:
            if bars:
                logging.enable_progress_bar()
        lacking = sorted(info["missing_keys"])
        if lacking:
            raise InputError(
                f"lacks {len(lacking)} weights ({lacking[0]}, ...)", path=source, remedy="Download it again."
            )
        model.to(where, dtype=resolve_dtype(precision, where))
        return cls(model, preparation, name=str(source))

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]], shown: Sequence[Shown] = ()) -> list[ImageBoxes]:
        """One box a query, whatever its score, best first; pictures are looked at in one batch."""
        if not images:
            return []
        pixels = torch.from_numpy(np.stack([self.prepare(image) for image in images]))
        answer = self.model(pixel_values=pixels.to(self.model.device, self.model.dtype))
        scores = answer.logits[..., self.person].float().sigmoid().cpu().numpy()
        found = answer.pred_boxes.float().cpu().double().numpy()
        results = []
        for image, its, boxes in zip(images, scores, found, strict=True):
            # middle and size, in parts of the picture
            corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
            order = np.argsort(-its, kind="stable")
            sides = np.array([image.shape[1], image.shape[0]] * 2)
            results.append(image_boxes((corners * sides)[order], its[order]))
        return results

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A picture (H, W, 3) as the network takes it, (3, height, width)."""
        from PIL import Image

        settings = self.preparation
        resample = Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR))
        pixels = np.asarray(Image.fromarray(image).resize(self.size, resample), np.float32)
        if settings.get("do_rescale", True):
            pixels = pixels * np.float32(settings.get("rescale_factor", 1 / 255))
        if settings.get("do_normalize", self.model.config.model_type == "rf_detr"):
            mean, std = (
                np.asarray(settings.get(name, default), np.float32)
                for name, default in zip(("image_mean", "image_std"), _IMAGENET, strict=True)
            )
            pixels = (pixels - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
