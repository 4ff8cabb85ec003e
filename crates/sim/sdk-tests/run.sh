#!/usr/bin/env bash
# Drives the simulator with the vendors' own SDKs and checks it against their OpenAPI documents.
#
#   MOORAGE_SIM_BIN      the moorage-sim binary (default: cargo's debug build)
#   MOORAGE_SPECS        folder with hetzner.json and cloudflare.json, for the contract checks
#   MOORAGE_REQUIRE_ALL  1: what cannot be checked is an error instead of a skip
#
# Further arguments go to pytest.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ -z ${MOORAGE_SIM_BIN:-} ]]; then
    MOORAGE_SIM_BIN=${CARGO_TARGET_DIR:-$here/../../../target}/debug/moorage-sim
fi
if [[ ! -x $MOORAGE_SIM_BIN ]]; then
    echo "run.sh: there is no $MOORAGE_SIM_BIN: build it (cargo build -p moorage-sim) or set MOORAGE_SIM_BIN" >&2
    exit 1
fi
# Bytecode would land beside the sources.
export MOORAGE_SIM_BIN PYTHONDONTWRITEBYTECODE=1

hash=$(sha256sum "$here/requirements.txt" | cut -c1-16)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/moorage/sdk-venv/$hash
if [[ ! -e $venv/complete ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    touch "$venv/complete"
fi
exec "$venv/bin/python" -m pytest -p no:cacheprovider -ra "$@" "$here"
