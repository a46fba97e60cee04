"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.aids import CurriculumConfig
from priorscope.training.settings import LoopConfig

Task = Literal["sv-ct", "la-ct", "cs-mri"]
Method = Literal["dds", "mbir", "tv", "cgls", "sirt", "fbp", "zero-filled"]
Compared = Literal["dds", "dds-2d", "mbir", "tv", "cgls", "sirt", "fbp", "zero-filled"]


@dataclass(frozen=True)
class VolumeConfig:
    """How a volume is read."""

    unit: Literal["HU", "attenuation", "intensity"] | None = None
    """What the values are; otherwise the DICOM modality tells, or they are guessed by their range and the guess is
    printed."""
    slices: Literal["axial", "coronal", "sagittal"] | None = None
    """Plane of the slices that are measured one by one; default: across the largest spacing, else axial."""
    spacing: tuple[float, float, float] | None = None
    """Arrays, and k-space without a header: mm between slices, rows and columns."""
    series: str | None = None
    """DICOM: UID of the series, or its end, where a folder holds several."""
    slab: tuple[int, int] | None = None
    """Only these slices: the first, and one after the last."""


@dataclass(frozen=True)
class AcquisitionConfig:
    """How a known volume is measured."""

    views: int = 8
    """sv-ct: X-ray views, spread evenly over a half turn (a fan: a full one)."""
    span: float = 90.0
    """la-ct: degrees that the views cover, the end excluded."""
    step: float = 1.0
    """la-ct: degrees between views."""
    angles: str | None = None
    """Views instead of these, and instead of a file's: start:stop:step in degrees (the stop excluded), numbers with
    commas between, or a file of them (.npy, or text)."""
    geometry: Literal["parallel", "fan"] = "parallel"
    """Parallel rays, or a fan onto a flat detector."""
    photons: float = 1e5
    """Counts of a ray that meets nothing; 0: no noise."""
    electronic: float = 10.0
    """Standard deviation of the electronics' noise in counts."""
    water_per_mm: float | None = None
    """Attenuation of water per mm at the beam's effective energy; default: the file's, and 0.02 (65 keV) in
    simulations."""
    source_distance: float = 570.0
    """Fan: mm from the source to the rotation axis."""
    detector_distance: float = 1040.0
    """Fan: mm from the source to the detector."""
    mask: Literal["gaussian", "uniform", "equispaced", "variable", "official", "full"] = "gaussian"
    """cs-mri: which k-space lines (variable: points) are measured; official is DiffusionMBIR's."""
    acceleration: float = 4.0
    """cs-mri: one line in so many."""
    centre_fraction: float = 0.08
    """cs-mri: share of the lines in the middle that are always measured."""
    snr: float = 30.0
    """cs-mri: signal-to-noise ratio of a fully sampled image; 0: no noise."""
    coils: int = 1
    """cs-mri: receivers around the slice."""


@dataclass(frozen=True)
class FileConfig:
    """How a file of measurements is read."""

    dataset: str | None = None
    """Name of the projections or the k-space in the file, where it is not one of the usual."""
    theta: str | None = None
    """Dataset of the view angles in degrees."""
    white: str | None = None
    """Dataset of the open beam."""
    dark: str | None = None
    """Dataset of the dark current."""
    mask_dataset: str | None = None
    """Dataset of the k-space mask."""
    order: Literal["auto", "sinograms", "projections"] = "auto"
    """[slices, views, detectors], or [views, rows, detectors]."""
    values: Literal["auto", "counts", "transmission", "integrals"] = "auto"
    """What was stored; auto: counts where there is an open beam, else line integrals."""
    pitch: float | None = None
    """mm between detectors."""
    slice_spacing: float | None = None
    """mm between slices."""
    axis_offset: float | None = None
    """Where the rotation axis falls on the detector, in mm from its middle."""
    find_axis: bool = False
    """Find that from the projections."""
    pixel: float | None = None
    """mm of a pixel of the result; default: --size of them are as wide as the detector."""
    sensitivities: Path | None = None
    """Coil sensitivities (.npy or .npz, complex [coils, H, W] or [slices, coils, H, W]); default: from the
    calibration lines."""
    espirit: bool = False
    """Estimate sensitivities by ESPIRiT: fewer lines are enough, more time."""


@dataclass(frozen=True)
class SolverConfig:
    """How a volume is found that fits the measurement."""

    prior: str | None = None
    """dds and mbir: a bundled prior's name, a folder that `train` wrote, or a published NCSN++ checkpoint (.pth).
    Default: the bundled one for the task."""
    prior_scale: float | None = None
    """Checkpoints that do not say what their numbers mean: the attenuation (water 1) that was 1 while they were
    trained; for MRI the intensity relative to the volume's 99.9 % quantile (1)."""
    size: int | None = None
    """Side of the result's slices in pixels; default: that of the prior's training slices."""
    steps: int | None = None
    """dds: network calls a slice (80). mbir: noise levels, two calls each (2000; few levels cost much: README)."""
    weight: float | None = None
    """Of the variation between slices; 0 takes each slice by itself. Default: 0.5 or for MRI 5 (dds), 0.04
    or for MRI 0.005 (mbir)."""
    in_plane: float = 0.0
    """dds: of the variation within slices. Some (0.5) helps where the prior knows little of such volumes."""
    rho: float | None = None
    """ADMM's penalty; default: 0.3 or for MRI 1 (dds), 10 or for MRI 0.01 (mbir)."""
    eta: float = 1.0
    """dds: share of fresh noise in a step. 1 comes nearer to the truth at 90 degrees, the published 0.85 spreads
    samples more."""
    cg_iterations: int = 40
    """dds: conjugate-gradient iterations a step."""
    noise: float | None = None
    """Standard deviation of the measurement's noise: mm of water for projections, and for k-space of images that
    are divided by their 99.9 % quantile. Default: as simulated, or estimated from the measurement."""
    noise_factor: float | None = None
    """dds: trust the measurement less: times so much noise. Default: 2 for projections, as pixels that are coarser than
    the object misfit them by about as much again, and 1 for k-space."""
    tv_weight: float | None = None
    """tv: of the total variation; default: 0.1 for CT, 0.01 for MRI."""
    iterations: int | None = None
    """tv (100), sirt (100) and cgls (20): iterations."""
    fbp_filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = "ramp"
    """fbp: filter."""
    batch_size: int = 8
    """Slices in a network call; the result does not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the network: auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Fixes every result: noise comes from it and a slice's number."""


@dataclass(frozen=True)
class ReconstructConfig:
    """Reconstruct a volume from measurements; those of a known volume are simulated first. For research use only."""

    input: tyro.conf.Positional[Path]
    """A volume (NIfTI, DICOM series, arrays), or with `--task measured` projections or k-space (HDF5, .npz, .npy)."""
    task: Literal["sv-ct", "la-ct", "cs-mri", "measured"] = "sv-ct"
    """Few X-ray views, views of a limited angle, few k-space lines; or measured: the input is measurements."""
    method: Method = "dds"
    """dds: diffusion prior, tens of network calls. mbir: DiffusionMBIR. tv: total variation in 3D. cgls, sirt, fbp,
    zero-filled: classical."""
    samples: int = 1
    """dds, mbir: posterior samples; with two or more their mean is the volume and their standard deviation a map."""
    out: Path = Path("runs/reconstruct")
    """Run folder: volume.nii.gz, metrics.json, report.html."""
    checkpoint_every: int = 10
    """Steps between two checkpoints."""
    resume: bool = False
    """Go on with a run that was cut off."""
    solver: Annotated[SolverConfig, tyro.conf.arg(name="")] = field(default_factory=SolverConfig)
    volume: Annotated[VolumeConfig, tyro.conf.arg(name="")] = field(default_factory=VolumeConfig)
    acquire: Annotated[AcquisitionConfig, tyro.conf.arg(name="")] = field(default_factory=AcquisitionConfig)
    file: Annotated[FileConfig, tyro.conf.arg(name="")] = field(default_factory=FileConfig)


@dataclass(frozen=True)
class SimulateConfig:
    """Measure a known volume, with noise, into a file that others and `reconstruct --task measured` can read."""

    input: tyro.conf.Positional[Path]
    """A volume (NIfTI, DICOM series, arrays)."""
    task: Task = "sv-ct"
    """Few X-ray views, views of a limited angle, few k-space lines."""
    size: int | None = None
    """Side of the slices that shall be reconstructed, in pixels; default: half of the volume's."""
    out: Path = Path("measurement.h5")
    """HDF5 file; OUT.json beside it tells how it was made, OUT-truth.nii.gz is what should come out."""
    seed: int = 0
    """Of the noise."""
    volume: Annotated[VolumeConfig, tyro.conf.arg(name="")] = field(default_factory=VolumeConfig)
    acquire: Annotated[AcquisitionConfig, tyro.conf.arg(name="")] = field(default_factory=AcquisitionConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure methods on known volumes: PSNR and SSIM in three planes, beside classical methods."""

    volumes: tyro.conf.Positional[tuple[Path, ...]]
    """Volumes that the prior has not seen."""
    tasks: tuple[str, ...] = ("sv-ct-8", "sv-ct-4", "la-ct-90")
    """sv-ct-VIEWS, la-ct-DEGREES, cs-mri-ACCELERATION."""
    methods: tuple[Compared, ...] = ("dds", "dds-2d", "tv", "sirt", "cgls", "fbp")
    """dds-2d: dds without coupling of slices. What a task cannot use is left out (fbp of MRI, say)."""
    samples: int = 4
    """dds, dds-2d and mbir: posterior samples, whose mean is judged; their first is judged, too."""
    data_range: float | None = None
    """Of PSNR and SSIM; default: 4 for CT (attenuation, water 1; air to dense bone), 1 for MRI."""
    tv_sweep: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Weights tried for tv, in units of its default; the best on each volume counts, in its favour."""
    out: Path = Path("runs/evaluate")
    """Run folder: metrics, rows, volumes, report.html."""
    resume: bool = False
    """Go on with a run that was cut off."""
    solver: Annotated[SolverConfig, tyro.conf.arg(name="")] = field(default_factory=SolverConfig)
    volume: Annotated[VolumeConfig, tyro.conf.arg(name="")] = field(default_factory=VolumeConfig)
    acquire: Annotated[AcquisitionConfig, tyro.conf.arg(name="")] = field(default_factory=AcquisitionConfig)


@dataclass(frozen=True)
class DehazeConfig:
    """Take haze off an echocardiogram: DICOM cine, video, pictures, or RF. For research use only."""

    input: tyro.conf.Positional[Path]
    """DICOM (one frame or many), video, picture, folder of pictures, .npy [frames, height, width]; or channel data
    (.mat, .h5, .hdf5, .uff: MUST, PICMUS, zea, UFF) and RF of `simulate-ultrasound`."""
    out: Path = Path("dehazed.dcm")
    """.dcm, .mp4, .npy, .png (one frame), or a folder of PNG. The report is beside it, in OUT-report."""
    method: Literal["smooth", "dps", "semantic", "nuclear"] = "smooth"
    """smooth: follow what is finer than haze. dps: follow the picture everywhere alike. semantic: less where it may be
    haze. nuclear: prior plus a background that hardly changes over the frames."""
    prior: str = "tiny-echo"
    """The bundled prior, a folder, or a zea diffusion model: hf://tristan-deep/semantic-diffusion-echo-dehazing."""
    strength: float = 1.0
    """Share of the haze found that is taken off, from 0 to 2; of RF how much haze there is relative to what the prior
    knows."""
    steps: int = 20
    """Network calls a frame."""
    start: float | None = None
    """Level of noise at which the run begins from the picture itself, up to 1; the higher, the more the prior decides.
    Default: the method's."""
    omega: float | None = None
    """Weight of the picture against the prior; default: the method's."""
    dynamic_range: float = 55.0
    """dB from black to white, as set at the scanner."""
    mask: Path | None = None
    """semantic: a picture of the frames' size, white where there is surely tissue; default: found in the cine."""
    frames: tuple[int, int] | None = None
    """Only these: the first, and one after the last."""
    rf_priors: tuple[str, str] = ("tiny-rf-tissue", "tiny-rf-haze")
    """RF: the priors of tissue and of haze, bundled or folders of `train-ultrasound`."""
    samples: int = 4
    """RF: posterior samples, whose mean is taken; 1 is four times faster and a little farther from the truth."""
    last: float | None = None
    """RF: noise at the last level, in units of the RMS; default: 0.02. With 0.5, 5 calls (--steps 5) came as near to
    simulated RF as 16 with the default, but not in weak walls."""
    carrier: float | None = None
    """Channel data: frequency of the pulse in Hz, instead of the file's; of IQ that of the demodulation, where the file
    does not say."""
    bandwidth: float | None = None
    """Channel data: width of the pulse's band in parts of its frequency (0.6, say, between -6 dB points), instead of
    the file's. RF that was sampled below twice its frequency needs it."""
    attenuation: float = 0.0
    """RF: gain over depth to make up for so many dB per cm and MHz; 0 where the file has it already, 0.5 in soft tissue
    otherwise."""
    size: int | None = None
    """Side of the square that the prior works on in pixels; default: that of its training pictures."""
    batch_size: int | None = None
    """Frames in a network call, and for nuclear the frames that share a background; default: 10 at 128 pixels, less at
    more."""
    report: bool = True
    """Write the report and a video of before and after."""
    overwrite: bool = False
    """Replace results that are there."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the network: auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Fixes the result."""


@dataclass(frozen=True)
class DemoConfig:
    """Reconstruct a real brain from few k-space lines by the bundled prior, beside classical methods, with a report."""

    out: Path = Path("runs/demo-medical")
    """Run folder; replaced if a demo made it."""
    slab: tuple[int, int] = (64, 128)
    """Axial slices of the MNI152 brain: the first, and one after the last (189 in all, 1 mm each)."""
    acceleration: float = 4.0
    """One k-space line in so many is measured."""
    samples: int = 1
    """Posterior samples; of two or more the mean is judged, and their first, too."""
    prior: str | None = None
    """A prior of MR slices: a name in the model table, or a folder that `train` wrote; default: the bundled one."""
    size: int | None = None
    """Side of the slices in pixels; default: that of the prior's training slices."""
    seed: int = 0
    """Of the measurement's noise and the samples."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""


@dataclass(frozen=True)
class AidsConfig:
    """What may help the training of a U-Net along. All are off by default."""

    weighting: Literal["output", "x0", "min-snr"] = "output"
    """unet: which error counts: that of the network's output, that of the slice it implies, or min-SNR-weighted.
    Held-out figures are of the output all the same."""
    task_routing: bool = False
    """unet: each noise level uses channels of its own; the model needs it ever after, and keeps it."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Train a prior on slices: of volumes, or of procedural bodies that no patient is behind."""

    volumes: tuple[Path, ...] = ()
    """Volumes to learn from, and those to hold out."""
    phantoms: int = 0
    """So many procedural CT slices instead."""
    out: Path = Path("runs/prior")
    """Run folder; the prior is out/model, what to look at is out/report.html."""
    network: Literal["unet", "ncsnpp"] = "unet"
    """unet: small, quick, on variance-preserving noise. ncsnpp: DiffusionMBIR's, on variance-exploding noise."""
    held_out: tuple[str, ...] = ()
    """Names of --volumes (or ends of their paths) that are looked at only; by default a tenth of the slices of every
    volume, from its middle."""
    kind: Literal["attenuation", "intensity"] | None = None
    """attenuation (CT) or intensity (MR); default: what the volumes are."""
    planes: tuple[Literal["axial", "coronal", "sagittal"], ...] = ("axial",)
    """Which slices of the volumes."""
    size: int = 96
    """Side of a slice in pixels."""
    pixel: float | None = None
    """mm of a pixel; default: the whole of the largest slice fits, and 2.55 for phantoms."""
    patch: int = 2
    """unet: each block of so many pixels a side is one position of the network, for speed."""
    channels: int = 64
    """ncsnpp: width of the first level; the published one has 128."""
    blocks: int = 2
    """ncsnpp: residual blocks a level; the published one has 4."""
    augment: bool = True
    """Mirror, shift and scale slices."""
    unit: Literal["HU", "attenuation", "intensity"] | None = None
    """What the voxels of the volumes are, where it should not be guessed."""
    aids: Annotated[AidsConfig, tyro.conf.arg(name="")] = field(default_factory=AidsConfig)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(steps=4000, lr=1.5e-3, warmup=200)
    )
