#!/bin/sh
# Makes a disk image with a Debian whose systemd starts systemd-check, for systemd.bats.
#
# usage: tests/oci/systemd.sh KERNEL_DIR TRAPEZE_OCI OUTPUT      (as root; needs mmdebstrap, e2fsprogs, a Debian archive)
set -eu

kernel=$1 oci=$2 output=$3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tree=$work/tree

mmdebstrap --quiet --mode=root --variant=minbase \
    --include=systemd-sysv,dbus,libpam-systemd,dbus-user-session,apparmor,jq,busybox-static,procps \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' bookworm "$tree"

cp -a "$kernel/root/lib/modules" "$tree/lib/"
echo debian >"$tree/etc/hostname"
echo '127.0.0.1 localhost debian' >"$tree/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' >"$tree/etc/fstab"
install -m 755 "$oci" "$tree/usr/local/bin/trapeze-oci"
install -m 755 "$here/systemd-check" "$tree/usr/local/sbin/systemd-check"
cat >"$tree/etc/systemd/system/check.service" <<'END'
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/systemd-check
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
chroot "$tree" systemctl --quiet enable check.service
chroot "$tree" systemctl --quiet mask serial-getty@ttyS0.service getty@tty1.service

truncate -s 1G "$output.new"
PATH=$PATH:/usr/sbin:/sbin
mke2fs -q -t ext4 -d "$tree" "$output.new"
mv "$output.new" "$output"
