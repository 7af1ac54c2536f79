"""Weights of the released size, random, as a folder that ``animate --weights`` takes.

    python -m tests.models.full_size_weights photo.png out/random

Nobody can be seen with them, but every stage runs at its full size. The synthetic checkpoint's
Gaussians all lie on one spot outside of the picture, so the decoder's last layer is scaled until
those of the photo fill it: then the rasterizer has its usual work, too. The motion is damped, which
that scaling amplifies.
"""

import sys

import jax.numpy as jnp
import numpy as np

from instant_gs import convert
from instant_gs.inference import source
from instant_gs.models import gaussian_decoder
from instant_gs.training import weights
from tests.models import synthetic_checkpoint

#: Mean and standard deviation of the decoder's outputs: opacity 0.5, all colours, a cloud as wide
#: as a head, Gaussians of two pixels, any rotation.
TARGETS = {"sigma": (1.0, 0.3), "color": (0, 1), "position": (0, 0.15), "scale": (-3, 0.3)}

#: On the motion network's output.
DAMPING = 0.01


def spread(decoder: dict, features) -> dict:
    """The decoder's parameters with ``TARGETS`` reached over features (N, F)."""
    first = {name: np.asarray(value) for name, value in decoder["fc1"].items()}
    hidden = features @ first["kernel"] / np.sqrt(features.shape[-1]) + first["bias"]
    hidden = np.logaddexp(0, hidden)
    kernel, bias = (np.array(decoder["fc2"][name]) for name in ("kernel", "bias"))
    raw = hidden @ kernel / np.sqrt(len(kernel)) + bias
    for name, (mean, deviation) in TARGETS.items():
        columns = getattr(gaussian_decoder.RELEASED, name)
        gain = deviation / raw[:, columns].std(0)
        kernel[:, columns] *= gain
        bias[columns] = mean + (bias[columns] - raw[:, columns].mean(0)) * gain
    return decoder | {"fc2": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}


def main(photo: str, out: str) -> None:
    """Makes and writes them."""
    encoder, motion_encoder = (synthetic_checkpoint.state_dict(part, 0) for part in ("E", "M"))
    for name in ("motion_decoder.net.2.weight", "motion_decoder.net.2.bias"):
        encoder[name] *= np.float32(DAMPING)
    engine = convert.from_state_dicts(encoder, motion_encoder)
    image = source.read(photo, engine.image_size, aligned=False).image
    features = np.asarray(engine.encode(image).features)
    params = engine.params | {"decoder": spread(engine.params["decoder"], features)}
    provenance = {"kind": "random numbers, scaled"}
    weights.save(out, engine.config, params, provenance, half=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
