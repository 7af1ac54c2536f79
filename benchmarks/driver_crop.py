"""How wide the release crops a driving face, as a share of the aligned picture's side.

    python -m benchmarks.driver_crop carphone_pristine.mp4 folder_of_photos
    python -m benchmarks.driver_crop                           # drawn heads

The release reads motion from a square 1.1 times as wide as MediaPipe's short-range face box, we
from a centred square of the aligned picture (``MotionConfig.crop``). Prints a JSON line for each
video: over its frames, the width of the first as a share of the aligned picture's side, and how far
its centre lies from that picture's, in the same unit, to the right and down.
"""

import json
import weakref
import zipfile

import numpy as np

from instant_gs import cli, version
from instant_gs.geometry import camera
from instant_gs.metrics import face, mediapipe_runtime
from instant_gs.portrait import alignment, video

FACTOR = 1.1  # of the release: its square and the detector's box
#: Heads that lean further count apart: the release's square does not turn with them.
LEAN_DEGREES = 25.0
#: Drawn heads, seed 0, and from where they are seen; no two look alike.
IDENTITIES, YAWS_DEGREES, SIDE = range(12), (-25.0, 0.0, 25.0), 256


class FaceBoxes:
    """MediaPipe's short-range face detector, which is a part of the landmarker's file."""

    def __init__(self):
        with zipfile.ZipFile(face.task_file()) as task, mediapipe_runtime.silenced():
            vision, base, _ = mediapipe_runtime.load()
            network = base.BaseOptions(model_asset_buffer=task.read("face_detector.tflite"))
            options = vision.FaceDetectorOptions(base_options=network)
            self._detector = vision.FaceDetector.create_from_options(options)
        weakref.finalize(self, mediapipe_runtime.close, self._detector)

    def find(self, image) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom in pixels of the likeliest face in (H, W, 3) uint8, or None."""
        found = self._detector.detect(mediapipe_runtime.image(image)).detections
        if not found:
            return None
        box = max(found, key=lambda each: each.categories[0].score).bounding_box
        return box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height


def released(box, shape) -> tuple[float, float, float]:
    """Centre and side of the release's crop of a picture (H, W, 3), pixels.

    The square about the face's box, unless it leaves the picture: then the box as it is, of which
    the longer side counts here.
    """
    height, width = shape[:2]
    left, right = (min(max(edge, 0), width) for edge in box[::2])
    top, bottom = (min(max(edge, 0), height) for edge in box[1::2])
    x, y, side = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)
    reach = FACTOR * side / 2
    inside = reach <= min(x, y, width - x, height - y)
    return x, y, FACTOR * side if inside else side


def measure(frames) -> dict:
    """Statistics over pictures (H, W, 3) uint8, of upright and of leaning heads; JSON-able."""
    landmarker, boxes = face.FaceLandmarker(), FaceBoxes()
    rows, lost = {"upright": [], "leaning": []}, 0
    for frame in map(np.ascontiguousarray, frames):
        marks, box = landmarker.detect(frame), boxes.find(frame)
        if marks is None or box is None:
            lost += 1
            continue
        ours = alignment.locate(marks.landmarks)
        x, y, side = released(box, frame.shape)
        right, down = alignment.to_crop(np.array([x, y]), ours, 1) - 0.5
        leans = abs(np.rad2deg(ours.roll_rad)) > LEAN_DEGREES
        rows["leaning" if leans else "upright"].append([side / ours.side, right, down])
    return {"no_face": lost} | {name: _described(group) for name, group in rows.items() if group}


def _described(rows) -> dict:
    columns = zip(("crop", "right", "down"), np.array(rows).T, strict=True)
    return {"frames": len(rows)} | {
        name: {
            "mean": round(float(values.mean()), 3),
            "deviation": round(float(values.std()), 3),
            "range": [round(float(values.min()), 3), round(float(values.max()), 3)],
        }
        for name, values in columns
    }


def drawn():
    """Frontal and half-turned heads of the procedural teacher at rest."""
    from instant_gs.teacher.procedural import render

    rest = np.zeros((1, 52), np.float32)
    for identity in IDENTITIES:
        for yaw in np.deg2rad(YAWS_DEGREES):
            seen = camera.orbit_camera(yaw, 0.0)
            yield render.render_identity(0, identity, rest, seen, SIDE).image[0, 0]


def main(argv: list[str]) -> None:
    """Command line."""
    paths = argv[1:]
    head = {"commit": version.commit()}
    if not paths:
        print(json.dumps({"pictures": "drawn heads"} | measure(drawn()) | head))
    for path in paths:
        frames = video.open_video(path).frames()
        print(json.dumps({"pictures": path} | measure(frames) | head))


if __name__ == "__main__":
    cli.run(main, positional=True)
