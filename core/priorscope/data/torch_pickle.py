"""Reading what ``torch.save`` wrote without running what it names."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from priorscope.data.safe_pickle import CONTAINERS, fresh, stub_type
from priorscope.errors import InputError

#: What tensors and plain containers are rebuilt by; torch itself handles storages.
_TENSORS: dict[tuple[str, str], Any] = {
    **CONTAINERS,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
}


def load_tensors_and(
    path: Path,
    other: Callable[[str, str], Any],
    *,
    trusted: Mapping[tuple[str, str], Any] | None = None,
    mapped: bool = False,
) -> Any:
    """The content of a file, on the CPU.

    Parameters
    ----------
    path : Path
    other : callable
        ``other(module, name)`` for every class or function that is neither a tensor's, a plain container's nor
        trusted: gives what stands for it, such as a :class:`~priorscope.data.safe_pickle.Stub`, or raises.
    trusted : mapping of (module, name) to object, optional
        More that is used as it is.
    mapped : bool
        Map the file where its format allows, see :func:`load_mapped`.

    Raises
    ------
    Exception
        Whatever ``other`` or a damaged file raises.
    """
    known = {**_TENSORS, **(trusted or {})}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in known:
                found = known[module, name]
                return found if isinstance(found, type) else fresh(found)
            if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
                return vars(torch)[name]
            return other(module, name)

    def load(file: Any, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    module = SimpleNamespace(Unpickler=Unpickler, load=load, __name__="pickle")
    read = load_mapped if mapped else torch.load
    return read(path, map_location="cpu", weights_only=False, pickle_module=module)


def only_described(allowed: Collection[str], path: Path, remedy: str) -> Callable[[str, str], Any]:
    """For :func:`load_tensors_and`: what is in these modules, or has these names, is described; all else is refused.

    Parameters
    ----------
    allowed : collection of str
        Modules (with those below them) and ``module.Name``; their objects come back as
        :class:`~priorscope.data.safe_pickle.Stub`, nothing of them is imported.
    path : Path
        Of the file, for the message.
    remedy : str
        What to do about a file that is refused, with an InputError.
    """

    def other(module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if any(whole == known or whole.startswith(f"{known}.") for known in allowed):
            return stub_type(module, name)
        raise InputError(
            f"its pickle asks for {whole}, which is not loaded: pickles can run code", path=path, remedy=remedy
        )

    return other


def load_mapped(path: Path, **options: Any) -> Any:
    """``torch.load`` with the file mapped instead of read; files from before torch 1.6 are read."""
    try:
        return torch.load(path, mmap=True, **options)
    except (RuntimeError, ValueError) as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, **options)
