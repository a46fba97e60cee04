"""`priorscope astro demo`, with a model that was trained for a moment."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_astro import demo as demonstrating
from priorscope_astro.data.catalogue import read_catalogue
from priorscope_astro.data.splits import Splits
from priorscope_astro.diffusion import spec
from priorscope_astro.simulator.config import SimulateConfig
from priorscope_astro.simulator.survey import read_survey, run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder of flux, 32 pixels."""
    pytest.importorskip("galsim")
    folder = tmp_path_factory.mktemp("model")
    run(SimulateConfig(folder / "survey", count=60, size=32, seed=3, jpeg=False))
    words = ["astro", "train", str(folder / "survey"), "--size", "tiny", "--side", "32", "--patch", "4"]
    words += ["--out", str(folder / "run"), "--steps", "60", "--batch-size", "16", "--warmup", "5", "--lr", "1e-3"]
    words += ["--device", "cpu", "--log-every", "30", "--validate-every", "100", "--checkpoint-every", "100"]
    assert main([*words, "--ema", "0.9"]) == 0
    (folder / "run/model/learnt.json").unlink()  # or nothing of the demo's survey could be copied
    return folder / "run"


def test_a_model_that_says_what_it_has_learnt_copies_none_of_the_demos_galaxies(tmp_path, monkeypatch):
    from priorscope_astro import generate
    from priorscope_astro.configs import DemoConfig
    from priorscope_astro.data.learnt import Learnt
    from priorscope_astro.demo import _generate

    asked = []
    monkeypatch.setattr(generate, "generate", asked.append)
    for _ in range(2):
        _generate(DemoConfig(), tmp_path / "plan.ecsv", tmp_path, tmp_path, tmp_path / "out")
        Learnt(frozenset(["100000001100000000"])).write(tmp_path, overwrite=True)
    assert [config.accept.training for config in asked] == [tmp_path / "stamps.npz", None]


def test_from_a_survey_to_a_report(model, tmp_path, capsys):
    from astropy.io import fits

    out = tmp_path / "demo"
    words = ["astro", "demo", "--model", str(model), "--out", str(out), "--images", "8", "--galaxies", "150"]
    words += ["--classifier-steps", "3", "--steps", "3", "--device", "cpu"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "FITS files with valid checksums" in said
    found = json.loads((out / "metrics.json").read_text())
    assert found["rare"]["class"] == "dust_lane"
    assert found["rare"]["prevalence"] == 0.005
    assert [row["classifier"] for row in found["rare"]["searches"]] == ["real", "real, balanced", "real + generated"]
    assert found["classifier"] == "real"
    assert found["photometric"] is True
    assert set(found["seconds"]) >= {"simulate a survey", "plan", "train three classifiers, compare"}

    files = sorted((out / "generated/images").glob("*.fits"))
    assert found["fits"] == len(files) == 8  # also the negative galaxies of a model that hardly learnt
    with fits.open(files[0], checksum=True) as units:
        units.verify("exception")
        assert units[0].header["SYNTH"] is True
        assert "CHECKSUM" in units[1].header
    table = read_catalogue(out / "generated/catalogue.ecsv")
    assert {str(name) for name in table["class_name"]} == {"dust_lane"}
    assert {"accepted", "morphology_flag", "nearest_training_id"} <= set(table.colnames)
    for suffix in (".vot", ".fits"):
        other = read_catalogue(out / f"generated/catalogue{suffix}")
        assert np.asarray(other["accepted"]).tolist() == np.asarray(table["accepted"]).tolist()

    # nothing of the test split was used: training galaxies lent votes, and were looked at for copies
    splits = Splits.read(out / "plan/splits.ecsv")
    assert {splits.of_id[str(name)] for name in table["condition_id"]} == {"train"}
    assert {splits.of_id[str(name)] for name in table["nearest_training_id"] if str(name)} == {"train"}
    survey = read_survey(out / "survey")
    assert len(survey) == 150
    assert int(survey.ids[0]) % 100_000_000 == 50_000_000

    html = (out / "report.html").read_text()
    for text in ("Real above generated", "Searching for dust_lane", "Shapes and colours", "Catalogue", "SYNTH = T"):
        assert text in html
    assert list((out / "figures").glob("gallery-dust_lane.png"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rare", "quasar"], "--rare quasar"),
        (["--images", "3"], "--images 3"),
        (["--galaxies", "10"], "--galaxies 10"),
        (["--model", "nowhere"], "no such model folder"),
    ],
)
def test_bad_options(tmp_path, capsys, options, words):
    assert main(["astro", "demo", "--out", str(tmp_path / "demo"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_the_bundled_model_is_the_default_once_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(spec, "BUNDLED_FOLDER", tmp_path / "tiny-galaxies")
    with pytest.raises(InputError, match="no model is bundled here yet"):
        demonstrating._model_folder("tiny-galaxies")
    (tmp_path / "tiny-galaxies").mkdir()
    assert demonstrating._model_folder("tiny-galaxies") == tmp_path / "tiny-galaxies"


def test_a_damaged_file_is_named(model, tmp_path):
    (tmp_path / "images").mkdir()
    assert demonstrating.open_fits(tmp_path) == 0
    (tmp_path / "images/a.fits").write_bytes(b"SIMPLE  =                    T")
    with pytest.raises(InputError, match=r"a\.fits"):
        demonstrating.open_fits(tmp_path)
