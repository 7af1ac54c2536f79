"""Reading a user's photo, whatever it is: turned, grey, transparent, huge, or not a photo."""

import dataclasses
import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from instant_gs import cli, output

#: Longer side after reading, in pixels. The model reads at most 512 and a face that is worth
#: animating fills a good part of the photo, so more only costs time.
MAX_SIDE = 2048

#: Below this no landmark detector finds a face.
MIN_SIDE = 32

#: Brands in the head of phones' HEIC files, which Pillow does not read.
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        path: The file; None of an array.
        image: (H, W, 3) uint8 RGB, upright, not premultiplied.
        alpha: (H, W) uint8 coverage, or None if the file says nothing about it.
    """

    path: Path | None
    image: np.ndarray
    alpha: np.ndarray | None

    def over(self, value: int) -> np.ndarray:
        """The photo over a grey of 0..255: (H, W, 3) uint8."""
        if self.alpha is None:
            return self.image
        share = self.alpha[..., None].astype(np.float32) / 255
        return np.round(self.image * share + value * (1 - share)).astype(np.uint8)


def read(path: str | os.PathLike | np.ndarray, mask: str | os.PathLike | None = None) -> Photo:
    """Reads a photo, its EXIF rotation applied, in sRGB, its size limited to ``MAX_SIDE``.

    Args:
        path: PNG, JPEG, WebP or whatever else Pillow reads; of an animation the first frame. Or
            the pixels, (H, W, 3) uint8 RGB.
        mask: A grey image of the photo's size, white where the person is; replaces the photo's
            own alpha.

    Returns:
        Photo.

    Raises:
        TypeError: Neither a path nor an array.
        ValueError: An array of another shape or type.
        FileNotFoundError: There is no such file.
        cli.UserError: The file is no image, damaged, too small, too big, or fully transparent;
            or the mask is not of the same size.
    """
    name = name_of(path)
    if isinstance(path, np.ndarray):
        image, alpha, path = checked_pixels(name, path), None, None
    else:
        pixels = _decode(path)
        image, alpha, path = pixels[..., :3], pixels[..., 3], Path(path)
    height, width = image.shape[:2]
    check_size(name, "photo", height, width)
    if mask is not None:
        alpha = _read_mask(mask, name, (height, width))
    elif alpha is not None and alpha.min() == 255:
        alpha = None
    if alpha is not None and alpha.max() == 0:
        raise cli.UserError(
            f"{name if mask is None else mask}: the matte hides the whole photo (it is 0 "
            "everywhere); it must be white where the person is"
        )
    alpha = None if alpha is None else reduced(alpha, MAX_SIDE)
    return Photo(path, np.ascontiguousarray(reduced(image, MAX_SIDE)), alpha)


def name_of(path: str | os.PathLike | np.ndarray) -> str:
    """What messages call a photo: its path, or "photo" if it is an array.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(path, np.ndarray):
        return "photo"
    if isinstance(path, str | os.PathLike):
        return str(path)
    raise TypeError(
        "photo: expected a path or an (H, W, 3) uint8 RGB array, got "
        f"{type(path).__name__}; decode it, say by np.array(PIL.Image.open(file).convert('RGB'))"
    )


def checked_pixels(name: str, image) -> np.ndarray:
    """Refuses what is no picture in memory.

    Args:
        name: Of the argument.
        image: (H, W, 3) uint8.

    Returns:
        The same.

    Raises:
        ValueError: It is something else.
    """
    shape, kind = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape or kind != np.uint8:
        raise ValueError(
            f"{name}: expected (H, W, 3) uint8 RGB, got {shape} {kind}; of RGBA take "
            "[..., :3], of grey stack three, of float in [0, 1] round 255 times it"
        )
    return np.asarray(image)


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """A picture (H, W, …) uint8 whose longer side is at most so many pixels, averaged."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def check_size(path: str | os.PathLike, what: str, height: int, width: int) -> None:
    """Raises cli.UserError if a "photo" or "video" is too small to show a face."""
    if min(height, width) < MIN_SIDE:
        raise cli.UserError(
            f"{path}: the image is {width}x{height} pixels; a {what} of a face needs at least "
            f"{MIN_SIDE}x{MIN_SIDE}"
        )


def check_name(path: str | os.PathLike) -> None:
    """Raises cli.UserError if `write` knows no format with the name's ending."""
    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise cli.UserError(f"{path}: the name of a picture must end in .png, .jpg or .webp")


def write(path: str | os.PathLike, image: np.ndarray, *, overwrite: bool = False) -> None:
    """Writes (H, W, 3) or (H, W, 4) uint8 as an image; the name's ending chooses the format."""
    check_name(path)
    with output.whole_file(path, overwrite=overwrite) as temporary:
        Image.fromarray(image).save(temporary)


def _read_mask(mask, path, size: tuple[int, int]) -> np.ndarray:
    pixels = _decode(mask)
    if pixels.shape[:2] != size:
        raise cli.UserError(
            f"{mask}: the mask is {pixels.shape[1]}x{pixels.shape[0]} pixels and the photo "
            f"{path} is {size[1]}x{size[0]}; they must be of the same size"
        )
    if pixels[..., 3].min() < 255:
        return pixels[..., 3]
    return cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2GRAY)


def _decode(path) -> np.ndarray:
    """Any image file to (H, W, 4) uint8 RGBA, upright."""
    if Path(path).is_dir():
        raise cli.UserError(f"{path} is a folder; give an image file (PNG, JPEG, WebP)")
    try:
        with warnings.catch_warnings():
            # Pillow warns of photos above 89 megapixels (it refuses those above 179) and about
            # harmless metadata.
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                return _to_rgba(ImageOps.exif_transpose(file))
    except (FileNotFoundError, PermissionError, cli.UserError):
        raise
    except UnidentifiedImageError:
        raise cli.UserError(f"{path}: {_unreadable(path)}") from None
    except Image.DecompressionBombError as error:
        raise cli.UserError(f"{path}: too many pixels; make it smaller ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # What Pillow's decoders raise on damaged data.
        raise cli.UserError(
            f"{path}: the image is damaged or cut off ({error}); save or copy it again"
        ) from error


def _unreadable(path) -> str:
    """What a file is that Pillow does not know, and what helps."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; give a PNG, JPEG or WebP file"
    brands = {start[place : place + 4] for place in range(8, len(start), 4)}
    if start[4:8] == b"ftyp" and brands & _HEIC and b"avif" not in brands:
        return "HEIC is not read; export it as JPEG or PNG"
    return "this is not an image; give a PNG, JPEG or WebP file"


def _to_rgba(file: Image.Image) -> np.ndarray:
    if file.mode.startswith("I;16") or file.mode in ("I", "F"):
        # 16 bits a pixel, or float (Pillow's own conversion would clip instead of scaling).
        grey = np.nan_to_num(np.asarray(file).astype(np.float32))
        if file.mode == "F" and grey.max() <= 1:
            grey = grey * 255.0
        elif grey.max() > 255:
            grey = grey / 257.0
        grey = np.clip(np.round(grey), 0, 255).astype(np.uint8)
        return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    alpha = None
    if file.mode == "P" or "transparency" in file.info:
        file = file.convert("RGBA")
    if file.mode in ("RGBA", "LA"):
        *colors, alpha = file.split()
        file = Image.merge(file.mode[:-1], colors)
    pixels = np.array(_to_srgb(file).convert("RGBA"))
    if alpha is not None:
        pixels[..., 3] = alpha
    return pixels


def _to_srgb(file: Image.Image) -> Image.Image:
    """The picture in sRGB by its colour profile; as it is without one, or with a broken one."""
    profile = file.info.get("icc_profile")
    if not profile or file.mode not in ("RGB", "L", "CMYK"):
        return file
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(
            file, own, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return file
