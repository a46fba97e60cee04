"""Values of a Hydra configuration, with its ``${...}`` looked up."""

from __future__ import annotations

import re
from typing import Any

_WHOLE = re.compile(r"\$\{([\w.]+)\}")


class Settings:
    """A nested dictionary that is asked by dotted names.

    Parameters
    ----------
    root : dict
        Plain values; texts such as ``${policy.horizon}`` stand for other values. Anything that would have to be
        computed (``${eval:...}``) counts as absent.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root

    def get(self, name: str, default: Any = None) -> Any:
        """The value at a dotted name, or ``default`` where there is none or it cannot be told."""
        found = self._look(name, 0)
        return default if found is None else found

    def _look(self, name: str, depth: int) -> Any:
        value: Any = self.root
        for part in name.split("."):
            value = self._resolve(value, depth)
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return self._resolve(value, depth)

    def _resolve(self, value: Any, depth: int) -> Any:
        if isinstance(value, str) and "${" in value:
            whole = _WHOLE.fullmatch(value)
            return self._look(whole[1], depth + 1) if whole and depth < 20 else None
        if isinstance(value, list):
            return [self._resolve(part, depth) for part in value]
        return value
