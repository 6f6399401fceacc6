#!/usr/bin/env python3
"""Snapshots beside QEMU's (TCG): the same kernel and root file system, taken and restored in turns; medians are printed.

QEMU saves by migrating to a file while the machine is stopped, the quickest of its ways. Not measured here: the pause that
a guest sees; `snapshot create` says what it measured itself.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time


def run(*args, **more):
    return subprocess.run(args, check=True, capture_output=True, text=True, timeout=300, **more)


class Qemu:
    """One machine with a monitor for programs."""

    def __init__(self, folder, opts, *more):
        self.path = os.path.join(folder, 'qmp')
        self.process = subprocess.Popen(
            ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-m', opts.memory, '-display', 'none', '-serial', 'null',
             '-kernel', opts.kernel, '-initrd', opts.initrd, '-append', 'console=ttyS0 quiet', '-qmp',
             f'unix:{self.path},server=on,wait=off', *more], stdin=subprocess.DEVNULL)
        self.line = None
        while not self.line:
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(self.path)
                self.line = s.makefile('rw')
            except OSError:
                time.sleep(0.001)
        self.line.readline()
        self.do('qmp_capabilities')

    def do(self, command, **arguments):
        self.line.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        self.line.flush()
        while True:
            answer = json.loads(self.line.readline())
            if 'event' not in answer:
                return answer.get('return')

    def wait(self, command, key, value):
        while self.do(command).get(key) != value:
            time.sleep(0.001)

    def end(self):
        self.process.kill()
        self.process.wait()


def qemu_round(opts, folder):
    file = os.path.join(folder, 'saved')
    q = Qemu(folder, opts)
    time.sleep(opts.boot * 3)
    begin = time.monotonic()
    q.do('migrate', uri=f'exec:cat > {file} && sync {file}')
    q.wait('query-migrate', 'status', 'completed')
    save = time.monotonic() - begin
    q.end()
    begin = time.monotonic()
    q = Qemu(folder, opts, '-incoming', f'exec:cat {file}')
    q.wait('query-status', 'status', 'running')
    restore = time.monotonic() - begin
    q.end()
    os.unlink(q.path)
    return {'create': save, 'restore': restore}


def timed(opts, *args):
    begin = time.monotonic()
    run(opts.trapeze, *args, env=dict(os.environ, TRAPEZE_ROOT=opts.root))
    return time.monotonic() - begin


def trapeze_round(opts, folder):
    opts.root = os.path.join(folder, 'root')
    timed(opts, 'run', '-d', '--name', 'web', '--kernel', opts.kernel, '--initrd', opts.initrd, '--append',
          'console=ttyS0 quiet', '--memory', opts.memory)
    time.sleep(opts.boot)
    took = {'create': timed(opts, 'snapshot', 'create', 'web', 'one'),
            'incremental': timed(opts, 'snapshot', 'create', '--parent', 'one', 'web', 'two'),
            'restore': timed(opts, 'snapshot', 'restore', '-d', '--name', 'again', 'one')}
    took['clones'] = timed(opts, 'snapshot', 'clone', '--count', str(opts.clones), '--name-prefix', 'c', 'one')
    guests = ['web', 'again'] + [f'c-{i + 1}' for i in range(opts.clones)]
    timed(opts, 'kill', *guests)
    shutil.rmtree(opts.root)
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--trapeze', required=True)
    parser.add_argument('--kernel', required=True, help='a bzImage')
    parser.add_argument('--initrd', required=True, help='made by tools/make-rootfs.sh')
    parser.add_argument('--memory', default='512M')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--clones', type=int, default=100)
    parser.add_argument('--boot', type=float, default=5, help='seconds to wait for the guest')
    opts = parser.parse_args()
    rows = {'trapeze': [], 'qemu': []}
    for _ in range(opts.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rows['trapeze'].append(trapeze_round(opts, folder))
        if shutil.which('qemu-system-x86_64'):
            with tempfile.TemporaryDirectory() as folder:
                rows['qemu'].append(qemu_round(opts, folder))
    median = {who: {k: statistics.median(r[k] for r in took) for k in took[0]} for who, took in rows.items() if took}
    for who, values in median.items():
        print(who, ' '.join(f'{k} {v:.3f} s' for k, v in values.items()))
    for k in ('create', 'restore'):
        if 'qemu' in median:
            print(f'{k}: {median["trapeze"][k] / median["qemu"][k]:.2f} of QEMU')


if __name__ == '__main__':
    main()
