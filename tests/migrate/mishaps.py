#!/usr/bin/env python3
"""Migrations that go wrong: the line is cut, or a process killed, at a message of choice. Afterwards one guest runs, or none if it
was its own process that was killed; never two, and it has found nothing wrong with itself.

usage: mishaps.py TRAPEZE WALKER; prints TAP. A few that are always the same; TRAPEZE_NIGHTLY=1: TRAPEZE_MISHAPS=300 at random, from
TRAPEZE_SEED, which is printed.
"""
import os
import random
import signal
import subprocess
import sys
import threading
import time

from host import PATIENCE_S, TRAPEZE, Wrong, between_two, check_count, check_move, still_counts, until

PROXY = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'boot', 'proxy.py')
PRECOPY = ['--precopy']
POSTCOPY = ['--postcopy', '--bandwidth', '30M']
MODES = [PRECOPY, ['--precopy', '--connections', '3', '--compress', 'zstd', '--delta', '32M'], ['--hybrid', '--bandwidth', '20M'], POSTCOPY,
         ['--postcopy']]
VICTIMS = ['line', 'line', 'line', 'source', 'destination', 'receiver', 'verb']
# what, its how manieth message (of any kind, in any direction), how
ALWAYS = [('line', 'READY', 1, PRECOPY), ('destination', 'STATE', 1, PRECOPY), ('line', 'NEED', 5, POSTCOPY), ('source', 'PAGES', 20, PRECOPY),
          ('destination', 'GO', 1, PRECOPY), ('receiver', 'GO', 1, POSTCOPY), ('verb', 'PAGES', 40, POSTCOPY), ('destination', 'COMPLETE', 1, POSTCOPY)]
# States that pass by themselves: who ends is silent for a moment.
BUSY = {'migrating', 'arriving', 'not answering'}


class Line:
    """What carries a migration, and stops at a message: cuts the line, or waits while somebody is killed."""

    def __init__(self, there, how, kind, count):
        self.path = os.path.join(there.root, 'line')
        self.place = 'unix:' + self.path
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.run = subprocess.Popen([sys.executable, PROXY, self.path, os.path.join(there.root, 'in'), '-', how, kind, str(count)],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.run.stdout.readline()  # it listens
        self.there_yet = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self):
        if self.run.stdout.readline():
            self.there_yet.set()

    def go_on(self):
        self.run.stdin.write('\n')
        self.run.stdin.flush()

    def close(self):
        self.run.kill()
        self.run.wait()


class Mishap:
    """One migration of `walker` from one host to the other, and what became of it."""

    def __init__(self, here, there, victim, message, options):
        self.here, self.there, self.victim, self.options = here, there, victim, options
        self.name = f'{victim} at {message[0]} {message[1]}, {" ".join(options)}'
        self.line = Line(there, 'rst' if victim == 'line' else 'hold', *message)
        self.said, self.acted = '', False

    def wrong(self, why):
        states = ', '.join(f'{host.state("walker")} {where}' for host, where in ((self.here, 'here'), (self.there, 'there')))
        return Wrong(f'{self.name}: {why}; it is {states}; migrate said: {self.said.strip()}')

    def kill(self, verb):
        """True: it was there to be killed."""
        if self.victim == 'verb':
            verb.kill()
        elif self.victim == 'receiver':
            self.there.receiver.kill()
            self.there.receiver.wait()
        else:
            host = self.here if self.victim == 'source' else self.there
            pid = host.guests().get('walker', {}).get('pid')
            if not pid:
                return False
            os.kill(pid, signal.SIGKILL)
        return True

    def migrate(self):
        verb = subprocess.Popen([TRAPEZE, 'migrate', '-q', *self.options, 'walker', self.line.place], env=self.here.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + PATIENCE_S
        while verb.poll() is None and not self.line.there_yet.wait(0.02) and time.monotonic() < end:
            pass
        self.acted = self.line.there_yet.is_set()
        if self.acted and self.victim != 'line':
            self.acted = self.kill(verb)
            self.line.go_on()
        self.said, _ = verb.communicate(timeout=PATIENCE_S)
        if self.victim == 'receiver' and self.acted:
            self.there.listen()

    def settled(self):
        """(here, there) when nothing changes any more; does what a person does: a new line, straight to the receiver."""
        states = self.here.state('walker'), self.there.state('walker')
        if BUSY & set(states):
            return None
        if states[0] in ('undecided', 'serving pages') and not (self.victim == 'destination' and self.acted):
            run = self.here.run('migrate', '-q', '--again', 'walker', self.there.place)
            if 'being migrated already' not in run.stderr:  # it gets on by itself
                self.said += run.stdout + run.stderr
            return None
        return states

    def stays(self):
        """It never ran there."""
        if self.there.bytes():
            raise self.wrong('it runs here, and has run there')
        still_counts(self.here, self.name)
        until(f'{self.name}: nothing is left there', lambda: not self.there.guests())
        return self.here

    def moved(self):
        check_move(self.here, self.there, 'walker')
        still_counts(self.there, self.name)
        return self.there

    def lost(self, states):
        """Of the guest that was killed nothing runs anywhere."""
        if 'running' in states:
            raise self.wrong('it runs, and was killed')
        check_count(self.here.bytes(), self.name)
        return None

    def judge(self):
        """Where it runs now: None, it was killed."""
        try:
            states = until('it settles', self.settled)
        except Wrong as wrong:
            raise self.wrong(wrong) from wrong
        killed = self.acted and self.victim in ('source', 'destination')
        if states[0] == 'running' and states[1] in ('nothing', 'ended'):
            return self.stays()
        if states[1] == 'running' and states[0] in ('ended', 'nothing', 'died') and not (killed and self.victim == 'destination'):
            return self.moved()
        if killed:
            return self.lost(states)
        raise self.wrong(f'{states} is not one guest')


def befall(hosts, victim, message, options):
    """The hosts, that first on which the guest runs."""
    here, there = hosts
    if here.state('walker') != 'running':
        for host in hosts:
            host.clear()
            if os.path.exists(host.debug):
                os.unlink(host.debug)
        here.start('walker')
    if os.path.exists(there.debug):
        os.unlink(there.debug)
    mishap = Mishap(here, there, victim, message, options)
    try:
        mishap.migrate()
        return (there, here) if mishap.judge() is there else (here, there)
    finally:
        mishap.line.close()


def always(hosts):
    for victim, kind, count, options in ALWAYS:
        hosts = befall(hosts, victim, (kind, count), options)
    for host in hosts:
        host.clear()


def at_random(hosts):
    if not os.environ.get('TRAPEZE_NIGHTLY'):
        return 'takes an hour; TRAPEZE_NIGHTLY=1 runs it'
    seed = int(os.environ.get('TRAPEZE_SEED', str(random.randrange(1 << 32))))
    times = int(os.environ.get('TRAPEZE_MISHAPS', '300'))
    print(f'# TRAPEZE_SEED={seed} TRAPEZE_MISHAPS={times}', flush=True)
    dice = random.Random(seed)
    for i in range(times):
        # Most of what matters is said by few messages, among many that bring pages.
        kind = dice.choice(['any', 'any', 'PAGES', 'FENCE', 'FENCED', 'STATE', 'READY', 'GO', 'RUNNING', 'NEED', 'COMPLETE', 'BYE'])
        count = int(2 ** dice.uniform(0, 8 if kind in ('any', 'PAGES', 'NEED') else 1))
        victim, options = dice.choice(VICTIMS), dice.choice(MODES)
        try:
            hosts = befall(hosts, victim, (kind, count), options)
        except Wrong as wrong:
            raise Wrong(f'mishap {i + 1} of seed {seed}: {wrong}') from wrong
    for host in hosts:
        host.clear()
    return None


def cases(hosts, _folder):
    return [('cut or killed at the same messages each time', lambda: always(hosts)),
            ('cut or killed at random messages', lambda: at_random(hosts))]


if __name__ == '__main__':
    sys.exit(between_two(cases))
