"""Measurements of a known volume, with the noise of the machine and without the inverse crime. For research use only.

The object lives on a finer grid than the reconstruction: it is measured there, and the truth that a reconstruction is
compared with is the mean of the object over each of its pixels (CT), or its Fourier transform cut to the measured
band (MRI). So no method is handed the matrix that made the data.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.nn import functional

from priorscope.diffusion.noise import Noise, item_seed
from priorscope.errors import InputError
from priorscope.inverse import kspace_masks
from priorscope.inverse.fan_beam import FanBeam
from priorscope.inverse.mri import AsComplex, CartesianMRI, from_kspace, to_kspace
from priorscope.inverse.operator import LinearOperator
from priorscope.inverse.parallel_beam import ParallelBeam
from priorscope_medical.volumes import Volume, as_attenuation, coarsened, intensity_scale

MaskKind = Literal["uniform", "gaussian", "equispaced", "variable", "official", "full"]
#: A ray that no photon passes is taken for one with so many: the logarithm needs a positive number.
FEWEST_COUNTS = 0.5


@dataclass(frozen=True)
class Measurement:
    """What was measured of a volume, and all that is needed to reconstruct it and to judge the result.

    Parameters
    ----------
    y : Tensor
        CT: [slices, 1, detectors, views], line integrals of attenuation relative to water, in mm. MRI: k-space
        [slices, coils, H, W], complex, of intensities divided by their 99.9 % quantile.
    operator : LinearOperator
        From the reconstruction's grid to `y`.
    truth : Tensor [slices, 1, H, W]
        The object on the reconstruction's grid, in the unit of the methods.
    weights : Tensor or None
        Inverse variance of the noise in each value of `y` (or to be broadcast to it); MRI: of the real and of the
        imaginary part each. None without noise.
    grid : Volume
        `truth` with spacing and affine.
    settings : dict
        How it was made, for the run folder: numbers, text and lists only.
    """

    y: torch.Tensor
    operator: LinearOperator
    truth: torch.Tensor
    weights: torch.Tensor | None
    grid: Volume
    settings: dict[str, Any]


def sparse_views(views: int, span: float = 180.0) -> np.ndarray:
    """Angles in degrees of ``views`` evenly spread over ``span``, the end excluded."""
    if views < 1 or not 0 < span <= 360:
        raise InputError(f"{views} views over {span} degrees", remedy="Give at least one, and a span within 360.")
    return np.arange(views) * (span / views)


def limited_views(span: float, step: float = 1.0, start: float = 0.0) -> np.ndarray:
    """Angles in degrees from ``start`` to ``start + span``, the end excluded, every ``step``."""
    if not (0 < step <= span <= 360):
        raise InputError(f"views over {span} degrees every {step}", remedy="Give 0 < step <= span <= 360.")
    return start + np.arange(math.ceil(span / step - 1e-9)) * step


def simulate_ct(
    volume: Volume,
    angles: object,
    *,
    geometry: Literal["parallel", "fan"] = "parallel",
    photons: float | None = 1e5,
    electronic: float = 10.0,
    water_per_mm: float = 0.02,
    coarsen: int = 1,
    finer: int | None = None,
    detectors: int | None = None,
    pitch: float | None = None,
    axis_offset: float = 0.0,
    source_distance: float = 570.0,
    detector_distance: float = 1040.0,
    seed: int = 0,
    first_slice: int = 0,
    batch_size: int = 32,
) -> Measurement:
    """X-ray projections of every slice.

    Parameters
    ----------
    volume : Volume
        In HU or relative attenuation, with square pixels.
    angles : array of float
        (views,) in degrees: :func:`sparse_views`, :func:`limited_views` or any others.
    geometry : {"parallel", "fan"}
        Parallel rays, or a fan onto a flat detector.
    photons : float or None
        Expected counts of an unattenuated ray; None for no noise at all.
    electronic : float
        Standard deviation of the electronics' noise, in counts.
    water_per_mm : float
        Attenuation of water per mm at the beam's effective energy: about 0.02 at 65 keV.
    coarsen : int
        The reconstruction's pixels are so many of the volume's.
    finer : int, optional
        The object's pixels are this part of the volume's, interpolated bicubically; by default a half, or the volume's
        own where the reconstruction is coarser.
    detectors, pitch, axis_offset
        As for the operators, in mm; by default the detectors cover the slice.
    source_distance, detector_distance : float
        Fan only: mm from the source to the axis and to the detector.
    seed, first_slice : int
        Slice k draws its noise from the seed and ``first_slice + k``, whatever is measured with it.
    batch_size : int
        Slices at a time.

    Returns
    -------
    Measurement
        ``weights`` are the photon statistics: ``water_per_mm^2 N^2 / (N + electronic^2)`` for N counts.

    Raises
    ------
    InputError
        No view, a volume of intensities, pixels that are not square, numbers out of range.

    Warns
    -----
    UserWarning
        The object is on the reconstruction's own grid; rays that too few photons pass; angles that may be radians.
    """
    if photons is not None and not 1 <= photons < math.inf:
        raise InputError(f"{photons} photons a ray", remedy="Give at least 1, or none for no noise.")
    if not (0 <= electronic < math.inf and 0 < water_per_mm < math.inf and batch_size >= 1):
        raise InputError(
            f"noise of {electronic} counts, {water_per_mm} /mm for water, batches of {batch_size}",
            remedy="Use no negative noise; the others are above 0, all finite.",
        )
    object_, ratio = _object(as_attenuation(volume), coarsen, finer)
    pixel = _square_pixel(volume) * coarsen
    slices, (height, width) = len(volume.data), (n // coarsen for n in volume.data.shape[1:])
    shared: dict[str, Any] = {"axis_offset": axis_offset}
    if geometry == "fan":
        shared |= {"source_distance": source_distance, "detector_distance": detector_distance}
    elif geometry != "parallel":
        raise InputError(f"a geometry named {geometry!r}", remedy="Use parallel or fan.")
    beam: Any = FanBeam if geometry == "fan" else ParallelBeam
    operator = beam((height, width), angles, pixel=pixel, pitch=pitch, detectors=detectors, **shared)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are they radians")  # said once is enough
        shared |= {"pitch": operator.pitch, "detectors": operator.range[1]}
        fine = beam((height * ratio, width * ratio), angles, pixel=pixel / ratio, **shared)
    y, truth = torch.empty(slices, *operator.range), torch.empty(slices, *operator.domain)
    weights = None if photons is None else torch.empty_like(y)
    clamped = 0
    for begin in range(0, slices, batch_size):
        part = slice(begin, begin + batch_size)
        image = object_(part)
        truth[part] = functional.avg_pool2d(image, ratio) if ratio > 1 else image
        lengths = fine(image)
        if photons is None or weights is None:
            y[part] = lengths
            continue
        for number in range(len(lengths)):
            random = np.random.default_rng(item_seed(seed, first_slice + begin + number))
            expected = photons * np.exp(-water_per_mm * lengths[number].double().numpy())
            counts = random.poisson(expected) + electronic * random.standard_normal(expected.shape)
            clamped += int((counts < FEWEST_COUNTS).sum())
            counts = counts.clip(min=FEWEST_COUNTS)
            y[begin + number] = torch.from_numpy(np.log(photons / counts) / water_per_mm)
            weights[begin + number] = torch.from_numpy(water_per_mm**2 * counts**2 / (counts + electronic**2))
    if clamped:
        warnings.warn(
            f"{clamped} of {y.numel()} rays had less than {FEWEST_COUNTS} counts and were set to it", stacklevel=2
        )
    settings = {
        "modality": "CT",
        "geometry": geometry,
        "angles": np.rad2deg(operator.angles).tolist(),
        "detectors": operator.range[1],
        "pitch": operator.pitch,
        "pixel": pixel,
        "axis_offset": axis_offset,
        "photons": photons,
        "electronic": electronic,
        "water_per_mm": water_per_mm,
        "clamped": clamped,
        "object_pixels_per_pixel": ratio,
        "seed": seed,
        "first_slice": first_slice,
        "source": str(volume.source),
    }
    if geometry == "fan":
        settings |= {"source_distance": source_distance, "detector_distance": detector_distance}
    return Measurement(y, operator, truth, weights, _grid(volume, coarsen, truth, "attenuation"), settings)


def simulate_mri(
    volume: Volume,
    *,
    mask: MaskKind = "gaussian",
    acceleration: float = 4.0,
    centre_fraction: float = 0.08,
    snr: float | None = 30.0,
    coils: int = 1,
    scale: float | None = None,
    coarsen: int = 1,
    finer: int | None = None,
    seed: int = 0,
    first_slice: int = 0,
    batch_size: int = 32,
) -> Measurement:
    """Cartesian k-space of every slice, undersampled, with complex Gaussian noise.

    Parameters
    ----------
    volume : Volume
        Of intensities (any unit will do).
    mask : str
        One of :mod:`priorscope.inverse.kspace_masks`: lines that are ``uniform``, ``gaussian``, ``equispaced`` or
        ``official`` (DiffusionMBIR's), points of ``variable`` density, or ``full``. The same for all slices.
    acceleration, centre_fraction : float
        See there.
    snr : float or None
        Mean of the truth, where it exceeds a tenth of its maximum, divided by the standard deviation that the noise
        (its real and its imaginary part each) would have in a fully sampled image. None: no noise.
    coils : int
        Receivers around the slice (:func:`coil_maps`); 1 sees everything alike.
    scale : float, optional
        What intensities are divided by; default: the 99.9 % quantile of this volume.
    coarsen, finer, seed, first_slice, batch_size
        See :func:`simulate_ct`.

    Returns
    -------
    Measurement
        The operator takes real images (B, 1, H, W).

    Raises
    ------
    InputError
        An empty volume, a mask that cannot be drawn, numbers out of range.
    """
    if snr is not None and not 0 < snr < math.inf:
        raise InputError(f"a signal-to-noise ratio of {snr}", remedy="Give a positive one, or none for no noise.")
    if coils < 1 or batch_size < 1:
        raise InputError(f"{coils} coils, batches of {batch_size}")
    if scale is None:
        scale = intensity_scale(volume.data)
    elif not 0 < scale < math.inf:
        raise InputError(f"intensities divided by {scale}", remedy="Give a positive number, or none.")
    object_, ratio = _object(volume.with_data(volume.data / scale), coarsen, finer)
    slices, (height, width) = len(volume.data), (n // coarsen for n in volume.data.shape[1:])
    measured = draw_mask(mask, (height, width), acceleration, centre_fraction, seed)
    maps = coil_maps(coils, (height, width)) if coils > 1 else None
    fine_maps = coil_maps(coils, (height * ratio, width * ratio)) if coils > 1 else None
    acquisition = CartesianMRI((height, width), measured, maps)
    truth = torch.empty(slices, 1, height, width)
    y = torch.empty(slices, *acquisition.range, dtype=torch.complex64)
    for begin in range(0, slices, batch_size):
        part = slice(begin, begin + batch_size)
        image = object_(part).to(torch.complex64)
        truth[part] = from_kspace(_band(to_kspace(image), (height, width), ratio)).real
        received = image if fine_maps is None else fine_maps * image
        y[part] = _band(to_kspace(received), (height, width), ratio)
    weights, deviation = None, None
    if snr is not None:
        deviation = float(truth[truth > 0.1 * truth.max()].mean()) / snr
        for begin in range(0, slices, batch_size):
            lines = y[begin : begin + batch_size]
            numbers = range(first_slice + begin, first_slice + begin + len(lines))
            noise = Noise.for_items(seed, numbers).draw((len(lines), 2 * coils, height, width))
            lines += deviation * torch.complex(noise[:, :coils], noise[:, coils:])
        weights = (acquisition.mask / deviation**2).float()
    y *= acquisition.mask
    settings = {
        "modality": "MRI",
        "mask": mask,
        "acceleration": acceleration,
        "measured_acceleration": kspace_masks.measured_acceleration(acquisition.mask),
        "centre_fraction": centre_fraction,
        "snr": snr,
        "noise": deviation,
        "coils": coils,
        "scale": scale,
        "object_pixels_per_pixel": ratio,
        "seed": seed,
        "first_slice": first_slice,
        "source": str(volume.source),
    }
    operator = acquisition @ AsComplex((1, height, width))
    return Measurement(y, operator, truth, weights, _grid(volume, coarsen, truth, "intensity"), settings)


def draw_mask(
    kind: MaskKind, size: tuple[int, int], acceleration: float, centre_fraction: float, seed: int = 0
) -> torch.Tensor:
    """Measured positions of k-space by their kind: (W,) for lines, (H, W) for points, bool."""
    width = size[1]
    if kind == "full":
        return torch.ones(width, dtype=torch.bool)
    if kind == "uniform":
        return kspace_masks.uniform_lines(width, acceleration, centre_fraction, seed=seed)
    if kind == "gaussian":
        return kspace_masks.gaussian_lines(width, acceleration, centre_fraction, seed=seed)
    if kind == "official":
        return kspace_masks.mbir_lines(width, acceleration, centre_fraction, seed=seed)
    if kind == "variable":
        return kspace_masks.variable_density(size, acceleration, centre_fraction, seed=seed)
    if kind == "equispaced":
        if not float(acceleration).is_integer():
            raise InputError(f"every {acceleration:g}-th line", remedy="Give a whole number.")
        return kspace_masks.equispaced_lines(width, int(acceleration), centre_fraction)
    raise InputError(f"a mask named {kind!r}", remedy=f"Use one of {', '.join(get_args(MaskKind))}.")


def coil_maps(coils: int, size: tuple[int, int]) -> torch.Tensor:
    """Sensitivities of coils on a circle around the slice: [coils, H, W], complex64, their squares add up to 1.

    Each is a Gaussian of the distance from its coil, with a phase that turns along the direction to it.
    """
    y, x = ((torch.arange(n, dtype=torch.float64) + 0.5) * (2 / n) - 1 for n in size)
    angles = torch.arange(coils, dtype=torch.float64) * (2 * math.pi / coils)
    across, down = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    away = (x - 1.2 * across) ** 2 + (y[:, None] - 1.2 * down) ** 2
    phase = 0.5 * math.pi * (x * across + y[:, None] * down) + angles[:, None, None]
    maps = torch.polar(torch.exp(-away / 2), phase)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def _object(volume: Volume, coarsen: int, finer: int | None) -> tuple[Any, int]:
    """A function from a range of slices to the object (B, 1, H, W) on its grid, and its pixels per reconstructed one.

    Only those slices are interpolated, so that memory does not grow with the volume.
    """
    height, width = volume.data.shape[1:]
    if coarsen < 1 or height % coarsen or width % coarsen:
        raise InputError(
            f"slices of {height} x {width} cannot be coarsened by {coarsen}",
            path=volume.source,
            remedy="Pad them to a multiple first.",
        )
    factor = (2 if coarsen == 1 else 1) if finer is None else finer
    if factor < 1:
        raise InputError(f"an object {factor} times finer", remedy="Give a whole number of at least 1.")
    if coarsen * factor == 1:
        warnings.warn(
            "the object is measured on the reconstruction's own grid (the inverse crime): results will flatter",
            stacklevel=3,
        )

    def at(part: slice) -> torch.Tensor:
        image = torch.from_numpy(volume.data[part])[:, None]
        if factor == 1:
            return image
        return functional.interpolate(image, scale_factor=factor, mode="bicubic").clamp(min=0)

    return at, coarsen * factor


def _square_pixel(volume: Volume) -> float:
    _, rows, columns = volume.spacing
    if abs(rows - columns) > 0.01 * rows:
        raise InputError(
            f"pixels of {rows:g} x {columns:g} mm; projections need square ones",
            path=volume.source,
            remedy="Resample the volume, or choose slices in another plane.",
        )
    return columns


def _band(kspace: torch.Tensor, size: tuple[int, int], ratio: int) -> torch.Tensor:
    """The middle of a finer image's k-space: that of an image of ``size`` whose pixels are ``ratio`` times as wide.

    A coarse pixel's centre lies between fine ones, so the image is moved by a part of a pixel.
    """
    for axis, n in zip((-2, -1), size, strict=True):
        kspace = kspace.narrow(axis, (n * ratio) // 2 - n // 2, n)
        shift = (n // 2) * ratio + (ratio - 1) / 2 - (n * ratio) // 2
        frequency = (torch.arange(n, dtype=torch.float64) - n // 2) / (n * ratio)
        turn = torch.polar(torch.ones(n, dtype=torch.float64), 2 * math.pi * shift * frequency).to(kspace.dtype)
        kspace = kspace * (turn[:, None] if axis == -2 else turn)
    return kspace / ratio


def _grid(volume: Volume, coarsen: int, truth: torch.Tensor, unit: Literal["attenuation", "intensity"]) -> Volume:
    return coarsened(volume, coarsen).with_data(truth[:, 0].numpy(), unit)
