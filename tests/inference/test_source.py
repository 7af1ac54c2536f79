"""From photo to encoder input: the right face, over black, with everything said aloud."""

import time
from concurrent import futures

import cv2
import numpy as np
import pytest
from PIL import Image

from instant_gs import cli
from instant_gs.geometry import camera
from instant_gs.inference import calibration, source
from instant_gs.metrics import face as face_lib
from instant_gs.portrait import alignment, detection, matting
from tests.inference import fake

FACE = fake.Face(fake.landmarks(130, 90, 120))


@pytest.fixture(autouse=True)
def painted(monkeypatch):
    monkeypatch.setattr(matting, "_network", fake.Segmenter)


@pytest.fixture
def path(tmp_path):
    Image.fromarray(fake.picture()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_face_is_centred_over_black(path):
    aligned = source.align(path, fake.Detector(FACE), 64)
    image = aligned.image.astype(int)
    assert image.shape == (64, 64, 3) and aligned.image.dtype == np.uint8
    assert image[32, 32, 0] - image[32, 32, 1] > 60, "the red dot is in the middle"
    green = (image[..., 1] > image[..., 0] + 30) & (image[..., 1] > 90)
    assert green.mean() < 0.03, "the wall is gone"
    skin = (image[..., 0] > 180) & (image[..., 1] > 120)
    assert skin.mean() > 0.15, "the face is not"
    assert aligned.warnings == ()


def test_an_array_is_aligned_as_its_file_is(path):
    pixels = fake.picture()
    got = source.align(pixels, fake.Detector(FACE), 64)
    np.testing.assert_array_equal(got.image, source.align(path, fake.Detector(FACE), 64).image)
    assert source.explain(got).shape[2] == 3
    with pytest.raises(cli.UserError, match=r"^photo: no face found; give a photo"):
        source.align(pixels, fake.Detector(None), 64)
    with pytest.raises(TypeError, match=r"^photo: expected a path or an .* got bytes; decode it"):
        source.align(b"pixels", fake.Detector(FACE), 64)


def test_the_first_releases_view_is_closer(path):
    """Its crop is the middle of the wide one, at the same size."""
    narrow = camera.FOV_LEGACY_DEGREES
    wide = source.align(path, fake.Detector(FACE), 200)
    near = source.align(path, fake.Detector(FACE), 200, fov_degrees=narrow)
    part = round(200 * 3.43311 / 4.26339 / 2)
    assert near.crop.side == pytest.approx(120 * 3.43311 / 4.26339, rel=1e-5)
    want = cv2.resize(wide.image[100 - part : 100 + part, 100 - part : 100 + part], (200, 200))
    face = np.s_[70:130, 70:130]
    assert np.abs(near.image[face].astype(int) - want[face]).mean() < 6


def test_own_matte_wins_over_the_estimate(path, tmp_path):
    rgba = np.dstack([fake.picture(), np.full((200, 260), 255, np.uint8)])
    rgba[:, :130, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    Image.fromarray(rgba[..., 3]).save(tmp_path / "mask.png")
    by_alpha = source.align(tmp_path / "cut.png", fake.Detector(FACE), 64)
    by_mask = source.align(path, fake.Detector(FACE), 64, tmp_path / "mask.png")
    np.testing.assert_array_equal(by_alpha.image, by_mask.image)
    assert by_alpha.image[:, :31].max() == 0 and by_alpha.image[:, 33:].min(-1).max() > 30


def test_what_lies_outside_the_photo_is_black_and_transparent(tmp_path):
    Image.fromarray(fake.picture(120, 260, 130, 40)).save(tmp_path / "top.png")
    face = fake.Face(fake.landmarks(130, 40, 120))
    aligned = source.align(tmp_path / "top.png", fake.Detector(face), 60)
    assert (aligned.image[:9] == 0).all()
    assert (aligned.cutout[:70, :, 3] == 0).all()


def test_warnings(path):
    crowd = fake.Face(FACE.landmarks, num_faces=3)
    assert "3 faces found, the largest" in source.align(path, fake.Detector(crowd), 64).warnings[0]
    assert "only 120 pixels" in source.align(path, fake.Detector(FACE), 512).warnings[0]


@pytest.mark.parametrize("yaw", [-60, -40, 40, 60])
def test_a_strongly_turned_head_is_said_whichever_way_it_looks(path, yaw):
    turned = fake.Face(fake.landmarks(130, 90, 120, calibration.head_to_picture(yaw, 0)))
    warnings = source.align(path, fake.Detector(turned), 64).warnings
    assert ["turned by 60 degrees" in text for text in warnings] == [True] * (abs(yaw) > 50)


def test_the_detector_sees_grey_where_a_photo_is_transparent(tmp_path):
    """Whatever colour the file has there."""
    rgba = np.dstack([fake.picture(), np.full((200, 260), 255, np.uint8)])
    rgba[:, :20] = (9, 250, 9, 0)
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    seen = []

    class Detector(fake.Detector):
        def faces(self, image):
            seen.append(image)
            return super().faces(image)

    source.align(tmp_path / "cut.png", Detector(FACE), 64)
    assert (seen[0][:, :20] == 127).all()
    np.testing.assert_array_equal(seen[0][:, 20:], fake.picture()[:, 20:])


def test_read_finds_the_face_in_the_models_view(path, monkeypatch):
    monkeypatch.setattr(face_lib, "FaceLandmarker", lambda: fake.Detector(FACE))
    for view in (camera.FOV_WIDE_DEGREES, camera.FOV_LEGACY_DEGREES):
        got = source.read(path, 64, aligned=False, fov_degrees=view)
        want = source.align(path, fake.Detector(FACE), 64, fov_degrees=view)
        assert got.crop == want.crop


def test_face_that_fills_the_picture_is_tried_with_a_border(path):
    border = round(detection.PADDING * 260)
    shifted = fake.Face(FACE.landmarks + np.array([border, border, 0]))
    aligned = source.align(path, fake.Detector(None, elsewhere=shifted), 64)
    assert (aligned.crop.x, aligned.crop.y) == pytest.approx((130, 90))


class RedDot:
    """Sees a head around a red dot, if the picture is not much larger than the head."""

    def faces(self, image):
        values = image.astype(int)
        rows, columns = np.nonzero(values[..., 0] - values[..., 1:].max(-1) > 150)
        if not len(rows) or max(image.shape[:2]) > 300:
            return []
        return [fake.Face(fake.landmarks(columns.mean() + 0.5, rows.mean() + 0.5, 120))]


def test_small_face_is_found_in_a_part_of_the_picture():
    image = np.full((700, 1000, 3), 90, np.uint8)
    image[433:436, 811:814] = (255, 0, 0)
    found = detection.find_face(RedDot(), image)
    np.testing.assert_allclose(found.landmarks[33], fake.landmarks(812.5, 434.5, 120)[33], atol=1)
    assert detection.find_face(RedDot(), image, thorough=False) is None
    near = alignment.Crop(830, 420, 120)
    found = detection.find_face(RedDot(), image, near=near, thorough=False)
    np.testing.assert_allclose(found.landmarks[33], fake.landmarks(812.5, 434.5, 120)[33], atol=1)
    # A box beyond the picture's corner is grey there, not an error.
    corner = alignment.Crop(-500, -500, 120)
    assert detection.find_face(RedDot(), image, near=corner, thorough=False) is None


class WholeHead:
    """Sees a head of 100 pixels around a red dot, if it is wholly in the picture."""

    def faces(self, image):
        values = image.astype(int)
        rows, columns = np.nonzero(values[..., 0] - values[..., 1:].max(-1) > 150)
        if not len(rows) or max(image.shape[:2]) > 300:
            return []
        place = np.array([columns.mean(), rows.mean()])
        room = np.minimum(place, np.array(image.shape[1::-1]) - place).min()
        return [fake.Face(fake.landmarks(*place, 120))] if room > 50 else []


@pytest.mark.parametrize("column", range(70, 940, 72))
def test_no_small_face_is_cut_by_a_seam(column):
    image = np.full((700, 1000, 3), 90, np.uint8)
    image[349:352, column - 1 : column + 2] = (255, 0, 0)
    assert detection.find_face(WholeHead(), image) is not None


def test_faces_in_different_parts_of_the_picture_are_counted():
    image = np.full((700, 1000, 3), 90, np.uint8)
    image[433:436, 811:814] = (255, 0, 0)
    assert detection.find_face(RedDot(), image).num_faces == 1
    image[133:136, 111:114] = (255, 0, 0)
    assert detection.find_face(RedDot(), image).num_faces == 2


def test_errors_name_the_photo(path, tmp_path):
    with pytest.raises(cli.UserError, match=r"photo\.png: no face found; give a photo"):
        source.align(path, fake.Detector(None), 64)
    mask = np.zeros((200, 260), np.uint8)
    mask[180:, :20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(cli.UserError, match=r"mask\.png: the matte hides the face"):
        source.align(path, fake.Detector(FACE), 64, tmp_path / "mask.png")
    with pytest.raises(cli.UserError, match="must be square, this is 260x200"):
        source.read_aligned(path, 64)


def test_aligned_source_is_only_resized(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(source.read_aligned(tmp_path / "a.png", 64).image, image)
    assert source.read_aligned(tmp_path / "a.png", 32).image.shape == (32, 32, 3)
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.dstack([image, alpha])).save(tmp_path / "b.png")
    shown = source.read(tmp_path / "b.png", 64, aligned=True).image
    assert not shown[:20].any(), "over black"
    np.testing.assert_array_equal(shown[20:], image[20:])


def test_show_crop_picture(path):
    shown = source.explain(source.align(path, fake.Detector(FACE), 64))
    size = source.WORK_SIZE
    assert shown.shape == (size, 3 * size, 3)
    assert (shown[:, :size] == (255, 200, 0)).all(-1).sum() > 500, "the square is drawn"
    nose = np.round(FACE.landmarks[5, :2] * size / 260).astype(int)
    assert (shown[nose[1], nose[0]] == (0, 255, 120)).all(), "landmarks lie on the photo"


class Says:
    """A segmentation network with one answer."""

    def __init__(self, coverage):
        self.coverage = lambda _: coverage.astype(np.float32).copy()


def matte(monkeypatch, coverage):
    monkeypatch.setattr(matting, "_network", lambda: Says(coverage))
    return matting.matte(np.zeros((64, 64, 3), np.uint8), fake.landmarks(32, 32, 64))


@pytest.mark.parametrize("keep", [0.0, 1.0])
def test_a_matte_that_cannot_be_true_is_said_and_shows_the_face(monkeypatch, keep):
    alpha, warning = matte(monkeypatch, np.full((64, 64), keep))
    assert "--mask" in warning
    assert alpha[34, 32] == 255 and alpha[1, 1] == 255 * keep


def test_threads_take_turns_at_the_network(monkeypatch):
    """MediaPipe's network mixes up pictures that come at once."""
    inside, most = [], []

    def coverage(image):
        inside.append(image)
        most.append(len(inside))
        time.sleep(0.01)
        return np.full(inside.pop().shape[:2], 1, np.float32)

    network = Says(np.ones((64, 64)))
    network.coverage = coverage
    monkeypatch.setattr(matting, "_network", lambda: network)
    picture, points = np.zeros((64, 64, 3), np.uint8), fake.landmarks(32, 32, 64)
    with futures.ThreadPoolExecutor(4) as threads:
        done = [threads.submit(matting.matte, picture, points) for _ in range(8)]
        assert all(one.result()[0].shape == (64, 64) for one in done)
    assert most == [1] * 8


def test_others_and_thin_rims_are_left_out(monkeypatch):
    coverage = np.zeros((64, 64))
    coverage[10:, 10:54] = 1
    coverage[10:, 54:57] = matting.RIM - 0.01
    coverage[:30, 60:] = 1  # somebody else
    alpha, warning = matte(monkeypatch, coverage)
    assert warning == ""
    assert (alpha[10:, 10:54] == 255).all() and alpha[:, 54:].max() == alpha[:10].max() == 0


def test_thin_hair_stays_half_covered(monkeypatch):
    coverage = np.zeros((64, 64))
    coverage[:, 3:60] = 1  # nine tenths of the picture: a portrait from close by
    coverage[:, 60:62] = 0.5
    alpha, warning = matte(monkeypatch, coverage)
    assert warning == ""
    assert (alpha[:, 60:62] == round(255 * (0.5 - matting.RIM) / (1 - matting.RIM))).all()


def test_over_black_what_is_covered_keeps_its_colour():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[:, :8], alpha[:, 8:10] = 0, 51
    out = matting.over_black(image, alpha)
    np.testing.assert_array_equal(out[:, 10:], image[:, 10:])
    np.testing.assert_array_equal(out[:, :8], 0)
    np.testing.assert_allclose(out[:, 8:10], image[:, 8:10] / 5, atol=0.51)
