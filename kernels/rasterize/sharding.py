"""The rasterizer over a batch of scenes that is spread over devices."""

import jax

from kernels import types, validation
from kernels.rasterize import api
from kernels.types import RasterizeOptions, RasterizeOutput


def rasterize_sharded(
    means: jax.Array,
    quats: jax.Array,
    scales: jax.Array,
    opacities: jax.Array,
    features: jax.Array,
    viewmats: jax.Array,
    intrinsics: jax.Array,
    *,
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
        means, quats, scales, opacities, features, viewmats, intrinsics: as for
            `kernels.rasterize`, each with a leading batch axis B.
        mesh: the devices; its axis is of type Auto or Explicit.
        axis: name of the mesh axis that B is spread over; its size divides B.
        image_size: (height, width), pixels.
        background: (B, C, D), or None for zero.
        options: as for `kernels.rasterize`; overflow is counted, never raised.
        implementation: as for `kernels.rasterize`.

    Returns:
        RasterizeOutput with a leading B, spread like the arrays.

    Raises:
        TypeError: there is no mesh.
        ValueError: the mesh has no such axis, the arrays have not the same B, or the axis does not
            divide it. Everything else as for `kernels.rasterize`.
    """
    if not isinstance(mesh, jax.sharding.Mesh | jax.sharding.AbstractMesh):
        raise TypeError(
            f"mesh: expected a jax.sharding.Mesh, got {type(mesh).__name__}; "
            "make one with jax.make_mesh((jax.device_count(),), ('data',))"
        )
    if axis not in mesh.shape:
        raise ValueError(f"axis: expected one of the mesh's axes {mesh.axis_names}, got {axis!r}")
    arrays = (means, quats, scales, opacities, features, viewmats, intrinsics)
    named = dict(zip(types.Operands._fields, arrays, strict=True), background=background)
    named = {k: array for k, array in validation.as_arrays(named).items() if array is not None}
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in named.items()}
    batch = sizes["means"]
    if set(sizes.values()) != {batch} or not batch or batch % mesh.shape[axis]:
        raise ValueError(
            f"arrays: expected one leading batch size that {mesh.shape[axis]} devices divide, got "
            f"{sizes}; stack scenes along the first axis of every array"
        )
    given = list(named.values())

    def one(*scene: jax.Array) -> RasterizeOutput:
        return api.rasterize(
            *scene[:7],
            image_size=image_size,
            background=scene[7] if len(scene) > 7 else None,
            options=options,
            implementation=implementation,
        )

    split = jax.sharding.PartitionSpec(axis)
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if kinds[axis] == jax.sharding.AxisType.Explicit:  # there arrays have to be spread beforehand
        given = jax.sharding.reshard(given, jax.sharding.NamedSharding(mesh, split))
    return jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=split, out_specs=split)(*given)
