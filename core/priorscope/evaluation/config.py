"""Dataclasses to plain values (YAML, JSON) and back."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from priorscope.errors import InputError

ConfigT = TypeVar("ConfigT")


def plain(value: Any) -> Any:
    """Reduce a value to dicts, lists, str, int, float, bool and None.

    Dataclasses become dicts, paths str, enums their name, tuples and sets lists, numpy and torch scalars and
    arrays numbers and lists.

    Raises
    ------
    TypeError
        For anything else.
    """
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, enum.Enum)):
        # str and float subclasses (numpy.float64 is one) are not plain for a YAML writer
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return None
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "tolist"):
        return plain(value.tolist())
    raise TypeError(f"a {type(value).__name__} cannot be written to YAML or JSON")


def config_from_plain(cls: type[ConfigT], values: Mapping[str, Any], *, path: Path | None = None) -> ConfigT:
    """Build a dataclass from what :func:`plain` made of one.

    Raises
    ------
    InputError
        For unknown keys, missing ones, and values of another type, with the dotted key.
    """
    return _build_dataclass(cls, values, "", path)


def _build_dataclass(cls: Any, values: Any, where: str, path: Path | None) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'the file'} should be a mapping, not {values!r}", path=path)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = [f"{where}{key}" for key in values if key not in fields]
    if unknown:
        raise InputError(f"unknown keys: {', '.join(unknown)}", path=path, remedy=f"Known keys: {', '.join(fields)}.")
    hints = get_type_hints(cls)
    arguments = {key: _build(hints[key], value, f"{where}{key}", path) for key, value in values.items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise InputError(f"{where.rstrip('.') or cls.__name__}: {error}", path=path) from error


def _build(hint: Any, value: Any, where: str, path: Path | None) -> Any:
    if hasattr(hint, "__metadata__"):  # Annotated[T, ...], as tyro uses it
        hint = hint.__origin__
    origin, parameters = get_origin(hint), get_args(hint)
    wrong = InputError(
        f"{where} is {value!r}, expected {getattr(hint, '__name__', str(hint)).replace('typing.', '')}",
        path=path,
    )
    if origin in (Union, types.UnionType):
        for option in parameters:
            try:
                return _build(option, value, where, path)
            except InputError:
                continue
        raise wrong
    if origin is Literal:
        matches = [option for option in parameters if option == value or plain(option) == value]
        if not matches:
            raise wrong
        return matches[0]
    if dataclasses.is_dataclass(hint):
        return _build_dataclass(hint, value, f"{where}.", path)
    if origin in (tuple, list, set, frozenset) or hint in (tuple, list, set, frozenset):
        kind = origin or hint
        if not isinstance(value, list | tuple):
            raise wrong
        if kind is tuple and parameters and Ellipsis not in parameters:
            if len(parameters) != len(value):
                raise wrong
            options = list(parameters)
        else:
            options = [parameters[0] if parameters else Any] * len(value)
        return kind(
            _build(option, item, f"{where}[{index}]", path)
            for index, (option, item) in enumerate(zip(options, value, strict=True))
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise wrong
        return {key: _build(parameters[1], item, f"{where}.{key}", path) for key, item in value.items()}
    if hint is Any or not isinstance(hint, type):
        return value  # Any (a class since Python 3.11), a type variable, ...: nothing to check
    if issubclass(hint, enum.Enum):
        if value not in hint.__members__:
            raise wrong
        return hint[value]
    if issubclass(hint, Path):
        if not isinstance(value, str):
            raise wrong
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{where} is larger than any floating-point number", path=path) from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint in (int, float)):
        raise wrong
    return value
