#!/usr/bin/env python3
"""Streams of migrations by earlier releases, which every later one must take.

usage: golden.py TRAPEZE [FOLDER]; replays each FOLDER/*.xz (default: golden, beside this file) to a receiver, and the guest must
go on there and find nothing wrong. Prints TAP.

A release whose streams look different adds its own, and never changes those that are there:

    tests/migrate/golden.py --record VERSION build/src/cmd/trapeze build/guest/payload/walker64

A stream is what the source sent over the one connection that there is through ssh. The guest is guest/payload/walker.c in 36 MiB;
its pages hold one word each over and over, so that the files are small.
"""
import json
import lzma
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 120
DISK = b'a disk that goes along. ' * 2730 + bytes(16)
# Name, the guest's way of writing, options. Together: every message of a migration that ends well.
KINDS = [('packed', 'rate=20', ['--precopy', '--compress', 'zstd']),
         ('differences', 'rate=2 words=1', ['--precopy', '--compress', 'none', '--delta', '2M', '--bandwidth', '1M', '--copy-disks']),
         ('postcopy', 'rate=20', ['--postcopy', '--compress', 'none'])]
HEAD = struct.Struct('<HBBIII')  # src/vm/migrate/wire.h
GO, READY, RUNNING, COMPLETE, FAILED, FIT, BYE = 9, 13, 14, 16, 17, 11, 20
AWAITED = {GO: READY, BYE: COMPLETE}  # what the source sends only when it has heard something


class Wrong(Exception):
    pass


def until(what, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise Wrong('never came: ' + what)
        time.sleep(0.02)


def read(path):
    with open(path, 'rb') as f:
        return f.read()


class Receiver:
    """`trapeze receive -` and the other end of its line."""

    def __init__(self, trapeze, folder, more):
        self.trapeze = trapeze
        self.debug, self.disk = f'{folder}/debug', f'{folder}/disk'
        self.env = dict(os.environ, TRAPEZE_ROOT=f'{folder}/root')
        with open(self.disk, 'wb') as f:
            f.truncate(len(DISK))
        disk = ['--disk', self.disk] if '--copy-disks' in more else []
        self.line, theirs = socket.socketpair()
        self.process = subprocess.Popen([trapeze, 'receive', '--accel', 'bt', '--debug-console', f'0xe9,file={self.debug}', *disk,
                                         '-'], env=self.env, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
        theirs.close()

    def guests(self):
        run = subprocess.run([self.trapeze, 'ps', '--format', 'json'], env=self.env, capture_output=True, check=True)
        return json.loads(run.stdout)

    def close(self):
        self.line.close()
        subprocess.run([self.trapeze, 'rm', '-f', 'golden'], env=self.env, capture_output=True, check=False)
        self.process.kill()
        self.process.wait()


# --- replaying ---------------------------------------------------------------------------------------------------


class Answers(threading.Thread):
    """What the destination says."""

    def __init__(self, line):
        super().__init__(daemon=True)
        self.file, self.types, self.text = line.makefile('rb'), [], b''

    def run(self):
        try:
            while head := self.file.read(HEAD.size):
                kind, length = HEAD.unpack(head)[1], HEAD.unpack(head)[3]
                body = self.file.read(length)
                if kind in (FIT, FAILED):
                    self.text += body
                self.types.append(kind)
        except (OSError, struct.error):
            pass


def messages(data):
    at = 0
    while at < len(data):
        kind, length = HEAD.unpack_from(data, at)[1], HEAD.unpack_from(data, at)[3]
        yield kind, data[at:at + HEAD.size + length]
        at += HEAD.size + length


def replay(trapeze, path, folder):
    more = next((options for name, _, options in KINDS if f'-{name}.' in path), [])
    receiver = Receiver(trapeze, folder, more)
    try:
        answers = Answers(receiver.line)
        answers.start()
        try:
            for kind, message in messages(lzma.decompress(read(path))):
                wanted = AWAITED.get(kind)
                if wanted:
                    until(f'message {wanted}', lambda w=wanted: w in answers.types or answers.text or not answers.is_alive())
                if answers.text:
                    raise Wrong(answers.text.decode(errors='replace'))
                receiver.line.sendall(message)
            until('all that is to be said', lambda: COMPLETE in answers.types or not answers.is_alive())
        except OSError as broken:
            raise Wrong(f'{broken}; {answers.text.decode(errors="replace")}') from broken
        if RUNNING not in answers.types or COMPLETE not in answers.types:
            raise Wrong(f'it said {answers.types} {answers.text.decode(errors="replace")}')
        until('the guest counts', lambda: len(read(receiver.debug)) > 300)
        data = read(receiver.debug)
        if b'walker' in data or any((b - a) % 32 != 1 for a, b in zip(data, data[1:])):
            raise Wrong(f'the guest says {data[-300:]}')
        if '--copy-disks' in more and read(receiver.disk) != DISK:
            raise Wrong('the disk has changed')
    finally:
        receiver.close()


# --- recording ---------------------------------------------------------------------------------------------------


def carry(from_fd, to_fd, copy):
    while data := os.read(from_fd, 1 << 16):
        copy.write(data)
        view = memoryview(data)
        while view:
            view = view[os.write(to_fd, view):]


def as_ssh(trapeze, folder, kind):
    """Run instead of ssh: the receiver, and what it is sent is kept."""
    receiver = Receiver(trapeze, f'{folder}/there', next(options for name, _, options in KINDS if name == kind))
    with open(f'{folder}/stream', 'wb') as stream, open(os.devnull, 'wb') as nowhere:
        back = threading.Thread(target=carry, args=(receiver.line.fileno(), 1, nowhere), daemon=True)
        back.start()
        carry(0, receiver.line.fileno(), stream)
        receiver.line.shutdown(socket.SHUT_WR)
    receiver.process.wait(PATIENCE_S)
    subprocess.run([trapeze, 'rm', '-f', 'golden'], env=receiver.env, capture_output=True, check=False)


def record(trapeze, walker, version, kind, writes, options):
    folder = tempfile.mkdtemp(prefix='trapeze-golden-')
    env = dict(os.environ, TRAPEZE_ROOT=f'{folder}/here', TRAPEZE_SSH=f'{folder}/ssh')
    os.mkdir(f'{folder}/there')
    with open(f'{folder}/ssh', 'w', encoding='ascii') as f:
        f.write(f'#!/bin/sh\nexec python3 {os.path.abspath(__file__)} --as-ssh {trapeze} {folder} {kind}\n')
    os.chmod(f'{folder}/ssh', 0o755)
    with open(f'{folder}/disk', 'wb') as f:
        f.write(DISK)
    disk = ['--disk', f'{folder}/disk'] if '--copy-disks' in options else []
    try:
        subprocess.run([trapeze, 'run', '-d', '--name', 'golden', '--accel', 'bt', '-k', walker, '-a', f'set=1 fill=1 same=512 {writes}',
                        '-m', '36M', '--net', 'none', '--serial', 'null', '--no-reboot', '--debug-console',
                        f'0xe9,file={folder}/debug', '--debug-exit', '0xf4', *disk], env=env, stdin=subprocess.DEVNULL, check=True)
        until('the guest counts', lambda: os.path.exists(f'{folder}/debug') and len(read(f'{folder}/debug')) > 100)
        subprocess.run([trapeze, 'migrate', '--format', 'json', *options, 'golden', 'ssh://golden'], env=env,
                       stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE_S)
        until('the stream ends', lambda: not os.path.exists(f'{folder}/there/root/run/golden'))
        os.makedirs(f'{HERE}/golden', exist_ok=True)
        with open(f'{HERE}/golden/{version}-{kind}.xz', 'wb') as f:
            f.write(lzma.compress(read(f'{folder}/stream'), preset=9))
    finally:
        subprocess.run([trapeze, 'rm', '-f', 'golden'], env=env, capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def main():
    if sys.argv[1] == '--as-ssh':
        as_ssh(*sys.argv[2:5])
        return 0
    if sys.argv[1] == '--record':
        version, trapeze, walker = sys.argv[2], os.path.abspath(sys.argv[3]), os.path.abspath(sys.argv[4])
        for kind, writes, options in KINDS:
            record(trapeze, walker, version, kind, writes, options)
        return 0
    where = sys.argv[2] if len(sys.argv) > 2 else f'{HERE}/golden'
    streams = sorted(name for name in os.listdir(where) if name.endswith('.xz'))
    print(f'1..{len(streams)}', flush=True)
    failed = 0
    for number, name in enumerate(streams, 1):
        folder = tempfile.mkdtemp(prefix='trapeze-golden-')
        try:
            replay(sys.argv[1], f'{where}/{name}', folder)
            print(f'ok {number} - {name}', flush=True)
        except (Wrong, OSError, ValueError, subprocess.SubprocessError) as wrong:
            failed = 1
            print('\n'.join('# ' + line for line in str(wrong).splitlines()))
            print(f'not ok {number} - {name}', flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return failed or not streams


if __name__ == '__main__':
    sys.exit(main())
