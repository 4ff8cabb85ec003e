#!/usr/bin/env bash
# Makes the archives of OpenClaw and Node.js that the lab installs, once, and prints their folder.
#   hack/openclaw-bundle.sh            # 2026.9.6 for this machine's architecture
#   hack/openclaw-bundle.sh 2026.9.5
#   hack/openclaw-bundle.sh --plugin @openclaw/msteams # and packs a plugin that is pinned; prints its file instead
#   hack/openclaw-bundle.sh --unpacked # and unpacks both into one folder, which it prints instead
# They are kept in ${XDG_CACHE_HOME:-$HOME/.cache}/moorage/bundles, one folder for each set of pins and
# version of moorage; safe to delete. Several calls at once make one bundle. Progress goes to stderr.
# MOORAGE_BIN names the moorage to use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

unpacked=0
plugin=()
if [[ ${1:-} == --unpacked ]]; then
  unpacked=1
  shift
elif [[ ${1:-} == --plugin ]]; then
  plugin=(--plugin "$2")
  shift 2
fi
version=${1:-2026.9.6}
case $(uname -m) in
  x86_64) architecture=x86 ;;
  aarch64) architecture=arm ;;
  *) echo "openclaw-bundle: no servers have the architecture $(uname -m)" >&2 && exit 1 ;;
esac
moorage=${MOORAGE_BIN:-${CARGO_TARGET_DIR:-target}/debug/moorage}
if [[ ! -x $moorage ]]; then
  echo "openclaw-bundle: building moorage (minutes, once)" >&2
  cargo build --workspace --bins >&2
fi
folder=$("$moorage" release bundle --openclaw "$version" --architecture "$architecture" "${plugin[@]}")
if ((!unpacked)); then
  echo "$folder"
  exit
fi
target=${folder/bundles/unpacked}
if [[ ! -d $target ]]; then
  mkdir -p "${target%/*}"
  stage=$(mktemp -d "${target%/*}/.stage.XXXXXX")
  trap 'rm -rf "$stage"' EXIT
  tar -xzf "$folder/openclaw.tar.gz" -C "$stage"
  tar -xzf "$folder/node.tar.gz" -C "$stage"
  chmod 0755 "$stage"
  # Whoever was quicker has made the same.
  mv -T "$stage" "$target" 2>/dev/null || [[ -d $target ]]
fi
echo "$target"
