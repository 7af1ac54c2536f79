"""The rasterizer over a batch of scenes that is spread over devices."""

import jax

from kernels.rasterize import api
from kernels.types import RasterizeOptions, RasterizeOutput


def rasterize_sharded(
    *arrays: jax.Array,
    mesh: jax.sharding.Mesh,
    axis: str = "data",
    image_size: tuple[int, int],
    background: jax.Array | None = None,
    options: RasterizeOptions | None = None,
    implementation: str | None = None,
) -> RasterizeOutput:
    """Renders a batch of scenes, every device its own part of the batch.

    To the compiler a backend is an opaque call: left alone, it would gather a batch that lies on
    several devices before the call. Here every device renders what it holds (`jax.shard_map`), in
    one launch, and neither the forward nor the backward pass communicates.

    Args:
        *arrays: means, quats, scales, opacities, features, viewmats, intrinsics as for
            `kernels.rasterize`, each with a leading batch axis B.
        mesh: the devices.
        axis: name of the mesh axis that B is spread over; its size divides B.
        image_size: (height, width), pixels.
        background: (B, C, D), or None for zero.
        options: as for `kernels.rasterize`; overflow is counted, never raised.
        implementation: as for `kernels.rasterize`.

    Returns:
        RasterizeOutput with a leading B, spread like the arrays.

    Raises:
        ValueError: the mesh has no such axis, the arrays have not the same B, or the axis does not
            divide it. Everything else as for `kernels.rasterize`.
    """
    if axis not in mesh.shape:
        raise ValueError(f"axis: expected one of the mesh's axes {mesh.axis_names}, got {axis!r}")
    given = arrays if background is None else (*arrays, background)
    sizes = sorted({array.shape[0] if array.ndim else 0 for array in given})
    if len(sizes) != 1 or sizes[0] % mesh.shape[axis]:
        raise ValueError(
            f"arrays: expected one leading batch size that {mesh.shape[axis]} devices divide, got "
            f"{sizes}; stack scenes along the first axis of every array"
        )

    def one(*scene: jax.Array) -> RasterizeOutput:
        return api.rasterize(
            *scene[:7],
            image_size=image_size,
            background=scene[7] if len(scene) > 7 else None,
            options=options,
            implementation=implementation,
        )

    split = jax.sharding.PartitionSpec(axis)
    # What varies over the mesh is not tracked (check_vma): all of it does, and loops inside a
    # backend would have to say so for each of their values.
    render = jax.shard_map(
        jax.vmap(one), mesh=mesh, in_specs=split, out_specs=split, check_vma=False
    )
    return render(*given)
