#!/usr/bin/env python3
"""A Debian guest that serves a client moves between two hosts, which are namespaces of networks on this one.

usage: moving.py CASE...; see two_hosts.py. The client judges every byte that it gets; the longest gap it saw is printed.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys

from keys import certificates, make_keys
from lan import PATIENCE_S, Wrong, ip, until
from rounds import MODES, rounds
from two_hosts import TRAPEZE, Client, World


def quick(world):
    """Each mode once, there or back."""
    world.boot()
    hosts = [world.a, world.b]
    for host in hosts:
        host.receive('--insecure')
    for what, options in MODES.items():
        world.move(*hosts, '--insecure', *options, what=what)
        hosts.reverse()


def apart(world):
    """Disks that no storage shares, over each kind of line."""
    world.boot()
    make_keys(world)
    other_disk = os.path.join(world.folder, 'other-disk')
    with open(other_disk, 'wb') as f:
        f.truncate(32 << 20)
    disks = {'a': ['--disk', world.disk], 'b': ['--disk', other_disk]}
    psk = ['--psk', os.path.join(world.folder, 'psk')]
    hosts = [world.a, world.b]

    def go(what, receiver, source, place=None, env=None):
        here, there = hosts
        if receiver is not None:
            there.receive(*disks[there.letter], *receiver, place=place or 'tcp://:7007')
        world.move(here, there, '--copy-disks', *source, place=place, what=what, env=env)
        there.stop_receiver()
        hosts.reverse()

    go('certificates', certificates(world, 'b'), certificates(world, 'a'))
    go('key', psk, [*psk, '--connections', '4'])
    go('unix', [], ['--compress', 'zstd'], place='unix:' + os.path.join(world.folder, 'in'))
    ssh = os.path.join(world.folder, 'ssh')
    with open(ssh, 'w', encoding='ascii') as f:
        f.write(f'#!/bin/sh\nexec nsenter --net=/run/netns/{world.lan.space("a")} env TRAPEZE_ROOT={world.a.root} {TRAPEZE} '
                f'receive --disk {world.disk} -\n')
    os.chmod(ssh, 0o755)
    go('ssh', None, ['--postcopy'], place='ssh://a', env={'TRAPEZE_SSH': ssh})


def who_runs(world, what):
    """After a migration that was cut: the host that has the guest, which must be one."""
    # What was not to be there is removed a moment later, and what is asked about settles.
    def settled():
        states = {host: host.state() for host in (world.a, world.b)}
        live = [host for host, state in states.items() if state not in ('nothing', 'ended')]
        return live if len(live) == 1 and states[live[0]] == 'running' else None

    try:
        return until(f'{what}: one guest', settled)[0]
    except Wrong as wrong:
        raise Wrong(f'{wrong}; {world.a.state()} on a, {world.b.state()} on b') from wrong


def try_cut(world, here, there, what, how, message, count, *options):
    """One migration whose line is cut at a message; returns where the guest is then, and all is well."""
    place = world.proxy(there, how, message, count)
    world.client.report()
    run = here.start('migrate', '--insecure', '-q', *options, 'web', place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = run.communicate(timeout=PATIENCE_S)
    status = run.returncode
    cut = world.line.poll() is None
    state = here.state()
    if state == 'serving pages' and status == 4 and '--again' in out:
        # It runs there; both ends keep what they have until there is a new line.
        here.call('resume', 'web', wanted=4)
        here.call('migrate', '--again', '--insecure', '-q', 'web', f'tcp://{there.address}:7007')
        status = 0
    elif state == 'undecided':
        raise Wrong(f'{what}: undecided, although the receiver can be asked: {out}')
    found = who_runs(world, what)
    if cut and (status == 0) != (found is there):
        raise Wrong(f'{what}: status {status}, and it runs on {found.letter}: {out}')
    total = world.checked(found, what)
    if found is there:
        here.call('rm', 'web')
    gaps = {kind: total[kind]['gap_ms'] for kind in ('echo', 'stream', 'web')}
    world.gaps.setdefault(f'cut, {how}', []).append(gaps)
    return found


def silences(world):
    """From each of these messages on the line carries nothing, and stays open: that is noticed, and there is one guest."""
    world.boot(patient=True)
    for host in (world.a, world.b):
        host.receive('--insecure')
    here = world.a
    for message, count, *options in SILENCES:
        there = world.b if here is world.a else world.a
        what = f'silence at {message} {count}'
        place = world.proxy(there, 'silence', message, count)
        world.client.report()
        run = here.start('migrate', '--insecure', '-q', *options, 'web', place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = run.communicate(timeout=PATIENCE_S)
        if run.returncode and here.state() in ('undecided', 'serving pages'):
            run = here.start('migrate', '--again', '--insecure', '-q', 'web', f'tcp://{there.address}:7007',
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            again, _ = run.communicate(timeout=PATIENCE_S)
            out += again
        found = who_runs(world, what)
        if (run.returncode == 0) != (found is there):
            raise Wrong(f'{what}: status {run.returncode}, and it runs on {found.letter}: {out}')
        total = world.checked(found, what)
        world.gaps.setdefault('silence', []).append({kind: total[kind]['gap_ms'] for kind in ('echo', 'stream', 'web')})
        if found is there:
            here.call('rm', 'web')
        here = found
    world.unplug()
    forget_arrivals(world)


def standstill(run, phase):
    """Reads progress until nothing has gone over in that phase for a while."""
    same, sent = 0, -1
    for line in run.stdout:
        event = json.loads(line)
        same = same + 1 if event.get('phase') == phase and event['sent_bytes'] == sent else 0
        sent = event.get('sent_bytes')
        if same >= 5:
            return
    raise Wrong(f'{phase}: it ended: {run.stderr.read()}')


def cable(world):
    """The destination's cable is out for a moment, while memory is copied and while it follows; then for good."""
    world.boot(patient=True)
    hosts = [world.a, world.b]
    for host in hosts:
        host.receive('--insecure')
    for phase, options in (('copying', ['--precopy']), ('serving pages', ['--postcopy'])):
        here, there = hosts
        run = here.start('migrate', '--insecure', '--format', 'json', '--bandwidth', '10M', *options, 'web',
                         f'tcp://{there.address}:7007', stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while json.loads(run.stdout.readline())['phase'] != phase:
            pass
        world.lan.cable(there.letter, 'down')
        standstill(run, phase)
        world.lan.cable(there.letter, 'up')
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode:
            raise Wrong(f'a cable that was out while {phase}: {errors}')
        world.checked(there, f'a cable that was out while {phase}')
        here.call('rm', 'web')
        hosts.reverse()
    make_keys(world)
    here, there = hosts
    for line in (['--insecure'], ['--psk', os.path.join(world.folder, 'psk')]):
        there.receive(*line)
        run = here.start('migrate', *line, '-q', '--bandwidth', '10M', 'web', f'tcp://{there.address}:7007',
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until('it is being copied', lambda: there.state() == 'arriving')
        world.lan.cable(there.letter, 'down')
        out, _ = run.communicate(timeout=PATIENCE_S)
        if run.returncode != 4 or 'timed out' not in out or 'goes on here' not in out:
            raise Wrong(f'a cable that stays out: status {run.returncode}: {out}')
        world.lan.cable(there.letter, 'up')
        until('nothing is left there', lambda: not there.guests())
        world.checked(here, 'a cable that stayed out')
    forget_arrivals(world)


def forget_arrivals(world):
    """The files of those that no word of the source settled are kept for a day."""
    for host in (world.a, world.b):
        shutil.rmtree(os.path.join(host.root, 'run', 'arrivals'), ignore_errors=True)


def cuts(world, how, wanted):
    """Pulls the cable before each of these messages: there is one guest afterwards, and it is whole."""
    world.boot(patient=True)
    for host in (world.a, world.b):
        host.receive('--insecure')
    here = world.a
    for message, count, *options in wanted:
        there = world.b if here is world.a else world.a
        here = try_cut(world, here, there, f'{how} at {message} {count}', how, message, count, *options)
    world.unplug()
    forget_arrivals(world)


def obstinate(world):
    """A destination that takes nothing any more, over a line that cannot time out: a cancelled guest goes on."""
    world.boot()
    place = 'unix:' + os.path.join(world.folder, 'in')
    world.b.receive(place=place)
    run = world.a.start('migrate', '--bandwidth', '5M', 'web', place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until('it arrives', lambda: world.b.state() == 'arriving')
    pid = world.b.guests()['web']['pid']
    os.kill(pid, signal.SIGSTOP)
    world.a.call('migrate', '--cancel', 'web')
    out, _ = run.communicate(timeout=PATIENCE_S)
    if run.returncode != 4 or 'cancelled' not in out:
        raise Wrong(f'status {run.returncode}: {out[-300:]}')
    os.kill(pid, signal.SIGCONT)
    until('nothing is left there', lambda: not world.b.guests())
    world.checked(world.a, 'cancelled')
    forget_arrivals(world) # it never heard that it was called off


def full_disk(world):
    """The disk's file finds no room at the destination: that is said with its name, and the guest goes on here."""
    world.boot()
    small = os.path.join(world.folder, 'small')
    os.mkdir(small)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'trapeze', small], check=True)
    try:
        path = os.path.join(small, 'disk')
        with open(path, 'wb') as f:
            f.truncate(32 << 20)
        world.b.receive('--insecure', '--disk', path)
        for options in ([], ['--postcopy']):
            out = world.a.call('migrate', '--insecure', '-q', '--copy-disks', *options, 'web', f'tcp://{world.b.address}:7007',
                               wanted=4)
            if not all(part in out for part in (path, 'No space left', world.b.address, 'disk 0 has 32 MiB')):
                raise Wrong(f'a full disk: {out}')
            world.checked(world.a, 'the disk was full')
            until('nothing is left there', lambda: not world.b.guests())
        world.b.stop_receiver()
    finally:
        world.b.stop_receiver()
        subprocess.run(['umount', small], check=False)


def memory_group():
    """A control group for memory of 64 MiB; None where we cannot make one."""
    for root, limit in (('/sys/fs/cgroup/memory', 'memory.limit_in_bytes'), ('/sys/fs/cgroup', 'memory.max')):
        group = os.path.join(root, f'trapeze-{os.getpid()}')
        try:
            os.mkdir(group)
            with open(os.path.join(group, limit), 'w', encoding='ascii') as f:
                f.write(str(64 << 20))
            return group
        except OSError:
            if os.path.isdir(group):
                os.rmdir(group)
    return None


def remove_group(group):
    """True: it is no more. Who has just ended is still in it for a moment."""
    try:
        os.rmdir(group)
    except OSError:
        return False
    return True


def little_memory(world):
    """The receiver's control group has less memory than the guest: that is said before anything is sent."""
    group = memory_group()
    if not group:
        return 'no control group for memory can be made here'
    try:
        world.boot()
        world.b.receive('--insecure')
        with open(os.path.join(group, 'cgroup.procs'), 'w', encoding='ascii') as f:
            f.write(str(world.b.receiver.pid))
        out = world.a.call('migrate', '--insecure', '-q', 'web', f'tcp://{world.b.address}:7007', wanted=4)
        if not re.search('memory: 192 MiB are wanted, [0-9]+ MiB are available', out):
            raise Wrong(f'too little memory: {out}')
        world.checked(world.a, 'there was too little memory')
    finally:
        world.b.stop_receiver()
        until('the group is empty', lambda: remove_group(group))
    return None


class Sshd:
    """A real sshd on each host, with keys and a configuration of its own, and who connects to it."""

    def __init__(self, world, daemon, port='2222'):
        self.world, self.port = world, port
        self.folder = os.path.join(world.folder, 'ssh')
        os.mkdir(self.folder, 0o700)
        for name in ('host', 'user', 'stranger'):
            subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', name], check=True, cwd=self.folder)
        shutil.copy(self.path('user.pub'), self.path('authorized'))
        os.makedirs('/run/sshd', exist_ok=True) # where it locks itself up
        with open(self.path('host.pub'), encoding='ascii') as f:
            key = f.read()
        self.write('known', ''.join(f'[{host.address}]:{port} {key}' for host in (world.a, world.b)))
        self.write('config', f'Port {port}\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/authorized\nPidFile none\n'
                   'StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n')
        self.write('client', f'#!/bin/sh\nexec ssh -F none -i "${{KEY:-{self.folder}/user}}" -o UserKnownHostsFile={self.folder}/known '
                   '-o IdentitiesOnly=yes "$@"\n')
        os.chmod(self.path('client'), 0o755)
        self.log = open(self.path('log'), 'w', encoding='utf-8')
        self.servers = [subprocess.Popen(world.lan.inside(host.letter, daemon, '-D', '-e', '-f', self.path('config')), stderr=self.log)
                        for host in (world.a, world.b)]
        for host in (world.a, world.b):
            until('sshd listens', lambda host=host: f':{port}' in subprocess.run(
                world.lan.inside(host.letter, 'ss', '-ltn'), check=True, capture_output=True, text=True).stdout)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), 'w', encoding='ascii') as f:
            f.write(text)

    def place(self, host):
        return f'ssh://root@{host.address}:{self.port}'

    def env(self, host, key='user'):
        """For a migration to that host."""
        return {'TRAPEZE_SSH': self.path('client'), 'KEY': self.path(key),
                'TRAPEZE_SSH_COMMAND': f'TRAPEZE_ROOT={host.root} {TRAPEZE} receive -'}

    def close(self):
        for server in self.servers:
            server.terminate()
            server.wait(PATIENCE_S)
        self.log.close()


def sshd(world):
    """Through a real sshd: with a key that is not allowed; there by pre-copy, back by post-copy."""
    daemon = shutil.which('sshd', path=os.environ['PATH'] + ':/usr/sbin')
    if not daemon:
        return 'sshd is missing: apt-get install openssh-server'
    world.boot()
    servers = Sshd(world, daemon)
    try:
        run = world.a.start('migrate', 'web', servers.place(world.b), env=servers.env(world.b, 'stranger'),
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = run.communicate(timeout=PATIENCE_S)
        if run.returncode != 4 or 'Permission denied' not in out or 'ssh' not in out.splitlines()[-1]:
            raise Wrong(f'with a key that is not allowed: status {run.returncode}: {out}')
        for here, there, *options in ((world.a, world.b), (world.b, world.a, '--postcopy')):
            world.move(here, there, *options, place=servers.place(there), env=servers.env(there),
                       what=' '.join(['sshd', *options]))
    finally:
        servers.close()
    return None


def in_between(world):
    """What a client sends while the guest stands still is not lost: it is answered there, although nobody sends it again."""
    world.boot(patient=True)
    for host in (world.a, world.b):
        host.receive('--insecure')
    hosts = [world.a, world.b]
    for message, *options in (('READY',), ('GO',), ('RUNNING', '--postcopy'), ('READY', '--postcopy')):
        here, there = hosts
        place = world.proxy(there, 'hold', message)
        run = here.start('migrate', '--insecure', '-q', *options, 'web', place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        world.line.stdout.readline() # the message is held
        with world.client_of('once') as request:
            request.stdout.readline() # it is sent
            world.line.stdin.write('\n')
            world.line.stdin.flush()
            out, _ = run.communicate(timeout=PATIENCE_S)
            if run.returncode:
                raise Wrong(f'{message} held: status {run.returncode}: {out}')
            try:
                request.wait(PATIENCE_S / 4)
            except subprocess.TimeoutExpired as late:
                request.kill()
                raise Wrong(f'{message} held: what was sent meanwhile is lost') from late
        world.checked(there, f'{message} held')
        here.call('rm', 'web')
        hosts.reverse()
    world.unplug()
    forget_arrivals(world)


def undecided(world):
    """Nothing is carried any more when the destination says that it runs: a person asks again when there is a line."""
    world.boot(patient=True)
    world.b.receive('--insecure')
    place = world.proxy(world.b, 'silence', 'RUNNING')
    out = world.a.call('migrate', '--insecure', '-q', 'web', place, wanted=4)
    if world.a.state() != 'undecided' or '--again' not in out:
        raise Wrong(f'it is {world.a.state()}: {out}')
    world.a.call('resume', 'web', wanted=4)
    for verb in ('kill', 'stop'):
        out = world.a.call(verb, 'web', wanted=4)
        if '--force' not in out:
            raise Wrong(f'{verb}: {out}')
    world.a.call('migrate', '--again', '--insecure', '-q', 'web', f'tcp://{world.b.address}:7007')
    world.checked(world.b, 'asked again')
    world.unplug()
    forget_arrivals(world)


def snapshots(world):
    """Taken before, between and after moves; what was restored, and still reads its memory from there, moves as well."""
    world.boot(patient=True)
    for host in (world.a, world.b):
        host.receive('--insecure')
    world.a.call('snapshot', 'create', 'web', 'one')
    world.move(world.a, world.b, '--insecure', '--postcopy', what='with a snapshot')
    world.b.call('snapshot', 'create', 'web', 'two')
    world.move(world.b, world.a, '--insecure', what='with a snapshot taken there')
    world.a.call('snapshot', 'create', 'web', 'three')
    world.checked(world.a, 'after a third one')
    world.a.call('kill', 'web')
    world.a.call('rm', 'web')
    world.client.close() # its connections are to the future of the one that is restored
    world.a.call('snapshot', 'restore', '-d', '--name', 'web', 'three')
    world.client = Client(world, True)
    world.move(world.a, world.b, '--insecure', what='restored')


def refused(world):
    """Who has no right key or certificate sends nothing and receives nothing; what is lacking is named."""
    world.boot()
    make_keys(world)
    psk, other = (['--psk', os.path.join(world.folder, name)] for name in ('psk', 'other.psk'))
    mine = certificates(world, 'a')

    def refuses(why, *options):
        out = world.a.call('migrate', '-q', *options, 'web', f'tcp://{world.b.address}:7007', wanted=4)
        if why not in out:
            raise Wrong(f'migrate {" ".join(options)}: {out}')
        if world.a.state() != 'running' or world.b.guests():
            raise Wrong(f'migrate {" ".join(options)}: it is {world.a.state()} here, {world.b.state()} there')

    refuses('plain TCP beyond this host')
    refuses('cannot connect', '--insecure')
    world.b.receive(*psk)
    refuses('the same --psk there?', *other)
    refuses('does it want TLS', '--insecure')
    refuses('no agreement', *mine)
    world.b.receive(*certificates(world, 'b'))
    refuses('another certificate?', *certificates(world, 'stranger'))
    refuses('certificate', *certificates(world, 'a', 'foreign'))
    refuses('another key', *psk)
    world.b.receive(*certificates(world, 'stranger'))
    refuses('certificate', *mine)
    ip('-n', world.lan.space('b'), 'link', 'del', 'tap0')
    world.b.receive('--insecure')
    refuses("network 0: there is no interface 'tap0'", '--insecure')
    world.checked(world.a, 'refused')


SOME_CUTS = [('READY', 1), ('GO', 1), ('RUNNING', 1), ('PAGES', 1, '--postcopy', '--bandwidth', '30M'),
             ('NEED', 100, '--postcopy', '--bandwidth', '30M'), ('COMPLETE', 1, '--postcopy')]
ALL_CUTS = [(m, n) for m in ('HELLO', 'JOIN', 'FIT', 'STATE', 'READY', 'GO', 'RUNNING', 'COMPLETE', 'BYE') for n in (1,)] + [
    (m, n) for m in ('PAGES', 'FENCE', 'FENCED') for n in (1, 2, 3)] + [
    (m, n, '--postcopy', '--bandwidth', '30M') for m in ('ABSENT', 'STATE', 'READY', 'GO', 'RUNNING', 'COMPLETE', 'BYE')
    for n in (1,)] + [
    (m, n, '--postcopy', '--bandwidth', '30M') for m in ('PAGES', 'NEED') for n in (1, 2, 10, 100, 300)]

SILENCES = [(m, 1) for m in ('FIT', 'FENCED', 'STATE', 'READY', 'GO', 'RUNNING', 'COMPLETE', 'BYE')] + [
    ('PAGES', 2, '--bandwidth', '10M'), ('NEED', 10, '--postcopy', '--bandwidth', '30M'),
    ('PAGES', 100, '--postcopy', '--bandwidth', '30M')]

CASES = {
    'silences': silences,
    'cable': cable,
    'cuts': lambda world: cuts(world, 'rst', SOME_CUTS),
    'all-cuts': lambda world: cuts(world, 'rst', ALL_CUTS),
    'apart': apart,
    'obstinate': obstinate,
    'undecided': undecided,
    'refused': refused,
    'snapshots': snapshots,
    'in-between': in_between,
    'full-disk': full_disk,
    'little-memory': little_memory,
    'sshd': sshd,
    'rounds': rounds,
    'rounds-apart': lambda world: rounds(world, apart=True),
    'quick': quick,
}


def main():
    failed = 0
    for name in sys.argv[1:]:
        try:
            world = World()
        except (OSError, subprocess.CalledProcessError) as why:
            print(f'no networks of our own: {getattr(why, "stderr", why)}'.strip())
            return 77
        try:
            if skipped := CASES[name](world):
                print(skipped)
                return 77
            world.say_gaps()
            world.nothing_left()
        except (Wrong, OSError, ValueError, subprocess.SubprocessError) as wrong:
            failed += 1
            world.say_gaps()
            print('\n'.join(f'# {name}: {line}' for line in str(wrong).splitlines()))
            for host in (world.a, world.b):
                host.messages.seek(0)
                print('\n'.join(f'# receiver {host.letter}: {line.rstrip()}' for line in host.messages))
        finally:
            world.close()
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
