"""Which files of a folder are videos, of whom, and of which performance."""

import pytest

from instant_gs import cli
from instant_gs.teacher.importer import layout


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_xnemo_layout(tmp_path):
    touch(
        tmp_path / "split_vid",
        "ada_drivenby_smile.mp4", "ada_drivenby_smile_driving.mp4", "ada_drivenby_smile_src.png",
        "bob_drivenby_smile.mp4", "bob_drivenby_car_driving.mp4", "other.mp4",
    )  # fmt: skip
    touch(tmp_path / "concat_vid", "ada_drivenby_smile.mp4")
    for given in (tmp_path, tmp_path / "split_vid"):
        found = layout.find(given, "xnemo")
        assert [(one.identity, one.clip, one.performance) for one in found.sources] == [
            ("ada", "smile", "smile"),
            ("bob", "car_driving", "car_driving"),  # a driver of that name: no result beside it
            ("bob", "smile", "smile"),
        ]
        assert [path.name for path, _ in found.ignored] == [
            "ada_drivenby_smile_driving.mp4", "ada_drivenby_smile_src.png", "other.mp4",
        ]  # fmt: skip


def test_folder_layout(tmp_path):
    touch(tmp_path, "ada/a.mp4", "ada/b.MOV", "bob.webm", "readme.md", ".hidden/c.mp4")
    found = layout.find(tmp_path, "folder")
    assert [(one.identity, one.clip, one.performance) for one in found.sources] == [
        ("ada", "a", "ada/a"),
        ("ada", "b", "ada/b"),
        ("bob", "bob", "bob/bob"),
    ]
    touch(tmp_path, "ada/a.mov")
    with pytest.raises(cli.UserError, match=r"a\.mov and .*a\.mp4 would both be clip a of ada"):
        layout.find(tmp_path, "folder")


def test_folders_without_videos(tmp_path):
    with pytest.raises(cli.UserError, match=r"holds no video; expected IDENTITY/\*\.mp4"):
        layout.find(tmp_path, "folder")
    with pytest.raises(cli.UserError, match="has no folder split_vid"):
        layout.find(tmp_path, "xnemo")
    touch(tmp_path, "notes.txt")
    with pytest.raises(cli.UserError, match="only 1 other files"):
        layout.find(tmp_path, "folder")
