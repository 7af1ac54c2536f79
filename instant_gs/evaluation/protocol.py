"""The test cases: source photo, driving image, and the true image of the result.

"self": source, driver and truth show one identity; the driver is the truth's frame from another
viewpoint. "cross": the driver is another identity. The truth is the source's identity with the
driver's expression, which the procedural teacher can simply render.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from instant_gs import types
from instant_gs.data import pair, reader
from instant_gs.data import record as record_lib

PROTOCOLS = pair.KINDS


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One test case, all images S x S.

    Attributes:
        name: Says which records these are, for the report; another case, another name.
        person: Whose photo it is.
        source: (S, S, 3) uint8: the photo.
        driver: (S, S, 3) uint8: the driving image.
        truth: (S, S, 3) uint8: the result as it should be; None where the pack has no such image.
        regions: (S, S) uint8 labels of the truth; None with it.
        camera: Where to render from: the truth's camera, else the source's.
        other_driver: Whether the driver is another person than the source.
    """

    name: str
    person: str
    source: np.ndarray
    driver: np.ndarray
    truth: np.ndarray | None
    regions: np.ndarray | None
    camera: types.Camera
    other_driver: bool


def cases(
    pack: reader.Pack, split: str, protocol: str, *, image_size: int, limit: int, seed: int = 0
) -> Iterator[Case]:
    """Reads the cases of a protocol, the same ones every time.

    Args:
        pack: An open pack with cameras.
        split: "train", "validation", "test" or "all".
        protocol: One of ``PROTOCOLS``.
        image_size: Side S, at most that of the pack's frames.
        limit: Number of cases.
        seed: Another seed, other cases.

    Yields:
        Case.

    Raises:
        ValueError: Unknown protocol or split, or the pack's frames are too small.
        PackError: The pack cannot give such cases, or a record is broken.
    """
    size = (image_size, image_size)
    for chosen in pair.evaluation_pairs(pack, split, kind=protocol, limit=limit, seed=seed):
        source, driver = (pack.read(index, size) for index in (chosen.source, chosen.driver))
        truth = None if chosen.target is None else pack.read(chosen.target, size)
        seen = source if truth is None else truth
        yield Case(
            name=_name(source, driver, truth),
            person=source.identity,
            source=source.image,
            driver=driver.image,
            truth=None if truth is None else truth.image,
            regions=None if truth is None else truth.regions,
            camera=types.Camera(seen.cam2world, seen.intrinsics),
            other_driver=source.identity != driver.identity,
        )


def _name(
    source: record_lib.Record, driver: record_lib.Record, truth: record_lib.Record | None
) -> str:
    parts = [_place(source), "driven by", _place(driver)]
    if truth is not None:
        parts.append(f"seen from {truth.view}")
    return " ".join(parts)


def _place(record: record_lib.Record) -> str:
    return f"{record.identity}/{record.performance}#{record.frame}@{record.view}"
