"""Packs of the procedural teacher: format, determinism, resuming, errors."""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from instant_gs import types
from instant_gs.data import format as pack_format
from instant_gs.data import source
from instant_gs.teacher.procedural import identity, pack, performance, render, view
from tests import own_process

SETTINGS = pack.Settings(
    seed=3,
    performance_seed=8,
    bank=4,
    performances=2,
    frames=2,
    views=2,
    image_size=32,
    max_yaw_degrees=30.0,
)


def _hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "pack"
    counts = pack.write(folder, SETTINGS, start=5, identities=2, workers=1, progress=False)
    assert counts == (2, 0)
    return folder


def test_the_reader_takes_it(written):
    manifest = source.load_manifest(written)
    assert manifest.image_size == (32, 32)
    assert source.list_identities(written) == (["p0003-000005", "p0003-000006"], [])
    person = source.load_identity(written, "p0003-000005")
    assert len(person.clips) == SETTINGS.performances * SETTINGS.views
    for clip in person.clips:
        source.verify_hashes(clip)
        coefficients = source.load_coefficients(clip)
        assert coefficients.shape == (2, 52)
        frames = list(source.read_frames(clip, manifest.image_size))
        assert len(frames) == 2
        assert all(alpha.max() == 255 and labels.max() <= 7 for _, alpha, labels in frames)


def test_a_pack_tells_where_the_key_light_stands(written):
    who = identity.attributes(3, 5)
    told = source.load_identity(written, "p0003-000005").attributes
    for name in ("key_azimuth", "key_elevation"):
        assert told[f"{name}_degrees"] == pytest.approx(np.degrees(getattr(who, name)), abs=0.051)


def test_clips_follow_the_settings(written):
    acts = [performance.make(8, number) for number in performance.choose(3, 5, bank=4, count=2)]
    coefficients = {act.name: act.frames(2) for act in acts}
    clips = source.load_identity(written, "p0003-000005").clips
    assert [(clip.performance, clip.view) for clip in clips] == [
        (name, number) for name in sorted(coefficients) for number in "01"
    ]
    for clip in clips:
        np.testing.assert_array_equal(
            source.load_coefficients(clip), coefficients[clip.performance]
        )
        pose = view.draw(3, 5, clip.performance, int(clip.view), np.radians(30.0))
        np.testing.assert_array_equal(clip.cam2world, np.stack([pose] * 2))


def test_pictures_show_what_their_clips_say(written):
    """Each frame is that of its clip's camera and of its row of coefficients."""
    clips = source.load_identity(written, "p0003-000006").clips[:2]
    cameras = types.Camera(
        np.stack([clip.cam2world[0] for clip in clips]),
        np.stack([clip.intrinsics for clip in clips]),
    )
    shown = render.render_identity(3, 6, source.load_coefficients(clips[0]), cameras, 32)
    for number, clip in enumerate(clips):
        frames = zip(*source.read_frames(clip, (32, 32)), strict=True)
        for name, pictures in zip(("image", "alpha", "regions"), frames, strict=True):
            np.testing.assert_array_equal(getattr(shown, name)[:, number], np.stack(pictures))


def test_expressions_are_the_same_for_all_identities_and_views(written):
    clips = {}
    for name in source.list_identities(written)[0]:
        for clip in source.load_identity(written, name).clips:
            values = source.load_coefficients(clip)
            np.testing.assert_array_equal(values, clips.setdefault(clip.performance, values))


def test_same_bytes_with_other_workers_and_another_range(written, tmp_path):
    settings = dataclasses.replace(SETTINGS)
    pack.write(tmp_path / "again", settings, start=4, identities=3, workers=2, progress=False)
    again, first = _hashes(tmp_path / "again"), _hashes(written)
    assert {key: again[key] for key in first} == first
    assert len(again) > len(first)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_a_stopped_command_stops_its_workers_between_frames(number, status, tmp_path):
    folder = tmp_path / "pack"
    command = [
        *(sys.executable, "-m", "instant_gs.teacher.procedural", f"--pack={folder}"),
        *("--identities=3", "--workers=2", "--image_size=32", "--frames=20000", "--views=1"),
    ]
    # A process that a shell started in the background ignores Ctrl-C, and so do its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    try:
        _wait(lambda: len({path.parts[-3] for path in folder.rglob("*.png")}) == 2)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(workers) >= 2
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does for Ctrl-C
        else:
            process.send_signal(number)
        assert process.wait(60) == status
        _wait(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def _wait(done):
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "not within a minute"
        time.sleep(0.05)


def test_a_partial_identity_is_made_again(written, tmp_path):
    folder = tmp_path / "pack"
    pack.write(folder, SETTINGS, start=5, identities=1, workers=1, progress=False)
    whole = _hashes(folder)
    (folder / "p0003-000005" / pack_format.IDENTITY_NAME).unlink()
    next((folder / "p0003-000005").rglob("*.png")).write_bytes(b"cut")
    assert pack.write(folder, SETTINGS, start=5, identities=1, workers=1, progress=False) == (1, 0)
    assert _hashes(folder) == whole
    assert pack.write(folder, SETTINGS, start=5, identities=1, workers=1, progress=False) == (0, 1)


def test_other_settings_are_refused(written):
    other = dataclasses.replace(SETTINGS, frames=3)
    with pytest.raises(ValueError, match=r"other settings.*frames 2 -> 3"):
        pack.write(written, other, start=5, identities=1, workers=1, progress=False)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("hello")
    with pytest.raises(ValueError, match="not a teacher pack"):
        pack.write(tmp_path, SETTINGS, start=0, identities=1, workers=1, progress=False)


def test_video(tmp_path):
    settings = dataclasses.replace(SETTINGS, video=True, performances=1, views=1, image_size=64)
    pack.write(tmp_path / "pack", settings, start=5, identities=1, workers=1, progress=False)
    (clip,) = source.load_identity(tmp_path / "pack", "p0003-000005").clips
    assert clip.rgb.endswith(".mp4")
    frames = list(source.read_frames(clip, (64, 64)))
    assert len(frames) == 2 and frames[0][0].mean() > 10


def test_settings_collect_every_problem():
    bad = pack.Settings(seed=-1, frames=0, performances=9, bank=4, image_size=7)
    with pytest.raises(ValueError, match="seed") as caught:
        bad.validate()
    for name in ("frames", "performances", "image_size"):
        assert name in str(caught.value)


def test_performances_are_strong_and_stable():
    rows = np.concatenate([performance.make(7, number).frames(6) for number in range(48)])
    assert rows.min() >= 0 and rows.max() <= 1 and rows.dtype == np.float32
    strong = (rows > 0.5).mean(axis=0)
    for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight"):
        assert strong[pack_format.COEFFICIENT_NAMES.index(name)] > 0.04, name
    # mouthClose undoes an open jaw's lips; no performance needs it.
    unused = {
        n for n, top in zip(pack_format.COEFFICIENT_NAMES, rows.max(0), strict=True) if top < 0.3
    }
    assert unused == {"mouthClose"}
    assert performance.make(7, 3).name == "blink-s0007-003"
    np.testing.assert_array_equal(performance.make(7, 30).keys, performance.make(7, 30).keys)
    few = performance.make(7, 1).frames(4)[:, pack_format.COEFFICIENT_NAMES.index("jawOpen")]
    assert few.max() > 0.4, "few frames already show the expression"


def test_performances_begin_almost_neutral_and_follow_their_keys():
    for number in range(30):
        act = performance.make(7, number)
        assert act.keys[0].max() <= 0.12
        near = act.frames(5000)[[0, 1000, 2000, 3000, 4000]]  # each a little behind a key pose
        np.testing.assert_allclose(near, act.keys[:5], atol=1e-3)


def test_every_performance_is_used_equally():
    chosen = np.concatenate([performance.choose(1, index, 48, 6) for index in range(64)])
    assert np.bincount(chosen, minlength=48).min() >= 5
    assert all(len(set(performance.choose(1, i, 10, 4))) == 4 for i in range(20))


def test_cameras_look_at_the_head():
    for number in range(3):
        for index in range(30):
            pose = view.draw(1, index, "smile-s0001-002", number)
            np.testing.assert_allclose(np.linalg.norm(pose[:3, 3]), 2.7, atol=1e-5)
            yaw = np.degrees(np.arctan2(pose[0, 3], pose[2, 3]))
            assert abs(yaw) <= (20 if number == 0 else 50) + 1e-3
            assert abs(np.degrees(np.arcsin(pose[1, 3] / 2.7))) <= 20 + 1e-3


def test_cameras_differ_by_performance_and_lean_a_little():
    poses = [
        [view.draw(1, index, name, 0) for name in ("smile-s0001-002", "blink-s0001-003")]
        for index in range(20)
    ]
    assert all((one != other).any() for one, other in poses)
    lean = np.degrees([np.arcsin(pose[1, 0] / np.hypot(*pose[1, :2])) for pose, _ in poses])
    assert 1 < np.abs(lean).max() <= 2 + 1e-3


def test_side_cameras_are_on_both_sides():
    poses = [view.draw(1, index, "smile-s0001-002", 1) for index in range(30)]
    yaws = [np.degrees(np.arctan2(pose[0, 3], pose[2, 3])) for pose in poses]
    assert min(yaws) < -35 and max(yaws) > 35


def _command(*arguments):
    return own_process.run("-m", "instant_gs.teacher.procedural", *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--pack"),
        (("--pack=x", "--contact_sheet=x.png"), "leave out --pack"),
        (("--pack=/dev/null/pack", "--identities=1"), "/dev/null"),
        (("--contact_sheet=setup.py",), "--contact_sheet: setup.py exists already; choose another"),
        (("--contact_sheet=x.txt",), "--contact_sheet: x.txt must end in .png"),
        (("--pack=x", "--frames=0"), "frames"),
        (("--pack=x", "--frame=3"), "--frames"),
    ],
)
def test_wrong_use_is_one_line(arguments, words):
    done = _command(*arguments)
    assert done.returncode != 0
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_command_renders_a_pack_and_a_sheet(tmp_path):
    folder = tmp_path / "pack"
    done = _command(
        f"--pack={folder}", "--identities=1", "--performances=1", "--frames=1", "--views=1",
        "--image_size=32", "--bank=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["frame_views"] == 1
    assert identity.name_of(0, 0) in source.list_identities(folder)[0]
    sheet = tmp_path / "sheet.png"
    done = _command(f"--contact_sheet={sheet}", "--identities=1", "--image_size=32")
    assert done.returncode == 0 and sheet.stat().st_size > 1000, done.stderr
