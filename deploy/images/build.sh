#!/usr/bin/env bash
# Builds the images localhost/autosp/coordinator and localhost/autosp/agent from what ./run build
# made: deploy/images/build.sh [--base IMAGE | --rootfs TAR] [--suffix -cuda] [IMAGE...]
#
# --base IMAGE   build on this image (default docker.io/library/debian:12-slim)
# --rootfs TAR   build on this root file system, which debootstrap made, where there is no
#                registry; for buildah
# --suffix TEXT  appended to the agent's name, for a variant: --base with CUDA, --suffix -cuda
# IMAGE          coordinator, agent (default: both)
#
# AUTOSP_BUILDER is buildah (default), podman or docker; AUTOSP_PRESET and AUTOSP_DEPS are those of
# ./run. AUTOSP_IMAGE_FOLDER is where images are put together (default build/images).
set -euo pipefail
cd "$(dirname "$0")/../.."

work=${AUTOSP_IMAGE_FOLDER:-$PWD/build/images}
builder=${AUTOSP_BUILDER:-buildah}
base=docker.io/library/debian:12-slim
rootfs=
suffix=
version=$(sed -n 's/.*kVersion\[\] = "\(.*\)".*/\1/p' common/version.h)
images=()

say() { printf 'images: %s\n' "$*"; }
fail() { printf 'images: %s\n' "$*" >&2; exit 1; }

# shellcheck source=/dev/null
source deploy/stage.sh

# base_from ROOTFS: makes an image of it, once.
base_from() {
  local container
  base=localhost/autosp/base:$(sha256sum "$1" | cut -c1-12)
  if buildah inspect --type image "$base" >/dev/null 2>&1; then return; fi
  say "importing $1"
  container=$(buildah from scratch)
  buildah add -q "$container" "$1" / >/dev/null
  buildah commit -q "$container" "$base" >/dev/null
  buildah rm "$container" >/dev/null
}

# build NAME TAG PROGRAM...
build() {
  local name=$1 tag=$2 context=$work/$1
  shift 2
  rm -rf "$context"
  stage "$context" "$@"
  stage_smoke "$context"
  local arguments=(--target "$name" --build-arg "BASE=$base"
    --build-arg "PACKAGES=$(packages_of "$@")" -t "$tag" -f deploy/images/Containerfile "$context")
  say "building $tag"
  "$builder" build "${arguments[@]}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --base) base=${2:?--base needs an image}; shift 2 ;;
    --rootfs) rootfs=${2:?--rootfs needs a tar file}; shift 2 ;;
    --suffix) suffix=${2:?--suffix needs a text}; shift 2 ;;
    coordinator | agent) images+=("$1"); shift ;;
    *) fail "unknown argument $1; see the head of $0" ;;
  esac
done
if [ ${#images[@]} = 0 ]; then images=(coordinator agent); fi

mkdir -p "$work"
if [ -n "$rootfs" ]; then base_from "$rootfs"; fi
for image in "${images[@]}"; do
  case $image in
    coordinator) build coordinator "localhost/autosp/coordinator:$version" \
      autosp-coordinator autosp-cli ;;
    agent) build agent "localhost/autosp/agent$suffix:$version" \
      autosp-agent autosp-rank autosp-verify ;;
  esac
done
