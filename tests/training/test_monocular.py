"""From video files to trained steps: import, pack, train."""

import json

import numpy as np
import pytest

from configs import demo
from instant_gs.data import packing
from instant_gs.metrics import face
from instant_gs.portrait import video
from instant_gs.teacher.importer import pack as importer
from instant_gs.training import loop


@pytest.fixture(scope="module")
def monocular(tmp_path_factory):
    """Two videos of one real face, imported and packed."""
    data = pytest.importorskip("skimage.data", reason="the face comes with scikit-image")
    try:
        face.FaceLandmarker().close()
    except ImportError as error:
        pytest.skip(str(error))
    root, photo = tmp_path_factory.mktemp("monocular"), data.astronaut()
    (root / "videos").mkdir()
    for name, step in (("ada", 1), ("eve", -1)):
        with video.Writer(root / "videos" / f"{name}.mp4", fps=25) as writer:
            for move in range(4):
                shot = photo[:260, 100 + 4 * move : 360 + 4 * move][:, ::step]
                writer.append(np.ascontiguousarray(shot))
    settings = importer.Settings(teacher="a camera", licence="for tests", image_size=64)
    summary = importer.write(root / "source", root / "videos", settings)
    assert summary.frames == 8, importer.lines(root / "source", summary)
    packing.pack(root / "source", root / "packed", packing.Options(64), workers=1)
    return root / "packed"


@pytest.mark.slow
def test_imported_videos_train(monocular, tmp_path):
    """The configuration of the other tests of the loop, so that it is compiled once."""
    config = demo.get_config("smoke")
    config.data.packs = (str(monocular),)
    loop.train(config, tmp_path / "run")
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(np.isfinite(value) for line in lines for value in line.values())
    first, last = lines[4], lines[7]
    assert first["avatar/region_driven"] > 0, "eyes and mouth of real frames count"
    assert first["avatar/loss"] != last["avatar/loss"]
