"""What the depth benchmarks prescribe: ranges, crops, decoding, resolution, and where officials deviate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError
from priorscope_depth.alignment import Solver, Subsampling

Decoding = Literal["png", "float32", "npy"]
Region = Literal["eigen", "garg", "nyu"]
CompatName = Literal["priorscope", "lotus", "marigold"]

#: KITTI depth benchmark crop, [rows, columns]: bottom rows, centred columns.
KITTI_BENCHMARK_CROP = (352, 1216)


@dataclass(frozen=True)
class Compat:
    """Where an official evaluation deviates from what is right; "priorscope" deviates nowhere.

    Attributes
    ----------
    name : {"priorscope", "lotus", "marigold"}
    rounds_resized_input : bool
        The image is resized as integers, so the network sees rounded values.
    subsampling : {"both", "width"}
        Axes thinned out by the alignment resolution (a 1-D Upsample in the official code: the width only).
    positive_only : bool
        The disparity fit leaves out pixels whose (relative!) prediction is not positive.
    any_space : bool
        The fit ignores what the prediction is: an affine-invariant depth is fitted to 1/depth too, and an
        affine-invariant disparity to depth. By default a prediction is aligned in its own space only, since
        p = s d + t with unknown s and t cannot be inverted.
    solver : {"normal", "lstsq"}
        "lstsq": the fit is solved in float32.
    official_normal_padding : bool
        Normals: images are padded to a multiple of 32 with ImageNet-normalised black although the network
        expects [-1, 1]; by default the border is replicated.
    normal_precision : {"float64", "float32"}
        Normals: precision of the arccos.
    normal_digits : int, optional
        Normals: digits to which the figures of an image are rounded before averaging.
    """

    name: CompatName = "priorscope"
    rounds_resized_input: bool = False
    subsampling: Subsampling = "both"
    positive_only: bool = False
    any_space: bool = False
    solver: Solver = "normal"
    official_normal_padding: bool = False
    normal_precision: Literal["float64", "float32"] = "float64"
    normal_digits: int | None = None


_OFFICIAL = Compat(
    "lotus",
    rounds_resized_input=True,
    subsampling="width",
    positive_only=True,
    any_space=True,
    solver="lstsq",
    official_normal_padding=True,
    normal_precision="float32",
)

#: Parity with EnVision-Research/Lotus@b737e122 evaluation/ and prs-eth/Marigold@b1dffaaa script/depth/eval.py,
#: whose alignment and metrics are the same functions. The golden cases cover Lotus's whole path; that Marigold
#: resizes integers too is an assumption.
COMPATS: dict[str, Compat] = {
    "priorscope": Compat(),
    "lotus": _OFFICIAL,
    "marigold": replace(_OFFICIAL, name="marigold", official_normal_padding=False, normal_digits=4),
}


def get_compat(compat: str | Compat) -> Compat:
    """Return the named options ("priorscope", "lotus" or "marigold"), or the given ones."""
    if isinstance(compat, Compat):
        return compat
    if compat not in COMPATS:
        raise InputError(f"unknown evaluation convention {compat!r}", remedy=f"Use one of {', '.join(COMPATS)}.")
    return COMPATS[compat]


@dataclass(frozen=True)
class DepthProtocol:
    """Evaluation protocol of one data set; change a field with :func:`dataclasses.replace`.

    Attributes
    ----------
    name, title : str
    tar : str
        The archive, relative to the folder of evaluation archives.
    list_file : str
        The list of samples, relative to ``data_split/`` of prs-eth/Marigold.
    images : int
        Images with ground truth in the full set.
    min_depth, max_depth : float
        Metres. Valid ground truth lies strictly between them; predictions are clipped to them.
    decoding : {"png", "float32", "npy"}
        uint16 PNG divided by `png_scale`; headerless little-endian float32 of `raw_shape`; a .npy array.
    png_scale : float
        Units per metre of a PNG.
    raw_shape : (int, int)
        Rows and columns of a headerless file.
    mask_file : bool
        Valid pixels come from a mask file alone; the range serves for clipping predictions only (DIODE).
    benchmark_crop : bool
        Crop image and depth to KITTI's 352 x 1216 first.
    region : {"eigen", "garg", "nyu"}, optional
        Part of the (cropped) image that counts, see :func:`region_box`.
    processing_res : int
        Longer side the image is resized to, up or down, before the predictor sees it (0: not at all), as
        Lotus sets it.
    marigold_processing_res : int, optional
        The same in Marigold's scripts where it differs.
    alignment_max_res : int, optional
        The affine fit runs on a subsample of at most this longer side.
    """

    name: str
    title: str
    tar: str
    list_file: str
    images: int
    min_depth: float
    max_depth: float
    decoding: Decoding = "png"
    png_scale: float = 1000.0
    raw_shape: tuple[int, int] | None = None
    mask_file: bool = False
    benchmark_crop: bool = False
    region: Region | None = None
    processing_res: int = 0
    marigold_processing_res: int | None = None
    alignment_max_res: int | None = None

    def resolution(self, compat: str | Compat = "priorscope") -> int:
        """Longer side of the image the predictor sees; 0: the image's own."""
        if get_compat(compat).name == "marigold" and self.marigold_processing_res is not None:
            return self.marigold_processing_res
        return self.processing_res

    def valid(self, depth: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return the pixels that count, bool [H, W].

        Parameters
        ----------
        depth : float32 array, [H, W]
            Metres, after the benchmark crop. The bounds are compared in its dtype: 0.001 m stored as float32
            is not above 0.001.
        mask : bool array, [H, W], optional
            The data set's own mask; required where `mask_file`.
        """
        depth = np.asarray(depth)
        if self.mask_file:
            if mask is None:
                raise InputError(f"{self.title} takes its valid pixels from a mask file, and none was given")
            return np.array(mask, dtype=bool)
        valid = (depth > self.min_depth) & (depth < self.max_depth)
        if mask is not None:
            valid &= np.asarray(mask, dtype=bool)
        if self.region is not None:
            top, bottom, left, right = region_box(self.region, depth.shape[0], depth.shape[1])
            inside = np.zeros_like(valid)
            inside[top:bottom, left:right] = True
            valid &= inside
        return valid


def region_box(region: Region, height: int, width: int) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of the part of an image that counts; bottom and right are exclusive.

    "eigen" and "garg" are fractions of a KITTI image, "nyu" is rows 45:471 and columns 41:601 of 480 x 640.
    """
    if region == "nyu":
        if (height, width) != (480, 640):
            raise InputError(
                f"the Eigen crop of NYUv2 is defined for 480 x 640 pixels, not for {height} x {width}",
                remedy="Evaluate the labelled set of NYUv2, or the protocol without a region.",
            )
        return 45, 471, 41, 601
    if region == "eigen":
        rows, columns = (0.3324324, 0.91351351), (0.0359477, 0.96405229)
    else:
        rows, columns = (0.40810811, 0.99189189), (0.03594771, 0.96405229)
    return int(rows[0] * height), int(rows[1] * height), int(columns[0] * width), int(columns[1] * width)


def kitti_benchmark_crop(array: NDArray) -> NDArray:
    """Return the bottom 352 rows and the centred 1216 columns of an array [H, W, ...]."""
    height, width = KITTI_BENCHMARK_CROP
    if array.shape[0] < height or array.shape[1] < width:
        raise InputError(f"{array.shape[0]} x {array.shape[1]} is smaller than the KITTI crop {height} x {width}")
    top, left = array.shape[0] - height, (array.shape[1] - width) // 2
    return array[top:, left : left + width]


def resized_shape(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Height and width with ``resolution`` as the longer side; unchanged for 0. Small images grow (official rule).

    The product is truncated in floating point, as officially: a side may come out one pixel short.
    """
    if resolution == 0:
        return height, width
    if resolution < 0:
        raise InputError(f"processing resolution {resolution} must not be negative")
    factor = min(resolution / width, resolution / height)
    return max(int(height * factor), 1), max(int(width * factor), 1)


PROTOCOLS: dict[str, DepthProtocol] = {
    protocol.name: protocol
    for protocol in (
        DepthProtocol(
            "nyuv2",
            "NYUv2",
            "nyuv2/nyu_labeled_extracted.tar",
            "nyu_depth/labeled/filename_list_test.txt",
            images=654,
            min_depth=1e-3,
            max_depth=10.0,
            region="nyu",
        ),
        DepthProtocol(
            "kitti",
            "KITTI (Eigen split)",
            "kitti/kitti_eigen_split_test.tar",
            "kitti_depth/eigen_test_files_with_gt.txt",
            images=652,
            min_depth=1e-5,
            max_depth=80.0,
            png_scale=256.0,
            benchmark_crop=True,
            region="eigen",
        ),
        DepthProtocol(
            "eth3d",
            "ETH3D",
            "eth3d/eth3d.tar",
            "eth3d_depth/eth3d_filename_list.txt",
            images=454,
            min_depth=1e-5,
            max_depth=np.inf,
            decoding="float32",
            raw_shape=(4032, 6048),
            processing_res=768,
            marigold_processing_res=756,
            alignment_max_res=1024,
        ),
        DepthProtocol(
            "scannet",
            "ScanNet",
            "scannet/scannet_val_sampled_800_1.tar",
            "scannet_depth/scannet_val_sampled_list_800_1.txt",
            images=800,
            min_depth=1e-3,
            max_depth=10.0,
        ),
        DepthProtocol(
            "diode",
            "DIODE (validation)",
            "diode/diode_val.tar",
            "diode_depth/diode_val_all_filename_list.txt",
            images=771,
            min_depth=0.6,
            max_depth=350.0,
            decoding="npy",
            mask_file=True,
            processing_res=640,
        ),
    )
}


def depth_protocol(name: str, *, kitti_region: Literal["eigen", "garg"] = "eigen") -> DepthProtocol:
    """Return the protocol of "nyuv2", "kitti", "eth3d", "scannet" or "diode".

    Source: EnVision-Research/Lotus evaluation/ and prs-eth/Marigold config/dataset_depth, src/dataset, data_split.
    """
    if name not in PROTOCOLS:
        raise InputError(f"unknown depth data set {name!r}", remedy=f"Use one of {', '.join(PROTOCOLS)}.")
    protocol = PROTOCOLS[name]
    return replace(protocol, region=kitti_region) if name == "kitti" else protocol
