"""What the sources say about themselves."""

import importlib.util
import re
import shutil
import subprocess

import pytest

from instant_gs import version


@pytest.fixture(name="copied")
def _copied(tmp_path, monkeypatch):
    """A copy of the module in the repository of another project, and git there."""
    monkeypatch.delenv(version.COMMIT_VARIABLE, raising=False)

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "notes.txt").write_text("theirs\n")
    git("add", "notes.txt")
    git("commit", "-m", "theirs")
    shutil.copy(version.__file__, tmp_path / "version.py")
    spec = importlib.util.spec_from_file_location("copied_version", tmp_path / "version.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, git


def test_an_installed_copy_does_not_name_the_commit_of_the_project_around_it(copied):
    module, _ = copied
    assert module.commit() is None


def test_the_commit_says_when_sources_were_changed(copied, tmp_path):
    module, git = copied
    git("add", "version.py")
    git("commit", "-m", "ours now")
    assert re.fullmatch("[0-9a-f]{40}", module.commit())
    (tmp_path / "notes.txt").write_text("changed\n")
    assert re.fullmatch("[0-9a-f]{40}-dirty", module.commit())


def test_a_tree_without_history_is_told_its_commit(copied, monkeypatch):
    module, _ = copied
    monkeypatch.setenv(version.COMMIT_VARIABLE, "abc")
    assert module.commit() == "abc"
