#!/usr/bin/env python3
"""Compares trapeze with QEMU's translator and with the host itself, in alternating rounds of one run.

Prints a table and writes it, with the raw figures, to RESULTS.md and results.json in --out. Every figure is the
median over the rounds. Nothing here is a test: no time is asserted.
"""
import argparse
import atexit
import json
import math
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(HERE)
APPEND = 'quiet tsc=reliable panic=-1 console=ttyS0'
CLASSES = {
    'int': 'integer, branches',
    'memory': 'memory',
    'float': 'floating point, SIMD, x87',
    'system': 'system calls, faults, processes, signals',
    'code': 'JIT and self-modifying code',
    'smp': 'two processors in parallel',
}


class Failure(Exception):
    pass


# --- the guest's files -------------------------------------------------------------------------------------------


def cpio_entry(name, mode, data=b''):
    """One member of a "newc" archive, padded to 4 bytes."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b'070701' + b''.join(b'%08X' % f for f in fields) + name.encode() + b'\0'
    head += b'\0' * (-len(head) % 4)
    return head + data + b'\0' * (-len(data) % 4)


def write_initramfs(path, program):
    with open(program, 'rb') as f:
        data = f.read()
    with open(path, 'wb') as f:
        f.write(cpio_entry('dev', 0o040755) + cpio_entry('proc', 0o040755) + cpio_entry('tmp', 0o041777))
        f.write(cpio_entry('init', 0o100755, data) + cpio_entry('TRAILER!!!', 0))


# --- one run of one subject --------------------------------------------------------------------------------------


def tree_of(pid):
    """The process and its descendants."""
    found, at = [pid], 0
    while at < len(found):
        try:
            for task in os.listdir(f'/proc/{found[at]}/task'):
                with open(f'/proc/{found[at]}/task/{task}/children', encoding='ascii') as f:
                    found += [int(p) for p in f.read().split()]
        except OSError:
            pass
        at += 1
    return found


def overhead_kib(pid, memory_kib):
    """Host memory of a VMM beyond its guest's RAM: Pss without the mappings that are the RAM."""
    total = 0
    for process in tree_of(pid):
        skip = False
        try:
            with open(f'/proc/{process}/smaps', encoding='utf-8', errors='replace') as f:
                for line in f:
                    words = line.split()
                    if '-' in words[0] and not words[0].endswith(':'):
                        start, end = (int(x, 16) for x in words[0].split('-'))
                        size = (end - start) // 1024
                        skip = 'memfd:guest-memory' in line or memory_kib <= size < memory_kib + 4096
                    elif words[0] == 'Pss:' and not skip:
                        total += int(words[1])
        except OSError:
            pass
    return total


class Reader:
    """Lines from a descriptor, with a deadline."""

    def __init__(self, fd, deadline):
        self.fd, self.deadline, self.rest = fd, deadline, b''

    def line(self, process):
        while b'\n' not in self.rest:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Failure('took too long')
            if select.select([self.fd], [], [], min(left, 0.2))[0]:
                data = os.read(self.fd, 65536)
                if data:
                    self.rest += data
                    continue
            if process.poll() is not None:
                raise Failure(f'ended early with status {process.returncode}')
            if left > 0.05:
                time.sleep(0.0005)
        line, self.rest = self.rest.split(b'\n', 1)
        return line.decode(errors='replace').split()


def parse_row(words, rows, classes):
    if words[0] == 'row':
        rows[words[1]] = float(words[3])
    if words[0] in ('row', 'skip'):
        classes[words[1]] = words[2]


def run_guest(command, fifo, args):
    """Starts a VMM, follows what its guest says. Returns rows, seconds to the first program, overhead."""
    result = {'rows': {}, 'classes': {}}
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=args.log)
    try:
        reader = Reader(fd, start + args.timeout)
        while True:
            words = reader.line(process)
            if not words:
                continue
            if words[0] == 'first-user':
                result['boot_s'] = time.monotonic() - start
                result['overhead_first_kib'] = overhead_kib(process.pid, args.memory * 1024)
            elif words[0] == 'done':
                result['overhead_kib'] = overhead_kib(process.pid, args.memory * 1024)
                break
            else:
                parse_row(words, result['rows'], result['classes'])
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(fd)
    return result


def run_native(program, rows, args):
    out = subprocess.run([program] + rows, stdout=subprocess.PIPE, timeout=args.timeout, check=True, text=True).stdout
    result = {'rows': {}, 'classes': {}}
    for line in out.splitlines():
        parse_row(line.split(), result['rows'], result['classes'])
    return result


def trapeze_command(args, files, cpus, rows):
    return [args.trapeze, 'run', '--accel', args.accel, '--cpu', args.cpu, '--kernel', files['kernel'],
            '--initrd', files['initrd'], '--memory', f'{args.memory}M', '--cpus', str(cpus), '--serial', 'null',
            '--net', 'none', '--append', APPEND + ' -- ' + ' '.join(rows),
            '--debug-console', f'0xe9,file={files["fifo"]}', '--debug-exit', '0xf4']


def qemu_command(args, files, cpus, rows, machine='q35'):
    thread = ',thread=multi' if cpus > 1 else ''
    options = 'microvm,acpi=off,rtc=on,pit=on,pic=on' if machine == 'microvm' else machine
    return [args.qemu, '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-M', options,
            '-accel', 'tcg' + thread, '-cpu', 'max', '-m', str(args.memory), '-smp', str(cpus),
            '-kernel', files['kernel'], '-initrd', files['initrd'], '-append', APPEND + ' -- ' + ' '.join(rows),
            '-debugcon', f'file:{files["fifo"]}', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4']


# --- rounds ------------------------------------------------------------------------------------------------------


def subjects(args, files):
    """Name -> function(rows, cpus) -> result, or None for a run this subject has no part in."""
    found = {}
    if not args.no_native:
        found['native'] = lambda rows, cpus: run_native(files['program'], rows, args)
    if not args.no_trapeze:
        found['trapeze'] = lambda rows, cpus: run_guest(trapeze_command(args, files, cpus, rows), files['fifo'], args)
    if not args.no_qemu and not shutil.which(args.qemu):
        print(f'bench: {args.qemu} is not installed (Debian: qemu-system-x86), so there is no rival', file=sys.stderr)
    elif not args.no_qemu:
        found['qemu'] = lambda rows, cpus: run_guest(qemu_command(args, files, cpus, rows), files['fifo'], args)
    return found


def merge(into, result):
    for key in ('boot_s', 'overhead_kib', 'overhead_first_kib'):
        if key in result:
            into.setdefault(key, []).append(result[key])
    for row, value in result['rows'].items():
        into.setdefault('rows', {}).setdefault(row, []).append(value)
    into.setdefault('classes', {}).update(result['classes'])


def attempt(name, what, fn, store, failures):
    print(f'{time.strftime("%H:%M:%S")} {what}: {name}', file=sys.stderr, flush=True)
    try:
        merge(store.setdefault(name, {}), fn())
    except (Failure, OSError, subprocess.SubprocessError) as e:
        failures.append(f'{what}: {name}: {e}')
        print(f'  {e}', file=sys.stderr)


def run_rounds(args, files):
    """Returns {run: {subject: merged results}} for the runs single, smp and boot, and what failed."""
    data, failures = {'single': {}, 'smp': {}, 'boot': {}}, []
    who = subjects(args, files)
    rows = args.rows.split(',') if args.rows else ['single']
    cpus = 2 if any(row.startswith('smp') for row in rows) else 1
    for number in range(1, args.rounds + 1):
        for name, fn in who.items():
            attempt(name, f'round {number}', lambda fn=fn: fn(rows, cpus), data['single'], failures)
        if not args.rows and not args.no_smp:
            for name, fn in who.items():
                attempt(name, f'round {number}, 2 processors', lambda fn=fn: fn(['smp'], 2), data['smp'], failures)
    for number in range(1, args.boots + 1):
        for name, fn in boot_subjects(args, files, who).items():
            attempt(name, f'boot {number}', fn, data['boot'], failures)
    return data, failures


def boot_subjects(args, files, who):
    found = {}
    if 'trapeze' in who:
        found['trapeze'] = lambda: who['trapeze'](['none'], 1)
    if 'qemu' in who:
        for machine in ('microvm', 'q35'):
            found[f'qemu {machine}'] = lambda machine=machine: run_guest(
                qemu_command(args, files, 1, ['none'], machine), files['fifo'], args)
    return found


# --- the table ---------------------------------------------------------------------------------------------------


def human(ns):
    for limit, unit, scale in ((1e3, 'ns', 1), (1e6, 'us', 1e3), (1e9, 'ms', 1e6)):
        if ns < limit:
            return f'{ns / scale:.3g} {unit}'
    return f'{ns / 1e9:.3g} s'


def ratio(a, b):
    return a / b if a and b else None


def show(value):
    return '-' if value is None else f'{value:.3g}'


def geomean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def medians(run):
    return {name: {row: statistics.median(v) for row, v in data.get('rows', {}).items()} for name, data in run.items()}


def compare(data):
    """All rows with their figures and ratios."""
    table = []
    for run in ('single', 'smp'):
        values, classes = medians(data[run]), {}
        for subject in data[run].values():
            classes.update(subject.get('classes', {}))
        for row, kind in classes.items():
            n, q, t = (values.get(s, {}).get(row) for s in ('native', 'qemu', 'trapeze'))
            if any((n, q, t)):
                table.append({'row': row, 'class': kind, 'native_ns': n, 'qemu_ns': q, 'trapeze_ns': t,
                              'qemu_x': ratio(q, n), 'trapeze_x': ratio(t, n), 'faster': ratio(q, t)})
    return table


def class_means(table):
    means = []
    for kind, title in CLASSES.items():
        rows = [r for r in table if r['class'] == kind]
        if rows:
            means.append({'class': kind, 'title': title, 'rows': len(rows),
                          **{key: geomean([r[key] for r in rows]) for key in ('qemu_x', 'trapeze_x', 'faster')}})
    return means


def boot_table(data):
    lines = []
    for name, d in data['boot'].items():
        if d.get('boot_s'):
            lines.append({'subject': name, 'boot_s': statistics.median(d['boot_s']), 'best_s': min(d['boot_s']),
                          'overhead_mib': statistics.median(d['overhead_first_kib']) / 1024})
    for name, d in data['single'].items():
        if d.get('overhead_kib'):
            lines.append({'subject': f'{name}, after all rows',
                          'overhead_mib': statistics.median(d['overhead_kib']) / 1024})
    return lines


def markdown(report):
    out = ['# Results of `make bench`', '', f'{report["when"]}, {report["host"]}. Rival: {report["qemu"]}.', '']
    out += [f'Command: `{report["command"]}`. Medians of {report["rounds"]} alternating rounds; x = guest / native;',
            'faster = QEMU / Trapeze. Written by `bench/run.py`; do not edit.', '']
    out += ['| class (geometric mean) | rows | QEMU x | Trapeze x | faster |', '|---|--:|--:|--:|--:|']
    for m in report['classes']:
        out.append(f'| {m["title"]} | {m["rows"]} | {show(m["qemu_x"])} | {show(m["trapeze_x"])} | {show(m["faster"])} |')
    out += ['', '| start of the VMM to the first user program | median s | best s | host memory beyond RAM, MiB |',
            '|---|--:|--:|--:|']
    for b in report['boot']:
        out.append(f'| {b["subject"]} | {show(b.get("boot_s"))} | {show(b.get("best_s"))} | {b["overhead_mib"]:.1f} |')
    out += ['', '| row (one operation) | class | native | QEMU | Trapeze | QEMU x | Trapeze x | faster |',
            '|---|---|--:|--:|--:|--:|--:|--:|']
    for r in report['rows']:
        times = ' | '.join(human(r[k]) if r[k] else '-' for k in ('native_ns', 'qemu_ns', 'trapeze_ns'))
        out.append(f'| {r["row"]} | {r["class"]} | {times} | {show(r["qemu_x"])} | {show(r["trapeze_x"])} | '
                   f'{show(r["faster"])} |')
    if report['failures']:
        out += ['', 'Did not finish:', ''] + [f'- {f}' for f in report['failures']]
    return '\n'.join(out) + '\n'


def first_line(command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False).stdout.splitlines()[0]
    except (OSError, IndexError):
        return 'none'


def host_name():
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        model = next((line.split(':')[1].strip() for line in f if line.startswith('model name')), 'unknown processor')
    return f'{model}, {os.cpu_count()} processors, Linux {platform.release()}'


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--build', default=os.path.join(TREE, 'build'), help='build directory')
    p.add_argument('--trapeze', help='the program to measure (default: of the build)')
    p.add_argument('--accel', default='bt', help='accelerator of trapeze (default: bt)')
    p.add_argument('--cpu', default='host', help='processor model of trapeze (default: host)')
    p.add_argument('--qemu', default='qemu-system-x86_64')
    p.add_argument('--kernel', help='default: Debian\'s cloud kernel, fetched')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--boots', type=int, default=5, help='extra runs that only boot')
    p.add_argument('--memory', type=int, default=512, help='of each guest, MiB')
    p.add_argument('--rows', help='only these, separated by commas')
    p.add_argument('--timeout', type=int, default=180, help='seconds for one run')
    p.add_argument('--out', help='where to write RESULTS.md and results.json (default: bench/, with --rows nowhere)')
    for name in ('native', 'qemu', 'trapeze', 'smp'):
        p.add_argument(f'--no-{name}', action='store_true')
    p.add_argument('--nice', type=int, default=-20,
                   help='priority of all that is measured, so that other work disturbs less (default: -20, if allowed)')
    p.add_argument('--verbose', action='store_true', help='show what the VMMs say')
    return p.parse_args()


def prepare(args, work):
    subprocess.run(['ninja', '-C', args.build, 'bench/bench_guest'], check=True, stdout=subprocess.DEVNULL)
    program = os.path.join(args.build, 'bench', 'bench_guest')
    kernel = args.kernel
    if not kernel:
        kernel = subprocess.run([os.path.join(TREE, 'tools', 'fetch-kernel.sh'), 'cloud'], check=True,
                                stdout=subprocess.PIPE, text=True).stdout.strip() + '/vmlinuz'
    files = {'program': program, 'kernel': kernel, 'initrd': os.path.join(work, 'initrd'),
             'fifo': os.path.join(work, 'console')}
    write_initramfs(files['initrd'], program)
    os.mkfifo(files['fifo'])
    return files


def set_autogroup(nice, pid='self'):
    """Priorities count only within a session where the kernel groups tasks by it; so the session's is set, too."""
    try:
        with open(f'/proc/{pid}/autogroup', 'w', encoding='ascii') as f:
            f.write(str(nice))
    except OSError:
        pass


def raise_priority(nice):
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        print('bench: no permission to raise the priority; a quiet host is needed', file=sys.stderr)
        return
    set_autogroup(nice)
    atexit.register(set_autogroup, 0)


def main():
    args = parse_args()
    args.trapeze = args.trapeze or os.path.join(args.build, 'src', 'cmd', 'trapeze')
    args.log = None if args.verbose else subprocess.DEVNULL
    out = args.out or (None if args.rows else HERE)
    raise_priority(args.nice)
    with tempfile.TemporaryDirectory() as work:
        os.environ['TRAPEZE_ROOT'] = os.path.join(work, 'root')  # no records of ours among the user's
        data, failures = run_rounds(args, prepare(args, work))
    table = compare(data)
    report = {'when': time.strftime('%Y-%m-%d'), 'host': host_name(), 'qemu': first_line([args.qemu, '--version']),
              'command': 'make bench ' + ' '.join(sys.argv[3:]) if sys.argv[3:] else 'make bench',
              'rounds': args.rounds, 'classes': class_means(table), 'boot': boot_table(data), 'rows': table,
              'failures': failures}
    text = markdown(report)
    print(text)
    if out:
        os.makedirs(out, exist_ok=True)
        with open(os.path.join(out, 'RESULTS.md'), 'w', encoding='utf-8') as f:
            f.write(text)
        with open(os.path.join(out, 'results.json'), 'w', encoding='utf-8') as f:
            json.dump({**report, 'raw': data}, f, indent=1)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
