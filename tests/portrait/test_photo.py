"""Photos as users have them, and files that are none."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

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


def test_an_array_is_read_as_its_file_is(tmp_path, rgb):
    large = np.repeat(np.repeat(rgb, 60, 0), 60, 1)
    for image in (rgb, large, rgb[:, ::-1]):
        Image.fromarray(image).save(tmp_path / "a.png")
        read = photo.read(image)
        np.testing.assert_array_equal(read.image, photo.read(tmp_path / "a.png").image)
        assert read.path is None and read.alpha is None and read.image.flags.c_contiguous
    Image.fromarray(rgb[..., 0]).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(photo.read(rgb, tmp_path / "mask.png").alpha, rgb[..., 0])


def test_what_is_no_photo_in_memory_says_what_is_expected(tmp_path, rgb):
    for bad in (rgb[..., :1], rgb[..., 0], rgb / 255, rgb[None], rgb[:0], rgb.astype(np.int32)):
        with pytest.raises(ValueError, match=r"^photo: expected \(H, W, 3\) uint8 RGB, got \("):
            photo.read(bad)
    for bad in (b"bytes", io.BytesIO(), None, Image.fromarray(rgb)):
        with pytest.raises(TypeError, match=r"^photo: expected a path or an \(H, W, 3\) uint8"):
            photo.read(bad)
    with pytest.raises(cli.UserError, match=r"^photo: the image is 9x9 pixels; a photo of a face"):
        photo.read(rgb[:9, :9])
    Image.new("L", (30, 30)).save(tmp_path / "mask.png")
    with pytest.raises(cli.UserError, match=r"mask\.png.*30x30 pixels and the photo photo is 60x"):
        photo.read(rgb, tmp_path / "mask.png")


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


@pytest.mark.parametrize("profiled", [False, True])
def test_one_colour_may_stand_for_transparent(tmp_path, profiled):
    """PNG's tRNS chunk, which old programs write instead of alpha."""
    pixels = np.full((40, 60, 3), (0, 255, 0), np.uint8)
    pixels[:, 20:] = (200, 100, 50)
    profile = {"icc_profile": display_p3()} if profiled else {}
    Image.fromarray(pixels).save(tmp_path / "keyed.png", transparency=(0, 255, 0), **profile)
    read = photo.read(tmp_path / "keyed.png")
    assert read.alpha[0].tolist() == [0] * 20 + [255] * 40
    assert read.over(0)[0, 0].tolist() == [0, 0, 0]


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
    Image.new("RGB", (90, 9)).save(tmp_path / "stripe.png")
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
        "stripe.png": "90x9 pixels; a photo of a face needs at least 32x32",
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


def display_p3() -> bytes:
    """A profile with Display P3's primaries and, for sRGB's curve, a gamma of 2.2."""
    xyz = {"r": (0.5151, 0.2412, -0.0011), "g": (0.2920, 0.6922, 0.0419)}
    xyz |= {"b": (0.1571, 0.0666, 0.7841), "w": (0.9642, 1.0, 0.8249)}

    def fixed(value):
        return round(value * 65536).to_bytes(4, "big", signed=True)

    def text(words):
        return (
            b"mluc"
            + struct.pack(">3I2s2s2I", 0, 1, 12, b"en", b"US", 2 * len(words), 28)
            + (words.encode("utf-16-be"))
        )

    tags = {name + b"XYZ": xyz[name.decode()] for name in (b"r", b"g", b"b")} | {b"wtpt": xyz["w"]}
    tags = {name: b"XYZ " + bytes(4) + b"".join(map(fixed, row)) for name, row in tags.items()}
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + (round(2.2 * 256)).to_bytes(2, "big")
    tags |= {name + b"TRC": curve + bytes(2) for name in (b"r", b"g", b"b")}
    tags |= {b"desc": text("wide"), b"cprt": text("none")}
    table, data = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">2I", 132 + 12 * len(tags) + len(data), len(body))
        data += body
    head = struct.pack(
        ">I4xI4s4s4s", 132 + 12 * len(tags) + len(data), 0x04300000, b"mntr", b"RGB ", b"XYZ "
    )
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    head = head.ljust(68, bytes(1)) + b"".join(map(fixed, xyz["w"]))
    return head.ljust(128, bytes(1)) + table + data


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_a_wider_space_come_as_srgb(tmp_path, mode):
    """Display P3's (0.5, 0.5, 0.5) is grey, its (200, 100, 100) a stronger red in sRGB."""
    wide = np.full((40, 60, 3), 128, np.uint8)
    wide[:, 30:] = (200, 100, 100)
    cover = np.full((40, 60, 1), 255, np.uint8)
    cover[:10] = 7
    pixels = np.dstack([wide, cover])[..., : len(mode)]
    Image.fromarray(pixels).save(tmp_path / "wide.png", icc_profile=display_p3())
    read = photo.read(tmp_path / "wide.png")
    np.testing.assert_allclose(read.image[20, 10], 128, atol=2)
    np.testing.assert_allclose(read.image[20, 50], (214, 93, 97), atol=4)
    assert mode == "RGB" or np.array_equal(read.alpha, cover[..., 0])


@pytest.mark.parametrize("profile", [b"no profile at all", b"", display_p3()[:300]])
def test_a_broken_profile_is_ignored(tmp_path, rgb, profile):
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(photo.read(tmp_path / "a.png").image, rgb)


def test_an_srgb_profile_changes_nothing(tmp_path, rgb):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=own)
    assert np.abs(photo.read(tmp_path / "a.png").image.astype(int) - rgb).max() <= 1


def test_write_refuses_what_exists(tmp_path, rgb):
    photo.write(tmp_path / "new" / "a.png", rgb)
    np.testing.assert_array_equal(photo.read(tmp_path / "new" / "a.png").image, rgb)
    with pytest.raises(cli.UserError, match=r"exists already; choose another path"):
        photo.write(tmp_path / "new" / "a.png", rgb)
    photo.write(tmp_path / "new" / "a.png", rgb // 2, overwrite=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
