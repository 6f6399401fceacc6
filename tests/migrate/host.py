"""Hosts for guests that move, which are folders for records on this one, and what a guest that counts has to look like.

The guest (guest/payload/walker.c) checks every page before it rewrites it, and counts bytes into a file: nothing of its life
may be missing or be there twice. Nothing here asserts a time.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

TRAPEZE, WALKER = sys.argv[1:3]
WALK = 'set=12 fill=6 rate=20'
PATIENCE_S = 120


class Wrong(Exception):
    pass


def until(what, condition):
    """Repeats until it holds, and returns what it said; what has to come comes within PATIENCE_S also on a loaded machine."""
    end = time.monotonic() + PATIENCE_S
    while not (said := condition()):
        if time.monotonic() > end:
            raise Wrong('never came: ' + what)
        time.sleep(0.02)
    return said


class Host:
    """A folder for records, with a receiver."""

    def __init__(self, folder, name, *options, place=None):
        self.root = os.path.join(folder, name)
        os.makedirs(self.root)
        self.debug = os.path.join(self.root, 'debug')
        self.place = place or 'unix:' + os.path.join(self.root, 'in')
        self.env = dict(os.environ, TRAPEZE_ROOT=self.root)
        self.messages = open(os.path.join(self.root, 'receiver'), 'w+', encoding='utf-8')
        self.options = options
        self.listen()

    def listen(self):
        """A receiver; anew if there was one."""
        path = os.path.join(self.root, 'in')
        if os.path.exists(path):
            os.unlink(path)
        self.receiver = subprocess.Popen(
            [TRAPEZE, 'receive', '--debug-console', f'0xe9,file={self.debug}', *self.options, self.place], env=self.env,
            stdin=subprocess.DEVNULL, stdout=self.messages, stderr=self.messages)
        if self.place.startswith('unix:'):
            until('the receiver listens', lambda: os.path.exists(path))

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
        """What its guest has written here."""
        try:
            with open(self.debug, 'rb') as f:
                return f.read()
        except FileNotFoundError:
            return b''

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
    # One whose loop waits for a page on a busy host is not asked twice.
    state = until('it answers', lambda: (found := there.state(name)) != 'not answering' and found)
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


def between_two(make_cases):
    """Judges make_cases(hosts, folder): cases of two hosts, and a folder for what else they need. Returns the exit status."""
    if subprocess.run([TRAPEZE, 'accel'], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        print('no accelerator works here')
        return 77
    folder = tempfile.mkdtemp(prefix='trapeze-migrate-')
    hosts = Host(folder, 'a'), Host(folder, 'b')
    try:
        only = os.environ.get('TRAPEZE_CASE', '')
        return judge(hosts, [case for case in make_cases(hosts, folder) if case[0].startswith(only)])
    finally:
        for host in hosts:
            host.close()
        shutil.rmtree(folder, ignore_errors=True)
