"""The commands, on small data and quick environments: what they write, how they resume, what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import read_jsonl
from priorscope.training.settings import LoopConfig
from priorscope_robotics import load_policy
from priorscope_robotics.collect import collect
from priorscope_robotics.configs import CollectConfig, EvaluateConfig, TrainConfig
from priorscope_robotics.data.arrays import write_arrays
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.data.open import open_episodes
from priorscope_robotics.data.pusht_zarr import PushTRecorder
from priorscope_robotics.envs.environment import Environment, Outcome
from priorscope_robotics.episodes_run import run_episodes
from priorscope_robotics.evaluate import evaluate
from priorscope_robotics.paired import paired_difference
from priorscope_robotics.policies.named import discrete_dimensions, make_policy
from priorscope_robotics.train import train

HEAVY = ("torch", "diffusers", "matplotlib", "scipy", "numpy", "gymnasium", "metaworld", "h5py")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["collect", "--help"]])
def test_help_imports_nothing_heavy(words):
    code = f"""
import json, sys
from priorscope.cli import main
try:
    main(["robotics", *{words!r}])
except SystemExit:
    pass
print(json.dumps([name for name in {HEAVY[:-4]!r} if name in sys.modules]), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stderr.splitlines()[-1])
    assert "torch" not in found
    assert "robotics" in done.stdout


def write_data(path, *, episodes=4, length=20, obs=3, action=1, seed=0):
    """A pendulum's worth of numbers: actions follow observations."""
    rng = np.random.default_rng(seed)
    seen = np.cumsum(rng.normal(size=(episodes * length, obs)) * 0.05, 0).astype(np.float32)
    acts = np.tanh(seen[:, :1] @ np.ones((1, action))).astype(np.float32)
    ends = np.arange(1, episodes + 1) * length
    write_arrays(path, Episodes({"obs": seen}, acts, ends, fps=20.0, title="test"))
    return path


def small_config(data, out, *, steps=4, **changes):
    usual = {"steps": steps, "batch_size": 8, "lr": 1e-3, "warmup": 1, "log_every": 1, "validate_every": 2}
    loop = LoopConfig(**usual | changes.pop("loop", {}))
    settings = {"size": "tiny", "noise_steps": 8, "held_out": 0.25, "n_action_steps": 4, "horizon": 8, **changes}
    return TrainConfig(str(data), out, loop=loop, **settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "a.npz")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(small_config(data, out, steps=30, loop={"validate_every": 15}))
    return out


def test_training_learns_and_writes_a_run_folder(trained):
    rows = read_jsonl(trained / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert {"held_out_loss", "held_out_action_error"} <= rows[-1].keys()
    assert (trained / "report.html").is_file()
    model = load_policy(trained)
    assert model.spec.largest_moves[0] > 0
    assert len(model.spec.largest_moves) == 4
    assert model.spec.trained_on == "a.npz"


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "transformer"},
        {"conditioning": "inpaint"},
        {"conditioning": "local"},
        {"objective": "streaming", "n_action_steps": 3, "horizon": 8, "noise_steps": 8},
        {"discrete": ("-1:-1,1",), "discrete_scale": 10.0},
    ],
)
def test_other_policies_train_a_few_steps(data, tmp_path, changes):
    train(small_config(data, tmp_path / "run", steps=2, **changes))
    model = load_policy(tmp_path / "run")
    text = "streaming" if model.spec.objective == "streaming" else "rti:2,1,0"
    policy = make_policy(model, text)
    from priorscope_robotics.policies.noise import EnvironmentNoise

    out = policy.act({"obs": torch.zeros(2, 2, 3)}, policy.start(2), EnvironmentNoise([0, 1]))
    assert bool(torch.isfinite(out.actions).all())
    if "discrete" in changes:
        assert set(out.actions.flatten().tolist()) <= {-1.0, 1.0}
        field = model.normalizer.field("action")
        assert (float(field.scale), float(field.offset)) == (1.0, 0.0)  # as it is, so that scaling can matter
        assert float(field.input_stats.max) < 0.2  # divided by 10


def test_a_policys_text_says_how_many_actions_are_executed(trained):
    model = load_policy(trained)
    policy = make_policy(model, "rti:1,0:noised:do=1", n_action_steps=4)
    assert policy.n_action_steps == 1
    assert policy.levels == [1, 0]
    assert make_policy(model, "ddpm:do=2").n_action_steps == 2
    assert make_policy(model, "ddpm", n_action_steps=3).n_action_steps == 3
    for text in ("ddpm:do=0", "ddpm:do=two", "rti:do=1:noised"):
        with pytest.raises(InputError, match="executes"):
            make_policy(model, text)


def test_a_policy_of_images_trains_and_sees(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    vectors = rng.normal(size=(24, 2)).astype(np.float32)
    ends = np.array([12, 24])
    write_arrays(tmp_path / "a.npz", Episodes({"agent_pos": vectors, "image": images}, vectors, ends, title="test"))
    config = small_config(tmp_path / "a.npz", tmp_path / "run", steps=1, held_out=0.0, loop={"batch_size": 2})
    train(replace(config, observe=("agent_pos", "image")))
    model = load_policy(tmp_path / "run")
    assert [entry.name for entry in model.spec.observations] == ["agent_pos", "image"]
    assert model.spec.image.crop == (28, 28)
    words = ["robotics", "predict", str(tmp_path / "run"), str(tmp_path / "a.npz"), "--out", str(tmp_path / "p.npz")]
    assert main([*words, "--policy", "ddim:1"]) == 0
    with np.load(tmp_path / "p.npz") as file:
        assert file["plans"].shape == (12, 8, 2)


def test_robomimic_normaliser(tmp_path):
    data = write_data(tmp_path / "a.npz", action=10)
    train(small_config(data, tmp_path / "run", steps=1, normalizer="robomimic"))
    normalizer = load_policy(tmp_path / "run").normalizer
    assert normalizer.field("action").scale[3:].tolist() == [1.0] * 7
    assert normalizer.field("action").scale[0] != 1
    assert len(set(normalizer.field("obs").scale.tolist())) == 1
    with pytest.raises(InputError, match="10 an arm"):
        train(small_config(write_data(tmp_path / "b.npz"), tmp_path / "b", normalizer="robomimic"))


def test_one_step_student_of_a_teacher(trained, data, tmp_path):
    train(small_config(data, tmp_path / "run", steps=3, objective="consistency", teacher=str(trained)))
    model = load_policy(tmp_path / "run")
    assert model.spec.objective == "consistency"
    with pytest.raises(InputError, match="needs a model of diffusion, this one was trained for consistency"):
        make_policy(model, "rti:2,1,0")
    assert make_policy(model, "consistency").levels == [7]


def test_resumed_training_is_the_same(data, tmp_path):
    whole = tmp_path / "whole"
    train(small_config(data, whole, steps=4, loop={"checkpoint_every": 2}))
    part = tmp_path / "part"
    config = small_config(data, part, steps=4, loop={"checkpoint_every": 2})

    class Stop(Exception):
        pass

    from priorscope_robotics.training.feed import WindowFeed

    batch = WindowFeed.batch

    def stops(self, step, rows):
        if step == 3:
            raise Stop
        return batch(self, step, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WindowFeed, "batch", stops)
        with pytest.raises(Stop):
            train(config)
    train(small_config(data, part, steps=4, loop={"checkpoint_every": 2, "resume": True}))
    rows = [
        [{k: v for k, v in row.items() if k != "examples_per_second"} for row in read_jsonl(run / "metrics.jsonl")]
        for run in (whole, part)
    ]
    assert rows[0] == rows[1]


def test_streaming_needs_a_unet_also_where_a_policy_is_gone_on_from(data, tmp_path):
    train(small_config(data, tmp_path / "run", steps=1, network="transformer"))
    with pytest.raises(InputError, match="needs a U-Net"):
        train(small_config(data, tmp_path / "b", start=str(tmp_path / "run"), objective="streaming"))


def test_going_on_from_a_policy(trained, data, tmp_path):
    train(small_config(data, tmp_path / "run", steps=1, start=str(trained)))
    wide = write_data(tmp_path / "wide.npz", action=2)
    with pytest.raises(InputError, match=r"actions of wide\.npz have 2 numbers, those of the policy 1"):
        train(small_config(wide, tmp_path / "b", start=str(trained)))
    other = write_data(tmp_path / "other.npz", obs=4)
    with pytest.raises(InputError, match=r"'obs' has shape \(4,\) in the data, \(3,\) in the policy"):
        train(small_config(other, tmp_path / "c", start=str(trained)))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 9}, "multiple of 2"),
        ({"n_action_steps": 8}, "do not fit a horizon of 8"),
        ({"horizon": 64, "n_action_steps": 1}, "no episode of .* is long enough"),
        ({"observe": ("x",)}, "no observation x"),
        ({"objective": "consistency"}, "go together"),
        ({"discrete": ("5:0,1",)}, "discrete dimension"),
        ({"discrete": ("x",)}, "discrete dimension"),
        ({"held_out": 1.0}, "--held-out"),
        ({"crop": -1}, "--crop"),
    ],
)
def test_trainings_that_make_no_sense(data, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(small_config(data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


# ---- evaluation -------------------------------------------------------------------------------------------------


def evaluation(trained, out, **changes):
    settings = {"episodes": 3, "batch_size": 2, "max_steps": 9, "films": 0, "latency_calls": 2, "first_seed": 5}
    return EvaluateConfig(str(trained), "gym:Pendulum-v1", out, device="cpu", **settings | changes)


def test_comparison_on_the_same_episodes(trained, tmp_path, capsys):
    out = tmp_path / "run"
    texts = ("ddpm", "ddim:2:trailing", "rti:1,0", "rti:auto:2:noised:deterministic")
    config = evaluation(trained, out, compare=texts)
    assert evaluate(config) == 0
    rows = {row["policy"]: row for row in json.loads((out / "metrics.json").read_text())["rows"]}
    # nine steps are three calls: of eight levels each, of two, or a full one and two warm ones
    assert rows["ddpm"]["calls"] == pytest.approx(24 / 9)
    assert rows["ddim:2:trailing"]["calls"] == pytest.approx(6 / 9)
    assert rows["rti:1,0"]["calls"] >= 12 / 9 - 1e-9
    for name in ("rti:1,0", "ddim:2:trailing"):
        assert {"difference", "lower_95", "p50_ms_1", "p95_ms_2", "speedup_1"} <= rows[name].keys()
    assert rows["rti:1,0"]["contraction"] > 0
    assert rows["rti:1,0"]["levels"] == "1,0"
    assert len(rows["rti:auto:2:noised:deterministic"]["levels"].split(",")) == 2
    assert "contraction" not in rows["ddpm"]
    assert "rti:auto starts at level" in capsys.readouterr().out
    assert "lower_95" in (out / "report.html").read_text()
    before = read_jsonl(out / "metrics.jsonl")
    evaluate(evaluation(trained, out, compare=config.compare, resume=True))
    assert read_jsonl(out / "metrics.jsonl") == before  # nothing was run again


def test_results_do_not_depend_on_the_number_of_environments(trained, tmp_path):
    found = []
    for batch in (1, 3):
        out = tmp_path / f"run{batch}"
        evaluate(evaluation(trained, out, policy="rti:2,1,0", batch_size=batch, latency_calls=0))
        found.append({row["seed"]: row["score"] for row in read_jsonl(out / "metrics.jsonl")})
    assert found[0].keys() == found[1].keys() == {5, 6, 7}
    for seed, score in found[0].items():
        assert found[1][seed] == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "nothing"}, "no policy is called"),
        ({"policy": "ddim:x"}, "is no number"),
        ({"policy": "ddim:4:y"}, "spacing"),
        ({"policy": "rti:a"}, "levels"),
        ({"policy": "rti:1,0:fast"}, "After the levels come"),
        ({"policy": "streaming"}, "needs a model of streaming"),
        ({"compare": ("ddpm", "ddpm")}, "each policy once"),
        ({"episodes": 0}, "--episodes 0"),
        ({"n_action_steps": 8}, "8 actions from step 1 of a plan of 8"),
    ],
)
def test_evaluations_that_make_no_sense(trained, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        evaluate(evaluation(trained, tmp_path / "run", **changes))


def test_action_dimensions_of_policy_and_environment(trained, tmp_path):
    config = EvaluateConfig(str(trained), "gym:LunarLanderContinuous-v0", tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="gymnasium cannot make"):
        evaluate(config)
    config = EvaluateConfig(str(trained), "metaworld:reach", tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="have 1 numbers, metaworld:reach takes 4"):
        evaluate(config)


class Counter(Environment):
    """Gives its step; done after as many steps as its seed says."""

    name, fps, max_steps, action_dim, names = "counter", 1.0, 100, 1, ("obs",)
    low, high = np.full(1, -1e9, np.float32), np.full(1, 1e9, np.float32)

    def reset(self, seed):
        self.left, self.begun = seed, seed
        return {"obs": np.full(3, -1, np.float32)}

    def advance(self, action):
        self.left -= 1
        seen = {"obs": np.full(3, self.begun - self.left, np.float32)}
        return Outcome(seen, float(-self.left), self.left == 0, self.left == 0, {"left": float(self.left)})


def test_environments_that_end_at_other_times(trained):
    policy = make_policy(load_policy(trained), "rti:1,0", n_action_steps=4)
    calls = []
    seeds = [3, 9, 1, 6]
    found = {
        r.seed: r
        for r in run_episodes([Counter(), Counter()], policy, seeds, on_output=lambda o, _: calls.append(o.calls))
    }
    assert {seed: result.steps for seed, result in found.items()} == {3: 3, 9: 9, 1: 1, 6: 6}
    assert all(result.success and result.score == 0 for result in found.values())
    assert found[9].measures == {"max_left": 8.0, "mean_left": 4.0, "final_left": 0.0}
    # the first environment begins episodes 3, 1 and 6, the second goes on
    assert [pair[0] for pair in calls[:3]] == [8, 8, 8]
    assert calls[0][1] == 8


def test_paired_bounds():
    rng = np.random.default_rng(0)
    first = rng.random(200)
    found = paired_difference(first, first + 0.1)
    assert found.mean == pytest.approx(found.low) == pytest.approx(0.1)
    noisy = paired_difference(first, first + rng.normal(0, 0.5, 200))
    # the normal approximation: 1.645 deviations of the mean
    assert noisy.mean - noisy.low == pytest.approx(1.645 * 0.5 / np.sqrt(200), rel=0.15)
    with pytest.raises(InputError, match="cannot be paired"):
        paired_difference([1.0], [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discrete": ("-1:-1,1:10",), "discrete_scale": 5.0}, "is divided by 10 .*--discrete-scale 5"),
        ({"discrete": ("-1:0,1", "0:0,1")}, "discrete dimension 0 .* twice"),
        ({"discrete": ("-1:0,255",)}, "values .* beyond what samples are clipped to"),
        ({"discrete": ("-1:0,nan",)}, "discrete dimension"),
        ({"discrete": ("-1:0,1:nan",)}, "discrete dimension"),
    ],
)
def test_discrete_dimensions_that_training_refuses(data, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(small_config(data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"discrete": ("-1:-1,1:10",)}, {"discrete": ("-1:-20,20",), "discrete_scale": 40.0}]
)
def test_the_scale_of_a_discrete_dimension_counts_wherever_it_is_told(data, tmp_path, changes):
    train(small_config(data, tmp_path / "run", steps=1, **changes))
    model = load_policy(tmp_path / "run")
    scale = changes.get("discrete_scale", 10.0)
    assert model.spec.discrete[0].scale == scale
    largest = float(np.abs(open_episodes(data).actions).max())
    assert float(model.normalizer.field("action").input_stats.max) <= largest / scale + 1e-6


def test_discrete_dimensions_of_the_command_line():
    assert discrete_dimensions((), 4) is None
    assert discrete_dimensions(("none",), 4) == ()
    (found,) = discrete_dimensions(("-1:0,1:10:5",), 4)
    assert (found.index, found.values, found.scale, found.guess_scale) == (-1, (0.0, 1.0), 10.0, 5.0)
    assert [dim.index for dim in discrete_dimensions(("robomimic-clip",), 20)] == [9, 19]


# ---- other commands ---------------------------------------------------------------------------------------------


def test_rollout_predict_and_convert(trained, data, tmp_path, capsys):
    words = [
        "robotics",
        "rollout",
        str(trained),
        "gym:Pendulum-v1",
        "--out",
        str(tmp_path / "a.npz"),
        "--max-steps",
        "6",
    ]
    assert main([*words, "--policy", "ddim:2"]) == 0
    with np.load(tmp_path / "a.npz") as file:
        assert file["actions"].shape == (6, 1)  # two of the second plan's four were never done
    assert main([*words, "--policy", "ddim:2"]) == 2
    assert "exists already" in capsys.readouterr().err
    plans = str(tmp_path / "p.npz")
    assert main(["robotics", "predict", str(trained), str(data), "--out", plans, "--episode", "1"]) == 0
    with np.load(plans) as file:
        assert file["plans"].shape == (20, 8, 1)
        assert file["calls"][0] == 8
    assert main(["robotics", "predict", str(trained), str(data), "--out", plans, "--overwrite", "--episode", "9"]) == 2
    assert main(["robotics", "convert", str(trained), str(tmp_path / "lerobot"), "--layout", "lerobot"]) == 0
    assert load_policy(tmp_path / "lerobot").spec.family == "lerobot"
    assert main(["robotics", "convert", str(trained), str(tmp_path / "lerobot")]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rollout", "RUN", "gym:Pendulum-v1", "--out", "x.npz", "--episode", "-1"], "seeds -1"),
        (["rollout", "RUN", "gym:Pendulum-v1", "--out", "x.npz", "--episode", "4294967296"], "seeds 4294967296"),
        (["rollout", "RUN", "gym:Pendulum-v1", "--out", "x.npz", "--max-steps", "-3"], "--max-steps -3"),
        (["demo", "RUN", "gym:Pendulum-v1", "--out", "x", "--episode", "-1"], "seeds -1"),
        (["evaluate", "RUN", "pusht", "--out", "x", "--first-seed", "4294967295"], "seeds 4294967295"),
        (["collect", "metaworld:reach", "--out", "x.npz", "--seed", "-1"], "--seed -1"),
        (["collect", "metaworld:reach", "--out", "x.npz", "--max-steps", "-1"], "--max-steps -1"),
        (["predict", "RUN", "DATA", "--out", "x.npz", "--policy", "rti:2,1,0:do=4"], "leave :do= out"),
    ],
)
def test_numbers_that_make_no_sense_are_one_line(trained, data, tmp_path, monkeypatch, words, message, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": str(trained), "DATA": str(data)}
    assert main(["robotics", *(places.get(word, word) for word in words)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_films(trained, tmp_path):
    pytest.importorskip("pygame")
    words = ["robotics", "rollout", str(trained), "gym:Pendulum-v1", "--max-steps", "4", "--policy", "ddim:2"]
    for name in ("a.gif", "a.mp4"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 500


def test_collect_from_a_scripted_expert(tmp_path, capsys):
    out = tmp_path / "reach.npz"
    assert main(["robotics", "collect", "metaworld:reach", "--out", str(out), "--episodes", "2", "--noise", "0.1"]) == 0
    found = open_episodes(out)
    assert len(found) == 2
    assert found.observations["obs"].shape[1] == 39
    assert found.fps == 80
    assert main(["robotics", "collect", "metaworld:reach", "--out", str(out)]) == 2
    assert main(["robotics", "collect", "gym:Pendulum-v1", "--out", str(out)]) == 2
    assert "there is no expert" in capsys.readouterr().err


def test_collect_from_the_planner_keeps_successes_and_resumes(tmp_path, monkeypatch):
    """With a goal that every push reaches, so that the test is quick."""
    from priorscope_robotics.envs import pusht

    class Easy(pusht.PushT):
        def advance(self, action):
            outcome = super().advance(action)
            outcome.success = self._steps >= 3 and self.block_seed % 2 == 0
            outcome.done = self._steps >= 3
            return outcome

        def reset(self, seed):
            self.block_seed = seed
            return super().reset(seed)

    monkeypatch.setattr(pusht, "PushT", Easy)
    out = tmp_path / "demo.zarr"
    settings = {"out": out, "seed": 10}
    assert collect(CollectConfig("pusht", episodes=2, **settings)) == 0
    found = open_episodes(out)
    assert found.ends.tolist() == [3, 6]
    with pytest.raises(InputError, match="exists already"):
        collect(CollectConfig("pusht", episodes=3, **settings))
    assert collect(CollectConfig("pusht", episodes=3, resume=True, **settings)) == 0
    for changes, told in (
        ({"noise": 8.0}, "was collected with --noise 0.0, not 8.0"),
        ({"max_steps": 50}, "was collected with --max-steps 300, not 50"),
        ({"images": True}, "has no data/img"),
    ):
        with pytest.raises(InputError, match=told):
            collect(CollectConfig("pusht", episodes=4, resume=True, **settings, **changes))
    assert PushTRecorder(out, resume=True).next_seed == 15  # 10, 12 and 14 succeeded
    with pytest.raises(InputError, match="after 1 tries of the expert there are 3"):
        collect(CollectConfig("pusht", episodes=9, attempts=1, resume=True, **settings))


# ---- environments that break down, and evaluations in parts -----------------------------------------------------


class Breaks(Counter):
    """The episode of seed ``bad`` gives NaN after two steps, that of seed ``never`` from the start."""

    bad, never = 6, 8

    def reset(self, seed):
        seen = super().reset(seed)
        return {"obs": np.full(3, np.nan, np.float32)} if seed == self.never else seen

    def advance(self, action):
        outcome = super().advance(action)
        if self.begun == self.bad and self.begun - self.left >= 2:
            outcome.seen["obs"][1] = np.nan
        return outcome


@pytest.mark.parametrize("count", [1, 2])
def test_an_environment_that_breaks_down_ends_its_episode_only(trained, count):
    policy = make_policy(load_policy(trained), "rti:1,0", n_action_steps=4)
    seeds = [3, 6, 8, 9]
    found = {r.seed: r for r in run_episodes([Breaks() for _ in range(count)], policy, seeds)}
    sound = {r.seed: r for r in run_episodes([Counter() for _ in range(count)], policy, seeds)}
    assert found.keys() == set(seeds)
    assert found[3] == sound[3]
    assert found[9] == sound[9]
    broken = found[6]
    assert (broken.success, broken.steps, broken.failure) == (False, 1, "obs not finite after step 2")
    assert broken.score == -5.0  # of the step before
    assert sound[6].success
    assert (found[8].success, found[8].steps, found[8].score, found[8].failure) == (False, 0, 0.0, "obs not finite")


def test_evaluation_counts_broken_episodes(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("priorscope_robotics.evaluate.make_environment", lambda *_: Breaks())
    out = tmp_path / "run"
    evaluate(evaluation(trained, out, policy="rti:1,0", first_seed=5, episodes=4, max_steps=0))
    (row,) = json.loads((out / "metrics.json").read_text())["rows"]
    assert (row["failed"], row["success"]) == (2, 0.5)
    assert "seed 6: failed, obs not finite after step 2" in capsys.readouterr().out
    assert "not finite" in (out / "report.html").read_text()


def test_evaluation_in_parts_is_the_same(trained, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given = {"compare": ("ddim:2", "rti:1,0"), "latency_calls": 0, "contraction": False}
    evaluate(evaluation(trained, whole, **given))
    evaluate(evaluation(trained, parts, **given, max_seconds=1e-9))
    assert "the time is used up during ddim:2; --resume goes on" in capsys.readouterr().out
    assert not (parts / "metrics.json").exists()
    for _ in range(6):  # each part brings an episode or more
        if not (parts / "metrics.json").exists():
            evaluate(evaluation(trained, parts, **given, max_seconds=1e-9, resume=True))
    first, second = (
        {(row["policy"], row["seed"]): row["score"] for row in read_jsonl(out / "metrics.jsonl")}
        for out in (whole, parts)
    )
    assert first.keys() == second.keys()
    assert second == pytest.approx(first, abs=1e-3)
    assert len(read_jsonl(parts / "metrics.jsonl")) == 6  # nothing ran twice


def test_a_resumed_evaluation_keeps_the_levels_it_began_with(trained, tmp_path, monkeypatch):
    """The trials of rti:auto may say something else on another machine, or with other environments beside it."""
    out = tmp_path / "run"
    given = {"policy": "rti:auto:2", "latency_calls": 0, "contraction": False}
    for level in (5, 3):
        monkeypatch.setattr("priorscope_robotics.evaluate.level_from_trials", lambda *_, found=level: lambda: found)
        evaluate(evaluation(trained, out, **given, max_seconds=1e-9 if level == 5 else 0.0, resume=level == 3))
    rows = read_jsonl(out / "metrics.jsonl")
    assert len(rows) == 3
    assert {row["levels"] for row in rows} == {"5,0"}
    assert json.loads((out / "metrics.json").read_text())["rows"][0]["levels"] == "5,0"


# ---- demo -------------------------------------------------------------------------------------------------------


def test_demo_films_two_policies(trained, tmp_path, capsys):
    from priorscope.data.video import read_video_info

    pytest.importorskip("pygame")
    out = tmp_path / "demo"
    words = ["robotics", "demo", str(trained), "gym:Pendulum-v1", "--out", str(out), "--latency-calls", "2"]
    words += ["--policy", "rti:1,0", "--episode", "5"]
    assert main([*words, "--max-steps", "6"]) == 0
    found = json.loads((out / "metrics.json").read_text())
    assert [row["policy"] for row in found["latency"]] == ["ddpm", "ddim:8", "rti:1,0"]
    # six steps are two plans: a full one of eight levels and a warm one, or two full ones
    calls = {row["policy"]: row["calls"] for row in found["episodes"]}
    assert calls["ddpm"] == 16
    assert calls["rti:1,0"] in (10, 16)
    info = read_video_info(out / "figures/side-by-side.mp4")
    assert (info.width, info.frames) == (500 * 2 + 8, 7)
    assert (out / "figures/side-by-side.gif").stat().st_size > 500
    assert "side-by-side.mp4" in (out / "report.html").read_text()
    assert "speedup" in capsys.readouterr().out
    words[words.index("rti:1,0")] = "rti:auto:2"
    assert main([*words, "--max-steps", "9"]) == 0  # a demo replaces a demo
    assert "rti:auto starts at level" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metaworld:reach"], "have 1 numbers"),
        (["gym:Pendulum-v1", "--latency-calls", "0"], "--latency-calls 0"),
        (["gym:Pendulum-v1", "--policy", "ddpm"], "Compare two policies"),
        (["gym:Pendulum-v1", "--policy", "rti:9,0"], "levels"),
    ],
)
def test_demos_that_make_no_sense(trained, tmp_path, words, message, capsys):
    out = tmp_path / "demo"
    assert main(["robotics", "demo", str(trained), *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_demo_of_what_cannot_be_drawn(trained, tmp_path, monkeypatch):
    from priorscope_robotics.configs import DemoConfig
    from priorscope_robotics.demo import demo

    monkeypatch.setattr("priorscope_robotics.demo.make_environment", lambda *_: Counter())
    with pytest.raises(InputError, match="counter cannot be drawn"):
        demo(DemoConfig(str(trained), "counter", tmp_path / "demo", policy="rti:2,1,0", device="cpu"))


def test_films_beside_each_other():
    from priorscope_robotics.film import beside

    films = [[np.full((40, 60, 3), value, np.uint8) for value in values] for values in ((0, 50), (100, 150, 200))]
    found = beside(films, [["a"] * 2, ["b"] * 3])
    assert [picture.shape for picture in found] == [(64, 128, 3)] * 3
    assert [(int(p[-1, 0, 0]), int(p[-1, -1, 0])) for p in found] == [(0, 100), (50, 150), (50, 200)]
    assert found[0][:24].min() < 128 < found[0][:24].max()  # dark words on white
