"""RED-diff: the prior's denoising error as a regulariser, an optimiser over the estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.inverse.cg import check_values
from priorscope.inverse.guidance import check_measurement, measuring
from priorscope.inverse.iterative import Operator

#: Weight of the prior at a level, as a function of sigma / alpha.
WEIGHTS: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: ratio,
    "sqrt": math.sqrt,
    "square": lambda ratio: ratio**2,
    "log": lambda ratio: math.log(1 + ratio),
    "trunc_linear": lambda ratio: min(ratio, 1.0),
    "power2over3": lambda ratio: ratio ** (2 / 3),
    "const": lambda ratio: 1.0,
}


class REDDiffResult(NamedTuple):
    """What RED-diff found.

    Attributes
    ----------
    mu : Tensor of shape (B, \\*domain)
        The estimate.
    before_last : Tensor of shape (B, \\*domain)
        mu before the last Adam step, plus sigma_x0 times its noise: what the official code scores.
    misfit : float Tensor of shape (steps, B)
        ``|y - H(x0)|^2 / (2 size)`` of each item at each step.
    """

    mu: torch.Tensor
    before_last: torch.Tensor
    misfit: torch.Tensor


@torch.enable_grad()
def red_diff(
    model: Model,
    operator: Operator | Callable[[torch.Tensor], torch.Tensor],
    y: torch.Tensor,
    mu: torch.Tensor,
    times: Sequence[float],
    *,
    noise: Noise,
    weight: Literal["linear", "sqrt", "square", "log", "trunc_linear", "power2over3", "const"] = "linear",
    prior_weight: float = 0.25,
    obs_weight: float = 1.0,
    learning_rate: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.99),
    sigma_x0: float = 0.0,
    levels: int = 1,
    order: Literal["descending", "random"] = "descending",
    seed: int = 0,
    regulariser: Callable[[torch.Tensor], torch.Tensor] | None = None,
    batch_mean: bool = False,
    condition: Condition | None = None,
    callback: Callable[[int, int, torch.Tensor], None] | None = None,
) -> REDDiffResult:
    """Minimise the misfit plus the prior's denoising error over the estimate mu, by Adam.

    At level t, with x0 = mu + sigma_x0 n0 and x_t = alpha x0 + sigma n, the loss of an item is
    ``obs_weight mean((y - H(x0))^2) / 2 + prior_weight w(sigma / alpha) mean(stop(eps(x_t) - n) x0)``. No gradient
    goes through the network.

    Parameters
    ----------
    model : Model
        A denoiser, guided or not.
    operator : Operator or callable
        ``forward`` (B, \\*domain) -> (B, \\*range), or any differentiable function of that kind.
    y : Tensor of shape (B, \\*range)
        The measurement.
    mu : Tensor of shape (B, \\*domain)
        Where to start: the pseudo-inverse H^+ y, not noise. It is not changed.
    times : sequence of float
        The levels, noisiest first, without the clean end: one Adam step for each ``levels`` of them.
    noise : Noise
        Draws n0 (only where ``sigma_x0`` > 0, or with ``batch_mean`` always), then n, for each level.
    weight : str
        w of the ratio s = sigma / alpha: s, its root, its square, log(1 + s), min(s, 1), s^(2/3), or 1.
    prior_weight, obs_weight : float
        lambda and the weight of the misfit.
    learning_rate, betas : float, (float, float)
        Adam's.
    sigma_x0 : float
        Standard deviation of the variational distribution around mu.
    levels : int
        Levels a step: a mini-batch, in one network call, whose prior terms are averaged.
    order : {"descending", "random"}
        ``random`` draws as many levels from ``times``, with replacement, by ``seed``.
    regulariser : callable, optional
        Adds ``regulariser(mu)``, a scalar, to the loss: total variation along z for a stack of slices, for instance.
    batch_mean : bool
        Parity with the official code: means over the whole batch instead of each item, and n0 drawn even if it is
        not used. Adam hardly notices the factor, but with a ``regulariser`` the batch size would matter.
    condition : Condition, optional
        For the network.
    callback : callable, optional
        ``callback(step, steps, mu)`` after each step.

    Returns
    -------
    REDDiffResult

    Source: Mardani et al. 2024 (RED-diff), algorithm 1; weights and defaults of NVlabs/RED-diff.
    """
    _check(y, mu, times, weight, levels, order, sigma_x0, learning_rate)
    measure = measuring(operator)
    steps = _grouped(times, levels, order, seed)
    batch = len(mu)
    mu = mu.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([mu], lr=learning_rate, betas=betas)
    before_last, misfits = mu.detach(), []
    for index, group in enumerate(steps):
        slope, spread = _prior_slope(model, mu.detach(), group, noise, weight, sigma_x0, condition, batch_mean)
        x0 = mu + spread
        before_last = x0.detach()
        residual = y - measure(x0)
        misfit = residual.abs().square().flatten(1).mean(1) / 2
        prior = (slope * x0).flatten(1).mean(1)
        loss = (obs_weight * misfit + prior_weight * prior).sum()
        if batch_mean:
            loss = loss / batch
        if regulariser is not None:
            loss = loss + regulariser(mu)
        adam.zero_grad()
        loss.backward()
        adam.step()
        misfits.append(misfit.detach())
        if callback is not None:
            callback(index, len(steps), mu.detach())
    return REDDiffResult(mu.detach(), before_last, torch.stack(misfits))


def _prior_slope(
    model: Model,
    mu: torch.Tensor,
    group: list[float],
    noise: Noise,
    weight: str,
    sigma_x0: float,
    condition: Condition | None,
    always_draw: bool,
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """Weighted mean of eps - n over the levels of ``group``, and the mean of sigma_x0 n0."""
    noisy, fresh, spreads, factors = [], [], [], []
    for t in group:
        alpha, sigma = model.schedule(t)
        spread = sigma_x0 * noise.like(mu) if sigma_x0 > 0 or always_draw else torch.zeros_like(mu)
        n = noise.like(mu)
        noisy.append(alpha * (mu + spread) + sigma * n)
        fresh.append(n)
        spreads.append(spread)
        factors.append(WEIGHTS[weight](sigma / alpha) / len(group))
    with torch.no_grad():
        if len(group) == 1:
            eps = [model(noisy[0], group[0], condition).eps]
        else:
            level = torch.tensor(group, dtype=torch.float64, device=mu.device).repeat_interleave(len(mu))
            many = None if condition is None else Condition.cat([(condition, len(mu))] * len(group))
            eps = list(model(torch.cat(noisy), level, many).eps.chunk(len(group)))
    slope = sum(factor * (e - n) for factor, e, n in zip(factors, eps, fresh, strict=True))
    return slope, sum(spreads) / len(group)  # type: ignore[return-value]


def _grouped(times: Sequence[float], levels: int, order: str, seed: int) -> list[list[float]]:
    run = [float(t) for t in times]
    if order == "random":
        draws = torch.randint(len(run), (len(run),), generator=torch.Generator().manual_seed(seed))
        run = [run[index] for index in draws.tolist()]
    return [run[begin : begin + levels] for begin in range(0, len(run), levels)]


def _check(
    y: torch.Tensor,
    mu: torch.Tensor,
    times: Sequence[float],
    weight: str,
    levels: int,
    order: str,
    sigma_x0: float,
    learning_rate: float,
) -> None:
    check_measurement(y)
    if mu.is_complex():
        raise InputError("a complex start", remedy="Take the parts as two channels (ChannelsAsComplex).")
    check_values(mu, "start")
    if len(mu) != len(y):
        raise InputError(f"a start of {len(mu)} items for {len(y)} measurements")
    if len(times) == 0:
        raise InputError("no levels to optimise at")
    if weight not in WEIGHTS:
        raise InputError(f"weight {weight!r}", remedy=f"Use one of {', '.join(WEIGHTS)}.")
    if order not in ("descending", "random"):
        raise InputError(f"order {order!r}", remedy="Use 'descending' or 'random'.")
    if levels < 1 or sigma_x0 < 0 or learning_rate <= 0:
        raise InputError(
            f"{levels} levels a step, sigma_x0 {sigma_x0}, learning rate {learning_rate}",
            remedy="Levels and learning rate must be positive, sigma_x0 not negative.",
        )
