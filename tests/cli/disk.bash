# What tests of `trapeze disk` share: a folder of their own, qemu-img to compare with, and a disk with something on it.

load cli

setup() {
    cd "$BATS_TEST_TMPDIR"
}

need_qemu() {
    command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || skip "qemu-img and qemu-io are not installed"
}

disk() { "$TRAPEZE" disk "$@"; }

# A raw disk with data, zeros as data, holes, and a size that is no multiple of a cluster.
make_raw() {
    truncate -s 5000704 "$1"
    seq 100000 | dd of="$1" conv=notrunc status=none bs=64k
    dd if=/dev/zero of="$1" conv=notrunc status=none bs=64k seek=20 count=10
    seq 7 300000 | dd of="$1" conv=notrunc status=none bs=1000 seek=2500 count=700
    printf 'the end' | dd of="$1" conv=notrunc status=none bs=1 seek=5000697
}
