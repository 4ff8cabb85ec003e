#!/usr/bin/env bash
# Writes the Rust code of the tunnel's Cap'n Proto schema anew; needed only when the schema or the version
# of the capnp crates changes. Needs the `capnp` program (Debian: the package capnproto).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=crates/sim-tunnel/src/registration
plugin=$(hack/cargo-tool.sh capnpc)
PATH="$plugin:$PATH" capnp compile -orust:"$folder" --src-prefix="$folder" "$folder/tunnelrpc.capnp"
