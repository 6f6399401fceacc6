"""Runs a machine on a pseudo-terminal and tells what became of the terminal's modes.

usage: terminal.py MARK INPUT COMMAND...
MARK is the fifo on which the guest says that it runs. INPUT is typed then (with Python's escapes), as parts "TYPED =>
EXPECTED => TYPED ...": each is typed when the one before was answered. KILL instead sends SIGKILL. Prints what the machine printed, its status, and whether the terminal was raw and restored.
"""
import os
import pty
import select
import signal
import sys
import termios
import time

LIMIT_S = 30


def modes(fd):
    return termios.tcgetattr(fd)[:4]


def type_parts(fd, text):
    """Types, and waits for what is expected; returns all that was printed meanwhile."""
    output = b''
    answered = 0
    for i, part in enumerate(text.split(' => ')):
        part = part.encode().decode('unicode_escape').encode('latin-1')
        if i % 2 == 0:
            os.write(fd, part)
            continue
        while part not in output[answered:]:
            if not select.select([fd], [], [], LIMIT_S)[0]:
                sys.exit(f'no {part} in {output}')
            output += os.read(fd, 4096)
        answered = output.index(part, answered) + len(part)
    return output


def main():
    mark, typed, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    mark_fd = os.open(mark, os.O_RDWR)
    controller, terminal = pty.openpty()
    before = modes(terminal)
    pid = os.fork()
    if not pid:
        os.setsid()
        for fd in range(3):
            os.dup2(terminal, fd)
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.execvp(command[0], command)
    if not select.select([mark_fd], [], [], LIMIT_S)[0]:
        print(os.read(controller, 4096).decode(errors='replace'))
        sys.exit('the guest did not start')
    raw = modes(terminal)
    output = b''
    if typed == 'KILL':
        os.kill(pid, signal.SIGKILL)
    else:
        output = type_parts(controller, typed)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # The watcher acts after the machine's end: it must within the limit.
    end = time.monotonic() + LIMIT_S
    while modes(terminal) != before and time.monotonic() < end:
        time.sleep(0.01)
    while select.select([controller], [], [], 0.1)[0]:
        output += os.read(controller, 4096)
    print(output.decode('latin-1'))
    print('status', status)
    print('raw while running:', 'no' if raw[3] & termios.ICANON else 'yes')
    print('restored:', 'yes' if modes(terminal) == before else 'no')


if __name__ == '__main__':
    main()
