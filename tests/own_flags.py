"""Commands run inside the test process, though they share names of flags.

absl allows a flag once in a process, and a command is a process of its own otherwise.
"""

import contextlib
from collections.abc import Iterator

from absl import flags


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hides all flags but absl's own; those defined inside are gone behind it."""
    values = flags.FLAGS
    others = {name: values[name] for name in values if not _is_absl(values[name])}
    for name in others:
        delattr(values, name)
    try:
        yield
    finally:
        for name in [name for name in values if not _is_absl(values[name])]:
            delattr(values, name)
        for name, flag in others.items():
            values[name] = flag


def _is_absl(flag) -> bool:
    owner = flags.FLAGS.find_module_defining_flag(flag.name) or ""
    return owner.startswith("absl")
