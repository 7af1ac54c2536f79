"""Pictures of an evaluation: rows of a contact sheet and views around a head."""

import math

import cv2
import numpy as np

from instant_gs import types
from instant_gs.evaluation import reenactment
from instant_gs.geometry import camera as camera_lib

COLUMNS = ("source", "driver", "result", "without motion", "truth", "error x3")
ERROR_GAIN = 3  # an error of a third of the range is white
SMALLEST_TILE = 160  # side in pixels of what the report shows

#: Yaw of a strip's views, degrees: what "the same head from the side" is judged by.
STRIP_YAWS_DEGREES = (-30, -20, -10, 0, 10, 20, 30)


def row(outcome: reenactment.Outcome) -> np.ndarray:
    """One row of the contact sheet, ``COLUMNS`` side by side.

    Args:
        outcome: Pictures of side S.

    Returns:
        (S, 6 S, 3) uint8; truth and error are black where there is no truth.
    """
    case = outcome.case
    truth, error = np.zeros_like(outcome.moved), np.zeros_like(outcome.moved)
    if case.truth is not None:
        truth = case.truth
        difference = np.abs(outcome.moved.astype(np.int16) - truth)
        error = np.minimum(ERROR_GAIN * difference, 255).astype(np.uint8)
    return np.concatenate(
        [case.source, case.driver, outcome.moved, outcome.rest, truth, error], axis=1
    )


def strip_cameras(intrinsics: np.ndarray) -> list[types.Camera]:
    """The cameras of a strip, at the reference distance.

    Args:
        intrinsics: (3, 3) normalised.
    """
    return [
        types.Camera(camera_lib.look_at(math.radians(yaw), 0.0), np.asarray(intrinsics))
        for yaw in STRIP_YAWS_DEGREES
    ]


def strip(views: list[np.ndarray]) -> np.ndarray:
    """Views (S, S, 3) side by side."""
    return np.concatenate(views, axis=1)


def png(image: np.ndarray) -> bytes:
    """Encodes a picture for the report.

    Args:
        image: (S, n S, 3) uint8. If S is below ``SMALLEST_TILE`` it is enlarged, by a whole
            factor, without smoothing over what the model drew.

    Returns:
        The PNG's bytes.
    """
    factor = math.ceil(SMALLEST_TILE / image.shape[0])
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
