#!/usr/bin/env python3
"""Stands between two ends of a migration over plain TCP, and pulls the cable at a message of choice.

usage: proxy.py LISTEN HOST PORT HOW TYPE [COUNT]. LISTEN: a port, or a path; HOST and PORT: or a path and `-`. HOW: `rst` ends all connections at once, `silence` carries nothing any more,
`hold` waits with that message until there is a line on standard input, `pass` never acts. It acts when the COUNT-th message of that TYPE (a name, see src/vm/migrate/wire.h, or `any`) would be carried, and
carries none of it (`hold`: not yet). Connections made afterwards are carried as if nothing had been, except after `silence`. Prints "cut" then.
"""
import select
import socket
import struct
import sys

NAMES = ('- HELLO JOIN QUERY PAGES BLOCKS FENCE STATE ABSENT GO CANCEL FIT FENCED READY RUNNING NEED COMPLETE FAILED ANSWER LACK '
         'BYE FRAMES').split()
HEAD = 16


class Half:
    """One direction of one connection, and where in a message it is."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.head, self.body = b'', 0

    def types(self, data):
        """Splits what has come into (bytes, type of the message that begins with them or None)."""
        at = 0
        while at < len(data):
            if self.body:
                n = min(self.body, len(data) - at)
                self.body -= n
                yield data[at:at + n], None
                at += n
                continue
            n = min(HEAD - len(self.head), len(data) - at)
            self.head += data[at:at + n]
            at += n
            if len(self.head) == HEAD:
                _, kind, _, self.body = struct.unpack('<HBBI', self.head[:8])
                head, self.head = self.head, b''
                yield head, NAMES[kind] if kind < len(NAMES) else '?'


class Proxy:
    def __init__(self, port, target, how, kind, count):
        self.target, self.how, self.kind, self.count = target, how, kind, count
        if '/' in port:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(port)
            self.listener.listen()
        else:
            self.listener = socket.create_server(('', int(port)))
        self.halves, self.dead, self.acted = {}, set(), False

    def connect(self):
        if '/' not in self.target[0]:
            return socket.create_connection(self.target, timeout=10)
        far = socket.socket(socket.AF_UNIX)
        far.connect(self.target[0])
        return far

    def accept(self):
        near, _ = self.listener.accept()
        if self.acted and self.how == 'silence':
            self.dead.add(near)
            return
        try:
            far = self.connect()
        except OSError:
            near.close()
            return
        for s in (near, far):
            if s.family != socket.AF_UNIX:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.settimeout(None)
        self.halves[near], self.halves[far] = Half(near, far), Half(far, near)

    def act(self):
        """True: nothing more is carried."""
        print('cut', flush=True)
        self.acted = True
        if self.how == 'hold':
            sys.stdin.readline()
            return False
        if self.how == 'silence':
            self.dead.update(self.halves)
        for s in self.halves:
            if self.how == 'rst':
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                s.close()
        self.halves = {}
        return True

    def carry(self, half):
        try:
            data = half.source.recv(65536)
            for part, kind in half.types(data):
                if kind and not self.acted and self.kind in (kind, 'any') and self.how != 'pass':
                    self.count -= 1
                    if not self.count and self.act():
                        return None
                half.target.sendall(part)
        except OSError:
            data = b''
        if not data:
            for s in (half.source, half.target):
                self.halves.pop(s, None)
                s.close()
        return None

    def run(self):
        print('listening', flush=True)
        while True:
            ready, _, _ = select.select([self.listener, *self.halves], [], [])
            for s in ready:
                if s is self.listener:
                    self.accept()
                elif s in self.halves:
                    self.carry(self.halves[s])


if __name__ == '__main__':
    Proxy(sys.argv[1], (sys.argv[2], sys.argv[3]), sys.argv[4], sys.argv[5],
          int(sys.argv[6]) if len(sys.argv) > 6 else 1).run()
