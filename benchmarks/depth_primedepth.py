"""What PrimeDepth's attention taps cost. ``python benchmarks/depth_primedepth.py [--small] [--size 1024]``

memory: every attention map that the published model reads of a picture (4 transformers of 5 heads at the latent's
size, 5 of 10 heads at half of it, 5 of 20 at a quarter, 1 of 20 at an eighth), made one after the other from random
queries and keys of the true shapes and all kept, as the model keeps them: peak above what was held before. The other
side is the official way for ONE of the largest of these layers, and for one of its five heads only, unless
``--all-heads`` says that there is memory for all (the map alone takes 5.4 GB at 1024 x 1024).

time: one such layer at 64 x 64 and 96 x 96 latents, both sides in turns in this process (benchmarks/features.py).
"""

from __future__ import annotations

import argparse

import torch
from features import DEPTH, HEADS, compare_attention, materialised, peak

from priorscope.features import attention_map
from priorscope_depth.primedepth.architecture import Architecture, decoder_steps


def layers(architecture: Architecture) -> list[tuple[str, int, int]]:
    """Transformer, heads and halvings of every tapped layer."""
    heads = architecture.unet["attention_head_dim"]
    last = len(heads) - 1
    found = []
    for path in sorted(
        {path for step in decoder_steps(architecture) for path in (step.previous, step.mirrored) if path}
    ):
        block, _, number = path.partition(".")
        level = last if block == "mid_block" else int(number.split(".")[0])
        level = last - level if block == "up_blocks" else level
        found.append((path, heads[level], level))
    return found


@torch.no_grad()
def compare_memory(size: int, all_heads: bool) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = size // 8
    architecture = Architecture()
    found = layers(architecture)

    def taps() -> list[torch.Tensor]:
        maps = []
        for _, heads, level in found:
            grid = (side >> level, side >> level)
            query, key = (torch.randn(1, grid[0] * grid[1], heads * DEPTH, device=device) for _ in range(2))
            tokens = torch.randn(1, architecture.tokens, heads * DEPTH, device=device)
            maps.append(attention_map(query, key, heads, DEPTH**-0.5, grid, key_size=grid))
            maps.append(attention_map(query, tokens, heads, DEPTH**-0.5, grid, key_size=None))
        return maps

    heads = HEADS if all_heads else 1
    query, key = (torch.randn(1, heads, side * side, DEPTH, device=device) for _ in range(2))
    ours = peak(taps, device)
    official = peak(lambda: materialised(query, key, side), device)
    kept = sum(heads * (64 + architecture.tokens) * (side >> level) ** 2 * 4 for _, heads, level in found) / 1e9
    whole = heads * side**4 * 4 / 1e9
    some = f"{heads} of {HEADS} heads"
    print(f"Attention taps at {size} x {size} pixels, {device}, {torch.get_num_threads()} thread(s)")
    print("| | memory of its result | peak memory |")
    print("| --- | --- | --- |")
    print(f"| ours, all {len(found)} layers, every map kept | {kept:.2f} GB | {ours / 1e9:.2f} GB |")
    print(f"| materialised, one layer, {some} | {whole:.2f} GB | {official / 1e9:.2f} GB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the picture in pixels")
    parser.add_argument("--all-heads", action="store_true", help="materialise all five heads of the layer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["memory", "time"])
    parser.add_argument("--small", action="store_true", help="small pictures, to try the script")
    given = parser.parse_args()
    if given.only in (None, "memory"):
        compare_memory(256 if given.small else given.size, given.all_heads)
    if given.only in (None, "time"):
        compare_attention([24, 40] if given.small else [64, 96], given.repeats)


if __name__ == "__main__":
    main()
