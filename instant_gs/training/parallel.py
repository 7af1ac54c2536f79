"""Data parallelism: one mesh axis, "data", over all devices of all hosts.

Parameters are copies on every device, batches are split among the devices. A step runs whole on
each device (encoder, rasterizer, losses) and the devices meet once, to add up gradients.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(batch_size: int, devices=None) -> Mesh:
    """A mesh over devices, by default all.

    Args:
        batch_size: Samples a step, of all hosts together.
        devices: Those to use, or None.

    Raises:
        ValueError: The batch cannot be split evenly.
    """
    devices = jax.devices() if devices is None else devices
    if batch_size % len(devices):
        raise ValueError(
            f"data.batch_size={batch_size}: expected a multiple of the {len(devices)} devices; "
            "change it, or hide devices (CUDA_VISIBLE_DEVICES)"
        )
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree, mesh: Mesh):
    """Copies arrays, alike on all hosts, to every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(batch, mesh: Mesh):
    """Arrays of this host's samples (leading axis) to parts of the arrays of all samples."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(
        lambda local: jax.make_array_from_process_local_data(sharding, np.asarray(local)), batch
    )


def mean_gradient(loss_fn, mesh: Mesh):
    """Builds ``(params, batch, keys) -> (gradients, metrics)``, means over the devices.

    Args:
        loss_fn: ``(params, batch, keys) -> (() loss, dict of () metrics)``, means over the
            samples that it is given.
        mesh: From ``make_mesh``; batch and keys (B,) are split over it.
    """

    def on_one_device(params, batch, keys):
        gradients, metrics = jax.grad(loss_fn, has_aux=True)(params, batch, keys)
        return jax.lax.pmean((gradients, metrics), AXIS)

    everywhere, spread = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(everywhere, spread, spread),
        out_specs=everywhere,
        check_vma=False,  # the rasterizer's loops start from constants, which that check forbids
    )


def sample_keys(key, batch_size: int):
    """A random key for each sample (B,), the same one however many hosts share the batch.

    Hosts take every n-th sample of one sequence, and their parts lie one behind the other.
    """
    hosts = jax.process_count()
    order = np.arange(batch_size).reshape(-1, hosts).T.reshape(-1)
    return jax.random.split(key, batch_size)[order]
