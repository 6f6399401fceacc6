#!/usr/bin/env python3
"""Compares trapeze-oci with Debian's crun and runc: the same bundle, the same verbs, in one run.

usage: bench/oci/run.py [--oci PATH] [--n 40] [--load] [--only run,exec,...]

Prints one table of medians and 90th percentiles in milliseconds, peak memory, the smallest memory limit in
which a container starts, and the ratio to crun. With --load a neighbour keeps every processor busy.
crun refuses hosts with cgroup v1 beside v2, so where that is so everyone runs in a mount namespace without
the v2 tree. Runs are interleaved, one of each runtime in turn, so that what disturbs one disturbs all.
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


def show(runtimes, whats, extra):
    names = [r.name for r in runtimes]
    print(f'{"":22}' + ''.join(f'{n:>18}' for n in names) + f'{"ours / crun":>14}')
    for what in whats:
        medians = [statistics.median(r.times[what]) for r in runtimes]
        tails = [sorted(r.times[what])[int(len(r.times[what]) * 0.9)] for r in runtimes]
        cells = ''.join(f'{m:9.2f} {"(" + format(t, ".2f") + ")":>8}' for m, t in zip(medians, tails))
        print(f'{what + ", ms (p90)":22}{cells}{medians[0] / medians[names.index("crun")]:>14.2f}')
    for what, values in extra.items():
        ratio = values[0] / values[names.index('crun')] if values[names.index('crun')] else 0
        print(f'{what:22}' + ''.join(f'{v:>18.0f}' for v in values) + f'{ratio:>14.2f}')


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    options.add_argument('--oci', default=os.path.join(HERE, '../../build/src/container/trapeze-oci'))
    options.add_argument('--n', type=int, default=40, help='rounds (default: 40)')
    options.add_argument('--load', action='store_true', help='keep every processor busy')
    options.add_argument('--no-memory', action='store_true', help='times only')
    args = options.parse_args()
    if os.path.ismount(UNIFIED):
        script = f'umount {UNIFIED} && exec "$@"'
        os.execvp('unshare', ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, 'sh'] + sys.argv)
    work = tempfile.mkdtemp(prefix='trapeze-bench-')
    runtimes = [Runtime('trapeze', [os.path.realpath(args.oci), '--root', work + '/trapeze']),
                Runtime('crun', ['crun', '--root', work + '/crun']),
                Runtime('runc', ['runc', '--root', work + '/runc'])]
    busy = [subprocess.Popen(['sh', '-c', 'while :; do :; done']) for _ in range(os.cpu_count())] if args.load else []
    try:
        make_bundle(work + '/once', ['/bin/true'])
        make_bundle(work + '/life', ['/bin/sleep', '100000'])
        config = make_bundle(work + '/small', ['/bin/true'])
        for i in range(args.n + 2):
            for runtime in runtimes:
                runtime.timed('run', 'run', '--bundle', work + '/once', runtime.fresh())
                life(runtime, work + '/life')
            if i == 1:  # two rounds to warm up
                for runtime in runtimes:
                    runtime.times = {}
        extra = {}
        if not args.no_memory:
            extra['peak memory, KiB'] = [peak_kib(r, work + '/once') for r in runtimes]
            extra['smallest limit, KiB'] = [smallest_limit_kib(r, work + '/small', config) for r in runtimes]
        show(runtimes, ['run', 'create', 'start', 'state', 'exec', 'pause', 'resume', 'update', 'kill'], extra)
    finally:
        for child in busy:
            child.kill()
            child.wait()
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
