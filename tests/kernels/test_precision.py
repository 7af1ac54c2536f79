"""Matrix products keep float32 on GPUs and TPUs, whose default rounds their factors to 10 bits."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

import kernels

_HIGHEST = (jax.lax.Precision.HIGHEST,) * 2


def _products(jaxpr) -> list:
    """Precision of every matrix product in a program, also in its loops and branches."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(equation.params["precision"])
        for inner in core.jaxprs_in_params(equation.params):
            found += _products(inner)
    return found


@pytest.mark.parametrize("backend", ["reference", "xla"])
@pytest.mark.parametrize("channels", [3, 19])
def test_every_product_is_exact(backend, channels, helpers):
    scene = helpers.as_float32(helpers.make_scene())
    scene = scene._replace(
        features=jnp.ones((helpers.NUM_SPLATS, channels)), background=jnp.ones((1, channels))
    )
    options = kernels.RasterizeOptions(mode="antialiased", capacity=1024)

    def loss(*arrays):
        out = helpers.render_function(backend, options).__wrapped__(*arrays)
        return jnp.sum(out.image**2) + jnp.sum(out.alpha) + jnp.sum(out.depth)

    program = jax.make_jaxpr(jax.grad(loss, argnums=tuple(range(8))))(*scene)
    precisions = _products(program.jaxpr)
    assert len(precisions) >= 8, "the program must hold the products of both passes"
    assert all(precision == _HIGHEST for precision in precisions), precisions
