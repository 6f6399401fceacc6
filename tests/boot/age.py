#!/usr/bin/env python3
"""age.py STATE SECONDS: makes the snapshot whose state file this is as if it had been taken so long ago."""
import struct
import sys
import zlib

HEAD_BYTES, SECTION_HEAD_BYTES = 16, 48  # src/state/stream.h


def aged(state, seconds):
    at = 0
    while at < len(state):
        if state[at:at + 8] == b'TRAPEZE\0':  # there are two streams
            at += HEAD_BYTES
        head, length = state[at:at + SECTION_HEAD_BYTES], struct.unpack_from('<Q', state, at + 40)[0]
        body = at + SECTION_HEAD_BYTES
        if head[:32].rstrip(b'\0') == b'clock':  # src/vm/state.c: the wall clock's nanoseconds come first
            wall_ns, = struct.unpack_from('<q', state, body)
            new = struct.pack('<q', wall_ns - seconds * 10**9) + state[body + 8:body + length]
            return state[:body] + new + struct.pack('<I', zlib.crc32(head + new)) + state[body + length + 4:]
        at = body + length + 4
    raise SystemExit('no section "clock"')


def main():
    path, seconds = sys.argv[1], int(sys.argv[2])
    with open(path, 'rb') as f:
        state = f.read()
    with open(path, 'wb') as f:
        f.write(aged(state, seconds))


if __name__ == '__main__':
    main()
