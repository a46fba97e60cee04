"""Probes find what is there and nothing else; self-conditioning starts as the identity and trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from priorscope.diffusion import VPSchedule
from priorscope.errors import InputError
from priorscope.features.probing import (
    AttentiveProbe,
    LinearProbe,
    ProbeSettings,
    accuracy,
    fit_probe,
    micro_f1,
    probe_logits,
    select_features,
)
from priorscope.features.self_condition import SelfConditioned


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(count=200, seed=0, strength=1.0):
    """Three classes whose channels differ in the mean, at an odd scale and offset."""
    labels = torch.arange(count) % 3
    means = strength * normal(3, 6, seed=7)
    maps = means[labels][:, :, None, None] + normal(count, 6, 4, 4, seed=seed)
    return maps * 50 + 1000, labels


QUICK = ProbeSettings(epochs=20, learning_rate=0.05, batch_size=50)


@pytest.mark.parametrize("make", [LinearProbe, lambda c, k: LinearProbe(c, k, size=2), AttentiveProbe])
def test_a_probe_finds_the_classes(make):
    torch.manual_seed(0)
    (maps, labels), (fresh, truth) = clusters(), clusters(seed=1)
    settings = QUICK if make is not AttentiveProbe else ProbeSettings(epochs=20, batch_size=50)
    probe = fit_probe(make(6, 3), maps, labels, settings)
    assert accuracy(probe_logits(probe, fresh, batch_size=7), truth) > 0.95
    noise = fit_probe(make(6, 3), normal(200, 6, 4, 4, seed=3), labels, ProbeSettings(epochs=2, batch_size=50))
    assert accuracy(probe_logits(noise, normal(300, 6, 4, 4, seed=4)), torch.arange(300) % 3) < 0.5


def test_a_linear_probe_is_logistic_regression():
    """Trained to the end it has the regression's gradient: zero."""
    maps, labels = clusters(60, strength=0.3)
    probe = fit_probe(LinearProbe(6, 3), maps, labels, ProbeSettings(800, 0.03, 0.0, 60))
    vectors = maps.mean((2, 3))
    assert torch.allclose(probe.mean, vectors.mean(0), rtol=1e-5)
    assert torch.allclose(probe.deviation, vectors.std(0, correction=0), rtol=1e-4)
    torch.nn.functional.cross_entropy(probe(maps), labels).backward()
    start = LinearProbe(6, 3)
    start.standardise(maps)
    torch.nn.functional.cross_entropy(start(maps), labels).backward()
    assert probe.linear.weight.grad.norm() < 0.05 * start.linear.weight.grad.norm()


def test_an_attentive_probe_finds_what_averaging_loses():
    """One position of sixteen tells the class, by its sign; its channel marks it; the others outweigh it."""
    torch.manual_seed(0)
    labels = torch.arange(400) % 2
    where = torch.randint(0, 16, (400,), generator=torch.Generator().manual_seed(1))
    maps = 0.3 * normal(400, 4, 16)
    maps[:, 0] += 3 * normal(400, 16, seed=2)
    maps[torch.arange(400), 0, where] = (labels * 2 - 1).float()
    maps[torch.arange(400), 1, where] += 6
    maps = maps.reshape(400, 4, 4, 4)
    settings = ProbeSettings(epochs=40, learning_rate=3e-3, batch_size=50)
    found = {}
    for name, probe in (("linear", LinearProbe(4, 2)), ("attentive", AttentiveProbe(4, 2, width=32, heads=4))):
        fit_probe(probe, maps[:300], labels[:300], settings)
        found[name] = accuracy(probe_logits(probe, maps[300:]), labels[300:])
    assert found["attentive"] > 0.9
    assert found["linear"] < 0.75


def test_selection_takes_the_informative_features_by_validation_alone():
    train = {(t, tap): clusters(150, 10 + t, strength)[0] for t, tap, strength in CANDIDATES}
    validation = {(t, tap): clusters(90, 50 + t, strength)[0] for t, tap, strength in CANDIDATES}
    labels = clusters(150)[1], clusters(90)[1]
    found = select_features(train, labels[0], validation, labels[1], settings=QUICK)
    assert found.best == (90, "up_blocks.1")
    assert list(found.scores) == list(train)
    assert found.scores[found.best] == max(found.scores.values()) > 0.9
    assert found.scores[10, "up_blocks.0"] < 0.6
    assert accuracy(probe_logits(found.probe, validation[found.best]), labels[1]) == found.scores[found.best]
    again = select_features(train, labels[0], validation, labels[1], settings=QUICK)
    assert again.scores == found.scores


CANDIDATES = [(10, "up_blocks.0", 0.0), (90, "up_blocks.1", 1.0), (300, "up_blocks.1", 0.05)]


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_labels_of_any_whole_dtype(dtype):
    vectors, labels = normal(40, 5), torch.arange(40) % 2
    expected = fit_probe(LinearProbe(5, 2), vectors, labels, ProbeSettings(2))
    found = fit_probe(LinearProbe(5, 2), vectors, labels.to(dtype), ProbeSettings(2))
    assert torch.equal(found.linear.weight, expected.linear.weight)


def test_several_labels_at_once():
    vectors = normal(300, 5)
    labels = (vectors[:, :3] > 0).long()
    probe = fit_probe(LinearProbe(5, 3), vectors, labels, QUICK)
    assert micro_f1(probe_logits(probe, vectors), labels) > 0.95
    chosen = select_features({"a": vectors}, labels, {"a": vectors}, labels, settings=QUICK)
    assert chosen.scores["a"] == micro_f1(probe_logits(chosen.probe, vectors), labels)
    assert micro_f1(torch.full((4, 3), -1.0), torch.zeros(4, 3)) == 0
    assert micro_f1(torch.tensor([[1.0, -1, 1]]), torch.tensor([[1, 1, 0]])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), torch.zeros(5, dtype=torch.int64)),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), torch.zeros(4)),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), torch.full((4,), -1)),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3) / 0, torch.zeros(4, dtype=torch.int64)),
        lambda: fit_probe(LinearProbe(3, 2), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        lambda: fit_probe(LinearProbe(3, 2), torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),
        lambda: select_features({}, torch.zeros(4), {}, torch.zeros(4)),
        lambda: select_features({"a": normal(4, 3)}, torch.zeros(4), {"b": normal(4, 3)}, torch.zeros(4)),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), torch.tensor([0, 1, 2, 0])),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), torch.zeros(4, 3)),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), torch.full((4, 2), -3.0)),
        lambda: fit_probe(LinearProbe(5, 2), normal(4, 3), torch.zeros(4, dtype=torch.int64)),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3), ["a", "b", "a", "b"]),
        lambda: fit_probe(LinearProbe(3, 2), normal(4, 3).numpy(), torch.tensor([0, 1, 0, 1])),
        lambda: LinearProbe(4, 2, size=0),
        lambda: AttentiveProbe(4, 2, width=10, heads=4),
        lambda: ProbeSettings(epochs=0),
    ],
)
def test_wrong_input(wrong):
    with pytest.raises(InputError):
        wrong()


def test_labels_may_be_an_array():
    maps, labels = clusters(30)
    settings = ProbeSettings(epochs=2, batch_size=10)
    expected = fit_probe(LinearProbe(6, 3), maps, labels, settings)
    for given in (labels.numpy(), labels.numpy().astype(np.uint8), labels.tolist()):
        assert torch.equal(fit_probe(LinearProbe(6, 3), maps, given, settings)(maps), expected(maps))
    chosen = select_features({"a": maps}, labels.numpy(), {"a": maps}, labels.numpy(), settings=settings)
    assert torch.equal(chosen.probe(maps), expected(maps))


@pytest.fixture
def unet():
    from diffusers.models.unets.unet_2d import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def test_self_conditioning_starts_as_the_identity_and_then_tells_the_decoder(unet):
    sample, label = normal(3, 1, 8, 8), torch.tensor([5.0, 100.0, 900.0])
    plain = unet(sample, label).sample
    network = SelfConditioned(unet, 16, 32)
    assert network.targets == ("up_blocks.0", "up_blocks.1")
    assert torch.equal(network(sample, label).sample, plain)
    nn.init.normal_(network.project.weight, std=0.5)
    answer, feature = network.with_feature(sample, label)
    assert feature.shape == (3, 16)
    assert float((answer.sample - plain).detach().abs().max()) > 1e-3
    alone = network(sample[:1], label[:1]).sample  # items are told their own feature
    torch.testing.assert_close(alone[0], answer.sample[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(unet(sample, label).sample, plain)  # no hook stays behind


def test_self_conditioning_of_a_conditional_unet(small_unet):
    unet = small_unet()
    sample, text = normal(2, 4, 8, 8), normal(2, 3, 8)
    network = SelfConditioned(unet, 16, 32)
    plain = unet(sample, 10, text).sample
    assert torch.equal(network(sample, 10, text).sample, plain)
    nn.init.normal_(network.project.weight, std=0.5)
    assert float((network(sample, 10, text).sample - plain).detach().abs().max()) > 1e-3


def test_self_conditioning_of_ddaes_own_network():
    from priorscope.features.ddae import DDAEUNet

    torch.manual_seed(0)
    unet = DDAEUNet((1, 8, 8), 32, (1, 2), (False, True), dropout=0.0, n_blocks=1).eval()
    ups = [f"up.{index}" for index in range(len(unet.up))]
    network = SelfConditioned(unet, 64, 128, source="middle", targets=ups).eval()
    sample, label = normal(2, 1, 8, 8), torch.tensor([0.1, 0.9])
    assert torch.equal(network(sample, label), unet(sample, label))
    nn.init.normal_(network.project.weight, std=0.5)
    assert float((network(sample, label) - unet(sample, label)).detach().abs().max()) > 1e-3


def test_self_conditioning_trains(unet):
    network = SelfConditioned(unet, 16, 32)
    schedule = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        levels = torch.randint(0, 1000, (16,), generator=torch.Generator().manual_seed(step))
        images = torch.sign(normal(16, 1, 1, 1, seed=step)).expand(16, 1, 8, 8)  # all black or all white
        eps = normal(16, 1, 8, 8, seed=1000 + step)
        found = network(schedule.add_noise(images, levels, eps), levels).sample
        loss = torch.nn.functional.mse_loss(found, eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert float(network.project.weight.detach().abs().max()) > 1e-3


def test_wrong_self_conditioning(unet):
    with pytest.raises(InputError, match="no module"):
        SelfConditioned(nn.Linear(2, 2), 2, 2)
    with pytest.raises(InputError, match="nowhere"):
        SelfConditioned(unet, 16, 32, targets=["nowhere"])
    with pytest.raises(InputError, match="without a time embedding of 31"):
        SelfConditioned(unet, 16, 31)(normal(1, 1, 8, 8), 5)
    with pytest.raises(InputError, match="runs before"):
        SelfConditioned(unet, 16, 32, targets=["down_blocks.0"])(normal(1, 1, 8, 8), 5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
