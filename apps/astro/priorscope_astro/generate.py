"""``priorscope astro generate``: draw the rows of a plan; images, and a catalogue that says where each came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope.evaluation.processes import process_index_and_count
from priorscope.evaluation.run_folder import RunFolder, read_jsonl
from priorscope.evaluation.suite import conclude, run_items
from priorscope_astro.accept_config import AcceptConfig
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.configs import GenerateConfig
from priorscope_astro.data.catalogue import write_catalogue
from priorscope_astro.data.splits import Splits
from priorscope_astro.plan import Plan, PlanRow, object_id
from priorscope_astro.samplers import Sampler, make_sampler

_SUFFIX = {"ecsv": ".ecsv", "votable": ".vot", "fits": ".fits"}
#: Settings that may change when a run is taken up again: they change no image, or how many there are.
MAY_DIFFER = (
    *("resume", "out", "device", "batch_size", "limit", "catalogue"),
    *(f"accept.{field.name}" for field in fields(AcceptConfig)),
)


def generate(config: GenerateConfig) -> int:
    """Draw a plan, or go on drawing it; returns the exit status.

    Rows that are done are in ``items.jsonl`` and are not drawn again. Under ``accelerate launch`` the processes share
    the rows, and the first one writes the catalogue.

    Raises
    ------
    InputError
        For a plan, a model or options that do not fit, before anything is drawn.
    """
    _check(config)
    splits = read_splits(config)
    plan = Plan.read(config.plan, splits=splits)
    rows = plan.rows[: config.limit or None]
    sampler = make_sampler(config, plan, splits)
    if sampler.mode == "display" and config.fits != GenerateConfig.fits:
        raise InputError(f"--fits {config.fits} with a model of pictures", remedy="Leave it out: pictures are PNG.")
    gate = _gate(config, sampler, splits)
    if config.resume:
        _refuse_others(config.out, plan, sampler)
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=MAY_DIFFER)
    if process_index_and_count()[0] == 0:
        _note_learnt(sampler, splits, run)
    images = run.path / "images"

    def draw(batch: list[PlanRow]) -> list[dict[str, Any]]:
        drawn, references = sampler.draw(batch)
        found = []
        for row, image, reference in zip(batch, drawn, references, strict=True):
            path = images / image_name(plan, row, sampler.mode)
            about = provenance(plan, row, sampler, reference)
            if sampler.mode == "display":
                write_display(path, image, about)
            else:
                write_flux(path, image, about, sampler.survey, cube=config.fits == "cube")
            weights = sampler.facts["model_sha256"]
            found.append({"image": f"images/{path.name}", "reference_id": reference, "model_sha256": weights})
        return found

    result = run_items(
        rows, draw, key=lambda row: str(row.row), batch_size=config.batch_size, run=run, progress="generate"
    )
    if process_index_and_count()[0] == 0:
        done = {int(item["key"]): item for item in result.rows}
        if done:
            table = catalogue_of(plan, [row for row in rows if row.row in done], done, sampler)
            if gate is not None:
                gate.state(table, run.path)
                print(f"{int(np.sum(table['accepted']))} of {len(table)} images accepted")
            for kind in config.catalogue:
                write_catalogue(table, run.path / f"catalogue{_SUFFIX[kind]}", overwrite=True)
        run.write_metrics({"images": len(done), "failed": len(result.failures), **sampler.facts})
        return conclude(result.failures, len(rows), run.path)
    return 0


def _gate(config: GenerateConfig, sampler: Sampler, splits: Splits | None) -> Any:
    if not config.accept.check:
        return None
    from priorscope_astro.acceptance import Gate

    return Gate(config.accept, sampler.survey, splits, side=sampler.side, learnt=sampler.learnt)


def _note_learnt(sampler: Sampler, splits: Splits | None, run: RunFolder) -> None:
    """Leave the model's record of what it has learnt beside the images, and say where that is held out."""
    if sampler.learnt is None:
        return
    sampler.learnt.write(run.path, overwrite=True)
    leaks = [] if splits is None else sampler.learnt.held_out(splits)
    if leaks:
        print(
            f"warning: the model has learnt {len(leaks)} galaxies that the splits hold out, such as {leaks[0]}: they "
            "cannot say how good it is, and `evaluate` refuses them"
        )


def _refuse_others(folder: Path, plan: Plan, sampler: Sampler) -> None:
    """Raise where a run that is to go on drew another plan or used other weights, under the same paths.

    Its images would come into the catalogue with the seeds and the hash of this one.
    """
    weights = sampler.facts["model_sha256"]
    for file in sorted(folder.glob("items*.jsonl")):
        for row in read_jsonl(file):
            same_plan = str(row.get("image")).startswith(f"images/{plan.plan_id}-")
            if not same_plan or row.get("model_sha256", weights) != weights:
                raise InputError(
                    f"holds images of {'other weights' if same_plan else 'another plan'}: PLAN or --model has "
                    "changed since the run began",
                    path=file,
                    remedy="Choose another --out.",
                )


def read_splits(config: GenerateConfig) -> Splits | None:
    """The splits of a run: those named, else ``splits.ecsv`` beside the plan, else none."""
    if config.splits is not None:
        return Splits.read(config.splits)
    beside = config.plan.parent / "splits.ecsv"
    return Splits.read(beside) if beside.is_file() else None


def image_name(plan: Plan, row: PlanRow, mode: str) -> str:
    """File name of an image: PLAN-ROW and the suffix of its kind."""
    return f"{object_id(plan.plan_id, row.row)}{'.png' if mode == 'display' else '.fits'}"


def provenance(plan: Plan, row: PlanRow, sampler: Sampler, reference: str) -> dict[str, Any]:
    """All that must be known to draw an image again."""
    return {
        "object_id": object_id(plan.plan_id, row.row),
        "plan_id": plan.plan_id,
        "row": row.row,
        "class_name": row.class_name,
        "prompt": row.prompt,
        "seed": row.seed,
        "condition_id": row.condition_id,
        "reference_id": reference,
        **sampler.facts,
    }


def catalogue_of(plan: Plan, rows: Sequence[PlanRow], done: Mapping[int, Mapping[str, Any]], sampler: Sampler) -> Any:
    """A ``QTable`` with one row an image: provenance, file, and the vote fractions that were asked for, else NaN."""
    from astropy.table import QTable

    about = [provenance(plan, row, sampler, str(done[row.row]["reference_id"])) for row in rows]
    table = QTable()
    for name in about[0]:
        table[name] = np.array([line[name] for line in about])
    table["image"] = np.array([str(done[row.row]["image"]) for row in rows])
    table["synthetic"] = np.ones(len(rows), bool)
    vectors = np.stack([row.condition.to_vector() for row in rows])
    shares = np.where(vectors[:, len(ANSWERS) :] > 0, vectors[:, : len(ANSWERS)], np.nan).astype(np.float32)
    for place, answer in enumerate(ANSWERS):
        table[f"{answer}_fraction"] = shares[:, place]
    table.meta = {
        "synthetic": True,
        "mode": sampler.mode,
        "plan_id": plan.plan_id,
        "splits_digest": plan.splits_digest,
        "about": "Generated galaxies. Positions, redshifts and sizes on the sky are not theirs.",
    }
    return table


def write_display(path: Path, image: NDArray[np.uint8], about: Mapping[str, Any]) -> None:
    """Write a picture as PNG with its provenance as text (SYNTH, OBJECT_ID, SEED, ...), replacing one that is there."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in {"synth": "T", **about}.items():
        info.add_itxt(key.upper(), str(value))
    with atomic_path(path, overwrite=True) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, format="PNG", pnginfo=info)


def write_flux(
    path: Path,
    image: NDArray[np.float32],
    about: Mapping[str, Any],
    survey: Mapping[str, Any],
    *,
    cube: bool = False,
) -> None:
    """Write flux (bands, side, side) as FITS: unit, point spread function, provenance, checksums; one is replaced.

    Parameters
    ----------
    path : Path
    image : float32 array
    about : mapping
        See :func:`provenance`.
    survey : mapping
        ``bands``, ``unit``, ``psf``, ``pixel_scale`` and ``sky_sigma`` of the model's training images. There are no
        world coordinates: the galaxy is nowhere on the sky.
    cube : bool
        All bands in one HDU rather than one each.
    """
    from priorscope_astro.imaging.fits import Provenance, write_stamp_fits

    where = Provenance(
        model=about["model"],
        model_sha=about["model_sha256"],
        seed=about["seed"],
        sampler=about["sampler"],
        steps=about["steps"],
        guidance=about["guidance"],
        prompt=about["prompt"],
        reference=about["reference_id"],
        history=(
            f"{about['object_id']}: row {about['row']} of the plan {about['plan_id']}, class {about['class_name']}",
            f"Votes of the training galaxy {about['condition_id']}" if about["condition_id"] else "Votes of no galaxy",
            f"Started from {about['start']}",
        ),
    )
    write_stamp_fits(path, image, provenance=where, cube=cube, overwrite=True, **survey)


def _check(config: GenerateConfig) -> None:
    if config.batch_size < 1:
        raise InputError(f"--batch-size {config.batch_size}", remedy="Use 1 or more.")
    if config.limit < 0:
        raise InputError(f"--limit {config.limit}", remedy="Use 0 (all) or more.")
    if not config.catalogue:
        raise InputError("--catalogue names no format", remedy="Use ecsv, votable or fits.")
    config.accept.check_values()
