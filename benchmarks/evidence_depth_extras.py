"""Two more predictors, trained small: crisp edges in five steps, and a depth sensor learned from its scans.

    OMP_NUM_THREADS=1 python benchmarks/evidence_depth_extras.py [--only edges|sensor] [--max-seconds 1200] [--table]

Edges (DiffusionEdge): an autoencoder of edge maps, then two ways to use the same U-Net in its latents, with the same
images, crops, optimiser and steps: ``diffusion`` (the decoupled process, five steps and a short one) and ``regression``
(one call on zeros, squared plus absolute error of the latent). After its first figures the diffusion was also asked for
one step and for the mean of eight results (``diffusion-1-step``, ...), and both were trained four times as long
(``-longer``). Beside them ``sobel`` and ``canny`` of scikit-image on the grey image; the blur of each is chosen on
validation scenes (canny's is 0.5 at least, whatever its row says), and ODS takes the best of 19 thresholds of the test
scenes for every method alike. ``autoencoder`` is the truth through the autoencoder: what a method reaches that gets
every latent right. ODS and OIS are after non-maximum suppression and thinning ("standard"), and of the maps as they are
("crisp").

Sensor (Stable-Sim2Real, stage one): drawn rooms and clutter through our structured-light model are the "real" scans.
``sampled`` (50 steps of DDIM), ``one-step`` (energy score) and ``one-step-mean`` (Lotus' one-step loss) are trained on
scans of other scenes. Beside them ``none`` (exact depth), ``gaussian`` (one sigma, fitted to the training scans) and
``gaussian-z2`` (sigma growing with the square of depth, fitted likewise). ``again`` is the sensor itself with other
noise: what a perfect simulator reaches. Judged by the Wasserstein distance between distributions of errors; what errors
of pixels side by side differ by is judged since the first figures, in which ``gaussian-z2``, whose law is the sensor's
own, was the best without being like it. The method was mended twice after looking at these test scenes (residuals over
their deviation; pure noise at the end, and v), so that 60 scenes that nobody had looked at are judged as well.

One seed, fixed here before the first run. Every result is a row of evidence_depth_extras.jsonl; the same command goes
on with what is missing, a training from its last checkpoint, and ends after --max-seconds. --table prints the rows as
markdown and draws figures/evidence_depth_edges.png and figures/evidence_depth_sensor.png. ``train_cpu_seconds`` of
``diffusion`` are with its autoencoder's training, which all others in its latents share and do not count.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from evidence_depth_extras_figures import draw_edges, draw_scans
from evidence_rows import EvidenceRows
from numpy.typing import NDArray

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.noise import Noise
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER, LoopConfig
from priorscope_depth.edges.configs import TrainEdgesConfig
from priorscope_depth.edges.data import EdgeFeed, EdgePair, drawn_pairs
from priorscope_depth.edges.metrics import edge_scores
from priorscope_depth.edges.predictor import EdgePredictor
from priorscope_depth.edges.task import EdgeTask, rebuilt_edges
from priorscope_depth.edges.train import train_edges
from priorscope_depth.scenes import HELD_OUT_SEED
from priorscope_depth.sensor.configs import TrainSensorConfig
from priorscope_depth.sensor.data import drawn_scans
from priorscope_depth.sensor.judge import compare_scans, fitted_sigma, gaussian_scans
from priorscope_depth.sensor.simulator import SensorSimulator
from priorscope_depth.sensor.structured_light import StructuredLight
from priorscope_depth.sensor.train import train_sensor

HERE = Path(__file__).parent
ROWS = HERE / "evidence_depth_extras.jsonl"

SEED = 0
SCENES, VALIDATION, TEST = 400, 30, 60
FIRST_VALIDATION, FIRST_TEST = HELD_OUT_SEED + 40_000, HELD_OUT_SEED + 41_000
AUTOENCODER_STEPS, SENSOR_STEPS = 600, 1500
#: Scenes that showed what was to be mended in the method, and others, drawn after that.
SENSOR_TESTS = {"sensor": FIRST_TEST, "sensor-new": FIRST_TEST + 1000}
#: Thresholds of edge maps, and of those whose best one is the least of them.
THRESHOLDS, FINE = 19, 99
#: Steps of diffusion and regression alike, by what their names end in.
TRAININGS = {"": 1200, "-longer": 4800}
BLURS = (0.0, 1.0, 1.5, 2.0, 3.0)
#: Ways to ask the trained diffusion, the published one first: steps, and how many results are averaged.
WAYS = {
    "diffusion": (5, 1),
    "diffusion-1-step": (1, 1),
    "diffusion-mean-of-8": (5, 8),
    "diffusion-1-step-mean-of-8": (1, 8),
}
LEARNT = ("sampled", "one-step", "one-step-mean")
LOOP = LoopConfig(batch_size=16, lr=1.5e-3, log_every=100, validate_every=10_000, checkpoint_every=50, seed=SEED)


class RegressionTask(EdgeTask):
    """The latent in one call on zeros, with the U-Net's first output; the second is not used."""

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            x0 = self.predictor.latents.encode(batch["edges"])
        error = regress(self.predictor, batch["image"]) - x0
        return {"loss": (error.square() + error.abs()).mean() / 2}


class RegressionPredictor(EdgePredictor):
    """Edges by :func:`regress`; times and noise do not matter."""

    def generate(self, image: torch.Tensor, times: Sequence[float], noise: Noise) -> torch.Tensor:
        return self.latents.decode(regress(self, image)).float() / 2 + 0.5


def regress(predictor: EdgePredictor, image: torch.Tensor) -> torch.Tensor:
    space = predictor.latents
    size = image.shape[-2] // space.factor, image.shape[-1] // space.factor
    start = torch.zeros(image.shape[0], space.channels, *size)
    return -predictor.denoiser.raw(start, 1.0, Condition({"image": image}))[0]


class Evidence:
    """All pieces of one call, in order, until its time is used up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self.rows = EvidenceRows(options.rows, options.max_seconds)

    def loop(self, steps: int) -> LoopConfig:
        seconds = max(self.rows.seconds_left(), 1.0)
        return replace(LOOP, steps=steps, resume=True, max_seconds=seconds, device="cpu")

    def train(self, run: Callable[[], FitResult], path: Path) -> float:
        """Processor seconds of all calls that a training took; the program ends where it is not finished."""
        begin = time.process_time()
        result = run()
        spent = path / "cpu_seconds"
        seconds = time.process_time() - begin + (float(spent.read_text()) if spent.exists() else 0.0)
        spent.write_text(f"{seconds}\n")
        if not result.finished:
            raise SystemExit("the time is used up; the same command goes on")
        return round(seconds, 1)

    # edges

    def edges(self) -> None:
        data = self.out / "edge-scenes"
        pairs = [drawn_pairs(data, range(first, first + count)) for first, count in _SETS]
        train, validation, test = pairs
        for name, method in (("sobel", sobel), ("canny", canny)):
            if self.rows.lacks(part="edges", method=name):
                self.rows.seconds_left()
                blur = max(BLURS, key=lambda blur, m=method: score([m(p, blur) for p in validation], validation)["ods"])
                self.write_edges(name, [method(pair, blur) for pair in test], test, blur=blur)
        for longer, steps in TRAININGS.items():
            self.diffusion(data, longer, steps, test)
            if self.rows.lacks(part="edges", method=f"regression{longer}"):
                # its U-Net is as it was made, and as the diffusion's began
                start = EdgePredictor.from_pretrained(self.out / "edges/autoencoder/model", device="cpu")
                feed = EdgeFeed(train, crop=96, batch_size=LOOP.batch_size, seed=SEED)
                task, out = RegressionTask(start), self.out / f"edge-regression{longer}"
                run = functools.partial(self.fit_regression, task, feed, out, steps)
                seconds = self.train(run, out)
                trained = RegressionPredictor.from_pretrained(out / "model", device="cpu")
                self.generate(f"regression{longer}", trained, test, train_cpu_seconds=seconds)

    def diffusion(self, data: Path, longer: str, steps: int, test: Sequence[EdgePair]) -> None:
        """Train with the first training's autoencoder, and ask in all ways."""
        names = {way: way.replace("diffusion", f"diffusion{longer}", 1) for way in WAYS}
        if not any(self.rows.lacks(part="edges", method=name) for name in names.values()):
            return
        out = self.out / f"edges{longer}"
        if not (out / "autoencoder").exists() and longer:
            shutil.copytree(self.out / "edges/autoencoder", out / "autoencoder")
        config = TrainEdgesConfig(
            out=out,
            data=data,
            scenes=SCENES,
            held_out=8,
            autoencoder_steps=AUTOENCODER_STEPS,
            loop=self.loop(steps),
        )
        seconds = self.train(lambda: train_edges(config), out)
        predictor = EdgePredictor.from_pretrained(out / "diffusion/model", device="cpu")
        if self.rows.lacks(part="edges", method="autoencoder"):
            self.write_edges("autoencoder", [rebuilt_edges(predictor, pair) for pair in test], test)
        for way, (calls, ensemble) in WAYS.items():
            if self.rows.lacks(part="edges", method=names[way]):
                self.rows.seconds_left()
                more = {"train_cpu_seconds": seconds} if way == "diffusion" else {}
                self.generate(names[way], predictor, test, calls, ensemble, **more)

    def fit_regression(self, task: RegressionTask, feed: EdgeFeed, out: Path, steps: int) -> FitResult:
        config = self.loop(steps)
        run = RunFolder.create(out, config, resume=True, may_differ=MAY_DIFFER)
        return fit(task, feed, config, run, make_accelerator(config))

    def generate(
        self,
        name: str,
        predictor: EdgePredictor,
        test: Sequence[EdgePair],
        steps: int = 5,
        ensemble: int = 1,
        **more: Any,
    ) -> None:
        begin = time.process_time()
        given: dict[str, Any] = {"items": [pair.key for pair in test], "steps": steps, "ensemble": ensemble}
        results = predictor([pair.rgb for pair in test], seed=SEED, **given)
        each = (time.process_time() - begin) / len(test)
        maps = [result.values for result in results]
        np.savez_compressed(self.out / f"edges-{name}.npz", *[maps[index] for index in range(3)])
        self.write_edges(name, maps, test, cpu_ms_an_image=round(1000 * each), **more)

    def write_edges(self, name: str, maps: Sequence[NDArray[Any]], test: Sequence[EdgePair], **more: Any) -> None:
        standard, crisp = score(maps, test), score(maps, test, processing="none")
        row = {"part": "edges", "method": name, "scenes": len(test), **standard}
        if standard["threshold"] * (THRESHOLDS + 1) < 1.5:
            row["fine_ods"] = score(maps, test, thresholds=FINE)["ods"]
        self.rows.write(row | {"crisp_ods": crisp["ods"], "crisp_ois": crisp["ois"], **more})

    # sensor

    def sensor(self) -> None:
        for part, first in SENSOR_TESTS.items():
            self.scans(part, range(first, first + TEST))

    def scans(self, part: str, seeds: range) -> None:
        data, sensor = self.out / "sensor-scenes", StructuredLight()
        train = drawn_scans(data, range(SCENES), sensor)
        test, other = (drawn_scans(data, seeds, sensor, scan=number) for number in range(2))
        exact, scans = [pair.clean for pair in test], [pair.scan for pair in test]
        learnt, learnt_from = [pair.scan for pair in train], [pair.clean for pair in train]
        rows: dict[str, Callable[[], tuple[list[NDArray[Any]], dict[str, Any]]]] = {
            "none": lambda: (exact, {}),
            "again": lambda: ([pair.scan for pair in other], {}),
        }
        for name, power in (("gaussian", 0.0), ("gaussian-z2", 2.0)):

            def noisy(power: float = power) -> tuple[list[NDArray[Any]], dict[str, Any]]:
                sigma = fitted_sigma(learnt, learnt_from, power=power)
                return list(gaussian_scans(exact, sigma, SEED, power=power)), {"sigma": round(sigma, 5)}

            rows[name] = noisy
        for method in LEARNT:
            rows[method] = lambda method=method: self.simulate(method, exact)  # type: ignore[misc]
        for name, make in rows.items():
            if self.rows.lacks(part=part, method=name):
                self.rows.seconds_left()
                found, more = make()
                comparison = compare_scans(found, scans, exact)
                figures = {key: round(value, 4) for key, value in asdict(comparison).items()}
                self.rows.write({"part": part, "method": name, "scenes": len(test), **figures, **more})

    def simulate(self, method: Any, exact: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], dict[str, Any]]:
        out = self.out / f"sensor-{method}"
        config = TrainSensorConfig(
            out=out,
            method=method,
            data=self.out / "sensor-scenes",
            scenes=SCENES,
            held_out=8,
            loop=self.loop(SENSOR_STEPS),
        )
        seconds = self.train(lambda: train_sensor(config), out)
        simulator = SensorSimulator.from_pretrained(out / "model", device="cpu")
        begin = time.process_time()
        found = simulator(exact, seed=SEED)
        each = (time.process_time() - begin) / len(exact)
        return list(found), {"train_cpu_seconds": seconds, "cpu_ms_an_image": round(1000 * each)}


_SETS = ((0, SCENES), (FIRST_VALIDATION, VALIDATION), (FIRST_TEST, TEST))


def score(maps: Sequence[NDArray[Any]], pairs: Sequence[EdgePair], **options: Any) -> dict[str, float]:
    scores = edge_scores(maps, [pair.edges for pair in pairs], **{"thresholds": THRESHOLDS} | options)
    return {name: round(value, 4) for name, value in asdict(scores).items()}


def grey(pair: EdgePair, blur: float) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter
    from skimage.color import rgb2gray

    image = rgb2gray(pair.rgb)
    return gaussian_filter(image, blur) if blur else image


def sobel(pair: EdgePair, blur: float) -> NDArray[np.float64]:
    """Its strength, over its 99.5 % quantile."""
    from skimage.filters import sobel as filtered

    values = filtered(grey(pair, blur))
    return np.clip(values / max(float(np.quantile(values, 0.995)), 1e-6), 0, 1)


def canny(pair: EdgePair, blur: float) -> NDArray[np.float64]:
    """For each pixel the highest of 19 thresholds that it survives; the lower one of each is 0.4 times the upper."""
    from skimage.feature import canny as filtered

    image = grey(pair, 0.0)
    values = np.zeros(image.shape)
    for index, upper in enumerate(np.geomspace(0.01, 0.6, 19), start=1):
        found = filtered(image, sigma=max(blur, 0.5), low_threshold=0.4 * upper, high_threshold=upper)
        values[found] = index / 20
    return values


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    columns = {
        "edges": ("ods", "fine_ods", "ois", "ac", "crisp_ods", "crisp_ois", "train_cpu_seconds", "cpu_ms_an_image"),
        **dict.fromkeys(
            SENSOR_TESTS,
            (
                "wasserstein_mm",
                "by_range_mm",
                "neighbours_mm",
                "hole_rate",
                "sensor_hole_rate",
                "hole_overlap",
                "train_cpu_seconds",
                "cpu_ms_an_image",
            ),
        ),
    }
    for part, names in columns.items():
        print(f"\n| {part} | {' | '.join(name.replace('_', ' ') for name in names)} |")
        print("| --- " * (len(names) + 1) + "|")
        for row in rows:
            if row["part"] == part:
                print(f"| {row['method']} | {' | '.join(str(row.get(name, '')) for name in names)} |")


def draw(out: Path, figures: Path, rows: Sequence[dict[str, Any]]) -> None:
    """What of the two figures OUT and the rows have the results for."""
    figures.mkdir(parents=True, exist_ok=True)
    fitted = {row["method"]: row for row in rows}
    maps = {
        name: out / f"edges-{name}.npz"
        for name in ("regression-longer", "diffusion-longer-mean-of-8", "diffusion-longer")
    }
    if "sobel" in fitted and all(path.exists() for path in maps.values()):
        pairs = drawn_pairs(out / "edge-scenes", range(FIRST_TEST, FIRST_TEST + 3))
        found = {"sobel": [sobel(pair, fitted["sobel"]["blur"]) for pair in pairs]}
        for name, path in maps.items():
            with np.load(path) as file:
                found[name] = [file[f"arr_{index}"] for index in range(len(pairs))]
        draw_edges(pairs, found, figures / "evidence_depth_edges.png")
    models = {name: out / f"sensor-{name}/model" for name in LEARNT}
    if "gaussian-z2" in fitted and all(path.exists() for path in models.values()):
        sensor, seeds = StructuredLight(), range(FIRST_TEST, FIRST_TEST + 2)
        pairs, other = (drawn_scans(out / "sensor-scenes", seeds, sensor, scan=number) for number in range(2))
        exact = [pair.clean for pair in pairs]
        scans = {"the sensor": [pair.scan for pair in pairs], "the sensor again": [pair.scan for pair in other]}
        for name, path in models.items():
            scans[name] = list(SensorSimulator.from_pretrained(path, device="cpu")(exact, seed=SEED))
        scans["gaussian-z2"] = list(gaussian_scans(exact, fitted["gaussian-z2"]["sigma"], SEED, power=2.0))
        draw_scans(exact, scans, figures / "evidence_depth_sensor.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-depth-extras"), help="scenes and trainings")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--figures", type=Path, default=HERE / "figures", help="folder")
    parser.add_argument("--only", choices=("edges", "sensor"))
    parser.add_argument("--max-seconds", type=float, default=1e9)
    parser.add_argument("--table", action="store_true", help="print what is there, and draw the figure")
    options = parser.parse_args()
    evidence = Evidence(options)
    if not options.table:
        torch.set_num_threads(1)
        for part in ("edges", "sensor"):
            if options.only in (None, part):
                getattr(evidence, part)()
    print_table(evidence.rows.rows)
    draw(options.out, options.figures, evidence.rows.rows)


if __name__ == "__main__":
    main()
