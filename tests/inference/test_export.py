"""The .ply opens in viewers: layout and numbers, without the invisible Gaussians."""

import numpy as np
import pytest

from instant_gs import cli
from instant_gs.inference import export
from tests.inference import fake


def rotation_matrix(quats):
    w, x, y, z = np.moveaxis(quats.astype(np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def test_layout_is_what_viewers_expect(tmp_path):
    gaussians = fake.gaussians(4)
    assert export.write_ply(tmp_path / "a.ply", gaussians) == 3
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 3\n")
    names = [line.split()[2].decode() for line in head.splitlines() if b"property" in line]
    assert ",".join(names) == (
        "x,y,z,nx,ny,nz,f_dc_0,f_dc_1,f_dc_2,opacity,"
        "scale_0,scale_1,scale_2,rot_0,rot_1,rot_2,rot_3"
    )
    rows = np.frombuffer(body, "<f4").reshape(3, 17)
    # y down and z forward: half a turn about x, of the axes of every Gaussian as well.
    np.testing.assert_allclose(rows[:, :3], gaussians.means[1:] * [1, -1, -1])
    turned = np.diag([1.0, -1.0, -1.0]) @ rotation_matrix(gaussians.quats[1:])
    np.testing.assert_allclose(rotation_matrix(rows[:, 13:]), turned, atol=1e-5)
    np.testing.assert_allclose(0.5 + 0.28209479 * rows[:, 6:9], gaussians.colors[1:], atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-rows[:, 9])), gaussians.opacities[1:], atol=1e-6)
    np.testing.assert_allclose(np.exp(rows[:, 10:13]), gaussians.scales[1:], rtol=1e-5)


def test_extremes_stay_finite(tmp_path):
    gaussians = fake.gaussians(3)
    gaussians.opacities[1:], gaussians.scales[2] = 1.0, 0.0
    export.write_ply(tmp_path / "a.ply", gaussians)
    body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)[1]
    assert np.isfinite(np.frombuffer(body, "<f4")).all()


def test_errors(tmp_path):
    gaussians = fake.gaussians()
    with pytest.raises(cli.UserError, match=r"must end in \.ply"):
        export.write_ply(tmp_path / "a.txt", gaussians)
    gaussians.opacities[:] = 0
    with pytest.raises(ValueError, match="expected some above 1/255"):
        export.write_ply(tmp_path / "a.ply", gaussians)
    assert list(tmp_path.iterdir()) == []
    export.write_ply(tmp_path / "a.ply", fake.gaussians())
    with pytest.raises(cli.UserError, match="exists already"):
        export.write_ply(tmp_path / "a.ply", fake.gaussians())
