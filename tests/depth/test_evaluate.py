"""Whole evaluations: the official numbers, real frames against an independent computation, failures, resuming."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import socket
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope_depth.archives import DepthArchive, DepthSample
from priorscope_depth.evaluate import evaluate_depth, in_space, resized_input
from priorscope_depth.evaluate_normals import compare_normals, evaluate_normals
from priorscope_depth.metrics import DEPTH_METRICS, NORMAL_THRESHOLDS
from priorscope_depth.normals_data import NormalsSample
from priorscope_depth.protocols import PROTOCOLS, depth_protocol
from priorscope_depth.scores import compare

OFFICIAL_NAMES = {
    "abs_relative_difference": "abs_rel",
    "squared_relative_difference": "sq_rel",
    "rmse_linear": "rmse",
    "rmse_log": "rmse_log",
    "log10": "log10",
    "delta1_acc": "delta1",
    "delta2_acc": "delta2",
    "delta3_acc": "delta3",
    "i_rmse": "i_rmse",
    "silog_rmse": "silog",
}
RTOL = 1e-5  # golden/depth/README.md, eval_e2e


class Luma:
    """The stand-in network of the golden cases: the mean of the channels."""

    def __init__(self, space="depth"):
        self.space = space
        self.shapes = []

    def __call__(self, rgb):
        assert rgb.dtype == torch.float32
        assert rgb.min() >= 0
        assert rgb.max() <= 1
        self.shapes.append(tuple(rgb.shape))
        return rgb.mean(dim=1)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_archive(root, protocol, samples):
    """A miniature in the true layout: members "./path", a list without a last newline."""
    lines, path = [], root / protocol.tar
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for files in samples:
            lines.append(" ".join(files))
            for name, data in files.items():
                info = tarfile.TarInfo("./" + name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    list_file = root / "data_split" / protocol.list_file
    list_file.parent.mkdir(parents=True)
    list_file.write_text("\n".join(lines))
    return DepthArchive(root, protocol)


def golden_archive(root, name, case, tensors):
    kind = {"nyu_v2": "nyuv2"}.get(case["dataset"], case["dataset"])
    protocol = depth_protocol(kind)
    config = case["config"]
    assert set(config) <= {"eigen_valid_mask", "processing_res", "alignment_max_res"}
    if config.get("eigen_valid_mask") == "false":
        protocol = replace(protocol, region=None)
    if "processing_res" in config:
        protocol = replace(protocol, processing_res=config["processing_res"])
    if "alignment_max_res" in config:
        protocol = replace(protocol, alignment_max_res=config["alignment_max_res"])
    group, samples = name.partition(".")[0], []
    for i in range(sum(key.startswith(f"{group}.") and key.endswith(".rgb") for key in tensors)):
        rgb, depth = tensors[f"{group}.{i}.rgb"], tensors[f"{group}.{i}.depth"]
        if kind == "diode":
            files = {f"in/{i}.png": png(rgb), f"in/{i}_depth.npy": npy(depth[..., None])}
            files[f"in/{i}_depth_mask.npy"] = npy(tensors[f"{group}.{i}.mask"].astype(np.float32))
        else:
            files = {f"scene/rgb_{i:04d}.png": png(rgb), f"scene/depth_{i:04d}.png": png(depth.astype(np.uint16))}
        samples.append(files)
    return write_archive(root, protocol, samples), protocol


def test_golden_depth_evaluation(golden_files, read_json, tmp_path):
    for path in golden_files("depth", "eval_e2e*.json"):
        golden, tensors = read_json(path), load_file(path.with_suffix(".safetensors"))
        assert golden["cases"]
        for number, (name, case) in enumerate(golden["cases"].items()):
            archive, protocol = golden_archive(tmp_path / f"{path.stem}_{number}", name, case, tensors)
            space = "disparity" if "disparity" in case["alignment"] else "depth"
            found = evaluate_depth(Luma(), archive, protocol, alignments=[space], compat="lotus", progress=False)
            assert found.failures == []
            means = found.means(space)
            for official, value in case["metrics"].items():
                np.testing.assert_allclose(means[OFFICIAL_NAMES[official]], value, rtol=RTOL, err_msg=name)
            expected = list(csv.DictReader(case["per_sample_csv"].splitlines()))
            assert found.images == len(expected)
            for ours, theirs in zip(found.per_image(space), expected, strict=True):
                for official, own in OFFICIAL_NAMES.items():
                    np.testing.assert_allclose(
                        ours[own], float(theirs[official]), rtol=RTOL, err_msg=f"{name} {theirs['filename']}"
                    )


# ------------------------------------------------------------------------------------------------------- real frames


def plain_metrics(p, g):
    return {
        "abs_rel": np.mean(np.abs(p - g) / g),
        "rmse": np.sqrt(np.mean((p - g) ** 2)),
        "delta1": np.mean(np.maximum(p / g, g / p) < 1.25),
        "silog": 100 * np.std(np.log(p / g)),
    }


class Ramp(Luma):
    """Far above, near below: 1 in the top row, 1 / H in the last."""

    def __call__(self, rgb):
        height, width = rgb.shape[-2:]
        return (torch.arange(height, 0, -1.0)[None, :, None] / height).expand(len(rgb), height, width)


@pytest.mark.parametrize("space", ["depth", "disparity"])
@pytest.mark.parametrize("name", ["nyuv2", "kitti"])
def test_real_frames_against_an_independent_computation(shared_data, tmp_path, name, space):
    protocol, folder = depth_protocol(name), shared_data("depth")
    if name == "nyuv2":
        pairs = [(f"rgb_{i}.jpg", f"sync_depth_{i}.png") for i in ("00000", "00050")]
        pairs = [(folder / "nyu_raw" / a, folder / "nyu_raw" / b) for a, b in pairs]
    else:
        pairs = [
            (folder / "kitti_raw/rgb" / f, folder / "kitti_raw/depth" / f) for f in ("0000000005.png", "0000000100.png")
        ]
    samples = [{f"{i}/{a.name}": a.read_bytes(), f"{i}/gt/{b.name}": b.read_bytes()} for i, (a, b) in enumerate(pairs)]
    archive = write_archive(tmp_path, protocol, samples)
    found = evaluate_depth(Ramp(space), archive, protocol, alignments=[space], progress=False, batch_size=2)
    assert found.failures == []
    for row, (_, depth_path) in zip(found.per_image(space), pairs, strict=True):
        depth = np.asarray(Image.open(depth_path)).astype(np.float64)
        if name == "nyuv2":
            depth, box, limits = depth / 1000, np.s_[45:471, 41:601], (1e-3, 10)
        else:
            left = (depth.shape[1] - 1216) // 2
            depth, box, limits = depth[-352:, left : left + 1216] / 256, np.s_[117:321, 43:1172], (1e-5, 80)
        p = np.repeat(np.arange(len(depth), 0, -1)[:, None] / len(depth), depth.shape[1], axis=1)[box]
        g = depth[box]
        keep = (g > limits[0]) & (g < limits[1])
        p, g = p[keep], g[keep]
        assert row["valid_pixels"] == g.size > 1000
        scale, shift = np.polyfit(p, g if space == "depth" else 1 / g, 1)
        aligned = scale * p + shift
        aligned = np.clip(aligned if space == "depth" else 1 / np.maximum(aligned, 1e-3), *limits)
        assert (row["scale"], row["shift"]) == pytest.approx((scale, shift), rel=1e-4)
        for metric, value in plain_metrics(aligned, g).items():
            assert row[metric] == pytest.approx(value, rel=1e-4), metric


def test_kitti_road_is_a_plane_in_disparity_space(shared_data, tmp_path):
    protocol, folder = depth_protocol("kitti"), shared_data("depth") / "kitti_raw"
    names = ("0000000005.png", "0000000100.png")
    samples = [
        {f"rgb/{n}": (folder / "rgb" / n).read_bytes(), f"gt/{n}": (folder / "depth" / n).read_bytes()} for n in names
    ]
    archive = write_archive(tmp_path, protocol, samples)
    found = evaluate_depth(Luma(), archive, protocol, baselines=True, progress=False)
    for space in ("depth", "disparity"):
        plane, constant = found.means(space, "plane"), found.means(space, "constant")
        assert plane["abs_rel"] < constant["abs_rel"]
    assert found.means("disparity", "plane")["delta1"] > found.means("depth", "plane")["delta1"]


# -------------------------------------------------------------------------------------------------------- the library


def make_samples(count=4, shape=(30, 40), seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        depth = rng.uniform(1, 9, shape).astype(np.float32)
        rgb = np.clip(25 * depth[..., None] + rng.normal(0, 20, (*shape, 3)), 0, 255).astype(np.uint8)
        samples.append(DepthSample(f"s{i}", rgb, depth, rng.uniform(size=shape) < 0.9))
    return samples


PROTOCOL = replace(depth_protocol("scannet"), name="own")


def run(predictor=None, samples=None, **options):
    return evaluate_depth(predictor or Luma(), samples or make_samples(), PROTOCOL, progress=False, **options)


def test_a_prediction_is_aligned_in_its_own_space_only():
    for own, other in (("depth", "disparity"), ("disparity", "depth")):
        found = run(Luma(own))
        assert found.alignments() == [own]
        assert f"affine-invariant {own}, which cannot be turned into {other}" in found.undefined[other]
        with pytest.raises(InputError, match="cannot be turned into"):
            found.means(other)
        with pytest.raises(InputError, match=r"nothing to align in .* official convention"):
            run(Luma(own), alignments=[other])
        official = run(Luma(own), compat="lotus")
        assert official.alignments() == ["depth", "disparity"]
        assert not official.undefined


class Metres:
    """A metric model that is right but for a factor; the pictures tell it the depth."""

    scale = "metric"

    def __init__(self, samples, space):
        self.space = space
        self.depth = {sample.rgb.tobytes(): torch.from_numpy(sample.depth) for sample in samples}

    def __call__(self, rgb):
        pictures = (rgb * 255).round().byte().permute(0, 2, 3, 1).numpy()
        depth = torch.stack([self.depth[picture.tobytes()] for picture in pictures]).clamp(min=1e-3)
        return 3 * depth if self.space == "depth" else 1 / (3 * depth)


@pytest.mark.parametrize("space", ["depth", "disparity"])
@pytest.mark.parametrize("compat", ["priorscope", "lotus"])
def test_a_metric_prediction_is_aligned_in_both_spaces(space, compat):
    samples = make_samples()
    found = run(Metres(samples, space), samples, compat=compat)
    assert found.alignments() == ["depth", "disparity"]
    assert not found.undefined
    for alignment in found.alignments():
        assert found.means(alignment)["abs_rel"] < 1e-4
    assert run(Metres(samples, space), samples, alignments=["disparity"]).alignments() == ["disparity"]


@pytest.mark.parametrize(("space", "other"), [("depth", "disparity"), ("disparity", "depth")])
def test_a_metric_prediction_of_nothing_is_not_inverted_to_infinity(space, other):
    metres = Metres([], space)
    prediction = np.array([[0, 1e-5, 0.5, 4]], np.float32)
    np.testing.assert_allclose(in_space(prediction, metres, other), [[1000, 1000, 2, 0.25]], rtol=1e-6)
    assert in_space(prediction, metres, space) is prediction


def test_scores_of_different_conditions_are_not_compared():
    ours, official = run(), run(compat="lotus")
    table = compare([ours.score("depth", label="a"), run(noise_predictor()).score("depth", label="b")])
    assert [row["label"] for row in table] == ["a", "b"]
    assert set(DEPTH_METRICS) < set(table[0])
    with pytest.raises(InputError, match=r"different alignment cannot be compared \(depth, disparity\)"):
        compare([official.score("depth"), official.score("disparity")])
    with pytest.raises(InputError, match=r"different compat cannot be compared \(lotus, priorscope\)"):
        compare([ours.score("depth"), official.score("depth")])
    with pytest.raises(InputError, match="different images"):
        compare([ours.score("depth"), run(samples=make_samples(3)).score("depth")])
    other = evaluate_depth(Luma(), make_samples(), replace(PROTOCOL, max_depth=5.0), progress=False)
    with pytest.raises(InputError, match="different protocol"):
        compare([ours.score("depth"), other.score("depth")])
    with pytest.raises(InputError, match="no scores"):
        compare([])


def noise_predictor():
    generator = torch.Generator().manual_seed(0)

    class Noise(Luma):
        def __call__(self, rgb):
            return torch.rand(len(rgb), *rgb.shape[2:], generator=generator)

    return Noise()


def test_published_figures_need_the_full_set():
    nyu = PROTOCOLS["nyuv2"]
    found = evaluate_depth(Luma(), make_samples(2), nyu, compat="marigold", progress=False)
    assert found.published("depth") == []
    full = replace(found, rows=[found.rows[0]] * nyu.images)
    assert [row.values["nyuv2"] for row in full.published("depth")] == [0.054, 0.052, 0.056]
    assert full.published("disparity") == []


def test_batches_group_images_of_one_size_and_change_nothing():
    samples = make_samples(3) + [replace(s, key=f"w{s.key}") for s in make_samples(2, (20, 50))]
    samples = [samples[i] for i in (0, 3, 1, 4, 2)]
    predictor = Luma()
    one, many = run(samples=samples), run(predictor, samples, batch_size=5)
    assert sorted(predictor.shapes) == [(2, 3, 20, 50), (3, 3, 30, 40)]
    assert [r["key"] for r in many.rows] == [s.key for s in samples]
    for a, b in zip(one.rows, many.rows, strict=True):
        assert a["results"]["prediction/depth"] == pytest.approx(b["results"]["prediction/depth"], rel=1e-5)


def test_noise_follows_the_image_whatever_the_batch_and_the_order():
    class Generative(Luma):
        def __call__(self, rgb, items=None):
            noise = [torch.rand(rgb.shape[2:], generator=torch.Generator().manual_seed(int(k[1:]))) for k in items]
            return rgb.mean(dim=1) + torch.stack(noise)

    samples = make_samples(4)
    one, many = run(Generative(), samples), run(Generative(), samples[::-1], batch_size=3)
    for a, b in zip(one.per_image("depth"), many.per_image("depth")[::-1], strict=True):
        assert a.pop("key") == b.pop("key")
        assert a == pytest.approx(b, rel=1e-5)
    seen = []

    def normals(rgb, items):
        seen.append(items)
        return rgb

    evaluate_normals(normals, normal_samples(2), batch_size=2, progress=False)
    assert seen == [["n/0", "n/1"]]


def test_the_protocol_resizes_and_the_official_resize_rounds():
    rgb = make_samples(1)[0].rgb
    assert resized_input(rgb, 0).shape == (3, 30, 40)
    torch.testing.assert_close(resized_input(rgb, 0) * 255, torch.from_numpy(rgb).permute(2, 0, 1).float())
    fine, rounded = resized_input(rgb, 21) * 255, resized_input(rgb, 21, rounded=True) * 255
    assert fine.shape == (3, 15, 21)
    torch.testing.assert_close(rounded, fine.round(), atol=1e-3, rtol=0)
    assert (fine - rounded).abs().max() > 0.1
    predictor, protocol = Luma(), replace(PROTOCOL, processing_res=20)
    evaluate_depth(predictor, make_samples(1), protocol, progress=False)
    assert predictor.shapes == [(1, 3, 15, 20)]
    marigold = replace(protocol, marigold_processing_res=80)
    evaluate_depth(predictor, make_samples(1), marigold, compat="marigold", progress=False)
    assert predictor.shapes[-1] == (1, 3, 60, 80)


def test_a_bad_image_is_reported_and_the_rest_goes_on():
    samples = make_samples(5)
    samples[1] = replace(samples[1], valid=np.zeros_like(samples[1].valid))
    broken = samples[3].depth.copy()
    broken[samples[3].valid] = np.nan
    samples[3] = replace(samples[3], depth=broken)
    found = run(samples=samples, batch_size=5)
    assert [r["key"] for r in found.rows] == ["s0", "s2", "s4"]
    assert [f.key for f in found.failures] == ["s1", "s3"]
    assert "0 usable pixels" in found.failures[0].error
    assert "ground truth is NaN" in found.failures[1].error
    summary = json.loads(json.dumps(found.summary()))
    assert summary["images"] == 3
    assert len(summary["failures"]) == 2
    assert summary["means"]["prediction/depth"]["abs_rel"] > 0


def test_predictions_with_nan_or_of_a_wrong_shape_are_failures():
    class Nan(Luma):
        def __call__(self, rgb):
            return rgb.mean(dim=1) * math.nan

    class Small(Luma):
        def __call__(self, rgb):
            return rgb.mean(dim=1)[:, ::2]

    with pytest.raises(InputError, match=r"none of 4 images .* s0: the prediction is NaN"):
        run(Nan())
    with pytest.raises(InputError, match=r"the predictor gave \[1, 15, 40\] where \[1, 30, 40\] is expected"):
        run(Small())


def test_a_constant_prediction_equals_the_constant_baseline():
    class Constant(Luma):
        def __call__(self, rgb):
            return torch.full((len(rgb), *rgb.shape[2:]), 0.5)

    found = run(Constant(), baselines=True)
    assert found.means("depth") == pytest.approx(found.means("depth", "constant"), rel=1e-5)
    assert found.alignments("plane") == ["depth", "disparity"]
    assert [row["scale"] for row in found.per_image("depth")] == [0.0] * 4


def test_wrong_arguments():
    with pytest.raises(InputError, match="no sample"):
        evaluate_depth(Luma(), [], PROTOCOL)
    with pytest.raises(InputError, match="one or two different spaces"):
        run(alignments=[])
    with pytest.raises(InputError, match="one or two different spaces"):
        run(alignments=["depth", "depth"])
    with pytest.raises(InputError, match="unknown space 'normals'"):
        run(Luma("normals"))
    with pytest.raises(InputError, match="unknown evaluation convention"):
        run(compat="midas")


def test_a_run_goes_on_where_it_stopped(tmp_path):
    samples = make_samples(4)

    class Dies(Luma):
        def __call__(self, rgb):
            if len(self.shapes) == 2:
                raise KeyboardInterrupt
            return super().__call__(rgb)

    folder = RunFolder.create(tmp_path / "run", {"data": "own"})
    with pytest.raises(KeyboardInterrupt):
        run(Dies(), samples, run=folder)
    again = Luma()
    resumed = run(again, samples, run=RunFolder.create(tmp_path / "run", {"data": "own"}, resume=True))
    assert len(again.shapes) == 2
    assert resumed.rows == run(samples=samples).rows
    for options in ({"baselines": True}, {"compat": "lotus"}):
        with pytest.raises(InputError, match=r"holds rows of another evaluation .*first: s0"):
            run(samples=samples, run=RunFolder(tmp_path / "run"), **options)


# ------------------------------------------------------------------------------------------------------------ normals


def normal_samples(count=3, shape=(20, 45)):
    rng = np.random.default_rng(3)
    samples = []
    for i in range(count):
        n = rng.normal(size=(3, *shape))
        n = (n / np.linalg.norm(n, axis=0)).astype(np.float32)
        rgb = np.round((n + 1) / 2 * 255).astype(np.uint8).transpose(1, 2, 0)
        rgb = np.clip(rgb + rng.integers(0, 30 * (i + 1), rgb.shape), 0, 255).astype(np.uint8)
        samples.append(NormalsSample(f"n/{i}", rgb, n, rng.uniform(size=shape) < 0.3 * (i + 1)))
    return samples


def from_colour(rgb):
    assert rgb.shape[2] % 32 == rgb.shape[3] % 32 == 0
    return rgb * 2 - 1


def test_normals_pooled_over_pixels_and_over_images():
    samples = normal_samples()
    errors = []
    for s in samples:
        p = (s.rgb / 255 * 2 - 1).transpose(2, 0, 1)
        cosine = (p * s.normals).sum(0) / np.linalg.norm(p, axis=0) / np.linalg.norm(s.normals, axis=0)
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1)))[s.valid])
    joined = np.concatenate(errors)
    pixels = evaluate_normals(from_colour, samples, batch_size=2, progress=False)
    images = evaluate_normals(from_colour, samples, pooling="images", progress=False)
    assert pixels.pixels == joined.size
    assert pixels.means["mean"] == pytest.approx(joined.mean(), rel=1e-4)
    assert pixels.means["median"] == pytest.approx(np.median(joined), rel=1e-4)
    assert images.means["mean"] == pytest.approx(np.mean([e.mean() for e in errors]), rel=1e-4)
    assert images.means["median"] == pytest.approx(np.mean([np.median(e) for e in errors]), rel=1e-4)
    for name, threshold in NORMAL_THRESHOLDS.items():
        assert pixels.means[name] == pytest.approx(100 * np.mean(joined < threshold), abs=0.2)
    assert abs(pixels.means["mean"] - images.means["mean"]) > 0.1
    with pytest.raises(InputError, match="different pooling cannot be compared"):
        compare_normals({"a": pixels, "b": images})
    assert compare_normals({"a": pixels})[0]["mean"] == pixels.means["mean"]


def test_normals_conventions():
    samples = normal_samples()
    left = evaluate_normals(from_colour, samples, progress=False)

    def mirrored(rgb):
        return from_colour(rgb) * torch.tensor([-1.0, 1, 1])[:, None, None]

    assert evaluate_normals(mirrored, samples, x_axis="right", progress=False).means == pytest.approx(left.means)
    assert evaluate_normals(mirrored, samples, progress=False).means["mean"] > left.means["mean"] + 10
    marigold = evaluate_normals(from_colour, samples, pooling="images", compat="marigold", progress=False)
    assert all(row["mean"] == round(row["mean"], 4) for row in marigold.rows)
    seen = []

    def spy(rgb):
        seen.append(float(rgb.min()))
        return from_colour(rgb)

    evaluate_normals(spy, samples[:1], compat="lotus", progress=False)
    assert seen[0] == pytest.approx((-2.1179039 + 1) / 2, abs=1e-5)


def test_normals_runs_resume_and_name_lost_errors(tmp_path):
    samples = normal_samples()
    whole = evaluate_normals(from_colour, samples, progress=False)
    folder = RunFolder.create(tmp_path / "run", {"data": "own"})
    evaluate_normals(from_colour, samples[:2], run=folder, progress=False)
    calls = []

    def counted(rgb):
        calls.append(len(rgb))
        return from_colour(rgb)

    resumed = evaluate_normals(counted, samples, run=folder, progress=False)
    assert calls == [1]
    assert resumed.means == whole.means
    next((tmp_path / "run/angular_errors").glob("*.npy")).unlink()
    with pytest.raises(InputError, match=r"angular errors of 1 images of an earlier run are gone"):
        evaluate_normals(counted, samples, run=folder, progress=False)


def test_normals_failures_and_wrong_arguments():
    samples = normal_samples()
    samples[1] = replace(samples[1], valid=np.zeros_like(samples[1].valid))
    found = evaluate_normals(from_colour, samples, progress=False)
    assert [f.key for f in found.failures] == ["n/1"]
    assert json.loads(json.dumps(found.summary()))["images"] == 2
    with pytest.raises(InputError, match=r"none of 3 images .* the prediction is NaN"):
        evaluate_normals(lambda rgb: rgb * math.nan, samples, progress=False)
    with pytest.raises(InputError, match=r"the predictor gave \[1, 32, 64\]"):
        evaluate_normals(lambda rgb: rgb[:, 0], samples, progress=False)
    with pytest.raises(InputError, match="unknown pooling"):
        evaluate_normals(from_colour, samples, pooling="sets")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="x axis"):
        evaluate_normals(from_colour, samples, x_axis="up")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no sample"):
        evaluate_normals(from_colour, [])


# ---------------------------------------------------------------------------------------------------- two processes

WORKER = """
import json, sys
import numpy as np, torch
from priorscope_depth.archives import DepthSample
from priorscope_depth.evaluate import evaluate_depth
from priorscope_depth.evaluate_normals import evaluate_normals
from priorscope_depth.normals_data import NormalsSample
from priorscope_depth.protocols import depth_protocol

rng = np.random.default_rng(0)
samples, normals = [], []
for i in range(5):
    rgb = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
    depth = rng.uniform(1, 9, (16, 20)).astype(np.float32)
    samples.append(DepthSample(str(i), rgb, depth, depth > 1 + i))
    normals.append(NormalsSample(str(i), rgb, rng.normal(size=(3, 16, 20)).astype(np.float32), depth > 1 + i))

class Luma:
    space = "depth"
    def __call__(self, rgb):
        return rgb.mean(dim=1)

depth = evaluate_depth(Luma(), samples, depth_protocol("scannet"), progress=False)
angles = evaluate_normals(lambda rgb: rgb * 2 - 1, normals, progress=False)
with open(sys.argv[1], "w") as file:
    json.dump([depth.rows, depth.means("depth"), angles.rows, angles.means], file)
"""


def test_two_processes_find_what_one_does(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(rank, count):
        group = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        environment = {k: v for k, v in os.environ.items() if k not in group} | (group if count > 1 else {})
        command = [sys.executable, str(script), str(tmp_path / f"{count}_{rank}.json")]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    for process in [start(0, 1), start(0, 2), start(1, 2)]:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    one, *two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1_0", "2_0", "2_1"))
    assert two == [one, one]


@pytest.mark.slow
def test_the_launched_command_finds_what_the_command_does(tmp_path, launcher):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    figures = {}
    for name, start in (("alone", [sys.executable]), ("launched", launcher)):
        out = tmp_path / name
        command = [*start, "-m", "priorscope.cli", "depth", "evaluate", "scenes", "--limit=4", f"--out={out}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        figures[name] = json.loads((out / "metrics.json").read_text())
    assert figures["launched"] == figures["alone"]
    rows = [(tmp_path / name / "items.jsonl").read_text().count("\n") for name in figures]
    assert rows == [4, 4]
