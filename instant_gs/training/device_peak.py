"""What devices could do at best: dense matrix products, from their makers' data sheets or timed.

NVIDIA: data sheets of A100, H100, H200 and L4 (their figures with sparsity, halved), where float32
products run as TF32, JAX's default on these devices. Google: cloud.google.com/tpu/docs, one page a
version; float32 products run as bfloat16, JAX's default there.
"""

import time

import jax
import jax.numpy as jnp

_SIDE, _ROUNDS = 2048, 3  # of the matrices that are timed

# device_kind: FLOP/s with bfloat16, with float32
_PEAK = {
    "NVIDIA A100-SXM4-40GB": (312e12, 156e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 156e12),
    "NVIDIA A100-PCIE-40GB": (312e12, 156e12),
    "NVIDIA A100 80GB PCIe": (312e12, 156e12),
    "NVIDIA H100 80GB HBM3": (989.5e12, 494.5e12),
    "NVIDIA H100 PCIe": (756e12, 378e12),
    "NVIDIA H200": (989.5e12, 494.5e12),
    "NVIDIA L4": (121e12, 60e12),
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),
    "TPU v5": (459e12, 459e12),
    "TPU v6 lite": (918e12, 918e12),
}


def flops_per_second(device_kind: str, dtype: str) -> float | None:
    """The peak of one device, or None if it is not in the table.

    Args:
        device_kind: As ``jax.devices()[0].device_kind`` says it.
        dtype: "bfloat16" or "float32", that of the model's computation.
    """
    peak = _PEAK.get(device_kind)
    return None if peak is None else peak[("bfloat16", "float32").index(dtype)]


def timed(dtype: str) -> float:
    """FLOP/s that products of large matrices reach on the first device, the best of three.

    Args:
        dtype: As above.
    """
    matrix = jnp.ones((_SIDE, _SIDE), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    return 2 * _SIDE**3 / min(seconds)
