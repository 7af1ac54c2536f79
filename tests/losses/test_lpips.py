"""LPIPS against the authors' implementation, and its behaviour as a loss."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs.losses import lpips

# Made once with torch 2.13 (conv2d, max_pool2d, as `lpips` 0.1.4 composes them) from the same
# backbones and the heads inside `lpips` 0.1.4: distances of `_pair()`, norm of the gradient of
# their sum, and that gradient's product with (prediction - target).
TORCH = {
    "alexnet": ((0.43551955, 0.46137685), 0.27703461, 0.05902965),
    "vgg": ((0.43665624, 0.40402910), 0.27953067, 0.26423240),
}


def _pair(size=64):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    base = np.stack(
        [0.5 + 0.4 * np.sin(6 * x + 3 * y), 0.5 + 0.4 * np.cos(9 * y * x + 1), x * (1 - y)], -1
    )
    first = np.stack([base, base[::-1]])
    second = np.clip(first**1.3 + 0.1 * rng.standard_normal(first.shape), 0, 1)
    return first.astype(np.float32), second.astype(np.float32)


@pytest.mark.parametrize("network", lpips.NETWORKS)
def test_equals_torch(network):
    first, second = _pair()
    distance = lpips.Lpips(network)

    @jax.jit
    def both(x, y):  # y is an argument: XLA would fold a constant's convolutions for a minute
        return jax.value_and_grad(lambda x: distance(x, y).sum())(x)

    values, norm, product = TORCH[network]
    total, gradient = both(first, second)
    np.testing.assert_allclose(float(total), sum(values), rtol=1e-5)
    # VGG's 2x2 pools meet exact ties, which torch gives to the first and we share.
    np.testing.assert_allclose(float(jnp.linalg.norm(gradient)), norm, rtol=1e-3)
    np.testing.assert_allclose(float((gradient * (first - second)).sum()), product, rtol=1e-3)


@pytest.fixture(scope="module")
def alexnet():
    return lpips.Lpips("alexnet")


def test_values_and_shapes(alexnet):
    first, second = _pair()
    values = jax.jit(alexnet)(first, second)
    np.testing.assert_allclose(values, TORCH["alexnet"][0], rtol=1e-5)
    nested = jax.jit(alexnet)(first[:, None], first[:, None])
    assert nested.shape == (2, 1)
    assert float(jnp.abs(nested).max()) < 1e-9
    with jax.enable_x64(True):
        assert jax.jit(alexnet)(first, second).dtype == jnp.float32


def test_gradient_is_finite_on_black_and_on_equal_images(alexnet):
    black = np.zeros((1, 32, 32, 3), np.float32)
    gradient = jax.jit(jax.grad(lambda x, y: alexnet(x, y).sum()))
    assert np.isfinite(gradient(black, black)).all()
    assert np.isfinite(gradient(black, black + 0.5)).all()
    assert float(jnp.abs(gradient(black, black + 0.5)).max()) > 0


def test_refuses_wrong_input(alexnet):
    image = np.zeros((1, 64, 64, 3), np.float32)
    with pytest.raises(ValueError, match="alexnet, vgg"):
        lpips.Lpips("squeeze")
    with pytest.raises(ValueError, match="equal shapes"):
        alexnet(image, image[:, :32])
    with pytest.raises(ValueError, match="at least 32"):
        alexnet(image[:, :16], image[:, :16])


class _Evil:
    def __reduce__(self):
        return print, ("unpickled code ran",)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(_Evil()), pickle.dumps({})])
def test_refuses_files_that_are_not_weights(tmp_path, content, capsys):
    (tmp_path / "alexnet.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"alexnet\.ckpt: expected LPIPS weights"):
        lpips.load_weights("alexnet", tmp_path)
    assert "ran" not in capsys.readouterr().out
