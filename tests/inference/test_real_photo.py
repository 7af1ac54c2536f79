"""The real detector on the real demo photo: numbers that were looked at, as pictures, once."""

import cv2
import numpy as np
import pytest
from PIL import Image

from instant_gs.inference import source
from instant_gs.portrait import alignment, detection, tracking


def test_astronaut_is_aligned_and_matted(detector, astronaut, tmp_path):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    aligned = source.align(tmp_path / "photo.png", detector, 96)
    crop = aligned.crop
    assert (crop.x, crop.y, crop.side) == pytest.approx((225, 119, 201), abs=4)
    assert np.degrees(crop.roll_rad) == pytest.approx(2.8, abs=1)
    assert aligned.warnings == ()
    pupils = alignment.to_crop(aligned.landmarks[[468, 473]], crop, 1)
    assert np.linalg.norm(pupils[0] - pupils[1]) == pytest.approx(0.2, abs=0.025)
    assert pupils[:, 0].mean() == pytest.approx(0.5, abs=0.02)
    assert pupils[:, 1].mean() == pytest.approx(0.41, abs=0.03)
    # The light wall beside the head is gone, hair and face are not.
    assert aligned.image[:40, :8].max() < 20 and aligned.image[:40, -8:].max() < 20
    assert aligned.image[20:70, 35:60].min(0).mean() > 30


def test_turned_and_small_photos_give_the_same_head(detector, astronaut, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8  # to be shown turned counter-clockwise by 90 degrees
    turned = np.ascontiguousarray(np.rot90(astronaut, -1))
    Image.fromarray(turned).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(astronaut[20:210, 125:325]).save(tmp_path / "tight.png")
    Image.fromarray(astronaut).save(tmp_path / "plain.png")
    plain, turned, tight = (
        source.align(tmp_path / f"{name}.png", detector, 64).crop
        for name in ("plain", "turned", "tight")
    )
    assert (turned.x, turned.y, turned.side) == pytest.approx(
        (plain.x, plain.y, plain.side), abs=0.5
    )
    assert (tight.x + 125, tight.y + 20, tight.side) == pytest.approx(
        (plain.x, plain.y, plain.side), abs=6
    )


def test_head_of_a_twentieth_of_the_picture_is_found(detector, astronaut):
    image = np.full((1000, 1500, 3), 120, np.uint8)
    image[400:600, 900:1100] = astronaut[20:420:2, 100:500:2]
    assert detector.detect(image) is None, "else this test is of no use"
    crop = alignment.locate(detection.find_face(detector, image).landmarks)
    expected = (900 + (225 - 100) / 2, 400 + (119 - 20) / 2, 201 / 2)
    assert (crop.x, crop.y, crop.side) == pytest.approx(expected, abs=4)


def test_driving_video_of_the_astronaut(detector, astronaut):
    frames = [np.ascontiguousarray(np.roll(astronaut, 3 * i, 1)[:260, 100:420]) for i in range(8)]
    frames[3] = np.zeros_like(frames[3])
    tracked = tracking.track("clip", frames, detector, fps=25)
    assert tracked.found.tolist() == [True] * 3 + [False] + [True] * 4
    moves = np.diff([crop.x for crop in tracked.crops])
    assert moves.mean() == pytest.approx(3, abs=0.5)
    drivers = tracking.drivers(frames, tracked, 64)
    images = np.stack([seen.image for seen in drivers]).astype(int)
    face_part = images[:, 20:50, 20:44]
    assert np.abs(face_part - face_part[0]).mean() < 12, "the head stays where it is"


def test_two_faces_of_one_size_do_not_share_the_crop(detector, astronaut):
    frames = []
    for index in range(6):
        frames.append(np.full((360, 800, 3), 110, np.uint8))
        for left, sign in ((60, 1), (480, -1)):
            factor = 1 + sign * 0.03 * np.sin(index)
            head = cv2.resize(astronaut[:230, 100:350], None, fx=factor, fy=factor)
            frames[-1][60 : 60 + len(head), left : left + head.shape[1]] = head
    tracked = tracking.track("clip", frames, detector, fps=25)
    assert tracked.crowded == 6 and tracked.found.all()
    assert [crop.x for crop in tracked.crops] == pytest.approx([185] * 6, abs=8)
