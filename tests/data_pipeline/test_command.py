"""The command lines: one clear line and an exit code for everything expected."""

import pytest

from tests import own_process


def _run(module, *arguments):
    return own_process.run("-m", f"instant_gs.data.{module}", *arguments)


def test_pack_and_validate(source_pack, tmp_path):
    flags = [f"--source={source_pack}", f"--out={tmp_path / 'out'}", "--image_size=32"]
    done = _run("pack", *flags, "--workers=1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "224 frames of 10 identities (224 new), 32x32" in done.stdout
    done = _run("validate", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "whole (packed): 10 identities" in done.stdout


def test_broken_clip(copied_source, tmp_path):
    (copied_source / "blob_0" / "jaw_v0" / "00000.png").write_text("no picture")
    flags = [f"--source={copied_source}", f"--out={tmp_path / 'out'}", "--image_size=32"]
    done = _run("pack", *flags, "--workers=1")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("broken clip: blob_0/jaw_v0: ")
    assert lines[1].startswith(f"error: {copied_source}: 1 broken clips")
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = _run("validate", copied_source)
    assert done.returncode == 1
    assert done.stderr.startswith("problem: blob_0/jaw_v0: ")
    assert done.stderr.splitlines()[-1].endswith(": 1 problem, named above")


@pytest.mark.parametrize(
    ("module", "arguments", "code", "words"),
    [
        ("pack", ["--source=nowhere", "--out=out"], 1, "nowhere/manifest.json: no such file"),
        ("pack", ["--source=nowhere"], 2, "out"),
        ("pack", ["--source=a", "--out=b", "--image_sice=3"], 2, "did you mean --image_size?"),
        ("validate", ["nowhere"], 1, "nowhere: no such folder"),
        ("validate", [], 2, "give one pack's folder"),
    ],
)
def test_one_clear_line(module, arguments, code, words):
    done = _run(module, *arguments)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
