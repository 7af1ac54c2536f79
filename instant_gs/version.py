"""The version of the package, and the commit that its sources are.

setup.py reads the version from here without importing anything.
"""

import os
import pathlib
import subprocess

__version__ = "0.1.0"

#: A copy of the tree without its history is told its commit by this environment variable.
COMMIT_VARIABLE = "COMMIT"


def commit() -> str | None:
    """The commit of these sources, "-dirty" behind it if they were changed; None if none is known.

    An installed copy is not taken for a part of the repository in which it may lie.
    """
    if told := os.environ.get(COMMIT_VARIABLE):
        return told
    here = pathlib.Path(__file__)
    git = ["git", "-C", str(here.parent)]
    quiet = {"capture_output": True, "text": True, "check": True}
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], **quiet)
        describe = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
        return subprocess.run(describe, **quiet).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or not a file of its
        return None
