#!/usr/bin/env bash
# Finds a cloudflared for the lab: run with --help. lab.sh asks it.
set -euo pipefail

usage() {
  cat <<'END'
Usage: hack/cloudflared.sh

Prints the path of a cloudflared, or nothing where there is none. No registry has
one, so it is the first of:

  $CLOUDFLARED_BIN        ("none": there is none, whatever follows)
  the one in $PATH
  ../shared/bin/cloudflared beside the checkout
  $CLOUDFLARED_DOWNLOAD   URL#sha256=DIGEST: fetched once into
                          ${XDG_CACHE_HOME:-$HOME/.cache}/moorage/downloads, and
                          refused, with exit status 1, unless it has that SHA-256

Take URL and digest from https://github.com/cloudflare/cloudflared/releases, whose
notes list the digest of every file.
END
}

say() { printf 'cloudflared: %s\n' "$*" >&2; }

# What is not complete yet.
part=''
trap '[[ -z $part ]] || rm -f "$part"' EXIT

download() {
  local url=${1%%#*} digest=${1#*#sha256=} file received
  if [[ ! $1 =~ ^https?://[^#]+#sha256=[0-9a-f]{64}$ ]]; then
    say "error: CLOUDFLARED_DOWNLOAD is not URL#sha256=DIGEST with 64 lower-case hexadecimal characters: $1"
    return 1
  fi
  file=${XDG_CACHE_HOME:-$HOME/.cache}/moorage/downloads/cloudflared-$digest
  if [[ ! -x $file ]]; then
    mkdir -p "${file%/*}"
    part=$(mktemp "$file.XXXXXX")
    say "downloading $url"
    if ! curl -fsSL --connect-timeout 10 --speed-limit 10240 --speed-time 30 -o "$part" "$url" >&2; then
      say "error: it cannot be had"
      return 1
    fi
    received=$(sha256sum <"$part")
    if [[ ${received%% *} != "$digest" ]]; then
      say "error: wrong SHA-256, refused: expected $digest, received ${received%% *}"
      return 1
    fi
    chmod 0755 "$part"
    mv "$part" "$file"
  fi
  echo "$file"
}

case ${1:-} in
  '') ;;
  -h | --help)
    usage
    exit 0
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac

if [[ ${CLOUDFLARED_BIN:-} == none ]]; then exit 0; fi
beside=$(dirname "${BASH_SOURCE[0]}")/../../shared/bin/cloudflared
for found in "${CLOUDFLARED_BIN:-}" "$(type -P cloudflared || true)" "$beside"; do
  if [[ $found && -f $found && -x $found ]]; then
    readlink -f "$found"
    exit 0
  fi
done
if [[ ${CLOUDFLARED_DOWNLOAD:-} ]]; then download "$CLOUDFLARED_DOWNLOAD"; fi
