#!/usr/bin/env bats
# What a disk leaves that gets smaller.

load disk

@test "a disk that gets smaller, or is emptied, has a shorter file" {
    need_qemu
    disk create -q a.qcow2 40M
    qemu-io -c 'write -P 1 0 1M' -c 'write -P 7 20M 20M' a.qcow2 >/dev/null
    cp a.qcow2 b.qcow2
    disk resize --shrink a.qcow2 10M
    qemu-img resize -q --shrink b.qcow2 10M
    [ "$(stat -c %s a.qcow2)" -le "$(stat -c %s b.qcow2)" ]
    qemu-img check -q a.qcow2
    disk compare -q --strict a.qcow2 b.qcow2
    disk create -q -b b.qcow2 -F qcow2 top.qcow2
    qemu-io -c 'write -P 3 0 1M' -c 'write -P 5 1M 9M' top.qcow2 >/dev/null
    disk commit top.qcow2
    [ "$(stat -c %s top.qcow2)" -lt $((2 << 20)) ]
    qemu-img check -q top.qcow2
}
