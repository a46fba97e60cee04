"""Video: what is written comes back, with its colours, times and orientation; broken files say so."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest

from priorscope.data import VideoWriter, read_video, read_video_info, write_video
from priorscope.errors import InputError

av = pytest.importorskip("av")


def coloured_frames(count=12, height=48, width=64):
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, : width // 2] = (220, 30, 20)  # saturated: a wrong colour matrix moves it by more than 10
        frame[:, width // 2 :] = (20, 10 + 15 * index % 240, 200)
        yield frame


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "a.mp4", coloured_frames(), fps=12.5)


def test_frames_come_back_with_colours_and_times(video):
    frames = list(read_video(video))
    assert [frame.number for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(12) / 12.5, atol=1e-3)
    for frame, wanted in zip(frames, coloured_frames(), strict=True):
        assert frame.image.dtype == np.uint8
        inner = np.r_[4:28, 36:60]  # away from the colour edge, which 4:2:0 blurs
        assert np.abs(frame.image[:, inner].astype(int) - wanted[:, inner]).max() <= 6


def test_info(video):
    info = read_video_info(video)
    assert (info.width, info.height, info.frames, info.rotation) == (64, 48, 12, 0)
    assert info.fps == pytest.approx(12.5)
    assert info.seconds == pytest.approx(12 / 12.5, abs=0.05)


def test_the_file_is_tagged_bt709_yuv420p_h264(video):
    with av.open(str(video)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_a_part_of_the_frames(video):
    assert [frame.number for frame in read_video(video, start=3, stop=10, stride=3)] == [3, 6, 9]


def test_odd_sizes_grow_by_a_repeated_row_and_column(tmp_path):
    path = write_video(tmp_path / "odd.mp4", coloured_frames(3, 33, 45), fps=10)
    info = read_video_info(path)
    assert (info.width, info.height) == (46, 34)
    image = next(read_video(path)).image.astype(int)
    assert np.abs(image[-1] - image[-2]).max() <= 6


def test_rotation_is_applied(tmp_path, video):
    turned = tmp_path / "turned.mp4"
    data = video.read_bytes()
    # the display matrix of the track header: 16.16 fixed point, here the identity, there a quarter turn
    one, neg = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True)
    zero, w = bytes(4), (1 << 30).to_bytes(4, "big")
    identity = one + zero * 3 + one + zero * 3 + w
    quarter = zero + one + zero + neg + zero * 4 + w
    start = data.index(b"tkhd")
    at = data.index(identity, start)
    turned.write_bytes(data[:at] + quarter + data[at + len(identity) :])
    info = read_video_info(turned)
    assert (info.width, info.height) == (48, 64)
    assert info.rotation in (90, 270)
    upright = next(read_video(turned)).image
    plain = next(read_video(video)).image
    assert upright.shape == (64, 48, 3)
    np.testing.assert_array_equal(upright, np.rot90(plain, -1))  # this matrix turns the picture clockwise


def test_reading_is_streaming(tmp_path):
    """Memory stays that of a few frames: 60 frames of 240 x 320 would be 13.8 MB."""
    tracemalloc.start()
    try:
        path = write_video(tmp_path / "long.mp4", coloured_frames(60, 240, 320), fps=25)
        count = sum(1 for _ in read_video(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 60
    assert peak < 3e6


def test_a_failed_block_leaves_nothing(tmp_path):
    def failing():
        with VideoWriter(tmp_path / "b.mp4", 10) as writer:
            writer.write(next(coloured_frames()))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        failing()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((4, 4), np.uint8)],
        [np.zeros((4, 4, 3), np.float32)],
        [np.zeros((0, 4, 3), np.uint8)],
        [np.zeros((16, 16, 3), np.uint8), np.zeros((18, 16, 3), np.uint8)],
    ],
)
def test_wrong_frames_are_refused_and_leave_nothing(tmp_path, frames):
    with pytest.raises(InputError):
        write_video(tmp_path / "b.mp4", frames, fps=10)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_silently(video):
    before = video.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_video(video, coloured_frames(2), fps=10)
    assert video.read_bytes() == before
    write_video(video, coloured_frames(2), fps=10, overwrite=True)
    assert read_video_info(video).frames == 2


@pytest.mark.parametrize(("name", "fps"), [("a.avi", 10), ("a.mp4", 0), ("a.mp4", float("nan"))])
def test_wrong_names_and_rates(tmp_path, name, fps):
    with pytest.raises(InputError):
        VideoWriter(tmp_path / name, fps)


def test_broken_files(tmp_path, video):
    text, empty, cut = tmp_path / "t.mp4", tmp_path / "e.mp4", tmp_path / "c.mp4"
    text.write_text("not a video")
    empty.touch()
    cut.write_bytes(video.read_bytes()[:600])
    for path in (text, empty, cut, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(InputError, match=path.name):
            list(read_video(path))
        with pytest.raises(InputError, match=path.name):
            read_video_info(path)


def test_a_video_that_was_cut_gives_its_good_frames_and_then_says_so(tmp_path):
    noise = np.random.default_rng(0)
    frames = (noise.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(40))
    data = write_video(tmp_path / "whole.mp4", frames, fps=10).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    seen = []
    with pytest.raises(InputError, match=r"breaks off after \d+ of 40 frames"):
        seen.extend(frame.number for frame in read_video(cut))
    assert 10 < len(seen) < 40


def test_a_missing_file_is_told_before_the_first_frame_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_video(tmp_path / "missing.mp4")


def test_without_pyav_the_remedy_is_an_extra(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'priorscope\[depth\]'"):
        read_video(video)
