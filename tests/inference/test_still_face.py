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
