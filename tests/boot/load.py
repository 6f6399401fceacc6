#!/usr/bin/env python3
"""A client that a guest serves while it moves; judges everything it gets.

usage: load.py echo|stream|web|once|announce ADDRESS [patient], in the client's namespace. At each line of standard input it prints what it
saw since the last one, as JSON: number of things, the longest gap between two in ms, errors.
  echo       one connection to port 7, a numbered record each millisecond; each must come back, in order
  stream     one connection to port 9, numbered lines as fast as they come; none may be missing or be there twice
  web        a connection to port 80 for each file, one after the other
  once       not on request: one ICMP echo request that is never sent again; prints "sent", and "answered" when it is
  announce   counts frames by which a new place of ADDRESS (of Ethernet, here) is announced: RARP, and ARP about itself
"""
import errno
import hashlib
import json
import os
import select
import socket
import struct
import sys
import time

RECORD = 16
PATIENT = 'patient' in sys.argv[3:]


class Judge:
    def __init__(self):
        self.errors, self.connects = [], 0
        self.last = time.monotonic()
        self.forget()

    def forget(self):
        self.count, self.longest, self.when = 0, 0.0, 0.0

    def came(self, count=1):
        now = time.monotonic()
        if now - self.last > self.longest:
            self.longest, self.when = now - self.last, now
        self.last = now
        self.count += count

    def wrong(self, text):
        self.errors.append(f'{time.time():.3f}: {text}')

    def answer(self):
        """One line on standard input wants a report; its end is ours."""
        if not sys.stdin.readline():
            sys.exit(0)
        # A gap that still lasts counts, too.
        now = time.monotonic()
        longest = max(self.longest, now - self.last)
        print(json.dumps({'count': self.count, 'gap_ms': round(longest * 1000, 1), 'errors': self.errors[:10]}), flush=True)
        self.forget()


def connect(address, port):
    """Retries until it is there: guests boot."""
    for _ in range(600):
        try:
            return socket.create_connection((address, port), timeout=10)
        except OSError:
            time.sleep(0.1)
    raise OSError(f'no answer at {address}:{port}')


def echo(judge, address):
    line = connect(address, 7)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setblocking(False)
    sent = wanted = 0
    due, got = time.monotonic(), b''
    while True:
        wait = max(0, due - time.monotonic())
        ready, _, _ = select.select([line, sys.stdin], [], [], wait)
        if sys.stdin in ready:
            judge.answer()
        if line in ready:
            more = line.recv(65536)
            if not more:
                raise OSError('the echo has ended')
            got += more
            while len(got) >= RECORD:
                record, got = got[:RECORD], got[RECORD:]
                if record != b'%015d\n' % wanted:
                    raise OSError(f'echo: {record} instead of {wanted}')
                wanted += 1
                judge.came()
        if time.monotonic() >= due:
            due += 0.001
            # Not more than a connection holds: what is behind waits with the guest.
            if sent - wanted < 1000:
                try:
                    if line.send(b'%015d\n' % sent) != RECORD:
                        raise OSError('a part of a record was sent')
                    sent += 1
                except BlockingIOError:
                    pass


def stream(judge, address):
    line = connect(address, 9)
    wanted, got = 1, b''
    while True:
        ready, _, _ = select.select([line, sys.stdin], [], [])
        if sys.stdin in ready:
            judge.answer()
        if line not in ready:
            continue
        more = line.recv(65536)
        if not more:
            raise OSError('the stream has ended')
        lines = (got + more).split(b'\n')
        got = lines.pop()
        if lines and [int(n) for n in lines] != list(range(wanted, wanted + len(lines))):
            raise OSError(f'stream: {lines[:3]} ... {lines[-1]} behind {wanted - 1}')
        wanted += len(lines)
        judge.came(len(lines))
        time.sleep(0.01) # leaves the guest time for others


def get(address, path):
    """The body of a file; errors say how long it took."""
    began = time.monotonic()
    try:
        return fetch(address, path)
    except OSError as error:
        raise OSError(error.errno or errno.ETIMEDOUT, f'{path} after {time.monotonic() - began:.1f} s: {error}') from error


def fetch(address, path):
    line = socket.create_connection((address, 80), timeout=60)
    line.sendall(f'GET {path} HTTP/1.0\r\n\r\n'.encode())
    parts = []
    while part := line.recv(65536):
        parts.append(part)
    line.close()
    head, _, body = b''.join(parts).partition(b'\r\n\r\n')
    if b' 200 ' not in head.split(b'\r\n')[0]:
        raise OSError(f'{path}: {head[:60]}')
    return body


def web(judge, address):
    connect(address, 80).close()
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0.02)
        if ready:
            judge.answer()
        try:
            body, md5 = get(address, '/file'), get(address, '/sum').decode().split()[0]
        except OSError as error:
            # A cable was pulled: nobody answers for some seconds, which is a gap.
            if PATIENT and error.errno in (errno.EHOSTUNREACH, errno.ETIMEDOUT):
                continue
            raise
        if hashlib.md5(body).hexdigest() != md5:
            raise OSError(f'/file: {len(body)} wrong bytes')
        judge.came()


def listener(kind):
    """Hears frames of that kind only: among all of them, those that matter would be lost while we are not served."""
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
    line.bind(('lan', kind))
    return line


def announce(judge, mac):
    mac = bytes(int(b, 16) for b in mac.split(':'))
    rarp, arp = listener(0x8035), listener(0x806)
    while True:
        ready, _, _ = select.select([rarp, arp, sys.stdin], [], [])
        for line in (rarp, arp):
            if line not in ready:
                continue
            frame = line.recv(2048)
            about_itself = frame[28:32] == frame[38:42] # sender's and target's protocol address
            if frame[6:12] == mac and (line is rarp or about_itself):
                judge.came()
        if sys.stdin in ready and not select.select([rarp, arp], [], [], 0)[0]: # what came before is counted
            judge.answer()


def once(_, address):
    line = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    request = struct.pack('!BBHHH', 8, 0, 0, os.getpid() & 0xffff, 1)
    total = sum(struct.unpack('!4H', request))
    line.sendto(request[:2] + struct.pack('!H', 0xffff - (total % 0xffff)) + request[4:], (address, 0))
    print('sent', flush=True)
    while True:
        answer = line.recv(2048)[20:]
        if answer[0] == 0 and answer[4:] == request[4:]:
            break
    print('answered', flush=True)
    sys.exit(0)


def main():
    kinds = {'echo': echo, 'stream': stream, 'web': web, 'once': once, 'announce': announce}
    judge = Judge()
    try:
        kinds[sys.argv[1]](judge, sys.argv[2])
    except OSError as error:
        judge.wrong(f'{sys.argv[1]}: {error}')
        while True:
            judge.answer()


if __name__ == '__main__':
    main()
