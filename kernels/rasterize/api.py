"""The public rasterizer: checks, choice of backend, and what surrounds the differentiable core."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kernels import constants, device, manual_axes, triton_compile, validation
from kernels.rasterize import vjp
from kernels.types import (
    CoreOutput,
    Operands,
    RasterizeConfig,
    RasterizeOptions,
    RasterizeOutput,
    RasterizeStats,
)

IMPLEMENTATIONS = ("triton", "xla", "reference")


def _one_splat(array: jax.Array) -> list[tuple[int, int]]:
    return [(0, 1)] + [(0, 0)] * (array.ndim - 1)


def automatic_capacity(num_splats: int, image_size: tuple[int, int]) -> int:
    """Tile intersections kept per image when the options do not say.

    Enough for splats that touch `AUTO_CAPACITY_PER_SPLAT` tiles of 8x8 pixels on average, plus some
    large ones. A scene of mostly large splats needs a capacity of its own (`propose_capacity`).
    """
    tiles = -(-image_size[0] // 8) * -(-image_size[1] // 8)
    wanted = (
        constants.AUTO_CAPACITY_PER_SPLAT * num_splats + constants.AUTO_CAPACITY_PER_TILE * tiles
    )
    return min(max(constants.AUTO_CAPACITY_FLOOR, wanted), constants.MAX_CAPACITY)


def _load(implementation: str) -> Callable[[Operands, RasterizeConfig], CoreOutput]:
    """Returns the core of a backend; ImportError or NotImplementedError where there is none."""
    if implementation == "triton":
        triton_compile.require_triton()  # its message says what to install
    module = {"triton": "triton_backend"}.get(implementation, implementation)
    backend = importlib.import_module(f"kernels.rasterize.{module}")
    if implementation == "reference":
        return lambda operands, config: backend.rasterize(vjp.finite_cameras(operands), config)
    return lambda operands, config: vjp.differentiable(backend, config)(operands)


def _run(implementation: str | None, operands: Operands, config: RasterizeConfig) -> CoreOutput:
    """Runs the named backend, or without a name the best that accepts the call."""
    if implementation is not None:
        try:
            core = _load(implementation)
        except ImportError as error:
            raise NotImplementedError(
                f"implementation={implementation!r} is not available here: {error}"
            ) from error
        return core(operands, config)
    refusals = []
    for name in ("triton", "xla") if device.is_nvidia() else ("xla",):
        try:
            return _load(name)(operands, config)
        except (NotImplementedError, ImportError) as refusal:
            refusals.append(refusal)
    if len(refusals) == 1:
        raise refusals[0]
    raise ExceptionGroup("no rasterizer backend accepts this call", refusals)


def rasterize(
    means: jax.Array,
    quats: jax.Array,
    scales: jax.Array,
    opacities: jax.Array,
    features: jax.Array,
    viewmats: jax.Array,
    intrinsics: jax.Array,
    *,
    image_size: tuple[int, int],
    background: jax.Array | None = None,
    options: RasterizeOptions | None = None,
    implementation: str | None = None,
) -> RasterizeOutput:
    """Renders 3D Gaussians (Kerbl et al. 2023) into C cameras.

    One scene and C cameras; every further batch axis through `jax.vmap` over any of the arrays,
    nested as needed: it becomes one launch, and arrays that are not mapped over are not copied.

    Differentiable in all arrays, through image, alpha and depth, once and backwards: forward-mode
    and second derivatives only with "reference". Splats that are outside the view, nearly
    transparent or not finite contribute exactly nothing and get gradients of zero.

    Args:
        means: (N, 3) centres, world units.
        quats: (N, 4) orientations, wxyz, normalised inside if their length is between 1e-12 and
            1e18; shorter ones, zero above all, count as the identity.
        scales: (N, 3) standard deviations along the axes, world units, linear (not logarithms); a
            sign is without effect.
        opacities: (N,) in [0, 1], not logits.
        features: (N, D) colours or any other values to blend, any D >= 1.
        viewmats: (C, 4, 4) world to camera; camera axes x right, y down, z forward (OpenCV).
        intrinsics: (C, 3, 3) pixels, pixel centres at +0.5.
        image_size: (height, width), pixels.
        background: (C, D) value behind everything, or None for zero.
        options: RasterizeOptions; None for the defaults.
        implementation: "triton", "xla" or "reference"; None picks what suits the platform. A named
            one runs or raises.

    Returns:
        RasterizeOutput with image (C, H, W, D), alpha (C, H, W), depth (C, H, W) and stats (C,).

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
        NotImplementedError: the named backend cannot do this call.
        OverflowError: outside jit and vmap, more tile intersections than the capacity.
    """
    options = validation.check_options(RasterizeOptions() if options is None else options)
    image_size = validation.check_image_size(image_size)
    if implementation is not None and not validation.is_one_of(implementation, IMPLEMENTATIONS):
        raise ValueError(
            f"implementation: expected one of {IMPLEMENTATIONS} or None, got {implementation!r}"
        )
    arrays = {
        "means": means,
        "quats": quats,
        "scales": scales,
        "opacities": opacities,
        "features": features,
        "viewmats": viewmats,
        "intrinsics": intrinsics,
        "background": background,
    }
    with jax.numpy_dtype_promotion("standard"):  # "strict" is about the caller's own code
        output = _rasterize(arrays, image_size, options, implementation)
    _check_overflow(output.stats, options)
    return output


def _rasterize(
    arrays: dict[str, Any],
    image_size: tuple[int, int],
    options: RasterizeOptions,
    implementation: str | None,
) -> RasterizeOutput:
    """`rasterize` of checked options; `arrays` by argument name, `background` may be None."""
    arrays = validation.as_arrays(arrays)
    validation.check_shapes(arrays)
    given = [array for array in arrays.values() if array is not None]
    # Half precision holds neither pixel positions nor transmittance.
    dtype = jnp.result_type(jnp.float32, *given)
    background = arrays.pop("background")
    if arrays["means"].shape[0] == 0:  # a transparent splat spares every backend the empty scene
        arrays |= {k: jnp.pad(arrays[k], _one_splat(arrays[k])) for k in validation.PER_SPLAT}
    operands = Operands(*(array.astype(dtype)[None] for array in arrays.values()))
    operands = manual_axes.vary_like(operands, operands)
    capacity = options.capacity or automatic_capacity(operands.means.shape[1], image_size)
    config = RasterizeConfig(options, *image_size, capacity)

    core = CoreOutput(*(leaf[0] for leaf in _run(implementation, operands, config)))
    return _finish(core, background, config)


def _finish(
    core: CoreOutput, background: jax.Array | None, config: RasterizeConfig
) -> RasterizeOutput:
    """Adds background, alpha, expected depth and statistics."""
    image, depth = core.image, core.depth
    alpha = 1.0 - core.transmittance
    if background is not None:
        behind = background.astype(image.dtype)[:, None, None, :]
        image = image + core.transmittance[..., None] * behind
    if config.options.expected_depth:
        depth = depth / jnp.maximum(alpha, constants.MIN_DEPTH_ALPHA)
    capacity = jnp.full_like(core.num_intersections, config.capacity)
    stats = RasterizeStats(
        num_intersections=core.num_intersections,
        capacity=capacity,
        overflow=jnp.maximum(core.num_intersections - capacity, 0),
    )
    return RasterizeOutput(image=image, alpha=alpha, depth=depth, stats=stats)


def _check_overflow(stats: RasterizeStats, options: RasterizeOptions) -> None:
    """Raises where the numbers are at hand, that is outside jit, grad and vmap."""
    if options.on_overflow != "raise" or isinstance(stats.overflow, jax.core.Tracer):
        return
    if not stats.overflow.is_fully_addressable:  # held in part by other hosts
        return
    overflow = int(jnp.max(stats.overflow, initial=0))
    if overflow > 0:
        needed = int(jnp.max(stats.num_intersections))
        advice = f"pass RasterizeOptions(capacity={propose_from_count(needed)})"
        if needed > constants.MAX_CAPACITY:
            advice = "no capacity holds so many: look at scales and cameras"
        raise OverflowError(
            f"options.capacity: {needed} tile intersections needed, capacity is "
            f"{int(jnp.max(stats.capacity))}, {overflow} dropped; {advice}, or on_overflow='count'"
        )


def propose_from_count(num_intersections: int) -> int:
    """Capacity with headroom for a measured number of intersections."""
    wanted = num_intersections * (1.0 + constants.CAPACITY_HEADROOM)
    multiple = constants.CAPACITY_MULTIPLE
    return min(max(1, -(-int(wanted) // multiple)) * multiple, constants.MAX_CAPACITY)


def propose_capacity(
    means: jax.Array,
    quats: jax.Array,
    scales: jax.Array,
    opacities: jax.Array,
    features: jax.Array,
    viewmats: jax.Array,
    intrinsics: jax.Array,
    *,
    image_size: tuple[int, int],
    options: RasterizeOptions | None = None,
    implementation: str | None = None,
) -> int:
    """Measures a scene, outside jit, and proposes `RasterizeOptions.capacity` for scenes like it.

    Args:
        means, quats, scales, opacities, features, viewmats, intrinsics: as for `rasterize`.
        image_size: (height, width).
        options: the options to be used.
        implementation: the backend to be used; they count tiles of different sizes.

    Returns:
        The largest count over the cameras plus 25 %, rounded up to a multiple of 1024.

    Raises:
        ValueError: "reference", which has no slots, or as `rasterize`.
        TypeError: arrays that jit or vmap traces, or as `rasterize`.
    """
    if implementation == "reference":
        raise ValueError(
            "implementation: 'reference' has no slots to count; name the backend that will run"
        )
    arrays = (means, quats, scales, opacities, features, viewmats, intrinsics)
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        raise TypeError(
            "propose_capacity: a capacity is static and cannot come from traced arrays; measure "
            "typical scenes outside jit and vmap, and take the largest"
        )
    options = validation.check_options(RasterizeOptions() if options is None else options)
    options = dataclasses.replace(options, on_overflow="count")
    output = rasterize(
        *arrays, image_size=image_size, options=options, implementation=implementation
    )
    return propose_from_count(int(jnp.max(output.stats.num_intersections, initial=0)))
