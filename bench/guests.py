"""What the benchmarks of snapshots and of migration share: waiting, the pipe a guest writes to, and QEMU's monitor."""
import fcntl
import json
import mmap
import os
import socket
import struct
import subprocess
import threading
import time

QUIET = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
LIMIT_S = 120
RECORD = struct.Struct('QQ')  # of bench_stamp: when, in ns, and how many bytes follow


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
    """A named pipe that a VMM writes the guest's bytes to; came() is called with what bench_stamp read at once, and when it did,
    some milliseconds later."""

    stamper = None  # the program; see use_stamper()

    def __init__(self, path):
        self.path = path
        self.rest = b''
        os.mkfifo(path)
        self.process = subprocess.Popen([self.stamper, path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, 1 << 20)
        if not os.read(self.process.stdout.fileno(), RECORD.size):  # the first record
            raise RuntimeError(f'{self.stamper} cannot read {path}')
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while data := os.read(self.process.stdout.fileno(), 1 << 20):
            self.take(data)
            time.sleep(0.01)  # a wake-up for each byte would take the time that is measured

    def take(self, data):
        data, at = self.rest + data, 0
        while len(data) - at >= RECORD.size:
            ns, size = RECORD.unpack_from(data, at)
            if len(data) - at - RECORD.size < size:
                break
            at += RECORD.size + size
            if size:
                self.came(ns / 1e9, data[at - size:at])
        self.rest = data[at:]

    def came(self, now, data):
        raise NotImplementedError

    def close(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()
        os.unlink(self.path)


def use_stamper(build):
    """Builds what stamps the bytes of all pipes."""
    subprocess.run(['ninja', '-C', build, 'bench/bench_stamp'], check=True, stdout=subprocess.DEVNULL)
    Pipe.stamper = os.path.join(build, 'bench', 'bench_stamp')


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
