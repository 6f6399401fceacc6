#!/usr/bin/env python3
"""Compares `trapeze disk check` with qemu-img's on damaged images: `disk_repair.py TRAPEZE [IMAGES]`.

Reference counts and COPIED flags of small images are changed at random. Both count the same faults. Told to repair leaks,
ours leaves no more (qemu-img gives up where a cluster that is in use counts zero); told to repair all, it leaves none, and
the disk shows what it did.
"""
import json
import random
import shutil
import struct
import sys

from disk_oracle import KIB, MIB, ours, qemu, run, shows, try_all

HOST = 0x00fffffffffffe00
SIZE = 3 * MIB


def u64(data, at):
    return struct.unpack_from('>Q', data, at)[0]


def make(dice):
    cluster, bits = dice.choice([512, 4 * KIB, 64 * KIB]), dice.choice([1, 8, 16, 64])
    qemu('create', '-q', '-f', 'qcow2', '-o',
         f'cluster_size={cluster},refcount_bits={bits},lazy_refcounts={dice.choice(["on", "off"])}', 'image', str(SIZE))
    writes = []
    for _ in range(8):
        at = dice.randrange(0, SIZE, 512)
        length = min(dice.randrange(512, 300 * KIB, 512), SIZE - at)
        writes += ['-c', dice.choice([f'write -P {dice.randrange(1, 255)} {at} {length}', f'write -z {at} {length}'])]
    run('qemu-io', '-f', 'qcow2', *writes, 'image')
    if bits >= 8 and dice.random() < .4:
        qemu('snapshot', '-c', 'one', 'image')
        run('qemu-io', '-f', 'qcow2', '-c', 'write -P 77 0 200k', 'image')
    return cluster, bits


def damage(data, cluster, bits, dice):
    block = u64(data, u64(data, 48))
    l1_entries, l1 = struct.unpack_from('>I', data, 36)[0], u64(data, 40)
    for _ in range(dice.randrange(1, 5)):
        entry = l1 + 8 * dice.randrange(l1_entries)
        table = u64(data, entry) & HOST
        kind = dice.choice(['count', 'count', 'flag', 'flag of a table'])
        if kind == 'count':
            which = dice.randrange(min(len(data) // cluster, cluster * 8 // bits))
            if bits < 8:
                data[block + which // 8] ^= 1 << which % 8
            else:
                data[block + which * bits // 8 + bits // 8 - 1] = dice.choice([0, 1, 2, 5])
        elif kind == 'flag':
            entry = table + 8 * dice.randrange(cluster // 8)
            if table and u64(data, entry) & HOST:
                data[entry] ^= 0x80
        elif table:
            data[entry] ^= 0x80


def faults(of, image):
    found = json.loads(of('check', '-f', 'qcow2', '--output', 'json', image, status=None).stdout)
    return found.get('corruptions', 0), found.get('leaks', 0)


def one(dice):
    cluster, bits = make(dice)
    truth = shows('image')
    with open('image', 'r+b') as f:
        data = bytearray(f.read())
        damage(data, cluster, bits, dice)
        f.seek(0)
        f.write(data)
    assert faults(qemu, 'image') == faults(ours, 'image'), (faults(qemu, 'image'), faults(ours, 'image'))
    for how in 'leaks', 'all':
        for of, copy in (qemu, 'theirs'), (ours, 'mine'):
            shutil.copy('image', copy)
            of('check', '-f', 'qcow2', '-r', how, copy, status=None)
        if how == 'leaks':
            theirs, mine = faults(qemu, 'theirs'), faults(qemu, 'mine')
            assert mine[0] <= theirs[0] and mine[1] <= theirs[1], (theirs, mine)
    assert faults(qemu, 'mine') == (0, 0), faults(qemu, 'mine')
    assert shows('mine') == truth


def main():
    seeds = range(int(sys.argv[2]) if len(sys.argv) > 2 else 15)
    try_all('image', enumerate(seeds), lambda seed, number: one(random.Random(seed)))


if __name__ == '__main__':
    main()
