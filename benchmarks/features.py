"""What the features' engine saves. ``python benchmarks/features.py [--small] [--full] [--only flops|dift|attention]``

flops: multiply-adds of the truncated forward pass against the whole one, for each published set of taps, counted on
the meta device at Stable Diffusion 2.1's size.

dift: DIFT of one picture with 8 members. Plain: the picture encoded eight times by diffusers' autoencoder, eight whole
U-Net passes. Ours: encoded once, eight passes that end at the tap. Both with the same random weights of Stable
Diffusion 2.1's size. On a CPU the four pieces (each encoder, whole pass, truncated pass; one member each) are measured
in alternation, and the ratio is worked out from their medians; ``--full`` (always on a GPU) runs both completely.

attention: PrimeDepth's pooled self-attention at the level of the latent (5 heads, 64 wide), against materialising the
weights and pooling them as the official code does. Times alternate; memory is the peak above what was held before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from priorscope.backbones.latents import AutoencoderSpace, LatentDistribution
from priorscope.backbones.stable_diffusion import SD2_UNET, SD_VAE, UNetNetwork
from priorscope.diffusion import Condition, Denoiser, Noise, VPSchedule
from priorscope.features import PUBLISHED, AtLevels, FeatureExtractor, pooled_attention, pooling_matrix, tapped

MEMBERS, LEVEL, TOKENS = 8, 261, 77
HEADS, DEPTH = 5, 64
SMALL_UNET = {"block_out_channels": (64, 128, 256, 256), "attention_head_dim": (1, 2, 4, 4), "cross_attention_dim": 64}
SMALL_VAE = {"block_out_channels": (32, 64, 128, 128)}


def flops(call: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def count_flops(sizes: list[int]) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD2_UNET)
    print("| taps | " + " | ".join(f"{size} px: TFLOP, saved" for size in sizes) + " |")
    print("| --- |" + " --- |" * len(sizes))
    inputs = {
        size: {
            "sample": torch.zeros(1, 4, size // 8, size // 8, device="meta"),
            "timestep": torch.zeros(1, device="meta"),
            "encoder_hidden_states": torch.zeros(1, TOKENS, SD2_UNET["cross_attention_dim"], device="meta"),
        }
        for size in sizes
    }
    whole = {size: flops(lambda size=size: unet(**inputs[size])) for size in sizes}
    print("| whole pass | " + " | ".join(f"{whole[size] / 1e12:.3f}" for size in sizes) + " |")
    for name in [name for name in PUBLISHED if name != "ddae"]:
        taps, cells = tapped(unet, name), []
        for size in sizes:
            counted = flops(lambda size=size, taps=taps: taps(**inputs[size]))
            cells.append(f"{counted / 1e12:.3f}, {100 * (1 - counted / whole[size]):.0f} %")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def alternate(sides: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each, measured in turns after one call to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(repeats):
        for name, call in sides.items():
            synchronise(device)
            begin = time.perf_counter()
            call()
            synchronise(device)
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class Dift:
    """Both sides of the comparison on the same weights."""

    def __init__(self, device: str, dtype: torch.dtype, small: bool) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        torch.manual_seed(0)
        config = {**SD2_UNET, **(SMALL_UNET if small else {})}
        self.unet = UNet2DConditionModel(**config).to(device, dtype).eval().requires_grad_(False)
        vae_config: dict[str, Any] = {**SD_VAE, **(SMALL_VAE if small else {})}
        self.vae = AutoencoderKL(**vae_config).to(device, dtype).eval().requires_grad_(False)
        ours = AutoencoderKL(**vae_config).to(device, dtype).eval().requires_grad_(False)
        ours.load_state_dict(self.vae.state_dict())
        text = torch.randn(1, TOKENS, config["cross_attention_dim"])
        self.text = text.to(device, dtype)
        space = AutoencoderSpace(ours)
        space.lean()
        self.schedule = VPSchedule.from_betas()
        self.ours = FeatureExtractor(
            Denoiser(UNetNetwork(self.unet), self.schedule, "v"),
            space,
            Condition({"text": self.text}, shared=["text"]),
            "dift",
            mode=AtLevels((LEVEL,)),
            ensemble=MEMBERS,
            posterior="sample",
            device=device,
        )

    @torch.no_grad()
    def encode_plain(self, images: torch.Tensor) -> LatentDistribution:
        distribution = self.vae.encode(images).latent_dist
        scaling = self.vae.config.scaling_factor
        return LatentDistribution(distribution.mean * scaling, distribution.std * scaling)

    @torch.no_grad()
    def encode_ours(self, images: torch.Tensor) -> LatentDistribution:
        return self.ours.latents.posterior(images)

    @torch.no_grad()
    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """The tap's map, and everything after it."""
        seen: list[torch.Tensor] = []
        hook = self.unet.up_blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
        self.unet(x.to(self.unet.dtype), LEVEL, encoder_hidden_states=self.text.expand(len(x), -1, -1))
        hook.remove()
        return seen[0].float()

    @torch.no_grad()
    def truncated(self, x: torch.Tensor) -> torch.Tensor:
        return self.ours.viewer.look(x, LEVEL)["up_blocks.1"]

    def all_plain(self, image: torch.Tensor, draws: torch.Tensor, eps: torch.Tensor, batch: int) -> torch.Tensor:
        maps = []
        for begin in range(0, MEMBERS, batch):
            rows = slice(begin, begin + batch)
            encoded = self.encode_plain(image.repeat(len(eps[rows]), 1, 1, 1))
            latents = encoded.mean + encoded.std * draws[rows].to(encoded.std)
            maps.append(self.whole(self.schedule.add_noise(latents, LEVEL, eps[rows].to(latents))))
        return torch.cat(maps).mean(0, keepdim=True)

    def all_ours(self, image: torch.Tensor, draws: torch.Tensor, eps: torch.Tensor, batch: int) -> torch.Tensor:
        noise, posterior_noise = Noise.recorded([eps]), Noise.recorded([draws])
        maps = self.ours.extract_latents(
            self.encode_ours(image), noise=noise, posterior_noise=posterior_noise, batch_size=batch
        )
        return maps[LEVEL]["up_blocks.1"]


def compare_dift(size: int, repeats: int, small: bool, full: bool) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    sides = Dift(device, dtype, small)
    image = (torch.rand(1, 3, size, size) * 2 - 1).to(device, dtype)
    eps, draws = (torch.randn(MEMBERS, 4, size // 8, size // 8) for _ in range(2))
    x = eps[:1].to(device)
    off = float((sides.truncated(x) - sides.whole(x)).abs().max())
    plain, ours = sides.encode_plain(image).mean, sides.encode_ours(image).mean
    gap = float((plain - ours).abs().max() / plain.abs().max())
    where = (
        f"{torch.cuda.get_device_name()}, bfloat16" if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    )
    print(f"DIFT at {size} px, {MEMBERS} members, {where}{', small networks' if small else ''}")
    print(f"  difference of the maps {off:.1e}; of the latents {gap:.1e} of the maximum")
    seconds = alternate(
        {
            "encode (plain)": lambda: sides.encode_plain(image),
            "encode (ours)": lambda: sides.encode_ours(image),
            "U-Net whole": lambda: sides.whole(x),
            "U-Net truncated": lambda: sides.truncated(x),
        },
        repeats,
        device,
    )
    print("  one member: " + ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()))
    before = MEMBERS * (seconds["encode (plain)"] + seconds["U-Net whole"])
    after = seconds["encode (ours)"] + MEMBERS * seconds["U-Net truncated"]
    print(f"  worked out: plain {before:.2f} s, ours {after:.2f} s, {before / after:.2f} times faster", flush=True)
    if full or device == "cuda":
        batch = MEMBERS if device == "cuda" else 1
        given = (image, draws, eps, batch)
        off = float((sides.all_plain(*given) - sides.all_ours(*given)).abs().max())
        whole = alternate(
            {"plain": lambda: sides.all_plain(*given), "ours": lambda: sides.all_ours(*given)}, repeats, device
        )
        print(
            f"  run completely: plain {whole['plain']:.2f} s, ours {whole['ours']:.2f} s, "
            f"{whole['plain'] / whole['ours']:.2f} times faster, difference {off:.1e}",
            flush=True,
        )


def materialised(query: torch.Tensor, key: torch.Tensor, side: int) -> torch.Tensor:
    """The official recipe: all weights, then resized, pooled and resized."""
    weights = (query @ key.transpose(-1, -2) * DEPTH**-0.5).softmax(-1)
    maps = weights.reshape(-1, 1, side, side)
    maps = functional.interpolate(maps, side + 8 - side % 8, mode="bilinear")
    maps = functional.avg_pool2d(maps, max(1, side // 8))
    return functional.interpolate(maps, 8, mode="bilinear").reshape(*weights.shape[:3], 64)


def peak(call: Callable[[], object], device: str) -> int:
    """Bytes held at the worst moment of a call, above those held before it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


@torch.no_grad()
def compare_attention(sides: list[int], repeats: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"Pooled self-attention, {HEADS} heads of {DEPTH}, {device}, {torch.get_num_threads()} thread(s)")
    print(
        "| latent | materialised | one more attention call | times less time | memory | memory a query | difference |"
    )
    print("| --- |" + " --- |" * 6)
    for side in sides:
        query, key = (torch.randn(1, HEADS, side * side, DEPTH, device=device) for _ in range(2))

        def ours(query: torch.Tensor = query, key: torch.Tensor = key, side: int = side) -> torch.Tensor:
            return pooled_attention(query, key, pooling_matrix(side, side), DEPTH**-0.5)

        def official(query: torch.Tensor = query, key: torch.Tensor = key, side: int = side) -> torch.Tensor:
            return materialised(query, key, side)

        ours()  # the library's own first-time allocations are not the method's
        memory = {"ours": peak(ours, device), "official": peak(official, device)}
        off = float((ours() - official()).abs().max())
        seconds = alternate({"official": official, "ours": ours}, repeats, device)
        print(
            f"| {side} x {side} | {seconds['official']:.3f} s | {seconds['ours']:.3f} s | "
            f"{seconds['official'] / seconds['ours']:.1f} | {memory['official'] / 2**20:.0f} MiB against "
            f"{memory['ours'] / 2**20:.1f} | {memory['ours'] / side**2:.0f} B | {off:.1e} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["flops", "dift", "attention"])
    parser.add_argument("--size", type=int, default=768, help="side of DIFT's picture in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small networks and latents, to try the script")
    parser.add_argument("--full", action="store_true", help="also run both sides of DIFT completely on a CPU")
    given = parser.parse_args()
    from diffusers.utils import logging

    logging.set_verbosity_error()  # it warns that a list of modules is empty
    if given.only in (None, "flops"):
        count_flops([512] if given.small else [256, 512, 768])
    if given.only in (None, "attention"):
        compare_attention([24, 40] if given.small else [64, 96], given.repeats)
    if given.only in (None, "dift"):
        compare_dift(min(given.size, 256) if given.small else given.size, given.repeats, given.small, given.full)


if __name__ == "__main__":
    main()
