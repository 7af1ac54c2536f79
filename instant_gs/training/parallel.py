"""How a step is spread over devices: one mesh with the axes "data" and "model".

The batch is split over all devices. The devices along "model" share one copy of the state, each
holding a part of every large array (``train.shard_parameters``; 1, the usual, gives every device
a whole copy). A step gathers the parameters, runs whole on each device (encoder, rasterizer,
losses), and the devices meet once more, to add up gradients.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from instant_gs.config import Config

AXES = ("data", "model")

# Smaller arrays stay whole on every device: splitting them saves nothing and costs messages.
MIN_SHARDED_SIZE = 2**14


def make_mesh(batch_size: int, devices=None, *, shards: int = 1, accumulate: int = 1) -> Mesh:
    """A mesh over devices, by default all of all hosts.

    Args:
        batch_size: Samples a step, of all hosts together.
        devices: Those to use, or None.
        shards: Devices that share one copy of the state.
        accumulate: Parts that each device takes its samples in.

    Raises:
        ValueError: Batch or devices cannot be split evenly.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if count % shards:
        raise ValueError(
            f"train.shard_parameters={shards}: expected a divisor of the {count} devices"
        )
    if batch_size % (count * accumulate):
        parts = f"{count} devices"
        if accumulate > 1:
            parts += f" times train.accumulate={accumulate}"
        raise ValueError(
            f"data.batch_size={batch_size}: expected a multiple of the {parts}; "
            "change it, or hide devices (CUDA_VISIBLE_DEVICES)"
        )
    shape, types = (count // shards, shards), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)


def mesh_of(config: Config, devices=None) -> Mesh:
    """The mesh of a run: all devices of all hosts, or those given.

    Raises:
        ValueError: As ``make_mesh``; or a device takes no whole groups of the discriminator's.
    """
    train = config.train
    mesh = make_mesh(
        config.data.batch_size,
        devices,
        shards=train.shard_parameters,
        accumulate=train.accumulate,
    )
    at_once = config.data.batch_size // (mesh.size * train.accumulate)
    group = config.adversarial.group_size
    if config.loss.adversarial and at_once % group:
        raise ValueError(
            f"adversarial.group_size={group}: expected a divisor of the {at_once} samples that "
            f"each of {mesh.size} devices takes at once (data.batch_size / devices / "
            "train.accumulate): the discriminator compares the samples of a group; 1 compares none"
        )
    return mesh


def shardings(tree, mesh: Mesh):
    """Where each array of a state lives: whole everywhere, or its longest axis split over "model".

    Args:
        tree: Arrays or their shapes.
        mesh: From ``make_mesh``.

    Returns:
        The same tree of NamedSharding. An array is split if it has at least MIN_SHARDED_SIZE
        numbers and an axis that the devices divide.
    """
    parts = mesh.shape["model"]

    def one(leaf):
        axes = [axis for axis, length in enumerate(leaf.shape) if length % parts == 0]
        if parts == 1 or leaf.size < MIN_SHARDED_SIZE or not axes:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "model"))

    return jax.tree.map(one, tree)


def place(tree, mesh: Mesh):
    """Arrays of a state, alike on all hosts, to where ``shardings`` wants them."""
    return jax.device_put(tree, shardings(tree, mesh))


def stay(tree, mesh: Mesh):
    """Within a jitted function: the new state lies as the old one did."""
    return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))


def whole(tree, mesh: Mesh):
    """Copies of a state's arrays on this host's first device; all hosts must call it."""
    return jax.tree.map(lambda a: a.addressable_data(0), _gather(mesh)(tree))


@functools.cache
def _gather(mesh: Mesh):
    """Compiled once, not for every picture."""
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def samples(mesh: Mesh) -> NamedSharding:
    """Where the samples of a step (leading axis) live: split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def split(batch, mesh: Mesh):
    """Arrays of this host's samples (leading axis) to parts of the arrays of all samples."""
    sharding = samples(mesh)
    return jax.tree.map(
        lambda local: jax.make_array_from_process_local_data(sharding, np.asarray(local)), batch
    )


def mean_gradient(loss_fn, mesh: Mesh, accumulate: int = 1):
    """Builds ``(params, batch, keys) -> (gradients, metrics)``, means over the samples.

    Args:
        loss_fn: ``(params, batch, keys) -> (() loss, dict of metrics)``, means over the samples
            that it is given.
        mesh: From ``make_mesh``; batch and keys (B,) are split over it.
        accumulate: Every device takes its samples in that many parts, one after the other, so
            that the activations of one part need memory at a time.
    """

    def on_one_device(params, batch, keys):
        def one_part(part):
            return jax.grad(loss_fn, has_aux=True)(params, *part)

        if accumulate == 1:
            return jax.lax.pmean(one_part((batch, keys)), AXES)
        parts = jax.tree.map(
            lambda a: a.reshape(accumulate, a.shape[0] // accumulate, *a.shape[1:]), (batch, keys)
        )
        zeros = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype),
            jax.eval_shape(one_part, jax.tree.map(lambda a: a[0], parts)),
        )

        def add(total, part):
            return jax.tree.map(jnp.add, total, one_part(part)), None

        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.lax.pmean(jax.tree.map(lambda a: a / accumulate, total), AXES)

    everywhere, spread = PartitionSpec(), PartitionSpec(AXES)
    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(everywhere, spread, spread),
        out_specs=everywhere,
        check_vma=False,  # it would have the gradients of every part summed over the devices
    )


def sample_keys(key, batch_size: int):
    """A random key for each sample (B,), the same one however many hosts share the batch.

    Hosts take every n-th sample of one sequence, and their parts lie one behind the other.
    """
    hosts = jax.process_count()
    order = np.arange(batch_size).reshape(-1, hosts).T.reshape(-1)
    return jax.random.split(key, batch_size)[order]
