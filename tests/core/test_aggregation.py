"""Aggregation networks: official outputs, published keys and shapes, published containers."""

from __future__ import annotations

import csv

import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope.features.aggregation import (
    AggregationNetwork,
    load_aggregation,
    stack_features,
    symmetric_match_loss,
)

#: Output channels of the up-path residual blocks of Stable Diffusion, deepest first.
SD_TAPS = [1280] * 6 + [640] * 3 + [320] * 3


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(config, stored, **changes):
    weights = {key[2:]: value for key, value in stored.items() if key.startswith("w.")}
    embedding = weights.get(
        "bottleneck_layers.0.emb_layers.weight", weights.get("bottleneck_layers.0.0.emb_layers.weight")
    )
    network = AggregationNetwork(
        config["feature_dims"],
        len(config["save_timestep"]),
        projection_dim=config["projection_dim"],
        norm_groups=config["num_norm_groups"],
        embedding=None if embedding is None else embedding.shape[1],
        **changes,
    )
    network.load_state_dict(weights)
    return network.eval()


def test_golden_hyperfeatures(golden_files, read_json):
    for path in golden_files("features", "hyperfeatures_aggregation*.safetensors"):
        stored, golden = load_file(path), read_json(path.with_suffix(".json"))
        network = built(golden["config"], stored)
        with torch.no_grad():
            for rows in (slice(None), slice(0, 1)):
                torch.testing.assert_close(network(stored["x"][rows]), stored["out"][rows], atol=1e-5, rtol=0)
        assert float(network.shares().sum().detach()) == pytest.approx(1)


def test_golden_readout(golden_files, read_json):
    seen = set()
    for path in golden_files("features", "readout_head_*.safetensors"):
        stored, golden = load_file(path), read_json(path.with_suffix(".json"))
        config = golden["config"]
        network = built(
            config, stored, nested=config["bottleneck_sequential"], outputs=3, bounded=config["output_head_act"]
        )
        with torch.no_grad():
            torch.testing.assert_close(network(stored["x"], stored.get("emb")), stored["out"], atol=1e-5, rtol=0)
            if "emb" in stored:
                without = network(stored["x"])
                assert float((without - stored["out"]).abs().max()) > 1e-3
        seen.add(config["bottleneck_sequential"])
    assert seen == {True, False}


def read_features_manifest(path):
    """Key -> shape; shapes are written 384x1280x1x1 in this folder."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["key", "shape", "dtype"]
    return {key: [int(length) for length in shape.split("x")] for key, shape, _ in rows[1:]}


@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        ("manifest-hyperfeatures-aggregation.tsv", {"steps": 11}),
        ("manifest-readout-spatial.tsv", {"embedding": 1280, "nested": False, "outputs": 3}),
    ],
)
def test_golden_manifest_features_aggregation(golden_files, pattern, settings):
    for path in golden_files("features", pattern):
        with torch.device("meta"):
            network = AggregationNetwork(SD_TAPS, **settings)
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        assert shapes == read_features_manifest(path)


def test_stacking_runs_through_the_taps_of_a_step_before_the_next():
    features = [
        {name: torch.full((2, width, 4, 6), float(10 * step + width)) for name, width in (("a", 1), ("b", 2))}
        for step in range(3)
    ]
    stacked = stack_features(features, (8, 8))
    assert stacked.shape == (2, 9, 8, 8)
    assert stacked[0, :, 0, 0].tolist() == [1, 2, 2, 11, 12, 12, 21, 22, 22]
    with pytest.raises(InputError, match="taps differ"):
        stack_features([features[0], {"b": features[0]["b"]}], (8, 8))


def test_mixing_is_a_weighted_sum_over_steps_and_taps():
    network = AggregationNetwork([3, 5], 2, projection_dim=16, norm_groups=4).eval()
    torch.nn.init.normal_(network.mixing_weights, generator=torch.Generator().manual_seed(1))
    x = normal(2, 16, 4, 4)
    weights = network.mixing_weights.softmax(0)
    pieces = x.split([3, 5, 3, 5], dim=1)
    expected = sum(weights[i] * network.bottleneck_layers[i % 2](piece) for i, piece in enumerate(pieces))
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected.detach())


@pytest.mark.parametrize("kind", ["hyperfeatures", "readout", "bare"])
def test_published_containers_are_read(tmp_path, kind):
    settings = {"steps": 3} if kind == "hyperfeatures" else {"embedding": 20, "nested": False, "outputs": 3}
    network = AggregationNetwork([6, 4, 16], projection_dim=16, norm_groups=2, **settings).eval()
    config = {"save_timestep": [9, 5, 0], "projection_dim": 16, "aggregation_kwargs": {"output_head_act": False}}
    state = network.state_dict()
    torch.save(state if kind == "bare" else {"aggregation_network": state, "config": config}, tmp_path / "a.pt")
    loaded, read = load_aggregation(tmp_path / "a.pt", norm_groups=2)
    assert read == ({} if kind == "bare" else config)
    x = normal(2, network.steps * 26, 4, 4)
    embedding = None if kind == "hyperfeatures" else normal(2, 20)
    with torch.no_grad():
        expected = network(x, embedding)
        if kind == "readout":  # the file says that its head is not bounded
            expected = torch.atanh(expected.double()).float()
        torch.testing.assert_close(loaded(x, embedding), expected, atol=1e-5, rtol=1e-4)


def test_wrong_files_are_named(tmp_path):
    network = AggregationNetwork([4], projection_dim=16, norm_groups=2)
    state = network.state_dict()
    broken = [
        {"aggregation_network": {key: value for key, value in state.items() if "conv2" not in key}},
        {"aggregation_network": {**state, "extra": torch.zeros(1)}},
        {"aggregation_network": {**state, "mixing_weights": torch.zeros(0)}},
        {"aggregation_network": {**state, "bottleneck_layers.0.0.conv2.weight": torch.zeros(4, 4, 1, 1)}},
        {},
        [1, 2],
    ]
    for number, content in enumerate(broken):
        torch.save(content, tmp_path / f"{number}.pt")
        with pytest.raises(InputError, match=f"{number}.pt: holds no aggregation network"):
            load_aggregation(tmp_path / f"{number}.pt", norm_groups=2)
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name in ("text.pt", "missing.pt"):
        with pytest.raises(InputError, match=name):
            load_aggregation(tmp_path / name)
    with pytest.raises(InputError, match="channels"):
        network(normal(1, 5, 4, 4))
    with pytest.raises(InputError, match="norm groups"):
        AggregationNetwork([4], projection_dim=20)


def test_the_network_learns_to_match():
    """A few steps of the training loss tell positions apart that random projections do not."""
    torch.manual_seed(0)
    network = AggregationNetwork([8, 4], 2, projection_dim=32, norm_groups=4)
    places = normal(1, 24, 6, 6)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    index = torch.arange(36)
    losses = []
    for step in range(30):
        views = [places + 0.3 * normal(1, 24, 6, 6, seed=2 * step + k + 1) for k in (0, 1)]
        first, second = (network(view)[0] for view in views)
        loss = symmetric_match_loss(first, second, index, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    perfect = torch.eye(36).reshape(36, 6, 6)
    expected = -torch.log_softmax(torch.eye(36) / 0.07, dim=1).diagonal().mean()
    torch.testing.assert_close(symmetric_match_loss(perfect, perfect, index, index), expected)
