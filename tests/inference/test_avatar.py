"""The engine on a tiny untrained model: shapes, batches, and that nothing compiles twice."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

from instant_gs import config as config_lib
from instant_gs import models, rendering, types
from instant_gs.geometry import camera
from instant_gs.geometry import crop as crop_lib
from instant_gs.inference import animate, avatar, camera_path, motion_file, reader
from instant_gs.training import objective
from tests.inference import fake, tiny

SIZE = tiny.SIZE


@pytest.fixture(scope="module")
def engine():
    return tiny.build()


@pytest.fixture(scope="module")
def photos():
    return tiny.photos()


def test_the_motion_encoder_sees_the_same_part_of_the_face_in_any_view(monkeypatch):
    def stop(image, size, part):
        raise InterruptedError(part)

    monkeypatch.setattr(avatar.crop_lib, "motion_crop", stop)
    config = config_lib.Config()
    for view, part in ((camera.FOV_WIDE_DEGREES, 0.62), (camera.FOV_LEGACY_DEGREES, 0.76994)):
        config.model.fov_degrees = view
        engine = avatar.InstantAvatar(config, {})
        assert engine.fov_degrees == view
        with pytest.raises(InterruptedError) as caught:
            engine._code({}, None)
        assert caught.value.args[0] == pytest.approx(part, rel=1e-4)


def test_the_motion_encoder_sees_the_configured_square_when_used_and_when_trained(monkeypatch):
    config = config_lib.Config()
    config.model.image_size, config.model.motion.image_size = 64, 32
    config.model.motion.crop = 0.5
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 255
    monkeypatch.setattr(models.AvatarModel, "motion_code", lambda model, params, crop: crop)
    engine = avatar.InstantAvatar(config, {}, culling="none")
    seen = np.asarray(engine.motion_code(image))
    assert seen.shape == (32, 32, 3) and (seen == 1).all(), "the square, and nothing beside it"
    trained = objective.driving_crops(engine.model, objective.unit(image)[None])
    np.testing.assert_allclose(trained[0], seen, atol=1e-6)
    config.model.motion.crop = 0.75
    wider = np.asarray(avatar.InstantAvatar(config, {}, culling="none").motion_code(image))
    assert (wider > 0).mean() == pytest.approx((0.5 / 0.75) ** 2, abs=0.03)


def test_photo_to_picture(engine, photos):
    head = engine.encode(photos[0])
    codes = engine.motion_code(photos)
    assert codes.shape == (2, 512) and head.features.shape == (256, 32)
    gaussians = engine.animate(head, codes[0], codes[1])
    assert gaussians.means.shape == (256, 3)
    rendered = engine.render(gaussians, camera.orbit_camera(0.3, 0.1))
    assert rendered.image.shape == (SIZE, SIZE, 3) and rendered.alpha.shape == (SIZE, SIZE)
    assert 0.05 < float(rendered.alpha.mean()) < 0.95, "something is seen, not everything"


def test_coefficients_make_codes(engine, photos):
    """The code that the encoder gives to a picture in which it reads them."""
    seen = photos.astype(np.float32) * np.float32(2 / 255) - 1
    crops = crop_lib.motion_crop(seen, engine.config.model.motion.image_size, 0.6)
    code, read = engine.model.motion_code_and_coefficients(engine.params, crops)
    got = engine.code_from_coefficients(read)
    np.testing.assert_allclose(got, code, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(engine.code_from_coefficients(read[1]), got[1], atol=1e-5)
    grid = engine.code_from_coefficients(np.zeros((3, 2, 52)))
    assert grid.shape == (3, 2, 512)
    for bad in (np.zeros(51), np.zeros((0, 52)), 0.5):
        with pytest.raises(
            ValueError, match=r"coefficients: expected shape \(\.\.\., 52\), at least one row, got"
        ):
            engine.code_from_coefficients(bad)
    with pytest.raises(ValueError, match=r"coefficients: expected finite numbers, got"):
        engine.code_from_coefficients(np.full(52, np.nan))
    for bad in (None, ["much"] * 52, [[0.5] * 52, [0.5]]):
        with pytest.raises(ValueError, match=r"coefficients: expected (an array|shape)"):
            engine.code_from_coefficients(bad)
    few = {name: group for name, group in engine.params.items() if name != "motion_encoder"}
    with pytest.raises(ValueError, match='expected a group "motion_encoder"'):
        avatar.InstantAvatar(engine.config, few).code_from_coefficients(np.zeros(52))
    config = dataclasses.replace(engine.config, model=copy.deepcopy(engine.config.model))
    config.model.motion.encoder = "fan"
    with pytest.raises(ValueError, match=r'expected "learned", got "fan".*pass motion_code of'):
        avatar.InstantAvatar(config, engine.params).code_from_coefficients(np.zeros(52))


def test_one_camera_serves_the_batch_and_several_are_refused(engine, photos):
    view = camera.orbit_camera(0.2, 0.0)
    several = types.Camera(*(np.stack([leaf, leaf]) for leaf in (view.cam2world, view.intrinsics)))
    gaussians = engine.rest(engine.encode(photos))
    assert engine.render(gaussians, view).image.shape == (2, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match=r"camera: expected cam2world \(4, 4\).*got \(2, 4, 4\)"):
        engine.render(gaussians, several)
    motion = types.Motion(*np.zeros((2, 32), np.float32))
    head = engine.fold(engine.encode(photos[0]))
    with pytest.raises(ValueError, match=r"camera: expected cam2world \(4, 4\).*got \(2, 4, 4\)"):
        engine.frame(head, motion, several, SIZE)


def test_frame_is_the_same_as_its_steps(engine, photos):
    head, codes = engine.encode(photos[0]), engine.motion_code(photos)
    view = camera.orbit_camera(0.2, 0.0)
    motion = engine.read_motion(codes[0], photos[1])
    picture, gaussians, overflow = engine.frame(engine.fold(head), motion, view, SIZE)
    assert overflow == 0
    steps = engine.animate(head, codes[0], codes[1])
    np.testing.assert_allclose(gaussians.means, steps.means, atol=1e-4)
    image = np.clip(engine.render(steps, view).image, 0, 1) * 255
    assert picture.dtype == np.uint8
    assert np.abs(image - np.asarray(picture, np.float32)).max() < 1.5
    still = engine.render(engine.rest(head), view).image
    assert np.abs(np.asarray(still) * 255 - image).max() > 2, "the driving face moves it"


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_pictures_are_drawn_as_the_weights_expect(monkeypatch, mode):
    def stop(gaussians, camera, *, image_size, options):
        raise InterruptedError(options)

    monkeypatch.setattr(rendering, "render", stop)
    config = config_lib.Config()
    config.model.raster_mode = mode
    with pytest.raises(InterruptedError) as caught:
        avatar.InstantAvatar(config, {}).render(fake.gaussians(), size=1024)
    assert caught.value.args[0] == rendering.options_at(1024, 512, 512**2, mode)
    assert caught.value.args[0].mode == mode


def test_gaussians_that_do_not_fit_are_counted(engine, photos):
    head, view = engine.encode(photos[0]), camera.orbit_camera(0.2, 0.0)
    small, fold = engine.with_capacity(64), engine.fold(head)
    still = engine.motion(*np.zeros((2, 512), np.float32))
    assert engine.frame(fold, still, view, 4 * SIZE).overflow == 0
    assert small.frame(fold, still, view, SIZE).overflow > 100
    assert small.render(engine.rest(head), view).overflow > 100
    made = animate.frames(
        small, photos[0], photos[1:], camera_path.orbit(1), size=SIZE, fps=25.0, steady=False
    )
    assert next(made).overflow > 100
    assert small.with_capacity(0).raster_options(SIZE) == engine.raster_options(SIZE)
    more = 2 * engine.config.model.gaussians.count  # two heads in one picture
    assert engine.raster_options(SIZE, more).capacity > engine.raster_options(SIZE).capacity
    with pytest.raises(ValueError, match="capacity: expected 0 or more, got -1"):
        engine.with_capacity(-1)


def test_float_and_uint8_and_batches_agree(engine, photos):
    one = engine.encode(photos[1])
    real = engine.encode(photos[1].astype(np.float32) / 127.5 - 1)
    both = engine.encode(photos)
    np.testing.assert_allclose(one.features, real.features, atol=1e-5)
    np.testing.assert_allclose(one.features, both.features[1], atol=1e-4)
    rendered = engine.render(engine.rest(both))
    assert rendered.image.shape == (2, SIZE, SIZE, 3)


def test_a_recorded_driver_moves_another_photo_as_the_driver_itself_does(engine, photos, tmp_path):
    first, second = photos
    codes, cameras = engine.motion_code(photos), camera_path.orbit(3)
    options = {"size": SIZE, "fps": 25.0, "steady": False}
    drivers = [first, second, first[::-1]]
    made = animate.frames(engine, first, drivers, cameras, **options)
    stream = types.Motion(*np.stack([reader.as_array(frame.motion) for frame in made], 1))
    path, mark = tmp_path / "motion.npz", motion_file.fingerprint(engine.params)
    motion_file.save(path, motion_file.Recording(stream, 25.0, mark))
    kept = motion_file.load(path, engine.params).motion
    rows = [types.Motion(*row) for row in zip(kept.scale, kept.shift, strict=True)]
    direct = list(animate.frames(engine, second, drivers, cameras, **options))
    replayed = list(animate.frames(engine, second, rows, cameras, **options))
    own = engine.motion(codes, np.zeros_like(codes))
    assert np.abs(np.diff(own.scale, axis=0)).mean() > 1, "the photos' parts differ"
    for there, here in zip(direct, replayed, strict=True):
        np.testing.assert_allclose(here.gaussians.means, there.gaussians.means, atol=1e-4)
    shown = engine.replay(codes[1], kept)
    truth = engine.motion(codes[1], engine.motion_code(np.stack(drivers)))
    np.testing.assert_allclose(shown.scale, truth.scale, atol=1e-3)
    with pytest.raises(ValueError, match=r"scale: expected shape \(..., 32\), got \(8,\)"):
        engine.replay(codes[1], types.Motion(np.zeros(8), np.zeros(8)))


def test_frames_compile_once(engine, photos):
    head, code = engine.encode(photos[0]), engine.motion_code(photos)[0]
    head = engine.fold(head)

    def frame(index, yaw):
        motion = engine.read_motion(code, photos[index])
        engine.frame(head, motion, camera.orbit_camera(yaw, 0.0), SIZE)

    frame(1, 0.0)
    compiled = (engine._read_motion, engine._frame)
    before = [function._cache_size() for function in compiled]
    frame(0, 0.1)
    frame(0, 0.2)
    assert [function._cache_size() for function in compiled] == before


def test_wrong_shape_says_what_to_do(engine):
    with pytest.raises(ValueError, match=r"image: expected shape \(32, 32, 3\).*align"):
        engine.encode(np.zeros((64, 64, 3), np.uint8))


def test_an_empty_batch_and_another_bank_say_what_is_expected(engine, photos):
    for method in (engine.encode, engine.motion_code, engine.planes):
        with pytest.raises(ValueError, match=r"images?: .*\(B, 32, 32, 3\) with B > 0, got \(0,"):
            method(photos[:0])
    for bank in (np.zeros((3, 7)), np.zeros(512), np.zeros((2, 3, 512))):
        with pytest.raises(ValueError, match=r"^bank: expected shape \(K, 512\), got \("):
            engine.encode(photos[0], bank=bank)


def test_motion_that_does_not_fit_says_what_is_expected(engine, photos):
    head, codes = engine.encode(photos[0]), engine.motion_code(photos)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), head)
    wide, three = types.Motion(np.zeros(8), np.zeros(8)), types.Motion(*np.zeros((2, 3, 32)))
    for wrong, message in {
        lambda: engine.motion(
            codes[0], codes[1][:10]
        ): r"code_driving: expected .*512\), got \(10,",
        lambda: engine.motion(codes, np.zeros((3, 512))): r"expected the same leading axes",
        lambda: engine.animate(head, codes[0]): "code_driving: expected the driving face's motion",
        lambda: engine.animate(head, wide): r"scale: expected shape \(..., 32\), got \(8,\)",
        lambda: engine.animate(both, three): r"with avatars \(2,\): expected the same leading axes",
    }.items():
        with pytest.raises(ValueError, match=message):
            wrong()


def test_a_driving_frame_may_be_float_and_compiles_nothing_more(engine, photos):
    code = engine.motion_code(photos)[0]
    want = reader.as_array(engine.read_motion(code, photos[1]))
    count = engine._read_motion._cache_size()
    real = photos[1].astype(np.float32) / 127.5 - 1
    for driver in (real, real.astype(np.float64)):
        got = reader.as_array(engine.read_motion(code, driver))
        np.testing.assert_allclose(got, want, atol=1e-3)
    assert engine._read_motion._cache_size() == count


def test_what_is_no_driving_frame_says_what_is_expected(engine, photos):
    codes = engine.motion_code(photos)
    shapes = {"larger": (50, 50, 3), "smaller": (24, 24, 3), "RGBA": (SIZE, SIZE, 4)}
    shapes |= {"grey": (SIZE, SIZE), "a batch": (2, SIZE, SIZE, 3)}
    for name, shape in shapes.items():
        with pytest.raises(ValueError, match=r"^driver: expected shape \(32, 32, 3\), one") as said:
            engine.read_motion(codes[0], np.zeros(shape, np.uint8))
        assert str(shape) in str(said.value), name
    for value in (200.0, np.nan):
        with pytest.raises(ValueError, match=r"^driver: expected uint8, or float in \[-1, 1\]"):
            engine.read_motion(codes[0], np.full((SIZE, SIZE, 3), value))
    for code in (codes, photos[0]):
        with pytest.raises(ValueError, match=r"^code_source: expected shape \(512,\).*the photo"):
            engine.read_motion(code, photos[1])


def test_a_frame_of_other_things_says_which_method_makes_them(engine, photos):
    head, code = engine.encode(photos[0]), engine.motion_code(photos)[0]
    motion = types.Motion(*np.zeros((2, 32), np.float32))
    ready, view = engine.fold(head), camera.orbit_camera(0.0, 0.0)
    with pytest.raises(TypeError, match=r"avatar: expected FoldedAvatar, got Avatar; .* fold ret"):
        engine.frame(head, motion, view, SIZE)
    with pytest.raises(TypeError, match=r"motion: expected Motion, got .*; pass what read_motion"):
        engine.frame(ready, code, view, SIZE)
    with pytest.raises(ValueError, match=r"scale: expected shape \(..., 32\), got \(8,\)"):
        engine.frame(ready, types.Motion(np.zeros(8), np.zeros(8)), view, SIZE)


@pytest.mark.parametrize("bad", [200.0, np.nan, 7], ids=["0 to 255", "nan", "integers"])
def test_wrong_range_says_what_is_expected(engine, bad):
    image = np.full((SIZE, SIZE, 3), bad)
    for method in (engine.encode, engine.motion_code, engine.planes):
        with pytest.raises(
            ValueError, match=r"images?: expected uint8, or float in \[-1, 1\], got"
        ):
            method(image)


def test_shown_in_a_shell_a_model_prints_no_weights(engine):
    model = dataclasses.replace(engine, stored_bank=np.zeros((19, 512)))
    assert repr(model).startswith("InstantAvatar(config=") and "culling='envelope'" in repr(model)
    assert "array" not in repr(model).lower()


def test_the_driver_as_numbers(engine, photos):
    """Motion replays what the codes do; crops may be given instead of aligned images."""
    head, codes = engine.encode(photos[0]), engine.motion_code(photos)
    motion = engine.motion(codes[0], codes[1])
    assert (
        motion.scale.shape == motion.shift.shape == (engine.config.model.gaussians.feature_width,)
    )
    slow, fast = engine.animate(head, codes[0], codes[1]), engine.animate(head, motion)
    np.testing.assert_allclose(fast.means, slow.means, atol=1e-4)
    planes = engine.planes(photos.astype(np.float32) / 127.5 - 1)
    assert planes.shape[0] == 2 and planes.shape[2:4] == (SIZE // 2, SIZE // 2)
    with pytest.raises(ValueError, match=r"images: expected shape"):
        engine.planes(photos[:, 1:])
