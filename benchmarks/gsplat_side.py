"""gsplat's side of `benchmarks.gpu_bench`: times it over a scene and prints one JSON line.

    python benchmarks/gsplat_side.py scene.npz
    python benchmarks/gsplat_side.py scene.npz --rehearse    reads the scene, times nothing

Needs torch with CUDA and gsplat; imports nothing of this project, so that any Python will do.
"""

import json
import statistics
import sys

import numpy as np

NAMES = ("means", "quats", "scales", "opacities", "features", "viewmats", "intrinsics")


def main(path: str) -> None:
    """Times forward and forward + backward with CUDA events, the median of 5 runs of 20 calls."""
    import gsplat
    import torch

    data = np.load(path)
    arrays = [torch.tensor(data[name], device="cuda") for name in NAMES]
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

    def kernel_microseconds(function, calls: int = 10) -> float:
        """The profiler's sum over kernels, a call."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(calls):
                function()
            torch.cuda.synchronize()
        return sum(event.self_device_time_total for event in profile.key_averages()) / calls

    result = {
        "version": gsplat.__version__,
        "torch": torch.__version__,
        "forward_us": microseconds(forward_only),
        "forward_backward_us": microseconds(both),
        "forward_kernels_us": kernel_microseconds(forward_only),
        "forward_backward_kernels_us": kernel_microseconds(both),
    }
    print(json.dumps(result))


def rehearse(path: str) -> None:
    """Everything but gsplat: the scene is whole, and the answer has its form."""
    data = np.load(path)
    splats = {len(data[name]) for name in NAMES[:5]}
    if len(splats) != 1 or int(data["size"]) < 1:
        sys.exit(f"{path}: the arrays of the scene do not fit together")
    print(json.dumps({"version": "rehearsal", "forward_us": None, "forward_backward_us": None}))


if __name__ == "__main__":
    (rehearse if "--rehearse" in sys.argv[2:] else main)(sys.argv[1])
