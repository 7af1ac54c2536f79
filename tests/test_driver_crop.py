"""The release's rule for the driving face, as the benchmark measures it."""

from benchmarks import driver_crop


def test_a_square_about_the_box_unless_it_leaves_the_picture():
    assert driver_crop.released((40, 30, 60, 50), (100, 100, 3)) == (50, 40, 22)
    x, y, side = driver_crop.released((40, -4, 60, 20), (100, 100, 3))
    assert (x, y, side) == (50, 10, 20), "the part of the box that is in the picture, as it is"
