"""One-step depth at full size: the plain way against ours. ``python benchmarks/depth_speed.py [--size 768] [--small]``

Plain: diffusers' U-Net and autoencoder and transformers' text encoder, each call as Lotus' official pipeline makes it
(text encoded, image encoded, one U-Net call told 999 and the task, decoded). Ours: DepthPredictor's model with
constants folded in. Both have the same random weights of Stable Diffusion 2's size and get the same picture. Times
alternate in one process; peak memory is that of a process of its own for each side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

HEADS = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
SMALL_UNET = {
    "block_out_channels": (64, 128, 256, 256),
    "attention_head_dim": (1, 2, 4, 4),
    "cross_attention_dim": 64,
}
SMALL_VAE = {"block_out_channels": (32, 64, 128, 128)}


Model = Callable[[torch.Tensor], torch.Tensor]


def write_model(folder: Path, small: bool) -> None:
    """Random weights in the published layout, and the prompt's state beside them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from priorscope.backbones.stable_diffusion import SD2_UNET, SD_VAE

    torch.manual_seed(0)
    unet = {**SD2_UNET, **(SMALL_UNET if small else {})}
    switch = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
    UNet2DConditionModel(**unet, **switch).save_pretrained(folder / "unet")
    AutoencoderKL(**{**SD_VAE, **(SMALL_VAE if small else {})}).save_pretrained(folder / "vae")
    width = unet["cross_attention_dim"]
    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 1} if small else HEADS
    text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="gelu", **sizes)).eval()
    text.save_pretrained(folder / "text_encoder")
    with torch.no_grad():
        state = text(torch.tensor([[49406, 49407]])).last_hidden_state
    save_file({"state": state.contiguous()}, folder / "empty_prompt.safetensors")
    (folder / "priorscope.json").write_text('{"family": "lotus-d", "task": "depth", "space": "disparity"}')


class Plain:
    """The official pipeline's calls; the posterior's mean, so that both sides give the same picture."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet").to(device, dtype)
        self.vae = AutoencoderKL.from_pretrained(folder / "vae").to(device, dtype)
        self.text = CLIPTextModel.from_pretrained(folder / "text_encoder").to(device, dtype)
        angles = torch.tensor([[1.0, 0.0]])
        self.task = torch.cat([angles.sin(), angles.cos()], -1).to(device, dtype)
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        rows = image.shape[0]
        tokens = torch.tensor([[49406, 49407]], device=image.device).expand(rows, -1)
        state = self.text(tokens).last_hidden_state
        latent = self.vae.encode(image.to(self.dtype)).latent_dist.mean * self.vae.config.scaling_factor
        answer = self.unet(latent, 999, encoder_hidden_states=state, class_labels=self.task.expand(rows, -1)).sample
        return self.vae.decode(answer / self.vae.config.scaling_factor).sample.float()


class Ours:
    def __init__(self, folder: Path, device: str, dtype: torch.dtype, *, tiled: bool = False, compiled: bool = False):
        from priorscope_depth import DepthPredictor

        precision = {torch.float32: "float32", torch.bfloat16: "bfloat16"}[dtype]
        self.predictor = DepthPredictor.from_pretrained(
            folder, device=device, precision=precision, tiled_vae=tiled, compile=compiled
        )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self.predictor.raw(image, seed=0, items=[0] * image.shape[0])


def picture(width: int, rows: int = 1) -> torch.Tensor:
    """A smooth random picture (rows, 3, 3/4 width, width) in [-1, 1]."""
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (rows, 3, 12, 16)).astype(np.float32))
    return torch.nn.functional.interpolate(noise, (width * 3 // 4, width), mode="bicubic").clamp(-1, 1)


def peak_memory() -> float:
    """GB of this process at its largest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6


def measure_memory(folder: Path, width: int, side: str, out: Path) -> float:
    """Peak memory of one side in a process of its own; its output goes to ``out``."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--size", str(width)]
    done = subprocess.run([*command, "--output", str(out)], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak"])


def one_side(side: str, folder: Path, width: int, output: Path) -> None:
    model = (
        Plain(folder, "cpu", torch.float32)
        if side == "plain"
        else Ours(folder, "cpu", torch.float32, tiled=side == "tiled")
    )
    torch.save(model(picture(width)), output)
    print(json.dumps({"peak": peak_memory()}))


class Clock:
    """Seconds on the wall, and of processor time: the second does not notice what else runs on the machine."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def time(self, model: Model, image: torch.Tensor) -> torch.Tensor:
        begin = time.perf_counter(), time.process_time()
        answer = model(image)
        if image.device.type == "cuda":
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter() - begin[0])
        self.processor.append(time.process_time() - begin[1])
        return answer


def compare(plain: Model, ours: Model, image: torch.Tensor, repeats: int) -> tuple[Clock, Clock, float]:
    """Times of both sides, alternating; largest difference of their answers over the maximum."""
    if image.device.type == "cuda":
        for model in (plain, ours):  # kernels are chosen and compiled at the first call
            model(image)
    clocks, difference = (Clock(), Clock()), 0.0
    for _ in range(repeats):
        first, second = (clock.time(model, image) for clock, model in zip(clocks, (plain, ours), strict=True))
        difference = float((first - second).abs().max() / first.abs().max())
    return *clocks, difference


def matmul_peak(dtype: torch.dtype) -> float:
    """Measured TFLOP/s of a large matrix product."""
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    a @ a
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - begin) / 1e12


def flops(model: Plain, image: torch.Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(image)
    return float(counter.get_total_flops())


def on_gpu(folder: Path, width: int) -> None:
    print(f"GPU: {torch.cuda.get_device_name()}")
    peak = matmul_peak(torch.bfloat16)
    plain = Plain(folder, "cuda", torch.float32)
    ours = Ours(folder, "cuda", torch.bfloat16, compiled=True)
    for rows in (1, 8):
        image = picture(width, rows).cuda()
        work = flops(plain, image)
        clocks = compare(plain, ours, image, 10)
        before, after = (statistics.median(clock.wall) for clock in clocks[:2])
        print(
            f"batch {rows}: plain float32 {before * 1e3:.1f} ms, ours bfloat16 compiled {after * 1e3:.1f} ms, ratio "
            f"{after / before:.3f}, difference {clocks[2]:.1e}, {work / after / 1e12 / peak:.2f} of the matmul peak"
        )


def against_marigold(width: int, small: bool) -> None:
    """One step against 50 steps times 10 members, both ours and of the same size."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from priorscope.backbones.latents import AutoencoderSpace
    from priorscope.backbones.stable_diffusion import SD2_UNET, SD_VAE
    from priorscope.predictors import Geometry
    from priorscope_depth import DepthPredictor
    from priorscope_depth.assemble import build_predictor
    from priorscope_depth.families import FAMILIES, Recipe

    torch.manual_seed(0)
    sizes = {**SD2_UNET, **(SMALL_UNET if small else {})}
    vae = AutoencoderKL(**{**SD_VAE, **(SMALL_VAE if small else {})}).eval().requires_grad_(False)
    prompt = torch.randn(1, 2, sizes["cross_attention_dim"])
    scheduler = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "num_train_timesteps": 1000}
    scheduler |= {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    seconds = []
    rgb = ((picture(width)[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
    for family, steps, members in (("lotus-d", 1, 1), ("marigold", 50, 10)):
        recipe = Recipe(FAMILIES[family], "depth", "depth")
        extra = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
        unet = UNet2DConditionModel(
            **sizes | {"in_channels": 4 * len(recipe.family.inputs)}, **(extra if family == "lotus-d" else {})
        )
        unet.eval().requires_grad_(False)
        latent = build_predictor(unet, AutoencoderSpace(vae), prompt, recipe, scheduler=scheduler, steps=steps)
        latent.fold()
        predictor = DepthPredictor(latent, recipe, geometry=Geometry(0))
        if steps == 1:
            predictor(rgb)
        begin = time.perf_counter()
        predictor(rgb, ensemble=members)
        seconds.append(time.perf_counter() - begin)
    print(f"one step against 50 steps x 10 members at {width} pixels: {seconds[1] / seconds[0]:.0f} times the time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--small", action="store_true", help="small networks, to try the script")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--marigold-size", type=int, default=64)
    parser.add_argument("--only", choices=["time", "memory", "marigold"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--side", choices=["plain", "ours", "tiled"])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.side:
        one_side(given.side, given.folder, given.size, given.output)
        return
    with tempfile.TemporaryDirectory() as aside:
        folder = given.folder or Path(aside) / "model"
        if not (folder / "unet").exists():
            write_model(folder, given.small)
        if torch.cuda.is_available():
            on_gpu(folder, given.size)
            return
        shape = f"{given.size * 3 // 4} x {given.size}"
        if given.only in (None, "memory"):
            peaks = {
                side: measure_memory(folder, given.size, side, Path(aside) / f"{side}.pt")
                for side in ("plain", "ours", "tiled")
            }
            outputs = {side: torch.load(Path(aside) / f"{side}.pt") for side in peaks}
            largest = outputs["plain"].abs().max()
            for side in ("ours", "tiled"):
                off = float((outputs[side] - outputs["plain"]).abs().max() / largest)
                print(
                    f"{shape}, peak memory: plain {peaks['plain']:.2f} GB, {side} {peaks[side]:.2f} GB, ratio "
                    f"{peaks[side] / peaks['plain']:.2f}, difference {off:.1e} of the maximum",
                    flush=True,
                )
        if given.only in (None, "time"):
            sides = Plain(folder, "cpu", torch.float32), Ours(folder, "cpu", torch.float32)
            before, after, off = compare(*sides, picture(given.size), given.repeats)
            wall = statistics.median(after.wall) / statistics.median(before.wall)
            processor = statistics.median(after.processor) / statistics.median(before.processor)
            print(
                f"{shape}, CPU, {torch.get_num_threads()} thread(s): ratio {wall:.2f} on the wall, {processor:.2f} of "
                f"processor time, difference {off:.1e} of the maximum",
                flush=True,
            )
            del sides
        if given.only in (None, "marigold"):
            against_marigold(given.marigold_size, given.small)


if __name__ == "__main__":
    main()
