"""The learned sensor: its targets there and back, its losses, its judge, and its commands."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.cli import main
from priorscope.data.arrays import write_npy
from priorscope.data.images import write_png
from priorscope.diffusion import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope_depth.sensor.codec import LogDepth
from priorscope_depth.sensor.data import SensorFeed, SensorPair, drawn_scans, folder_scans
from priorscope_depth.sensor.judge import compare_scans, fitted_sigma, gaussian_scans
from priorscope_depth.sensor.simulator import SensorSimulator
from priorscope_depth.sensor.spread import Spread, fitted_spread
from priorscope_depth.sensor.structured_light import StructuredLight
from priorscope_depth.sensor.task import SensorTask, counting, energy_loss


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return drawn_scans(tmp_path_factory.mktemp("drawn"), range(3), StructuredLight(), height=64, width=96)


@pytest.fixture(scope="module")
def batch(pairs):
    return SensorFeed(pairs, crop=32, batch_size=4, seed=0).batch(0, range(4))


def test_targets_there_and_back(pairs):
    """A scan becomes residual and holes, and these the scan; what is too far to be valid is not measured."""
    simulator = SensorSimulator.new("sampled", fitted_spread(pairs, LogDepth()))
    clean, scan = (torch.from_numpy(values)[None, None].double() for values in (pairs[0].clean, pairs[0].scan))
    target = simulator.target(scan, clean)
    assert target.shape == (1, 32, 16, 24)
    expected = torch.where(simulator.codec.is_valid(clean), scan, 0.0)
    torch.testing.assert_close(simulator.scan_of(target, clean), expected, rtol=1e-9, atol=0)
    measured = simulator.codec.is_valid(scan) & simulator.codec.is_valid(clean)
    # of the order of one: what the network sees is neither tiny nor huge
    residual = torch.nn.functional.pixel_shuffle(target, 4)[:, :1][measured]
    assert 0.2 < residual.std() < 5


def test_what_counts(pairs):
    simulator = SensorSimulator.new("sampled", Spread(0.01))
    clean = torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 6.0]]).repeat(2, 1)[None, None]
    scan = torch.tensor([[1.1, 0.0, 1.6, 1.0], [2.4, 2.6, 0.0, 4.0]]).repeat(2, 1)[None, None]
    residual, hole = torch.nn.functional.pixel_shuffle(counting(simulator, scan, clean).float(), 4)[0, :, :2]
    assert residual.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert hole.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]


def test_outliers_set_no_scale_and_are_not_shown():
    """What does not count in the loss is neither part of the deviation nor of what the network is given."""
    clean = np.full((16, 16), 2.0, np.float32)
    scan = clean * np.where(np.arange(256).reshape(16, 16) % 2, 1.01, 0.99).astype(np.float32)
    codec = LogDepth()
    plain = fitted_spread([SensorPair(clean, scan, "a")], codec)
    scan[0], clean[1] = 3.5, 0  # another surface; a wall that only the scan has
    again = fitted_spread([SensorPair(clean, scan, "a")], codec)
    assert (again.at_metre, again.power) == (pytest.approx(plain.at_metre, rel=1e-3), 0)
    simulator = SensorSimulator.new("sampled", plain)
    target = simulator.target(*(torch.from_numpy(values)[None, None] for values in (scan, clean)))
    residual, measured = torch.nn.functional.pixel_shuffle(target, 4)[0]
    assert residual.abs().max() < 1.1
    assert not residual[:2].any()
    assert (measured == 1).all()


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 2.0])
def test_the_spread_of_a_known_law_is_found(power):
    """Gaussian residuals whose deviation is a power of depth; the network sees unit noise at all depths."""
    draw, codec = np.random.default_rng(3), LogDepth()
    clean = draw.uniform(0.4, 4.0, (256, 256)).astype(np.float32)
    residual = 0.0005 * clean**power * draw.standard_normal(clean.shape)
    scan = codec.apply(residual, clean).astype(np.float32)
    spread = fitted_spread([SensorPair(clean, scan, "a")], codec)
    assert (spread.at_metre, spread.power) == (pytest.approx(0.0005, rel=0.03), pytest.approx(power, abs=0.03))
    simulator = SensorSimulator.new("sampled", spread)
    target = simulator.target(*(torch.from_numpy(values)[None, None] for values in (scan, clean)))
    seen = torch.nn.functional.pixel_shuffle(target, 4)[0, 0].numpy()
    for low, high in ((0.4, 1.0), (1.0, 2.0), (2.0, 4.0)):
        assert seen[(clean >= low) & (clean < high)].std() == pytest.approx(1, abs=0.05)


def test_light_errs_with_the_square_of_depth(pairs):
    """In logarithmic depth with its first power."""
    assert fitted_spread(pairs, LogDepth()).power == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", ["sampled", "one-step"])
def test_a_network_that_knows_gives_the_scan(pairs, method):
    simulator = SensorSimulator.new(method, Spread(0.01))
    clean, scan = (torch.from_numpy(values)[None, None] for values in (pairs[1].clean, pairs[1].scan))
    target = simulator.target(scan, clean)

    def knows(x, label, clean):
        if method != "sampled":
            return target
        alpha, sigma = simulator.denoiser.schedule.coefficients(label, x)
        return (alpha * x - target) / sigma  # v

    simulator.denoiser.network = knows
    if method == "sampled":
        levels = {"level": torch.tensor([700.0]), "seed": torch.tensor([5])}
        assert SensorTask(simulator)({"clean": clean, "scan": scan, **levels})["loss"] < 1e-10
    found = simulator(pairs[1].clean, steps=7)[0]
    expected = np.where(simulator.codec.is_valid(pairs[1].clean), pairs[1].scan, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_rare_state_stays_rare():
    """Maps that are 1 or -1 all over, one in ten -1, and the exact answer: of what is generated one in ten is -1, too.

    On a schedule whose noisiest level still shows a map's mean, pure noise would be taken for far more: 0.29.
    """
    simulator, share = SensorSimulator.new("sampled", Spread(0.001)), 0.9
    schedule = simulator.denoiser.schedule

    def expected(x, label, clean):
        alpha, sigma = schedule.coefficients(label, x)
        odds = math.log(share / (1 - share)) + 2 * (alpha / sigma**2 * x).sum((1, 2, 3), keepdim=True)
        return torch.tanh(odds / 2).expand_as(x)

    simulator.denoiser = Denoiser(expected, schedule, "sample")
    clean = torch.ones(4000, 1, 16, 16)
    scans = simulator.generate(clean, Noise.for_items(0, range(len(clean))), steps=50)
    assert float((scans == 0).float().mean()) == pytest.approx(1 - share, abs=0.02)


def test_energy_score_prefers_the_right_spread():
    """For a standard normal truth and generators s n, the score is least at s = 1, and the mean (s = 0) loses."""
    count = 40_000
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(count, 32, 1, 1, generator=draw)
    noise = torch.randn(2 * count, 32, 1, 1, generator=draw)
    counts = torch.ones_like(truth, dtype=torch.bool)
    simulator = SensorSimulator.new("one-step", Spread(1.0))
    empty = simulator.condition(torch.ones(count, 1, 4, 4))
    scores = {}
    for spread in (0.0, 0.5, 1.0, 1.5):
        network = lambda x, label, clean, spread=spread: spread * x  # noqa: E731
        simulator.denoiser = Denoiser(network, simulator.denoiser.schedule, "sample")
        scores[spread] = float(energy_loss(simulator, truth, counts, empty, noise))
    assert min(scores, key=scores.get) == 1.0
    # at s = 1 all three distances have one mean, sqrt(2) times that of a chi distribution of 32 degrees
    chi = math.sqrt(2) * math.exp(math.lgamma(16.5) - math.lgamma(16))
    assert scores[1.0] == pytest.approx(math.sqrt(2) * chi / 2, rel=2e-3)
    assert scores[0.0] == pytest.approx(chi, rel=2e-3)


@pytest.mark.parametrize("method", ["sampled", "one-step", "one-step-mean"])
def test_the_loss_falls_when_the_network_learns(batch, pairs, method):
    """Forty steps on one batch."""
    simulator = SensorSimulator.new(method, fitted_spread(pairs, LogDepth()), seed=1)
    task = SensorTask(simulator)
    optimizer = torch.optim.AdamW(simulator.unet.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_saved_and_loaded_again(pairs, tmp_path):
    simulator = SensorSimulator.new("one-step", Spread(0.02, 1.5))
    simulator.save(tmp_path / "model")
    again = SensorSimulator.from_pretrained(tmp_path / "model", device="cpu")
    assert (again.method, again.spread) == ("one-step", Spread(0.02, 1.5))
    depth = pairs[0].clean[:50, :70]
    one, two = simulator(depth, items=["a"])[0], again([depth, depth], items=["b", "a"])[1]
    assert one.shape == (50, 70)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert not (one[depth == 0]).any()
    with pytest.raises(InputError, match="no such model folder"):
        SensorSimulator.from_pretrained(tmp_path / "none")


def test_named_after_its_run(tmp_path, monkeypatch):
    """OUT/model is called OUT, also by a path that does not say so."""
    SensorSimulator.new("sampled", Spread(0.02)).save(tmp_path / "kinect/model")
    monkeypatch.chdir(tmp_path / "kinect")
    for folder in (tmp_path / "kinect/model", "model"):
        assert SensorSimulator.from_pretrained(folder, device="cpu").name == "kinect"


def test_judge_by_hand():
    exact = [np.full((10, 10), depth) for depth in (1.2, 2.5)]
    its = [depth + 0.01 for depth in exact]
    mine = [exact[0] + 0.03, exact[1] - 0.01]
    mine[0][:5] = 0  # half of one map is a hole
    found = compare_scans(mine, its, exact)
    # 50 pixels at +30 mm and 100 at -10 against all at 10 mm
    assert found.wasserstein_mm == pytest.approx((50 * 20 + 100 * 20) / 150)
    assert found.by_range_mm == pytest.approx((20 + 20) / 2)
    assert (found.hole_rate, found.sensor_hole_rate) == (0.25, 0)
    assert found.hole_overlap == 0
    same = compare_scans(its, its, exact)
    assert (same.wasserstein_mm, same.by_range_mm, same.neighbours_mm, same.hole_overlap) == (0, 0, 0, 1)
    with pytest.raises(InputError):
        compare_scans(mine, its, exact[:1])
    with pytest.raises(InputError, match="pixels"):
        compare_scans([mine[0], mine[1][:5]], its, exact)
    # what is written as NaN is a hole as well
    unknown = [np.where(values > 0, values, np.nan) for values in mine]
    assert compare_scans(unknown, its, exact) == found
    # measured, but nowhere in the same range
    apart = compare_scans([its[0], 0 * its[1]], [0 * its[0], its[1]], exact)
    assert math.isnan(apart.by_range_mm)
    assert apart.wasserstein_mm == pytest.approx(0, abs=1e-9)


def test_errors_that_only_differ_in_where_they_are():
    """As often 10 mm above the truth as below, here in stripes and there in halves: neighbours tell them apart."""
    exact = np.full((10, 10), 1.5)
    sign = np.where(np.arange(10) < 5, 1, -1)
    halves, stripes = exact + 0.01 * sign, exact + 0.01 * np.where(np.arange(10) % 2, 1, -1)
    found = compare_scans([stripes], [halves], [exact])
    assert found.wasserstein_mm == pytest.approx(0, abs=1e-9)
    # of 9 steps in a row 5 rise and 4 fall by 20 mm; of the halves' one falls: quantile by quantile 20 * (5 + 3) / 9
    assert found.neighbours_mm == pytest.approx(20 * 8 / 9)
    holes = exact * (np.arange(10) % 2)
    assert math.isnan(compare_scans([holes], [halves], [exact]).neighbours_mm)


def test_a_sensor_of_another_range_is_trained(pairs, tmp_path):
    """Held-out scans with nothing between 0.4 and 4.5 m are no reason to end."""
    from priorscope.evaluation.run_folder import RunFolder

    near = [type(pair)(pair.clean / 20, pair.scan / 20, pair.key) for pair in pairs]
    run = RunFolder.create(tmp_path / "run", {}, resume=False)
    assert SensorTask(SensorSimulator.new("one-step", Spread(0.02)), near).validate(run, 0) == {}


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"method": "sampled", "at_metre": 1},
        {"method": "one-step", "at_metre": "x", "power": 0},
        {"method": 1, "at_metre": 1, "power": 0},
    ],
)
def test_damaged_description_is_one_line(tmp_path, about):
    SensorSimulator.new("sampled", Spread(0.02)).save(tmp_path / "model")
    (tmp_path / "model/priorscope.json").write_text(json.dumps({"kind": "sensor-residual", **about}))
    with pytest.raises(InputError, match=r"priorscope\.json: (does not state|method 1)"):
        SensorSimulator.from_pretrained(tmp_path / "model", device="cpu")


def test_wrong_units_are_said(tmp_path, capsys):
    """Millimetres in a float file are kilometres: the scan is empty, and not without a word."""
    write_npy(tmp_path / "mm.npy", np.full((20, 30), 1500.0, np.float32))
    write_npy(tmp_path / "dot.npy", np.full((1, 1), 1.5, np.float32))
    assert main(["depth", "sensor", str(tmp_path / "mm.npy"), "--out", str(tmp_path / "out")]) == 0
    assert "is the file in metres?" in " ".join(capsys.readouterr().err.split())
    for words in (["mm.npy", "--depth-scale", "0"], ["mm.npy", "--depth-scale", "nan"]):
        assert main(["depth", "sensor", str(tmp_path / words[0]), *words[1:]]) == 2
        assert "--depth-scale" in capsys.readouterr().err
    assert main(["depth", "sensor", str(tmp_path / "dot.npy"), "--out", str(tmp_path / "out")]) == 2
    assert "2 x 2 pixels" in capsys.readouterr().err


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_fitted_gaussian_is_found_again(power):
    exact = [np.random.default_rng(1).uniform(0.5, 4.0, (200, 200))]
    scans = gaussian_scans(exact, 0.01, 3, power=power)
    assert fitted_sigma(scans, exact, power=power) == pytest.approx(0.01, rel=0.02)


def test_feed(pairs, batch):
    part = SensorFeed(pairs, crop=32, batch_size=4, seed=0).batch(0, range(1, 3))
    for name in ("clean", "scan", "level", "seed"):
        assert torch.equal(batch[name][1:3], part[name])
    with pytest.raises(InputError, match="--crop"):
        SensorFeed(pairs, crop=80, batch_size=4, seed=0)


def test_hand_made_sensor_by_command(pairs, tmp_path, capsys):
    """Needs no weights; two scans of a map differ, and are those of the model."""
    write_npy(tmp_path / "maps/a.npy", pairs[0].clean)
    (tmp_path / "maps/b.npy").write_bytes(b"nothing")
    words = ["depth", "sensor", str(tmp_path / "maps"), "--out", str(tmp_path / "out"), "--count", "2"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "1 of 2 inputs done" in captured.out
    assert "b.npy" in captured.err
    one, two = (np.load(tmp_path / f"out/a_scan{number}_depth.npy") for number in range(2))
    assert np.isnan(one).any()
    both = np.isfinite(one) & np.isfinite(two)
    assert (one != two)[both].mean() > 0.1
    about = json.loads((tmp_path / "out/a_scan0_depth.json").read_text())
    assert (about["unit"], about["model"]) == ("m", "structured-light")
    for options, word in ((["--steps", "9"], "--steps of the hand-made"), (["--device", "cuda"], "the CPU only")):
        assert main([*words[:3], "--out", str(tmp_path / "none"), *options]) == 2
        assert word in capsys.readouterr().err
        assert not (tmp_path / "none").exists()
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_trained_by_command(tmp_path, capsys):
    words = ["depth", "train-sensor", "--out", str(tmp_path / "run"), "--scenes", "2", "--held-out", "1"]
    words += ["--height", "64", "--width", "96", "--crop", "32", "--steps", "2", "--batch-size", "2"]
    words += ["--device", "cpu", "--method", "one-step"]
    assert main(words) == 0
    assert "run/model" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"held_out_wasserstein_mm", "held_out_hole_rate_error", "loss"} <= metrics.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("priorscope_depth.sensor.train.drawn_scans", None)  # is refused before it would be called
        assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    write_png(tmp_path / "a.png", np.full((40, 50), 1500, np.uint16))
    asked = ["depth", "sensor", str(tmp_path / "a.png"), "--model", str(tmp_path / "run/model"), "--device", "cpu"]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/a_scan0_depth.png").exists()
    capsys.readouterr()
    assert main([*asked, "--out", str(tmp_path / "none"), "--steps", "9"]) == 2
    assert "--steps of run, a one-step model" in capsys.readouterr().err


def test_a_folder_of_ones_own(tmp_path):
    write_npy(tmp_path / "clean/a.npy", np.full((20, 30), 1.0, np.float32))
    with pytest.raises(InputError, match="scan"):
        folder_scans(tmp_path)
    (tmp_path / "scan").mkdir()
    write_png(tmp_path / "scan/a.png", np.full((20, 30), 1010, np.uint16))
    (found,) = folder_scans(tmp_path)
    np.testing.assert_allclose(found.scan - found.clean, 0.01, rtol=1e-4)
    with pytest.raises(InputError, match="exactly"):
        fitted_spread([type(found)(found.clean, found.clean, "a")], LogDepth())


def test_mistakes(tmp_path, capsys):
    for words in (
        ["--crop", "20"],
        ["--crop", "96", "--height", "64"],
        ["--width", "5000"],
        ["--scenes", "0"],
        ["--steps", "0"],
        ["--lora", "4"],
        ["--precision", "float16", "--device", "cpu"],
        ["--depth-scale", "0.01"],
        *(["--pairs", str(tmp_path), *idle] for idle in (["--scenes", "5"], ["--width", "512"], ["--data", "d"])),
    ):
        assert main(["depth", "train-sensor", "--out", str(tmp_path / "none"), *words]) == 2
        if "--depth-scale" in words or "--pairs" in words:
            assert re.search(f"{words[-2]} with(out)? --pairs", capsys.readouterr().err)
    assert main(["depth", "sensor", str(tmp_path / "missing.npy")]) == 2
    assert not list(tmp_path.iterdir())
    capsys.readouterr()
    with pytest.raises(InputError, match="2 item names"):
        SensorSimulator.new("one-step", Spread(1.0))(np.ones((16, 16), np.float32), items=["a", "b"])
    with pytest.raises(InputError, match="guess"):
        SensorSimulator(SensorSimulator.new("sampled", Spread(1.0)).unet, "guess", Spread(1.0))
    for wrong in ((0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))):
        with pytest.raises(InputError, match="deviation"):
            Spread(*wrong)
