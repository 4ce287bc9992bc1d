#!/usr/bin/env bash
# Runs one fuzz target for AUTOSP_FUZZ_SECONDS (default 5): run_fuzzer.sh BINARY [SEED_FOLDER].
# New inputs go to a folder beside the binary, so the checked-in seeds stay as they are.
set -euo pipefail

binary=$1
shift
if [ ! -x "$binary" ]; then
  echo "$binary is not built; run ./run fuzz, or cmake --build --preset fuzz --target fuzzers" >&2
  exit 1
fi
found=$binary.corpus
mkdir -p "$found"
# absl and protobuf of the system are not instrumented, so container checks would misfire.
export ASAN_OPTIONS=detect_container_overflow=0:allocator_may_return_null=1
exec "$binary" -max_total_time="${AUTOSP_FUZZ_SECONDS:-5}" -timeout=5 -rss_limit_mb=2048 \
  -print_final_stats=1 -artifact_prefix="$found/" "$found" "$@"
