"""Frames that hang together: shared noise, a start from the last frame, a fit to the last frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from priorscope.cli import main
from priorscope.data import write_video
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.predictors.latent import LatentMemory
from priorscope_depth.flicker import flicker
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.video import FrameColours, FrameOptions, FramePredictor

STILL = np.kron(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def load(tiny_model):
    made = {}

    def get(family, name, **options):
        key = (family, name, *options.items())
        if key not in made:
            made[key] = DepthPredictor.from_pretrained(tiny_model(family, name), resolution=48, device="cpu", **options)
        return made[key]

    return get


def frames_of(predictor, options, images, seed=0):
    frames = FramePredictor(predictor, "clip", options, seed=seed)
    return [result for number, image in enumerate(images) for result in frames([image], number)]


def test_independent_noise_flickers_on_a_still_scene_and_shared_noise_does_not(load):
    predictor = load("lotus-g", "lotus-depth-g-v1-0")
    shared = [r.values for r in frames_of(predictor, FrameOptions(), [STILL] * 3)]
    assert flicker(shared).total == 0
    independent = [r.values for r in frames_of(predictor, FrameOptions("independent"), [STILL] * 3)]
    assert flicker(independent).shape > 1e-3


@pytest.mark.parametrize(("family", "level"), [("lotus-g", 999.0), ("marigold", 999.0)])
def test_the_start_is_the_last_latents_noised_to_the_level(load, family, level):
    """Checked against the loop itself, step by step."""
    from priorscope.diffusion.condition import Condition
    from priorscope.diffusion.sampling import sample

    latent = load(family, "lotus-depth-g-v1-0" if family == "lotus-g" else "marigold-depth-v1-1").latent
    image = torch.from_numpy(STILL).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        encoded = latent.encode(image)
        memory = LatentMemory()
        first = latent.predict_latents(encoded, Noise.for_items(0, ["a"]), memory)
        assert memory.latents is first
        plain = latent.predict_latents(encoded, Noise.for_items(0, ["a"]))
        torch.testing.assert_close(first, plain, atol=0, rtol=0)  # the first frame has no memory
        assert latent.start_level(memory) == level
        second = latent.predict_latents(encoded, Noise.for_items(0, ["a"]), memory)
        alpha, sigma = latent.denoiser.schedule(level)
        start = alpha * first + sigma * Noise.for_items(0, ["a"]).like(first)
        condition = latent.condition.merged(Condition({"image": encoded}))
        expected = sample(latent.denoiser, start, latent.times, step=latent.solver, condition=condition)
    torch.testing.assert_close(second, expected, atol=1e-6, rtol=1e-5)
    assert (second - first).abs().max() > 0


def test_marigold_starts_lower_with_fewer_calls(load):
    predictor = load("marigold", "marigold-depth-v1-1")
    calls = []
    hook = predictor.network.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        frames_of(predictor, FrameOptions("previous", level=499.0), [STILL] * 2)
    finally:
        hook.remove()
    assert len(calls) == 4 + 2


def test_levels_that_leave_no_signal_are_passed_over(load, tiny_model):
    latent = load("marigold", "marigold-depth-v1-1").latent
    with pytest.raises(InputError, match="level 1200"):
        latent.start_level(LatentMemory(1200.0))
    with pytest.raises(InputError, match="one-step model"):
        load("lotus-g", "lotus-depth-g-v1-0").latent.start_level(LatentMemory(500.0))
    folder = tiny_model("marigold", copy=tiny_model("marigold").parent / "zero/marigold-depth-v1-1")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}))
    zero = DepthPredictor.from_pretrained(folder, device="cpu", resolution=48).latent
    assert zero.start_level(LatentMemory()) == 749
    one = DepthPredictor.from_pretrained(folder, device="cpu", resolution=48, steps=1).latent
    with pytest.raises(InputError, match="pure noise in its only step"):
        one.start_level(LatentMemory())


def test_a_fit_to_the_last_frame_takes_scale_and_shift_out(load):
    class Jumping:
        """The same shape in every frame, at another scale."""

        name, task, scale, stochastic = "jumps", "depth", "affine-invariant", False
        shape = np.random.default_rng(3).uniform(0.3, 0.7, (20, 30)).astype(np.float32)

        def __call__(self, images, *, seed, items, **_):
            from priorscope_depth.results import DepthResult

            number = images[0][0, 0, 0]
            return [DepthResult(self.shape * (1 + 0.1 * number) - 0.05 * number, "disparity")]

    images = [np.full((20, 30, 3), number, np.uint8) for number in (0, 3, 1, 2, 0)]
    plain = [r.values for r in frames_of(Jumping(), FrameOptions(), images)]
    fitted = [r.values for r in frames_of(Jumping(), FrameOptions(align=True), images)]
    assert flicker(plain).total > 0.03
    assert flicker(fitted).total == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(fitted[0], 0.1 + 0.8 * Jumping.shape, atol=1e-6)
    frames = FramePredictor(Jumping(), "clip", FrameOptions(align=True))
    frames([images[0]], 0)
    Jumping.shape = 1 - Jumping.shape  # a cut: nothing of the last frame is left
    frames([images[0]], 1)
    assert frames.restarts == 1


def test_colours_keep_their_meaning_from_frame_to_frame():
    from priorscope_depth.results import DepthResult

    ramp = np.linspace(0, 1, 32, dtype=np.float32).reshape(1, 32).repeat(16, 0)
    colours = FrameColours(250.0)
    wide = colours(DepthResult(ramp, "depth"))
    narrow = colours(DepthResult(ramp * 0.5, "depth"))
    assert np.abs(narrow[0, 31].astype(int) - wide[0, 16].astype(int)).max() <= 12
    assert np.abs(narrow[0, 31].astype(int) - wide[0, 31].astype(int)).max() > 50


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", [np.roll(STILL, shift, axis=1) for shift in range(4)], fps=10)


def test_command(tmp_path, clip, tiny_model, capsys):
    model = tiny_model("marigold", "marigold-depth-v1-1")
    words = ["depth", "predict", str(clip), "--model", str(model), "--resolution", "48", "--device", "cpu"]
    out = tmp_path / "out"
    options = ["--frames", "previous", "--frame-level", "499", "--align-frames", "--formats", "colour", "npy"]
    assert main([*words, *options, "--out", str(out)]) == 0
    assert (out / "clip_depth.mp4").is_file()
    side = json.loads((out / "clip_frames/000003_depth.json").read_text())
    assert side["video"] == {"noise": "previous", "start_level": 499, "fitted_to_last_frame": True}
    values = [np.load(out / f"clip_frames/{number:06d}_depth.npy") for number in range(4)]
    assert all(v.min() >= 0 and v.max() <= 1 for v in values)
    capsys.readouterr()
    deterministic = ["--model", str(tiny_model("lotus-d", "lotus-depth-d-v2-0-disparity"))]
    picture = tmp_path / "photo.png"
    from priorscope.data.images import write_png

    write_png(picture, STILL)
    for arguments, word in (
        ([*words[:3], *deterministic, "--frames", "previous"], "changes nothing for"),
        ([*words, "--frame-level", "499"], "--frame-level without --frames previous"),
        ([*words, "--frames", "previous", "--frame-level", "1200"], "level 1200"),
        ([*words, "--frames", "previous", "--ensemble-with", str(model)], "of two models"),
        ([*words, "--distances", "1,1,2", "3,3,4"], "not to a video"),
        ([*words[:2], str(picture), *words[3:], "--align-frames"], "are for videos"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "refused")]) == 2
        (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith(("error: ", "failed: "))]
        assert word in line
        assert not (tmp_path / "refused").exists()
