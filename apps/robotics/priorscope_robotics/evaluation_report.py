"""The report of an evaluation: the table, latencies, films."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope_robotics.configs import EvaluateConfig
from priorscope_robotics.film import strip, write_film

#: What the table begins with.
_FIRST = ("policy", "calls", "success", "score", "difference", "lower_95", "speedup_1", "max_coverage", "mean_coverage")


@dataclass
class Contestant:
    """What one policy did."""

    name: str
    rows: list[dict[str, Any]]
    """One an episode, in the order of the seeds."""
    latencies: dict[str, dict[str, float]]
    """By batch size, and ``in_episodes``."""
    films: dict[int, list[Any]] = field(default_factory=dict)
    """Pictures by seed."""
    fps: float = 10.0
    contraction: dict[str, float] | None = None
    """Largest singular values of a warm-started run and of its steps."""
    levels: str = ""
    """Of a warm-started policy, such as ``2,1,0``."""
    last: dict[str, Any] = field(default_factory=dict)
    """The last observations (B, n_obs_steps, ...) by name; empty where all episodes had been run before."""


def write_report(
    run: RunFolder, config: EvaluateConfig, contestants: list[Contestant], rows: list[dict[str, Any]]
) -> None:
    """Write figures/*.mp4 and report.html; earlier ones of this run are replaced."""
    report = Report(
        f"Policies in {config.environment}",
        f"{config.model}; {config.episodes} episodes with the seeds from {config.first_seed} on.",
    )
    report.heading("Result")
    names = dict.fromkeys(name for row in rows for name in row)
    known = [name for name in names if "_ms_" not in name and "cold_share" not in name]
    shown = [name for name in _FIRST if name in known]
    shown += [name for name in known if name not in _FIRST]
    report.table(
        [{name: row.get(name) for name in shown} for row in rows], best={"success": "greatest", "score": "greatest"}
    )
    report.paragraph(
        "score is the mean over episodes of the best reward of each (Push-T: coverage / 0.95, at most 1); success the "
        "share of episodes that reached the goal; calls the network calls for each control step. difference is the "
        f"mean of the paired differences of the score from {contestants[0].name}; with 95 % confidence the true one is "
        "above lower_95. failed counts episodes that ended because the environment gave numbers that are not finite."
    )
    report.heading("Latency")
    table = [
        {"policy": contestant.name, "environments": batch, **found}
        for contestant in contestants
        for batch, found in contestant.latencies.items()
        if found
    ]
    report.table(table)
    report.paragraph(
        "Milliseconds a call, for the whole batch; a call gives the next actions of every environment. Timed alone "
        "after two calls that do not count, with warm starts where a policy has them; in_episodes: while it acted, all "
        "calls but the first, those that needed full plans (cold_share) among them."
    )
    contracting = [{"policy": c.name, **c.contraction} for c in contestants if c.contraction]
    if contracting:
        report.heading("Contraction")
        report.table(contracting)
        report.paragraph(
            "By how much a run stretches the difference between two guesses at most, measured at one observation of "
            "the last episodes: the largest singular value of its Jacobian (by power iteration, a lower bound). "
            "Below 1, a run leaves less of what the guess got wrong; shifting a plan can add to it, since its last "
            "step is repeated."
        )
    films = [(c, seed, pictures) for c in contestants for seed, pictures in c.films.items()]
    if films:
        report.heading("Films")
        for contestant, seed, pictures in films:
            name = "".join(letter if letter.isalnum() else "-" for letter in contestant.name)
            path = write_film(run.figures / f"{name}-{seed}.mp4", pictures, contestant.fps, overwrite=True)
            row = next(row for row in contestant.rows if row["seed"] == seed)
            report.figure(
                strip(pictures),
                f"{contestant.name}, seed {seed}: score {row['score']:.3f} in {row['steps']} steps "
                f"(figures/{path.name}).",
            )
    report.environment(run).write(run.report_path, overwrite=True)
