#!/usr/bin/env python3
"""Compares `trapeze disk` with qemu-img over the variants of qcow2: `disk_matrix.py TRAPEZE [all | N]`.

An image is made by qemu-img and qemu-io with random writes, zeros, discards and compressed clusters, alone or on a chain of
two others. What it shows is what `qemu-img convert` says. Then, each on a copy: info, map, check, convert and compare say the
same as qemu-img's; convert, resize, rebase and commit leave images that `qemu-img check` finds clean, without a leak, and
that show what they must. Without `all`, a choice of variants in which every pair of settings occurs; N: only that one.
With `all` also some of the full cross product of 9,000: $TRAPEZE_DISK_VARIANTS (1000), others each time unless
$TRAPEZE_DISK_SEED is given.
"""
import itertools
import json
import os
import random
import shutil
import sys

from disk_oracle import KIB, MIB, ours, qemu, run, shows, try_all

# The first value of each is what others are combined with when they exclude each other.
FULL = {
    'cluster': [65536, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072, 262144, 524288, MIB, 2 * MIB],
    'compat': ['1.1', '0.10'],
    'lazy': [False, True],
    'bits': [16, 1, 2, 4, 8, 32, 64],
    'packed': ['no', 'zlib', 'zstd'],
    'prealloc': ['off', 'metadata', 'falloc', 'full'],
    'chain': ['none', 'same', 'shorter', 'longer'],
    'data': ['no', 'plain', 'raw'],
    'snapshot': [False, True],
}
QUICK = dict(FULL, cluster=[65536, 512, 4096, 2 * MIB], bits=[16, 1, 4, 64])


def possible(v):
    """What qemu-img itself refuses is no variant."""
    old = v['compat'] == '0.10'
    return not (old and (v['lazy'] or v['bits'] != 16 or v['packed'] == 'zstd' or v['data'] != 'no')
                or v['data'] != 'no' and (v['packed'] != 'no' or v['snapshot'])
                or v['data'] == 'raw' and v['chain'] != 'none'
                or v['bits'] == 1 and (v['snapshot'] or v['packed'] != 'no')
                or v['bits'] == 2 and v['snapshot'] and v['packed'] != 'no'
                or v['prealloc'] != 'off' and (v['chain'] != 'none' or v['packed'] != 'no'))


def every():
    for values in itertools.product(*FULL.values()):
        v = dict(zip(FULL, values))
        if possible(v):
            yield v


def pairs_of(v):
    return {((a, v[a]), (b, v[b])) for a, b in itertools.combinations(v, 2)}


def spread():
    """Few variants in which every possible pair of values occurs."""
    dice, chosen = random.Random(4), []
    everything = [v for v in (dict(zip(QUICK, x)) for x in itertools.product(*QUICK.values())) if possible(v)]
    left = set().union(*(pairs_of(v) for v in everything))
    while left:
        best = max(dice.sample(everything, 400), key=lambda v: len(pairs_of(v) & left))
        if not pairs_of(best) & left:
            need = min(left, key=repr)
            best = next(v for v in everything if need in pairs_of(v))
        left -= pairs_of(best)
        chosen.append(best)
    return chosen


# --- comparing ---

def specific(info):
    return info.get('format-specific', {}).get('data')


def same(what, theirs, mine):
    for x, y in ((specific(theirs), specific(mine)), (theirs, mine)):
        differ = {key: (x.get(key), y.get(key)) for key in {*x, *y} if x.get(key) != y.get(key)} if x else None
        assert not differ, f'{what}: (theirs, ours) {differ}'


def expect_clean(image):
    found = json.loads(qemu('check', '-f', 'qcow2', '--output', 'json', image).stdout)
    assert not found.get('leaks') and not found.get('corruptions'), found
    ours('check', '-f', 'qcow2', image)


def expect_shows(image, want, what):
    expect_clean(image)
    got = shows(image)
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise AssertionError(f'{what}: {image} shows something else from byte {at} on '
                             f'({len(got)} bytes, {len(want)} expected)')


# --- making images ---

def size_of(v):
    """Some L2 tables with small clusters, some clusters with large ones, and a part of one at the end."""
    return max(MIB + 512 * KIB, 4 * v['cluster']) + 3 * 512


def scribble(image, v, size, dice, n=10, packed='no'):
    commands, cluster = [], v['cluster']
    if packed != 'no':  # into clusters that are still free: QEMU packs no others
        for at in dice.sample(range(0, size, cluster), 4):
            commands.append(f'write -c -P {dice.randrange(1, 255)} {at} {min(cluster, size - at)}')
    for _ in range(n):
        at, length = dice.randrange(0, size, 512), dice.randrange(512, max(size // 6, 1024), 512)
        length = min(length, size - at)
        kind = dice.choice(['write', 'write', 'write', 'zero', 'zero -u', 'discard'])
        if kind == 'discard':
            commands.append(f'discard {at} {length}')
        elif kind.startswith('zero'):
            commands.append(f'write -z {kind[5:]} {at} {length}')
        else:
            commands.append(f'write -P {dice.randrange(1, 255)} {at} {length}')
    run('qemu-io', '-d', 'unmap', '-f', 'qcow2', *itertools.chain(*(('-c', c) for c in commands)), image)


def options(v):
    o = [f'cluster_size={v["cluster"]}', f'compat={v["compat"]}']
    if v['compat'] == '1.1':
        o += [f'lazy_refcounts={"on" if v["lazy"] else "off"}', f'refcount_bits={v["bits"]}']
    return o


def build(v, dice):
    """top.qcow2 is of that variant, on mid.qcow2 on base.raw if there is a chain; other.qcow2 is for rebase."""
    size, more = size_of(v), options(v)
    if v['chain'] != 'none':
        below = {'same': size, 'shorter': size // 3 // 512 * 512, 'longer': size * 2}[v['chain']]
        with open('base.raw', 'wb') as f:
            f.write(dice.randbytes(size // 4) + bytes(size // 4))
            f.truncate(below - below // 5 // 512 * 512)
        qemu('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'mid.qcow2', str(below))
        scribble('mid.qcow2', v, below, dice)
        more += ['backing_file=mid.qcow2', 'backing_fmt=qcow2']
    if v['packed'] == 'zstd':
        more.append('compression_type=zstd')
    if v['prealloc'] != 'off':
        more.append(f'preallocation={v["prealloc"]}')
    if v['data'] != 'no':
        more += ['data_file=top.data', f'data_file_raw={"on" if v["data"] == "raw" else "off"}']
    qemu('create', '-q', '-f', 'qcow2', '-o', ','.join(more), 'top.qcow2', str(size))
    if v['snapshot']:
        scribble('top.qcow2', v, size, dice, 4, v['packed'])
        qemu('snapshot', '-c', 'before', 'top.qcow2')
    scribble('top.qcow2', v, size, dice, packed='no' if v['snapshot'] else v['packed'])
    qemu('create', '-q', '-f', 'qcow2', 'other.qcow2', str(size // 2 // 512 * 512))
    scribble('other.qcow2', v, size // 2 // 512 * 512, dice)


# --- what only looks ---

def same_info(v):
    a = json.loads(qemu('info', '--output', 'json', 'top.qcow2').stdout)
    b = json.loads(ours('info', '--output', 'json', 'top.qcow2').stdout)
    same('info', a, b)


def flat_map(text):
    """Adjacent ranges of a kind count as one: who merges what is a matter of taste. So is whether data is called zeros
    because the host's file happens to have a hole there."""
    lines = []
    for e in json.loads(text):
        key = (e['depth'] if e['present'] else None, e['data'] or e['zero'], e['data'], e['present'])
        host = e.get('offset')
        last = lines[-1] if lines else None
        if last and last['key'] == key and last['end'] == e['start'] and (
                host is None and last['host'] is None or
                host is not None and last['host'] is not None and last['host'] + last['end'] - last['start'] == host):
            last['end'] += e['length']
        else:
            lines.append({'key': key, 'start': e['start'], 'end': e['start'] + e['length'], 'host': host})
    return lines


def same_map(v):
    a = flat_map(qemu('map', '--output', 'json', 'top.qcow2').stdout)
    b = flat_map(ours('map', '--output', 'json', 'top.qcow2').stdout)
    for x, y in itertools.zip_longest(a, b):
        assert x == y, ('map', x, y)


def same_check(v):
    a = json.loads(qemu('check', '--output', 'json', 'top.qcow2').stdout)
    b = json.loads(ours('check', '--output', 'json', 'top.qcow2').stdout)
    a = {key: a.get(key, 0) for key in b}
    same('check', a, b)


def same_content(v, truth):
    ours('convert', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', 'copy.raw')
    with open('copy.raw', 'rb') as f:
        assert f.read() == truth, 'convert to raw'
    ours('compare', '-s', '-f', 'qcow2', '-F', 'raw', 'top.qcow2', 'copy.raw')
    with open('copy.raw', 'r+b') as f:
        at = len(truth) * 2 // 3
        f.seek(at)
        f.write(bytes([truth[at] ^ 1]))
    a = qemu('compare', '-f', 'qcow2', '-F', 'raw', 'top.qcow2', 'copy.raw', status=1).stdout
    assert 'mismatch' in a
    b = ours('compare', '-f', 'qcow2', '-F', 'raw', 'top.qcow2', 'copy.raw', status=1).stdout
    assert f'offset {at}!' in b, (at, b)


# --- what writes ---

def ways(v):
    """How the variant can be converted: (what, options of the image, options of the verb)."""
    yield from [('without holes', [], ['-S', '0']), ('preallocated', ['preallocation=metadata'], [])]
    for packing in ['zlib'] if v['compat'] == '0.10' else ['zlib', 'zstd']:
        yield packing, [f'compression_type={packing}'], ['-c']
    if v['chain'] != 'none':
        on = ['-B', 'moved.qcow2', '-F', 'qcow2']
        yield from [('on a copy of its base', [], on), ('packed, on a copy of its base', [], ['-c', *on])]


def converted(v, truth):
    """The plain way, another one, and into what is there."""
    dice = random.Random(repr(v))
    if v['chain'] != 'none':
        shutil.copy('mid.qcow2', 'moved.qcow2')
    for what, more, args in [dice.choice(list(ways(v))), ('plainly', [], [])]:
        ours('convert', '-f', 'qcow2', '-O', 'qcow2', '-o', ','.join(options(v) + more), *args, 'top.qcow2', 'copy.qcow2')
        expect_shows('copy.qcow2', truth, f'convert to qcow2, {what}')
    scribble('copy.qcow2', v, len(truth), dice)
    ours('convert', '-n', *dice.choice([[], ['-c']]), '-f', 'qcow2', '-O', 'qcow2', 'top.qcow2', 'copy.qcow2')
    expect_shows('copy.qcow2', truth, 'convert into what is there')


def resized(v, truth):
    if v['snapshot'] and v['compat'] == '0.10':
        assert 'internal snapshots' in ours('resize', 'top.qcow2', '+1M', status=4).stderr
        return
    for size in (len(truth) + 5 * v['cluster'] // 2 // 512 * 512 + 512, len(truth) // 3 // 512 * 512, len(truth)):
        ours('resize', '--shrink', *(['--preallocation', 'metadata'] if size > len(truth) else []), 'top.qcow2', str(size))
        truth = truth[:size] + bytes(max(size - len(truth), 0))
        expect_shows('top.qcow2', truth, f'resize to {size}')


def rebased(v, truth):
    for name, fmt in (('other.qcow2', 'qcow2'), ('', None)):
        ours('rebase', '-b', name, *(['-F', fmt] if fmt else []), 'top.qcow2')
        expect_shows('top.qcow2', truth, f'rebase to "{name}"')
        assert json.loads(qemu('info', '--output', 'json', 'top.qcow2').stdout).get('backing-filename', '') == name


def renamed(v, truth):
    if v['chain'] == 'none':
        return
    shutil.copy('mid.qcow2', 'moved.qcow2')
    ours('rebase', '-u', '-b', 'moved.qcow2', '-F', 'qcow2', 'top.qcow2')
    expect_shows('top.qcow2', truth, 'rebase -u')


def committed(v, truth):
    """Down into what it stands on, and an overlay down into it."""
    if v['chain'] != 'none':
        old = shows('mid.qcow2')
        ours('commit', 'top.qcow2')
        want = truth + old[len(truth):]
        expect_shows('mid.qcow2', want, 'commit into the backing image')
        expect_shows('top.qcow2', truth, 'commit, the emptied image')
        ours('commit', '-b', 'base.raw', 'top.qcow2')
        assert shows('base.raw', 'raw')[:len(truth)] == truth, 'commit into the base'
        expect_shows('top.qcow2', truth, 'commit into the base, the image')
    else:
        dice = random.Random(len(truth))
        size = len(truth) + (0 if v['snapshot'] and v['compat'] == '0.10' else 512 * 5)
        qemu('create', '-q', '-f', 'qcow2', '-b', 'top.qcow2', '-F', 'qcow2', 'over.qcow2', str(size))
        scribble('over.qcow2', v, size, dice)
        want = shows('over.qcow2')
        ours('commit', 'over.qcow2')
        expect_shows('top.qcow2', want, 'commit into it')


def refused(v, truth):
    for args in (['resize', 'top.qcow2', '+1M'], ['rebase', '-b', 'other.qcow2', '-F', 'qcow2', 'top.qcow2']):
        done = ours(*args, status=4)
        assert 'can only be read' in done.stderr, done.stderr
    expect_clean('top.qcow2')


def with_copy(v, truth, step):
    """In a folder of its own, on copies; an internal snapshot must be left as it was."""
    here = os.getcwd()
    os.mkdir('copy')
    for name in os.listdir('.'):
        if name.startswith(('top', 'mid', 'base', 'other')):
            shutil.copy(name, 'copy')
    os.chdir('copy')
    before = shows('top.qcow2', extra=['-l', 'before']) if v['snapshot'] else None
    step(v, truth)
    # What an internal snapshot lacks is in the base of today.
    if v['snapshot'] and (v['chain'] == 'none' or step not in (rebased, renamed, committed)):
        after = shows('top.qcow2', extra=['-l', 'before'])
        assert after[:len(before)] == before and not any(after[len(before):]), f'{step.__name__}: the internal snapshot'
    os.chdir(here)
    shutil.rmtree('copy')


def one(v, number):
    dice = random.Random(number)
    build(v, dice)
    truth = shows('top.qcow2')
    same_info(v)
    same_map(v)
    same_check(v)
    same_content(v, truth)
    for step in [converted, refused] if v['data'] != 'no' else [converted, resized, rebased, renamed, committed]:
        with_copy(v, truth, step)


def main():
    which = sys.argv[2] if len(sys.argv) > 2 else 'spread'
    variants = spread()
    if which == 'all':
        seed = os.environ.get('TRAPEZE_DISK_SEED') or str(random.randrange(1 << 32))
        print(f'TRAPEZE_DISK_SEED={seed}')
        variants += random.Random(seed).sample(list(every()), int(os.environ.get('TRAPEZE_DISK_VARIANTS', 1000)))
    numbered = [(number, v) for number, v in enumerate(variants) if not which.isdigit() or number == int(which)]
    try_all('variant', numbered, one)


if __name__ == '__main__':
    main()
