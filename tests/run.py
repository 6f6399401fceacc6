#!/usr/bin/env python3
"""Runs every tier of tests and adds up what they report.

A tier is a folder here. Its C programs and scripts are registered with Meson (`suite:` names the
tier); files ending in .bats are found by themselves. Programs report in TAP, one line per case, or
by exit status: 0 passed, 77 skipped with the last line of output as the reason, anything else failed.
The tier `sanitize` runs the unit, device, fault and fuzz tiers and some whole machines again in a build with
ASan and UBSan, made by clang without a warning where clang is installed. The tier `tsan` does so with TSan, and only when
it is asked for by name.
The last line is `N passed, N failed, N skipped`; the exit status is 0 when nothing failed.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SANITIZED_TIERS = ('unit', 'device', 'fault', 'fuzz')
SANITIZED_BATS = 'cli/run_ends.bats'  # whole machines
SANITIZERS = {'sanitize': 'address,undefined', 'tsan': 'thread'}
NIGHTLY = bool(os.environ.get('TRAPEZE_NIGHTLY'))
BATS_LIMIT_S = 8 * 3600 if NIGHTLY else 600
TAP_LINE = re.compile(r'(not )?ok\b *(\d*) *(?:- )?(.*?) *(?:# *(?:skip|todo)\b:? *(.*))?$', re.IGNORECASE)

Case = namedtuple('Case', 'tier name status detail')


def parse_tap(tier, program, text):
    """The cases of one TAP stream; a stream that ends before its plan counts one failure more."""
    cases, comments, plan = [], [], None
    for line in text.splitlines():
        if line.startswith('1..'):
            plan = int(line[3:].split()[0])
            continue
        if line.startswith('#'):
            comments.append(line[1:].strip())
            continue
        found = TAP_LINE.match(line)
        if not found:
            continue
        failed, _, name, skip = found.groups()
        if skip is not None:
            # cmocka writes "not ok 1 # SKIP name" and the reason, if any, as a comment before it.
            reason = skip if name else (comments[-1] if comments else 'no reason given')
            cases.append(Case(tier, f'{program}: {name or skip}', 'skipped', reason))
        else:
            cases.append(Case(tier, f'{program}: {name}', 'failed' if failed else 'passed', ''))
        comments = []
    if cases and plan is not None and len(cases) < plan:
        cases.append(Case(tier, f'{program}: {plan - len(cases)} cases did not run', 'failed', ''))
    return cases


def judge(tier, record):
    """The cases of one record of Meson's testlog.json."""
    name = record['name'].split(' / ')[-1]
    output = record.get('stdout', '') + record.get('stderr', '')
    cases = parse_tap(tier, name, record.get('stdout', ''))
    code = record.get('returncode', 0)
    if record['result'] == 'TIMEOUT':
        cases.append(Case(tier, name, 'failed', 'timed out'))
    elif code < 0 or (code and cases and not any(c.status == 'failed' for c in cases)):
        cases.append(Case(tier, name, 'failed', f'ended with status {code}'))
    elif not cases:
        lines = output.strip().splitlines() or ['no reason given']
        status = {'OK': 'passed', 'SKIP': 'skipped'}.get(record['result'], 'failed')
        cases.append(Case(tier, name, status, lines[-1] if status == 'skipped' else ''))
    if any(c.status == 'failed' for c in cases):
        print(f'---- {tier}/{name}\n{output.rstrip()}\n----')
    return cases


def run_meson(build, only, label, env):
    """Runs the tests registered with Meson; `label` replaces the tier's name if given."""
    listing = subprocess.run(['meson', 'introspect', '--tests', build], check=True,
                             capture_output=True, text=True, cwd=ROOT)
    tiers = {t['name']: t['suite'][0].split(':')[-1] for t in json.loads(listing.stdout)}
    chosen = sorted(set(tiers.values()) & set(only) if only else set(tiers.values()))
    if not chosen:
        return []
    command = ['meson', 'test', '-C', build, '--no-rebuild', '--timeout-multiplier', '20' if NIGHTLY else '1']
    for tier in chosen:
        command += ['--suite', tier]
    log = os.path.join(build, 'meson-logs', 'testlog.json')
    if os.path.exists(log):
        os.remove(log)
    subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL)
    cases = []
    with open(log, encoding='utf-8', errors='replace') as lines:
        for line in lines:
            record = json.loads(line)
            tier = tiers.get(record['name'].split(' / ')[-1], 'other')
            cases += judge(label or tier, record)
    return cases


def run_bats(tier, path, env):
    command = ['bats', '--tap', os.path.join(ROOT, 'tests', path)]
    try:
        run = subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, text=True,
                             stdout=subprocess.PIPE, errors='replace', timeout=BATS_LIMIT_S)
    except subprocess.TimeoutExpired as late:
        print((late.stdout or b'').decode(errors='replace'))
        return [Case(tier, 'bats', 'failed', f'no end after {BATS_LIMIT_S} s')]
    print(run.stdout, end='')
    cases = parse_tap(tier, 'bats', run.stdout)
    if run.returncode and not any(c.status == 'failed' for c in cases):
        cases.append(Case(tier, 'bats', 'failed', f'ended with status {run.returncode}'))
    return cases


def run_sanitized(tier, build, env):
    """Builds once more with sanitizers; with clang, a warning is an error."""
    where = f'{build}-{tier}'
    clang = shutil.which('clang')
    env = dict(env, CC='clang' if clang else 'gcc', ASAN_OPTIONS='abort_on_error=1',
               TSAN_OPTIONS='suppressions=' + os.path.join(ROOT, 'tests', 'tsan.supp'),
               UBSAN_OPTIONS='halt_on_error=1:abort_on_error=1:print_stacktrace=1')
    if not os.path.exists(os.path.join(where, 'build.ninja')):
        setup = ['meson', 'setup', where, ROOT, '-Db_sanitize=' + SANITIZERS[tier], '-Db_lundef=false',
                 '-Doptimization=1', '-Dwerror=' + ('true' if clang else 'false')]
        subprocess.run(setup, env=env, check=True, stdout=subprocess.DEVNULL)
    made = subprocess.run(['ninja', '-C', where], env=env, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        print(made.stdout)
        return [Case(tier, 'build with ' + env['CC'], 'failed', '')]
    built = Case(tier, 'build with ' + env['CC'], 'passed', '')
    cases = [built] + run_meson(where, SANITIZED_TIERS, tier, env)
    if tier == 'sanitize':
        # Leaks are looked for by a process that traces ours, which the sandbox forbids.
        env.update(TRAPEZE_BUILD=where, TRAPEZE=os.path.join(where, 'src', 'cmd', 'trapeze'),
                   ASAN_OPTIONS='abort_on_error=1:detect_leaks=0')
        cases += run_bats(tier, SANITIZED_BATS, env)
    return cases


def report(cases):
    table = {}
    for case in cases:
        table.setdefault(case.tier, Counter())[case.status] += 1
    print()
    for tier, count in table.items():
        print(f'{tier:10} {count["passed"]:5} passed {count["failed"]:3} failed {count["skipped"]:3} skipped')
    for status in ('skipped', 'failed'):
        for case in cases:
            if case.status == status:
                print(f'{status}: {case.tier}/{case.name}' + (f': {case.detail}' if case.detail else ''))
    total = Counter(case.status for case in cases)
    print(f'{total["passed"]} passed, {total["failed"]} failed, {total["skipped"]} skipped', flush=True)
    return 1 if total['failed'] or not cases else 0


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    options.add_argument('--build', default='build', help='build folder (default: build)')
    options.add_argument('--only', default='', help='tiers, separated by commas')
    args = options.parse_args()
    build = os.path.abspath(args.build)
    only = [tier for tier in args.only.split(',') if tier]
    env = dict(os.environ, TRAPEZE_BUILD=build, TRAPEZE=os.path.join(build, 'src', 'cmd', 'trapeze'),
               TRAPEZE_ROOT=os.path.join(build, 'test-root'))  # not the host's own records

    cases = run_meson(build, only, None, env)
    for tier in sorted(os.listdir(os.path.join(ROOT, 'tests'))):
        folder = os.path.join(ROOT, 'tests', tier)
        if os.path.isdir(folder) and any(f.endswith('.bats') for f in os.listdir(folder)):
            if not only or tier in only:
                cases += run_bats(tier, tier, env)
    if not only or 'sanitize' in only:
        cases += run_sanitized('sanitize', build, env)
    if 'tsan' in only:
        cases += run_sanitized('tsan', build, env)
    return report(cases)


if __name__ == '__main__':
    sys.exit(main())
