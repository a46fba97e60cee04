"""The medical app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from priorscope.backbones.table import PublishedModel


def _bundled(
    name: str, note: str, *, task: str = "reconstruction", loader: str = "slice-prior", size: str = "3 MB"
) -> PublishedModel:
    return PublishedModel(
        name=name,
        app="medical",
        task=task,
        loader=loader,
        source=str(Path(__file__).parent / "models" / name),
        licence="Apache-2.0",
        size=size,
        note=f"ours, bundled: {note}; for demos, tests and first looks",
        bundled=True,
    )


def _by_hand(name: str, file: str, note: str) -> PublishedModel:
    return PublishedModel(
        name=name,
        app="medical",
        task="reconstruction",
        loader="ncsnpp",
        source="github.com/HJ-harry/DiffusionMBIR",
        licence="not stated",
        size="not stated",
        note=f"{note}; fetch {file} by the links in its README and give that file",
        by_hand=True,
    )


MODELS: tuple[PublishedModel, ...] = (
    PublishedModel(
        name="tiny-echo",
        app="medical",
        task="dehazing",
        loader="echo-prior",
        source=str(Path(__file__).parent / "models" / "tiny-echo"),
        licence="Apache-2.0",
        size="2 MB",
        note="ours, bundled: a prior of B-mode pictures of hearts, 128 px, learnt from simulated ones",
        bundled=True,
    ),
    PublishedModel(
        name="zea-echo-dehazing",
        app="medical",
        task="dehazing",
        loader="zea",
        source="tristan-deep/semantic-diffusion-echo-dehazing",
        licence="not stated",
        size="not stated",
        note="zea's prior of B-mode pictures of hearts, 256 px, 1.95 million weights",
    ),
    _bundled("tiny-ct", "a prior of CT slices, 64 px of 3.8 mm, learnt from drawn heads and bodies"),
    _bundled("tiny-mr", "a prior of T1 MR slices of heads, 64 px of 3.6 mm, learnt from one brain, moved and bent"),
    _bundled(
        "tiny-rf-tissue",
        "a prior of ultrasound RF of a beating ventricle, 6 frames, learnt from simulations",
        task="dehazing",
        loader="rf-prior",
        size="2 MB",
    ),
    _bundled(
        "tiny-rf-haze",
        "a prior of ultrasound RF of haze, 6 frames, learnt from simulations",
        task="dehazing",
        loader="rf-prior",
        size="2 MB",
    ),
    _by_hand(
        "mbir-aapm", "checkpoint_185.pth", "DiffusionMBIR's CT prior, 256 px, 61.4 million weights; --prior-scale"
    ),
    _by_hand("mbir-fastmri-knee", "checkpoint_95.pth", "DiffusionMBIR's knee MR prior, 320 px, 61.4 million weights"),
)
