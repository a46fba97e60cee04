"""Families of published depth and normals models, as settings of one predictor. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from priorscope.backbones.table import PublishedModel
from priorscope.errors import InputError
from priorscope_depth.primedepth.source import PRIMEDEPTH

Task = Literal["depth", "normals"]
Space = Literal["depth", "disparity"]


@dataclass(frozen=True)
class Family:
    """How the models of one paper are asked.

    Parameters
    ----------
    name : str
    inputs : tuple of str
        What the U-Net sees along its channels: the image latent, and the noisy (or zero) latent ``x``.
    generative : bool
        Starts from noise and runs the loop; else one call on zeros is a regression.
    prediction_type : {"sample", "v"}
    label : float or None
        The step that the network is told, where it is not the level itself.
    task_switcher : bool
        Lotus' class embedding, asked for the annotation.
    schedule : {"sd2", "config", "zero"}
        Stable Diffusion's own; that of the folder's ``scheduler/``; or no signal at all (GenPercept).
    official_posterior : {"mode", "sample"}
        What the authors' code does; our default is the mode.
    steps : int
        Solver steps unless the user or the folder says otherwise.
    prompt : {"none", "max_length"}
        Padding of the empty prompt.
    normals_x : {"right", "left"}
        Where the x axis of this family's normals points; results are always given with x to the right.
    clamp_channels : bool
        The three decoded channels of a depth map are clamped before they are averaged (Lotus) or after.
    official_geometry : {"lotus", "marigold"} or None
        How the authors' code brings pictures to size and predictions back; None where it was not read.

    Source: specs of each, ``apps/depth/README.md``.
    """

    name: str
    inputs: tuple[str, ...]
    generative: bool
    prediction_type: Literal["sample", "v"]
    label: float | None = None
    task_switcher: bool = False
    schedule: Literal["sd2", "config", "zero"] = "config"
    official_posterior: Literal["mode", "sample"] = "mode"
    steps: int = 1
    prompt: Literal["none", "max_length"] = "none"
    normals_x: Literal["right", "left"] = "right"
    clamp_channels: bool = False
    official_geometry: Literal["lotus", "marigold"] | None = None


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "lotus-g",
            ("image", "x"),
            generative=True,
            prediction_type="sample",
            label=999,
            task_switcher=True,
            schedule="sd2",
            official_posterior="sample",
            normals_x="left",
            clamp_channels=True,
            official_geometry="lotus",
        ),
        Family(
            "lotus-d",
            ("image",),
            generative=False,
            prediction_type="sample",
            label=999,
            task_switcher=True,
            schedule="sd2",
            official_posterior="sample",
            normals_x="left",
            clamp_channels=True,
            official_geometry="lotus",
        ),
        Family(
            "marigold",
            ("image", "x"),
            generative=True,
            prediction_type="v",
            steps=4,
            official_geometry="marigold",
        ),
        Family("e2e-ft", ("image", "x"), generative=False, prediction_type="v", prompt="max_length"),
        Family("e2e-ft-sd", ("image",), generative=False, prediction_type="v", prompt="max_length"),
        Family("genpercept", ("image",), generative=False, prediction_type="v", label=1, schedule="zero"),
    )
}

#: Class names in the model_index.json of published folders.
_PIPELINES = {
    "DirectDiffusionY0Pipeline": "lotus-g",
    "DirectRegressionPipeline": "lotus-d",
    "LotusGPipeline": "lotus-g",
    "LotusDPipeline": "lotus-d",
    "MarigoldPipeline": "marigold",
    "MarigoldDepthPipeline": "marigold",
    "MarigoldNormalsPipeline": "marigold",
}

_LOTUS: dict[str, Any] = {
    "app": "depth",
    "licence": "Apache-2.0",
    "size": "3.8 GB + 1.4 GB text encoder",
}


def _lotus(name: str, task: str, note: str = "") -> PublishedModel:
    mode = "lotus-g" if "-g-" in name else "lotus-d"
    return PublishedModel(name, task=task, loader=mode, source=f"jingheya/{name}", note=note, **_LOTUS)


#: Loaders of the rows that transformers runs (:mod:`priorscope_depth.transformers_models`): no diffusion models.
TRANSFORMERS = ("depth-anything", "depth-pro")


def _depth_anything(name: str, parameters: str) -> PublishedModel:
    return PublishedModel(
        f"depth-anything-v2-{name.lower()}",
        "depth",
        "disparity",
        "depth-anything",
        f"depth-anything/Depth-Anything-V2-{name}-hf",
        licence="see its page",
        size=f"{parameters} million parameters",
        note="no diffusion model: for comparison, and for --ensemble-with",
    )


def _other(name: str, source: str, task: str, loader: str, note: str) -> PublishedModel:
    return PublishedModel(name, "depth", task, loader, source, licence="see its page", size="about 5 GB", note=note)


#: The depth app's rows of the model table.
MODELS: list[PublishedModel] = [
    PublishedModel(
        "tiny-depth",
        "depth",
        "disparity",
        "lotus-d",
        str(Path(__file__).parent / "models/tiny-depth"),
        "Apache-2.0",
        "3 MB",
        note="ours; small, trained on procedural scenes only: for demos, tests and first looks",
        bundled=True,
    ),
    _lotus("lotus-depth-d-v2-0-disparity", "disparity", "deterministic"),
    _lotus("lotus-depth-g-v2-1-disparity", "disparity"),
    _lotus("lotus-depth-g-v2-0-disparity", "disparity"),
    _lotus("lotus-depth-d-v1-0", "depth", "deterministic"),
    _lotus("lotus-depth-g-v1-0", "depth"),
    _lotus("lotus-normal-d-v1-1", "normals", "deterministic"),
    _lotus("lotus-normal-g-v1-1", "normals"),
    _lotus("lotus-normal-d-v1-0", "normals", "deterministic"),
    _lotus("lotus-normal-g-v1-0", "normals"),
    _other("marigold-depth-v1-1", "prs-eth/marigold-depth-v1-1", "depth", "marigold", "trailing steps, zero SNR"),
    _other("marigold-depth-v1-0", "prs-eth/marigold-depth-v1-0", "depth", "marigold", "leading steps: use 10 or more"),
    _other("marigold-normals-v1-1", "prs-eth/marigold-normals-v1-1", "normals", "marigold", ""),
    _other("marigold-e2e-ft-depth", "GonzaloMG/marigold-e2e-ft-depth", "depth", "e2e-ft", "deterministic"),
    _other("marigold-e2e-ft-normals", "GonzaloMG/marigold-e2e-ft-normals", "normals", "e2e-ft", "deterministic"),
    _other(
        "stable-diffusion-e2e-ft-depth",
        "GonzaloMG/stable-diffusion-e2e-ft-depth",
        "depth",
        "e2e-ft-sd",
        "deterministic",
    ),
    _other(
        "stable-diffusion-e2e-ft-normals",
        "GonzaloMG/stable-diffusion-e2e-ft-normals",
        "normals",
        "e2e-ft-sd",
        "deterministic",
    ),
    _other(
        "genpercept-depth",
        "guangkaixu/genpercept-models",
        "depth",
        "genpercept",
        "layout of the hub repository not verified here; a folder in diffusers' layout is expected",
    ),
    _depth_anything("Small", "24.8"),
    _depth_anything("Base", "97.5"),
    _depth_anything("Large", "335.3"),
    PublishedModel(
        "depthpro",
        "depth",
        "depth",
        "depth-pro",
        "apple/DepthPro-hf",
        licence="see its page",
        size="see its page",
        note="no diffusion model: metric depth and focal length, for comparison and for --ensemble-with",
    ),
    PRIMEDEPTH,
]


@dataclass(frozen=True)
class Recipe:
    """What a model folder is: its family, what it predicts, and in which space."""

    family: Family
    task: Task
    space: Space

    def save(self, folder: Path, **extra: Any) -> None:
        """Write ``priorscope.json``, by which :func:`recognise` knows our own models."""
        content = {"family": self.family.name, "task": self.task, "space": self.space, **extra}
        (folder / "priorscope.json").write_text(json.dumps(content, indent=2) + "\n")


def recognise(
    folder: Path,
    *,
    name: str = "",
    family: str | None = None,
    task: str | None = None,
    space: str | None = None,
) -> Recipe:
    """Find out what a model folder is.

    What the caller states wins; then our own ``priorscope.json``; then the published name; then the class in
    ``model_index.json``. Whether a depth model predicts depth or disparity stands nowhere in a published
    folder but its name.

    Raises
    ------
    InputError
        When family, task or space remain unknown.
    """
    from priorscope.backbones.loading import read_config

    known: dict[str, str | None] = {"family": None, "task": None, "space": None}
    if (folder / "priorscope.json").exists():
        own = read_config(folder, "priorscope.json")
        known.update({key: own.get(key) for key in known})
    row = next((row for row in MODELS if name and name in (row.name, row.source)), None) or next(
        (row for row in MODELS if row.source.split("/")[-1] in (folder.name, Path(name).name)), None
    )
    if row is not None and row.loader in TRANSFORMERS:
        raise InputError(
            f"{row.name} is no diffusion model: it can be asked (predict, evaluate), not trained", path=folder
        )
    if row is not None:
        known["family"] = known["family"] or row.loader
        known["task"] = known["task"] or ("normals" if row.task == "normals" else "depth")
        known["space"] = known["space"] or ("disparity" if row.task == "disparity" else "depth")
    if (folder / "model_index.json").exists():
        pipeline = read_config(folder, "model_index.json").get("_class_name", "")
        known["family"] = known["family"] or _PIPELINES.get(str(pipeline))
        if pipeline == "MarigoldNormalsPipeline":
            known["task"] = known["task"] or "normals"
        elif known["family"] == "marigold":
            known["task"], known["space"] = known["task"] or "depth", known["space"] or "depth"
    known.update({key: value for key, value in (("family", family), ("task", task), ("space", space)) if value})
    if known["task"] == "normals":
        known["space"] = "depth"
    missing = [f"--{key}" for key, value in known.items() if value is None]
    if missing and (folder / "config.yaml").is_file() and (folder / "model").is_dir():
        raise InputError("is the run folder of a training", path=folder, remedy=f"Give --model {folder / 'model'}.")
    if missing:
        raise InputError(
            f"cannot tell {' and '.join(part[2:] for part in missing)} of this model",
            path=folder,
            remedy=f"State {' '.join(missing)} (families: {', '.join(FAMILIES)}).",
        )
    if known["family"] not in list(FAMILIES):  # what a file states may be anything, also unhashable
        raise InputError(f"model family {known['family']!r}", remedy=f"Known: {', '.join(FAMILIES)}.")
    if known["task"] not in ("depth", "normals") or known["space"] not in ("depth", "disparity"):
        raise InputError(
            f"task {known['task']!r}, space {known['space']!r}",
            remedy="Tasks: depth, normals. Spaces: depth, disparity.",
        )
    return Recipe(FAMILIES[known["family"]], known["task"], known["space"])  # type: ignore[arg-type]
