"""Run folders of demos, which the next demo may replace."""

from __future__ import annotations

import shutil
from os import PathLike
from pathlib import Path
from typing import Any

from priorscope.data.files import write_text
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder

_MARK = "demo.txt"


def demo_folder(path: str | PathLike[str], config: Any, command: str) -> RunFolder:
    """Make the run folder of a demo; one that an earlier demo left there is deleted first.

    Parameters
    ----------
    path : path-like
        Must not exist, be empty, or be marked as a demo's by an earlier call.
    config : dataclass instance or dict
        See :meth:`RunFolder.create`.
    command : str
        What made it, such as ``"priorscope depth demo"``.

    Raises
    ------
    InputError
        If the folder holds anything else, or a demo that another process of this machine is still at.
    """
    path = Path(path)
    if (path / "config.yaml").is_file():
        if not (path / _MARK).is_file():
            raise InputError("the folder holds a run already", path=path, remedy="Choose another output folder.")
        RunFolder(path).refuse_going()
        shutil.rmtree(path)  # nothing in it is anybody's work
    run = RunFolder.create(path, config)
    write_text(run.path / _MARK, f"Made by `{command}`, which may replace this folder.\n")
    return run
