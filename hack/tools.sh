#!/usr/bin/env bash
# Makes the control-plane tools available that the tests and the local lab run: see --help.
set -euo pipefail

all_tools=(kube-apiserver kube-controller-manager kubectl etcd helm kubeseal)
archive_tools=(kube-apiserver etcd kubectl) # what an envtest archive holds

usage() {
  cat <<'EOF'
Usage: hack/tools.sh [--env] [TOOL...]

Finds or builds the tools that run a Kubernetes control plane on this machine,
all of them unless some are named:

  kube-apiserver kube-controller-manager kubectl etcd helm kubeseal

Stdout has one line per tool, only once all of them are there:

  kube-apiserver=/absolute/path
  export MOORAGE_KUBE_APISERVER=/absolute/path      with --env

Progress goes to stderr. To load the paths into a shell:

  env=$(hack/tools.sh --env) && eval "$env"

A tool is taken from the first of these that has it:

  1. $MOORAGE_KUBE_APISERVER and the like (unless it points into the cache: that
     is an earlier answer, not a choice), then $KUBEBUILDER_ASSETS, then $PATH.
     The latter two only if recent enough: Kubernetes 1.33, etcd 3.5, helm 3.16,
     kubeseal 0.20.
  2. The cache, ${XDG_CACHE_HOME:-$HOME/.cache}/moorage/tools. Safe to delete.
  3. The pinned envtest archive (hack/tools/envtest.pin), when MOORAGE_ENVTEST=1
     or when there is no usable Go. It has no kube-controller-manager, and mixing
     its Kubernetes with the one built here is outside the supported version
     skew, so it is not the default. MOORAGE_ENVTEST=0 forbids it.
     MOORAGE_ENVTEST_MIRROR replaces the address it is fetched from.
  4. A Go build of the modules in hack/tools. Takes minutes, once.

Exit status: 0 all found, 1 something is missing, 2 wrong usage.
EOF
}

say() { printf 'tools: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# --- What each tool is ------------------------------------------------------

module_of() {
  case $1 in
    kube-apiserver | kube-controller-manager | kubectl) echo kubernetes ;;
    *) echo "$1" ;;
  esac
}

package_of() {
  case $1 in
    kube-apiserver | kube-controller-manager | kubectl) echo "k8s.io/kubernetes/cmd/$1" ;;
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    helm) echo helm.sh/helm/v4/cmd/helm ;;
    kubeseal) echo github.com/bitnami-labs/sealed-secrets/cmd/kubeseal ;;
  esac
}

oldest_accepted() {
  case $1 in
    kube-apiserver | kube-controller-manager | kubectl) echo 1.33 ;;
    etcd) echo 3.5 ;;
    helm) echo 3.16 ;;
    kubeseal) echo 0.20 ;;
  esac
}

# The version a module pins. Its go.mod is the only place that says it.
pinned_version() {
  local path name value _
  case $1 in
    kubernetes) path=k8s.io/kubernetes ;;
    etcd) path=go.etcd.io/etcd/server/v3 ;;
    helm) path=helm.sh/helm/v4 ;;
    kubeseal) path=github.com/bitnami-labs/sealed-secrets ;;
  esac
  while read -r name value _; do
    if [[ $name == "$path" && $value == v* ]]; then
      echo "${value#v}"
      return
    fi
  done <"$modules/$1/go.mod"
  die "hack/tools/$1/go.mod requires no version of $path"
}

# Upstream's release scripts stamp the version in at link time; without it the
# binaries call themselves v0.0.0 and clients misjudge what the server can do.
ldflags_of() {
  local version=$2 major minor
  IFS=. read -r major minor _ <<<"$version"
  case $1 in
    kubernetes)
      local stamp=k8s.io/component-base/version
      echo "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
      ;;
    etcd) echo "-s -w" ;; # a constant in its source
    helm) echo "-s -w -X helm.sh/helm/v4/internal/version.version=v$version" ;;
    kubeseal) echo "-s -w -X main.VERSION=$version" ;;
  esac
}

build_flags=(-trimpath -buildvcs=false)

variable_of() {
  local name=${1^^}
  echo "MOORAGE_${name//-/_}"
}

# --- Versions ---------------------------------------------------------------

# Asks a binary what it is. Prints nothing if it does not run or does not say.
version_of() {
  local tool=$1 binary=$2 args output
  case $tool in
    kubectl) args=(version --client) ;;
    helm) args=(version --short) ;;
    *) args=(--version) ;;
  esac
  # Anything may be called "helm" on somebody's PATH: it must not hang us.
  output=$(timeout 20 "$binary" "${args[@]}" 2>/dev/null </dev/null) || return 0
  if [[ $output =~ [0-9]+\.[0-9]+(\.[0-9]+)? ]]; then echo "${BASH_REMATCH[0]}"; fi
}

# The same, remembered for the day: six such questions cost more than half a
# second. Only for the day, because a wrapper script may change what it starts
# without changing itself.
version_of_foreign() {
  local tool=$1 binary=$2 today stamp memo remembered answer
  printf -v today '%(%F)T' -1
  stamp="$today $(stat -L -c '%Y %s' "$binary")" || return 0
  memo=$cache_root/seen/${binary//\//%}
  if [[ -r $memo ]] && read -r remembered <"$memo" && [[ $remembered == "$stamp ="* ]]; then
    echo "${remembered##*=}"
    return
  fi
  answer=$(version_of "$tool" "$binary")
  echo "$answer"
  # Losing the note (read-only cache, name too long) costs time, nothing else.
  { mkdir -p "$cache_root/seen" && echo "$stamp =$answer" >"$memo.$$" && mv "$memo.$$" "$memo"; } 2>/dev/null || true
}

# at_least 1.33 1.37.2
at_least() {
  local want_major want_minor major minor
  IFS=. read -r want_major want_minor _ <<<"$1"
  IFS=. read -r major minor _ <<<"$2"
  ((major > want_major || (major == want_major && minor >= want_minor)))
}

# Sets go_version, empty with a reason in go_problem if no build is possible.
find_go() {
  local output want=1.26 # the `go` line of the modules
  go_version='' go_problem=''
  if ! type -P go >/dev/null; then
    go_problem="Go is not installed"
    return
  fi
  output=$(GOTOOLCHAIN=local go version 2>/dev/null) || output=''
  if ! [[ $output =~ go([0-9]+\.[0-9]+[^ ]*) ]]; then
    go_problem="'go version' says nothing usable"
  elif ! at_least "$want" "${BASH_REMATCH[1]%%[^0-9.]*}"; then
    go_problem="Go ${BASH_REMATCH[1]} is too old, $want is needed"
  else
    go_version=${BASH_REMATCH[1]}
  fi
}

# --- Looking for what is there ----------------------------------------------

declare -A path_of version_found cache_dirs

# The folder a module's binaries are cached in, named after all they are made of.
cache_dir_of() {
  local module=$1 version sum name dirs
  if [[ -z ${cache_dirs[$module]:-} ]]; then
    version=$(pinned_version "$module")
    sum=$({
      cat "$modules/$module/go.mod" "$modules/$module/go.sum"
      echo "${build_flags[*]} $(ldflags_of "$module" "$version")"
    } | sha256sum)
    name=$cache_root/$module-$version-$platform-${sum:0:16}
    if [[ $go_version ]]; then
      dirs=("$name-go$go_version")
    else
      # A cache restored on a machine without Go: whichever Go it was built with.
      dirs=("$name"-go*/)
    fi
    cache_dirs[$module]=${dirs[0]%/}
  fi
  cache_dir=${cache_dirs[$module]}
}

# accept TOOL PATH [VERSION]
accept() {
  case $2 in
    /*) path_of[$1]=$2 ;;
    *) path_of[$1]=$PWD/$2 ;;
  esac
  version_found[$1]=${3:-}
}

# Takes a binary we did not make, if it is recent enough.
accept_foreign() {
  local tool=$1 binary=$2 where=$3 version oldest
  version=$(version_of_foreign "$tool" "$binary")
  oldest=$(oldest_accepted "$tool")
  if [[ -z $version ]]; then
    say "$tool from $where ($binary) does not tell its version: not used"
  elif ! at_least "$oldest" "$version"; then
    say "$tool from $where ($binary) is $version, older than $oldest: not used"
  else
    accept "$tool" "$binary" "$version"
    return 0
  fi
  return 1
}

is_program() { [[ -f $1 && -x $1 ]]; }

find_tool() {
  local tool=$1 module variable value binary
  variable=$(variable_of "$tool")
  value=${!variable:-}
  if [[ $value && $value != "$cache_root"/* ]]; then
    if is_program "$value"; then
      accept "$tool" "$value"
      return 0
    fi
    say "$variable=$value is not an executable file: looking elsewhere"
  fi

  binary=${KUBEBUILDER_ASSETS:-}/$tool
  if [[ ${KUBEBUILDER_ASSETS:-} ]] && is_program "$binary"; then
    accept_foreign "$tool" "$binary" KUBEBUILDER_ASSETS && return 0
  fi
  if binary=$(type -P "$tool"); then
    accept_foreign "$tool" "$binary" PATH && return 0
  fi

  module=$(module_of "$tool")
  cache_dir_of "$module"
  if is_program "$cache_dir/bin/$tool"; then
    accept "$tool" "$cache_dir/bin/$tool" "$(pinned_version "$module")"
    return 0
  fi
  find_in_archive "$tool"
}

# --- The envtest archive ----------------------------------------------------

in_archive() { [[ " ${archive_tools[*]} " == *" $1 "* ]]; }

# Sets the archive's address, checksum and cache folder, when it may be used.
read_envtest_pin() {
  local key value base=''
  archive_version='' archive_sum='' archive_dir=''
  case ${MOORAGE_ENVTEST:-} in
    1) ;;
    '') [[ -z $go_version ]] || return 0 ;;
    0) return 0 ;;
    *) die "MOORAGE_ENVTEST is '$MOORAGE_ENVTEST': set it to 1 or 0, or not at all" ;;
  esac
  while read -r key value; do
    case $key in
      version) archive_version=$value ;;
      base) base=$value ;;
      "$platform") archive_sum=$value ;;
    esac
  done <"$modules/envtest.pin"
  [[ $archive_sum ]] || return 0 # none pinned for this platform
  base=${MOORAGE_ENVTEST_MIRROR:-$base}
  archive_url=${base%/}/envtest-$archive_version/envtest-$archive_version-$platform.tar.gz
  archive_dir=$cache_root/envtest-${archive_version#v}-$platform-${archive_sum:0:16}
}

find_in_archive() {
  local version=''
  if [[ -z $archive_dir ]] || ! in_archive "$1" || ! is_program "$archive_dir/bin/$1"; then
    return 1
  fi
  [[ $1 == etcd ]] || version=${archive_version#v}
  accept "$1" "$archive_dir/bin/$1" "$version"
}

# Every way this can fail leaves the build to fall back on.
install_archive() {
  local tool version sum file
  if ! type -P curl >/dev/null; then
    say "curl is not installed: not trying the envtest archive"
    return 1
  fi
  lock "$archive_dir" "the envtest archive"
  if [[ -d $archive_dir/bin ]]; then
    unlock
    return 0
  fi
  make_stage
  file=$stage/envtest.tar.gz
  say "downloading $archive_url"
  if ! curl -fsSL --connect-timeout 3 --speed-limit 10240 --speed-time 20 -o "$file" "$archive_url" 2>"$stage/curl.log"; then
    say "the envtest archive cannot be had: $(tail -n 1 "$stage/curl.log")"
    unlock
    return 1
  fi
  sum=$(sha512sum <"$file")
  if [[ ${sum%% *} != "$archive_sum" ]]; then
    say "error: wrong SHA-512, archive refused: $archive_url"
    say "  expected $archive_sum"
    say "  received ${sum%% *}"
    unlock
    return 1
  fi
  mkdir "$stage/envtest"
  if ! tar -xzf "$file" -C "$stage/envtest" --strip-components=2 "${archive_tools[@]/#/controller-tools/envtest/}"; then
    say "error: the envtest archive does not hold what it should"
    unlock
    return 1
  fi
  for tool in "${archive_tools[@]}"; do
    version=$(version_of "$tool" "$stage/envtest/$tool")
    if [[ -z $version || ($tool != etcd && $version != "${archive_version#v}") ]]; then
      say "error: $tool from the envtest archive says it is '$version', not ${archive_version#v}"
      unlock
      return 1
    fi
  done
  mkdir -p "$archive_dir"
  mv "$stage/envtest" "$archive_dir/bin"
  unlock
}

# --- Building ---------------------------------------------------------------

stage='' child=''

# Where unfinished work lies: inside the cache, so that moving it into place is
# one rename, and so that gigabytes of objects do not land in a /tmp in memory.
make_stage() {
  if [[ -z $stage ]]; then stage=$(mktemp -d "$cache_root/.stage.XXXXXX") || die "cannot write to $cache_root"; fi
}

clean_up() {
  if [[ $child ]]; then
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  if [[ $stage ]]; then rm -rf "$stage"; fi
}

# One builder per folder; the next one finds the work done.
lock() {
  exec 9>"$1.lock" || die "cannot write to $cache_root"
  if ! flock -n 9; then
    say "another run is at work on $2: waiting for it"
    flock 9
  fi
}

unlock() { exec 9>&-; }

# Runs a command with a sign of life: every second on a terminal, else every 15.
run_with_ticks() {
  local label=$1 log=$2 began=$SECONDS next=15 elapsed status=0 pause=0.1
  shift 2
  "$@" >"$log" 2>&1 9>&- &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep "$pause"
    elapsed=$((SECONDS - began))
    if ((elapsed >= 3)); then pause=1; fi # with warm Go caches it is over in a moment
    if [[ -t 2 ]]; then
      printf '\rtools: %s: %d s, %d packages compiled ' "$label" "$elapsed" "$(grep -vc '^go: ' "$log")" >&2
    elif ((elapsed >= next)); then
      say "$label: $elapsed s, $(grep -vc '^go: ' "$log") packages compiled"
      next=$((elapsed + 15))
    fi
  done
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
  wait "$child" || status=$?
  child=''
  return "$status"
}

build() {
  local tool=$1 label=$2 module pinned began=$SECONDS says
  module=$(module_of "$tool")
  pinned=$(pinned_version "$module")
  cache_dir_of "$module"
  lock "$cache_dir" "$module"
  if ! is_program "$cache_dir/bin/$tool"; then
    make_stage
    say "$label: building $pinned with Go $go_version"
    # The environment is pinned, not inherited: what is built must be what the
    # name of the cache folder says. Only Go's caches are the caller's.
    run_with_ticks "$label" "$stage/$tool.log" \
      env -u GOAMD64 -u GOARM64 -u GOEXPERIMENT CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOWORK=off GO111MODULE=on \
      GOOS="${platform%-*}" GOARCH="${platform#*-}" GOTMPDIR="$stage" \
      go -C "$modules/$module" build -v "${build_flags[@]}" -ldflags "$(ldflags_of "$module" "$pinned")" \
      -o "$stage/$tool" "$(package_of "$tool")" || {
      tail -n 30 "$stage/$tool.log" >&2
      die "$tool $pinned does not build, see above"
    }
    says=$(version_of "$tool" "$stage/$tool")
    [[ $says == "$pinned" ]] || die "the $tool just built says it is '$says', not $pinned"
    mkdir -p "$cache_dir/bin"
    mv "$stage/$tool" "$cache_dir/bin/$tool"
    say "$label: done in $((SECONDS - began)) s"
  fi
  unlock
  accept "$tool" "$cache_dir/bin/$tool" "$pinned"
}

# Kubernetes supports a controller manager up to one minor version behind its
# API server, never ahead of it.
warn_about_skew() {
  local server=${version_found[kube-apiserver]:-} manager=${version_found[kube-controller-manager]:-}
  if [[ $server && $manager ]] && ! at_least "$manager" "$server"; then
    say "warning: kube-controller-manager $manager is newer than kube-apiserver $server, which Kubernetes does not support"
  fi
}

# --- Main -------------------------------------------------------------------

main() {
  local as_env='' wanted=() missing=() still_missing=() tool number=0 wants_archive=''
  while (($#)); do
    case $1 in
      -h | --help)
        usage
        exit 0
        ;;
      --env) as_env=1 ;;
      *)
        if [[ " ${all_tools[*]} " != *" $1 "* ]]; then
          say "unknown tool or option '$1' (there are: ${all_tools[*]})"
          exit 2
        fi
        [[ " ${wanted[*]} " == *" $1 "* ]] || wanted+=("$1")
        ;;
    esac
    shift
  done
  ((${#wanted[@]})) || wanted=("${all_tools[@]}")

  modules=$(cd "$(dirname "${BASH_SOURCE[0]}")/tools" && pwd)
  cache_root=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/moorage/tools
  [[ $cache_root == /* ]] || die "XDG_CACHE_HOME must be an absolute path"
  case $(uname -sm) in
    'Linux x86_64') platform=linux-amd64 ;;
    'Linux aarch64') platform=linux-arm64 ;;
    *) die "only Linux on amd64 and arm64 is supported, this is $(uname -sm)" ;;
  esac
  find_go
  read_envtest_pin

  for tool in "${wanted[@]}"; do
    find_tool "$tool" || missing+=("$tool")
  done

  if ((${#missing[@]})); then
    mkdir -p "$cache_root"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    for tool in "${missing[@]}"; do
      if in_archive "$tool"; then wants_archive=1; fi
    done
    if [[ $wants_archive && $archive_dir ]] && install_archive; then
      for tool in "${missing[@]}"; do
        find_in_archive "$tool" || still_missing+=("$tool")
      done
      missing=("${still_missing[@]}")
    fi
  fi

  if ((${#missing[@]})) && [[ -z $go_version ]]; then
    say "error: not found: ${missing[*]}"
    say "  They can be built, but $go_problem. Install it from https://go.dev/dl/,"
    say "  or put the tools on PATH, or name them: $(variable_of "${missing[0]}")=/path/to/${missing[0]}"
    exit 1
  fi
  for tool in "${missing[@]}"; do
    number=$((number + 1))
    build "$tool" "[$number/${#missing[@]}] $tool"
  done
  warn_about_skew

  for tool in "${wanted[@]}"; do
    if [[ $as_env ]]; then
      printf 'export %s=%q\n' "$(variable_of "$tool")" "${path_of[$tool]}"
    else
      printf '%s=%s\n' "$tool" "${path_of[$tool]}"
    fi
  done
}

main "$@"
