"""Imports of OpenMMLab's packages: those that are missing are named in one line, missing operators do no harm."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from typing import Any

from priorscope.errors import InputError

_REMEDY = "Install it with scripts/install_openmmlab.sh, into the environment that runs this."


def module(name: str) -> Any:
    """A module of mmpose, mmdet, mmcv or mmengine.

    Raises
    ------
    InputError
        It cannot be imported.

    Notes
    -----
    ``mmpose.models`` and mmdet import mmcv's compiled operators, which top-down pose estimation never calls and which
    ``mmcv-lite`` does not have. Where they are missing, placeholders take their place in this process: they import,
    and raise when they are called.
    """
    if not name.startswith(("mmengine", "mmcv")):
        _stand_in_for_operators()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
            return importlib.import_module(name)
    except (ImportError, AssertionError, KeyError) as error:  # mmdet asserts versions; a second try finds names taken
        raise InputError(f"{name} cannot be imported ({error})", remedy=_REMEDY) from None


class _Operators(types.ModuleType):
    """In place of ``mmcv._ext``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"mmcv's compiled operator {name} is needed: install mmcv in place of mmcv-lite")

        return missing


def _stand_in_for_operators() -> None:
    name = "mmcv._ext"
    if name in sys.modules or importlib.util.find_spec("mmcv") is None or importlib.util.find_spec(name) is not None:
        return
    sys.modules[name] = _Operators(name, "mmcv's compiled operators are not installed; these raise when called.")
