"""The only probe of the hardware that JAX runs on."""

import jax


def platform() -> str:
    """Platform that computations are placed on by default: "cpu", "gpu" or "tpu".

    Respects `jax.default_device`.
    """
    default = jax.config.jax_default_device
    if default is None:
        return jax.default_backend()
    return default if isinstance(default, str) else default.platform


def is_nvidia() -> bool:
    """True where computations run on an NVIDIA GPU."""
    if platform() not in ("gpu", "cuda"):
        return False
    return "cuda" in jax.devices()[0].client.platform_version.lower()
