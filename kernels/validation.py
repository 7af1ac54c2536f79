"""Checks at the public boundary: what was expected, what came, how to mend it."""

import dataclasses
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels import constants
from kernels.types import MODES, ON_OVERFLOW, RasterizeOptions

_NUMBERS = ("max_alpha", "min_compensation", "eps2d", "near", "far", "radius_clip")
PER_SPLAT = ("means", "quats", "scales", "opacities", "features")
_FLOATS = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
_FLAGS = ("expected_depth", "deterministic")


def check_options(options: Any) -> RasterizeOptions:
    """Returns the options, NumPy's numbers as Python's, so that equal options are one program's.

    Raises:
        TypeError, ValueError: names the option that cannot be used.
    """
    if not isinstance(options, RasterizeOptions):
        raise TypeError(
            f"options: expected kernels.RasterizeOptions, got {type(options).__name__}; "
            "write kernels.RasterizeOptions(mode=...)"
        )
    for name in _NUMBERS:
        if not _is_number(getattr(options, name)):
            raise _wrong_type(options, name, "a Python or NumPy number, static under jit")
    for name in _FLAGS:
        if not isinstance(getattr(options, name), bool | np.bool_):
            raise _wrong_type(options, name, "True or False")
    checks = {
        "mode": (is_one_of(options.mode, MODES), f"one of {MODES}"),
        "on_overflow": (is_one_of(options.on_overflow, ON_OVERFLOW), f"one of {ON_OVERFLOW}"),
        "max_alpha": (
            constants.MIN_ALPHA <= options.max_alpha < 1,
            "a number in [1/255, 1): smaller contributions are skipped",
        ),
        "min_compensation": (0 <= options.min_compensation <= 1, "a number in [0, 1]"),
        "eps2d": (options.eps2d >= 0 and math.isfinite(options.eps2d), "a number >= 0, pixels^2"),
        "near": (options.near > 0, "a positive distance"),
        "far": (options.far > options.near, f"a distance beyond near = {options.near}"),
        "radius_clip": (options.radius_clip >= 0, "a number >= 0, pixels"),
        "capacity": (
            options.capacity is None
            or (_is_count(options.capacity) and options.capacity <= constants.MAX_CAPACITY),
            f"a positive int up to {constants.MAX_CAPACITY}, or None for the automatic one",
        ),
        "tile_size": (
            options.tile_size is None
            or (
                isinstance(options.tile_size, tuple | list)
                and len(options.tile_size) == 2
                and all(_is_count(side) for side in options.tile_size)
            ),
            "a tuple (height, width) of positive ints, or None",
        ),
    }
    for name, (good, expected) in checks.items():
        if not good:
            raise ValueError(f"options.{name}: expected {expected}, got {getattr(options, name)!r}")
    plain = {name: float(getattr(options, name)) for name in _NUMBERS}
    plain |= {name: bool(getattr(options, name)) for name in _FLAGS}
    if options.capacity is not None:
        plain["capacity"] = int(options.capacity)
    if options.tile_size is not None:
        plain["tile_size"] = tuple(int(side) for side in options.tile_size)
    return dataclasses.replace(options, **plain)


def _wrong_type(options: RasterizeOptions, name: str, expected: str) -> TypeError:
    value = getattr(options, name)
    return TypeError(
        f"options.{name}: expected {expected}, got {value!r} of type {type(value).__name__}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_one_of(value: Any, names: tuple[str, ...]) -> bool:
    """Whether it is one of the names; an array of them is none."""
    return isinstance(value, str) and value in names


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0


def check_image_size(image_size: Any) -> tuple[int, int]:
    """Returns (height, width) as ints, or raises ValueError."""
    try:
        height, width = image_size
    except (TypeError, ValueError):
        height = width = None
    if not (_is_count(height) and _is_count(width)):
        raise ValueError(
            f"image_size: expected (height, width), two positive ints of Python or NumPy, static "
            f"under jit, got {image_size!r}"
        )
    return int(height), int(width)


def as_arrays(arrays: dict[str, Any]) -> dict[str, jax.Array | None]:
    """The arrays by name as JAX arrays; raises TypeError naming what is none.

    Args:
        arrays: by argument name; only `background` may be None.
    """
    converted: dict[str, jax.Array | None] = {}
    for name, value in arrays.items():
        if value is None and name == "background":
            converted[name] = None
            continue
        try:
            converted[name] = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name}: expected a floating-point array, got {type(value).__name__}; "
                "convert it with jnp.asarray(..., jnp.float32)"
            ) from error
    return converted


def check_shapes(arrays: dict[str, Any]) -> None:
    """Raises ValueError or TypeError unless all arrays fit one scene of N splats and C cameras.

    Args:
        arrays: by argument name: means, quats, scales, opacities, features, viewmats, intrinsics,
            and background or None.
    """
    for name, array in arrays.items():
        if array is not None and array.dtype not in _FLOATS:
            raise TypeError(
                f"{name}: expected a floating-point array of 16 to 64 bits, got {array.dtype}; "
                "convert it with .astype(jnp.float32)"
            )
    viewmats, features = arrays["viewmats"], arrays["features"]
    # N is what most arrays say, so that the one that differs is named; of two, the first.
    counts = [arrays[name].shape[0] for name in PER_SPLAT if arrays[name].ndim]
    n = max(counts, key=counts.count, default="N")
    c = viewmats.shape[0] if viewmats.ndim else "C"
    d = features.shape[-1] if features.ndim else "D"
    if d == 0:
        raise ValueError(f"features: expected at least one channel, got shape {features.shape}")
    if c == 0:
        raise ValueError(f"viewmats: expected at least one camera, got shape {viewmats.shape}")
    expected = {
        "means": (n, 3),
        "quats": (n, 4),
        "scales": (n, 3),
        "opacities": (n,),
        "features": (n, d),
        "viewmats": (c, 4, 4),
        "intrinsics": (c, 3, 3),
        "background": (c, d),
    }
    letters = {"means": "(N, 3)", "features": "(N, D)", "viewmats": "(C, 4, 4)"}
    for name, shape in expected.items():
        array = arrays[name]
        if array is not None and array.shape != shape:
            want = letters.get(name) or f"{shape}".replace("'", "")
            missing = len(shape) - array.ndim
            cure = "; map over batches with jax.vmap" if missing < 0 else ""
            if missing > 0:
                cure = "; for one camera or channel add an axis of size 1"
            raise ValueError(
                f"{name}: expected shape {want} for one scene of N = {n} splats, C = {c} cameras "
                f"and D = {d} channels, got {array.shape}{cure}"
            )
