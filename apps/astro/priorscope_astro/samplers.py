"""What draws the rows of a plan: a model of ours, or GalaxySD, each with what must be known of it afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.processes import process_index_and_count
from priorscope_astro.configs import GenerateConfig
from priorscope_astro.data.learnt import Learnt
from priorscope_astro.data.splits import Splits
from priorscope_astro.model_files import digest_of
from priorscope_astro.plan import Plan, PlanRow


class Sampler(Protocol):
    """Draws images.

    Attributes
    ----------
    mode : str
        display or flux.
    facts : dict
        The same for every image: ``model``, ``model_sha256``, ``sampler``, ``steps``, ``guidance``, ``start``.
    survey : dict
        Of flux: ``bands``, ``unit``, ``psf``, ``pixel_scale``, ``sky_sigma``, where known.
    side : int
        Pixels of flux; 0 of pictures.
    learnt : Learnt or None
        The galaxies that the model was trained on, where it says so.
    """

    mode: str
    facts: dict[str, Any]
    survey: dict[str, Any]
    side: int
    learnt: Learnt | None

    def draw(self, rows: Sequence[PlanRow]) -> tuple[NDArray[Any], list[str]]:
        """Images of some rows, and the id of the galaxy that each started from ('' for none)."""
        ...


def make_sampler(config: GenerateConfig, plan: Plan, splits: Splits | None) -> Sampler:
    """Load what a configuration names.

    Raises
    ------
    InputError
        For a model that cannot be loaded, options that are not its own, rows it cannot draw, a pool that lacks a
        reference or could leak one.
    """
    from priorscope_astro.diffusion.spec import is_galaxy_model, model_folder

    folder = model_folder(config.model)
    if is_galaxy_model(folder):
        return _Ours(config, plan, folder)
    return _GalaxySD(config, plan, splits)


def own_device(name: str) -> str:
    """The device of this process: of several on one machine, each takes its own GPU."""
    if process_index_and_count()[1] > 1 and name in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return name


class _Ours:
    def __init__(self, config: GenerateConfig, plan: Plan, folder: Path) -> None:
        from priorscope_astro.diffusion.model import GUIDANCE, SOLVER, STEPS, load_galaxy_model

        for option in ("base", "pool", "start", "rescale"):
            value = getattr(config, option)
            if value != getattr(GenerateConfig, option) and (option, value) != ("start", "noise"):  # they start so
                raise InputError(f"--{option} with a model of ours", path=folder, remedy="It belongs to GalaxySD.")
        for row in plan.rows:
            if not row.condition.known:
                raise InputError(
                    f"row {row.row} asks {row.prompt!r} and no question of the tree",
                    remedy="Our models do not read free text: plan with --condition votes or tags.",
                )
        self.model = load_galaxy_model(folder, device=own_device(config.device), precision=config.precision)
        spec = self.model.spec
        self.mode: str = spec.mode
        self.side = spec.side if spec.mode == "flux" else 0
        self.learnt = self.model.learnt
        self.survey = {
            "bands": spec.bands,
            "unit": spec.unit,
            "psf": self.model.psf,
            "pixel_scale": spec.pixel_scale,
            "sky_sigma": spec.sky_sigma or None,
        }
        self.options = _options(config, STEPS, GUIDANCE, SOLVER)
        self.cache = _cache(config.cache)
        self.facts = _facts(str(folder), self.model.files, self.options, config.cache, "noise")

    def draw(self, rows: Sequence[PlanRow]) -> tuple[NDArray[Any], list[str]]:
        answers = np.stack([row.condition.to_vector() for row in rows])
        images = self.model.generate(answers, [row.seed for row in rows], cache=self.cache, **self.options)
        return images, [""] * len(rows)


class _GalaxySD:
    mode: str = "display"
    side: int = 0

    def __init__(self, config: GenerateConfig, plan: Plan, splits: Splits | None) -> None:
        from priorscope_astro.galaxysd.levels import GUIDANCE, SOLVER, STEPS, noise_levels
        from priorscope_astro.galaxysd.loading import refuse_other_folder
        from priorscope_astro.galaxysd.model import GalaxySD

        refuse_other_folder(config.model)
        self.options = _options(config, STEPS, GUIDANCE, SOLVER)
        noise_levels(self.options["steps"])  # refuses a single one, before the model is read
        if config.start == "noise" and config.pool is not None:
            raise InputError("--pool with --start noise", remedy="Leave it out: no galaxy is looked at.")
        self.start = config.start
        self.survey: dict[str, Any] = {}
        self.pool = None if config.start == "noise" else reference_pool(config, plan, splits)
        self.model = GalaxySD.from_pretrained(
            config.model,
            base=config.base,
            device=own_device(config.device),
            precision=config.precision,
            rescale=config.rescale,
        )
        self.learnt = self.model.parts.learnt
        for prompt in dict.fromkeys(row.prompt for row in plan.rows):
            self.model.prompts.tokens(prompt)  # one that is too long is refused before work begins
        self.cache = _cache(config.cache)
        self.facts = _facts(config.model, self.model.parts.files, self.options, config.cache, config.start)
        self.facts["rescale"] = config.rescale

    def draw(self, rows: Sequence[PlanRow]) -> tuple[NDArray[Any], list[str]]:
        seeds = [row.seed for row in rows]
        names = [""] * len(rows)
        if self.start == "reference":
            assert self.pool is not None
            names = [row.reference_id or self.pool.choose(row.seed) for row in rows]
        images = self.model.generate(
            [row.prompt for row in rows],
            seeds,
            start=self.start,
            pool=self.pool,
            references=names if self.start == "reference" else None,
            cache=self.cache,
            **self.options,
        )
        return images, names


def reference_pool(config: GenerateConfig, plan: Plan, splits: Splits | None) -> Any:
    """The pool of a run: the plan's references where it has any, else the training galaxies of ``--pool``.

    Raises
    ------
    InputError
        No pool, a reference that it lacks, or pictures of which it is not known that they train.
    """
    from priorscope_astro.galaxysd.pool import ReferencePool

    if config.pool is None:
        where = plan.meta.get("catalogue", "")
        raise InputError(
            f"a start from {config.start} needs --pool, real galaxies",
            remedy=f"Give the pictures of the catalogue that was planned from{f' ({where})' if where else ''}.",
        )
    everything = ReferencePool.read_names(config.pool)
    wanted = {row.reference_id: row.reference_image for row in plan.rows if row.reference_id}
    if not wanted:
        if splits is None:
            raise InputError(
                "the plan names no references, and without splits it is not known which pictures of --pool may be used",
                remedy="Give --splits, or plan with --reference any.",
            )
        trains = set(splits.ids("train"))
        return ReferencePool(everything.members, everything.files, [n for n in everything.files if n not in trains])
    files = {}
    paths = set(everything.files.values())
    for name, picture in wanted.items():
        stem = Path(picture).stem
        found = picture if picture in paths else everything.files.get(stem) or everything.files.get(name)
        if found is None:
            raise InputError(
                f"has no picture {picture or name} of the reference {name}",
                path=config.pool,
                remedy="Give the pictures that the plan was made with.",
            )
        files[name] = found
    return ReferencePool(everything.members, files)


def _options(config: GenerateConfig, steps: int, guidance: float, solver: str) -> dict[str, Any]:
    """How to sample: what is asked for, else what the model's own defaults are; refused before a folder is made."""
    from priorscope.diffusion.solvers import SOLVERS

    steps = steps if config.steps is None else config.steps
    guidance = guidance if config.guidance is None else config.guidance
    solver = solver if config.solver is None else config.solver
    if not 1 <= steps <= 1000:
        raise InputError(f"--steps {steps}", remedy="Use 1 to 1000.")
    if not 0 <= guidance < float("inf"):
        raise InputError(f"--guidance {guidance}", remedy="Use 0 or more; 1 is no guidance.")
    if solver not in SOLVERS:
        raise InputError(f"--solver {solver}", remedy=f"There are {', '.join(SOLVERS)}.")
    return {"steps": steps, "guidance": guidance, "solver": solver}


def _cache(interval: int) -> Any:
    if interval == 0:
        return None
    if interval < 2:
        raise InputError(f"--cache {interval}", remedy="Use 0, or 2 or more.")
    from priorscope.caching.branch import DeepCache

    return DeepCache(interval)


def _facts(model: str, files: Mapping[str, Path], options: dict[str, Any], cache: int, start: str) -> dict[str, Any]:
    sampler = options["solver"] + (f", DeepCache {cache}" if cache > 1 else "")
    return {
        "model": model,
        "model_sha256": digest_of(files),
        "sampler": sampler,
        "steps": options["steps"],
        "guidance": options["guidance"],
        "start": start,
    }
