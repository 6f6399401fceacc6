#!/usr/bin/env python3
"""Snapshots beside QEMU's (TCG): a Debian kernel with 300 MiB of memory in use is taken, restored, cloned, in turns.

usage: bench/snapshot.py [--build DIR] [--rounds N] [--dir DIR] [--out FILE]. The guest (bench/guest/life.c) writes a byte to the
debug port every millisecond; we stamp them. So the pause is the longest time without a byte, and a restored guest's first
byte is its first sign of life. QEMU saves in both of its ways: savevm into a qcow2 file, and, stopped, to a file. Figures are
medians; nothing is asserted. Both are synced when they count as saved. What is restored was read into the page cache before, or
taken out of it, as the row says; with it the program and its libraries, which a host that takes back what is not used for some
seconds has dropped by then. Both save once before the five saves of a round that count, and restore from the page cache once
before five that do: on a host that is a guest itself, memory is slow when nobody has used it for a while, and our first restore
notes for the others which pages the guest touches first. Such a host also stands still as a whole now and then, for 10 to
30 ms: in the worst pauses.
"""
import argparse
import contextlib
import functools
import glob
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

from guests import LIMIT_S, QUIET, Pipe, Qmp, connect, use_stamper, wait, warm_memory
from run import first_line, host_name, raise_priority, set_autogroup, write_initramfs

HERE = os.path.dirname(os.path.abspath(__file__))
RESTORES = SAVES = 5  # in each round: one alone says more about the host than about the program
APPEND = 'quiet tsc=reliable panic=-1 console=ttyS0'


class Ticks(Pipe):
    """When each of the guest's bytes came."""

    def __init__(self, path):
        self.at = []
        super().__init__(path)

    def came(self, now, data):
        self.at.append(now)

    def wait_after(self, moment):
        """When the first byte after that moment came."""
        seen = len(self.at)
        while seen and self.at[seen - 1] > moment:
            seen -= 1
        wait('a tick', lambda: len(self.at) > seen)
        return self.at[seen]

    def calm(self):
        """Now, when it has run for a moment: what went before, as QEMU's delvm, may have stopped it, too."""
        self.wait_after(time.monotonic())
        time.sleep(0.2)
        return time.monotonic()

    def longest_ms(self, begin, end):
        near = [t for t in self.at if begin - 0.1 < t < end + 0.1]
        return max(b - a for a, b in zip(near, near[1:])) * 1e3


class Console:
    """A guest's console as a socket."""

    def __init__(self, sock):
        self.socket = sock
        sock.settimeout(LIMIT_S)

    def say(self, text):
        self.socket.sendall(text)

    def until(self, text, seen=b''):
        while text not in seen:
            more = self.socket.recv(4096)
            if not more:
                raise EOFError(f'the console ended with {seen[-200:]!r}')
            seen += more


def read_data(fd):
    """Reads a file without its holes, which would take up the page cache as well."""
    end = 0
    with contextlib.suppress(OSError):  # ENXIO: no data behind this
        while True:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            while start < end:
                start += len(os.pread(fd, min(1 << 20, end - start), start)) or end


def cache(paths, wanted):
    """Brings files into the page cache, or out of it."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        if wanted:
            read_data(fd)
        else:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def make_warm(paths, cached):
    """Memory comes behind the files, or the page cache would take it. Then they are read again: what we did not touch for the
    seconds that this takes, a host that is short of memory has taken from under our page cache."""
    cache(paths, cached)
    warm_memory()
    if cached:
        cache(paths, cached)


@functools.cache
def program_files(program):
    """The program and the libraries that it is linked with."""
    program = shutil.which(program)
    said = subprocess.run(['ldd', program], capture_output=True, text=True, check=False).stdout
    return [program, *(word for line in said.splitlines() for word in line.split() if word.startswith('/'))]


def medians(saves):
    """Of the seconds and of the pauses of saves, but for the first one."""
    return [statistics.median(each) for each in zip(*saves[1:])]


# --- Trapeze -----------------------------------------------------------------------------------------------------


class Host:
    """A root of its own with guests in it."""

    def __init__(self, args, folder):
        self.root = os.path.join(folder, 'root')
        self.trapeze = args.trapeze
        self.accel = ['--accel', args.accel]
        self.env = dict(os.environ, TRAPEZE_ROOT=self.root)

    def do(self, *args):
        done = subprocess.run([self.trapeze, *args], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LIMIT_S, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done

    def favour(self):
        """Its guests are sessions of their own, and so groups of their own for the host's scheduler."""
        for guest in self.guests():
            set_autogroup(-20, guest['pid'])

    def timed(self, *args):
        begin = time.monotonic()
        self.do(*args)
        return time.monotonic() - begin

    def guests(self):
        return json.loads(self.do('ps', '--format', 'json').stdout)

    def console(self, guest):
        s = connect(os.path.join(self.root, 'run', guest['id'] + '.sock'))
        s.sendall(b'{"id":1,"do":"attach"}\n')
        answer = b''
        while not answer.endswith(b'\n'):
            answer += s.recv(1)
        return Console(s)

    def start(self, args, files, ticks):
        os.chmod(files['disk'], 0o600) # no snapshot of the last round stands on it any more
        self.do('run', '-d', '--name', 'web', *self.accel, '--kernel', files['kernel'], '--initrd', files['initrd'], '--append',
                f'{APPEND} -- {args.fill}', '--memory', f'{args.memory}M', '--net', 'none', '--disk', files['disk'],
                '--debug-console', f'0xe9,file={ticks.path}')
        self.favour()
        console = self.console(self.guests()[0])
        folder = glob.glob(f'{self.root}/guests/*')[0]
        # What was said before we looked is in its log.
        wait('the guest is ready', lambda: b'filled' in open(f'{folder}/console.log', 'rb').read())
        return console

    def files(self, name):
        ident = next(s['id'] for s in json.loads(self.do('snapshot', 'ls', '--format', 'json').stdout) if s['name'] == name)
        return glob.glob(f'{self.root}/snapshots/{ident}/*')

    def size(self, name):
        files = [os.stat(f) for f in self.files(name)]
        return sum(f.st_blocks * 512 for f in files if name == 'full' or f.st_nlink == 1)  # the kernel is the parent's

    def end(self):
        names = [g['id'] for g in self.guests()]
        if names:
            self.do('kill', *names)
        shutil.rmtree(self.root)


def memory_of(pid):
    """Host memory of a process: what it maps, shared parts divided among those who share them, and its guest's RAM."""
    total = 0
    with open(f'/proc/{pid}/smaps', encoding='utf-8', errors='replace') as f:
        ram = False
        for line in f:
            if '-' in line.split()[0] and not line.split()[0].endswith(':'):
                ram = 'memfd:guest-memory' in line
            elif line.startswith('Pss:') and not ram:
                total += int(line.split()[1]) * 1024
    for fd in glob.glob(f'/proc/{pid}/fd/*'):
        with contextlib.suppress(OSError):
            if 'memfd:guest-memory' in os.readlink(fd):
                return total + os.stat(fd).st_blocks * 512
    return total


def restore_s(host, folder, snapshot, cached=True):
    make_warm(host.files(snapshot) + (program_files(host.trapeze) if cached else []), cached)
    ticks = Ticks(f'{folder}/again')
    begin = time.monotonic()
    process = subprocess.Popen([host.trapeze, 'snapshot', 'restore', *host.accel, '--name', 'again', '--debug-console-file', ticks.path,
                                snapshot], env=host.env, **QUIET)
    took = ticks.wait_after(begin) - begin
    process.send_signal(signal.SIGHUP)
    process.wait()
    ticks.close()
    return took


def again(restore, *args):
    """The median of some restores, behind one that does not count."""
    restore(*args)
    return statistics.median(restore(*args) for _ in range(RESTORES))


def clones(host, count):
    begin = time.monotonic()
    host.do('snapshot', 'clone', *host.accel, '--count', str(count), '--name-prefix', 'c', 'calm')
    guests = [g for g in host.guests() if g['name'].startswith('c-')]
    consoles = [host.console(g) for g in guests]
    for c in consoles:
        c.say(b'x')
    for c in consoles:
        c.until(b'x')
    took = time.monotonic() - begin
    memory = statistics.mean(memory_of(g['pid']) for g in guests)
    host.do('kill', *[g['id'] for g in guests])
    return took, memory


def trapeze_round(args, files, folder):
    host, ticks, row = Host(args, folder), Ticks(f'{folder}/ticks'), {}
    try:
        console = host.start(args, files, ticks)
        console.say(b't')
        begin = ticks.wait_after(time.monotonic())
        time.sleep(1)
        row['calm_ms'] = ticks.longest_ms(begin + 0.1, time.monotonic() - 0.1)
        saves = []
        for n in range(SAVES + 1):
            if n:
                host.do('snapshot', 'rm', 'full')
            begin = ticks.calm()
            took = host.timed('snapshot', 'create', 'web', 'full')
            ticks.wait_after(time.monotonic())
            saves.append((took, ticks.longest_ms(begin, time.monotonic())))
        row['create_s'], row['pause_ms'] = medians(saves)
        row['worst_pause_ms'] = max(pause for _, pause in saves[1:])
        row['full_bytes'] = host.size('full')
        console.say(b'w')
        console.until(b'w')
        row['more_s'] = host.timed('snapshot', 'create', '--parent', 'full', 'web', 'more')
        row['more_bytes'] = host.size('more')
        console.say(b'qx')
        console.until(b'x')
        row['restore_s'] = again(restore_s, host, folder, 'full')
        row['cold_s'] = restore_s(host, folder, 'full', False)
        host.do('snapshot', 'create', 'web', 'calm')
        host.do('kill', 'web')
        if args.clones:
            row['clones_s'], row['clone_bytes'] = clones(host, args.clones)
    finally:
        host.end()
        ticks.close()
    return row


def large_round(args, files, folder):
    """Restore of a machine eight times that size."""
    more = argparse.Namespace(**dict(vars(args), memory=8 * args.memory, fill=8 * args.fill))
    host, ticks = Host(more, folder), Ticks(f'{folder}/ticks')
    try:
        host.start(more, files, ticks).say(b't')
        ticks.wait_after(time.monotonic())
        host.do('snapshot', 'create', 'web', 'large')
        host.do('kill', 'web')
        return {'large_s': again(restore_s, host, folder, 'large')}
    finally:
        host.end()
        ticks.close()


# --- QEMU --------------------------------------------------------------------------------------------------------


class Qemu:
    def __init__(self, args, files, folder, ticks, *more):
        self.folder = folder
        for name in ('qmp', 'console'):
            with contextlib.suppress(OSError):
                os.unlink(f'{folder}/{name}')
        self.process = subprocess.Popen(
            [args.qemu, '-nodefaults', '-accel', 'tcg', '-cpu', 'max', '-m', str(args.memory), '-display', 'none', '-no-reboot',
             '-kernel', files['kernel'], '-initrd', files['initrd'], '-append', f'{APPEND} -- {args.fill}',
             '-drive', f'file={folder}/disk.qcow2,format=qcow2,if=virtio', '-debugcon', f'file:{ticks.path}',
             '-chardev', f'socket,id=c,path={folder}/console,server=on,wait=off', '-serial', 'chardev:c',
             '-qmp', f'unix:{folder}/qmp,server=on,wait=off', *more], **QUIET)

    def monitor(self):
        self.qmp = Qmp(f'{self.folder}/qmp')

    def do(self, command, **arguments):
        return self.qmp.do(command, **arguments)

    def say(self, command):
        said = self.do('human-monitor-command', **{'command-line': command})
        if said:
            raise RuntimeError(said)

    def end(self):
        self.process.kill()
        self.process.wait()


def sync(path):
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.close(fd)


def save_to_file(q, path):
    q.do('migrate', uri=f'exec:cat > {path}')
    wait('migrate', lambda: q.do('query-migrate').get('status') == 'completed')


def qemu_restore_s(args, files, folder, cached, *more):
    make_warm([f'{folder}/saved', f'{folder}/disk.qcow2'] + (program_files(args.qemu) if cached else []), cached)
    ticks = Ticks(f'{folder}/again')
    begin = time.monotonic()
    q = Qemu(args, files, folder, ticks, *more)
    if '-incoming' in more:  # it was stopped when it was saved
        q.monitor()
        wait('the machine', lambda: q.do('query-status')['status'] == 'paused')
        q.do('cont')
    took = ticks.wait_after(begin) - begin
    q.end()
    ticks.close()
    return took


def qemu_round(args, files, folder):
    ticks, row, saved = Ticks(f'{folder}/ticks'), {}, f'{folder}/saved'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', f'{folder}/disk.qcow2', '64M'], check=True)
    q = Qemu(args, files, folder, ticks)
    try:
        console = Console(connect(f'{folder}/console'))
        q.monitor()
        console.until(b'filled')
        console.say(b't')
        ticks.wait_after(time.monotonic())
        saves = []
        for n in range(SAVES + 1):
            if n:
                q.say('delvm one')
                sync(f'{folder}/disk.qcow2')
            begin = ticks.calm()
            q.say('savevm one')
            sync(f'{folder}/disk.qcow2')
            took = time.monotonic() - begin
            ticks.wait_after(time.monotonic())
            saves.append((took, ticks.longest_ms(begin, time.monotonic())))
        row['savevm_s'], row['savevm_pause_ms'] = medians(saves)
        q.do('migrate-set-parameters', **{'max-bandwidth': 1 << 40})
        saves = []
        for n in range(SAVES + 1):
            if n:
                q.do('cont')
                os.unlink(saved)
            q.do('stop')
            begin = time.monotonic()
            save_to_file(q, saved)
            pause_ms = (time.monotonic() - begin) * 1e3
            sync(saved)
            saves.append((time.monotonic() - begin, pause_ms))
        row['file_s'], row['file_pause_ms'] = medians(saves)
    finally:
        q.end()
        ticks.close()
    for kind, how in (('loadvm_s', ('-loadvm', 'one')), ('incoming_s', ('-incoming', f'exec:cat {saved}'))):
        row[kind] = again(qemu_restore_s, args, files, folder, True, *how)
        row['cold_' + kind] = qemu_restore_s(args, files, folder, False, *how)
    return row


# --- the table ---------------------------------------------------------------------------------------------------


def table(args, ours, theirs):
    def of(rows, key):
        values = [r[key] for r in rows if key in r]
        return statistics.median(values) if values else None

    def each(rows, key, unit=1.0, digits=0):
        return ' '.join(f'{r[key] * unit:.{digits}f}' for r in rows if key in r)

    o = {k: of(ours, k) for k in ours[0]}
    q = {k: of(theirs, k) for k in theirs[0]} if theirs else {}
    qemu_save = min((q[k] for k in ('savevm_s', 'file_s') if k in q), default=None)

    def theirs_or_none(text):
        return text if q else '-'

    lines = ['| what | QEMU | Trapeze | all rounds | to reach |', '|---|--:|--:|---|--:|']

    def add(what, qemu, trapeze, rounds, goal):
        lines.append(f'| {what} | {qemu} | {trapeze} | {rounds} | {goal} |')

    add('longest pause the guest shows while its snapshot is taken',
        theirs_or_none(f'savevm {q.get("savevm_pause_ms", 0):.0f} ms, to a file {q.get("file_pause_ms", 0):.0f} ms'),
        f'{o["pause_ms"]:.1f} ms',
        each(ours, 'pause_ms', 1, 1) + f' (worst {each(ours, "worst_pause_ms", 1, 1)}; without one {o["calm_ms"]:.1f})', '<= 10 ms')
    add('snapshot, start to safely on disk',
        theirs_or_none(f'savevm {q.get("savevm_s", 0):.2f} s, to a file {q.get("file_s", 0):.2f} s'), f'{o["create_s"]:.2f} s',
        each(ours, 'create_s', 1, 2), f'{o["create_s"] / qemu_save:.2f} of the quicker; <= 0.7' if q else '<= 0.7 x')
    for what, kind, ours_key, goal in (('restore: process start to the first tick, all in the page cache', '', 'restore_s', '<= 30 ms'),
                                       ('the same, nothing in the page cache', 'cold_', 'cold_s', '-')):
        loadvm, incoming = q.get(kind + 'loadvm_s', 0), q.get(kind + 'incoming_s', 0)
        add(what, theirs_or_none(f'loadvm {loadvm * 1e3:.0f} ms, from a file {incoming * 1e3:.0f} ms'), f'{o[ours_key] * 1e3:.0f} ms',
            each(ours, ours_key, 1e3), goal)
    if o.get('large_s'):
        add(f'restore of {8 * args.memory} MiB with {8 * args.fill} MiB in use, all in the page cache', '-', f'{o["large_s"] * 1e3:.0f} ms',
            each(ours, 'large_s', 1e3), '<= 30 ms')
    if args.clones:
        add(f'{args.clones} clones, all answering', '-', f'{o["clones_s"]:.1f} s', each(ours, 'clones_s', 1, 1), '<= 10 s')
        add('host memory of each', '-', f'{o["clone_bytes"] / 1e6:.1f} MB', each(ours, 'clone_bytes', 1e-6, 1), '<= 20 MB')
    add('incremental snapshot after 20 MiB of changes: size', '-', f'{o["more_bytes"] / 2**20:.1f} MiB',
        f'full: {o["full_bytes"] / 2**20:.0f} MiB', '<= 25 MiB')
    add('incremental snapshot: time', '-', f'{o["more_s"]:.3f} s', each(ours, 'more_s', 1, 3),
        f'{o["more_s"] / o["create_s"]:.2f} of a full one; <= 0.2')
    return '\n'.join(lines)


def prepare(args, work):
    subprocess.run(['ninja', '-C', args.build, 'bench/bench_life'], check=True, stdout=subprocess.DEVNULL)
    kernel = args.kernel
    if not kernel:
        kernel = subprocess.run([os.path.join(os.path.dirname(HERE), 'tools', 'fetch-kernel.sh'), 'cloud'], check=True,
                                stdout=subprocess.PIPE, text=True).stdout.strip() + '/vmlinuz'
    files = {'kernel': kernel, 'initrd': f'{work}/initrd', 'disk': f'{work}/disk'}
    write_initramfs(files['initrd'], os.path.join(args.build, 'bench', 'bench_life'))
    with open(files['disk'], 'wb') as f:
        f.truncate(64 << 20)
    return files


def rounds(args, work):
    files, ours, theirs = prepare(args, work), [], []
    for n in range(args.rounds):
        for name, fn, rows in (('trapeze', trapeze_round, ours), ('QEMU', qemu_round, theirs)):
            if name == 'QEMU' and not shutil.which(args.qemu):
                continue
            print(f'{time.strftime("%H:%M:%S")} round {n + 1}: {name}', file=sys.stderr, flush=True)
            folder = tempfile.mkdtemp(dir=work)
            warm_memory()
            rows.append(fn(args, files, folder))
            print('  ' + json.dumps({k: round(v, 3) for k, v in rows[-1].items()}), file=sys.stderr, flush=True)
            shutil.rmtree(folder)
        if args.large:
            folder = tempfile.mkdtemp(dir=work)
            ours[-1].update(large_round(args, files, folder))
            shutil.rmtree(folder)
    return ours, theirs


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--build', default=os.path.join(os.path.dirname(HERE), 'build'))
    p.add_argument('--trapeze', help='the program to measure (default: of the build)')
    p.add_argument('--accel', default='bt', help='accelerator of trapeze (default: bt)')
    p.add_argument('--qemu', default='qemu-system-x86_64')
    p.add_argument('--kernel', help="default: Debian's cloud kernel, fetched")
    p.add_argument('--memory', type=int, default=512, help='of each guest, MiB')
    p.add_argument('--fill', type=int, default=300, help='MiB of it that are in use')
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--clones', type=int, default=100)
    p.add_argument('--no-large', dest='large', action='store_false', help='without the machine of eight times that size')
    p.add_argument('--dir', help='where snapshots and saved machines are written (default: that of temporary files)')
    p.add_argument('--out', help='write the table there, too')
    args = p.parse_args()
    args.trapeze = args.trapeze or os.path.join(args.build, 'src', 'cmd', 'trapeze')
    use_stamper(args.build)
    raise_priority(-20)
    with tempfile.TemporaryDirectory(prefix='trapeze-bench-', dir=args.dir) as work:
        ours, theirs = rounds(args, work)
    command = re.sub(r'--(build|out) \S+ ?', '', ' '.join(sys.argv[1:])).strip()
    text = (f'# Snapshots\n\n{time.strftime("%Y-%m-%d")}, {host_name()}. Rival: {first_line([args.qemu, "--version"])}.\n\n'
            f'Command: `bench/snapshot.py{" " + command if command else ""}` (part of `make bench`), accelerator {args.accel}. '
            f'Medians of {args.rounds}\nalternating rounds; a guest of {args.memory} MiB that has touched {args.fill} MiB; load of '
            f'the host at the end {os.getloadavg()[0]:.1f}.\nWritten by `bench/snapshot.py`; do not edit.\n\n'
            f'{table(args, ours, theirs)}\n')
    print(text)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as f:
            f.write(text)


if __name__ == '__main__':
    main()
