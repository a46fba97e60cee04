"""One starting noise chosen on a calibration set: the best of its candidates, at any size, from a file."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from priorscope import InputError
from priorscope.diffusion import Noise, StartingNoise, choose_starting_noise, item_seed

SHAPE = (2, 3, 4)


def candidate(seed, index):
    return Noise.per_item([item_seed(seed, index)]).draw((1, *SHAPE))


def generate(noise, given):
    return given + 0.3 * noise


def distance(result, wanted):
    return (result - wanted).square().mean()


def pairs():
    """The noise should be 0.5 everywhere, give or take."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        given = torch.randn(1, *SHAPE, generator=generator)
        yield given, given + 0.15 + 0.05 * torch.randn(1, *SHAPE, generator=generator)


def test_chooses_the_candidate_with_the_lowest_mean_distance():
    for seed in (0, 1):
        chosen = choose_starting_noise(generate, pairs(), distance, SHAPE, candidates=40, seed=seed)
        means = [
            sum(float(distance(generate(candidate(seed, i), given), wanted)) for given, wanted in pairs()) / 6
            for i in range(40)
        ]
        best = min(range(40), key=means.__getitem__)
        torch.testing.assert_close(chosen.values, candidate(seed, best)[0], rtol=0, atol=0)
        assert chosen.score == pytest.approx(means[best], rel=1e-6)
    assert chosen.score < sorted(means)[20]


def test_hopeless_candidates_are_dropped_early():
    calls = []

    def counted(noise, given):
        assert not torch.is_grad_enabled()
        calls.append(given)
        return generate(noise, given)

    choose_starting_noise(counted, pairs(), distance, SHAPE, candidates=40)
    assert 40 + 5 <= len(calls) < 40 * 6


def test_a_run_that_diverges_is_not_chosen():
    def broken(noise, given):
        return math.nan if float(noise[0, 0, 0, 0]) > -0.5 else float(noise[0, 0, 0, 0]) + 10

    chosen = choose_starting_noise(broken, [(None, None)], lambda result, wanted: result, SHAPE, candidates=30)
    assert float(chosen.values[0, 0, 0]) <= -0.5
    with pytest.raises(InputError, match="finite"):
        choose_starting_noise(broken, [(None, None)], lambda result, wanted: math.inf, SHAPE, candidates=3)


def test_generate_may_write_into_its_noise():
    def careless(noise, given):
        return noise.mul_(0.3).add_(given)

    kept = choose_starting_noise(careless, pairs(), distance, SHAPE, candidates=10)
    expected = choose_starting_noise(generate, pairs(), distance, SHAPE, candidates=10)
    assert torch.equal(kept.values, expected.values)


def test_other_sizes_are_the_first_corner_or_tiles():
    values = torch.arange(24.0).reshape(SHAPE)
    noise = StartingNoise(values)
    drawn = noise.draw((5, 2, 3, 4))
    assert drawn.shape == (5, 2, 3, 4)
    assert all(torch.equal(item, values) for item in drawn)
    assert torch.equal(noise.draw((1, 2, 2, 3))[0], values[:, :2, :3])
    tiled = noise.draw((1, 2, 7, 9))[0]
    for row in range(7):
        for column in range(9):
            assert torch.equal(tiled[:, row, column], values[:, row % 3, column % 4])
    # the crop of a larger size is the smaller size, whichever came first
    assert torch.equal(tiled[:, :5, :6], noise.draw((1, 2, 5, 6))[0])
    assert torch.equal(noise.like(torch.empty(2, 2, 3, 4, dtype=torch.float64)), drawn[:2].double())
    drawn[0] += 1.0  # a draw is the caller's own
    assert torch.equal(noise.draw((1, *SHAPE))[0], values)


def test_saved_and_loaded(tmp_path):
    noise = StartingNoise(torch.randn(SHAPE), 0.25)
    path = noise.save(tmp_path / "folder" / "noise.safetensors")
    again = StartingNoise.load(path)
    assert torch.equal(again.values, noise.values)
    assert again.score == 0.25
    with pytest.raises(InputError, match="exists"):
        noise.save(path)
    StartingNoise(torch.ones(SHAPE)).save(path, overwrite=True)
    assert math.isnan(StartingNoise.load(path).score)


def test_mistakes_are_one_line_errors(tmp_path):
    other, text = tmp_path / "other.safetensors", tmp_path / "text.safetensors"
    save_file({"weight": torch.ones(2)}, other)
    text.write_text("noise")
    noise = StartingNoise(torch.randn(SHAPE))
    endless, scored = tmp_path / "endless.safetensors", tmp_path / "scored.safetensors"
    save_file({"noise": torch.full(SHAPE, math.inf)}, endless)
    save_file({"noise": torch.ones(SHAPE)}, scored, metadata={"score": "good"})
    for path in (endless, scored):
        with pytest.raises(InputError, match=path.name):
            StartingNoise.load(path)
    for wrong in (
        lambda: StartingNoise.load(tmp_path / "none.safetensors"),
        lambda: StartingNoise.load(other),
        lambda: StartingNoise.load(text),
        lambda: StartingNoise(torch.full(SHAPE, math.nan)),
        lambda: StartingNoise(torch.empty(2, 0)),
        lambda: noise.draw((1, 3, 3, 4)),
        lambda: noise.draw((1, 2, 3)),
        lambda: noise.draw((1,)),
        lambda: choose_starting_noise(generate, [], distance, SHAPE),
        lambda: choose_starting_noise(generate, pairs(), distance, SHAPE, candidates=0),
        lambda: choose_starting_noise(generate, pairs(), distance, SHAPE, candidates=1.5),
        lambda: choose_starting_noise(generate, pairs(), distance, SHAPE, candidates=math.nan),
        lambda: choose_starting_noise(generate, pairs(), distance, 4),
        lambda: choose_starting_noise(generate, pairs(), distance, (2, -1)),
        lambda: choose_starting_noise(generate, pairs(), lambda result, wanted: result, SHAPE),
        lambda: choose_starting_noise(generate, pairs(), lambda result, wanted: -1.0, SHAPE),
    ):
        with pytest.raises(InputError) as error:
            wrong()
        assert "\n" not in str(error.value)
