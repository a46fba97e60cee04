"""The galaxy classifier: what it is fed, what it gives, and that it learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope.training.settings import LoopConfig
from priorscope_astro.classifier.config import ClassifierConfig
from priorscope_astro.classifier.examples import Examples
from priorscope_astro.classifier.feed import BalancedOrder, ExampleFeed, augmented
from priorscope_astro.classifier.network import QUESTION_SIZES, ClassifierSpec, GalaxyClassifier
from priorscope_astro.classifier.predict import answer_probability, features, predict
from priorscope_astro.classifier.report import confusion
from priorscope_astro.classifier.train import fraction_error, new_classifier, train_classifier
from priorscope_astro.conditions.tree import ANSWERS

SMALL = LoopConfig(
    steps=40, batch_size=16, lr=4e-3, warmup=5, ema=0.8, log_every=10, validate_every=20, checkpoint_every=20, seed=3
)


def examples(count=24, size=16, seed=0, dtype=np.uint8, first=0):
    """Discs (class 0) and rings (class 1), each with votes that say so."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    labels = np.arange(count) % 2
    images = np.empty((count, 3, size, size))
    for image, label in zip(images, labels, strict=True):
        r = np.hypot(x - random.uniform(-1, 1), y - random.uniform(-1, 1))
        shape = np.exp(-0.5 * ((r - 5) / 1.2) ** 2) if label else np.exp(-r / 3)
        image[:] = random.uniform(0.5, 1) * shape + random.normal(0, 0.03, (3, size, size))
    counts = np.zeros((count, len(ANSWERS)), np.int64)
    counts[:, 0], counts[:, 1] = 36 - 32 * labels, 4 + 32 * labels
    images = np.clip(images * 200, 0, 255).astype(np.uint8) if dtype == np.uint8 else images.astype(np.float32)
    ids = tuple(f"galaxy-{first + number}" for number in range(count))
    return Examples(images, ids, labels, ("disc", "ring"), counts)


def network(**changes):
    return GalaxyClassifier.new(
        ClassifierSpec(16, classes=("disc", "ring"), widths=(8, 16))
        if not changes
        else ClassifierSpec(**{"size": 16, "widths": (8, 16)} | changes)
    ).eval()


def test_the_default_network_has_half_a_million_weights():
    count = sum(weight.numel() for weight in GalaxyClassifier.new(ClassifierSpec(64)).parameters())
    assert 200_000 < count < 500_000
    GalaxyClassifier.new(ClassifierSpec(48))


def test_vote_fractions_of_each_question_add_up():
    model = network()
    votes = network(classes=())
    found = predict(votes, examples(5).images, batch_size=2)
    assert found.shape == (5, 37)
    for part in np.split(found, np.cumsum(QUESTION_SIZES)[:-1], axis=1):
        np.testing.assert_allclose(part.sum(1), 1, atol=1e-5)
    assert votes(torch.from_numpy(examples(5).images)).detach().min() > 1  # concentrations
    np.testing.assert_allclose(predict(model, examples(5).images).sum(1), 1, atol=1e-5)
    assert features(model, examples(5).images).shape == (5, 16)


def test_answers_do_not_depend_on_the_batch():
    model, images = network(), examples(7).images
    np.testing.assert_allclose(predict(model, images, batch_size=1), predict(model, images), atol=1e-6)
    assert not model.training


def test_a_model_folder_gives_the_same_answers(tmp_path):
    model = network()
    model.normalise_by([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    loaded = GalaxyClassifier.load(model.save(tmp_path / "model"))
    images = examples(4).images
    assert np.array_equal(predict(loaded, images), predict(model, images))
    assert loaded.spec == model.spec
    (tmp_path / "model/model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        GalaxyClassifier.load(tmp_path / "model")
    with pytest.raises(InputError):
        GalaxyClassifier.load(tmp_path)


def test_channels_are_normalised():
    one = examples(40, dtype=np.float32)
    model = new_classifier(one, ClassifierConfig(widths=(8, 16)))
    np.testing.assert_allclose(model.mean, one.images.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(model.deviation, one.images.std((0, 2, 3)), atol=1e-5)
    brighter = replace(one, images=3 * one.images + 1)
    again = new_classifier(brighter, ClassifierConfig(widths=(8, 16)))
    np.testing.assert_allclose(predict(again, brighter.images), predict(model, one.images), atol=1e-4)


def test_the_probability_of_an_answer_goes_down_the_tree():
    fractions = np.concatenate([np.full(size, 1 / size) for size in QUESTION_SIZES])[None]
    # (smooth or features: 2/3) x (odd: 1/2) x 1/7
    assert answer_probability(fractions, "t08_odd_feature_a38_dust_lane") == pytest.approx(2 / 3 / 2 / 7)
    assert answer_probability(fractions, "t10_arms_winding_a28_tight") == pytest.approx(1 / 3 / 2 / 2 / 3)
    assert answer_probability(fractions, ANSWERS[0]) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="dust"):
        answer_probability(fractions, "dust")


def test_augmentation_is_one_of_eight_turns():
    image = np.arange(3 * 6 * 6, dtype=np.uint8).reshape(3, 6, 6)
    seen = Counter()
    for seed in range(200):
        turned = augmented(image, np.random.default_rng(seed), turns=True, shift=0)
        assert np.array_equal(np.sort(turned[1].ravel()), np.sort(image[1].ravel()))  # each band keeps its pixels
        seen[turned.tobytes()] += 1
    assert len(seen) == 8
    assert min(seen.values()) > 10
    shifted = {augmented(image, np.random.default_rng(s), turns=False, shift=1).tobytes() for s in range(200)}
    assert len(shifted) == 9
    assert image.tobytes() in shifted
    assert np.array_equal(augmented(image, np.random.default_rng(0), turns=False, shift=0), image)


def test_a_batch_depends_on_seed_and_step_only():
    feed = ExampleFeed(examples(10), 8, seed=1, shift=2)
    whole, part = feed.batch(5, range(8)), feed.batch(5, range(3, 6))
    assert torch.equal(whole["image"][3:6], part["image"])
    assert whole["key"][3:6] == part["key"]
    assert torch.equal(whole["label"][3:6], part["label"])
    assert not torch.equal(whole["image"], ExampleFeed(examples(10), 8, seed=2, shift=2).batch(5, range(8))["image"])
    # five batches of 8 are four passes over 10
    seen = Counter(key for step in range(5) for key in feed.batch(step, range(8))["key"])
    assert set(seen.values()) == {4}


def test_balanced_sampling_shows_each_class_equally_often():
    labels = np.array([0] * 30 + [1] * 3 + [2] * 7)
    order = BalancedOrder(labels, 3, seed=0)
    places = [order[position] for position in range(630)]
    assert Counter(labels[place.item] for place in places) == {0: 210, 1: 210, 2: 210}
    assert set(Counter(place.item for place in places if labels[place.item] == 1).values()) == {70}
    assert set(Counter(place.item for place in places if labels[place.item] == 0).values()) == {7}
    # the same item comes in another epoch each time, so that it is turned differently
    assert len(set(places)) == 630
    # a neighbouring seed shares the order of no class
    other = BalancedOrder(labels, 3, seed=1)
    assert not {one.seed for one in order.orders} & {one.seed for one in other.orders}
    with pytest.raises(InputError, match="class number 1"):
        BalancedOrder(labels[labels != 1], 3, seed=0)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal"])
def test_classes_are_learnt(tmp_path, loss):
    config = ClassifierConfig(loss=loss, sampling="balanced", widths=(8, 16), shift=1, loop=SMALL)
    held = examples(30, seed=9, first=100)
    result = train_classifier(examples(40), config, tmp_path / "run", held_out=held)
    model = GalaxyClassifier.load(result.model)
    assert (predict(model, held.images).argmax(1) == held.labels).mean() > 0.9
    rows = [line for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines() if "held_out_accuracy" in line]
    assert len(rows) == 3
    report = (tmp_path / "run/report.html").read_text()
    assert "What it takes for what" in report
    assert "ring" in report


def test_votes_are_learnt(tmp_path):
    config = ClassifierConfig(head="votes", widths=(8, 16), loop=replace(SMALL, steps=80))
    held = examples(30, seed=9, first=100)
    model = GalaxyClassifier.load(train_classifier(examples(40), config, tmp_path / "run", held_out=held).model)
    error = fraction_error(predict(model, held.images), held.counts)
    mean = np.tile(held.counts[:, :3].mean(0) / 40, (30, 1))
    mean = np.concatenate([mean, np.zeros((30, 34))], 1)
    assert error < 0.5 * fraction_error(mean, held.counts)


def test_a_resumed_training_is_the_same(tmp_path):
    config = ClassifierConfig(widths=(8, 16), loop=replace(SMALL, steps=4, checkpoint_every=3, validate_every=3))
    whole = train_classifier(examples(40), config, tmp_path / "whole")
    again = train_classifier(examples(40), config, tmp_path / "again")
    cut = replace(config, loop=replace(config.loop, max_seconds=1e-9, resume=True))
    for _ in range(6):
        result = train_classifier(examples(40), cut, tmp_path / "cut")
        if result.finished:
            break
    images = examples(8, seed=4).images
    one, two, three = (predict(GalaxyClassifier.load(run.model), images) for run in (whole, again, result))
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_confusion_by_hand():
    table = confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_vote_errors_by_hand():
    counts = np.zeros((2, 37), np.int64)
    counts[0, :3] = [6, 4, 0]
    counts[1, :3] = [1, 1, 1]  # too few to count
    fractions = np.zeros((2, 37))
    fractions[:, :3] = [0.5, 0.3, 0.2]
    assert fraction_error(fractions, counts) == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert np.isnan(fraction_error(fractions, np.zeros((2, 37), int)))


def test_examples_are_joined_split_and_named():
    one, two = examples(6), examples(4, first=50)
    both = one.joined(two)
    assert len(both) == 10
    assert both.select([9, 0]).ids == ("galaxy-53", "galaxy-0")
    assert both.select(both.labels == 1).labels.tolist() == [1] * 5
    with pytest.raises(InputError, match="galaxy-0 comes twice"):
        one.joined(one)
    with pytest.raises(InputError, match="cannot be joined"):
        one.joined(examples(2, dtype=np.float32, first=70))


def test_wrong_examples_are_named():
    one = examples(4, dtype=np.float32)
    broken = one.images.copy()
    broken[2, 0, 0, 0] = np.nan
    for change, message in (
        ({"images": broken}, "galaxy-2"),
        ({"images": one.images[:, :, :8]}, "images"),
        ({"images": one.images.astype(np.float64)}, "float64"),
        ({"labels": np.array([0, 1, 2, 0])}, "labels from 0 to 2"),
        ({"labels": np.array([0, 1])}, "labels"),
        ({"counts": one.counts - 5}, "votes"),
        ({"labels": None, "counts": None}, "neither"),
    ):
        with pytest.raises(InputError, match=message):
            replace(one, **change)


def test_wrong_settings_are_named_before_a_folder_is_made(tmp_path):
    one = examples(8)
    plain = ClassifierConfig(widths=(8, 16), loop=SMALL)
    for config, learnt, held, message in (
        (replace(plain, widths=(12,)), one, None, "widths"),
        (replace(plain, shift=-1), one, None, "shift"),
        (replace(plain, shift=8), one, None, "shift 8 of pictures of 16 pixels"),
        (replace(plain, head="votes", loss="focal"), one, None, "votes"),
        (replace(plain, head="votes"), replace(one, counts=None), None, "no votes"),
        (plain, replace(one, labels=None), None, "no labels"),
        (plain, one, one, "8 objects"),
        (plain, one.select([]), None, "empty"),
        (replace(plain, sampling="balanced"), one.select(one.labels == 0), None, "balance"),
        (replace(plain, widths=(8,) * 5), one, None, "images of 16 pixels"),
    ):
        with pytest.raises(InputError, match=message):
            train_classifier(learnt, config, tmp_path / "run", held_out=held)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="this classifier takes"):
        predict(network(), one.images[:, :2])
    with pytest.raises(InputError, match="this classifier takes"):
        predict(network(), one.images.astype(np.float32))
