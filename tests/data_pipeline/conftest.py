"""Packs of colour blobs, written once for the whole folder; tests that damage one copy it."""

import shutil
from pathlib import Path

import pytest

from instant_gs.data import packing, synthetic

IMAGE_SIZE = 32


@pytest.fixture(scope="session")
def source_pack(tmp_path_factory) -> Path:
    """6 train identities, 3 test identities, 1 monocular: 2 performances x 3 views x 4 frames."""
    names = synthetic.names_in_split("train", 6) + synthetic.names_in_split("test", 3)
    alone = "monocular"
    path = tmp_path_factory.mktemp("data") / "source"
    return synthetic.write_pack(path, [*names, alone], monocular=[alone], image_size=IMAGE_SIZE)


@pytest.fixture(scope="session")
def packed_pack(source_pack, tmp_path_factory) -> Path:
    """The same, packed into several shards."""
    out = tmp_path_factory.mktemp("data") / "packed"
    options = packing.Options(image_size=IMAGE_SIZE, records_per_shard=60)
    summary = packing.pack(source_pack, out, options, workers=1)
    assert summary.records == 9 * 24 + 8, summary
    return out


@pytest.fixture
def copied_source(source_pack, tmp_path) -> Path:
    """A source pack that the test may damage."""
    return Path(shutil.copytree(source_pack, tmp_path / "source"))


@pytest.fixture
def copied_pack(packed_pack, tmp_path) -> Path:
    """A packed pack that the test may damage."""
    return Path(shutil.copytree(packed_pack, tmp_path / "packed"))
