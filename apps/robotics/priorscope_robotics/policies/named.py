"""Policies by the short texts of the command line, such as ``rti:2,1,0``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from priorscope.errors import InputError
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.policies.consistency import ConsistencyPolicy
from priorscope_robotics.policies.discrete import robomimic_grippers
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.policy import Policy
from priorscope_robotics.policies.rti import RtiPolicy
from priorscope_robotics.policies.start_level import levels_down
from priorscope_robotics.policies.streaming import StreamingPolicy
from priorscope_robotics.spec import DiscreteAction

_FLAGS: dict[str, dict[str, Any]] = {
    "noised": {"start": "noised"},
    "deterministic": {"deterministic": True},
    "official": {"jumps": "official", "shift": 1},
    "linear": {"schedule": "linear-as-released"},
}
_OBJECTIVES = {"ddpm": "diffusion", "ddim": "diffusion", "rti": "diffusion"}

#: Before the number of actions that are executed.
_DO = ":do="


def make_policy(
    model: PolicyModel,
    text: str,
    *,
    n_action_steps: int | None = None,
    discrete: Sequence[DiscreteAction] | None = None,
    start_level: Callable[[], int] | None = None,
) -> Policy:
    """A policy by its text.

    Parameters
    ----------
    model : PolicyModel
    text : str
        ``ddpm``; ``ddim:STEPS`` and ``ddim:STEPS:trailing``; ``rti:LEVELS`` with commas, or ``rti:auto`` and
        ``rti:auto:CALLS``, each with any of ``:noised``, ``:deterministic``, ``:official``, ``:linear`` after it;
        ``streaming`` and ``streaming:STRIDE``; ``consistency`` and ``consistency:CHAIN``. Each may end in ``:do=N``: N
        actions of a plan are executed, whatever ``n_action_steps`` says.
    n_action_steps, discrete
        Of :class:`~priorscope_robotics.policies.policy.Policy`.
    start_level : callable, optional
        Gives the level for ``rti:auto``; three calls by default.

    Raises
    ------
    InputError
        The text means nothing, or the model was trained for another kind of policy.
    """
    n_action_steps = executed_actions(text) or n_action_steps
    kind, *words = text.partition(_DO)[0].split(":")
    options: dict[str, Any] = {"n_action_steps": n_action_steps, "discrete": discrete}
    wanted = _OBJECTIVES.get(kind, kind)
    if wanted not in ("diffusion", "streaming", "consistency"):
        raise InputError(f"no policy is called {text!r}", remedy="Use ddpm, ddim:8, rti:2,1,0, streaming, consistency.")
    if wanted != model.spec.objective and not (kind == "ddpm" and model.spec.objective == "streaming"):
        trained = model.spec.objective
        raise InputError(f"the policy {text!r} needs a model of {wanted}, this one was trained for {trained}")
    if kind == "ddpm":
        _none_left(words, text)
        return FullPolicy(model, **options)
    if kind == "ddim":
        steps = _whole(words.pop(0) if words else "8", text)
        spacing = words.pop(0) if words else "leading"
        _none_left(words, text)
        if spacing not in ("leading", "trailing"):
            raise InputError(f"the spacing of {text!r}", remedy="Use leading or trailing.")
        return FullPolicy(model, solver="ddim", steps=steps, spacing=spacing, **options)  # type: ignore[arg-type]
    if kind == "rti":
        levels = _levels(words, text, start_level)
        for word in words:
            if word not in _FLAGS:
                raise InputError(f"{word!r} in {text!r}", remedy=f"After the levels come {', '.join(_FLAGS)}.")
            options |= _FLAGS[word]
        return RtiPolicy(model, levels, **options)
    number = _whole(words.pop(0), text) if words else None
    _none_left(words, text)
    if kind == "streaming":
        return StreamingPolicy(model, stride=1 if number is None else number, **options)
    return ConsistencyPolicy(model, chain=number or 0, **options)


def executed_actions(text: str) -> int:
    """Of a policy's text, how many actions of a plan it says are executed; 0: it says nothing."""
    _, said, number = text.partition(_DO)
    if not said:
        return 0
    if not number.isdigit() or not int(number):
        raise InputError(f"the actions that {text!r} executes", remedy="Give a number above 0: rti:2,1,0:do=1.")
    return int(number)


def _levels(words: list[str], text: str, start_level: Callable[[], int] | None) -> list[float]:
    """Takes the words that tell levels off the list."""
    first = words.pop(0) if words else "2,1,0"
    if first != "auto":
        try:
            return [float(int(part)) for part in first.split(",")]
        except ValueError:
            raise InputError(f"the levels of {text!r}", remedy="Give whole numbers with commas: rti:2,1,0.") from None
    calls = _whole(words.pop(0), text) if words and words[0].isdigit() else 3
    if start_level is None:
        raise InputError(f"{text!r} needs episodes to be tried in", remedy="Use it with evaluate or demo.")
    return [float(level) for level in levels_down(max(start_level(), calls - 1), calls)]


def _whole(word: str, text: str) -> int:
    if not word.isdigit():
        raise InputError(f"{word!r} in {text!r} is no number")
    return int(word)


def _none_left(words: Sequence[str], text: str) -> None:
    if words:
        raise InputError(f"{':'.join(words)!r} in {text!r} means nothing")


def discrete_dimensions(words: Sequence[str], action_dim: int) -> tuple[DiscreteAction, ...] | None:
    """Discrete dimensions of the command line; None where nothing is said.

    Parameters
    ----------
    words : sequence of str
        ``INDEX:VALUES[:SCALE[:GUESS]]`` (``-1:-1,1:10``), or one of ``none``, ``robomimic-clip``, ``robomimic-scale``.
    action_dim : int
    """
    if not words:
        return None
    if words[0] == "none":
        return ()
    if words[0] in ("robomimic-clip", "robomimic-scale"):
        return robomimic_grippers(action_dim, scaled=words[0].endswith("scale"))
    found: list[DiscreteAction] = []
    for word in words:
        parts = word.split(":")
        try:
            values = tuple(float(value) for value in parts[1].split(","))
            numbers = [float(part) for part in parts[2:]]
            entry = DiscreteAction(int(parts[0]), values, *numbers)
        except (ValueError, IndexError, TypeError):
            remedy = "Use INDEX:VALUES[:SCALE[:GUESS]], such as -1:-1,1:10."
            raise InputError(f"the discrete dimension {word!r}", remedy=remedy) from None
        sound = all(math.isfinite(number) for number in (*values, *numbers))
        if not sound or not -action_dim <= entry.index < action_dim or len(set(values)) < 2 or entry.scale <= 0:
            raise InputError(f"the discrete dimension {word!r} for actions of {action_dim} numbers")
        if any(entry.index % action_dim == other.index % action_dim for other in found):
            raise InputError(f"the discrete dimension {entry.index % action_dim} is named twice")
        found.append(entry)
    return tuple(found)
