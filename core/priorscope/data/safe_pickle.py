"""Reading pickled records without running what they ask for."""

from __future__ import annotations

import collections
import datetime
import io
import itertools
import pickle
import pickletools
from collections.abc import Callable, Collection
from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


class Stub:
    """Stands for an object of a class that is not loaded: its arguments, attributes and items, and no behaviour.

    Attributes
    ----------
    stub_class : str
        ``module.Name`` of the class it stands for.
    stub_args : tuple
        What the class would have been called with.
    stub_state : object
        Its state where that is no dictionary; otherwise the entries are attributes.
    stub_items : list
        What a list would hold; (key, value) pairs of a dictionary.
    """

    stub_class = ""
    stub_args: tuple[Any, ...] = ()
    stub_state: Any = None
    stub_items: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        stub = super().__new__(cls)
        stub.__dict__.update(stub_args=args, stub_items=[])
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

    def append(self, item: Any) -> None:
        """Keep an item of a class that is a list."""
        self.stub_items.append(item)

    def extend(self, items: Any) -> None:
        """Keep items of a class that is a list."""
        self.stub_items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.stub_items.append((key, value))

    def __repr__(self) -> str:
        return f"<{self.stub_class}>"


def stub_type(module: str, name: str) -> type[Stub]:
    """A class of :class:`Stub` that stands for ``module.name``."""
    return type(name, (Stub,), {"stub_class": f"{module}.{name}"})


def fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """Another object that calls ``function``: a pickle may set the attributes of what it is handed."""
    return lambda *arguments: function(*arguments)


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


def _content(content: Any, dtype: Any) -> bytes:
    """A copy of what an array holds, once it is known to be values of its type.

    A copy, since numpy writes into the bytes it is given, which another array may have been given too.
    """
    if not isinstance(dtype, _Dtype) or not dtype.dtype_in_file.itemsize:
        raise _Forbidden("an array of objects")
    if type(content) is str:
        content = content.encode("latin1")  # bytes of Python 2
    if type(content) not in (bytes, bytearray):
        raise _Forbidden("an array over the memory of another")
    if dtype.dtype_in_file.kind == "b" and content.translate(None, b"\0\1"):
        raise _Forbidden("truth values that are neither 0 nor 1")
    if dtype.dtype_in_file.kind == "U":
        letters = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.dtype_in_file.byteorder))
        if letters.max(initial=0) > 0x10FFFF:
            raise _Forbidden("letters that do not exist")
    return bytes(memoryview(content))


class _Array(np.ndarray):
    """An array that takes its content from a pickle once, as plain bytes of a :class:`_Dtype`."""

    def __setstate__(self, state: Any) -> None:
        if self.size:  # the old memory would be freed under whoever looks at it
            raise _Forbidden("an array that changes")
        version, shape, dtype, fortran, content = state
        content = _content(content, dtype)
        super().__setstate__((version, shape, dtype.dtype_in_file, fortran, content))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)  # for readers that know only numpy's


def _empty(*_: Any) -> NDArray[Any]:
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    array = np.frombuffer(bytearray(_content(content, dtype)), dtype.dtype_in_file)
    if order == "K" and axes is not None:
        return array.reshape(shape).transpose(axes).view(_Array)
    return array.reshape(shape, order=order).view(_Array)


def _scalar(dtype: Any, content: Any) -> Any:
    if isinstance(dtype, _Dtype) and not dtype.dtype_in_file.itemsize:
        return dtype.dtype_in_file.type()  # the empty text
    return _buffer(content, dtype, (1,), "C")[0]


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise _Forbidden(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


#: The functions that arrays, numbers and (up to protocol 2) bytes are pickled with, under the names of numpy 1 and 2.
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    **{(f"{core}.multiarray", "scalar"): _scalar for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "_reconstruct"): _empty for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _buffer for core in ("numpy.core", "numpy._core")},
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}

#: Containers, as Python 3 and Python 2 name them. Their attributes cannot be set, which a pickle may try to.
CONTAINERS: dict[tuple[str, str], type] = {
    **{(builtins, "set"): set for builtins in ("builtins", "__builtin__")},
    **{(builtins, "frozenset"): frozenset for builtins in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): collections.OrderedDict,
}

_HARMLESS: dict[tuple[str, str], Any] = {
    **CONTAINERS,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("numpy", "ndarray"): "numpy.ndarray",  # named as an argument; called directly, it would make arrays of pointers
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, stubs: Collection[str], encoding: str) -> None:
        super().__init__(io.BytesIO(data), encoding=encoding)
        self.stubs = stubs
        self.made: dict[tuple[str, str], type[Stub]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if (module, name) in _FUNCTIONS:
            return fresh(_FUNCTIONS[module, name])
        if any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.stubs):
            if (module, name) not in self.made:
                self.made[module, name] = stub_type(module, name)
            return self.made[module, name]
        raise _Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden(f"the persistent object {pid!r}")


class _Forbidden(pickle.UnpicklingError):
    pass


#: Python hashes a tuple in a tuple in a tuple by calls in C that nothing bounds but the stack (8 MiB: about 120 000).
_MOST_TUPLES = 20_000


def _check_tuples(data: bytes) -> None:
    codes = b"\x85", b"\x86", b"\x87", b"t"  # TUPLE1, TUPLE2, TUPLE3, TUPLE
    if sum(map(data.count, codes)) <= _MOST_TUPLES:  # there are no more operations than bytes
        return
    tuples = (operation for operation, _, _ in pickletools.genops(data) if operation.name.startswith("TUPLE"))
    if next(itertools.islice(tuples, _MOST_TUPLES, None), None):
        raise _Forbidden(f"more than {_MOST_TUPLES} tuples")


def safe_loads(
    data: bytes,
    *,
    stubs: Collection[str] = (),
    encoding: Literal["ASCII", "latin1"] = "ASCII",
    path: str | PathLike[str] | None = None,
) -> Any:
    """Load a pickle that may hold numbers, text, containers, dates and numpy arrays, and nothing that runs.

    Parameters
    ----------
    data : bytes
        Of any protocol, of Python 2 or 3, without buffers of its own.
    stubs : collection of str
        Modules (with those below them) whose classes come back as :class:`Stub`; they are not imported.
    encoding : {"ASCII", "latin1"}
        Of text that Python 2 wrote; "latin1" where it holds arrays.
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
    dtype that stands alone comes back as a placeholder. What is not bounded is time and memory.
    """
    try:
        _check_tuples(data)
        return _Unpickler(data, stubs, encoding).load()
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
