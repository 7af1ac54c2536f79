"""The .ply opens in viewers: layout and numbers, without the invisible Gaussians."""

import dataclasses

import jax
import numpy as np
import pytest

from instant_gs import cli, rendering, types
from instant_gs.geometry import camera
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
    assert export.write_ply(tmp_path / "a.ply", gaussians, filter_width=0) == 3
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
    gaussians.quats[1] = 0
    export.write_ply(tmp_path / "a.ply", gaussians, filter_width=0)
    body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)[1]
    rows = np.frombuffer(body, "<f4").reshape(2, 17)
    assert np.isfinite(rows).all()
    assert (1 / (1 + np.exp(-rows[:, 9])) > 0.9999).all() and np.exp(rows[1, 10:13]).max() < 1e-6


def test_quaternions_are_of_unit_length(tmp_path):
    """Those of a model are of any; not all viewers divide by it."""
    gaussians = fake.gaussians(4)
    lengths = np.array([[1.0], [0.2], [1.0], [7.0]], np.float32)
    for name, scale in (("a", 1), ("b", lengths)):
        scaled = dataclasses.replace(gaussians, quats=scale * gaussians.quats)
        export.write_ply(tmp_path / f"{name}.ply", scaled, filter_width=0)
    (first, second) = (read(tmp_path / name) for name in ("a.ply", "b.ply"))
    np.testing.assert_allclose(np.linalg.norm(first.quats, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(first.quats, second.quats, atol=1e-6)


def test_errors(tmp_path):
    gaussians = fake.gaussians()
    with pytest.raises(cli.UserError, match=r"must end in \.ply"):
        export.write_ply(tmp_path / "a.txt", gaussians, filter_width=0)
    gaussians.opacities[:] = 0
    with pytest.raises(ValueError, match="expected some above 1/255"):
        export.write_ply(tmp_path / "a.ply", gaussians, filter_width=0)
    assert list(tmp_path.iterdir()) == []
    export.write_ply(tmp_path / "a.ply", fake.gaussians(), filter_width=0)
    with pytest.raises(cli.UserError, match="exists already"):
        export.write_ply(tmp_path / "a.ply", fake.gaussians(), filter_width=0)
    several = jax.tree.map(lambda leaf: leaf[None], fake.gaussians())
    with pytest.raises(ValueError, match=r"shape \(N, 3\), got \(1, 5, 3\); export one frame"):
        export.write_ply(tmp_path / "b.ply", several, filter_width=0)


def read(path):
    """Gaussians as a viewer reads them, turned back into the head's world."""
    rows = np.frombuffer(path.read_bytes().split(b"end_header\n", 1)[1], "<f4").reshape(-1, 17)
    w, x, y, z = rows[:, 13:].T
    return types.Gaussians(
        means=rows[:, :3] * np.array([[1, -1, -1]], np.float32),
        quats=np.stack([-x, w, -z, y], -1),
        scales=np.exp(rows[:, 10:13]),
        opacities=1 / (1 + np.exp(-rows[:, 9])),
        colors=0.5 + 0.28209479 * rows[:, 6:9],
    )


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_viewer_shows_what_the_engine_draws(tmp_path, mode):
    """Viewers know nothing of the model's own size: they filter by 0.3 pixels squared of theirs."""
    random, fov = np.random.default_rng(0), camera.FOV_LEGACY_DEGREES
    head = dataclasses.replace(
        fake.gaussians(400),
        means=(random.normal(size=(400, 3)) * 0.1).astype(np.float32),
        scales=random.uniform(0.001, 0.01, (400, 3)).astype(np.float32),
    )
    view = camera.orbit_camera(0.4, 0.2, fov_degrees=fov)

    def picture(gaussians, options):
        drawn = rendering.render(gaussians, view, image_size=(192, 192), options=options)
        return np.asarray(drawn.image)

    def decibels(width):
        path = tmp_path / f"{width}.ply"
        export.write_ply(path, head, filter_width=width)
        seen = picture(read(path), rendering.options_at(192, 192, 400, mode))
        return -10 * np.log10(np.square(seen - frame).mean())

    frame = picture(head, rendering.options_at(192, 48, 400, mode))
    width = rendering.filter_width(48, fov, mode)
    assert decibels(width) > 35
    if mode == "classic":
        assert decibels(0.0) < 25 and decibels(1.5 * width) < 30
