"""Two hosts and a client on one network, made of namespaces: each host has a bridge with a tap for the guest and a cable to
the switch, which is a bridge, too; the client sits at the switch. Needs root and iproute2."""
import json
import os
import subprocess
import time

GUEST_MAC = '52:54:00:54:5a:01'
GUEST = '10.77.0.10'
PATIENCE_S = int(os.environ.get('TRAPEZE_PATIENCE', '180'))


class Wrong(Exception):
    """What a test found to be wrong."""


def until(what, condition):
    """Repeats until it holds, and returns what it returned; what has to come comes within PATIENCE_S on a loaded machine."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > end:
            raise Wrong('never came: ' + what)
        time.sleep(0.02)
    return found


def ip(*args):
    subprocess.run(['ip', *args], check=True, capture_output=True, text=True)


class Lan:
    """Namespaces NAME-a and NAME-b (10.77.0.2 and .3) for hosts, NAME-c (10.77.0.1) for switch and client."""

    def __init__(self):
        self.name = f'trapeze-{os.getpid()}'
        self.made = []
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def space(self, letter):
        return f'{self.name}-{letter}'

    def _make(self):
        for letter in 'cab':
            ip('netns', 'add', self.space(letter))
            self.made.append(letter)
            ip('-n', self.space(letter), 'link', 'set', 'lo', 'up')
        for number, (letter, address) in enumerate((('c', '10.77.0.1/24'), ('a', '10.77.0.2/24'), ('b', '10.77.0.3/24')), 1):
            # A bridge without an address of its own takes the lowest of its ports', and another one when that port goes.
            ip('-n', self.space(letter), 'link', 'add', 'lan', 'address', f'02:54:5a:00:00:0{number}', 'type', 'bridge')
            ip('-n', self.space(letter), 'addr', 'add', address, 'dev', 'lan')
            ip('-n', self.space(letter), 'link', 'set', 'lan', 'up')
        for letter in 'ab':
            ip('-n', self.space(letter), 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'to-' + letter,
               'netns', self.space('c'))
            ip('-n', self.space(letter), 'tuntap', 'add', 'tap0', 'mode', 'tap')
            for port in ('cable', 'tap0'):
                ip('-n', self.space(letter), 'link', 'set', port, 'master', 'lan', 'up')
            ip('-n', self.space('c'), 'link', 'set', 'to-' + letter, 'master', 'lan', 'up')

    def inside(self, letter, *command):
        """The command, as it runs in that namespace; files are everybody's."""
        return ['nsenter', '--net=/run/netns/' + self.space(letter), '--', *command]

    def cable(self, letter, state):
        """Pulls a host's cable, or puts it back: 'down', 'up'."""
        ip('-n', self.space('c'), 'link', 'set', 'to-' + letter, state)

    def port_of_guest(self):
        """The port of the switch behind which it has seen the guest last: 'a' or 'b'."""
        run = subprocess.run(self.inside('c', 'bridge', '-j', 'fdb', 'show', 'br', 'lan'), check=True, capture_output=True,
                             text=True)
        ports = [e['ifname'].removeprefix('to-') for e in json.loads(run.stdout) if e['mac'] == GUEST_MAC]
        return ports[0] if ports else None

    def close(self):
        for letter in self.made:
            subprocess.run(['ip', 'netns', 'del', self.space(letter)], capture_output=True, check=False)
        self.made = []
