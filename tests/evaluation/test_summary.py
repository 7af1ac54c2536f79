"""Averages, failures and ratios."""

import math

import numpy as np

from instant_gs.evaluation import evaluator, summary

NAN = math.nan


def _cases():
    return [
        {
            "moved": {"error_mouth": 0.1, "error_eyes": NAN, "face_found": 1.0},
            "rest": {"error_mouth": 0.3, "error_eyes": NAN, "face_found": 1.0},
        },
        {
            "moved": {"error_mouth": 0.3, "error_eyes": 0.2, "face_found": 0.0},
            "rest": {"error_mouth": 0.2, "error_eyes": 0.4, "face_found": 1.0},
        },
        {"moved": {"face_found": NAN}, "rest": {"face_found": NAN}},
    ]


def test_summarise():
    part = summary.summarise(_cases())
    assert part["count"] == 3
    mouth = part["scores"]["moved"]["error_mouth"]
    assert mouth["count"] == 2
    np.testing.assert_allclose([mouth["mean"], mouth["median"]], 0.2)
    np.testing.assert_allclose(mouth["stderr"], 0.1)
    assert part["scores"]["moved"]["error_eyes"]["count"] == 1
    assert part["failure_rate"] == 0.5, "of the two truths with a face"


def test_the_median_is_no_mean_and_a_tie_is_no_improvement():
    values = [(0.1, 0.2), (0.2, 0.2), (0.9, 0.2)]
    cases = [{"moved": {"error_eyes": m}, "rest": {"error_eyes": r}} for m, r in values]
    part = summary.summarise(cases)
    np.testing.assert_allclose(part["scores"]["moved"]["error_eyes"]["mean"], 0.4)
    np.testing.assert_allclose(part["scores"]["moved"]["error_eyes"]["median"], 0.2)
    np.testing.assert_allclose(part["ratios"]["error_eyes"]["share_improved"], 1 / 3)


def test_ratio_is_of_the_means():
    ratios = summary.summarise(_cases())["ratios"]
    np.testing.assert_allclose(ratios["error_mouth"]["ratio"], 0.4 / 0.5)
    assert ratios["error_mouth"]["share_improved"] == 0.5
    assert ratios["error_eyes"]["count"] == 1
    assert "expression_error" not in ratios


def test_nothing_to_average():
    part = summary.summarise([{"moved": {}, "rest": {}}])
    assert part["ratios"] == {} and part["failure_rate"] is None


def test_without_nan():
    assert evaluator.without_nan({"a": [NAN, 1.0, (NAN,)]}) == {"a": [None, 1.0, [None]]}
