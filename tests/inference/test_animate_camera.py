"""Where the animate command's camera stands: --pose, --yaw, --pitch, and the weights' own view."""

import math

import numpy as np
import pytest

from instant_gs import config as config_lib
from instant_gs.geometry import camera
from instant_gs.portrait import alignment, video
from tests.inference import fake


def turned(yaw):
    """The face of a head that a camera at this yaw, in degrees, would see from the front."""
    pose = camera.look_at(math.radians(yaw), 0.0)
    return fake.Face(fake.landmarks(130, 90, 120, pose[:3, :3].T @ np.diag([1.0, -1.0, -1.0])))


def yaws(model):
    """Degrees of the cameras that the model's frames were seen by."""
    places = [view.cam2world[:3, 3] for view in model.cameras]
    return [math.degrees(math.atan2(x, z)) for x, _, z in places]


def test_the_camera_looks_from_as_high_as_told(inputs, run, model):
    values = {"source": inputs / "photo.png", "pose": "orbit", "max_frames": 2}
    assert run(**values, out=inputs / "a.mp4", pitch=12) == 0
    places = [view.cam2world[:3, 3] for view in model.cameras]
    seen = [math.degrees(math.atan2(y, math.hypot(x, z))) for x, y, z in places]
    assert seen == pytest.approx([12] * 2, abs=0.01)


def test_orbit_without_a_video(inputs, run):
    out = inputs / "o.mp4"
    assert run(source=inputs / "photo.png", out=out, pose="orbit", max_frames=7) == 0
    assert len(list(video.open_video(out).frames())) == 7


def test_orbit_is_a_pose_of_the_camera(inputs, run, model):
    values = {"source": inputs / "photo.png", "out": inputs / "o.mp4", "pose": "orbit"}
    assert run(**values, fps=10, yaw=5) == 0
    assert max(yaws(model)) == pytest.approx(35, abs=0.2)
    assert min(yaws(model)) == pytest.approx(-25, abs=0.2)


def test_the_drivers_head_leads_the_camera(inputs, run, command, model, monkeypatch):
    monkeypatch.setattr(command, "_detector", lambda: fake.Detector(turned(20)))
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "overwrite": True}
    assert run(**values, out=inputs / "a.mp4", pose="driver", yaw=-5) == 0
    assert yaws(model) == pytest.approx([15] * 6, abs=0.01)
    model.cameras.clear()
    assert run(**values, out=inputs / "a.mp4", yaw=-5) == 0
    assert yaws(model) == pytest.approx([-5] * 6), "fixed is the default"


def test_a_trembling_head_pose_is_calmed_unless_told_otherwise(
    inputs, run, command, model, monkeypatch
):
    spread, driving = {}, [turned(yaw) for yaw in (20.5, 19.5) * 3]
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "pose": "driver"}
    for steady in (True, False):
        detectors = iter([fake.Detector(turned(0)), fake.Detector(*driving)])  # photo, video
        monkeypatch.setattr(command, "_detector", lambda found=detectors: next(found))
        assert run(**values, out=inputs / f"{steady}.mp4", steady=steady) == 0
        spread[steady] = np.abs(np.diff(yaws(model))).mean()
        model.cameras.clear()
    assert spread[False] == pytest.approx(1, abs=0.01) and spread[True] < 0.5


def test_weights_of_another_view_get_their_crops_and_cameras(inputs, run, model, monkeypatch):
    model.config, seen = config_lib.Config(), []
    model.config.model.fov_degrees = camera.FOV_LEGACY_DEGREES
    locate = alignment.locate

    def spy(landmarks, **view):
        seen.extend(view.values())
        return locate(landmarks, **view)

    monkeypatch.setattr(alignment, "locate", spy)
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    assert run(**values, out=inputs / "a.mp4", max_frames=2) == 0
    assert seen == pytest.approx([18.837] * 3, abs=1e-4)
    focal = [float(view.intrinsics[0, 0]) for view in model.cameras]
    assert focal == pytest.approx([4.26339] * 2, abs=1e-4)
