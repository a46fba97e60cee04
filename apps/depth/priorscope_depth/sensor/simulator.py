"""A learned sensor: the residual of a scan is generated, given the exact depth (Stable-Sim2Real, stage one)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.backbones.latents import PatchSpace
from priorscope.backbones.loading import load_component, save_component
from priorscope.data.files import write_text
from priorscope.device import inference_layout, resolve_device
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope_depth.sensor.codec import LogDepth, is_residual
from priorscope_depth.sensor.configs import Method
from priorscope_depth.sensor.spread import Spread
from priorscope_depth.sensor.structured_light import checked_depth
from priorscope_depth.trained import SMALL_UNET, read_trained

PATCH = 4
#: A scan has two channels: the residual, and whether anything was measured.
SCAN = PatchSpace(PATCH, 2)
#: The exact depth has three: its code, and how that changes to the right and downwards.
CLEAN = PatchSpace(PATCH, 3)
#: Changes of the code from pixel to pixel are small numbers: enlarged so much, and bounded by tanh.
_SLOPE = 50.0
_KIND = "sensor-residual"
#: Of DDIM, as published.
DEFAULT_STEPS = 50


class SensorNetwork:
    """Ask a ``UNet2DModel`` for the scan: ``network(x, label, clean=...)``, both as blocks of 4 x 4 pixels."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __call__(self, x: torch.Tensor, label: torch.Tensor, *, clean: torch.Tensor) -> torch.Tensor:
        return self.unet(torch.cat([x, clean], dim=1), label, return_dict=False)[0]


class SensorSimulator:
    """Exact depth to a scan, with the sensor's faults as it was trained on.

    Parameters
    ----------
    unet : UNet2DModel
    method : {"sampled", "one-step", "one-step-mean"}
        How it is asked: by DDIM from noise, or in one call on noise.
    spread : Spread
        Of the residuals it was trained on; the network works on residuals divided by it.
    name : str
    device : torch.device
    """

    def __init__(
        self,
        unet: Any,
        method: Method,
        spread: Spread,
        *,
        name: str = "new",
        device: torch.device | str = "cpu",
    ) -> None:
        if method not in get_args(Method):
            raise InputError(f"method {method!r}", remedy=f"Use one of {', '.join(get_args(Method))}.")
        self.unet = unet
        self.method: Method = method
        self.spread = spread
        self.codec = LogDepth()
        self.name = name
        self.device = torch.device(device)
        # nearly every pixel is measured: a schedule whose noisiest level still shows that would, from pure noise, lead
        # to far too many holes; and v keeps noise that is a signal here, which a network that puts out x0 wears down
        schedule = VPSchedule.from_betas(zero_terminal_snr=True)
        self.denoiser = Denoiser(SensorNetwork(unet), schedule, "v" if method == "sampled" else "sample")
        self.geometry = Geometry(0, multiple=PATCH * 2 ** (len(unet.config.block_out_channels) - 1))

    @classmethod
    def new(cls, method: Method, spread: Spread, *, seed: int = 0) -> SensorSimulator:
        """A small one with random weights."""
        from diffusers.models.unets.unet_2d import UNet2DModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DModel(in_channels=SCAN.channels + CLEAN.channels, out_channels=SCAN.channels, **SMALL_UNET)
        return cls(unet, method, spread)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "auto") -> SensorSimulator:
        """Load what :meth:`save` wrote, in float32.

        Raises
        ------
        InputError
            No such folder, one of another kind or with other weights, or without the method and the spread.
        """
        from diffusers.models.unets.unet_2d import UNet2DModel

        folder = Path(folder)
        about, name = read_trained(folder, _KIND, what="a sensor model", command="train-sensor")
        where = resolve_device(device)
        wanted = {"in_channels": SCAN.channels + CLEAN.channels, "out_channels": SCAN.channels}
        unet = load_component(UNet2DModel, folder / "unet", expect=wanted)
        unet.to(where, memory_format=inference_layout(where))
        try:
            spread = Spread(float(about["at_metre"]), float(about["power"]))
            return cls(unet, about["method"], spread, name=name, device=where)
        except (KeyError, TypeError, ValueError) as error:
            fact = error.fact if isinstance(error, InputError) else "does not state method and spread"
            raise InputError(fact, path=folder / "priorscope.json", remedy="Train the model again.") from None

    def save(self, folder: Path) -> None:
        """Write the model folder, in float32; it must not exist."""
        folder.mkdir(parents=True)
        about = {"kind": _KIND, "method": self.method, **asdict(self.spread)}
        write_text(folder / "priorscope.json", json.dumps(about) + "\n")
        save_component(self.unet, folder / "unet")

    def condition(self, clean: torch.Tensor) -> Condition:
        """What the network is told of exact depth (B, 1, H, W) in metres."""
        code = self.codec.encode(clean)
        right = torch.diff(code, dim=-1, append=code[..., -1:])
        down = torch.diff(code, dim=-2, append=code[..., -1:, :])
        told = torch.cat([code, torch.tanh(_SLOPE * right), torch.tanh(_SLOPE * down)], dim=1)
        return Condition({"clean": CLEAN.encode(told)})

    def target(self, scan: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """What the network generates for a scan (B, 1, H, W): (B, 32, H / 4, W / 4).

        The residual over its deviation at that depth, and 1 or -1 for whether anything was measured. The residual is 0
        where nothing was, and where it does not count: a wall that the scan has and the exact depth has not would be
        many deviations off, and nothing like it is met when scans are generated.
        """
        measured = self.codec.is_valid(scan)
        residual = self.codec.residual(scan, clean) / self.spread(clean, self.codec)
        residual = torch.where(is_residual(self.codec, scan, clean), residual, 0.0)
        return SCAN.encode(torch.cat([residual, measured.float() * 2 - 1], dim=1))

    def scan_of(self, generated: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """Undoes :meth:`target`: metres (B, 1, H, W), 0 where nothing is measured."""
        residual, measured = SCAN.decode(generated).chunk(2, dim=1)
        depth = self.codec.apply(residual * self.spread(clean, self.codec), clean)
        return torch.where((measured > 0) & self.codec.is_valid(clean), depth, 0.0)

    def generate(self, clean: torch.Tensor, noise: Noise, *, steps: int = DEFAULT_STEPS) -> torch.Tensor:
        """Scans in metres of exact depth (B, 1, H, W), sides multiples of 16."""
        condition = self.condition(clean)
        size = clean.shape[-2] // PATCH, clean.shape[-1] // PATCH
        start = noise.draw((clean.shape[0], SCAN.channels, *size), device=clean.device)
        times = spaced_times(self.denoiser.schedule, steps if self.method == "sampled" else 1, "trailing")
        return self.scan_of(sample(self.denoiser, start, times, condition=condition), clean)

    @torch.no_grad()
    def __call__(
        self,
        depths: NDArray[np.floating] | Sequence[NDArray[np.floating]],
        *,
        seed: int = 0,
        items: Sequence[int | str] | None = None,
        steps: int = DEFAULT_STEPS,
    ) -> list[NDArray[np.float32]]:
        """What the sensor reports for exact depth maps.

        Parameters
        ----------
        depths : ndarray (H, W), or a sequence of them
            Metres; 0 where there is none, which is never measured.
        seed : int
        items : sequence of int or str, optional
            What each map's noise derives from, with ``seed``. Default: its position.
        steps : int
            DDIM steps of a sampled model.

        Returns
        -------
        list of ndarray, float32, (H, W)
            Metres; 0 where nothing is measured.
        """
        maps = [depths] if isinstance(depths, np.ndarray) else list(depths)
        keys: list[int | str] = list(range(len(maps))) if items is None else list(items)
        if len(keys) != len(maps):
            raise InputError(f"{len(keys)} item names for {len(maps)} maps")
        scans = []
        for depth, key in zip(maps, keys, strict=True):
            clean = torch.from_numpy(checked_depth(depth)).float()[None, None].to(self.device)
            clean, frame = self.geometry.prepare(clean)
            scan = self.generate(clean, Noise.for_items(seed, [key]), steps=steps)
            scans.append(self.geometry.crop(scan, frame)[0, 0].cpu().numpy())
        return scans
