"""Photos of real people, driven by one another: what can be scored without true images.

    python -m instant_gs.evaluation.photos --photos=faces --out=out/faces

Every photo's avatar, seen from the front, takes over the expression of every other photo. What the
pictures show is read by the landmark network, against what it reads in the driving photo. Where it
reads the drivers, too (``--reader=landmarks``), it judges its own reading: an avatar that does
what it says scores well, also where it is wrong. The contact sheet is for eyes that know better.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

from instant_gs import cli, output
from instant_gs.inference import reader as reader_lib
from instant_gs.metrics import face as face_lib

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SHEET_SIZE = 128  # pixels of a picture in the contact sheet


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """The reliable coefficients (``metrics.face``) of one avatar and one driver, (5,) each.

    Attributes:
        still: What the avatar shows with its photo's own expression.
        moved: With the driver's; None where no face is found in the picture.
        wanted: What the driving photo shows.
    """

    still: np.ndarray
    moved: np.ndarray | None
    wanted: np.ndarray


def score(pairs: list[Pair]) -> dict:
    """Averages.

    Returns:
        Of all coefficients and of each: ``error_ratio``, the mean absolute error of the moved
        avatar in units of the still one's, and ``slope``, how far of the way it went (least
        squares through zero; 1 is all of it). Both None where no two photos differ. And how many
        pairs there are, and in how many no face was found, which are left out.
    """
    seen = [pair for pair in pairs if pair.moved is not None]
    shape = (len(seen), len(face_lib.RELIABLE_COEFFICIENTS))
    wanted = np.array([pair.wanted - pair.still for pair in seen]).reshape(shape)
    moved = np.array([pair.moved - pair.still for pair in seen]).reshape(shape)

    def of(columns) -> dict:
        way, went = wanted[:, columns], moved[:, columns]
        if not way.any():
            return {"error_ratio": None, "slope": None}
        return {
            "error_ratio": float(np.abs(went - way).sum() / np.abs(way).sum()),
            "slope": float((went * way).sum() / (way**2).sum()),
        }

    each = {name: of([k]) for k, name in enumerate(face_lib.RELIABLE_COEFFICIENTS)}
    lost = len(pairs) - len(seen)
    return {"pairs": len(pairs), "lost": lost, **of(slice(None)), "coefficients": each}


def drive(engine, reader, faces, drivers, detector, progress=iter):
    """Drives every face by every other.

    Args:
        engine: ``inference.avatar.InstantAvatar``.
        reader: ``inference.reader.Reader`` of the engine.
        faces: At least two ``portrait.alignment.AlignedFace`` with coefficients, over black.
        drivers: The same, as the reader expects drivers.
        detector: ``metrics.face.FaceLandmarker``.
        progress: Of the faces.

    Returns:
        Pairs; and the sheet (H, W, 3) uint8: drivers above, photos on the left, beside each its
        avatar as every driver moves it; in its own column it rests.
    """
    import jax

    from instant_gs.geometry import camera as camera_lib
    from instant_gs.portrait import alignment

    camera = camera_lib.orbit_camera(0.0, 0.0, fov_degrees=engine.fov_degrees)
    reliable = list(face_lib.RELIABLE_INDICES)
    pairs, above = [], [alignment.fit(driver.image, SHEET_SIZE) for driver in drivers]
    rows = [np.hstack([np.zeros_like(above[0]), *above])]
    for index, source in enumerate(progress(faces)):
        code = reader.code(source)
        avatar = engine.fold(engine.encode(source.image, code))
        row, shown = [alignment.fit(source.image, SHEET_SIZE)], []
        for driver in drivers:
            motion = reader.motion(code, driver)
            drawn = engine.frame(avatar, motion, camera, engine.image_size)
            image = np.array(jax.device_get(drawn.image))
            row.append(alignment.fit(image, SHEET_SIZE))
            found = detector.detect(image)
            shown.append(None if found is None else found.coefficients[reliable])
        rows.append(np.hstack(row))
        still = shown[index]  # driven by itself
        if still is None:
            still = source.coefficients[reliable]  # a face that is lost at rest is nobody's fault
        for other, (driver, moved) in enumerate(zip(drivers, shown, strict=True)):
            if other != index:
                pairs.append(Pair(still, moved, driver.coefficients[reliable]))
    return pairs, np.vstack(rows)


def main(argv: list[str]) -> None:
    """Aligns, drives, writes both files and prints the scores."""
    del argv
    from tqdm import tqdm

    values = flags.FLAGS
    folder, out = Path(values.photos), Path(values.out)
    if not folder.is_dir():
        raise cli.UserError(
            f"--photos: {folder} is no folder; give one of photos, of one face each"
        )
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if len(files) < 2:
        raise cli.UserError(
            f"--photos: {folder} holds {len(files)} pictures ({', '.join(ENDINGS)}); give a folder "
            "of at least two photos, of one face each"
        )
    for name in ("photos.json", "photos.png"):
        output.check_free(out / name, overwrite=values.overwrite, option="--out")

    from instant_gs.inference import avatar, source
    from instant_gs.portrait import alignment, photo

    engine, detector = avatar.load(values.weights), face_lib.FaceLandmarker()
    reader = reader_lib.Reader(engine, values.reader)
    size, view = engine.image_size, {"fov_degrees": engine.fov_degrees}
    photos = [source.align(path, detector, size, **view) for path in files]
    for warning in (warning for one in photos for warning in one.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    faces = drivers = [one.face for one in photos]
    if not reader.expects_matte:
        seen = (alignment.warp(one.picture.over(0), one.crop, size) for one in photos)
        drivers = [dataclasses.replace(f, image=i) for f, i in zip(faces, seen, strict=True)]
    show = functools.partial(tqdm, unit="photo", leave=False)
    pairs, sheet = drive(engine, reader, faces, drivers, detector, show)
    scores = {"photos": [path.name for path in files], "reader": reader.name, **score(pairs)}
    with (
        output.whole_file(out / "photos.json", overwrite=values.overwrite) as numbers,
        output.whole_file(out / "photos.png", overwrite=values.overwrite) as picture,
    ):
        numbers.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
        photo.write(picture, sheet, overwrite=True)
    print(f"{len(pairs)} pairs, no face found in {scores['lost']}; expressions read: {reader.name}")
    print("                  error against no motion  share of the way")
    for name, of in {"all": scores, **scores["coefficients"]}.items():
        numbers = [of["error_ratio"], of["slope"]]
        cells = ["-" if number is None else f"{number:.2f}" for number in numbers]
        print(f"{name:16s}  {cells[0]:>23}  {cells[1]:>16}")
    print(f"{out / 'photos.png'}: drivers above, photos on the left")


if __name__ == "__main__":
    flags.DEFINE_string("photos", None, "Folder of photos, one face each.", required=True)
    flags.DEFINE_string("out", None, "Folder for photos.json and photos.png.", required=True)
    flags.DEFINE_string("weights", None, "Folder of weights, or demo; default: small, which ships.")
    flags.DEFINE_enum("reader", None, reader_lib.READERS, "As of instant_gs.animate.")
    flags.DEFINE_boolean("overwrite", False, "Replace files that exist.")
    cli.run(main)
