#!/bin/sh
# Makes the small root file system for a guest: busybox, the kernel's virtio modules and guest/init, as an initramfs.
#
# usage: tools/make-rootfs.sh KERNEL_DIR BUILD_DIR OUTPUT
#   KERNEL_DIR   what tools/fetch-kernel.sh printed; BUILD_DIR: where the guest's programs were built
#
# Not compressed: the host reads it from its page cache, while the guest would have to spend time unpacking it.
set -eu

die() {
    echo "make-rootfs: $*" >&2
    exit 1
}

[ $# -eq 3 ] || die "usage: make-rootfs.sh KERNEL_DIR BUILD_DIR OUTPUT"
kernel=$1 build=$2 output=$3
guest=$(cd "$(dirname "$0")/.." && pwd)/guest
PATH=$PATH:/usr/sbin:/sbin

busybox=$(command -v busybox) || die "busybox is missing; install busybox-static"
# A busybox that needs libraries would not start in there.
if ldd "$busybox" >/dev/null 2>&1; then
    die "$busybox is not static; install busybox-static"
fi
release=$(cat "$kernel/version")
modules=$kernel/root/lib/modules/$release
[ -f "$modules/modules.dep" ] || depmod -b "$kernel/root" "$release"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
for folder in bin dev etc lib/modules mnt proc root run sys tmp; do
    mkdir -p "$work/$folder"
done
cp "$busybox" "$work/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$work/bin/$applet"
done
cp "$build/guest/guest-first" "$work/init"
cp "$build/guest/guest-outb" "$work/bin/outb"
cp "$guest/init" "$guest/check" "$guest/profile" "$guest/udhcpc" "$work/etc/"
mkdir -p "$work/etc/acpi/PWRF"
cp "$guest/button" "$work/etc/acpi/PWRF/00000080" # the event's name and number
chmod 755 "$work/init" "$work/etc/init" "$work/etc/udhcpc" "$work/etc/acpi/PWRF/00000080"

# Each module after those it needs. One that is built in or that this kernel lacks is not there to be loaded.
for module in virtio_pci virtio_blk virtio_net virtio_console virtio-rng button evdev ext4 pvpanic-mmio pvpanic-pci; do
    modprobe -d "$kernel/root" -S "$release" --show-depends "$module" 2>/dev/null || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$work/lib/modules/"
    basename "$file" >>"$work/lib/modules/order"
done
[ -s "$work/lib/modules/order" ] || die "no module of $release was found"

# Owned by root and with a fixed order, whoever makes it. /dev/console must be there before init mounts anything: a
# node can only be made by root, so it comes from the kernel's own built-in initramfs when we are not.
(cd "$work" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible) >"$output.new"
mv "$output.new" "$output"
