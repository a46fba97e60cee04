"""OPV2V, V2XSet and V2V4Real: SPLIT/SCENARIO/AGENT/TIMESTAMP.{pcd,yaml}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal

from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth, delay_steps
from priorscope_detection.data.opv2v_file import Annotation, read_annotation
from priorscope_detection.data.points import read_points
from priorscope_detection.data.rigid import Array, box_of_matrix, inverse

#: Where the boxes of a file stand: in the world, or in the LiDAR frame of the agent whose file it is.
BoxFrame = Literal["world", "lidar"]


class OPV2V:
    """Frames of a folder in OPV2V's layout.

    Parameters
    ----------
    path : path-like
        A split (its folders are scenarios), a scenario (its folders are agents), or a data set of several splits.
    boxes_in : {"world", "lidar"}, optional
        Default: "lidar" where the file's lidar_pose is a matrix, which is V2V4Real's form, else "world".
    classes : sequence of str, optional
        Only these, in lower case. OPV2V names none; its objects are called ``vehicle``.
    period : float
        Milliseconds between two files.

    Raises
    ------
    InputError
        No scenario is there, or two files of an agent have the same timestamp.

    Notes
    -----
    The ego is the agent whose folder sorts first as text; those with negative numbers, which are V2XSet's road-side
    units, come last. A frame is there for each timestamp of the ego; another agent without it is left out of that
    frame. The truth is the union over the agents' files by object id, without the ego itself: its own LiDAR does
    not see it, and OPV2V does not list it. `read` with a delay takes the first frame of a scenario where there is
    no earlier one.
    """

    single = False

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        boxes_in: BoxFrame | None = None,
        classes: Sequence[str] | None = None,
        period: float = 100.0,
    ) -> None:
        self.path = Path(path)
        self.title = self.path.name
        self.period = period
        self.boxes_in = boxes_in
        self.classes = None if classes is None else {name.lower() for name in classes}
        scenarios = list(find_scenarios(self.path))
        if not scenarios:
            raise InputError(
                "holds no scenario in OPV2V's layout",
                path=path,
                remedy="Give a folder of SCENARIO/AGENT/TIMESTAMP.yaml and .pcd.",
            )
        #: where scenarios of several splits are read as one data set
        self.splits = tuple(sorted({scenario.parent.name for scenario in scenarios}))
        #: by scenario: by agent: by timestamp: the file without its suffix
        self._files: list[dict[str, dict[int, Path]]] = []
        self._names: list[str] = []
        self._index: list[tuple[int, int]] = []
        for scenario in scenarios:
            agents = {folder.name: _timestamps(folder) for folder in _agents(scenario)}
            ego = next(iter(agents))
            self._index += [(len(self._files), timestamp) for timestamp in sorted(agents[ego])]
            self._files.append(agents)
            # the same frame has the same name whichever folder was given, since noise derives from it
            alone = [other.name for other in scenarios].count(scenario.name) == 1
            self._names.append(scenario.name if alone else scenario.relative_to(self.path).as_posix())

    def __len__(self) -> int:
        return len(self._index)

    def name(self, index: int) -> str:
        scenario, timestamp = self._index[index]
        files = self._files[scenario]
        return f"{self._names[scenario]}/{files[next(iter(files))][timestamp].name}"

    def sequence(self, index: int) -> str:
        return self._names[self._index[index][0]]

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`.

        Raises
        ------
        InputError
            A sweep or a YAML file is missing or broken, or an agent has no pose.
        """
        steps = delay_steps(delay, self.period)
        scenario, timestamp = self._index[index]
        files = self._files[scenario]
        times = sorted(files[next(iter(files))])
        position = times.index(timestamp)
        earlier = times[max(position - steps, 0)]
        agents: list[Agent] = []
        seen: list[tuple[str, Annotation]] = []
        for name, stems in files.items():
            if timestamp not in stems:
                continue
            seen.append((name, _annotation(stems[timestamp], name)))
            when = timestamp if not agents else earlier
            if when not in stems:
                continue
            pose = _annotation(stems[when], name).pose
            sweep = read_points(stems[when].with_name(f"{stems[when].name}.pcd"))
            age = 0.0 if when == timestamp else (position - times.index(when)) * self.period
            kind: Literal["vehicle", "infrastructure"] = "infrastructure" if name.startswith("-") else "vehicle"
            agents.append(Agent(name, sweep.points, pose, pose, kind, age, sweep.dropped))
        return Frame(self.name(index), tuple(agents), self._truth(seen, agents[0]))

    def _truth(self, seen: list[tuple[str, Annotation]], ego: Agent) -> Truth:
        rows: dict[str, tuple[Array, str]] = {}
        listed_by: dict[str, list[str]] = {}
        to_ego = inverse(ego.clean_pose)
        for agent, found in seen:
            lidar = self.boxes_in == "lidar" or (self.boxes_in is None and found.as_matrix)
            places = (to_ego @ found.pose if lidar else to_ego) @ found.places
            for identity, label, place, size in zip(found.ids, found.classes, places, found.sizes, strict=True):
                # V2V4Real's objects have numbers of their own: its ego is called 0, and so may a box be
                own = not lidar and identity == ego.name
                if own or (self.classes is not None and label not in self.classes):
                    continue
                listed_by.setdefault(identity, []).append(agent)
                if identity not in rows:
                    rows[identity] = (box_of_matrix(place, size), label)
        return Truth.of(rows, listed_by)


def _annotation(stem: Path, agent: str) -> Annotation:
    """Parsing YAML takes longer than reading a sweep, so what a file says is kept while it stays as it is."""
    path = stem.with_name(f"{stem.name}.yaml")
    try:
        state = path.stat()
    except OSError:
        return read_annotation(path, agent)
    return _read_once(path, agent, (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(20_000)  # some 10 kB each
def _read_once(path: Path, agent: str, state: tuple[int, ...]) -> Annotation:
    return read_annotation(path, agent)


def find_scenarios(path: Path) -> list[Path]:
    """The scenario folders at or below a path: folders whose folders hold TIMESTAMP.yaml; two levels are looked at."""
    if not path.is_dir():
        raise InputError("no such folder", path=path, remedy="Check the path.")
    if _agents(path):
        return [path]
    below = sorted(folder for folder in path.iterdir() if folder.is_dir())
    found = [folder for folder in below if _agents(folder)]
    if found:
        return found
    return [inner for folder in below for inner in sorted(folder.iterdir()) if inner.is_dir() and _agents(inner)]


def _agents(scenario: Path) -> list[Path]:
    folders = [f for f in scenario.iterdir() if f.is_dir() and any(_is_timestamp(p) for p in f.glob("*.yaml"))]
    return sorted(folders, key=lambda folder: (folder.name.startswith("-"), folder.name))


def _is_timestamp(path: Path) -> bool:
    return re.fullmatch(r"\d+", path.stem) is not None


def _timestamps(folder: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        if _is_timestamp(path):
            stamp = int(path.stem)
            if stamp in found:
                raise InputError(
                    f"the timestamp {stamp} comes twice: {found[stamp].name}.yaml and {path.name}",
                    path=folder,
                    remedy="Remove one of them.",
                )
            found[stamp] = path.with_suffix("")
    return found
