"""Pose noise, dropped agents and bandwidth; delays are tested where data are read."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth
from priorscope_detection.data.rigid import matrix_pose, pose_matrix
from priorscope_detection.noise import (
    Disturbance,
    bandwidth,
    disturb,
    noisy_pose,
    official_pose_noise,
    pose_offset,
    read_disturbed,
)


def frame(name="a/1", agents=("7", "12", "-1")):
    def agent(number, label):
        pose = pose_matrix([10.0 * number, 5, 2, 1, 30 * number, 2])
        return Agent(label, np.zeros((number + 1, 4), np.float32), pose, pose)

    return Frame(name, tuple(agent(n, a) for n, a in enumerate(agents)), Truth.of({}))


def test_noise_depends_on_seed_frame_and_agent_and_nothing_else():
    how = Disturbance(position=0.4, yaw=0.4)
    whole = disturb(frame(), how, seed=3)
    again = disturb(frame(agents=("7", "-1")), how, seed=3)
    np.testing.assert_array_equal(
        pose_offset(how, seed=3, frame="a/1", agent="-1"), pose_offset(how, seed=3, frame="a/1", agent="-1")
    )
    np.testing.assert_array_equal(whole.agents[0].pose, again.agents[0].pose)
    offsets = {
        key: tuple(pose_offset(how, seed=key[0], frame=key[1], agent=key[2]))
        for key in [(s, f, a) for s in (3, 4) for f in ("a/1", "a/2") for a in ("7", "12")]
    }
    assert len(set(offsets.values())) == 8
    np.testing.assert_array_equal(whole.agents[1].clean_pose, frame().agents[1].clean_pose)


def test_only_x_y_and_yaw_move():
    how = Disturbance(position=0.4, yaw=1.5)
    offset = pose_offset(how, seed=0, frame="a/1", agent="12")
    moved = matrix_pose(disturb(frame(), how, seed=0).agents[1].pose)
    expected = matrix_pose(frame().agents[1].pose) + np.array([offset[0], offset[1], 0, 0, offset[2], 0])
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_strength_scales_one_draw():
    weak, strong = (Disturbance(position=s, yaw=s) for s in (0.2, 0.6))
    a, b = (pose_offset(how, seed=0, frame="x", agent="1") for how in (weak, strong))
    np.testing.assert_allclose(b, 3 * a)
    still = frame().agents[0].pose
    assert noisy_pose(still, Disturbance(), seed=0, frame="x", agent="1") is still


@pytest.mark.parametrize(("distribution", "factor"), [("gaussian", 1.0), ("laplace", np.sqrt(2))])
def test_distributions(distribution, factor):
    how = Disturbance(position=0.4, yaw=0.2, distribution=distribution)
    drawn = np.array([pose_offset(how, seed=1, frame=str(n), agent="2") for n in range(4000)])
    np.testing.assert_allclose(drawn.std(axis=0), np.array([0.4, 0.4, 0.2]) * factor, rtol=0.06)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.035)
    kurtosis = (drawn**4).mean(axis=0) / (drawn**2).mean(axis=0) ** 2
    assert ((kurtosis > 4.5) if distribution == "laplace" else (kurtosis < 3.5)).all()  # 6 and 3


def test_the_ego_may_stay_clean():
    clean = disturb(frame(), Disturbance(position=1, yaw=1, ego=False), seed=0)
    np.testing.assert_array_equal(clean.ego.pose, frame().ego.pose)
    noisy = disturb(frame(), Disturbance(position=1, yaw=1), seed=0)
    assert not np.allclose(noisy.ego.pose, frame().ego.pose)
    np.testing.assert_array_equal(clean.agents[1].pose, noisy.agents[1].pose)


def test_agents_drop_out_by_their_chance():
    how = Disturbance(drop=0.3)
    there = [[a.name for a in disturb(frame(f"a/{n}"), how, seed=0).agents] for n in range(2000)]
    assert all(names[0] == "7" for names in there)
    for label in ("12", "-1"):
        assert np.mean([label in names for names in there]) == pytest.approx(0.7, abs=0.035)
    assert np.mean([len(names) == 3 for names in there]) == pytest.approx(0.49, abs=0.04)
    assert len(disturb(frame(), Disturbance(drop=1.0), seed=0).agents) == 1


def test_reading_with_a_delay():
    class One:
        title, period = "one", 100.0

        def __len__(self):
            return 1

        def name(self, index):
            return "a/1"

        sequence = name

        def read(self, index, *, delay=0.0):
            whole = frame()
            return replace(whole, agents=tuple(replace(a, delay=delay * (n > 0)) for n, a in enumerate(whole.agents)))

    found = read_disturbed(One(), 0, Disturbance(delay=300, position=0.1), seed=5)
    assert [agent.delay for agent in found.agents] == [0, 300, 300]
    assert not np.allclose(found.agents[1].pose, frame().agents[1].pose)


def test_official_draws(golden_files):
    for path in golden_files("robotics_detection", "det_poses.safetensors"):
        case = load_file(path)
        for name, distribution in (("noise303_gauss", "gaussian"), ("noise303_laplace", "laplace")):
            generator = np.random.RandomState(303)
            drawn = official_pose_noise(generator, 20, position=0.4, yaw=0.4, distribution=distribution)
            np.testing.assert_allclose(drawn, case[name], rtol=1e-6, atol=1e-5)
        generator = np.random.RandomState(303)
        drawn = official_pose_noise(generator, 2, position=0.2, yaw=0.2, distribution="gaussian")
        np.testing.assert_allclose(case["pose"][1:3] + drawn, case["noisy_dict_s303_0.2"], rtol=1e-6, atol=1e-5)


def test_bandwidth():
    sent = bandwidth(frame(), feature_shape=(256, 100, 252), compression=32, boxes=[3, 5])
    assert sent.points.tolist() == [32, 48]
    assert sent.boxes.tolist() == [96, 160]
    assert sent.features.tolist() == [8 * 100 * 252 * 4] * 2
    assert sent.pose == 24
    assert bandwidth(frame(), feature_shape=(64, 10, 10), bytes_per_value=2).features.tolist() == [12800] * 2
    assert bandwidth(frame(agents=("7",))).points.tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": -1}, "position of a disturbance is -1"),
        ({"yaw": float("nan")}, "yaw of a disturbance is nan"),
        ({"delay": -100}, "delay"),
        ({"drop": 1.5}, "drop of a disturbance is 1.5"),
        ({"distribution": "cauchy"}, "cannot be 'cauchy'"),
    ],
)
def test_refused(change, message):
    with pytest.raises(InputError, match=message):
        Disturbance(**change)


def test_refused_bandwidth():
    with pytest.raises(InputError, match=r"compressed by 0\.5"):
        bandwidth(frame(), compression=0.5)
    with pytest.raises(InputError, match="64 channels cannot be compressed by 3"):
        bandwidth(frame(), feature_shape=(64, 2, 2), compression=3)
    with pytest.raises(InputError, match="1 numbers of boxes for 2 agents"):
        bandwidth(frame(), boxes=[1])
