"""The edge predictor: exact with a network that knows, the same however it is batched, trained and asked by command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.cli import main
from priorscope.data.images import read_image, write_png
from priorscope.diffusion import DecoupledDenoiser
from priorscope_depth.edges.data import EdgeFeed, drawn_pairs, folder_pairs
from priorscope_depth.edges.predictor import EdgePredictor
from priorscope_depth.edges.task import EdgeTask, scale_latents


@pytest.fixture(scope="module")
def predictor():
    return EdgePredictor.new(seed=0)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return drawn_pairs(tmp_path_factory.mktemp("drawn"), range(3), height=64, width=96)


def picture(height=50, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_network_that_knows_gives_the_decoded_truth(predictor, pairs):
    """Five steps and the short one end at the latent of the true edges, whatever the noise was."""
    edges = torch.from_numpy(pairs[0].edges)[None, None].float() * 2 - 1
    with torch.no_grad():
        latent = predictor.latents.encode(edges)
        expected = (predictor.latents.decode(latent) / 2 + 0.5).clamp(0, 1)[0, 0].numpy()

    def network(x, label, image):
        t = (label / 1000).reshape(-1, 1, 1, 1)
        return torch.cat([-latent.expand_as(x), (x - (1 - t) * latent) / t.sqrt()], dim=1)

    knowing = EdgePredictor(predictor.unet, predictor.latents, name="knows")
    knowing.denoiser = DecoupledDenoiser(network, predictor.denoiser.time_label)
    for seed in (0, 1):
        found = knowing(pairs[0].rgb, seed=seed)[0].values
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_results_do_not_depend_on_batches(predictor):
    images = [picture(seed=seed) for seed in range(2)]
    together = predictor(images, items=["a", "b"], tile=32, overlap=8, batch_size=3)
    alone = predictor(images[1], items=["b"], tile=32, overlap=8, batch_size=1)
    assert together[1].values.shape == (50, 70)
    assert together[1].values.dtype == np.float32
    np.testing.assert_allclose(together[1].values, alone[0].values, atol=1e-5)
    other = predictor(images[1], items=["b"], tile=32, overlap=8, seed=1)
    assert np.abs(other[0].values - alone[0].values).max() > 1e-3


def test_saved_and_loaded_again(predictor, tmp_path):
    predictor.save(tmp_path / "model")
    again = EdgePredictor.from_pretrained(tmp_path / "model", device="cpu")
    image = picture()
    np.testing.assert_allclose(again(image)[0].values, predictor(image)[0].values, atol=1e-6)
    with pytest.raises(InputError, match="no such model folder"):
        EdgePredictor.from_pretrained(tmp_path / "none")
    (tmp_path / "model/priorscope.json").write_text("{}")
    with pytest.raises(InputError, match="not an edge model"):
        EdgePredictor.from_pretrained(tmp_path / "model")


def test_latents_get_unit_spread(pairs):
    mine = EdgePredictor.new(seed=3)
    scale_latents(mine, pairs)
    latents = [mine.latents.encode(torch.from_numpy(pair.edges)[None, None].float() * 2 - 1) for pair in pairs]
    assert torch.cat(latents).std().item() == pytest.approx(1, rel=1e-4)


def test_feed_is_fixed_by_its_seed(pairs):
    feed = EdgeFeed(pairs, crop=32, batch_size=4, seed=7)
    whole, part = feed.batch(5, range(4)), EdgeFeed(pairs, crop=32, batch_size=4, seed=7).batch(5, range(2, 4))
    for name in ("image", "edges", "time", "seed"):
        assert torch.equal(whole[name][2:], part[name])
    assert whole["image"].shape == (4, 3, 32, 32)
    assert set(whole["edges"].unique().tolist()) <= {-1.0, 1.0}
    assert ((whole["time"] > 0) & (whole["time"] <= 1)).all()
    with pytest.raises(InputError, match="--crop"):
        EdgeFeed(pairs, crop=80, batch_size=4, seed=7)


def test_the_loss_falls_when_the_network_learns(pairs):
    """Forty steps on one batch."""
    mine = EdgePredictor.new(seed=1)
    scale_latents(mine, pairs)
    task, batch = EdgeTask(mine), EdgeFeed(pairs, crop=32, batch_size=4, seed=0).batch(0, range(4))
    optimizer = torch.optim.AdamW(mine.unet.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(weight.grad is None for weight in mine.latents.vae.parameters())


def test_commands(tmp_path, capsys):
    """Train both parts for two steps, resume, and predict a folder in which one image is bad."""
    out = tmp_path / "run"
    words = ["depth", "train-edges", "--out", str(out), "--scenes", "2", "--held-out", "1", "--height", "64"]
    words += ["--width", "96", "--crop", "32", "--autoencoder-steps", "2", "--steps", "2", "--batch-size", "2"]
    words += ["--device", "cpu"]
    assert main(words) == 0
    assert "diffusion/model" in capsys.readouterr().out
    metrics = json.loads((out / "diffusion/metrics.json").read_text())
    assert {"held_out_ods", "held_out_ac", "drift", "noise", "rebuilt"} <= metrics.keys()
    assert "Edge training" in (out / "diffusion/report.html").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("priorscope_depth.edges.train.drawn_pairs", None)  # is refused before it would be called
        assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    capsys.readouterr()

    photos = tmp_path / "photos"
    photos.mkdir()
    write_png(photos / "a.png", picture())
    (photos / "b.png").write_bytes(b"no picture")
    whole = ["depth", "edges", str(photos), "--model", str(out), "--out", str(tmp_path / "maps"), "--device", "cpu"]
    assert main(whole) == 2
    assert f"--model {out / 'diffusion/model'}" in capsys.readouterr().err
    half = ["depth", "edges", str(photos), "--model", str(out / "autoencoder/model"), "--out", str(tmp_path / "maps")]
    assert main([*half, "--device", "cpu"]) == 2
    assert "OUT/diffusion/model" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()
    asked = ["depth", "edges", str(photos), "--model", str(out / "diffusion/model"), "--out", str(tmp_path / "maps")]
    assert main([*asked, "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 inputs done" in captured.out
    assert "b.png" in captured.err
    values = np.load(tmp_path / "maps/a_edges.npy")
    assert values.shape == (50, 70)
    np.testing.assert_allclose(read_image(tmp_path / "maps/a_edges.png")[..., 0] / 255, values, atol=0.003)
    assert json.loads((tmp_path / "maps/a_edges.json").read_text())["suppressed"] is False
    assert main([*asked, "--device", "cpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_of_ones_own(tmp_path):
    for kind in ("images", "edges"):
        (tmp_path / kind).mkdir()
    write_png(tmp_path / "images/a.png", picture(20, 30))
    edges = np.zeros((20, 30), np.uint8)
    edges[4] = 255
    write_png(tmp_path / "edges/a.png", edges)
    found = folder_pairs(tmp_path)
    assert found[0].edges.sum() == 30
    assert found[0].edges[4].all()
    write_png(tmp_path / "images/b.png", picture(20, 30))
    with pytest.raises(InputError, match=r"edges/b\.png"):
        folder_pairs(tmp_path)
    write_png(tmp_path / "edges/b.png", edges[:10])
    with pytest.raises(InputError, match="pixels"):
        folder_pairs(tmp_path)


def test_mistakes(predictor, tmp_path, capsys):
    for options in ({"tile": 20}, {"tile": 32, "overlap": 32}, {"ensemble": 0}, {"steps": 0}, {"items": ["a", "b"]}):
        with pytest.raises(InputError):
            predictor(picture(), **options)
    for words in (
        ["--crop", "20"],
        ["--crop", "96", "--height", "64"],
        ["--width", "5000"],
        ["--scenes", "0"],
        ["--autoencoder-steps", "0"],
        ["--lr", "0"],
        ["--lora", "4"],
        ["--precision", "float16", "--device", "cpu"],
        *(["--pairs", str(tmp_path), *idle] for idle in (["--scenes", "5"], ["--height", "256"], ["--data", "d"])),
    ):
        assert main(["depth", "train-edges", "--out", str(tmp_path / "none"), *words]) == 2
        if "--pairs" in words:
            assert f"{words[2]} with --pairs" in capsys.readouterr().err
    for options in (["--overlap", "8"], ["--blend", "count"]):
        assert main(["depth", "edges", str(tmp_path), "--tile", "0", *options]) == 2
        assert f"{options[0]} with --tile 0" in capsys.readouterr().err
    assert main(["depth", "edges", str(tmp_path / "missing.png")]) == 2
    assert not (tmp_path / "none").exists()
    capsys.readouterr()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_opacity_is_no_edge(tmp_path, mode):
    from PIL import Image

    for kind in ("images", "edges"):
        (tmp_path / kind).mkdir()
    write_png(tmp_path / "images/a.png", picture(20, 30))
    edges = np.zeros((20, 30), np.uint8)
    edges[4] = 255
    Image.fromarray(edges).convert(mode).save(tmp_path / "edges/a.png")
    np.testing.assert_array_equal(folder_pairs(tmp_path)[0].edges, edges > 0)
    # white as 1, as masks are often saved: every edge would be lost without a word
    Image.fromarray(edges // 255).convert(mode).save(tmp_path / "edges/a.png")
    if mode in ("L", "RGB"):
        with pytest.raises(InputError, match="marks edges by 1"):
            folder_pairs(tmp_path)
