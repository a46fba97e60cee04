"""Batches of equal size out of images of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from priorscope.errors import InputError

Item = TypeVar("Item")


def equal_batches(
    items: Sequence[Item], key: Callable[[Item], Hashable], batch_size: int
) -> Iterator[list[tuple[int, Item]]]:
    """Batches of at most ``batch_size`` items with equal ``key``, each item with its position in ``items``.

    Items keep their order within a key; keys come in the order of their first item.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}", remedy="Use at least 1.")
    groups: dict[Hashable, list[tuple[int, Item]]] = {}
    for index, item in enumerate(items):
        groups.setdefault(key(item), []).append((index, item))
    for group in groups.values():
        for begin in range(0, len(group), batch_size):
            yield group[begin : begin + batch_size]
