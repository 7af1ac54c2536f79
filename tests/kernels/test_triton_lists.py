"""Lists of splats for each tile: `range_kernel` and the sort before it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.kernels import triton_scene as ts

pytestmark = ts.MARKS

TILES, CAPACITY = 3, 40
NEEDED = {
    "some": (17, 1, 39),
    "none, all, too many": (0, CAPACITY, 2 * CAPACITY),
    "nothing at all": (0, 0, 0),
}


@pytest.mark.parametrize("keep", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize("last_tile", [True, False], ids=["all tiles", "last tile empty"])
@pytest.mark.parametrize("needed", NEEDED.values(), ids=NEEDED)
def test_a_list_holds_its_tiles_slots_in_order(needed, last_tile, keep):
    """Slots behind the last needed one have the last tile's key and are in no list."""
    # Not at the top: triton_scene chooses the interpreter first.
    from kernels.rasterize import triton_fwd, triton_sizes

    rng = np.random.default_rng(5)
    images = len(needed)
    tiles = rng.integers(0, TILES - (not last_tile), (images, CAPACITY))
    used = np.arange(CAPACITY) < np.minimum(needed, CAPACITY)[:, None]
    slot_splats = np.where(used, rng.integers(0, 1000, (images, CAPACITY)), -7)  # -7: garbage
    first_keys = TILES * np.arange(images)[:, None]
    emission = triton_fwd.Emission(
        keys=jnp.asarray(first_keys + np.where(used, tiles, TILES - 1), jnp.uint16),
        slots=jnp.broadcast_to(jnp.arange(CAPACITY, dtype=jnp.int32), (images, CAPACITY)),
        slot_splats=jnp.asarray(slot_splats, jnp.int32),
        first_slots=jnp.zeros((images, 1), jnp.int32),
        emitted=jnp.zeros((images, 1), jnp.int32),
        ranges=jnp.zeros((images, TILES, 2), jnp.int32),
    )
    sizes = triton_sizes.Sizes(1, images, 1, 1, TILES, 1, CAPACITY)
    lists = jax.jit(lambda e, n: triton_fwd._lists(e, n, sizes, keep))(
        emission, jnp.asarray(needed, jnp.int32)
    )
    for image in range(images):
        for tile in range(TILES):
            expected = np.flatnonzero(used[image] & (tiles[image] == tile))
            first, end = np.asarray(lists["ranges"][image, tile])
            assert end - first == len(expected)
            entries = slice(first, end)
            splats = np.asarray(lists["splats"][image, entries])
            np.testing.assert_array_equal(splats, slot_splats[image, expected])
            if keep:
                slots = np.asarray(lists["slots"][image, entries])
                np.testing.assert_array_equal(slots, expected)
