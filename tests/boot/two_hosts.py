"""Two hosts, a client (load.py) and a Debian guest that serves it and checks itself (guest/init, "serve").

TRAPEZE, KERNEL, INITRD come in the environment. Nothing here asserts a time."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from lan import GUEST, GUEST_MAC, Lan, PATIENCE_S, Wrong, until

TRAPEZE, KERNEL, INITRD = (os.environ.get(name, '') for name in ('TRAPEZE', 'KERNEL', 'INITRD'))
HERE = os.path.dirname(os.path.abspath(__file__))
BAD = re.compile(r'went back|has changed|stall|lockup|BUG|Call Trace|I/O error')
KINDS = ('echo', 'stream', 'web')


class Host:
    """A namespace with a folder for records, and with a receiver when one is started."""

    def __init__(self, world, letter):
        self.world, self.letter = world, letter
        self.root = os.path.join(world.folder, letter)
        os.makedirs(self.root)
        self.env = dict(os.environ, TRAPEZE_ROOT=self.root)
        self.address = {'a': '10.77.0.2', 'b': '10.77.0.3'}[letter]
        self.messages = open(os.path.join(self.root, 'receiver'), 'w+', encoding='utf-8')
        self.receiver = None

    def start(self, *args, **how):
        return subprocess.Popen(self.world.lan.inside(self.letter, TRAPEZE, *args), env=dict(self.env, **how.pop('env', {})),
                                stdin=subprocess.DEVNULL, text=True, **how)

    def call(self, *args, wanted=0):
        """Runs a verb that must end with that status; what it said on both outputs."""
        run = self.start(*args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = run.communicate(timeout=PATIENCE_S)
        if run.returncode != wanted:
            raise Wrong(f'{self.letter}: trapeze {" ".join(args)}: status {run.returncode}, not {wanted}: {out.strip()}')
        return out

    def receive(self, *options, place='tcp://:7007'):
        """A receiver, which listens when this returns."""
        self.stop_receiver()
        self.receiver = self.start('receive', *options, place, stdout=self.messages, stderr=self.messages)
        if place.startswith('unix:'):
            until('the receiver listens', lambda: os.path.exists(place[5:]))
        else:
            until('the receiver listens', lambda: self._listens() or self.receiver.poll() is not None)

    def _listens(self):
        run = subprocess.run(self.world.lan.inside(self.letter, 'ss', '-ltn'), capture_output=True, text=True, check=True)
        return ':7007' in run.stdout

    def stop_receiver(self):
        if self.receiver:
            self.receiver.terminate()
            self.receiver.wait(PATIENCE_S)
        self.receiver = None

    def guests(self):
        return {g['name']: g for g in json.loads(self.call('ps', '-a', '--format', 'json'))}

    def state(self):
        return self.guests().get('web', {}).get('state', 'nothing')

    def consoles(self):
        for path in glob.glob(os.path.join(self.root, 'guests', '*', 'console.log')):
            with open(path, encoding='utf-8', errors='replace') as f:
                yield f.read()

    def alive(self):
        """How often the guest has said here that all is well."""
        return sum(text.count('alive') for text in self.consoles())

    def processes(self):
        """Of this host's that trapeze runs."""
        found = []
        for path in glob.glob('/proc/[0-9]*/environ'):
            try:
                with open(path, 'rb') as f:
                    if f'TRAPEZE_ROOT={self.root}\0'.encode() in f.read():
                        found.append(int(path.split('/')[2]))
            except OSError:
                pass
        return found

    def clear(self):
        for guest in self.guests().values():
            self.call('rm', '-f', guest['id'])


class Client:
    """What wants something of the guest, and judges what it gets."""

    def __init__(self, world, patient):
        self.runs = {kind: subprocess.Popen(
            world.lan.inside('c', sys.executable, os.path.join(HERE, 'load.py'), kind, GUEST_MAC if kind == 'announce' else GUEST,
                             *(['patient'] if patient else [])),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for kind in KINDS + ('announce',)}

    def report(self):
        """What it saw since the last time."""
        said = {}
        for run in self.runs.values():
            run.stdin.write('\n')
            run.stdin.flush()
        for kind, run in self.runs.items():
            said[kind] = json.loads(run.stdout.readline())
            if said[kind]['errors']:
                raise Wrong('the client: ' + '; '.join(said[kind]['errors']))
        return said

    def served(self):
        """Waits until each kind was served anew; adds up what was seen."""
        total = {kind: {'count': 0, 'gap_ms': 0} for kind in self.runs}

        def all_served():
            for kind, seen in self.report().items():
                total[kind]['count'] += seen['count']
                total[kind]['gap_ms'] = max(total[kind]['gap_ms'], seen['gap_ms'])
            return all(total[kind]['count'] > 3 for kind in KINDS)

        until('the client is served', all_served)
        return total

    def close(self):
        for run in self.runs.values():
            run.kill()
            run.wait()


class World:
    """Both hosts, the client and a guest with a disk, which begins on host a."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='trapeze-hosts-')
        self.lan = Lan()
        self.disk = os.path.join(self.folder, 'disk')
        self.disks = [self.disk]
        self.a, self.b = Host(self, 'a'), Host(self, 'b')
        self.client = self.line = None
        self.gaps = {}

    def boot(self, *options, memory='192M', cpus='1', patient=False, system=None):
        """SYSTEM: an image by debian.sh, which is left as it is."""
        with open(self.disk, 'wb') as f:
            f.truncate(32 << 20)
        what = f'console=ttyS0 quiet trapeze.do=serve trapeze.ip={GUEST}/24'
        if system:
            self.disks.insert(0, os.path.join(self.folder, 'system'))
            subprocess.run(['cp', '--sparse=always', system, self.disks[0]], check=True)
            what += ' trapeze.root=/dev/vda systemd.mask=systemd-networkd-wait-online.service'
            memory = '512M'
        self.a.call('run', '-d', '--name', 'web', '-k', KERNEL + '/vmlinuz', '--initrd', INITRD, '-m', memory, '--cpus', cpus,
                    '--append', what, *(word for disk in self.disks for word in ('--disk', disk)),
                    '--net', f'tap,ifname=tap0,mac={GUEST_MAC}', *options)
        self.client = Client(self, patient)
        until('the guest checks itself', lambda: self.a.alive() > 1)
        self.client.served()

    def checked(self, host, what):
        """The guest runs there, finds nothing wrong with itself, and serves."""
        seen = host.alive()
        total = self.client.served()
        until(f'{what}: the guest checks itself', lambda: host.alive() > seen + 1)
        for text in list(self.a.consoles()) + list(self.b.consoles()):
            if found := BAD.search(text):
                raise Wrong(f'{what}: the guest says: {text[max(0, found.start() - 200):found.end() + 200]}')
        if host.state() != 'running':
            raise Wrong(f'{what}: it is {host.state()} on {host.letter}')
        other = self.b if host is self.a else self.a
        if other.state() not in ('nothing', 'ended'):
            raise Wrong(f'{what}: it is {other.state()} on {other.letter}, too')
        return total

    def move(self, here, there, *options, place=None, env=None, what=None):
        """One move, with everything checked afterwards; the summary that it prints."""
        what = what or ' '.join(options) or 'pre-copy'
        self.client.report()
        run = here.start('migrate', '--format', 'json', *options, 'web', place or f'tcp://{there.address}:7007',
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env or {})
        out, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode:
            raise Wrong(f'{what}: status {run.returncode}: {errors.strip()}')
        total = self.checked(there, what)
        if not total['announce']['count']:
            raise Wrong(f'{what}: nobody announced the new place')
        if self.lan.port_of_guest() != there.letter:
            raise Wrong(f'{what}: the switch believes the guest is on {self.lan.port_of_guest()}')
        here.call('rm', 'web')
        summary = json.loads(out.splitlines()[-1])
        if summary['event'] != 'moved':
            raise Wrong(f'{what}: the last line is {summary}')
        gaps = {kind: total[kind]['gap_ms'] for kind in KINDS}
        self.gaps.setdefault(what, []).append(dict(gaps, downtime_ms=round(summary['downtime_ns'] / 1e6, 1)))
        return summary

    def proxy(self, there, how, message, count=1):
        """Something between the hosts, which acts at a message (proxy.py); the place to migrate to."""
        self.unplug()
        self.line = subprocess.Popen(self.lan.inside('c', sys.executable, os.path.join(HERE, 'proxy.py'), '7008', there.address,
                                                     '7007', how, message, str(count)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.line.stdout.readline() # it listens
        return 'tcp://10.77.0.1:7008'

    def client_of(self, kind):
        """One more client, see load.py."""
        return subprocess.Popen(self.lan.inside('c', sys.executable, os.path.join(HERE, 'load.py'), kind, GUEST),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def unplug(self):
        if self.line:
            self.line.kill()
            self.line.wait()
        self.line = None

    def say_gaps(self):
        for what, moves in self.gaps.items():
            longest = {key: max(m[key] for m in moves) for key in moves[0]}
            print(f'# {what}: {len(moves)} moves; longest gaps in ms: ' + ', '.join(f'{k} {v}' for k, v in longest.items()),
                  flush=True)

    def nothing_left(self):
        """After a machine has gone and the receivers have ended, nothing reminds of either."""
        for host in (self.a, self.b):
            host.clear()
            host.stop_receiver()
            until(f'{host.letter} is quiet', lambda host=host: not host.processes())
            left = [os.path.join(path, name) for folder in ('run', 'guests') for path, _, names
                    in os.walk(os.path.join(host.root, folder)) for name in names]
            if left:
                raise Wrong(f'left on {host.letter}: {left}')

    def close(self):
        if self.client:
            self.client.close()
        self.unplug()
        for host in (self.a, self.b):
            try:
                host.clear()
                host.stop_receiver()
            except (Wrong, OSError, subprocess.TimeoutExpired):
                pass
            for pid in host.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        self.lan.close()
        shutil.rmtree(self.folder, ignore_errors=True)
