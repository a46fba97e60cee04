"""What a network is told besides the noisy sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from priorscope.errors import InputError


class Condition(Mapping[str, torch.Tensor]):
    """Named tensors for a network, each either one row an item or one row shared by all items.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        First axis: the batch. Per-item tensors have B rows, shared ones 1 row.
    shared : iterable of str
        Names of the tensors that hold for every item. They keep their single row when the condition is
        indexed, repeated or concatenated.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor] | None = None, shared: Iterable[str] = ()) -> None:
        self.tensors = dict(tensors or {})
        self.shared = frozenset(shared)
        unknown = self.shared - self.tensors.keys()
        if unknown:
            raise InputError(f"shared condition {sorted(unknown)} is not among {sorted(self.tensors)}")
        for name in self.shared:
            if self.tensors[name].shape[0] != 1:
                raise InputError(f"shared condition {name!r} has {self.tensors[name].shape[0]} rows, not 1")
        rows = {name: value.shape[0] for name, value in self.tensors.items() if name not in self.shared}
        if len(set(rows.values())) > 1:
            raise InputError(f"per-item conditions differ in their number of rows: {rows}")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def select(self, index: slice | Sequence[int] | torch.Tensor) -> Condition:
        """The condition of some items; ``index`` works on the first axis."""
        return self._map(lambda value: value[index])

    def repeat(self, times: int) -> Condition:
        """Each item ``times`` times in a row (item-major, as ``torch.repeat_interleave``)."""
        return self._map(lambda value: value.repeat_interleave(times, 0))

    def expand(self, batch: int) -> dict[str, torch.Tensor]:
        """Plain tensors with ``batch`` rows each, shared ones expanded without copying."""
        rows = {}
        for name, value in self.tensors.items():
            if name in self.shared:
                value = value.expand(batch, *value.shape[1:])
            elif value.shape[0] != batch:
                raise InputError(f"condition {name!r} has {value.shape[0]} rows for a batch of {batch}")
            rows[name] = value
        return rows

    def to(self, *args: torch.device | torch.dtype | str) -> Condition:
        """Move and cast as ``Tensor.to``; integer tensors (class labels, token ids) are moved, never cast."""
        moves = [arg for arg in args if not isinstance(arg, torch.dtype)]

        def move(value: torch.Tensor) -> torch.Tensor:
            for arg in args if value.is_floating_point() else moves:
                value = value.to(arg)
            return value

        return Condition({name: move(value) for name, value in self.tensors.items()}, self.shared)

    def merged(self, other: Condition) -> Condition:
        """Both conditions; where a name is in both, ``other`` wins."""
        shared = (self.shared - other.tensors.keys()) | other.shared
        return Condition({**self.tensors, **other.tensors}, shared)

    @staticmethod
    def cat(parts: Sequence[tuple[Condition, int]]) -> Condition:
        """Join conditions of the same names along the batch.

        ``parts`` pairs each condition with its number of items, so that shared tensors can be expanded where
        the parts differ; a tensor shared and equal in all parts stays shared.
        """
        if not parts:
            return Condition()
        names = parts[0][0].tensors.keys()
        for part, _ in parts:
            if part.tensors.keys() != names:
                raise InputError(f"conditions differ in their names: {sorted(names)} and {sorted(part.tensors)}")
        tensors: dict[str, torch.Tensor] = {}
        shared = set()
        for name in names:
            values = [part[name] for part, _ in parts]
            same = all(
                name in part.shared and (value is values[0] or _equal(value, values[0]))
                for (part, _), value in zip(parts, values, strict=True)
            )
            if same:
                tensors[name] = values[0]
                shared.add(name)
            else:
                tensors[name] = torch.cat([part.expand(rows)[name] for part, rows in parts])
        return Condition(tensors, shared)

    def _map(self, change) -> Condition:  # type: ignore[no-untyped-def]
        changed = {name: value if name in self.shared else change(value) for name, value in self.tensors.items()}
        return Condition(changed, self.shared)


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)
