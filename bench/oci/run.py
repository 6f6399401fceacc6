#!/usr/bin/env python3
"""Compares trapeze-oci with Debian's crun and runc: the same bundle, the same verbs, in one run.

usage: bench/oci/run.py [--oci PATH] [--n 40] [--load] [--out FILE]

Prints medians and 90th percentiles in milliseconds, peak memory, the smallest memory limit in which a container
starts, what stays in memory beside a running container, and the ratio to crun. With --load all times are taken
once more while a neighbour keeps every processor busy. --out writes the tables into a file as well.

crun refuses hosts with cgroup v1 beside v2, so where that is so everyone runs in a mount namespace without
the v2 tree. Runtimes take turns, and who is first changes from round to round; before each start of a container there
is a pause, since the kernel takes containers down in the background: else one would pay for what another left.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
UNIFIED = '/sys/fs/cgroup/unified'
PAUSE_S = 0.05
VERBS = ['run', 'create', 'start', 'state', 'exec', 'pause', 'resume', 'update', 'kill']


def make_bundle(where, args):
    root = os.path.join(where, 'rootfs')
    for name in ('bin', 'proc', 'sys', 'dev', 'tmp', 'etc', 'root'):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    shutil.copy('/bin/busybox', os.path.join(root, 'bin'))
    subprocess.run(['chroot', root, '/bin/busybox', '--install', '-s', '/bin'], check=True)
    subprocess.run(['runc', 'spec', '--bundle', where], check=True)
    path = os.path.join(where, 'config.json')
    with open(path, encoding='utf-8') as f:
        config = json.load(f)
    config['process']['terminal'] = False
    config['process']['args'] = args
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(config, f)
    return config


class Runtime:
    """One of the rivals: how its command line begins, and what it has measured."""

    def __init__(self, name, command):
        self.name, self.command, self.times, self.serial = name, command, {}, 0

    def call(self, *args, check=True):
        done = subprocess.run(self.command + list(args), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if check and done.returncode:
            raise RuntimeError(f'{self.name} {args}: {done.stderr.decode()}')
        return done.returncode

    def timed(self, what, *args):
        start = time.perf_counter()
        child = subprocess.Popen(self.command + list(args), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        child.wait()
        self.times.setdefault(what, []).append((time.perf_counter() - start) * 1e3)
        if child.returncode:
            raise RuntimeError(f'{self.name} {args}: status {child.returncode}')

    def fresh(self):
        self.serial += 1
        return f'bench-{self.name}-{os.getpid()}-{self.serial}'


def life(runtime, bundle):
    """One container through every verb."""
    name = runtime.fresh()
    time.sleep(PAUSE_S)
    try:
        runtime.timed('create', 'create', '--bundle', bundle, name)
        runtime.timed('start', 'start', name)
        runtime.timed('state', 'state', name)
        runtime.timed('exec', 'exec', name, '/bin/true')
        runtime.timed('pause', 'pause', name)
        runtime.timed('resume', 'resume', name)
        runtime.timed('update', 'update', '--memory', '200000000', name)
        runtime.timed('kill', 'kill', name, 'KILL')
        for _ in range(500):
            if runtime.call('delete', name, check=False) == 0:
                break
    finally:
        runtime.call('delete', '--force', name, check=False)


def peak_kib(runtime, bundle):
    peaks = []
    for _ in range(10):
        done = subprocess.run(['/usr/bin/time', '-f', '%M'] + runtime.command +
                              ['run', '--bundle', bundle, runtime.fresh()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        peaks.append(int(done.stderr.split()[-1]))
    return statistics.median(peaks)


def smallest_limit_kib(runtime, bundle, config):
    """The least of 64 KiB, 128 KiB, ... 16 MiB in which three containers out of three end well."""
    path = os.path.join(bundle, 'config.json')
    for kib in (64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 6144, 8192, 16384):
        config['linux'].setdefault('resources', {})['memory'] = {'limit': kib * 1024}
        with open(path, 'w', encoding='utf-8') as f:
            json.dump(config, f)
        if all(runtime.call('run', '--bundle', bundle, runtime.fresh(), check=False) == 0 for _ in range(3)):
            return kib
    return 0


def left_behind_kib(runtime, bundle):
    """What processes of the runtime hold while a container runs (its own program is no part of that)."""
    name, total = runtime.fresh(), 0
    runtime.timed('', 'create', '--bundle', bundle, name)
    runtime.timed('', 'start', name)
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', encoding='utf-8', errors='replace') as f:
                mine = name in f.read()
            with open(f'/proc/{pid}/statm', encoding='ascii') as f:
                total += int(f.read().split()[1]) * 4 if mine else 0
        except OSError:
            pass
    runtime.call('delete', '--force', name)
    return total


def measure(runtimes, work, n):
    """n rounds after two to warm up."""
    for runtime in runtimes:
        runtime.times = {}
    for i in range(n + 2):
        first = i % len(runtimes)
        for runtime in runtimes[first:] + runtimes[:first]:
            time.sleep(PAUSE_S)
            runtime.timed('run', 'run', '--bundle', work + '/once', runtime.fresh())
            life(runtime, work + '/life')
        if i == 1:
            for runtime in runtimes:
                runtime.times = {}


def table(runtimes, title, rows):
    """Markdown; rows are (name, [(median, p90 or None) for each runtime])."""
    crun = [r.name for r in runtimes].index('crun')
    lines = [f'| {title} | ' + ' | '.join(r.name for r in runtimes) + ' | ours / crun |',
             '|---|' + '--:|' * (len(runtimes) + 1)]
    for name, cells in rows:
        ratio = f'{cells[0][0] / cells[crun][0]:.2f}' if cells[crun][0] else '-'
        shown = [f'{m:.2f} ({t:.2f})' if t is not None else f'{m:.0f}' for m, t in cells]
        lines.append(f'| {name} | ' + ' | '.join(shown) + f' | {ratio} |')
    return '\n'.join(lines) + '\n'


def times_table(runtimes, title):
    rows = []
    for verb in VERBS:
        cells = []
        for runtime in runtimes:
            values = sorted(runtime.times[verb])
            cells.append((statistics.median(values), values[int(len(values) * 0.9)]))
        rows.append((verb, cells))
    return table(runtimes, title, rows)


def memory_table(runtimes, work, config):
    rows = [('peak of run', [(peak_kib(r, work + '/once'), None) for r in runtimes]),
            ('smallest limit that a container starts in',
             [(smallest_limit_kib(r, work + '/small', config), None) for r in runtimes]),
            ('left behind beside a running container', [(left_behind_kib(r, work + '/life'), None) for r in runtimes])]
    return table(runtimes, 'memory, KiB', rows)


def under_load(runtimes, work, n):
    busy = [subprocess.Popen(['sh', '-c', 'while :; do :; done']) for _ in range(os.cpu_count())]
    try:
        measure(runtimes, work, n)
    finally:
        for child in busy:
            child.kill()
            child.wait()
    return times_table(runtimes, 'busy neighbour: median ms (90th percentile)')


def missing():
    """Why nothing can be compared here, or None."""
    if os.geteuid():
        return 'containers need root'
    absent = [name for name in ('crun', 'runc', 'busybox') if not shutil.which(name)]
    return f'not installed: {", ".join(absent)}' if absent else None


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    options.add_argument('--oci', default=os.path.join(HERE, '../../build/src/container/trapeze-oci'))
    options.add_argument('--n', type=int, default=40, help='rounds (default: 40)')
    options.add_argument('--load', action='store_true', help='once more with every processor busy')
    options.add_argument('--no-memory', action='store_true', help='times only')
    options.add_argument('--out', help='a file for the tables')
    args = options.parse_args()
    if missing():
        print(f'containers: not compared: {missing()}')
        return 0
    if os.path.ismount(UNIFIED):
        script = f'umount {UNIFIED} && exec "$@"'
        os.execvp('unshare', ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, 'sh'] + sys.argv)
    work = tempfile.mkdtemp(prefix='trapeze-bench-')
    runtimes = [Runtime('trapeze', [os.path.realpath(args.oci), '--root', work + '/trapeze']),
                Runtime('crun', ['crun', '--root', work + '/crun']),
                Runtime('runc', ['runc', '--root', work + '/runc'])]
    load = os.getloadavg()[0]
    try:
        make_bundle(work + '/once', ['/bin/true'])
        make_bundle(work + '/life', ['/bin/sleep', '100000'])
        config = make_bundle(work + '/small', ['/bin/true'])
        measure(runtimes, work, args.n)
        parts = [times_table(runtimes, 'median ms (90th percentile)')]
        if args.load:
            parts.append(under_load(runtimes, work, args.n))
        if not args.no_memory:
            parts.append(memory_table(runtimes, work, config))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = '\n'.join(parts)
    print(text)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as f:
            f.write(f'# Containers: trapeze-oci, crun and runc\n\nTaken by `bench/oci/run.py --n {args.n}'
                    f'{" --load" if args.load else ""}` on {os.cpu_count()} processors; the load of other work was {load:.1f} '
                    'at the beginning.\n\n' + text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
