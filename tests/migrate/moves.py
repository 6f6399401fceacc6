#!/usr/bin/env python3
"""A guest that checks itself migrates between two hosts (host.py), by every mode.

usage: moves.py TRAPEZE WALKER; prints TAP. TRAPEZE_MIGRATIONS: so many moves there and back; TRAPEZE_NIGHTLY=1: a thousand, which
takes half an hour. TRAPEZE_CASE: only the case whose name begins so.
"""
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

from host import PATIENCE_S, TRAPEZE, Host, Wrong, between_two, check_move, move, still_counts, until, wait_phase

WALK_LITTLE = 'set=2 fill=2 rate=2'  # a KVM in software is slow
MODES = [[], ['--postcopy'], ['--compress', 'zstd', '--delta', '32M', '--bandwidth', '200M'],
         ['--connections', '3', '--bandwidth', '20M'], ['--throttle', '80', '--bandwidth', '30M'],
         ['--precopy', '--compress', 'none', '--delta', '0']]


# --- the cases ---------------------------------------------------------------------------------------------------


def there_and_back(hosts):
    a, b = hosts
    a.start('walker')
    usual = 1000 if os.environ.get('TRAPEZE_NIGHTLY') else len(MODES)
    moves = int(os.environ.get('TRAPEZE_MIGRATIONS', str(usual)))
    for i, mode in zip(range(1, moves + 1), itertools.cycle(MODES)):
        for here, there in ((a, b), (b, a)):
            try:
                move(here, there, 'walker', *mode)
            except Wrong as wrong:
                raise Wrong(f'{i - 1} there and back, then with {" ".join(mode) or "no options"}: {wrong}') from wrong
        if i % 100 == 0:
            print(f'# {i} times there and back', flush=True)
    a.call('rm', '-f', 'walker')


def third_host(hosts, folder):
    """What the guest wrote on the first host and never again is on the third one, too: the walker reads it all."""
    a, b = hosts
    c = Host(folder, 'c')
    try:
        a.start('walker', more='set=1 fill=4 rate=400')
        for here, there, mode in ((a, b, '--precopy'), (b, c, '--postcopy'), (c, a, '--precopy')):
            move(here, there, 'walker', mode)
        still_counts(a, 'it has read all of its memory', 1000)
        a.call('rm', '-f', 'walker')
    finally:
        c.close()


def refused(host, why, *args):
    run = host.run(*args)
    if run.returncode != 4 or why not in run.stderr:
        raise Wrong(f'trapeze {" ".join(args)}: status {run.returncode}, {run.stderr.strip()}; not refused with "{why}"')


def start_with_disk(host, file):
    """The walker with an empty disk that both hosts see."""
    disk = os.path.join(host.root, file)
    with open(disk, 'wb') as f:
        f.truncate(1 << 20)
    host.start('walker', '--disk', disk)


def snapshots(hosts):
    """A snapshot changes what disks are made of, so it and a migration exclude each other, whichever comes first."""
    a, b = hosts
    start_with_disk(a, 'shared')
    run = a.migrate('walker', b, '--bandwidth', '2M')
    wait_phase(run, 'copying')
    refused(a, 'is being migrated', 'snapshot', 'create', 'walker', 'meanwhile')
    a.call('migrate', '--cancel', 'walker')
    run.communicate(timeout=PATIENCE_S)
    a.call('snapshot', 'create', 'walker', 'after')
    for i in range(4):
        taking = subprocess.Popen([TRAPEZE, 'snapshot', 'create', 'walker', f'race{i}'], env=a.env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(random.random() / 20)
        run = a.migrate('walker', b)
        _, errors = run.communicate(timeout=PATIENCE_S)
        _, refusal = taking.communicate(timeout=PATIENCE_S)
        if taking.returncode and 'migrated' not in refusal and 'no machine runs' not in refusal:
            raise Wrong(f'snapshot: {refusal}')
        if not run.returncode:
            check_move(a, b, 'walker')
            a, b = b, a
        elif 'snapshot' not in errors:
            raise Wrong(f'migrate: {errors}')
        still_counts(a, 'it goes on')
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def layers(hosts):
    """What a guest stands on stays on the host where it was made, while the guest is elsewhere and whatever else is removed."""
    a, b = hosts
    start_with_disk(a, 'layered')
    a.call('snapshot', 'create', 'walker', 'one')
    move(a, b, 'walker')
    a.call('snapshot', 'rm', 'one')  # and layers that nobody needs
    b.call('snapshot', 'create', 'walker', 'two')
    move(b, a, 'walker')
    b.call('snapshot', 'rm', 'two')
    a.call('snapshot', 'create', 'walker', 'three')
    a.call('snapshot', 'rm', 'three')
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def cancel_then_move(hosts):
    """By the verb for it, and by Ctrl-C and SIGTERM of the one that shows the progress; its death changes nothing."""
    a, b = hosts
    a.start('walker')
    for end in (None, signal.SIGINT, signal.SIGTERM):
        run = a.migrate('walker', b, '--bandwidth', '2M')
        wait_phase(run, 'copying')
        if end:
            run.send_signal(end)
        else:
            a.call('migrate', '--cancel', 'walker')
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode != 4 or 'cancelled' not in errors:
            raise Wrong(f'{end}: status {run.returncode}, {errors}')
        still_counts(a, f'it goes on after the cancel by {end}')
        until('nothing is left there', lambda: not b.guests())
    run = a.migrate('walker', b, '--bandwidth', '10M')
    wait_phase(run, 'copying')
    run.kill()
    run.communicate(timeout=PATIENCE_S)
    until('it has gone although nobody looked on', lambda: a.state('walker') == 'ended')
    check_move(a, b, 'walker')
    a, b = b, a
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def destination_killed(hosts):
    """At some moment of the copy: the guest runs on, and can move later."""
    a, b = hosts
    a.start('walker')
    for bandwidth in ('2M', '4M', '300M'):
        run = a.migrate('walker', b, '--bandwidth', bandwidth)
        until('its process is there', lambda: b.guests() or run.poll() is not None)
        for guest in b.guests().values():
            if guest.get('pid'):
                time.sleep(random.random() / 5)
                try:
                    os.kill(guest['pid'], signal.SIGKILL)
                except ProcessLookupError:
                    pass
        run.communicate(timeout=PATIENCE_S)
        if a.state('walker') != 'running':
            # It was through before the kill: then it is a guest that was killed there.
            if a.state('walker') != 'ended':
                raise Wrong(f'it is {a.state("walker")} here')
            a.call('rm', 'walker')
            for guest in b.guests():
                b.call('rm', '-f', guest)
            a.start('walker')
            continue
        still_counts(a, 'it goes on here')
        until('nothing is left there', lambda: not b.guests())
    move(a, b, 'walker')
    b.call('rm', '-f', 'walker')


def source_killed(hosts):
    """Before the hand-over the guest dies with its process, and nothing of it stays there."""
    a, b = hosts
    a.start('walker')
    run = a.migrate('walker', b, '--bandwidth', '3M')
    wait_phase(run, 'copying')
    os.kill(a.guests()['walker']['pid'], signal.SIGKILL)
    run.communicate(timeout=PATIENCE_S)
    until('nothing is left there', lambda: not b.guests())
    a.call('rm', 'walker')


def source_killed_in_postcopy(hosts):
    """The guest is over there, whether its memory is or not: this host does not start it once more."""
    a, b = hosts
    for end in ('kill -9', 'kill --force'):
        a.start('walker')
        run = a.migrate('walker', b, '--postcopy', '--bandwidth', '2M')
        wait_phase(run, 'serving pages')
        if end == 'kill -9':
            os.kill(a.guests()['walker']['pid'], signal.SIGKILL)
        else:
            a.call('kill', '--force', 'walker')
        run.communicate(timeout=PATIENCE_S)
        refused(a, f'handed over to another host, {b.place}: two of it must not run', 'start', 'walker')
        if b.state('walker') in ('nothing', 'ended'):
            raise Wrong(f'{end}: it is {b.state("walker")} there')
        b.call('rm', '-f', 'walker')
        os.unlink(a.debug)
        a.call('start', '--force', 'walker')
        until('it begins anew', lambda: len(a.bytes()) > 20)
        # That it was away once is forgotten then.
        a.call('kill', 'walker')
        a.call('start', 'walker')
        a.call('rm', '-f', 'walker')


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as f:
        return [int(p) for p in f.read().split()]


def broken_postcopy(folder):
    """TLS over TCP; its carriers are killed in the middle of a post-copy, and a new line is made."""
    key, wrong = os.path.join(folder, 'key'), os.path.join(folder, 'wrong')
    for path, text in ((key, 'ab' * 32), (wrong, 'cd' * 32)):
        with open(path, 'w', encoding='ascii') as f:
            f.write(text + '\n')
    port = random.randrange(20000, 30000)
    a = Host(folder, 'tls-a')
    b = Host(folder, 'tls-b', '--psk', key, place=f'tcp://127.0.0.1:{port}')
    try:
        a.start('walker')
        a.call('migrate', '--psk', wrong, 'walker', b.place, wanted=4)
        a.call('migrate', 'walker', b.place, wanted=4)  # plain bytes to a TLS port
        until('the receiver listens', lambda: b.receiver.poll() is None)
        run = a.migrate('walker', b, '--psk', key, '--postcopy', '--bandwidth', '2M')
        wait_phase(run, 'serving pages')
        for carrier in children(run.pid):
            os.kill(carrier, signal.SIGKILL)
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode != 4 or '--again' not in errors:
            raise Wrong(f'status {run.returncode}, {errors}')
        if a.state('walker') != 'serving pages':
            raise Wrong(f'it is {a.state("walker")} here')
        refused(a, 'between two hosts', 'resume', 'walker')
        # Nobody ends it by mistake.
        refused(a, '--force', 'kill', 'walker')
        refused(a, 'stop it there', 'stop', 'walker')
        refused(b, '--force', 'kill', 'walker')
        # A part of its memory is not there yet: nobody may take the rest for all of it.
        refused(b, 'still to come', 'snapshot', 'create', 'walker', 'half')
        refused(b, 'still to come', 'migrate', 'walker', f'unix:{folder}/a/in')
        run = a.migrate('walker', b, '--psk', key, '--again')
        _, errors = run.communicate(timeout=PATIENCE_S)
        if run.returncode:
            raise Wrong(f'again: status {run.returncode}, {errors}')
        check_move(a, b, 'walker')
    finally:
        a.close()
        b.close()


def accelerators(hosts, folder):
    """From the translator to KVM and back. This guest is content with a KVM that is too weak for a kernel."""
    if not os.path.exists('/dev/kvm'):
        return 'no /dev/kvm'
    os.environ['TRAPEZE_ACCEL_ANYWAY'] = 'kvm'
    k = Host(folder, 'kvm', '--accel', 'kvm')
    t = Host(folder, 'bt', '--accel', 'bt')
    try:
        for there, back in [((), ('--postcopy',)), (('--postcopy',), ())]:
            t.start('walker', '--accel', 'bt', more=WALK_LITTLE)
            move(t, k, 'walker', *there)
            accel = json.loads(k.call('inspect', 'walker'))[0]['machine']['accel']
            if accel != 'kvm':
                raise Wrong(f'it runs under {accel} there')
            move(k, t, 'walker', *back)
            t.clear()
            os.unlink(t.debug)
    finally:
        k.close()
        t.close()
    return None


def cases(hosts, folder):
    return [('there and back by every way of copying', lambda: there_and_back(hosts)),
            ('a third host has what was written on the first', lambda: third_host(hosts, folder)),
            ('snapshots and migrations exclude each other', lambda: snapshots(hosts)),
            ('disks stay where a guest left them', lambda: layers(hosts)),
            ('cancelled, then moved', lambda: cancel_then_move(hosts)),
            ('the destination is killed', lambda: destination_killed(hosts)),
            ('the source is killed', lambda: source_killed(hosts)),
            ('the source is killed in a post-copy', lambda: source_killed_in_postcopy(hosts)),
            ('TLS; a post-copy whose line breaks goes on over a new one', lambda: broken_postcopy(folder)),
            ('from accelerator to accelerator', lambda: accelerators(hosts, folder))]


if __name__ == '__main__':
    sys.exit(between_two(cases))
