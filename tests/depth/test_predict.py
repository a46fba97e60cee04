"""``priorscope depth predict`` on whatever a user may have: pictures, folders, videos, good ones and bad ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from priorscope.cli import main
from priorscope.data import read_image, read_video, write_video
from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope_depth.configs import ModelConfig
from priorscope_depth.predict import load_predictor
from priorscope_depth.predictor import DepthPredictor


@pytest.fixture(scope="module")
def lotus_d(tiny_model):
    return tiny_model("lotus-d", "lotus-depth-d-v2-0-disparity")


@pytest.fixture(scope="module")
def lotus_g(tiny_model):
    return tiny_model("lotus-g", "lotus-depth-g-v1-0")


@pytest.fixture(scope="module")
def deterministic(lotus_d):
    return DepthPredictor.from_pretrained(lotus_d, resolution=64, device="cpu")


@pytest.fixture(scope="module")
def generative(lotus_g):
    return DepthPredictor.from_pretrained(lotus_g, resolution=64, device="cpu")


@pytest.fixture
def run(lotus_d, tmp_path):
    """Run the command into ``tmp_path / "out"`` unless told otherwise."""

    def call(*words, model=lotus_d, out=tmp_path / "out", resolution=64):
        options = ["--model", model, "--resolution", resolution, "--device", "cpu", "--out", out]
        return main([str(word) for word in ("depth", "predict", *words, *options)])

    return call


def photo(height=40, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo() if image is None else image).save(path)
    return path


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def errors(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "failed: "))]


# ---- what is written --------------------------------------------------------------------------------------------


def test_all_formats_and_what_the_side_file_says(run, tmp_path, lotus_d, deterministic):
    picture = save(tmp_path / "photo.png")
    assert run(picture, "--formats", "png", "npy", "npz", "colour", "ply") == 0
    out = tmp_path / "out"
    endings = (".json", ".npy", ".npz", ".ply", ".png", "_colour.png")
    assert written(out) == sorted(f"photo_disparity{ending}" for ending in endings)
    values = np.load(out / "photo_disparity.npy")
    assert (values.shape, values.dtype) == ((40, 56), np.float32)
    expected = deterministic(photo(), items=["photo"])
    np.testing.assert_array_equal(values, expected.values)
    with np.load(out / "photo_disparity.npz") as archive:
        np.testing.assert_array_equal(archive["values"], values)
    np.testing.assert_allclose(np.asarray(Image.open(out / "photo_disparity.png")) / 65535, values, atol=1e-5)
    assert np.asarray(Image.open(out / "photo_disparity_colour.png")).shape == (40, 56, 3)
    assert f"element vertex {40 * 56}".encode() in (out / "photo_disparity.ply").read_bytes()[:2000]
    side = json.loads((out / "photo_disparity.json").read_text())
    assert (side["space"], side["scale"], side["unit"]) == ("disparity", "affine-invariant", None)
    assert "larger = nearer" in side["convention"]
    assert "not metric" in side["convention"]
    assert side["model"] == str(lotus_d)
    assert side["size"] == {"height": 40, "width": 56}


def test_normals(run, tmp_path, tiny_model, capsys):
    model = tiny_model("lotus-d", "lotus-normal-d-v1-1")
    picture = save(tmp_path / "photo.png")
    assert run(picture, "--formats", "png", "npy", model=model) == 0
    normals = np.load(tmp_path / "out" / "photo_normals.npy")
    assert normals.shape == (40, 56, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    side = json.loads((tmp_path / "out" / "photo_normals.json").read_text())
    assert side["space"] == "normals"
    assert "x right, y up, z towards the viewer" in side["convention"]
    capsys.readouterr()
    assert run(picture, "--formats", "ply", model=model, out=tmp_path / "cloud") == 2
    assert "no point cloud" in errors(capsys)[0]
    assert not (tmp_path / "cloud").exists()


def test_one_folder_may_hold_depth_and_normals(run, tmp_path, tiny_model):
    picture = save(tmp_path / "photo.png")
    assert run(picture) == 0
    assert run(picture, model=tiny_model("lotus-d", "lotus-normal-d-v1-1")) == 0
    assert {"photo_disparity.npy", "photo_normals.npy"} <= set(written(tmp_path / "out"))


def test_folders_keep_their_structure_and_equal_names_stay_apart(run, tmp_path):
    for index, name in enumerate(["in/x.png", "in/b/x.png", "in/b/x.jpg", "in/b/c/y.bmp", "other/x.png"]):
        save(tmp_path / name, photo(seed=index))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    save(tmp_path / "in" / ".hidden.png")
    assert run(tmp_path / "in", tmp_path / "other", "--formats", "npy") == 0
    maps = [name for name in written(tmp_path / "out") if name.endswith(".npy")]
    assert len(maps) == 5
    assert "b/c/y_disparity.npy" in maps
    contents = [np.load(tmp_path / "out" / name).tobytes() for name in maps]
    assert len(set(contents)) == 5


def test_nothing_is_overwritten_unless_asked(run, tmp_path, capsys):
    picture = save(tmp_path / "photo.png")
    assert run(picture) == 0
    out = tmp_path / "out"
    before = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    capsys.readouterr()
    assert run(picture) == 2
    (line,) = errors(capsys)
    assert "photo_disparity" in line
    assert "--overwrite" in line
    assert {name: (out / name).stat().st_mtime_ns for name in written(out)} == before
    assert run(picture, "--overwrite") == 0
    assert all((out / name).stat().st_mtime_ns > time for name, time in before.items())


def test_a_file_of_the_users_own_is_not_overwritten(run, tmp_path, capsys):
    """True disparity beside the photographs, and the results asked for in the same folder."""
    save(tmp_path / "photo.png")
    truth = tmp_path / "photo_disparity.png"
    truth.write_bytes(b"precious")
    assert run(tmp_path / "photo.png", out=tmp_path) == 2
    assert "photo_disparity.png: exists already" in errors(capsys)[0]
    assert truth.read_bytes() == b"precious"


def test_names_that_merely_begin_alike_do_not_count(run, tmp_path):
    assert run(save(tmp_path / "a_b.png")) == 0
    assert run(save(tmp_path / "a.png")) == 0


def test_names_with_brackets(run, tmp_path, capsys):
    picture = save(tmp_path / "photo[1].png")
    assert run(picture) == 0
    assert (tmp_path / "out" / "photo[1]_disparity.npy").exists()
    capsys.readouterr()
    assert run(picture) == 2
    assert len(errors(capsys)) == 1


# ---- pictures of all kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "alpha", "16-bit", "CMYK", "rotated"])
def test_kinds_of_pictures(run, tmp_path, deterministic, kind):
    path = tmp_path / ("photo.jpg" if kind in ("CMYK", "rotated") else "photo.png")
    picture = Image.fromarray(photo())
    if kind == "grey":
        picture.convert("L").save(path)
    elif kind == "alpha":
        picture.putalpha(Image.fromarray(photo(seed=1)[..., 0]))
        picture.save(path)
    elif kind == "16-bit":
        Image.fromarray(photo()[..., 0].astype(np.uint16) * 257).save(path)
    elif kind == "CMYK":
        picture.convert("CMYK").save(path)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: upright, the picture is higher than wide
        picture.save(path, exif=exif)
    assert run(path, "--formats", "npy") == 0
    values = np.load(tmp_path / "out" / "photo_disparity.npy")
    assert values.shape == ((56, 40) if kind == "rotated" else (40, 56))
    upright = read_image(path)
    np.testing.assert_array_equal(values, deterministic(upright).values)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (10, 20_000), (20_000, 10)])
def test_odd_sizes(run, tmp_path, size):
    picture = save(tmp_path / "photo.png", photo(*size))
    assert run(picture, "--formats", "npy", "png") == 0
    values = np.load(tmp_path / "out" / "photo_disparity.npy")
    assert values.shape == size
    assert np.isfinite(values).all()


def test_official_geometry(run, tmp_path, capsys):
    picture = save(tmp_path / "photo.png", photo(45, 61))
    assert run(picture, "--formats", "npy") == 0
    assert run(picture, "--formats", "npy", "--official-geometry", out=tmp_path / "official") == 0
    ours = np.load(tmp_path / "out" / "photo_disparity.npy")
    official = np.load(tmp_path / "official" / "photo_disparity.npy")
    assert ours.shape == official.shape == (45, 61)
    assert not np.array_equal(ours, official)
    capsys.readouterr()
    sliver = save(tmp_path / "sliver.png", photo(10, 2000))
    assert run(sliver, "--official-geometry") == 2
    assert "smaller than one latent pixel" in errors(capsys)[0]


def test_official_geometry_is_each_familys_own(tiny_model):
    """Marigold goes back bilinearly, unlike Lotus; where the authors' code was not read, nothing is guessed."""

    def geometry(family, name):
        folder = str(tiny_model(family, name))
        return load_predictor(ModelConfig(folder, official_geometry=True, resolution=64, device="cpu")).geometry

    marigold = geometry("marigold", "marigold-depth-v1-1")
    assert (marigold.back, marigold.back_antialias, marigold.multiple) == ("bilinear", True, 1)
    assert marigold.processing_size(47, 20) == Geometry.lotus(64).processing_size(47, 20)
    assert geometry("lotus-d", "lotus-depth-d-v2-0-disparity") == Geometry.lotus(64)
    for family, name in (("e2e-ft", "marigold-e2e-ft-depth"), ("genpercept", "genpercept-models")):
        with pytest.raises(InputError, match=f"--official-geometry of {family}.*was not read"):
            geometry(family, name)


@pytest.mark.parametrize("resolution", [0, 24, 100])
def test_resolutions(run, tmp_path, resolution):
    picture = save(tmp_path / "photo.png")
    assert run(picture, "--formats", "npy", resolution=resolution) == 0
    assert np.load(tmp_path / "out" / "photo_disparity.npy").shape == (40, 56)


# ---- bad input --------------------------------------------------------------------------------------------------


def bad_file(folder, kind):
    path = folder / "bad.png"
    if kind == "text":
        path.write_text("this is no picture")
    elif kind == "empty":
        path.touch()
    else:
        save(path, photo(200, 200))
        path.write_bytes(path.read_bytes()[:20_000])
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "truncated"])
def test_one_bad_picture_is_one_line(run, tmp_path, capsys, kind):
    path = bad_file(tmp_path, kind)
    assert run(path) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: {path}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_others_are_done_where_one_is_bad(run, tmp_path, capsys, batch_size):
    for index in range(4):
        save(tmp_path / "in" / f"{index}.png", photo(seed=index))
    path = bad_file(tmp_path / "in", "truncated")
    assert run(tmp_path / "in", "--batch-size", batch_size, "--formats", "npy") == 1
    captured = capsys.readouterr()
    failed = [line for line in captured.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert failed[0].count(str(path)) == 1
    assert "4 of 5 inputs done" in captured.out
    assert len([name for name in written(tmp_path / "out") if name.endswith(".npy")]) == 4


def test_no_input(run, tmp_path, capsys):
    assert run(tmp_path / "none.png") == 2
    assert "none.png: no such file" in errors(capsys)[0]
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 2
    assert "no picture found" in errors(capsys)[0]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--batch-size", "0"], "batch size of 0"),
        (["--ensemble", "0"], "ensemble of 0"),
        (["--tile", "-8"], "tiles of -8"),
        (["--ensemble", "3"], "does not depend on noise"),
        (["--steps", "4"], "one-step model"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--family", "marigold"], "in_channels"),
        (["--near", "5", "--far", "2", "--formats", "ply"], "2"),
        (["--fov", "200", "--formats", "ply"], "200"),
        (["--intrinsics", "0", "0", "28", "20", "--formats", "ply"], "positive focal lengths"),
        (["--fov", "90"], "--fov without a point cloud"),
        (["--near", "2"], "--near without a point cloud"),
        (["--far", "5"], "--far without a point cloud"),
        (["--intrinsics", "50", "50", "28", "20"], "--intrinsics without a point cloud"),
        (["--intrinsics", "50", "50", "28", "20", "--fov", "90", "--formats", "ply"], "--fov with --intrinsics"),
        (["--max-depth", "30"], "--max-depth of a prediction that is not in metres"),
        (["--caption-model", "mine"], "--caption-model without --caption blip2"),
        (["--revision", "v2"], "on this machine, not on the hub"),
    ],
)
def test_senseless_options(lotus_d, tmp_path, capsys, options, word):
    """Refused once, not once an image, and before anything is written."""
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.png")
    words = ["depth", "predict", str(tmp_path / "in"), "--model", str(lotus_d), "--resolution", "64"]
    assert main([*words, "--out", str(tmp_path / "out"), *options]) == 2
    (line,) = errors(capsys)
    assert word in line
    assert not (tmp_path / "out").exists()


def test_output_folder_that_is_a_file(run, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert run(save(tmp_path / "photo.png")) == 2
    assert len(errors(capsys)) == 1
    assert (tmp_path / "out").read_text() == "mine"


def test_nan_is_never_a_result(run, tiny_model, tmp_path, capsys):
    """Half-precision overflow or broken weights: no file looks like a prediction."""
    model = tiny_model("lotus-d", copy=tmp_path / "lotus-depth-d-v2-0-disparity")
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_out.bias"][0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    assert run(save(tmp_path / "photo.png"), model=model) == 2
    assert "NaN" in errors(capsys)[0]
    assert not (tmp_path / "out").exists()
    predictor = DepthPredictor.from_pretrained(model, resolution=64, device="cpu")
    for options in ({}, {"tile": 32}):
        with pytest.raises(InputError, match="NaN or infinite values"):
            predictor(photo(), **options)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.int64),
        "photo.png",
        None,
    ],
    ids=lambda image: str(getattr(image, "shape", image)),
)
def test_predictor_refuses_what_is_no_image(deterministic, image):
    with pytest.raises(InputError, match="image"):
        deterministic([image])


def test_predictor_refuses_another_number_of_names(deterministic):
    with pytest.raises(InputError, match="1 item names for 2 images"):
        deterministic([photo(), photo()], items=["a"])
    assert deterministic([]) == []


# ---- reproducible, whatever the batch ---------------------------------------------------------------------------


def close(results, expected):
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.values, other.values, atol=1e-5 * np.abs(other.values).max(), rtol=0)


@pytest.mark.parametrize("kind", ["deterministic", "generative"])
def test_results_depend_neither_on_the_batch_nor_on_the_order(request, kind):
    predictor = request.getfixturevalue(kind)
    names = [f"picture {index}" for index in range(5)]
    images = [photo(*((40, 56) if index != 2 else (48, 32)), seed=index) for index in range(5)]
    alone = [predictor(image, items=[name], seed=3) for image, name in zip(images, names, strict=True)]
    assert len({result.values.tobytes() for result in alone}) == 5
    for batch_size in (1, 2, 5):
        close(predictor(images, items=names, seed=3, batch_size=batch_size), alone)
    order = [3, 0, 4, 2, 1]
    shuffled = predictor([images[i] for i in order], items=[names[i] for i in order], seed=3, batch_size=2)
    close(shuffled, [alone[i] for i in order])


def test_one_network_call_gives_equal_noise_and_equal_answers(generative):
    """Straight at the model: the rows of a batch of 4 against 4 batches of 1."""
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 32, 40), dtype=np.float32)).clamp(-1, 1)
    together = generative.raw(images, seed=1, items=list("abcd"))
    for index, name in enumerate("abcd"):
        single = generative.raw(images[index : index + 1], seed=1, items=[name])
        torch.testing.assert_close(together[index : index + 1], single, atol=float(1e-5 * single.abs().max()), rtol=0)
    same = generative.raw(images[:1].expand(2, -1, -1, -1), seed=1, items=["a", "b"])
    assert not torch.allclose(same[0], same[1], atol=1e-3)


def test_seed(generative, deterministic):
    first, again, other = (generative(photo(), seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_array_equal(deterministic(photo(), seed=1).values, deterministic(photo(), seed=2).values)


def test_seed_on_the_command_line(run, tmp_path, lotus_g):
    for index in range(3):
        save(tmp_path / "in" / f"{index}.png", photo(seed=index))
    maps = {}
    for out, words in {
        "a": ["--seed", "5"],
        "b": ["--seed", "5", "--batch-size", "3"],
        "c": ["--seed", "6"],
    }.items():
        assert run(tmp_path / "in", "--formats", "npy", *words, model=lotus_g, out=tmp_path / out) == 0
        maps[out] = np.stack([np.load(tmp_path / out / f"{index}_depth.npy") for index in range(3)])
    np.testing.assert_allclose(maps["a"], maps["b"], atol=1e-5, rtol=0)
    assert np.abs(maps["a"] - maps["c"]).max() > 1e-3


def test_sampled_posterior_is_seeded(lotus_d):
    predictor = DepthPredictor.from_pretrained(lotus_d, resolution=64, device="cpu", posterior="sample")
    assert not predictor.latent.stochastic  # members of an ensemble would agree: the image is encoded once
    first, again, other = (predictor(photo(), seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(InputError, match="posterior"):
        DepthPredictor.from_pretrained(lotus_d, device="cpu", posterior="median")(photo())


# ---- ensembles and tiles ----------------------------------------------------------------------------------------


def test_ensemble(run, tmp_path, lotus_g, generative, deterministic):
    assert run(save(tmp_path / "photo.png"), "--ensemble", "3", "--formats", "npy", model=lotus_g) == 0
    values = np.load(tmp_path / "out" / "photo_depth.npy")
    result = generative(photo(), items=["photo"], ensemble=3)
    np.testing.assert_array_equal(values, result.values)
    assert result.uncertainty.shape == (40, 56)
    assert result.uncertainty.max() > 0
    assert generative(photo()).uncertainty is None
    with pytest.raises(InputError, match="does not depend on noise"):
        deterministic(photo(), ensemble=3)


def test_ensemble_members_are_the_single_predictions_to_come(generative):
    """A larger ensemble holds the members of a smaller one."""
    image = torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 127.5 - 1
    two = generative.raw(image, seed=0, items=["a"], ensemble=2)
    three = generative.raw(image, seed=0, items=["a"], ensemble=3)
    torch.testing.assert_close(three[:2], two, atol=1e-5, rtol=1e-5)


def test_tiles(run, tmp_path, deterministic, generative, capsys):
    large = photo(100, 150)
    assert run(save(tmp_path / "photo.png", large), "--tile", "64", "--formats", "npy") == 0
    values = np.load(tmp_path / "out" / "photo_disparity.npy")
    assert values.shape == (100, 150)
    np.testing.assert_array_equal(values, deterministic(large, tile=64).values)
    assert not np.array_equal(values, deterministic(large).values)
    # smaller than a tile: as without tiles
    np.testing.assert_array_equal(deterministic(large, tile=150).values, deterministic(large).values)
    with pytest.raises(InputError, match="cannot be combined"):
        generative(large, tile=64, ensemble=2)


def test_tiles_of_normals(tiny_model):
    model = tiny_model("lotus-d", "lotus-normal-d-v1-1")
    predictor = DepthPredictor.from_pretrained(model, resolution=64, device="cpu")
    normals = predictor(photo(90, 70), tile=48).values
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4)


# ---- videos -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    def make(name="clip.mp4", seed=0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        still = np.kron(photo(4, 6, seed), np.ones((8, 8, 1), np.uint8))
        return write_video(path, [np.roll(still, shift, axis=1) for shift in range(5)], fps=10)

    return make


def test_video(run, tmp_path, clip, lotus_g):
    assert run(clip(), "--formats", "colour", "npy", "--batch-size", "2", model=lotus_g) == 0
    out = tmp_path / "out"
    frames = [frame.image for frame in read_video(out / "clip_depth.mp4")]
    assert len(frames) == 5
    assert frames[0].shape == (32, 48, 3)
    maps = [name for name in written(out / "clip_frames") if name.endswith(".npy")]
    assert maps == [f"{number:06d}_depth.npy" for number in range(5)]
    side = json.loads((out / "clip_frames" / "000000_depth.json").read_text())
    assert side["scale"] == "affine-invariant"


def test_video_in_colour_only_and_not_twice(run, tmp_path, clip, capsys):
    path = clip()
    assert run(path, "--formats", "colour") == 0
    assert written(tmp_path / "out") == ["clip_disparity.mp4"]
    before = (tmp_path / "out" / "clip_disparity.mp4").read_bytes()
    capsys.readouterr()
    assert run(path, "--formats", "colour") == 2
    assert "clip_disparity.mp4: exists already" in errors(capsys)[0]
    assert (tmp_path / "out" / "clip_disparity.mp4").read_bytes() == before
    assert run(path, "--formats", "colour", "--overwrite") == 0


def test_still_frames_do_not_flicker(tmp_path, run, lotus_g):
    """A generative model sees the same noise in every frame."""
    still = np.kron(photo(4, 6), np.ones((8, 8, 1), np.uint8))
    path = write_video(tmp_path / "still.mp4", [still] * 4, fps=10)
    assert run(path, "--formats", "npy", model=lotus_g) == 0
    maps = [np.load(tmp_path / "out" / "still_frames" / f"{number:06d}_depth.npy") for number in range(4)]
    decoded = [frame.image for frame in read_video(path)]
    alike = [index for index in range(1, 4) if np.array_equal(decoded[index], decoded[0])]
    assert alike
    for index in alike:
        np.testing.assert_array_equal(maps[index], maps[0])


def test_videos_of_one_name_stay_apart(run, tmp_path, clip):
    assert run(clip("a/clip.mp4", 0), clip("b/clip.mp4", 1), "--formats", "colour") == 0
    videos = written(tmp_path / "out")
    assert len(videos) == 2
    assert len({(tmp_path / "out" / name).read_bytes() for name in videos}) == 2


def test_video_beside_pictures_and_a_broken_one(run, tmp_path, clip, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    assert run(save(tmp_path / "photo.png"), clip(), broken, "--formats", "colour") == 1
    captured = capsys.readouterr()
    assert "2 of 3 inputs done" in captured.out
    assert captured.err.count("failed: ") == 1
    assert written(tmp_path / "out") == ["clip_disparity.mp4", "photo_disparity.json", "photo_disparity_colour.png"]
    assert run(broken, out=tmp_path / "other") == 2


def test_intrinsics_reach_the_points(run, tmp_path, clip):
    """Of pictures and of frames alike: twice the focal length halves the width of the cloud."""
    picture = save(tmp_path / "photo.png")
    widths = {}
    for focal in (40, 80):
        camera = ["--intrinsics", focal, focal, 28, 20, "--formats", "ply", "--near", "1", "--far", "1.0001"]
        out = tmp_path / str(focal)
        assert run(picture, clip(f"{focal}/clip.mp4"), *camera, out=out) == 0
        for name in ("photo_disparity.ply", "clip_frames/000000_disparity.ply"):
            import trimesh

            points = np.asarray(trimesh.load(out / name).vertices)
            widths[focal, name] = np.ptp(points[:, 0])
    for name in ("photo_disparity.ply", "clip_frames/000000_disparity.ply"):
        assert widths[40, name] == pytest.approx(2 * widths[80, name], rel=1e-2)
