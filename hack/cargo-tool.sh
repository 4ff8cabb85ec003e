#!/usr/bin/env bash
# Installs a pinned cargo tool into the cache, once, and prints the folder to put on PATH.
#   PATH="$(hack/cargo-tool.sh cargo-nextest):$PATH" cargo nextest run
set -euo pipefail

program=${1:-}
case ${1:-} in
  cargo-nextest) version=0.9.151 arguments=(--no-default-features --features default-no-update) ;;
  cargo-deny) version=0.20.2 arguments=() ;;
  cargo-cyclonedx) version=0.5.9 arguments=() ;;
  capnpc) version=0.27.0 arguments=() program=capnpc-rust ;;
  *) echo "usage: hack/cargo-tool.sh cargo-nextest|cargo-deny|cargo-cyclonedx|capnpc" >&2 && exit 2 ;;
esac
root=${XDG_CACHE_HOME:-$HOME/.cache}/moorage/cargo-tools/$1-$version
if [[ ! -x $root/bin/$program ]]; then
  # One installs, the others wait for it.
  mkdir -p "$(dirname "$root")"
  exec 9>"$root.lock"
  flock 9
fi
if [[ ! -x $root/bin/$program ]]; then
  echo "installing $1 $version (minutes, once)" >&2
  # Not into the target folder of whoever calls: its lock would be held all the time.
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  CARGO_TARGET_DIR=$scratch cargo install --locked --root "$root" "${arguments[@]}" "$1@$version" >&2
fi
echo "$root/bin"
