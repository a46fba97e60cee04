"""Reports and figures: self-contained, escaped, right numbers in the right cells, right colours."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from priorscope.errors import InputError
from priorscope.evaluation import (
    Panel,
    Report,
    RunFolder,
    colourise,
    error_map,
    figure_to_image,
    print_table,
    side_by_side,
)

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags close in order; collects elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def cells(html: str) -> list[list[tuple[str, str]]]:
    """(classes, text) of each body cell, row by row."""
    return [re.findall(r'<td(?: class="([^"]*)")?>(.*?)</td>', row) for row in re.findall(r"<tr>(.*?)</tr>", html)[0:]]


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_a_whole_report_is_well_formed_and_self_contained(tmp_path, picture):
    run = RunFolder.create(tmp_path / "run", {"seed": 5, "model": "<m>"})
    path = Image.fromarray(picture)
    path.save(tmp_path / "p.png")
    report = (
        Report("Title", "Subtitle")
        .paragraph("one\n\ntwo")
        .heading("A")
        .heading("sub", 3)
        .table([{"a": 1}], "caption")
        .heading("B")
        .figure(picture, "array")
        .figure(Image.fromarray(picture), "pil")
        .figure(tmp_path / "p.png", "path")
        .figure(side_by_side([Panel(picture, "x"), Panel(picture[..., 0] / 255.0, "y", label="m")]), "matplotlib")
        .gallery([(picture, "g1"), (picture[..., 0], "g2")], "all")
        .heading("C")
        .point_cloud(np.random.default_rng(0).normal(size=(100, 3)), np.zeros((100, 3), np.uint8), "cloud")
        .environment(run)
    )
    page = Page(report.write(run.report_path).read_text())
    assert len(page.all("img")) == 7
    for image in page.all("img"):
        assert image["src"].startswith("data:image/")
        assert image["alt"]
    assert {link["href"] for link in page.all("a")} <= {f"#{h['id']}" for h in page.all("h2")}
    assert not page.all("link")
    assert not any("src" in script for script in page.all("script"))
    assert "://" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", report.html())
    assert "<m>" in page.text  # the configuration, escaped
    assert "python" in page.text
    assert page.text.count("two") == 1


def test_text_is_escaped_everywhere(picture):
    bad = '<script>alert("x")</script>&"\''
    report = (
        Report(bad, bad)
        .heading(bad)
        .heading(bad)
        .heading(bad)
        .paragraph(bad)
        .table([{bad: bad}], bad)
        .figure(picture, bad)
        .gallery([(picture, bad)], bad)
        .point_cloud(np.eye(3), np.zeros((3, 3), np.uint8), bad)
    )
    html = report.html()
    assert "<script>alert" not in html
    # title twice, subtitle, three headings, their links, and once: paragraph, column, cell, and five captions
    assert Page(html).text.count(bad) == 3 + 3 + 3 + 3 + 5


def test_pictures_come_back(picture):
    html = Report("t").figure(picture).html()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', html)[1]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)
    large = np.zeros((400, 500, 3), np.uint8)
    large[:] = (200, 30, 40)
    html = Report("t").figure(large).html()
    data = base64.b64decode(re.search(r'src="data:image/jpeg;base64,([^"]+)"', html)[1])
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - (200, 30, 40)).max() <= 3


def test_numbers_and_the_best_of_a_column():
    rows = [
        {"model": "a", "error": 0.23456, "count": 654, "score": 1.5},
        {"model": "b", "error": 0.0912, "count": 1234567, "score": float("nan"), "ok": True},
        {"model": "c", "error": 0.0912, "count": -3, "score": None, "ok": False},
    ]
    html = Report("t").table(rows, best={"error": "least", "score": "greatest"}).html()
    body = cells(html)[1:]
    assert body[0] == [("", "a"), ("number", "0.2346"), ("number", "654"), ("number best", "1.500"), ("", "–")]
    assert body[1] == [
        ("", "b"), ("number best", "0.0912"), ("number", "1\u202f234\u202f567"), ("number", "NaN"), ("", "yes")
    ]  # fmt: skip
    assert body[2][1:] == [("number best", "0.0912"), ("number", "-3"), ("number", "–"), ("", "no")]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([12.3456, 0.5], ["12.35", "0.50"]),
        ([0.00012, 0.0], ["0.0001200", "0.0000000"]),
        ([1e-9, 1.0], ["1.000e−09", "1.000"]),
        ([1e9, -2.5], ["1.000e+09", "−2"]),
        ([-0.123456], ["−0.1235"]),
        ([1234.6, 0.01234], ["1235", "0.012"]),
        ([np.float32(0.5), float("inf")], ["0.5000", "∞"]),
    ],
)
def test_how_floats_are_written(values, shown):
    html = Report("t").table([{"x": value} for value in values]).html()
    assert [row[0][1] for row in cells(html)[1:]] == shown


def test_point_cloud_is_thinned_centred_and_in_the_page():
    points = np.random.default_rng(0).normal(size=(500, 3)) * 7 + (100, 0, -50)
    colours = np.random.default_rng(1).integers(0, 256, (500, 3), dtype=np.uint8)
    html = Report("t").point_cloud(points, colours, max_points=200).html()
    found = [base64.b64decode(data) for data in re.findall(r'<script type="text/plain" data-\w+>([^<]*)<', html)]
    shown, shades = np.frombuffer(found[0], "<f4").reshape(-1, 3), np.frombuffer(found[1], np.uint8).reshape(-1, 3)
    assert shown.shape == shades.shape == (200, 3)
    assert np.abs(np.median(shown, axis=0)).max() < 0.5
    assert 0.85 < np.quantile(np.abs(shown[:, 1]), 0.94) < 1.15
    pairs = {tuple(colour): point for colour, point in zip(colours, points, strict=True)}
    matched = np.array([pairs[tuple(shade)] for shade in shades])  # each point kept its colour
    assert np.corrcoef(matched[:, 0], shown[:, 0])[0, 1] > 0.999999
    assert html == Report("t").point_cloud(points, colours, max_points=200).html()


def test_a_report_is_not_overwritten_silently(tmp_path):
    path = Report("first").write(tmp_path / "r.html")
    with pytest.raises(InputError, match="exists already"):
        Report("second").write(path)
    assert "first" in path.read_text()
    Report("second").write(path, overwrite=True)
    assert "second" in path.read_text()


def test_wrong_inputs(tmp_path):
    report = Report("t")
    for call in (
        lambda: report.heading("x", 1),
        lambda: report.table([{"a": 1}], best={"a": "biggest"}),
        lambda: report.figure(np.zeros((3, 3, 3, 3), np.uint8)),
        lambda: report.figure(tmp_path / "none.png"),
        lambda: report.point_cloud(np.zeros((0, 3)), np.zeros((0, 3), np.uint8)),
        lambda: report.point_cloud(np.full((2, 3), np.nan), np.zeros((2, 3), np.uint8)),
        lambda: report.point_cloud(np.zeros((2, 3)), np.zeros((3, 3), np.uint8)),
        lambda: side_by_side([]),
        lambda: report.environment(RunFolder(tmp_path)),
    ):
        with pytest.raises(InputError):
            call()
    assert Page(report.table([]).html()).all("td") == []


def test_one_point_and_equal_points_are_shown():
    for points in (np.zeros((1, 3)), np.ones((5, 3))):
        html = Report("t").point_cloud(points, np.zeros(points.shape, np.uint8)).html()
        data = base64.b64decode(re.search(r"data-points>([^<]*)<", html)[1])
        assert np.isfinite(np.frombuffer(data, "<f4")).all()


def test_colourise_runs_from_lo_to_hi():
    values = np.array([[0.0, 5.0, 10.0, np.nan, np.inf, 3.0]])
    valid = np.array([[True, True, True, True, True, False]])
    colours = colourise(values, "gray", valid=valid, invalid_colour=(1, 2, 3))
    np.testing.assert_array_equal(colours[0, [0, 2, 3, 4, 5]], [[0] * 3, [255] * 3, [1, 2, 3], [1, 2, 3], [1, 2, 3]])
    assert abs(int(colours[0, 1, 0]) - 128) <= 1
    clipped = colourise(values, "gray", 4.0, 6.0)
    assert (clipped[0, 0, 0], clipped[0, 2, 0]) == (0, 255)
    red, violet = colourise(np.array([[0.0, 1.0]]))[0].astype(int)
    assert red[0] > red[2] + 50
    assert violet[2] > violet[0] + 50
    integers = colourise(np.array([[0, 255]], np.uint8), "gray")
    np.testing.assert_array_equal(integers[0, :, 0], [0, 255])


def test_colourise_of_constant_and_of_nothing():
    assert len(np.unique(colourise(np.full((3, 3), 7.0)))) <= 3
    assert (colourise(np.full((2, 2), np.nan), invalid_colour=(9, 9, 9)) == 9).all()


def test_colourise_refuses():
    for wrong in (np.zeros((2, 2, 3)), np.zeros((0, 2)), np.zeros((2, 2), complex)):
        with pytest.raises(InputError, match="can be coloured"):
            colourise(wrong)
    with pytest.raises(InputError, match="no colour map"):
        colourise(np.zeros((2, 2)), "sunset9")
    with pytest.raises(InputError, match="mask"):
        colourise(np.zeros((2, 2)), valid=np.ones((3, 3), bool))


def test_error_map():
    truth = np.array([[1.0, 2.0, np.inf]])
    colours = error_map(truth + [[0.0, -1.0, 0.0]], truth, cmap="gray", hi=2.0, valid=np.isfinite(truth))
    assert colours[0, 0, 0] == 0
    assert abs(int(colours[0, 1, 0]) - 128) <= 1
    with pytest.raises(InputError, match="truth"):
        error_map(np.zeros((2, 2)), np.zeros((2, 3)))


def test_side_by_side_draws_every_panel(picture):
    panels = [Panel(picture, "photo"), Panel(np.ones((30, 40)) * np.arange(40), "ramp", label="m")] * 3
    figure = side_by_side(panels, columns=4)
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["photo", "ramp"] * 3
    bars = [axes for axes in figure.axes if axes.get_xlabel() == "m"]
    assert len(bars) == 3
    assert bars[0].get_xlim() == (0, 39)
    image = figure_to_image(figure, dpi=50)
    assert image.shape[1] == 600
    assert image.std() > 10


def test_titles_stand_within_the_figure():
    """Colour bars below take as much room as the title above."""
    figure = side_by_side([Panel(np.eye(20), "above", label="below")] * 6, columns=3, width=11.0)
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(boxes) == 6
    assert all(box.y1 <= figure.bbox.y1 for box in boxes)


@pytest.mark.parametrize("columns", [2, 4])
def test_pictures_stand_as_high_as_the_maps_beside_them(columns):
    """A picture has no colour bar, and one map's bar no label; the room below is the same for all."""
    maps = [Panel(np.eye(20), "a", label="m"), Panel(np.eye(20), "b"), Panel(np.eye(20), "c", label="|p - g| / g")]
    figure = side_by_side([Panel(np.zeros((20, 20, 3), np.uint8), "photograph"), *maps], columns=columns)
    figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.get_title()]
    heights = [axes.get_window_extent().y0 for axes in shown]
    for row in range(0, 4, columns):
        assert np.ptp(heights[row : row + columns]) < 0.5
    assert all(axes.title.get_window_extent().y1 <= figure.bbox.y1 for axes in shown)
    drawn = figure_to_image(figure, dpi=100).astype(int)
    end = len(drawn) // (4 // columns)  # of the first row
    below = drawn[end - 40 : end - 14, : 2 * (drawn.shape[1] // columns)]
    picture, beside = np.array_split(below, 2, axis=1)
    assert picture.min() == 255  # nothing is seen of the picture's bar
    assert beside.min() < 255


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to run the viewer's script")
def test_the_viewer_draws_turns_and_zooms(tmp_path):
    """In a browser: the cloud is drawn, changes when dragged and zoomed, and comes back on a double click."""
    rng = np.random.default_rng(0)
    points, colours = rng.normal(size=(2000, 3)), rng.integers(1, 256, (2000, 3), dtype=np.uint8)
    probe = """<script>
    const frame = () => new Promise((done) => setTimeout(done, 20));
    const canvas = document.querySelector("canvas");
    canvas.setPointerCapture = () => {};
    const fire = (kind, type, more) => canvas.dispatchEvent(new kind(type, { cancelable: true, ...more }));
    const state = () => {
      const d = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      let drawn = 0, hash = 0;
      for (const p of d) { drawn += p !== 0; hash = (hash * 31 + p) | 0; }
      return [drawn, hash];
    };
    (async () => {
      // how soon the first drawing comes depends on the machine
      for (let wait = 0; wait < 200 && state()[0] === 0; wait++) await frame();
      const first = state();
      fire(PointerEvent, "pointerdown", { pointerId: 1, clientX: 10, clientY: 10 });
      fire(PointerEvent, "pointermove", { pointerId: 1, clientX: 90, clientY: 30 });
      fire(PointerEvent, "pointerup", { pointerId: 1 }); await frame(); const turned = state();
      fire(WheelEvent, "wheel", { deltaY: -300 }); await frame(); const ignored = state();
      fire(WheelEvent, "wheel", { deltaY: -300, ctrlKey: true }); await frame(); const zoomed = state();
      fire(MouseEvent, "dblclick", {}); await frame(); const reset = state();
      document.title = JSON.stringify([first, turned, ignored, zoomed, reset]);
    })();
    </script>"""
    # without a window no frame is ever due: draw at once
    timer = "<script>window.requestAnimationFrame = (draw) => setTimeout(draw, 0);</script>"
    html = Report("t").point_cloud(points, colours).html()
    html = html.replace("<body>", "<body>" + timer).replace("</body>", probe + "</body>")
    (tmp_path / "r.html").write_text(html)
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'r.html'}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    states = re.search(r"<title>(\[.*?\])</title>", done.stdout)
    assert states, done.stderr[-500:]
    first, turned, ignored, zoomed, reset = json.loads(states[1])
    assert first[0] > 2000
    assert turned[1] != first[1]
    assert ignored == turned  # a wheel over the picture scrolls the page, until it was clicked
    assert zoomed[1] != turned[1]
    assert reset == first


def test_a_table_on_the_terminal(capsys):
    print_table([{"name": "sea", "images": 12345, "IoU": 0.5}, {"name": "bare soil", "images": 7, "IoU": None}])
    assert capsys.readouterr().out.splitlines() == [
        "  name       images     IoU",
        "  sea         12345  0.5000",
        "  bare soil       7       -",
    ]
    print_table([{"metric": np.float32(1234.56), "source": "here"}], ".4g")
    assert capsys.readouterr().out.splitlines() == ["  metric  source", "    1235  here"]
    print_table([])
    assert capsys.readouterr().out == ""
