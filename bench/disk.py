#!/usr/bin/env python3
"""Compares `trapeze disk convert` with qemu-img: the same 4 GiB disk, each way, in one run.

usage: bench/disk.py [--trapeze PATH] [--size GIB] [--rounds 5] [--dir DIR] [--out FILE] [--append FILE]

Half of the disk is data that does not compress, in pieces of 64 MiB with holes between. What is compressed is a sixteenth
of that size, two thirds of it files of this host's /usr and one third noise, 4 MiB in turn. By default it lies in memory
(/dev/shm), where the programs are measured and not the host's disk. Rounds alternate, and so does who begins; every figure
is a median. What is written is compared with what was read, once. Nothing here is a test: no time is asserted. Before each row
memory is touched: on a host that is a guest itself, who gets what has been free for some seconds takes four times as long.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from guests import warm_memory

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = 64 << 20
PACK_PIECE = 4 << 20


def make_disk(path, size):
    data = os.urandom(PIECE)
    with open(path, 'wb') as f:
        f.truncate(size)
        for at in range(0, size, 2 * PIECE):
            f.seek(at)
            f.write(data)


def usr_files():
    """Blocks of what is in /usr, always in the same order."""
    for folder, folders, names in os.walk('/usr/lib'):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, 'rb') as f:
                yield f.read(PACK_PIECE)


def make_mixed(path, size):
    """Files, files, noise; over and over."""
    files, held = usr_files(), b''
    with open(path, 'wb') as f:
        for n in range(size // PACK_PIECE):
            while n % 3 != 2 and len(held) < PACK_PIECE:
                held += next(files)
            if n % 3 == 2:
                f.write(os.urandom(PACK_PIECE))
            else:
                f.write(held[:PACK_PIECE])
                held = held[PACK_PIECE:]


def timed(command):
    """Seconds of wall clock and of processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rivals, where, rounds):
    """{row: {rival: [(wall, cpu)]}}"""
    disk = {'raw': f'{where}/disk.raw', 'qcow2': f'{where}/disk.qcow2'}
    mixed = {'raw': f'{where}/mixed.raw', 'qcow2': f'{where}/mixed.qcow2'}
    rows = {f'{source} to {target}': (disk, source, target, []) for source in disk for target in ('qcow2', 'raw')}
    for packing in 'zlib', 'zstd':
        rows[f'raw to qcow2, packed by {packing}'] = (mixed, 'raw', 'qcow2', ['-c', '-o', f'compression_type={packing}'])
    rows['qcow2, packed by zlib, to raw'] = (mixed, 'qcow2', 'raw', [])
    results = {row: {name: [] for name in rivals} for row in rows}
    for images, options in (disk, []), (mixed, ['-c']):
        subprocess.run(['qemu-img', 'convert', *options, '-f', 'raw', '-O', 'qcow2', images['raw'], images['qcow2']], check=True)
    for n in range(rounds):
        for row, (images, source, target, options) in rows.items():
            warm_memory()
            for name in list(rivals)[::1 if n % 2 else -1]:
                out = f'{where}/out.{target}'
                command = rivals[name] + ['convert', *options, '-f', source, '-O', target, images[source], out]
                results[row][name].append(timed(command))
                if not n:
                    subprocess.run(['qemu-img', 'compare', '-q', '-f', 'raw', '-F', target, images['raw'], out], check=True)
                os.unlink(out)
    return results


def table(results, size):
    lines = [f'| `disk convert`, {size >> 30} GiB, half of it data | qemu-img s (processor s) | Trapeze s (processor s) | '
             'time x | processor x |', '|---|--:|--:|--:|--:|']
    for row, by in results.items():
        wall = {name: statistics.median(r[0] for r in runs) for name, runs in by.items()}
        cpu = {name: statistics.median(r[1] for r in runs) for name, runs in by.items()}
        lines.append(f'| {row} | {wall["qemu-img"]:.2f} ({cpu["qemu-img"]:.2f}) | '
                     f'{wall["trapeze"]:.2f} ({cpu["trapeze"]:.2f}) | {wall["trapeze"] / wall["qemu-img"]:.2f} | '
                     f'{cpu["trapeze"] / cpu["qemu-img"]:.2f} |')
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--trapeze', default=os.path.join(os.path.dirname(HERE), 'build', 'src', 'cmd', 'trapeze'))
    parser.add_argument('--size', type=int, default=4, help='GiB')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--dir', default='/dev/shm', help='where the images are made')
    parser.add_argument('--out', help='also write the raw figures there, as JSON')
    parser.add_argument('--append', help='also write the table to the end of that file')
    args = parser.parse_args()
    if not shutil.which('qemu-img'):
        sys.exit('bench/disk.py: qemu-img is not installed (apt-get install qemu-utils)')
    size = args.size << 30
    free = shutil.disk_usage(args.dir).free
    if free < 2 * size + (1 << 30):
        sys.exit(f'bench/disk.py: {args.dir} has {free >> 30} GiB left, {2 * args.size + 1} are needed; '
                 'choose another --dir or --size')
    rivals = {'qemu-img': ['qemu-img'], 'trapeze': [args.trapeze, 'disk']}
    with tempfile.TemporaryDirectory(prefix='trapeze-bench-', dir=args.dir) as where:
        make_disk(f'{where}/disk.raw', size)
        make_mixed(f'{where}/mixed.raw', size // 16)
        results = measure(rivals, where, args.rounds)
    print(table(results, size))
    if args.append:
        with open(args.append, 'a', encoding='utf-8') as f:
            f.write(f'\nCommand: `bench/disk.py --rounds {args.rounds} --size {args.size}` (part of `make bench`); images in '
                    f'{args.dir}.\n\n{table(results, size)}\n')
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as f:
            json.dump(results, f, indent=1)


if __name__ == '__main__':
    main()
