"""Separating a person from the background, with nothing but the picture and its landmarks.

The model knows heads over black only. GrabCut (Rother et al., 2004) learns the colours of person
and background from a guess that the landmarks give: the face is person for certain, a larger
ellipse with the shoulders below perhaps, everything else is background. It fails where hair or
clothes look like what is behind them; a photo with its own alpha or a ``--mask`` is better.
"""

import cv2
import numpy as np

#: GrabCut's working resolution and iterations: 0.6 s on one core of a 2026 server for a photo.
PHOTO = (256, 5)
#: The same for each frame of a driving video, whose motion crop has 64 pixels a side anyway.
FRAME = (96, 2)

#: A matte is not believed if it keeps less than the first share of what probably is head and
#: shoulders beside the face itself, or more than the second share of the picture.
MIN_HEAD, MAX_PICTURE = 0.08, 0.9

#: Coverage below it becomes 0: at the edge of a half-covered hair a light wall shines through, and
#: over black that rim is what one sees first.
RIM = 0.3

# Lengths below are in heights of the face (chin to the hairline's landmark), about 0.45 of the
# crop's side. Measured on portraits: hair reaches 0.35 above the landmarks, ears 0.1 beside them.
_SURE_BACKGROUND = (0.95, 0.62, 0.75)  # half width, rise above the top, fall below the middle
_PERHAPS = (0.62, 0.38, 0.65)
_NECK = 0.22  # half width of the neck
_SHOULDER = 1.05  # half width of the shoulders where they begin to fall straight down
_NECK_FALL, _SHOULDER_FALL = 0.2, 0.62  # below the chin


def matte(
    image: np.ndarray, landmarks: np.ndarray, effort: tuple[int, int] = PHOTO
) -> tuple[np.ndarray, str]:
    """Estimates coverage.

    Args:
        image: (S, S, 3) uint8 aligned crop, the head upright.
        landmarks: (478, 2 or more) in the crop's pixels.
        effort: ``PHOTO`` or ``FRAME``.

    Returns:
        (S, S) uint8 coverage, and a warning or "". If GrabCut's result cannot be true, the
        coverage is an outline guessed from the landmarks alone.
    """
    (side, _, _), (size, iterations) = image.shape, effort
    work = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    points = landmarks[:, :2] * (size / side)
    labels = _guess(points, size)
    sure = labels == cv2.GC_FGD
    guessed = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    cv2.setRNGSeed(0)  # GrabCut's clusters start at random; the same photo gives the same matte
    try:
        cv2.grabCut(
            work,
            labels,
            None,
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            iterations,
            cv2.GC_INIT_WITH_MASK,
        )
        person = _clean(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)), sure)
    except cv2.error:  # a picture of a single colour has no clusters
        person = np.zeros_like(sure)
    warning = ""
    if person[guessed & ~sure].mean() < MIN_HEAD or person.mean() > MAX_PICTURE:
        person = guessed
        warning = (
            "the background could not be told from the person, an outline guessed from the face "
            "is used; give a photo with a transparent background or --mask"
        )
    alpha = _soften(work, person.astype(np.float32))
    alpha = cv2.resize(alpha, (side, side), interpolation=cv2.INTER_LINEAR)
    alpha = np.clip((alpha - RIM) / (1 - RIM), 0, 1)
    return np.round(alpha * 255).astype(np.uint8), warning


def over_black(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 times (H, W) uint8 coverage."""
    return cv2.multiply(image, cv2.merge([alpha] * 3), scale=1 / 255)


def _guess(points: np.ndarray, size: int) -> np.ndarray:
    """GrabCut's labels (size, size) from landmarks in its pixels."""
    top, chin = points[10], points[152]
    height = float(np.linalg.norm(chin - top))
    middle = (points[127] + points[356] + top + chin) / 4

    labels = np.full((size, size), cv2.GC_BGD, np.uint8)
    _paint(labels, _head(middle, top, height, _SURE_BACKGROUND), cv2.GC_PR_BGD)
    _paint(labels, _body(chin, height, 1.3, size), cv2.GC_PR_BGD)
    _paint(labels, _head(middle, top, height, _PERHAPS), cv2.GC_PR_FGD)
    _paint(labels, _body(chin, height, 1.0, size), cv2.GC_PR_FGD)
    labels[_face(points, size)] = cv2.GC_FGD
    _paint(labels, _body(chin, height, 0.45, size), cv2.GC_FGD)
    return labels


def _face(points: np.ndarray, size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    _paint(mask, cv2.convexHull(points.astype(np.float32))[:, 0], 1)
    return mask.astype(bool)


def _head(middle, top, height: float, lengths) -> np.ndarray:
    """An egg around the head: ellipses of different height above and below the middle."""
    half_width, rise, fall = (length * height for length in lengths)
    rise += middle[1] - top[1]
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    reach = np.where(np.sin(angles) < 0, rise, fall)
    return np.stack(
        [middle[0] + half_width * np.cos(angles), middle[1] + reach * np.sin(angles)], axis=-1
    )


def _body(chin, height: float, share: float, size: int) -> np.ndarray:
    """Neck and shoulders down to the lower edge, ``share`` of their usual width."""
    x, y = chin
    y -= 0.1 * height  # the neck begins behind the chin
    neck, shoulder = share * _NECK * height, share * _SHOULDER * height
    fall, bottom = y + _NECK_FALL * height, y + _SHOULDER_FALL * height
    low = max(2 * size, bottom + 1)
    right = [(x + neck, y), (x + 1.1 * neck, fall), (x + shoulder, bottom), (x + shoulder, low)]
    left = [(2 * x - px, py) for px, py in reversed(right)]
    return np.array(right + left)


def _paint(mask: np.ndarray, polygon: np.ndarray, value: int) -> None:
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], int(value))


def _clean(person: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Keeps what hangs together with the face, without holes."""
    person = cv2.morphologyEx(person.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    person |= sure.astype(np.uint8)
    _, parts = cv2.connectedComponents(person)
    person = np.isin(parts, np.unique(parts[sure & (parts > 0)])).astype(np.uint8)
    # Holes: background that does not reach the frame (a padded border makes it one part).
    _, parts = cv2.connectedComponents(np.pad(1 - person, 1, constant_values=1))
    holes = (parts != parts[0, 0]) & (parts > 0)
    return (person | holes[1:-1, 1:-1]).astype(bool)


def _soften(image: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Guided filter (He et al., 2010) on luminance: the edge follows the picture's."""
    radius, epsilon = (max(3, person.shape[0] // 28),) * 2, 1e-3
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mean_guide, mean_person = cv2.blur(guide, radius), cv2.blur(person, radius)
    covariance = cv2.blur(guide * person, radius) - mean_guide * mean_person
    variance = cv2.blur(guide * guide, radius) - mean_guide**2
    slope = covariance / (variance + epsilon)
    offset = mean_person - slope * mean_guide
    return cv2.blur(slope, radius) * guide + cv2.blur(offset, radius)
