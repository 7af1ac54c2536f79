"""A tiny pack and a tiny configuration."""

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
