#!/usr/bin/env python3
"""Compares `trapeze disk convert` with qemu-img: the same 4 GiB disk, each way, in one run.

usage: bench/disk.py [--trapeze PATH] [--size GIB] [--rounds 5] [--dir DIR] [--out FILE] [--append FILE]

Half of the disk is data that does not compress, in pieces of 64 MiB with holes between. By default it lies in memory
(/dev/shm), where the programs are measured and not the host's disk. Rounds alternate, and so does who begins; every figure
is a median. What is written is compared with what was read, once. Nothing here is a test: no time is asserted.
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

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = 64 << 20


def make_disk(path, size):
    data = os.urandom(PIECE)
    with open(path, 'wb') as f:
        f.truncate(size)
        for at in range(0, size, 2 * PIECE):
            f.seek(at)
            f.write(data)


def timed(command):
    """Seconds of wall clock and of processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rivals, where, rounds):
    """{row: {rival: [(wall, cpu)]}}"""
    rows = {f'{source} to {target}': (source, target) for source in ('raw', 'qcow2') for target in ('qcow2', 'raw')}
    results = {row: {name: [] for name in rivals} for row in rows}
    subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', f'{where}/disk.raw', f'{where}/disk.qcow2'],
                   check=True)
    for n in range(rounds):
        for row, (source, target) in rows.items():
            for name in list(rivals)[::1 if n % 2 else -1]:
                out = f'{where}/out.{target}'
                command = rivals[name] + ['convert', '-f', source, '-O', target, f'{where}/disk.{source}', out]
                results[row][name].append(timed(command))
                if not n:
                    subprocess.run(['qemu-img', 'compare', '-q', '-f', 'raw', '-F', target, f'{where}/disk.raw', out],
                                   check=True)
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
        results = measure(rivals, where, args.rounds)
    print(table(results, size))
    if args.append:
        with open(args.append, 'a', encoding='utf-8') as f:
            f.write('\n' + table(results, size) + '\n')
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as f:
            json.dump(results, f, indent=1)


if __name__ == '__main__':
    main()
