"""Generated against real galaxies: each comparison on cases whose answer is known, then the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from priorscope.cli import main
from priorscope.data.images import write_png
from priorscope.errors import InputError
from priorscope_astro import acceptance
from priorscope_astro.accept_config import AcceptConfig
from priorscope_astro.acceptance import Gate
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.data.anything import holds_flux
from priorscope_astro.data.catalogue import read_catalogue, write_catalogue
from priorscope_astro.data.splits import Splits, make_splits
from priorscope_astro.data.stamps import write_stamps
from priorscope_astro.evaluate import _alike, _ask_classifiers, _note_scale, check_inputs, read_splits
from priorscope_astro.evaluation import arms, classifying
from priorscope_astro.evaluation.distances import OVERALL, distances, equal_rows, own_features
from priorscope_astro.evaluation.look import look_from, look_of, pictures_of, values_of
from priorscope_astro.evaluation.sample import Sample, Survey, chosen_rows, conditions_of, read_generated, read_real
from priorscope_astro.evaluation.shapes import Shapes, compare_shapes, measure_shapes
from priorscope_astro.evaluation.sky import compare_sky, measure_sky
from priorscope_astro.evaluation_config import EvaluateConfig
from priorscope_astro.evaluation_report import contact_sheet
from priorscope_astro.imaging.fits import write_stamp_fits
from priorscope_astro.simulator.survey import picture, read_survey


def shapes(values):
    count = len(values)
    return Shapes({"C": values}, np.zeros(count, np.int64), np.zeros(count))


def test_a_ratio_is_one_for_the_same_distribution_and_the_shift_otherwise():
    random = np.random.default_rng(0)
    real, same = random.normal(size=400), random.normal(size=200)
    labels = ["a"] * 400, ["a"] * 200
    (row,), notes = compare_shapes(shapes(real), shapes(same), *labels, repeats=40)
    assert row["n"] == 200
    assert row["ratio"] == pytest.approx(1, abs=0.5)
    assert not notes
    (moved,), _ = compare_shapes(shapes(real), shapes(same + 5), *labels, repeats=40)
    assert moved["real to generated"] == pytest.approx(5 + same.mean() - real.mean(), abs=1e-2)  # all of it is shift
    assert moved["ratio"] == pytest.approx(moved["real to generated"] / moved["real to real"])
    assert moved["low"] <= moved["ratio"] <= moved["high"]


def test_few_or_unmeasured_galaxies_are_not_compared():
    random = np.random.default_rng(0)
    generated = random.normal(size=12)
    generated[:5] = np.nan
    rows, notes = compare_shapes(shapes(random.normal(size=40)), shapes(generated), ["a"] * 40, ["a"] * 12)
    assert not rows
    assert notes == ["a, C: 40 real and 7 generated galaxies, too few"]


def test_distances_of_equal_distributions_are_those_of_real_halves():
    random = np.random.default_rng(1)
    real, generated = random.normal(size=(300, 4)), random.normal(size=(150, 4))
    generated[60:] += 3
    generated[0, 0] = np.nan  # left out
    labels = ["a"] * 150 + ["b"] * 150, ["a"] * 60 + ["b"] * 90
    rows, notes = distances(real, generated, *labels, repeats=30)
    found = {row["class"]: row for row in rows}
    assert not notes
    assert [found[name]["n"] for name in (OVERALL, "a", "b")] == [149, 59, 90]
    assert found["a"]["KID"].low < 0 < found["a"]["KID"].high
    assert found["a"]["KID real"].low < 0 < found["a"]["KID real"].high
    assert found["b"]["KID"].low > found["a"]["KID"].high
    assert found["a"]["coverage"].estimate > 0.8 > found["b"]["coverage"].estimate
    assert found["b"]["FID"].estimate == pytest.approx(4 * 9, rel=0.2)  # the squared distance of the means


def test_as_many_of_each_class():
    real, generated = ["a"] * 30 + ["b"] * 5 + ["c"] * 9, ["b"] * 20 + ["a"] * 10
    rows = equal_rows(real, generated)
    assert list(rows) == [OVERALL, "b", "a"]
    for name, count in (("a", 10), ("b", 5)):
        one, two = rows[name]
        assert len(one) == len(two) == len(set(one)) == len(set(two)) == count
        assert {real[row] for row in one} == {generated[row] for row in two} == {name}
    assert len(rows[OVERALL][0]) == 15
    assert "c" not in {real[row] for row in rows[OVERALL][0]}


def test_the_sky_of_noise_is_its_noise():
    random = np.random.default_rng(2)
    real = random.normal(0, 1, (40, 2, 32, 32)).astype(np.float32)
    loud = 2 * random.normal(0, 1, (40, 2, 32, 32)).astype(np.float32)
    sigma = np.array([5.0, 5.0])  # nothing is a source
    rows = compare_sky(measure_sky(real, sigma), measure_sky(loud, sigma), ("g", "r"))
    for row in rows:
        assert row["noise ratio"] == pytest.approx(2, rel=0.05)
        assert row["power ratio, low frequencies"] == pytest.approx(4, rel=0.2)
        assert row["power ratio, high frequencies"] == pytest.approx(4, rel=0.2)
        assert row["real to generated"] > 10 * row["real to real"]
    smooth = (real + np.roll(real, 1, -1) + np.roll(real, 1, -2) + np.roll(real, (1, 1), (-1, -2))) / 2
    (row, _) = compare_sky(measure_sky(real, sigma), measure_sky(smooth, sigma), ("g", "r"))
    # the mean of 2 x 2 pixels, twice: 4 cos^2(pi u) cos^2(pi v), which is 4 at frequency 0 and 0 at the highest
    assert row["power ratio, high frequencies"] < 1.3
    assert row["power ratio, low frequencies"] > 2.3


def test_corners_with_a_source_are_no_sky():
    flux = np.random.default_rng(3).normal(0, 1, (4, 1, 32, 32)).astype(np.float32)
    flux[1, 0, :8, :8] += 1000
    sky = measure_sky(flux, np.array([1.0]))
    assert sky.corners <= 15
    assert np.nanmax(sky.power) < 3
    nothing = measure_sky(flux + 1000, np.array([1.0]))
    assert nothing.corners == 0
    assert compare_sky(sky, nothing, ("g",))[0]["power ratio, high frequencies"] is None


def galaxies(count=12, side=48, seed=4, ratio=1.0):
    """Round exponential discs in three bands, the first fainter than the last by ``ratio``; noise of 0.01."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    size = random.uniform(2.5, 4, (count, 1, 1))
    light = np.exp(-np.hypot(x, y) / size)
    flux = np.stack([light * ratio, light * ratio**0.5, light], 1)
    flux = (flux + random.normal(0, 0.01, flux.shape)).astype(np.float32)
    return Sample(tuple(f"g{row}" for row in range(count)), ("round",) * count, flux, "flux")


SURVEY = Survey(("g", "r", "i"), "nmgy", np.full(3, 0.01))


def test_colour_is_in_magnitudes_and_shape_in_pixels():
    sample = galaxies(ratio=10**-0.32)  # g - i = 0.8
    found = measure_shapes(sample, SURVEY, look_from(sample.images, SURVEY), sersic=True)
    assert (found.flag <= 1).mean() > 0.7
    np.testing.assert_allclose(np.nanmedian(found.values["colour"]), 0.8, atol=0.02)
    assert np.nanmax(found.offset) < 0.01
    assert np.nanmedian(found.values["Sersic n"]) == pytest.approx(1, abs=0.15)  # a disc
    good = np.isfinite(found.values["r50"])
    size = np.random.default_rng(4).uniform(2.5, 4, len(sample))
    assert np.corrcoef(found.values["r50"][good], size[good])[0, 1] > 0.99


def test_the_picture_of_a_survey_is_the_surveys_own(simulated_survey):
    survey = read_survey(simulated_survey)
    config = EvaluateConfig(simulated_survey, simulated_survey)
    generated = read_generated(config)[0]
    assert (generated.mode, generated.side, len(generated)) == ("flux", 48, 80)
    real = read_real(config, generated)
    look = look_of(real)
    np.testing.assert_array_equal(look.pictures(survey.flux[:5]), picture(survey.flux[:5]))
    values = values_of(generated, look)
    assert 0.8 < values.max() < 1.5
    other = look_from(survey.flux, Survey(("a", "b", "c"), "Jy"))
    light = np.median(survey.flux.sum((2, 3)), 0)
    np.testing.assert_allclose(np.array(other.gains) * light[[2, 1, 0]], light[1], rtol=1e-5)
    assert pictures_of(generated.select([1, 2]), other).shape == (2, 48, 48, 3)


def stub(classes, answers):
    """A classifier that says the same in every test: ``answers`` by the pictures' first pixel."""
    model = SimpleNamespace(spec=SimpleNamespace(classes=classes, size=8, channels=3, integer=True))
    return model, lambda _, pictures: np.asarray(answers, np.float32)[pictures[:, 0, 0, 0]]


def test_agreement_with_what_was_asked(monkeypatch):
    model, ask = stub(("a", "b"), np.eye(2))
    monkeypatch.setattr(classifying, "predict", ask)
    pictures = np.zeros((10, 8, 8, 3), np.uint8)
    pictures[7:] = 1  # taken for b
    asked = Sample(tuple("0123456789"), ("a",) * 8 + ("b",) * 2, pictures, "display")
    real = Sample(tuple("wxyz"), ("a",) * 4, pictures[:4], "display")
    first, second = classifying.agreement(model, asked, pictures, real, pictures[[0, 0, 0, 9]])
    assert (first["asked"], first["generated"], first["agree"]) == ("a", 8, 7 / 8)
    assert first["low"] < 7 / 8 < first["high"]
    assert (first["taken for"], first["real"], first["agree, real"]) == ("b", 4, 0.75)
    assert (second["agree"], second["high"], second["agree, real"]) == (1, 1, None)


def test_of_a_class_that_the_classifier_does_not_know_no_agreement_is_said(monkeypatch):
    model, predictor = stub(("a", "b"), [[1.0, 0.0]] * 2)
    monkeypatch.setattr(classifying, "predict", predictor)
    pictures = np.zeros((2, 16, 16, 3), np.uint8)
    asked = Sample(tuple("01"), ("a", "new"), pictures, "display")
    rows = classifying.agreement(model, asked, pictures, asked, pictures)
    assert [row["asked"] for row in rows] == ["a"]


def test_agreement_of_votes_is_by_question(monkeypatch):
    vector = Condition.from_tags("completely round galaxy").to_vector()
    model, ask = stub((), np.stack([vector[:37], np.roll(vector[:37], 1)]))
    monkeypatch.setattr(classifying, "predict", ask)
    pictures = np.zeros((4, 8, 8, 3), np.uint8)
    pictures[3] = 1
    asked = Sample(tuple("0123"), ("round",) * 4, pictures, "display", np.tile(vector, (4, 1)))
    rows = classifying.agreement(model, asked, pictures, asked.select([]), None)
    assert {row["asked"]: row["agree"] for row in rows} == {"t01_smooth_or_features": 0.75, "t07_rounded": 0.75}


def test_natural_shares_and_weights():
    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    natural = classifying.natural_shares(labels, {"c": 0.01})
    assert natural == {"a": pytest.approx(0.66), "b": pytest.approx(0.33), "c": 0.01}
    weights = classifying.weights_of(tuple(labels), natural)
    assert weights[:6].sum() == pytest.approx(6.6)
    assert weights[9] == pytest.approx(0.1)
    without = classifying.weights_of(("a", "a", "b"), natural)  # c is missing: its share goes to the others
    assert without.sum() == pytest.approx(3)
    with pytest.raises(InputError, match="'d'"):
        classifying.natural_shares(labels, {"d": 0.1})


def test_a_search_is_measured_at_natural_prevalence():
    """Ten rare and ten other galaxies; nature has one in a hundred: one false positive then ruins the purity."""
    scores = np.zeros((20, 2))
    scores[:10, 1] = np.linspace(1, 0.55, 10)
    scores[10:, 1] = np.linspace(0.5, 0.1, 10)
    scores[10, 1] = 0.9  # among the rare ones
    scores[:, 0] = 1 - scores[:, 1]
    labels = ("rare",) * 10 + ("other",) * 10
    natural = {"rare": 0.01, "other": 0.99}
    test = classifying.Scored(labels, classifying.weights_of(labels, natural), scores)
    options = {"purity": 0.9, "best": (1, 100), "repeats": 50, "seed": 0}
    row = classifying.rare_figures(test, test, 1, "rare", **options)
    above = (scores[:10, 1] > 0.9).sum()
    assert row["completeness"] == above / 10
    assert (row["purity"], row["selected"]) == (1, above)
    assert row["low"] < row["completeness"] < row["high"]
    assert "purity of the best 100" not in row
    assert row["right among the 1 surest"] == 1
    # the first of twenty galaxies of nature: 0.02 of one for each rare one above, the rest is the false one's
    assert row["purity of the best 1"] == pytest.approx(0.02 * above + 0.01, abs=0.011)
    unweighted = classifying.Scored(labels, np.ones(20), scores)
    loose = classifying.rare_figures(unweighted, test, 1, "rare", **options)  # takes the false one for one of eleven
    assert (loose["completeness"], loose["purity"]) == (1, pytest.approx(0.2 / (0.2 + 1.98)))
    assert classifying.rare_figures(unweighted, unweighted, 1, "rare", **options)["completeness"] == 1
    assert "completeness" not in classifying.rare_figures(None, test, 1, "rare", **options)
    figures = {row["class"]: row for row in classifying.class_figures(test, ("other", "rare"))}
    assert figures["rare"]["completeness"] == 1
    assert figures["rare"]["purity"] == pytest.approx(0.2 / (0.2 + 1.98))


def test_held_out_galaxies_for_copies_have_the_classes_asked_for():
    labels = ("a",) * 40 + ("b",) * 10
    real = SimpleNamespace(galaxies=SimpleNamespace(labels=labels))
    rows = _alike(("a",) * 20 + ("b",) * 10 + ("c",), real, np.arange(50))
    assert [sum(labels[row] == name for row in rows) for name in "ab"] == [20, 10]
    assert not len(_alike(("c",), real, np.arange(50)))
    few = _alike(("a",) * 20 + ("b",) * 20, real, np.arange(30, 42))  # too few to be choosy: all of them
    assert sorted(few) == list(range(30, 42))
    some = _alike(("a",) * 20 + ("b",) * 20, real, np.arange(42))
    assert len(some) >= 20
    assert {40, 41} <= set(some)


def test_at_most_so_many_of_each_class():
    labels = ["a"] * 20 + ["b"] * 3
    rows = chosen_rows(labels, 5, 0)
    assert [sum(labels[row] == name for row in rows) for name in "ab"] == [5, 3]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(chosen_rows(labels, 0, 0)) == 23


def test_a_classifier_whose_training_was_stopped_is_not_compared(tmp_path, monkeypatch):
    stopped = SimpleNamespace(finished=False, step=140, model=tmp_path)
    monkeypatch.setattr(arms, "train_classifier", lambda *args, **options: stopped)
    images = np.zeros((4, 16, 16, 3), np.uint8)
    some = Sample(tuple("abcd"), ("ring", "spiral") * 2, images, "display")
    with pytest.raises(InputError, match="classifier 'real' was stopped at step 140 of 200"):
        arms.train_arms(some, some, None, None, tmp_path, steps=200, seed=0, device="cpu")


def test_rows_of_different_length_on_one_sheet():
    one, two = np.full((3, 4, 4, 3), 10, np.uint8), np.full((2, 4, 4, 3), 20, np.uint8)
    sheet = contact_sheet([one, two], width=40, gap=2)
    assert sheet.shape == (2 * 8 + 6, 3 * 10 - 2, 3)  # twice as large
    assert (sheet[:8, :8] == 10).all()
    assert (sheet[14:, 10:18] == 20).all()
    assert (sheet[14:, 20:] == 255).all()


class TestAcceptance:
    """Good galaxies pass; each fault is named."""

    def faulty(self):
        sample = galaxies(6)
        flux = sample.images.copy()
        flux[1] = np.roll(flux[1], 8, -1)
        flux[2] = np.random.default_rng(5).normal(0, 0.01, flux[2].shape)
        return Sample(sample.ids, sample.labels, flux, "flux")

    def test_shape_and_centring(self):
        gate = Gate(AcceptConfig(), {"bands": "gri", "unit": "nmgy", "sky_sigma": (0.01,) * 3})
        found = gate.of(self.faulty())
        assert found["accepted"].tolist() == [True, False, False, True, True, True]
        assert found["rejected_for"][0] == ""
        assert found["rejected_for"][1] == "centring"
        assert "morphology" in found["rejected_for"][2]
        assert found["centre_offset"][1] == pytest.approx(8 / 48, abs=0.01)
        assert np.isnan(found["agreement"]).all()
        assert np.isnan(found["nearest_training_distance"]).all()

    def test_what_is_at_a_limit_is_accepted(self, monkeypatch):
        flags, offsets = np.array([0, 1, 2, 4, 0, 0]), np.array([0, 0, 0, 0, 0.1, 0.11])
        monkeypatch.setattr(acceptance, "measure_shapes", lambda sample, survey, look: Shapes({}, flags, offsets))
        for worst, accepted in (
            (1, [True, True, False, False, True, False]),
            (0, [True] + [False] * 3 + [True, False]),
        ):
            gate = Gate(AcceptConfig(worst_flag=worst), {"bands": "gri", "unit": "nmgy", "sky_sigma": (0.01,) * 3})
            assert gate.of(galaxies(6))["accepted"].tolist() == accepted

    def test_copies_of_training_galaxies(self, simulated_survey):
        survey = read_survey(simulated_survey)
        splits = make_splits(tuple(map(str, survey.ids)), seed=1)
        train = np.flatnonzero(splits.mask(tuple(map(str, survey.ids)), "train"))
        test = np.flatnonzero(splits.mask(tuple(map(str, survey.ids)), "test"))
        sample = Sample(
            tuple("abcd"),
            ("round",) * 4,
            np.stack([survey.flux[train[3]], np.rot90(survey.flux[train[7]], 1, (1, 2)), *survey.flux[test[:2]]]),
            "flux",
        )
        described = {"bands": "gri", "unit": "nmgy", "sky_sigma": survey.sky_sigma}
        gate = Gate(AcceptConfig(training=simulated_survey), described, splits)
        found = gate.of(sample)
        assert found["nearest_training_id"][:2].tolist() == [str(survey.ids[train[3]]), str(survey.ids[train[7]])]
        assert found["nearest_training_distance"][:2].max() < 1e-3
        assert ["copy" in words for words in found["rejected_for"]] == [True, True, False, False]

    def test_the_classifiers_word(self, monkeypatch):
        from priorscope_astro.classifier import predict as asking

        gate = Gate(AcceptConfig(), {"bands": "gri", "unit": "nmgy", "sky_sigma": (0.01,) * 3})
        gate.model = stub(("round", "spiral"), [])[0]
        answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.49, 0.51]])
        monkeypatch.setattr(asking, "predict", lambda model, pictures: answers)
        sample = galaxies(6)
        found = gate.of(sample)
        np.testing.assert_allclose(found["agreement"], answers[:, 0], atol=1e-6)
        assert found["classified_as"].tolist() == ["round"] * 3 + ["spiral", "round", "spiral"]
        assert found["accepted"].tolist() == [True, True, True, False, True, False]
        other = Sample(sample.ids, ("ring",) * 6, sample.images, "flux")
        assert not gate.of(other)["accepted"].any()  # a class it does not know

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"agreement": 2.0}, "--accept.agreement 2.0"),
            ({"worst_flag": 3}, "--accept.worst-flag 3"),
            ({"training": "nowhere"}, "no such file"),
            ({"classifier": "nowhere"}, "priorscope.json"),
        ],
    )
    def test_bad_options(self, tmp_path, options, words):
        options = {key: tmp_path / value if isinstance(value, str) else value for key, value in options.items()}
        with pytest.raises(InputError, match=re.escape(words)):
            Gate(AcceptConfig(**options), {})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, simulated_survey):
    """A run folder as `generate` leaves it, of pictures: training galaxies, called generated; and the splits."""
    from astropy.table import QTable

    survey = read_survey(simulated_survey)
    ids = tuple(map(str, survey.ids))
    splits = make_splits(ids, validation=0.2, test=0.3, seed=2)
    folder = tmp_path_factory.mktemp("drawn")
    splits.write(folder / "splits.ecsv")
    train = np.flatnonzero(splits.mask(ids, "train"))
    names = [f"images/p-{row:06d}.png" for row in range(len(train))]
    for name, picture_ in zip(names, survey.pictures(train), strict=True):
        write_png(folder / name, picture_)
    table = QTable(
        {
            "object_id": [f"p-{row:06d}" for row in range(len(train))],
            "class_name": [survey.classes[survey.labels[row]] for row in train],
            "image": names,
            "prompt": ["sdss"] * len(train),
            "accepted": np.arange(len(train)) % 2 == 0,
        }
    )
    shares = np.where(survey.conditions[train, 37:] > 0, survey.conditions[train, :37], np.nan)
    for place, answer in enumerate(ANSWERS):
        table[f"{answer}_fraction"] = shares[:, place].astype(np.float32)
    write_catalogue(table, folder / "catalogue.ecsv")
    return folder


def test_a_catalogues_conditions_are_those_asked_for(drawn, simulated_survey):
    survey = read_survey(simulated_survey)
    ids = tuple(map(str, survey.ids))
    train = np.flatnonzero(make_splits(ids, validation=0.2, test=0.3, seed=2).mask(ids, "train"))
    np.testing.assert_allclose(conditions_of(read_catalogue(drawn / "catalogue.ecsv")), survey.conditions[train])
    accepted, table = read_generated(EvaluateConfig(drawn, simulated_survey, accepted_only=True))
    assert len(accepted) == len(table) == -(-len(train) // 2)
    assert accepted.ids[1] == "p-000002"


def test_pictures_that_are_training_galaxies_are_copies(drawn, simulated_survey, tmp_path):
    out = tmp_path / "run"
    words = ["astro", "evaluate", str(drawn), str(simulated_survey), "--out", str(out), "--device", "cpu"]
    words += ["--splits", str(drawn / "splits.ecsv"), "--class-column", "gz2_class", "--repeats", "10"]
    words += ["--features", "test_features_of_mine:mean_colours", "--per-class", "10"]
    import sys

    sys.modules["test_features_of_mine"] = SimpleNamespace(mean_colours=lambda pictures: pictures.mean((1, 2)))
    try:
        assert main(words) == 0
        with pytest.raises(InputError, match="mean_colors"):
            own_features("test_features_of_mine:mean_colors", np.zeros((2, 4, 4, 3), np.uint8))
    finally:
        del sys.modules["test_features_of_mine"]
    found = json.loads((out / "metrics.json").read_text())
    assert found["memorisation"]["copied"] is True
    assert found["memorisation"]["below_threshold"] > 0.9
    assert (found["mode"], found["photometric"], found["sky"]) == ("display", False, [])
    assert found["feature_space"] == "3 features of test_features_of_mine:mean_colours, of pictures"
    assert found["distances"][0]["class"] == OVERALL
    assert any("--classifier" in note for note in found["notes"])
    html = (out / "report.html").read_text()
    for text in ("Real above generated", "Non-photometric", "look at the pairs", "p-000003"):
        assert text in html
    assert "The sky" not in html
    assert main(words) == 2  # not silently over it


def test_flux_with_classifiers_trained_on_the_spot(drawn, simulated_survey, tmp_path, capsys):
    """The survey as its own generated galaxies: distances vanish, the classifier says of both the same."""
    out = tmp_path / "run"
    words = ["astro", "evaluate", str(simulated_survey), str(simulated_survey), "--out", str(out), "--device", "cpu"]
    words += ["--splits", str(drawn / "splits.ecsv"), "--against", "all", "--repeats", "10", "--no-sersic"]
    words += ["--per-class", "12", "--rare", "dust_lane", "--prevalence", "dust_lane=0.005", "--best", "3"]
    assert main([*words, "--train-classifiers"]) == 2  # test galaxies would be learnt
    assert "66 galaxies are generated and real" in capsys.readouterr().err
    from priorscope_astro.classifier.network import ClassifierSpec, GalaxyClassifier

    survey = read_survey(simulated_survey)
    network = GalaxyClassifier.new(ClassifierSpec(48, classes=tuple(sorted(survey.classes)), widths=(8, 16)))
    network.normalise_by([0.1] * 3, [0.1] * 3)
    model = network.save(tmp_path / "model")
    words[words.index(str(out))] = str(tmp_path / "second")
    assert main([*words, "--classifier", str(model), "--compare", f"again={model}"]) == 0
    found = json.loads((tmp_path / "second/metrics.json").read_text())
    assert found["photometric"] is True
    assert found["classifier"] == "given"
    assert [row["classifier"] for row in found["rare"]["searches"]] == ["given", "again"]
    assert found["rare"]["prevalence"] == 0.005
    assert found["classes"]["given"] == found["classes"]["again"]
    assert all(row["agree"] == row["agree, real"] for row in found["agreement"])
    assert [row["noise ratio"] for row in found["sky"]] == [1, 1, 1]
    for row in found["distances"]:
        assert row["KID"][0] < 0 or row["KID"][0] == pytest.approx(0, abs=1e-3)  # the same set twice
        assert row["recall"][0] == 1
    html = (tmp_path / "second/report.html").read_text()
    for text in ("Searching for dust_lane", "The sky", "Completeness, purity and F1", "features of the classifier"):
        assert text in html
    assert "Non-photometric" not in html
    assert "search:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--purity", "0"], "--purity 0.0"),
        (["--repeats", "1"], "--repeats 1"),
        (["--best", "0"], "--best 0"),
        (["--compare", "nothing"], "--compare 'nothing'"),
        (["--prevalence", "ring=2"], "--prevalence ring=2"),
        (["--features", "classifier"], "without a classifier"),
        (["--features", "nowhere"], "MODULE:FUNCTION"),
        (["--rare", "quasar"], "--rare quasar"),
        (["--splits", "nowhere.ecsv"], "no such file"),
        (["--train-classifiers"], "without splits"),
        (["--classifier", "nowhere"], "priorscope.json"),
        (["--compare", "focal=nowhere"], "priorscope.json"),
        (["--classifier", "nowhere", "--compare", "given=nowhere"], "two classifiers 'given'"),
        (["--prevalence", "quasar=0.1", "--train-classifiers"], "names the class 'quasar'"),
        (["--prevalence", "ring=0.1"], "--prevalence without a classifier"),
        (["--best", "7"], "--best without a classifier"),
        (["--classifier-steps", "7"], "--classifier-steps goes with --train-classifiers"),
        (["--side", "32"], "--side 32 with flux"),
        (["--features", "os:nothing"], "has no attribute 'nothing'"),
        (["--features", "os:sep"], "os:sep is a str, no function"),
        (["--accepted-only"], "no catalogue"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--class-column", "gz2_class"], "stamps have their own"),
        (["--id-column", "objid"], "stamps have their own"),
        (["--cuts", "willett13"], "--cuts willett13 changes nothing: the data says the classes"),
        (["--agreement", "0.8"], "--agreement 0.8 changes nothing: the data says the classes"),
    ],
)
def test_bad_options(simulated_survey, tmp_path, capsys, monkeypatch, options, words):
    from priorscope_astro import evaluate

    monkeypatch.setattr(evaluate, "_shapes", lambda config, findings, real: None)  # long, and checked elsewhere
    out = tmp_path / "run"
    where = [str(simulated_survey), str(simulated_survey), "--out", str(out), "--device", "cpu"]
    assert main(["astro", "evaluate", *where, *options]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_classes_of_a_file_are_compared_where_the_data_has_its_own(simulated_survey, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        '{"classes": [{"name": "disc", "tags": "features or disk-shaped"}, {"name": "s", "tags": "smooth"}]}'
    )
    config = EvaluateConfig(simulated_survey, simulated_survey, classes=str(path))
    generated, _ = read_generated(config)
    real = read_real(config, generated)
    assert set(generated.labels) == set(real.galaxies.labels) == {"disc", "s", ""}
    check_inputs(config, generated, real, None)
    column = replace(config, class_column="gz2_class")
    with pytest.raises(InputError, match=r"--classes .* changes nothing: --class-column gz2_class says"):
        check_inputs(column, generated, real, None)


def test_a_classifier_of_votes_needs_a_rule_for_each_class(simulated_survey, tmp_path):
    from priorscope_astro.classifier.network import ClassifierSpec, GalaxyClassifier

    folder = GalaxyClassifier.new(ClassifierSpec(48, widths=(8, 16))).save(tmp_path / "votes")
    path = tmp_path / "mine.json"
    path.write_text('{"classes": [{"name": "s", "tags": "smooth"}]}')
    config = EvaluateConfig(simulated_survey, simulated_survey, classifier=folder)
    generated, _ = read_generated(config)
    real = read_real(config, generated)
    splits = make_splits(real.galaxies.ids, seed=1)
    check_inputs(config, generated, real, splits)
    with pytest.raises(InputError, match=r"votes: is a classifier of votes, and no rule .* make a 'barred'.*--classes"):
        check_inputs(replace(config, classes=str(path)), generated, real, splits)
    check_inputs(replace(config, classes=str(path)), generated, real, None)  # nothing is searched for


def test_a_class_that_no_compared_galaxy_has_is_refused_with_its_reason(simulated_survey, tmp_path):
    """Of a rare class all galaxies may be in the training split: then no option about classes helps."""
    survey = read_survey(simulated_survey)
    described = {"ids": list("abc"), "flux": survey.flux[:3], "bands": "gri", "unit": "nmgy"}
    write_stamps(tmp_path / "a.npz", **described, labels=["dust_lane"] * 3)
    write_stamps(tmp_path / "b.npz", **described, labels=["quasar"] * 3)
    config = EvaluateConfig(tmp_path / "a.npz", simulated_survey)
    generated, _ = read_generated(config)
    real = read_real(config, generated)
    rare = np.array(real.galaxies.labels) == "dust_lane"
    splits = Splits({name: "train" if one else "test" for name, one in zip(real.galaxies.ids, rare, strict=True)})
    words = rf"none of the {(~rare).sum()} galaxies that are compared \(held-out\) .*dust_lane.* the other {rare.sum()}"
    with pytest.raises(InputError, match=words):
        check_inputs(config, generated, real, splits)
    check_inputs(replace(config, against="all"), generated, real, splits)
    config = EvaluateConfig(tmp_path / "b.npz", simulated_survey)
    with pytest.raises(InputError, match=r"no real galaxy is of a generated class \(quasar\).*--class-column"):
        check_inputs(config, read_generated(config)[0], real, splits)


@pytest.mark.parametrize("lacks", ["validation", "test"])
def test_a_search_without_a_threshold_says_why(simulated_survey, monkeypatch, lacks):
    config = EvaluateConfig(simulated_survey, simulated_survey)
    generated, _ = read_generated(config)
    real = read_real(config, generated)
    rare = np.array(real.galaxies.labels) == "dust_lane"
    rows = {"validation": np.arange(0, len(rare), 2), "test": np.arange(1, len(rare), 2)}
    rows[lacks] = rows[lacks][~rare[rows[lacks]]]
    monkeypatch.setattr(
        classifying,
        "class_scores",
        lambda model, pictures, classes, rules: np.tile(np.arange(float(len(classes))), (len(pictures), 1)),
    )
    findings = SimpleNamespace(
        classifier="", rare="dust_lane", notes=[], look=look_of(real), real=generated, class_rows={}, rare_rows=[]
    )
    _ask_classifiers(config, findings, real, rows, {"one": None, "two": None})
    assert findings.notes == [f"Completeness at a purity of 90% is not given: no {lacks} galaxy is a dust_lane."]
    assert [row["classifier"] for row in findings.rare_rows] == ["one", "two"]
    assert not any("completeness" in row for row in findings.rare_rows)


def test_generated_stamps_of_several_units_are_refused(simulated_survey, tmp_path):
    from astropy.table import QTable

    flux = read_survey(simulated_survey).flux[:2]
    for place, (unit, bands) in enumerate([("nmgy", "gri"), ("Jy", "gri")]):
        write_stamp_fits(tmp_path / f"{place}.fits", flux[place], bands=tuple(bands), unit=unit)
    names = ["0.fits", "1.fits"]
    table = QTable({"object_id": ["a", "b"], "class_name": ["round"] * 2, "image": names})
    write_catalogue(table, tmp_path / "catalogue.ecsv")
    with pytest.raises(InputError, match=r"1.fits: has g, r, i in Jy, the first file g, r, i in nmgy"):
        read_generated(EvaluateConfig(tmp_path, simulated_survey))


def test_pictures_and_flux_are_not_compared(drawn, simulated_survey, tmp_path, capsys):
    words = ["astro", "evaluate", str(drawn), str(simulated_survey / "stamps.npz"), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "holds flux, the generated galaxies are display" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("unit", "bands"), [("Jy", "gri"), ("nmgy", "irg")])
def test_flux_of_another_unit_or_other_bands_is_not_compared(simulated_survey, tmp_path, unit, bands):
    flux = read_survey(simulated_survey).flux[:8]
    write_stamps(tmp_path / "other.npz", ids=list("abcdefgh"), flux=flux, bands=bands, unit=unit, labels=["round"] * 8)
    config = EvaluateConfig(tmp_path / "other.npz", simulated_survey)
    generated, _ = read_generated(config)
    with pytest.raises(InputError, match=rf"stamps.npz|survey.*is flux in nmgy.*in {unit}, bands {', '.join(bands)}"):
        read_real(config, generated)
    described = {"bands": bands, "unit": unit, "sky_sigma": (0.01,) * 3}
    with pytest.raises(InputError, match="is flux in nmgy"):
        Gate(AcceptConfig(training=simulated_survey), described)


def test_pixels_of_another_scale_are_noted(simulated_survey):
    config = EvaluateConfig(simulated_survey, simulated_survey)
    generated, _ = read_generated(config)
    assert generated.survey.pixel_scale == read_real(config, generated).survey.pixel_scale == 0.396
    findings = SimpleNamespace(notes=[])
    for other in (None, 0.3961, 0.528):
        _note_scale(findings, 0.396, other)
    assert findings.notes == [
        "A pixel of the real galaxies is 0.396 arcsec, of the generated ones 0.528: sizes, sharpness and noise cannot "
        "be compared."
    ]


def test_generated_flux_may_be_of_any_layout_that_real_flux_has(simulated_survey, tmp_path):
    flux = read_survey(simulated_survey).flux[:3]
    counts = read_survey(simulated_survey).counts[:3]
    facts = {"ids": list("abc"), "flux": flux, "bands": "gri", "unit": "nmgy", "counts": counts}
    write_stamps(tmp_path / "stamps.h5", **facts)
    for place, one in enumerate(flux):
        write_stamp_fits(tmp_path / "fits" / f"{place}.fits", one, bands=tuple("gri"), unit="nmgy")
    found, _ = read_generated(EvaluateConfig(tmp_path / "stamps.h5", simulated_survey))
    assert found.mode == "flux"
    np.testing.assert_array_equal(found.images, flux)
    assert holds_flux(tmp_path / "fits")
    assert holds_flux(simulated_survey)
    assert not holds_flux(simulated_survey / "images")
    with pytest.raises(InputError, match="neither classes, votes nor captions"):  # read, but FITS files have no class
        read_generated(EvaluateConfig(tmp_path / "fits", simulated_survey))


def test_what_is_wrong_with_a_catalogue(drawn, simulated_survey, tmp_path):
    table = read_catalogue(drawn / "catalogue.ecsv")
    without = table["object_id", "class_name"]
    write_catalogue(without, tmp_path / "catalogue.ecsv")
    with pytest.raises(InputError, match="no column 'image'"):
        read_generated(EvaluateConfig(tmp_path, simulated_survey))
    write_catalogue(table, tmp_path / "catalogue.ecsv", overwrite=True)
    with pytest.raises(InputError, match="the image is missing"):
        read_generated(EvaluateConfig(tmp_path, simulated_survey))
    del table["accepted"]
    write_catalogue(table, tmp_path / "other.ecsv")
    with pytest.raises(InputError, match="does not say what is accepted"):
        read_generated(EvaluateConfig(tmp_path / "other.ecsv", simulated_survey, accepted_only=True))


def test_splits_are_found_beside_the_plan(drawn, tmp_path):
    assert read_splits(EvaluateConfig(tmp_path, tmp_path)) is None
    (tmp_path / "config.yaml").write_text(f"plan: {drawn / 'plan.ecsv'}\nsplits: null\n")
    assert len(read_splits(EvaluateConfig(tmp_path, tmp_path))) == 80
