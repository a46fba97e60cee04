"""A trained model of galaxies: conditions in, images out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from priorscope.backbones.latents import PatchSpace
from priorscope.backbones.loading import save_component
from priorscope.backbones.stable_diffusion import load_schedule, load_unet
from priorscope.data.weights_file import save_file
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.guidance import ClassifierFreeGuidance
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.solvers import SOLVERS
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope_astro.conditions.condition import CONDITION_SIZE
from priorscope_astro.data.learnt import Learnt
from priorscope_astro.diffusion.network import SCHEDULER, AnswersNetwork, new_unet, schedule
from priorscope_astro.diffusion.scaling import Scaling
from priorscope_astro.diffusion.spec import FILE, ModelSpec, model_folder
from priorscope_astro.model_files import all_files, part_files

STEPS, GUIDANCE, SOLVER = 20, 1.5, "dpmpp-2m"
_PSF = "psf.safetensors"


class GalaxyModel:
    """A U-Net, how images and its values belong together, and what is known of the images' survey.

    Parameters
    ----------
    unet : UNet2DConditionModel
        See :func:`priorscope_astro.diffusion.network.new_unet`.
    spec : ModelSpec
    psf : float32 array (bands, h, w), optional
        Point spread function of the images it was trained on.
    files : mapping, optional
        Name -> file of all that acts on what it draws, where it was loaded.
    learnt : Learnt, optional
        The galaxies that it was trained on, where they are known.
    """

    def __init__(
        self,
        unet: Any,
        spec: ModelSpec,
        *,
        psf: NDArray[np.float32] | None = None,
        files: Mapping[str, Path] | None = None,
        learnt: Learnt | None = None,
    ) -> None:
        self.unet, self.spec, self.psf, self.learnt = unet, spec.check(), psf, learnt
        self.files = dict(files or {})
        self.scaling = Scaling(spec)
        self.space = PatchSpace(spec.patch, len(spec.bands))
        if unet.config.in_channels != self.space.channels:
            raise InputError(
                f"a U-Net of {unet.config.in_channels} channels for {len(spec.bands)} bands in blocks of {spec.patch}"
            )
        self.denoiser = Denoiser(AnswersNetwork(unet), schedule(), "v")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.unet.parameters()).device

    def generate(
        self,
        answers: NDArray[np.float32],
        seeds: Sequence[int],
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        solver: str = SOLVER,
        cache: Any = None,
        progress: bool = False,
    ) -> NDArray[Any]:
        """Draw one image for each condition.

        Parameters
        ----------
        answers : float32 (B, 74)
            Conditions as vectors (:meth:`priorscope_astro.conditions.Condition.to_vector`); zeros: nothing is asked.
        seeds : sequence of int
            Of each image; it does not depend on what else is in the batch.
        steps : int
        guidance : float
            1 is none; more makes galaxies clearer cases of what is asked, and more alike.
        solver : str
            One of :data:`priorscope.diffusion.solvers.SOLVERS`.
        cache : Method of priorscope.caching, optional
        progress : bool

        Returns
        -------
        array
            Of a model of displays uint8 (B, side, side, 3); of one of flux float32 (B, bands, side, side), in its unit.

        Raises
        ------
        InputError
            For shapes that do not fit and values that make no sense.
        """
        answers = np.asarray(answers, np.float32)
        if answers.ndim != 2 or answers.shape[1] != CONDITION_SIZE or len(answers) != len(seeds) or not len(seeds):
            raise InputError(
                f"conditions of shape {list(answers.shape)} and {len(seeds)} seeds",
                remedy=f"Give [N, {CONDITION_SIZE}] and N seeds.",
            )
        if not np.isfinite(answers).all():
            raise InputError("a condition has values that are NaN or infinite")
        if solver not in SOLVERS:
            raise InputError(f"solver {solver!r}", remedy=f"There are {', '.join(SOLVERS)}.")
        if not 0 <= guidance < float("inf"):
            raise InputError(f"guidance {guidance}", remedy="Use 0 or more; 1 is no guidance.")
        times = spaced_times(self.denoiser.schedule, steps, "trailing")
        nothing = Condition({"answers": torch.zeros(1, CONDITION_SIZE, device=self.device)}, shared=["answers"])
        model = ClassifierFreeGuidance(self.denoiser, nothing, guidance)
        side = self.spec.side // self.spec.patch
        noise = Noise.per_item(seeds)
        working: AbstractContextManager[Any] = nullcontext() if cache is None else cache.on(model)
        with working:
            x = sample(
                model,
                noise.draw((len(seeds), self.space.channels, side, side), device=self.device),
                times,
                step=SOLVERS[solver],
                noise=noise,
                condition=Condition({"answers": torch.from_numpy(answers).to(self.device)}),
                progress=progress,
            )
        return self.scaling.images(self.space.decode(x).float().cpu().numpy())

    def save(self, folder: Path, *, half: bool = True) -> None:
        """Write a model folder: ``unet/``, ``scheduler/``, ``priorscope.json``; PSF and what was learnt, where known.

        Parameters
        ----------
        folder : Path
            Must not exist.
        half : bool
            Weights as float16, half the size.
        """
        save_component(self.unet, folder / "unet", dtype=torch.float16 if half else torch.float32)
        (folder / "scheduler").mkdir()
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
        if self.psf is not None:
            save_file({"psf": torch.from_numpy(np.ascontiguousarray(self.psf, np.float32))}, folder / _PSF)
        if self.learnt is not None:
            self.learnt.write(folder)
        self.spec.write(folder)


def new_model(
    spec: ModelSpec, size: str = "mini", *, psf: NDArray[np.float32] | None = None, seed: int = 0
) -> GalaxyModel:
    """A model with random weights, to be trained.

    Raises
    ------
    InputError
        No such size, or a side that the network's levels do not divide.
    """
    spec.check()
    unet = new_unet(size, channels=len(spec.bands) * spec.patch**2, seed=seed)
    unit = spec.patch * 2 ** (len(unet.config.block_out_channels) - 1)
    if spec.side % unit:
        raise InputError(f"images of {spec.side} pixels", remedy=f"Size {size} takes multiples of {unit}.")
    return GalaxyModel(unet, spec, psf=psf)


def load_galaxy_model(folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> GalaxyModel:
    """Load a model, in evaluation mode, without gradients.

    Parameters
    ----------
    folder : path-like
        A model folder, a run folder that holds one, or ``tiny-galaxies``, which is bundled.
    device : str
        auto, cpu, cuda, cuda:N.
    precision : {"auto", "float32", "bfloat16", "float16"}
        auto is bfloat16 on a GPU and float32 on the CPU.

    Raises
    ------
    InputError
        A part is missing, damaged, or does not fit.
    """
    folder = model_folder(folder)
    spec = ModelSpec.read(folder)
    where = resolve_device(device)
    kind, predicts = load_schedule(folder / "scheduler")
    if predicts != "v" or not np.array_equal(kind.alphas_cumprod, schedule().alphas_cumprod):
        raise InputError("is another schedule than these models have", path=folder / "scheduler")
    unet = load_unet(
        folder / "unet",
        dtype=resolve_dtype(precision, where),
        expect={"class_embed_type": "projection", "projection_class_embeddings_input_dim": CONDITION_SIZE},
    )
    files = {FILE: folder / FILE, **part_files(folder, "unet"), **all_files(folder, "scheduler")}
    psf = None
    if (folder / _PSF).is_file():
        files[_PSF] = folder / _PSF
        psf = load_file(folder / _PSF)["psf"].numpy()
    unet.to(where, memory_format=inference_layout(where))
    return GalaxyModel(unet, spec, psf=psf, files=files, learnt=Learnt.read(folder))
