"""Random access to a packed teacher pack. Trusts no file: every record is checked when read."""

import bisect
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from instant_gs.data import digest, packed_index
from instant_gs.data import format as pack_format
from instant_gs.data import record as record_lib
from instant_gs.data.error import PackError

# Without read-ahead and threads: the fastest for random records.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
# Far below the usual limit of 1,024 open files, far above what a small pack has.
_OPEN_SHARDS = 256


@dataclass(frozen=True)
class PackedClip:
    """One clip in a packed pack.

    Attributes:
      identity, name, performance, view: names.
      frames: number of frames.
      first: index of its first frame among the pack's records; the others follow in order.
      shard: number of its shard in the pack.
      shard_first: number of its first record in that shard.
      camera_known: whether its records have a camera.
      track: hash of its coefficients; None without. Clips of one performance's name with equal
        frames and track perform the same frame by frame.
    """

    identity: str
    name: str
    performance: str
    view: str
    frames: int
    first: int
    shard: int
    shard_first: int
    camera_known: bool
    track: str | None


class Pack:
    """An open packed pack. Records are numbered 0 … len(pack) - 1; safe to read from threads.

    Attributes:
      path: its folder.
      manifest: content of its manifest (teacher, licence, fps, ...).
      fingerprint: SHA-256 of its manifest, and so of everything in it.
      image_size: (height, width) of the stored frames.
      clips: all clips, by rising `first`.
      attributes: identity -> what the teacher says of it.
    """

    def __init__(self, path: str | Path, *, allow_broken: bool = False):
        """Opens a packed teacher pack.

        Args:
          path: its folder.
          allow_broken: open it although a shard is missing or truncated; only reading the records
            of that shard fails then.

        Raises:
          PackError: it is missing, unfinished, truncated, corrupted or inconsistent.
        """
        self.path = Path(path)
        self.manifest = packed_index.load_manifest(self.path)
        self.fingerprint = digest.file_sha256(self.path / pack_format.MANIFEST_NAME)
        self.image_size: tuple[int, int] = tuple(self.manifest["image_size"])
        self.clips: list[PackedClip] = []
        self.attributes: dict[str, dict[str, Any]] = {}
        self._shards: list[dict[str, Any]] = []
        total = 0
        for entry in self.manifest["shards"]:
            index = self._load_shard_index(entry)
            if not allow_broken:
                self._check_shard(index)
            self._add_shard(index, total)
            total += index["records"]
        self._length = total
        self._firsts = [clip.first for clip in self.clips]
        self._readers: OrderedDict[int, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def identities(self, split: str = pack_format.ALL_SPLITS) -> list[str]:
        """Names of the identities of a split ("train", "validation", "test" or "all"), sorted."""
        return sorted(name for name in self.attributes if digest.in_split(name, split))

    def locate(self, index: int) -> tuple[PackedClip, int]:
        """The clip and the frame number of a record.

        Raises:
          IndexError: there is no such record.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"index: {self.path} has records 0 to {self._length - 1}, got {index}")
        clip = self.clips[bisect.bisect_right(self._firsts, index) - 1]
        return clip, int(index) - clip.first

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> record_lib.Record:
        """Reads one record.

        Args:
          index: number of the record.
          image_size: (H, W) to shrink it to; as stored by default.

        Raises:
          IndexError: there is no such record.
          PackError: the record is truncated, corrupted, or not the one the index promises.
          ValueError: `image_size` is larger than stored.
        """
        clip, frame = self.locate(index)
        try:
            data = self._reader(clip.shard).read([clip.shard_first + frame])[0]
            item = record_lib.decode(data)
        except PackError as error:
            raise self._broken(clip, frame, str(error)) from None
        except (RuntimeError, IndexError, ValueError) as error:  # What ArrayRecord raises.
            raise self._broken(clip, frame, f"unreadable ({error})") from None
        promised = (clip.identity, clip.performance, clip.view, frame)
        found = (item.identity, item.performance, item.view, item.frame)
        if found != promised:
            raise self._broken(clip, frame, f"it is {found}")
        if item.alpha.shape != self.image_size:
            raise self._broken(
                clip, frame, f"it is {item.alpha.shape}, the pack says {self.image_size}"
            )
        return item if image_size is None else record_lib.resize(item, image_size)

    def verify_shards(self) -> None:
        """Compares every shard with its SHA-256: reads all bytes.

        Raises:
          PackError: naming the first shard that differs.
        """
        for index in self._shards:
            shard = self.path / index["shard"]
            if digest.file_sha256(shard) != index["sha256"]:
                raise PackError(
                    f"{shard}: differs from its sha256; restore it, or delete it and pack with "
                    "--resume"
                )

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._lock:
            reader = self._readers.get(shard)
            if reader is None:
                index = self._shards[shard]
                path = self.path / index["shard"]
                reader = ArrayRecordReader(str(path), _READER_OPTIONS)
                if reader.num_records() != index["records"]:
                    raise PackError(f"{path} holds {reader.num_records()} records")
                self._readers[shard] = reader
                if len(self._readers) > _OPEN_SHARDS:
                    self._readers.popitem(last=False)
            else:
                self._readers.move_to_end(shard)
            return reader

    def _broken(self, clip: PackedClip, frame: int, reason: str) -> PackError:
        shard = self.path / self._shards[clip.shard]["shard"]
        number = clip.shard_first + frame
        return PackError(
            f"{shard} record {number} ({clip.identity}/{clip.name} frame {frame}): {reason};"
            f" restore the shard from a copy, or delete it and pack with --resume"
        )

    def _load_shard_index(self, entry: dict[str, Any]) -> dict[str, Any]:
        path = self.path / entry["index"]
        if not path.is_file():
            raise PackError(f"{path}: missing; restore it, or pack with --resume")
        if digest.file_sha256(path) != entry["sha256"]:
            raise PackError(f"{path}: differs from its hash in the manifest; restore it")
        index = packed_index.load_index(path)
        if index["image_size"] != self.manifest["image_size"]:
            raise PackError(
                f"{path}: image_size {index['image_size']}, the manifest says"
                f" {self.manifest['image_size']}; pack again"
            )
        return index

    def _check_shard(self, index: dict[str, Any]) -> None:
        shard = self.path / index["shard"]
        if not shard.is_file():
            raise PackError(f"{shard}: missing; restore it, or pack with --resume")
        if shard.stat().st_size != index["bytes"]:
            raise PackError(
                f"{shard}: {shard.stat().st_size} bytes instead of {index['bytes']}, truncated or"
                " changed; restore it, or delete it and pack with --resume"
            )

    def _add_shard(self, index: dict[str, Any], first: int) -> None:
        shard = len(self._shards)
        self._shards.append(index)
        for identity in index["identities"]:
            name = identity["identity"]
            if name in self.attributes:
                raise PackError(f"{self.path}: identity {name} is in two shards; pack again")
            self.attributes[name] = identity["attributes"]
            for clip in identity["clips"]:
                self.clips.append(
                    PackedClip(
                        identity=name,
                        name=clip["name"],
                        performance=clip["performance"],
                        view=clip["view"],
                        frames=clip["frames"],
                        first=first + clip["first"],
                        shard=shard,
                        shard_first=clip["first"],
                        camera_known=clip["camera"],
                        track=clip["track"],
                    )
                )


def open_packs(
    packs: Sequence[str | Path | Pack] | str | Path | Pack, *, allow_broken: bool = False
) -> list[Pack]:
    """Opens one or several packs (see `Pack`); opened ones pass through."""
    if isinstance(packs, str | Path | Pack):
        packs = [packs]
    if not packs:
        raise ValueError("packs: expected at least one, got none")
    return [
        pack if isinstance(pack, Pack) else Pack(pack, allow_broken=allow_broken) for pack in packs
    ]
