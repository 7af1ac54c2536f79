"""A driving face: trembling boxes become steady, lost faces are held and counted."""

import numpy as np
import pytest

from instant_gs import cli
from instant_gs.geometry import camera
from instant_gs.portrait import tracking, video
from tests.inference import fake


def face(x, side=120.0):
    return fake.Face(fake.landmarks(x, 90.0, side))


def blank(count):
    return [np.zeros((20, 20, 3), np.uint8)] * count


def run(answers, box="smoothed"):
    return tracking.track("clip.mp4", blank(len(answers)), fake.Detector(*answers), fps=25, box=box)


def test_trembling_is_smoothed_and_motion_kept():
    random = np.random.default_rng(0)
    path = 100 + 40 * np.sin(np.arange(100) / 15)
    tracked = run([face(x + random.normal(0, 2)) for x in path])
    got = np.array([crop.x for crop in tracked.crops])
    assert np.abs(got - path).mean() < 1.0, "follows the head"
    assert np.abs(np.diff(got, 2)).mean() < 1.5, "raw second differences are about 4"
    assert tracked.warnings("clip.mp4") == []


def test_a_box_is_smoothed_over_seconds_whatever_the_frame_rate():
    seen = {}
    for fps in (25, 50):
        times = np.arange(2 * fps) / fps
        answers = [face(100 + 20 * np.sin(16 * t), side=120 + 9 * np.sin(4 * t)) for t in times]
        tracked = tracking.track("clip", blank(len(times)), fake.Detector(*answers), fps=fps)
        seen[fps] = np.array([(crop.x, crop.side) for crop in tracked.crops])[:: fps // 25]
    middle = slice(10, -10)
    assert np.ptp(seen[25][middle, 0]) < 0.75 * 40, "nothing is smoothed: the test is void"
    np.testing.assert_allclose(seen[25][middle], seen[50][middle], atol=0.5)


def test_a_head_moves_quickly_and_changes_its_size_slowly():
    """A quarter of a second's swing is a move of the head, but no change of its size."""
    waves = np.sin(2 * np.pi * np.arange(100) / 6)
    tracked = run([face(100 + 20 * wave, side=120 + 20 * wave) for wave in waves])
    x, side = np.array([(crop.x, crop.side) for crop in tracked.crops])[20:-20].T
    assert np.ptp(x) > 10 and np.ptp(side) < 1


def test_still_head_keeps_its_box_to_the_ends():
    tracked = run([face(100)] * 7)
    assert [crop.x for crop in tracked.crops] == pytest.approx([100] * 7)
    assert [crop.side for crop in tracked.crops] == pytest.approx([120] * 7)


def test_the_first_releases_view_is_a_closer_crop():
    narrow = tracking.track(
        "clip", blank(2), fake.Detector(face(100)), fps=25, fov_degrees=camera.FOV_LEGACY_DEGREES
    )
    assert (narrow.crops[0].x, narrow.crops[0].y) == pytest.approx((100, 90))
    assert narrow.crops[0].side == pytest.approx(120 * 3.43311 / 4.26339, rel=1e-5)


def test_fixed_box_is_the_median():
    tracked = run([face(100), face(104), face(102), face(500)], box="fixed")
    assert [crop.x for crop in tracked.crops] == pytest.approx([103] * 4)


def test_poses_are_those_of_the_head_whatever_the_box_does():
    answers = [fake.Face(fake.landmarks(100, 90, 120, turn(angle))) for angle in (0, 0.2, 0.4)]
    answers.insert(2, None)
    for box in tracking.BOXES:
        tracked = run(answers, box)
        assert tracked.poses[:, 0] == pytest.approx([0, 0.2, 0.3, 0.4])
        assert np.abs(tracked.poses[:, 1:]).max() < 1e-6


def turn(yaw):
    """Of a head seen by a camera at this yaw."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def test_lost_faces_are_held_and_counted():
    tracked = run([None, face(100), None, None, fake.Face(face(100).landmarks, num_faces=2)])
    assert tracked.found.tolist() == [False, True, False, False, True]
    assert [crop.x for crop in tracked.crops] == pytest.approx([100] * 5)
    lost, crowd = tracked.warnings("clip.mp4")
    assert lost.startswith("clip.mp4: no face, or not the one that is followed, in 3 of 5")
    assert "the expression before is held there (--hold); " in lost
    assert lost.endswith("before the first face, the photo's own is shown")
    assert crowd.startswith("clip.mp4: several faces in 1 of 5 frames")


def test_of_two_faces_the_first_choice_is_kept():
    sizes = 120 * (1 + 0.03 * (-1.0) ** np.arange(12))
    tracked = run([[face(400, side=240 - side), face(100, side=side)] for side in sizes])
    assert [crop.x for crop in tracked.crops] == pytest.approx([100] * 12)
    (crowd,) = tracked.warnings("clip.mp4")
    assert crowd.startswith("clip.mp4: several faces in 12 of 12 frames; one is followed, the lar")


def test_another_face_is_not_taken_for_one_that_is_lost():
    both, other = [face(100), face(400)], [face(400, side=150)]
    tracked = run([both, other, other, both])
    assert tracked.found.tolist() == [True, False, False, True]
    assert [crop.x for crop in tracked.crops] == pytest.approx([100] * 4)
    tracked = run([both, both, [face(100)], other, both])
    assert tracked.found.tolist() == [True, True, True, False, True], "once was enough to know"
    assert tracked.crowded == 4
    hidden = fake.Detector(both, other, both, elsewhere=fake.Face(fake.landmarks(120, 120, 100)))
    tracked = tracking.track("clip", blank(3), hidden, fps=25)
    assert tracked.found.tolist() == [True] * 3, "searched where it was"


def test_a_face_that_left_makes_room_for_the_largest():
    others = [face(300, side=90), face(400)]
    tracked = run([[face(100), face(300, side=90)], *[others] * 20], box="smoothed")
    assert tracked.found.tolist() == [True] + [False] * 19 + [True]
    assert tracked.crops[-1].x == pytest.approx(400)
    count = tracking.SEARCH_EVERY  # lost for just as many
    tracked = run([*[[face(100), face(300, side=90)]] * count, *[others] * (count + 1)])
    assert tracked.found.tolist() == [True] * count + [False] * count + [True]


def test_a_single_face_is_followed_wherever_it_goes():
    tracked = run([face(100), face(100), face(500), face(500)])
    assert tracked.found.all() and tracked.crops[-1].x > 400


def test_no_face_at_all_names_the_video():
    with pytest.raises(cli.UserError, match=r"clip\.mp4: no face in any of 3 frames; give"):
        run([None, None, None])


def test_drivers_hold_the_last_face_through_a_gap():
    frames = [fake.picture(), np.full((200, 260, 3), 255, np.uint8), fake.picture(x=100)]
    faces = [face(130), face(100)]
    for share, seen in enumerate(faces):
        seen.coefficients = np.full(52, share, np.float32)
    detector = fake.Detector(faces[0], None, faces[1])
    tracked = tracking.track("clip", frames, detector, fps=25, box="smoothed")
    first, held, last = tracking.drivers(frames, tracked, 48)
    assert first.image.shape == last.image.shape == (48, 48, 3) and held is first
    assert not np.array_equal(first.image, last.image)
    assert [seen.coefficients[0] for seen in (first, last)] == [0, 1]
    assert first.image[0, 0].max() < 30, "the background is removed"
    kept = next(tracking.drivers(frames, tracked, 48, matte=False))
    assert kept.image[0, 0, 1] > 90, "or kept"


def test_a_lost_face_is_held_so_long_and_then_at_rest():
    frames = [fake.picture()] * 6
    answers = [face(130), None, None, None, face(130), None]
    tracked = tracking.track("clip", frames, fake.Detector(*answers), fps=25)
    drivers = tracking.drivers(frames, tracked, 48, matte=False, hold=2)
    at_rest = [seen is None for seen in drivers]
    assert at_rest == [False, False, False, True, False, False]
    with pytest.raises(ValueError, match=r"hold: expected 0 \(to the end\) or more, got -1"):
        list(tracking.drivers(frames, tracked, 48, hold=-1))


def test_nothing_is_cut_out_before_the_first_face():
    frames = [np.zeros((200, 260, 3), np.uint8)] * 2 + [fake.picture()] * 2
    detector = fake.Detector(None, None, face(130))
    tracked = tracking.track("clip", frames, detector, fps=25)
    for hold in (0, 5):
        drivers = list(tracking.drivers(frames, tracked, 48, matte=False, hold=hold))
        assert drivers[:2] == [None, None]
        assert all(seen.image.any() for seen in drivers[2:])


def test_aligned_drivers_must_be_square(tmp_path):
    with video.Writer(tmp_path / "a.mp4", fps=25) as writer:
        for _ in range(3):
            writer.append(np.full((64, 64, 3), 100, np.uint8))
    with video.Writer(tmp_path / "b.mp4", fps=25) as writer:
        writer.append(np.zeros((48, 64, 3), np.uint8))
    frames = list(tracking.aligned_drivers(video.open_video(tmp_path / "a.mp4"), 32))
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 3
    with pytest.raises(cli.UserError, match=r"b\.mp4: aligned frames must be square.*64x48"):
        list(tracking.aligned_drivers(video.open_video(tmp_path / "b.mp4"), 32))
