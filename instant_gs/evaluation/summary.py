"""Averages over test cases, and what the motion is worth."""

import math
from collections.abc import Sequence

import numpy as np

from instant_gs.evaluation import score

#: Errors whose ratio "with motion / without motion" says whether the head really moves.
RATIOS = ("error_eyes", "error_mouth", "error_eyes_mouth", "expression_error", "landmark_error")


def summarise(cases: Sequence[dict[str, dict[str, float]]]) -> dict:
    """Averages the scores of cases.

    Args:
        cases: For each case, variant ("moved", "rest") -> score -> value; NaN where a case has
            no such score.

    Returns:
        ``count``; ``scores``: variant -> score -> {mean, median, stderr, count}; ``ratios``:
        score -> {with_motion, without_motion, ratio, share_improved}, over cases that have the
        score with and without motion; ``failure_rate``: share of results in which no face is
        found although one is in the truth, None without such a truth.
    """
    scores = {
        variant: {name: _average(_column(cases, variant, name)) for name in _names(cases, variant)}
        for variant in score.VARIANTS
    }
    ratios = {name: ratio for name in RATIOS if (ratio := _ratio(cases, name)) is not None}
    found = scores["moved"].get("face_found", {}).get("mean")
    return {
        "count": len(cases),
        "scores": scores,
        "ratios": ratios,
        "failure_rate": None if found is None else 1 - found,
    }


def _names(cases, variant: str) -> list[str]:
    return list(dict.fromkeys(name for case in cases for name in case[variant]))


def _column(cases, variant: str, name: str) -> np.ndarray:
    return np.array([case[variant].get(name, math.nan) for case in cases], np.float64)


def _average(values: np.ndarray) -> dict:
    """Mean over the cases that have the value; all None if none has."""
    values = values[~np.isnan(values)]
    if not values.size:
        return {"mean": None, "median": None, "stderr": None, "count": 0}
    spread = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "stderr": spread,
        "count": int(values.size),
    }


def _ratio(cases, name: str) -> dict | None:
    """Ratio of the means: a mean of ratios would be ruled by cases with nothing to move."""
    moved, rest = (_column(cases, variant, name) for variant in ("moved", "rest"))
    both = ~np.isnan(moved) & ~np.isnan(rest)
    if not both.any() or rest[both].mean() == 0:
        return None
    moved, rest = moved[both], rest[both]
    return {
        "with_motion": float(moved.mean()),
        "without_motion": float(rest.mean()),
        "ratio": float(moved.mean() / rest.mean()),
        "share_improved": float((moved < rest).mean()),
        "count": int(both.sum()),
    }
