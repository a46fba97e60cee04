"""The recipes by name, and which models each can train."""

from __future__ import annotations

from priorscope.errors import InputError
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.training.end_to_end import EndToEndTask
from priorscope_depth.training.lotus import LotusTask
from priorscope_depth.training.marigold import MarigoldTask
from priorscope_depth.training.pixels import PixelTask
from priorscope_depth.training.task import DepthTask

RECIPES: dict[str, type[DepthTask]] = {
    "lotus": LotusTask,
    "marigold": MarigoldTask,
    "e2e-ft": EndToEndTask,
    "pixels": PixelTask,
}

#: The recipe of each family's authors.
PUBLISHED = {
    "lotus-g": "lotus",
    "lotus-d": "lotus",
    "marigold": "marigold",
    "e2e-ft": "e2e-ft",
    "e2e-ft-sd": "e2e-ft",
    "genpercept": "e2e-ft",
}


def choose_recipe(name: str, predictor: DepthPredictor) -> type[DepthTask]:
    """The task class for ``name``, or for ``auto``: the family's own, but ``pixels`` for our small models.

    Raises
    ------
    InputError
        If the recipe cannot train this model.
    """
    family = predictor.recipe.family
    disparity = predictor.task == "depth" and predictor.space == "disparity"
    if name == "auto":
        small = predictor.latent.latents.factor != 8 and family.name == "lotus-d" and disparity
        name = "pixels" if small else PUBLISHED[family.name]
    wanted = {
        "lotus": (family.task_switcher, "a Lotus model"),
        "marigold": (family.generative and family.prediction_type == "v", "a Marigold model"),
        "e2e-ft": (not family.generative, "a one-step model without noise (E2E-FT, Lotus-D, GenPercept)"),
        "pixels": (not family.generative and disparity, "a one-step disparity model without noise (Lotus-D)"),
    }
    fits, what = wanted[name]
    if not fits:
        raise InputError(
            f"--recipe {name} trains {what}, not {predictor.name} ({family.name}, {predictor.task}, {predictor.space})",
            remedy="Choose another --recipe, --family or --model; auto takes the family's own.",
        )
    return RECIPES[name]
