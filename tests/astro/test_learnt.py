"""What a model has learnt is known to whoever draws, plans and evaluates with it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_astro.accept_config import AcceptConfig
from priorscope_astro.acceptance import Gate
from priorscope_astro.classifier.network import ClassifierSpec, GalaxyClassifier
from priorscope_astro.data.learnt import Learnt, learnt_by, learnt_from
from priorscope_astro.data.splits import Splits
from priorscope_astro.data.stamps import read_stamps, write_stamps
from priorscope_astro.evaluate import _rows_of_splits, check_inputs, read_learnt
from priorscope_astro.evaluation.sample import read_generated, read_real
from priorscope_astro.evaluation_config import EvaluateConfig
from priorscope_astro.plan import is_generated, object_id

LOOP = ["--steps", "1", "--batch-size", "4", "--warmup", "0", "--device", "cpu", "--patch", "2", "--size", "tiny"]


@pytest.fixture(scope="module")
def stamps(simulated_survey):
    return read_stamps(simulated_survey / "stamps.npz")


@pytest.fixture(scope="module")
def trained(simulated_survey, stamps, tmp_path_factory):
    """splits.ecsv (of every five galaxies one tests, one validates), and a model of its training galaxies."""
    folder = tmp_path_factory.mktemp("learnt")
    named = ("test", "validation", "train", "train", "train")
    Splits({name: named[row % 5] for row, name in enumerate(stamps.ids)}).write(folder / "splits.ecsv")
    words = ["astro", "train", str(simulated_survey), "--out", str(folder / "run"), "--side", "16", *LOOP]
    assert main([*words, "--splits", str(folder / "splits.ecsv")]) == 0
    return folder


def plan(survey, out, *options):
    words = ["astro", "plan", str(survey), "--out", str(out), "--draw", "balanced", "--total", "8"]
    return main([*words, "--condition", "tags", "--reference", "none", *options])


def test_a_training_says_what_it_has_learnt(trained, simulated_survey, tmp_path):
    train = frozenset(Splits.read(trained / "splits.ecsv").ids("train"))
    assert learnt_by(trained / "run") == learnt_by(trained / "run/model") == Learnt(train)
    words = ["astro", "train", str(simulated_survey), "--side", "16", "--start", str(trained / "run"), *LOOP]
    assert main([*words, "--out", str(tmp_path / "more")]) == 0  # all but a tenth
    more = learnt_by(tmp_path / "more")
    assert more.complete
    assert len(more.ids) > 72
    assert train < more.ids


def test_records_of_what_began_elsewhere():
    assert learnt_from("ab") == Learnt(frozenset("ab"))
    assert learnt_from("ab", Learnt(frozenset("c")), new=False) == Learnt(frozenset("abc"))
    assert learnt_from("ab", None, new=False) == Learnt(frozenset("ab"), complete=False)
    assert learnt_from("ab", Learnt(frozenset("c"), complete=False), new=False).complete is False


def test_a_record_is_read_or_its_fault_is_said(tmp_path):
    assert Learnt.read(tmp_path) is None
    record = Learnt(frozenset(["587", "é"]), complete=False)
    record.write(tmp_path)
    assert Learnt.read(tmp_path) == record
    for text in ("[]", '{"family": "other", "ids": []}', '{"family": "learnt-galaxies", "ids": [1]}', "{"):
        (tmp_path / "learnt.json").write_text(text)
        with pytest.raises(InputError, match=r"learnt\.json"):
            Learnt.read(tmp_path)
    with pytest.raises(InputError, match="no such model folder"):
        learnt_by(tmp_path / "nowhere")


def test_the_bundled_model_says_what_it_has_learnt():
    """Its galaxies can be simulated again: what was measured on some of them then is what it is now."""
    pytest.importorskip("galsim")
    from priorscope_astro.demo_config import BUNDLED_FOLDER
    from priorscope_astro.diffusion.spec import ModelSpec
    from priorscope_astro.simulator import survey
    from priorscope_astro.simulator.config import SimulateConfig

    spec, record = ModelSpec.read(BUNDLED_FOLDER), learnt_by("tiny-galaxies")
    settings = SimulateConfig(BUNDLED_FOLDER, 12_000, size=spec.side, seed=101, pixel_scale=spec.pixel_scale)
    assert record == Learnt(frozenset(str(survey.object_id(settings.seed, row)) for row in range(settings.count)))
    some = [survey.simulate(settings, row).flux for row in range(0, settings.count, 240)]
    values = np.arcsinh(np.stack(some) / np.array(spec.stretch["beta"])[:, None, None])
    values /= np.arcsinh(np.array(spec.stretch["scale"]) / np.array(spec.stretch["beta"]))[:, None, None]
    np.testing.assert_allclose(values.mean((0, 2, 3)), spec.offset, rtol=0.05)
    np.testing.assert_allclose(values.std((0, 2, 3)), 0.5 * np.array(spec.scale), rtol=0.05)


def test_generate_warns_and_leaves_the_record(trained, simulated_survey, stamps, tmp_path, capsys):
    splits = Splits.read(trained / "splits.ecsv")
    one = splits.ids("train")[0]
    Splits({**splits.of_id, one: "test"}).write(tmp_path / "splits.ecsv")
    assert plan(simulated_survey, tmp_path / "plan.ecsv") == 0
    capsys.readouterr()
    words = ["astro", "generate", str(tmp_path / "plan.ecsv"), "--model", str(trained / "run"), "--steps", "1"]
    words += ["--device", "cpu", "--out", str(tmp_path / "out"), "--limit", "2"]
    assert main([*words, "--accept.training", str(simulated_survey)]) == 0
    assert (
        f"warning: the model has learnt 1 galaxies that the splits hold out, such as {one}" in capsys.readouterr().out
    )
    assert Learnt.read(tmp_path / "out") == learnt_by(trained / "run")
    assert read_learnt(EvaluateConfig(tmp_path / "out", simulated_survey)) == learnt_by(trained / "run")
    # what the model has not learnt cannot be copied
    write_stamps(tmp_path / "others.npz", ids=range(9), flux=stamps.flux[:9], bands=stamps.bands, unit=stamps.unit)
    words[words.index(str(tmp_path / "out"))] = str(tmp_path / "second")
    assert main([*words, "--accept.training", str(tmp_path / "others.npz")]) == 2
    assert "holds none of the galaxies that the model has learnt" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_copies_are_looked_for_among_what_was_learnt(simulated_survey, stamps):
    described = {"bands": stamps.bands, "unit": stamps.unit, "sky_sigma": stamps.sky_sigma}
    record = Learnt(frozenset(stamps.ids[:20]))
    splits = Splits({name: "test" if row < 10 else "train" for row, name in enumerate(stamps.ids)})
    gate = Gate(AcceptConfig(training=simulated_survey), described, splits, learnt=record)
    assert gate._trained_on[0].ids == stamps.ids[:20]  # whatever the splits say
    gate = Gate(AcceptConfig(training=simulated_survey), described, splits, learnt=replace(record, complete=False))
    assert gate._trained_on[0].ids == stamps.ids[10:]


def test_plan_keeps_what_was_learnt_out_of_the_test_split(trained, simulated_survey, tmp_path, capsys):
    model = ["--model", str(trained / "run")]
    first, second = tmp_path / "one/plan.ecsv", tmp_path / "two/plan.ecsv"
    for path in (first, second):
        path.parent.mkdir()
    assert plan(simulated_survey, first, *model) == 0
    record, splits = learnt_by(trained / "run"), Splits.read(first.parent / "splits.ecsv")
    assert f"{len(record.ids)} galaxies that {trained / 'run'} has learnt are put into train" in capsys.readouterr().out
    assert not record.held_out(splits)
    assert splits.ids("test")  # of the others
    assert plan(simulated_survey, second, "--splits", str(trained / "splits.ecsv"), *model) == 0
    capsys.readouterr()
    assert plan(simulated_survey, second, "--overwrite") == 0  # splits.ecsv beside it, made without the model
    assert plan(simulated_survey, second, "--overwrite", *model) == 2
    assert "galaxies that are held out here, such as" in capsys.readouterr().err
    assert plan(simulated_survey, second, "--overwrite", "--model", "galaxysd") == 0
    assert "galaxysd does not say which galaxies it has learnt" in capsys.readouterr().out
    assert learnt_by("galaxysd") is None
    assert plan(simulated_survey, second, "--overwrite", "--model", str(tmp_path / "nowhere")) == 2
    assert "no such model folder" in capsys.readouterr().err


@pytest.fixture
def compared(simulated_survey, stamps, tmp_path):
    """Generated galaxies (real ones called so), the real ones, and splits: 40 train, 20 validate, 20 test."""
    facts = {"bands": stamps.bands, "unit": stamps.unit}
    ids = [object_id("00000000000000aa", row) for row in range(12)]
    flux = np.stack([stamps.stamp(row) for row in range(12)])
    write_stamps(tmp_path / "drawn.npz", ids=ids, flux=flux, labels=stamps.labels[:12], **facts)
    config = EvaluateConfig(tmp_path / "drawn.npz", simulated_survey)
    generated, _ = read_generated(config)
    named = {row: "train" if row < 40 else "validation" if row < 60 else "test" for row in range(80)}
    splits = Splits({name: named[row] for row, name in enumerate(stamps.ids)})
    return config, generated, read_real(config, generated), splits


def rows(compared, learnt, **options):
    config, _, real, splits = compared
    splits = options.pop("splits", splits)
    found = _rows_of_splits(real, splits, learnt, replace(config, **options))
    return {name: found[name].tolist() for name in ("compared", "held-out", "learnt")}


def test_which_galaxies_are_compared(compared, stamps):
    ids = stamps.ids
    as_said = {"compared": list(range(40, 80)), "held-out": list(range(40, 80)), "learnt": list(range(40))}
    assert rows(compared, None) == as_said
    # fewer than the splits have for training: copies are looked for among these
    assert rows(compared, Learnt(frozenset(ids[:30]))) == {**as_said, "learnt": list(range(30))}
    assert rows(compared, Learnt(frozenset(ids[:30]), complete=False)) == as_said
    # none of them is learnt
    assert rows(compared, Learnt(frozenset(["elsewhere"]))) == {**as_said, "learnt": []}
    # one that is held out: refused, or left out where all are asked for
    leaking = Learnt(frozenset(ids[:41]))
    with pytest.raises(InputError, match=f"has learnt 1 of the 40 galaxies .* such as {ids[40]}"):
        rows(compared, leaking)
    everything = {"compared": list(range(80)), "held-out": list(range(41, 80)), "learnt": list(range(41))}
    assert rows(compared, leaking, against="all") == everything
    # without splits the record alone says what is held out
    alone = {"compared": list(range(41, 80)), "held-out": list(range(41, 80)), "learnt": list(range(41))}
    assert rows(compared, leaking, splits=None) == alone
    assert rows(compared, leaking, splits=None, against="all") == {**alone, "compared": list(range(80))}
    assert rows(compared, None, splits=None) == {"compared": list(range(80)), "held-out": [], "learnt": []}
    with pytest.raises(InputError, match="Use --against all"):
        rows(compared, Learnt(frozenset(ids)), splits=None)


@pytest.mark.parametrize(
    ("learnt", "size", "option", "words"),
    [
        ("train", 48, "classifier", ""),
        ("train", 48, "compare", ""),
        ("test", 48, "classifier", "has learnt 1 of the galaxies that it would be tested on"),
        ("test", 48, "compare", "has learnt 1 of the galaxies that it would be tested on"),
        ("drawn", 48, "classifier", "was trained on 1 generated galaxies, such as 00000000000000aa-000000"),
        ("drawn", 48, "compare", ""),
        ("train", 32, "classifier", "has learnt stamps of 32 pixels, and is to see some of 48"),
        ("train", 32, "compare", "has learnt stamps of 32 pixels, and is to see some of 48"),
    ],
)
def test_classifiers_that_know_too_much(compared, stamps, tmp_path, learnt, size, option, words):
    config, generated, real, splits = compared
    name = {"train": stamps.ids[0], "test": stamps.ids[79], "drawn": generated.ids[0]}[learnt]
    network = GalaxyClassifier.new(ClassifierSpec(size, classes=("round", "spiral"), widths=(8, 16)))
    folder = network.save(tmp_path / "model")
    Learnt(frozenset([stamps.ids[1], name])).write(folder)
    given = {"classifier": folder} if option == "classifier" else {"compare": (f"mine={folder}",)}
    config = replace(config, **given)
    if not words:
        check_inputs(config, generated, real, splits)
        return
    with pytest.raises(InputError, match=words):
        check_inputs(config, generated, real, splits)
    if option == "classifier" and learnt != "test":
        described = {"bands": stamps.bands, "unit": stamps.unit}
        with pytest.raises(InputError, match=words):
            Gate(AcceptConfig(classifier=folder), described, side=48)


def test_ids_of_generated_galaxies():
    assert is_generated(object_id("0123456789abcdef", 7))
    assert is_generated(object_id("0123456789abcdef", 1234567))
    assert not is_generated("587722981736120347")
    assert not is_generated("galaxy10-00007")


def test_the_report_says_what_was_learnt(trained, simulated_survey, stamps, tmp_path):
    """Copies of what the model has learnt are found without splits; with those of others nothing is compared."""
    record = learnt_by(trained / "run")
    folder = tmp_path / "drawn"
    folder.mkdir()
    record.write(folder)
    rows = np.flatnonzero(record.mask(stamps.ids))
    facts = {"bands": stamps.bands, "unit": stamps.unit, "labels": [stamps.labels[row] for row in rows]}
    flux = np.stack([stamps.stamp(row) for row in rows])
    write_stamps(folder / "stamps.npz", ids=[object_id("0" * 16, row) for row in rows], flux=flux, **facts)
    words = ["astro", "evaluate", str(folder), str(simulated_survey), "--out", str(tmp_path / "run")]
    assert main([*words, "--repeats", "10", "--no-sersic", "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    assert found["against"] == "not learnt"
    assert found["real"] == 80 - len(rows)
    assert found["memorisation"]["copied"] is True
    assert not any("Without splits" in note for note in found["notes"])
