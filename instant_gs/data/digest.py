"""Content hashes of files and folders, and the identity-hash split."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from instant_gs.data import format as pack_format

# Keeps the split's hash apart from any other use of a name's SHA-256. Changing it moves identities
# between train and test, which would make every published score meaningless.
_SPLIT_SALT = b"instant_gs split 1\0"
_FRAME = re.compile(r"[0-9]{5,}\.png")  # as `frame_file` names them


def bytes_sha256(data: bytes) -> str:
    """SHA-256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(path: str | Path) -> str:
    """SHA-256 of a folder: names and contents of all files below it, independent of order.

    It is the hash of the lines `<sha256 of the file>  <posix path inside the folder>\\n`, sorted by
    path. In the folder, this prints the same:
    `find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`.
    """
    return _files_sha256(Path(path), Path(path).rglob("*"))


def path_sha256(path: str | Path) -> str:
    """SHA-256 of a file, or of the frames in a folder.

    Raises:
      FileNotFoundError: there is neither.
    """
    path = Path(path)
    if not path.is_dir():
        return file_sha256(path)
    return _files_sha256(path, (item for item in path.iterdir() if _FRAME.fullmatch(item.name)))


def _files_sha256(root: Path, items: Iterable[Path]) -> str:
    names = sorted(item.relative_to(root).as_posix() for item in items if item.is_file())
    lines = "".join(f"{file_sha256(root / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def split_of(identity: str) -> str:
    """The split of an identity: "train" (90 %), "validation" (5 %) or "test" (5 %).

    It depends on the identity's name alone, so adding clips or identities never moves one.
    """
    digest = hashlib.sha256(_SPLIT_SALT + identity.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for name, share in zip(pack_format.SPLITS, pack_format.SPLIT_SHARES, strict=True):
        edge += share
        if position < edge:
            return name
    return pack_format.SPLITS[-1]


def check_split(split: str) -> None:
    """Refuses a split that does not exist.

    Raises:
      ValueError: `split` is none of `format.SPLITS` and not "all".
    """
    if split not in (*pack_format.SPLITS, pack_format.ALL_SPLITS):
        expected = ", ".join((*pack_format.SPLITS, pack_format.ALL_SPLITS))
        raise ValueError(f"split: expected one of {expected}; got {split!r}")


def in_split(identity: str, split: str) -> bool:
    """Whether an identity belongs to `split`; "all" takes every identity."""
    check_split(split)
    return split == pack_format.ALL_SPLITS or split_of(identity) == split
