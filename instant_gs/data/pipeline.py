"""The training pipeline: packs -> a Grain iterator of `types.Batch`, numpy throughout.

The order is index-based: sample number i is the same whatever came before, on every host, before
and after a restore. A host takes every `shard_count`-th sample of one global sequence.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import grain
import numpy as np

from instant_gs import types
from instant_gs.data import framing, sampler
from instant_gs.data import mirror as mirror_lib
from instant_gs.data import record as record_lib
from instant_gs.data.broken import BrokenRecords
from instant_gs.data.error import PackError
from instant_gs.data.reader import Pack, open_packs

_PREFETCH = 2  # batches held ready, or one a thread if these are more


class FrameStore:
    """Reads records of several packs at one size, and remembers decoded ones within a budget.

    Nothing is evicted: samples are drawn evenly, so the first records are as good as any. Safe to
    use from threads.
    """

    def __init__(
        self, packs: Sequence[Pack], image_size: tuple[int, int] | None = None, cache_bytes: int = 0
    ):
        """Prepares reading.

        Args:
          packs: their records are numbered one pack after the other.
          image_size: (H, W) of what is read; by default as stored, which must be one size.
          cache_bytes: budget for decoded records: H * W * 5 bytes each, 80 KiB at 128x128.

        Raises:
          PackError: the packs differ in size and `image_size` is None, or `image_size` is larger
            than a pack's.
        """
        # Frames are small: OpenCV's own threads would only take cores from the training step.
        cv2.setNumThreads(1)
        self._packs = list(packs)
        sizes = {pack.image_size for pack in packs}
        if image_size is None and len(sizes) > 1:
            raise PackError(f"image_size: the packs have {sorted(sizes)}; choose one")
        self.image_size = image_size or sizes.pop()
        for pack in packs:
            if any(a < b for a, b in zip(pack.image_size, self.image_size, strict=True)):
                raise PackError(
                    f"{pack.path}: its frames are {pack.image_size}, image_size"
                    f" {self.image_size} is larger; give a smaller one, or pack larger frames"
                )
        self._ends = np.cumsum([len(pack) for pack in packs])
        self._budget = cache_bytes
        self._cache: dict[int, record_lib.Record] = {}
        self._lock = threading.Lock()

    def read(self, index: int) -> record_lib.Record:
        """One record. Raises PackError if it is broken, IndexError if there is none."""
        item = self._cache.get(index)
        if item is None:
            number = int(np.searchsorted(self._ends, index, side="right"))
            if not 0 <= index < self._ends[-1]:
                raise IndexError(f"index: expected 0 to {self._ends[-1] - 1}, got {index}")
            pack = self._packs[number]
            start = int(self._ends[number]) - len(pack)
            item = pack.read(index - start, self.image_size)
            self._remember(index, item)
        return item

    def read_views(self, indices: np.ndarray) -> types.View:
        """Records (…) as one View with the same leading axes."""
        indices = np.asarray(indices)
        lead, (height, width) = indices.shape, self.image_size
        view = types.View(
            image=np.empty((indices.size, height, width, 3), np.uint8),
            alpha=np.empty((indices.size, height, width), np.uint8),
            regions=np.empty((indices.size, height, width), np.uint8),
            cam2world=np.empty((indices.size, 4, 4), np.float32),
            intrinsics=np.empty((indices.size, 3, 3), np.float32),
            coefficients=np.empty((indices.size, 52), np.float32),
        )
        fields = vars(view)
        for row, index in enumerate(indices.ravel().tolist()):
            item = self.read(index)
            for name, array in fields.items():
                array[row] = getattr(item, name)
        return types.View(
            **{name: array.reshape(*lead, *array.shape[1:]) for name, array in fields.items()}
        )

    def _remember(self, index: int, item: record_lib.Record) -> None:
        size = item.image.nbytes + item.alpha.nbytes + item.regions.nbytes
        with self._lock:
            if size <= self._budget and index not in self._cache:
                self._budget -= size
                self._cache[index] = item


def make_loader(
    packs: Sequence[str | Path | Pack] | str | Path | Pack,
    split: str,
    *,
    image_size: int | None = None,
    fov_degrees: float | None = None,
    cache_gigabytes: float = 0.0,
    threads: int = 1,
    broken: BrokenRecords | None = None,
    **sampling,
) -> grain.DatasetIterator:
    """Makes the iterator that training reads; docs/teacher_pack.md says what a sample is.

    Args:
      packs: one or several packed packs, mixed in proportion to their records.
      split: "train", "validation", "test" or "all".
      image_size: side in pixels, at most the packs' and by default theirs; shrunk by area.
      fov_degrees: the view that the packs must show (`data.framing`); None for any.
      cache_gigabytes: memory for decoded frames, H * W * 5 bytes each (12,000 of 128x128 a
        gigabyte); what fits is decoded once.
      threads: as in `read_ahead`; the batches are the same for any number.
      broken: receives broken records, and samples that hold one are replaced; None is an error.
      sampling: as `make_batches`; `batch_size` and `driven_per_sample` must be given.

    Returns:
      A Grain iterator of types.Batch of numpy arrays (images uint8), leading axes (B,) and (B, D).
      `get_state` and `set_state` restore it exactly; next() raises PackError for a broken record
      and then stays where it is.

    Raises:
      PackError: a pack cannot be read or has nothing to sample in this split, or coefficients are
        needed and missing.
      UserError: a pack shows another view.
      ValueError: an impossible argument.
    """
    opened = open_packs(packs, allow_broken=broken is not None)
    if fov_degrees is not None:
        framing.check(opened, fov_degrees)
    size = None if image_size is None else (image_size, image_size)
    store = FrameStore(opened, size, int(cache_gigabytes * 1e9))
    batches = make_batches(opened, store, split, broken=broken, **sampling)
    return read_ahead(batches, threads)


def read_ahead(batches: grain.MapDataset, threads: int) -> grain.DatasetIterator:
    """Iterates over `make_batches` as training does, with some batches made ahead of their turn.

    Args:
      batches: from `make_batches`.
      threads: each makes a batch of its own, so that as many are read from the disk at a time.

    Raises:
      ValueError: fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    options = grain.ReadOptions(threads, prefetch_buffer_size=max(_PREFETCH, threads))
    return iter(batches.to_iter_dataset(options))


def make_batches(
    packs: Sequence[Pack],
    store: FrameStore,
    split: str,
    *,
    batch_size: int,
    driven_per_sample: int,
    cross_identity: float = 0.0,
    same_expression: float = 0.1,
    mirror: float = 0.0,
    need_coefficients: bool = False,
    seed: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    broken: BrokenRecords | None = None,
) -> grain.MapDataset:
    """The same batches as `make_loader`, with random access: dataset[i] is the batch number i.

    Args:
      packs: open packs.
      store: reads their frames; must be made of the same packs.
      split: as in `make_loader`.
      batch_size: B, samples a batch on this host.
      driven_per_sample: D.
      cross_identity: probability that another identity drives a target, where one can.
      same_expression: probability that a target shows the source's own expression.
      mirror: probability that a whole sample is seen in a mirror (`data.mirror`).
      need_coefficients: refuse packs with clips whose coefficients nobody gave.
      seed: decides order and choices; 0 … 2**32 - 1.
      shard_index, shard_count: this host and the number of hosts, which get disjoint samples.
      broken: as in `make_loader`.

    Returns:
      A Grain dataset of types.Batch, endless: every record is a source once an epoch.

    Raises:
      PackError: nothing to sample in this split, or coefficients that are needed and missing.
      ValueError: an impossible argument.
    """
    shares = {"cross_identity": cross_identity, "same_expression": same_expression}
    counts = {"batch_size": batch_size, "driven_per_sample": driven_per_sample}
    _check_sampling(counts, shares | {"mirror": mirror}, seed, shard_index, shard_count)
    table = sampler.SampleTable(packs, split)
    if need_coefficients and table.without_coefficients:
        raise PackError(
            f"{', '.join(str(pack.path) for pack in packs)}: {table.without_coefficients} clips"
            " have no coefficients, and motion_pretrain learns from them; give them, or set"
            " motion_pretrain.steps=0 and teacher_forcing=False"
        )
    planner = sampler.Planner(table, driven_per_sample, **shares)
    samples = grain.MapDataset.range(len(table)).seed(seed).shuffle().repeat()
    # Planned before the hosts divide them: all samples together do not depend on the hosts.
    samples = samples.random_map(_Plan(planner, mirror))
    total = len(samples) // shard_count * shard_count
    samples = samples.slice(slice(shard_index, total, shard_count))
    return samples.batch(batch_size, drop_remainder=True).map(_Assemble(store, planner, broken))


class _Plan(grain.transforms.RandomMap):
    """Source number -> records of the sample and whether it is mirrored.

    The generator depends on seed and position alone.
    """

    def __init__(self, planner: sampler.Planner, mirror: float):
        self._planner, self._mirror = planner, mirror

    def random_map(self, element: int, rng: np.random.Generator) -> np.ndarray:
        records = self._planner.plan(int(element), rng)
        return np.append(records, rng.random() < self._mirror)


class _Assemble(grain.transforms.Map):
    """(B, 2 + 2D) records and (B,) whether mirrored, side by side -> Batch."""

    def __init__(self, store: FrameStore, planner: sampler.Planner, broken: BrokenRecords | None):
        self._store, self._planner, self._broken = store, planner, broken

    def map(self, element: np.ndarray) -> types.Batch:
        batch = self._whole(element[:, :-1])
        for view in vars(batch).values():
            mirror_lib.mirror_rows(view, element[:, -1].astype(bool))
        return batch

    def _whole(self, element: np.ndarray) -> types.Batch:
        try:
            return self._read(element)
        except PackError as error:
            if self._broken is None:
                raise PackError(f'{error}; or train with data.broken="skip"') from None
        whole = [
            self._broken.whole_sample(sample, self._planner, self._store.read) for sample in element
        ]
        return self._read(np.stack(whole))

    def _read(self, element: np.ndarray) -> types.Batch:
        driven = (element.shape[1] - 2) // 2
        return types.Batch(
            source=self._store.read_views(element[:, 0]),
            reconstruction=self._store.read_views(element[:, 1]),
            driven=self._store.read_views(element[:, 2 : 2 + driven]),
            driver=self._store.read_views(element[:, 2 + driven :]),
        )


def _check_sampling(
    counts: dict[str, int], shares: dict[str, float], seed: int, shard_index: int, shard_count: int
) -> None:
    for name, got, good, expected in (
        *((name, count, count >= 1, "at least 1") for name, count in counts.items()),
        *((name, share, 0 <= share <= 1, "0 to 1") for name, share in shares.items()),
        ("seed", seed, 0 <= seed < 2**32, "0 to 2**32 - 1"),
        ("shard_index", shard_index, 0 <= shard_index < shard_count, f"0 to {shard_count - 1}"),
    ):
        if not good:
            raise ValueError(f"{name}: expected {expected}, got {got}")
