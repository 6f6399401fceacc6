#!/bin/sh
# Makes a disk image with Debian in it: systemd, a network by DHCP, a compiler, Python with its own tests, and the
# service that tries them (debian-check) and powers off; with trapeze.do=serve on the kernel's command line one that serves
# clients (debian-serve) beside nginx.
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
    --include=systemd-sysv,udev,iproute2,ca-certificates,gcc,libc6-dev,python3,libpython3.11-testsuite,procps,kmod,netbase,nginx-light \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' bookworm "$tree"

cp -a "$kernel/root/lib/modules" "$tree/lib/"
echo debian >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost\n' >"$tree/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' >"$tree/etc/fstab"
rm -f "$tree/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$tree/etc/resolv.conf"
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' >"$tree/etc/systemd/network/wired.network"
printf '[Match]\nName=e*\nKernelCommandLine=trapeze.do=serve\n[Link]\nUnmanaged=yes\n' >"$tree/etc/systemd/network/serve.network"

# service NAME TYPE CONDITION WANTS: runs that program of this folder, on the serial console.
service() {
    cp "$here/$1" "$tree/usr/local/sbin/$1"
    chmod 755 "$tree/usr/local/sbin/$1"
    cat >"$tree/etc/systemd/system/$1.service" <<END
[Unit]
ConditionKernelCommandLine=$3
Wants=$4
After=$4
[Service]
Type=$2
ExecStart=/usr/local/sbin/$1
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
    chroot "$tree" systemctl --quiet enable "$1.service"
}

service debian-check oneshot '!trapeze.do=serve' network-online.target
service debian-serve simple trapeze.do=serve nginx.service
chroot "$tree" systemctl --quiet enable systemd-networkd.service
chroot "$tree" systemctl --quiet disable nginx.service
chroot "$tree" systemctl --quiet mask serial-getty@ttyS0.service getty@tty1.service

truncate -s 2G "$output.new"
PATH=$PATH:/usr/sbin:/sbin
mke2fs -q -t ext4 -d "$tree" "$output.new"
mv "$output.new" "$output"
