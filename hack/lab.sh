#!/usr/bin/env bash
# Makes everything available that the lab boots Debian servers from: see --help.
set -euo pipefail

suite=trixie
# What a stock Debian cloud image has, and what our user-data installs: a boot needs no mirror.
packages=(
  systemd systemd-sysv systemd-timesyncd udev dbus libpam-systemd cloud-init openssh-server sudo
  nftables fail2ban python3 python3-systemd unattended-upgrades curl ca-certificates
  iproute2 iputils-ping netbase procps kmod locales less openssl rsyslog
  # For servers with a kernel of their own.
  linux-image-cloud-amd64 initramfs-tools e2fsprogs qemu-guest-agent
)
# Programs of the host, and the Debian packages that hold them.
host_programs=(
  systemd-nspawn:systemd-container mmdebstrap:mmdebstrap ip:iproute2 nsenter:util-linux
  setpriv:util-linux mount:mount mkfs.ext4:e2fsprogs flock:util-linux dbus-daemon:dbus-daemon qemu-system-x86_64:qemu-system-x86
  ssh:openssh-client
)
export PATH=$PATH:/usr/sbin:/sbin

usage() {
  cat <<'END'
Usage: hack/lab.sh [--env] [--optional] [--check] [--rebuild]

Prepares this machine for the lab: installs what booting containers and virtual
machines needs (systemd-container, mmdebstrap, qemu-system-x86 with about
60 MB, …), builds the root filesystem that servers of the nspawn backend boot
from, tries how fast virtual machines can run, and looks for a cloudflared.
Needs root on Linux (x86-64) with apt; only packages and the cache folder are
touched.

Stdout has one line per thing:

  rootfs=/absolute/path
  acceleration=kvm                                  or tcg: without KVM
  cloudflared=/absolute/path                        if there is one
  npm-registry=URL                                  if npm is installed

  --env      export MOORAGE_ROOTFS=…, MOORAGE_LAB_ACCELERATION=…, CLOUDFLARED_BIN=… and
             MOORAGE_NPM_REGISTRY=… instead, for a shell:
             env=$(hack/lab.sh --env) && eval "$env"
  --optional where the machine cannot run the lab at all (not root, not Linux),
             says why and succeeds; not with MOORAGE_REQUIRE_ALL=1
  --check    installs and builds nothing: exit status 1 and the reason if
             something is missing
  --rebuild  builds the root filesystem anew, with today's packages

The root filesystem is a Debian trixie of about 450 MB, its kernel included,
built in one to three minutes
from this machine's own Debian mirror (Acquire::http::Proxy is respected) into
${XDG_CACHE_HOME:-$HOME/.cache}/moorage/rootfs/<key>. The key covers all that it
is made from; folders with other keys are removed unless a server uses them. The
whole cache may be deleted while nothing runs.

cloudflared is what hack/cloudflared.sh finds or downloads (its --help says where
from). Where there is none, or CLOUDFLARED_BIN=none, --env says
CLOUDFLARED_BIN=none, and the simulator's connector stands in (make connector).
END
}

say() { printf 'lab: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# What no installation can change.
impossible() {
  if ((optional)) && [[ ${MOORAGE_REQUIRE_ALL:-} != 1 ]]; then
    say "skipped: $*"
    exit 0
  fi
  die "$*"
}

# --- The machine ------------------------------------------------------------

missing_packages() {
  local entry
  for entry in "${host_programs[@]}"; do
    type -P "${entry%%:*}" >/dev/null || echo "${entry#*:}"
  done | sort -u
}

prepare_host() {
  local missing
  [[ $(uname -s) == Linux ]] || impossible "the lab needs Linux"
  [[ $(uname -m) == x86_64 ]] || impossible "the lab needs an x86-64 machine"
  ((EUID == 0)) || impossible "the lab needs root (containers, network namespaces, mounts)"
  [[ -e /dev/loop-control ]] || impossible "the lab needs loop devices (/dev/loop-control)"
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((check)); then die "missing packages: ${missing[*]}"; fi
  type -P apt-get >/dev/null || die "install the equivalents of: ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# The Debian mirror that this machine itself uses, or Debian's own.
find_mirror() {
  local uri
  mirror=http://deb.debian.org/debian proxy=''
  type -P apt-get >/dev/null || return 0
  # shellcheck disable=SC2016 # apt's own variable
  while read -r uri; do
    if [[ $uri == http*://*/debian/ ]]; then
      mirror=${uri%/}
      break
    fi
  done < <(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null)
  proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy 2>/dev/null | head -n 1)
}

# --- The root filesystem ----------------------------------------------------

# Brings the new tree into the state of a cloud image that has never booted.
customize() {
  local root=$1
  # The machine's own mirror stands behind these names in the lab.
  cat >"$root/etc/apt/sources.list.d/debian.sources" <<END
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suite $suite-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: $suite-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
  rm -f "$root/etc/apt/sources.list"
  # As in Debian's cloud images; the network comes from outside.
  cat >"$root/etc/cloud/cloud.cfg.d/90_lab.cfg" <<'END'
datasource_list: [NoCloud]
locale: C.UTF-8
network: {config: disabled}
apt: {preserve_sources_list: true}
END
  # What every machine has to make for itself.
  rm -f "$root"/etc/ssh/ssh_host_*_key* "$root/var/lib/systemd/random-seed" "$root/var/lib/dbus/machine-id"
  : >"$root/etc/machine-id"
  rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
  rm -rf "$root"/var/cache/apt/*.bin "$root"/var/log/*.log "$root"/var/lib/cloud/*
  # The reader of a cloud image's journal finds it on disk.
  mkdir -p "$root/var/log/journal"
}

cache_key() {
  {
    printf '%s\n' "$suite" "$architecture" "$mirror" "${packages[@]}"
    declare -f customize ram_disk build
  } | sha256sum | cut -c1-16
}

stage='' child=''
clean_up() {
  if [[ $child ]]; then
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  if [[ $stage ]]; then rm -rf --one-file-system "$stage"; fi
}

# The initial RAM disk finds this root and nothing else: less to load where translation makes it slow.
ram_disk() {
  mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
  printf '%s\n' MODULES=list FSTYPE=ext4 >"$1/etc/initramfs-tools/conf.d/lab"
  printf '%s\n' virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/lab"
}

build() {
  local log=$1 list options=()
  ram_disk "$stage/overlay"
  printf -v list '%s,' "${packages[@]}"
  if [[ $proxy ]]; then options+=(--aptopt="Acquire::http::Proxy \"$proxy\""); fi
  # The package lists stay, so that an `apt-get update` in a server has little to fetch.
  mmdebstrap --variant=minbase --mode=root --format=directory "${options[@]}" \
    --essential-hook="sync-in \"$stage/overlay\" /" \
    --aptopt='APT::Install-Recommends "false"' --skip=cleanup/apt/lists --include="${list%,}" \
    "$suite" "$stage/root" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite-updates main" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror-security $suite-security main" \
    >"$log" 2>&1
}

build_with_ticks() {
  local log=$stage/build.log began=$SECONDS next=10 status=0
  say "building the root filesystem from $mirror ($suite, ${#packages[@]} packages and what they need)"
  build "$log" 9>&- &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.5
    if ((SECONDS - began >= next)); then
      say "  $((SECONDS - began)) s: $(grep -v '^ *$' "$log" | tail -n 1 | cut -c1-70)"
      next=$((next + 10))
    fi
  done
  wait "$child" || status=$?
  child=''
  if ((status)); then
    tail -n 20 "$log" >&2
    die "mmdebstrap failed ($status)"
  fi
  customize "$stage/root"
  rm -rf "$stage/overlay"
  printf '{"mirror": "%s", "securityMirror": "%s", "proxy": "%s"}\n' "$mirror" "$mirror-security" "$proxy" \
    >"$stage/lab.json"
  say "built in $((SECONDS - began)) s"
}

# Removes trees of other keys. A running simulator holds a shared lock on the tree that it uses.
prune() {
  local old
  for old in "$cache"/*/; do
    old=${old%/}
    [[ -d $old && $old != "$rootfs" && $old != "$stage" ]] || continue
    (
      exec 8>"$old/lock" && flock -n 8 || exit 0
      say "removing $old, which is out of date"
      rm -rf --one-file-system "$old"
    ) || true
  done
}

provide_rootfs() {
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/moorage/rootfs
  architecture=$(dpkg --print-architecture 2>/dev/null || uname -m)
  find_mirror
  rootfs=$cache/$(cache_key)
  if [[ -d $rootfs/root ]] && ! ((rebuild)); then return 0; fi
  if ((check)); then die "the root filesystem is not built: run hack/lab.sh"; fi
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  if ! flock -n 9; then
    say "another run builds the root filesystem: waiting for it"
    flock 9
    if [[ -d $rootfs/root ]]; then return 0; fi
  fi
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  # What a killed run left.
  rm -rf --one-file-system "$cache"/.stage.*
  stage=$(mktemp -d "$cache/.stage.XXXXXX")
  chmod 755 "$stage"
  build_with_ticks
  : >"$stage/lock"
  if [[ -d $rootfs ]]; then
    exec 8>"$rootfs/lock"
    flock -n 8 || die "a running lab uses $rootfs: end it first"
    rm -rf --one-file-system "$rootfs"
    exec 8>&-
  fi
  mv "$stage" "$rootfs"
  stage=''
  prune
  exec 9>&-
}

# KVM that opens may still not run a kernel, as in some nested machines: one has to come to its end.
try_acceleration() {
  local try=(timeout 20 qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -no-user-config
    -display none -no-reboot -kernel "$rootfs/root/vmlinuz" -append 'panic=-1')
  acceleration=tcg
  # The shell's own word about a crash is swallowed as well.
  if [[ -w /dev/kvm ]] && { "${try[@]}" </dev/null; } >/dev/null 2>&1; then
    acceleration=kvm
  else
    say "KVM runs no kernel here: servers with a kernel of their own are about ten times slower (TCG)"
  fi
}

# The npm registry that this machine itself uses; servers of the lab get their plugins from it.
find_registry() {
  registry=$(npm config get registry 2>/dev/null || true)
  if [[ $registry != http*://* ]]; then registry=''; fi
}

env=0 optional=0 check=0 rebuild=0
for argument in "$@"; do
  case $argument in
    --env) env=1 ;;
    --optional) optional=1 ;;
    --check) check=1 ;;
    --rebuild) rebuild=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done

prepare_host
provide_rootfs
try_acceleration
cloudflared=$("$(dirname "${BASH_SOURCE[0]}")/cloudflared.sh")
find_registry
if ((env)); then
  printf 'export MOORAGE_ROOTFS=%q\n' "$rootfs"
  printf 'export MOORAGE_LAB_ACCELERATION=%s\n' "$acceleration"
  printf 'export CLOUDFLARED_BIN=%q\n' "${cloudflared:-none}"
  if [[ $registry ]]; then printf 'export MOORAGE_NPM_REGISTRY=%q\n' "$registry"; fi
else
  echo "rootfs=$rootfs"
  echo "acceleration=$acceleration"
  if [[ $cloudflared ]]; then echo "cloudflared=$cloudflared"; fi
  if [[ $registry ]]; then echo "npm-registry=$registry"; fi
fi
