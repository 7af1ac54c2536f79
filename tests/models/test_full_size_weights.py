"""Random weights of the released size: their Gaussians fill the picture of the photo."""

import numpy as np
import pytest

from instant_gs.models import gaussian_decoder
from tests.models import full_size_weights, ray_oracle, small


def test_outputs_get_the_mean_and_deviation_asked_for():
    decoder = small.params(small.build())["decoder"]
    features = 3 + 0.1 * np.random.default_rng(0).standard_normal((500, 48))
    before = ray_oracle.decode(decoder, features)
    after = ray_oracle.decode(full_size_weights.spread(decoder, features), features)
    for name, (mean, deviation) in full_size_weights.TARGETS.items():
        columns = getattr(gaussian_decoder.RELEASED, name)
        assert after[:, columns].mean(0) == pytest.approx(mean, abs=1e-3)
        assert after[:, columns].std(0) == pytest.approx(deviation, rel=1e-3)
    rotation = gaussian_decoder.RELEASED.rotation
    assert np.array_equal(after[:, rotation], before[:, rotation])
