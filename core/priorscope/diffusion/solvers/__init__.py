"""Solvers: one step of the way from level t to level s, as small functions.

``step(model, x, t, s, state, noise) -> (x, state)``. ``model`` is asked once or more; ``state`` is what a
multi-step solver remembers (None at the start of a run); ``noise`` is drawn only by stochastic solvers. Options are
keywords: ``functools.partial(dpmpp, order=3, eta=1.0)`` is a solver too.

All are written in alpha and sigma, so each serves VP, VE, EDM and flow schedules alike, on any list of levels. In the
coordinates (x / alpha, sigma / alpha) the probability-flow ODE is dx = eps dsigma, and Euler's step there is
alpha_s x0 + sigma_s eps, which stays finite where alpha = 0. Every multi-step solver is that step plus a weighted sum
of what it remembers: without a past it is DDIM, and what a constraint makes of x0 and eps enters as it does there.

| module | solvers | they remember |
| --- | --- | --- |
| ``one_step`` | DDIM, DDPM, Euler (with flows: flow matching's), Euler-ancestral, Heun | nothing |
| ``dpm`` | DPM-Solver++ 2M and 3M with their SDE variants; DPM-Solver-2 and DEIS | x0; eps |
| ``corrected`` | UniPC | x0 |
| ``momentum`` | PLMS, PNDM, and the momentum samplers HB, NT and GHVB | eps; its moving average |
"""

from priorscope.diffusion.solvers.corrected import unipc
from priorscope.diffusion.solvers.dpm import (
    deis,
    dpm_solver_2m,
    dpmpp,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_3m,
    dpmpp_3m_sde,
)
from priorscope.diffusion.solvers.momentum import ghvb, heavy_ball, nesterov, plms, pndm
from priorscope.diffusion.solvers.one_step import Step, ddim, ddpm_ancestral, euler, euler_ancestral, heun

__all__ = [
    "SOLVERS",
    "Step",
    "ddim",
    "ddpm_ancestral",
    "deis",
    "dpm_solver_2m",
    "dpmpp",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "euler",
    "euler_ancestral",
    "ghvb",
    "heavy_ball",
    "heun",
    "nesterov",
    "plms",
    "pndm",
    "unipc",
]

#: Solvers by the names the command lines use. DPM-Solver++ of order 1 is DDIM.
SOLVERS: dict[str, Step] = {
    "ddim": ddim,
    "ddpm": ddpm_ancestral,
    "euler": euler,
    "euler-ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp-1": ddim,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-3m": dpmpp_3m,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "dpmpp-3m-sde": dpmpp_3m_sde,
    "dpm-solver-2m": dpm_solver_2m,
    "deis": deis,
    "unipc": unipc,
    "plms": plms,
    "pndm": pndm,
    "hb": heavy_ball,
    "nt": nesterov,
    "ghvb": ghvb,
}
