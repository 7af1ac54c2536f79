"""Backward pass of the Triton backend: blending back to front, then the projection's gradient.

    blend backward -> gather records, gather features -> project backward

Nothing is sorted again: the lists are residuals. Every pair of tile and splat has a row of its own
for its gradients, and rows are summed splat by splat in the order of emission. So there are no
atomics, and the same bits come out of every run whether `options.deterministic` asks for it or not.
"""

import jax
import jax.numpy as jnp

from kernels import triton_call
from kernels.rasterize import (
    triton_blend_bwd,
    triton_config,
    triton_gather,
    triton_projection_bwd,
    triton_sizes,
)
from kernels.rasterize.triton_sizes import Residuals, Sizes, cdiv, leads, shaped, sizes_of
from kernels.types import Operands, RasterizeConfig

_FEATURE_BLOCK = 16  # channels, depth among them, of a program for gradients of many channels
_PROJECT_BLOCK = 128  # splats of a program of the projection's gradient
_GATHER_BLOCK = 64  # splats of a program that sums slots
_GATHER_STEP = 4  # slots of each that it adds at a time
_GATHER_CHANNELS = 8  # channels that it adds at a time


def _blend_backward(operands: Operands, residuals: Residuals, cotangents, sizes, config, kernel):
    """Moments (I, capacity, 8) and gradients of features with depth (I, capacity, D + 1)."""
    images, channels = sizes.images, sizes.channels
    image_grads, transmittance_grads, depth_grads = cotangents
    fused = not kernel.use_dot
    moments_shape = shaped((images, sizes.capacity, 8))
    features_shape = shaped((images, sizes.capacity, channels + 1))
    image_scalars = {
        "width": config.width,
        "height": config.height,
        "tiles_x": sizes.tiles_x,
    }
    tile_constants = {
        "MAX_ALPHA": float(config.options.max_alpha),
        "TILE_W": kernel.tile[1],
        "TILE_H": kernel.tile[0],
        "CHUNK": kernel.backward_chunk,
    }
    moments, slot_features = triton_call.triton_call(
        triton_blend_bwd.blend_backward_kernel,
        residuals.ranges,
        residuals.splats,
        residuals.slots,
        residuals.records,
        operands.features,
        residuals.transmittance,
        residuals.last,
        image_grads,
        transmittance_grads,
        depth_grads,
        outputs=(moments_shape, features_shape if fused else shaped((1,))),
        grid=(sizes.tiles, images),
        scalars={
            "total": sizes.splats,
            "capacity": sizes.capacity,
            "cameras": sizes.cameras,
            **image_scalars,
            "features_lead": operands.features.shape[0],
        },
        constants={"CHANNELS": channels, **tile_constants, "FUSED": fused},
        num_warps=kernel.backward_warps,
    )
    if not fused:
        (slot_features,) = triton_call.triton_call(
            triton_blend_bwd.feature_backward_kernel,
            residuals.ranges,
            residuals.splats,
            residuals.slots,
            residuals.records,
            residuals.transmittance,
            residuals.last,
            image_grads,
            depth_grads,
            outputs=(features_shape,),
            grid=(sizes.tiles, images, cdiv(channels + 1, _FEATURE_BLOCK)),
            scalars={"total": sizes.splats, "capacity": sizes.capacity, **image_scalars},
            constants={"CHANNELS": channels, "BLOCK_D": _FEATURE_BLOCK, **tile_constants},
            num_warps=kernel.feature_warps,
        )
    return moments, slot_features


def _gather(residuals: Residuals, moments, slot_features, sizes: Sizes, kernel):
    """Gradients of records (I, N, 8) and of features (S, N, D) from those of slots."""
    (record_grads,) = triton_call.triton_call(
        triton_gather.gather_records_kernel,
        residuals.first_slots,
        residuals.emitted,
        residuals.keys,
        residuals.records,
        moments,
        slot_features,
        outputs=(shaped((sizes.images, sizes.splats, 8)),),
        grid=(cdiv(sizes.splats, _GATHER_BLOCK), sizes.images),
        scalars={
            "total": sizes.splats,
            "capacity": sizes.capacity,
            "tiles_x": sizes.tiles_x,
            "tiles": sizes.tiles,
            "columns": sizes.channels + 1,
        },
        constants={
            "TILE_W": kernel.tile[1],
            "TILE_H": kernel.tile[0],
            "BLOCK": _GATHER_BLOCK,
            "STEP": _GATHER_STEP,
            "LARGE": triton_sizes.LARGE,
        },
    )
    block_d = min(_GATHER_CHANNELS, 1 << (sizes.channels - 1).bit_length())
    (feature_grads,) = triton_call.triton_call(
        triton_gather.gather_features_kernel,
        residuals.first_slots,
        residuals.emitted,
        slot_features,
        outputs=(shaped((sizes.scenes, sizes.splats, sizes.channels)),),
        grid=(
            cdiv(sizes.splats, _GATHER_BLOCK),
            sizes.scenes,
            cdiv(sizes.channels, block_d),
        ),
        scalars={
            "total": sizes.splats,
            "capacity": sizes.capacity,
            "cameras": sizes.cameras,
        },
        constants={
            "CHANNELS": sizes.channels,
            "BLOCK_D": block_d,
            "BLOCK": _GATHER_BLOCK,
            "STEP": _GATHER_STEP,
            "LARGE": triton_sizes.LARGE,
        },
    )
    return record_grads, feature_grads


def _project_backward(operands: Operands, emitted, record_grads, sizes, config, kernel):
    """Gradients of means, quats, scales, opacities (S rows), and (I, blocks, 32) of the cameras."""
    options, total, scenes = config.options, sizes.splats, sizes.scenes
    blocks = cdiv(total, _PROJECT_BLOCK)
    return triton_call.triton_call(
        triton_projection_bwd.project_backward_kernel,
        *operands[:4],
        operands.viewmats,
        operands.intrinsics,
        emitted,
        record_grads,
        outputs=(
            shaped((scenes, total, 3)),
            shaped((scenes, total, 4)),
            shaped((scenes, total, 3)),
            shaped((scenes, total)),
            shaped((sizes.images, blocks, triton_projection_bwd.CAMERA_GRADS.value)),
        ),
        grid=(blocks, scenes),
        scalars={
            "total": total,
            "images_per_set": sizes.cameras,
            "width": config.width,
            "height": config.height,
            **leads(operands, ("means", "quats", "scales", "opacities")),
        },
        constants={
            "EPS2D": float(options.eps2d),
            "ANTIALIASED": options.mode == "antialiased",
            "MIN_COMPENSATION": float(options.min_compensation),
            "BLOCK": _PROJECT_BLOCK,
        },
        # Left to itself ptxas spills one register here on some GPUs to fit five blocks, not four.
        max_registers=kernel.project_registers,
    )


def _camera_gradients(partials: jax.Array, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """Sums the blocks' parts to viewmats (S, C, 4, 4) and intrinsics (S, C, 3, 3)."""
    total = jnp.sum(partials[..., :18], axis=1).reshape(sizes.scenes, sizes.cameras, 18)
    lead = total.shape[:2]
    pose = jnp.pad(total[..., :12].reshape(*lead, 3, 4), [(0, 0), (0, 0), (0, 1), (0, 0)])
    k = jnp.pad(total[..., 12:].reshape(*lead, 2, 3), [(0, 0), (0, 0), (0, 1), (0, 0)])
    return pose, k


def backward(
    operands: Operands,
    residuals: Residuals,
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
    config: RasterizeConfig,
) -> Operands:
    """Gradients of all operands, the Gaussian ones with one row per scene.

    Args:
        operands: what was rendered.
        residuals: of `triton_fwd.forward`.
        cotangents: of image (S, C, H, W, D), transmittance and depth (S, C, H, W).
        config: the static configuration of the forward call.
    """
    kernel = triton_config.choose(config, operands.features.shape[-1])
    sizes = sizes_of(operands, config, kernel.tile)
    rows = _blend_backward(operands, residuals, cotangents, sizes, config, kernel)
    record_grads, feature_grads = _gather(residuals, *rows, sizes, kernel)
    means, quats, scales, opacities, partials = _project_backward(
        operands, residuals.emitted, record_grads, sizes, config, kernel
    )
    pose, k = _camera_gradients(partials, sizes)
    return Operands(means, quats, scales, opacities, feature_grads, pose, k)
