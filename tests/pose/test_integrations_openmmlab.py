"""Ours against mmpose 1.3.2 itself: codec, crops, estimator, metrics, configs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from priorscope_pose import integrations
from priorscope_pose.codecs import CombinedHeatmap, MsraHeatmap, UdpHeatmap
from priorscope_pose.data.coco import read_coco
from priorscope_pose.detectors import boxes_from_mmdet
from priorscope_pose.evaluation.coco import FIGURES, coco_figures
from priorscope_pose.evaluation.nms import oks_nms, postprocess, similarities, soft_oks_nms
from priorscope_pose.evaluation.pck import auc, epe, nme, pck
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.geometry import center_scale, classic_matrix, crop_people, udp_matrix
from priorscope_pose.integrations import read_config
from priorscope_pose.integrations.openmmlab import module
from priorscope_pose.sdpose.checkpoint import save_network
from priorscope_pose.sdpose.predictor import SDPosePredictor
from priorscope_pose.sdpose.small import new_model
from priorscope_pose.skeletons import COCO

mmpose = pytest.importorskip("mmpose", reason="scripts/install_openmmlab.sh has not been run", exc_type=ImportError)
pytestmark = pytest.mark.openmmlab

INPUT, HEATMAP = (192, 256), (48, 64)
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
BOXES = np.array([[10, 5, 60, 80], [50.5, -8, 130, 70.25]], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small model whose head is not near zero, as a new one's is."""
    network = new_model("tiny", input_size=(32, 48), seed=3)
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in network.head.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=draw))
    return save_network(network, tmp_path_factory.mktemp("openmmlab") / "model")


def sample(size: tuple[int, int], box: np.ndarray, keypoints: np.ndarray | None = None, encoder=None) -> dict:
    """What mmpose's pipeline makes of a person; its images are BGR."""
    transforms = module("mmpose.registry").TRANSFORMS
    steps = [
        {"type": "GetBBoxCenterScale"},
        {"type": "TopdownAffine", "input_size": size, "use_udp": True},
        {"type": "PackPoseInputs"},
    ]
    record = {"img": IMAGE[..., ::-1].copy(), "bbox": box[None], "bbox_score": np.ones(1, np.float32)}
    record |= {"flip_indices": list(COCO.flip_indices), "img_shape": IMAGE.shape[:2]}
    record |= {"dataset_keypoint_weights": np.ones(17, np.float32)}
    if keypoints is not None:
        record |= {"keypoints": keypoints[None], "keypoints_visible": np.ones((1, 17), np.float32)}
        steps.insert(2, {"type": "GenerateTarget", "encoder": dict(encoder)})
    module("mmpose.datasets.transforms")
    for step in steps:
        record = transforms.build(step)(record)
    return record


@pytest.mark.parametrize("kind", ["gaussian", "combined"])
def test_codec(kind: str) -> None:
    module("priorscope_pose.integrations.modules")
    codecs = module("mmpose.registry").KEYPOINT_CODECS
    sizes = {"input_size": INPUT, "heatmap_size": HEATMAP, "heatmap_type": kind}
    module("mmpose.codecs")
    theirs = codecs.build({"type": "UDPHeatmap", **sizes})
    ours = codecs.build({"type": "BatchedUDPHeatmap", **sizes, "official": True})
    assert ours.support_batch_decoding
    rng = np.random.default_rng(1)
    points = rng.uniform(-12, [204, 268], (1, 40, 2)).astype(np.float32)
    visible = (rng.random((1, 40)) > 0.2).astype(np.float32)
    expected, encoded = theirs.encode(points, visible), ours.encode(points, visible)
    for name in ("heatmaps", "keypoint_weights"):
        assert encoded[name].dtype == expected[name].dtype
        np.testing.assert_allclose(encoded[name], expected[name], atol=1e-5)
    maps = np.stack([expected["heatmaps"], 0.7 * expected["heatmaps"]])
    maps += rng.normal(0, 0.002, maps.shape).astype(np.float32)
    seen = expected["heatmaps"][:: 3 if kind == "combined" else 1].max((1, 2)) > 0.5
    batch = ours.batch_decode(torch.from_numpy(maps))
    for row, person in enumerate(maps):
        keypoints, scores = theirs.decode(person)
        for found in ((batch[0][row], batch[1][row]), ours.decode(person)):
            assert found[0].shape == keypoints.shape
            np.testing.assert_allclose(found[0][0, seen], keypoints[0, seen], atol=1e-3)
            np.testing.assert_allclose(found[1], scores, atol=1e-6)


def test_classic_codec() -> None:
    codecs = module("mmpose.codecs")
    rng = np.random.default_rng(2)
    points = rng.uniform(12, 180, (1, 30, 2)).astype(np.float32)
    for unbiased in (False, True):
        theirs = codecs.MSRAHeatmap(INPUT, HEATMAP, 2.0, unbiased=unbiased)
        ours = MsraHeatmap(INPUT, HEATMAP, 2.0, unbiased=unbiased, official=True)
        maps = theirs.encode(points, np.ones((1, 30), np.float32))["heatmaps"]
        np.testing.assert_allclose(ours.encode(torch.from_numpy(points))[0][0], maps, atol=1e-5)
        np.testing.assert_allclose(ours.decode(torch.from_numpy(maps)[None])[0], theirs.decode(maps)[0], atol=2e-3)


def test_boxes_matrices_and_crops() -> None:
    boxes = module("mmpose.structures.bbox")
    center, scale = center_scale(BOXES, INPUT)
    for row in range(2):
        for angle in (0.0, 33.0, -120.0):
            udp = boxes.get_udp_warp_matrix(center[row], scale[row], angle, INPUT)
            np.testing.assert_allclose(udp_matrix(center, scale, INPUT, angle)[row], udp, rtol=1e-6, atol=2e-5)
            classic = boxes.get_warp_matrix(center[row], scale[row], angle, INPUT)
            # It goes by the middle of the left edge, mmpose 1.0 and we of the upper: float32 rounds otherwise.
            np.testing.assert_allclose(classic_matrix(center, scale, INPUT, angle)[row], classic, atol=1e-4)
    crops = crop_people(IMAGE, BOXES, INPUT)
    for row, box in enumerate(BOXES):
        packed = sample(INPUT, box)
        np.testing.assert_array_equal(crops.images[row], packed["inputs"].permute(1, 2, 0).numpy()[..., ::-1])
        np.testing.assert_array_equal(crops.center[row], packed["data_samples"].metainfo["input_center"])
        np.testing.assert_array_equal(crops.scale[row], packed["data_samples"].metainfo["input_scale"])


@pytest.mark.parametrize("flip_test", [False, True])
def test_estimator_gives_what_our_predictor_gives(folder: Path, flip_test: bool) -> None:
    """mmpose's pipeline, preprocessor and test_step round our modules, against our own way from image to keypoints."""
    estimator = integrations.build_estimator(folder, flip_test=flip_test)
    assert type(estimator).__name__ == "TopdownPoseEstimator"
    data = [sample((32, 48), box) for box in BOXES]
    batch = {"inputs": [row["inputs"] for row in data], "data_samples": [row["data_samples"] for row in data]}
    answers = estimator.test_step(batch)
    poses = SDPosePredictor.from_pretrained(folder, device="cpu", precision="float32")(
        IMAGE, BOXES, flip_test=flip_test
    )
    for row, answer in enumerate(answers):
        np.testing.assert_allclose(answer.pred_instances.keypoints[0], poses.keypoints[row], atol=2e-3)
        np.testing.assert_allclose(answer.pred_instances.keypoint_scores[0], poses.scores[row], atol=1e-5)
        np.testing.assert_array_equal(answer.pred_instances.bboxes[0], BOXES[row])


def test_estimator_trains(folder: Path) -> None:
    """mmpose's GenerateTarget with our codec, its loss by mmpose's own KeypointMSELoss, and a step that lowers it."""
    estimator = integrations.build_estimator(folder, trainable=True)
    keypoints = np.random.default_rng(3).uniform([15, 10], [55, 70], (17, 2)).astype(np.float32)
    codec = {"type": "BatchedUDPHeatmap", "input_size": (32, 48), "heatmap_size": (16, 24), "sigma": 1.0}
    data = sample((32, 48), BOXES[0], keypoints, codec)
    batch = estimator.data_preprocessor({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}, True)
    loss = estimator.loss(**batch)["loss_kpt"]
    theirs = module("mmpose.models").losses.KeypointMSELoss(use_target_weight=True)
    fields, labels = data["data_samples"].gt_fields, data["data_samples"].gt_instance_labels
    expected = theirs(estimator(**batch, mode="tensor"), fields.heatmaps[None], labels.keypoint_weights)
    torch.testing.assert_close(loss, expected)
    optimizer = torch.optim.SGD([value for value in estimator.parameters() if value.requires_grad], lr=1e-3)
    loss.backward()
    assert estimator.backbone.network.unet.conv_in.weight.grad.abs().max() > 0
    optimizer.step()
    assert estimator.loss(**batch)["loss_kpt"] < loss


def test_state_dict_has_the_published_names_of_the_head(folder: Path) -> None:
    estimator = integrations.build_estimator(folder)
    names = {key for key in estimator.state_dict() if key.startswith("head.")}
    assert names == {
        "head.deconv_layers.0.weight",
        "head.conv_layers.0.weight",
        "head.conv_layers.0.bias",
        "head.final_layer.weight",
        "head.final_layer.bias",
    }
    assert not any(".head." in key for key in estimator.state_dict())


def annotated(rng: np.random.Generator, path: Path) -> list[dict]:
    """A COCO file of eight images; its annotations."""
    people = []
    for image in range(1, 9):
        for _ in range(rng.integers(1, 4)):
            side = rng.uniform(30, 200)
            corner = rng.uniform(0, 200, 2)
            points = np.concatenate([corner + side * rng.random((17, 2)), rng.integers(0, 3, (17, 1))], 1)
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [*corner.tolist(), side, side],
                    "area": side**2 * 0.6,
                    "iscrowd": 0,
                    "keypoints": points.round(2).ravel().tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                }
            )
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 400, "height": 400} for i in range(1, 9)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.keypoints), "skeleton": []}
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return people


def test_coco_metric(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    file = tmp_path / "person_keypoints_val2017.json"
    people = annotated(rng, file)
    metric = module("mmpose.evaluation.metrics").CocoMetric(ann_file=str(file))
    metric.dataset_meta = {"sigmas": np.array(COCO.sigmas), "num_keypoints": 17, "dataset_name": "coco"}
    samples = []
    for number, person in enumerate([*people, *people[::2]]):
        box = np.array(person["bbox"])
        points = np.array(person["keypoints"]).reshape(17, 3)[:, :2] + rng.normal(0, 0.04 * box[2], (17, 2))
        corners = np.concatenate([box[:2], box[:2] + box[2:]])[None]
        samples.append(
            {
                "id": number,
                "img_id": person["image_id"],
                "pred_instances": {
                    "keypoints": points[None],
                    "keypoint_scores": rng.random((1, 17)),
                    "bboxes": corners,
                    "bbox_scores": rng.random(1),
                },
                "gt_instances": {"bbox_scales": 1.25 * box[None, 2:]},
            }
        )
    metric.process([], samples)
    expected = metric.evaluate(len(samples))

    def stacked(name: str) -> np.ndarray:
        return np.concatenate([row["pred_instances"][name] for row in samples])

    predictions = Predictions(
        COCO,
        [row["img_id"] for row in samples],
        stacked("keypoints"),
        stacked("keypoint_scores"),
        stacked("bbox_scores"),
        boxes=stacked("bboxes"),
        areas=np.concatenate([row["gt_instances"]["bbox_scales"] for row in samples]).prod(1),
        ids=np.arange(len(samples)),
    )
    figures = coco_figures(read_coco(file), postprocess(predictions), detection_area="box")
    assert 0.05 < figures["AP"] < 0.95
    for name in FIGURES:
        assert figures[name] == pytest.approx(expected[f"coco/{name}"], abs=1e-9), name


def test_suppression() -> None:
    functional = module("mmpose.evaluation.functional")
    rng = np.random.default_rng(6)
    base = rng.uniform(0, 100, (5, 17, 2))
    points = np.concatenate([base, base + rng.normal(0, 1.5, base.shape), base + rng.normal(0, 4, base.shape)])
    areas, scores = rng.uniform(3000, 6000, 15), rng.random(15)
    keypoints = np.concatenate([points, rng.random((15, 17, 1))], 2)
    people = [
        {"keypoints": keypoints[i], "score": scores[i], "area": areas[i], "keypoint_scores": keypoints[i, :, 2]}
        for i in range(15)
    ]
    similar = similarities(points, areas, COCO.sigma_array())
    kept = oks_nms(similar, scores, 0.9)
    assert 5 <= len(kept) < 15
    assert list(functional.oks_nms(people, 0.9, sigmas=COCO.sigma_array())) == list(kept)
    assert list(functional.soft_oks_nms(people, 0.9, sigmas=COCO.sigma_array())) == list(
        soft_oks_nms(similar, scores, 0.9)
    )


def test_pck_and_its_kin() -> None:
    functional = module("mmpose.evaluation.functional")
    rng = np.random.default_rng(7)
    truth = rng.uniform(0, 100, (6, 17, 2))
    found = truth + rng.normal(0, 8, truth.shape)
    mask = rng.random((6, 17)) > 0.3
    mask[:, 4] = False
    norm = rng.uniform(50, 120, (6, 2))
    norm[2, 1] = 0
    joints, mean, counted = functional.keypoint_pck_accuracy(found, truth, mask, 0.1, norm.copy())
    ours = pck(found, truth, mask, 0.1, norm)
    assert (ours.mean, ours.counted) == (pytest.approx(mean), counted)
    np.testing.assert_allclose(np.where(np.isnan(ours.joints), -1, ours.joints), joints)
    assert auc(found, truth, mask) == pytest.approx(functional.keypoint_auc(found, truth, mask, 30))
    assert epe(found, truth, mask) == pytest.approx(functional.keypoint_epe(found, truth, mask))
    assert nme(found, truth, mask, norm) == pytest.approx(functional.keypoint_nme(found, truth, mask, norm.copy()))


CONFIGS = {
    "coco/td-hm_ViTPose-base_8xb64-210e_coco-256x192": (UdpHeatmap(INPUT, HEATMAP, 2), "evaluated", 768, False),
    "coco/td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192": (UdpHeatmap(INPUT, HEATMAP, 2), "evaluated", 32, False),
    "coco/td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192": (
        CombinedHeatmap(INPUT, HEATMAP),
        "evaluated",
        32,
        False,
    ),
    "coco/td-hm_res50_8xb64-210e_coco-256x192": (MsraHeatmap(INPUT, HEATMAP, 2), "classic", 2048, True),
    "coco/td-hm_hrnet-w48_dark-8xb32-210e_coco-384x288": (
        MsraHeatmap((288, 384), (72, 96), 3, unbiased=True),
        "classic",
        48,
        True,
    ),
}


@pytest.mark.parametrize("name", [*CONFIGS])
def test_published_configs(name: str) -> None:
    codec, crop, channels, shift = CONFIGS[name]
    root = Path(mmpose.__file__).parent / ".mim/configs/body_2d_keypoint/topdown_heatmap"
    found = read_config(root / f"{name}.py")
    assert found.codec == codec
    assert (found.crop, found.padding, found.keypoints, found.channels) == (crop, 1.25, 17, channels)
    assert (found.skeleton, found.flip_test, found.shift_heatmap) == ("coco", True, shift)
    assert found.annotations == "data/coco/annotations/person_keypoints_val2017.json"
    assert found.postprocess["nms"] == "oks"


def test_people_of_mmdet() -> None:
    instances = module("mmengine.structures").InstanceData(
        bboxes=torch.tensor([[1.0, 2, 30, 40], [5, 5, 9, 9]]),
        scores=torch.tensor([0.9, 0.4]),
        labels=torch.tensor([0, 56]),
    )
    result = module("mmdet.structures").DetDataSample(pred_instances=instances)
    found = boxes_from_mmdet(result)
    assert np.asarray(found.boxes).tolist() == [[1, 2, 30, 40]]
    assert np.asarray(found.scores).tolist() == pytest.approx([0.9])
