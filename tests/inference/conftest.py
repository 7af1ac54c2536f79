"""What tests of the animate command share, and a real face with what finds it."""

import importlib
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import instant_gs
from instant_gs import cli
from instant_gs.inference import avatar
from instant_gs.metrics import face
from instant_gs.portrait import matting, video
from tests import own_flags
from tests.inference import fake


@pytest.fixture(scope="module")
def command():
    """The command's module, its flags defined while these tests run and not a moment longer."""
    with own_flags.alone():
        module = importlib.import_module("instant_gs.animate")
        flags.FLAGS(["animate"])
        yield module
    for name in ("animate", "animate_flags"):  # the next import defines them anew
        del sys.modules[f"instant_gs.{name}"]
        delattr(instant_gs, name)


@pytest.fixture
def run(command):
    """Runs the command in this process; returns its exit status."""

    def call(**values):
        arguments = [f"--{name}={value}" for name, value in values.items()]
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
            cli.run(command.main, ["animate", *arguments])
        return caught.value.code or 0

    return call


@pytest.fixture
def model(monkeypatch):
    """The fake that stands for all weights."""
    made = fake.Engine()
    monkeypatch.setattr(avatar, "load", lambda directory: made)
    return made


@pytest.fixture
def inputs(tmp_path, monkeypatch, command, model):
    """A photo, a video of the same painted head, a fake model and a fake detector."""
    picture = fake.picture()
    Image.fromarray(picture).save(tmp_path / "photo.png")
    with video.Writer(tmp_path / "video.mp4", fps=10) as writer:
        for index in range(6):
            writer.append(np.roll(picture, 2 * index, axis=1))
    with video.Writer(tmp_path / "aligned.mp4", fps=10) as writer:
        for index in range(5):
            writer.append(np.full((48, 48, 3), 40 * index + 20, np.uint8))
    monkeypatch.setattr(matting, "_network", fake.Segmenter)
    detector = fake.Detector(fake.Face(fake.landmarks(130, 90, 120)))
    monkeypatch.setattr(command, "_detector", lambda: detector)
    return tmp_path


@pytest.fixture(scope="module")
def detector():
    """The real one; loading it takes a second."""
    try:
        return face.FaceLandmarker()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def astronaut():
    """(512, 512, 3) uint8, the demo's real photo."""
    data = pytest.importorskip("skimage.data", reason="the demo photo comes with scikit-image")
    return data.astronaut()
