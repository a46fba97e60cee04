"""Policies where everything is known in closed form: plans are Gaussian, and the network is the exact denoiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.envs.environment import Environment, Outcome, make_environment
from priorscope_robotics.episodes_run import run_episodes
from priorscope_robotics.lerobot_normalizer import LeRobotNormalizer
from priorscope_robotics.level_trials import level_from_trials
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.policies.consistency import ConsistencyPolicy, consistency_loss, consistent, student_of
from priorscope_robotics.policies.contraction import largest_singular_value, measure_contraction
from priorscope_robotics.policies.discrete import nearest_values, snap_actions, snap_guess
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.named import make_policy
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.rti import RtiPolicy, WarmStart, shifted
from priorscope_robotics.policies.start_level import levels_down, propose_start
from priorscope_robotics.policies.streaming import StreamingPolicy, chunk_levels, streaming_levels
from priorscope_robotics.spec import Diffusion, DiscreteAction, Observation, PolicySpec

HORIZON, DIM = 8, 2


class GaussianNetwork(nn.Module):
    """The exact noise for plans that are N(mean(observation), variance), each number by itself."""

    def __init__(self, schedule, variance):
        super().__init__()
        abar = torch.from_numpy(schedule.alphas_cumprod.copy())
        self.alpha, self.sigma, self.variance = abar.sqrt(), (1 - abar).sqrt(), variance
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, global_cond):
        mean = global_cond[:, None, -DIM:]
        if t.ndim == 2:
            t = t[..., None]
        # tables: the measurement of the contraction differentiates through this
        alpha, sigma = self.alpha[t.long()].to(x.dtype), self.sigma[t.long()].to(x.dtype)
        if t.ndim == 1:
            alpha, sigma = alpha[:, None, None], sigma[:, None, None]
        return sigma * (x - alpha * mean) / (alpha**2 * self.variance + sigma**2)


def gaussian_model(variance=0.01, **changes):
    """A policy whose plans are the last observation plus noise; nothing is clipped unless asked."""
    changes = {"diffusion": Diffusion(clip=0.0), "n_action_steps": 2, **changes}
    spec = PolicySpec(
        (Observation("obs", (DIM,)),), DIM, horizon=HORIZON, network_settings={"down_dims": [8, 16]}, **changes
    )
    model = PolicyModel(spec)
    model.network = GaussianNetwork(model.schedule(), variance)
    return model.eval()


def seen(*means):
    """An observation of each environment that stays: the mean of its plans."""
    return {"obs": torch.tensor(means)[:, None, None].expand(-1, 2, DIM).contiguous()}


def ddim_ratio(schedule, levels, variance):
    """By how much DDIM shrinks the distance from the mean on its way through the levels to the clean one."""
    ratio = 1.0
    for t, s in zip(levels, [*levels[1:], -1], strict=True):
        (at, st), (a, d) = schedule(t), schedule(s)
        ratio *= (a * at * variance + d * st) / (at**2 * variance + st**2)
    return ratio


def ddpm_variance(schedule, levels, variance, spread):
    """Variance after DDPM's steps through the levels to the clean one, of what has the variance ``spread`` before them.

    It ends below that of the plans: the posterior's noise is right for plans that are known exactly.
    """
    for t, s in zip(levels, [*levels[1:], -1], strict=True):
        (at, st), (a, d) = schedule(t), schedule(s)
        fresh = (d / st) ** 2 * max(st**2 - (at / a) ** 2 * d**2, 0)
        ratio = (a * at * variance + math.sqrt(max(d**2 - fresh, 0)) * st) / (at**2 * variance + st**2)
        spread = ratio**2 * spread + fresh
    return spread


def test_full_runs_draw_from_the_posterior():
    model = gaussian_model(variance=0.04)
    ddpm = math.sqrt(ddpm_variance(model.schedule(), range(99, -1, -1), 0.04, 1.0))
    assert 0.15 < ddpm < 0.2
    ddim = FullPolicy(model, solver="ddim", steps=100)
    for policy, spread in ((FullPolicy(model), ddpm), (ddim, ddim_ratio(model.schedule(), range(99, -1, -1), 0.04))):
        state = policy.start(400)
        out = policy.act(seen(*[0.5] * 400), state, EnvironmentNoise(range(400)))
        plans = out.plan.flatten()
        assert abs(float(plans.mean()) - 0.5) < 0.02
        assert abs(float(plans.std()) / spread - 1) < 0.05
        assert out.actions.shape == (400, 2, DIM)


@pytest.mark.parametrize(("start", "levels"), [("clean", (20, 10, 0)), ("noised", (20, 10, 0)), ("clean", (30, 20, 5))])
def test_deterministic_rti_goes_to_its_fixed_point_at_the_known_rate(start, levels):
    variance, mean = 0.01, 0.5
    model = gaussian_model(variance)
    full = FullPolicy(model, solver="ddim", steps=2)
    policy = RtiPolicy(model, levels, start=start, deterministic=True, shift=0, full=full)
    schedule = model.schedule()
    ratio = ddim_ratio(schedule, levels, variance)
    alpha, sigma = schedule(levels[0])
    state = policy.start(1)
    policy.act(seen(mean), state, EnvironmentNoise([0]))
    state.guess = torch.full((1, HORIZON, DIM), 2.0)
    zero = Noise.recorded([torch.zeros(1, HORIZON, DIM)] * 400)
    expected = 2.0
    for _ in range(6):
        policy.act(seen(mean), state, zero)
        # x_k = guess, or alpha guess; then the distance from alpha mean shrinks by the ratio
        expected = mean + ratio * (expected * (alpha if start == "noised" else 1.0) - alpha * mean)
        torch.testing.assert_close(state.guess, torch.full_like(state.guess, expected), rtol=1e-4, atol=1e-5)
    fixed = mean if start == "noised" else mean * (1 - ratio * alpha) / (1 - ratio)
    for _ in range(150):
        policy.act(seen(mean), state, zero)
    torch.testing.assert_close(state.guess, torch.full_like(state.guess, fixed), rtol=1e-3, atol=1e-4)
    assert sigma > 0


def test_noised_rti_keeps_the_distribution():
    """Plans neither drift from the mean nor collapse: their variance is the fixed point of one run's recursion."""
    variance = 0.01
    model = gaussian_model(variance)
    full = FullPolicy(model, solver="ddim", steps=2)
    policy = RtiPolicy(model, range(25, -1, -1), start="noised", shift=0, full=full)
    state, noise = policy.start(300), EnvironmentNoise(range(300))
    observation = seen(*[0.3] * 300)
    for _ in range(8):
        policy.act(observation, state, noise)
    assert abs(float(state.guess.mean()) - 0.3) < 0.01
    schedule, spread = model.schedule(), variance
    alpha, sigma = schedule(25)
    for _ in range(50):
        spread = ddpm_variance(schedule, range(25, -1, -1), variance, alpha**2 * spread + sigma**2)
    assert spread > 0.4 * variance
    assert abs(float(state.guess.std()) / math.sqrt(spread) - 1) < 0.05


@pytest.mark.parametrize(
    ("variance", "factors"), [(0.01, {3: 0.75, 10: 0.26, 30: 0.04}), (0.1, {3: 0.97, 10: 0.79, 30: 0.30})]
)
def test_measured_contraction_is_the_known_one(variance, factors):
    model = gaussian_model(variance)
    given = model.given(model.features(model.normalized(seen(0.5, -0.5))))
    guess = torch.randn(2, HORIZON, DIM, generator=torch.Generator().manual_seed(1))
    for count, published in factors.items():
        policy = RtiPolicy(model, range(count - 1, -1, -1), full=FullPolicy(model, steps=1, solver="ddim"))
        found = measure_contraction(policy, given, guess, iterations=2)
        abar = model.schedule().alphas_cumprod
        product = 1.0
        for k, factor in zip(found.levels, found.steps, strict=True):
            k = int(k)
            alpha_k = abar[k] / (abar[k - 1] if k else 1.0)
            expected = (1 - (1 - alpha_k) / (abar[k] * variance + 1 - abar[k])) / math.sqrt(alpha_k)
            torch.testing.assert_close(factor, torch.full((2,), expected).float(), rtol=2e-3, atol=1e-4)
            product *= expected
        torch.testing.assert_close(found.whole, torch.full((2,), product).float(), rtol=1e-2, atol=1e-3)
        assert abs(product - published) < 0.01
    narrow = RtiPolicy(model, (10, 5, 0), deterministic=True, full=FullPolicy(model, steps=1, solver="ddim"))
    found = measure_contraction(narrow, given, guess, iterations=2)
    expected = ddim_ratio(model.schedule(), (10, 5, 0), variance)
    torch.testing.assert_close(found.whole, torch.full((2,), expected), rtol=1e-3, atol=1e-4)


def test_singular_values_of_a_matrix():
    matrix = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = largest_singular_value(lambda x: torch.einsum("bij,bj->bi", matrix, x), torch.zeros(3, 6), 60)
    torch.testing.assert_close(found, torch.linalg.matrix_norm(matrix, 2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_contraction_of_a_network_is_that_of_its_jacobian(network):
    settings = {"down_dims": [8, 16], "diffusion_step_embed_dim": 8}
    if network == "transformer":
        settings = {"n_layer": 1, "n_head": 2, "n_emb": 8, "causal_attn": True}
    conditioning = "inpaint" if network == "unet" else "memory"
    spec = PolicySpec(
        (Observation("obs", (1,)),), 1, 4, 2, 2, conditioning=conditioning, network=network, network_settings=settings
    )
    torch.manual_seed(0)
    model = PolicyModel(spec).eval()
    given = model.given(torch.randn(1, 2, 1))
    policy = RtiPolicy(model, [5])
    guess = 0.1 * torch.randn(1, 4, spec.trajectory_dim)
    found = measure_contraction(policy, given, guess, iterations=40)

    def run(x):
        return policy.refine(given, x, Noise.recorded([torch.zeros_like(x)] * 2))

    # finite differences, in float64
    model.double()
    seen_by = given.condition["cond"] if given.values is None else given.values[:, :2, 1:]
    given = model.given(seen_by.double())
    x, step = guess.double(), 1e-5
    columns = []
    for place in range(x.numel()):
        move = torch.zeros_like(x).flatten()
        move[place] = step
        columns.append((run(x + move.view_as(x)) - run(x - move.view_as(x))).flatten() / (2 * step))
    jacobian = torch.stack(columns, 1)
    torch.testing.assert_close(found.whole.double()[0], torch.linalg.matrix_norm(jacobian, 2), rtol=1e-2, atol=1e-4)


# ---- states -----------------------------------------------------------------------------------------------------


def test_one_environment_begins_anew_and_the_others_do_not_notice():
    model = gaussian_model()
    policy = RtiPolicy(model, [3, 1, 0])

    def run(reset):
        state, noise = policy.start(3), EnvironmentNoise([1, 2, 3])
        policy.act(seen(0.1, 0.2, 0.3), state, noise)
        if reset:
            state.reset(torch.tensor([False, True, False]))
        return policy.act(seen(0.1, 0.2, 0.3), state, noise)

    with_reset, without = run(True), run(False)
    assert with_reset.calls == [3, 100, 3]
    assert without.calls == [3, 3, 3]
    for place in (0, 2):
        torch.testing.assert_close(with_reset.plan[place], without.plan[place])
    assert not torch.allclose(with_reset.plan[1], without.plan[1], atol=1e-3)


def test_environments_do_not_depend_on_their_neighbours():
    model = gaussian_model()
    policy = RtiPolicy(model, [3, 1, 0])
    together, alone = policy.start(2), policy.start(1)
    noise, own = EnvironmentNoise([1, 2]), EnvironmentNoise([2])
    for _ in range(3):
        both = policy.act(seen(0.1, 0.7), together, noise).plan
        one = policy.act(seen(0.7), alone, own).plan
        torch.testing.assert_close(both[1:], one)


def test_plans_move_by_what_was_executed():
    plan = torch.arange(8.0).reshape(1, 8, 1)
    assert shifted(plan, 3).flatten().tolist() == [3, 4, 5, 6, 7, 7, 7, 7]
    assert torch.equal(shifted(plan, 0), plan)
    assert shifted(plan, 20).flatten().tolist() == [7] * 8
    model = gaussian_model()
    assert RtiPolicy(model).shift == 2
    assert RtiPolicy(model, n_action_steps=1).shift == 1


def test_a_jump_of_the_observation_asks_for_a_full_plan():
    model = gaussian_model(largest_moves=(0.1, 0.2))
    policy = RtiPolicy(model, [1, 0])
    assert policy.jump == pytest.approx(0.3)  # 1.5 times the farthest move in the two steps that are executed
    assert RtiPolicy(model, [1, 0], n_action_steps=1).jump == pytest.approx(0.15)
    # in more steps than the model knows about it moves farther, and that is no jump: 1.5 (0.2 + 0.1)
    assert RtiPolicy(model, [1, 0], n_action_steps=3).jump == pytest.approx(0.45)
    state, noise = policy.start(2), EnvironmentNoise([0, 1])
    policy.act(seen(0.0, 0.0), state, noise)
    assert policy.act(seen(0.2, 0.5), state, noise).calls == [2, 100]
    assert RtiPolicy(model, [1, 0], jump=0.0).jump == 0
    assert RtiPolicy(gaussian_model(), [1, 0]).jump == 0


def test_nan_resets_that_environment_and_names_the_key():
    model = gaussian_model()
    policy = RtiPolicy(model, [1, 0])
    state, noise = policy.start(2), EnvironmentNoise([0, 1])
    policy.act(seen(0.1, 0.2), state, noise)
    before = state.guess.clone()
    with pytest.raises(InputError, match=r"'obs' is not finite \(environments \[1\]\)"):
        policy.act(seen(0.1, float("nan")), state, noise)
    assert torch.equal(state.guess, before)
    assert policy.act(seen(0.1, 0.2), state, noise).calls == [2, 100]


def test_states_of_another_size_or_kind_are_refused():
    model = gaussian_model()
    policy = RtiPolicy(model, [1, 0])
    with pytest.raises(InputError, match="observations of 2 environments for a state of 3"):
        policy.act(seen(0.0, 0.0), policy.start(3), EnvironmentNoise([0, 1, 2]))
    with pytest.raises(InputError, match="needs the state"):
        policy.act(seen(0.0), FullPolicy(model).start(1), EnvironmentNoise([0]))
    with pytest.raises(InputError, match="mask"):
        WarmStart(2).reset(torch.tensor([True]))
    state = policy.start(2)
    policy.act(seen(0.0, 0.0), state, Noise.shared(0))
    state.reset(torch.tensor([True, False]))
    with pytest.raises(InputError, match="cannot be divided"):
        policy.act(seen(0.0, 0.0), state, Noise.shared(0))


@pytest.mark.parametrize("levels", [(), (0, 1), (100,), (5, 5), (3, -1)])
def test_levels_that_make_no_sense(levels):
    with pytest.raises(InputError, match="falling steps from at most 99"):
        RtiPolicy(gaussian_model(), levels)


def test_consistent_jumps_land_where_the_next_level_is():
    """With gaps the official steps leave the sample at t - 1; consistent ones carry it to the next level listed."""
    variance = 0.01
    model = gaussian_model(variance)
    given = model.given(model.features(model.normalized(seen(0.5))))
    guess = torch.full((1, HORIZON, DIM), 1.5)
    zeros = [torch.zeros_like(guess)] * 3
    found = {}
    for jumps in ("consistent", "official"):
        policy = RtiPolicy(model, (30, 15, 0), jumps=jumps)
        found[jumps] = float(policy.refine(given, guess, Noise.recorded(zeros)).mean())
    schedule = model.schedule()
    distance = 1.5 - schedule(30)[0] * 0.5
    for t, s in ((30, 15), (15, 0), (0, -1)):
        (at, st), (a, d) = schedule(t), schedule(s)
        std = d / st * math.sqrt(st**2 - (at / a) ** 2 * d**2) if d else 0.0
        distance *= (a * at * variance + math.sqrt(max(d**2 - std**2, 0)) * st) / (at**2 * variance + st**2)
    assert found["consistent"] == pytest.approx(0.5 + distance, abs=1e-4)
    assert abs(found["official"] - found["consistent"]) > 0.1


# ---- discrete dimensions ----------------------------------------------------------------------------------------


def test_nearest_value():
    x = torch.tensor([-3.0, -0.01, 0.0, 0.01, 2.0])
    assert nearest_values(x, (1.0, -1.0)).tolist() == [-1, -1, -1, 1, 1]
    assert nearest_values(torch.tensor([0.2, 0.6, 1.4, 9.0]), (0.0, 1.0, 3.0)).tolist() == [0, 1, 1, 3]


def test_gripper_goes_out_as_a_value_and_comes_back_scaled():
    actions = torch.tensor([[0.5, 0.03], [0.5, -0.2]])
    scaled = (DiscreteAction(-1, scale=10.0),)
    assert torch.equal(snap_actions(actions, scaled), torch.tensor([[0.5, 1.0], [0.5, -1.0]]))
    model = gaussian_model()
    trajectory = actions[None]
    assert torch.equal(snap_guess(model, trajectory, scaled), trajectory)  # scale mode leaves the guess alone
    clipped = snap_guess(model, trajectory, (DiscreteAction(-1, guess_scale=10.0),))
    torch.testing.assert_close(clipped, torch.tensor([[[0.5, 0.1], [0.5, -0.1]]]))


def test_the_guess_is_a_copy_where_a_normaliser_changes_nothing():
    model = gaussian_model()
    model.normalizer = LeRobotNormalizer({"action": "IDENTITY"}, {})
    trajectory = torch.full((1, HORIZON, DIM), 0.8)
    guess = snap_guess(model, trajectory, (DiscreteAction(-1, (0.0, 1.0), guess_scale=10.0),))
    torch.testing.assert_close(guess[0, 0], torch.tensor([0.8, 0.1]))
    assert bool((trajectory == 0.8).all())  # this plan goes out


def test_discrete_index_counts_in_the_action_where_observations_are_inpainted():
    spec = PolicySpec(
        (Observation("obs", (3,)),), 2, 8, 2, 2, conditioning="inpaint", network_settings={"down_dims": [8, 16]}
    )
    trajectory = torch.full((1, 8, 5), 0.3)
    found = snap_guess(PolicyModel(spec), trajectory, (DiscreteAction(-1, guess_scale=2.0),))
    assert found[0, 0].tolist() == pytest.approx([0.3, 0.5, 0.3, 0.3, 0.3])


# ---- where to start ---------------------------------------------------------------------------------------------


def test_start_level_hides_the_error():
    schedule = gaussian_model().schedule()
    generator = torch.Generator().manual_seed(0)
    base = torch.zeros(30, 4, HORIZON, DIM)
    for level in (3, 20):
        alpha, sigma = schedule(level)
        # two independent errors of variance e^2 / 2 differ by e
        plans = base + sigma / alpha * math.sqrt(0.5) * torch.randn(base.shape, generator=generator)
        found = propose_start(plans, schedule)
        assert abs(found.level - level) <= 1
        assert found.error == pytest.approx(sigma / alpha, rel=0.1)
    with pytest.raises(InputError, match="two control steps"):
        propose_start(base[:1], schedule)


class Still(Environment):
    """Nothing moves, whatever is done; ends after ``max_steps``, or is broken from the start."""

    name, fps, action_dim, names = "still", 1.0, DIM, ("obs",)
    low, high = np.full(DIM, -1e9, np.float32), np.full(DIM, 1e9, np.float32)

    def __init__(self, max_steps=100, value=0.05):
        self.max_steps, self.value = max_steps, value

    def reset(self, seed):
        self.left = self.max_steps
        return {"obs": np.full(DIM, self.value, np.float32)}

    def advance(self, action):
        self.left -= 1
        return Outcome({"obs": np.full(DIM, self.value, np.float32)}, 0.0, False, self.left == 0)


def test_trials_see_discrete_dimensions_as_the_network_does():
    """Divided by their scale, not as the values that are executed, which differ by 1 where plans differ by 0.1."""
    plain = gaussian_model(variance=0.0004)
    scaled = gaussian_model(variance=0.0004, discrete=(DiscreteAction(-1, (0.0, 1.0), scale=10.0),))
    levels = [level_from_trials(model, [Still(), Still()], 2)() for model in (plain, scaled)]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("environment", [Still(max_steps=2), Still(value=float("nan"))])
def test_trials_that_show_no_two_plans_are_refused(environment):
    with pytest.raises(InputError, match="rti:auto needs an episode of two plans or more in still"):
        level_from_trials(gaussian_model(), [environment], 2)()


def test_levels_down():
    assert levels_down(15, 4) == [15, 10, 5, 0]
    assert levels_down(1, 3) == [1, 0]
    assert levels_down(7, 1) == [7]


# ---- streaming --------------------------------------------------------------------------------------------------


def test_levels_of_a_buffer():
    assert chunk_levels(9, 1, 2, 100).tolist() == [-1, 24, 24, 49, 49, 74, 74, 99, 99]
    assert chunk_levels(8, 1, 2, 99).tolist() == [-1, 32, 32, 65, 65, 98, 98, 98]
    levels = streaming_levels(64, 9, 1, 2, 100, torch.Generator().manual_seed(0))
    assert levels.shape == (64, 9)
    assert int(levels.min()) >= 0
    assert bool((levels[1::2] == levels[1::2, :1]).all())
    assert bool((levels[::2, 7] - levels[::2, 5] == 25).all())


@pytest.mark.parametrize(("first", "steps", "chunks"), [(0, 40, 4), (1, 30, 3)])
def test_streaming_draws_from_the_posterior_with_a_part_of_the_calls(first, steps, chunks):
    """Also where the plan's last step is left over behind the chunks."""
    variance = 0.04
    model = gaussian_model(variance, diffusion=Diffusion(steps=steps, clip=0.0), first_action=first)
    policy = StreamingPolicy(model)
    assert policy.chunks == chunks
    state, noise = policy.start(300), EnvironmentNoise(range(300))
    observation = seen(*[0.4] * 300)
    calls = []
    spread = math.sqrt(ddpm_variance(model.schedule(), range(steps - 1, -1, -1), variance, 1.0))
    for _ in range(6):
        out = policy.act(observation, state, noise)
        calls.append(out.calls[0])
        assert abs(float(out.actions.mean()) - 0.4) < 0.03
        assert abs(float(out.actions.std()) / spread - 1) < 0.05
    assert calls == [steps + 10, 10, 10, 10, 10, 10]
    state.reset([True] + [False] * 299)
    assert policy.act(observation, state, noise).calls[:2] == [steps + 10, 10]


# ---- one-step student -------------------------------------------------------------------------------------------


class ExactStudent(nn.Module):
    """The network whose consistency function is where the teacher's DDIM path ends, for Gaussian plans."""

    def __init__(self, schedule, variance, spread=0.5):
        super().__init__()
        self.schedule, self.variance, self.spread = schedule, variance, spread
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, global_cond):
        rows = []
        for item, level in zip(x, t.tolist(), strict=True):
            mean = global_cond[0, -DIM:]
            alpha, sigma = self.schedule(level)
            ratio = ddim_ratio(self.schedule, range(int(level), -1, -1), self.variance)
            end = mean + ratio * (item - alpha * mean)
            skip = self.spread**2 * alpha / (sigma**2 + self.spread**2 * alpha**2)
            out = sigma * self.spread / math.sqrt(sigma**2 + self.spread**2 * alpha**2)
            rows.append((end - skip * item) / out)
        return torch.stack(rows)


def test_exact_student_has_no_loss_and_draws_from_the_posterior():
    variance = 0.04
    teacher = gaussian_model(variance)
    student = gaussian_model(variance)
    student.network = ExactStudent(teacher.schedule(), variance)
    given = teacher.given(teacher.features(teacher.normalized(seen(*[0.5] * 6))))
    x0 = 0.5 + 0.2 * torch.randn(6, HORIZON, DIM)
    eps, t = torch.randn_like(x0), torch.tensor([0, 1, 5, 30, 60, 99])
    exact = consistency_loss(student, student, teacher, given, x0, eps, t)
    assert float(exact) < 1e-7
    wrong = consistency_loss(teacher, teacher, teacher, given, x0, eps, t)
    assert float(wrong) > 5e-5
    policy = ConsistencyPolicy(student)
    out = policy.act(seen(*[0.5] * 300), policy.start(300), EnvironmentNoise(range(300)))
    assert out.calls == [1] * 300
    assert abs(float(out.plan.mean()) - 0.5) < 0.02
    assert abs(float(out.plan.std()) / 0.2 - 1) < 0.06


def test_student_at_the_clean_level_is_the_plan_itself():
    settings = {"down_dims": [8, 16]}
    spec = PolicySpec((Observation("obs", (3,)),), 2, 8, n_action_steps=2, network_settings=settings)
    model = student_of(PolicyModel(spec))
    x = 0.5 * torch.randn(2, 8, 2).clamp(-1, 1)
    given = model.given(torch.zeros(2, 2, 3))
    torch.testing.assert_close(consistent(model, given, x, torch.tensor([-1, -1])), x)
    loss = consistency_loss(model, model, model, given, x, torch.randn_like(x), torch.tensor([50, 3]))
    loss.backward()
    assert model.network.final_conv[-1].weight.grad.abs().sum() > 0


def test_the_bundled_policy_pushes_the_block_home_with_three_calls_a_step():
    model = load_policy("tiny-pusht")
    policy = make_policy(model, "rti:20,10,0:do=1")
    environments = [make_environment("pusht", ["obs"]) for _ in range(3)]
    results = list(run_episodes(environments, policy, range(100_000, 100_003), noise_seed=0))
    assert sum(result.success for result in results) >= 2
    for result in results:  # the first plan in full; then three calls a step, but for jumps
        assert result.calls <= 3 * result.steps + 300
