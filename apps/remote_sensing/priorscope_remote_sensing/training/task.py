"""What is trained: a decoder on features of a frozen backbone; how it is judged, and which one is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from priorscope.data.images import write_png
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_remote_sensing.data.legend import UNLABELLED, Legend
from priorscope_remote_sensing.features import KeptFeatures
from priorscope_remote_sensing.fusers import ExpertFuser, load_balance
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.pictures import as_picture
from priorscope_remote_sensing.predictor import save_trained
from priorscope_remote_sensing.satdifuser import SatDiFuserModel
from priorscope_remote_sensing.scores import SELECTED_BY, count, empty_counts, figures
from priorscope_remote_sensing.training.examples import LabelledSet
from priorscope_remote_sensing.training.feed import stacked

_SHOWN = 3


class DecoderTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.feed.ExampleFeed`.

    Parameters
    ----------
    model : SatDiFuserModel
        Its decoder is what gets trained.
    features : KeptFeatures
    best : Path
        File that keeps the weights of the best look.
    side : int
        Of the training images, in pixels.
    held_out : LabelledSet, optional
    balance : float
        Weight of the loss that spreads images over experts.
    patience : int
        Looks without a better one after which training ends; 0: it never does.
    """

    def __init__(
        self,
        model: SatDiFuserModel,
        features: KeptFeatures,
        best: Path,
        *,
        side: int,
        held_out: LabelledSet | None = None,
        balance: float = 0.0,
        patience: int = 0,
    ) -> None:
        super().__init__(model.decoder)
        self.whole = model
        self.features = features
        self.best = best
        self.side = side
        self.held_out = held_out
        self.balance = balance
        self.patience = patience
        if isinstance(self.model, ExpertFuser):
            self.model.keep_counter()

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """``loss``: cross-entropy over labelled images or pixels, or binary cross-entropy over all classes."""
        images, labels = batch["image"], batch["label"]
        draws = batch["draw"]
        maps = self._features(images, batch["metadata"], draws)
        if isinstance(self.model, ExpertFuser):
            self.model.updates_done.fill_(batch["step"])
        fused = self.model.fuse(maps)  # type: ignore[operator]
        logits = self.model.decode(fused.maps, tuple(images.shape[-2:]))  # type: ignore[operator]
        if self.whole.settings.task == "multi-label":
            loss = functional.binary_cross_entropy_with_logits(logits, labels)
        else:
            total = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
            loss = total / (labels != UNLABELLED).sum().clamp(min=1)
        losses = {"loss": loss}
        if self.balance and isinstance(self.model, ExpertFuser):
            losses["uneven"] = load_balance(fused.gates)
            losses["loss"] = loss + self.balance * losses["uneven"]
        return losses

    def _features(self, images: torch.Tensor, metadata: list[Any], draws: list[int]) -> dict[int, list[torch.Tensor]]:
        if len(set(draws)) == 1:
            return self.features(images, metadata=metadata, draw=draws[0])
        # a batch that spans two passes
        parts: dict[int, list[list[torch.Tensor]]] = {}
        for row, draw in enumerate(draws):
            one = self.features(images[row : row + 1], metadata=metadata[row : row + 1], draw=draw)
            for step, scales in one.items():
                parts.setdefault(step, []).append(scales)
        return {step: [torch.cat(scale) for scale in zip(*rows, strict=True)] for step, rows in parts.items()}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Figures on the held-out images; a picture of the first of them; the weights, where they are the best."""
        if self.held_out is None:
            return {}
        settings = self.whole.settings
        counts = empty_counts(settings)
        shown: list[Panel] = []
        size = self.features.batch_size
        for begin in range(0, len(self.held_out), size):
            batch = stacked([self.held_out.read(p) for p in range(begin, min(begin + size, len(self.held_out)))])
            maps = self.features(batch["image"], metadata=batch["metadata"])
            probabilities = self.whole.probabilities(maps, tuple(batch["image"].shape[-2:])).cpu()
            count(counts, probabilities, batch["label"].numpy())
            if settings.task == "segmentation" and len(shown) < 3 * _SHOWN:
                shown += self._panels(batch, probabilities)[: 3 * _SHOWN - len(shown)]
        if shown:
            picture = figure_to_image(side_by_side(shown, columns=3, width=9.0), dpi=80)
            write_png(run.figures / f"step-{step:07d}.png", picture, overwrite=True)
        found = figures(counts)
        if step:
            self._keep_best(found[self._measure], step)
        return {f"held_out_{name}": value for name, value in found.items()}

    def _panels(self, batch: dict[str, Any], probabilities: torch.Tensor) -> list[Panel]:
        legend = Legend.of(self.whole.settings.classes)
        panels = []
        for image, label, classes, key in zip(
            batch["image"].numpy(), batch["label"].numpy(), probabilities.argmax(1).numpy(), batch["key"], strict=True
        ):
            panels += [
                Panel(as_picture(image, self.whole.settings.bands), key),
                Panel(legend.paint(label.astype(np.uint8)), "labels"),
                Panel(legend.paint(classes.astype(np.uint8)), "prediction"),
            ]
        return panels

    def _keep_best(self, score: float, step: int) -> None:
        kept = best_look(self.best)
        if kept is not None and step <= kept["step"]:
            return  # a resumed run does again what led to this look
        if kept is None or score > kept["score"]:
            weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
            aside = self.best.with_suffix(".part")
            save_file(weights, aside, {"look": json.dumps({"score": score, "step": step}), "format": "pt"})
            aside.replace(self.best)

    def reason_to_end(self, run: RunFolder) -> str:
        """No look has been better for as long as the patience lasts."""
        kept = best_look(self.best)
        if not self.patience or kept is None:
            return ""
        later = [row for row in run.history() if row["step"] > kept["step"] and f"held_out_{self._measure}" in row]
        return f"the look at step {kept['step']} was not bettered" if len(later) >= self.patience else ""

    @property
    def _measure(self) -> str:
        return SELECTED_BY[self.whole.settings.task]

    def save(self, folder: Path) -> None:
        """Write the model of the best look, or as it is where nothing was looked at."""
        model = self.whole
        if best_look(self.best) is not None:
            decoder = build_decoder(model.decoder.config)
            if isinstance(decoder, ExpertFuser):
                decoder.keep_counter()
            with safe_open(self.best, framework="pt") as file:
                decoder.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            model = SatDiFuserModel(decoder, model.settings, prompt=model.prompt)
        save_trained(model, folder, side=self.side)


def best_look(path: Path) -> dict[str, Any] | None:
    """``score`` and ``step`` of the best look that is kept; None where there is none yet.

    Raises
    ------
    InputError
        The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})["look"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"cannot be read ({error})", path=path, remedy="Remove it; the next look writes it again."
        ) from None
