"""The kernels as Triton compiles them for GPUs, run by `ptx_machine`, against the other backends.

Each test runs in a process of its own, because a process that interprets kernels cannot compile.
"""

import pytest

from tests import own_process
from tests.kernels import triton_scene as ts

pytestmark = ts.NEEDS_TRITON

_CODE = """
import sys
from kernels import RasterizeOptions
from tests.kernels import triton_scene as ts
scene, size, options, checks = eval(sys.argv[1])
options = RasterizeOptions(on_overflow="count", **options)
ts.assert_parity(ts.make_scene(size=size, **scene), size, options, **checks)
"""


def _assert_parity(capability: int, scene: dict, size, options: dict, **checks) -> None:
    """Compiled for that compute capability."""
    own_process.python(
        _CODE,
        repr((scene, size, options, checks)),
        PTX_MACHINE="1",
        KERNELS_CUDA_CAPABILITY=str(capability),
    )


def test_golden_files():
    own_process.python(
        "from tests.kernels import test_triton_parity as parity\n"
        "for name in parity.GOLDEN_NAMES: parity.test_golden(name)",
        PTX_MACHINE="1",
    )


def test_without_gradients():
    own_process.python(
        "from tests.kernels import test_triton_edge as edge\n"
        "edge.test_a_picture_is_the_same_whether_gradients_follow_or_not()",
        PTX_MACHINE="1",
    )


def test_a_camera_without_a_focal_length_whose_centre_is_at_an_edge():
    """Its limits are NaN, which a compiled minimum or maximum passes over."""
    own_process.python(
        "from tests.kernels import test_triton_edge as edge\n"
        "for centre in (0.0, float(edge.ts.SIZE[1])):\n"
        "    edge.test_a_camera_without_a_focal_length_gives_gradients(centre)",
        PTX_MACHINE="1",
    )


@pytest.mark.parametrize("capability", [75, 80, 90, 100, 120])
def test_each_kind_of_gpu(capability):
    _assert_parity(capability, {"splats": 60, "cameras": 2}, (25, 38), {})


@pytest.mark.parametrize(
    ("channels", "mode"), [(1, "classic"), (3, "antialiased"), (9, "antialiased"), (32, "classic")]
)
def test_channels_and_modes(channels, mode):
    _assert_parity(90, {"splats": 60, "channels": channels}, (25, 38), {"mode": mode})


@pytest.mark.parametrize(
    ("tile", "channels"), [((4, 8), 3), ((16, 16), 3), ((32, 32), 3), ((4, 4), 8)]
)
def test_tile_sizes(tile, channels):
    _assert_parity(90, {"splats": 60, "channels": channels}, (50, 38), {"tile_size": tile})


def test_tiles_without_splats():
    _assert_parity(90, {"splats": 3, "cameras": 2}, (25, 38), {})


def test_more_than_fits():
    options = {"capacity": 300, "tile_size": (4, 4)}
    _assert_parity(90, {"splats": 200}, (44, 52), options, against="xla")


def test_thousands_of_splats():
    """Of many programs each, and tiles that get full."""
    _assert_parity(90, {"splats": 4000}, (100, 120), {}, against="xla")


def test_splats_of_hundreds_of_tiles():
    """Plates and needles among them, whose scales float32 knows no better than to the bound."""
    scene = {"splats": 40, "cameras": 2, "log_scale": (-6.0, 1.0)}
    _assert_parity(90, scene, (284, 260), {"capacity": 40_960}, against="xla", bound=1e-3)
