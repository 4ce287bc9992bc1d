#!/usr/bin/env bash
# Measures us and the PyTorch peers in one run; see bench/run_bench.py. Called by `./run bench`.
set -euo pipefail
cd "$(dirname "$0")/.."

deps=${AUTOSP_DEPS:-$PWD/.deps}
scripts/python_env.sh
exec "$deps/pyenv/bin/python" bench/run_bench.py "$@"
