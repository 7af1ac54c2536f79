"""The mean of several weights, and what is refused."""

import numpy as np
import pytest

from configs import demo
from instant_gs import average, cli
from instant_gs.training import weights


def write(folder, value, *, grid=6, extra=(), **facts):
    config = demo.get_config("smoke")
    config.data.packs = ("a/pack/that/is/elsewhere",)
    config.model.gaussians.grid = grid
    params = {"x": {name: np.full(3, value, np.float32) for name in ("y", *extra)}}
    weights.save(folder, config, params, facts)
    return str(folder)


def test_it_is_the_mean_and_says_of_what(tmp_path):
    given = [
        write(tmp_path / "a", 1.0, step=7, licence="no commerce"),
        write(tmp_path / "b", 2.0, step=8, licence="no weapons"),
        write(tmp_path / "c", 6.0, step=9, licence="no commerce"),
    ]
    facts = average.average(given, tmp_path / "mean")
    config, params, read = weights.load(tmp_path / "mean")
    np.testing.assert_array_equal(params["x"]["y"], np.full(3, 3.0))
    assert read == facts and config == weights.load(given[0])[0]
    assert [facts[folder]["step"] for folder in given] == [7, 8, 9]
    assert facts["licence"] == "no commerce no weapons"


def test_what_cannot_be_averaged_is_refused(tmp_path):
    one = write(tmp_path / "one", 1.0)
    finer = write(tmp_path / "finer", 1.0, grid=8)
    more = write(tmp_path / "more", 1.0, extra=["z"])
    for given, message in (
        ([one], "--weights=.*one: give two or more different folders"),
        ([one, one + "/"], "give two or more different folders"),
        ([one, finer], "--weights: .*finer is of another model than .*grid was 6 and is 8"),
    ):
        with pytest.raises(cli.UserError, match=message):
            average.average(given, tmp_path / "mean")
    with pytest.raises(ValueError, match=r"--weights: .*more: 1 parameters differ .* first .*z"):
        average.average([one, more], tmp_path / "mean")
    with pytest.raises(cli.UserError, match=r"--out: .*one exists already"):
        average.average([one, more], one)
    assert not (tmp_path / "mean").exists()
