#!/usr/bin/env python3
"""Live migration beside QEMU's, same guest, same host, in turns: total time, blackout, bytes on the line, and what the guest felt.

The guest (guest/payload/walker.c) fills 360 MiB of its 1 GiB, rewrites 256 MiB of it page by page at a chosen rate, checks each
page before, calculates in between, and writes a byte to the debug port every millisecond and another after so much work, be it
pages or calculation. We stamp those bytes when they come out: the blackout is from the last of the source to the first of the
destination; `work` is how much it did on its old host while it was copied, then on both until all of it was there, and
`ticks` how many of its milliseconds it made use of in the first second after, all in percent of the second before. How much of
its work it gets done beside somebody who only copies memory is measured, too. Nothing is asserted. Every process and file of a
run is in a folder of its own, TRAPEZE_ROOT too, and gone after it.
"""
import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from guests import QUIET, Pipe, Qmp, use_stamper, wait, warm_memory
from run import first_line, host_name

LINE = 128 * 1024 * 1024
PAGES = 'same=8'  # of a kind that zstd makes an eighth of
MULTIFD = ['multifd']
# name, guest, line in bytes/s or 0, our options, QEMU's capabilities
CASES = [
    ('idle, unlimited line', 'rate=0', 0, [], []),
    ('the same, several connections', 'rate=0', 0, ['--connections', '2'], MULTIFD),
    ('the same, compressed', 'rate=0 ' + PAGES, 0, ['--compress', 'zstd'], ['multifd', 'zstd']),
    ('100 MB/s, line 128 MiB/s', 'rate=100', LINE, [], []),
    ('the same, one word of each page', 'rate=100 words=1', LINE, [], ['xbzrle']),
    ('the same, memory that can be compressed', 'rate=100 ' + PAGES, LINE, [], ['multifd', 'zstd']),
    ('400 MB/s, line 128 MiB/s', 'rate=400', LINE, [], []),
    ('400 MB/s, unlimited', 'rate=400', 0, [], MULTIFD),
    ('post-copy, idle, unlimited', 'rate=0', 0, ['--postcopy'], ['postcopy-ram']),
    ('post-copy, 100 MB/s, unlimited', 'rate=100', 0, ['--postcopy'], ['postcopy-ram']),
    ('post-copy, 400 MB/s, unlimited', 'rate=400', 0, ['--postcopy'], ['postcopy-ram']),
]
# Enough to see what a neighbour does to both; all of them would take as long again.
ON_A_BUSY_HOST = ('idle, unlimited line', '100 MB/s, line 128 MiB/s', '400 MB/s, unlimited', 'post-copy, 100 MB/s, unlimited')
LIMIT_S = 30


class Debug(Pipe):
    """What a guest writes to its debug port, and when it came."""

    def __init__(self, path):
        self.seen = []  # (when, ticks, steps of work) of each read
        self.count = 0
        self.text = b''
        super().__init__(path)

    def came(self, now, data):
        steps = data.count(b'w')
        self.seen.append((now, len(data) - steps, steps))
        self.count += len(data) - steps
        self.text = (self.text + data)[-200:]

    def first(self):
        return self.seen[0][0]

    def last(self):
        return self.seen[-1][0]

    def rates(self, start, end):
        """Ticks and steps of work a second in that time."""
        inside = [s for s in self.seen if start < s[0] <= end]
        took = max(end - start, 1e-9)
        return sum(s[1] for s in inside) / took, sum(s[2] for s in inside) / took


def walk(guest):
    return f'set=256 fill=104 work=4096 {guest}'


def begin(pipe):
    """The guest has filled its memory, and has gone on for a while."""
    wait('the guest starts', lambda: pipe.count > 1500, 120)
    time.sleep(0.3)


def check(pipe):
    if b'walker' in pipe.text:
        raise RuntimeError(pipe.text.decode(errors='replace'))


def result(here, there, start, end, sent):
    """What the guest did after is measured once all has come, for a second from its first byte on."""
    wait('the guest goes on', lambda: there.count > 50)
    last, first = here.last(), there.first()
    time.sleep(max(0, first + 1.05 - time.monotonic()))
    check(there)
    before = here.rates(start - 1, start)
    during, after = here.rates(start, last), there.rates(first, first + 1)
    whole = max(end, first) - start  # with the blackout in it
    steps = sum(s[2] for s in here.seen if s[0] > start) + sum(s[2] for s in there.seen if s[0] <= start + whole)
    return {'total_s': end - start, 'blackout_ms': (first - last) * 1e3, 'mb': sent / 1e6,
            'work': 100 * during[1] / max(before[1], 1), 'all_work': 100 * steps / whole / max(before[1], 1),
            'ticks': 100 * after[0] / max(before[0], 1)}


class Trapeze:
    """A host: a folder for records, and who receives."""

    def __init__(self, args, folder, name):
        self.binary = os.path.join(args.build, 'src/cmd/trapeze')
        self.folder = f'{folder}/{name}'
        os.mkdir(self.folder)
        self.env = dict(os.environ, TRAPEZE_ROOT=f'{self.folder}/root')
        self.place = f'unix:{self.folder}/in'
        self.pipe = Debug(f'{self.folder}/debug')
        self.receiver = subprocess.Popen(
            [self.binary, 'receive', '--debug-console', f'0xe9,file={self.pipe.path}', self.place], env=self.env, **QUIET)

    def start(self, args, guest):
        walker = os.path.join(args.build, 'guest/payload/walker64')
        subprocess.run([self.binary, 'run', '-d', '--name', 'g', '--accel', 'bt', '-k', walker, '-a', walk(guest), '-m', '1G',
                        '--net', 'none', '--serial', 'null', '--no-reboot', '--debug-console', f'0xe9,file={self.pipe.path}',
                        '--debug-exit', '0xf4'], env=self.env, check=True, **QUIET)
        begin(self.pipe)

    def migrate(self, there, line, options):
        more = ['--bandwidth', f'{line // 1048576}M'] if line else []
        start = time.monotonic()
        run = subprocess.run([self.binary, 'migrate', '--format', 'json', *options, *more, 'g', there.place], env=self.env,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False)
        end = time.monotonic()
        if run.returncode:
            raise RuntimeError(run.stderr)
        summary = json.loads(run.stdout.splitlines()[-1])
        if os.environ.get('BENCH_VERBOSE'):
            print(f'  {summary}', file=sys.stderr)
        return start, min(end, start + summary['elapsed_ns'] / 1e9), summary['sent_bytes']

    def close(self):
        self.receiver.kill()
        self.receiver.wait()
        subprocess.run([self.binary, 'rm', '-f', 'g'], env=self.env, check=False, **QUIET)
        self.pipe.close()


def ours(args, folder, guest, line, options):
    hosts = []
    try:
        hosts = [Trapeze(args, folder, 'a'), Trapeze(args, folder, 'b')]
        here, there = hosts
        here.start(args, guest)
        start, end, sent = here.migrate(there, line, options)
        return result(here.pipe, there.pipe, start, end, sent)
    finally:
        for host in hosts:
            host.close()


def qemu_start(args, folder, name, pipe, line, *more):
    walker = os.path.join(args.build, 'guest/payload/walker64')
    command = [args.qemu, '-accel', 'tcg', '-cpu', 'max', '-m', '1024', '-display', 'none', '-nodefaults', '-no-reboot', '-kernel',
               walker, '-append', line, '-chardev', f'file,id=d,path={pipe.path}', '-device', 'isa-debugcon,iobase=0xe9,chardev=d',
               '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-qmp', f'unix:{folder}/{name}.qmp,server=on,wait=off', *more]
    return subprocess.Popen(command, **QUIET)


def qemu_prepare(a, b, line, capabilities):
    parameters = {'max-bandwidth': line or 1 << 40, 'downtime-limit': 300}
    if 'xbzrle' in capabilities:
        parameters['xbzrle-cache-size'] = 512 << 20
    if 'multifd' in capabilities:
        parameters['multifd-channels'] = 2
    if 'zstd' in capabilities:
        parameters['multifd-compression'] = 'zstd'
    for q in (a, b):
        for name in capabilities:
            if name != 'zstd':
                q.do('migrate-set-capabilities', capabilities=[{'capability': name, 'state': True}])
        q.do('migrate-set-parameters', **parameters)


def rival(args, folder, guest, line, capabilities):
    here, there = Debug(f'{folder}/here'), Debug(f'{folder}/there')
    processes = []
    try:
        processes.append(qemu_start(args, folder, 'a', here, walk(guest)))
        processes.append(qemu_start(args, folder, 'b', there, walk(guest), '-incoming', 'defer'))
        a, b = Qmp(f'{folder}/a.qmp'), Qmp(f'{folder}/b.qmp')
        qemu_prepare(a, b, line, capabilities)
        b.do('migrate-incoming', uri=f'unix:{folder}/in')
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
        for process in processes:
            process.kill()
            process.wait()
        here.close()
        there.close()


def in_folder(fn, *args):
    folder = tempfile.mkdtemp(prefix='trapeze-bench-migrate-')
    warm_memory()
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
        return next((r['wrong'] for r in rounds if r), f'no end in {LIMIT_S} s') + ' | |'
    total, dark, sent, work, all_work, ticks = (
        statistics.median(r[k] for r in good) for k in ('total_s', 'blackout_ms', 'mb', 'work', 'all_work', 'ticks'))
    lost = f' ({len(rounds) - len(good)} of {len(rounds)} failed or without end)' if len(good) < len(rounds) else ''
    worst = max(r['blackout_ms'] for r in good)
    return f'{total:.2f} s / {dark:.0f} (worst {worst:.0f}) ms / {sent:.0f} MB{lost} | {work:.0f}, {all_work:.0f} % | {ticks:.0f} %'


def how(options):
    return ' '.join(options) or 'defaults'


def table(args, title, cases):
    """One line for each case: QEMU's rounds and ours, in turns. Who came to no end is not asked again."""
    rows = [f'| {title}: case | QEMU: options | total / blackout / sent | work | ticks | Trapeze: options | total / blackout / sent '
            '| work | ticks |', '|---|---|---|--:|--:|---|---|--:|--:|']
    print('\n'.join(rows), flush=True)
    for name, guest, line, mine, theirs in cases:
        if args.only and not re.search(args.only, name):
            continue
        results = {'q': [], 't': []}
        for _ in range(1 if args.quick else args.rounds):
            if args.qemu and not args.quick and None not in results['q']:
                results['q'].append(in_folder(rival, args, guest, line, theirs))
            results['t'].append(in_folder(ours, args, guest, line, mine))
        other = cell(results['q']) if results['q'] else '- | |'
        rows.append(f'| {name} | {how(theirs)} | {other} | {how(mine)} | {cell(results["t"])} |')
        print(rows[-1], flush=True)
    return rows


def moves(args, folder):
    """There and back: wrong or lost bytes, and the blackouts."""
    hosts, dark, done = [], [], 0
    try:
        hosts = [Trapeze(args, folder, 'a'), Trapeze(args, folder, 'b')]
        hosts[0].start(args, 'rate=100')
        for done in range(args.moves):
            here, there = hosts[done % 2].pipe, hosts[(done + 1) % 2].pipe
            there.seen.clear()
            count = there.count
            hosts[done % 2].migrate(hosts[(done + 1) % 2], 0, [])
            wait('the guest goes on', lambda p=there, c=count: p.count > c + 200)
            check(there)
            dark.append((there.first() - here.last()) * 1e3)
            subprocess.run([hosts[done % 2].binary, 'rm', 'g'], env=hosts[done % 2].env, check=False, **QUIET)
        return (f'{args.moves} migrations there and back at 100 MB/s, unlimited line, defaults: none with a wrong byte; blackout '
                f'median {statistics.median(dark):.1f} ms, worst {max(dark):.1f} ms.')
    except (RuntimeError, TimeoutError) as wrong:
        return f'migration {done + 1} of {args.moves} failed: {wrong}'
    finally:
        for host in hosts:
            host.close()


COPIES = 'import os; os.nice(10); a = bytearray(1 << 28); b = bytearray(1 << 28)\nwhile True: b[:] = a'


def beside_copying(args, folder):
    """What the processors' shared memory alone costs: the guest's work while another process copies, as nice as we are."""
    host = Trapeze(args, folder, 'a')
    work = {None: [], COPIES: []}
    try:
        host.start(args, 'rate=400')
        for _ in range(5):
            for what, rates in work.items():
                process = subprocess.Popen([sys.executable, '-c', what or 'import time; time.sleep(60)'], **QUIET)
                time.sleep(0.5)
                start = host.pipe.last()
                time.sleep(1)
                rates.append(host.pipe.rates(start, host.pipe.last())[1])
                process.kill()
                process.wait()
        check(host.pipe)
        shares = [100 * beside / alone for alone, beside in zip(work[None], work[COPIES])]
        return (f'Beside a process that does nothing but copy memory, as nice as who copies a guest, the guest that rewrites 400 MB/s '
                f'gets {statistics.median(shares):.0f} % of its work done (of five seconds, {min(shares):.0f} to {max(shares):.0f}).')
    finally:
        host.close()


def document(args, version, grouped, tables, lines):
    command = f'bench/migrate.py --rounds {args.rounds}' + (' --busy' if args.busy else '') + \
        (f' --moves {args.moves}' if args.moves else '')
    return '\n'.join([
        '# Migration beside QEMU', '',
        f'{datetime.date.today()}, {host_name()}. Rival: {version} (TCG). Load of the host at the end: {os.getloadavg()[0]:.1f}.'
        f'{args.note and " " + args.note}', '',
        f'Command: `{command}`. Medians of {args.rounds} alternating rounds; written by it, do not edit.', '',
        *(text for rows in tables for text in rows + ['']), *(text for line in lines for text in (line, '')),
        'A 1 GiB guest with 360 MiB of contents; 256 MiB of it are rewritten at the rate in the first column. Blackout: from the last '
        'byte of the source\'s guest to the first of the destination\'s, one a millisecond, stamped by the host. Work: what it '
        'did on its old host while it was copied, pages and calculation; the second figure: on both hosts, from the start until all '
        'of it was there. Ticks: of its milliseconds in the second after the hand-over. All in percent of the second before. Both hosts and '
        'the guest share the processors of one machine, whose memory is touched before each round, and whose kernel '
        f'{"does not weigh" if grouped else "may weigh"} their sessions against each other.', ''])


AUTOGROUP = '/proc/sys/kernel/sched_autogroup_enabled'


@contextlib.contextmanager
def one_group():
    """Both ends are sessions of one machine here. Where a kernel weighs sessions against each other (sched(7), autogroups; not
    below systemd's control groups), who receives would get as much of the processors as who runs, whatever its priority. Says
    whether that could be turned off."""
    try:
        with open(AUTOGROUP, 'r+', encoding='ascii') as f:
            before = f.read()
            f.seek(0)
            f.write('0')
    except OSError:
        yield not os.path.exists(AUTOGROUP)
        return
    try:
        yield True
    finally:
        with open(AUTOGROUP, 'w', encoding='ascii') as f:
            f.write(before)


def busy():
    """A neighbour that wants a processor for itself."""
    return subprocess.Popen([sys.executable, '-c', 'while True: pass'], stdin=subprocess.DEVNULL)


def measure(args):
    """The tables, and what is said below them."""
    tables = [table(args, 'idle host', CASES)]
    if args.busy:
        neighbour = busy()
        try:
            tables.append(table(args, 'busy host', [c for c in CASES if c[0] in ON_A_BUSY_HOST]))
        finally:
            neighbour.kill()
            neighbour.wait()
    said = [in_folder(beside_copying, args)] if not args.only else []
    if args.moves:
        said.append(in_folder(moves, args))
    lines = [line if isinstance(line, str) else f'Not measured: {line["wrong"]}.' for line in said]
    print('\n'.join(lines))
    return tables, lines


def interrupted(_number, _frame):
    sys.exit(1)  # through every finally


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    options.add_argument('--build', default='build')
    options.add_argument('--rounds', type=int, default=3)
    options.add_argument('--quick', action='store_true', help='one round, ours only')
    options.add_argument('--only', metavar='REGEX', help='cases whose name matches')
    options.add_argument('--busy', action='store_true', help='some of it once more beside a busy process')
    options.add_argument('--moves', type=int, default=0, metavar='N', help='also migrate N times, there and back')
    options.add_argument('--qemu', default=shutil.which('qemu-system-x86_64'), metavar='PROGRAM',
                         help='the rival; Debian 12\'s own, 7.2, corrupts guests that write while they move: take that of its backports')
    options.add_argument('--note', default='', help='what else there is to know about the host, for --out')
    options.add_argument('--out', help='write the tables there, too')
    args, _ = options.parse_known_args()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    version = first_line([args.qemu or 'qemu-system-x86_64', '--version'])
    print(f'rival: {version}', file=sys.stderr, flush=True)
    use_stamper(args.build)
    with one_group() as grouped:
        tables, lines = measure(args)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as f:
            f.write(document(args, version, grouped, tables, lines))


if __name__ == '__main__':
    main()
