#!/bin/sh
# Makes a disk image with Debian in it: systemd, a network by DHCP, a compiler, Python with its own tests, and the
# service that tries them (debian-check) and powers off.
#
# usage: tests/boot/debian.sh KERNEL_DIR OUTPUT      (as root; needs mmdebstrap, e2fsprogs and a Debian archive)
set -eu

kernel=$1 output=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tree=$work/tree

mmdebstrap --quiet --mode=root --variant=minbase \
    --include=systemd-sysv,udev,iproute2,ca-certificates,gcc,libc6-dev,python3,libpython3.11-testsuite,procps,kmod,netbase \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' bookworm "$tree"

cp -a "$kernel/root/lib/modules" "$tree/lib/"
echo debian >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost\n' >"$tree/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' >"$tree/etc/fstab"
rm -f "$tree/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$tree/etc/resolv.conf"
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' >"$tree/etc/systemd/network/wired.network"
cp "$here/debian-check" "$tree/usr/local/sbin/debian-check"
chmod 755 "$tree/usr/local/sbin/debian-check"
cat >"$tree/etc/systemd/system/debian-check.service" <<'END'
[Unit]
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/debian-check
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
chroot "$tree" systemctl --quiet enable debian-check.service systemd-networkd.service
chroot "$tree" systemctl --quiet mask serial-getty@ttyS0.service getty@tty1.service

truncate -s 2G "$output.new"
PATH=$PATH:/usr/sbin:/sbin
mke2fs -q -t ext4 -d "$tree" "$output.new"
mv "$output.new" "$output"
