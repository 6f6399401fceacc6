#!/bin/sh
# Makes the golden snapshots of this release: tests/snapshot/golden/VERSION-ACCELERATOR.snapshot, and what `snapshot show`
# says of each beside it (.json). Every later release must restore them (tests/snapshot/golden.bats), so they are made
# once, at a release, and never again. On a host with /dev/kvm, else that one is left out; TRAPEZE_ACCEL_ANYWAY=kvm takes one
# that fails the probe, which does for this guest.
#
# usage: tools/make-golden.sh BUILD_DIR
#
# The guest is small: it returns what it reads from its serial port. Its machine has two processors, a disk, a network and
# both consoles, so all devices' states are in there.
set -eu

[ $# -eq 1 ] || { echo "usage: tools/make-golden.sh BUILD_DIR" >&2; exit 2; }
trapeze=$1/src/cmd/trapeze
out=$(cd "$(dirname "$0")/.." && pwd)/tests/snapshot/golden
version=$("$trapeze" version | sed 's/^trapeze //')
work=$(mktemp -d)
trap 'TRAPEZE_ROOT=$work/root "$trapeze" kill golden 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
export TRAPEZE_ROOT="$work/root"
truncate -s 1M "$work/disk"
# The kernel is in there, too: without the paths of whoever built it.
objcopy --strip-debug "$1/guest/guest-ends" "$work/kernel"

mkdir -p "$out"
for accel in bt kvm; do
    name=$version-$accel
    if [ -e "$out/$name.snapshot" ]; then
        echo "make-golden: $name is there already, and stays as it is" >&2
        continue
    fi
    # What it says is data of the snapshot, too.
    "$trapeze" run -d --name golden --accel $accel --kernel "$work/kernel" --append e --memory 16M --cpus 2 \
        --disk "$work/disk" --console null >/dev/null || continue
    echo before | timeout 5 "$trapeze" attach golden >/dev/null || true
    "$trapeze" snapshot create golden "$name" >/dev/null
    "$trapeze" snapshot export --compress "$name" "$out/$name.snapshot" >/dev/null
    chmod 644 "$out/$name.snapshot"
    "$trapeze" snapshot show --format json "$name" >"$out/$name.json"
    "$trapeze" rm -f golden
    rm -rf "$work/root"
    echo "$out/$name.snapshot"
done
