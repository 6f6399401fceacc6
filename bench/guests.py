"""What the benchmarks of snapshots and of migration share: waiting, the pipe a guest writes to, and QEMU's monitor."""
import contextlib
import json
import mmap
import os
import socket
import subprocess
import threading
import time

QUIET = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
LIMIT_S = 120


def wait(what, condition, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.001)


def warm_memory():
    """Touches some of the host's memory and gives it back. Under a hypervisor that takes back what is free, the first touch of
    a page costs some 10 us, and whoever happens to get such pages would seem slow: totals varied by a factor of four."""
    with open('/proc/meminfo', encoding='ascii') as f:
        available = next(int(line.split()[1]) * 1024 for line in f if line.startswith('MemAvailable'))
    size = min(available // 2, 3 << 30) // mmap.PAGESIZE * mmap.PAGESIZE
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def connect(path):
    """To a socket that a process listens at, or will before long."""
    s = socket.socket(socket.AF_UNIX)
    wait(path, lambda: not s.connect_ex(path))
    return s


class Pipe:
    """A named pipe that a VMM writes the guest's bytes to; came() is called with each read."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR)
        self.stop = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        # A stamp is to say when the guest wrote, not when the host's scheduler let us read: beside threads of the same
        # weight that was up to 27 ms later. Who may not have that is as late as the host makes him.
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while True:
            data = os.read(self.fd, 4096)
            now = time.monotonic()
            if self.stop:
                break
            self.came(now, data)

    def came(self, now, data):
        raise NotImplementedError

    def close(self):
        self.stop = True
        os.write(self.fd, b'.')
        self.thread.join()
        os.close(self.fd)
        os.unlink(self.path)


class Qmp:
    """QEMU's monitor at a socket."""

    def __init__(self, path):
        self.file = connect(path).makefile('rw')
        self.file.readline()
        self.do('qmp_capabilities')

    def do(self, what, **arguments):
        self.file.write(json.dumps({'execute': what, 'arguments': arguments}) + '\n')
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if 'error' in answer:
                raise RuntimeError(answer['error']['desc'])
            if 'return' in answer:
                return answer['return']
