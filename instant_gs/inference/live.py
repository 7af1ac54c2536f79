"""A camera drives a photo: one picture in, one picture out.

live = Live(instant_gs.load(), "photo.png")
for frame in imageio.v3.imiter("<video0>"):
    picture = live(frame)
"""

import math
import os
import time

import numpy as np

from instant_gs.inference import camera_path, live_box, puppet
from instant_gs.inference import source as source_lib
from instant_gs.portrait import alignment, detection, photo, tracking, video

POSES = ("fixed", "driver")

#: Frames are never closer than this: a clock may stand still for a moment.
_MIN_SECONDS = 1e-3


class Live:
    """The photo's avatar, driven by the pictures of a camera as they come.

    It is ``instant_gs.animate`` for one picture at a time and does the same, except that the box
    around the face is smoothed by past pictures alone (``live_box``), and that the head's pose,
    where no face is seen, is the last one. Several faces, lost faces: as ``tracking.Follower``.
    The first call, and the first one with a face, take long: they compile, and how such a face
    trembles is worked out. Not for several threads at once.

    Attributes:
        source: ``source.Source``, what was taken of the photo; its ``warnings`` are for the user.
        found: Whether the last picture showed the face that is followed.
        overflow: Of the last picture returned; above 0, Gaussians are missing in it
            (``model.with_capacity``).
    """

    def __init__(
        self,
        model,
        photo: str | os.PathLike | np.ndarray | source_lib.Source,
        *,
        fps: float | None = None,
        size: int = 0,
        pose: str = "fixed",
        yaw: float = 0.0,
        pitch: float = 0.0,
        steady: bool = True,
        expression: float = 1.0,
        hold: float = 0.0,
        matte: bool | None = None,
        gaussians: int = 0,
        reader: str | None = None,
        detector: detection.Detector | None = None,
    ):
        """Makes the avatar.

        Args:
            model: From ``instant_gs.load``.
            photo: Path of the photo, its pixels (H, W, 3) uint8 RGB, or an aligned Source.
            fps: Frames a second that the calls stand for; None: the time between them is measured.
            size: Side of the pictures; 0 is the model's.
            pose: "fixed" leaves the camera at ``yaw`` and ``pitch``, "driver" moves it as the
                driver's head turns.
            yaw: Of the camera, degrees to the head's left.
            pitch: Of the camera, degrees up.
            steady: Whether One-Euro filters calm motion and pose.
            expression: Share of the way from the photo's expression to the driver's; above 1
                exaggerates.
            hold: Seconds without a face after which the photo's own expression returns; 0: the
                last one is held.
            matte: Whether to remove the driver's background; None: if the reader expects it.
            gaussians: How many to draw; 0 draws all.
            reader: "landmarks" or "encoder", who reads the expressions; as for ``reader.Reader``.
            detector: Finds landmarks; None is ``metrics.face.FaceLandmarker``.

        Raises:
            ValueError: A setting out of range, or a reader that the weights do not go with.
            TypeError, FileNotFoundError, cli.UserError: The photo, as ``source.align``.
            ImportError: MediaPipe is missing; says which command helps.
        """
        if pose not in POSES:
            raise ValueError(f"pose: expected one of {POSES}, got {pose!r}; choose one of them")
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps: expected more than 0, got {fps}; or None, which measures")
        if size < 0:
            raise ValueError(f"size: expected pixels, or 0 for the model's, got {size}")
        if not 0 <= hold < math.inf:
            raise ValueError(f"hold: expected 0 or more seconds, got {hold}; 0 holds to the end")
        puppet.check_expression(expression)
        self._measures, self._fps, self._last = fps is None, fps or video.DEFAULT_FPS, None
        self._hold = tracking.Hold(math.ceil(hold * self._fps))
        view = {"fov_degrees": model.fov_degrees}
        around = {"yaw": yaw, "pitch": pitch, "fps": self._fps, **view}
        self._head = camera_path.HeadCamera(steady=steady, **around)
        (self._still,) = camera_path.orbit(1, **around)
        self._pose, self._view, self._size = pose, view, model.image_size
        detector = _landmarker() if detector is None else detector
        self.source = photo
        if not isinstance(photo, source_lib.Source):
            self.source = source_lib.align(photo, detector, self._size, **view)
        self._follow, self._box = tracking.Follower(detector), live_box.LiveBox(self._fps)
        self._puppet = puppet.Puppet(
            model,
            self.source.face,
            size=size or self._size,
            fps=self._fps,
            steady=steady,
            expression=expression,
            gaussians=gaussians,
            reader=reader,
        )
        self._matte = self._puppet.reader.expects_matte if matte is None else matte
        self._drawn, self.found, self.overflow = False, False, 0

    def __call__(self, frame: np.ndarray, seconds: float | None = None) -> np.ndarray:
        """The avatar with the expression of this picture.

        Args:
            frame: (H, W, 3) uint8 RGB, at least 32 x 32.
            seconds: Since the picture before; None: measured, or one by ``fps``.

        Returns:
            (size, size, 3) uint8. Where no face is seen: with the last one's expression; the
            photo's own before the first face, and after ``hold``.

        Raises:
            ValueError: It is no such picture, or ``seconds`` is not positive.
            cli.UserError: It is too small.
        """
        frame = photo.checked_pixels("frame", frame)
        photo.check_size("frame", "video", *frame.shape[:2])
        if seconds is None and self._measures:
            seconds = self._measured()
        frame = photo.reduced(frame, video.MAX_SIDE)
        face, driver, pose = self._follow(frame), None, np.full(3, math.nan)
        crop = None if face is None else alignment.locate(face.landmarks, **self._view)
        box = self._box(crop, seconds)
        if crop is not None:
            pose = crop.viewpoint()
            image = tracking.cut(frame, box, face.landmarks, self._size, matte=self._matte)
            driver = alignment.AlignedFace(image, face.coefficients)
        self.found = crop is not None
        driver = self._hold(driver, 1 if seconds is None else seconds * self._fps)
        turned = self._head(pose, seconds)
        camera = turned if self._pose == "driver" else self._still
        calibrated = self._puppet.calibrated
        shown = self._puppet(driver, camera, seconds)
        if not self._drawn or self._puppet.calibrated != calibrated:  # no frame takes that long
            self._last = time.monotonic()
        self._drawn, self.overflow = True, shown.overflow
        return shown.image

    def _measured(self) -> float | None:
        """Seconds since the call before; None for the first."""
        now, before = time.monotonic(), self._last
        self._last = now
        return None if before is None else max(_MIN_SECONDS, now - before)


def _landmarker() -> detection.Detector:
    from instant_gs.metrics import face

    return face.FaceLandmarker()
