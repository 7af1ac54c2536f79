"""The driving crop."""

import jax.numpy as jnp
import numpy as np

from instant_gs.geometry import crop


def test_crop_of_whole_pixels_is_exact():
    image = np.random.default_rng(0).random((2, 40, 40, 3)).astype(np.float32)
    cut = crop.motion_crop(jnp.asarray(image), 20, 0.5)
    np.testing.assert_allclose(cut, image[:, 10:30, 10:30], atol=1e-6)


def test_scale_widens_and_shift_moves_down_and_right():
    image = np.zeros((1, 40, 40, 1), np.float32)
    image[0, 25, 12] = 1
    cut = crop.motion_crop(jnp.asarray(image), 20, 0.5, shift=jnp.array([[0.125, -0.125]]))
    assert np.unravel_index(np.argmax(cut), cut.shape) == (0, 10, 7, 0)
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[None, :, None, None], (1, 40, 40, 1))
    wide = crop.motion_crop(jnp.asarray(ramp), 20, 0.5, scale=jnp.array([1.5]))
    # 30 pixels over 20 cells: two cells are 3 pixels (one step ripples: the filter is a triangle).
    column = np.asarray(wide)[0, 2:-2, 5, 0]
    np.testing.assert_allclose(column[2:] - column[:-2], 3.0, atol=1e-4)
