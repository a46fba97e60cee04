"""Tomography: projections against official outputs, scikit-image, analytic chords and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.transform
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope.inverse import FanBeam, OfficialParallelBeam, ParallelBeam
from priorscope.inverse.fan_beam import redundancy
from priorscope.inverse.fbp import angular_weights, filter_sinogram

PROJECTORS = ["matrix", "grid"]


def disc(size, radius, centre=(0.0, 0.0), pixel=1.0, fine=8):
    """A disc of value 1, (1, 1, size, size) in float64, its border averaged over ``fine`` x ``fine`` points a pixel."""
    place = ((np.arange(size * fine) + 0.5) / fine - size / 2) * pixel
    inside = (place[None] - centre[0]) ** 2 + (place[:, None] - centre[1]) ** 2 <= radius**2
    image = inside.reshape(size, fine, size, fine).mean((1, 3))
    return torch.from_numpy(image)[None, None]


@pytest.mark.parametrize("projector", PROJECTORS)
def test_golden_mbir_radon(golden_files, read_json, projector):
    for path in golden_files("medical", "mbir_radon.json"):
        stored = load_file(path.with_suffix(".safetensors"))
        for case in read_json(path)["cases"]:
            name = case["name"]
            values = {
                key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")
            }
            operator = OfficialParallelBeam(case["N"], values["theta_deg"], circle=case["circle"], projector=projector)
            assert operator.range == (1, case["det"], case["views"])
            ones = torch.ones(1, 1, case["N"], case["N"])
            got = {
                "sino": operator(values["x"]),
                "AT": operator.adjoint(values["sino"]),
                "AT_of_randn_y": operator.adjoint(values["randn_y"]),
                "ATA_ones": operator.normal(ones),
                "exact_adjoint_of_randn_y": operator.exact_adjoint(values["randn_y"]),
                "fbp": operator.fbp(values["sino"]),
                "ramp_filtered_sino": 2 * filter_sinogram(values["sino"], "ramp"),
            }
            for part, value in got.items():
                torch.testing.assert_close(
                    value, values[part], atol=1e-4, rtol=1e-4, msg=lambda m, part=part: f"{part}: {m}"
                )
            exact, official = (got[part].ravel() for part in ("exact_adjoint_of_randn_y", "AT_of_randn_y"))
            cosine = torch.cosine_similarity(exact, official, dim=0).item()
            assert cosine == pytest.approx(case["cosine_exact_vs_AT"], abs=1e-5)
            scale = (exact @ official / (official @ official)).item()
            assert scale == pytest.approx(case["bestscale_exact_over_AT"], rel=1e-4)
            if not case["circle"]:
                same = ParallelBeam(
                    case["N"], values["theta_deg"], detectors=case["det"], convention="skimage", projector=projector
                )
                sinogram = same(values["x"][:1].double())[0, 0]
                torch.testing.assert_close(sinogram, values["skimage_sino0"], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": 16},
        {"size": 17},
        {"size": (15, 20)},
        {"size": 16, "detectors": 9},
        {"size": 17, "detectors": 40, "axis_offset": 1.3},
        {"size": 16, "pixel": 0.7, "pitch": 1.9},
        {"size": 15, "convention": "skimage"},
        {"size": 16, "convention": "official"},
    ],
)
def test_parallel_beam_adjoint(settings, batch, projector):
    operator = ParallelBeam(angles=[0, 17.5, 90, 133, 250], projector=projector, **settings)
    assert operator.adjoint_error(batch=batch, dtype=torch.float32) < 1e-6
    assert operator.adjoint_error(batch=batch, dtype=torch.float64) < 1e-12


@pytest.mark.parametrize("size", [16, 17])
def test_projectors_agree(size):
    settings = {"angles": np.linspace(0, 180, 7), "pixel": 0.5, "pitch": 1.2, "axis_offset": 0.3}
    matrix, grid = (ParallelBeam(size, projector=projector, **settings) for projector in PROJECTORS)
    x = torch.randn(40, 1, size, size, dtype=torch.float64)
    y = torch.randn(40, *matrix.range, dtype=torch.float64)
    torch.testing.assert_close(matrix(x), grid(x), atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(matrix.adjoint(y), grid.adjoint(y), atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(matrix(x.float()), matrix(x).float(), atol=2e-5, rtol=2e-6)
    torch.testing.assert_close(grid(x.float()), matrix(x).float(), atol=2e-5, rtol=2e-6)


def chords(distances, directions, radius, centre):
    """Lengths of the lines at ``distances`` in ``directions`` (radians) within a disc."""
    away = distances - (centre[0] * np.cos(directions) - centre[1] * np.sin(directions))
    return 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))


def chords_of(operator, radius, centre):
    """Analytic sinogram of a disc for the geometry of an operator, (1, 1, detectors, views)."""
    place = (np.arange(operator.range[1]) - (operator.range[1] - 1) / 2)[:, None] * operator.pitch
    place = place - operator.axis_offset
    if isinstance(operator, FanBeam):
        angle = place / operator.detector_distance
        angle = np.arctan(angle) if operator.shape == "flat" else angle
        values = chords(operator.source_distance * np.sin(angle), operator.angles + angle, radius, centre)
    else:
        values = chords(place, operator.angles, radius, centre)
    return torch.from_numpy(values)[None, None]


PIXEL, RADIUS, CENTRE = 0.8, 11.0, (5.0, -7.0)
GEOMETRIES = {
    "parallel": lambda angles, **more: ParallelBeam(64, angles, pixel=PIXEL, **more),
    "flat": lambda angles, **more: FanBeam(64, angles, pixel=PIXEL, source_distance=100, detector_distance=170, **more),
    "arc": lambda angles, **more: FanBeam(64, angles, pixel=PIXEL, source_distance=100, shape="arc", **more),
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("axis_offset", [0.0, 2.5])
def test_a_discs_sinogram_is_its_chord_lengths(geometry, axis_offset):
    operator = GEOMETRIES[geometry](np.linspace(0, 360, 31), axis_offset=axis_offset)
    got, expected = operator(disc(64, RADIUS, CENTRE, PIXEL)), chords_of(operator, RADIUS, CENTRE)
    assert (got - expected).abs().mean() < 0.012 * expected.mean()
    # The total of a parallel view is the disc's area, whatever the angle.
    if geometry == "parallel":
        areas = got.sum((0, 1, 2)) * operator.pitch
        assert areas.numpy() == pytest.approx(np.pi * RADIUS**2, rel=3e-3)


@pytest.mark.parametrize(
    ("geometry", "angles"),
    [
        ("parallel", np.arange(0, 180, 1)),
        ("parallel", np.arange(0, 360, 1)),
        ("parallel", np.concatenate([np.arange(0, 90, 0.5), np.arange(90, 180, 1.5)])),
        ("flat", np.arange(0, 360, 1)),
        ("flat", np.arange(40, 40 + 225, 1)),
        ("flat", np.arange(-30, 270, 1)),
        ("arc", np.arange(0, 360, 1)),
        ("arc", np.arange(0, 226, 1)),
    ],
)
def test_filtered_back_projection_of_a_disc(geometry, angles):
    operator = GEOMETRIES[geometry](angles, axis_offset=1.7)
    image = operator.fbp(chords_of(operator, RADIUS, CENTRE))[0, 0]
    inside = disc(64, RADIUS - 3, CENTRE, PIXEL)[0, 0] == 1
    outside = (disc(64, RADIUS + 3, CENTRE, PIXEL)[0, 0] == 0) & (disc(64, 25, pixel=PIXEL)[0, 0] == 1)
    assert image[inside].mean().item() == pytest.approx(1, abs=2e-3)
    assert image[inside].std() < 5e-3
    assert abs(image[outside].mean()) < 2e-3
    assert image[outside].std() < 3e-2


def test_too_short_a_scan_is_said_and_reconstructed():
    operator = GEOMETRIES["flat"](np.arange(0, 185, 1))
    with pytest.warns(UserWarning, match="views span 184 degrees"):
        image = operator.fbp(chords_of(operator, RADIUS, CENTRE))[0, 0]
    inside = disc(64, RADIUS - 3, CENTRE, PIXEL)[0, 0] == 1
    assert image[inside].mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("span", [180, 224, 250, 300, 360])
def test_weights_of_one_line_add_up_to_one(span):
    """The ray (beta, gamma) and its return (beta + pi + 2 gamma, -gamma), where both were measured."""
    step = 0.5
    angles, fan = np.deg2rad(np.arange(0, span, step)), np.deg2rad(np.arange(-44, 45) * step / 2)
    if span < 180 + 44:
        with pytest.warns(UserWarning, match="not measured"):
            weights = redundancy(angles, fan)
    else:
        weights = redundancy(angles, fan)
    for detector in range(len(fan)):
        gamma = detector - len(fan) // 2
        for view in range(0, len(angles), 7):
            back = (view + 360 + gamma) % 720
            if back < len(angles):
                assert weights[detector, view] + weights[-1 - detector, back] == pytest.approx(1)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("name", ["ramp", "shepp-logan", "cosine", "hamming", "hann", None])
def test_filtered_back_projection_is_scikit_images(size, name):
    image = disc(size, 9, (2, 3))[0, 0].numpy()
    angles = np.arange(0, 180, 7.5)
    sinogram = skimage.transform.radon(image, angles, circle=False)
    expected = skimage.transform.iradon(sinogram, angles, filter_name=name, circle=False)
    operator = ParallelBeam(size, angles, convention="skimage")
    assert operator.range[1] == len(sinogram)
    got = operator.fbp(torch.from_numpy(sinogram)[None, None], name)[0, 0].numpy()
    # Unfiltered, scikit-image leaves out the factor 2 between its filters and a ramp. Its Hann and Hamming windows are
    # symmetric ones of even length, one sample in 64 off the frequencies.
    got = got / (1 if name else 2)
    tolerance = 2e-2 if name in ("hamming", "hann") else 1e-9
    # Beyond the last detector, where the corners fall, ours fades to zero and scikit-image's drops.
    inside = disc(size, size * 0.68)[0, 0].numpy() == 1
    assert abs(got - expected)[inside].max() < tolerance * abs(expected).max()
    measured = operator(torch.from_numpy(image)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(measured, sinogram, atol=1e-9)


def test_angular_weights():
    equal = angular_weights(np.deg2rad(np.arange(0, 180, 20)), np.pi)
    np.testing.assert_allclose(equal, np.pi / 9)
    # 0 and 180 are the same line; a full turn meets every line twice.
    np.testing.assert_allclose(
        angular_weights(np.deg2rad([0, 45, 90, 135, 180]), np.pi), np.pi / 8 * np.array([1, 2, 2, 2, 1])
    )
    np.testing.assert_allclose(angular_weights(np.deg2rad(np.arange(0, 360, 10)), np.pi), np.pi / 36)
    np.testing.assert_allclose(angular_weights(np.deg2rad(np.arange(0, 360, 8)), np.pi), np.pi / 45)
    # A missing wedge belongs to nobody; order does not matter; one view stands for everything.
    np.testing.assert_allclose(angular_weights(np.deg2rad(np.arange(90)), np.pi), np.pi / 180)
    mixed = np.deg2rad([100, 0, 30, 170, 60])
    np.testing.assert_allclose(angular_weights(mixed, np.pi), np.deg2rad([55, 20, 30, 40, 35]))
    assert angular_weights(np.array([0.3]), np.pi) == pytest.approx([np.pi])


def test_a_far_source_is_a_parallel_beam():
    angles = np.arange(0, 180, 20)
    parallel = ParallelBeam(24, angles)
    fan = FanBeam(24, angles, source_distance=1e7, detectors=parallel.range[1])
    x = torch.rand(2, 1, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(fan(x), parallel(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("shape", ["flat", "arc"])
@pytest.mark.parametrize("size", [16, (15, 18)])
@pytest.mark.parametrize("batch", [1, 3])
def test_fan_beam_adjoint(size, shape, projector, batch):
    operator = FanBeam(
        size, [0, 40, 200, 311], source_distance=40, detector_distance=70, pitch=3.1, shape=shape, projector=projector
    )
    assert operator.adjoint_error(batch=batch, dtype=torch.float32) < 1e-6
    assert operator.adjoint_error(batch=batch, dtype=torch.float64) < 1e-12


@pytest.mark.parametrize("operator", [ParallelBeam(9, [0, 30, 77]), FanBeam(8, [0, 30, 200], source_distance=20)])
def test_norm_is_the_largest_singular_value(operator):
    size = operator.size[0] * operator.size[1]
    matrix = operator(torch.eye(size, dtype=torch.float64).reshape(size, *operator.domain)).reshape(size, -1)
    assert operator.norm() == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)


def test_a_wide_detector_averages_its_rays():
    angles = [0, 20, 90, 140]
    wide = ParallelBeam(16, angles, detectors=8, pitch=3)
    fine = ParallelBeam(16, angles, detectors=24)
    x = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(wide(x), fine(x).unflatten(2, (8, 3)).mean(3))


def test_axis_offset_shifts_the_sinogram():
    angles = [0, 20, 90, 140]
    straight = ParallelBeam(16, angles, detectors=40, pitch=0.5)
    shifted = ParallelBeam(16, angles, detectors=40, pitch=0.5, axis_offset=1.5)
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(shifted(x)[:, :, 3:], straight(x)[:, :, :-3])


@pytest.mark.parametrize(
    "settings", [{}, {"pixel": 0.4}, {"pixel": 2.0, "pitch": 3.0}, {"pitch": 0.5}, {"pitch": 4.0, "detectors": 12}]
)
def test_the_weight_that_carries_published_lambda_over(settings):
    """weight * A^T A is as large as DiffusionMBIR's A^T A, whatever the units and the number of views."""
    ones = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    ones[..., 12:20, 12:20] = 1
    for views in (8, 30):
        angles = np.linspace(0, 180, views, endpoint=False)
        operator, official = ParallelBeam(32, angles, **settings), OfficialParallelBeam(32, angles)
        ours = operator.mbir_weight * operator.normal(ones)[..., 14:18, 14:18].mean()
        assert official.mbir_weight == 1
        theirs = official.normal(ones)[..., 14:18, 14:18].mean()
        assert ours.item() == pytest.approx(theirs.item(), rel=0.05 if settings.get("pitch") != 4.0 else 0.2)


def test_memory_of_the_matrix_is_estimated_from_above_and_limited():
    for size, angles, more in [(33, np.arange(0, 180, 5), {}), (20, [45.0], {}), (32, [10, 20], {"pitch": 4.0})]:
        operator = ParallelBeam(size, angles, **more)
        for dtype in (torch.float32, torch.float64):
            x = torch.zeros(1, *operator.domain, dtype=dtype)
            assert operator.route(x) == "matrix"
            actual = operator._pair(x).nbytes
            assert actual <= operator.matrix_bytes(dtype) < 2 * actual
    either = ParallelBeam(32, [0, 30], memory_limit=ParallelBeam(32, [0, 30]).matrix_bytes(torch.float64))
    for dtype in (torch.float32, torch.float64, torch.float32):
        either(torch.zeros(1, 1, 32, 32, dtype=dtype))
        assert list(either._pairs) == [dtype]
    angles = np.arange(0, 180, 9)
    small = ParallelBeam(32, angles, memory_limit=1000)
    x, whole = torch.rand(9, 1, 32, 32, dtype=torch.float64), ParallelBeam(32, angles)
    with pytest.warns(UserWarning, match="more than memory_limit"):
        assert small.route(x) == "views"
    assert small.route(x[:2]) == "grid"
    y = whole(x)
    for count in (2, 9):
        torch.testing.assert_close(small(x[:count]), y[:count])
        torch.testing.assert_close(small.adjoint(y[:count]), whole.adjoint(y[:count]))
    with pytest.raises(InputError, match="Raise memory_limit"):
        ParallelBeam(32, [0, 30], memory_limit=1000, projector="matrix")


@pytest.mark.parametrize("projector", PROJECTORS)
def test_results_do_not_depend_on_the_batch(projector):
    operator = ParallelBeam(16, np.arange(0, 180, 30), projector=projector)
    x = torch.rand(70, *operator.domain)
    y = operator(x)
    parts = torch.cat([operator(x[begin : begin + 9]) for begin in range(0, 70, 9)])
    torch.testing.assert_close(parts, y, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(operator.adjoint(y)[3:4], operator.adjoint(y[3:4]), atol=1e-5, rtol=1e-5)
    assert operator(x[:0]).shape == (0, *operator.range)
    assert operator.adjoint(y[:0]).shape == (0, *operator.domain)


def test_without_mkl_scipy_multiplies(monkeypatch):
    angles = np.arange(0, 180, 30)
    expected = ParallelBeam(16, angles)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    operator = ParallelBeam(16, angles)
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(40, *operator.domain, dtype=dtype)
        y = operator(x)
        assert not isinstance(operator._pair(x)._rows._matrix, torch.Tensor)
        torch.testing.assert_close(y, expected(x))
        torch.testing.assert_close(operator.adjoint(y), expected.adjoint(y))


def test_a_strided_volume_is_measured_as_a_copy_of_it():
    volume = torch.rand(16, 5, 16, dtype=torch.float64)
    slices = volume.permute(1, 2, 0)[:, None]
    operator = ParallelBeam(16, [0, 33])
    torch.testing.assert_close(operator(slices), operator(slices.contiguous()))


def test_one_view_is_legal():
    operator = ParallelBeam(16, [30.0])
    y = operator(torch.rand(1, 1, 16, 16))
    assert torch.isfinite(operator.fbp(y)).all()
    official = OfficialParallelBeam(16, [30.0])
    assert torch.isfinite(official.adjoint(official(torch.rand(1, 1, 16, 16)))).all()


def test_wrong_angles():
    with pytest.raises(InputError, match="no view angle"):
        ParallelBeam(16, [])
    with pytest.raises(InputError, match="not finite"):
        ParallelBeam(16, [0, np.nan])
    with pytest.raises(InputError, match="view angles of shape"):
        ParallelBeam(16, [[0, 1]])
    with pytest.raises(InputError, match="view angles of shape"):
        ParallelBeam(16, ["0", "1"])
    with pytest.warns(UserWarning, match="radians"):
        ParallelBeam(16, np.linspace(0, np.pi, 8, endpoint=False))


def test_angles_in_degrees_give_no_warning(recwarn):
    for angles in ([0], [0, 1, 2], np.arange(90), np.linspace(0, 180, 8, endpoint=False), torch.arange(0, 360, 45)):
        ParallelBeam(16, angles)
    assert not recwarn.list


def test_wrong_volumes_sinograms_and_settings():
    operator = ParallelBeam(16, [0, 60, 120])
    with pytest.raises(InputError, match=r"\(B, 1, 16, 16\); got \(3, 16, 16\)"):
        operator(torch.zeros(3, 16, 16))
    with pytest.raises(InputError, match=r"got \(1, 3, 16, 16\)"):
        operator(torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match=r"got \(1, 1, 16, 15\)"):
        operator(torch.zeros(1, 1, 16, 15))
    with pytest.raises(InputError, match="detectors, then views"):
        operator.adjoint(torch.zeros(1, 1, 16, 3))
    with pytest.raises(InputError, match="sinogram has shape"):
        operator.fbp(torch.zeros(1, 1, 16, 3))
    with pytest.raises(InputError, match="int64"):
        operator(torch.zeros(1, 1, 16, 16, dtype=torch.int64))
    broken = torch.zeros(1, *operator.range)
    broken[0, 0, 3, 1] = torch.nan
    with pytest.raises(InputError, match="1 values that are not finite"):
        operator.fbp(broken)
    with pytest.raises(InputError, match="filter named"):
        operator.fbp(torch.zeros(1, *operator.range), "ram-lak")
    for settings, fact in [
        ({"pixel": 0.0}, "pixel size"),
        ({"pixel": np.nan}, "pixel size"),
        ({"pitch": -1.0}, "pitch"),
        ({"detectors": 0}, "0 detectors"),
        ({"rays_per_detector": 0}, "rays per detector"),
        ({"convention": "astra"}, "convention"),
        ({"projector": "cuda"}, "projector"),
    ]:
        with pytest.raises(InputError, match=fact):
            ParallelBeam(16, [0, 60], **settings)
    with pytest.raises(InputError, match="image of size 0"):
        ParallelBeam(0, [0])
    with pytest.raises(InputError, match=r"image of size \(4\.5"):
        ParallelBeam((4.5, 4), [0])
    assert ParallelBeam(np.int64(4), [0]).domain == (1, 4, 4)
    with pytest.raises(InputError, match="square"):
        ParallelBeam((16, 12), [0], convention="official")
    with pytest.raises(InputError, match="within the circle"):
        FanBeam(16, [0], source_distance=10)
    with pytest.raises(InputError, match="flat or arc"):
        FanBeam(16, [0], source_distance=20, shape="round")


def test_weights_and_sinograms_that_do_not_fit():
    parallel, fan = ParallelBeam(8, range(0, 180, 10)), FanBeam(8, range(0, 360, 10), source_distance=30)
    official = OfficialParallelBeam(8, range(0, 180, 10))
    for operator in (parallel, official, fan):
        ones = torch.ones(1, *operator.range)
        for weights in (torch.ones(3), torch.ones(40), torch.ones(1, len(operator.angles))):
            with pytest.raises(InputError, match="weights of shape"):
                operator.fbp(ones, weights=weights)
        for sinogram in (ones + 0j, ones.half()):
            with pytest.raises(InputError, match="float32 or float64"):
                operator.fbp(sinogram)
        assert operator.fbp(ones[:0]).shape == (0, 1, 8, 8)
    for size in ((1, 8, 8), (8, 8.5)):
        with pytest.raises(InputError, match="image of size"):
            ParallelBeam(size, [0.0])


@pytest.mark.parametrize("make", [ParallelBeam, lambda size, angles: FanBeam(size, angles, source_distance=40)])
def test_angles_of_any_turn_are_the_same_view(make):
    angles = np.arange(0.0, 360.0, 10.0)
    image = torch.rand(1, 1, 12, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = make((12, 11), angles)
    sinogram = expected(image)
    for other in (angles - 720, angles + 1080, (angles + 180) % 360 - 180):
        operator = make((12, 11), other)
        torch.testing.assert_close(operator(image), sinogram, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(operator.fbp(sinogram), expected.fbp(sinogram), rtol=1e-9, atol=1e-9)
    backwards = make((12, 11), angles[::-1].copy())
    torch.testing.assert_close(backwards.fbp(sinogram.flip(-1)), expected.fbp(sinogram), rtol=1e-9, atol=1e-9)
