#!/usr/bin/env python3
"""Runs the validation suite of opencontainers/runtime-tools against OCI runtimes and shows them side by side.

usage: tests/oci/validation.py SUITE [--runtime PATH]... [--only WORD] [--verbose]

SUITE is a checkout of that project. What is not built yet is built there, with the Go compiler that is in PATH
(1.21 or newer) and the modules that the checkout carries: nothing is fetched. Without --runtime the runtimes
are trapeze-oci of ./build, crun and runc, as far as they are there. Needs root.

A test program prints one TAP line for each thing it looks at. The table says how many of them passed; the exit
status is 0 when the first runtime fails nothing that the others pass.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
UNIFIED = '/sys/fs/cgroup/unified'
TIMEOUT_S = 120


def build(suite):
    """The suite's own makefile, with its own copies of modules."""
    env = dict(os.environ, GOFLAGS='-mod=vendor', GOTOOLCHAIN='local', GOPROXY='off', GO111MODULE='on')
    done = subprocess.run(['make', '-j2', 'runtimetest', 'validation-executables'], cwd=suite, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit(f'{suite}: the suite cannot be built:\n{done.stdout.decode()[-2000:]}')


def programs(suite, word):
    found = []
    for folder, _, files in os.walk(os.path.join(suite, 'validation')):
        found += [os.path.join(folder, f) for f in files if f.endswith('.t')]
    return sorted(f for f in found if word in f)


def run_one(program, suite, runtime):
    """Returns (lines that passed, lines that failed, the failed ones); (0, 1, ...) when it broke off."""
    env = dict(os.environ, RUNTIME=runtime, TMPDIR=tempfile.mkdtemp(prefix='validation-'))
    child = subprocess.Popen([program], cwd=suite, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        out = child.communicate(timeout=TIMEOUT_S)[0].decode(errors='replace')
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out = child.communicate()[0].decode(errors='replace') + f'\nnot ok - no end after {TIMEOUT_S} s'
    finally:
        shutil.rmtree(env['TMPDIR'], ignore_errors=True)
    good = re.findall(r'^\s*ok\b.*$', out, re.M)
    bad = [line.strip() for line in re.findall(r'^\s*not ok\b.*$', out, re.M) if '# TODO' not in line]
    if child.returncode and not bad:
        bad = ['broke off: ' + ' / '.join(out.strip().splitlines()[-3:])[:300]]
    return len(good), len(bad), bad


def remove_leftovers(runtime):
    """Tests that break off leave containers behind; their ids are UUIDs, and nobody else's are here."""
    done = subprocess.run([runtime, 'list', '-q'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    for name in done.stdout.decode().split():
        if re.fullmatch(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', name):
            subprocess.run([runtime, 'delete', '--force', name], stderr=subprocess.DEVNULL, check=False)


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    options.add_argument('suite')
    options.add_argument('--runtime', action='append', default=[])
    options.add_argument('--only', default='', help='only test programs whose path holds this word')
    options.add_argument('--verbose', action='store_true', help='every line that failed')
    args = options.parse_args()
    if os.geteuid():
        sys.exit('the suite makes containers: run it as root')
    if os.path.ismount(UNIFIED):  # crun refuses a v2 tree beside v1, so everyone runs without it
        script = f'umount {UNIFIED} && exec "$@"'
        os.execvp('unshare', ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, 'sh'] + sys.argv)
    ours = os.path.join(HERE, '../../build/src/container/trapeze-oci')
    runtimes = args.runtime or [r for r in (ours, 'crun', 'runc') if shutil.which(r)]
    runtimes = [os.path.realpath(shutil.which(r) or sys.exit(f'{r}: no such program')) for r in runtimes]
    suite = os.path.realpath(args.suite)
    if not programs(suite, ''):
        build(suite)
    totals, worse = [[0, 0] for _ in runtimes], []
    print(f'{"passed/failed":38}' + ''.join(f'{os.path.basename(r):>16}' for r in runtimes))
    for program in programs(suite, args.only):
        name = os.path.basename(program)[:-2]
        results = [run_one(program, suite, r) for r in runtimes]
        for runtime, total, (good, bad, _) in zip(runtimes, totals, results):
            total[0] += good
            total[1] += bad
            remove_leftovers(runtime)
        print(f'{name:38}' + ''.join(f'{f"{r[0]}/{r[1]}":>16}' for r in results), flush=True)
        if results[0][1] > min(r[1] for r in results):
            worse.append(name)
        for runtime, result in zip(runtimes, results):
            for line in result[2] if args.verbose else []:
                print(f'    {os.path.basename(runtime)}: {line}')
    print(f'{"all":38}' + ''.join(f'{f"{t[0]}/{t[1]}":>16}' for t in totals))
    if worse:
        print(f'{os.path.basename(runtimes[0])} fails more than another: {", ".join(worse)}')
    return 1 if worse else 0


if __name__ == '__main__':
    sys.exit(main())
