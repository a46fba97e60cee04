"""Hypersim (Roberts et al. 2021) in its public layout."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope_depth.augmentation import View
from priorscope_depth.pairs.normals import face_the_camera, unit_or_zero
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.pairs.split import Subset
from priorscope_depth.pairs.transform import shorter_side, to_view

#: Pixels, in images 1024 wide.
FOCAL_LENGTH = 886.81
SPLIT_FILE = "metadata_images_split_scene_v1.csv"
_LAYOUT = "ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg"


class HypersimPairs:
    """Tone-mapped images with planar depth and normals.

    Parameters
    ----------
    folder : Path
        Holds the scenes (``ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg`` and
        ``.../scene_cam_XX_geometry_hdf5/frame.IIII.{depth_meters,normal_cam}.hdf5``) and, here or in
        ``evermotion_dataset/analysis``, the official split ``metadata_images_split_scene_v1.csv``.
    split : {"train", "val", "test"}
        Without the split file all frames are taken, and only ``train`` can be asked for.

    Raises
    ------
    InputError
        If no frame is found, or the split file cannot be understood; in :meth:`read`, if a file of a frame is
        missing, damaged or of another size.

    Notes
    -----
    The stored depth is the distance to the camera's centre; it becomes planar depth with a focal length of
    886.81 pixels at 1024 x 768. Pixels without depth (NaN) count as unknown; Lotus leaves whole frames out that
    have some, see :func:`without_holes`. Normals are stored with x right, y up, z towards the viewer; those that
    face away from the camera are turned round (Lotus' ``align_cam_normal``).
    """

    name = "hypersim"

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError("no such folder", path=folder, remedy="Give Hypersim's folder, the one of the scenes.")
        self.frames = _on_disk(self.folder)
        if not self.frames:
            raise InputError(f"holds no Hypersim frames ({_LAYOUT})", path=folder)
        wanted = _split(self.folder, split)
        if wanted is not None:
            self.frames = [frame for frame in self.frames if frame in wanted]
        if not self.frames:
            raise InputError(f"holds frames, but none of the split {split!r}", path=folder)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int) -> TrainingPair:
        scene, camera, frame = self.frames[index]
        rgb = read_image(
            self.folder / scene / "images" / f"scene_{camera}_final_preview" / f"frame.{frame}.tonemap.jpg"
        )
        distance = _read_hdf5(self._geometry(index, "depth_meters"), rgb.shape[:2])
        focal = FOCAL_LENGTH * rgb.shape[1] / 1024
        depth = planar_depth(distance, focal)
        valid = np.isfinite(depth) & (depth > 0)
        depth = np.where(valid, depth, 0).astype(np.float32)
        normals = unit_or_zero(_read_hdf5(self._geometry(index, "normal_cam"), rgb.shape))
        return TrainingPair(
            rgb=rgb,
            depth=depth,
            valid=valid,
            # a hole is a window or missing geometry, and not known to be far
            sky=np.zeros_like(valid),
            normals=face_the_camera(normals, depth, focal),
            key=f"{scene}/{camera}/{frame}",
        )

    def has_holes(self, index: int) -> bool:
        """Whether some pixels of a frame have no depth."""
        return not np.isfinite(_read_hdf5(self._geometry(index, "depth_meters"), None)).all()

    def _geometry(self, index: int, what: str) -> Path:
        scene, camera, frame = self.frames[index]
        return self.folder / scene / "images" / f"scene_{camera}_geometry_hdf5" / f"frame.{frame}.{what}.hdf5"


def without_holes(source: HypersimPairs) -> Subset:
    """Only the frames with depth everywhere, as Lotus trains on. Reads every depth file once."""
    return Subset(source, [index for index in range(len(source)) if not source.has_holes(index)])


def hypersim_view(pair: TrainingPair, generator: np.random.Generator) -> View:
    """Shorter side to 576 pixels (768 x 1024 becomes 576 x 768), mirrored half of the time.

    Source: Lotus' Hypersim loader.
    """
    return to_view(shorter_side(pair, 576), generator)


def planar_depth(distance: NDArray[np.float32], focal: float = FOCAL_LENGTH) -> NDArray[np.float32]:
    """Depth along the axis from the distance to the camera's centre: z = d f / |(x, y, f)|.

    Parameters
    ----------
    distance : ndarray, (H, W)
        Metres.
    focal : float
        Pixels; pixel centres at + 0.5, principal point in the middle.
    """
    height, width = distance.shape
    x = np.arange(width) + 0.5 - width / 2
    y = np.arange(height) + 0.5 - height / 2
    length = np.sqrt(x**2 + y[:, None] ** 2 + focal**2)
    return (distance * (focal / length)).astype(np.float32)


def _on_disk(folder: Path) -> list[tuple[str, str, str]]:
    """(scene, camera, frame) of all images, for example ("ai_001_001", "cam_00", "0000")."""
    found = []
    for path in sorted(folder.glob(_LAYOUT)):
        camera = path.parent.name.removeprefix("scene_").removesuffix("_final_preview")
        found.append((path.parents[2].name, camera, path.name.split(".")[1]))
    return found


def _split(folder: Path, split: str) -> set[tuple[str, str, str]] | None:
    """The frames of a split; None where there is no split file."""
    places = (folder / SPLIT_FILE, folder / "evermotion_dataset/analysis" / SPLIT_FILE)
    table = next((path for path in places if path.is_file()), None)
    if table is None:
        if split != "train":
            raise InputError(f"lacks {SPLIT_FILE}", path=folder, remedy="Download it from Hypersim's repository.")
        return None
    try:
        with open(table, newline="", encoding="utf-8") as file:
            return {
                (row["scene_name"], row["camera_name"], f"{int(row['frame_id']):04d}")
                for row in csv.DictReader(file)
                if row["included_in_public_release"] == "True" and row["split_partition_name"] == split
            }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"is not Hypersim's split ({type(error).__name__}: {error})", path=table, remedy="Download it again."
        ) from error


def _read_hdf5(path: Path, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
    """The file's one array, of ``shape`` if that is given."""
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading .hdf5 needs h5py", path=path, remedy="pip install 'priorscope[depth]'") from error
    try:
        with h5py.File(path) as file:
            stored = file["dataset"]
            if shape is not None and stored.shape != shape:
                raise InputError(f"has shape {list(stored.shape)}, its image {list(shape[:2])}", path=path)
            return stored[:].astype(np.float32)
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="Download the geometry_hdf5 folders too.") from None
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"is not one of Hypersim's HDF5 files ({error})", path=path) from error
