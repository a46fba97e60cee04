"""From RF to IQ: the band around the carrier moved to zero frequency, also where RF was sampled below its carrier."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.channel_data import ChannelData

#: Least width of a pulse, in parts of its carrier, that is thought possible where none is stated.
_NARROW = 0.2


def to_iq(data: ChannelData, *, device: str | torch.device = "cpu") -> ChannelData:
    """Demodulate RF; IQ is returned as it is.

    RF of a band that is narrow enough may be sampled below twice its carrier: the band then appears at an alias, and
    demodulating with the true carrier brings that alias to zero. What must not happen is that the band's mirror image
    (of negative frequencies) falls on it.

    Parameters
    ----------
    data : ChannelData
        With a carrier.
    device : str or torch.device

    Returns
    -------
    ChannelData
        IQ at the same rate: |IQ| is the envelope, Re(IQ exp(2 pi i carrier t)) the band's RF, t of each transmit.

    Raises
    ------
    InputError
        No carrier, or a rate at which the band and its mirror image overlap.
    """
    if data.is_iq:
        return data
    carrier = _carrier(data)
    keep, stop = pass_band(data.sampling, carrier, data.bandwidth)
    count = data.samples.shape[2]
    padded = 2 ** math.ceil(math.log2(2 * count))
    response = torch.from_numpy(_response(padded, data.sampling, keep, stop)).to(device)
    out = np.empty(data.samples.shape, dtype=np.complex64)
    for index in range(len(data.transmits)):
        rotation = torch.from_numpy(np.exp(-2j * np.pi * carrier * data.times(index))).to(device)[:, None]
        rf = torch.from_numpy(np.ascontiguousarray(data.samples[:, index])).to(device)
        mixed = torch.fft.fft(2 * rf.double() * rotation, padded, dim=1)
        band = torch.fft.ifft(mixed * response[:, None], dim=1)[:, :count]
        out[:, index] = band.to(torch.complex64).cpu().numpy()
    return replace(data, samples=out)


def pass_band(sampling: float, carrier: float, bandwidth: float | None) -> tuple[float, float]:
    """Offsets from the carrier, in Hz, up to which a band is kept whole and from which nothing is kept.

    Half of the amplitude is kept midway between both: at the edges of the stated band, which are its -6 dB points.

    Parameters
    ----------
    sampling, carrier : float
        In Hz.
    bandwidth : float, optional
        In parts of the carrier, between -6 dB points. None: as much as the rate allows, at most the carrier.

    Raises
    ------
    InputError
        The band and its mirror image overlap; or, where its width is not stated, any band of a fifth of the carrier and
        more would.
    """
    # the mirror image lies 2 carriers away, and wherever sampling repeats it
    away = math.remainder(2 * carrier, sampling)
    room = abs(away) / 2
    half = None if bandwidth is None else bandwidth * carrier / 2
    if room < 1e-3 * sampling or (half is not None and half > room):
        wanted = "" if half is None else f" of {2e-6 * half:.3g} MHz"
        raise InputError(
            f"RF at {sampling / 1e6:.3g} MHz puts the band{wanted} about {carrier / 1e6:.3g} MHz onto its mirror image",
            remedy="Check sampling rate, carrier and bandwidth; such samples cannot be demodulated.",
        )
    if half is None and 2 * room < _NARROW * carrier:
        raise InputError(
            f"RF at {sampling / 1e6:.4g} MHz leaves {2e-6 * room:.2g} MHz about {carrier / 1e6:.3g} MHz to the band; "
            "its width is not stated, and pulses are wider",
            remedy="Check sampling rate and carrier, or state the bandwidth (--bandwidth of the command).",
        )
    if half is None:
        return 0.5 * min(room, carrier), min(room, carrier)
    return max(half / 2, 2 * half - room), min(1.5 * half, room)


def _carrier(data: ChannelData) -> float:
    if data.carrier is None:
        raise InputError(
            "the carrier is not stated, and RF may have been sampled below it",
            path=data.source,
            remedy="Give the centre frequency of the pulse in Hz (--carrier of the command).",
        )
    return data.carrier


def _response(count: int, sampling: float, keep: float, stop: float) -> NDArray[np.float64]:
    """1 up to ``keep``, 0 from ``stop``, a raised cosine between."""
    offset = np.abs(np.fft.fftfreq(count, 1 / sampling))
    if stop <= keep:
        return (offset <= keep).astype(np.float64)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((offset - keep) / (stop - keep), 0, 1))
