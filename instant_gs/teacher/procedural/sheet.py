"""Contact sheets: identities x expressions, with labels, to be looked at."""

from pathlib import Path

import cv2
import numpy as np

from instant_gs import cli, output
from instant_gs.geometry import camera
from instant_gs.teacher.procedural import identity, performance, scene

#: Column title, expression, yaw and pitch in radians.
COLUMNS = (
    ("neutral", {}, 0.0, 0.0),
    ("jaw open", {"jawOpen": 0.95}, 0.0, 0.0),
    ("smile", {"mouthSmile": 1.0, "cheekSquint": 0.6}, 0.0, 0.0),
    ("smile, teeth", {"mouthSmile": 0.8, "mouthUpperUp": 0.7, "mouthLowerDown": 0.4,
                      "jawOpen": 0.2}, 0.5, 0.0),
    ("blink", {"eyeBlink": 1.0}, 0.0, 0.0),
    ("wink left", {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.6}, 0.0, 0.1),
    ("surprise", {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 1.0, "jawOpen": 0.5}, -0.3, 0),
    ("frown", {"mouthFrown": 1.0, "browDown": 1.0}, 0.0, 0.0),
    ("pucker", {"mouthPucker": 1.0}, 0.6, 0.1),
    ("tongue", {"tongueOut": 1.0, "jawOpen": 0.6}, -0.2, 0.0),
    ("gaze left", {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, 0.0, 0.0),
    ("side view", {}, -0.85, 0.15),
)  # fmt: skip


def draw(*, seed, start, identities, image_size):
    """Contact sheet (H, W, 3) uint8 RGB of identities (rows) and `COLUMNS`."""
    title = 18
    header = np.full((title, image_size * len(COLUMNS), 3), 30, np.uint8)
    for column, (name, *_) in enumerate(COLUMNS):
        _text(header, name, column * image_size + 4)
    rows = [header]
    for index in range(start, start + identities):
        who = scene.person(seed, index)
        row = []
        for _, values, yaw, pitch in COLUMNS:
            moved = scene.frame(who, performance.pose(**values))
            shot = scene.picture(
                who, moved, camera.look_at(yaw, pitch), camera.intrinsics(),
                (image_size, image_size),
            )  # fmt: skip
            row.append(shot.image)
        line = np.concatenate(row, axis=1)
        _text(line, f"{identity.name_of(seed, index)} {who.attributes.hair_style}", 3)
        rows.append(line)
    return np.concatenate(rows)


def _text(image, text, left):
    cv2.putText(image, text, (left, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (210,) * 3, 1, cv2.LINE_AA)


def write(path, *, seed, start, identities, image_size):
    """Writes a contact sheet as PNG, whole or not at all, and never over another file."""
    output.check_free(path, overwrite=False, option="--contact_sheet")
    if Path(path).suffix.lower() != ".png":
        raise cli.UserError(f"--contact_sheet: {path} must end in .png", cli.EXIT_USAGE)
    image = draw(seed=seed, start=start, identities=identities, image_size=image_size)
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise ValueError(f"{path}: OpenCV could not encode the sheet; lower --identities")
    with output.whole_file(path) as partial:
        partial.write_bytes(data.tobytes())
