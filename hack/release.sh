#!/usr/bin/env bash
# Builds everything that a release consists of, see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Usage: hack/release.sh [--arch amd64,arm64] [--out FOLDER]

Builds what a release consists of into FOLDER (default: target/release-files):

  moorage-linux-ARCH          the command line and operator, static
  moorage-agent-linux-ARCH    the agent of the servers, static
  *.cdx.json                  what each is made from (CycloneDX)
  moorage-VERSION.tgz         the Helm chart
  moorage-image-VERSION.tar   the image of all architectures, an OCI layout
  SHA256SUMS                  of all of these

The same sources and compiler give the same files. Nothing is uploaded or signed
here: .github/workflows/release.yml does that with these files. ARCH is both
architectures unless said otherwise.
END
}

architectures=amd64,arm64
out=${CARGO_TARGET_DIR:-target}/release-files
while (($#)); do
  case $1 in
    --arch) architectures=${2:?--arch needs a value} && shift ;;
    --out) out=${2:?--out needs a value} && shift ;;
    --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
if [[ -n $(git status --porcelain) ]]; then
  echo "the working tree has changes that are in no commit: this is no release" >&2
  [[ ${CI:-} != true ]] || exit 1
fi
for file in charts/moorage/Chart.yaml; do
  grep -qx "version: $version" "$file" && grep -qx "appVersion: $version" "$file" \
    || { echo "$file does not say version $version, as Cargo.toml does" >&2 && exit 1; }
done

rm -rf "$out"
mkdir -p "$out"
IFS=, read -ra wanted <<<"$architectures"
for architecture in "${wanted[@]}"; do
  for program in moorage moorage-agent; do
    binary=$(hack/static.sh "$program" "$architecture")
    cp "$binary" "$out/$program-linux-$architecture"
    list=$(hack/sbom.sh "$program" "$architecture")
    cp "$list" "$out/$program-linux-$architecture.cdx.json"
  done
done

# Packed by hand, for helm writes the time into the archive.
tar --create --gzip --file "$out/moorage-$version.tgz" --directory charts --sort=name --owner=0 --group=0 \
  --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" moorage

layout=$(mktemp -d)
trap 'rm -rf "$layout"' EXIT
digest=$(hack/image.sh --arch "$architectures" --out "$layout/oci")
tar --create --file "$out/moorage-image-$version.tar" --directory "$layout/oci" --sort=name --owner=0 --group=0 \
  --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" .
(cd "$out" && sha256sum -- * >SHA256SUMS)
echo "image digest: $digest" >&2
realpath "$out"
