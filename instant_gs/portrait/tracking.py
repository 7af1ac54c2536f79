"""The driving face from frame to frame: found, its box made steady, cut out over black."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from instant_gs import cli
from instant_gs.geometry import camera as camera_lib
from instant_gs.portrait import alignment, detection, matting, video

#: Standard deviations in seconds of the Gaussian that smooths the box: detectors tremble from
#: frame to frame, heads need about a third of a second to go anywhere, and hardly change size.
CENTER_SECONDS = 0.06
SIDE_SECONDS = 0.4

#: Only every so many frames a lost face is searched everywhere, which takes half a second. One that
#: was lost for so long is then given up.
SEARCH_EVERY = 10

BOXES = ("smoothed", "fixed")


@dataclasses.dataclass(frozen=True)
class Track:
    """Where the driving face is.

    Attributes:
        crops: One Crop a frame; of frames without a face between those of its neighbours.
        landmarks: (478, 2) float32 pixels each; None of frames without a face.
        coefficients: (52,) float32 each, the expressions; None of frames without a face.
        poses: (T, 3) yaw, pitch and roll of ``alignment.Crop.viewpoint``, radians, as detected;
            of frames without a face between those of its neighbours.
        found: (T,) bool.
        crowded: How many frames show another face than the one that is followed.
    """

    crops: tuple[alignment.Crop, ...]
    landmarks: tuple[np.ndarray | None, ...]
    coefficients: tuple[np.ndarray | None, ...]
    poses: np.ndarray
    found: np.ndarray
    crowded: int

    def warnings(self, name, *, hold_seconds: float = 0.0) -> list[str]:
        """Sentences for the user about the video called ``name``, held as ``drivers`` is told."""
        sentences = []
        lost = int((~self.found).sum())
        if lost:
            held = "is held there (--hold)"
            if hold_seconds:
                held = f"is held for {hold_seconds:g} s, then the photo's own returns"
            early = "" if self.found[0] else "; before the first face, the photo's own is shown"
            sentences.append(
                f"{name}: no face, or not the one that is followed, in {lost} of "
                f"{len(self.found)} frames; the expression before {held}{early}"
            )
        if self.crowded:
            sentences.append(
                f"{name}: several faces in {self.crowded} of {len(self.found)} frames; one is "
                "followed, the largest at first"
            )
        return sentences


class Follower:
    """Finds one person's face in the pictures of a video, one after the other.

    It is the largest of the first picture that shows any. A face that has always been alone is
    followed wherever it jumps. Once there were several, one elsewhere is not taken for it, until it
    was lost for ``SEARCH_EVERY`` pictures: then the largest is chosen anew.

    Attributes:
        crowded: How many pictures showed another face.
    """

    def __init__(self, detector: detection.Detector):
        self.crowded = 0
        self._detector, self._near, self._alone = detector, None, True
        self._seen = self._lost = 0

    def __call__(self, picture: np.ndarray):
        """The detector's answer for (H, W, 3) uint8, or None; see ``detection.find_face``."""
        thorough = self._seen % SEARCH_EVERY == 0
        if thorough and self._lost >= SEARCH_EVERY:
            self._near, self._alone = None, True
        near, self._seen = self._near, self._seen + 1
        face = detection.find_face(self._detector, picture, near=near, thorough=thorough)
        if face is not None:
            elsewhere = near is not None and not detection.is_same(face, near)
            self.crowded += face.num_faces > 1 or (elsewhere and not self._alone)
            if elsewhere and not self._alone:
                face = None
        if face is None:
            self._lost += 1
            return None
        self._lost, self._near = 0, alignment.locate(face.landmarks)
        self._alone &= face.num_faces == 1
        return face


class Hold:
    """Repeats the last driving face while none is seen.

    Attributes:
        limit: How long, in frames; 0: to the end.
    """

    def __init__(self, limit: float = 0):
        """Args: see the class.

        Raises:
            ValueError: ``limit`` is negative.
        """
        if not limit >= 0:
            raise ValueError(f"hold: expected 0 (to the end) or more, got {limit}; leave it out")
        self.limit, self._last, self._lost = limit, None, 0.0

    def __call__(
        self, driver: alignment.AlignedFace | None, frames: float = 1
    ) -> alignment.AlignedFace | None:
        """What drives.

        Args:
            driver: The driving face, or None where there is none.
            frames: How many have passed since the call before.

        Returns:
            The face, or the last one; None before the first one, and after ``limit``.
        """
        if driver is not None:
            self._last, self._lost = driver, 0.0
            return driver
        self._lost += frames
        return None if 0 < self.limit < self._lost else self._last


def track(
    name,
    frames: Iterable[np.ndarray],
    detector: detection.Detector,
    *,
    fps: float,
    box="smoothed",
    fov_degrees: float = camera_lib.FOV_WIDE_DEGREES,
) -> Track:
    """Follows one face (``Follower``).

    Args:
        name: The video, for messages.
        frames: (H, W, 3) uint8 pictures of one size.
        detector: Finds landmarks.
        fps: Frames a second, for smoothing.
        box: "smoothed" follows the head; "fixed" is the median over all frames, for a head that
            stays in place: then its small moves drive the avatar, too.
        fov_degrees: The model's view.

    Returns:
        Track.

    Raises:
        cli.UserError: No frame shows a face.
    """
    if box not in BOXES:
        raise ValueError(f"box: expected one of {BOXES}, got {box!r}; choose one of them")
    rows, landmarks, coefficients, found, follow = [], [], [], [], Follower(detector)
    for frame in frames:
        face = follow(frame)
        found.append(face is not None)
        landmarks.append(None)
        coefficients.append(None if face is None else face.coefficients)
        if face is not None:
            crop = alignment.locate(face.landmarks, fov_degrees=fov_degrees)
            rows.append([crop.x, crop.y, crop.side, crop.roll_rad, crop.yaw_rad, crop.pitch_rad])
            landmarks[-1] = np.asarray(face.landmarks, np.float32)[:, :2]
    if not rows:
        raise cli.UserError(
            f"{name}: no face in any of {len(found)} frames; give a video that shows one face, "
            "or --driving_aligned if its frames are cut out already"
        )
    found = np.array(found)
    times, found_times = np.arange(len(found)), np.flatnonzero(found)
    filled = [np.interp(times, found_times, column) for column in np.array(rows).T]
    rows = np.stack(filled, axis=-1)
    poses = np.array([alignment.Crop(*row).viewpoint() for row in rows.tolist()])
    crops = tuple(alignment.Crop(*row) for row in _steady(rows, fps, box).tolist())
    return Track(crops, tuple(landmarks), tuple(coefficients), poses, found, crowded=follow.crowded)


def drivers(
    frames: Iterable[np.ndarray],
    tracked: Track,
    size: int,
    *,
    matte: bool = True,
    hold: int = 0,
) -> Iterator[alignment.AlignedFace | None]:
    """Cuts the driving faces out.

    Args:
        frames: The same frames that were tracked.
        tracked: Their Track.
        size: Side of the results, ``InstantAvatar.image_size``.
        matte: Whether to remove the background: the model saw faces over black only.
        hold: For how many frames without a face the last one with a face is repeated; 0: to the
            end.

    Yields:
        AlignedFace of (size, size, 3). A frame without a face repeats the last one with a face;
        None before the first one, and after ``hold``.

    Raises:
        ValueError: ``hold`` is negative.
    """
    held = Hold(hold)
    per_frame = (tracked.crops, tracked.landmarks, tracked.coefficients)
    for frame, crop, landmarks, coefficients in zip(frames, *per_frame, strict=False):
        face = None
        if landmarks is not None:
            image = cut(frame, crop, landmarks, size, matte=matte)
            face = alignment.AlignedFace(image, coefficients)
        yield held(face)


def cut(
    frame: np.ndarray, crop: alignment.Crop, landmarks: np.ndarray, size: int, *, matte: bool
) -> np.ndarray:
    """Cuts one driving face out.

    Args:
        frame: (H, W, 3) uint8.
        crop: Where.
        landmarks: (478, 2 or more) in pixels of the frame.
        size: Side of the result.
        matte: Whether to remove the background.

    Returns:
        (size, size, 3) uint8.
    """
    face = alignment.warp(frame, crop, size)
    if not matte:
        return face
    points = alignment.to_crop(np.asarray(landmarks, np.float32), crop, size)
    return matting.over_black(face, matting.matte(face, points)[0])


def aligned_drivers(
    source_video: video.Video, size: int, *, limit: int = 0
) -> Iterator[np.ndarray]:
    """Frames that are wide crops over black already: (size, size, 3) uint8.

    Raises:
        cli.UserError: The frames are not square.
    """
    for frame in source_video.frames(limit):
        height, width = frame.shape[:2]
        if height != width:
            raise cli.UserError(
                f"{source_video.path}: aligned frames must be square, these are "
                f"{width}x{height}; leave out --driving_aligned for a video that is not cut yet"
            )
        yield alignment.fit(frame, size)


def _steady(rows: np.ndarray, fps: float, box: str) -> np.ndarray:
    """Smooths (T, 6) boxes over time: x, y, side, roll, yaw, pitch."""
    if box == "fixed":
        return np.tile(np.median(rows, axis=0), (len(rows), 1))
    out = rows.copy()
    for columns, seconds in (([0, 1, 3, 4, 5], CENTER_SECONDS), ([2], SIDE_SECONDS)):
        out[:, columns] = _gaussian(rows[:, columns], seconds * fps)
    return out


def _gaussian(rows: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian filter along the first axis; beyond both ends the motion goes on."""
    reach = min(int(np.ceil(3 * sigma)), len(rows) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=-1)
