#!/bin/sh
# Fetches and unpacks (does not install) a Debian stock kernel, and prints the directory that then holds
#   vmlinuz   the kernel            config   its configuration        System.map   its symbols
#   version   its release string    root/    the package as unpacked: root/lib/modules/VERSION has the modules
#
# Usage: tools/fetch-kernel.sh [cloud|generic] [--update]
# The cache is cache/ in the source tree, or $TRAPEZE_CACHE. What is there is used as it is, without asking the
# archive; --update asks and fetches a newer one. Several may run at once: the second waits for the first.
set -eu

die() {
    echo "fetch-kernel: $*" >&2
    exit 1
}

flavour=cloud
update=no
for arg; do
    case $arg in
    cloud | generic) flavour=$arg ;;
    --update) update=yes ;;
    *) die "unknown argument '$arg'; usage: fetch-kernel.sh [cloud|generic] [--update]" ;;
    esac
done
case $flavour in
cloud) meta=linux-image-cloud-amd64 ;;
generic) meta=linux-image-amd64 ;;
esac

tree=$(cd "$(dirname "$0")/.." && pwd)
cache=${TRAPEZE_CACHE:-$tree/cache}
dir=$cache/kernel-$flavour
if [ "$update" = no ] && [ -f "$dir/vmlinuz" ]; then
    echo "$dir"
    exit 0
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "apt-get and dpkg-deb are needed (Debian)"
mkdir -p "$cache"
exec 9>"$cache/.kernel-$flavour.lock"
flock 9
if [ "$update" = no ] && [ -f "$dir/vmlinuz" ]; then # another run has fetched it meanwhile
    echo "$dir"
    exit 0
fi

# Refreshing the package lists needs root; without it the lists must do as they are.
refresh() {
    if [ "$(id -u)" = 0 ]; then
        apt-get -qq update >&2
    elif command -v sudo >/dev/null; then
        sudo apt-get -qq update >&2
    fi
}

# The package that the metapackage stands for: linux-image-6.1.0-NN-cloud-amd64 or so.
package() {
    apt-cache depends --no-recommends --no-suggests "$meta" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

work=$cache/.kernel-$flavour.$$
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/root"

# Lists may be absent, or name a version that the archive no longer has: then refresh them once.
download() {
    name=$(package)
    [ -n "$name" ] || return 1
    # apt's own user cannot write into the tree; root downloads as root instead of warning about it.
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$name" >&2)
}
[ "$update" = no ] || refresh || true
if ! download; then
    refresh || die "the package lists cannot be refreshed"
    download || die "$meta cannot be downloaded; is a Debian archive configured and reachable?"
fi

dpkg-deb -x "$work"/linux-image-*.deb "$work/root"
rm -f "$work"/linux-image-*.deb
for file in vmlinuz config System.map; do
    set -- "$work/root/boot/$file"-*
    [ -f "$1" ] || die "$name has no /boot/$file"
    mv "$1" "$work/$file"
done
set -- "$work"/root/lib/modules/*
basename "$1" >"$work/version"
# The index that modprobe reads; the package would have made it when installed. kmod may be absent.
PATH=$PATH:/usr/sbin:/sbin
if command -v depmod >/dev/null; then
    depmod -b "$work/root" "$(cat "$work/version")" 2>/dev/null || true
fi

rm -rf "$dir"
mv "$work" "$dir"
trap - EXIT
echo "$dir"
