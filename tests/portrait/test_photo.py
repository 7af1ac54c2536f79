"""Photos as users have them, and files that are none."""

import numpy as np
import pytest
from PIL import Image

from instant_gs import cli
from instant_gs.portrait import photo


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_png_is_read_exactly(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    read = photo.read(tmp_path / "a.png")
    np.testing.assert_array_equal(read.image, rgb)
    assert read.alpha is None


def test_exif_rotation_is_applied(tmp_path, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be shown turned clockwise by 90 degrees
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(photo.read(tmp_path / "a.png").image, np.rot90(rgb, -1))


def test_grey_palette_and_16_bit(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    for name in ("grey.png", "deep.png", "palette.png"):
        np.testing.assert_array_equal(photo.read(tmp_path / name).image[..., 1], grey, name)


def test_float_tiff_from_0_to_1_or_to_255(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    grey[0, 0] = 255
    unit = grey.astype(np.float32) / 255
    unit[0, 1], grey[0, 1] = np.nan, 0
    for name, values in {"unit.tif": unit, "bytes.tif": grey.astype(np.float32)}.items():
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(photo.read(tmp_path / name).image[..., 1], grey, name)


def test_alpha_is_the_matte_only_if_it_says_something(tmp_path, rgb):
    opaque = np.dstack([rgb, np.full((40, 60), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert photo.read(tmp_path / "opaque.png").alpha is None
    half = opaque.copy()
    half[:, :30, 3] = 0
    Image.fromarray(half).save(tmp_path / "half.png")
    read = photo.read(tmp_path / "half.png")
    assert (read.alpha[:, :30] == 0).all() and (read.alpha[:, 30:] == 255).all()
    assert (read.over(0)[:, :30] == 0).all() and (read.over(127)[:, :30] == 127).all()


def test_a_mask_is_white_or_solid_where_the_person_is(tmp_path, rgb):
    """A grey picture says it by its brightness, one with alpha by its alpha."""
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    matte = np.zeros((40, 60), np.uint8)
    matte[:, 20:] = 255
    Image.fromarray(matte).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([rgb, matte])).save(tmp_path / "cut_out.png")
    for mask in ("grey.png", "cut_out.png"):
        alpha = photo.read(tmp_path / "photo.png", tmp_path / mask).alpha
        np.testing.assert_array_equal(alpha, matte, mask)


def test_huge_photo_is_reduced_with_its_mask(tmp_path):
    Image.new("RGB", (3000, 1500), (200, 100, 50)).save(tmp_path / "huge.jpg")
    Image.new("L", (3000, 1500), 255).save(tmp_path / "mask.png")
    read = photo.read(tmp_path / "huge.jpg", tmp_path / "mask.png")
    assert read.image.shape == (1024, 2048, 3) and read.alpha.shape == (1024, 2048)


def test_files_that_are_no_photo_are_named(tmp_path, rgb):
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "empty.jpg").touch()
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.fromarray(rgb).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    Image.new("RGBA", (40, 40)).save(tmp_path / "clear.png")
    Image.new("L", (30, 30)).save(tmp_path / "mask.png")
    for name, brands in {"phone": b"heic0000mif1heic", "burst": b"mif1....mif1heic"}.items():
        head = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands
        (tmp_path / f"{name}.heic").write_bytes(head + bytes(200))
    expected = {
        "phone.heic": "HEIC is not read; export it as JPEG or PNG",
        "burst.heic": "HEIC is not read; export it as JPEG or PNG",
        "text.png": "not an image; give a PNG, JPEG or WebP",
        "empty.jpg": "the file is empty; give",
        "dot.png": "1x1 pixels; a photo of a face needs at least 32x32",
        "cut.png": "damaged or cut off",
        "clear.png": "hides the whole photo",
        ".": "is a folder; give an image file",
    }
    for name, message in expected.items():
        with pytest.raises(cli.UserError, match=message) as caught:
            photo.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value), "the message names the file"
    with pytest.raises(FileNotFoundError):
        photo.read(tmp_path / "missing.png")
    with pytest.raises(cli.UserError, match=r"mask\.png.*30x30.*60x40.*same size"):
        photo.read(tmp_path / "whole.png", tmp_path / "mask.png")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(cli.UserError, match=r"bomb\.png: too many pixels; make it smaller"):
        photo.read(tmp_path / "bomb.png")


def test_print_colours_and_grey_with_alpha(tmp_path):
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    red = photo.read(tmp_path / "print.jpg").image.mean((0, 1))
    assert red[0] > 200 and red[1:].max() < 60
    half = Image.new("LA", (40, 40), (90, 255))
    half.paste((90, 0), (0, 0, 20, 40))
    half.save(tmp_path / "grey.png")
    read = photo.read(tmp_path / "grey.png")
    assert (read.image == 90).all() and read.alpha[0].tolist() == [0] * 20 + [255] * 20


def test_write_refuses_what_exists(tmp_path, rgb):
    photo.write(tmp_path / "new" / "a.png", rgb)
    np.testing.assert_array_equal(photo.read(tmp_path / "new" / "a.png").image, rgb)
    with pytest.raises(cli.UserError, match=r"exists already; choose another path"):
        photo.write(tmp_path / "new" / "a.png", rgb)
    photo.write(tmp_path / "new" / "a.png", rgb // 2, overwrite=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
