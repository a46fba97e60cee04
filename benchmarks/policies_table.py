"""The rows of policies.py as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from priorscope_robotics.paired import paired_difference

#: What DDPM has to reach, or a comparison does not count: of the score in Push-T, of the success elsewhere.
REQUIRED = {"pusht": ("score", 0.7), "pick-place": ("success", 0.8), "door-open": ("success", 0.8)}
POINTS, TIMES = -0.05, 15
_POLICY = (
    "policy",
    "episodes",
    "levels",
    "calls",
    "success",
    "score",
    "p50_ms_1",
    "speedup_1",
    "difference",
    "lower_95",
)
_COLUMNS = (*_POLICY, "success_difference", "success_lower_95", "contraction", "failed")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print every kind of row as a table, and what follows from them."""
    for kind, title in (("demonstrations", "Demonstrations"), ("training", "Trainings"), ("adroit", "Adroit's door")):
        found = [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == kind]
        for columns in dict.fromkeys(tuple(row) for row in found):
            print(f"## {title}\n")
            _print([row for row in found if tuple(row) == columns], columns)
    policies = [row for row in rows if row["kind"] == "policy"]
    for comparison in dict.fromkeys(row["comparison"] for row in policies):
        found = [row for row in policies if row["comparison"] == comparison]
        print(f"## {comparison}\n")
        _print(found, [column for column in _COLUMNS if any(column in row for row in found)])
    for line in verdicts(policies):
        print(f"- {line}")


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(shown(row.get(column)) for column in columns)} |")
    print()


def verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the issue asks for, from the rows: whether DDPM is good enough, and RTI against the better DDPM."""
    found = {(row["comparison"], row["policy"]): row for row in rows}
    lines, counted = [], set()
    for task, (figure, least) in REQUIRED.items():
        full = [found[key] for key in ((task, "ddpm"), (f"{task}-each-step", "ddpm")) if key in found]
        if not full:
            continue
        best = max(full, key=lambda row: row[figure])
        counts = best[figure] >= least
        said = "" if counts else ": too little, so the comparison does not count"
        lines.append(f"{task}: DDPM's {figure} is {best[figure]:.3f} ({best['comparison']}), {least} asked{said}")
        counted |= {task} if counts else set()
        for (comparison, policy), row in found.items():
            if counts and comparison in (task, f"{task}-each-step") and policy.startswith("rti:"):
                lines.append(_against(row, best, figure))
    for end in ("", "-each-step"):
        for policy in dict.fromkeys(row["policy"] for row in rows):
            pair = [found.get((f"pick-place{middle}{end}", policy)) for middle in ("-unscaled", "")]
            if "pick-place" in counted and pair[0] and pair[1]:
                gain = _paired(pair[0], pair[1], "success")
                lines.append(
                    f"pick-place{end}, {policy}: the scaled gripper gains {gain.mean:+.3f} of the episodes "
                    f"(at 95 %: {gain.low:+.3f} to {gain.high:+.3f}, each one-sided)"
                )
    return lines


def _against(row: dict[str, Any], best: dict[str, Any], figure: str) -> str:
    gap = _paired(best, row, figure)
    ratio = row["speedup_1"]  # against the DDPM of the same evaluation
    held = [gap.low > POINTS, ratio >= TIMES]
    return (
        f"{row['comparison']}, {row['policy']} against it: {gap.mean:+.3f}, lower 95 % bound {gap.low:+.3f} "
        f"({'above' if held[0] else 'NOT above'} {POINTS}), {ratio:.1f} times quicker "
        f"({'at least' if held[1] else 'NOT'} {TIMES})"
    )


def _paired(first: dict[str, Any], second: dict[str, Any], figure: str) -> Any:
    name = {"score": "scores", "success": "successes"}[figure]
    return paired_difference(first[name], second[name])
