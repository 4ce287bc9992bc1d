#!/usr/bin/env bash
# Makes the Python environment that exports fixtures and runs the peers of the benchmark, in
# $AUTOSP_DEPS/pyenv (default .deps/pyenv): 3 GB of wheels, 6 GB on disk. When it is there already,
# it only looks. The build and the tests do not need it.
set -euo pipefail
cd "$(dirname "$0")/.."

env=${AUTOSP_DEPS:-$PWD/.deps}/pyenv
stamp=$env/.requirements.sha256
want=$(sha256sum <scripts/python_requirements.txt | cut -d' ' -f1)

say() { printf 'python_env: %s\n' "$*"; }
fail() { printf 'python_env: %s\n' "$*" >&2; exit 1; }

# The wheels are pinned for Python 3.11, which is Debian 12's.
python_3_11() {
  local python
  for python in ${AUTOSP_PYTHON:-} python3.11 python3 /usr/bin/python3; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' \
      2>/dev/null; then
      echo "$python"
      return
    fi
  done
  fail "no Python 3.11 with venv; apt-get install python3-venv on Debian 12, or set AUTOSP_PYTHON"
}

if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
  say "ready in $env"
  exit 0
fi
python=$(python_3_11)
count=$(grep -c '^[A-Za-z].*==' scripts/python_requirements.txt)
say "installing $count packages into $env; this takes minutes"
mkdir -p "$env"
"$python" -m venv "$env"
"$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
  -r scripts/python_requirements.txt
echo "$want" >"$stamp"
say "ready in $env"
