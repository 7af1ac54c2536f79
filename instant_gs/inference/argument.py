"""What the engine's methods take: anything else is refused with what is expected and what to do.

Before ``jax.jit``, whose own errors name neither the argument nor the fix.
"""

import numpy as np

#: What arithmetic may add to an image in [-1, 1] before it counts as of another range.
_ROUNDING = 1e-3


def pixels(name: str, image, size: int, *, batch: bool = True) -> np.ndarray:
    """The model's pixels of an image; one type, so that one compilation serves both.

    Args:
        name: Of the argument.
        image: (size, size, 3) or (B, size, size, 3), B > 0; uint8, or float in [-1, 1].
        size: Side in pixels.
        batch: Whether a batch is taken, too.

    Returns:
        The same shape, float32 in [-1, 1].

    Raises:
        ValueError: Another shape or range.
    """
    image = np.asarray(image)
    fits = image.shape[-3:] == (size, size, 3) and image.ndim <= 3 + batch and image.size
    if not fits:
        many = f", or (B, {size}, {size}, 3) with B > 0" if batch else ", one image"
        raise ValueError(
            f"{name}: expected shape ({size}, {size}, 3){many}, got {image.shape}; align and "
            "resize it (instant_gs.portrait.alignment)"
        )
    if image.dtype == np.uint8:
        return to_model(image)
    if not (image.dtype.kind == "f" and np.abs(image).max(initial=0) <= 1 + _ROUNDING):
        raise ValueError(
            f"{name}: expected uint8, or float in [-1, 1], got {image.dtype} from "
            f"{image.min()} to {image.max()}; scale it"
        )
    return image.astype(np.float32)


def to_model(image):
    """uint8, NumPy's or JAX's, to the model's [-1, 1]."""
    return image.astype(np.float32) * np.float32(2 / 255) - 1


def check_code(name: str, code, batch: tuple[int, ...], width: int, *, of: str) -> None:
    """Refuses what is no motion code (*batch, width) of the images beside it.

    Args:
        name: Of the argument.
        code: Anything.
        batch: Leading axes.
        width: Numbers in a code.
        of: Whose code it is.

    Raises:
        ValueError: Another shape.
    """
    expected, shape = (*batch, width), np.shape(code)
    if shape != expected:
        raise ValueError(
            f"{name}: expected shape {expected}, got {shape}; pass motion_code of {of}"
        )


def coefficients(value, count: int) -> np.ndarray:
    """Expression coefficients (…, count) float32.

    Raises:
        ValueError: Another shape, no numbers, or not finite.
    """
    fix = "give them as metrics.face.FaceLandmarker reads them"
    try:
        array = np.asarray(value).astype(np.float32)
    except (ValueError, TypeError) as error:
        given = type(value).__name__
        raise ValueError(
            f"coefficients: expected an array, got {given} ({error}); {fix}"
        ) from error
    if array.shape[-1:] != (count,) or not array.size:
        raise ValueError(
            f"coefficients: expected shape (..., {count}), at least one row, got {array.shape}; "
            f"{fix}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"coefficients: expected finite numbers, got nan or inf; {fix}")
    return array


def check_bank(bank, width: int) -> None:
    """Refuses what is no bank of motion codes.

    Raises:
        ValueError: Another shape than (K, width).
    """
    shape = np.shape(bank)
    if len(shape) != 2 or shape[1] != width:
        raise ValueError(
            f"bank: expected shape (K, {width}), got {shape}; pass motion_code of K drivers"
        )


def check_rows(avatars: tuple[int, ...], width: int, maker: str, **arrays) -> None:
    """Refuses arrays that are not (…, width), or whose … do not go together with the avatars'.

    Args:
        avatars: Leading axes of the avatars that they are for.
        width: Numbers in a row.
        maker: The method that returns such arrays.
        arrays: By argument.

    Raises:
        ValueError: Another width, or axes that do not broadcast.
    """
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    for name, shape in shapes.items():
        if not shape or shape[-1] != width:
            raise ValueError(
                f"{name}: expected shape (..., {width}), got {shape}; pass what {maker} returns"
            )
    try:
        np.broadcast_shapes(avatars, *(shape[:-1] for shape in shapes.values()))
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        of = f" with avatars {avatars}" if avatars else ""
        raise ValueError(
            f"{listed}{of}: expected the same leading axes; give one row for each avatar"
        ) from None


def check_type(name: str, value, kind: type, maker: str) -> None:
    """Refuses what another method returns.

    Raises:
        TypeError: Not of the class.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"{name}: expected {kind.__name__}, got {type(value).__name__}; pass what {maker} "
            "returns"
        )


def check_camera(camera) -> None:
    """Refuses what is not one camera.

    Raises:
        ValueError: Another shape than cam2world (4, 4) and intrinsics (3, 3).
    """
    shapes = np.shape(camera.cam2world), np.shape(camera.intrinsics)
    if shapes != ((4, 4), (3, 3)):
        raise ValueError(
            "camera: expected cam2world (4, 4) and intrinsics (3, 3), which serve the whole batch, "
            f"got {shapes[0]} and {shapes[1]}; render once for each camera"
        )
