"""The predictor end to end: which people, in which pixels, whatever the batch; and what users get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from priorscope.backbones.latents import LatentDistribution, PatchSpace
from priorscope.errors import InputError
from priorscope_pose.geometry.flip import flip_back
from priorscope_pose.poses import Poses
from priorscope_pose.sdpose.checkpoint import save_network
from priorscope_pose.sdpose.predictor import SDPosePredictor
from priorscope_pose.sdpose.small import new_model
from priorscope_pose.skeletons import COCO

RNG = np.random.default_rng(0)
PHOTOS = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((60, 80, 3), (50, 40, 3))]
BOXES = [
    np.array([[5, 4, 40, 50], [30, 10, 79, 58], [0, 0, 20, 59]], np.float32),
    np.array([[3, 3, 30, 45]], np.float32),
]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Doubtful(PatchSpace):
    """A latent space whose posterior has a width."""

    def posterior(self, image):
        mean = self.encode(image)
        return LatentDistribution(mean, torch.full_like(mean, 0.5))


def strong(latents=None):
    """A small network whose head is not near zero, as a new one's is."""
    network = new_model("tiny", input_size=(32, 48), seed=3, latents=latents).eval().requires_grad_(False)
    for key, value in network.head.state_dict().items():
        value.add_(0.2 * draw(*value.shape, seed=len(key)))
    return network


@pytest.fixture(scope="module")
def predictor():
    return SDPosePredictor(strong(), name="tiny")


def same(ours, theirs, atol=1e-3):
    np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=atol)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)


class Spotlight:
    """In place of a network: heatmaps that are the crop's brightness, so that a bright spot is the keypoint."""

    def __init__(self, settings, keypoints=17):
        self.settings, self.head = settings, self
        self.keypoints = keypoints

    def heatmaps(self, images, *, flip_indices, posterior, noise):
        bright = (images.mean(1, keepdim=True) + 1) / 2
        width, height = self.settings.heatmap_size
        # first and last pixel stand for first and last, as in the codec
        small = functional.interpolate(bright, (height, width), mode="bilinear", align_corners=True)
        return small.expand(-1, self.keypoints, -1, -1).contiguous()


@pytest.mark.parametrize("crop", ["evaluated", "stretched", "classic"])
def test_bright_spot_is_found_where_it_is(crop):
    """Crop, heatmap, codec and the way back, for boxes of any shape: a spot of 6 pixels' deviation, to half a pixel."""
    settings = new_model("tiny", input_size=(96, 128)).settings
    predictor = SDPosePredictor(Spotlight(settings))
    y, x = np.mgrid[:200, :300]
    for spot, box in (
        ((140.0, 90.0), (90, 30, 180, 160)),
        ((60.5, 120.25), (20, 90, 150, 150)),
        ((150, 60), (120, 5, 190, 190)),
        ((172, 178), (60, 60, 180, 190)),
    ):
        bright = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 6.0**2))
        image = np.repeat(bright.round().astype(np.uint8)[..., None], 3, 2)
        poses = predictor(image, [box], crop=crop, flip_test=False)
        assert poses.crop == crop
        np.testing.assert_allclose(poses.keypoints[0], np.tile(spot, (17, 1)), atol=0.5)
        assert poses.scores.min() > 0.8


def test_result_says_what_it_is(predictor):
    poses = predictor(PHOTOS[0], BOXES[0], box_scores=[0.9, 0.8, 0.7])
    assert isinstance(poses, Poses)
    assert (poses.keypoints.shape, poses.scores.shape, len(poses)) == ((3, 17, 2), (3, 17), 3)
    assert (poses.skeleton, poses.crop, poses.model, poses.ids) == ("coco", "evaluated", "tiny", None)
    np.testing.assert_array_equal(poses.boxes, BOXES[0])
    np.testing.assert_allclose(poses.box_scores, [0.9, 0.8, 0.7])
    # 1.25 of the box, grown to 2 : 3
    np.testing.assert_allclose(poses.regions[0], [43.75, 65.625])
    assert np.isfinite(poses.keypoints).all()
    assert predictor(PHOTOS[0], BOXES[0]).box_scores.tolist() == [1, 1, 1]


def test_batch_and_order_do_not_matter(predictor):
    alone = [predictor(image, boxes) for image, boxes in zip(PHOTOS, BOXES, strict=True)]
    for batch_size in (2, 3, 8):
        for ours, theirs in zip(predictor(PHOTOS, BOXES, batch_size=batch_size), alone, strict=True):
            same(ours, theirs)
    turned = predictor(PHOTOS[0], BOXES[0][::-1], batch_size=2)
    same(turned.select([2, 1, 0]), alone[0])


def test_no_people(predictor):
    nobody = predictor(PHOTOS[0], np.zeros((0, 4)))
    assert (nobody.keypoints.shape, nobody.boxes.shape, nobody.regions.shape) == ((0, 17, 2), (0, 4), (0, 2))
    assert len(predictor(PHOTOS[0], [])) == 0
    first, second = predictor(PHOTOS, [[], BOXES[1]], batch_size=4)
    assert (len(first), len(second)) == (0, 1)
    assert predictor([], []) == []


def test_flip_test_is_symmetric(predictor):
    crops = RNG.integers(0, 256, (2, 48, 32, 3), dtype=np.uint8)
    straight = predictor.heatmaps(crops)
    mirrored = predictor.heatmaps(crops[:, :, ::-1])
    torch.testing.assert_close(flip_back(mirrored, COCO.flip_indices), straight, atol=1e-5, rtol=1e-4)
    assert (straight - predictor.heatmaps(crops, flip_test=False)).abs().max() > 1e-3


def test_sampled_posterior_depends_on_seed_and_person_only():
    # float64: in float32 another batch size rounds differently on some processors, and flat maxima make 0.002 px of it
    predictor = SDPosePredictor(strong(Doubtful(4)).double())
    options = {"posterior": "sample", "items": ["first", "second"]}
    poses = predictor(PHOTOS, BOXES, **options)
    for ours, theirs in zip(predictor(PHOTOS, BOXES, batch_size=4, **options), poses, strict=True):
        same(ours, theirs)
    same(predictor(PHOTOS[1], BOXES[1], posterior="sample", items=["second"]), poses[1])
    other = predictor(PHOTOS, BOXES, seed=1, **options)[0]
    assert np.abs(other.scores - poses[0].scores).max() > 1e-3
    assert np.abs(other.keypoints - poses[0].keypoints).max() > 0.5
    assert np.abs(predictor(PHOTOS, BOXES)[0].scores - poses[0].scores).max() > 1e-3


def test_loaded_folded_and_plain(tmp_path, predictor):
    folder = save_network(strong(), tmp_path / "model")
    expected = predictor(PHOTOS[0], BOXES[0])
    for options in ({}, {"fold": False}):
        again = SDPosePredictor.from_pretrained(folder, device="cpu", **options)
        same(again(PHOTOS[0], BOXES[0]), expected)
        assert again.name == str(folder)
        assert again.network.truncated is not bool(options)
    half = SDPosePredictor.from_pretrained(folder, device="cpu", precision="bfloat16")
    assert half.network.unet.dtype == torch.bfloat16
    assert half.network.head.final_layer.weight.dtype == torch.float32
    np.testing.assert_allclose(half(PHOTOS[0], BOXES[0]).scores, expected.scores, rtol=0.1)


def test_what_users_get_wrong(predictor):
    def refused(words, images=PHOTOS[0], boxes=BOXES[0], **options):
        with pytest.raises(InputError, match=words):
            predictor(images, boxes, **options)

    refused("uint8", images=PHOTOS[0].astype(float))
    refused(r"uint8 array \(H, W, 3\)", images=[PHOTOS[0][..., 0]], boxes=[BOXES[0]])
    refused(r"uint8 array \(H, W, 3\)", images=PHOTOS[0][..., 0])
    refused("box 1 .* no area", boxes=[[0, 0, 5, 5], [3, 3, 3, 9]])
    refused("box 0 .* outside the image of 80 x 60", boxes=[[100, 0, 120, 20]])
    refused("box 0 .* not finite", boxes=[[np.nan, 0, 5, 5]])
    refused("image 1: boxes of shape", images=PHOTOS, boxes=[BOXES[0], [[1, 2, 3]]])
    refused("boxes of 1 images for 2", images=PHOTOS, boxes=BOXES[:1])
    refused("box scores", box_scores=[0.5])
    refused("item names", images=PHOTOS, boxes=BOXES, items=["a"])
    refused("batch size of 0", batch_size=0)
    refused("crop policy 'tight'", crop="tight")
    refused("posterior 'mean'", posterior="mean")
    with pytest.raises(InputError, match="device 'gpu'"):
        SDPosePredictor.from_pretrained("sdpose-body", device="gpu")


def test_nan_is_an_error():
    network = strong()
    network.head.final_layer.bias[3] = torch.nan
    with pytest.raises(InputError, match="tiny gives NaN"):
        SDPosePredictor(network, name="tiny")(PHOTOS[0], BOXES[0])


def test_poses_of_unequal_lengths():
    good = SDPosePredictor(strong())(PHOTOS[0], BOXES[0])
    with pytest.raises(InputError, match=r"boxes of shape \(2, 4\)"):
        Poses(good.keypoints, good.scores, good.boxes[:2], good.box_scores, "coco", "evaluated")
    kept = good.select(np.array([True, False, True]))
    np.testing.assert_array_equal(kept.keypoints, good.keypoints[[0, 2]])
    np.testing.assert_array_equal(kept.regions, good.regions[[0, 2]])
    assert len(good.select([])) == 0
