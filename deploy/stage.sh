# Sourced by what installs the programs: deploy/images/build.sh and deploy/packages/build.sh.
# Wants the repository as the current folder, and a function fail.
# shellcheck shell=bash
bin=${AUTOSP_BIN:-$PWD/build/${AUTOSP_PRESET:-dev}/bin}

# needed_libraries PROGRAM...: paths of the shared libraries that they load.
needed_libraries() {
  local program listed
  for program in "$@"; do
    [ -x "$bin/$program" ] || fail "there is no $bin/$program; run ./run build"
    listed=$(ldd "$bin/$program") || fail "ldd cannot read $bin/$program"
    if grep -q 'not found' <<<"$listed"; then
      fail "$program needs a library that is not here: $(grep 'not found' <<<"$listed")"
    fi
    awk '$2 == "=>" { print $3 }' <<<"$listed"
  done | sort -u
}

# owned LIBRARY...: "package library" for each that a Debian package has. A package may name it
# below /lib or below /usr/lib, which is the same folder. One query for all: each takes a while.
owned() {
  local library
  declare -A asked=()
  for library in "$@"; do
    asked[$library]=$library
    asked[/usr$library]=$library
    asked[$(readlink -f "$library")]=$library
  done
  { dpkg-query -S "${!asked[@]}" 2>/dev/null || true; } | grep -v '^diversion ' |
    while IFS=' ' read -r package path; do
      echo "${package%%:*} ${asked[$path]}"
    done | sort -u
}

# packages_of PROGRAM...: the Debian packages that have its libraries, in one line.
packages_of() {
  local libraries
  mapfile -t libraries < <(needed_libraries "$@")
  owned "${libraries[@]}" | cut -d' ' -f1 | sort -u | xargs
}

# stage FOLDER PROGRAM...: fills FOLDER/bin with the programs, without debug information, which is
# several times their size, and FOLDER/lib with the libraries that no package has.
stage() {
  local folder=$1 program library listed libraries
  shift
  mkdir -p "$folder/bin" "$folder/lib"
  listed=$(needed_libraries "$@") || exit 1
  mapfile -t libraries <<<"$listed"
  comm -23 <(sort <<<"$listed") <(owned "${libraries[@]}" | cut -d' ' -f2 | sort) |
    while read -r library; do cp -L "$library" "$folder/lib/"; done
  for program in "$@"; do
    strip --strip-debug -o "$folder/bin/$program" "$bin/$program"
  done
}

# stage_smoke FOLDER: what autosp-smoke needs: the script, a job, a small model and a text.
stage_smoke() {
  local share=$1/share/autosp/smoke
  mkdir -p "$share" "$1/bin"
  install -m 755 deploy/smoke/autosp-smoke "$1/bin/"
  install -m 644 deploy/smoke/job.yaml tests/zoo/llama/model.pt2 "$share/"
  install -m 644 LICENSE "$share/text.txt"
}
