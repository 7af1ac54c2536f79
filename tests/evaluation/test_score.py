"""Scores of outcomes whose pictures are known."""

import math

import numpy as np
import pytest

from instant_gs import types
from instant_gs.evaluation import protocol, reenactment, report, score

EYES, MOUTH, BROWS = 2, 3, 4


def _outcome(moved_error=0, truth=True, other_driver=False):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 180, (32, 32, 3)).astype(np.uint8)
    regions = np.ones((32, 32), np.uint8)
    regions[20:24, 10:20] = MOUTH
    moved, rest = image.copy(), image.copy()
    moved[regions == MOUTH] += np.uint8(moved_error)
    rest[regions == MOUTH] += np.uint8(40)
    case = protocol.Case(
        name="case",
        person="somebody",
        source=rest,
        driver=np.full_like(image, 250) if other_driver else image,
        truth=image if truth else None,
        regions=regions if truth else None,
        camera=types.Camera(np.eye(4), np.eye(3)),
        other_driver=other_driver,
    )
    return reenactment.Outcome(case, moved, rest)


@pytest.fixture(scope="module")
def image_scorer():
    return score.ImageScorer()


def test_image_scores(image_scorer):
    scores = image_scorer(_outcome(moved_error=10))
    moved, rest = scores["moved"], scores["rest"]
    np.testing.assert_allclose(moved["error_mouth"], 10 / 255, rtol=1e-4)
    np.testing.assert_allclose(rest["error_mouth"], 40 / 255, rtol=1e-4)
    np.testing.assert_allclose(moved["error_eyes_mouth"], moved["error_mouth"], rtol=1e-4)
    assert math.isnan(moved["error_eyes"]), "there are no eyes"
    np.testing.assert_allclose(rest["l1"], 40 / 255 * 40 / 1024, rtol=1e-4)
    assert moved["psnr"] > rest["psnr"] and moved["ssim"] > rest["ssim"]
    assert 0 < moved["lpips"] < rest["lpips"]


def test_an_error_over_eyes_and_mouth_is_of_these_alone(image_scorer):
    outcome = _outcome(moved_error=10)
    outcome.case.regions[4:8, 10:20], outcome.case.regions[0:2] = EYES, BROWS
    outcome.moved[4:8, 10:20] += np.uint8(20)
    outcome.moved[0:2] += np.uint8(60)
    moved = image_scorer(outcome)["moved"]
    errors = [255 * moved[f"error_{name}"] for name in ("eyes", "mouth", "eyes_mouth")]
    np.testing.assert_allclose(errors, [20, 10, 15], rtol=1e-4)


def test_each_perceptual_distance_is_its_own_networks(monkeypatch):
    answers = {"alexnet": 0.25, "vgg": 0.5}

    def network(name):
        return lambda pictures, truth: np.full(len(pictures), answers[name], np.float32)

    monkeypatch.setattr(score.lpips_lib, "Lpips", network)
    monkeypatch.setattr(score.image, "ssim", score.image.psnr)  # compiles in no time
    moved = score.ImageScorer(("alexnet", "vgg"))(_outcome())["moved"]
    assert (moved["lpips"], moved["lpips_vgg"]) == (0.25, 0.5)


def test_the_report_says_which_way_is_better():
    better = {name for name, (_, _, way) in report.SCORES.items() if way == "higher"}
    assert better == {"psnr", "ssim", "face_found", "identity_kept"}
    assert {way for _, _, way in report.SCORES.values()} == {"higher", "lower"}


def test_without_a_truth_every_score_has_its_name_and_no_value(image_scorer, landmarker):
    for scorer in (image_scorer, score.FaceScorer(landmarker)):
        known, nothing = scorer(_outcome()), scorer(_outcome(truth=False))
        for variant in score.VARIANTS:
            assert nothing[variant].keys() == known[variant].keys()
            values = {
                name: value for name, value in nothing[variant].items() if not math.isnan(value)
            }
            assert values == ({} if scorer is image_scorer else {"face_found": 1})


def test_face_scores(landmarker):
    scores = score.FaceScorer(landmarker)(_outcome(moved_error=0))
    assert scores["moved"] == {"face_found": 1, "expression_error": 0, "landmark_error": 0}
    assert scores["rest"]["expression_error"] > 0
    assert scores["rest"]["landmark_error"] > 0


def test_a_face_that_is_not_found_is_a_failure(landmarker):
    outcome = _outcome()
    outcome.moved[:] = 0
    moved = score.FaceScorer(landmarker)(outcome)["moved"]
    assert moved["face_found"] == 0
    assert moved["expression_error"] == score.FAILED_EXPRESSION
    assert moved["landmark_error"] == score.FAILED_LANDMARKS


def test_blind_detector_scores_nothing(landmarker):
    landmarker.blind = True
    moved = score.FaceScorer(landmarker)(_outcome())["moved"]
    assert all(math.isnan(value) for value in moved.values())


class _Embedder:
    def embed(self, image, box=None):
        return None if not image.any() else np.full(128, image.mean() / 255, np.float32)


def test_identity(landmarker):
    scorer = score.FaceScorer(landmarker, _Embedder())
    scores = scorer(_outcome())
    assert scores["moved"]["identity_distance"] == 0
    assert math.isnan(scores["moved"]["identity_kept"]), "the driver is the same person"
    assert scores["rest"]["identity_distance"] > 0
    crossed = _outcome(other_driver=True)
    assert scorer(crossed)["moved"]["identity_kept"] == 1
    crossed.moved[:] = 245
    assert scorer(crossed)["moved"]["identity_kept"] == 0
    crossed.moved[:] = 0
    moved = scorer(crossed)["moved"]
    assert moved["identity_distance"] == score.FAILED_IDENTITY and moved["identity_kept"] == 0


def test_identity_without_a_truth_or_a_face_in_it(landmarker):
    """It is that of the source; of a truth that shows nobody nothing can be said."""
    scorer = score.FaceScorer(landmarker, _Embedder())
    outcome = _outcome(truth=False, other_driver=True)
    scores = scorer(outcome)
    assert scores["rest"]["identity_distance"] == 0, "the source itself"
    assert scores["moved"]["identity_distance"] > 0 and scores["moved"]["identity_kept"] == 1
    nobody = _outcome(other_driver=True)
    nobody.case.truth[:] = 0
    moved = scorer(nobody)["moved"]
    assert math.isnan(moved["identity_distance"]) and math.isnan(moved["identity_kept"])
