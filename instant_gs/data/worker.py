"""Worker processes of long jobs: they stop when asked, and die with their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from multiprocessing import connection
from typing import Any

import cv2

_stop: Any = None  # In a worker: the event that asks it to give up.


def stop_if_asked() -> None:
    """Raises KeyboardInterrupt in a worker whose parent was interrupted; call it between frames."""
    if _stop is not None and _stop.is_set():
        raise KeyboardInterrupt


def results(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    workers: int,
) -> Iterator[Any]:
    """Yields `function(task)` of every task, in the order in which they are done.

    Args:
      function: of a module's top level; calls `stop_if_asked` now and then.
      tasks: arguments, which must be picklable.
      workers: processes; 1 works in this one.
    """
    if workers == 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    # Spawned, not forked: a fork copies the locks of threads that it does not copy.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = futures.ProcessPoolExecutor(min(workers, len(tasks)), context, _start, (stop,))
    try:
        waiting = [pool.submit(function, task) for task in tasks]
        yield from (item.result() for item in futures.as_completed(waiting))
    finally:  # Also after Ctrl-C or a full disk.
        stop.set()
        pool.shutdown(cancel_futures=True)


def _start(stop: Any) -> None:
    global _stop
    _stop = stop
    cv2.setNumThreads(1)  # The processes share the cores already.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    parent = multiprocessing.parent_process()

    def follow_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # The parent was killed: an orphan would wait for work for ever.

    threading.Thread(target=follow_parent, daemon=True).start()
