"""A sample as a mirror shows it: faces are nearly symmetric, so each person can stand for two."""

import dataclasses

import numpy as np

from instant_gs import types
from instant_gs.data import format as data_format

_OTHER_SIDE = {"Left": "Right", "Right": "Left"}


def mirrored(view: types.View) -> types.View:
    """A view of the head mirrored at its plane of symmetry, x = 0.

    Args:
        view: Numpy arrays with any leading axes.

    Returns:
        The same shapes: pictures from right to left, the camera on the other side, coefficients of
        left and right exchanged.
    """
    flip = np.diag(np.array([-1.0, 1.0, 1.0, 1.0], np.float32))
    intrinsics = view.intrinsics.copy()
    intrinsics[..., 0, 1] *= -1
    intrinsics[..., 0, 2] = 1 - intrinsics[..., 0, 2]
    return dataclasses.replace(
        view,
        image=view.image[..., ::-1, :],
        alpha=view.alpha[..., ::-1],
        regions=view.regions[..., ::-1],
        cam2world=flip @ view.cam2world @ flip,
        intrinsics=intrinsics,
        coefficients=view.coefficients[..., _EXCHANGED],
    )


def mirror_rows(view: types.View, rows: np.ndarray) -> None:
    """Mirrors some of the views (B, …), in place.

    Args:
        view: Writable numpy arrays.
        rows: (B,) bool, which of them.
    """
    if rows.any():
        chosen = types.View(**{name: array[rows] for name, array in vars(view).items()})
        for name, array in vars(mirrored(chosen)).items():
            getattr(view, name)[rows] = array


def _exchanged(names) -> list[int]:
    """Where each coefficient's counterpart on the other side is, by its name's end."""
    numbers = {name: i for i, name in enumerate(names)}

    def counterpart(name):
        for side, other in _OTHER_SIDE.items():
            if name.endswith(side):
                return name.removesuffix(side) + other
        return name

    return [numbers[counterpart(name)] for name in names]


_EXCHANGED = _exchanged(data_format.COEFFICIENT_NAMES)
