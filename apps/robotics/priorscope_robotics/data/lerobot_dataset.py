"""LeRobotDataset, versions 2.0, 2.1 and 3.0: parquet tables, mp4 films, and their meta data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from priorscope.backbones.loading import read_config
from priorscope.data.video import read_video
from priorscope.errors import InputError
from priorscope_robotics.data.episodes import Episodes, as_images

_ACTION = "action"


class _Film(NamedTuple):
    """Where the frames of an episode are."""

    path: Path
    begin: float
    """Seconds into the file."""
    length: int


def read_lerobot_dataset(folder: Path, names: Sequence[str] = (), *, episodes: int | None = None) -> Episodes:
    """Read a dataset's folder.

    Parameters
    ----------
    folder : Path
        Holds meta/info.json.
    names : sequence of str
        Which ``observation.*``; default: all that are vectors. Images are decoded and kept as bytes: an episode of 300
        frames of 96 x 96 takes 8 MB.
    episodes : int, optional
        Read only the first so many.

    Raises
    ------
    InputError
        A file is missing or damaged, the version is another one, tables and meta data do not agree, or episodes are
        broken.
    """
    info = read_config(folder / "meta", "info.json")
    version = str(info.get("codebase_version", "")).lstrip("v")
    features = info.get("features")
    if version.split(".")[0] not in ("2", "3") or not isinstance(features, dict):
        fact = f"is a LeRobotDataset of version {version or '?'}"
        raise InputError(fact, path=folder, remedy="2.x and 3.x can be read.")
    if _ACTION not in features:
        raise InputError("its meta data name no action", path=folder / "meta/info.json")
    visual = [name for name, feature in features.items() if feature.get("dtype") in ("video", "image")]
    wanted = list(names) or [name for name in features if name.startswith("observation.") and name not in visual]
    unknown = [name for name in wanted if name not in features]
    if unknown:
        have = [name for name in features if name.startswith("observation.")]
        raise InputError(f"no feature {', '.join(unknown)}", path=folder, remedy=f"There are {', '.join(have)}.")
    new = version.startswith("3")
    layout = _new_layout(folder, info) if new else _old_layout(folder, info)
    lengths = [row["length"] for row in layout][:episodes]
    if not lengths:
        raise InputError("holds no episode", path=folder)
    columns = [_ACTION, "episode_index", *(name for name in wanted if name not in visual)]
    columns += [name for name in wanted if features[name].get("dtype") == "image"]
    table = _table(folder, [Path(row["data"]) for row in layout[:episodes]], columns, len(lengths))
    found = np.bincount(table["episode_index"].astype(np.int64), minlength=len(lengths))[: len(lengths)]
    if found.tolist() != lengths:
        bad = int(np.argmax(found != np.array(lengths)))
        raise InputError(
            f"episode {bad} has {found[bad]} rows, its meta data say {lengths[bad]}",
            path=folder,
            remedy="Was the download complete?",
        )
    observations: dict[str, Any] = {}
    for name in wanted:
        kind = features[name].get("dtype")
        if kind == "video":
            films = [_film(folder, info, name, row, new) for row in layout[:episodes]]
            observations[name] = as_images(np.concatenate([_frames(film, float(info["fps"])) for film in films]), name)
        elif kind == "image":
            observations[name] = as_images(np.stack([_decoded(value, folder) for value in table[name]]), name)
        else:
            observations[name] = _vectors(table[name])
    ends = np.cumsum(lengths).astype(np.int64)
    title = str(info.get("repo_id", folder.name))
    return Episodes(observations, _vectors(table[_ACTION]), ends, float(info.get("fps", 0)), title).check(folder)


def _vectors(column: Any) -> Any:
    return np.stack([np.asarray(value, np.float32).reshape(-1) for value in column])


def _old_layout(folder: Path, info: dict[str, Any]) -> list[dict[str, Any]]:
    """A file an episode."""
    path = folder / "meta/episodes.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise InputError("is missing", path=path) from None
    except ValueError as error:
        raise InputError(f"is not JSON lines ({error})", path=path) from None
    pattern = str(info.get("data_path", "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"))
    size = int(info.get("chunks_size", 1000))
    found = []
    for row in sorted(rows, key=lambda row: row["episode_index"]):
        place = {"episode_chunk": row["episode_index"] // size, "episode_index": row["episode_index"]}
        found.append({"length": int(row["length"]), "data": pattern.format(**place), **place})
    return found


def _new_layout(folder: Path, info: dict[str, Any]) -> list[dict[str, Any]]:
    """Files hold many episodes; meta/episodes tells which."""
    files = sorted((folder / "meta/episodes").glob("chunk-*/file-*.parquet"))
    if not files:
        raise InputError("has no meta/episodes/chunk-*/file-*.parquet", path=folder)
    pattern = str(info.get("data_path", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"))
    found = []
    for file in files:
        for row in _read(file, None).to_pylist():
            place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            found.append({**row, "length": int(row["length"]), "data": pattern.format(**place)})
    return sorted(found, key=lambda row: row["episode_index"])


def _read(path: Path, columns: Sequence[str] | None) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="Was the download complete?") from None
    except (pyarrow.ArrowInvalid, pyarrow.ArrowKeyError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"cannot be read ({reason})", path=path, remedy="Download it again.") from None


def _table(folder: Path, files: Sequence[Path], columns: Sequence[str], count: int) -> dict[str, Any]:
    """Columns of the first ``count`` episodes, in order."""
    parts: dict[str, list[Any]] = {name: [] for name in columns}
    for file in dict.fromkeys(files):
        table = _read(folder / file, columns)
        for name in columns:
            if name not in table.column_names:
                raise InputError(f"has no column {name!r}", path=folder / file)
            column = table.column(name).to_pylist()
            parts[name] += column
    index = np.array(parts["episode_index"], np.int64)
    kept = np.nonzero(index < count)[0]
    order = kept[np.argsort(index[kept], kind="stable")]
    return {
        name: index[order] if name == "episode_index" else [parts[name][row] for row in order.tolist()]
        for name in columns
    }


def _film(folder: Path, info: dict[str, Any], name: str, row: dict[str, Any], new: bool) -> _Film:
    if new:
        pattern = str(info.get("video_path", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"))
        start = f"videos/{name}/"
        if f"{start}chunk_index" not in row:
            raise InputError(f"its episodes do not tell where {name!r} is", path=folder / "meta/episodes")
        place = {"chunk_index": row[f"{start}chunk_index"], "file_index": row[f"{start}file_index"]}
        path = pattern.format(video_key=name, **place)
        return _Film(folder / path, float(row[f"{start}from_timestamp"]), row["length"])
    pattern = str(
        info.get("video_path", "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4")
    )
    path = pattern.format(video_key=name, episode_chunk=row["episode_chunk"], episode_index=row["episode_index"])
    return _Film(folder / path, 0.0, row["length"])


def _frames(film: _Film, fps: float) -> Any:
    first = round(film.begin * fps)
    images = [frame.image for frame in _taken(film, first)]
    if len(images) != film.length:
        raise InputError(f"has {len(images)} of the {film.length} frames of an episode", path=film.path)
    return np.stack(images)


def _taken(film: _Film, first: int) -> Iterator[Any]:
    yield from read_video(film.path, start=first, stop=first + film.length)


def _decoded(value: Any, folder: Path) -> Any:
    """An image in a cell of the table: encoded bytes, or a path."""
    import io

    from PIL import Image

    content = value.get("bytes") if isinstance(value, dict) else value
    try:
        source: Any = io.BytesIO(content) if content else folder / value["path"]
        return np.asarray(Image.open(source).convert("RGB"))
    except (OSError, KeyError, TypeError) as error:
        raise InputError(f"an image of its tables cannot be read ({error})", path=folder) from None
