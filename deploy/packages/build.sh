#!/usr/bin/env bash
# Makes Debian packages from what ./run build made: deploy/packages/build.sh [FOLDER]
#
#   autosp-common       the user, and a small model to try an installation with
#   autosp-cli          the client
#   autosp-coordinator  the coordinator and its unit
#   autosp-agent        the agent, the ranks with libtorch, and its unit
#
# They fit the release of Debian that the programs were built on. FOLDER is build/packages.
# Configuration in /etc/autosp and state in /var/lib are the administrator's, and outlive them.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:-$PWD/build/packages}
version=$(sed -n 's/.*kVersion\[\] = "\(.*\)".*/\1/p' common/version.h)

say() { printf 'packages: %s\n' "$*"; }
fail() { printf 'packages: %s\n' "$*" >&2; exit 1; }

# shellcheck source=/dev/null
source deploy/stage.sh

# control ROOT NAME ARCHITECTURE DEPENDS SUMMARY
control() {
  local root=$1
  mkdir -p "$root/DEBIAN"
  cat >"$root/DEBIAN/control" <<EOF
Package: $2
Version: $version
Architecture: $3
Maintainer: AutoSP
Section: science
Priority: optional
Depends: $4
Description: $5
EOF
}

# script ROOT NAME: a maintainer script, from standard input.
script() {
  { printf '#!/bin/sh\nset -e\n' && cat; } >"$1/DEBIAN/$2"
  chmod 755 "$1/DEBIAN/$2"
}

# finish ROOT NAME: the package, with root as the owner of all files.
finish() {
  say "$2"
  find "$1" -type d -exec chmod 755 {} +
  # Libraries of torch compress badly; the fast level is nearly as good.
  dpkg-deb --root-owner-group -Zzstd -z1 --build "$1" "$folder" >/dev/null
}

# unit ROOT PART: the unit, and what happens to the service as the package comes and goes. It is not
# started: its configuration is not there yet.
unit() {
  local root=$1 service=autosp-$2.service
  install -D -m 644 -t "$root/usr/lib/systemd/system" "deploy/systemd/$service"
  script "$root" postinst <<EOF
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # After an upgrade; the agent waits for the administrator, since its ranks go with it.
  if [ "$2" = coordinator ] && [ -n "\$2" ]; then systemctl try-restart $service; fi
fi
EOF
  script "$root" prerm <<EOF
if [ "\$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now $service; fi
EOF
}

package_common() {
  local root=$work/common
  stage_smoke "$root/usr"
  rm -r "${root:?}/usr/bin"
  install -D -m 644 deploy/systemd/autosp.sysusers "$root/usr/lib/sysusers.d/autosp.conf"
  # All pages, in their folders: they link to each other, and alerts to the runbook.
  install -D -m 644 -t "$root/usr/share/doc/autosp" LICENSE docs/*.md
  install -D -m 644 -t "$root/usr/share/doc/autosp/install" docs/install/*.md
  install -D -m 644 -t "$root/usr/share/doc/autosp/decisions" docs/decisions/*.md
  install -D -m 644 helm/autosp/rules/alerts.yaml "$root/usr/share/autosp/alerts.yaml"
  install -D -m 644 -t "$root/usr/share/autosp/dashboards" helm/autosp/dashboards/*.json
  install -d "$root/etc/autosp"
  control "$root" autosp-common all "systemd" "user, alerts, dashboards and a test job of AutoSP"
  script "$root" postinst <<<'systemd-sysusers /usr/lib/sysusers.d/autosp.conf'
  finish "$root" autosp-common
}

package_cli() {
  local root=$work/cli
  stage "$root/usr" autosp-cli
  install -m 755 deploy/smoke/autosp-smoke "$root/usr/bin/"
  control "$root" autosp-cli amd64 "$(depends autosp-cli)" "client of AutoSP"
  finish "$root" autosp-cli
}

package_coordinator() {
  local root=$work/coordinator
  stage "$root/usr" autosp-coordinator
  control "$root" autosp-coordinator amd64 "autosp-cli, $(depends autosp-coordinator)" \
    "coordinator of AutoSP: takes training jobs and runs them on agents"
  unit "$root" coordinator
  finish "$root" autosp-coordinator
}

package_agent() {
  local root=$work/agent
  stage "$root/usr" autosp-agent autosp-rank autosp-verify
  # libtorch and what it asks for are in no package of Debian's, and not where the linker looks.
  mkdir -p "$root/usr/lib/autosp" "$root/etc/ld.so.conf.d"
  mv "$root"/usr/lib/*.so* "$root/usr/lib/autosp/"
  echo /usr/lib/autosp >"$root/etc/ld.so.conf.d/autosp.conf"
  control "$root" autosp-agent amd64 "$(depends autosp-agent autosp-rank autosp-verify)" \
    "agent of AutoSP: runs the ranks of training jobs on this machine"
  unit "$root" agent
  echo ldconfig >>"$root/DEBIAN/postinst"
  finish "$root" autosp-agent
}

# depends PROGRAM...: the common package, and those of the libraries.
depends() {
  local packages
  packages=$(packages_of "$@")
  echo "autosp-common (= $version), ${packages// /, }"
}

mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package_common
package_cli
package_coordinator
package_agent
say "in $folder"
