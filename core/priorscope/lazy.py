"""Names of a package that are imported when they are first used (PEP 562).

torch alone takes 1.5 s to import, diffusers' U-Net about 5 s: ``import priorscope`` must cost neither.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable


def lazy_names(
    package: str, where: dict[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return ``(__getattr__, __dir__, __all__)`` for a package whose public names live in its modules.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    where : dict
        Public name -> dotted module, relative to the package, that defines it.
    """

    def __getattr__(name: str) -> object:
        if name in where:
            return getattr(importlib.import_module(f"{package}.{where[name]}"), name)
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__, lambda: sorted(where), sorted(where)
