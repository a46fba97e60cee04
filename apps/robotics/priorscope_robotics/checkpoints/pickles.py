"""Reading files that ``torch.save`` wrote with dill and OmegaConf, without running anything that is in them."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from priorscope.data.safe_pickle import Stub
from priorscope.data.torch_pickle import load_tensors_and, only_described
from priorscope.errors import InputError


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise InputError(f"its pickle encodes as {encoding!r}")
    return codecs.encode(text, "latin1")


def _defaults(*_: Any) -> dict[Any, Any]:
    return {}


#: Trusted beside tensors and plain containers.
_TRUSTED: dict[tuple[str, str], Any] = {
    ("torch.serialization", "_get_layout"): _defaults,
    ("_codecs", "encode"): _encode,
    ("collections", "defaultdict"): _defaults,
}
#: Described, not loaded: the settings, and the types that they name.
_STUBBED = ("omegaconf", "typing", "dill._dill._load_type")


def read_pickled(path: Path) -> dict[str, Any]:
    """The content of a ``torch.save`` file: tensors (mapped, on the CPU), plain values, and stubs for settings.

    Raises
    ------
    InputError
        No such file, a damaged one, or one that names a class or function which is neither a tensor's, a plain
        container's nor OmegaConf's: pickles can run code, so it is refused before that.
    """

    other = only_described(_STUBBED, path, "Use the published file; if this is it, report the class.")
    try:
        content = load_tensors_and(path, other, trusted=_TRUSTED, mapped=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except Exception as error:  # a damaged archive may raise anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"is not a checkpoint that can be read ({reason})", path=path, remedy="Download it again."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"holds a {type(content).__name__}, not a training checkpoint", path=path)
    return content


def plain_settings(value: Any, depth: int = 0) -> Any:
    """Plain values of OmegaConf's stubs, without resolving ``${...}``; None for what is neither."""
    if depth > 100:
        return None
    if isinstance(value, Stub):
        content = vars(value)
        return plain_settings(content["_content"] if "_content" in content else content.get("_val"), depth + 1)
    if isinstance(value, dict):
        return {str(plain_settings(key, depth + 1)): plain_settings(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_settings(part, depth + 1) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else None
