"""Arrays that could not be written: what Orbax's threads met, in plain words, and nothing else.

Several threads meet the same full disk, and each says so on stderr in pages.
"""

import functools
import logging
import os
import pathlib
import re
import sys
import traceback

import orbax.checkpoint as ocp

_ORBAX = str(pathlib.Path(ocp.__file__).parent) + os.sep


def reason(error: OSError | ValueError) -> str | None:
    """Why the file system refused, such as "No space left on device"; None if it did not."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's ValueError has it
    if code:
        return os.strerror(int(code[1]))
    return (error.strerror or str(error)) if isinstance(error, OSError) else None


def quieten() -> None:
    """Keeps off stderr, from now on, what other threads say of a write that failed."""
    logging.getLogger("absl").addFilter(_not_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_through_orbax)
    if getattr(sys.unraisablehook, "func", None) is not _unless_loop_closed:
        sys.unraisablehook = functools.partial(_unless_loop_closed, sys.unraisablehook)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Refuses the pages that Orbax logs about errors which it hands on to us as well."""
    return not (record.exc_info and record.pathname.startswith(_ORBAX))


def _not_through_orbax(record: logging.LogRecord) -> bool:
    """Refuses those about arrays beside the one whose error was handed on."""
    frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
    return not any(frame.f_code.co_filename.startswith(_ORBAX) for frame, _ in frames)


def _unless_loop_closed(show, unraisable) -> None:
    """TensorStore's threads end after Orbax closed the loop of a write that failed already."""
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        show(unraisable)
