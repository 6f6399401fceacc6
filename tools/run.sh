#!/bin/sh
# Behind `make run`: boots Debian's cloud kernel in a machine. With a terminal: a shell in the guest. Without one: the
# guest checks itself and powers off; the exit status tells.
#
# usage: tools/run.sh BUILD_DIR [options for trapeze run]
#   $TRAPEZE_CPUS, $TRAPEZE_MEMORY (MiB): the machine's size, 2 and 512 by default. $TRAPEZE_CACHE: where the kernel,
#   the root file system and the disk are kept, cache/ in the source tree by default. $TRAPEZE_CHECK=1: check, terminal
#   or not.
set -eu

die() {
    echo "run: $*" >&2
    exit 4
}

[ $# -ge 1 ] || die "usage: run.sh BUILD_DIR [options for trapeze run]"
build=$1
shift
tools=$(cd "$(dirname "$0")" && pwd)
cache=${TRAPEZE_CACHE:-$(dirname "$tools")/cache}
cpus=${TRAPEZE_CPUS:-2}
memory=${TRAPEZE_MEMORY:-512}
trapeze=$build/src/cmd/trapeze
[ -x "$trapeze" ] || die "$trapeze is not built; try 'make build'"

mkdir -p "$cache"
export TRAPEZE_CACHE="$cache"
kernel=$("$tools/fetch-kernel.sh" cloud) || die "Debian's kernel cannot be fetched"

# Made again when anything that goes into it is newer.
rootfs=$cache/rootfs-cloud.cpio
stale=$(find "$tools/make-rootfs.sh" "$tools/../guest/"[a-z]* "$build/guest/guest-first" "$build/guest/guest-outb" "$kernel/vmlinuz" -newer "$rootfs" 2>/dev/null || echo all)
[ -z "$stale" ] || "$tools/make-rootfs.sh" "$kernel" "$build" "$rootfs"
disk=$cache/disk.img
[ -f "$disk" ] || truncate -s 64M "$disk"

append="console=ttyS0 quiet"
server=
work=
# shellcheck disable=SC2317 # called by trap
clean() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$work" ] || rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# A service of the host's for the guest to reach: a file by HTTP, on the loopback address only.
serve() {
    echo trapeze-tcp >"$work/trapeze"
    tries=0
    while [ $tries -lt 20 ]; do
        port=$((20000 + ($$ * 7 + tries * 131) % 20000))
        busybox httpd -f -p "127.0.0.1:$port" -h "$work" 2>/dev/null &
        server=$!
        # Either it ends at once because the port is taken, or it answers.
        while kill -0 "$server" 2>/dev/null; do
            if busybox wget -q -O /dev/null "http://127.0.0.1:$port/trapeze" 2>/dev/null; then
                return 0
            fi
        done
        server=
        tries=$((tries + 1))
    done
    die "no port of the loopback address is free"
}

if [ ! -t 0 ] || [ ! -t 1 ] || [ -n "${TRAPEZE_CHECK:-}" ]; then
    work=$(mktemp -d)
    serve
    cp --sparse=always "$disk" "$work/disk.img" # not the one that shells leave their work on
    disk=$work/disk.img
    append="$append panic=-1 trapeze.check trapeze.cpus=$cpus trapeze.memory=$memory trapeze.tcp=$port"
    set -- --no-reboot "$@"
fi

set -- run --kernel "$kernel/vmlinuz" --initrd "$rootfs" --append "$append" --memory "$memory" --cpus "$cpus" \
    --disk "$disk,serial=trapeze" --net user --debug-console 0xe9,file=/dev/null --debug-exit 0xf4 --report "$@"
status=0
"$trapeze" "$@" || status=$?
exit $status
