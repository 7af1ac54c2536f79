"""Starting and stopping MediaPipe's networks without its noise."""

import contextlib
import functools
import os
import sys


@functools.cache
def load():
    """MediaPipe's modules ``vision``, ``base_options`` and the package itself.

    Raises:
        ImportError: A package or a system library is missing; says which command helps.
    """
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core import base_options
    except ImportError as error:
        raise ImportError(
            f"mediapipe does not start ({error}); run `make venv`, or `pip install .[face] &&"
            " pip install --no-deps -r constraints/no_deps.txt`"
        ) from error
    except OSError as error:
        raise ImportError(
            f"mediapipe does not start ({error}); on Debian run `apt-get install libegl1 libgles2`"
        ) from error
    return vision, base_options, mediapipe


def image(pixels):
    """(H, W, 3) uint8 RGB, contiguous, as MediaPipe takes it."""
    module = load()[2]
    return module.Image(image_format=module.ImageFormat.SRGB, data=pixels)


def close(network) -> None:
    """Frees a network, without a traceback if the interpreter is going."""
    try:
        network.close()
    except RuntimeError:
        # Its worker thread ends before any exit hook of ours runs. The process frees the memory;
        # without a handle the destructor does not try again.
        network._handle = None


@contextlib.contextmanager
def silenced():
    """Drops what native code writes to stderr: MediaPipe logs start-up notes nobody can act on."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
