"""Reading pickled records without running what they ask for."""

from __future__ import annotations

import collections
import datetime
import io
import pickle
from collections.abc import Callable, Collection
from os import PathLike
from typing import Any

import numpy as np

from priorscope.errors import InputError


class Stub:
    """Stands for an object of a class that is not loaded: its arguments and attributes, and no behaviour.

    Attributes
    ----------
    stub_class : str
        ``module.Name`` of the class it stands for.
    stub_args : tuple
        What the class would have been called with.
    stub_state : object
        Its state where that is no dictionary; otherwise the entries are attributes.
    """

    stub_class = ""
    stub_args: tuple[Any, ...] = ()
    stub_state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        stub = super().__new__(cls)
        stub.__dict__["stub_args"] = args
        return stub

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = {**(state[0] or {}), **state[1]}  # objects with __slots__
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})
        else:
            self.__dict__["stub_state"] = state

    def __repr__(self) -> str:
        return f"<{self.stub_class}>"


def _numpy_globals() -> dict[tuple[str, str], Callable[..., Any]]:
    # The functions that arrays and numbers are pickled with, under the names of numpy 1 and 2.
    scalar: Any = np.float64(0).__reduce__()[0]
    reconstruct: Any = np.zeros(1).__reduce__()[0]
    buffer: Any = np.zeros(1).__reduce_ex__(5)[0]
    found: dict[tuple[str, str], Callable[..., Any]] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        multiarray = f"{core}.multiarray"
        found |= {(multiarray, "scalar"): scalar, (multiarray, "_reconstruct"): reconstruct}
        found[f"{core}.numeric", "_frombuffer"] = buffer
    return found


_HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    **_numpy_globals(),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, stubs: Collection[str]) -> None:
        super().__init__(io.BytesIO(data))
        self.stubs = stubs
        self.made: dict[tuple[str, str], type[Stub]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.stubs):
            if (module, name) not in self.made:
                body = {"stub_class": f"{module}.{name}"}
                self.made[module, name] = type(name, (Stub,), body)
            return self.made[module, name]
        raise _Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden(f"the persistent object {pid!r}")


class _Forbidden(pickle.UnpicklingError):
    pass


def safe_loads(data: bytes, *, stubs: Collection[str] = (), path: str | PathLike[str] | None = None) -> Any:
    """Load a pickle that may hold numbers, text, containers, dates and numpy arrays, and nothing that runs.

    Parameters
    ----------
    data : bytes
    stubs : collection of str
        Modules (with those below them) whose classes come back as :class:`Stub`; they are not imported.
    path : path-like, optional
        Named in errors.

    Raises
    ------
    InputError
        The pickle asks for another class or function, or is cut short.

    Notes
    -----
    A plain ``pickle.loads`` calls whatever function a file names. Here the names are looked up in a short list;
    nothing is imported.
    """
    try:
        return _Unpickler(data, stubs).load()
    except _Forbidden as error:
        raise InputError(
            f"its pickle asks for {error}, which is not loaded: pickles can run code",
            path=path,
            remedy="Use the published file; if this is it, report the class.",
        ) from error
    except Exception as error:  # broken pickles raise whatever their wreckage leads to
        raise InputError(
            f"its pickle is cut short or broken ({' '.join(str(error).split())[:100] or type(error).__name__})",
            path=path,
            remedy="Download it again.",
        ) from error
