"""gsplat's side of `benchmarks.gpu_bench`: times it over scenes and answers in JSON lines.

    echo scene.npz | python benchmarks/gsplat_side.py
    echo scene.npz | python benchmarks/gsplat_side.py --rehearse    reads the scene, times nothing

One process for all scenes, as torch and gsplat take seconds to load. Needs torch with CUDA and
gsplat; imports nothing of this project, so that any Python will do.
"""

import json
import statistics
import sys

import numpy as np

NAMES = ("means", "quats", "scales", "opacities", "features", "viewmats", "intrinsics")


def measure(path: str) -> dict:
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

    def microseconds(function, calls: int = 20) -> list[float]:
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
        return sorted(samples)

    def kernel_microseconds(function, calls: int = 10) -> float:
        """The profiler's sum over kernels, a call."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(calls):
                function()
            torch.cuda.synchronize()
        return sum(event.self_device_time_total for event in profile.key_averages()) / calls

    times = {"forward": microseconds(forward_only), "forward_backward": microseconds(both)}
    return {
        "version": gsplat.__version__,
        "torch": torch.__version__,
        **{f"{name}_us": statistics.median(samples) for name, samples in times.items()},
        **{f"{name}_range_us": [samples[0], samples[-1]] for name, samples in times.items()},
        "forward_kernels_us": kernel_microseconds(forward_only),
        "forward_backward_kernels_us": kernel_microseconds(both),
    }


def rehearse(path: str) -> dict:
    """Everything but gsplat: the scene is whole, and the answer has its form."""
    data = np.load(path)
    axis = data["opacities"].ndim - 1  # 1 with a leading axis of scenes
    splats = {data[name].shape[axis] for name in NAMES[:5]}
    if len(splats) != 1 or int(data["size"]) < 1:
        return {"error": f"{path}: the arrays of the scene do not fit together"}
    return {"version": "rehearsal", "forward_us": None, "forward_backward_us": None}


if __name__ == "__main__":
    answer = rehearse if "--rehearse" in sys.argv[1:] else measure
    for line in sys.stdin:
        try:
            result = answer(line.strip())
        except Exception as error:  # one scene too large must not cost the others
            result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(result), flush=True)
