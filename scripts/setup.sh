#!/usr/bin/env bash
# Installs what the build needs: Debian packages (packages.txt) and libtorch (wheels.txt), unpacked
# under $AUTOSP_DEPS (default .deps); with --gpu also NCCL and CUDA's libraries (wheels_gpu.txt).
# Repeatable; when nothing is missing it only looks.
set -euo pipefail
cd "$(dirname "$0")/.."

deps=${AUTOSP_DEPS:-$PWD/.deps}
libtorch=$deps/libtorch
stamp=$libtorch/.wheels.sha256
gpu_stamp=$libtorch/.wheels_gpu.sha256

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"
  else fail "packages are missing and this is not root; run as root: $*"; fi
}

# Prints "name version" per line of packages.txt.
listed_packages() { sed 's/#.*//' scripts/packages.txt | awk 'NF { print $1, $2 }'; }

# Prints "name version" of each listed package that is installed, epoch and revision removed.
installed_packages() {
  # shellcheck disable=SC2016  # The fields are dpkg-query's, not the shell's.
  listed_packages | cut -d' ' -f1 |
    xargs dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' 2>/dev/null |
    awk '$1 == "installed" { sub(/^[0-9]+:/, "", $3); print $2, $3 }' || true
}

missing_packages() {
  comm -23 <(listed_packages | cut -d' ' -f1 | sort -u) \
    <(installed_packages | cut -d' ' -f1 | sort -u)
}

install_packages() {
  command -v dpkg-query >/dev/null || fail "this needs Debian 12 (dpkg-query is missing)"
  local missing
  missing=$(missing_packages)
  if [ -n "$missing" ]; then
    missing=${missing//$'\n'/ }
    say "installing $(wc -w <<<"$missing") Debian packages: $missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086  # One word per package.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      $missing >/dev/null
  fi
  check_package_versions
}

check_package_versions() {
  local wrong
  wrong=$(join <(listed_packages | sort) <(installed_packages | sort) |
    awk 'index($3, $2) != 1 { print "  " $1 " is " $3 ", wanted " $2 }')
  [ -z "$wrong" ] || fail "these packages have another version than scripts/packages.txt pins;
$wrong
use Debian 12, or change the pin and run every test"
}

python_with_pip() {
  local python
  for python in ${AUTOSP_PYTHON:-} python3 /usr/bin/python3; do
    if "$python" -m pip --version >/dev/null 2>&1; then echo "$python"; return; fi
  done
  fail "no python3 with pip; apt-get install python3-pip, or set AUTOSP_PYTHON"
}

# The tags are named so that pip of any Python version fetches the same files.
fetch_wheels() {  # FOLDER LIST
  "$(python_with_pip)" -m pip download --quiet --disable-pip-version-check --no-deps \
    --require-hashes --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_25_x86_64 --platform manylinux_2_18_x86_64 \
    --platform manylinux2014_x86_64 --dest "$1" -r "$2"
}

unpack_wheels() {  # FROM TO
  local wheel
  for wheel in "$1"/*.whl; do "$(python_with_pip)" -m zipfile -e "$wheel" "$2"; done
}

install_libtorch() {
  local want
  want=$(sha256sum <scripts/wheels.txt | cut -d' ' -f1)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then return; fi
  [ "$(uname -m)" = x86_64 ] || fail "scripts/wheels.txt pins x86_64 wheels; this is $(uname -m)"
  say "fetching libtorch: three wheels, 550 MB; 1.2 GB when unpacked into $libtorch"
  local part=$libtorch.part
  rm -rf "$part"
  mkdir -p "$part/wheels"
  fetch_wheels "$part/wheels" scripts/wheels.txt
  say "unpacking"
  unpack_wheels "$part/wheels" "$part"
  rm -rf "$part/wheels"
  echo "$want" >"$part/.wheels.sha256"
  # The rename is last: an interrupted set-up leaves no libtorch that looks whole.
  rm -rf "$libtorch"
  mv "$part" "$libtorch"
}

# Beside libtorch, where its own rpath looks. The stamp is last: what an interrupted set-up left is
# unpacked over.
install_gpu_wheels() {
  local want
  want=$(sha256sum <scripts/wheels_gpu.txt | cut -d' ' -f1)
  if [ "$(cat "$gpu_stamp" 2>/dev/null)" = "$want" ]; then return; fi
  say "fetching NCCL and CUDA's libraries: 13 wheels, 2.1 GB; 3.3 GB when unpacked"
  local wheels=$deps/wheels_gpu.part
  rm -rf "$wheels"
  mkdir -p "$wheels"
  fetch_wheels "$wheels" scripts/wheels_gpu.txt
  say "unpacking"
  unpack_wheels "$wheels" "$libtorch"
  rm -rf "$wheels"
  echo "$want" >"$gpu_stamp"
}

with_gpu=false
for argument in "$@"; do
  case $argument in
    --gpu) with_gpu=true ;;
    *) fail "unknown argument '$argument'; the only one is --gpu" ;;
  esac
done

mkdir -p "$deps"
exec 9>"$deps/.setup.lock"
flock 9  # Two set-ups at a time would unpack over each other.
install_packages
install_libtorch
if $with_gpu; then install_gpu_wheels; fi
say "ready ($(installed_packages | wc -l) packages, libtorch in $libtorch)"
