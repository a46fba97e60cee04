"""A report in one HTML file: readable anywhere, by someone who was not there, without a network."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope import __version__
from priorscope.data.files import write_text
from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder, read_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    Picture = NDArray[Any] | Image.Image | Figure | str | PathLike[str]

MAX_CLOUD_POINTS = 60_000
_VIEW_SHAPE = (1.67, 1.0, 1.0)
_JPEG_FROM_PIXELS = 65_536
"""Larger pictures are stored as JPEG: a report with forty photographs would else weigh 30 MB."""


class Report:
    """Build a report top to bottom, then :meth:`write` it. Every method gives the report back.

    All text is escaped; there is no way to pass HTML in. The file is self-contained: style, pictures and the
    point-cloud viewer are inside. It follows the reader's light or dark setting and the width of the window.

    Parameters
    ----------
    title : str
    subtitle : str
        One sentence: what was done, on what.

    Examples
    --------
    >>> report = Report("Depth on NYUv2", "654 images, aligned in depth")
    >>> _ = report.heading("Result").table([{"model": "a", "AbsRel": 0.054}], best={"AbsRel": "least"})
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []
        self._has_cloud = False

    def heading(self, text: str, level: int = 2) -> Report:
        """Start a section (level 2, listed at the top) or a sub-section (level 3)."""
        if level not in (2, 3):
            raise InputError(f"a heading has level 2 or 3, not {level}")
        name = f"s{len(self._parts)}"
        if level == 2:
            self._sections.append((name, text))
        return self._add(f'<h{level} id="{name}">{escape(text)}</h{level}>')

    def paragraph(self, text: str) -> Report:
        """Add text; an empty line starts a new paragraph."""
        parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
        return self._add("\n".join(f"<p>{escape(part)}</p>" for part in parts))

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        caption: str = "",
        *,
        best: Mapping[str, str] | None = None,
        digits: int = 4,
    ) -> Report:
        """Add a table; numbers are set flush right, columns appear in the order of first use.

        Parameters
        ----------
        rows : sequence of mappings
            Column -> str, number, bool or None. A missing value shows as a dash.
        caption : str
        best : mapping, optional
            Column -> "least" or "greatest": that value of the column is marked, ties with it.
        digits : int
            Significant digits of the largest float of a column; the others show as many decimals, so that the
            points line up, or more where else less than two digits were left.
        """
        columns = list(dict.fromkeys(name for row in rows for name in row))
        marked = {name: _best_value(rows, name, way) for name, way in (best or {}).items()}
        numeric = {name: all(_is_number(row.get(name)) or row.get(name) is None for row in rows) for name in columns}
        decimals = {name: _decimals([row.get(name) for row in rows], digits) for name in columns}
        kind = {name: ' class="number"' if numeric[name] else "" for name in columns}
        lines = ['<figure><div class="scroll"><table><thead><tr>']
        lines += [f'<th scope="col"{kind[name]}>{escape(str(name))}</th>' for name in columns]
        lines.append("</tr></thead><tbody>")
        for row in rows:
            lines.append("<tr>")
            for name in columns:
                value = row.get(name)
                classes = (["number"] if numeric[name] else []) + (
                    ["best"] if name in marked and _is_number(value) and value == marked[name] else []
                )
                attribute = f' class="{" ".join(classes)}"' if classes else ""
                lines.append(f"<td{attribute}>{escape(_cell(value, digits, decimals[name]))}</td>")
            lines.append("</tr>")
        lines.append(f"</tbody></table></div>{_caption(caption)}</figure>")
        return self._add("".join(lines))

    def figure(self, picture: Picture, caption: str = "", *, alt: str = "") -> Report:
        """Add a picture at the full width of the text.

        Parameters
        ----------
        picture : uint8 array [H, W] or [H, W, 3], PIL image, matplotlib figure, or path of a picture
        caption : str
            Shown below.
        alt : str
            What a reader who cannot see it should know; default the caption.
        """
        return self._add(f'<figure class="wide">{_img(picture, alt or caption)}{_caption(caption)}</figure>')

    def gallery(self, pictures: Sequence[tuple[Picture, str]], caption: str = "", *, width: int = 220) -> Report:
        """Add a grid of (picture, caption) pairs, each about `width` CSS pixels wide."""
        cells = "".join(f"<figure>{_img(picture, text)}{_caption(text)}</figure>" for picture, text in pictures)
        grid = f'<div class="gallery" style="--cell: {int(width)}px">{cells}</div>'
        return self._add(f"<figure>{grid}{_caption(caption)}</figure>")

    def point_cloud(
        self,
        points: NDArray[Any],
        colours: NDArray[np.uint8],
        caption: str = "",
        *,
        max_points: int = MAX_CLOUD_POINTS,
    ) -> Report:
        """Add points that the reader can turn with the mouse; a still picture where scripts do not run.

        Parameters
        ----------
        points : ndarray, [N, 3]
            x right, y up, z towards the viewer. They are centred and scaled for display.
        colours : ndarray of uint8, [N, 3]
        caption : str
        max_points : int
            More are thinned at random (the same ones each time). 20 bytes of HTML a point.
        """
        points, colours = np.asarray(points, np.float64), np.asarray(colours)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
            raise InputError(f"a point cloud is a finite array [N, 3], N > 0; this has shape {list(points.shape)}")
        if colours.shape != points.shape or colours.dtype != np.uint8:
            raise InputError(f"colours are uint8 {list(points.shape)}, not {colours.dtype} {list(colours.shape)}")
        if len(points) > max_points:
            chosen = np.random.default_rng(0).choice(len(points), max_points, replace=False)
            points, colours = points[chosen], colours[chosen]
        low, high = np.quantile(points, [0.03, 0.97], axis=0)  # the farthest few may fall out of the picture
        reach = ((high - low) / 2 / _VIEW_SHAPE).max() or 1.0
        points = ((points - (low + high) / 2) / reach).astype("<f4")
        self._has_cloud = True
        return self._add(
            '<figure><div class="cloud">'
            f"{_img(_still_view(points, colours), caption or 'point cloud')}"
            '<canvas tabindex="0"></canvas>'
            '<span class="hint">drag to turn, click and wheel to zoom, double click to reset</span>'
            f'<script type="text/plain" data-points>{_base64(points.tobytes())}</script>'
            f'<script type="text/plain" data-colours>{_base64(np.ascontiguousarray(colours).tobytes())}</script>'
            f"</div>{_caption(caption)}</figure>"
        )

    def environment(self, run: RunFolder) -> Report:
        """Add, folded in, the configuration and the environment of a run."""
        noted = run.environment()
        rows = [
            {"what": name, "value": _flat(noted[name])}
            for name in ("started", "command", "python", "platform", "processor", "gpus", "processes", "seed", "git")
            if noted.get(name) not in (None, [], "")
        ]
        rows += [{"what": name, "value": version} for name, version in noted.get("versions", {}).items() if version]
        config = [{"key": key, "value": _flat(value)} for key, value in read_yaml(run.config_path).items()]
        self.heading("How it was made")
        for title, content in (("Configuration", config), ("Environment", rows)):
            if content:
                self._add(f"<details><summary>{title}</summary>").table(content)._add("</details>")
        return self

    def html(self) -> str:
        """The whole document."""
        resources = files("priorscope.evaluation")
        script = resources.joinpath("point_cloud.js").read_text(encoding="utf-8") if self._has_cloud else ""
        links = "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in self._sections)
        made = f"Made with priorscope {__version__} on {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>\n{resources.joinpath('report.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{escape(self.title)}</h1>"
            + (f"<p>{escape(self.subtitle)}</p>" if self.subtitle else "")
            + (f"<nav>{links}</nav>" if len(self._sections) > 2 else "")
            + "</header>\n"
            + "\n".join(self._parts)
            + f"\n<footer>{escape(made)}</footer>\n</main>\n"
            + (f"<script>\n{script}</script>\n" if script else "")
            + "</body>\n</html>\n"
        )

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the report, atomically.

        Raises
        ------
        InputError
            If the file exists and ``overwrite`` is false.
        """
        return write_text(path, self.html(), overwrite=overwrite)

    def _add(self, html: str) -> Report:
        self._parts.append(html)
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def _best_value(rows: Sequence[Mapping[str, Any]], name: str, way: str) -> Any:
    if way not in ("least", "greatest"):
        raise InputError(f"best is {way!r} for column {name!r}", remedy="Say least or greatest.")
    choose: Callable[..., Any] = min if way == "least" else max
    values = [row[name] for row in rows if _is_number(row.get(name)) and math.isfinite(row[name])]
    return choose(values, default=None)


def _exponent(number: float) -> int:
    return math.floor(math.log10(abs(number))) if number else 0


def _decimals(values: Sequence[Any], digits: int) -> int:
    floats = [float(value) for value in values if isinstance(value, float | np.floating) and math.isfinite(value)]
    return max(0, digits - 1 - _exponent(max(map(abs, floats), default=0.0)))


def _cell(value: Any, digits: int, decimals: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u202f") if abs(int(value)) >= 10_000 else str(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            return {math.inf: "∞", -math.inf: "−∞"}.get(number, "NaN")
        exponent = _exponent(number)
        if exponent < -5 or exponent > 6:
            return f"{number:.{digits - 1}e}".replace("-", "−")
        return f"{number:.{max(decimals, 1 - exponent) if exponent < 0 else decimals}f}".replace("-", "−")
    return str(value)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_flat(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_flat(item) for item in value)
    return str(value)


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _img(picture: Picture, alt: str) -> str:
    from PIL import Image

    if hasattr(picture, "savefig"):
        buffer = io.BytesIO()
        picture.savefig(buffer, format="png", dpi=150, facecolor="white")
        with Image.open(buffer) as drawn:
            size = drawn.size
        return _img_tag(buffer.getvalue(), "png", size, alt, "paper")
    pixels = read_image(picture)
    height, width = pixels.shape[:2]
    buffer = io.BytesIO()
    large = height * width > _JPEG_FROM_PIXELS
    Image.fromarray(pixels).save(buffer, format="JPEG" if large else "PNG", quality=92, subsampling=0)
    kind = "pixels" if max(height, width) <= 64 else ""  # tiny maps: show their pixels, not a blur
    return _img_tag(buffer.getvalue(), "jpeg" if large else "png", (width, height), alt, kind)


def _img_tag(data: bytes, kind: str, size: tuple[int, int], alt: str, style: str) -> str:
    attribute = f' class="{style}"' if style else ""
    return (
        f'<img{attribute} src="data:image/{kind};base64,{_base64(data)}" width="{size[0]}" height="{size[1]}" '
        f'alt="{escape(alt)}" loading="lazy">'
    )


def _still_view(points: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the viewer shows at first, 900 x 540, on white: the same projection as point_cloud.js."""
    height, width, turn, tilt = 540, 900, 0.22, 0.12
    x = math.cos(turn) * points[:, 0] + math.sin(turn) * points[:, 2]
    back = -math.sin(turn) * points[:, 0] + math.cos(turn) * points[:, 2]
    y = math.cos(tilt) * points[:, 1] - math.sin(tilt) * back
    z = 4 - (math.sin(tilt) * points[:, 1] + math.cos(tilt) * back)
    picture = np.full((height, width, 3), 255, np.uint8)
    order = np.argsort(-z)  # far ones first: near ones are painted over them
    order = order[z[order] > 0.1]
    columns = np.rint(width / 2 + height * 1.7 * x[order] / z[order]).astype(int)
    rows = np.rint(height / 2 - height * 1.7 * y[order] / z[order]).astype(int)
    dot = min(4, max(1, round(math.sqrt(0.5 * height * width / len(points)))))
    for down in range(dot):
        for right in range(dot):
            inside = (rows + down >= 0) & (rows + down < height) & (columns + right >= 0) & (columns + right < width)
            picture[rows[inside] + down, columns[inside] + right] = colours[order][inside]
    return picture
