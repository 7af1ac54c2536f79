"""What a still face's pictures differ by: sensor noise, and the tremble of its crop."""

import cv2
import numpy as np

#: Standard deviation of the sensor noise, in steps of 8 bits: a phone's camera in a lit room.
SENSOR_NOISE = 2.0

#: Pixels of the aligned picture by which the crop may be off, either way along both axes.
CROP_JITTER = 1.0


def disturb(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What another exposure of a still face looks like behind tracking and matting.

    Args:
        image: (S, S, 3) uint8, aligned, over black.
        random: Draws ``SENSOR_NOISE`` and ``CROP_JITTER``.

    Returns:
        (S, S, 3) uint8, over black.
    """
    size = image.shape[0]
    shift = random.uniform(-CROP_JITTER, CROP_JITTER, 2)
    matrix = np.concatenate([np.eye(2), shift[:, None]], axis=1)
    moved = cv2.warpAffine(image, matrix, (size, size)).astype(np.float32)
    noise = random.normal(0, SENSOR_NOISE, moved.shape)
    person = moved.max(-1, keepdims=True) > 0  # noise of the background went with it
    return np.clip(np.round(moved + noise * person), 0, 255).astype(np.uint8)
