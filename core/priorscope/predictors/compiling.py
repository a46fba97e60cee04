"""A compiler that fails, said to a user in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from priorscope.errors import InputError


@contextmanager
def compiler_failures() -> Iterator[None]:
    """Around a call of networks that ``torch.compile`` may have been asked for.

    Raises
    ------
    InputError
        In place of the compiler's own error, which comes at the first call.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_compilers(error):
            raise
        raise InputError(
            f"the network cannot be compiled here ({' '.join(str(error).split())[:160]})",
            remedy="Leave out --compile.",
        ) from error


def _is_compilers(error: RuntimeError) -> bool:
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)
