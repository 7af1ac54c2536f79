"""Rewords what absl and ml_collections say about a wrong flag as one line with the fix."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re

from absl import flags

_HELP = "--help lists the flags"

# (what the libraries say, what we say); \\1 is the first group of the pattern.
_WORDINGS = (
    (r"flag --([\w.]+)=None: .*must have a value other than None", r"--\1 is required"),
    (r"Missing value for flag (--[\w.]+)", r"\1 needs a value: \1=VALUE"),
    (r"flag (--\S+): \('Non-boolean", r"\1: expected true or false"),
    (r"flag (--\S+): invalid literal for int", r"\1: expected a whole number"),
    (r"flag (--\S+): could not convert string to float", r"\1: expected a number"),
    (
        r"flag (--([\w.]+)=.*?): (?:Unable to parse .* as instance|None is not allowed as value)",
        r"\1: expected a field of it, as --\2.FIELD=VALUE",
    ),
    (
        r"flag (--([\w.]+)=.*?): Error while parsing string: .* as tuple",
        r"""\1: expected a tuple, as --\2='("FIRST", "SECOND")' or --\2='(1, 2)'""",
    ),
    (r"module 'config_(\w+)' has no attribute 'get_config'", r"--\1: no get_config() in this file"),
    (
        r"Failed loading config file .*No such file or directory: '(.*?)'",
        r"\1: no such config file",
    ),
)
_MISSING_FIELD = (
    r"Field (?P<field>\w+) not found on dataclass <class '(?P<owner>[\w.]+)'>",
    r"Attribute <class '(?P<owner>[\w.]+)'>\.(?P<field>\w+) does not exist",
)


def describe(error: Exception) -> str:
    """Words an error that was raised while flags or a config file were read.

    Args:
      error: an `absl.flags.Error`, or what a config file or an override of its fields raised.

    Returns:
      One line that names the flag and the fix.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error.flagname)
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}; give a Python file ({_HELP})"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = " ".join(text.split())
    for pattern in _MISSING_FIELD:
        if match := re.search(pattern, line):
            return _missing_field(match["owner"], match["field"])
    for pattern, wording in _WORDINGS:
        if match := re.search(pattern, line):
            return f"{match.expand(wording)} ({_HELP})"
    if "Traceback (most recent call last)" in text:
        # ml_collections puts the whole traceback of get_config() into its message.
        last = [part for part in text.splitlines() if part.strip()][-1]
        return re.sub(r"^\s*[\w.]*(Error|Exception): ", "", last)
    return f"{line} ({_HELP})"


def is_config_file_failure(error: BaseException) -> bool:
    """Whether ml_collections reports, on first use, that the config file could not be read."""
    return isinstance(error, OSError) and "Configuration is not available" in str(error)


def _unknown_flag(name: str) -> str:
    # absl's own flags (logging, profiling, testing) make poor suggestions.
    known = [
        flag.name
        for module, items in flags.FLAGS.flags_by_module_dict().items()
        if not module.startswith("absl")
        for flag in items
    ]
    # --confg.model.image_size: only the part before the dot is a flag.
    head, dot, tail = name.partition(".")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if dot and not close:
        close = [match + dot + tail for match in difflib.get_close_matches(head, known, n=1)]
    return f"unknown flag --{name}: " + (f"did you mean --{close[0]}?" if close else _HELP)


def _missing_field(owner: str, field: str) -> str:
    module, _, name = owner.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
        fields = [item.name for item in dataclasses.fields(cls)]
    except (ImportError, AttributeError, TypeError, ValueError):
        fields = []  # not a class that can be found again: do without a suggestion
    close = difflib.get_close_matches(field, fields, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(fields) or 'none'}"
    return f"unknown field {field!r} of {name}: {hint}"
