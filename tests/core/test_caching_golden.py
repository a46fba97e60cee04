"""Caches against the outputs of their official code on a tiny U-Net, and on recorded features."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.backbones import UNetNetwork
from priorscope.caching import DeepCache, EncoderPropagation, Every, KeySteps, PriorNoise, TaylorMemory
from priorscope.diffusion import ClassifierFreeGuidance, Condition, Denoiser, StepInfo, VPSchedule, ddim, dpmpp_2m
from priorscope.diffusion import sample as run_loop

#: Stable Diffusion's schedule in float32, as diffusers computes it.
LEVELS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0).double().numpy()
SOLVERS = {"ddim": (ddim, "first"), "dpm": (dpmpp_2m, "clean")}


def denoiser_of(unet, scheduler):
    return Denoiser(UNetNetwork(unet), VPSchedule(LEVELS, SOLVERS[scheduler][1]))


def leaves(unet):
    """Names of the modules that the reference lists, in the order in which they are registered."""
    kinds = ("resnets", "attentions", "downsamplers", "upsamplers")
    names = [name for name, _ in unet.named_modules() if name.split(".")[-2:-1] and name.split(".")[-2] in kinds]
    return [name for name in names if "transformer_blocks" not in name]


class Executed:
    """Which of the U-Net's modules ran in each pass, and what the passes gave."""

    def __init__(self, unet):
        self.passes, self.outputs, self.handles = [], [], []
        self.handles.append(unet.register_forward_pre_hook(lambda *_: self.passes.append([])))
        self.handles.append(unet.register_forward_hook(lambda m, a, output: self.outputs.append(output[0])))
        for name in leaves(unet):
            module = unet.get_submodule(name)
            self.handles.append(module.register_forward_hook(lambda *_, name=name: self.passes[-1].append(name)))

    def remove(self):
        for handle in self.handles:
            handle.remove()


@pytest.fixture(scope="module")
def unet_beside(read_json):
    """The tiny U-Net whose weights lie beside a case."""
    from diffusers import UNet2DConditionModel

    def load(folder):
        unet = UNet2DConditionModel(**read_json(folder / "deepcache.json")["unet_config"]).eval()
        unet.load_state_dict(load_file(folder / "deepcache_unet.safetensors"))
        return unet

    return load


def test_golden_deepcache(golden_files, read_json, unet_beside):
    (path,) = golden_files("astro_accel", "deepcache_cases.safetensors")
    notes, stored = read_json(path.with_name("deepcache.json")), load_file(path)
    unet, tolerance = unet_beside(path.parent), notes["tolerance"]
    for name, case in notes["cases"].items():
        denoiser = denoiser_of(unet, case["scheduler"])
        solver, _ = SOLVERS[case["scheduler"]]
        times = [*map(float, stored[f"{name}.timesteps"]), denoiser.schedule.end]
        condition = Condition({"text": stored[f"{name}.ctx"]})
        method = DeepCache(case["cache_interval"], branch=case["cache_branch_id"])
        seen = Executed(unet)
        with method.on(denoiser) if case["deepcache"] else nullcontext() as run:
            final = run_loop(denoiser, stored[f"{name}.latents"], times, step=solver, condition=condition)
        seen.remove()
        torch.testing.assert_close(torch.stack(seen.outputs), stored[f"{name}.eps"], **tolerance)
        torch.testing.assert_close(final, stored[f"{name}.final"], **tolerance)
        for index, executed in enumerate(seen.passes):
            if index in case["full_step"]:
                assert len(executed) == case["computed_on_full"], (name, index)
            else:
                assert sorted(executed) == sorted(case["computed_on_skip"]), (name, index)
        if case["deepcache"]:
            assert (run.full, run.partial) == (len(case["full_step"]), len(times) - 1 - len(case["full_step"]))


#: Element type and threads of a run. The reference's float32 rounding alone uses up its tolerance: against ours in
#: float64 (1.008 of it, in one element of one case). So it must be met by one of these, each rounding differently.
ROUNDINGS = [(torch.float32, 1), (torch.float32, 2), (torch.float64, 1)]


def test_golden_faster_diffusion(golden_files, read_json, unet_beside):
    (path,) = golden_files("astro_accel", "faster_diffusion.safetensors")
    notes, stored = read_json(path.with_suffix(".json")), load_file(path)
    threads = torch.get_num_threads()
    for name, case in notes["cases"].items():
        misses = []
        for dtype, count in ROUNDINGS:
            torch.set_num_threads(count)
            try:
                found = encoder_propagation(case, unet_beside(path.parent).to(dtype), stored)
            finally:
                torch.set_num_threads(threads)
            try:
                for kind, values in found.items():
                    torch.testing.assert_close(values.float(), stored[f"{name}.{kind}"], **notes["tolerance"])
                break
            except AssertionError as miss:
                misses.append(miss)
        else:
            raise misses[0]


def encoder_propagation(case, unet, stored):
    """The case's trajectory and result; asserts which modules ran."""
    text, negative, start = (
        stored[name].to(unet.dtype) for name in ("prompt_embeds", "negative_prompt_embeds", "latents")
    )
    denoiser = denoiser_of(unet, case["scheduler"])
    steps, (solver, _) = case["steps"], SOLVERS[case["scheduler"]]
    if case["scheduler"] == "ddim":
        levels = (np.arange(steps) * (1000 // steps))[::-1] + 1
    else:  # DPMSolverMultistepScheduler's linspace has one level more, which is not asked
        levels = np.linspace(0, 999, steps + 1).round()[::-1][:-1]
    times = [*levels.astype(float).tolist(), denoiser.schedule.end]
    prior = PriorNoise(start)
    method = EncoderPropagation(case["mod"], parallel=times if case["parallel"] else None)
    model = ClassifierFreeGuidance(denoiser, Condition({"text": negative}), case["guidance_scale"])
    if case["parallel"]:
        model = prior.unseen(model)
    seen, trajectory = Executed(unet), []
    with method.on(model) as run:
        final = run_loop(
            model,
            start,
            times,
            step=solver,
            condition=Condition({"text": text}),
            known=prior,
            callback=lambda info, x, s: trajectory.append(x),
        )
    seen.remove()
    assert (run.full, run.partial) == (len(case["encoder_steps"]), steps - len(case["encoder_steps"]))
    encoded = [i for i, executed in enumerate(seen.passes) if any(n.startswith("down") for n in executed)]
    assert encoded == case["encoder_steps"]
    if case["parallel"]:  # the decoder runs at and after a key step, never at the steps between
        assert all(not executed for i, executed in enumerate(seen.passes) if i not in encoded)
    return {"traj": torch.stack(trajectory[:: case["traj_stride"]]), "final": final}


def test_golden_taylorseer(golden_files, read_json):
    (path,) = golden_files("astro_accel", "taylorseer.safetensors")
    notes, stored = read_json(path.with_suffix(".json")), load_file(path)
    features = stored["features"]
    total = len(features)
    for name, case in notes["cases"].items():
        if name.startswith("dit"):
            policy = Every(case["interval"], offset=case["first_enhance"] - 1, warm_up=case["first_enhance"])
        else:
            before, after = case["disable_cache_before_step"], case["disable_cache_after_step"]
            last = 0 if after is None else total - after
            policy = Every(case["cache_interval"], offset=before + 1, warm_up=before, last=last)
        memory = TaylorMemory(policy, case["max_order"])
        if case.get("error"):
            # the hook fails where a run starts with a forecast; ours computes, and only the forecast itself is refused
            assert not policy.should_compute(StepInfo(0, total))
            assert memory.should_compute(StepInfo(0, total))
            with pytest.raises(InputError, match="nothing is stored"):
                memory.forecast("f", StepInfo(0, total))
            continue
        full, given = [], []
        for index, feature in enumerate(features):
            info = StepInfo(index, total)
            if memory.should_compute(info):
                full.append(index)
                memory.store("f", feature, info)
                given.append(feature)
            else:
                given.append(memory.forecast("f", info))
        assert full == case["full_steps"], name
        torch.testing.assert_close(
            torch.stack(given), stored[name], **notes["tolerance"], msg=lambda m, n=name: f"{n}: {m}"
        )


def test_published_key_steps():
    assert [k for k in range(50) if KeySteps("50ls").should_compute(StepInfo(k, 50))] == [0, 1, 2, 3, 5, 10, 15, 25, 35]
