"""Few-shot segmentation: the official attention and metrics; what a bank must leave unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.backbones.latents import PixelSpace
from priorscope.errors import InputError
from priorscope.features.few_shot import FewShotSegmenter, FewShotTally, binary, mask_image
from priorscope.features.kv_bank import KeyValueBank


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(stored):
    from diffusers.models.attention_processor import Attention

    layer = Attention(query_dim=16, heads=2, dim_head=8)
    layer.load_state_dict({key[2:]: value for key, value in stored.items() if key.startswith("w.")})
    return layer.eval()


def test_golden_diffews(golden_files, read_json):
    for path in golden_files("features", "diffews*.safetensors"):
        stored, golden = load_file(path), read_json(path.with_suffix(".json"))
        layer = attention(stored)
        bank = KeyValueBank(layer)
        runs = [name.removesuffix(".ref_out") for name in stored if name.endswith(".ref_out")]
        assert {run.split(".")[1] for run in runs} == {"1shot", "3shot"}
        for run in runs:
            reference = stored[f"{run.split('.')[1]}.ref"]
            with torch.no_grad():
                with bank.remembering():
                    remembered = layer(reference)
                with bank.recalling(shots=len(reference)):
                    recalled = layer(stored["target"])
            torch.testing.assert_close(remembered, stored[f"{run}.ref_out"], atol=1e-5, rtol=0)
            torch.testing.assert_close(recalled, stored[f"{run}.target_out"], atol=1e-5, rtol=0)
        tally = FewShotTally()
        for index, label in enumerate(stored["fss.class"].tolist()):
            ignore = stored["fss.ignore"][index] if index >= 6 else None
            tally.add(stored["fss.pred"][index], stored["fss.gt"][index], label, ignore)
        scores = tally.scores()
        assert 100 * scores.miou == pytest.approx(golden["expected"]["mIoU"], abs=1e-5)
        assert 100 * scores.fb_iou == pytest.approx(golden["expected"]["FBIoU"], abs=1e-5)
        assert scores.episodes == 12


@pytest.fixture(scope="module")
def unet(small_unet):
    return small_unet(in_channels=3, out_channels=3)


def ask(unet, sample):
    return unet(sample, 1.0, encoder_hidden_states=normal(1, 4, 8, seed=9).expand(len(sample), -1, -1)).sample


@torch.no_grad()
def test_remembering_oneself_changes_nothing(unet):
    """Every key twice leaves a softmax's mean as it is, in every layer; and processors are put back."""
    sample, before = normal(2, 3, 8, 8), dict(unet.attn_processors)
    plain = ask(unet, sample)
    bank = KeyValueBank(unet)
    with bank.remembering():
        torch.testing.assert_close(ask(unet, sample), plain, atol=1e-6, rtol=1e-5)
    with bank.recalling():
        torch.testing.assert_close(ask(unet, sample), plain, atol=1e-6, rtol=1e-5)
    with bank.remembering():
        ask(unet, sample + 1)
    with bank.recalling():
        assert float((ask(unet, sample) - plain).abs().max()) > 1e-4
    assert unet.attn_processors == before
    assert torch.equal(ask(unet, sample), plain)


@torch.no_grad()
def test_shots_are_a_set_and_items_keep_their_own(unet):
    query, support = normal(2, 3, 8, 8), normal(2, 3, 3, 8, 8, seed=1)
    bank = KeyValueBank(unet)

    def run(query, support, shots):
        with bank.remembering():
            ask(unet, support.flatten(0, 1))
        with bank.recalling(shots):
            return ask(unet, query)

    both = run(query, support, 3)
    torch.testing.assert_close(run(query, support.flip(1), 3), both, atol=1e-5, rtol=1e-4)
    for item in (0, 1):
        alone = run(query[item : item + 1], support[item : item + 1], 3)
        torch.testing.assert_close(alone[0], both[item], atol=1e-5, rtol=1e-4)
    shared = run(query, support[:1], 3)
    torch.testing.assert_close(shared[0], both[0], atol=1e-5, rtol=1e-4)
    with bank.remembering():
        ask(unet, support[:, 0])
    with pytest.raises(InputError, match="remembered images"), bank.recalling(3):
        ask(unet, query)


def squares(count, seed):
    """Images with a bright square on noise, and its mask."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.randn(count, 3, 8, 8, generator=draw)
    masks = torch.zeros(count, 8, 8, dtype=torch.bool)
    for index in range(count):
        x, y = torch.randint(0, 5, (2,), generator=draw).tolist()
        masks[index, y : y + 4, x : x + 4] = True
    return (images + masks[:, None] * 0.8).clamp(-1, 1), masks


def test_a_segmenter_trains(unet):
    import copy

    segmenter = FewShotSegmenter(copy.deepcopy(unet).train(), PixelSpace(), normal(1, 4, 8, seed=9))
    first = segmenter.unet.conv_in
    assert segmenter.conv_in_ref.weight.shape[1] == 6
    optimizer = torch.optim.Adam([*segmenter.unet.parameters(), *segmenter.conv_in_ref.parameters()], lr=3e-3)
    losses = []
    for step in range(45):
        images, masks = squares(12, step)
        query, support = images[:4], images[4:].unflatten(0, (4, 2))
        loss = segmenter.loss(query, support, masks[4:].unflatten(0, (4, 2)), masks[:4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert segmenter.unet.conv_in is first
    assert segmenter.conv_in_ref.weight.grad.abs().max() > 0
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    images, masks = squares(12, 1000)
    values = segmenter(images[:4], images[4:].unflatten(0, (4, 2)), masks[4:].unflatten(0, (4, 2)))
    assert values.shape == (4, 8, 8)
    tally = FewShotTally()
    for found, true in zip(binary(values, 0.5), masks[:4], strict=True):
        tally.add(found, true, 0)
    assert tally.scores().miou > 0.6


def test_a_segmenter_of_half_precision(unet):
    import copy

    text = normal(1, 4, 8, seed=9)
    (images, masks) = squares(3, 0)
    episode = images[:1], images[None, 1:], masks[None, 1:]
    expected = FewShotSegmenter(unet, PixelSpace(), text)(*episode)
    found = FewShotSegmenter(copy.deepcopy(unet).bfloat16(), PixelSpace(), text)(*episode)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_masks_as_pictures_and_back():
    mask = torch.zeros(2, 5, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    picture = mask_image(mask)
    assert picture.shape == (2, 3, 5, 4)
    assert picture.unique().tolist() == [-1, 1]
    assert torch.equal(binary((picture / 2 + 0.5).mean(1)), mask)


def test_areas_are_summed_not_averaged():
    tally = FewShotTally()
    full, empty = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    tally.add(full, full, 0)
    tally.add(full, empty, 0)
    tally.add(empty, empty, 1, ignore=full)
    scores = tally.scores()
    assert scores.by_class == {0: 0.5, 1: 0.0}
    assert scores.miou == 0.25
    assert scores.fb_iou == 0.25


@torch.no_grad()
def test_wrong_input(unet):
    with pytest.raises(InputError, match="no self-attention"):
        KeyValueBank(torch.nn.Linear(2, 2))
    bank = KeyValueBank(unet)
    with pytest.raises(InputError, match="remembered yet"), bank.recalling():
        ask(unet, normal(1, 3, 8, 8))
    with bank.remembering():
        ask(unet, normal(1, 3, 8, 8))
    with pytest.raises(InputError, match="shots"), bank.recalling(0):
        ask(unet, normal(1, 3, 8, 8))
    with pytest.raises(InputError, match="prompt"):
        FewShotSegmenter(unet, PixelSpace(), normal(4, 8))
    with pytest.raises(InputError, match="first convolution"):
        FewShotSegmenter(unet, PixelSpace(), normal(1, 4, 8), conv_in_ref=torch.nn.Conv2d(3, 8, 3))
    segmenter = FewShotSegmenter(unet, PixelSpace(), normal(1, 4, 8))
    query, support, masks = normal(1, 3, 8, 8), normal(1, 2, 3, 8, 8), torch.ones(1, 2, 8, 8, dtype=torch.bool)
    for wrong in (
        (query, support[:, :0], masks[:, :0]),
        (query, support, masks[:, :1]),
        (query, support, masks.float()),
        (query[..., :4], support, masks),
        (query * torch.nan, support, masks),
    ):
        with pytest.raises(InputError):
            segmenter(*wrong)
    tally = FewShotTally()
    with pytest.raises(InputError, match="no episode"):
        tally.scores()
    for wrong_masks in ((np.zeros((2, 2)), np.zeros((2, 3))), (np.full((2, 2), 255), np.zeros((2, 2)))):
        with pytest.raises(InputError, match="mask"):
            tally.add(*wrong_masks, 0)
