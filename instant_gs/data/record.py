"""One record of a packed teacher pack: one frame of one view, as bytes with its own checksum.

Layout, little endian: `IGSR`, uint16 version, uint16 0, uint32 length of the JSON header, uint32
CRC-32 of everything but these four bytes, then header and sections. The header names the frame and
the sections' lengths; absent sections have length 0. See docs/teacher_pack.md.
"""

import json
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from instant_gs.data import format as pack_format
from instant_gs.data.error import PackError

_MAGIC = b"IGSR"
_PREFIX = struct.Struct("<4sHHI")  # magic, version, zero, header length
_CHECKSUM = struct.Struct("<I")
_BODY = _PREFIX.size + _CHECKSUM.size
_SECTIONS = ("camera", "coefficients", "image", "alpha", "regions")
_CAMERA_BYTES = 4 * (16 + 9)
_COEFFICIENT_BYTES = 4 * len(pack_format.COEFFICIENT_NAMES)

# zlib at its fastest: masks are nearly constant, higher levels gain 100 bytes of about 1,000.
_MASK_LEVEL = 1

#: How colours are compressed, losslessly. At 128x128 PNG takes 0.5 ms to write, 0.35 ms to read and
#: about 17 KB; WebP 19 ms, 0.25 ms and 11 KB.
CODECS = {
    "png": (".png", []),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),  # Above 100 means lossless.
}


@dataclass(frozen=True)
class Record:
    """One frame of one view.

    Attributes:
      identity, performance, view: names.
      frame: number of the frame in its performance.
      image: (H, W, 3) uint8 RGB over black.
      alpha: (H, W) uint8 coverage; 255 everywhere where the teacher gave no matte.
      regions: (H, W) uint8 labels of `format.REGIONS`; `format.REGION_UNKNOWN` everywhere where the
        teacher gave none.
      cam2world: (4, 4) float32; NaN where the camera is unknown.
      intrinsics: (3, 3) float32, normalised; NaN where the camera is unknown.
      coefficients: (52,) float32 in [0, 1]; NaN where the teacher gave none.
    """

    identity: str
    performance: str
    view: str
    frame: int
    image: np.ndarray
    alpha: np.ndarray
    regions: np.ndarray
    cam2world: np.ndarray
    intrinsics: np.ndarray
    coefficients: np.ndarray


def encode(
    *,
    identity: str,
    performance: str,
    view: str,
    frame: int,
    image: np.ndarray,
    alpha: np.ndarray,
    regions: np.ndarray | None,
    camera: tuple[np.ndarray, np.ndarray] | None,
    coefficients: np.ndarray | None,
    codec: str = "png",
) -> bytes:
    """Packs one frame into bytes. Arguments as in Record; None where the teacher gave nothing."""
    suffix, options = CODECS[codec]
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    matrices = b"" if camera is None else b"".join(_float_bytes(matrix) for matrix in camera)
    sections = (
        matrices,
        b"" if coefficients is None else _float_bytes(coefficients),
        cv2.imencode(suffix, bgr, options)[1].tobytes(),
        zlib.compress(np.ascontiguousarray(alpha), _MASK_LEVEL),
        b"" if regions is None else zlib.compress(np.ascontiguousarray(regions), _MASK_LEVEL),
    )
    header = {
        "identity": identity,
        "performance": performance,
        "view": view,
        "frame": frame,
        "size": list(image.shape[:2]),
        "sections": [len(section) for section in sections],
    }
    header_bytes = json.dumps(header, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(_MAGIC, pack_format.PACKED_VERSION, 0, len(header_bytes))
    body = b"".join((header_bytes, *sections))
    return prefix + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(prefix))) + body


def decode(data: bytes) -> Record:
    """Unpacks what `encode` made.

    Raises:
      PackError: wrong magic, version, checksum, lengths or contents; the caller adds where.
    """
    header, sections = _open(data)
    height, width = size = tuple(header["size"])
    camera = np.frombuffer(sections["camera"], "<f4")
    if not camera.size:
        camera = np.full(25, np.nan, np.float32)
    coefficients = np.frombuffer(sections["coefficients"], "<f4")
    if not coefficients.size:
        coefficients = np.full(len(pack_format.COEFFICIENT_NAMES), np.nan, np.float32)
    bgr = cv2.imdecode(np.frombuffer(sections["image"], np.uint8), cv2.IMREAD_COLOR)
    if bgr is None or bgr.shape != (height, width, 3):
        raise PackError("the image does not decode to its size")
    if sections["regions"]:
        regions = _inflate("regions", sections["regions"], size)
    else:
        regions = np.full(size, pack_format.REGION_UNKNOWN, np.uint8)
    return Record(
        identity=header["identity"],
        performance=header["performance"],
        view=header["view"],
        frame=header["frame"],
        image=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB),
        alpha=_inflate("alpha", sections["alpha"], size),
        regions=regions,
        cam2world=camera[:16].reshape(4, 4),
        intrinsics=camera[16:].reshape(3, 3),
        coefficients=coefficients,
    )


def resize(record: Record, size: tuple[int, int]) -> Record:
    """The record at another, smaller size: colours and alpha by area, labels by nearest pixel.

    Cameras stay: their intrinsics are normalised.
    """
    if record.alpha.shape == size:
        return record
    image, alpha, regions = resize_images(record.image, record.alpha, record.regions, size)
    return Record(**{**vars(record), "image": image, "alpha": alpha, "regions": regions})


def resize_images(
    image: np.ndarray, alpha: np.ndarray, regions: np.ndarray | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Shrinks an image (H, W, 3), its alpha (H, W) and its labels (H, W) or None to `size` (h, w).

    Raises:
      ValueError: `size` is larger than the image: enlarging adds no detail and hides a mistake.
    """
    if alpha.shape == size:
        return image, alpha, regions
    if size[0] > alpha.shape[0] or size[1] > alpha.shape[1]:
        raise ValueError(
            f"image_size: {size} is larger than the stored {alpha.shape}; give a smaller one, or"
            " make the pack with larger frames"
        )
    width_height = size[::-1]
    return (
        cv2.resize(image, width_height, interpolation=cv2.INTER_AREA),
        cv2.resize(alpha, width_height, interpolation=cv2.INTER_AREA),
        regions
        if regions is None
        else cv2.resize(regions, width_height, interpolation=cv2.INTER_NEAREST_EXACT),
    )


def _open(data: bytes) -> tuple[dict, dict[str, bytes]]:
    """Checks everything around the sections, and gives header and sections."""
    if len(data) < _BODY:
        raise PackError(f"only {len(data)} bytes long")
    magic, version, _, header_length = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise PackError("not a teacher-pack record")
    if version != pack_format.PACKED_VERSION:
        raise PackError(f"record version {version}, this reader knows {pack_format.PACKED_VERSION}")
    (checksum,) = _CHECKSUM.unpack_from(data, _PREFIX.size)
    view = memoryview(data)
    if zlib.crc32(view[_BODY:], zlib.crc32(view[: _PREFIX.size])) != checksum:
        raise PackError("its checksum does not match: the bytes changed after packing")
    start = _BODY + header_length
    header = json.loads(data[_BODY:start])
    lengths = header["sections"]
    if start + sum(lengths) != len(data):
        raise PackError("its sections do not add up to its length")
    sections = {}
    for name, length in zip(_SECTIONS, lengths, strict=True):
        sections[name] = data[start : start + length]
        start += length
    for name, expected in (("camera", _CAMERA_BYTES), ("coefficients", _COEFFICIENT_BYTES)):
        if len(sections[name]) not in (0, expected):
            raise PackError(f"{name} of {len(sections[name])} bytes, expected {expected}")
    return header, sections


def _inflate(name: str, data: bytes, size: tuple[int, int]) -> np.ndarray:
    try:
        values = np.frombuffer(zlib.decompress(data), np.uint8)
    except zlib.error as error:
        raise PackError(f"{name} does not decompress ({error})") from None
    if values.size != size[0] * size[1]:
        raise PackError(f"{name} has {values.size} values, expected {size[0]}x{size[1]}")
    return values.reshape(size)


def _float_bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()
