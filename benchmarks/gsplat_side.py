"""gsplat's side of `benchmarks.gpu_bench`: times it over a scene and prints one JSON line.

    python benchmarks/gsplat_side.py scene.npz

Needs torch with CUDA and gsplat; imports nothing of this project, so that any Python will do.
"""

import json
import statistics
import sys

import numpy as np


def main(path: str) -> None:
    """Times forward and forward + backward with CUDA events, the median of 5 runs of 20 calls."""
    import gsplat
    import torch

    data = np.load(path)
    names = ("means", "quats", "scales", "opacities", "features", "viewmats", "intrinsics")
    arrays = [torch.tensor(data[name], device="cuda") for name in names]
    means, quats, scales, opacities, features, views, k = arrays
    for tensor in arrays[:6]:  # gsplat has no gradient for intrinsics
        tensor.requires_grad_(True)
    size = int(data["size"])

    def forward():
        return gsplat.rasterization(
            means,
            quats,
            scales,
            opacities,
            features,
            views,
            k,
            width=size,
            height=size,
            packed=False,
            rasterize_mode="classic",
        )[0]

    def forward_only():
        with torch.no_grad():
            forward()

    def both():
        torch.autograd.grad((forward() ** 2).sum(), arrays[:6])

    def microseconds(function, calls: int = 20) -> float:
        for _ in range(5):
            function()
        samples = []
        for _ in range(5):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                function()
            end.record()
            torch.cuda.synchronize()
            samples.append(1000 * start.elapsed_time(end) / calls)
        return statistics.median(samples)

    result = {
        "version": gsplat.__version__,
        "torch": torch.__version__,
        "forward_us": microseconds(forward_only),
        "forward_backward_us": microseconds(both),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
