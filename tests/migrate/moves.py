#!/usr/bin/env python3
"""A guest that checks itself migrates between two hosts, which are two folders for records on this one.

usage: moves.py TRAPEZE WALKER; prints TAP. TRAPEZE_MIGRATIONS=1000 for a night: so many moves there and back.
The guest (guest/payload/walker.c) checks every page before it rewrites it, and counts bytes into a file: nothing of its life
may be missing or be there twice. Nothing here asserts a time.
"""
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TRAPEZE, WALKER = sys.argv[1:3]
WALK = 'set=12 fill=6 rate=20'
WALK_LITTLE = 'set=2 fill=2 rate=2'  # a KVM in software is slow
PATIENCE_S = 120
MODES = [[], ['--postcopy'], ['--compress', 'zstd', '--delta', '32M', '--bandwidth', '200M'],
         ['--connections', '3', '--bandwidth', '20M'], ['--throttle', '80', '--bandwidth', '30M'],
         ['--precopy', '--compress', 'none', '--delta', '0']]


class Wrong(Exception):
    pass


def until(what, condition):
    """Repeats until it holds; what has to come comes within PATIENCE_S also on a loaded machine."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise Wrong('never came: ' + what)
        time.sleep(0.02)


class Host:
    """A folder for records, with a receiver."""

    def __init__(self, folder, name, *options, place=None):
        self.root = os.path.join(folder, name)
        os.makedirs(self.root)
        self.debug = os.path.join(self.root, 'debug')
        self.place = place or 'unix:' + os.path.join(self.root, 'in')
        self.env = dict(os.environ, TRAPEZE_ROOT=self.root)
        self.messages = open(os.path.join(self.root, 'receiver'), 'w+', encoding='utf-8')
        self.receiver = subprocess.Popen(
            [TRAPEZE, 'receive', '--debug-console', f'0xe9,file={self.debug}', *options, self.place], env=self.env,
            stdin=subprocess.DEVNULL, stdout=self.messages, stderr=self.messages)
        if not place:
            until('the receiver listens', lambda: os.path.exists(os.path.join(self.root, 'in')))

    def run(self, *args):
        return subprocess.run([TRAPEZE, *args], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE_S, check=False)

    def call(self, *args, wanted=0):
        run = self.run(*args)
        if run.returncode != wanted:
            raise Wrong(f'trapeze {" ".join(args)}: status {run.returncode}, not {wanted}: {run.stderr.strip()}')
        return run.stdout

    def guests(self):
        return {g['name']: g for g in json.loads(self.call('ps', '-a', '--format', 'json'))}

    def state(self, name):
        return self.guests().get(name, {}).get('state', 'nothing')

    def start(self, name, *options, more=WALK):
        self.call('run', '-d', '--name', name, '-k', WALKER, '-a', more, '-m', '64M', '--net', 'none', '--serial', 'null',
                  '--no-reboot', '--debug-console', f'0xe9,file={self.debug}', '--debug-exit', '0xf4', *options)
        until('the guest counts', lambda: len(self.bytes()) > 20)

    def migrate(self, name, there, *options):
        return subprocess.Popen([TRAPEZE, 'migrate', '--format', 'json', *options, name, there.place], env=self.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def bytes(self):
        with open(self.debug, 'rb') as f:
            return f.read()

    def clear(self):
        for guest in self.guests().values():
            subprocess.run([TRAPEZE, 'rm', '-f', guest['id']], env=self.env, capture_output=True, check=False)

    def close(self):
        self.receiver.kill()
        self.receiver.wait()
        self.clear()


def check_count(data, what):
    """The guest counts from '@' to '_' and again, one at a time."""
    if b'walker' in data:
        raise Wrong(f'{what}: {data[-300:].decode(errors="replace")}')
    for before, after in zip(data, data[1:]):
        if (after - before) % 32 != 1:
            raise Wrong(f'{what}: {chr(before)} is followed by {chr(after)}')


def check_move(here, there, name):
    until(f'{name} goes on', lambda: len(there.bytes()) > 20)
    old, new = here.bytes(), there.bytes()
    check_count(old, 'before')
    check_count(new, 'after')
    if old and (new[0] - old[-1]) % 32 != 1:
        raise Wrong(f'{chr(old[-1])} was the last before, {chr(new[0])} is the first after')
    state = there.state(name)
    if state != 'running':
        raise Wrong(f'it is {state} there')
    here.call('rm', name)


def move(here, there, name, *options):
    run = here.migrate(name, there, *options)
    out, errors = run.communicate(timeout=PATIENCE_S)
    if run.returncode:
        raise Wrong(f'migrate {" ".join(options)}: status {run.returncode}: {errors.strip()}')
    check_move(here, there, name)
    return json.loads(out.splitlines()[-1])


def still_counts(host, what, more=20):
    before = len(host.bytes())
    until(what, lambda: len(host.bytes()) > before + more)
    check_count(host.bytes(), what)


def wait_phase(run, *phases):
    """Reads events until one is of that phase."""
    for line in run.stdout:
        if json.loads(line).get('phase') in phases:
            return
    raise Wrong(f'no phase {phases}: {run.stderr.read()}')


# --- the cases ---------------------------------------------------------------------------------------------------


def there_and_back(hosts):
    a, b = hosts
    a.start('walker')
    moves = int(os.environ.get('TRAPEZE_MIGRATIONS', str(len(MODES))))
    for i, mode in zip(range(moves), itertools.cycle(MODES)):
        move(a, b, 'walker', *mode)
        move(b, a, 'walker', *mode)
    a.call('rm', '-f', 'walker')


def third_host(hosts, folder):
    """What the guest wrote on the first host and never again is on the third one, too: the walker reads it all."""
    a, b = hosts
    c = Host(folder, 'c')
    try:
        a.start('walker', more='set=1 fill=4 rate=400')
        for here, there, mode in ((a, b, '--precopy'), (b, c, '--postcopy'), (c, a, '--precopy')):
            move(here, there, 'walker', mode)
        still_counts(a, 'it has read all of its memory', 1000)
        a.call('rm', '-f', 'walker')
    finally:
        c.close()


def refused(host, why, *args):
    run = host.run(*args)
    if run.returncode != 4 or why not in run.stderr:
        raise Wrong(f'trapeze {" ".join(args)}: status {run.returncode}, {run.stderr.strip()}; not refused with "{why}"')


def snapshots(hosts):
    """A snapshot changes what disks are made of, so it and a migration exclude each other, whichever comes first."""
    a, b = hosts
    disk = os.path.join(a.root, 'shared')
    with open(disk, 'wb') as f:
        f.truncate(1 << 20)
    a.start('walker', '--disk', disk)
    run = a.migrate('walker', b, '--bandwidth', '2M')
    wait_phase(run, 'copying')
    refused(a, 'is being migrated', 'snapshot', 'create', 'walker', 'meanwhile')
    a.call('migrate', '--cancel', 'walker')
    run.communicate(timeout=PATIENCE_S)
    a.call('snapshot', 'create', 'walker', 'after')
    for i in range(4):
        taking = subprocess.Popen([TRAPEZE, 'snapshot', 'create', 'walker', f'race{i}'], env=a.env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(random.random() / 20)
        run = a.migrate('walker', b)
        _, errors = run.communicate(timeout=PATIENCE_S)
        _, refusal = taking.communicate(timeout=PATIENCE_S)
        if taking.returncode and 'migrated' not in refusal and 'no machine runs' not in refusal:
            raise Wrong(f'snapshot: {refusal}')
        if not run.returncode:
            check_move(a, b, 'walker')
            a, b = b, a
        elif 'snapshot' not in errors:
            raise Wrong(f'migrate: {errors}')
        still_counts(a, 'it goes on')
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def cancel_then_move(hosts):
    """By the verb for it, and by Ctrl-C and SIGTERM of the one that shows the progress; its death changes nothing."""
    a, b = hosts
    a.start('walker')
    for end in (None, signal.SIGINT, signal.SIGTERM):
        run = a.migrate('walker', b, '--bandwidth', '2M')
        wait_phase(run, 'copying')
        if end:
            run.send_signal(end)
        else:
            a.call('migrate', '--cancel', 'walker')
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode != 4 or 'cancelled' not in errors:
            raise Wrong(f'{end}: status {run.returncode}, {errors}')
        still_counts(a, f'it goes on after the cancel by {end}')
        until('nothing is left there', lambda: not b.guests())
    run = a.migrate('walker', b, '--bandwidth', '10M')
    wait_phase(run, 'copying')
    run.kill()
    run.communicate(timeout=PATIENCE_S)
    until('it has gone although nobody looked on', lambda: a.state('walker') == 'ended')
    check_move(a, b, 'walker')
    a, b = b, a
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def destination_killed(hosts):
    """At some moment of the copy: the guest runs on, and can move later."""
    a, b = hosts
    a.start('walker')
    for bandwidth in ('2M', '4M', '300M'):
        run = a.migrate('walker', b, '--bandwidth', bandwidth)
        until('its process is there', lambda: b.guests() or run.poll() is not None)
        for guest in b.guests().values():
            if guest.get('pid'):
                time.sleep(random.random() / 5)
                try:
                    os.kill(guest['pid'], signal.SIGKILL)
                except ProcessLookupError:
                    pass
        run.communicate(timeout=PATIENCE_S)
        if a.state('walker') != 'running':
            # It was through before the kill: then it is a guest that was killed there.
            if a.state('walker') != 'ended':
                raise Wrong(f'it is {a.state("walker")} here')
            a.call('rm', 'walker')
            for guest in b.guests():
                b.call('rm', '-f', guest)
            a.start('walker')
            continue
        still_counts(a, 'it goes on here')
        until('nothing is left there', lambda: not b.guests())
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def source_killed(hosts):
    """Before the hand-over the guest dies with its process, and nothing of it stays there."""
    a, b = hosts
    a.start('walker')
    run = a.migrate('walker', b, '--bandwidth', '3M')
    wait_phase(run, 'copying')
    os.kill(a.guests()['walker']['pid'], signal.SIGKILL)
    run.communicate(timeout=PATIENCE_S)
    until('nothing is left there', lambda: not b.guests())
    a.call('rm', 'walker')


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as f:
        return [int(p) for p in f.read().split()]


def broken_postcopy(folder):
    """TLS over TCP; its carriers are killed in the middle of a post-copy, and a new line is made."""
    key, wrong = os.path.join(folder, 'key'), os.path.join(folder, 'wrong')
    for path, text in ((key, 'ab' * 32), (wrong, 'cd' * 32)):
        with open(path, 'w', encoding='ascii') as f:
            f.write(text + '\n')
    port = random.randrange(20000, 30000)
    a = Host(folder, 'tls-a')
    b = Host(folder, 'tls-b', '--psk', key, place=f'tcp://127.0.0.1:{port}')
    try:
        a.start('walker')
        a.call('migrate', '--psk', wrong, 'walker', b.place, wanted=4)
        a.call('migrate', 'walker', b.place, wanted=4)  # plain bytes to a TLS port
        until('the receiver listens', lambda: b.receiver.poll() is None)
        run = a.migrate('walker', b, '--psk', key, '--postcopy', '--bandwidth', '2M')
        wait_phase(run, 'serving pages')
        for carrier in children(run.pid):
            os.kill(carrier, signal.SIGKILL)
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode != 4 or '--again' not in errors:
            raise Wrong(f'status {run.returncode}, {errors}')
        if a.state('walker') != 'serving pages':
            raise Wrong(f'it is {a.state("walker")} here')
        a.call('resume', 'walker', wanted=4)
        # Nobody ends it by mistake.
        refused(a, '--force', 'kill', 'walker')
        refused(a, 'stop it there', 'stop', 'walker')
        refused(b, '--force', 'kill', 'walker')
        # A part of its memory is not there yet: nobody may take the rest for all of it.
        refused(b, 'still to come', 'snapshot', 'create', 'walker', 'half')
        refused(b, 'still to come', 'migrate', 'walker', f'unix:{folder}/a/in')
        run = a.migrate('walker', b, '--psk', key, '--again')
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode:
            raise Wrong(f'again: status {run.returncode}, {errors}')
        check_move(a, b, 'walker')
    finally:
        a.close()
        b.close()


def accelerators(hosts, folder):
    """From the translator to KVM and back. This guest is content with a KVM that is too weak for a kernel."""
    if not os.path.exists('/dev/kvm'):
        return 'no /dev/kvm'
    os.environ['TRAPEZE_ACCEL_ANYWAY'] = 'kvm'
    k = Host(folder, 'kvm', '--accel', 'kvm')
    t = Host(folder, 'bt', '--accel', 'bt')
    try:
        for there, back in [((), ('--postcopy',)), (('--postcopy',), ())]:
            t.start('walker', '--accel', 'bt', more=WALK_LITTLE)
            move(t, k, 'walker', *there)
            accel = json.loads(k.call('inspect', 'walker'))[0]['machine']['accel']
            if accel != 'kvm':
                raise Wrong(f'it runs under {accel} there')
            move(k, t, 'walker', *back)
            t.clear()
            os.unlink(t.debug)
    finally:
        k.close()
        t.close()
    return None


def judge(hosts, cases):
    print(f'1..{len(cases)}', flush=True)
    failed = 0
    for number, (name, case) in enumerate(cases, 1):
        try:
            skipped = case()
            print(f'ok {number} - {name}' + (f' # SKIP {skipped}' if skipped else ''), flush=True)
        except (Wrong, subprocess.TimeoutExpired, OSError, ValueError) as wrong:
            failed += 1
            print('\n'.join('# ' + line for line in str(wrong).splitlines()))
            for host in hosts:
                host.messages.seek(0)
                print('\n'.join('# ' + line for line in host.messages.read().splitlines()))
            print(f'not ok {number} - {name}', flush=True)
            for host in hosts:
                host.clear()
    return 1 if failed else 0


def main():
    if subprocess.run([TRAPEZE, 'accel'], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        print('no accelerator works here')
        return 77
    folder = tempfile.mkdtemp(prefix='trapeze-migrate-')
    hosts = Host(folder, 'a'), Host(folder, 'b')
    cases = [('there and back by every way of copying', lambda: there_and_back(hosts)),
             ('a third host has what was written on the first', lambda: third_host(hosts, folder)),
             ('snapshots and migrations exclude each other', lambda: snapshots(hosts)),
             ('cancelled, then moved', lambda: cancel_then_move(hosts)),
             ('the destination is killed', lambda: destination_killed(hosts)),
             ('the source is killed', lambda: source_killed(hosts)),
             ('TLS; a post-copy whose line breaks goes on over a new one', lambda: broken_postcopy(folder)),
             ('from accelerator to accelerator', lambda: accelerators(hosts, folder))]
    try:
        return judge(hosts, cases)
    finally:
        for host in hosts:
            host.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
