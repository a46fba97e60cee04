"""How GalaxySD weighs words of a prompt: ``{dust lane:1.3}``; ``{dust lane}`` means 1.1; nested weights multiply."""

from __future__ import annotations

import re

from priorscope.errors import InputError

#: Weight of braces without a number.
DEFAULT_WEIGHT = 1.1
_WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")


def emphasis_runs(prompt: str) -> list[tuple[str, float]]:
    """Cut a prompt into runs of equal weight.

    Parameters
    ----------
    prompt : str
        For example ``"sdss, {completely round:1.3} galaxy"``.

    Returns
    -------
    list of (str, float)
        Text and weight; the texts joined are the prompt without its braces.

    Raises
    ------
    InputError
        A brace without its partner, or a weight that is not positive.

    Examples
    --------
    >>> emphasis_runs("a {b:1.5} c")
    [('a ', 1.0), ('b', 1.5), (' c', 1.0)]
    """
    # A group's weight stands at its end, so the runs inside it wait on a stack until it closes.
    stack: list[list[tuple[str, float]]] = [[]]
    text = ""
    for character in prompt:
        if character == "{":
            stack[-1].append((text, 1.0))
            stack.append([])
            text = ""
        elif character == "}":
            if len(stack) == 1:
                raise InputError(f"the prompt {prompt!r} has a '}}' without its '{{'", remedy="Write {dust lane:1.3}.")
            weight = DEFAULT_WEIGHT
            found = _WEIGHT.search(text)
            if found:
                weight, text = float(found[1]), text[: found.start()]
            if weight <= 0:
                raise InputError(f"the prompt {prompt!r} has the weight {weight:g}", remedy="Weights are positive.")
            inside = [*stack.pop(), (text, 1.0)]
            stack[-1] += [(run, factor * weight) for run, factor in inside]
            text = ""
        else:
            text += character
    if len(stack) > 1:
        raise InputError(f"the prompt {prompt!r} has a '{{' without its '}}'", remedy="Write {dust lane:1.3}.")
    return [run for run in [*stack[0], (text, 1.0)] if run[0]]
