"""Measures the training pipeline on a packed pack, as JSON lines.

    python -m instant_gs.data.bench DIR [--batch_size=8] [--driven_per_sample=4]

The batches are made as training makes them, the first of them after the clock starts; those made
ahead at the end are work that does not count. `cpu_ms` is processor time of all threads, which
other programs disturb little; `images_per_second` and `samples_per_second` are of one core, from
it. `wall_ms` shows what the threads bring. "decoded" reads every record from its shard, "cached"
from memory.
"""

import json
import time

from absl import flags

from instant_gs import cli
from instant_gs.config import DataConfig
from instant_gs.data import pipeline, reader

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Samples a batch.", lower_bound=1)
_DRIVEN = flags.DEFINE_integer("driven_per_sample", 4, "Driven targets a sample.", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 100, "Batches timed.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", DataConfig.threads, "As data.threads.", lower_bound=1)
_SPLIT = flags.DEFINE_string("split", "all", "Split to read.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Side of the images; as stored by default.")

# Enough for any pack this is run on; what does not fit is decoded, and the figures say so.
_CACHE_GIGABYTES = 4.0


def measure(
    pack: reader.Pack,
    *,
    cached: bool,
    split: str = "all",
    batch_size: int = 8,
    driven_per_sample: int = 4,
    image_size: int | None = None,
    batches: int = 100,
    threads: int = DataConfig.threads,
) -> dict[str, float | int | str]:
    """Times the first batches; with `cached`, after every record was read once."""
    size = None if image_size is None else (image_size, image_size)
    store = pipeline.FrameStore([pack], size, int(_CACHE_GIGABYTES * 1e9) if cached else 0)
    if cached:
        for index in range(len(pack)):
            store.read(index)
    dataset = pipeline.make_batches(
        *([pack], store, split),
        batch_size=batch_size,
        driven_per_sample=driven_per_sample,
        cross_identity=0.5,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    iterator = pipeline.read_ahead(dataset, threads)
    for _ in range(batches):
        next(iterator)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    iterator.close()
    images = batch_size * (2 + 2 * driven_per_sample)
    return {
        "case": "cached" if cached else "decoded",
        "image_size": store.image_size[0],
        "records": len(pack),
        "images_per_batch": images,
        "threads": threads,
        "cpu_ms": round(cpu / batches * 1e3, 2),
        "wall_ms": round(wall / batches * 1e3, 2),
        "images_per_second": round(images * batches / cpu),
        "samples_per_second": round(batch_size * batches / cpu),
    }


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise cli.UserError(f"give one packed pack's folder, got {len(argv) - 1} arguments", 2)
    pack = reader.Pack(argv[1])
    for cached in (False, True):
        figures = measure(
            pack,
            cached=cached,
            split=_SPLIT.value,
            batch_size=_BATCH_SIZE.value,
            driven_per_sample=_DRIVEN.value,
            image_size=_IMAGE_SIZE.value,
            batches=_BATCHES.value,
            threads=_THREADS.value,
        )
        print(json.dumps(figures))


if __name__ == "__main__":
    cli.run(main, positional=True)
