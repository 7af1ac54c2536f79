"""Photos driven by one another: what is scored, what is drawn, what is refused."""

import dataclasses
import json
import types

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from instant_gs import cli
from instant_gs.evaluation import photos
from instant_gs.inference import avatar as avatar_lib
from instant_gs.metrics import face as face_lib
from instant_gs.portrait import alignment
from tests import own_flags

SIZE, GAIN = 32, 100  # of a picture that shows a coefficient as grey
SHOWN = 0.5  # of the way, by the fake avatar


@dataclasses.dataclass
class Found:
    coefficients: np.ndarray


class Detector:
    """Reads the grey of a picture; nothing of a black one."""

    def detect(self, image):
        assert image.dtype == np.uint8
        return None if not image.any() else Found(expression(image.mean() / GAIN))


class Engine:
    """A picture as grey as the motion is large, seen from the front."""

    image_size, fov_degrees = SIZE, 23.28

    def encode(self, image, code):
        return code

    def fold(self, avatar):
        return avatar

    def frame(self, avatar, motion, camera, size):
        assert camera.cam2world[2, 3] > 2 and size == SIZE
        grey = np.full((SIZE, SIZE, 3), round(GAIN * motion), np.uint8)
        return avatar_lib.Drawn(grey, None, np.int32(0))


def expression(value):
    return np.full(52, value, np.float32)


READER = types.SimpleNamespace(
    name="landmarks",
    expects_matte=False,
    code=lambda face: face.coefficients[0],
    motion=lambda code, face: code + SHOWN * (face.coefficients[0] - code),
)


def faces(*values):
    grey = (np.full((SIZE, SIZE, 3), round(GAIN * value), np.uint8) for value in values)
    return [
        alignment.AlignedFace(image, expression(value))
        for image, value in zip(grey, values, strict=True)
    ]


def test_half_of_the_way_is_half_of_the_error():
    seen = []
    given = faces(0.2, 0.6, 1.0)
    pairs, sheet = photos.drive(
        Engine(), READER, given, given, Detector(), lambda all_: seen.extend(all_) or all_
    )
    assert len(pairs) == 6 and len(seen) == 3
    scores = photos.score(pairs)
    assert scores["pairs"] == 6 and scores["lost"] == 0
    for one in (scores, *scores["coefficients"].values()):
        assert one["error_ratio"] == pytest.approx(0.5, abs=0.01)
        assert one["slope"] == pytest.approx(0.5, abs=0.01)
    cells = sheet[photos.SHEET_SIZE // 2 :: photos.SHEET_SIZE, :: photos.SHEET_SIZE, 0]
    np.testing.assert_array_equal(
        cells, [[0, 20, 60, 100], [20, 20, 40, 60], [60, 40, 60, 80], [100, 60, 80, 100]]
    )


def test_faces_that_are_lost_are_counted_and_not_averaged():
    wanted, still = np.ones(5), np.zeros(5)
    pairs = [photos.Pair(still, np.full(5, 0.25), wanted), photos.Pair(still, None, wanted)]
    scores = photos.score(pairs)
    assert (scores["pairs"], scores["lost"]) == (2, 1)
    assert scores["error_ratio"] == 0.75 and scores["slope"] == 0.25
    nobody = photos.score(pairs[1:])
    assert nobody["lost"] == 1 and nobody["error_ratio"] is None
    alike = photos.score([photos.Pair(wanted, still, wanted)])
    assert alike["error_ratio"] is None and alike["coefficients"]["jawOpen"]["slope"] is None


def test_an_avatar_lost_at_rest_is_taken_for_its_photo():
    given = faces(0.0, 0.5)
    pairs, _ = photos.drive(Engine(), READER, given, given, Detector())
    np.testing.assert_array_equal(pairs[0].still, np.zeros(5))
    assert pairs[0].moved == pytest.approx(np.full(5, 0.25), abs=0.01)


@pytest.fixture
def run(monkeypatch, tmp_path):
    from instant_gs.inference import reader, source
    from instant_gs.portrait import photo

    def align(path, *_, **__):
        value = {"a.jpg": 0.2, "b.PNG": 0.8}[path.name]
        (face,) = faces(value)
        pixels = photo.Photo(path, np.full((40, 40, 3), 200, np.uint8), None)
        return source.Source(
            face.image,
            (f"{path.name}: blurred",),
            pixels,
            alignment.Crop(20, 20, 40),
            coefficients=face.coefficients,
        )

    monkeypatch.setattr(avatar_lib, "load", lambda weights: Engine())
    monkeypatch.setattr(reader, "Reader", lambda engine, name: READER)
    monkeypatch.setattr(face_lib, "FaceLandmarker", Detector)
    monkeypatch.setattr(source, "align", align)

    def call(**values):
        with own_flags.alone():
            for name in ("photos", "out", "weights", "reader"):
                flags.DEFINE_string(name, None, "")
            flags.DEFINE_boolean("overwrite", False, "")
            values = {"photos": str(tmp_path / "faces"), "out": str(tmp_path / "out"), **values}
            flags.FLAGS(["photos"])
            with flagsaver.flagsaver(**values):
                photos.main([])

    (tmp_path / "faces").mkdir()
    return call


def test_two_files_are_written_and_never_over_others(run, tmp_path, capsys):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / "faces" / name).write_text("")
    run()
    scores = json.loads((tmp_path / "out" / "photos.json").read_text())
    assert scores["photos"] == ["a.jpg", "b.PNG"] and scores["reader"] == "landmarks"
    assert scores["slope"] == pytest.approx(0.5, abs=0.02)
    assert (tmp_path / "out" / "photos.png").stat().st_size > 100
    printed = capsys.readouterr()
    assert "2 pairs, no face found in 0" in printed.out and "0.50" in printed.out
    assert "warning: a.jpg: blurred" in printed.err
    with pytest.raises(cli.UserError, match=r"--out: .*photos\.json exists already"):
        run()


@pytest.mark.parametrize(("matte", "driver"), [(True, [20, 80]), (False, [200, 200])])
def test_drivers_have_the_background_that_the_reader_expects(
    run, tmp_path, monkeypatch, matte, driver
):
    monkeypatch.setattr(READER, "expects_matte", matte)
    for name in ("a.jpg", "b.PNG"):
        (tmp_path / "faces" / name).write_text("")
    run()
    with Image.open(tmp_path / "out" / "photos.png") as sheet:
        cells = np.asarray(sheet)[64 :: photos.SHEET_SIZE, 64 :: photos.SHEET_SIZE, 0]
    assert cells[0].tolist() == [0, *driver] and cells[1:, 0].tolist() == [20, 80]


def test_too_few_photos_are_refused(run, tmp_path):
    with pytest.raises(cli.UserError, match=r"--photos: .*nowhere is no folder"):
        run(photos=str(tmp_path / "nowhere"))
    (tmp_path / "faces" / "a.png").write_text("")
    with pytest.raises(cli.UserError, match=r"--photos: .*faces holds 1 pictures .*at least two"):
        run()
