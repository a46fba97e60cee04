"""The folder a training or an evaluation leaves behind: what was asked, on what machine, what came out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

from priorscope.data.files import write_text, writing
from priorscope.errors import InputError
from priorscope.evaluation.config import config_from_plain, plain
from priorscope.evaluation.processes import process_index_and_count
from priorscope.evaluation.run_lock import RunLock

ConfigT = TypeVar("ConfigT")
_REMEDY = "Free some space, or check that the folder can be written; --resume goes on."
_PACKAGES = (
    "priorscope",
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "numpy",
    "scipy",
    "scikit-image",
)


class RunFolder:
    """A run folder; make one with :meth:`create`.

    Files: ``config.yaml`` (fully resolved, can be fed back), ``environment.json`` (the machine at the start and
    under ``resumed`` at each resumption, there with ``changed``: dotted key -> settings of config.yaml and now),
    ``metrics.jsonl`` (one
    line a step or image), ``metrics.json`` (the result), ``items.jsonl`` (rows of an evaluation, written as
    they come), ``figures/``, ``checkpoints/``, ``report.html``. Only the first process of a run writes.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.yaml"
        self.environment_path = self.path / "environment.json"
        self.metrics_path = self.path / "metrics.json"
        self.history_path = self.path / "metrics.jsonl"
        self.items_path = self.path / "items.jsonl"
        self.report_path = self.path / "report.html"
        self.figures = self.path / "figures"
        self.checkpoints = self.path / "checkpoints"
        self._lock = RunLock(self.config_path)

    @classmethod
    def create(
        cls,
        path: str | PathLike[str],
        config: Any,
        *,
        resume: bool = False,
        may_differ: Collection[str] = ("resume",),
    ) -> RunFolder:
        """Make a run folder, or take up the one that is there.

        Parameters
        ----------
        path : path-like
            Must not exist, or be empty, unless ``resume``. What a start left that failed before it wrote
            anything else is replaced; a training of the same configuration that has ended without a checkpoint
            is begun again, with the data that it had drawn. Neither is done to a folder whose returned object lives,
            nor on another machine than the one that the run was last started or resumed on.
        config : dataclass instance or dict
            What defines the run; written to config.yaml. A key ``seed``, or that of a group such as ``settings``,
            is noted in environment.json too. A training is what has a group ``loop``.
        resume : bool
            Go on with an existing run of the same configuration; where there is none, start it.
        may_differ : collection of str
            Dotted keys in which the configurations may differ on resuming.

        Raises
        ------
        InputError
            If the folder holds something else, holds a run and ``resume`` is false, holds a run of another
            configuration (the differing keys are named), or one that another process of this machine is still at.
        """
        run = cls(path)
        if process_index_and_count()[0] > 0:
            return run  # the first process checks and writes
        wanted = plain(config)
        if run.path.exists() and not run.path.is_dir():
            raise InputError("is a file, a run folder was expected", path=run.path)
        if _is_blank(run.path):
            run._start(wanted)
            return run
        if not run.config_path.is_file():
            raise InputError(
                "the folder is not empty and holds no run (no config.yaml)",
                path=run.path,
                remedy="Choose another output folder.",
            )
        free = run._hold_or_refuse() == "free"
        ours = (run.config_path, run.environment_path)
        if free and run._has_no_checkpoint() and all(file in ours for file in _files(run.path)):
            run._start(wanted)
            return run
        again = free and not resume and _is_training(wanted) and run._has_no_checkpoint()
        if not (resume or again):
            raise InputError(
                "the folder holds a run already",
                path=run.path,
                remedy="Resume it (--resume) or choose another output folder.",
            )
        changed = _differences(read_yaml(run.config_path), wanted)
        refused = [key for key in changed if key not in may_differ]
        if refused:
            raise InputError(
                f"the run there was started with another configuration; these keys differ: {', '.join(refused)}",
                path=run.path,
                remedy="It left no checkpoint: delete it or choose another output folder."
                if again
                else "Use the same settings or choose another output folder.",
            )
        if again:
            print(f"{run.path}: the training there left no checkpoint; it is begun again.")
            run._start(wanted)
            return run
        run._note_resumed({key: both for key, both in changed.items() if key.split(".")[-1] != "resume"})
        return run

    def _start(self, config: Any) -> None:
        import yaml

        for folder in (self.path, self.figures, self.checkpoints):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot be made: {error.strerror}", path=folder) from error
        _write_json(self.environment_path, environment() | {"seed": _seed(config)})
        # last: a folder with config.yaml is a run
        write_text(self.config_path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True), overwrite=True)
        if self._hold() == "taken":  # another process made the same folder meanwhile
            raise self._still_going()

    def _hold(self) -> Literal["free", "taken", "unknown"]:
        """Lock the folder until this object or its process ends; how it was found.

        Unknown on another machine than the run's: a network's file system may not tell machines of each other's locks,
        or still keep the lock of one that has died.
        """
        found = self._lock.take()
        return found if self._host() == platform.node() else "unknown"

    def _hold_or_refuse(self) -> Literal["free", "taken", "unknown"]:
        found = self._hold()
        if found == "taken" and not self._lock.is_held_here():
            raise self._still_going()
        return found

    def refuse_going(self) -> None:
        """Raise :class:`InputError` where another process of this machine is still at the run."""
        self._hold_or_refuse()
        self._lock.release()

    def _still_going(self) -> InputError:
        return InputError(
            "the folder holds a run already, and a process of this machine is still at it",
            path=self.path,
            remedy="Wait until it has ended, end it, or choose another output folder.",
        )

    def _host(self) -> str | None:
        """The machine that the run was last started or resumed on, where that is known."""
        with suppress(InputError):
            noted = self.environment()
            return [noted, *noted.get("resumed", [])][-1].get("host")
        return None

    def _has_no_checkpoint(self) -> bool:
        left = (self.path / "model", self.metrics_path)
        return not any(path.exists() for path in left) and not any(_files(self.checkpoints))

    def _note_resumed(self, changed: Mapping[str, tuple[Any, Any]]) -> None:
        for folder in (self.figures, self.checkpoints):
            with writing(folder, remedy=_REMEDY):
                folder.mkdir(exist_ok=True)
        noted = _read_json(self.environment_path) if self.environment_path.is_file() else {}
        noted.setdefault("resumed", []).append(environment() | ({"changed": dict(changed)} if changed else {}))
        _write_json(self.environment_path, noted)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to metrics.jsonl; it is on disk when the call returns, also if the run is killed."""
        if process_index_and_count()[0] == 0:
            append_jsonl(self.history_path, row)

    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return read_jsonl(self.history_path)

    def drop_history_after(self, step: int) -> None:
        """Forget rows of metrics.jsonl whose ``step`` is beyond ``step``: those a resumed run does again."""
        if process_index_and_count()[0] == 0 and self.history_path.is_file():
            write_jsonl(self.history_path, [row for row in self.history() if row.get("step", 0) <= step])

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, atomically; an earlier one of the same run is replaced."""
        if process_index_and_count()[0] == 0:
            _write_json(self.metrics_path, metrics)

    def metrics(self) -> dict[str, Any]:
        """Read metrics.json."""
        return _read_json(self.metrics_path)

    def environment(self) -> dict[str, Any]:
        """Read environment.json."""
        return _read_json(self.environment_path)


def load_config(path: str | PathLike[str], cls: type[ConfigT]) -> ConfigT:
    """Read a config.yaml back into its dataclass.

    Parameters
    ----------
    path : path-like
        A config.yaml, or the run folder that holds one.
    cls : type
        The dataclass (nested ones, Path, Enum, Literal, tuple, dict and unions are understood).

    Raises
    ------
    InputError
        If the file is missing or no YAML, has unknown keys, lacks required ones, or a value has another type.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.yaml"
    return config_from_plain(cls, read_yaml(path), path=path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping (safe loader)."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", path=path) from error
    except (OSError, yaml.YAMLError, ValueError) as error:  # a number of thousands of digits is a ValueError
        raise InputError(f"is not a YAML file that can be read ({error})", path=path) from error
    if not isinstance(value, dict):
        raise InputError("holds no configuration (a mapping of keys to values)", path=path)
    return value


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line and flush. A torn last line, left by a killed run, is cut off first."""
    line = json.dumps(plain(row), ensure_ascii=False) + "\n"
    with writing(path, remedy=_REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)  # on another machine the folder may not exist yet
        _append(path, line.encode())


def _append(path: Path, line: bytes) -> None:
    with open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines atomically, replacing the file."""
    with writing(path, remedy=_REMEDY):
        write_text(path, "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows), overwrite=True)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a torn last line is dropped, no file is no rows.

    Raises
    ------
    InputError
        If a line before the last is not JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # after the last newline: nothing, or a torn line
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"line {number} is not JSON", path=path, remedy="Remove that line.") from error
    return rows


def environment() -> dict[str, Any]:
    """Versions, hardware, command and git commit of this process, JSON-able.

    GPUs are listed where torch has been imported already: a run without torch uses none.
    """
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    torch = sys.modules.get("torch")
    gpus = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor_name(),
        "cpu_count": os.cpu_count(),
        "gpus": gpus,
        "processes": process_index_and_count()[1],
        "versions": versions,
        "git": _git_state(),
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_state() -> dict[str, Any] | None:
    """Commit of priorscope's own checkout; None for an installed copy, even inside another repository."""
    folder, name = os.path.split(os.path.abspath(__file__))

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", name)
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed_files": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder that are whole; one by one, since somebody's home may be given by mistake."""
    return (path for path in folder.rglob("*") if path.is_file() and ".part" not in path.suffixes)


def _is_blank(path: Path) -> bool:
    """Whether nothing is there, or only what a run leaves that was killed while it was being made."""
    return all(file.name == "environment.json" for file in _files(path))


def _is_training(config: Any) -> bool:
    return isinstance(config, dict) and isinstance(config.get("loop"), dict)


def _seed(config: Any) -> Any:
    """The ``seed`` of a plain configuration, or of one of its groups: ``loop``, ``settings``, ``solver``."""
    if not isinstance(config, dict):
        return None
    groups = (value for value in config.values() if isinstance(value, dict))
    return next((group["seed"] for group in (config, *groups) if "seed" in group), None)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with writing(path, remedy=_REMEDY):
        write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n", overwrite=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file; has the run finished?", path=path) from error
    except ValueError as error:
        raise InputError("is not JSON", path=path) from error


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys in which two plain configurations differ, with both values (None where a key is missing)."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in old or key not in new:
                found[f"{prefix}{key}"] = old.get(key), new.get(key)
            else:
                found |= _differences(old[key], new[key], f"{prefix}{key}.")
        return found
    return {} if old == new else {prefix.rstrip("."): (old, new)}
