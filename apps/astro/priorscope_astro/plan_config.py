"""What ``priorscope astro plan`` can be told. Needs neither torch nor astropy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class PlanConfig:
    """See how a catalogue's classes are balanced, and plan which galaxies to draw, without leaks between splits."""

    catalogue: tyro.conf.Positional[Path]
    """A catalogue (.csv, .ecsv, .fits, .vot, .parquet), a folder in Galaxy Zoo 2's or galaxy-datasets' layout, a folder
    of image-text pairs, Galaxy10's .h5, or stamps (.npz, .h5)."""
    out: Path = Path("plan.ecsv")
    """The plan: one row an image. One that is there and the same is kept."""
    splits: Path | None = None
    """Table of object_id and split (train, validation, test). Default: splits.ecsv beside the plan, made where it is
    not there yet."""
    validation: float = 0.1
    """Share of the galaxies that validates, where the splits are made here."""
    test: float = 0.2
    """Share of the galaxies that tests, where the splits are made here."""
    model: str = ""
    """The model that will draw, its run folder or model folder: galaxies that it has learnt must be of the training
    split, and are put there where the splits are made here."""
    id_column: str = ""
    """Column of the object ids; default: the first usual name (object_id, dr7objid, objid, id_str, ...)."""
    class_column: str = ""
    """Column of class names. Default: classes of the layout, else by votes, see --classes."""
    classes: str = ""
    """Classes by tags of the Galaxy Zoo 2 tree: gz2, or a JSON file such as conditions/gz2_classes.json. Default: those
    that the data has, else gz2. Beside --class-column it says what that one's names mean."""
    cuts: str = "majority"
    """Which questions have enough votes: majority (ours), willett13 (values not checked against the paper), or a JSON
    file."""
    agreement: float = 0.5
    """Smallest share of votes for an answer that decides a class or becomes a tag."""
    draw: Literal["deficit", "balanced", "counts"] = "deficit"
    """How many of which: deficit (what each class lacks to --target), balanced (--total images, equally many of each
    class), counts (as --counts says)."""
    target: int = 0
    """Of deficit: training galaxies, real and drawn, that each class shall have; 0: as many as the largest class
    has."""
    total: int = 0
    """Of balanced: images in all."""
    counts: tuple[str, ...] = ()
    """Of counts: CLASS=NUMBER, several."""
    only: tuple[str, ...] = ()
    """Of deficit and balanced: only these classes are drawn."""
    condition: Literal["auto", "votes", "tags", "text"] = "auto"
    """What an image is told: votes (the vote fractions of a training galaxy of the class, chosen at random), tags (what
    defines the class), text (--prompts). auto: votes where there are any, else tags."""
    prompts: tuple[str, ...] = ()
    """Of text: CLASS=PROMPT, several; weights such as {dust lane:1.3} are passed on."""
    extrapolate: bool = False
    """Allow classes of --classes whose tags the decision tree forbids together, such as a smooth galaxy with arms."""
    survey: str = "sdss"
    """First tag of the prompts: sdss, hubble or candels, as GalaxySD knows them; '' for none."""
    emphasis: float = 1.0
    """Weight of the tags that define the class, in the prompts; 1.3 is what GalaxySD's authors give rare features."""
    reference: Literal["any", "class", "none"] = "any"
    """A real galaxy for the start of image-to-image: any training galaxy, one of the class, or none."""
    sky_radius: float = 2.0
    """Arcsec: objects closer than this are one galaxy and must be in one split; 0: do not look."""
    max_images: int = 100_000
    """Refuse to plan more."""
    seed: int = 0
    """Another seed plans other draws, and makes other splits."""
    overwrite: bool = False
    """Replace a plan that is there."""
