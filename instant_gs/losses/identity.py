"""Identity: do two pictures show the same person? The cosine of two face embeddings.

The paper weighs an ArcFace distance with 0.1 (arXiv 2512.16893, section 3.4). ArcFace's public
weights are for research only; this is a MobileNet trained to recognise faces (MIT; see
`asset/NOTICE.md`), small enough to ship. Evaluation scores identity with another network
(`instant_gs.metrics.identity`), so a better score is no artefact of this loss.

Measured on 14 people of the procedural teacher, 3 expressions x 3 views (up to 50 degrees) each:
mean cosine of two pictures of one person 0.82, of two people 0.52; a random pair of the former is
closer than one of the latter in 99.4 % of cases. At 96 pixels 0.81, 0.52, 99.4 %; at 64 pixels
0.80, 0.51, 98.9 %. (Pack: --identities=14 --performances=3 --frames=1 --views=3 --image_size=256.)
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs.data import format as data_format
from instant_gs.geometry import crop
from instant_gs.losses import photometric

WEIGHTS = Path(__file__).parent / "asset" / "identity.npz"
SIZE = 224  # side of the network's input, pixels
EMBEDDING_SIZE = 1024

_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the depthwise convolutions
_TINY = 1e-12


class IdentityLoss:
    """1 - cosine of the embeddings of two aligned pictures."""

    def __init__(self):
        """Loads the weights."""
        with np.load(WEIGHTS) as file:
            # Device arrays, not numpy: a jitted caller then holds them once, not once a use.
            self._weights = {name: jnp.asarray(file[name], jnp.float32) for name in file.files}

    def __call__(self, prediction, target):
        """Distance of each pair of pictures.

        Args:
            prediction: (…, S, S, 3), about [0, 1], aligned (docs/conventions.md, World): the face
                is in the middle, from whatever side it is seen.
            target: (…, S, S, 3) in [0, 1].

        Returns:
            (…) float32 in [0, 1] (features are not negative); 0 for equal pictures.
            Differentiable in both.

        Raises:
            ValueError: Shapes differ, or are no square RGB images.
        """
        photometric.check_images(prediction, target)
        first, second = self.embed(prediction), self.embed(target)
        return 1 - (first * second).sum(-1)

    def embed(self, image):
        """Embeds the faces of aligned pictures.

        Args:
            image: (…, S, S, 3), about [0, 1].

        Returns:
            (…, 1024) float32 of length one.

        Raises:
            ValueError: Not square RGB images.
        """
        shape = jnp.shape(image)
        if len(shape) < 3 or shape[-1] != 3 or shape[-3] != shape[-2]:
            raise ValueError(
                f"image: expected (…, S, S, 3), got {shape}; crop it to the aligned square"
            )
        flat = jnp.reshape(image, (-1, *shape[-3:])).astype(jnp.float32)
        face = 255 * crop.motion_crop(flat, SIZE, data_format.FACE_CROP)
        features = self._features(face)
        norm = jnp.sqrt(jnp.square(features).sum(-1, keepdims=True) + _TINY)
        return (features / norm).reshape(*shape[:-3], EMBEDDING_SIZE)

    def _features(self, x):
        """(B, 224, 224, 3) in 0 … 255 to (B, 1024)."""
        weights = self._weights
        x = _relu6(_convolve(x, weights["conv_kernel"], 2), weights["conv_bias"])
        for i, stride in enumerate(_STRIDES):
            x = _depthwise(x, weights[f"depthwise{i}_kernel"], stride)
            x = _relu6(x, weights[f"depthwise{i}_bias"])
            x = _convolve(x, weights[f"pointwise{i}_kernel"], 1)
            x = _relu6(x, weights[f"pointwise{i}_bias"])
        return x.mean((1, 2))


def _relu6(x, bias):
    return jnp.clip(x + bias.reshape(1, 1, 1, -1), 0, 6)


def _convolve(x, kernel, stride: int):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _depthwise(x, kernel, stride: int):
    """3x3, each channel alone, as nine shifted products: quick on every backend.

    TensorFlow's "SAME" padding: at stride 2 an even side is padded at its end only.
    """
    height, width = x.shape[1] // stride, x.shape[2] // stride
    before = 1 if stride == 1 else 0
    x = jnp.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
    return sum(
        x[:, i : i + stride * height : stride, j : j + stride * width : stride]
        * kernel[i, j].reshape(1, 1, 1, -1)
        for i in range(3)
        for j in range(3)
    )
