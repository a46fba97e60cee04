"""Who is at a run: a lock on its config.yaml, for as long as the process that took it lives."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Literal


class RunLock:
    """The lock of one file; it ends with this object, or with its process however that dies.

    Parameters
    ----------
    path : Path
        The file, which is only locked, never written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._let_go: Callable[[], object] | None = None

    def take(self) -> Literal["free", "taken", "unknown"]:
        """Take it, if nobody has it; how it was found: unknown without the file, or where files cannot be locked."""
        try:
            import fcntl
        except ImportError:  # Windows
            return "unknown"
        self.release()
        try:
            file = os.open(self.path, os.O_RDWR)
        except OSError:
            return "unknown"
        self._let_go = weakref.finalize(self, os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "taken"
        except OSError:
            return "unknown"
        _TAKEN.add(self)
        return "free"

    def release(self) -> None:
        """Let others take it."""
        if self._let_go is not None:
            self._let_go()
        _TAKEN.discard(self)

    def is_held_here(self) -> bool:
        """Whether another object of this process has it: a notebook may keep that of a run that failed."""
        return any(other.path.resolve() == self.path.resolve() for other in _TAKEN if other is not self)


#: Locks that objects of this process have.
_TAKEN: weakref.WeakSet[RunLock] = weakref.WeakSet()
