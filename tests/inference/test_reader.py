"""Who reads an expression, and how it trembles."""

from types import SimpleNamespace

import numpy as np
import pytest

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.data import format as format_lib
from instant_gs.inference import animate, camera_path, reader, tremble
from instant_gs.portrait import alignment
from tests.inference import fake, tiny


@pytest.fixture(scope="module")
def engine():
    return tiny.build(residual_scale=0.03)


@pytest.fixture(scope="module")
def picture():
    return fake.picture(64, 64, 32, 28, 40)[::2, ::2].copy()


def smiling(share=1.0):
    out = np.zeros(52, np.float32)
    out[format_lib.COEFFICIENT_NAMES.index("mouthSmileLeft")] = share
    return out


def test_coefficients_are_read_where_they_are_known(engine, picture):
    by_landmarks, by_encoder = (reader.Reader(engine, name) for name in reader.READERS)
    cut_out = reader.Reader(engine, known=False)
    known = alignment.AlignedFace(picture, smiling())
    code, from_picture = engine.code_from_coefficients(smiling()), engine.motion_code(picture)
    assert np.abs(code - from_picture).max() > 0.1
    for who, face, want in (
        (by_landmarks, known, code),
        (cut_out, known, from_picture),
        (by_encoder, known, from_picture),
    ):
        np.testing.assert_array_equal(who.code(face), want)
        np.testing.assert_allclose(
            reader.as_array(who.motion(from_picture, face)),
            reader.as_array(engine.motion(from_picture, want)),
            rtol=1e-4,
            atol=1e-4,
        )


def test_photo_and_drivers_are_read_alike(engine, picture):
    """A photo that came cut out is the encoder's, and its drivers, too; one that did not is not."""
    known, cut_out = alignment.AlignedFace(picture, smiling()), alignment.AlignedFace(picture)
    options = {"size": 32, "fps": 25, "steady": False}

    def motion(photo, driver):
        (frame,) = animate.frames(engine, photo, [driver], camera_path.orbit(1), **options)
        return reader.as_array(frame.motion)

    np.testing.assert_array_equal(motion(cut_out, known), motion(cut_out, cut_out))
    with pytest.raises(ValueError, match=r"coefficients: expected those of a face.*got None"):
        motion(known, cut_out)
    black = alignment.AlignedFace(np.zeros_like(picture))
    np.testing.assert_array_equal(motion(known, black), motion(known, known))
    with pytest.raises(ValueError, match=r'reader: expected "encoder" for faces that came cut out'):
        reader.Reader(engine, "landmarks", known=False)


def test_a_driver_of_the_photos_coefficients_is_the_photo_at_rest(engine, picture):
    """And those of another expression are not, whatever the pictures show."""
    photo, other = (alignment.AlignedFace(picture, smiling(share)) for share in (0.3, 1.0))
    drivers = [photo, None, other, alignment.AlignedFace(picture[::-1].copy(), smiling(0.3))]
    cameras = list(camera_path.orbit(len(drivers)))
    options = {"size": 32, "fps": 25, "steady": False}
    own, nobody, moved, again = (
        reader.as_array(frame.motion)
        for frame in animate.frames(engine, photo, drivers, cameras, **options)
    )
    np.testing.assert_array_equal(own, nobody)
    np.testing.assert_array_equal(own, again)
    assert np.abs(moved - own).max() > 0.1
    by_encoder = animate.frames(engine, photo, drivers, cameras, reader="encoder", **options)
    own, nobody, moved, again = (reader.as_array(frame.motion) for frame in by_encoder)
    np.testing.assert_array_equal(own, moved)
    assert np.abs(again - own).max() > 0.1


def test_the_calibrated_noise_is_not_too_small():
    """It is estimated from few pictures, but of many numbers."""
    random = np.random.default_rng(0)
    trembling = SimpleNamespace(
        config=config_lib.Config(),
        read_motion=lambda code, image: types.Motion(*random.normal(5, 0.3, (2, 4000))),
    )
    black = alignment.AlignedFace(np.zeros((4, 4, 3), np.uint8))
    assert reader.Reader(trembling).noise(None, black) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("name", reader.READERS)
def test_calibration_finds_the_noise(engine, picture, name):
    who, face = reader.Reader(engine, name), alignment.AlignedFace(picture, smiling(0.5))
    code, random = who.code(face), np.random.default_rng(5)

    def again():
        error = random.normal(0, reader.COEFFICIENT_NOISE, 52)
        seen = tremble.disturb(picture, random)
        return alignment.AlignedFace(seen, face.coefficients + error)

    rows = [reader.as_array(who.motion(code, again())) for _ in range(60)]
    want = np.sqrt(np.var(rows, axis=0).mean())
    assert want > 0 and who.noise(code, face) == pytest.approx(want, rel=0.4)


def with_encoder(kind, steps, teacher_forcing, freeze=True):
    config = config_lib.Config()
    config.model.motion.encoder = kind
    pretrain = config.motion_pretrain
    pretrain.steps, pretrain.teacher_forcing, pretrain.freeze = steps, teacher_forcing, freeze
    return SimpleNamespace(config=config)


@pytest.mark.parametrize(
    ("trained", "told", "name", "matte"),
    [
        (("learned", 10, False), None, "landmarks", False),
        (("learned", 0, True), None, "landmarks", False),
        (("learned", 0, True), "encoder", "encoder", True),
        (("learned", 10, False, False), None, "encoder", True),
        (("learned", 0, False), "landmarks", "landmarks", False),
        (("learned", 0, False), None, "encoder", True),
        (("fan", 10, True), None, "encoder", False),
    ],
)
def test_weights_that_learned_from_coefficients_leave_reading_to_the_landmarks(
    trained, told, name, matte
):
    who = reader.Reader(with_encoder(*trained), told)
    assert who.name == name and who.expects_matte is matte


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match=r"reader: expected one of .*got 'eyes'"):
        reader.Reader(with_encoder("learned", 1, True), "eyes")
    with pytest.raises(ValueError, match=r'reader: expected "encoder" for these weights'):
        reader.Reader(with_encoder("fan", 1, True), "landmarks")
