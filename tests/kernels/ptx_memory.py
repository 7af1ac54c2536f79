"""Memory for `ptx_machine`: finds accesses out of bounds or of nothing, and races.

Two accesses of one place, at least one a write, are a race unless the same thread made both, a
barrier of their program lies between them (or one of their warp), or both are atomic. Programs of a
launch are never in order. Writing what is there already is no race: Triton lets several threads
store the same number.
"""

import dataclasses

import numpy as np

_NONE, _MANY = -1, -2  # instead of a number of a thread, warp or program
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Fault(Exception):
    """A kernel did what a GPU does not define."""


@dataclasses.dataclass(frozen=True)
class Threads:
    """Who asks: one entry per thread of the grid.

    Attributes:
        program, warp: Numbers within the grid.
        barriers, warp_barriers: How many of its program's and its warp's each has passed.
    """

    program: np.ndarray
    warp: np.ndarray
    barriers: np.ndarray
    warp_barriers: np.ndarray


class _Trace:
    """The last accesses of each place: by whom, after how many barriers, whether atomic."""

    def __init__(self, size: int) -> None:
        self.thread, self.warp, self.program = (np.full(size, _NONE, np.int64) for _ in range(3))
        self.barriers, self.warp_barriers = (np.zeros(size, np.int64) for _ in range(2))
        self.atomic = np.zeros(size, bool)

    def unordered(self, place: np.ndarray, thread: np.ndarray, who: Threads) -> np.ndarray:
        """True where another thread's access may happen at the same time as a new one."""
        other = (self.thread[place] != _NONE) & (self.thread[place] != thread)
        same_program = self.program[place] == who.program[thread]
        same_warp = self.warp[place] == who.warp[thread]
        before = same_program & (self.barriers[place] < who.barriers[thread])
        before |= same_warp & (self.warp_barriers[place] < who.warp_barriers[thread])
        return other & ~before

    def note(self, place, thread, who: Threads, *, joins=False, atomic: bool = False) -> None:
        """Notes new accesses; where `joins`, others at the same time are not forgotten."""
        pairs = (
            (self.thread, thread),
            (self.warp, who.warp[thread]),
            (self.program, who.program[thread]),
        )
        for last, now in pairs:
            now = np.where(joins & (last[place] != now), _MANY, now)
            last[place] = now
            last[place[last[place] != now]] = _MANY  # several by one instruction
        self.barriers[place] = who.barriers[thread]
        self.warp_barriers[place] = who.warp_barriers[thread]
        self.atomic[place] = atomic


class Memory:
    """Bytes at addresses from 0 on. Every method takes one address a thread that takes part.

    Args:
        size: Bytes.
        what: Its name in messages.
        granule: Bytes that are watched together, as many as the narrowest access has.
    """

    def __init__(self, size: int, what: str, granule: int) -> None:
        size = -(-size // 8) * 8
        self.what, self._granule = what, granule
        self.data = np.zeros(size, np.uint8)
        self._exists, self._defined, self._constant = np.zeros((3, size // granule), bool)
        self._reads, self._writes = _Trace(size // granule), _Trace(size // granule)

    def allocate(self, first: int, size: int, *, defined: bool, constant: bool) -> None:
        """Makes a range of bytes exist; until written it holds nothing unless `defined`."""
        span = slice(first // self._granule, -(-(first + size) // self._granule))
        self._exists[span], self._defined[span], self._constant[span] = True, defined, constant

    def read(self, address, width: int, lanes: int, thread, who: Threads, where: str) -> list:
        """`lanes` unsigned numbers of `width` bytes for each thread."""
        places = self._places(address, width, lanes, where)
        if not np.all(self._defined[places]):
            raise Fault(f"{where}: {self.what} read before anything was written there")
        for place in places.T:
            if np.any(self._writes.unordered(place, thread, who)):
                raise Fault(f"{where}: {self.what} race: reads what another thread writes")
            joins = self._reads.unordered(place, thread, who)
            self._reads.note(place, thread, who, joins=joins)
        numbers, first = self.data.view(_UNSIGNED[width]), address // width
        return [numbers[first + lane] for lane in range(lanes)]

    def write(self, address, values: list, width: int, thread, who: Threads, where: str) -> None:
        """Writes each thread's numbers."""
        places = self._places(address, width, len(values), where)
        if np.any(self._constant[places]):
            raise Fault(f"{where}: {self.what} of an operand written")
        numbers, first = self.data.view(_UNSIGNED[width]), address // width
        count = max(width // self._granule, 1)
        for lane, value in enumerate(values):
            changes = numbers[first + lane] != value
            for place in places[:, lane * count : (lane + 1) * count].T:
                for trace, does in ((self._writes, "writes"), (self._reads, "reads")):
                    unordered = trace.unordered(place, thread, who)
                    if np.any(unordered & (changes | ~self._defined[place])):
                        raise Fault(f"{where}: {self.what} race: writes what another thread {does}")
                self._writes.note(place, thread, who)
            numbers[first + lane] = value
            if np.any(numbers[first + lane] != value):
                raise Fault(f"{where}: {self.what} race: threads store several numbers at once")
        self._defined[places] = True

    def add(self, address, value, width: int, thread, who: Threads, where: str, rng) -> np.ndarray:
        """Atomic additions, in random order; what was there before each."""
        places = self._places(address, width, 1, where)
        if not np.all(self._defined[places]):
            raise Fault(f"{where}: {self.what} added to before anything was written there")
        for place in places.T:
            for trace in (self._writes, self._reads):
                if np.any(trace.unordered(place, thread, who) & ~trace.atomic[place]):
                    raise Fault(f"{where}: {self.what} race: adds where another thread is")
            self._writes.note(place, thread, who, atomic=True)
        numbers, old = self.data.view(_UNSIGNED[width]), np.zeros_like(value)
        for index in rng.permutation(len(address)):
            target = address[index] // width
            old[index] = numbers[target]
            numbers[target] += value[index]
        return old

    def _places(self, address: np.ndarray, width: int, lanes: int, where: str) -> np.ndarray:
        """Granules (threads, granules) of an access, which must be aligned and exist."""
        size = width * lanes
        if np.any(address % size):
            raise Fault(f"{where}: {self.what} misaligned for {size} bytes")
        places = address[:, None] // self._granule + np.arange(max(size // self._granule, 1))
        if np.any((places < 0) | (places >= len(self._exists))) or not np.all(self._exists[places]):
            raise Fault(f"{where}: {self.what} out of bounds")
        return places
