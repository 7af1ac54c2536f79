"""The still-face test: how much of the input's tremble comes out as flicker.

    python -m instant_gs.inference.still_face --source=photo.png

One picture drives the avatar made from it, frame after frame, each with fresh sensor noise and the
tremble of a face crop. A perfect system shows a photograph; what moves is flicker.
"""

import dataclasses
import functools

import numpy as np
from absl import flags

from instant_gs import cli, types
from instant_gs.geometry import camera
from instant_gs.inference import one_euro, tremble
from instant_gs.inference import reader as reader_lib
from instant_gs.metrics import face
from instant_gs.portrait import alignment


@dataclasses.dataclass(frozen=True)
class Flicker:
    """Mean absolute change from one frame to the next.

    Attributes:
        motion: Of the ``Motion`` numbers.
        motion_filtered: The same behind the One-Euro filter.
        image: Of the rendered pictures, in steps of 8 bits.
        image_filtered: Of those that the filtered motion makes.
    """

    motion: float
    motion_filtered: float
    image: float
    image_filtered: float


def measure(engine, reader, see, image: np.ndarray, *, frames: int, fps: float) -> Flicker:
    """Runs the test.

    Args:
        engine: ``avatar.InstantAvatar``.
        reader: ``reader.Reader`` of the engine.
        see: From such a picture to the ``alignment.AlignedFace`` that is read.
        image: (S, S, 3) uint8, aligned, over black: photo and driving face in one.
        frames: How many, at least 2.
        fps: Frames a second.

    Returns:
        Flicker.
    """
    if frames < 2:
        raise ValueError(f"frames: expected at least 2, got {frames}; flicker is a difference")
    face = see(image)
    code = reader.code(face)
    avatar = engine.fold(engine.encode(image, code))
    calm = one_euro.OneEuro(fps, reader.noise(code, face))
    random = np.random.default_rng(1)  # other disturbances than the calibration's
    view = camera.orbit_camera(0.0, 0.0, fov_degrees=engine.fov_degrees)
    raw, filtered, pictures, calm_pictures = [], [], [], []
    for _ in range(frames):
        raw.append(reader_lib.as_array(reader.motion(code, see(tremble.disturb(image, random)))))
        filtered.append(calm(raw[-1]))
        for motion, shown in ((raw[-1], pictures), (filtered[-1], calm_pictures)):
            drawn = engine.frame(avatar, types.Motion(*motion), view, engine.image_size)
            shown.append(np.asarray(drawn.image, np.float32))
    return Flicker(*(_change(rows) for rows in (raw, filtered, pictures, calm_pictures)))


def _change(rows: list[np.ndarray]) -> float:
    return float(np.abs(np.diff(np.stack(rows), axis=0)).mean())


def main(argv: list[str]) -> None:
    """Measures and prints."""
    del argv
    from instant_gs.inference import avatar, source

    values = flags.FLAGS
    if not values.source:
        raise cli.UserError("--source is missing; give a photo of one face (--help)", 2)
    engine = avatar.load(values.weights)
    reader = reader_lib.Reader(engine, values.reader, known=not values.source_aligned)
    still = source.read(
        values.source,
        engine.image_size,
        aligned=values.source_aligned,
        fov_degrees=engine.fov_degrees,
    )
    see = alignment.AlignedFace
    if reader.name == "landmarks":
        see = functools.partial(_seen, face.FaceLandmarker())
    flicker = measure(engine, reader, see, still.image, frames=values.frames, fps=values.fps)
    print("mean change from frame to frame        plain  One-Euro filter")
    print(
        f"motion numbers                    {flicker.motion:10.5f} {flicker.motion_filtered:10.5f}"
    )
    print(f"picture, steps of 8 bits          {flicker.image:10.5f} {flicker.image_filtered:10.5f}")


def _seen(detector, image: np.ndarray) -> alignment.AlignedFace:
    """The aligned picture with its coefficients.

    Raises:
        cli.UserError: The landmark network sees no face in it.
    """
    found = detector.detect(image)
    if found is None:
        raise cli.UserError("--source: the face is lost once it is cut out; give --reader=encoder")
    return alignment.AlignedFace(image, found.coefficients)


if __name__ == "__main__":
    flags.DEFINE_enum("reader", None, reader_lib.READERS, "As of instant_gs.animate.")
    flags.DEFINE_string("source", None, "Photo of one face.")
    flags.DEFINE_boolean("source_aligned", False, "The photo is a wide crop.")
    flags.DEFINE_string("weights", None, "Folder of weights, or demo; default: small, which ships.")
    flags.DEFINE_integer("frames", 50, "Frames to make.", lower_bound=2)
    flags.DEFINE_float("fps", 25.0, "Frames a second that the filter counts with.", lower_bound=1)
    cli.run(main)
