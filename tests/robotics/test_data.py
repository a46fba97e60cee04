"""Readers on miniatures in the true layouts and on the real sample; windows against the official ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from priorscope.data.video import VideoWriter
from priorscope.errors import InputError
from priorscope_robotics.data.arrays import read_arrays, write_arrays
from priorscope_robotics.data.episodes import Episodes, as_images
from priorscope_robotics.data.open import open_episodes
from priorscope_robotics.data.pusht_zarr import PushTRecorder
from priorscope_robotics.data.robomimic import read_robomimic, rotation_vectors, six_number_actions
from priorscope_robotics.data.sequences import cut, fewer, held_out_mask, window_indices
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.normalizer import range_field, statistics
from priorscope_robotics.spec import Observation, PolicySpec


def test_golden_dp_data(golden_cases):
    for _, _, tensors in golden_cases("dp_sequence_sampler"):
        ends = [5, 12, 14, 30]
        mask = np.array([True, True, False, True])
        action = np.arange(60).reshape(30, 2)
        for key, expected in tensors.items():
            if key.startswith("idx_"):
                horizon, before, after = (int(part[1:]) for part in key.removeprefix("idx_").split("_"))
                found = window_indices(ends, horizon, before=before, after=after, mask=mask)
                assert np.array_equal(found, expected.numpy()), key
            elif key.startswith("samples_"):
                horizon, before, after = (int(part[1:]) for part in key.removeprefix("samples_").split("_"))
                rows = window_indices(ends, horizon, before=before, after=after, mask=mask)
                found = np.stack([cut(action, row, horizon) for row in rows])
                assert np.array_equal(found, expected.numpy()), key
            elif key.startswith("valmask_"):
                count, ratio, seed = key.removeprefix("valmask_").split("_")
                assert np.array_equal(held_out_mask(int(count), float(ratio), int(seed)), expected.numpy()), key
            else:
                assert key == "downsample_90_seed42"
                assert np.array_equal(fewer(~held_out_mask(206, 0.02, 42), 90, 42), expected.numpy())


# ---- miniatures -------------------------------------------------------------------------------------------------


def pusht_rows(count, seed=0, images=False):
    rng = np.random.default_rng(seed)
    rows = {
        "action": rng.uniform(0, 512, (count, 2)),
        "state": rng.uniform(0, 512, (count, 5)),
        "keypoint": rng.uniform(0, 512, (count, 9, 2)),
        "n_contacts": np.zeros((count, 1)),
    }
    return rows | ({"img": rng.integers(0, 256, (count, 96, 96, 3))} if images else {})


def test_pusht_zarr(tmp_path):
    recorder = PushTRecorder(tmp_path / "demo.zarr", images=True)
    first, second = pusht_rows(7, 1, True), pusht_rows(5, 2, True)
    recorder.add(first)
    recorder.add(second)
    # the layout of the published file
    assert json.loads((tmp_path / "demo.zarr/data/action/.zarray").read_text())["zarr_format"] == 2
    found = open_episodes(tmp_path / "demo.zarr")
    assert set(found.observations) == {"state", "agent_pos", "keypoint", "obs"}
    assert found.ends.tolist() == [7, 12]
    np.testing.assert_allclose(found.actions, np.concatenate([first["action"], second["action"]]), rtol=1e-6)
    keypoints = np.concatenate([first["keypoint"], second["keypoint"]]).reshape(12, 18)
    agent = np.concatenate([first["state"], second["state"]])[:, :2]
    np.testing.assert_allclose(found.observations["obs"], np.concatenate([keypoints, agent], 1), rtol=1e-6)
    images = open_episodes(tmp_path / "demo.zarr", ["image", "agent_pos"]).observations["image"]
    assert images.dtype == np.uint8
    assert np.array_equal(images[7:], np.moveaxis(second["img"], -1, 1))
    # the archive has the same
    shutil.make_archive(str(tmp_path / "demo.zarr"), "zip", tmp_path / "demo.zarr")
    np.testing.assert_array_equal(open_episodes(tmp_path / "demo.zarr.zip").actions, found.actions)
    with pytest.raises(InputError, match="no observation nothing"):
        open_episodes(tmp_path / "demo.zarr", ["nothing"])
    with pytest.raises(InputError, match="exists already"):
        PushTRecorder(tmp_path / "demo.zarr")
    with pytest.raises(InputError, match="was collected with --images"):
        PushTRecorder(tmp_path / "demo.zarr", resume=True)
    shutil.rmtree(tmp_path / "demo.zarr/meta/episode_ends")
    with pytest.raises(InputError, match=r"demo\.zarr: has no meta/episode_ends"):
        open_episodes(tmp_path / "demo.zarr")


def test_a_missing_episode_end_is_named(tmp_path):
    import zarr

    recorder = PushTRecorder(tmp_path / "demo.zarr")
    recorder.add(pusht_rows(7))
    zarr.open_group(str(tmp_path / "demo.zarr"), mode="a")["data/action"].resize((9, 2))
    for name in ("state", "keypoint"):
        array = zarr.open_group(str(tmp_path / "demo.zarr"), mode="a")[f"data/{name}"]
        array.resize((9, *array.shape[1:]))
    with pytest.raises(InputError, match="last episode ends at step 7, but there are 9 steps"):
        open_episodes(tmp_path / "demo.zarr")


def write_lerobot_dataset(folder, version, lengths=(4, 3)):
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    total = sum(lengths)
    state, action = (rng.normal(size=(total, 2)).astype(np.float32) for _ in range(2))
    # smooth pictures, that a codec keeps
    shades = np.linspace(30, 220, total)
    frames = np.tile(shades[:, None, None, None], (1, 32, 32, 3)).astype(np.uint8)
    key = "observation.image"
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        key: {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channel"]},
        "episode_index": {"dtype": "int64", "shape": [1]},
    }
    (folder / "meta").mkdir(parents=True)
    info = {"codebase_version": f"v{version}", "fps": 10, "features": features, "chunks_size": 1000}

    def write(path, columns):
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path)

    def film(path, images):
        with VideoWriter(path, fps=10) as writer:
            for image in images:
                writer.write(image)

    episode = np.repeat(np.arange(len(lengths)), lengths)
    columns = {"observation.state": list(state), "action": list(action), "episode_index": episode}
    edges = [0, *np.cumsum(lengths)]
    if version.startswith("2"):
        info |= {
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        }
        lines = []
        for number, length in enumerate(lengths):
            rows = slice(edges[number], edges[number + 1])
            write(folder / f"data/chunk-000/episode_{number:06d}.parquet", {k: v[rows] for k, v in columns.items()})
            film(folder / f"videos/chunk-000/{key}/episode_{number:06d}.mp4", frames[rows])
            lines.append(json.dumps({"episode_index": number, "tasks": ["t"], "length": length}))
        (folder / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    else:
        info |= {
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        }
        write(folder / "data/chunk-000/file-000.parquet", columns)
        film(folder / f"videos/{key}/chunk-000/file-000.mp4", frames)
        rows = {
            "episode_index": list(range(len(lengths))),
            "length": list(lengths),
            "data/chunk_index": [0] * len(lengths),
            "data/file_index": [0] * len(lengths),
            f"videos/{key}/chunk_index": [0] * len(lengths),
            f"videos/{key}/file_index": [0] * len(lengths),
            f"videos/{key}/from_timestamp": [edge / 10 for edge in edges[:-1]],
            f"videos/{key}/to_timestamp": [edge / 10 for edge in edges[1:]],
        }
        write(folder / "meta/episodes/chunk-000/file-000.parquet", rows)
    (folder / "meta/info.json").write_text(json.dumps(info))
    return state, action, frames


@pytest.mark.parametrize("version", ["2.0", "2.1", "3.0"])
def test_lerobot_dataset(tmp_path, version):
    state, action, frames = write_lerobot_dataset(tmp_path / "set", version)
    found = open_episodes(tmp_path / "set")
    assert list(found.observations) == ["observation.state"]
    np.testing.assert_array_equal(found.observations["observation.state"], state)
    np.testing.assert_array_equal(found.actions, action)
    assert found.ends.tolist() == [4, 7]
    assert found.fps == 10
    images = open_episodes(tmp_path / "set", ["observation.image"]).observations["observation.image"]
    assert images.shape == (7, 3, 32, 32)
    assert np.abs(images[:, 1, 16, 16].astype(int) - frames[:, 16, 16, 1]).max() <= 4


def test_lerobot_datasets_that_are_broken(tmp_path):
    import pyarrow
    import pyarrow.parquet

    write_lerobot_dataset(tmp_path / "set", "3.0")
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    with pytest.raises(InputError, match=r"no feature x.*observation\.state"):
        open_episodes(tmp_path / "set", ["x"])
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    with pytest.raises(InputError, match=r"version 1\.6"):
        open_episodes(tmp_path / "set")
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.slice(0, 6), path)
    with pytest.raises(InputError, match="episode 1 has 2 rows, its meta data say 3"):
        open_episodes(tmp_path / "set")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"file-000\.parquet: cannot be read"):
        open_episodes(tmp_path / "set")


def write_robomimic(path, arms=1):
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = "{}"
        for number in (0, 1, 10, 2):  # as strings these would sort otherwise
            group = data.create_group(f"demo_{number}")
            length = number + 2
            group.attrs["num_samples"] = length
            group["actions"] = rng.normal(size=(length, 7 * arms))
            group["obs/object"] = np.full((length, 10), float(number))
            for arm in range(arms):
                for key, size in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
                    group[f"obs/robot{arm}_{key}"] = rng.normal(size=(length, size))
            group["obs/agentview_image"] = rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8)
        file["mask/train"] = np.array([b"demo_2", b"demo_0"])


@pytest.mark.parametrize("arms", [1, 2])
def test_robomimic(tmp_path, arms):
    write_robomimic(tmp_path / "low_dim_abs.hdf5", arms)
    found = open_episodes(tmp_path / "low_dim_abs.hdf5")
    assert found.lengths().tolist() == [2, 3, 4, 12]
    assert found.observations["obs"].shape == (21, 10 + 9 * arms)
    assert found.actions.shape == (21, 10 * arms)
    raw = read_robomimic(tmp_path / "low_dim_abs.hdf5", absolute=False).actions
    # rotation vectors beyond half a turn come back as the shorter way round
    back = six_number_actions(rotation_vectors(found.actions))
    np.testing.assert_allclose(back, found.actions, atol=1e-5)
    np.testing.assert_array_equal(found.actions[:, 9], raw[:, 6])
    some = read_robomimic(tmp_path / "low_dim_abs.hdf5", ["agentview_image"], subset="train")
    assert some.observations["agentview_image"].shape == (6, 3, 8, 8)
    with pytest.raises(InputError, match=r"no subset 'test'.*train"):
        read_robomimic(tmp_path / "low_dim_abs.hdf5", subset="test")
    with pytest.raises(InputError, match="has no obs/x"):
        read_robomimic(tmp_path / "low_dim_abs.hdf5", ["x"])


def test_six_numbers_are_the_first_two_rows():
    quarter = np.array([[1, 2, 3, 0, 0, np.pi / 2, -1]], np.float32)
    expected = [1, 2, 3, 0, -1, 0, 1, 0, 0, -1]
    np.testing.assert_allclose(six_number_actions(quarter)[0], expected, atol=1e-6)


def test_arrays_go_both_ways(tmp_path):
    rng = np.random.default_rng(0)
    episodes = Episodes(
        {"obs": rng.normal(size=(9, 3)).astype(np.float32), "image": rng.integers(0, 255, (9, 3, 4, 4), np.uint8)},
        rng.normal(size=(9, 2)).astype(np.float32),
        np.array([4, 9]),
        fps=20.0,
    )
    write_arrays(tmp_path / "a.npz", episodes)
    found = read_arrays(tmp_path / "a.npz")
    assert found.fps == 20
    for name, value in episodes.observations.items():
        np.testing.assert_array_equal(found.observations[name], value)
    part = found.select(np.array([False, True]))
    np.testing.assert_array_equal(part.actions, episodes.actions[4:])
    assert part.ends.tolist() == [5]
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    np.savez(tmp_path / "c.npz", actions=np.zeros((3, 1)), episode_ends=[3])
    np.savez(tmp_path / "d.npz", actions=np.array([object()]), allow_pickle=True)
    for name, message in (
        ("b", "is no .npz"),
        ("c", "has no observations"),
        ("d", "is no .npz"),
        ("e", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            open_episodes(tmp_path / f"{name}.npz")
    (tmp_path / "x.csv").write_text("1")
    with pytest.raises(InputError, match="none of the layouts"):
        open_episodes(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["obs", "action"])
def test_nan_in_mid_episode_names_key_episode_and_step(name):
    values = {"obs": np.zeros((9, 3), np.float32), "action": np.zeros((9, 2), np.float32)}
    values[name][6, 1] = np.nan
    with pytest.raises(InputError, match=f"'{name}' is not finite in episode 1 at step 2"):
        Episodes({"obs": values["obs"]}, values["action"], np.array([4, 9])).check()


def test_episodes_that_do_not_fit():
    obs, action = np.zeros((9, 3), np.float32), np.zeros((9, 2), np.float32)
    for ends, message in (
        ([9, 4], "do not rise"),
        ([0, 9], "do not rise"),
        ([], "no episode"),
        ([4], "ends at step 4"),
    ):
        with pytest.raises(InputError, match=message):
            Episodes({"obs": obs}, action, np.array(ends, np.int64)).check()
    with pytest.raises(InputError, match="'obs' has 8 steps"):
        Episodes({"obs": obs[:8]}, action, np.array([9])).check()
    with pytest.raises(InputError, match="images have"):
        as_images(np.zeros((2, 3, 8, 8)), "img")


def test_windows_are_no_longer_than_episodes_allow():
    assert window_indices([3], 8).shape == (0, 4)
    assert window_indices([3], 8, before=2, after=5).shape == (3, 4)
    with pytest.raises(InputError, match="windows of 0"):
        window_indices([3], 0)


def test_real_human_demonstrations(shared_data):
    """Adroit door: 25 episodes; the normaliser covers the true ranges, so that no action is clipped."""
    path = shared_data("robotics") / "adroit_door_human_25demos.npz"
    episodes = open_episodes(path)
    assert (len(episodes), episodes.steps) == (25, 6729)
    assert episodes.observations["obs"].shape == (6729, 39)
    actions = torch.from_numpy(episodes.actions)
    assert actions.shape == (6729, 28)
    assert float(actions.abs().max()) > 1.2  # beyond the box of the simulator
    field = range_field(statistics(actions))
    normalised = field.normalize(actions)
    assert float(normalised.abs().max()) <= 1 + 1e-5
    torch.testing.assert_close(field.unnormalize(normalised.clamp(-1, 1)), actions, rtol=1e-4, atol=1e-5)


# ---- what no policy can be made of ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((6, 2, 1), np.float32)}, r"'action' has shape \(6, 2, 1\), not \(steps, numbers\)"),
        ({"observation.obs": np.zeros((6, 2, 2))}, r"'obs' has shape \(6, 2, 2\)"),
        ({"observation.obs": np.zeros((6, 3, 8, 8), np.float32)}, "images are bytes"),
        ({"observation.obs": np.zeros((6, 8, 8, 3), np.uint8)}, r"'obs' has shape \(6, 8, 8, 3\).*channels first"),
        ({"episode_ends": np.array([2.5, 6.0])}, "episode_ends are no whole numbers"),
    ],
)
def test_shapes_that_no_policy_sees_are_named(tmp_path, changes, message):
    content = {"observation.obs": np.zeros((6, 3)), "actions": np.zeros((6, 2)), "episode_ends": np.array([3, 6])}
    np.savez(tmp_path / "a.npz", **content)
    assert len(open_episodes(tmp_path / "a.npz")) == 2
    np.savez(tmp_path / "a.npz", **content | changes)
    with pytest.raises(InputError, match=message):
        open_episodes(tmp_path / "a.npz")


def test_whole_numbers_are_no_images(tmp_path):
    """A vector that was stored as bytes is a vector: its range is learnt and used in the same unit."""
    seen = np.arange(18, dtype=np.uint8).reshape(6, 3)
    np.savez(tmp_path / "a.npz", observations=seen, actions=np.zeros((6, 1)), episode_ends=np.array([6]))
    found = open_episodes(tmp_path / "a.npz").observations["obs"]
    assert found.dtype == np.float32
    spec = PolicySpec((Observation("obs", (3,)),), 1, 8, network_settings={"down_dims": [8, 16]}, n_action_steps=2)
    model = PolicyModel(spec)
    for dtype in (torch.uint8, torch.int64, torch.float32):
        given = model.normalized({"obs": torch.from_numpy(seen)[None, :2].to(dtype)})
        assert given["obs"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
