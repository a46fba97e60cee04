"""Beamforming against echoes whose place is known, and against a stored image of a real recording."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_medical.ultrasound.beamforming import (
    aperture_weights,
    beam_lines,
    beamform,
    beamform_lines,
    linear_grid,
    sector_grid,
    transmit_delay,
)
from priorscope_medical.ultrasound.channel_data import ChannelData, Transmit, checked, linear_array
from priorscope_medical.ultrasound.demodulation import pass_band, to_iq

CARRIER, SPEED = 5e6, 1540.0
ELEMENTS = linear_array(64, 0.3e-3)
POINT = np.array([2e-3, 0.0, 20e-3])


WAVES = {
    "plane": [Transmit(2e-6)],
    "steered": [Transmit(1e-6, angle=angle) for angle in (-0.2, 0.0, 0.15)],
    "diverging": [Transmit(1e-6, source=(0.5e-3, 0.0, -8e-3))],
    "focused beyond": [Transmit(1e-6, source=(2e-3, 0.0, 30e-3), origin=(2e-3, 0.0, 0.0))],
    "focused before": [Transmit(1e-6, source=(2e-3, 0.0, 12e-3), origin=(2e-3, 0.0, 0.0))],
}


@pytest.mark.parametrize("window", ["boxcar", "hann", "tukey"])
@pytest.mark.parametrize("name", WAVES)
def test_a_point_appears_where_it_is(name, window, echoes):
    x, z = np.linspace(0, 4e-3, 41), np.linspace(18e-3, 22e-3, 81)
    image = beamform(echoes(WAVES[name]), linear_grid(x, z), f_number=1.0, window=window).abs()[0]
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert abs(x[column] - POINT[0]) <= 0.1e-3
    assert abs(z[row] - POINT[2]) <= 0.05e-3
    # at the point all echoes are in phase: their mean is the pulse's peak
    at_point = beamform(echoes(WAVES[name]), POINT[None], f_number=1.0, window=window)[0, 0]
    assert at_point.abs() == pytest.approx(1.0, abs=0.03)
    assert abs(math.degrees(torch.angle(at_point))) < 5


def test_the_width_of_a_point_is_that_of_its_aperture(echoes):
    """A boxcar aperture gives a sinc of width 0.886 lambda F on transmit-less focusing; -6 dB is 1.206 lambda F."""
    f_number, wavelength = 2.0, SPEED / CARRIER
    x = np.linspace(0.5e-3, 3.5e-3, 601)
    point = np.array([2e-3, 0.0, 15e-3])
    grid = linear_grid(x, [point[2]])
    profile = beamform(echoes(WAVES["plane"], point=point), grid, f_number=f_number).abs()[0, 0].numpy()
    above = x[profile > profile.max() / 2]
    assert above[-1] - above[0] == pytest.approx(1.206 * wavelength * f_number, rel=0.1)


def test_band_pass_sampling_changes_nothing(echoes):
    """At 4/3 of the carrier the samples alias, but the band is narrow enough."""
    wave = [Transmit(1.3e-6)]
    full = to_iq(replace(echoes(wave, sampling=4 * CARRIER), bandwidth=0.15))
    few = to_iq(replace(echoes(wave, sampling=4 / 3 * CARRIER), bandwidth=0.15))
    same = full.samples[:, :, ::3][:, :, : few.samples.shape[2]]
    difference = np.abs(same - few.samples).max() / np.abs(same).max()
    # what the pulse has outside of the narrow band falls onto its mirror image: it is much weaker, not gone
    assert difference < 0.05
    grid = linear_grid(np.linspace(1e-3, 3e-3, 21), np.linspace(19e-3, 21e-3, 41))
    image = beamform(few, grid, f_number=1.0).abs()[0]
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert abs(grid[row, column] - POINT).max() < 0.15e-3


def test_iq_is_the_envelope_and_gives_back_the_band(echoes):
    data = echoes(WAVES["plane"])
    iq = to_iq(data)
    time = iq.times(0)[:, None]
    rf = (iq.samples[0, 0] * np.exp(2j * np.pi * CARRIER * time)).real
    assert np.abs(rf - data.samples[0, 0]).max() < 0.02
    assert to_iq(iq) is iq
    back = np.linalg.norm(POINT - ELEMENTS, axis=1)[20] / SPEED + POINT[2] / SPEED
    assert abs(time[np.abs(iq.samples[0, 0, :, 20]).argmax(), 0] - back) <= 0.5 / iq.sampling
    assert np.abs(iq.samples[0, 0, :, 20]).max() == pytest.approx(1.0, abs=0.03)


def test_pass_bands():
    # half of the amplitude at the -6 dB edges
    keep, stop = pass_band(20e6, 5e6, 0.4)
    assert (keep + stop) / 2 == pytest.approx(1e6)
    keep, stop = pass_band(20e6 / 3, 5e6, 0.6)  # room for 1.67 MHz on either side
    assert (keep + stop) / 2 == pytest.approx(1.5e6)
    assert stop == pytest.approx(20e6 / 12)
    with pytest.raises(InputError, match="mirror image"):
        pass_band(10e6, 5e6, 0.2)  # twice the carrier is the rate: the mirror image is the band
    with pytest.raises(InputError, match="mirror image"):
        pass_band(5.2e6, 5e6, 0.5)
    with pytest.raises(InputError, match="not stated"):
        pass_band(10.4e6, 5e6, None)  # 0.4 MHz for a pulse at 5 MHz
    assert pass_band(10.4e6, 5e6, 0.05)[1] <= 0.2e6  # stated, it may be as narrow
    assert pass_band(20e6 / 3, 5e6, None)[1] == pytest.approx(5e6 / 3)


def test_lines_are_those_of_their_own_transmit(echoes):
    waves = [
        Transmit(1e-6, source=(x, 0.0, 25e-3), origin=(x, 0.0, 0.0)) for x in np.linspace(0.5e-3, 3.5e-3, 7).tolist()
    ]
    data = echoes(waves)
    depths = np.linspace(18e-3, 22e-3, 41)
    points = beam_lines(data, depths)
    np.testing.assert_allclose(points[2, :, 0], 1.5e-3)
    image = beamform_lines(data, points, f_number=1.0).abs()[0]
    assert image.shape == (41, 7)
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert abs(depths[row] - POINT[2]) <= 0.1e-3
    assert column == 3
    whole = beamform(replace(data, samples=data.samples[:, 3:4], transmits=tuple(waves[3:4])), points[3], f_number=1.0)
    torch.testing.assert_close(whole.abs()[0], image[:, 3])


def test_transmit_delays():
    axis = np.array([[0.0, 0, 0], [0, 0, 10e-3], [0, 0, 20e-3], [0, 0, 30e-3]])
    for wave in (Transmit(), Transmit(source=(0, 0, 20e-3)), Transmit(source=(0, 0, -5e-3))):
        np.testing.assert_allclose(transmit_delay(wave, axis, 1000.0), [0, 1e-5, 2e-5, 3e-5], atol=1e-18)
    steered = Transmit(angle=0.3)
    assert transmit_delay(steered, np.array([math.sin(0.3), 0, math.cos(0.3)]), 1.0) == pytest.approx(1.0)
    assert transmit_delay(steered, np.array([math.cos(0.3), 0, -math.sin(0.3)]), 1.0) == pytest.approx(0.0)
    # a focused wave is late beside its axis before the focus, by what the elements there have fired early
    focused = Transmit(source=(0, 0, 20e-3))
    assert transmit_delay(focused, np.array([5e-3, 0, 0]), 1.0) == pytest.approx(20e-3 - math.hypot(5e-3, 20e-3))


def test_sector_points():
    grid = sector_grid([-0.5, 0.0, 0.5], [10e-3, 20e-3], radius=30e-3)
    np.testing.assert_allclose(grid[:, 1], [[0, 0, 10e-3], [0, 0, 20e-3]])
    np.testing.assert_allclose(np.linalg.norm(grid + [0, 0, 30e-3], axis=-1), [[40e-3] * 3, [50e-3] * 3])


def test_apertures():
    lateral = torch.tensor([[0.0, 2.4e-3, 4.9e-3, 5.1e-3]])
    depth = torch.tensor([[10e-3]])
    assert aperture_weights(lateral, depth, 1.0, "boxcar").tolist() == [[1, 1, 1, 0]]
    hann = aperture_weights(lateral, depth, 1.0, "hann")[0]
    assert hann[0] == 1
    assert 0.45 < hann[1] < 0.6
    assert hann[2] < 0.01
    tukey = aperture_weights(lateral, depth, 1.0, "tukey")[0]
    assert tukey[1] == 1
    assert tukey[3] == 0
    assert aperture_weights(lateral, depth, 0, "hann").tolist() == [[1, 1, 1, 1]]


def test_dead_elements_are_left_out(echoes):
    data = echoes(WAVES["plane"])
    broken = data.samples.copy()
    broken[..., 30:40] = 7.0
    found = checked(replace(data, samples=broken))
    assert found.dead == tuple(range(30, 40))
    assert "10 of 64 channels are constant" in found.notes[0]
    assert beamform(found, POINT[None], f_number=1.0).abs()[0, 0] == pytest.approx(1.0, abs=0.03)


def test_real_plane_waves_agree_with_their_stored_image(shared_data):
    from scipy.io import loadmat

    folder = shared_data("medical") / "ultrasound"
    recorded = loadmat(folder / "PWI_disk.mat", simplify_cells=True)
    stored = loadmat(folder / "bmode_PWI_disk.mat")["I"].astype(np.float64)
    param = recorded["param"]
    rf = recorded["RF"].transpose(2, 0, 1)[[0, 31], None].astype(np.float32)
    data = checked(
        ChannelData(
            rf,
            param["fs"],
            param["fc"],
            linear_array(param["Nelements"], param["pitch"]),
            (Transmit(param["t0"]),),
            param["c"],
            param["bandwidth"] / 100,
        )
    )
    assert data.notes == ()
    grid = linear_grid(np.linspace(-12.5e-3, 12.5e-3, 251), np.linspace(10e-3, 35e-3, 251))
    image = beamform(data, grid, f_number=1.0).abs().numpy()
    decibel = np.maximum(20 * np.log10(image / image.max()), -30)
    same = [np.corrcoef(decibel[i].ravel(), stored[..., j].ravel())[0, 1] for i, j in ((0, 0), (1, 31))]
    other = np.corrcoef(decibel[0].ravel(), stored[..., 31].ravel())[0, 1]
    assert min(same) > 0.93
    assert other < 0.8  # the disk has turned


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: replace(d, carrier=None), "carrier"),
        (lambda d: replace(d, samples=np.swapaxes(d.samples, 2, 3)), "another order"),
        (lambda d: replace(d, samples=d.samples[0]), "channel data of shape"),
        (lambda d: replace(d, speed=1.54), "sound at 1.54"),
        (lambda d: replace(d, sampling=0.0), "sampling is 0"),
        (lambda d: replace(d, transmits=(Transmit(), Transmit())), "2 transmits"),
        (lambda d: checked(replace(d, samples=0 * d.samples)), "every channel is constant"),
        (lambda d: checked(replace(d, samples=np.clip(d.samples, -1e-9, 1e-9))), "are clipped"),
        (lambda d: checked(replace(d, samples=d.samples * np.nan)), "not finite"),
    ],
)
def test_data_that_cannot_be_right_is_refused(change, fact, echoes):
    with pytest.raises(InputError, match=fact):
        beamform(change(echoes(WAVES["plane"])), POINT[None])


def test_points_that_cannot_be_right_are_refused(echoes):
    data = echoes(WAVES["plane"])
    with pytest.raises(InputError, match="millimetres"):
        beamform(data, 1000 * POINT[None])
    with pytest.raises(InputError, match="f-number"):
        beamform(data, POINT[None], f_number=-1)
    with pytest.raises(InputError, match="off the origin"):
        Transmit(source=(0.0, 0.0, 0.0))


def test_a_little_clipping_is_noted(echoes):
    data = echoes(WAVES["plane"], duration=30e-6)
    top = np.sort(np.abs(data.samples).ravel())[-round(0.005 * data.samples.size)]
    noted = checked(replace(data, samples=np.clip(data.samples, -top, top)))
    assert any("are clipped" in note for note in noted.notes)
    assert not checked(data).notes
