"""The report of an evaluation: real galaxies above generated ones, then every comparison with what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import write_png
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope_astro.evaluation.distances import FIGURES, OVERALL
from priorscope_astro.evaluation.shapes import colour_name
from priorscope_astro.evaluation_config import EvaluateConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from priorscope_astro.evaluation.findings import Findings

_REAL, _GENERATED = "#8a8f98", "#d1495b"
#: Width in pixels that contact sheets are enlarged to, by whole factors; classes that figures show; catalogue rows.
_WIDTH, _CLASSES, _ROWS = 1200, 6, 12
_NON_PHOTOMETRIC = (
    "Non-photometric: these are pictures of 8 bit, stretched for looking. What is measured in them can only be "
    "compared with what is measured in pictures of the same stretch; it is no flux, no colour and no shape of the "
    "sky's galaxies."
)


def write_report(run: RunFolder, config: EvaluateConfig, findings: Findings) -> None:
    """Write ``report.html`` and ``figures/``."""
    report = Report("Generated galaxies beside real ones", _subtitle(findings))
    add_findings(report, run, findings, config)
    report.environment(run).write(run.report_path)


def add_findings(report: Report, run: RunFolder, findings: Findings, config: EvaluateConfig) -> None:
    """Every section of an evaluation but the environment."""
    report.paragraph(summary(findings))
    if findings.mode == "display":
        report.paragraph(_NON_PHOTOMETRIC)
    _galleries(report, run, findings, config.gallery)
    _classified(report, run, findings, config)
    _distances(report, findings)
    _shapes(report, run, findings)
    _sky(report, run, findings)
    _copies(report, run, findings)
    _catalogue(report, findings)
    if findings.notes:
        report.heading("What could not be said").paragraph("\n\n".join(findings.notes))


def _subtitle(findings: Findings) -> str:
    return (
        f"{len(findings.generated)} generated galaxies ({', '.join(dict.fromkeys(findings.generated.labels))}) and "
        f"{len(findings.real)} real ones ({findings.against}), {findings.mode}, {findings.generated.side} pixels"
    )


def summary(findings: Findings) -> str:
    """The result in a few sentences."""
    words = []
    if findings.agreement_rows:
        row = findings.agreement_rows[0]
        real = row.get("agree, real")
        words.append(
            f"A classifier that never saw a generated galaxy finds what was asked for in {row['agree']:.0%} of the "
            f"{row['asked']} ones ({row['low']:.0%} to {row['high']:.0%})"
            + (f"; of real ones it finds {real:.0%}." if real is not None else ".")
        )
    found = {row["classifier"]: row for row in findings.rare_rows if "completeness" in row}
    if {"real", "real, balanced", "real + generated"} <= set(found):
        before, level, after = (found[name]["completeness"] for name in ("real", "real, balanced", "real + generated"))
        words.append(
            f"With generated galaxies in its training, the search for {findings.rare} finds {after:.0%} of them at "
            f"the wanted purity; without {before:.0%}, and {level:.0%} where every class is learnt equally often. "
            "That is one training each: chance is in it."
        )
    ratios = [row["ratio"] for row in findings.shape_rows if np.isfinite(row["ratio"])]
    if ratios:
        words.append(
            f"Shapes and colours are {np.median(ratios):.2g} times as far from real galaxies as real galaxies are "
            "from each other (median over classes and quantities; 1 would be perfect)."
        )
    if findings.copies is not None:
        copies = findings.copies
        words.append(
            "More generated galaxies come very near to training galaxies than held-out ones do: look at the pairs."
            if copies.copied
            else f"There is no sign of copies of training galaxies ({copies.copies:.0%} of the generated galaxies "
            f"are as near as the nearest {copies.quantile:.0%} of held-out ones)."
        )
    return " ".join(words) or "What was compared is below."


def contact_sheet(rows: Sequence[NDArray[np.uint8]], *, width: int = _WIDTH, gap: int = 2) -> NDArray[np.uint8]:
    """Rows of pictures (N, H, W, 3) as one picture, enlarged by a whole factor towards ``width``; rows may differ in N.

    A white line of ``gap`` pixels stands between pictures, a thicker one between rows.
    """
    columns = max(len(row) for row in rows)
    side = next(row.shape[1] for row in rows if len(row))
    factor = max(1, width // (columns * (side + gap)))
    big = side * factor
    sheet = np.full((len(rows) * (big + 3 * gap) - 3 * gap, columns * (big + gap) - gap, 3), 255, np.uint8)
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            top, left = line * (big + 3 * gap), column * (big + gap)
            sheet[top : top + big, left : left + big] = picture.repeat(factor, 0).repeat(factor, 1)
    return sheet


def _galleries(report: Report, run: RunFolder, findings: Findings, count: int) -> None:
    report.heading("Real above generated")
    real, generated = np.array(findings.real.labels), np.array(findings.generated.labels)
    for name in dict.fromkeys(findings.generated.labels):
        above, below = np.flatnonzero(real == name)[:count], np.flatnonzero(generated == name)[:count]
        sheet = contact_sheet([findings.real_pictures[above], findings.generated_pictures[below]])
        write_png(run.figures / f"gallery-{name or 'none'}.png", sheet)
        report.figure(
            sheet,
            f"{name}: above {len(above)} real galaxies ({findings.against}), below the first {len(below)} generated "
            "ones, in the order of the plan, nothing picked.",
        )


def _distances(report: Report, findings: Findings) -> None:
    if not findings.distance_rows:
        return
    report.heading("Distances").paragraph(
        f"Feature space: {findings.features}. Real and generated galaxies are as many, the same number of each class "
        f"in '{OVERALL}'. In brackets 95 % intervals from halves drawn without replacement. KID is 0 but for chance "
        "where the distributions are equal; 'KID real' is that of two halves of the real galaxies. FID falls with n "
        "even where nothing else changes: compare it only at equal n. Precision and density: how many generated "
        "galaxies lie among real ones; recall and coverage: how many real ones are reached."
    )
    columns = ["KID", "KID real", *(name for name in FIGURES if name != "KID")]
    report.table(
        [
            {"class": row["class"], "n": row["n"]}
            | {name: f"{row[name].estimate:.3g} [{row[name].low:.3g}, {row[name].high:.3g}]" for name in columns}
            for row in findings.distance_rows
        ]
    )


def _shapes(report: Report, run: RunFolder, findings: Findings) -> None:
    if findings.shapes is None:
        return
    report.heading("Shapes and colours")
    flags = [float((one.flag >= 2).mean()) for one in findings.shapes]
    bands = [row["band"] for row in findings.sky_rows]
    report.paragraph(
        "Concentration C, asymmetry A, smoothness S, Gini and M20, half-light radius r50 in pixels"
        + (", Sersic index n" if "Sersic n" in findings.shapes[0].values else "")
        + f". Colour: {colour_name(bands, findings.look)}. Distances are Wasserstein's, in units of the distance "
        "between two sets of as many real galaxies (ratio 1: as good as another sample of real ones). Left out as "
        "badly measured: "
        f"{flags[0]:.0%} of the real and {flags[1]:.0%} of the generated galaxies."
    )
    if findings.mode == "display":
        report.paragraph(_NON_PHOTOMETRIC)
    figure = distributions_figure(findings)
    figure.savefig(run.figures / "distributions.png", dpi=120)
    report.figure(figure, "Distributions, a class a row. Grey: real galaxies; red: generated ones.")
    report.table(findings.shape_rows, "low and high: 95 % of the draws of as many galaxies.")


def distributions_figure(findings: Findings) -> Figure:
    """Histograms of every quantity (columns) and class (rows, the first six)."""
    from matplotlib.figure import Figure

    assert findings.shapes is not None
    real, generated = findings.shapes
    names = list(dict.fromkeys(findings.generated.labels))[:_CLASSES]
    quantities = list(generated.values)
    figure = Figure(figsize=(1.75 * len(quantities), 1.5 * len(names) + 0.4), layout="constrained")
    truth, asked = np.array(findings.real.labels), np.array(findings.generated.labels)
    axes = figure.subplots(len(names), len(quantities), squeeze=False)
    for line, name in enumerate(names):
        for column, quantity in enumerate(quantities):
            axis = axes[line, column]
            one, two = real.values[quantity][truth == name], generated.values[quantity][asked == name]
            one, two = one[np.isfinite(one)], two[np.isfinite(two)]
            both = np.concatenate([one, two])
            axis.set_yticks([])
            axis.tick_params(labelsize=7)
            for side in ("top", "right", "left"):
                axis.spines[side].set_visible(False)
            if len(both):
                low, high = np.quantile(both, [0.01, 0.99])
                bins = int(np.clip(2 * len(both) ** 0.4, 5, 20))
                edges = np.linspace(low, high if high > low else low + 1, bins + 1)
                options: dict[str, Any] = {"bins": edges, "density": True}
                if len(one):
                    axis.hist(one.clip(edges[0], edges[-1]), color=_REAL, alpha=0.6, **options)
                if len(two):
                    axis.hist(two.clip(edges[0], edges[-1]), color=_GENERATED, histtype="step", lw=1.5, **options)
            if line == 0:
                axis.set_title(quantity, fontsize=9)
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
    return figure


def _sky(report: Report, run: RunFolder, findings: Findings) -> None:
    if findings.skies is None:
        return
    report.heading("The sky")
    real, generated = findings.skies
    report.paragraph(
        "Noise of a pixel, in the unit of the flux, and power by spatial frequency in corners of stamps without a "
        f"source ({real.corners} real, {generated.corners} generated). White noise has the same power everywhere; "
        "smooth, invented sky has too little at high frequencies."
    )
    report.table(findings.sky_rows)
    if not real.corners or not generated.corners:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(real.power), 2.4), layout="constrained")
    axes = figure.subplots(1, len(real.power), squeeze=False)[0]
    for axis, row, one, two in zip(axes, findings.sky_rows, real.power, generated.power, strict=True):
        axis.plot(real.frequency, one, "o-", color=_REAL, label="real")
        axis.plot(generated.frequency, two, "o-", color=_GENERATED, label="generated")
        axis.set_yscale("log")
        axis.set_title(f"band {row['band']}", fontsize=9)
        axis.set_xlabel("cycles a pixel", fontsize=8)
        axis.tick_params(labelsize=7, which="both")
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(run.figures / "sky.png", dpi=120)
    report.figure(figure, "Power of the sky, in the flux's unit squared.")


def _copies(report: Report, run: RunFolder, findings: Findings) -> None:
    if findings.copies is None:
        return
    copies = findings.copies
    report.heading("Copies of training galaxies?").paragraph(
        "Each generated galaxy against its nearest training galaxy, over all turns and mirrorings, and the same for "
        f"held-out real galaxies of the same classes. A model that does not copy has about {copies.quantile:.0%} of "
        f"its galaxies below the distance that {copies.quantile:.0%} of the held-out ones stay below. Here it is "
        f"{copies.copies:.1%} (95 %: {copies.interval[0]:.1%} to {copies.interval[1]:.1%})."
    )
    report.table(
        [
            {
                "galaxies": name,
                "number": len(nearest.distance),
                "nearest": float(nearest.distance.min()),
                "median": float(np.median(nearest.distance)),
                "most distant": float(nearest.distance.max()),
            }
            for name, nearest in (("generated", copies.generated), ("held out", copies.held_out))
        ],
        "Distances to the nearest training galaxy: 0 for a copy, about 1.4 for images with nothing in common.",
    )
    if findings.nearest is not None:
        picture = findings.nearest.repeat(2, 0).repeat(2, 1)
        write_png(run.figures / "nearest.png", picture)
        report.figure(picture, "The generated galaxies that come nearest (above), and the training galaxy (below).")


def _classified(report: Report, run: RunFolder, findings: Findings, config: EvaluateConfig) -> None:
    if findings.agreement_rows:
        report.heading("Is it what was asked for?").paragraph(
            f"The classifier '{findings.classifier}' was never trained on generated galaxies. 'agree' is the share in "
            "which it finds what was asked for, with a 95 % interval; 'agree, real' is how often it is right about "
            "real galaxies of the class: more cannot be hoped for."
        )
        report.table(findings.agreement_rows)
    if findings.rare_rows:
        prevalence = findings.prevalence
        report.heading(f"Searching for {findings.rare}").paragraph(
            f"Real test galaxies, weighted to natural prevalence ({0 if prevalence is None else prevalence:.2%} of "
            f"them are {findings.rare}). Completeness at a purity of {config.purity:.0%}: the threshold is set on "
            "validation galaxies; low and high are a 95 % interval over test galaxies, not over trainings. 'Purity' "
            "is what the test galaxies have at that threshold. 'Purity of the best K': among the K that a search of "
            "as many galaxies of nature would put first; 'right among the K surest': of the test galaxies as they "
            "are. 'real, balanced' learnt every class equally often: generated galaxies have to do better than that "
            "to be more than a change of frequency."
        )
        report.table(findings.rare_rows, best={"completeness": "greatest"})
        if findings.found is not None:
            pictures, captions = findings.found
            name = findings.rare_rows[-1]["classifier"]
            report.gallery(
                list(zip(pictures, captions, strict=True)),
                f"The test galaxies that '{name}' is surest of: their true class and its score.",
                width=90,
            )
    if findings.class_rows:
        report.heading("Completeness, purity and F1 of every class").paragraph(
            "Of the most probable class, on real test galaxies at natural prevalence."
        )
        names = list(findings.class_rows)
        rows = []
        for lines in zip(*findings.class_rows.values(), strict=True):
            row = {"class": lines[0]["class"], "galaxies": lines[0]["galaxies"]}
            for figure in ("completeness", "purity", "F1"):
                row |= {f"{figure}, {name}": line[figure] for name, line in zip(names, lines, strict=True)}
            rows.append(row)
        report.table(rows)


def _catalogue(report: Report, findings: Findings) -> None:
    table = findings.catalogue
    if table is None:
        return
    report.heading("Catalogue")
    wanted = (
        *("object_id", "class_name", "seed", "sampler", "steps", "guidance", "reference_id", "model_sha256"),
        *("morphology_flag", "centre_offset", "agreement", "nearest_training_distance", "accepted", "rejected_for"),
    )
    there = [name for name in wanted if name in table.colnames]
    rows = [{name: _cell(table[name][row]) for name in there} for row in range(min(_ROWS, len(table)))]
    empty = [name for name in there if all(row[name] is None for row in rows) and name != "rejected_for"]
    rows = [{name: value for name, value in row.items() if name not in empty} for row in rows]
    accepted = ""
    if "accepted" in table.colnames:
        accepted = f" {int(np.sum(table['accepted']))} of {len(table)} are accepted."
    report.paragraph(
        f"The first {len(rows)} of {len(table)} rows and some of the columns; the prompt, the vote fractions that "
        f"were asked for and the rest are in the file.{accepted}"
    )
    report.table(rows)


def _cell(value: Any) -> Any:
    """A value of a catalogue as the report's table takes it; what is missing or masked is None."""
    if np.ma.is_masked(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**6:
        return str(value)  # a seed is copied, not read
    if isinstance(value, str) and len(value) > 24:
        return value[:12] + "…"
    return None if value == "" or (isinstance(value, float) and np.isnan(value)) else value
