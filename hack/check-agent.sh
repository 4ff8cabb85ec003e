#!/usr/bin/env bash
# Checks the agent that goes to servers: it needs no library, is small enough, and starts.
set -euo pipefail

binary=$1
largest=$((10 * 1000 * 1000))

size=$(stat -c %s "$binary")
if readelf --program-headers "$binary" | grep -q INTERP; then
    echo "$binary is not static" >&2
    exit 1
fi
if ((size > largest)); then
    echo "$binary has $size bytes, more than $largest" >&2
    exit 1
fi
version=$(env -i "$binary" --version)
echo "$binary: $version, $size bytes, sha256 $(sha256sum "$binary" | cut -d' ' -f1)"
