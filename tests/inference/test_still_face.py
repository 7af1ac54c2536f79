"""A still face must look still: flicker in, less flicker out."""

import numpy as np
import pytest
from PIL import Image

from instant_gs.inference import animate, camera_path, reader, still_face, tremble
from instant_gs.portrait import alignment
from instant_gs.training import weights
from tests import own_process
from tests.inference import fake, tiny


@pytest.fixture(scope="module")
def engine():
    return tiny.build(residual_scale=0.03)  # of order one, an untrained decoder saturates


@pytest.fixture(scope="module")
def face():
    return fake.picture(64, 64, 32, 28, 40)[::2, ::2].copy()


def measure(engine, face, frames):
    by_encoder = reader.Reader(engine, "encoder")
    return still_face.measure(
        engine, by_encoder, alignment.AlignedFace, face, frames=frames, fps=25
    )


def test_disturbance_is_small_and_leaves_the_background_black(face):
    face[:, :6] = 0
    random = np.random.default_rng(0)
    images = np.stack([tremble.disturb(face, random) for _ in range(20)]).astype(int)
    assert images.shape == (20, 32, 32, 3) and not images[:, :, :4].any()
    inside = images[:, 4:-4, 10:-4]
    assert 1 < inside.std(0).mean() < 20
    bias = np.abs(inside.mean(0) - face[4:-4, 10:-4]).mean()
    assert bias < 15, "edges are blurred, and nothing else happens on average"


def test_sensor_noise_and_crop_are_off_by_what_is_said():
    random = np.random.default_rng(0)
    flat = tremble.disturb(np.full((64, 64, 3), 100, np.uint8), random)[2:-2, 2:-2]
    assert flat.mean() == pytest.approx(100, abs=0.1) and flat.std() == pytest.approx(2, abs=0.1)
    spot = np.zeros((15, 15, 3), np.uint8)
    spot[5:10, 5:10] = 200
    images = np.stack([tremble.disturb(spot, random) for _ in range(100)]).mean(-1)
    rows, columns = np.mgrid[:15, :15] - 7
    moved = [(images * axis).sum((1, 2)) / images.sum((1, 2)) for axis in (rows, columns)]
    assert 0.9 < np.abs(moved).max() < 1.1 and abs(np.corrcoef(moved)[0, 1]) < 0.3
    np.testing.assert_allclose(np.std(moved, axis=1), 1 / np.sqrt(3), rtol=0.15)


def test_the_filter_at_least_halves_the_flicker(engine, face):
    flicker = measure(engine, face, frames=25)
    assert flicker.motion > 0 and flicker.image > 0.01, "nothing trembles: the test is void"
    assert flicker.motion_filtered < 0.5 * flicker.motion
    assert flicker.image_filtered < 0.5 * flicker.image


@pytest.mark.parametrize("start", [None, np.zeros((32, 32, 3), np.uint8)], ids=["none", "black"])
def test_a_video_that_starts_without_a_face_is_as_calm_as_one_with(engine, face, start):
    random = np.random.default_rng(3)
    trembling = [tremble.disturb(face, random) for _ in range(20)]

    def motions(*first):
        drivers = [*first, face, *trembling]
        cameras = camera_path.orbit(len(drivers))
        made = animate.frames(engine, face, drivers, cameras, size=32, fps=25)
        return np.stack([reader.as_array(frame.motion) for frame in made])

    late = motions(start, start)
    np.testing.assert_allclose(late[2:], motions(), rtol=1e-4, atol=1e-3)
    code = engine.motion_code(face)
    still = reader.as_array(engine.motion(np.zeros_like(code), code))  # the driver's part
    np.testing.assert_allclose(late[:2], [still] * 2, rtol=1e-4, atol=1e-3)


def test_one_frame_is_no_test(engine, face):
    with pytest.raises(ValueError, match="at least 2"):
        measure(engine, face, frames=1)


@pytest.mark.slow
def test_command_prints_the_flicker_with_and_without_the_filter(engine, face, tmp_path):
    weights.save(tmp_path / "weights", engine.config, engine.params, {"commit": "x"})
    Image.fromarray(face).save(tmp_path / "photo.png")
    given = [f"--weights={tmp_path}/weights", f"--source={tmp_path}/photo.png", "--source_aligned"]
    done = own_process.run("-m", "instant_gs.inference.still_face", *given, "--frames=20")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[-2:] for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 2 and all(float(calm) < 0.6 * float(plain) for plain, calm in rows)
