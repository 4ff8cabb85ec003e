#!/usr/bin/env bash
# Lists what a program is made from, as CycloneDX JSON:
#
#   hack/sbom.sh moorage|moorage-agent [amd64|arm64]     the path of the list on stdout
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage='usage: hack/sbom.sh moorage|moorage-agent [amd64|arm64]'
case ${1:-} in
  moorage) folder=. ;;
  moorage-agent) folder=crates/agent ;;
  *) echo "$usage" >&2 && exit 2 ;;
esac
case $(uname -m) in aarch64) here=arm64 ;; *) here=amd64 ;; esac
case ${2:-$here} in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) echo "$usage" >&2 && exit 2 ;; esac
triple=$machine-unknown-linux-gnu
# With it, the list has neither a random serial number nor the present time.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

out=${CARGO_TARGET_DIR:-target}/sbom/$1-${2:-$here}.cdx.json
mkdir -p "$(dirname "$out")"
# It writes beside each manifest of the workspace, so it gets a copy of the manifests.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
shopt -s nullglob
cp --parents -t "$copy" Cargo.toml Cargo.lock src/lib.rs src/main.rs crates/*/Cargo.toml \
  crates/*/src/{lib,main}.rs
for binaries in crates/*/src/bin; do cp -r --parents -t "$copy" "$binaries"; done
PATH="$(hack/cargo-tool.sh cargo-cyclonedx):$PATH"
(cd "$copy" && cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$triple" --no-build-deps --override-filename bom >&2)
# Where the copy stood is no matter of the program.
sed "s|$copy|/moorage|g" "$copy/$folder/bom.json" >"$out"
realpath "$out"
