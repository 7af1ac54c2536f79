"""The mean of several weights, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs import average, cli
from instant_gs.training import checkpoint, provenance, state, weights
from tests import own_process


def config_of(grid=6, remat=False):
    config = demo.get_config("smoke")
    config.data.packs = ("a/pack/that/is/elsewhere",)
    config.model.gaussians.grid = grid
    config.model.encoder.remat = remat
    return config


def write(folder, value, *, grid=6, remat=False, extra=(), **facts):
    params = {"x": {name: np.full(3, value, np.float32) for name in ("y", *extra)}}
    weights.save(folder, config_of(grid, remat), params, facts)
    return str(folder)


def test_it_is_the_mean_and_says_of_what(tmp_path, capfd):
    start = {"folder": "demo", "step": 1}
    given = [
        write(tmp_path / "licence", 1.0, step=7, licence="no commerce", init_from=start),
        write(tmp_path / "packs", 2.0, step=8, licence="no weapons", init_from=start),
        write(tmp_path / "c", 6.0, step=9, licence="no commerce", init_from=start, remat=True),
    ]
    facts = average.average(given, tmp_path / "mean")
    config, params, read = weights.load(tmp_path / "mean")
    np.testing.assert_array_equal(params["x"]["y"], np.full(3, 3.0))
    assert read == facts and config == weights.load(given[0])[0]
    assert [one["folder"] for one in facts["mean_of"]] == given
    assert [one["step"] for one in facts["mean_of"]] == [7, 8, 9]
    assert facts["licence"] == "no commerce no weapons"
    assert "warning" not in capfd.readouterr().err
    unknown = [write(tmp_path / name, 1.0) for name in ("apart", "elsewhere")]
    for name, others in {"noise": [given[0], unknown[0]], "from_scratch": unknown}.items():
        average.average(others, tmp_path / name)
        assert "warning: these weights did not start from the same" in capfd.readouterr().err


def test_of_one_it_is_the_same_with_its_provenance(tmp_path, capfd):
    given = write(tmp_path / "one", 1.5, step=7, licence="no commerce", commit="a1")
    facts = average.average([given], tmp_path / "copy")
    config, params, read = weights.load(tmp_path / "copy")
    np.testing.assert_array_equal(params["x"]["y"], np.full(3, 1.5))
    assert read == facts == {"step": 7, "licence": "no commerce", "commit": "a1"}
    assert config == config_of() and "warning" not in capfd.readouterr().err


def test_the_command_takes_runs(tmp_path):
    for name, value in (("a", 1.0), ("b", 4.0)):
        arrays = {"x": {"y": jnp.full(3, value)}}
        checkpointer = checkpoint.RunCheckpointer(tmp_path / name)
        checkpointer.save(
            state.TrainState(jnp.int32(5), {"x": {"y": jnp.zeros(3)}}, arrays, {}, jnp.int32(-1)),
            {},
            config_of(),
        )
        checkpointer.close()
        provenance.write(tmp_path / name, {"init_from": {"folder": "demo"}})
    for names, said in (
        ("a", f"the weights of {tmp_path}/a (step 5)"),
        ("ab", f"the mean of {tmp_path}/a (step 5), {tmp_path}/b (step 5)"),
    ):
        out, given = tmp_path / f"of_{names}", ",".join(f"{tmp_path}/{name}" for name in names)
        run = own_process.run("-m", "instant_gs.average", f"--weights={given}", f"--out={out}")
        assert (run.returncode, run.stderr, run.stdout) == (0, "", f"{out}: {said}\n")
    of_one = weights.load(tmp_path / "of_a")
    np.testing.assert_array_equal(of_one[1]["x"]["y"], np.ones(3))
    assert of_one[2] == {"init_from": {"folder": "demo"}, "step": 5}
    np.testing.assert_array_equal(weights.load(tmp_path / "of_ab")[1]["x"]["y"], np.full(3, 2.5))


def test_what_cannot_be_averaged_is_refused(tmp_path):
    one = write(tmp_path / "one", 1.0)
    finer = write(tmp_path / "finer", 1.0, grid=8)
    more = write(tmp_path / "more", 1.0, extra=["z"])
    spoilt = write(tmp_path / "spoilt", np.nan)
    partly = {"x": {"y": np.float32([1, np.inf, 1]), "z": np.zeros(3, np.float32)}}
    weights.save(tmp_path / "partly", config_of(), partly, {})
    for given, message in (
        ([], "--weights=: give one folder or different ones"),
        ([one, one + "/"], "give one folder or different ones"),
        ([one, ""], "give one folder or different ones"),
        (["small", str(weights.SHIPPED / "small")], "give one folder or different ones"),
        ([one, finer], "--weights: of different models: model.* is 6 in .*one and 8 in .*finer"),
        ([one, spoilt], "--weights: .*spoilt: parameters are not finite"),
        ([str(tmp_path / "partly")], "--weights: .*partly: parameters are not finite"),
    ):
        with pytest.raises(cli.UserError, match=message):
            average.average(given, tmp_path / "mean")
    with pytest.raises(ValueError, match=r"--weights: .*more: 1 parameters differ .* first .*z"):
        average.average([one, more], tmp_path / "mean")
    with pytest.raises(cli.UserError, match=r"--out: .*one exists already"):
        average.average([one, more], one)
    assert not (tmp_path / "mean").exists()
