"""The data of evidence_pose.py: drawn people, some of them labelled, held-out ones in other styles, and clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorscope.data.files import write_text
from priorscope_pose.configs import StylesConfig
from priorscope_pose.data.annotations import Annotations
from priorscope_pose.data.coco import read_coco
from priorscope_pose.data.posetrack import read_posetrack
from priorscope_pose.people import HELD_OUT_SEED, write_coco, write_posetrack
from priorscope_pose.styles import run_styles

STYLES = ("oil", "transfer", "sketch")
#: Seeds of the people that settings are chosen on: neither trained on nor reported.
VALIDATION_SEED = HELD_OUT_SEED + 500_000
#: People who walk, with nothing in their way: few enough kinds of poses for trainings of minutes to learn them.
STILL: dict[str, Any] = {"people": 1, "action": "walk", "occluders": 0.0}
_PIECE = 100
_CLIPS = 10
#: Clips of people who walk, blurred by their motion, while things pass in front of them.
CLIP = {"action": "walk", "frames": 7, "people": 1, "blur": 0.8, "occluders": 1.0}


@dataclass(frozen=True)
class Sizes:
    """How much there is of everything."""

    unlabelled: int = 4000
    """Pictures of people that the prior sees; the labelled ones are the first of them."""
    labelled: int = 600
    validation: int = 150
    test: int = 400
    clips: int = 400
    test_clips: int = 80


class Data:
    """Draws what is missing, piece by piece, so that a call that is cut off loses one piece at most.

    Parameters
    ----------
    out : Path
    sizes : Sizes
    check_time : callable
        Called before each piece; may end the program.
    """

    def __init__(self, out: Path, sizes: Sizes, check_time: Callable[[], object]) -> None:
        self.out, self.sizes, self._check_time = out, sizes, check_time

    def stills(self, name: str) -> tuple[Path, Path]:
        """Annotation file and the folder of pictures of ``unlabelled``, ``labelled``, ``validation``, ``test``."""
        folder = self.out / "stills"
        if name == "labelled":
            path = folder / "labelled.json"
            if not path.exists():
                everything, _ = self.stills("unlabelled")
                content = json.loads(everything.read_text())
                content["images"] = content["images"][: self.sizes.labelled]
                kept = {image["id"] for image in content["images"]}
                content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
                write_text(path, json.dumps(content))
            return path, folder
        first, count = {
            "unlabelled": (0, self.sizes.unlabelled),
            "validation": (VALIDATION_SEED, self.sizes.validation),
            "test": (HELD_OUT_SEED, self.sizes.test),
        }[name]
        path = folder / f"{name}.json"
        if not path.exists():
            parts = [
                self._piece(folder / f"{name}-{start:05d}", first + start, min(_PIECE, count - start))
                for start in range(0, count, _PIECE)
            ]
            write_text(path, json.dumps(merged(parts, folder)))
        return path, folder

    def _piece(self, folder: Path, first: int, count: int) -> Path:
        path = folder / "annotations/person_keypoints_p.json"
        if not path.exists():
            self._check_time()
            write_coco(folder, range(first, first + count), split="p", progress=False, **STILL)
            print(f"{folder}: {count} pictures", flush=True)
        return path

    def test_sets(self) -> dict[str, Annotations]:
        """The held-out people as they were drawn, and in each style."""
        path, folder = self.stills("test")
        found = {"drawn": read_coco(path, folder)}
        for style in STYLES:
            restyled = self.out / "styles" / style / "annotations" / path.name
            if not restyled.exists():
                self._check_time()
                run_styles(StylesConfig(path, self.out / "styles", images=folder, styles=(style,)))  # type: ignore[arg-type]
            found[style] = read_coco(restyled, self.out / "styles" / style / folder.name)
        return found

    def clips(self, name: str) -> tuple[Path, Annotations]:
        """Annotation folder and annotations of ``train`` or ``test`` clips."""
        first, count = {"train": (0, self.sizes.clips), "test": (HELD_OUT_SEED, self.sizes.test_clips)}[name]
        folder = self.out / "clips"
        path = folder / "annotations" / name
        for start in range(0, count, _CLIPS):
            done = len(list(path.glob("*.json"))) if path.is_dir() else 0
            if done >= min(start + _CLIPS, count):
                continue
            self._check_time()
            seeds = range(first + start, first + min(start + _CLIPS, count))
            settings: dict[str, Any] = CLIP
            write_posetrack(folder, seeds, split=name, progress=False, **settings)
            print(f"{path}: {seeds.stop - first} of {count} clips", flush=True)
        return path, read_posetrack(path)


def merged(paths: list[Path], folder: Path) -> dict[str, Any]:
    """One annotation file of those of many pieces, without outlines; file names start from ``folder``."""
    whole: dict[str, Any] = {}
    for path in paths:
        content = json.loads(path.read_text())
        place = (path.parent.parent / "p").relative_to(folder)
        for image in content["images"]:
            image["file_name"] = str(place / image["file_name"])
        for annotation in content["annotations"]:
            annotation.pop("segmentation", None)
        if not whole:
            whole = content
        else:
            whole["images"] += content["images"]
            whole["annotations"] += content["annotations"]
    return whole
