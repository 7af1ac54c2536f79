"""Wheel and sdist hold everything, the pins are complete, imports are as light as promised."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("instant_gs", "kernels")
PROJECT_FILES = (
    *("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"),
    *("CHANGELOG.md", "Makefile", "train.py", "eval.py"),
)
EXTRAS = ("teacher", "face", "dev")  # what `make venv` installs besides the requirements


def run_python(*arguments, cwd, path):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Paths of wheel and sdist, built from a copy: building litters the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in PROJECT_FILES:
        shutil.copy(ROOT / name, tree / name)
    for name in (*PACKAGES, "configs", "constraints"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from setuptools import build_meta as build\n"
        "print(build.build_sdist('dist'))\nprint(build.build_wheel('dist'))"
    )
    result = run_python("-c", code, cwd=tree, path=tree)
    assert result.returncode == 0, result.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    return wheel, sdist


def package_files():
    """Every file of the packages as the repository has them, Python or not."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    missing = [
        str(path.relative_to(ROOT)) for path in folders if not (path / "__init__.py").exists()
    ]
    assert not missing, f"no __init__.py in {missing}: an installed package would lack them"


def test_wheel_holds_code_and_data(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    missing = sorted(name for name in package_files() if name not in names)
    assert not missing, f"in the tree but not in the wheel (package_data in setup.py?): {missing}"
    assert any(name.endswith("licenses/NOTICE") for name in names), sorted(names)


def test_wheel_holds_nothing_else(built):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(built[0]).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_sdist_holds_what_a_source_build_needs(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {*PROJECT_FILES, "configs/demo.py", "constraints/py311.txt", *package_files()}
    missing = sorted(expected - names)
    assert not missing, f"in the tree but not in the sdist (MANIFEST.in?): {missing}"


def test_installed_wheel_imports_lightly(built, tmp_path):
    zipfile.ZipFile(built[0]).extractall(tmp_path)
    code = (
        "import sys, instant_gs\n"
        "first = sorted({'jax', 'flax', 'cv2', 'numpy'} & set(sys.modules))\n"
        "import kernels\n"
        "second = sorted({'flax', 'triton', 'instant_gs.models', 'torch'} & set(sys.modules))\n"
        "print(kernels.__file__, instant_gs.__version__, first, second)"
    )
    result = run_python("-c", code, cwd=tmp_path, path=tmp_path)
    assert result.returncode == 0, result.stderr
    file, version, *lists = result.stdout.split()
    assert Path(file).is_relative_to(tmp_path), f"tested {file} and not the wheel"
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert lists == ["[]", "[]"], f"import instant_gs, then kernels, also imported {lists}"


# ----------------------------------------------------------------------------------- pins


def read_pins(path):
    pins = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, equal, version = line.partition("==")
            assert equal, f"{path.name}: {line!r} is not pinned with =="
            pins[canonicalize_name(name)] = version
    return pins


def pin_files():
    return sorted((ROOT / "constraints").glob("py*.txt"))


def project_requirements(built):
    """The wheel's requirements with the extras that are installed everywhere."""
    archive = zipfile.ZipFile(built[0])
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, name).parent)
    found = [Requirement(text) for text in metadata.requires]
    return [item for item in found if applies(item, EXTRAS)]


def applies(requirement, extras=()):
    environment = default_environment()
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
    )


def test_pin_files_list_the_same_packages():
    first, *others = [set(read_pins(path)) for path in pin_files()]
    assert len(first) > 50
    assert others and all(other == first for other in others), [first ^ other for other in others]


@pytest.mark.parametrize("path", pin_files(), ids=lambda path: path.name)
def test_pins_satisfy_setup(built, path):
    pins = read_pins(path)
    requirements = project_requirements(built)
    assert len(requirements) > 15
    bad = [
        f"{item}: pinned {pins.get(canonicalize_name(item.name))}"
        for item in requirements
        if not item.specifier.contains(pins.get(canonicalize_name(item.name), "0"))
    ]
    assert not bad, f"{path.name}: {bad}"


def test_pins_are_complete():
    """Whatever a pinned package asks for is pinned, too, in a version that it accepts."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    path = ROOT / "constraints" / f"{version}.txt"
    if not path.exists():
        pytest.skip(f"no pins for {version}")
    pins = read_pins(path)
    lone = {
        canonicalize_name(line)
        for line in (ROOT / "constraints" / "no_deps.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    bad = []
    for name in sorted(set(pins) - lone):
        for text in importlib.metadata.requires(name) or []:
            item = Requirement(text)
            pinned = pins.get(canonicalize_name(item.name))
            if applies(item) and (pinned is None or not item.specifier.contains(pinned)):
                bad.append(f"{name} asks for {item}, pinned: {pinned}")
    assert not bad, f"{path.name}: {bad}"


@pytest.mark.parametrize("path", pin_files(), ids=lambda path: path.name)
def test_lone_packages_belong_together(path):
    # The plugin that lowers for CUDA is bound to its jax.
    pins = read_pins(path)
    assert pins["jax-cuda13-plugin"] == pins["jax"] == pins["jaxlib"]
