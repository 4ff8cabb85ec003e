#!/usr/bin/env bash
# Builds a program as it is shipped: static, so that it needs no library of the machine it runs on.
#
#   hack/static.sh moorage|moorage-agent [amd64|arm64]     the path of the binary on stdout
#
# With QUICK=1 it is not optimised: minutes less to build, for trying the image.
# Without an architecture it builds for this machine. For the other one it installs Rust's standard library
# (rustup) and, as root on Debian or Ubuntu, the cross compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "hack/${BASH_SOURCE[0]##*/}"; }

case $(uname -m) in aarch64) here=arm64 ;; *) here=amd64 ;; esac
case ${2:-$here} in
  amd64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
  *) usage >&2 && exit 2 ;;
esac
case ${1:-} in
  moorage) profile=release ;;
  moorage-agent) profile=agent ;;
  --help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac
[[ ${QUICK:-} != 1 ]] || profile=stand-in
triple=$machine-unknown-linux-gnu

if [[ ${2:-$here} != "$here" ]]; then
  compiler=$machine-linux-gnu-gcc
  if ! command -v "$compiler" >/dev/null; then
    packages=("gcc-${machine/_/-}-linux-gnu" "libc6-dev-${2}-cross")
    if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
      echo "$compiler is missing: install ${packages[*]}" >&2
      exit 1
    fi
    echo "installing ${packages[*]}" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
  fi
  underscored=${triple//-/_}
  export "CC_$underscored=$compiler" "CARGO_TARGET_${underscored^^}_LINKER=$compiler"
fi
rustup target add "$triple" >&2

target=${CARGO_TARGET_DIR:-target}/static
# Where the sources stood when they were compiled is no matter of the program.
remapped="--remap-path-prefix=$PWD=/moorage --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
RUSTFLAGS="-C target-feature=+crt-static $remapped" cargo build --locked -p "$1" --bin "$1" --profile "$profile" \
  --target "$triple" --target-dir "$target" >&2
binary=$(realpath "$target/$triple/$profile/$1")
if readelf --program-headers "$binary" | grep -q INTERP; then
  echo "$binary is not static" >&2
  exit 1
fi
echo "$binary"
