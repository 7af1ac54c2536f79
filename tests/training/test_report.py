"""A run's page."""

import html.parser
import json
import re

import imageio.v3 as iio
import numpy as np

from configs import demo
from instant_gs.training import provenance, report


class _Resources(html.parser.HTMLParser):
    """Collects what the page loads, and whether its elements close."""

    def __init__(self):
        super().__init__()
        self.sources, self.open, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        self.scripts += tag == "script"
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _run(folder, count):
    (folder / "samples").mkdir()
    for step in (500, 1000):
        picture = np.full((4, 36, 3), step // 5, np.uint8)
        iio.imwrite(folder / "samples" / f"validation_{step:07d}.png", picture)
    with open(folder / "metrics.jsonl", "w") as lines:
        for step in range(1, count + 1):
            values = {"avatar/loss": 1 / step, "speed/samples_per_second": 12.5}
            lines.write(json.dumps({"step": step, **values}) + "\n")
        # As a resumed run logs the last step again.
        lines.write(json.dumps({"step": count, "avatar/loss": float("nan")}) + "\n")
    provenance.write(folder, {"command": "train.py <again>", "packs": {"a": {"licence": "CC0"}}})


def test_the_page_holds_curves_pictures_configuration_and_provenance(tmp_path):
    _run(tmp_path, 1000)
    path = report.write(tmp_path, demo.get_config("smoke"))
    text = path.read_text()
    page = _Resources()
    page.feed(text)
    assert not page.open and not page.scripts
    assert len(page.sources) == 2 and all(s.startswith("data:image/png") for s in page.sources)
    assert text.index("validation_0001000") < text.index("validation_0000500")
    assert "train.py &lt;again&gt;" in text and "CC0" in text and "resnet_widths" in text
    assert "step 1000 of 8" in text and "12.5" in text
    _, loss = re.findall(r'points="([^"]*)"', text)
    points = np.array([pair.split(",") for pair in loss.split()], float)
    assert 100 < len(points) <= 300
    assert points[0, 1] == 0 and np.all(np.diff(points[:, 1]) >= 0), "the loss falls"
    assert not list(tmp_path.glob("*.partial*"))


def test_scores_of_a_sample_picture_stand_beside_the_metrics_of_their_step(tmp_path):
    _run(tmp_path, 3)
    with open(tmp_path / "metrics.jsonl", "a") as lines:
        lines.write(json.dumps({"step": 2, "validation/psnr": 21.5}) + "\n")
    curves = report.read_curves(tmp_path / "metrics.jsonl")
    assert curves["validation/psnr"] == [(2, 21.5)]
    assert [step for step, _ in curves["avatar/loss"]] == [1, 2, 3]
    assert "<h2>validation</h2>" in report.write(tmp_path, demo.get_config("smoke")).read_text()


def test_damaged_lines_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1, "loss": 2.0}\n\0\0\xff\n7\n{"loss": 1}\n{"step": 2, "loss": 1.0}\n'
    )
    assert report.read_curves(path) == {"loss": [(1, 2.0), (2, 1.0)]}


def test_a_run_without_metrics_has_a_page(tmp_path):
    assert "step 0 of 8" in report.write(tmp_path, demo.get_config("smoke")).read_text()
