#!/usr/bin/env bats
# `trapeze disk`, against qemu-img in both directions where that is installed.

load disk

VARIANTS=(compat=0.10 compat=1.1,cluster_size=512 compat=0.10,cluster_size=4k cluster_size=2M
    cluster_size=64k,lazy_refcounts=on refcount_bits=1,cluster_size=1k refcount_bits=64,cluster_size=8k)

@test "what we write, qemu-img reads, in every variant" {
    need_qemu
    make_raw a.raw
    for v in "${VARIANTS[@]}"; do
        echo "$v"
        disk convert -f raw -O qcow2 -o "$v" a.raw ours.qcow2
        qemu-img check -q ours.qcow2
        qemu-img compare -f raw -F qcow2 a.raw ours.qcow2
        disk check ours.qcow2
        disk compare -f raw -F qcow2 a.raw ours.qcow2
        qemu-img convert -O raw ours.qcow2 back.raw
        cmp a.raw back.raw
    done
}

@test "what qemu-img writes, we read, in every variant" {
    need_qemu
    make_raw a.raw
    for v in "${VARIANTS[@]}" compression_type=zlib,cluster_size=2M compression_type=zstd; do
        for packed in "" -c; do
            echo "$v $packed"
            qemu-img convert -f raw -O qcow2 $packed -o "$v" a.raw theirs.qcow2
            disk check theirs.qcow2
            disk convert -f qcow2 -O raw theirs.qcow2 back.raw
            cmp a.raw back.raw
        done
    done
}

@test "every pair of settings, both ways (TRAPEZE_NIGHTLY=1: a thousand variants more)" {
    need_qemu
    run python3 "$BATS_TEST_DIRNAME/disk_matrix.py" "$TRAPEZE" ${TRAPEZE_NIGHTLY:+all}
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "external data files are read and never written" {
    need_qemu
    make_raw a.raw
    for raw in on off; do
        qemu-img convert -f raw -O qcow2 -o data_file=data.raw,data_file_raw=$raw a.raw t.qcow2
        disk convert t.qcow2 back.raw
        cmp a.raw back.raw
        rm data.raw t.qcow2
    done
    qemu-img create -q -f qcow2 -o data_file=data.raw t.qcow2 1M
    refuses 4 "can only be read" "$TRAPEZE" disk resize t.qcow2 2M
}

@test "map says what qemu-img says" {
    need_qemu
    qemu-img create -q -f qcow2 base.qcow2 4M
    qemu-io -c "write -P 1 0 1M" -c "write -z 2M 512k" base.qcow2 >/dev/null
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 5M
    qemu-io -c "write -P 2 512k 64k" -c "write -z 128k 64k" -c "write -c -P 3 3M 64k" top.qcow2 >/dev/null
    qemu-img map --output json top.qcow2 >theirs
    disk map --output json top.qcow2 >ours
    python3 - <<'END'
import json
def flat(name):
    lines = []
    for e in json.load(open(name)):
        depth = e['depth'] if e['present'] else None
        key = (depth, e['zero'], e['data'], e['present'])
        # Adjacent ranges count as one: who merges what is a matter of taste.
        if lines and lines[-1][1] == key and lines[-1][0][1] == e['start']:
            lines[-1][0][1] += e['length']
        else:
            lines.append([[e['start'], e['start'] + e['length']], key])
    return lines
assert flat('ours') == flat('theirs'), (flat('ours'), flat('theirs'))
END
}

@test "info has qemu-img's names" {
    need_qemu
    qemu-img create -q -f qcow2 -o lazy_refcounts=on,refcount_bits=8 base.qcow2 3M
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    qemu-img create -q -f qcow2 snapshots.qcow2 3M
    qemu-img snapshot -c one snapshots.qcow2
    qemu-img snapshot -c 'two "2"' snapshots.qcow2
    disk info snapshots.qcow2 >ours
    diff <(qemu-img info -U snapshots.qcow2 | sed -n '/^Snap/,/^Format/p') <(sed -n '/^Snap/,/^Format/p' ours)
    for image in base.qcow2 top.qcow2 snapshots.qcow2; do
        qemu-img info --output json $image >theirs
        disk info --output json $image >ours
        python3 - <<'END'
import json
ours, theirs = json.load(open('ours')), json.load(open('theirs'))
assert ours == theirs, (ours, theirs)
END
    done
    run disk info --backing-chain top.qcow2
    [ "$status" -eq 0 ]
    [[ $output == *"backing file: base.qcow2"*"image: base.qcow2"* ]]
}

@test "commit and rebase keep what the guest sees" {
    need_qemu
    make_raw base.raw
    disk create -b base.raw -F raw top.qcow2
    qemu-io -f qcow2 -c "write -P 9 100k 300k" -c "write -z 1M 256k" top.qcow2 >/dev/null
    qemu-img convert -O raw top.qcow2 before.raw
    disk convert -f raw -O qcow2 base.raw other.qcow2
    qemu-io -f qcow2 -c "write -P 5 2M 64k" other.qcow2 >/dev/null
    disk rebase -b other.qcow2 -F qcow2 top.qcow2
    qemu-img check -q top.qcow2
    qemu-img compare -f raw -F qcow2 before.raw top.qcow2
    disk commit top.qcow2
    qemu-img check -q other.qcow2
    qemu-img compare -f raw -F qcow2 before.raw other.qcow2
    qemu-img compare -f raw -F qcow2 before.raw top.qcow2
    run qemu-img map top.qcow2
    [[ $output != *top.qcow2* ]]
    disk rebase -b "" top.qcow2
    rm other.qcow2
    qemu-img compare -f raw -F qcow2 before.raw top.qcow2
}

@test "rebase takes names of any length, from and to qemu-img's headers" {
    need_qemu
    make_raw base.raw
    long=$(printf 'x%.0s' {1..240})
    mkdir -p $long/$long/$long
    cp base.raw $long/$long/$long/base.raw
    for size in 64k 4k; do
        qemu-img convert -f raw -O qcow2 -o cluster_size=$size base.raw top.qcow2
        for name in $long/$long/$long/base.raw base.raw "" $long/$long/base.raw; do
            [ "$name" != $long/$long/base.raw ] || cp base.raw $long/$long/base.raw
            disk rebase -b "$name" -F raw top.qcow2
            qemu-img check -q top.qcow2
            qemu-img compare -q -f raw -F qcow2 base.raw top.qcow2
            [[ $(qemu-img info --output json top.qcow2) == *"\"backing-filename\": \"$name\""* || -z $name ]]
        done
        qemu-img rebase -f qcow2 -b base.raw -F raw top.qcow2
        disk compare -f raw -F qcow2 base.raw top.qcow2
    done
}

@test "rebase -u only changes the name" {
    make_raw base.raw
    disk create -b base.raw -F raw top.qcow2
    mv base.raw moved.raw
    refuses 4 "base.raw" "$TRAPEZE" disk convert top.qcow2 out.raw
    disk rebase -u -b moved.raw -F raw top.qcow2
    disk compare -f qcow2 -F raw top.qcow2 moved.raw
}

@test "progress is shown when asked for" {
    make_raw base.raw
    disk create -b base.raw -F raw top.qcow2
    cp base.raw other.raw
    for args in "convert -p -f raw base.raw copy.raw" "rebase -p -b other.raw -F raw top.qcow2" "commit -p top.qcow2"; do
        run --separate-stderr "$TRAPEZE" disk $args
        echo "$args: $status; $output; $stderr"
        [ "$status" -eq 0 ]
        [[ $output == *"(100.00/100%)"* ]]
    done
    [ -z "$(disk convert -f raw base.raw copy.raw)" ]
}

@test "resize grows and shrinks" {
    need_qemu
    make_raw a.raw
    disk convert -f raw -O qcow2 -o cluster_size=512 a.raw a.qcow2
    disk resize a.qcow2 +50M
    qemu-img check -q a.qcow2
    qemu-img compare -f raw -F qcow2 a.raw a.qcow2
    refuses 2 "--shrink" "$TRAPEZE" disk resize a.qcow2 1M
    disk resize --shrink a.qcow2 1M
    disk resize a.qcow2 3M
    qemu-img check -q a.qcow2
    truncate -s 1M a.raw
    truncate -s 3M a.raw
    qemu-img convert -O raw a.qcow2 b.raw
    cmp a.raw b.raw
    disk resize -f raw a.raw +1M
    [ "$(stat -c %s a.raw)" -eq $((4 * 1024 * 1024)) ]
}

@test "internal snapshots survive our writes" {
    need_qemu
    make_raw a.raw
    for v in cluster_size=512 cluster_size=64k; do
        qemu-img convert -f raw -O qcow2 -o $v a.raw a.qcow2
        qemu-img snapshot -c before a.qcow2
        disk create -f qcow2 -o cluster_size=64k -b a.qcow2 -F qcow2 top.qcow2
        qemu-io -f qcow2 -c "write -P 7 10k 900k" top.qcow2 >/dev/null
        disk commit top.qcow2
        qemu-img check -q a.qcow2
        disk check a.qcow2
        qemu-img convert -O raw a.qcow2 now.raw
        run cmp -s a.raw now.raw
        [ "$status" -eq 1 ]
        qemu-img snapshot -a before a.qcow2
        qemu-img compare -f raw -F qcow2 a.raw a.qcow2
    done
}

@test "check finds and mends what qemu-img finds" {
    need_qemu
    make_raw a.raw
    disk convert -f raw -O qcow2 a.raw a.qcow2
    # The counts of the first clusters: 0 where it is used, 3 where it is not shared.
    block=$((16#$(xxd -p -s $((16#$(xxd -p -s 48 -l 8 a.qcow2))) -l 8 a.qcow2)))
    printf '\0\0\0\3\0\3\0\0' | dd of=a.qcow2 conv=notrunc status=none bs=1 seek=$((block + 4))
    run qemu-img check a.qcow2
    [ "$status" -eq 2 ]
    run disk check a.qcow2
    [ "$status" -eq 1 ]
    run disk check --repair all a.qcow2
    echo "$output"
    [ "$status" -eq 0 ]
    qemu-img check -q a.qcow2
    qemu-img compare -f raw -F qcow2 a.raw a.qcow2
    block=$((16#$(xxd -p -s $((16#$(xxd -p -s 48 -l 8 a.qcow2))) -l 8 a.qcow2)))
    printf '\0\3' | dd of=a.qcow2 conv=notrunc status=none bs=1 seek=$((block + 8))
    run disk check a.qcow2
    [ "$status" -ne 0 ]
    disk check -r all a.qcow2
    qemu-img check -q a.qcow2
}

@test "of random damage, check finds what qemu-img finds, and mends it" {
    need_qemu
    run python3 "$BATS_TEST_DIRNAME/disk_repair.py" "$TRAPEZE" ${TRAPEZE_NIGHTLY:+500}
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "a raw disk that looks like a qcow2 image is not taken for one" {
    disk create evil.qcow2 1M
    mv evil.qcow2 guest.raw
    refuses 4 "say its format" "$TRAPEZE" disk convert guest.raw out.raw
    disk convert -f raw guest.raw out.raw
    cmp guest.raw out.raw
    truncate -s 1M raw.qcow2
    refuses 4 "say its format" "$TRAPEZE" disk info raw.qcow2
    refuses 2 "never guessed" "$TRAPEZE" disk create -b guest.raw top.qcow2
}

@test "an image leads to no file outside its folder, and in no circle" {
    mkdir in out
    disk create out/base.raw 1M
    disk create -b ../out/base.raw -F raw in/a.qcow2
    refuses 4 "outside the folder" "$TRAPEZE" disk convert in/a.qcow2 x.raw
    disk convert --trust in/a.qcow2 x.raw
    disk create -b "$PWD/out/base.raw" -F raw out/b.qcow2
    disk convert out/b.qcow2 x.raw
    ln -s ../out/base.raw in/link.raw
    disk rebase -u -b link.raw -F raw in/a.qcow2
    refuses 4 "outside the folder" "$TRAPEZE" disk convert in/a.qcow2 x.raw
    for name in nbd:localhost:10809 'json:{"driver":"raw"}'; do
        disk rebase -u -b "$name" -F raw in/a.qcow2
        refuses 4 "no plain file" "$TRAPEZE" disk convert --trust in/a.qcow2 x.raw
    done
    disk create -f qcow2 self.qcow2 1M
    disk rebase -u -b self.qcow2 -F qcow2 self.qcow2
    refuses 4 "own backing file" "$TRAPEZE" disk convert self.qcow2 x.raw
    disk create -b self.qcow2 -F qcow2 two.qcow2
    disk rebase -u -b two.qcow2 -F qcow2 self.qcow2
    refuses 4 "own backing file" "$TRAPEZE" disk map two.qcow2
}

@test "damage is said, never read as zeros" {
    make_raw a.raw
    disk convert -f raw -O qcow2 a.raw a.qcow2
    truncate -s 300000 a.qcow2
    refuses 4 "past the end of the file" "$TRAPEZE" disk convert a.qcow2 x.raw
    run disk check a.qcow2
    [ "$status" -eq 1 ]
    disk convert -f raw -O qcow2 a.raw a.qcow2
    printf '\x80' | dd of=a.qcow2 conv=notrunc status=none bs=1 seek=72
    refuses 4 "incompatible feature 63" "$TRAPEZE" disk info a.qcow2
}

@test "sizes and options that cannot be" {
    refuses 2 "no size" "$TRAPEZE" disk create a.raw 10X
    refuses 2 "no size" "$TRAPEZE" disk create a.raw -- -1
    refuses 2 "too large" "$TRAPEZE" disk create a.raw 9999999999999T
    refuses 2 "the size is missing" "$TRAPEZE" disk create a.raw
    refuses 2 "power of two" "$TRAPEZE" disk create -o cluster_size=100k a.qcow2 1M
    refuses 4 "512 to 2M" "$TRAPEZE" disk create -o cluster_size=4M a.qcow2 1M
    refuses 2 "-o 'colour'" "$TRAPEZE" disk create -o colour=1 a.qcow2 1M
    refuses 2 "did you mean 'create'" "$TRAPEZE" disk creat a.qcow2 1M
    refuses 2 "too few operands" "$TRAPEZE" disk convert a.qcow2
    refuses 2 "no option --shring" "$TRAPEZE" disk resize --shring a 1
    refuses 2 "usage" "$TRAPEZE" disk
    refuses 4 "No such file" "$TRAPEZE" disk info nothing.raw
}

@test "what cannot be made leaves what was there; a copy that fails leaves nothing" {
    make_raw a.raw
    cp a.raw b.raw
    refuses 4 "larger clusters" "$TRAPEZE" disk create -f qcow2 -o cluster_size=512 b.raw 1T
    refuses 2 "-o is for qcow2" "$TRAPEZE" disk create -f raw -o cluster_size=512 b.raw 1M
    refuses 2 "-o is for qcow2" "$TRAPEZE" disk convert -f raw -o cluster_size=512 a.raw b.raw
    cmp a.raw b.raw
    full() { ( trap '' XFSZ; ulimit -f 1000; "$TRAPEZE" "$@" ); }
    refuses 4 "new.raw was not made" full disk convert -f raw a.raw new.raw
    refuses 4 "new.qcow2 was not made" full disk convert -f raw -O qcow2 a.raw new.qcow2
    refuses 4 "b.raw was not made; what was there is there still" full disk convert -f raw a.raw b.raw
    refuses 4 "b.raw was not made" full disk create -f raw -o preallocation=full b.raw 5M
    cmp a.raw b.raw
    [ ! -e new.raw ] && [ ! -e new.qcow2 ]
    [ -z "$(ls | grep part)" ]
}

@test "sizes that can be" {
    for size in 512 1 1k 1.5M 0.5G; do
        disk create -f raw a.raw $size
    done
    [ "$(stat -c %s a.raw)" -eq $((512 * 1024 * 1024)) ]
    disk create a.qcow2 0
    disk check a.qcow2
    disk create a.qcow2 1.5k
    run disk info a.qcow2
    [[ $output == *"(1536 bytes)"* ]]
}

@test "every verb has its help, and its options are in the manual" {
    man=$BATS_TEST_DIRNAME/../../docs/man/trapeze-disk.1
    for verb in $(disk --help | sed -n '/^Verbs:/,$s/^  \([a-z]*\) .*/\1/p'); do
        echo "$verb"
        run disk "$verb" --help
        [ "$status" -eq 0 ]
        [[ $output == "usage: trapeze disk $verb"* ]]
        grep -q "disk $verb" "$man"
        for option in $(grep -o -- ' --[a-z-]*' <<<"$output" | tr -d ' ' | sort -u); do
            grep -q -- "Fl -${option#--}\b" "$man"
        done
    done
}

@test "an image in use is refused" {
    command -v flock >/dev/null || skip "flock is not installed"
    disk create a.qcow2 1M
    python3 - "$TRAPEZE" <<'END'
import fcntl, struct, subprocess, sys
f = open('a.qcow2', 'r+b')
F_OFD_SETLK = 37
fcntl.fcntl(f, F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0))
for verb in (['resize', 'a.qcow2', '2M'], ['convert', 'a.qcow2', 'x.raw'], ['create', 'a.qcow2', '1M']):
    run = subprocess.run([sys.argv[1], 'disk', *verb], capture_output=True, text=True)
    assert run.returncode == 4 and 'in use' in run.stderr, (verb, run)
assert subprocess.run([sys.argv[1], 'disk', 'info', 'a.qcow2'], capture_output=True).returncode == 0
END
}
