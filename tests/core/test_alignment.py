"""Representation alignment: the official losses, its schedule, and what it watches in a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from priorscope import InputError
from priorscope.diffusion import Denoiser, FlowSchedule, FunctionSchedule, denoising_loss
from priorscope.training import Alignment, AlignmentConfig
from priorscope.training.alignment import (
    attention_alignment_loss,
    attention_logits,
    feature_alignment_loss,
    projection_head,
)

#: Official paths as schedules, their networks' prediction types, and the factor between their target and ours: the
#: velocity of the trigonometric path is pi / 2 times v.
PATHS = {
    "linear": (FlowSchedule(), "flow", 1.0),
    "cosine": (
        FunctionSchedule(lambda t: np.cos(t * math.pi / 2), lambda t: np.sin(t * math.pi / 2)),
        "v",
        math.pi / 2,
    ),
}


def per_item(path, x0, noise, t, output):
    """Losses of items by our denoiser, in the official unit, and the noisy samples it was asked about."""
    schedule, kind, factor = PATHS[path]
    asked = []

    def network(x, label):
        asked.append(x)
        return output[len(asked) - 1][None] / factor

    denoiser = Denoiser(network, schedule, kind)
    rows = zip(x0.split(1), noise.split(1), t.flatten().split(1), strict=True)
    losses = torch.stack([denoising_loss(denoiser, *row) * factor**2 for row in rows])
    return losses, torch.cat(asked)


def test_golden_training_aids(golden_files, read_json):
    for path in golden_files("astro_accel", "training.safetensors"):
        data, notes = load_file(path), read_json(path.with_suffix(".json"))
        close = notes["tolerance"]
        names = sorted({key.partition(".")[0] for key in data if key.startswith("repa_")})
        assert len(names) == 4
        for name in names:
            case = {key.partition(".")[2]: value for key, value in data.items() if key.startswith(name + ".")}
            losses, noisy = per_item(
                name.split("_")[1], data["repa.images"], case["noise"], case["t"], data["repa.model_out"]
            )
            torch.testing.assert_close(noisy, case["x_t"], **close)
            torch.testing.assert_close(losses, case["denoise"], **close)
            aligned = feature_alignment_loss(data["repa.z_student"], data["repa.z_teacher"])
            torch.testing.assert_close(aligned[None], case["proj"], **close)
        aligned = attention_alignment_loss(data["haste_small.student_logits"], data["haste_small.teacher_logits"])
        torch.testing.assert_close(aligned[None], data["haste_small.ce"], **close)


def test_golden_repa(golden_files):
    for path in golden_files("features", "repa_siloss.safetensors"):
        data = load_file(path)
        for name in PATHS:
            losses, noisy = per_item(name, data["images"], data["noise"], data["time"], data["model_output"])
            torch.testing.assert_close(noisy, data[f"{name}.model_input"], atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(losses, data[f"{name}.denoise"], atol=1e-6, rtol=1e-6)
            aligned = feature_alignment_loss(data["z_tilde"], data["z"])
            torch.testing.assert_close(aligned, data[f"{name}.proj"], atol=1e-6, rtol=1e-6)


def test_golden_alignment_weights(golden_files, read_json):
    haste = AlignmentConfig(features=0.5, attention=0.5, stop=250_000)
    for path in golden_files("astro_accel", "formula.json"):
        cases = read_json(path)["repa_haste_coef"]
        assert len(cases) == 5
        for case in cases:
            weights = haste.weights(case["step"])
            assert (weights.features, weights.attention) == (case["proj"], case["attn"])
            assert weights.denoising == 1


def test_the_weights_of_a_warm_up_and_of_a_fade():
    warm = AlignmentConfig(features=0.5, warmup=10, stop=10)  # the warm-up alone
    assert [warm.weights(step).denoising for step in (0, 9, 10)] == [0, 0, 1]
    assert [warm.weights(step).features for step in (0, 9, 10)] == [0.5, 0.5, 0]
    fading = AlignmentConfig(features=0.5, attention=1.0, warmup=10, stop=30, fade=True)
    assert [fading.weights(step).features for step in (5, 10, 20, 25, 30)] == [0.5, 0.5, 0.25, 0.125, 0]
    assert fading.weights(25).attention == 0.25
    assert AlignmentConfig().weights(3).features == 0


def test_the_best_student_has_the_teachers_entropy():
    logits = torch.randn(2, 3, 5, 5)
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(attention_alignment_loss(logits + 3, logits), entropy)
    assert attention_alignment_loss(torch.zeros(2, 3, 5, 5), logits) > entropy
    tokens = torch.randn(2, 7, 4)
    assert feature_alignment_loss(3 * tokens, tokens).item() == pytest.approx(-1)
    assert feature_alignment_loss(tokens, torch.zeros(2, 7, 4)).item() == 0


class Student(nn.Module):
    """A convolution whose map is aligned, and an attention layer after it."""

    def __init__(self):
        super().__init__()
        self.block = nn.Conv2d(2, 8, 3, padding=1)
        self.attention = Attention(8, heads=4, dim_head=2)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        tokens = self.block(x).flatten(2).transpose(1, 2)
        return self.last(tokens + self.attention(tokens)).mean()


def student_and_alignment(config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Student()
        return student, Alignment(config, student.block, 8, 5, attentions=[student.attention], hidden=16)


FEATURES = torch.linspace(-1, 1, 3 * 16 * 5).sin().reshape(3, 16, 5)
LOGITS = torch.linspace(0, 9, 3 * 2 * 16 * 16).cos().reshape(3, 2, 16, 16)
X = torch.linspace(-2, 2, 3 * 2 * 16).reshape(3, 2, 4, 4)


def test_the_losses_are_those_of_the_watched_layers():
    student, alignment = student_and_alignment(AlignmentConfig(features=0.5, attention=0.25))
    denoising = student(X)
    found = alignment(0, denoising, features=FEATURES, attention=[LOGITS])
    tokens = student.block(X).flatten(2).transpose(1, 2)
    assert alignment.head is not None
    cosine = functional.cosine_similarity(alignment.head(tokens), FEATURES, dim=-1)
    torch.testing.assert_close(found["feature_alignment"], -cosine.mean())
    layer = student.attention
    weights = layer.get_attention_scores(*(layer.head_to_batch_dim(part(tokens)) for part in (layer.to_q, layer.to_k)))
    weights = weights.unflatten(0, (3, 4))[:, :2]  # the teacher has two heads
    cross = -(LOGITS.softmax(-1) * weights.log()).sum(-1).mean()
    torch.testing.assert_close(found["attention_alignment"], cross)
    total = denoising + 0.5 * found["feature_alignment"] + 0.25 * found["attention_alignment"]
    torch.testing.assert_close(found["loss"], total)


def test_the_student_turns_to_its_teachers():
    student, alignment = student_and_alignment(AlignmentConfig(features=0.5, attention=0.5, warmup=100))
    optimizer = torch.optim.Adam([*student.parameters(), *alignment.parameters()], lr=0.01)
    course = []
    for step in range(60):
        found = alignment(step, student(X), features=FEATURES, attention=[LOGITS])
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        course.append((found["feature_alignment"].item(), found["attention_alignment"].item()))
    assert course[-1][0] < course[0][0] - 0.5
    assert course[-1][1] < course[0][1]


def test_after_the_stop_nothing_but_denoising_has_gradients():
    student, alignment = student_and_alignment(AlignmentConfig(features=0.5, attention=0.5, stop=3))
    denoising = student(X)
    expected = torch.autograd.grad(denoising, list(student.parameters()), retain_graph=True)
    found = alignment(3, denoising)
    assert found["loss"] == denoising
    assert found["feature_alignment"] == found["attention_alignment"] == 0
    found["loss"].backward()
    for weight, gradient in zip(student.parameters(), expected, strict=True):
        assert torch.equal(weight.grad, gradient)
    # of zero, not none: processes that train together wait for one
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in alignment.parameters())


def test_in_a_warm_up_later_layers_get_gradients_of_zero():
    student, alignment = student_and_alignment(AlignmentConfig(features=0.5, warmup=2))
    alignment(1, student(X), features=FEATURES)["loss"].backward()
    assert student.block.weight.grad.abs().max() > 0
    assert torch.equal(student.last.weight.grad, torch.zeros_like(student.last.weight))


def test_the_network_is_no_part_of_the_alignment_and_nothing_is_kept():
    student, alignment = student_and_alignment(AlignmentConfig(features=0.5))
    assert set(alignment.state_dict()) == {
        f"head.{number}.{part}" for number in (0, 2, 4) for part in ("weight", "bias")
    }
    with torch.no_grad():
        student(X)  # a look at held-out data
    with pytest.raises(InputError, match="has not run"):
        alignment(0, X.mean(), features=FEATURES)
    alignment(0, student(X), features=FEATURES)
    with pytest.raises(InputError, match="has not run"):
        alignment(0, X.mean(), features=FEATURES)
    assert not list(Alignment(AlignmentConfig(), student.block, 8, 5).parameters())


def test_attention_logits_and_the_head():
    query, key = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    logits = attention_logits(query, key, 3)
    assert logits.shape == (2, 3, 5, 7)
    torch.testing.assert_close(logits[1, 2, 4, 6], query[1, 4, 8:] @ key[1, 6, 8:] / 2)
    widths = [(part.in_features, part.out_features) for part in projection_head(8, 5) if isinstance(part, nn.Linear)]
    assert widths == [(8, 2048), (2048, 2048), (2048, 5)]


def test_what_is_refused():
    student, alignment = student_and_alignment(AlignmentConfig(features=0.5, attention=0.5))
    with pytest.raises(InputError, match="cannot be aligned with"):
        alignment(0, student(X), features=FEATURES[:, :4], attention=[LOGITS])
    with pytest.raises(InputError, match="the encoder's were not given"):
        alignment(0, student(X), attention=[LOGITS])
    with pytest.raises(InputError, match="aligns 1 attention layers, 0 were given"):
        alignment(0, student(X), features=FEATURES)
    with pytest.raises(InputError, match="attention of shape"):
        alignment(0, student(X), features=FEATURES, attention=[LOGITS[..., :8]])
    normed = Attention(8, heads=2, dim_head=4, qk_norm="layer_norm")  # whose logits are not those of its projections
    with pytest.raises(InputError, match="normalised queries"):
        Alignment(AlignmentConfig(attention=0.5), student.block, 8, 5, attentions=[normed])
    with pytest.raises(InputError, match="no layer was given"):
        Alignment(AlignmentConfig(attention=0.5), student.block, 8, 5)
    for bad in (
        AlignmentConfig(features=-1),
        AlignmentConfig(features=1, warmup=5, stop=4),
        AlignmentConfig(features=1, fade=True),
        AlignmentConfig(warmup=5),
        AlignmentConfig(features=math.nan),
    ):
        with pytest.raises(InputError, match="alignment"):
            bad.check()
