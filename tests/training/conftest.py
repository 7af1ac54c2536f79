"""A tiny pack and a tiny configuration."""

import os

import jax
import pytest

from configs import demo
from instant_gs.data import packing, synthetic


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """A packed teacher pack of colour blobs, 64 x 64."""
    folder = tmp_path_factory.mktemp("pack")
    names = [f"blob{i:02d}" for i in range(40)]
    source = synthetic.write_pack(folder / "source", names, image_size=64, views=3, frames=3)
    packing.pack(source, folder / "packed", packing.Options(image_size=64), workers=1)
    return folder / "packed"


@pytest.fixture
def config(pack):
    """The demo configuration, shrunk, on that pack."""
    config = demo.get_config("smoke")
    config.data.packs = (str(pack),)
    return config


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Runs of one configuration compile once; the folder is new, so nothing old can hide."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of the whole test run, which the workers share
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(root / "xla"))
    jax.config.update(names[1], 0.5)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
