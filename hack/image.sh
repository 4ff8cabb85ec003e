#!/usr/bin/env bash
# Builds the operator's image without a daemon, see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Usage: hack/image.sh [--arch amd64,arm64] [--out FOLDER] [--rootfs]

Builds the operator's image (Dockerfile) with buildah, and writes it to FOLDER
(default: target/image/oci) as an OCI layout; more than one architecture become
one index. The same sources give the same digest: times are those of the last
commit. Stdout is the digest.

  --arch    for which architectures; the default is this machine's
  --rootfs  only makes the root filesystem of the image for this machine's
            architecture, and prints its folder; needs no buildah. With QUICK=1 its
            program is not optimised

Needs Rust, Debian's ca-certificates and, but for --rootfs, buildah (installed
with apt as root). To push it:

  skopeo copy --all oci:target/image/oci docker://REGISTRY/moorage:VERSION
END
}

case $(uname -m) in aarch64) here=arm64 ;; *) here=amd64 ;; esac
architectures=$here
only_rootfs=false
target=${CARGO_TARGET_DIR:-target}
work=$target/image
out=$work/oci
while (($#)); do
  case $1 in
    --arch) architectures=${2:?--arch needs a value} && shift ;;
    --out) out=${2:?--out needs a value} && shift ;;
    --rootfs) only_rootfs=true ;;
    --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Sources without their history have neither.
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

# The public roots as Debian ships them, Mozilla's list. A file for all, as programs expect it.
roots=/etc/ssl/certs/ca-certificates.crt
if [[ ! -s $roots ]]; then
  echo "$roots is missing or empty: install ca-certificates" >&2
  exit 1
fi

make_rootfs() {
  local architecture=$1 rootfs=$work/context/$1 binary list
  binary=$(hack/static.sh moorage "$architecture")
  list=$(hack/sbom.sh moorage "$architecture")
  rm -rf "$rootfs"
  install -D -m 0755 "$binary" "$rootfs/usr/bin/moorage"
  install -D -m 0644 "$roots" "$rootfs/etc/ssl/certs/ca-certificates.crt"
  install -D -m 0644 LICENSE "$rootfs/usr/share/doc/moorage/LICENSE"
  install -D -m 0644 "$list" "$rootfs/usr/share/sbom/moorage.cdx.json"
  printf 'root:x:0:0:root:/:/sbin/nologin\nmoorage:x:65532:65532:moorage:/:/sbin/nologin\n' \
    | install -m 0644 /dev/stdin "$rootfs/etc/passwd"
  printf 'root:x:0:\nmoorage:x:65532:\n' | install -m 0644 /dev/stdin "$rootfs/etc/group"
  find "$rootfs" -type d -exec chmod 0755 {} +
}

IFS=, read -ra wanted <<<"$architectures"
if $only_rootfs; then
  make_rootfs "$here" >&2
  realpath "$work/context/$here"
  exit 0
fi

if ! command -v buildah >/dev/null; then
  if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "buildah is missing: install it" >&2
    exit 1
  fi
  echo "installing buildah" >&2
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah >&2
fi

# A store of its own, gone afterwards: nothing of this machine's images is seen or changed.
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
in_store=(buildah --storage-driver vfs --root "$store/root" --runroot "$store/run")
list=moorage:$version
"${in_store[@]}" manifest create "$list" >/dev/null
for architecture in "${wanted[@]}"; do
  make_rootfs "$architecture"
  "${in_store[@]}" build --quiet --isolation chroot --platform "linux/$architecture" --build-arg "TARGETARCH=$architecture" \
    --timestamp "$SOURCE_DATE_EPOCH" --identity-label=false --format oci \
    --label org.opencontainers.image.title=moorage \
    --label org.opencontainers.image.description="Kubernetes operator for OpenClaw servers behind Cloudflare Tunnels" \
    --label org.opencontainers.image.licenses=Apache-2.0 \
    --label org.opencontainers.image.source=https://github.com/moorage/moorage \
    --label org.opencontainers.image.version="$version" \
    --label org.opencontainers.image.revision="$revision" \
    --manifest "$list" --file Dockerfile "$work/context" >/dev/null
done
rm -rf "$out"
mkdir -p "$(dirname "$out")"
"${in_store[@]}" manifest push --quiet --all --format oci "$list" "oci:$out:$version" >&2
size=$(du -sb "$out" | cut -f1)
echo "moorage:$version for ${architectures//,/ and } in $out, $size bytes" >&2
sed -n 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' "$out/index.json"
