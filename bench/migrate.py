#!/usr/bin/env python3
"""Live migration beside QEMU's, same guest, same host, in turns: total time, blackout, bytes on the line.

usage: bench/migrate.py [--build DIR] [--rounds N] [--quick] [--out FILE]. The guest (guest/payload/walker.c) fills memory, rewrites a
working set page by page at a chosen rate, checks each page before, and writes a byte to the debug port every millisecond. We stamp
those bytes: the blackout is from the last of the source to the first of the destination. QEMU is whichever
`qemu-system-x86_64` is installed; without one only our side is measured. Figures are medians; nothing is asserted.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

QEMU = shutil.which('qemu-system-x86_64')
LINE = 128 * 1024 * 1024
# name, guest's rate in MiB/s, line in bytes/s or 0, our options, QEMU's capabilities
CASES = [
    ('idle, unlimited line', 0, 0, [], []),
    ('idle, unlimited line, zstd', 0, 0, ['--compress', 'zstd'], None),
    ('100 MB/s, line 128 MiB/s', 100, LINE, ['--hybrid', '--delta', '512M'], []),
    ('100 MB/s, one word a page, 128 MiB/s', 100, LINE, ['--delta', '512M'], ['xbzrle']),
    ('400 MB/s, line 128 MiB/s', 400, LINE, ['--hybrid'], []),
    ('400 MB/s, unlimited', 400, 0, ['--hybrid'], []),
    ('post-copy, 100 MB/s, unlimited', 100, 0, ['--postcopy'], ['postcopy-ram']),
]
LIMIT_S = 30


class Pipe:
    """A named pipe that a VMM writes the guest's bytes to; remembers when the first and the last came."""

    def __init__(self, path):
        self.path, self.first, self.last, self.count = path, None, None, 0
        self.text = b''
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR)
        self.stop = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while not self.stop:
            data = os.read(self.fd, 4096)
            now = time.monotonic()
            if self.stop:
                break
            self.first = self.first or now
            self.last = now
            self.count += len(data)
            self.text = (self.text + data)[-200:]

    def close(self):
        self.stop = True
        os.write(self.fd, b'.')
        self.thread.join()
        os.close(self.fd)


def wait(what, condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)


def walk(rate, words):
    return f'set=256 fill=104 rate={rate} words={words}'


def begin(pipe):
    """The guest has filled its memory, and has gone on for a while."""
    wait('the guest starts', lambda: pipe.count > 1500, 120)


def result(here, there, start, end, sent):
    wait('the guest goes on', lambda: there.count > 50)
    if b'walker' in there.text:
        raise RuntimeError(there.text.decode(errors='replace'))
    return {'total_s': end - start, 'blackout_ms': (there.first - here.last) * 1e3, 'mb': sent / 1e6}


def ours(args, folder, rate, words, line, options):
    trapeze = os.path.join(args.build, 'src/cmd/trapeze')
    walker = os.path.join(args.build, 'guest/payload/walker64')
    here, there = Pipe(f'{folder}/here'), Pipe(f'{folder}/there')
    env = [dict(os.environ, TRAPEZE_ROOT=f'{folder}/{n}') for n in 'ab']
    place = f'unix:{folder}/in'
    quiet = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    receiver = subprocess.Popen([trapeze, 'receive', '--debug-console', f'0xe9,file={there.path}', place], env=env[1], **quiet)
    try:
        subprocess.run([trapeze, 'run', '-d', '--name', 'g', '--accel', 'bt', '-k', walker, '-a', walk(rate, words), '-m', '1G',
                        '--net', 'none', '--serial', 'null', '--no-reboot', '--debug-console', f'0xe9,file={here.path}',
                        '--debug-exit', '0xf4'], env=env[0], check=True, **quiet)
        begin(here)
        more = ['--bandwidth', f'{line // 1048576}M'] if line else []
        start = time.monotonic()
        run = subprocess.run([trapeze, 'migrate', '--format', 'json', *options, *more, 'g', place], env=env[0],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False)
        end = time.monotonic()
        if run.returncode:
            raise RuntimeError(run.stderr)
        summary = json.loads(run.stdout.splitlines()[-1])
        return result(here, there, start, start + summary['elapsed_ns'] / 1e9 if end > start else end, summary['sent_bytes'])
    finally:
        receiver.kill()
        receiver.wait()
        for e in env:
            subprocess.run([trapeze, 'rm', '-f', 'g'], env=e, check=False, **quiet)
        here.close()
        there.close()


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        wait('QEMU listens', lambda: os.path.exists(path))
        self.socket.connect(path)
        self.file = self.socket.makefile('rw')
        self.file.readline()
        self.do('qmp_capabilities')

    def do(self, what, **arguments):
        self.file.write(json.dumps({'execute': what, 'arguments': arguments}) + '\n')
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if 'error' in answer:
                raise RuntimeError(answer['error']['desc'])
            if 'return' in answer:
                return answer['return']


def qemu_start(args, folder, name, pipe, more):
    walker = os.path.join(args.build, 'guest/payload/walker64')
    command = [QEMU, '-accel', 'tcg', '-cpu', 'max', '-m', '1024', '-display', 'none', '-nodefaults', '-no-reboot', '-kernel', walker,
               '-append', more.pop(0), '-chardev', f'file,id=d,path={pipe.path}', '-device', 'isa-debugcon,iobase=0xe9,chardev=d',
               '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-qmp', f'unix:{folder}/{name}.qmp,server=on,wait=off', *more]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rival(args, folder, rate, words, line, capabilities):
    here, there = Pipe(f'{folder}/here'), Pipe(f'{folder}/there')
    line_of = walk(rate, words)
    source = qemu_start(args, folder, 'a', here, [line_of])
    target = qemu_start(args, folder, 'b', there, [line_of, '-incoming', f'unix:{folder}/in'])
    try:
        a, b = Qmp(f'{folder}/a.qmp'), Qmp(f'{folder}/b.qmp')
        for name in capabilities:
            for q in (a, b):
                q.do('migrate-set-capabilities', capabilities=[{'capability': name, 'state': True}])
        a.do('migrate-set-parameters', **{'max-bandwidth': line or 1 << 40, 'downtime-limit': 300})
        if 'xbzrle' in capabilities:
            a.do('migrate-set-parameters', **{'xbzrle-cache-size': 512 << 20})
        begin(here)
        start = time.monotonic()
        a.do('migrate', uri=f'unix:{folder}/in')
        if 'postcopy-ram' in capabilities:
            time.sleep(0.1)
            a.do('migrate-start-postcopy')
        while (state := a.do('query-migrate'))['status'] not in ('completed', 'failed'):
            if time.monotonic() - start > LIMIT_S:
                return None
            time.sleep(0.01)
        end = time.monotonic()
        if state['status'] == 'failed':
            raise RuntimeError(state.get('error-desc', 'failed'))
        return result(here, there, start, end, state['ram']['transferred'])
    finally:
        for process in (source, target):
            process.kill()
            process.wait()
        here.close()
        there.close()


def once(fn, *args):
    folder = tempfile.mkdtemp(prefix='trapeze-bench-')
    try:
        return fn(args[0], folder, *args[1:])
    except (RuntimeError, TimeoutError, OSError, ValueError, subprocess.SubprocessError) as wrong:
        print(f'  failed: {wrong}', file=sys.stderr)
        return {'wrong': 'the guest found wrong bytes' if 'walker' in str(wrong) else 'failed'}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cell(rounds):
    good = [r for r in rounds if r and 'wrong' not in r]
    if not good:
        return next((r['wrong'] for r in rounds if r), f'no end in {LIMIT_S} s')
    total, dark, sent = (statistics.median(r[k] for r in good) for k in ('total_s', 'blackout_ms', 'mb'))
    lost = f' ({len(rounds) - len(good)} of {len(rounds)} failed or without end)' if len(good) < len(rounds) else ''
    return f'{total:.2f} s / {dark:.0f} ms / {sent:.0f} MB{lost}'


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    options.add_argument('--build', default='build')
    options.add_argument('--rounds', type=int, default=3)
    options.add_argument('--quick', action='store_true', help='one round, ours only')
    options.add_argument('--out', help='write the table there, too')
    args, _ = options.parse_known_args()
    version = subprocess.run([QEMU, '--version'], capture_output=True, text=True, check=False).stdout.split('\n')[0] if QEMU else ''
    rows = [f'| case | {version or "QEMU is not installed"} | trapeze |', '|---|---|---|']
    for name, rate, line, mine, theirs in CASES:
        words = 1 if 'one word' in name else 512
        results = {'q': [], 't': []}
        for _ in range(1 if args.quick else args.rounds):
            if QEMU and theirs is not None and not args.quick:
                results['q'].append(once(rival, args, rate, words, line, theirs))
            results['t'].append(once(ours, args, rate, words, line, mine))
        other = cell(results['q']) if results['q'] else '-'
        rows.append(f'| {name} | {other} | {cell(results["t"])} |')
        print(rows[-1], flush=True)
    text = '\n'.join(rows) + f'\n\nTotal / blackout / sent, medians; load of the host {os.getloadavg()[0]:.1f}.\n'
    print(text)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as f:
            f.write(text)


if __name__ == '__main__':
    main()
