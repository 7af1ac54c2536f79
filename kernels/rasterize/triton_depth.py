"""Triton kernels that hand out slots from near to far, without a sort of the splats by depth.

A splat's first slot is the number of intersections of all nearer splats. To count these, splats are
thrown into bins of consecutive depth (sample sort, Frazer & McKellar 1970): a sample of the splats,
put in order by comparing each with each, are the bins' limits. Within a bin each splat is compared
with each other one. What the sample is decides how long that takes, and never a result.

Splats are ordered by one 64-bit key, the bits of the depth before the splat's number: no two are
equal, and many splats at one depth still spread over many bins. Arrays of keys are int32 in JAX,
which has no 64 bits by default.
"""

import triton
import triton.language as tl


@triton.jit
def as_int64(pointer):
    """The same address, for numbers of 64 bits."""
    return pointer.to(tl.pointer_type(tl.int64))


@triton.jit
def depth_key(depth, number):
    """Orders splats: nearest first, ties by number. Positive depths sort like their bits."""
    return (depth.to(tl.int32, bitcast=True).to(tl.int64) << 32) | number.to(tl.int64)


@triton.jit
def sample_kernel(
    means, viewmats, keys, tallies, total, cameras, samples, means_lead, BLOCK: tl.constexpr
):
    """Grid (blocks of bins, images): keys of a sample of the splats, (images, samples) int64.

    Also empties the tallies, see `join_bin`: there is one bin more than samples.

    One splat of each of as many stretches as there are samples, which one looks random. Compiled
    without fused multiply-adds, as the projection is, whose depths these have to be to the bit: of
    a wall at one depth no splat would lie between two samples otherwise.
    """
    image = tl.program_id(1)
    means += ((image // cameras) % means_lead) * total * 3
    view = viewmats + image * 16 + 8  # the row of the depth
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = sample < samples
    width, rest = total // samples, total % samples  # of so many stretches one is longer by one
    scrambled = ((sample.to(tl.uint32) * 2654435761) >> 17).to(tl.int32)
    splat = sample * width + tl.minimum(sample, rest)
    splat += scrambled % (width + (sample < rest).to(tl.int32))
    x = tl.load(means + splat * 3, mask=live, other=0.0)
    y = tl.load(means + splat * 3 + 1, mask=live, other=0.0)
    z = tl.load(means + splat * 3 + 2, mask=live, other=0.0)
    depth = tl.load(view) * x + tl.load(view + 1) * y + tl.load(view + 2) * z + tl.load(view + 3)
    key = depth_key(tl.where(depth > 0.0, depth, float("inf")), splat)
    tl.store(as_int64(keys) + image * samples + sample, key, mask=live)
    tally = as_int64(tallies) + (image * (samples + 1) + sample)[:, None] * 2
    zeros = tl.zeros([BLOCK, 2], tl.int64)
    tl.store(tally + tl.arange(0, 2)[None, :], zeros, mask=(sample <= samples)[:, None])


@triton.jit
def _load_keys(keys, first, samples, COUNT: tl.constexpr):
    """Keys from `first` on; from `samples` on the largest of all."""
    index = first + tl.arange(0, COUNT)
    return tl.load(keys + index, mask=index < samples, other=0x7FFFFFFFFFFFFFFF)


@triton.jit
def limits_kernel(keys, limits, samples, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Grid (blocks of samples, images): the samples' keys in order."""
    image = tl.program_id(1)
    keys = as_int64(keys) + image * samples
    first = tl.program_id(0) * BLOCK
    key = _load_keys(keys, first, samples, BLOCK)
    place = tl.zeros([BLOCK], tl.int32)
    begin = 0
    other = _load_keys(keys, begin, samples, STEP)
    while begin < samples:
        place += tl.sum((other[:, None] < key[None, :]).to(tl.int32), axis=0)
        begin += STEP
        other = _load_keys(keys, begin, samples, STEP)
    target = as_int64(limits) + image * samples + place
    tl.store(target, key, mask=first + tl.arange(0, BLOCK) < samples)


@triton.jit
def join_bin(limits, tallies, image, key, count, samples, half):
    """Puts splats into bins: the bin, and the place among its splats in no certain order.

    `tallies` (images, samples + 1, 2) int64 are the splats and intersections of each bin. `half` is
    the highest power of two up to `samples`. Splats without intersections join no bin.
    """
    live = count > 0
    limits = as_int64(limits) + image * samples
    bin_id = tl.zeros(key.shape, tl.int32)  # how many limits lie before the key
    step = half
    while step > 0:
        next_id = bin_id + step
        there = live & (next_id <= samples)
        limit = tl.load(limits + next_id - 1, mask=there, other=0)
        bin_id = tl.where(there & (limit < key), next_id, bin_id)
        step = step // 2
    tally = as_int64(tallies) + (image * (samples + 1) + bin_id) * 2
    one = (count * 0 + 1).to(tl.int64)
    place = tl.atomic_add(tally, one, mask=live, sem="relaxed")
    tl.atomic_add(tally + 1, count.to(tl.int64), mask=live, sem="relaxed")
    return bin_id, place.to(tl.int32)


@triton.jit
def _load_tally(tally, first, end, COUNT: tl.constexpr):
    """Splats (int32) and intersections (int64) of the bins from `first` on, 0 from `end` on."""
    index = first + tl.arange(0, COUNT)
    size = tl.load(tally + index * 2, mask=index < end, other=0).to(tl.int32)
    return size, tl.load(tally + index * 2 + 1, mask=index < end, other=0)


@triton.jit
def tally_kernel(tallies, starts, before, needed, bins, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Grid (blocks of bins, images): splats and intersections before each bin, and before the end.

    Both are (images, bins + 1) int32. A program adds up all that is before its own bins: that is
    sooner done than waited for. A scene can ask for more intersections than 32 bits count: they
    stay at 2^31 - 1.
    """
    image = tl.program_id(1)
    tally = as_int64(tallies) + image * bins * 2
    own = tl.program_id(0) * BLOCK
    splats = tl.zeros([STEP], tl.int32)
    intersections = tl.zeros([STEP], tl.int64)
    begin = 0
    while begin < own:
        size, count = _load_tally(tally, begin, own, STEP)
        splats += size
        intersections += count
        begin += STEP
    size, count = _load_tally(tally, own, bins, BLOCK)
    start = tl.sum(splats) + tl.cumsum(size, axis=0) - size
    first = tl.sum(intersections) + tl.cumsum(count, axis=0) - count
    first = tl.minimum(first, 2147483647).to(tl.int32)
    index = own + tl.arange(0, BLOCK)
    row = image * (bins + 1) + index
    tl.store(starts + row, start, mask=index <= bins)
    tl.store(before + row, first, mask=index <= bins)
    tl.store(needed + image + index * 0, first, mask=index == bins)


@triton.jit
def bin_kernel(depths, counts, bins, places, starts, binned, total, samples, BLOCK: tl.constexpr):
    """Grid (blocks of splats, images): splats bin by bin, (images, N, 2) int64.

    An entry is the key, and the bin above the count of intersections.
    """
    image = tl.program_id(1)
    splat = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    source = image * total + splat
    count = tl.load(counts + source, mask=splat < total, other=0)
    live = count > 0
    depth = tl.load(depths + source, mask=live, other=1.0)
    bin_id = tl.load(bins + source, mask=live, other=0)
    place = tl.load(places + source, mask=live, other=0)
    place += tl.load(starts + image * (samples + 2) + bin_id, mask=live, other=0)
    entry = tl.join(depth_key(depth, splat), (bin_id.to(tl.int64) << 32) | count.to(tl.int64))
    target = as_int64(binned) + (image * total + place)[:, None] * 2 + tl.arange(0, 2)[None, :]
    tl.store(target, entry, mask=live[:, None])


@triton.jit
def _load_entries(binned, first, end, STEP: tl.constexpr):
    """Keys and counts of the entries from `first` on; none from `end` on counts anything.

    For a loop to carry: loaded a step ahead, they stay one entry a lane. What Triton can trace back
    to pointers it would rather load in every thread.
    """
    index = first + tl.arange(0, STEP)
    key = tl.load(binned + index * 2, mask=index < end, other=0)
    return key, tl.load(binned + index * 2 + 1, mask=index < end, other=0).to(tl.int32)


@triton.jit
def first_slots(
    binned, starts, before, image, total, samples, capacity,
    BLOCK: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """A program's share of the binned splats: number, intersections (0: none here), first slot.

    Slots are at most the capacity. STEP times the largest capacity must fit in 32 bits.
    """
    binned = as_int64(binned) + image * total * 2
    starts += image * (samples + 2)
    visible = tl.load(starts + samples + 1)
    begin = tl.program_id(0) * BLOCK
    last = tl.minimum(begin + BLOCK, visible) - 1
    is_used = begin <= last
    # Whole bins, from that of the first splat to that of the last one.
    first_bin = (tl.load(binned + begin * 2 + 1, mask=is_used, other=0) >> 32).to(tl.int32)
    last_bin = (tl.load(binned + last * 2 + 1, mask=is_used, other=0) >> 32).to(tl.int32)
    index = tl.load(starts + first_bin)
    end = tl.where(is_used, tl.load(starts + last_bin + 1), index)
    key, own_count = _load_entries(binned, begin, last + 1, BLOCK)
    slot = tl.zeros([BLOCK], tl.int32) + tl.load(before + image * (samples + 2) + first_bin)
    slot = tl.minimum(slot, capacity)
    other_key, count = _load_entries(binned, index, end, STEP)
    while index < end:
        count = tl.minimum(count, capacity).to(tl.uint32)
        nearer = tl.where(other_key[:, None] < key[None, :], count[:, None], 0)
        nearer = tl.minimum(tl.sum(nearer, axis=0), capacity).to(tl.int32)
        slot = tl.minimum(slot + nearer, capacity)
        index += STEP
        other_key, count = _load_entries(binned, index, end, STEP)
    return (key & 0xFFFFFFFF).to(tl.int32), own_count, slot
