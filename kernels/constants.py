"""Numbers that define the rasterizer, each with its reason.

The first group is numerical contract (parity with gsplat 1.5.3); changing one changes images. The
second group is only about speed and memory; changing one never changes an image.
"""

# --- numerical contract ------------------------------------------------------------------------
# A contribution below one grey level of an 8-bit image is skipped (3DGS, Kerbl et al. 2023, and
# every rasterizer since).
MIN_ALPHA = 1.0 / 255.0
# Blending of a pixel ends before its transmittance would fall to this value (3DGS).
MIN_TRANSMITTANCE = 1e-4
# sqrt(2 ln 255) = 3.3290: beyond 3.33 standard deviations even o = 1 stays below MIN_ALPHA.
MAX_EXTENT = 3.33
# The affine approximation's Jacobian is evaluated at most 30 % of the half field of view outside
# the image (gsplat); farther out the approximation explodes.
JACOBIAN_MARGIN = 0.3
# Guards expected depth, depth / alpha, where nothing was hit (gsplat).
MIN_DEPTH_ALPHA = 1e-10
# Quaternions shorter than this count as zero, and zero means the identity rotation.
MIN_QUAT_NORM = 1e-12
# Focal lengths below this, in pixels, limit no Jacobian: limits divide by them.
MIN_FOCAL = 1e-12
# Without the filter a splat may be too small for float32 to invert its covariance: entries of the
# conic and the inverse determinant stay below this, that of splats 1e-15 pixels wide.
MAX_CONIC = 1e30

# --- speed and memory only ---------------------------------------------------------------------
# The tile lists are conservative by this much in the exponent, so that a rounding difference
# between the ellipse/tile test and the blending never drops a pixel that blending would keep.
TILE_TEST_SLACK = 1e-3
# Automatic capacity: intersections per splat, plus some per tile for the few splats that are
# large, and never less than the floor. Unused capacity costs memory, and on GPUs the time to zero
# and sort it, so that `propose_capacity` pays there; the xla backend's time hardly depends on it.
AUTO_CAPACITY_PER_SPLAT = 12
AUTO_CAPACITY_PER_TILE = 16
AUTO_CAPACITY_FLOOR = 4096
# Proposed capacities are the measured count plus this share, rounded up to a multiple.
CAPACITY_HEADROOM = 0.25
CAPACITY_MULTIPLE = 1024
# Slots are numbered with 32 bits, with room for what lies just beyond the last one.
MAX_CAPACITY = 2**30
