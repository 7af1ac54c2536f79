"""The report of an evaluation: whole, self-contained, and never over something else."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from instant_gs import cli
from instant_gs.evaluation import evaluator, picture, report, score


def test_report_is_whole_and_self_contained(evaluation, tmp_path):
    page = report.write(tmp_path / "out", evaluation, overwrite=False).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["format"] == evaluator.FORMAT and stored["protocols"]["self"]["count"] == 5
    assert "&lt;pasted&gt;" in page and "<pasted>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(pictures) == 2 * (2 + 1) + 1
    tile = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
    assert tile.shape == (160, 6 * 160, 3) and tile.std() > 10
    for wanted in ("PSNR", "What the motion is worth", "Worst cases", "Speed on", "-30°"):
        assert wanted in page
    text = report.text_summary(stored)
    assert "ratio L1 over the mouth" in text
    drawn = f"{stored['protocols']['self']['distinct']} distinct, of 2 people"
    assert f"self-reenactment, 5 cases ({drawn}): with motion" in text
    assert f"self-reenactment: 5 cases, {drawn}</h2>" in page


def test_without_a_truth_identity_is_not_said_to_be_the_truths():
    mean = {"mean": 0.4, "median": 0.4, "stderr": None, "count": 1}
    scores = {variant: {"identity_distance": mean} for variant in score.VARIANTS}
    part = {"count": 1, "distinct": 1, "people": 1, "scores": scores}
    part |= {"ratios": {}, "failure_rate": None}
    text = report.text_summary({"protocols": {"cross": part}, "speed": None})
    assert "identity distance to the truth, else source (dlib)" in text


def test_report_overwrites_nothing_by_itself(evaluation, tmp_path):
    out = tmp_path / "out"
    report.write(out, evaluation, overwrite=False)
    with pytest.raises(ValueError, match="--overwrite"):
        report.write(out, evaluation, overwrite=False)
    report.write(out, evaluation, overwrite=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="other files"):
        report.write(out, evaluation, overwrite=True)


def test_the_report_may_lie_in_the_folder_one_stands_in(evaluation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for overwrite in (False, True):
        page = report.write(".", evaluation, overwrite=overwrite)
        assert page.read_text().startswith("<!doctype html>")
        assert json.loads((tmp_path / "report.json").read_text())["format"] == evaluator.FORMAT
        assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html"}


def test_a_report_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    for out, reason in {
        tmp_path / "file": f"{tmp_path}/file is no folder",
        tmp_path / "file" / "report": f"{tmp_path}/file is no folder",
        tmp_path / "gone": f"{tmp_path}/gone is no folder",
        "/proc/report": r"no file can be made in /proc \(",
    }.items():
        with pytest.raises(cli.UserError, match=f"^--out: {out}/report.html: {reason}"):
            report.check_out(out, overwrite=True)


def test_a_link_to_an_empty_folder_takes_the_report(evaluation, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert report.write(tmp_path / "link", evaluation, overwrite=False).exists()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / "report.json").exists()


def test_pictures_of_the_report_keep_colours_and_are_large_enough():
    for side, shown in ((32, 160), (100, 200), (160, 160), (200, 200)):
        image = np.random.default_rng(0).integers(0, 256, (side, 2 * side, 3), np.uint8)
        read = np.asarray(Image.open(io.BytesIO(picture.png(image))))
        np.testing.assert_array_equal(read, image.repeat(shown // side, 0).repeat(shown // side, 1))


def test_scores_that_nobody_has_are_not_listed():
    scores = {"psnr": 20.0, "error_eyes": float("nan"), "face_found": 1.0}
    assert report._caption(scores) == "PSNR, dB: 20.00"
    assert report._caption(scores | {"face_found": 0}).startswith("no face found in the result; ")
    nothing = {"mean": None, "median": None, "stderr": None, "count": 0}
    moved = {"mean": 20.0, "median": 20.0, "stderr": 0.5, "count": 3}
    variants = {"moved": {"psnr": moved, "ssim": nothing}, "rest": {"psnr": nothing}}
    assert report.table({"scores": variants}) == [("PSNR, dB", "higher", "20.00 ± 0.50", "-", 3)]
