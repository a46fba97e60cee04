"""Virtual KITTI 2 (Cabon et al. 2020) in its public layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from priorscope.data.arrays import read_array
from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope_depth.augmentation import View
from priorscope_depth.pairs.maps import read_normals
from priorscope_depth.pairs.normals import normals_from_depth
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.pairs.transform import kitti_crop, to_view

#: Scene01 is left out of training, as Lotus does.
TRAIN_SCENES = ("Scene02", "Scene06", "Scene18", "Scene20")
#: Pixels, of every camera: the data set states a principal point of (620.5, 187) with pixels counted from 0; here
#: the centre of the first pixel lies at (0.5, 0.5).
INTRINSICS = np.array([[725.0087, 0.0, 621.0], [0.0, 725.0087, 187.5], [0.0, 0.0, 1.0]])
#: Metres; from here on it is sky.
FARTHEST = 80.0


class VkittiPairs:
    """Images with planar depth; from 80 m on it is sky.

    Parameters
    ----------
    folder : Path
        Holds ``SceneNN/CONDITION/frames/rgb/Camera_N/rgb_NNNNN.jpg`` and ``.../depth/Camera_N/depth_NNNNN.png``
        (16 bit, centimetres), as the data set's two archives unpack.
    scenes : sequence of str
    normals : bool
        Give normals too: from ``.../normal/Camera_N/normal_NNNNN.png`` where that exists, Lotus' way to keep them
        (x LEFT, y up, z towards the viewer, 8 bits, (n + 1) / 2 * 255, black where there is none), else fitted to
        the depth, which takes about a second an image on one core.

    Raises
    ------
    InputError
        If no frame is found; in :meth:`read`, if depth is missing, damaged or of another size.
    """

    name = "vkitti"

    def __init__(self, folder: Path, scenes: tuple[str, ...] = TRAIN_SCENES, *, normals: bool = False) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError("no such folder", path=folder, remedy="Give Virtual KITTI's folder, the one of Scene02.")
        self.normals = normals
        self.images = sorted(
            path for scene in scenes for path in self.folder.glob(f"{scene}/*/frames/rgb/Camera_*/rgb_*.jpg")
        )
        if not self.images:
            raise InputError(
                f"holds no frames of {', '.join(scenes)} (SceneNN/CONDITION/frames/rgb/Camera_N/rgb_NNNNN.jpg)",
                path=folder,
            )

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> TrainingPair:
        path = self.images[index]
        rgb = read_image(path)
        beside = _beside(path, "depth")
        if not beside.is_file():
            raise InputError("is missing", path=beside, remedy="Unpack vkitti_2.0.3_depth.tar beside the images.")
        stored = read_array(beside)
        if stored.dtype != np.uint16 or stored.shape != rgb.shape[:2]:
            raise InputError(
                f"is {stored.dtype} {list(stored.shape)}, expected uint16 {list(rgb.shape[:2])}", path=beside
            )
        metres = stored.astype(np.float32) / 100
        valid = (metres > 1e-5) & (metres < FARTHEST)
        depth = np.where(valid, metres, 0).astype(np.float32)
        normals = None
        if self.normals:
            kept = _beside(path, "normal")
            normals = read_normals(kept, x="left") if kept.is_file() else normals_from_depth(depth, INTRINSICS)
            if normals.shape != rgb.shape:
                raise InputError(f"is {list(normals.shape[:2])}, its image {list(rgb.shape[:2])}", path=kept)
        key = path.relative_to(self.folder).with_suffix("").as_posix()
        return TrainingPair(rgb, depth, valid, metres >= FARTHEST, normals, key)


def vkitti_view(pair: TrainingPair, generator: np.random.Generator) -> View:
    """The crop of KITTI's depth benchmark, mirrored half of the time. Source: Lotus' Virtual KITTI loader."""
    return to_view(kitti_crop(pair), generator)


def _beside(image: Path, kind: str) -> Path:
    frames, camera = image.parents[2], image.parent.name
    return frames / kind / camera / f"{kind}_{image.stem.removeprefix('rgb_')}.png"
