"""Representation alignment: a diffusion network's inner features are drawn towards a pretrained encoder's.

REPA (Yu et al. 2025) aligns the features of one block for the whole training; HASTE (Wang et al. 2025) also aligns
attention weights, and stops both at some step; ERW (arXiv 2504.10188) first learns the alignment alone. All are
:class:`Alignment` with other numbers in :class:`~priorscope.training.aids.AlignmentConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.training.aids import AlignmentConfig


def feature_alignment_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean negative cosine between tokens, from -1 (aligned) to 1.

    Parameters
    ----------
    student, teacher : Tensor (B, N, D)
        Projected features of the network, and features of the encoder at the same places.

    Returns
    -------
    Tensor ()
        In float32.

    Source: Yu et al. 2025 (REPA).
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"features {tuple(student.shape)} cannot be aligned with {tuple(teacher.shape)}",
            remedy="Resize the encoder's image so that both have the same tokens.",
        )
    return -functional.cosine_similarity(student.float(), teacher.float(), dim=-1, eps=1e-12).mean()


def attention_alignment_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the student's attention weights under the teacher's.

    Parameters
    ----------
    student, teacher : Tensor (B, heads, N, M)
        Logits of the weights, before their softmax over the last axis.

    Returns
    -------
    Tensor ()
        In float32; at least the entropy of the teacher's weights.

    Source: Wang et al. 2025 (HASTE).
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"attention of shape {tuple(student.shape)} cannot be aligned with {tuple(teacher.shape)}",
            remedy="Choose layers with the same tokens and as many heads.",
        )
    return -(teacher.float().softmax(-1) * student.float().log_softmax(-1)).sum(-1).mean()


def attention_logits(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Logits (B, heads, N, M) from projected queries (B, N, heads * d) and keys (B, M, heads * d)."""
    query, key = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key))
    return query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5


def projection_head(width: int, teacher_width: int, *, hidden: int = 2048) -> nn.Sequential:
    """REPA's head from (..., width) to (..., teacher_width): three linear layers with SiLU between them."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, teacher_width),
    )


class Alignment(nn.Module):
    """The alignment of one network: watches its layers and adds to its loss.

    In a :class:`~priorscope.training.task.Task`: make it an attribute, name its head in ``checkpoint_parts`` and end
    ``forward`` with::

        loss = denoising_loss(...)  # runs the network, whose layers are watched
        needed = self.alignment.config.weights(self.step).features > 0
        return self.alignment(self.step, loss, features=encoder(image) if needed else None)

    Parameters
    ----------
    config : AlignmentConfig
    block : Module
        Whose output (B, N, width), or (B, width, H, W), is aligned; REPA takes the 8th block.
    width, teacher_width : int
    attentions : sequence of Module, optional
        diffusers ``Attention`` layers whose weights are aligned: without normalised queries or fused projections.
    hidden : int
        Width of the head.

    Attributes
    ----------
    head : Module
        The projection, thrown away after training. It is no part of the saved model.

    Notes
    -----
    Between calls nothing is kept, but for what gradient checkpointing computes again. In steps in which the alignment
    does not count, the head gets gradients of zero: processes that train together expect some of every weight.
    """

    def __init__(
        self,
        config: AlignmentConfig,
        block: nn.Module,
        width: int,
        teacher_width: int,
        *,
        attentions: Sequence[nn.Module] = (),
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        config.check()
        if config.attention and not attentions:
            raise InputError("attention is to be aligned, but no layer was given", remedy="Give attentions.")
        self.config = config
        self.head = projection_head(width, teacher_width, hidden=hidden) if config.features else None
        # plain objects: the network's modules must not become part of this one
        self._block = _Caught(block) if config.features else None
        self._attentions = tuple(_Attention(layer) for layer in attentions) if config.attention else ()

    def forward(
        self,
        step: int,
        denoising: torch.Tensor,
        *,
        features: torch.Tensor | None = None,
        attention: Sequence[torch.Tensor] = (),
    ) -> dict[str, torch.Tensor]:
        """The losses of one step, after the network has run.

        Parameters
        ----------
        step : int
            Optimiser step, from 0.
        denoising : Tensor ()
        features : Tensor (B, N, teacher_width), optional
            The encoder's; only needed in steps in which they count.
        attention : sequence of Tensor (B, heads, N, N), optional
            The encoder's logits, one a watched layer. Where the encoder has fewer heads, the first ones are aligned.

        Returns
        -------
        dict of str to Tensor ()
            ``loss``, and ``denoising``, ``feature_alignment``, ``attention_alignment``; 0 where one does not count.

        Raises
        ------
        InputError
            Where features or attention count in this step and were not given, or do not fit.
        """
        weights = self.config.weights(step)
        caught = None if self._block is None else self._block.take()
        logits = [layer.take(bool(weights.attention)) for layer in self._attentions]
        found = {"denoising": denoising, "feature_alignment": denoising.new_zeros(())}
        found["attention_alignment"] = denoising.new_zeros(())
        loss = weights.denoising * denoising
        if weights.features:
            if features is None:
                raise InputError(f"step {step} aligns features, and the encoder's were not given")
            assert self.head is not None
            tokens = _one(caught, "block")
            tokens = tokens if tokens.ndim == 3 else tokens.flatten(2).transpose(1, 2)
            found["feature_alignment"] = feature_alignment_loss(self.head(tokens), features)
            loss = loss + weights.features * found["feature_alignment"]
        elif self.head is not None:
            loss = loss + sum(weight.sum() for weight in self.head.parameters()) * 0
        if weights.attention:
            if len(attention) != len(logits):
                raise InputError(f"step {step} aligns {len(logits)} attention layers, {len(attention)} were given")
            pairs = [
                attention_alignment_loss(_one(ours, "layer")[:, : theirs.shape[1]], theirs)
                for ours, theirs in zip(logits, attention, strict=True)
            ]
            found["attention_alignment"] = torch.stack(pairs).mean()
            loss = loss + weights.attention * found["attention_alignment"]
        return {"loss": loss} | found


def _one(caught: torch.Tensor | None, what: str) -> torch.Tensor:
    if caught is None:
        raise InputError(f"the aligned {what} has not run", remedy="Run the network before the alignment.")
    return caught


class _Caught:
    """The last output of a module."""

    def __init__(self, module: nn.Module) -> None:
        self._output: torch.Tensor | None = None
        module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            self._output = output if isinstance(output, torch.Tensor) else output[0]

    def take(self) -> torch.Tensor | None:
        output, self._output = self._output, None
        return output


class _Attention:
    """The logits of an attention layer, computed only where they are taken."""

    def __init__(self, layer: Any) -> None:
        if getattr(layer, "norm_q", None) is not None or getattr(layer, "fused_projections", False):
            raise InputError(
                "attention with normalised queries or fused projections cannot be aligned",
                remedy="Align other layers, or call unfuse_qkv_projections().",
            )
        self._heads = int(layer.heads)
        self._query, self._key = _Caught(layer.to_q), _Caught(layer.to_k)

    def take(self, wanted: bool) -> torch.Tensor | None:
        query, key = self._query.take(), self._key.take()
        return attention_logits(query, key, self._heads) if wanted and query is not None and key is not None else None
