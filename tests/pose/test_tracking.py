"""People keep their numbers: crossing, lost for a moment, gone and come back."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.people import draw_clip
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import COCO
from priorscope_pose.tracking import Tracker, box_overlap

# A standing figure, 40 wide and 100 high, its middle at (0, 0).
HEIGHTS = {
    **{"nose": -45, "eye": -48, "ear": -47, "shoulder": -35, "elbow": -15},
    **{"wrist": 0, "hip": 5, "knee": 28, "ankle": 50},
}
FIGURE = np.array(
    [
        [
            (10 if "left" in name else -10 if "right" in name else 0) + 3 * (place % 3),
            HEIGHTS[name.rpartition("_")[2]],
        ]
        for place, name in enumerate(COCO.keypoints)
    ],
    float,
)


def swing(phase):
    """The figure with arms and legs in a phase of walking."""
    figure = FIGURE.copy()
    for name, sign in (("left_wrist", 1), ("right_wrist", -1), ("left_ankle", -1), ("right_ankle", 1)):
        figure[COCO.index(name), 0] += sign * 14 * np.sin(phase)
    return figure


def poses(*people, scores=0.9):
    """Poses of figures given as (middle x, middle y, phase)."""
    keypoints = np.array([swing(phase) + (x, y) for x, y, phase in people]).reshape(-1, 17, 2)
    boxes = np.array([[x - 25, y - 52, x + 25, y + 54] for x, y, _ in people], np.float32).reshape(-1, 4)
    values = np.full((len(people), 17), scores, np.float32)
    return Poses(keypoints, values, boxes, np.ones(len(people), np.float32), "coco", "evaluated")


def test_people_who_cross_keep_their_numbers():
    """Two walk through each other, meeting exactly on a frame; their order in the lists is shuffled."""
    tracker, rng = Tracker(COCO), np.random.default_rng(0)
    for frame in range(41):
        right = (60 + 8 * frame, 100, 0.4 * frame)
        left = (380 - 8 * frame, 100 + 2, 0.4 * frame + 2)
        order = rng.permutation(2)
        found = tracker.update(poses(*[(right, left)[place] for place in order]))
        if frame == 0:
            first = found.ids[np.argsort(order)]
        np.testing.assert_array_equal(found.ids[np.argsort(order)], first, err_msg=f"frame {frame}")
    assert sorted(first) == [1, 2]


def test_without_a_known_speed_the_nearer_place_wins():
    """What the test above would come to if nobody's movement were remembered: it can fail."""
    tracker = Tracker(COCO)
    one = tracker.update(poses((100, 100, 0), (140, 100, 0)), 0)
    # both stand still for all the tracker knows; they trade places
    other = tracker.update(poses((141, 100, 0), (99, 100, 0)), 1)
    np.testing.assert_array_equal(one.ids, [1, 2])
    np.testing.assert_array_equal(other.ids, [2, 1])


def test_lost_for_some_frames():
    """Somebody who walks is not found in three frames, then where they would have gone to."""
    tracker = Tracker(COCO)
    for frame in range(6):
        walker = tracker.update(poses((50 + 12 * frame, 100, 0), (300, 100, 0))).ids
        np.testing.assert_array_equal(walker, [1, 2])
    for _ in range(3):
        np.testing.assert_array_equal(tracker.update(poses((300, 100, 0))).ids, [2])
    np.testing.assert_array_equal(tracker.update(poses((300, 100, 0), (50 + 12 * 9, 100, 0))).ids, [2, 1])


def test_an_empty_frame_and_missing_numbers():
    tracker = Tracker(COCO)
    tracker.update(poses((50, 100, 0)), 0)
    tracker.update(poses((60, 100, 0)), 1)
    assert tracker.update(poses(), 2).ids.shape == (0,)
    # frame 3 was not looked at
    np.testing.assert_array_equal(tracker.update(poses((90, 100, 0)), 4).ids, [1])
    with pytest.raises(InputError, match="frame 4 after frame 4"):
        tracker.update(poses(), 4)


def test_gone_for_longer_than_the_patience_is_somebody_new():
    for patience, expected in ((3, 2), (4, 1)):
        tracker = Tracker(COCO, patience=patience)
        tracker.update(poses((50, 100, 0)), 0)
        assert tracker.update(poses((50, 100, 0)), 5).ids[0] == expected


def test_a_stranger_is_not_taken_for_somebody():
    tracker = Tracker(COCO)
    tracker.update(poses((50, 100, 0)))
    np.testing.assert_array_equal(tracker.update(poses((200, 100, 0))).ids, [2])


def test_poses_decide_between_equal_boxes():
    """Two in one box, told apart by their pose alone."""
    tracker = Tracker(COCO)
    first = tracker.update(poses((100, 100, 1.5), (100, 100, -1.5))).ids
    second = tracker.update(poses((100, 100, -1.4), (100, 100, 1.4))).ids
    np.testing.assert_array_equal(first, second[::-1])


def test_boxes_alone_are_enough_where_no_keypoint_counts():
    tracker = Tracker(COCO)
    tracker.update(poses((50, 100, 0), (300, 100, 0), scores=0.1))
    np.testing.assert_array_equal(tracker.update(poses((303, 100, 0), (54, 100, 0), scores=0.1)).ids, [2, 1])


def test_drawn_people_keep_the_numbers_they_were_drawn_with():
    """Three articulated figures who walk and act in front of each other; the truth gives the joints."""
    _, truths = draw_clip(7, frames=6, height=64, width=80, people=3)
    tracker, numbers = Tracker(COCO), {}
    for frame, truth in enumerate(truths):
        people = truth.people[:: 1 if frame % 2 else -1]
        joints = np.array([person.coco for person in people]).reshape(-1, 17, 3)
        found = tracker.update(
            Poses(
                joints[..., :2],
                (joints[..., 2] > 0).astype(np.float32),
                np.array([person.box for person in people], np.float32).reshape(-1, 4),
                np.ones(len(people), np.float32),
                "coco",
                "evaluated",
            )
        )
        for person, number in zip(people, found.ids, strict=True):
            assert numbers.setdefault(person.track_id, number) == number, (frame, person.track_id)
    assert len(set(numbers.values())) == len(numbers) == 3


def test_box_overlap_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 5, 5]], float)
    np.testing.assert_allclose(box_overlap(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]])


def test_settings_are_checked():
    with pytest.raises(InputError, match="similarity of 0"):
        Tracker(COCO, similarity=0)
