"""From a survey to a model, from a plan to images and a catalogue: by the real commands."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_astro import generate as generating
from priorscope_astro.configs import GenerateConfig
from priorscope_astro.data.catalogue import read_catalogue
from priorscope_astro.data.learnt import learnt_by
from priorscope_astro.data.splits import Splits
from priorscope_astro.diffusion.model import load_galaxy_model
from priorscope_astro.model_files import digest_of, part_files
from priorscope_astro.plan import Plan
from priorscope_astro.samplers import make_sampler, reference_pool

LOOP = ["--batch-size", "4", "--warmup", "2", "--device", "cpu", "--log-every", "2", "--checkpoint-every", "4"]
LOOP += ["--validate-every", "100"]


def train(survey, out, *options, mode="display", steps=6):
    words = ["astro", "train", str(survey), "--mode", mode, "--size", "tiny", "--side", "16", "--out", str(out)]
    return main([*words, "--steps", str(steps), *LOOP, *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, simulated_survey):
    out = tmp_path_factory.mktemp("runs") / "display"
    assert train(simulated_survey, out) == 0
    return out


@pytest.fixture(scope="module")
def planned(tmp_path_factory, simulated_survey):
    """plan.ecsv of ten galaxies, splits.ecsv beside it."""
    out = tmp_path_factory.mktemp("plans") / "plan.ecsv"
    words = [
        "astro",
        "plan",
        str(simulated_survey),
        "--out",
        str(out),
        "--draw",
        "balanced",
        "--total",
        "10",
        "--condition",
        "tags",
    ]
    assert main(words) == 0
    return out


def generate(plan, model, out, *options):
    words = ["astro", "generate", str(plan), "--model", str(model), "--out", str(out), "--steps", "2"]
    return main([*words, "--device", "cpu", *options])


def test_training_leaves_a_whole_run_folder(trained):
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "metrics.json", "report.html"):
        assert (trained / name).stat().st_size > 0
    assert json.loads((trained / "metrics.json").read_text())["finished"] is True
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "held_out_loss" in row] == [0, 6]
    assert len(list((trained / "figures").glob("step-*.png"))) == 2
    spec = json.loads((trained / "model/priorscope.json").read_text())
    assert (spec["mode"], spec["side"], spec["bands"]) == ("display", 16, ["R", "G", "B"])


def test_a_stopped_training_goes_on_as_if_it_had_not(trained, simulated_survey, tmp_path, capsys):
    assert train(simulated_survey, tmp_path / "run", "--max-seconds", "1e-9") == 0
    assert "--resume goes on" in capsys.readouterr().out
    assert train(simulated_survey, tmp_path / "run", "--resume") == 0
    last = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in (trained, tmp_path / "run")]
    assert last[0]["loss"] == last[1]["loss"]
    weights = "model/unet/diffusion_pytorch_model.safetensors"
    assert (trained / weights).read_bytes() == (tmp_path / "run" / weights).read_bytes()


def test_training_on_the_training_split_alone(planned, simulated_survey, tmp_path):
    from priorscope_astro.configs import TrainConfig
    from priorscope_astro.train import read_sets

    splits = Splits.read(planned.parent / "splits.ecsv")
    sets = read_sets(TrainConfig(simulated_survey, mode="display", splits=planned.parent / "splits.ecsv"))
    assert sorted(sets.learnt.ids) == list(splits.ids("train"))
    assert sorted(sets.looked_at.ids) == list(splits.ids("validation"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--question-dropout", "2"], "--question-dropout 2.0"),
        (["--side", "18"], "multiples of 4"),
        (["--start", "nowhere"], "priorscope.json: is missing"),
        (["--method", "galaxysd"], "Give --start"),
        (["--base", "sd"], "--base goes with"),
        (["--lr", "0"], "--lr 0.0"),
        (["--lora", "4"], "--lora 4 for a network that begins with random weights"),
        (["--patch", "0"], "--patch 0"),
    ],
)
def test_bad_training_options(simulated_survey, tmp_path, capsys, options, words):
    options = ["--patch", "2", *options]
    assert train(simulated_survey, tmp_path / "run", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_flux_of_pictures_is_refused(simulated_survey, tmp_path, capsys):
    import h5py

    with h5py.File(tmp_path / "Galaxy10_DECals.h5", "w") as file:
        file["images"], file["ans"] = np.zeros((12, 16, 16, 3), np.uint8), np.arange(12) % 10
    for data in (tmp_path / "Galaxy10_DECals.h5", simulated_survey / "gz2_hart16.csv"):
        assert train(data, tmp_path / "run", mode="flux") == 2
        assert f"{data}: holds no flux. Pictures are learnt with --mode display." in capsys.readouterr().err


def test_a_start_is_not_silently_of_another_size(trained, simulated_survey, tmp_path, capsys):
    """--size and --patch describe a new network: what says something else than --start is refused."""
    out, start = tmp_path / "run", ["--start", str(trained)]
    words = ["astro", "train", str(simulated_survey), "--out", str(out), "--mode", "display", "--side", "16", *start]
    for options, said in (
        (["--patch", "4"], "is a model of patch 2, and --patch 4 is asked for"),
        (["--size", "small"], "is a model of size tiny, and --size small is asked for"),
    ):
        assert main([*words, "--steps", "1", *LOOP, *options]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()
    assert main([*words, "--steps", "1", *LOOP, "--size", "tiny"]) == 0
    spec = json.loads((out / "model/priorscope.json").read_text())
    assert (spec["patch"], spec["trained_on"]) == (2, "")
    shutil.rmtree(out)
    assert main([*words, "--steps", "1", *LOOP, "--trained-on", "my galaxies"]) == 0
    assert json.loads((out / "model/priorscope.json").read_text())["trained_on"] == "my galaxies"
    shutil.rmtree(out)
    for options, said in (
        (["--patch", "2"], "--patch and --size go with --method diffusion"),
        (["--question-dropout", "0.5"], "--question-dropout goes with --method diffusion"),
        (["--trained-on", "mine"], "--trained-on goes with --method diffusion"),
    ):
        assert main([*words, "--steps", "1", "--method", "galaxysd", *options]) == 2
        assert said in capsys.readouterr().err


def test_the_hash_covers_all_that_acts(trained, tmp_path):
    """Not the U-Net alone: a changed stretch, PSF or configuration draws other galaxies too."""
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)

    def digest():
        return digest_of(load_galaxy_model(model, device="cpu").files)

    first = digest()
    assert set(load_galaxy_model(model, device="cpu").files) == {
        str(path.relative_to(model)) for path in model.rglob("*") if path.is_file() and path.name != "learnt.json"
    }
    spec = json.loads((model / "priorscope.json").read_text())
    (model / "priorscope.json").write_text(json.dumps(spec | {"offset": [0.3, 0.3, 0.3]}))
    second = digest()
    save_file({"psf": torch.ones(3, 3, 3) / 9}, model / "psf.safetensors")
    assert len({first, second, digest()}) == 3


def test_a_hash_is_what_sha256sum_makes(tmp_path):
    for name in ("b", "a", "sub/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    lines = "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a", "b", "sub/c"))
    assert digest_of({name: tmp_path / name for name in ("sub/c", "b", "a")}) == (
        hashlib.sha256(lines.encode()).hexdigest()
    )


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin", "model.fp16.safetensors"], ["pytorch_model.bin"]),
        (["model.fp16.safetensors"], ["model.fp16.safetensors"]),
        (["m-1-of-2.safetensors", "m-2-of-2.safetensors"], ["m-1-of-2.safetensors", "m-2-of-2.safetensors"]),
        (["model.safetensors", "model.non_ema.safetensors"], ["model.safetensors"]),
    ],
)
def test_further_copies_of_the_weights_are_not_hashed(tmp_path, there, taken):
    (tmp_path / "unet").mkdir()
    for name in ("config.json", "README.md", *there):
        (tmp_path / "unet" / name).touch()
    assert set(part_files(tmp_path, "unet")) == {"unet/config.json", *(f"unet/{name}" for name in taken)}


def test_images_and_catalogue(trained, planned, tmp_path, capsys):
    out = tmp_path / "out"
    assert generate(planned, trained, out, "--catalogue", "ecsv", "votable", "fits") == 0
    plan = Plan.read(planned)
    names = ["priorscope.json", "scheduler/scheduler_config.json", "unet/config.json"]
    names.append("unet/diffusion_pytorch_model.safetensors")
    digest = digest_of({name: trained / "model" / name for name in names})
    for suffix in (".ecsv", ".vot", ".fits"):
        table = read_catalogue(out / f"catalogue{suffix}")
        assert len(table) == 10
        assert np.asarray(table["seed"]).tolist() == [row.seed for row in plan.rows]
        assert [str(value) for value in table["prompt"]] == [row.prompt for row in plan.rows]
        assert {str(value) for value in table["model_sha256"]} == {digest}
        assert {str(value) for value in table["sampler"]} == {"dpmpp-2m"}
        assert {int(value) for value in table["steps"]} == {2}
        assert {float(value) for value in table["guidance"]} == {1.5}
        assert all(table["synthetic"])
    table = read_catalogue(out / "catalogue.ecsv")
    assert table.meta["synthetic"] is True
    assert table.meta["plan_id"] == plan.plan_id
    for line, row in zip(table, plan.rows, strict=True):
        for answer, share in zip(
            ("t01_smooth_or_features_a01_smooth", "t08_odd_feature_a38_dust_lane"),
            (row.condition.share(a) for a in ("t01_smooth_or_features_a01_smooth", "t08_odd_feature_a38_dust_lane")),
            strict=True,
        ):
            value = float(line[f"{answer}_fraction"])
            assert np.isnan(value) if share is None else value == pytest.approx(share)
        with Image.open(out / str(line["image"])) as image:
            assert image.size == (16, 16)
            assert image.text["SYNTH"] == "T"
            assert image.text["SEED"] == str(row.seed)
            assert image.text["OBJECT_ID"] == str(line["object_id"])
    said = capsys.readouterr().out
    assert "10 of 10 inputs done" in said
    assert f"{int(np.sum(table['accepted']))} of 10 images accepted" in said
    assert np.isnan(np.asarray(table["agreement"])).all()  # no classifier was given
    for line in table:
        assert bool(line["accepted"]) == (str(np.ma.filled(line["rejected_for"], "")) == "")
        assert bool(line["accepted"]) <= (line["morphology_flag"] <= 1 and line["centre_offset"] <= 0.1)
    assert table.meta["accepted"]["criteria"]["copies"] == "not looked at"


def test_the_statement_can_be_left_out_or_made_again(trained, planned, simulated_survey, tmp_path):
    out = tmp_path / "out"
    assert generate(planned, trained, out, "--accept.no-check", "--limit", "3") == 0
    assert "accepted" not in read_catalogue(out / "catalogue.ecsv").colnames
    again = ["--limit", "3", "--resume", "--accept.training", str(simulated_survey)]
    assert generate(planned, trained, out, *again) == 0  # nothing is drawn again
    table = read_catalogue(out / "catalogue.ecsv")
    assert {str(name) for name in table["nearest_training_id"]} <= learnt_by(trained).ids
    assert table.meta["accepted"]["nearest_distance_of_a_copy"] > 0


def test_what_was_cut_off_goes_on(trained, planned, tmp_path, fork):
    out, whole = tmp_path / "out", tmp_path / "whole"

    def killed_in_the_middle():
        write, count = generating.write_display, 0

        def write_and_die(*args):
            nonlocal count
            count += 1
            if count == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            write(*args)

        generating.write_display = write_and_die
        return generate(planned, trained, out, "--batch-size", "4")

    assert fork(killed_in_the_middle) == -signal.SIGKILL
    assert not (out / "catalogue.ecsv").exists()
    first = {path.name: path.stat().st_mtime_ns for path in (out / "images").glob("*.png")}
    assert 4 <= len(first) < 10
    assert generate(planned, trained, out, "--batch-size", "4") == 2  # not silently
    assert generate(planned, trained, out, "--batch-size", "4", "--resume") == 0
    assert generate(planned, trained, whole, "--batch-size", "4") == 0
    names = sorted(path.name for path in (whole / "images").iterdir())
    assert names == sorted(path.name for path in (out / "images").iterdir())
    assert len(names) == 10
    assert sum((out / "images" / name).stat().st_mtime_ns == when for name, when in first.items()) >= 4
    for name in names:
        assert (out / "images" / name).read_bytes() == (whole / "images" / name).read_bytes()
    assert (out / "catalogue.ecsv").read_text() == (whole / "catalogue.ecsv").read_text()


@pytest.mark.parametrize("what", ["plan", "weights"])
def test_a_run_does_not_go_on_with_another_plan_or_other_weights(trained, planned, tmp_path, capsys, what):
    """The catalogue would give the images of before the seeds and the hash of now."""
    plan, model, out = tmp_path / "plan.ecsv", tmp_path / "model", tmp_path / "out"
    shutil.copytree(trained / "model", model)
    for name in ("plan.ecsv", "splits.ecsv"):
        shutil.copy(planned.parent / name, tmp_path / name)
    assert generate(plan, model, out, "--limit", "2", "--accept.no-check") == 0
    if what == "plan":
        words = ["astro", "plan", Plan.read(plan).meta["catalogue"], "--out", str(plan), "--overwrite", "--seed", "5"]
        assert main([*words, "--draw", "balanced", "--total", "10", "--condition", "tags"]) == 0
    else:
        galaxies = load_galaxy_model(model, device="cpu")
        galaxies.unet.conv_in.bias.data += 1
        shutil.rmtree(model)
        galaxies.save(model)
    before = sorted(path.name for path in (out / "images").iterdir())
    capsys.readouterr()
    assert generate(plan, model, out, "--resume", "--accept.no-check") == 2
    assert f"holds images of {'another plan' if what == 'plan' else 'other weights'}" in capsys.readouterr().err
    assert sorted(path.name for path in (out / "images").iterdir()) == before


@pytest.mark.slow
def test_two_processes_share_a_plan(trained, planned, tmp_path, launcher, one_thread):
    import subprocess

    out, whole = tmp_path / "out", tmp_path / "whole"
    words = ["-m", "priorscope.cli", "astro", "generate", str(planned), "--model", str(trained), "--out", str(out)]
    done = subprocess.run(
        [*launcher, *words, "--steps", "2", "--device", "cpu", "--batch-size", "3"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert generate(planned, trained, whole, "--batch-size", "3") == 0
    assert (out / "catalogue.ecsv").read_text() == (whole / "catalogue.ecsv").read_text()
    for path in (whole / "images").iterdir():
        assert (out / "images" / path.name).read_bytes() == path.read_bytes()


def test_other_splits_are_refused(trained, planned, tmp_path, capsys):
    splits = Splits.read(planned.parent / "splits.ecsv")
    reference = Plan.read(planned).rows[0].reference_id
    moved = Splits({**splits.of_id, reference: "test"})
    moved.write(tmp_path / "moved.ecsv")
    assert generate(planned, trained, tmp_path / "out", "--splits", str(tmp_path / "moved.ecsv")) == 2
    assert f"object {reference} belongs to the test split" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch-size", "0"], "--batch-size 0"),
        (["--limit", "-1"], "--limit -1"),
        (["--cache", "-1"], "--cache -1"),
        (["--cache", "1"], "--cache 1. Use 0, or 2 or more"),
        (["--steps", "0"], "--steps 0"),
        (["--steps", "5000"], "--steps 5000"),
        (["--guidance", "nan"], "--guidance nan"),
        (["--solver", "eulr"], "--solver eulr"),
        (["--pool", "."], "--pool with a model of ours"),
        (["--fits", "cube"], "--fits cube with a model of pictures"),
        (["--start", "moments"], "--start with a model of ours"),
        (["--rescale", "rms"], "--rescale with a model of ours"),
        (["--accept.agreement", "0.9"], "--accept.agreement without --accept.classifier"),
        (["--accept.copies", "0.1"], "--accept.copies without --accept.training"),
        (["--accept.no-check", "--accept.offset", "0.2"], "--accept.offset with --accept.no-check"),
        (["--model", "galaxysdd"], "Did you mean galaxysd?"),
        (["--model", "."], "neither unet/config.json nor unet-STEP"),
        (["--model", "galaxysd", "--start", "noise", "--pool", "."], "--pool with --start noise"),
        (["--model", "galaxysdd", "--start", "noise"], "Did you mean galaxysd?"),
    ],
)
def test_bad_options(trained, planned, tmp_path, capsys, options, words):
    assert generate(planned, trained, tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("training", "words"),
    [("stamps.npz", "has no pictures"), ("truth.csv", "truth.csv: has neither votes")],
)
def test_what_is_wrong_with_the_training_galaxies_is_said_before_drawing(
    trained, planned, simulated_survey, tmp_path, capsys, training, words
):
    assert generate(planned, trained, tmp_path / "out", "--accept.training", str(simulated_survey / training)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_edited_plan_is_refused(trained, planned, tmp_path, capsys):
    text = planned.read_text()
    seed = str(Plan.read(planned).rows[3].seed)
    (tmp_path / "plan.ecsv").write_text(text.replace(seed, "7"))
    assert generate(tmp_path / "plan.ecsv", trained, tmp_path / "out") == 2
    assert "row 3: the seed 7" in capsys.readouterr().err


def test_free_text_is_for_galaxysd(trained, planned, simulated_survey, tmp_path, capsys):
    plan = tmp_path / "plan.ecsv"
    words = ["astro", "plan", str(simulated_survey), "--out", str(plan), "--draw", "counts", "--counts", "merger=2"]
    words += ["--condition", "text", "--prompts", "merger=two galaxies"]
    words += ["--splits", str(planned.parent / "splits.ecsv")]
    assert main(words) == 0
    assert generate(plan, trained, tmp_path / "out") == 2
    assert "do not read free text" in capsys.readouterr().err


def test_the_pool_holds_the_plans_references_alone(planned, simulated_survey, tmp_path):
    plan = Plan.read(planned)
    config = GenerateConfig(planned, pool=simulated_survey / "images")
    pool = reference_pool(config, plan, None)
    assert set(pool.names) == {row.reference_id for row in plan.rows}
    assert pool.read(plan.rows[0].reference_id, 424).shape == (424, 424, 3)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "empty/1.png")
    with pytest.raises(InputError, match="has no picture"):
        reference_pool(GenerateConfig(planned, pool=tmp_path / "empty"), plan, None)
    with pytest.raises(InputError, match="needs --pool"):
        make_sampler(GenerateConfig(planned), plan, None)


def test_a_pool_without_planned_references_needs_splits(planned, simulated_survey, tmp_path):
    splits = Splits.read(planned.parent / "splits.ecsv")
    out = tmp_path / "plan.ecsv"
    words = ["astro", "plan", str(simulated_survey), "--out", str(out), "--draw", "balanced", "--total", "4"]
    words += ["--condition", "tags"]
    assert main([*words, "--reference", "none", "--splits", str(planned.parent / "splits.ecsv")]) == 0
    plan = Plan.read(out)
    folder = tmp_path / "pool"
    folder.mkdir()
    train, test = splits.ids("train"), splits.ids("test")
    for name in (*train[:9], *test[:3], "unknown"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    config = GenerateConfig(out, pool=folder)
    assert set(reference_pool(config, plan, splits).names) == set(train[:9])
    with pytest.raises(InputError, match="without splits"):
        reference_pool(config, plan, None)


def test_flux_comes_as_fits(simulated_survey, planned, tmp_path):
    """A model of flux learns the survey's stretch and PSF; its images say unit, noise and provenance, checksums fit."""
    from astropy.io import fits

    from priorscope_astro.data.stamps import read_stamps
    from priorscope_astro.evaluation.sample import read_generated
    from priorscope_astro.evaluation_config import EvaluateConfig
    from priorscope_astro.imaging.fits import read_stamp_fits

    assert train(simulated_survey, tmp_path / "run", mode="flux", steps=40) == 0
    stamps = read_stamps(simulated_survey / "stamps.npz")
    spec = json.loads((tmp_path / "run/model/priorscope.json").read_text())
    assert (spec["mode"], spec["unit"], tuple(spec["bands"])) == ("flux", stamps.unit, stamps.bands)
    np.testing.assert_allclose(spec["stretch"]["beta"], stamps.sky_sigma, rtol=1e-6)
    out = tmp_path / "out"
    assert generate(planned, tmp_path / "run", out) == 0  # also what a model that hardly learnt draws
    done = {str(name) for name in read_catalogue(out / "catalogue.ecsv")["image"]}
    assert len(done) == 10
    plan = Plan.read(planned)
    for name in done:
        with fits.open(out / name, checksum=True) as units:
            units.verify("exception")
            assert units[0].header["SYNTH"] is True
            assert all("CHECKSUM" in unit.header and "DATASUM" in unit.header for unit in units)
            assert "CTYPE1" not in units[1].header
        stamp = read_stamp_fits(out / name)
        row = plan.rows[int(name.rpartition("-")[2].removesuffix(".fits"))]
        assert stamp.flux.shape == (3, 16, 16)
        assert stamp.flux.dtype == np.float32
        assert len(fits.info(out / name, output=False)) == 5  # what it is, three bands, PSF
        assert (stamp.unit, stamp.bands, stamp.pixel_scale) == (stamps.unit, stamps.bands, stamps.pixel_scale)
        np.testing.assert_allclose(stamp.psf.sum((1, 2)), 1, atol=1e-5)
        assert stamp.provenance.seed == row.seed
        assert stamp.provenance.prompt == row.prompt
        assert any(plan.plan_id in line for line in stamp.provenance.history)
    drawn, _ = read_generated(EvaluateConfig(out, simulated_survey))
    assert drawn.survey.pixel_scale == pytest.approx(stamps.pixel_scale)
    assert generate(planned, tmp_path / "run", tmp_path / "cubes", "--fits", "cube", "--limit", "1") == 0
    (name,) = (str(name) for name in read_catalogue(tmp_path / "cubes/catalogue.ecsv")["image"])
    with fits.open(tmp_path / "cubes" / name, checksum=True) as units:
        assert [unit.name for unit in units] == ["PRIMARY", "PSF"]
        assert units[0].header["BUNIT"] == stamps.unit
        assert [units[0].header[f"BAND{place}"] for place in (1, 2, 3)] == list(stamps.bands)
    cube, planes = read_stamp_fits(tmp_path / "cubes" / name), read_stamp_fits(out / name)
    np.testing.assert_allclose(cube.flux, planes.flux, atol=1e-5 * np.abs(planes.flux).max())  # in other batches
    assert cube.provenance == planes.provenance


def test_flux_survives_the_networks_values(simulated_survey):
    from priorscope_astro.configs import TrainConfig
    from priorscope_astro.diffusion.scaling import Scaling
    from priorscope_astro.train import measured_spec, read_sets

    config = TrainConfig(simulated_survey, side=32)
    sets = read_sets(config)
    scaling = Scaling(measured_spec(config, sets.learnt, sets.stamps))
    flux = [np.asarray(sets.learnt.image(row)) for row in range(20)]
    values = np.stack([scaling.values(one) for one in flux])
    assert values.std() == pytest.approx(0.5, abs=0.1)
    assert values.mean() == pytest.approx(0, abs=0.1)
    cut = np.stack([one[:, 8:40, 8:40] for one in flux])
    error = np.abs(scaling.images(values) - cut)
    assert (error <= 1e-6 * np.abs(cut) + 1e-6).all(), error.max()
