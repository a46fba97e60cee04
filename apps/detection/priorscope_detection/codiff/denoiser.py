"""The network that cleans a latent map while it looks at what each agent sees (ours): any number of agents, any size.

The agents are a masked set: each one's latent, in the ego's frame, goes through the same convolutions, and at every
cell the noisy latent and the coarse fused one ask the set by attention. A learned entry that is always there answers
when nobody covers a cell. Around it is a U-Net, told of the noise level, whose view is wide enough to put right what
stands some cells off its place.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from priorscope_detection.network.spec import CoDiffSpec


class LevelEmbedding(nn.Module):
    """Sinusoids of the noise level (B,), a number of 0 to 1000, then a perceptron to (B, width)."""

    def __init__(self, width: int, rates: int = 16) -> None:
        super().__init__()
        self.rates = rates
        self.first = nn.Linear(2 * rates, width)
        self.second = nn.Linear(width, width)

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """(B,) to (B, width)."""
        steps = torch.arange(self.rates, device=level.device, dtype=torch.float32)
        angle = level.float()[:, None] * torch.exp(-math.log(10_000.0) / self.rates * steps)
        waves = torch.cat([angle.sin(), angle.cos()], -1).to(self.first.weight.dtype)
        return self.second(functional.silu(self.first(waves)))


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3 x 3 convolution, twice, around a shortcut; the second norm is scaled and shifted by the level."""

    def __init__(self, inside: int, outside: int, level_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(inside), _norm(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, 1, 1)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        self.level = nn.Linear(level_width, 2 * outside)
        self.shortcut: nn.Module = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # begins as the shortcut

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) and (B, level width) to (B, outside, H, W)."""
        y = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.level(functional.silu(level))[:, :, None, None].chunk(2, 1)
        y = self.conv2(functional.silu(self.norm2(y) * (1 + scale) + shift))
        return y + self.shortcut(x)


class AgentReader(nn.Module):
    """Attention of each cell over the agents that cover it, in several heads.

    Parameters
    ----------
    latent, width, heads : int
        Channels of an agent's latent, of the result, and its heads.
    """

    def __init__(self, latent: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # latent, whether the cell is covered, whether it is the ego, road-side unit or not, age of the message
        self.encode = nn.Sequential(
            nn.Conv2d(latent + 4, width, 3, 1, 1), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1), nn.SiLU()
        )
        self.key_value = nn.Conv2d(width, 2 * width, 1)
        self.query = nn.Conv2d(width, width, 1)
        self.nobody = nn.Parameter(0.02 * torch.randn(2, width))
        self.out = nn.Conv2d(width, width, 1)

    def prepare(
        self, agents: torch.Tensor, seen: torch.Tensor, kinds: torch.Tensor, delays: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (B, L + 1, width, H, W); the same at every level, so they are computed once a run."""
        frames, most = agents.shape[:2]
        ego = torch.arange(most, device=agents.device).eq(0).expand(frames, most)
        told = torch.stack([ego.to(agents), kinds.to(agents), delays.to(agents)], 2)[..., None, None]
        told = told.expand(-1, -1, -1, *agents.shape[3:])
        mask = seen[:, :, None].to(agents)
        # who does not take part says nothing, also not through the neighbours of a cell
        rows = torch.cat([agents * mask, mask, told * mask], 2).flatten(0, 1)
        key, value = self.key_value(self.encode(rows)).unflatten(0, (frames, most)).chunk(2, 2)
        nobody = self.nobody[:, None, None, :, None, None].expand(-1, frames, 1, -1, *agents.shape[3:])
        return torch.cat([nobody[0], key], 1), torch.cat([nobody[1], value], 1)

    def forward(self, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """What the agents say (B, width, H, W) to what a cell asks (B, width, H, W)."""
        query = self.query(x).unflatten(1, (self.heads, -1))
        key, value = (rows.unflatten(2, (self.heads, -1)) for rows in (key, value))
        score = torch.einsum("bndhw,blndhw->blnhw", query, key) / query.shape[2] ** 0.5
        there = torch.cat([torch.ones_like(seen[:, :1]), seen], 1)[:, :, None]
        weight = score.masked_fill(~there, -torch.inf).softmax(1)
        return self.out(torch.einsum("blnhw,blndhw->bndhw", weight, value).flatten(1, 2))


class SetDenoiser(nn.Module):
    """A U-Net of a noisy latent map, the coarse fused latent and a set of agents' latents.

    Parameters
    ----------
    spec : CoDiffSpec
    """

    def __init__(self, spec: CoDiffSpec) -> None:
        super().__init__()
        # a network of clean latents only says by what the coarse one is to be changed; it begins with nothing
        self.residual = spec.prediction == "sample"
        widths = [spec.width * factor for factor in spec.multiples]
        time = 4 * spec.width
        self.level = LevelEmbedding(time)
        # runs from noise and from the coarse map: at the same level, x holds different things
        self.run = nn.Embedding(2, time)
        # noisy latent, coarse latent, whether there is one
        self.stem = nn.Conv2d(2 * spec.latent + 1, widths[0], 3, 1, 1)
        self.reader = AgentReader(spec.latent, widths[0], spec.heads)
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        inside = widths[0]
        skips = []
        for number, width in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(spec.blocks):
                blocks.append(ResidualBlock(inside, width, time))
                inside = width
            last = number == len(widths) - 1
            skips.append(width)
            smaller = nn.Identity() if last else nn.Conv2d(width, width, 3, 2, 1)
            self.downs.append(nn.ModuleList([blocks, smaller]))
        self.middle = ResidualBlock(inside, inside, time)
        for width in reversed(widths):
            blocks = nn.ModuleList()
            for number in range(spec.blocks):
                blocks.append(ResidualBlock(inside + (width if number == 0 else 0), width, time))
                inside = width
            self.ups.append(blocks)
        self.norm = _norm(inside)
        self.out = nn.Conv2d(inside, spec.latent, 3, 1, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        x: torch.Tensor,
        level: torch.Tensor,
        coarse: torch.Tensor,
        has_coarse: torch.Tensor,
        late: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        seen: torch.Tensor,
    ) -> torch.Tensor:
        """What the diffusion asks for, as a map.

        Parameters
        ----------
        x : Tensor (B, latent, H, W)
            The noisy latent.
        level : Tensor (B,)
            0 (clean) to 1000 (noise).
        coarse : Tensor (B, latent, H, W)
            Latent of the coarse fused feature.
        has_coarse : bool Tensor (B,)
            Whether ``coarse`` counts.
        late : bool Tensor (B,)
            Whether the run started from ``coarse`` instead of from noise.
        key, value : Tensor (B, L + 1, width, H, W)
            From :meth:`AgentReader.prepare`.
        seen : bool Tensor (B, L, H, W)
            Who takes part, and where.

        Returns
        -------
        Tensor (B, latent, H, W)
        """
        there = has_coarse.to(x)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        h = self.stem(torch.cat([x, coarse * there, there], 1))
        h = h + self.reader(h, key, value, seen)
        time = self.level(level) + self.run(late.long())
        skips = []
        for blocks, smaller in (part.children() for part in self.downs):
            for block in blocks.children():
                h = block(h, time)
            skips.append(h)
            h = smaller(h)
        h = self.middle(h, time)
        for blocks in self.ups:
            skip = skips.pop()
            if h.shape[2:] != skip.shape[2:]:  # any size: an odd map was halved upwards
                h = functional.interpolate(h, size=skip.shape[2:], mode="nearest")
            h = torch.cat([h, skip], 1)
            for block in blocks.children():
                h = block(h, time)
        h = self.out(functional.silu(self.norm(h))).to(x.dtype)
        return h + coarse * there if self.residual else h


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(width, 8), width)
