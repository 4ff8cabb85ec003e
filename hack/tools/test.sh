#!/usr/bin/env bash
# Tests hack/tools.sh, hack/cloudflared.sh and hack/side-by-side.sh in seconds: fake tools, a fake Go and a fake archive served
# on loopback. Nothing is compiled and nothing is fetched from elsewhere.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
server=''
trap '[[ -z $server ]] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

# A copy of the script, so that it can have a pin file of ours.
mkdir -p "$work/repo/hack" "$work/bin" "$work/go" "$work/www"
cp "$here/../tools.sh" "$here/../cloudflared.sh" "$work/repo/hack/"
cp -r "$here" "$work/repo/hack/tools"
pin=$work/repo/hack/tools/envtest.pin
case $(uname -m) in aarch64) platform=linux-arm64 ;; *) platform=linux-amd64 ;; esac

# A PATH with what the script needs and nothing else: this machine's own Go,
# kubectl or helm must not decide the outcome.
for program in bash cat chmod curl cut date dirname env flock grep gzip mkdir mktemp mv readlink rm \
  sha256sum sha512sum sleep stat tail tar timeout uname wc; do
  found=$(type -P "$program") || { echo "this test needs $program" >&2; exit 1; }
  ln -s "$found" "$work/bin/$program"
done

# fake_tool PATH TEXT
fake_tool() {
  mkdir -p "$(dirname "$1")"
  printf '#!/bin/sh\necho "%s"\n' "$2" >"$1"
  chmod +x "$1"
}

# A Go whose every build is a script saying the version it was asked to stamp.
cat >"$work/go/go" <<'EOF'
#!/usr/bin/env bash
set -euo pipefail
if [[ $1 == version ]]; then echo "go version ${FAKE_GO:-go1.26.8} linux/amd64"; exit; fi
[[ $GOFLAGS == -mod=readonly && $GOTOOLCHAIN == local && $CGO_ENABLED == 0 ]]
[[ $1 == -C && $3 == build && -f $2/go.mod ]]
echo "$*" >>"$FAKE_GO_LOG"
if [[ ${FAKE_GO_HANGS:-} ]]; then exec sleep 60; fi
if [[ ${FAKE_GO_AWAITS:-} ]]; then
  for ((i = 0; i < 600; i++)); do
    ! grep -qs "another run is at work" $FAKE_GO_AWAITS || break
    sleep 0.1
  done
fi
while (($#)); do
  case $1 in -o) out=$2 ;; esac
  last=$1
  shift
done
if [[ ${FAKE_GO_FAILS:-} ]]; then echo "cannot compile $last"; exit 1; fi
version=$(grep -m 1 -oE "${FAKE_GO_VERSION:-v[0-9]+\.[0-9]+\.[0-9]+}" <<<"$(case $last in
  k8s.io/*) echo v1.37.2 ;; *etcd*) echo v3.7.3 ;; *helm*) echo v4.3.1 ;; *) echo v0.27.1 ;; esac)" || echo v9.9.9)
printf '#!/bin/sh\necho version %s\n' "$version" >"$out"
chmod +x "$out"
EOF
chmod +x "$work/go/go"

script=tools.sh
# run [VAR=VALUE...] -- ARGUMENTS: runs the script; sets status, and leaves $work/out and $work/err.
run() {
  local settings=()
  while [[ $1 != -- ]]; do
    settings+=("$1")
    shift
  done
  shift
  status=0
  env -i HOME="$work/home" PATH="$work/bin" FAKE_GO_LOG="$work/go.log" XDG_CACHE_HOME="$cache" \
    "${settings[@]}" "$work/repo/hack/$script" "$@" >"$work/out" 2>"$work/err" || status=$?
}

# A fresh cache for each test.
begin() {
  name=$1
  cache=$work/cache-${name//[^a-z]/-}
  : >"$work/go.log"
}

fail() {
  echo "FAILED: $name: $*" >&2
  echo "--- stdout" && cat "$work/out"
  echo "--- stderr" && cat "$work/err"
  exit 1
} >&2

exits() { [[ $status == "$1" ]] || fail "exit status is $status, not $1"; }
stdout_is() { [[ $(<"$work/out") == "$1" ]] || fail "stdout is not '$1'"; }
stdout_has() { grep -qF -- "$1" "$work/out" || fail "stdout lacks '$1'"; }
stderr_has() { grep -qF -- "$1" "$work/err" || fail "stderr lacks '$1'"; }
builds_are() { [[ $(wc -l <"$work/go.log") == "$1" ]] || fail "$(wc -l <"$work/go.log") builds, not $1"; }
no_leftovers() { [[ -z $(find "$cache" -name '.stage.*' 2>/dev/null) ]] || fail "unfinished work left in the cache"; }

# --- The archive, and the server --------------------------------------------

release=v1.36.2
tree=$work/archive/controller-tools/envtest
fake_tool "$tree/kube-apiserver" "Kubernetes $release"
fake_tool "$tree/kubectl" "Client Version: $release"
fake_tool "$tree/etcd" "etcd Version: 3.6.8"
mkdir -p "$work/www/envtest-$release"
archive=$work/www/envtest-$release/envtest-$release-$platform.tar.gz
tar -czf "$archive" -C "$work/archive" controller-tools
sum=$(sha512sum <"$archive")
sum=${sum%% *}

pin_sum() { printf 'version %s\nbase http://127.0.0.1:1\n%s %s\n' "$release" "$platform" "$1" >"$pin"; }

: >"$work/www.log"
python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$work/www" >"$work/www.log" 2>&1 &
server=$!
port=''
for ((i = 0; i < 600; i++)); do
  port=$(sed -n 's/^Serving HTTP on .* port \([0-9]*\) .*/\1/p' "$work/www.log")
  [[ -z $port ]] || break
  sleep 0.1
done
[[ $port ]] || { cat "$work/www.log" >&2; exit 1; }
mirror=http://127.0.0.1:$port/

in_archive=(kube-apiserver etcd kubectl)
with_go=PATH=$work/go:$work/bin

begin "archive with the right checksum is installed"
pin_sum "$sum"
run MOORAGE_ENVTEST=1 MOORAGE_ENVTEST_MIRROR="$mirror" -- "${in_archive[@]}"
exits 0
for tool in "${in_archive[@]}"; do
  grep -qxE "$tool=/.*/envtest-1\.36\.2-.*/bin/$tool" "$work/out" || fail "no $tool from the archive"
done
[[ $(wc -l <"$work/out") == 3 ]] || fail "not one line a tool"
no_leftovers

name="an installed archive needs no server"
run MOORAGE_ENVTEST=1 MOORAGE_ENVTEST_MIRROR=http://127.0.0.1:1 -- "${in_archive[@]}"
exits 0
[[ ! -s $work/err ]] || fail "a second run has something to say"

begin "without Go the archive is the default"
run MOORAGE_ENVTEST_MIRROR="$mirror" -- kubectl
exits 0
run -- kubectl kube-controller-manager
exits 1
stderr_has "not found: kube-controller-manager"
stderr_has "Go is not installed"
stdout_is ''

begin "archive with a wrong checksum is refused"
pin_sum "$(printf '0%.0s' {1..128})"
run MOORAGE_ENVTEST=1 MOORAGE_ENVTEST_MIRROR="$mirror" -- "${in_archive[@]}"
exits 1
stderr_has "wrong SHA-512"
stdout_is ''
[[ -z $(find "$cache" -name kube-apiserver) ]] || fail "it was unpacked all the same"
no_leftovers

name="after a refused archive comes the build"
run MOORAGE_ENVTEST=1 MOORAGE_ENVTEST_MIRROR="$mirror" "$with_go" -- "${in_archive[@]}"
exits 0
stderr_has "wrong SHA-512"
stderr_has "[3/3] kubectl: building 1.37.2"
builds_are 3

begin "archive out of reach"
pin_sum "$sum"
run MOORAGE_ENVTEST=1 MOORAGE_ENVTEST_MIRROR=http://127.0.0.1:1 "$with_go" -- etcd
exits 0
stderr_has "the envtest archive cannot be had"
builds_are 1

begin "archive next to a newer controller manager"
run MOORAGE_ENVTEST=1 MOORAGE_ENVTEST_MIRROR="$mirror" "$with_go" -- kube-apiserver kube-controller-manager
exits 0
stderr_has "kube-controller-manager 1.37.2 is newer than kube-apiserver 1.36.2"

# --- Builds -----------------------------------------------------------------

begin "with Go everything is built, once, and no archive is asked for"
: >"$work/www.log"
run MOORAGE_ENVTEST_MIRROR="$mirror" "$with_go" --
exits 0
builds_are 6
[[ ! -s $work/www.log ]] || fail "the server was asked"
run "$with_go" --
exits 0
builds_are 6
[[ ! -s $work/err ]] || fail "a second run has something to say"
no_leftovers

name="a filled cache serves a machine without Go"
run MOORAGE_ENVTEST=0 -- helm
exits 0
stdout_has "helm=$cache/moorage/tools/helm-4.3.1-"

name="a stale path into the cache is not a choice"
run "$with_go" MOORAGE_HELM="$cache/moorage/tools/helm-3.0.0/bin/helm" -- helm
exits 0
[[ ! -s $work/err ]] || fail "it complains about its own path"

name="another Go or another go.sum is another build"
run "$with_go" FAKE_GO=go1.27.0 -- etcd
builds_are 7
cp "$work/repo/hack/tools/etcd/go.sum" "$work/go.sum"
echo "# changed" >>"$work/repo/hack/tools/etcd/go.sum"
run "$with_go" -- etcd
builds_are 8
mv "$work/go.sum" "$work/repo/hack/tools/etcd/go.sum"

begin "two runs at once build once"
run_beside() {
  env -i HOME="$work/home" "$with_go" FAKE_GO_LOG="$work/go.log" XDG_CACHE_HOME="$cache" \
    FAKE_GO_AWAITS="$work/err-1 $work/err-2" \
    "$work/repo/hack/tools.sh" helm >"$work/out-$1" 2>"$work/err-$1"
}
run_beside 1 & first=$!
run_beside 2 & second=$!
wait "$first" || fail "the first run failed"
wait "$second" || fail "the second run failed"
cmp -s "$work/out-1" "$work/out-2" || fail "they disagree"
builds_are 1
cat "$work/err-1" "$work/err-2" >"$work/err"
stderr_has "another run is at work on helm"

begin "a build that fails"
run "$with_go" FAKE_GO_FAILS=1 -- etcd
exits 1
stderr_has "cannot compile go.etcd.io/etcd/server/v3"
stdout_is ''
no_leftovers

begin "a build that says the wrong version"
run "$with_go" FAKE_GO_VERSION=none -- etcd
exits 1
stderr_has "says it is '9.9.9', not 3.7.3"
run "$with_go" -- etcd
exits 0

begin "a Go that is too old"
run "$with_go" FAKE_GO=go1.22.1 MOORAGE_ENVTEST=0 -- helm
exits 1
stderr_has "Go 1.22.1 is too old, 1.26 is needed"

begin "an interrupted build leaves nothing behind"
env -i HOME="$work/home" "$with_go" FAKE_GO_LOG="$work/go.log" FAKE_GO_HANGS=1 XDG_CACHE_HOME="$cache" \
  "$work/repo/hack/tools.sh" etcd >"$work/out" 2>"$work/err" &
interrupted=$!
for ((i = 0; i < 600; i++)); do
  [[ ! -s $work/go.log ]] || break
  sleep 0.1
done
[[ -s $work/go.log ]] || fail "the build does not begin"
kill "$interrupted"
status=0
wait "$interrupted" || status=$?
exits 143
no_leftovers

# --- Tools that are already there -------------------------------------------

begin "an old tool on PATH is passed over, a recent one taken"
fake_tool "$work/old/kubectl" "Client Version: v1.32.4-dispatcher"
fake_tool "$work/new/kubectl" "Client Version: v1.33.0"
run PATH="$work/old:$work/go:$work/bin" -- kubectl
exits 0
stderr_has "kubectl from PATH ($work/old/kubectl) is 1.32.4, older than 1.33: not used"
builds_are 1
run PATH="$work/new:$work/bin" -- kubectl
stdout_is "kubectl=$work/new/kubectl"
fake_tool "$work/new/kubectl" "Client Version: v1.9.0 replaced since"
run PATH="$work/new:$work/go:$work/bin" -- kubectl
stderr_has "is 1.9.0, older than 1.33"

begin "versions of every kind are understood"
fake_tool "$work/found/kube-apiserver" "Kubernetes v1.35.0"
fake_tool "$work/found/kube-controller-manager" "Kubernetes v1.35.0"
fake_tool "$work/found/kubectl" "Client Version: v1.35.0"
fake_tool "$work/found/etcd" "etcd Version: 3.5.16"
fake_tool "$work/found/helm" "v3.16.2+g13654a5"
fake_tool "$work/found/kubeseal" "kubeseal version: 0.24.0"
run PATH="$work/found:$work/bin" --
exits 0
[[ $(grep -c "=$work/found/" "$work/out") == 6 ]] || fail "not all taken from PATH"
run KUBEBUILDER_ASSETS="$work/found" PATH="$work/old:$work/bin" -- kubectl
stdout_is "kubectl=$work/found/kubectl"

begin "a tool that does not run"
printf '#!/bin/sh\nexit 1\n' >"$work/old/helm"
chmod +x "$work/old/helm"
run PATH="$work/old:$work/go:$work/bin" -- helm
exits 0
stderr_has "does not tell its version: not used"

begin "an explicit path wins, if it is there"
run MOORAGE_KUBECTL="$work/old/kubectl" PATH="$work/new:$work/bin" -- kubectl
stdout_is "kubectl=$work/old/kubectl"
run MOORAGE_KUBECTL=/nowhere/kubectl PATH="$work/found:$work/bin" -- kubectl
stdout_is "kubectl=$work/found/kubectl"
stderr_has "MOORAGE_KUBECTL=/nowhere/kubectl is not an executable file"

begin "the lines of --env can be evaluated"
mkdir -p "$work/with space"
cp "$work/found/kubectl" "$work/found/kube-apiserver" "$work/with space/"
run KUBEBUILDER_ASSETS="$work/with space" -- --env kubectl kube-apiserver kubectl
exits 0
[[ $(wc -l <"$work/out") == 2 ]] || fail "not one line a tool"
(
  eval "$(<"$work/out")"
  [[ $MOORAGE_KUBECTL == "$work/with space/kubectl" && $MOORAGE_KUBE_APISERVER == "$work/with space/kube-apiserver" ]]
) || fail "they say something else"

begin "wrong usage"
run -- kubectl nonsense
exits 2
stderr_has "unknown tool or option 'nonsense'"
run MOORAGE_ENVTEST=yes -- kubectl
exits 1
stderr_has "MOORAGE_ENVTEST is 'yes'"
run -- --help
exits 0
stdout_has "Usage: hack/tools.sh"

# --- cloudflared.sh ----------------------------------------------------------

script=cloudflared.sh
fake_tool "$work/www/cloudflared" "cloudflared version 2026.8.2"
digest=$(sha256sum <"$work/www/cloudflared")
digest=${digest%% *}
pinned=${mirror}cloudflared#sha256=$digest

begin "no cloudflared"
run --
exits 0
stdout_is ""

begin "a pinned cloudflared is downloaded once"
run CLOUDFLARED_DOWNLOAD="$pinned" --
exits 0
downloaded=$cache/moorage/downloads/cloudflared-$digest
stdout_is "$downloaded"
[[ $("$downloaded") == "cloudflared version 2026.8.2" ]] || fail "it is not the program"
run CLOUDFLARED_DOWNLOAD="${pinned/127.0.0.1:$port/127.0.0.1:1}" --
exits 0
stdout_is "$downloaded"

begin "a cloudflared with another checksum is refused"
run CLOUDFLARED_DOWNLOAD="${mirror}cloudflared#sha256=$(printf '0%.0s' {1..64})" --
exits 1
stdout_is ""
stderr_has "wrong SHA-256, refused: expected 0000"
[[ -z $(ls -A "$cache/moorage/downloads") ]] || fail "something was kept"

begin "a cloudflared that cannot be had"
run CLOUDFLARED_DOWNLOAD="${mirror}nowhere#sha256=$digest" --
exits 1
stderr_has "it cannot be had"
run CLOUDFLARED_DOWNLOAD="${mirror}cloudflared" --
exits 1
stderr_has "is not URL#sha256=DIGEST"

begin "a cloudflared that is there is not downloaded"
fake_tool "$work/found/cloudflared" "cloudflared version 2026.8.2"
run CLOUDFLARED_DOWNLOAD="${mirror}nowhere#sha256=$digest" PATH="$work/found:$work/bin" --
stdout_is "$work/found/cloudflared"
run CLOUDFLARED_BIN=none CLOUDFLARED_DOWNLOAD="$pinned" PATH="$work/found:$work/bin" --
exits 0
stdout_is ""

begin "stages side by side"
cp "$here/../side-by-side.sh" "$work/"
beside() {
  set +e
  bash "$work/side-by-side.sh" "$@" >"$work/out" 2>"$work/err"
  status=$?
  set -e
}
beside one 'echo done' two 'echo begun; false; echo never'
exits 1
for line in 'one | done' 'two | begun' '--- the end of two'; do
  grep -qxF -- "$line" "$work/out" || fail "the output has no line '$line'"
done
! grep -q never "$work/out" || fail "a stage went on after a failure"
[[ $(tail -n 1 "$work/out") == begun ]] || fail "the last screen does not show why"
beside one 'echo done' two true
exits 0

echo "hack/tools/test.sh: all passed"
