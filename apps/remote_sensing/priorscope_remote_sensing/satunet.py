"""SatUNet: Stable Diffusion's U-Net that is also told seven facts about the image (DiffusionSat)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from priorscope.errors import InputError


class SatUNet(UNet2DConditionModel):
    """diffusers' ``UNet2DConditionModel`` plus a small network for each metadata entry.

    Each normalised entry goes through the same sinusoids as the timestep and then through its own two layers;
    the sum is added to the embedding of the timestep. State-dict keys are the published ones.

    Parameters
    ----------
    use_metadata : bool
        Whether the embeddings exist.
    num_metadata : int
        Entries: longitude, latitude, ground sampling distance, cloud cover, year, month, day.
    **kwargs
        Of ``UNet2DConditionModel``.

    Notes
    -----
    ``unet(sample, timestep, text, metadata=...)`` takes (B, num_metadata) normalised values
    (:func:`priorscope_remote_sensing.metadata.normalise`) or (1, num_metadata) for a whole batch. Without them
    all entries are unknown, which is 0 and not the same as no embedding: the networks see those zeros, as they
    did in training. Source: Khanna et al. 2024; samar-khanna/DiffusionSat.
    """

    def __init__(self, *args: Any, use_metadata: bool = True, num_metadata: int = 7, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_to_config(use_metadata=use_metadata, num_metadata=num_metadata)
        self.metadata_embedding: nn.ModuleList | None = None
        if use_metadata:
            inner = self.time_embedding.linear_1
            embeddings = (
                TimestepEmbedding(inner.in_features, inner.out_features, act_fn=self.config.act_fn)
                for _ in range(num_metadata)
            )
            self.metadata_embedding = nn.ModuleList(embeddings)

    # diffusers reads the names of a configuration off the signature
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *inspect.signature(UNet2DConditionModel.__init__).parameters.values(),
            inspect.Parameter("use_metadata", inspect.Parameter.KEYWORD_ONLY, default=True),
            inspect.Parameter("num_metadata", inspect.Parameter.KEYWORD_ONLY, default=7),
        ]
    )

    def drop_metadata(self) -> None:
        """Forget the metadata embeddings: the network as SatDiFuser uses it, told the timestep only."""
        self.metadata_embedding = None
        self.register_to_config(use_metadata=False)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        *args: Any,
        metadata: torch.Tensor | None = None,
        added_cond_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the parent's, with ``metadata``: Tensor (B, num_metadata) or (1, num_metadata), normalised."""
        added = dict(added_cond_kwargs or {})
        if metadata is not None:
            added["metadata"] = metadata
        return super().forward(sample, timestep, encoder_hidden_states, *args, added_cond_kwargs=added, **kwargs)

    def get_aug_embed(
        self, emb: torch.Tensor, encoder_hidden_states: torch.Tensor, added_cond_kwargs: dict[str, Any] | None
    ) -> torch.Tensor | None:
        """The sum of the metadata embeddings, (B or 1, time embedding width)."""
        added = added_cond_kwargs or {}
        other = super().get_aug_embed(emb, encoder_hidden_states, added)
        metadata = added.get("metadata")
        if self.metadata_embedding is None:
            if metadata is not None:
                raise InputError("metadata for a SatUNet without metadata embeddings", remedy="Load it with them.")
            return other
        count = len(self.metadata_embedding)
        if metadata is None:
            metadata = torch.zeros(1, count, device=emb.device)
        if metadata.ndim != 2 or metadata.shape[1] != count or metadata.shape[0] not in (1, emb.shape[0]):
            raise InputError(
                f"metadata of shape {tuple(metadata.shape)} for {emb.shape[0]} images: expected (images, {count})",
                remedy="priorscope_remote_sensing.metadata.normalise makes it.",
            )
        # the sinusoids need float32: a half-precision number near 1000 is off by a quarter
        waves = self.time_proj(metadata.float().flatten()).to(emb.dtype).unflatten(0, metadata.shape)
        total = sum(embed(waves[:, index]) for index, embed in enumerate(self.metadata_embedding))
        return total if other is None else total + other
