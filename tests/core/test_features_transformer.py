"""Vectors of features inside a scikit-learn pipeline."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from priorscope.backbones import PatchSpace
from priorscope.diffusion import Denoiser, VPSchedule
from priorscope.errors import InputError
from priorscope.features import AtLevels, FeatureExtractor, FeatureTransformer, Tap
from priorscope.features.transformer import pool


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    """``from_pretrained`` gives a model whose map is the image itself, with little noise."""

    def load(source, taps, *, t, **settings):
        assert settings["posterior"] == "mode"
        network = torch.nn.Sequential()
        network.add_module("map", torch.nn.Identity())
        network.forward = lambda x, label: network.map(x)
        return FeatureExtractor(
            Denoiser(network, VPSchedule.from_betas()), PatchSpace(1), None, [Tap("map")], mode=AtLevels((t,))
        )

    monkeypatch.setattr(FeatureExtractor, "from_pretrained", load)


def images(count=24):
    """Red pictures and blue ones."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 160, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count) % 2
    pictures[labels == 0, ..., 0] += 60
    pictures[labels == 1, ..., 2] += 60
    return pictures, labels


def test_vectors_are_means_over_fields():
    pictures, _ = images(2)
    vectors = FeatureTransformer("model", t=0).fit_transform(pictures)
    assert vectors.shape == (2, 3)
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(pictures.mean((1, 2)) / 127.5 - 1, abs=0.02)
    corners = FeatureTransformer("model", t=0, grid=2).fit_transform(pictures)
    assert corners.shape == (2, 12)
    assert corners.reshape(2, 3, 4).mean(2) == pytest.approx(vectors, abs=1e-6)
    assert corners[0, 1] == pytest.approx(pictures[0, :4, 4:, 0].mean() / 127.5 - 1, abs=0.03)
    maps = {"a": torch.randn(2, 3, 5, 7), "b": torch.randn(2, 4, 2, 2)}
    assert torch.equal(pool(maps), torch.cat([value.mean((2, 3)) for value in maps.values()], 1))


def test_parameters_are_kept_as_they_were_given():
    transformer = FeatureTransformer("model", t=(1, 2), grid=3)
    parameters = transformer.get_params()
    assert parameters["t"] == (1, 2)
    assert FeatureTransformer(**parameters).get_params() == parameters
    assert transformer.set_params(grid=1, t=5).get_params()["t"] == 5
    with pytest.raises(InputError, match="no parameter is called 'levels'"):
        transformer.set_params(levels=1)
    with pytest.raises(InputError, match="no model yet"):
        transformer.transform(images(1)[0])
    with pytest.raises(InputError, match="grid of 0"):
        FeatureTransformer("model", grid=0).fit(images(1)[0])
    transformer.fit(None)
    with pytest.raises(InputError, match="no model yet"):
        transformer.set_params(t=6).transform(images(1)[0])


def test_importing_needs_no_scikit_learn(fork):
    def work():
        for name in [name for name in sys.modules if name.split(".")[0] == "sklearn" or "features.transformer" in name]:
            del sys.modules[name]
        sys.modules["sklearn"] = None  # importing it fails now
        import importlib

        importlib.import_module("priorscope.features.transformer")
        return 0

    assert fork(work) == 0


def test_in_a_pipeline():
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    check_is_fitted = pytest.importorskip("sklearn.utils.validation").check_is_fitted
    transformer = FeatureTransformer("model", t=100)
    with pytest.raises(ValueError, match="not fitted"):
        check_is_fitted(transformer)
    check_is_fitted(transformer.fit(None))
    pictures, labels = images()
    pipeline = Pipeline([("features", FeatureTransformer("model", t=100)), ("head", LogisticRegression())])
    search = GridSearchCV(clone(pipeline), {"features__t": [0, 900]}, cv=3)
    search.fit(pictures, labels)
    assert search.best_params_ == {"features__t": 0}
    assert search.score(pictures, labels) == 1
