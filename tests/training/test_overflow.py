"""Pictures that lack Gaussians are said, once."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from instant_gs.training import loop, sample_grid, step


def test_the_first_overflow_that_is_logged_is_said_with_the_fix(
    config, tmp_path, monkeypatch, capfd
):
    config.motion_pretrain.steps, config.train.steps = 0, 4
    counts = iter([0.0, 0.25, 7.0, 0.0])

    def idle(train_state, batch):
        del batch
        metrics = {"overflow": jnp.float32(next(counts))}
        return dataclasses.replace(train_state, step=train_state.step + 1), metrics

    drawn = np.zeros((8, 8, 3), np.uint8), {}
    monkeypatch.setattr(step, "make", lambda *_: idle)
    monkeypatch.setattr(sample_grid, "make", lambda *_: lambda *_: drawn)
    loop.train(config, tmp_path / "run")
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "rasterizer" in line]
    assert line.startswith("warning: step 2: ") and "0.25 intersections" in line
    assert "--config.model.gaussians.max_scale below 0.05" in line
