"""What tomography costs. ``python benchmarks/tomography.py [--small] [--only projector|memory|solvers]``

projector: one pass of a volume through forward and adjoint at 8, 30 and 180 views, with our sparse matrix, against
scikit-image's radon and iradon (no filter) slice by slice, and against a loop over the angles that turns the whole
padded stack by torch's grid_sample and takes the adjoint from autograd (what DiffusionMBIR does, grids kept). Times
alternate, medians are compared. The baselines take their time: each is run on a part (slices for scikit-image, views
for the loop; both are linear in them) and scaled up, which the table says. Differences are the largest over the
sinogram or image, relative to its largest value.

memory: memory above what was held before, for volumes of 108 and of 432 slices: one call on the whole volume (input and
result included), and the same volume read from a file, projected, back-projected and written in batches.

solvers: see tomography_solvers.py. It takes long and is run only when it is named.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.transform
import torch
from torch.nn import functional

from priorscope.inverse import ParallelBeam

SLICES, VIEWS, BATCH = 108, (8, 30, 180), 12


def alternate(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, measured in turns after one call to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(repeats):
        for name, call in sides.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Turned:
    """The loop: every view turns the padded stack and adds up its rows; the adjoint by autograd."""

    def __init__(self, size: int, angles: np.ndarray, detectors: int) -> None:
        before = detectors // 2 - size // 2
        self.padding = (before, detectors - size - before) * 2
        self.grids = []
        for angle in np.deg2rad(angles):
            turn = [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]]
            shape = [1, 1, detectors, detectors]
            self.grids.append(functional.affine_grid(torch.tensor([turn]), shape, align_corners=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, self.padding)
        views = []
        for grid in self.grids:
            turned = functional.grid_sample(padded, grid.expand(len(x), -1, -1, -1), align_corners=True)
            views.append(turned.sum(2))
        return torch.stack(views, -1)

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.clone().requires_grad_()
        y = self.forward(x)
        return y.detach(), torch.autograd.grad(y, x, y.detach())[0]


def slice_by_slice(x: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sinograms = [skimage.transform.radon(image, angles, circle=False) for image in x]
    back = [
        skimage.transform.iradon(s, angles, filter_name=None, circle=False, output_size=x.shape[-1]) for s in sinograms
    ]
    return np.stack(sinograms), np.stack(back)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare_projectors(size: int, slices: int, repeats: int) -> None:
    volume = torch.rand(slices, 1, size, size, generator=torch.Generator().manual_seed(0))
    few = max(1, slices // 27)
    print(
        f"forward and adjoint of {slices} slices of {size} px, float32, {torch.get_num_threads()} torch thread(s); "
        f"medians of {repeats}"
    )
    print(
        "| views | matrix, both copies | built in | ours | scikit-image | times less | difference | "
        "grid_sample loop | times less | difference forward, adjoint | our grid projector |"
    )
    print("| --- |" + " --- |" * 10)
    for views in VIEWS:
        angles = np.linspace(0, 180, views, endpoint=False)
        detectors = math.ceil(math.sqrt(2) * size)
        ours = ParallelBeam(size, angles, detectors=detectors, convention="skimage")
        begin = time.perf_counter()
        pair = ours._pair(volume)
        built = time.perf_counter() - begin
        # The loop turns about the middle between pixels where the parities say so: its own convention for the check.
        same = ParallelBeam(size, angles, detectors=detectors, convention="official")
        grid = ParallelBeam(size, angles, detectors=detectors, convention="skimage", projector="grid")
        every = max(1, views // 10)
        loop, images = Turned(size, angles[::every], detectors), volume[:few, 0].numpy()
        few_grid = ParallelBeam(size, angles[::every], detectors=detectors, convention="skimage", projector="grid")
        medians = alternate(
            {
                "ours": lambda ours=ours: ours.adjoint(ours(volume)),
                "scikit-image": lambda angles=angles, images=images: slice_by_slice(images, angles),
                "loop": lambda loop=loop: loop.both(volume),
                "grid": lambda few_grid=few_grid: few_grid.adjoint(few_grid(volume)),
            },
            repeats,
        )
        medians["scikit-image"] *= slices / few
        share = views / len(angles[::every])
        medians["loop"] *= share
        medians["grid"] *= share
        theirs = torch.from_numpy(slice_by_slice(images[:1], angles)[0])
        whole = Turned(size, angles, detectors)
        turned, back = whole.both(volume[:1])
        forward_gap = apart(same(volume[:1]), turned)
        print(
            f"| {views} | {pair.nbytes / 2**20:.0f} MiB (stated before: {ours.matrix_bytes() / 2**20:.0f}) "
            f"| {built:.1f} s | {medians['ours']:.3f} s "
            f"| {medians['scikit-image']:.2f} s ({few} slices x {slices / few:.0f}) "
            f"| {medians['scikit-image'] / medians['ours']:.1f} | {apart(ours(volume[:1])[:, 0], theirs):.1e} "
            f"| {medians['loop']:.2f} s ({len(loop.grids)} views x {share:.0f}) "
            f"| {medians['loop'] / medians['ours']:.1f} "
            f"| {forward_gap:.1e}, {apart(same.adjoint(turned), back):.1e} | {medians['grid']:.2f} s |",
            flush=True,
        )
        assert apart(grid(volume[:1]), ours(volume[:1])) < 1e-5
    print(
        "Our adjoint is the transpose; scikit-image's iradon is another back-projection (linear on the detector), "
        "compared in time only."
    )


def peak(call: Callable[[], object]) -> int:
    """Bytes held at the worst moment of a call, above those held before it (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def measure_memory(size: int, slices: int) -> None:
    operator = ParallelBeam(size, np.linspace(0, 180, 30, endpoint=False))
    operator.normal(torch.zeros(BATCH, *operator.domain))  # the matrix is built before anything is measured
    item = 4 * size * size
    print(f"forward and adjoint at {size} px, 30 views: memory above what was held before")
    print("| slices | volume | whole volume in one call | from file to file in batches of 12 |")
    print("| --- | --- | --- | --- |")
    for count in (slices, 4 * slices):
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.f32"), Path(folder, "out.f32")
            with open(source, "wb") as file:
                for index in range(count):
                    file.write(np.random.default_rng(index).random((size, size), dtype=np.float32).tobytes())

            def whole(source: Path = source) -> None:
                operator.normal(torch.from_numpy(np.fromfile(source, np.float32)).reshape(-1, *operator.domain))

            def batches(source: Path = source, target: Path = target) -> None:
                with open(source, "rb") as read, open(target, "wb") as write:
                    while len(part := np.fromfile(read, np.float32, BATCH * size * size)):
                        result = operator.normal(torch.from_numpy(part).reshape(-1, *operator.domain))
                        write.write(result.numpy().tobytes())

            in_one, in_batches = peak(whole), peak(batches)
            print(
                f"| {count} | {count * item / 2**20:.0f} MiB | {in_one / 2**20:.0f} MiB | "
                f"{in_batches / 2**20:.0f} MiB |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["projector", "memory", "solvers"])
    parser.add_argument("--size", type=int, default=256, help="side of a slice in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="64 pixels and 12 slices, to try the script")
    parser.add_argument("--volume", type=Path, help="solvers: a volume; default: MNI152")
    parser.add_argument("--task", default="cs-mri-8", help="solvers: as of `priorscope medical evaluate`")
    parser.add_argument("--first", type=int, default=84, help="solvers: number of the first slice")
    parser.add_argument("--prior", help="solvers: default: the bundled one")
    given = parser.parse_args()
    size, slices = (64, 12) if given.small else (given.size, SLICES)
    if given.only in (None, "projector"):
        compare_projectors(size, slices, given.repeats)
    if given.only in (None, "memory"):
        measure_memory(size, slices)
    if given.only == "solvers":
        from tomography_solvers import compare_solvers

        compare_solvers(given.volume, given.task, given.first, given.prior, given.small)


if __name__ == "__main__":
    main()
