"""What every command line shares: expected errors become one clear line and an exit code.

    from instant_gs import cli

    def main(argv):
        ...
        raise cli.UserError("--source: photo.txt is not an image; give a PNG or JPEG file")

    if __name__ == "__main__":
        cli.run(main)

Exit codes: 0 success, 1 an expected error (one line on stderr), 2 a wrong flag, 75 stopped on
request and saved (the same command resumes), 130 interrupted, 143 terminated (SIGTERM): what is
not whole is then removed.
A failure nobody expected keeps its traceback: it is a bug in this project and worth reporting.
Set INSTANT_GS_TRACEBACK=1 to see the traceback of expected errors, too.
"""

from __future__ import annotations

import collections
import dis
import errno
import functools
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

from instant_gs import flag_message

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
EXIT_TERMINATED = 143  # 128 + SIGTERM

TRACEBACK_VARIABLE = "INSTANT_GS_TRACEBACK"

# A ValueError is expected only where our own code raised it; one from the depths of a library, or
# from a wrong call or operation of ours, is a bug and keeps its traceback.
_ROOT = Path(__file__).resolve().parent.parent
_OUR_CODE = ("instant_gs", "kernels", "configs", "train.py", "eval.py", "benchmarks")

_OUR_ERRORS = (
    ValueError,
    TypeError,
    ArithmeticError,  # FloatingPointError: NaN in training; OverflowError: the rasterizer's lists
    ImportError,  # an optional package is missing
    NotImplementedError,
    ExceptionGroup,
)

# What the system refuses, and what the user can do about it.
_SYSTEM_FIX = {
    errno.ENOSPC: "the disk is full: free some space or write somewhere else",
    errno.EDQUOT: "the disk quota is used up: free some space or write somewhere else",
    errno.EACCES: "no permission: change the file's permissions or choose another path",
    errno.EPERM: "not permitted: choose another path",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EISDIR: "this is a folder and a file is expected: give a file's path",
    errno.ENOTDIR: "a part of this path is a file and not a folder: check the path",
    errno.EEXIST: "this exists already: choose another path",
}
# How libraries that hide the OSError (TensorStore below Orbax, FFmpeg) word a full disk.
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class UserError(Exception):
    """An error the user can mend: the message names the input and the fix, in one line.

    Args:
      message: what is wrong with which input, and what to do.
      exit_code: the exit status of the command.
    """

    def __init__(self, message: str, exit_code: int = EXIT_ERROR):
        super().__init__(message)
        self.exit_code = exit_code


def run(
    main: Callable[[list[str]], Any],
    argv: Sequence[str] | None = None,
    *,
    positional: bool = False,
) -> NoReturn:
    """Parses the absl flags, calls `main(argv)` and exits with its status.

    Args:
      main: takes the arguments left after the flags (the first is the program's name). May return
        None or an exit status.
      argv: the command line; `sys.argv` by default.
      positional: whether there may be arguments that are no flags; otherwise they are an error.
    """
    if threading.current_thread() is threading.main_thread():
        # As an exception, so that unfinished files are removed on the way out.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_TERMINATED))
    # "No TPU here" is no news to a user.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    app.run(
        functools.partial(_guarded, main),
        argv=list(argv) if argv is not None else None,
        flags_parser=functools.partial(_parse_flags, positional=positional),
    )
    raise AssertionError("absl.app.run exits")  # For type checkers: app.run never returns.


def describe(error: BaseException) -> str | None:
    """Words an expected error as one line; None if the error is unexpected and needs a traceback.

    Expected are UserError, FileNotFoundError, the system's refusals (disk full, no permission) also
    where a library wrapped them, and the errors of `_OUR_ERRORS` where our own code raised them.
    """
    if isinstance(error, UserError):
        return _one_line(str(error))
    if flag_message.is_config_file_failure(error):
        return flag_message.describe(error)
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return _describe_os_error(link)
        if _DISK_FULL.search(str(link)):
            return _one_line(f"{_SYSTEM_FIX[errno.ENOSPC]} ({link})")
    if isinstance(error, FileNotFoundError) or (
        isinstance(error, OSError) and error.errno in _SYSTEM_FIX
    ):
        return _describe_os_error(error)
    if isinstance(error, ExceptionGroup) and _raised_by_us(error):
        parts = "; ".join(_one_line(str(part)) for part in error.exceptions)
        return _one_line(f"{error.message}: {parts}")
    if isinstance(error, _OUR_ERRORS) and _raised_by_us(error):
        return _one_line(str(error))
    return None


def _guarded(main: Callable[[list[str]], Any], argv: list[str]) -> Any:
    try:
        return main(argv)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        message = describe(error)
        if message is None:
            raise
        _show_traceback()
        if flag_message.is_config_file_failure(error):
            _fail(message, EXIT_USAGE)
        _fail(message, getattr(error, "exit_code", EXIT_ERROR))


def _parse_flags(argv: Sequence[str], *, positional: bool) -> list[str]:
    """Parses the flags as absl does, but a wrong one costs one line instead of a page of usage."""
    try:
        rest = flags.FLAGS(list(argv))
    except (
        *(flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError),
        SyntaxError,
    ) as error:
        # Besides absl's errors: those of a config file and of overrides of fields it lacks.
        _show_traceback()
        _fail(flag_message.describe(error), EXIT_USAGE)
    for name, times in _repeated_tuples(argv).items():
        _fail(
            f"--{name}: given {times} times, which would join the values; give it once, with all "
            f"of them: --{name}='(FIRST, SECOND)'",
            EXIT_USAGE,
        )
    if rest[1:] and not positional:
        _fail(f"{rest[1]}: not expected; every option has a flag (--help)", EXIT_USAGE)
    if not flags.FLAGS["verbosity"].present:
        # Orbax reports every checkpoint in paragraphs; --verbosity=0 shows them.
        absl_logging.set_verbosity(absl_logging.WARNING)
    return rest


def _repeated_tuples(argv: Sequence[str]) -> dict[str, int]:
    """How often each tuple of a configuration is given, if more than once; call it after parsing.

    Of any other flag the last one counts; ml_collections alone appends.
    """
    given = (re.match(r"--?(\w+\.[\w.]+)(=|$)", argument) for argument in argv[1:])
    times = collections.Counter(match[1] for match in given if match)
    known = flags.FLAGS
    return {
        name: count
        for name, count in times.items()
        if count > 1 and name in known and isinstance(known[name], flags.MultiFlag)
    }


def _describe_os_error(error: OSError) -> str:
    name = error.filename
    if isinstance(error, FileNotFoundError):
        if name is None or error.strerror is None:
            return _one_line(str(error))
        return f"{name}: no such file or folder: check the path"
    fix = _SYSTEM_FIX[error.errno]
    return f"{name}: {fix}" if name is not None else fix


def _chain(error: BaseException):
    """The error and what it was raised from, innermost last; bounded, since chains can be loops."""
    for _ in range(16):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` statement of this project raised the error, not a call or an operation."""
    if type(error).__module__.partition(".")[0] in ("instant_gs", "kernels"):
        return True  # also where it came back from a worker process, without its frames
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if dis.opname[code.co_code[trace.tb_lasti]] != "RAISE_VARARGS":
        return False
    try:
        path = Path(code.co_filename).resolve().relative_to(_ROOT)
    except ValueError:
        return False
    return path.parts[0] in _OUR_CODE


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "failed without a message"


def _show_traceback() -> None:
    if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        traceback.print_exc()


def _fail(message: str, exit_code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
