#!/usr/bin/env bash
# Makes the archives of OpenClaw and Node.js that the lab installs, once, and prints their folder.
#   hack/openclaw-bundle.sh            # 2026.9.6 for this machine's architecture
#   hack/openclaw-bundle.sh 2026.9.5
# They are kept in ${XDG_CACHE_HOME:-$HOME/.cache}/moorage/bundles, one folder for each set of pins and
# version of moorage; safe to delete. Several calls at once make one bundle. Progress goes to stderr.
# MOORAGE_BIN names the moorage to use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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
exec "$moorage" release bundle --openclaw "$version" --architecture "$architecture"
