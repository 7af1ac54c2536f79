"""Values inside `jax.shard_map`: which mesh axes they vary over."""

import jax


def vary_like(tree, like):
    """`tree`, said to vary over every mesh axis that something of `like` varies over.

    Needed of what begins a loop as a constant and leaves it as a part of `like`; the gradient is
    the sum over those axes. Outside `jax.shard_map`, or with its `check_vma=False`, nothing varies.

    Args:
        tree: pytree of arrays.
        like: pytree of arrays.

    Returns:
        The same values.
    """
    axes = frozenset().union(*(_axes(array) for array in jax.tree.leaves(like)))

    def one(array):
        missing = tuple(sorted(axes - _axes(array)))
        return jax.lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(one, tree)


def _axes(array) -> frozenset:
    return jax.typeof(array).manual_axis_type.varying
