"""How long a plan takes: all steps, DDIM with 8, warm-started with 3. ``python benchmarks/rti.py [--small]``

latency: one environment, networks of Push-T's states; every policy eager and with its network compiled (with CUDA
graphs on a GPU), all taking turns in one process; medians and ratios to the full plan in the same mode. A warm-started
policy begins an episode with a full plan, which is not among these.

loop: a control loop of 10 and of 50 Hz that asks for a new plan at every step of Push-T and waits for the next tick, on
the CPU: the share of steps whose answer came within the step, full plans at an episode's start among them.

The weights are random unless --model names a policy that takes Push-T's ``obs``: times do not depend on them, only how
often the loop's warm starts fall back to full plans does.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from priorscope.evaluation.tables import print_table
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import TrainConfig
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.envs.environment import Environment
from priorscope_robotics.envs.pusht import PushT
from priorscope_robotics.episodes_run import History, min_calls, stack_histories
from priorscope_robotics.latency import summarise, time_in_turns
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.policies.named import make_policy
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.policy import Policy
from priorscope_robotics.training.start import start_model

FULL = "ddpm"
POLICIES = (FULL, "ddim:8", "rti:2,1,0")
HERTZ = (10, 50)
LONGEST = 30.0
SEED = 100_000


def new_model(size: str) -> PolicyModel:
    """Random weights, and a normaliser of Push-T's ranges."""
    env, random = PushT(["obs"]), np.random.default_rng(0)
    seen = np.stack([env.reset(seed)["obs"] for seed in range(40)])
    actions = random.uniform(50, 450, (40, 2)).astype(np.float32)
    episodes = Episodes({"obs": seen}, actions, np.array([20, 40]), fps=10.0, title="random")
    model, _ = start_model(TrainConfig("", size=size), episodes, torch.device("cpu"))  # type: ignore[arg-type]
    return model.eval().requires_grad_(False)


class Compiled(nn.Module):
    """A network compiled, with CUDA graphs on a GPU; those write over their last answer, so it is copied."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.graphs = device.type == "cuda"
        self.run = torch.compile(network, mode="reduce-overhead" if self.graphs else "default")

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.graphs:
            return self.run(*args, **kwargs)
        torch.compiler.cudagraph_mark_step_begin()
        return self.run(*args, **kwargs).clone()


def compiled(model: PolicyModel) -> PolicyModel:
    model = copy.deepcopy(model)
    model.network = Compiled(model.network, model.device)
    return model


def first_seen(model: PolicyModel) -> dict[str, torch.Tensor]:
    env = PushT(["obs"])
    return stack_histories(model.spec, [History(model.spec.n_obs_steps, env.reset(SEED))])


def latency(model: PolicyModel, title: str, calls: int) -> None:
    modes = {"eager": model, "compiled": compiled(model)}
    policies = {(mode, text): make_policy(one, text) for mode, one in modes.items() for text in POLICIES}
    seen = first_seen(model)
    begin = time.perf_counter()
    plans = [
        one.act(seen, one.start(1), EnvironmentNoise([0])).plan for one in list(policies.values())[:: len(POLICIES)]
    ]
    apart = float((plans[0] - plans[1]).abs().max() / plans[0].abs().max())
    print(
        f"\n{title}, one environment, {model.device}: {calls} calls of each in turns; compiling took "
        f"{time.perf_counter() - begin:.0f} s, full plans differ by {apart:.1e} of their maximum",
        flush=True,
    )
    times = time_in_turns(list(policies.values()), seen, calls)
    found = {key: summarise(part) for key, part in zip(policies, times, strict=True)}
    rows = []
    for (mode, text), one in found.items():
        full, eager = (found[key]["p50_ms"] for key in ((mode, FULL), ("eager", text)))
        rows.append(
            {
                "network": mode,
                "policy": text,
                "calls": len(policies[mode, text].levels),  # type: ignore[attr-defined]
                "p50_ms": one["p50_ms"],
                "p95_ms": one["p95_ms"],
                "times quicker than full": full / one["p50_ms"],
                "than eager": eager / one["p50_ms"],
            }
        )
    print_table(rows, ".4g")


def control_loop(policy: Policy, env: Environment, hertz: float, steps: int) -> dict[str, Any]:
    """Ask for an action at every tick; a late answer delays the next one. Only the answer is timed, not the physics.

    After ``LONGEST`` seconds ten steps are enough.
    """
    period, seed = 1 / hertz, SEED
    history = History(policy.spec.n_obs_steps, env.reset(seed))
    state, noise = policy.start(1), EnvironmentNoise([0])
    seconds, cold = [], 0
    tick = start = time.perf_counter()
    while len(seconds) < steps and (len(seconds) < 10 or time.perf_counter() - start < LONGEST):
        time.sleep(max(0.0, tick - time.perf_counter()))
        tick = max(tick, time.perf_counter() - 1e-3)  # time that is lost is not made up for
        begin = time.perf_counter()
        out = policy.act(stack_histories(policy.spec, [history]), state, noise)
        action = out.actions[0, 0].cpu().numpy()
        seconds.append(time.perf_counter() - begin)
        cold += out.calls[0] > min_calls(policy)
        outcome = env.step(action)
        history.add(outcome.seen)
        if outcome.done:
            seed += 1
            history = History(policy.spec.n_obs_steps, env.reset(seed))
            state.reset()
        tick += period
    found = np.array(seconds)
    return {
        "steps": len(found),
        "in time": float(np.mean(found <= period)),
        "p50_ms": float(np.percentile(found, 50)) * 1e3,
        "p95_ms": float(np.percentile(found, 95)) * 1e3,
        "slowest_ms": float(found.max()) * 1e3,
        "full plans": cold,
    }


def loops(model: PolicyModel, title: str, steps: int) -> None:
    print(f"\n{title}, control loop, Push-T with a plan at every step, eager", flush=True)
    rows = []
    for hertz in HERTZ:
        for text in POLICIES:
            policy = make_policy(model, text, n_action_steps=1)
            policy.act(first_seen(model), policy.start(1), EnvironmentNoise([0]))  # warms up
            rows.append({"hertz": hertz, "policy": text, **control_loop(policy, PushT(["obs"]), hertz, steps)})
    print_table(rows, ".4g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["latency", "loop"])
    parser.add_argument("--sizes", nargs="+", default=["small", "published"], help="of random networks, as of train")
    parser.add_argument("--model", type=Path, help="a trained policy in place of random ones")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100, help="of the control loop")
    parser.add_argument("--small", action="store_true", help="try the script")
    options = parser.parse_args()
    if options.small:
        options.sizes, options.calls, options.steps = ["tiny"], 3, 5
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{_processor()}, one thread"
    print(f"{where}, torch {torch.__version__}")
    models = {size: new_model(size) for size in options.sizes} if options.model is None else {}
    if options.model is not None:
        models[options.model.name] = load_policy(options.model).requires_grad_(False)
    for name, model in models.items():
        title = f"{name} ({sum(weight.numel() for weight in model.network.parameters()) / 1e6:.1f} million weights)"
        if options.only in (None, "latency"):
            latency(model.to(device), title, options.calls)
        if options.only in (None, "loop"):
            loops(model.to("cpu"), title, options.steps)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
