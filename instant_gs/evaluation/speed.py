"""How long each stage takes, compilation excluded."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from instant_gs.evaluation import protocol, reenactment

REPEATS = 15
# Slow stages stop early, after at least three calls: the median of three says enough of seconds.
BUDGET_SECONDS, FEWEST = 10.0, 3


def measure(animator: reenactment.Animator, case: protocol.Case, repeats: int = REPEATS) -> dict:
    """Times the stages on one case, one item a call.

    Args:
        animator: The model.
        case: Gives images and camera.
        repeats: Calls a stage, after two that compile and warm up.

    Returns:
        Stage ("encode", "motion_code", "animate", "render", "frame": the last three one after
        the other) -> {ms: median, ms_min, fps, repeats}; ``device``.
    """
    code_source = animator.motion_code(case.source)
    avatar = animator.encode(case.source, code_source)
    code = animator.motion_code(case.driver)
    gaussians = animator.animate(avatar, code_source, code)

    def frame():
        driving = animator.motion_code(case.driver)
        return animator.render(animator.animate(avatar, code_source, driving), case.camera).image

    stages = {
        "encode": lambda: animator.encode(case.source, code_source),
        "motion_code": lambda: animator.motion_code(case.driver),
        "animate": lambda: animator.animate(avatar, code_source, code),
        "render": lambda: animator.render(gaussians, case.camera).image,
        "frame": frame,
    }
    timed: dict[str, Any] = {name: _time(call, repeats) for name, call in stages.items()}
    return timed | {"device": jax.devices()[0].device_kind}


def _time(call: Callable[[], Any], repeats: int) -> dict:
    for _ in range(2):
        jax.block_until_ready(call())
    seconds: list[float] = []
    while len(seconds) < repeats and (len(seconds) < FEWEST or sum(seconds) < BUDGET_SECONDS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds))
    return {
        "ms": 1e3 * median,
        "ms_min": 1e3 * min(seconds),
        "fps": 1 / median,
        "repeats": len(seconds),
    }
