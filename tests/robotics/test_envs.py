"""Environments against recorded physics, and experts that reach their goals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_robotics.envs.environment import make_environment
from priorscope_robotics.envs.metaworld_env import MetaworldEnvironment, MetaworldExpert
from priorscope_robotics.envs.pusht import TEST_SEEDS, TRAIN_SEEDS, PushT, legacy_state
from priorscope_robotics.envs.pusht_planner import PushTPlanner, _advance, _clearance, _restore, _snapshot, _Ways


def unturned(state):
    """Without whole turns of the block."""
    return [*state[:4], np.cos(state[4]), np.sin(state[4])]


def test_golden_pusht(golden_cases):
    import pymunk

    for _, meta, tensors in golden_cases("pusht_env"):
        values = {key: value.numpy() for key, value in tensors.items()}
        assert values["seeds"].tolist() == [*TRAIN_SEEDS, *TEST_SEEDS]
        env = PushT(["state", "observation.environment_state"])
        for row, seed in enumerate(values["seeds"].tolist()):
            np.testing.assert_allclose(legacy_state(seed), values["legacy_init_state"][row], rtol=0, atol=1e-12)
            env.reset(seed)
            np.testing.assert_allclose(unturned(env.state()), unturned(values["reset_state"][row]), atol=1e-6)
            np.testing.assert_allclose(env.keypoints()[:8], values["reset_keypoints8"][row], atol=1e-6)
            np.testing.assert_allclose(env.coverage(), values["reset_coverage"][row], atol=1e-9)
        native = PushT(["state"], legacy=False)
        for seed in range(6):
            native.reset(seed)
            expected = values["native018_reset_state_seed0_5"][seed]
            np.testing.assert_allclose(unturned(native.state()), unturned(expected), atol=1e-6)
        body = env.physics.block
        for row, pose in enumerate(values["cov.block_pose"]):
            body.angle = float(pose[2])
            body.position = pose[:2].tolist()
            coverage = env.coverage()
            np.testing.assert_allclose(coverage, values["cov.coverage"][row], atol=meta["tol"]["coverage"])
            np.testing.assert_allclose(min(coverage / 0.95, 1), values["cov.reward"][row], atol=1e-9)
            assert (coverage > 0.95) == values["cov.success"][row]
        same = pymunk.version == meta["pymunk"]
        for name in ("roll0", "roll1", "roll2"):
            env.set_state(values[f"{name}.init"])
            for step, action in enumerate(values[f"{name}.actions"] if same else values[f"{name}.actions"][:10]):
                # float64 actions, as recorded: contacts are chaotic
                env.physics.step(action)
                agent, block = env.physics.agent, env.physics.block
                found = [*agent.position, *block.position, block.angle, *agent.velocity]
                np.testing.assert_allclose(found, values[f"{name}.state_after"][step], atol=1e-6)


def test_pusht_gives_what_is_asked():
    env = PushT(["image", "obs", "observation.state"])
    seen = env.reset(100_000)
    assert {name: value.shape for name, value in seen.items()} == {
        **{"image": (3, 96, 96), "obs": (20,), "observation.state": (2,)}
    }
    assert seen["image"].dtype == np.uint8
    np.testing.assert_array_equal(seen["obs"][-2:], seen["observation.state"])
    assert env.picture().shape == (384, 384, 3)
    out = env.step(seen["observation.state"])
    assert set(out.measures) == {"coverage"}
    assert not out.done
    with pytest.raises(InputError, match="an action of 3 numbers for pusht, which takes 2"):
        env.step(np.zeros(3))
    with pytest.raises(InputError, match="not finite"):
        env.step(np.array([0, np.nan]))
    short = PushT(["state"], max_steps=1)
    short.reset(0)
    assert short.step(np.zeros(2)).done


def test_planner_simulates_what_happens():
    """The planner's copy of the physics goes where the environment goes, contacts included."""
    env, copy = PushT(["state"]), PushT(["state"])
    env.reset(100_003)
    copy.reset(0)
    _restore(copy.physics, _snapshot(env.physics))
    for action in np.linspace(env.state()[:2], env.state()[2:4], 8):
        env.step(action)
        _advance(copy.physics, action.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(copy.state(), env.state(), atol=1e-3)


def test_clearance_is_the_distance_to_the_block():
    env = PushT(["state"])
    env.set_state([30, 30, 250, 260, 0.7])
    block, angle = np.array(env.physics.block.position), env.physics.block.angle
    points = np.random.default_rng(0).uniform(100, 400, (200, 2))
    found = _clearance(points, block, angle)
    shapes = env.physics._block_shapes
    for point, distance in zip(points, found, strict=True):
        expected = min(shape.point_query(tuple(point)).distance for shape in shapes)
        assert distance == pytest.approx(expected, abs=1e-3) or (distance < 0 and expected < 0)


def test_planner_chooses_by_the_state_alone():
    env = PushT(["state"])
    env.set_state([120, 100, 320, 200, 2.0])
    first = [PushTPlanner(seed=seed).act(env) for seed in (0, 1)]
    assert np.array_equal(first[0], first[1])


def test_ways_lead_around_the_block():
    block, angle = np.array([256.0, 200.0]), 0.0
    begin, end = np.array([256.0, 150.0]), np.array([256.0, 360.0])
    way = _Ways(block, angle, begin).to(end)
    assert np.array_equal(way[0], begin)
    assert np.array_equal(way[-1], end)
    between = np.concatenate([np.linspace(a, b, 5) for a, b in itertools.pairwise(way)])
    assert _clearance(between, block, angle).min() > 15  # the finger's radius
    assert _clearance(np.linspace(begin, end, 50), block, angle).min() < 0


def test_planner_pushes_the_block_home():
    env = PushT(["state"])
    # a little off the goal: an easy start
    env.set_state([230, 120, 236, 230, np.pi / 4 + 0.25])
    planner = PushTPlanner()
    done, steps = False, 0
    while not done:
        out = env.step(planner.act(env))
        done, steps = out.done, steps + 1
    assert out.success
    assert steps < 100


@pytest.mark.slow
def test_planner_solves_published_seeds_also_when_it_is_disturbed():
    random = np.random.default_rng(0)
    for seed in range(100_000, 100_004):
        env, planner = PushT(["state"]), PushTPlanner()
        env.reset(seed)
        done = False
        while not done:
            out = env.step(planner.act(env) + 8 * random.normal(size=2))
            done = out.done
        assert out.success


@pytest.mark.parametrize("task", ["reach", "pick-place-v3"])
def test_metaworld_experts_succeed_and_seeds_repeat(task):
    env = MetaworldEnvironment(task)
    expert = MetaworldExpert(task)
    first = env.reset(3)
    seen, done, steps = first, False, 0
    while not done:
        out = env.step(expert.act(env, seen))
        seen, done, steps = out.seen, out.done, steps + 1
    assert out.success
    assert steps < 150
    again = env.reset(3)
    np.testing.assert_allclose(again["obs"], first["obs"], atol=1e-6)
    assert np.abs(env.reset(4)["obs"] - first["obs"]).max() > 1e-3
    assert env.fps == pytest.approx(80)


def test_any_gymnasium_environment():
    env = make_environment("gym:Pendulum-v1")
    seen = env.reset(1)
    assert seen["obs"].shape == (3,)
    np.testing.assert_array_equal(env.reset(1)["obs"], seen["obs"])
    out = env.step(np.array([9.0]))
    assert out.reward < 0
    assert (env.low[0], env.high[0], env.max_steps) == (-2, 2, 200)
    env = make_environment("gym:MountainCarContinuous-v0")
    assert env.action_dim == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no environment is called"),
        ("gym:Nothing-v0", "gymnasium cannot make"),
        ("gym:CartPole-v1", "takes actions of Discrete"),
        ("metaworld:pick-plac", "Did you mean pick-place"),
    ],
)
def test_unknown_environments(name, message):
    with pytest.raises(InputError, match=message):
        make_environment(name)


def test_observations_that_an_environment_does_not_give():
    with pytest.raises(InputError, match="pusht gives no x"):
        make_environment("pusht", ["x"])
