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
from numpy.typing import NDArray

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


class _Dtype:
    """A numpy dtype as pickles describe it: numbers and fixed-length text, no objects, no fields, no sizes of its own.

    numpy takes a dtype's state from a pickle unchecked: one that says its objects are numbers turns bytes into
    pointers. So the state is read here and never reaches numpy.
    """

    def __init__(self, text: Any, *_: Any) -> None:
        dtype = np.dtype(text) if isinstance(text, str) else None
        if dtype is None or dtype.kind not in "biufcSU":
            raise _Forbidden(f"the array type {text!r}")
        self.dtype_in_file = dtype

    def __setstate__(self, state: Any) -> None:
        if any(part is not None for part in state[2:5]):
            raise _Forbidden("an array type with fields")
        if state[1] in ("<", ">"):
            self.dtype_in_file = self.dtype_in_file.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that takes its content from a pickle only as plain bytes of a :class:`_Dtype`."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise _Forbidden("an array of objects")
        super().__setstate__((version, shape, dtype.dtype_in_file, fortran, content))


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return _buffer(content, dtype, (1,), "C")[0]


def _empty(*_: Any) -> NDArray[Any]:
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _buffer(content: Any, dtype: _Dtype, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype):
        raise _Forbidden("an array of objects")
    return np.frombuffer(content, dtype.dtype_in_file).reshape(shape, order=order)


#: The functions that arrays and numbers are pickled with, under the names of numpy 1 and 2.
_NUMPY: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    **{(f"{core}.multiarray", "scalar"): _scalar for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "_reconstruct"): _empty for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _buffer for core in ("numpy.core", "numpy._core")},
}

#: Types whose attributes cannot be set, since a pickle may try to.
_HARMLESS: dict[tuple[str, str], Any] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("numpy", "ndarray"): "numpy.ndarray",  # named as an argument; called directly, it would make arrays of pointers
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, stubs: Collection[str]) -> None:
        super().__init__(io.BytesIO(data))
        self.stubs = stubs
        self.made: dict[tuple[str, str], type[Stub]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if (module, name) in _NUMPY:
            function = _NUMPY[module, name]
            return lambda *arguments: function(*arguments)  # a new one each time: a pickle may set its attributes
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
    nothing is imported. Arrays hold numbers or text: arrays of objects, with fields or of dates are refused, and a
    dtype that stands alone comes back as a placeholder.
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
