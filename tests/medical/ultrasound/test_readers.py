"""Readers of channel data: the same echoes in every format, and files that are wrong."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from priorscope.errors import InputError
from priorscope_medical.ultrasound.beamforming import beamform, linear_grid, transmit_delay
from priorscope_medical.ultrasound.channel_data import Transmit, linear_array
from priorscope_medical.ultrasound.demodulation import to_iq
from priorscope_medical.ultrasound.read import read_channel_data
from priorscope_medical.ultrasound.transmit_fit import wave_of_delays

POINT = np.array([2e-3, 0.0, 20e-3])
PLANES = [Transmit(2e-6, angle=angle) for angle in (-0.1, 0.0, 0.2)]
SPHERES = [
    Transmit(1e-6, source=(0.5e-3, 0.0, -8e-3)),
    Transmit(1e-6, source=(2e-3, 0.0, 30e-3)),
]


def write_picmus(path, data):
    with h5py.File(path, "w") as file:
        group = file.create_group("US/US_DATASET0000")
        group["angles"] = np.float32([wave.angle for wave in data.transmits])
        samples = data.samples[0].transpose(0, 2, 1)
        group["data/real"], group["data/imag"] = samples.real, samples.imag
        group["initial_time"] = np.float32(data.transmits[0].start)
        group["modulation_frequency"] = np.float32(data.carrier if data.is_iq else 0)
        group["probe_geometry"] = data.elements.T.astype(np.float32)
        group["sampling_frequency"], group["sound_speed"] = np.float32(data.sampling), np.float32(data.speed)
        group["PRF"] = np.float32(300.0)
    return path


def fired(data):
    """Delays of the elements on zea's and MUST's clock, and when each wave passes the origin on it."""
    delays = np.stack([transmit_delay(wave, data.elements, data.speed) for wave in data.transmits])
    first = delays.min(1)
    return delays - first[:, None], -first


def write_zea(path, data):
    delays, passing = fired(data)
    waves = data.transmits
    with h5py.File(path, "w") as file:
        parts = [data.samples.real, data.samples.imag] if data.is_iq else [data.samples]
        file["data/raw_data"] = np.stack(parts, -1).astype(np.float32)
        scan, probe = file.create_group("scan"), file.create_group("probe")
        scan["sampling_frequency"], scan["sound_speed"] = np.float32(data.sampling), np.float32(data.speed)
        scan["center_frequency"] = np.full(len(waves), data.carrier, np.float32)
        scan["demodulation_frequency"] = np.float32(data.carrier)
        scan["initial_times"] = (passing + [wave.start for wave in waves]).astype(np.float32)
        scan["t0_delays"] = delays.astype(np.float32)
        scan["tx_apodizations"] = np.ones_like(delays, dtype=np.float32)
        reach = [np.inf if w.source is None else np.copysign(np.linalg.norm(w.source), w.source[2]) for w in waves]
        scan["focus_distances"] = np.float32(reach)
        scan["transmit_origins"] = np.zeros((len(waves), 3), np.float32)
        polar = [w.angle if w.source is None else np.arctan2(w.direction[0], w.direction[2]) for w in waves]
        scan["polar_angles"] = np.float32(polar)
        probe["probe_geometry"] = data.elements.astype(np.float32)
        probe["probe_bandwidth_percent"] = np.float32(80)
    return path


def write_uff(path, data):
    with h5py.File(path, "w") as file:
        group = file.create_group("channel_data")
        group.attrs["class"] = "uff.channel_data"
        samples = data.samples[0].transpose(0, 2, 1)
        if data.is_iq:
            group["data/real"], group["data/imag"] = samples.real, samples.imag
        else:
            group["data"] = samples
        for name, value in (
            ("sampling_frequency", data.sampling),
            ("sound_speed", data.speed),
            ("initial_time", 0.0),
            ("modulation_frequency", data.carrier if data.is_iq else 0.0),
            ("pulse/center_frequency", data.carrier),
        ):
            group[name] = np.full((1, 1), value)
        geometry = np.zeros((7, len(data.elements)))
        geometry[:3] = data.elements.T
        group["probe/geometry"] = geometry
        for index, wave in enumerate(data.transmits):
            entry = group.create_group(f"sequence/sequence_{index + 1:04d}")
            entry["wavefront"] = np.full((1, 1), 0 if wave.source is None else 1)
            entry["delay"] = np.full((1, 1), wave.start)
            if wave.source is None:
                entry["source/distance"], entry["source/azimuth"] = np.inf, wave.angle
            else:
                entry["source/distance"] = np.linalg.norm(wave.source)
                entry["source/azimuth"] = np.arctan2(wave.source[0], wave.source[2])
    return path


def must(data):
    delays, passing = fired(data)
    start = {round(1e12 * (wave.start + late)) for wave, late in zip(data.transmits, passing, strict=True)}
    assert len(start) == 1, "MUST has one t0"
    array = data.samples.transpose(2, 3, 1, 0)
    param = {
        "fs": data.sampling,
        "fc": data.carrier,
        "c": data.speed,
        "pitch": 0.3e-3,
        "Nelements": len(data.elements),
        "t0": data.transmits[0].start + passing[0],
        "TXdelay": delays,
        "bandwidth": 80.0,
    }
    return array, param


def write_mat5(path, data):
    array, param = must(data)
    savemat(path, {"IQ" if data.is_iq else "RF": array, "param": param})
    return path


def write_mat73(path, data):
    array, param = must(data)
    with h5py.File(path, "w", userblock_size=512) as file:
        values = array.T
        if data.is_iq:
            pairs = np.empty(values.shape, dtype=[("real", "f4"), ("imag", "f4")])
            pairs["real"], pairs["imag"] = values.real, values.imag
            values = pairs
        file["IQ" if data.is_iq else "RF"] = values
        for name, value in param.items():
            file[f"param/{name}"] = np.atleast_2d(value).T
    content = path.read_bytes()
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + content[512:])
    return path


WRITERS = {"picmus": write_picmus, "zea": write_zea, "uff": write_uff, "mat5": write_mat5, "mat73": write_mat73}
SUFFIX = {"picmus": "hdf5", "zea": "hdf5", "uff": "uff", "mat5": "mat", "mat73": "mat"}


@pytest.mark.parametrize("kind", ["RF", "IQ"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_point_back(name, kind, echoes, tmp_path):
    """Steered plane waves, whose delays and clocks must be right for their echoes to add up."""
    waves = [PLANES[1]] if name.startswith("mat") else PLANES
    made = echoes(waves)
    made = to_iq(made) if kind == "IQ" else made
    path = WRITERS[name](tmp_path / f"echoes.{SUFFIX[name]}", made)
    data = read_channel_data(path, carrier=made.carrier if name == "picmus" else None)
    assert data.samples.dtype == made.samples.dtype
    np.testing.assert_allclose(data.samples, made.samples, atol=1e-6)
    np.testing.assert_allclose(data.elements, made.elements, atol=1e-9)
    assert data.is_iq == (kind == "IQ")
    for ours, theirs in zip(data.transmits, made.transmits, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=1e-10)
        assert ours.angle == pytest.approx(theirs.angle, abs=1e-6)
    x, z = np.linspace(1e-3, 3e-3, 21), np.linspace(19e-3, 21e-3, 41)
    image = beamform(data, linear_grid(x, z), f_number=1.0).abs()[0]
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert abs(x[column] - POINT[0]) <= 0.1e-3
    assert abs(z[row] - POINT[2]) <= 0.05e-3


@pytest.mark.parametrize("wave", SPHERES)
@pytest.mark.parametrize("name", ["zea", "uff", "mat5"])
def test_waves_from_a_point_are_read(name, wave, echoes, tmp_path):
    data = read_channel_data(WRITERS[name](tmp_path / f"echoes.{SUFFIX[name]}", echoes([wave])))
    read = data.transmits[0]
    # an origin elsewhere on the wave's way is as good: what counts is when it reaches a point
    points = linear_grid(np.linspace(-3e-3, 5e-3, 5), np.linspace(5e-3, 25e-3, 5))
    difference = transmit_delay(read, points, 1540.0) - read.start - transmit_delay(wave, points, 1540.0) + wave.start
    assert np.abs(difference).max() < 2e-9


def test_delays_tell_their_wave():
    elements = linear_array(64, 0.3e-3)
    for wave in [*PLANES, *SPHERES, Transmit(source=(-5e-3, 0.0, -20e-3)), Transmit(source=(4e-3, 0.0, 60e-3))]:
        delays = transmit_delay(wave, elements, 1540.0)
        delays = delays - delays.min()
        delays[5] = np.nan  # silent
        found = wave_of_delays(elements, delays, 0.0, 1540.0, 5e6)
        again = transmit_delay(found, elements, 1540.0)
        again = again - again.min()
        assert np.nanmax(np.abs(again - delays)) < 1e-9
    with pytest.raises(InputError, match="no plane, diverging or focused wave"):
        wave_of_delays(elements, np.random.default_rng(0).uniform(0, 5e-6, 64), 0.0, 1540.0, 5e6)


def test_the_real_recording(shared_data):
    data = read_channel_data(shared_data("medical") / "ultrasound/PWI_disk.mat", frames=slice(0, 3))
    assert data.samples.shape == (3, 1, 334, 128)
    assert data.carrier == 5e6
    assert data.bandwidth == 0.15
    assert data.frame_rate == 10_000
    assert data.transmits == (Transmit(9.95e-6),)
    assert data.notes == ()
    assert data.pitch == pytest.approx(0.298e-3)


def test_tracks_of_newer_zea_files_are_read(echoes, tmp_path):
    made = echoes(PLANES)

    def into_tracks(file):
        for number in (0, 1):
            for name in ("data", "scan"):
                file.copy(file[name], f"tracks/track_{number}/{name}")
        del file["data"], file["scan"]

    path = write_zea(tmp_path / "echoes.hdf5", made)
    with h5py.File(path, "a") as file:
        file.create_group("tracks/track_0"), file.create_group("tracks/track_1")
        into_tracks(file)
    data = read_channel_data(path)
    np.testing.assert_allclose(data.samples, made.samples, atol=1e-6)
    assert data.notes == ("the first of 2 tracks is read",)
    assert data.bandwidth == pytest.approx(0.8)


def test_frames_are_chosen_and_sizes_limited(echoes, tmp_path):
    path = write_zea(tmp_path / "echoes.hdf5", echoes(PLANES))
    with h5py.File(path, "a") as file:
        raw = file["data/raw_data"][()]
        del file["data/raw_data"]
        file["data/raw_data"] = np.concatenate([raw, 2 * raw, 3 * raw])
    whole = read_channel_data(path)
    some = read_channel_data(path, frames=slice(1, 3))
    np.testing.assert_array_equal(some.samples, whole.samples[1:])
    with pytest.raises(InputError, match="the limit is"):
        read_channel_data(path, max_gigabytes=1e-4)


def changed(path, change):
    with h5py.File(path, "a") as file:
        change(file)
    return path


def replaced(name, value):
    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "fact"),
    [
        ("picmus", replaced("US/US_DATASET0000/angles", None), "has no angles"),
        ("picmus", replaced("US/US_DATASET0000/angles", np.zeros(5)), "transmits"),
        ("picmus", replaced("US/US_DATASET0000/data/real", np.zeros((3, 800, 64))), "another order|imaginary"),
        ("picmus", replaced("US/US_DATASET0000/initial_time", 2.0), "seconds"),
        ("picmus", replaced("US/US_DATASET0000/sound_speed", 1.54), "1.54 m/s"),
        ("zea", replaced("data/raw_data", np.zeros((1, 3, 800, 64))), "raw_data has shape"),
        ("zea", replaced("data/raw_data", np.ones((1, 3, 64, 800, 1))), "another order"),
        ("zea", replaced("data/raw_data", np.ones((1, 3, 800, 64, 1))), "every channel is constant"),
        ("zea", replaced("scan/t0_delays", np.zeros((3, 64))), "delays of the elements differ"),
        ("zea", replaced("scan/t0_delays", np.zeros((2, 64))), "t0_delays of shape"),
        ("zea", replaced("scan/sampling_frequency", np.array([1.0, 2.0])), "2 different numbers"),
        ("zea", replaced("scan", None), "has no scan"),
        ("uff", replaced("channel_data/sequence", None), "has no sequence"),
        ("uff", replaced("channel_data/probe/geometry", np.zeros((3, 64))), "7 numbers"),
        ("uff", replaced("channel_data", None), "no known layout"),
    ],
)
def test_files_that_do_not_fit_are_refused(name, change, fact, echoes, tmp_path):
    path = changed(WRITERS[name](tmp_path / f"echoes.{SUFFIX[name]}", echoes(PLANES)), change)
    with pytest.raises(InputError, match=fact):
        read_channel_data(path)


@pytest.mark.parametrize("name", WRITERS)
def test_truncated_files_are_refused(name, echoes, tmp_path):
    path = WRITERS[name](tmp_path / f"echoes.{SUFFIX[name]}", echoes(PLANES[1:2]))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_channel_data(path)


def test_other_files_are_refused(tmp_path):
    for name, content, fact in (
        ("a.txt", b"hello world", "neither HDF5 nor"),
        ("b.mat", b"", "0 bytes"),
        ("c.mat", b"not matlab at all, whatever it is called. " * 9, "truncated or"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=fact):
            read_channel_data(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_channel_data(tmp_path / "nowhere.hdf5")
    with pytest.raises(InputError, match="is a folder"):
        read_channel_data(tmp_path)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda array, param: ({"RF": array.transpose(1, 0, 2, 3)}, param), "another order"),
        (lambda array, param: ({"RF": array}, {k: v for k, v in param.items() if k != "fs"}), "no fs"),
        (lambda array, param: ({"RF": array}, param | {"TXdelay": np.zeros(3)}), "TXdelay of shape"),
        (lambda array, param: ({"echo": array}, param), "none of the arrays"),
        (lambda array, param: ({"RF": array}, param | {"fs": "fast"}), "fs"),
    ],
)
def test_matlab_files_that_do_not_fit_are_refused(change, fact, echoes, tmp_path):
    arrays, param = change(*must(echoes(PLANES[1:2])))
    savemat(tmp_path / "echoes.mat", arrays | {"param": param})
    with pytest.raises(InputError, match=fact):
        read_channel_data(tmp_path / "echoes.mat")


def test_rf_without_a_carrier_is_refused_when_it_is_needed(echoes, tmp_path):
    path = write_picmus(tmp_path / "echoes.hdf5", echoes(PLANES))
    data = read_channel_data(path)
    assert "does not state the pulse's frequency" in data.notes[0]
    assert read_channel_data(path, carrier=5e6).notes == ()
    with pytest.raises(InputError, match="carrier"):
        beamform(data, POINT[None])


def test_the_carrier_of_iq_is_the_file_s(echoes, tmp_path):
    iq = to_iq(echoes(PLANES[:1]))
    stated = write_mat5(tmp_path / "iq.mat", iq)
    assert read_channel_data(stated, carrier=iq.carrier).carrier == iq.carrier
    with pytest.raises(InputError, match="demodulated with"):
        read_channel_data(stated, carrier=1.1 * iq.carrier)


@pytest.mark.parametrize(
    ("name", "unsaid"),
    [
        ("zea", {"scan/demodulation_frequency": None}),
        ("zea", {"scan/demodulation_frequency": 0.0}),
        ("uff", {"channel_data/modulation_frequency": np.zeros((1, 1))}),
        ("picmus", {"US/US_DATASET0000/modulation_frequency": 0.0}),
    ],
)
def test_iq_of_an_unknown_frequency_is_refused_unless_it_is_given(name, unsaid, echoes, tmp_path):
    """The pulse's own frequency, which zea and UFF state as well, need not be the one of the demodulation."""
    iq = to_iq(echoes(PLANES))
    path = WRITERS[name](tmp_path / f"iq.{SUFFIX[name]}", iq)
    for entry, value in unsaid.items():
        changed(path, replaced(entry, value))
    with pytest.raises(InputError, match=r"frequency that it was demodulated with.*--carrier") as caught:
        read_channel_data(path)
    assert "\n" not in str(caught.value)
    assert read_channel_data(path, carrier=iq.carrier).carrier == iq.carrier
