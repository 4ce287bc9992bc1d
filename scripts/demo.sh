#!/usr/bin/env bash
# Trains examples/llama-text over two ranks of this machine, as any user would: a coordinator, an
# agent, and autosp-cli. Before that, the same job runs its first steps on one rank; the losses are
# shown side by side at the end. Fails when they differ or when the loss has not fallen.
#
# Arguments go to both submissions: scripts/demo.sh --set training.seq_len=256
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${AUTOSP_BIN:-$PWD/build/${AUTOSP_PRESET:-dev}/bin}
deps=${AUTOSP_DEPS:-$PWD/.deps}
out=$PWD/demo-out
job=examples/llama-text/job.yaml
state=$(mktemp -d "${TMPDIR:-/tmp}/autosp-demo-XXXXXX")
pids=()

say() { printf '\n== %s\n' "$*"; }

# The agent was started last and is stopped first: it takes its ranks along.
stop_servers() {
  local i
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -TERM "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  rm -rf "$state"
}
trap stop_servers EXIT
trap 'exit 130' INT TERM

# start_server NAME ARGS...: waits for its port, which is in $port afterwards.
start_server() {
  local name=$1
  shift
  "$bin/autosp-$name" --listen 127.0.0.1:0 --port-file "$state/$name.port" \
    --state-dir "$state/$name" "$@" 2>"$state/$name.log" &
  pids+=($!)
  for _ in $(seq 200); do
    if [ -s "$state/$name.port" ]; then port=$(cat "$state/$name.port"); return; fi
    kill -0 "${pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "autosp-$name did not start:" >&2
  cat "$state/$name.log" >&2
  exit 1
}

wait_for_node() {
  for _ in $(seq 100); do
    if "$bin/autosp-cli" nodes | grep -q ' ready '; then return; fi
    sleep 0.1
  done
  echo "the agent did not register" >&2
  exit 1
}

# submit ARGS...: prints the id of the job.
submit() {
  "$bin/autosp-cli" submit "$job" "$@" --output json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["job"]["job_id"])'
}

# Where PyTorch is elsewhere than the job file says.
job_args=()
if [ "$deps" != "$PWD/.deps" ]; then job_args=(--set "data.files=$deps/libtorch/torch/**/*.py"); fi
job_args+=("$@")
mkdir -p "$out"

say "the plan (autosp-cli plan $job)"
"$bin/autosp-cli" plan "$job" "${job_args[@]}" --program "$out/program.txt"
echo "program      $out/program.txt"

say "starting a coordinator and an agent with two devices"
start_server coordinator
export AUTOSP_SERVER=127.0.0.1:$port
start_server agent --coordinator "$AUTOSP_SERVER" --node-name demo --devices 2
wait_for_node
"$bin/autosp-cli" nodes

say "the first 20 steps on one rank, for comparison"
one=$(submit "${job_args[@]}" --set name=llama-text-one-rank --set parallelism.ranks=1 \
  --set parallelism.ulysses=1 --set training.steps=20 --set output.weights=false \
  --set output.dir="$out/one-rank")
"$bin/autosp-cli" watch "$one" --every 10

say "the job on two ranks (autosp-cli submit $job; autosp-cli watch ID)"
two=$(submit "${job_args[@]}" --set output.dir="$out")
"$bin/autosp-cli" watch "$two"

say "the same steps on one rank and on two"
python3 scripts/compare_losses.py "$out/one-rank/metrics.jsonl" "$out/metrics.jsonl"
printf '\nweights  %s\nmetrics  %s (a line for each step)\n' \
  "$out/model.safetensors" "$out/metrics.jsonl"
