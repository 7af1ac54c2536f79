"""What pairs of one expression (`data.same_expression`) taught the shipped weights."""

import jax
import numpy as np
import pytest

import instant_gs
from instant_gs.data import format as data_format
from instant_gs.geometry import camera
from instant_gs.losses import residual
from instant_gs.teacher.procedural import render

SEED, PERSON = 7, 40_000  # nobody has trained on them


@pytest.mark.slow
def test_a_pair_of_one_expression_has_a_small_residual():
    rows = np.zeros((2, 52), np.float32)
    rows[1, data_format.COEFFICIENT_NAMES.index("jawOpen")] = 0.8
    sides = [camera.orbit_camera(yaw, 0.0) for yaw in (0.0, 0.35)]
    cameras = jax.tree.map(lambda *parts: np.stack(parts), *sides)
    model = instant_gs.load()
    pictures = render.render_identity(SEED, PERSON, rows, cameras, model.image_size).image
    codes = model.motion_code(pictures.reshape(4, *pictures.shape[2:]))
    avatar = jax.tree.map(lambda a: a[None], model.encode(pictures[0, 0]))

    def norm(driver):
        _, moved = model.model.animate(model.params, avatar, codes[:1], codes[driver][None])
        return float(residual.norm(moved))

    itself, other_side, other_expression = norm(0), norm(1), norm(2)
    # With the shipped weights: 0.021, 0.023 and 0.425; features have a norm of about 12.
    assert itself < 0.5 * other_expression
    assert other_side < 0.5 * other_expression
