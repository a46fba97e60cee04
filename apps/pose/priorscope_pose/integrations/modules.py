"""SDPose's backbone, head and UDP codec in mmpose's registries, under names of their own.

In a config: ``custom_imports = dict(imports=["priorscope_pose.integrations.modules"])``. mmpose's ``HeatmapHead`` has
batch norms and ReLU and does not fit SDPose's weights; ``SDPoseHead`` does, to the name of every tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.device import resolve_dtype
from priorscope.errors import InputError
from priorscope_pose.codecs import CombinedHeatmap, UdpHeatmap
from priorscope_pose.codecs.peaks import WithoutPeak
from priorscope_pose.geometry.flip import merge_flip
from priorscope_pose.integrations.config import model_config
from priorscope_pose.integrations.openmmlab import module
from priorscope_pose.sdpose.checkpoint import load_head, load_network
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.losses import heatmap_loss

_registry = module("mmpose.registry")
_BaseHead: Any = module("mmpose.models.heads.base_head").BaseHead
_BaseCodec: Any = module("mmpose.codecs.base").BaseKeypointCodec
_BaseModule: Any = module("mmengine.model").BaseModule


@_registry.KEYPOINT_CODECS.register_module()
class BatchedUDPHeatmap(_BaseCodec):
    """Our decoder under the interface of mmpose's ``UDPHeatmap``, whose place it takes in any config.

    Equal but for speed: heads that decode with it hand it a whole batch, on the device it lies on.

    Parameters
    ----------
    input_size, heatmap_size, heatmap_type, sigma, radius_factor, blur_kernel_size
        mmpose's.
    official : bool
        Follow mmpose also where noise leads the refinement astray; by default such a keypoint stays at its maximum.
    without_peak : {"maximum", "outside", "origin"}
        Where a keypoint lies whose heatmap is nowhere positive.
    """

    label_mapping_table = {"keypoint_weights": "keypoint_weights"}  # noqa: RUF012
    field_mapping_table = {"heatmaps": "heatmaps"}  # noqa: RUF012

    def __init__(
        self,
        input_size: Sequence[int],
        heatmap_size: Sequence[int],
        heatmap_type: str = "gaussian",
        sigma: float = 2.0,
        radius_factor: float = 0.0546875,
        blur_kernel_size: int = 11,
        official: bool = False,
        without_peak: WithoutPeak = "maximum",
    ) -> None:
        super().__init__()
        if heatmap_type not in ("gaussian", "combined"):
            raise InputError(f"heatmaps of type {heatmap_type!r}", remedy="Use 'gaussian' or 'combined'.")
        (w, h), (v, u) = input_size, heatmap_size
        self.input_size, self.heatmap_size = (int(w), int(h)), (int(v), int(u))
        self.codec: UdpHeatmap | CombinedHeatmap
        if heatmap_type == "combined":
            self.codec = CombinedHeatmap(
                self.input_size,
                self.heatmap_size,
                radius_factor,
                blur_kernel=blur_kernel_size,
                without_peak=without_peak,
            )
        else:
            self.codec = UdpHeatmap(
                self.input_size,
                self.heatmap_size,
                sigma,
                blur_kernel=blur_kernel_size,
                without_peak=without_peak,
                official=official,
            )

    def encode(
        self, keypoints: NDArray[np.floating], keypoints_visible: NDArray[np.floating] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Heatmaps [K (or 3 K), H, W] and ``keypoint_weights`` [1, K] of one person's keypoints [1, K, 2]."""
        if keypoints.shape[0] != 1:
            raise InputError(f"keypoints of {keypoints.shape[0]} people", remedy="A top-down target is of one person.")
        visible = None if keypoints_visible is None else torch.as_tensor(keypoints_visible)
        heatmaps, weights = self.codec.encode(torch.as_tensor(keypoints), visible)
        return {"heatmaps": heatmaps[0].numpy(), "keypoint_weights": weights.numpy()}

    def decode(self, encoded: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints [1, K, 2] and scores [1, K] of one person's heatmaps [K (or 3 K), H, W]."""
        keypoints, scores = self.codec.decode(torch.as_tensor(encoded)[None])
        return keypoints.numpy(), scores.numpy()

    def batch_decode(self, batch_encoded: torch.Tensor) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """As :meth:`decode` for every row of a tensor, on its device."""
        keypoints, scores = (value.cpu().numpy() for value in self.codec.decode(batch_encoded.detach()))
        return [row[None] for row in keypoints], [row[None] for row in scores]


@_registry.MODELS.register_module()
class SDPoseBackbone(_BaseModule):
    """Autoencoder, prompt and U-Net of an SDPose model: images (B, 3, H, W) in [-1, 1] to a tuple of the tap's map.

    Parameters
    ----------
    source : str
        See :func:`~priorscope_pose.sdpose.checkpoint.load_network`. Its head is left out: see :class:`SDPoseHead`.
    trainable : bool
        Keep the gradients of the U-Net, and what lies after the tap. The autoencoder is frozen and in float32 always.
        Default: folded, as :class:`~priorscope_pose.sdpose.predictor.SDPosePredictor` folds it.
    precision : {"float32", "bfloat16", "float16"}
        Of the U-Net.
    init_cfg : dict, optional
        mmengine's.
    """

    def __init__(self, source: str, trainable: bool = False, precision: Any = "float32", init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.network = load_network(source, dtype=resolve_dtype(precision, torch.device("cpu")))
        self.network.head = torch.nn.Identity()  # type: ignore[assignment]
        if trainable:
            self.network.unet.requires_grad_(True)
        else:
            self.network.fold()
        self.trainable = trainable

    def init_weights(self) -> None:
        """Nothing: they were loaded."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The feature map (B, C, h, w), float32, as the only one of a tuple."""
        network = self.network
        network.latents.to(images.device)  # no submodule: mmengine's moves do not reach it
        with torch.no_grad():
            latents = network.encode(images)
        return (network.features(latents),)


@_registry.MODELS.register_module()
class SDPoseHead(HeatmapHead, _BaseHead):
    """SDPose's head as mmpose's estimators ask one.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the feature map, and keypoints.
    source : str, optional
        Take the weights of this SDPose model; it may be a file or folder as for the backbone. Default: new ones.
    decoder : dict, optional
        The codec's config; needed to predict. ``BatchedUDPHeatmap`` decodes the batch at once.
    loss_weight : float
    init_cfg : dict, optional
        mmengine's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        source: str | None = None,
        decoder: Mapping[str, Any] | None = None,
        loss_weight: float = 1.0,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.init_cfg = init_cfg
        self.decoder = None if decoder is None else _registry.KEYPOINT_CODECS.build(dict(decoder))
        self.loss_weight = loss_weight
        if source is not None:
            head, _ = load_head(source)
            if (head.channels, head.keypoints) != (in_channels, out_channels):
                raise InputError(
                    f"a head of {in_channels} channels and {out_channels} keypoints, where {source} has "
                    f"{head.channels} and {head.keypoints}"
                )
            self.load_state_dict(head.state_dict())

    def init_weights(self) -> None:
        """mmengine's, where the config says ``init_cfg``; else nothing: they are new or were loaded."""
        if self.init_cfg is not None:
            super().init_weights()

    def forward(self, feats: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Heatmaps (B, K, 2 h, 2 w) of the last of a backbone's feature maps."""
        return super().forward(feats if isinstance(feats, torch.Tensor) else feats[-1])

    def predict(self, feats: Any, batch_data_samples: Sequence[Any], test_cfg: Mapping[str, Any] | None = None) -> Any:
        """mmengine's ``InstanceData`` a person, with keypoints in pixels of the crop; with heatmaps if they are asked.

        ``feats`` are a backbone's, or with ``flip_test`` a list of those of the crops and of their mirror images.
        """
        asked = test_cfg or {}
        if asked.get("flip_test", False):
            if asked.get("flip_mode", "heatmap") != "heatmap":
                raise InputError(f"flip_mode {asked['flip_mode']!r}", remedy="SDPose's heatmaps flip as 'heatmap'.")
            straight, mirrored = (self.forward(part) for part in feats)
            flip_indices = batch_data_samples[0].metainfo["flip_indices"]
            heatmaps = merge_flip(straight, mirrored, flip_indices, asked.get("shift_heatmap", False))
        else:
            heatmaps = self.forward(feats)
        found = _BaseHead.decode(self, heatmaps)
        if not asked.get("output_heatmaps", False):
            return found
        fields = module("mmengine.structures").PixelData
        return found, [fields(heatmaps=maps) for maps in heatmaps.detach()]

    def loss(
        self, feats: Any, batch_data_samples: Sequence[Any], train_cfg: Mapping[str, Any] | None = None
    ) -> dict[str, torch.Tensor]:
        """``loss_kpt``: the weighted squared error of heatmaps, as mmpose's ``KeypointMSELoss``."""
        heatmaps = self.forward(feats)
        target = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
        weights = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in batch_data_samples])
        return {"loss_kpt": self.loss_weight * heatmap_loss(heatmaps, target, weights)}


def build_estimator(source: str | Path, **options: Any) -> Any:
    """mmpose's ``TopdownPoseEstimator`` round an SDPose model, in evaluation mode.

    Parameters
    ----------
    source : str or Path
        See :func:`~priorscope_pose.sdpose.checkpoint.load_network`.
    **options
        Those of :func:`~priorscope_pose.integrations.config.model_config`.
    """
    module("mmpose.models")
    return _registry.MODELS.build(model_config(source, **options)).eval()
