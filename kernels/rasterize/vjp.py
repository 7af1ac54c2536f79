"""Differentiation and batching around a backend: custom_vjp outside, custom_vmap inside.

A backend is a module with

* `forward(operands, config, *, keep) -> (CoreOutput, residuals)`, residuals a pytree of arrays that
  lead with (S, C), each image's by itself, as the backward pass may have more images; they may be
  anything where `keep` is False, as no backward pass follows; and
* `backward(operands, residuals, cotangents, config) -> Operands` of gradients, the Gaussian ones
  with S rows (summed over cameras, not over scenes), `cotangents` being those of (image,
  transmittance, depth).

`jax.vmap`, however nested, only makes S larger: one launch, and arrays that are not mapped over
stay uncopied (`types.Operands`).
"""

import functools
from types import ModuleType

import jax
import jax.numpy as jnp

from kernels.types import CoreOutput, Operands, RasterizeConfig

_NUM_GAUSSIAN_ARRAYS = 5


def _fold_gaussian(array: jax.Array, mapped: bool, size: int, scenes: int) -> jax.Array:
    """A Gaussian array for `size` times `scenes` scenes, the mapped axis being the slow one."""
    if not mapped:
        return array
    rows = array.shape[1]
    if rows != scenes:
        # Mapped here while shared in a vmap inside: row (v, s % L) has no closed form in s' % L'.
        array = jnp.tile(array, (1, scenes // rows) + (1,) * (array.ndim - 2))
    return array.reshape(size * scenes, *array.shape[2:])


def _fold_image(array: jax.Array, mapped: bool, size: int) -> jax.Array:
    """An array that leads with (S, C) for size * S scenes."""
    if not mapped:
        array = jnp.broadcast_to(array, (size, *array.shape))
    return array.reshape(size * array.shape[1], *array.shape[2:])


def _fold_operands(operands: Operands, mapped: Operands, size: int) -> Operands:
    scenes = operands.viewmats.shape[1 if mapped.viewmats else 0]
    gaussians = [
        _fold_gaussian(array, is_mapped, size, scenes)
        for array, is_mapped in zip(
            operands[:_NUM_GAUSSIAN_ARRAYS], mapped[:_NUM_GAUSSIAN_ARRAYS], strict=True
        )
    ]
    cameras = [
        _fold_image(array, is_mapped, size)
        for array, is_mapped in zip(
            operands[_NUM_GAUSSIAN_ARRAYS:], mapped[_NUM_GAUSSIAN_ARRAYS:], strict=True
        )
    ]
    return Operands(*gaussians, *cameras)


def _unfold(tree, size: int):
    """Splits the leading size * S axis of every leaf and says that all of them are mapped."""
    split = jax.tree.map(lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), tree)
    return split, jax.tree.map(lambda _: True, tree)


def _empty(function, in_batched, arguments):
    """What vmap over no items gives: outputs of size 0, all of them mapped."""
    one = jax.tree.map(
        lambda array, mapped: jax.ShapeDtypeStruct(array.shape[int(mapped) :], array.dtype),
        tuple(arguments),
        tuple(in_batched),
    )
    shapes = jax.eval_shape(function, *one)
    return (
        jax.tree.map(lambda shape: jnp.zeros((0, *shape.shape), shape.dtype), shapes),
        jax.tree.map(lambda _: True, shapes),
    )


def finite_cameras(operands: Operands) -> Operands:
    """Puts a camera with a number that is not finite where it sees nothing.

    It sees nothing in the forward pass anyway, so all its gradients are zero; without this they
    would be zero times NaN, and destroy those of other cameras that share its splats.
    """
    used = operands.viewmats[..., :3, :], operands.intrinsics[..., :2, :]  # last rows are known
    finite, also = (jnp.all(jnp.isfinite(a), axis=(-2, -1), keepdims=True) for a in used)
    finite &= also
    dtype = operands.viewmats.dtype
    nowhere = jnp.zeros((1, 1, 4, 4), dtype).at[..., 2, 3].set(-1.0)
    plain = jnp.eye(3, dtype=dtype)[None, None]
    return operands._replace(
        viewmats=jnp.where(finite, operands.viewmats, nowhere),
        intrinsics=jnp.where(finite, operands.intrinsics, plain),
    )


def _batched_forward(backend: ModuleType, config: RasterizeConfig, keep: bool):
    @jax.custom_batching.custom_vmap
    def forward(operands):
        return backend.forward(operands, config, keep=keep)

    @forward.def_vmap
    def _(size, in_batched, operands):
        if size == 0:
            return _empty(forward, in_batched, (operands,))
        return _unfold(forward(_fold_operands(operands, in_batched[0], size)), size)

    return forward


def _batched_backward(backend: ModuleType, config: RasterizeConfig):
    @jax.custom_batching.custom_vmap
    def backward(operands, residuals, cotangents):
        return backend.backward(operands, residuals, cotangents, config)

    @backward.def_vmap
    def _(size, in_batched, operands, residuals, cotangents):
        if size == 0:
            return _empty(backward, in_batched, (operands, residuals, cotangents))
        folded = _fold_operands(operands, in_batched[0], size)
        residuals, cotangents = jax.tree.map(
            lambda array, mapped: _fold_image(array, mapped, size),
            (residuals, cotangents),
            tuple(in_batched[1:]),
        )
        return _unfold(backward(folded, residuals, cotangents), size)

    return backward


def _once(function):
    """The same function; differentiating it says what can be done instead."""
    once = jax.custom_jvp(function)

    @once.defjvp
    def _(primals, tangents):
        raise TypeError(  # as JAX's own for forward mode; no other backend could do it
            "kernels.rasterize: differentiable once, in reverse mode; for second derivatives and "
            "forward mode pass implementation='reference'"
        )

    return once


@functools.lru_cache(maxsize=256)
def differentiable(backend: ModuleType, config: RasterizeConfig):
    """Returns f(operands) -> CoreOutput of a backend, differentiable and vmappable.

    One function object per (backend, configuration), so that JAX's caches hit.
    """
    render = _once(_batched_forward(backend, config, keep=False))
    forward = _once(_batched_forward(backend, config, keep=True))
    backward = _once(_batched_backward(backend, config))

    @jax.custom_vjp
    def rasterize(operands: Operands) -> CoreOutput:
        return render(operands)[0]

    def rasterize_fwd(operands):
        output, residuals = forward(operands)
        return output, (operands, residuals)

    def rasterize_bwd(saved, cotangent):
        operands, residuals = saved
        with jax.numpy_dtype_promotion("standard"):
            operands = finite_cameras(operands)
            return (backward(operands, residuals, tuple(cotangent[:3])),)

    rasterize.defvjp(rasterize_fwd, rasterize_bwd)
    # Outside jit this makes one program of it; inside it changes nothing.
    return jax.jit(rasterize)
