#!/bin/sh
# Runs before all else in the first boot of a server of the lab, whose root filesystem has every
# package: takes away what user-data installs and brings what it removes; leaves a package as a power
# cut can, unpacked without what it needs; points the mirror to nowhere, and a provider's for good; and has dpkg wait, in the
# middle of a package and until the next boot, where it would start a service.
set -eu
test ! -e /var/lib/bare || exit 0
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
# Nothing runs yet that could be stopped.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -qy update
apt-get -qy install --no-install-recommends rpcbind
apt-get -qy purge fail2ban nftables unattended-upgrades
apt-get -qy autoremove
dpkg --purge --force-depends python3-apt
cd /var/lib
apt-get -qy -o APT::Sandbox::User=root download unattended-upgrades
dpkg --unpack unattended-upgrades_*.deb
rm unattended-upgrades_*.deb
echo '127.0.0.1 deb.debian.org' >>/etc/hosts
# As an image of a provider's whose own mirror is stale.
echo 'deb http://mirror.invalid/debian trixie main' >/etc/apt/sources.list.d/provider.list
mkfifo /run/hold
cat >/usr/sbin/policy-rc.d <<'END'
#!/bin/sh
if test -p /run/hold; then
  touch /run/held
  cat /run/hold
fi
exit 0
END
touch /var/lib/bare
