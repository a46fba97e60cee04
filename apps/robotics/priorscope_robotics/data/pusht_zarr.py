"""Push-T demonstrations in Diffusion Policy's layout: a zarr folder or archive with data/ and meta/episode_ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from priorscope.data.files import refuse_overwrite, writing
from priorscope.errors import InputError
from priorscope_robotics.data.episodes import Episodes, as_images

_CHUNK = 161


def read_pusht(path: Path, names: Sequence[str] = ()) -> Episodes:
    """Read ``*.zarr`` (a folder) or ``*.zarr.zip``.

    Parameters
    ----------
    path : Path
    names : sequence of str
        Which of ``state`` (agent x, y, block x, y, angle), ``agent_pos``, ``keypoint`` (flat: x, y, x, y, ...), ``obs``
        (keypoints, then the agent: what low-dimensional policies see) and ``image``. Default: all but images.

    Raises
    ------
    InputError
        No such layout, wrong shapes, or broken episodes.
    """
    group = _opened(path)
    names = list(names) or ["state", "agent_pos", *(["keypoint", "obs"] if "data/keypoint" in group else [])]
    actions = _array(group, "data/action", path)
    ends = _array(group, "meta/episode_ends", path)
    needed = {"state": "state", "agent_pos": "state", "keypoint": "keypoint", "obs": "keypoint", "image": "img"}
    unknown = [name for name in names if name not in needed]
    if unknown:
        raise InputError(f"no observation {', '.join(unknown)}", path=path, remedy=f"There are {', '.join(needed)}.")
    observations: dict[str, Any] = {}
    for name in names:
        if name == "image":
            observations[name] = as_images(_array(group, "data/img", path, load=False), name)
            continue
        values = np.asarray(_array(group, f"data/{needed[name]}", path), np.float32)
        values = values.reshape(len(values), -1)
        if name == "agent_pos":
            values = values[:, :2]
        if name == "obs":
            state = np.asarray(_array(group, "data/state", path), np.float32)
            values = np.concatenate([values, state[:, :2]], 1)
        observations[name] = values
    return Episodes(
        observations, np.asarray(actions, np.float32), np.asarray(ends, np.int64), fps=10.0, title=path.name
    ).check(path)


def _opened(path: Path, mode: Literal["r", "a"] = "r") -> Any:
    import zarr
    from zarr.storage import ZipStore

    if not path.exists():
        raise InputError("no such file or folder", path=path)
    try:
        if path.is_file():
            return zarr.open_group(ZipStore(path, mode="r"), mode="r")
        return zarr.open_group(str(path), mode=mode)
    except Exception as error:  # zarr raises many kinds
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"is no zarr group that can be read ({reason})", path=path) from None


def _array(group: Any, name: str, path: Path, *, load: bool = True) -> Any:
    try:
        array = group[name]
        return array[:] if load else array
    except KeyError:
        raise InputError(
            f"has no {name}", path=path, remedy="The layout is data/{action, state, keypoint, img}, meta/episode_ends."
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{name} cannot be read ({reason})", path=path) from None


class PushTRecorder:
    """Write demonstrations in that layout (zarr version 2, as published), episode by episode.

    Parameters
    ----------
    path : Path
        A folder that does not exist yet; it is complete after every :meth:`add`.
    images : bool
        Whether there are images.
    resume : bool
        Add to a recording that is there.
    options : mapping of str to JSON values, optional
        How episodes are made, by option; noted, and what is added must be made alike.

    Raises
    ------
    InputError
        Something is there, and ``resume`` is false; or it was recorded with other options, or with images and not
        without, or the other way round.

    Attributes
    ----------
    steps, episodes : int
        What it holds.
    next_seed : int
        What the last :meth:`add` was told; 0 before.
    """

    def __init__(
        self, path: Path, *, images: bool = False, resume: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        import zarr

        self.path = path
        shapes: dict[str, tuple[int, ...]] = {"action": (2,), "state": (5,), "keypoint": (9, 2), "n_contacts": (1,)}
        if images:
            shapes["img"] = (96, 96, 3)
        if resume and path.exists():
            self._root = _opened(path, mode="a")
            self._refuse_others(images, options or {})
            self._arrays = {name: _array(self._root, f"data/{name}", path, load=False) for name in shapes}
            self._ends = _array(self._root, "meta/episode_ends", path, load=False)
            self.episodes = int(self._ends.shape[0])
            self.steps = int(self._ends[-1]) if self.episodes else 0
            self.next_seed = int(self._root.attrs.get("next_seed", 0))
            return
        refuse_overwrite(path)
        with writing(path):
            self._root = zarr.open_group(str(path), mode="w", zarr_format=2)
        self._root.attrs["options"] = dict(options or {})
        data, meta = self._root.create_group("data"), self._root.create_group("meta")
        self._arrays = {
            name: data.create_array(name, shape=(0, *shape), chunks=(_CHUNK, *shape), dtype="float32")
            for name, shape in shapes.items()
        }
        self._ends = meta.create_array("episode_ends", shape=(0,), chunks=(1000,), dtype="int64")
        self.steps = self.episodes = self.next_seed = 0

    def _refuse_others(self, images: bool, options: Mapping[str, Any]) -> None:
        noted = self._root.attrs.get("options", {})  # not there in what others wrote
        for name, value in options.items():
            if noted.get(name, value) != value:
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"was collected with {option} {noted[name]}, not {value}",
                    path=self.path,
                    remedy=f"Use {option} {noted[name]}, or another folder.",
                )
        if not images and "data/img" in self._root:
            raise InputError(
                "was collected with --images", path=self.path, remedy="Add --images, or use another folder."
            )

    def add(self, rows: dict[str, Any], *, next_seed: int = 0) -> None:
        """Add one episode.

        Parameters
        ----------
        rows : dict of str to array
            ``action`` (T, 2), ``state`` (T, 5), ``keypoint`` (T, 9, 2), ``n_contacts`` (T, 1) and, with images, ``img``
            (T, 96, 96, 3) of 0 ... 255.
        next_seed : int
            Where a resumed recording goes on.
        """
        count = len(rows["action"])
        with writing(self.path):
            for name, array in self._arrays.items():
                value = np.asarray(rows[name], np.float32)
                if value.shape != (count, *array.shape[1:]):
                    raise InputError(f"{name!r} has shape {value.shape}, not {(count, *array.shape[1:])}")
                array.resize((self.steps + count, *array.shape[1:]))
                array[self.steps :] = value
            self.steps += count
            self._ends.resize((self.episodes + 1,))
            self._ends[self.episodes :] = np.array(
                [self.steps], np.int64
            )  # after the rows: what has no end is no episode
            self._root.attrs["next_seed"] = next_seed
            self.episodes += 1
