"""Prompts with weights: ``sdss, {completely round:1.3} galaxy, {dust lane:1.3}``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from priorscope.errors import InputError
from priorscope_astro.conditions.emphasis import emphasis_runs

Rescale = Literal["mean", "rms", "none"]


def token_weights(runs: Sequence[tuple[str, float]], offsets: Sequence[tuple[int, int]]) -> list[float]:
    """The weight of each token of a prompt.

    Parameters
    ----------
    runs : sequence of (str, float)
        Of the prompt, see :func:`priorscope_astro.conditions.emphasis_runs`.
    offsets : sequence of (int, int)
        First and last character (exclusive) of each token in the prompt without braces.

    Returns
    -------
    list of float
        A token has the weight of its first character.
    """
    weights = [weight for text, weight in runs for _ in text]
    return [weights[first] for first, _ in offsets]


def weighted_states(
    states: torch.Tensor, weights: Sequence[Sequence[float]], *, rescale: Rescale = "mean"
) -> torch.Tensor:
    """Multiply a text encoder's output by the weights of its tokens, then bring each prompt back to its size.

    Parameters
    ----------
    states : Tensor (B, tokens, width)
        The first token, which begins every prompt, has no weight.
    weights : sequence of sequence of float
        For each prompt those of tokens 1, 2, ...; what is left of the tokens has 1.
    rescale : {"mean", "rms", "none"}
        ``mean``, as published: each prompt times the mean of all its values before / after. That mean is near 0, so the
        factor may be far from 1. ``rms`` keeps the root mean square instead.

    Returns
    -------
    Tensor (B, tokens, width)
        A prompt whose weights are all 1 is unchanged.

    Raises
    ------
    InputError
        More weights than tokens, or a mean that has vanished or changed its sign.
    """
    if rescale not in ("mean", "rms", "none"):
        raise InputError(f"rescale {rescale!r}", remedy="Use 'mean', 'rms' or 'none'.")
    result = states.clone()
    for row, factors in enumerate(weights):
        if all(factor == 1 for factor in factors):
            continue
        if len(factors) > states.shape[1] - 1:
            raise InputError(f"{len(factors)} weights for {states.shape[1] - 1} tokens")
        result[row, 1 : 1 + len(factors)] *= torch.tensor(factors, dtype=states.dtype, device=states.device)[:, None]
        if rescale != "none":
            result[row] *= _factor(states[row].float(), result[row].float(), rescale)
    return result


def _factor(before: torch.Tensor, after: torch.Tensor, rescale: Rescale) -> float:
    if rescale == "rms":
        return float(before.square().mean().sqrt() / after.square().mean().sqrt())
    factor = float(before.mean() / after.mean())
    if not 0 < factor < float("inf"):
        raise InputError(
            f"the weights of the prompt turn the mean of its embedding from {before.mean():.3g} to {after.mean():.3g}",
            remedy="Use other weights, or keep the root mean square instead (--rescale rms).",
        )
    return factor


class PromptEncoder:
    """Stable Diffusion 1.5's tokenizer and text encoder; padded to 77 tokens, last layer with its norm.

    Parameters
    ----------
    tokenizer : tokenizer of transformers
        A fast one, which knows where in the text a token stands.
    encoder : CLIPTextModel
    rescale : {"mean", "rms", "none"}
        See :func:`weighted_states`.
    """

    def __init__(self, tokenizer: Any, encoder: Any, *, rescale: Rescale = "mean") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"the tokenizer ({type(tokenizer).__name__}) does not tell where tokens stand",
                remedy="Install the package tokenizers.",
            )
        self.tokenizer, self.encoder, self.rescale = tokenizer, encoder, rescale
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """States of some prompts: (B, 77, 768), in the encoder's dtype. Each prompt is computed once.

        Raises
        ------
        InputError
            Braces that do not fit together, weights that are not positive, a prompt longer than the encoder takes.
        """
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self._encoded(prompt)
        return torch.cat([self._known[prompt] for prompt in prompts])

    def tokens(self, prompt: str) -> tuple[torch.Tensor, list[float]]:
        """Token numbers (1, 77) of a prompt without its braces, and the weights of those between its two ends."""
        runs = emphasis_runs(prompt)
        clean = "".join(text for text, _ in runs)
        limit = int(self.tokenizer.model_max_length)
        bare = self.tokenizer(clean, add_special_tokens=False, return_offsets_mapping=True)
        if len(bare.input_ids) > limit - 2:
            raise InputError(
                f"the prompt {prompt[:60]!r}... has {len(bare.input_ids)} tokens, the text encoder takes {limit - 2}",
                remedy="Leave some tags out.",
            )
        ids = self.tokenizer(clean, padding="max_length", max_length=limit, return_tensors="pt").input_ids
        return ids, token_weights(runs, bare.offset_mapping)

    @torch.no_grad()
    def _encoded(self, prompt: str) -> torch.Tensor:
        ids, weights = self.tokens(prompt)
        states = self.encoder(ids.to(self.encoder.device))[0]
        return weighted_states(states, [weights], rescale=self.rescale)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder's ``tokenizer`` sub-folder.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise InputError(
            f"the tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}", path=folder
        ) from error
