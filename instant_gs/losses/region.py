"""Losses over named parts of the face (the paper's detail loss: L1 over eyes and mouth)."""

import jax.numpy as jnp

from instant_gs.losses import photometric


def region_mask(regions, labels):
    """Where a region image has one of the labels.

    Args:
        regions: (…, H, W) integer labels, indices into ``data.format.REGIONS``.
        labels: The wanted labels, static integers.

    Returns:
        (…, H, W) float32, 0 or 1.
    """
    return jnp.isin(regions, jnp.asarray(labels, regions.dtype)).astype(jnp.float32)


def region_l1(prediction, target, regions, labels):
    """L1 averaged over the pixels of some regions, as if they were the whole image.

    An average over the region's own pixels: a loss divided by the whole image's area would make
    the eyes, 1 % of it, count a hundredth.

    Args:
        prediction: (…, H, W, C), about [0, 1].
        target: (…, H, W, C) in [0, 1].
        regions: (…, H, W) integer labels of ``target``.
        labels: Labels that count, static integers.

    Returns:
        (…) float32 in [0, 1] for inputs in range; 0, with zero gradient, for an image that has
        none of the regions (a profile without eyes teaches nothing about eyes).
    """
    return photometric.l1(prediction, target, region_mask(regions, labels))
