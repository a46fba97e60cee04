"""The first half of evidence_tomography.py: slice priors, trained on what is not the tested volumes.

``ct``: procedural slices alone (``priorscope_medical.phantoms``), attenuation, 64 pixels of 3.83 mm; tested on a real
head CT. ``mr``: slices of Colin27 in all three planes, moved, bent, cut out of the skull in one half, and of changing
contrast, 64 pixels of 3.6 mm; tested on MNI152. One core each; stop and go on as you like. ``--start`` begins with the
weights of an earlier run.

    OMP_NUM_THREADS=1 python benchmarks/evidence_tomography_prior.py ct --max-seconds 1200
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope_medical.prior import SlicePrior, SliceValues
from priorscope_medical.training.feed import SliceFeed
from priorscope_medical.training.task import SlicePriorTask

DATA = Path(__file__).parents[2] / "shared/data/medical"
SIZE, COUNT, HELD_OUT, SEED = 64, 12000, 64, 0
VALUES = {
    "ct": SliceValues("attenuation", offset=0.5, scale=0.625, patch=2, size=SIZE, pixel=3.83),
    "mr": SliceValues("intensity", offset=0.25, scale=0.3, patch=2, size=SIZE, pixel=3.6),
}
#: Heads made of Colin27 with values of their own.
HEADS = 12
#: Standard deviations in mm (Colin27's voxels are 1 mm).
BLURS = (1.0, 1.6, 2.3)
LOOP = LoopConfig(
    steps=4000,  # tiny-ct: 3600
    batch_size=16,
    lr=2e-3,
    warmup=200,
    checkpoint_every=100,
    log_every=200,
    validate_every=700,
    precision="bfloat16",
)


def ct_slices(count: int, seed: int) -> NDArray[np.float32]:
    """Of five slices three are drawn, two cut out of Colin27 taken for a CT; pixels of 3.4 to 4.3 mm."""
    from pseudo_ct import pseudo_ct

    from priorscope_medical.phantoms import ct_slice

    head = _head()
    brain = _brain(head) > 0.5
    blurs = np.linspace(1.1, 1.7, HEADS)  # a pixel is a mean over its area, and scanners differ
    heads = [ndimage.gaussian_filter(pseudo_ct(head, brain, k), blurs[k]) for k in range(HEADS)]
    pixel = VALUES["ct"].pixel

    def one(index: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, index])
        if index % 5 >= 2:
            return ct_slice(seed, index, size=SIZE, pixel=pixel * rng.uniform(0.88, 1.13))
        body = np.rot90(_cut(heads[rng.integers(HEADS)], rng, pixel, axis=2, tilt=0.1, low=0.05))
        around = ct_slice(seed, index, size=SIZE, pixel=pixel, kind="empty")
        noise = rng.normal(0, 0.012 * rng.random(), body.shape)
        return np.maximum(body + np.where(body > 0.1, noise, around), 0).astype(np.float32)

    return np.stack([one(index) for index in range(count)])


def mr_slices(count: int, seed: int) -> NDArray[np.float32]:
    """Slices of Colin27 through random planes near the three main ones."""
    head = _head()
    # a pixel is a mean over its area, and volumes differ in sharpness: an average of many heads is the softest
    volumes = [ndimage.gaussian_filter(one, blur) for blur in BLURS for one in (head, head * _brain(head))]
    return np.stack([_mr_slice(volumes, np.random.default_rng([seed, index])) for index in range(count)])


def _head() -> NDArray[np.float32]:
    import nibabel

    head = np.asarray(nibabel.load(DATA / "ch2.nii.gz").dataobj, np.float32)
    return head / np.quantile(head, 0.999)


def _brain(head: NDArray[np.float32]) -> NDArray[np.float32]:
    """A soft mask of the largest part that stays connected when bridges of some millimetres are cut."""
    tissue = ndimage.gaussian_filter(head, 0.7) > 0.32
    parts, _ = ndimage.label(ndimage.binary_erosion(tissue, iterations=4))
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    brain = ndimage.binary_dilation(largest, iterations=5) & (head > 0.1)
    return ndimage.gaussian_filter(ndimage.binary_closing(brain, iterations=5).astype(np.float32), 0.6)


def _mr_slice(volumes: list[NDArray[np.float32]], rng: np.random.Generator) -> NDArray[np.float32]:
    volume = volumes[rng.integers(len(volumes))]
    image = _cut(volume, rng, VALUES["mr"].pixel, axis=int(rng.integers(3)), tilt=0.15, low=0.08)
    image = np.clip(image, 0, None) ** np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.1))
    image = np.rot90(image, rng.integers(4))
    noise = 0.01 * max(0.0, rng.uniform(-1, 1))
    return (image + rng.normal(0, noise, image.shape)).astype(np.float32)


def _cut(
    volume: NDArray[np.float32], rng: np.random.Generator, pixel: float, *, axis: int, tilt: float, low: float
) -> NDArray[np.float32]:
    """A slice across ``axis``, tilted, moved, stretched and bent by some millimetres; voxels are 1 mm."""
    axes = np.eye(3)[[other for other in range(3) if other != axis]]
    turn = _rotation(rng.normal(0, tilt, 3))
    pixels = pixel * rng.uniform(0.88, 1.13, 2)
    steps = (np.arange(SIZE) - (SIZE - 1) / 2)[:, None]
    rows, columns = steps * pixels[0], steps.T * pixels[1]
    bend = [ndimage.zoom(rng.normal(0, 2.0, (5, 5)), SIZE / 5, order=3) for _ in range(2)]
    centre = np.array(volume.shape) / 2 + rng.normal(0, 4, 3)
    centre[axis] = rng.uniform(low, 0.92) * volume.shape[axis]
    places = (
        centre[:, None, None]
        + (turn @ axes[0])[:, None, None] * (rows + bend[0])
        + (turn @ axes[1])[:, None, None] * (columns + bend[1])
    )
    return ndimage.map_coordinates(volume, places, order=1)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(angles).as_matrix()


def slices(name: str, out: Path) -> tuple[NDArray[Any], torch.Tensor]:
    """Training slices (float16 on disk), and held-out ones of another seed."""
    make = {"ct": ct_slices, "mr": mr_slices}[name]
    path = out / f"{name}.npy"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        np.save(path, make(COUNT, SEED).astype(np.float16))
    return np.load(path, mmap_mode="r"), torch.from_numpy(make(HELD_OUT, SEED + 1)[:, None])


def train(name: str, out: Path, max_seconds: float, start: Path | None = None, **changes: Any) -> None:
    data, held_out = slices(name, out)
    prior = SlicePrior.new(VALUES[name], seed=SEED)
    if start is not None:
        prior.network.load_state_dict(SlicePrior.from_pretrained(start, device="cpu").network.state_dict())
    config = LoopConfig(**(vars(LOOP) | changes | {"resume": True, "max_seconds": max_seconds, "device": "cpu"}))
    run = RunFolder.create(out / name, config, resume=True, may_differ=MAY_DIFFER)
    prior.network.to(memory_format=torch.channels_last)
    begin = time.process_time()
    feed = SliceFeed(data, config.batch_size, config.seed)
    result = fit(SlicePriorTask(prior, held_out), feed, config, run, make_accelerator(config))
    print(json.dumps({"run": name, "step": result.step, "cpu_seconds": round(time.process_time() - begin)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=sorted(VALUES))
    parser.add_argument("--out", type=Path, default=Path("/tmp/evidence_ct"))
    parser.add_argument("--max-seconds", type=float, default=1200)
    parser.add_argument("--start", type=Path, help="model folder of an earlier run (same network)")
    parser.add_argument("--steps", type=int, default=LOOP.steps)
    parser.add_argument("--lr", type=float, default=LOOP.lr)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(options.prior, options.out, options.max_seconds, options.start, steps=options.steps, lr=options.lr)


if __name__ == "__main__":
    main()
