"""What to do about broken records: stop, or take another sample and say so."""

import logging
import threading

import numpy as np

from instant_gs.data import sampler
from instant_gs.data.error import PackError

# Lines of the log; what is broken beyond them is counted only.
_LISTED = 100
# Draws until a sample is given up. With a quarter of the records broken, a sample of ten records
# is whole once in 18 draws.
_DRAWS = 1000

_log = logging.getLogger(__name__)


class BrokenRecords:
    """Remembers broken records, lists each once in the log, and chooses samples without them.

    The replacement of a sample is a function of the sample alone, so order and resumption stay
    exact as long as the same records are broken. Safe to use from threads.
    """

    def __init__(self):
        self._errors: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Broken records met since the process started."""
        return len(self._errors)

    def add(self, index: int, error: PackError) -> None:
        """Notes a record, by its number among the records of all packs."""
        with self._lock:
            if index in self._errors:
                return
            self._errors[index] = str(error)
            if len(self._errors) <= _LISTED:
                _log.warning("skipped a broken record: %s", error)
            if len(self._errors) == _LISTED:
                _log.warning("further broken records are counted, not listed")

    def whole_sample(self, records: np.ndarray, planner: sampler.Planner, read) -> np.ndarray:
        """The sample itself if it can be read, otherwise another one instead.

        Args:
            records: (2 + 2D,) the planned sample.
            planner: Draws the replacement.
            read: Reads a record by its number; raises PackError if it is broken.

        Raises:
            PackError: No sample that can be read was found.
        """
        rng = None
        for _ in range(_DRAWS):
            if self._readable(records, read):
                return records
            if rng is None:
                rng = np.random.default_rng(records.tolist())
            records = planner.plan(int(rng.integers(len(planner.table))), rng)
        raise PackError(
            f"{_DRAWS} samples in a row hold a broken record, {len(self)} records are broken: "
            "restore the packs (the log names the records)"
        )

    def _readable(self, records: np.ndarray, read) -> bool:
        for index in records.tolist():
            if index in self._errors:
                return False
            try:
                read(index)
            except PackError as error:
                self.add(index, error)
                return False
        return True
