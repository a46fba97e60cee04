"""The transformer of Diffusion Policy: time steps of the plan are tokens, the observations are memory or tokens."""

from __future__ import annotations

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope_robotics.networks.unet1d import StepEmbedding


class TransformerForDiffusion(nn.Module):
    """Denoise plans (B, T, D).

    Parameters
    ----------
    input_dim, output_dim : int
        D of what comes in and of what goes out.
    horizon : int
        T.
    n_obs_steps : int
        Observations that condition a plan.
    cond_dim : int
        Of one of them; 0: no observations beside the plan.
    n_layer, n_head, n_emb : int
    p_drop_emb, p_drop_attn : float
    causal_attn : bool
        A step of the plan sees itself and those before it.
    time_as_cond : bool
        The noise level is memory of a decoder; otherwise a token in front of an encoder.
    obs_as_cond : bool
    n_cond_layers : int
        Encoder layers over the memory; 0: a perceptron.

    Notes
    -----
    Keys and arithmetic are those of ``diffusion_policy/model/diffusion/transformer_for_diffusion.py``.
    """

    mask: torch.Tensor | None
    memory_mask: torch.Tensor | None

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_obs_steps: int,
        cond_dim: int = 0,
        *,
        n_layer: int = 12,
        n_head: int = 12,
        n_emb: int = 768,
        p_drop_emb: float = 0.1,
        p_drop_attn: float = 0.1,
        causal_attn: bool = False,
        time_as_cond: bool = True,
        obs_as_cond: bool = False,
        n_cond_layers: int = 0,
    ) -> None:
        super().__init__()
        if n_emb % n_head or n_emb % 2:
            raise InputError(f"{n_emb} channels for {n_head} heads", remedy="Use an even multiple of the heads.")
        obs_as_cond = cond_dim > 0
        if obs_as_cond and not time_as_cond:
            raise InputError("observations as memory need the noise level there too", remedy="Set time_as_cond.")
        tokens, memory = (horizon, 1) if time_as_cond else (horizon + 1, 0)
        if obs_as_cond:
            memory += n_obs_steps
        self._dummy_variable = nn.Parameter()
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.zeros(1, tokens, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = StepEmbedding(n_emb)
        self.cond_obs_emb = nn.Linear(cond_dim, n_emb) if obs_as_cond else None
        self.cond_pos_emb = None
        self.decoder = None
        layer = {
            "d_model": n_emb,
            "nhead": n_head,
            "dim_feedforward": 4 * n_emb,
            "dropout": p_drop_attn,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
        }
        self.encoder: nn.Module
        if memory:
            self.cond_pos_emb = nn.Parameter(torch.zeros(1, memory, n_emb))
            if n_cond_layers:
                self.encoder = _encoder(layer, n_cond_layers)
            else:
                self.encoder = nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))
            self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), n_layer)  # type: ignore[arg-type]
        else:
            self.encoder = _encoder(layer, n_layer)
        mask = memory_mask = None
        if causal_attn:
            later = torch.full((tokens, tokens), float("-inf"))
            mask = torch.triu(later, 1)
            if time_as_cond and obs_as_cond:
                step, place = torch.meshgrid(torch.arange(tokens), torch.arange(memory), indexing="ij")
                memory_mask = torch.zeros(tokens, memory).masked_fill(step < place - 1, float("-inf"))
        self.register_buffer("mask", mask)
        self.register_buffer("memory_mask", memory_mask)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)
        self.apply(_start)
        for embedding in (self.pos_emb, self.cond_pos_emb):
            if embedding is not None:
                nn.init.normal_(embedding, std=0.02)

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        """What the network says of ``x``.

        Parameters
        ----------
        x : Tensor (B, T, D)
        t : Tensor () or (B,)
            Steps of the schedule.
        cond : Tensor (B, n_obs_steps, cond_dim), optional

        Returns
        -------
        Tensor (B, T, output_dim)
        """
        level = self.time_emb(t.expand(x.shape[0]))[:, None].to(x.dtype)
        tokens = self.input_emb(x)
        if self.decoder is None:
            tokens = torch.cat([level, tokens], 1)
            tokens = self.encoder(self.drop(tokens + self.pos_emb[:, : tokens.shape[1]]), mask=self.mask)[:, 1:]
            return self.head(self.ln_f(tokens))
        memory = level
        if self.cond_obs_emb is not None:
            if cond is None:
                raise InputError("this transformer needs observations")
            memory = torch.cat([memory, self.cond_obs_emb(cond)], 1)
        assert self.cond_pos_emb is not None
        memory = self.encoder(self.drop(memory + self.cond_pos_emb[:, : memory.shape[1]]))
        tokens = self.drop(tokens + self.pos_emb[:, : tokens.shape[1]])
        # tgt_is_causal is left open: with it, torch drops the mask of the memory
        tokens = self.decoder(tokens, memory, tgt_mask=self.mask, memory_mask=self.memory_mask)
        return self.head(self.ln_f(tokens))

    def weight_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Parameter groups of the published training: matrices of linear layers decay, everything else does not."""
        decay: list[nn.Parameter] = []
        keep: list[nn.Parameter] = []
        for name, weight in self.named_parameters():
            matrix = weight.ndim == 2 and not name.endswith("bias")
            (decay if matrix else keep).append(weight)
        return [{"params": decay, "weight_decay": weight_decay}, {"params": keep, "weight_decay": 0.0}]


def _encoder(layer: dict[str, object], count: int) -> nn.TransformerEncoder:
    block = nn.TransformerEncoderLayer(**layer)  # type: ignore[arg-type]
    return nn.TransformerEncoder(block, count, enable_nested_tensor=False)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
