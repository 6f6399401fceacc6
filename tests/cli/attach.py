"""Runs `trapeze attach`, types a text and waits until the guest has returned it.

attach.py TEXT COMMAND...            over pipes
attach.py --terminal TEXT COMMAND... on a terminal of its own; then asks for help, detaches, and tells what it saw
attach.py --sizes COMMAND...         on a terminal that takes every "COLUMNS ROWS" from standard input as its size
TEXT may have escapes (\\x01).
"""
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

LIMIT_S = 50


def read_until(fd, want, seen=b''):
    while want not in seen:
        if not select.select([fd], [], [], LIMIT_S)[0]:
            sys.exit(f'{want!r} did not come, but {seen!r}')
        more = os.read(fd, 4096)
        if not more:
            sys.exit(f'it ended with {seen!r}')
        seen += more
    return seen


def over_pipes(text, command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attached:
        attached.stdin.write(text + b'\n')
        attached.stdin.flush()
        read_until(attached.stdout.fileno(), text)
        attached.kill()


def on_terminal(text, command):
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as attached:
        seen = read_until(ours, b'detaches.')
        os.write(ours, text)
        seen += read_until(ours, text[-2:])
        os.write(ours, b'\x01h')
        seen = read_until(ours, b'type a Ctrl-A', seen)
        os.write(ours, b'\x01d')
        seen = read_until(ours, b'Detached from echo', seen)
        attached.wait(LIMIT_S)
    print(seen.decode(errors='replace'))
    print('status', attached.returncode)
    print('restored:', 'yes' if termios.tcgetattr(theirs) == before else 'no')


def sizes(command):
    pid, fd = pty.fork()
    if not pid:
        os.execvp(command[0], command)
    read_until(fd, b'detaches.')
    for line in sys.stdin:
        cols, rows = (int(n) for n in line.split())
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))
    os.write(fd, b'\x01d')
    read_until(fd, b'Detached')
    os.waitpid(pid, 0)


def main():
    if sys.argv[1] == '--sizes':
        sizes(sys.argv[2:])
        return
    terminal = sys.argv[1] == '--terminal'
    text, command = sys.argv[1 + terminal], sys.argv[2 + terminal:]
    text = text.encode().decode('unicode_escape').encode('latin-1')
    (on_terminal if terminal else over_pipes)(text, command)


main()
