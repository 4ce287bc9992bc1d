#!/usr/bin/env bash
# Runs tests under a sanitizer: sanitize.sh asan|tsan [CTEST ARGS]. `./run sanitize` builds for it.
#
# What is found goes to build/NAME/findings, a file for each process. Any file there is a failure,
# also where no test looks at how the process ended.
set -euo pipefail
cd "$(dirname "$0")/.."

name=$1
shift
findings=$PWD/build/$name/findings
rm -rf "$findings"
mkdir -p "$findings"

case $name in
  asan)
    tests=(-L '^process$')
    # Containers of the system's libraries, which are not instrumented, would be misread.
    export ASAN_OPTIONS=log_path=$findings/report:detect_container_overflow=0
    export UBSAN_OPTIONS=log_path=$findings/undefined:print_stacktrace=1
    ;;
  tsan)
    collectives='collectives|peer_failure|network_failure|tcp_rendezvous'
    servers='server_service|server_cluster|agent_parts|agent_process|agent_slow_start'
    shared='client_coordinator_client|common_subprocess|common_metrics_exporter'
    # Coordinator, agent and command line as they are, with ranks of another build.
    processes='process_(run_command|kills|soak|support_bundle|tls)'
    tests=(-R "^($collectives|$servers|$shared|$processes)_test$")
    export TSAN_OPTIONS=log_path=$findings/report:history_size=4
    TSAN_OPTIONS+=:suppressions=$PWD/scripts/tsan_suppressions.txt
    ;;
  *)
    echo "sanitize: $name is no sanitizer; give asan or tsan" >&2
    exit 2
    ;;
esac

export AUTOSP_PATIENCE=${AUTOSP_PATIENCE:-4}
status=0
ctest --preset "$name" "${tests[@]}" "$@" || status=$?
for report in "$findings"/*; do
  [ -e "$report" ] || continue
  echo "sanitize: $report:" >&2
  head -n 40 "$report" >&2
  status=1
done
if [ "$status" = 0 ]; then echo "sanitize: $name has found nothing"; fi
exit "$status"
