"""Metrics against SatDiFuser's evaluators, scikit-learn, and cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope_remote_sensing.metrics import ClassificationCounts, MultiLabelCounts, SegmentationCounts


def compare(official, expected, tolerance):
    for name, value in expected.items():
        if name not in ("ignore_index", "num_classes"):
            np.testing.assert_allclose(official[name], value, atol=tolerance, rtol=0, err_msg=name)


def test_golden_satdifuser_metrics(golden_files, read_json):
    for path in golden_files("features", "satdifuser_metrics*"):
        if path.suffix != ".json":
            continue
        case, tensors = read_json(path), load_file(path.with_suffix(".safetensors"))
        for name, expected in case["expected"].items():
            for pieces in (1, 3):
                parts = [counts_of(name, expected, tensors, slice(i, None, pieces)) for i in range(pieces)]
                official = sum(parts[1:], start=parts[0]).official()
                compare(official, expected, case["tolerance"])


def counts_of(name, expected, tensors, part):
    values = {key.split(".")[1]: value[part] for key, value in tensors.items() if key.startswith(f"{name}.")}
    if name.startswith("cls"):
        counts = ClassificationCounts(values["logits"].shape[1], ignore_index=-100)
        counts.update(values["logits"].argmax(1), values["labels"])
    elif name.startswith("ml"):
        counts = MultiLabelCounts(values["logits"].shape[1])
        counts.update(1 / (1 + np.exp(-values["logits"])), values["labels"])
    else:
        counts = SegmentationCounts(expected["num_classes"], ignore_index=expected["ignore_index"])
        counts.update(values["pred"], values["labels"])
    return counts


@pytest.fixture
def drawn():
    """Predictions and labels of 6 classes; class 4 has no label, class 5 neither label nor prediction."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 4, 300)
    prediction = np.where(generator.random(300) < 0.6, label, generator.integers(0, 5, 300))
    return prediction, label


def test_classification_as_scikit_learn(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, label = drawn
    counts = ClassificationCounts(6)
    counts.update(prediction, label)
    figures = counts.metrics()
    assert figures["accuracy"] == pytest.approx(sklearn.accuracy_score(label, prediction))
    assert figures["macro_f1"] == pytest.approx(sklearn.f1_score(label, prediction, average="macro"))
    recall = sklearn.recall_score(label, prediction, average=None, labels=range(4))
    assert figures["balanced_accuracy"] == pytest.approx(recall.mean())
    assert figures["f1"][5] is None
    assert figures["f1"][4] == 0


def test_segmentation_as_scikit_learn(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, label = drawn
    counts = SegmentationCounts(6)
    counts.update(prediction.reshape(3, 10, 10), label.reshape(3, 10, 10))
    expected = sklearn.jaccard_score(label, prediction, average=None, labels=range(5))
    np.testing.assert_allclose(counts.metrics()["iou"][:5], expected)
    assert counts.metrics()["miou"] == pytest.approx(expected.mean())
    # the official mean counts the class that is nowhere
    assert counts.official()["mIoU"] == pytest.approx(100 * expected.sum() / 6)


def test_multi_label_as_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    probabilities, labels = generator.random((50, 7)), generator.integers(0, 2, (50, 7))
    counts = MultiLabelCounts(7)
    counts.update(probabilities, labels)
    for average in ("micro", "macro"):
        expected = sklearn.f1_score(labels, probabilities > 0.5, average=average)
        assert counts.metrics()[f"{average}_f1"] == pytest.approx(expected)


def test_macro_f1_is_not_the_official_one():
    """Two classes by hand: precision (1, 1/2), recall (1/3, 1)."""
    counts = ClassificationCounts(2)
    counts.update(np.array([0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1]))
    assert counts.metrics()["macro_f1"] == pytest.approx((2 * 1 / 4 + 2 * 2 / 6) / 2)
    assert counts.official()["F1"] == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert counts.metrics()["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)


def test_official_precision_of_segmentation_is_recall():
    counts = SegmentationCounts(2)
    counts.update(np.array([[0, 1, 1, 1, 1]]), np.array([[0, 0, 0, 1, 1]]))
    assert counts.official()["Precision"] == pytest.approx([100 / 3, 100])
    assert counts.official()["Recall"] == pytest.approx([100, 50])


def test_no_data_by_hand():
    """Class 0 says "no data". Known pixels: 1 1 1 2 2, predicted 1 1 0 2 1."""
    label, prediction = np.array([1, 1, 1, 2, 2, 0, 0, 0]), np.array([1, 1, 0, 2, 1, 0, 0, 2])
    counts = SegmentationCounts(3, no_data=0)
    counts.update(prediction, label)
    figures = counts.metrics()
    assert figures["miou"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 3) / 3)
    assert figures["miou_without_no_data"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    # the known pixels alone, with labels of "no data" ignored, agree for the other classes
    known = SegmentationCounts(3, ignore_index=0)
    known.update(prediction, label)
    assert np.mean(known.metrics()["iou"][1:]) == pytest.approx(figures["miou_without_no_data"])
    assert "miou_without_no_data" not in known.metrics()
    both = counts + counts
    assert both.metrics() == figures
    with pytest.raises(InputError, match="cannot be added"):
        counts + SegmentationCounts(3)


def test_perfect_prediction():
    labels = np.arange(5)
    counts = ClassificationCounts(5)
    counts.update(labels, labels)
    assert counts.metrics()["macro_f1"] == counts.official()["F1"] == 1
    segments = SegmentationCounts(5)
    segments.update(labels, labels)
    assert segments.metrics()["miou"] == 1
    assert segments.official()["mIoU"] == 100


@pytest.mark.parametrize("kind", [ClassificationCounts, SegmentationCounts])
def test_wrong_indices(kind):
    counts = kind(3, ignore_index=255)
    for prediction, label, word in (
        (np.zeros(3), np.zeros(3, int), "array of integers"),
        (np.zeros(3, int), np.full(3, np.nan), "array of integers"),
        (np.zeros(3, int), np.zeros(4, int), "one shape"),
        (np.array([3]), np.array([0]), "prediction lies outside"),
        (np.array([0]), np.array([-100]), "ignore_index"),
    ):
        with pytest.raises(InputError, match=word):
            counts.update(prediction, label)
    counts.update(np.array([7]), np.array([255]))  # what is ignored may be predicted as anything
    counts.update(np.zeros(0, int), np.zeros(0, int))
    for figures in (counts.metrics, counts.official):
        with pytest.raises(InputError, match="nothing was counted"):
            figures()
    with pytest.raises(InputError, match="cannot be added"):
        counts + kind(4, ignore_index=255)
    with pytest.raises(InputError, match="0 classes"):
        kind(0)


def test_wrong_probabilities():
    counts = MultiLabelCounts(2)
    for probabilities, labels, word in (
        ([[0.5, 3.0]], [[0, 1]], "sigmoid"),
        ([[0.5, np.nan]], [[0, 1]], "NaN"),
        ([[0.5, 0.2]], [[0, 2]], "0 or 1"),
        ([0.5, 0.2], [0, 1], r"not \(B, 2\)"),
        ([[0.5, 0.2, 0.1]], [[0, 1, 0]], r"not \(B, 2\)"),
    ):
        with pytest.raises(InputError, match=word):
            counts.update(probabilities, labels)
    with pytest.raises(InputError, match="nothing was counted"):
        counts.metrics()
    with pytest.raises(InputError, match="cannot be added"):
        counts + MultiLabelCounts(2, 0.4)
    with pytest.raises(InputError, match="threshold"):
        MultiLabelCounts(2, 1.5)


def test_nothing_but_no_data():
    counts = SegmentationCounts(2, no_data=1)
    counts.update(np.array([0]), np.array([1]))
    with pytest.raises(InputError, match="no data"):
        counts.metrics()
    with pytest.raises(InputError, match="none of 2"):
        SegmentationCounts(2, no_data=2)
