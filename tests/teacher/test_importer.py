"""Videos to a teacher pack: real frames in, every loss named, nothing half-written."""

import json
import shutil
import sys

import numpy as np
import pytest

from instant_gs import cli
from instant_gs.data import digest, packing, reader, sampler, source, validate
from instant_gs.metrics import face, mediapipe_runtime
from instant_gs.portrait import video
from instant_gs.teacher.importer import clip, frame, layout, pack, sheet
from tests import own_process

SETTINGS = pack.Settings(teacher="a camera", licence="for tests", image_size=96)


@pytest.fixture(scope="module")
def astronaut():
    data = pytest.importorskip("skimage.data", reason="the face comes with scikit-image")
    try:
        face.FaceLandmarker().close()
    except ImportError as error:
        pytest.skip(str(error))
    return data.astronaut()


def film(path, pictures):
    path.parent.mkdir(parents=True, exist_ok=True)
    with video.Writer(path, fps=25) as writer:
        for picture in pictures:
            writer.append(np.ascontiguousarray(picture))


def pan(photo, count):
    """The camera moves to the left, so the head to the right."""
    return [photo[:260, 110 - 6 * i : 370 - 6 * i] for i in range(count)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, astronaut):
    """Two people, three good videos, and what people keep beside their videos."""
    root = tmp_path_factory.mktemp("videos")
    talk = pan(astronaut, 5)
    talk[2] = np.zeros_like(talk[2])
    film(root / "ada" / "talk.mp4", talk)
    film(root / "ada" / "look.mp4", pan(astronaut, 2))
    film(root / "bob.mp4", [picture[:, ::-1] for picture in pan(astronaut, 3)])
    film(root / "wall" / "wall.mp4", [np.full((128, 160, 3), 90, np.uint8)] * 2)
    (root / "ada" / "notes.txt").write_text("no video")
    (root / "ada" / "deep").mkdir()
    (root / "text.mp4").write_text("no video either")
    whole = (root / "bob.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "void.mp4").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def imported(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "pack"
    return out, pack.write(out, videos, SETTINGS)


def test_everything_is_taken_or_named(imported):
    out, summary = imported
    assert (summary.identities, summary.clips, summary.frames) == (2, 3, 9)
    assert summary.failed_frames == 3 and summary.reasons == {"no face, or another person's": 3}
    reasons = dict(summary.unusable)
    assert set(reasons) == {"cut.mp4", "text.mp4", "void.mp4", "wall/wall.mp4"}
    assert "cut off" in reasons["cut.mp4"] and "empty" in reasons["void.mp4"]
    assert "not a video" in reasons["text.mp4"]
    assert (
        reasons["wall/wall.mp4"] == "none of 2 frames is usable: 2 x no face, or another person's"
    )
    report = json.loads((out / pack.REPORT_NAME).read_text())
    assert {
        "video": "ada/talk.mp4",
        "frame": 2,
        "reason": "no face, or another person's",
    } in report["failed_frames"]
    assert {one["path"] for one in report["ignored"]} == {"ada/notes.txt", "ada/deep"}
    text = "\n".join(pack.lines(out, summary))
    assert "2 identities, 3 clips, 9 frames (7 videos new)" in text and "wall/wall.mp4" in text


def test_the_pack_is_whole_and_says_what_it_is(imported):
    out, _ = imported
    assert list(validate.source_problems(out)) == []
    manifest = source.load_manifest(out).content
    assert manifest["licence"] == "for tests"
    assert manifest["teacher"] == {
        "name": "a camera", "importer": 1, "layout": "folder", "image_size": 96, "every": 1,
    }  # fmt: skip
    names, unfinished = source.list_identities(out)
    assert (names, unfinished) == (["ada", "bob"], [])


def test_frames_are_heads_over_black(imported):
    out, _ = imported
    (bob,) = source.load_identity(out, "bob").clips
    frames = list(source.read_frames(bob, (96, 96)))
    assert len(frames) == 3
    images, alphas, regions = (np.stack(part) for part in zip(*frames, strict=True))
    assert images[:, :30, :6].max() < 30, "the wall is gone"
    assert images[:, 20:70, 36:60].mean() > 60, "the face is not"
    assert 0.3 < (alphas > 127).mean() < 0.8
    # The picture moves by 6 pixels a frame, the aligned head does not.
    assert np.abs(images[2, 20:50, 20:44].astype(int) - images[0, 20:50, 20:44]).mean() < 12
    assert {0, 1, 2, 3, 4, 255} == set(np.unique(regions).tolist())
    row, column = np.argwhere(regions[0] == 3).mean(0)
    assert 55 < row < 70 and 40 < column < 56, "the mouth is in the lower middle"
    rows, columns = np.argwhere(regions[0] == 2).T
    assert 32 < rows.mean() < 46 and columns.min() < 44 < 52 < columns.max()


def test_cameras_see_the_turned_head(imported):
    """She turns to her right by a few degrees; the mirrored one the other way by as much."""
    out, _ = imported
    clips = {
        one.name: one for name in ("ada", "bob") for one in source.load_identity(out, name).clips
    }
    first, mirrored = clips["look"].cam2world[0], clips["bob"].cam2world[0]
    assert np.linalg.norm(first[:3, 3]) == pytest.approx(2.7, abs=1e-4)
    assert first[0, 3] == pytest.approx(-mirrored[0, 3], abs=0.15)
    assert first[1, 3] == pytest.approx(mirrored[1, 3], abs=0.15)
    assert np.abs(first[:3, 3] - [0, 0, 2.7]).max() < 1.2


def test_coefficients_are_the_networks_and_marked_so(imported, tmp_path):
    out, _ = imported
    ada = source.load_identity(out, "ada")
    assert all(one.coefficients_estimated for one in ada.clips)
    packing.pack(out, tmp_path / "packed", packing.Options(image_size=48), workers=1)
    opened = reader.Pack(tmp_path / "packed")
    assert {one.track for one in opened.clips} == {"estimated"}
    smile = opened.read(0).coefficients[44]
    assert 0.5 < smile <= 1, "she smiles"
    assert opened.attributes["ada"] == {"videos": ["ada/look.mp4", "ada/talk.mp4"]}


def bytes_of(out):
    names, _ = source.list_identities(out)
    return {name: digest.folder_sha256(out / name) for name in names}


@pytest.mark.slow
def test_workers_change_nothing(imported, videos, tmp_path):
    out, summary = imported
    again = pack.write(tmp_path / "pack", videos, SETTINGS, workers=2)
    assert bytes_of(tmp_path / "pack") == bytes_of(out)
    assert again.unusable == summary.unusable
    assert (tmp_path / "pack" / pack.REPORT_NAME).read_text() == summary.report.read_text()


def test_a_killed_import_goes_on(imported, videos, tmp_path, monkeypatch):
    out, _ = imported
    take, calls = frame.take, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return take(*args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(frame, "take", dies)
        pack.write(tmp_path / "pack", videos, SETTINGS)
    # ada's first clip was whole, the second was not: she is not whole.
    assert (tmp_path / "pack" / "ada" / "look").is_dir()
    assert not (tmp_path / "pack" / "ada" / "talk").exists()
    assert source.list_identities(tmp_path / "pack") == ([], ["ada"])
    # What a kill without any clean-up leaves.
    left = tmp_path / "pack" / "ada" / ".talk.partial" / "rgb"
    left.mkdir(parents=True)
    (left / "00000.png").write_bytes(b"half")
    (tmp_path / "pack" / "bob" / "bob" / "rgb").mkdir(parents=True)
    summary = pack.write(tmp_path / "pack", videos, SETTINGS)
    assert summary.new == 6 and summary.frames == 9
    assert bytes_of(tmp_path / "pack") == bytes_of(out)
    assert pack.write(tmp_path / "pack", videos, SETTINGS).new == 0


def test_videos_are_added_and_changed_ones_refused(imported, videos, astronaut, tmp_path):
    out = shutil.copytree(imported[0], tmp_path / "pack")
    mine = shutil.copytree(videos, tmp_path / "videos")
    assert pack.write(out, mine, SETTINGS).new == 0, "a copy is the same video"
    film(mine / "ada" / "more.mp4", pan(astronaut, 1))
    assert pack.write(out, mine, SETTINGS).new == 1
    assert [one.name for one in source.load_identity(out, "ada").clips] == ["look", "more", "talk"]
    assert list(validate.source_problems(out)) == []
    (mine / "bob.mp4").write_bytes((mine / "ada" / "talk.mp4").read_bytes())
    before = bytes_of(out)
    with pytest.raises(cli.UserError, match=r"bob\.mp4: bob/bob of .* rename the new video"):
        pack.write(out, mine, SETTINGS)
    assert bytes_of(out) == before


def test_a_video_without_frames_can_be_copied_again(imported, videos, tmp_path):
    out = shutil.copytree(imported[0], tmp_path / "pack")
    mine = shutil.copytree(videos, tmp_path / "videos")
    shutil.copy(mine / "bob.mp4", mine / "cut.mp4")
    summary = pack.write(out, mine, SETTINGS)
    assert (summary.new, summary.clips) == (1, 4)
    assert "cut.mp4" not in dict(summary.unusable)
    assert source.load_identity(out, "cut").clips[0].frames == 3
    assert list(validate.source_problems(out)) == []
    assert pack.write(out, mine, SETTINGS).new == 0


def test_every_takes_every_so_many(videos, tmp_path):
    settings = pack.Settings(teacher="x", licence="y", image_size=64, every=2)
    summary = pack.write(tmp_path / "pack", videos / "ada", settings)
    # Of talk.mp4, as an identity of its own, frames 0, 2 (black), 4; of look.mp4 frame 0.
    assert (summary.identities, summary.frames, summary.failed_frames) == (2, 3, 1)
    assert source.load_identity(tmp_path / "pack", "talk").clips[0].frames == 2


@pytest.mark.parametrize("change", [{"every": 2}, {"licence": "other"}, {"image_size": 64}])
def test_other_settings_are_refused(imported, videos, change):
    settings = pack.Settings(**{**vars(SETTINGS), **change})
    (name,) = change
    with pytest.raises(ValueError, match=f"made with other settings .{name} .*another folder"):
        pack.write(imported[0], videos, settings)


def test_a_folder_with_other_things_is_refused(videos, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty and not a teacher pack"):
        pack.write(tmp_path, videos, SETTINGS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": " "}, "teacher: expected the name"),
        ({"licence": ""}, "licence: expected an SPDX"),
        ({"layout": "zip"}, "layout: expected one of folder, xnemo"),
        ({"image_size": 8, "every": 0}, "image_size: expected 16 to 1024, got 8; every: expected"),
    ],
)
def test_impossible_settings(change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        pack.write(tmp_path / "out", tmp_path, pack.Settings(**{**vars(SETTINGS), **change}))
    assert not (tmp_path / "out").exists()


def test_without_the_network_one_line_says_what_to_install(videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)  # as if it were not installed
    monkeypatch.setattr(mediapipe_runtime, "load", mediapipe_runtime.load.__wrapped__)
    with pytest.raises(ImportError, match=r"pip install \.\[face\]"):
        pack.write(tmp_path / "out", videos, SETTINGS)
    assert not (tmp_path / "out").exists()


def test_contact_sheet(imported, tmp_path):
    from PIL import Image

    sheet.write(imported[0], tmp_path / "sheet.png")
    shown = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert shown.shape == (3 * sheet.SIDE, sheet.FRAMES * sheet.SIDE, 3)
    assert shown[: sheet.SIDE, : sheet.SIDE].mean() > 20
    sheet.check(imported[0], tmp_path / "sheet.png")  # that import may go on, and draw it again


def run(*arguments):
    return own_process.run("-m", "instant_gs.teacher.importer", *arguments)


SHEET = "--contact_sheet=docs/images/avatar.jpg"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--videos=nowhere", "--pack=out", "--teacher=x", "--licence=y"], 1, "is no folder"),
        (["--videos=.", "--pack=out"], 2, "--teacher, --licence: missing"),
        (["--videos=.", "--pack=out", "--layout=zip"], 2, "folder|xnemo"),
        (
            ["--videos=.", "--pack=out", "--teacher=x", "--licence=y", "--contact_sheet=setup.py"],
            1,
            "setup.py: the name of a picture must end in .png",
        ),
        (
            ["--videos=.", "--pack=nowhere", "--teacher=x", "--licence=y", SHEET],
            1,
            "--contact_sheet: docs/images/avatar.jpg exists already",
        ),
    ],
)
def test_one_clear_line(arguments, code, words):
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr, done.stderr


def test_command_without_a_usable_frame_fails(videos, tmp_path):
    flags = [f"--videos={videos / 'wall'}", f"--pack={tmp_path / 'p'}"]
    done = run(*flags, "--teacher=x", "--licence=y")
    assert done.returncode == 1
    assert "wall.mp4: none of 2 frames is usable" in done.stdout
    assert "gave no usable frame" in done.stderr


def test_one_driver_of_two_people_is_one_performance(astronaut, tmp_path):
    shots = pan(astronaut, 3)
    film(tmp_path / "split_vid" / "ada_drivenby_smile.mp4", shots)
    film(tmp_path / "split_vid" / "bob_drivenby_smile.mp4", [shot[:, ::-1] for shot in shots])
    settings = pack.Settings(teacher="X-NeMo", licence="x", layout="xnemo", image_size=64)
    assert pack.write(tmp_path / "pack", tmp_path, settings).frames == 6
    assert list(validate.source_problems(tmp_path / "pack")) == []
    packing.pack(tmp_path / "pack", tmp_path / "packed", packing.Options(48), workers=1)
    table = sampler.SampleTable([reader.Pack(tmp_path / "packed")], "all")
    assert table.by_key == [[0, 1]], "each can drive the other"


def test_gaps_make_another_performance(tmp_path):
    job = clip.Job(tmp_path, layout.Source(tmp_path, "ada", "smile", "smile"), tmp_path, 64, 1)
    names = []
    for failed, taken in (([], [0, 1]), ([(1, "x")], [0]), ([(1, "y")], [0]), ([(0, "x")], [1])):
        record = clip._Record(job)
        record.failed, record.taken = failed, taken
        names.append(record._performance())
    assert names[0] == "smile" and names[1] == names[2] != names[3] != names[0]
