#!/usr/bin/env bats
# Options of `trapeze disk` that qemu-img's users bring with them, and what is left when a verb is stopped.

load disk

teardown() {
    [ -z "${loop:-}" ] || losetup -d "$loop"
}

# Noise cannot be packed.
make_mixed() {
    make_raw "$1"
    openssl rand -out noise 300000
    dd if=noise of="$1" conv=notrunc status=none bs=1000 seek=3500
}

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# What the formats say of two images is the same, by us and by qemu-img.
same_info() {
    python3 -c 'import json, sys
a, b = (json.load(open(name))["format-specific"] for name in sys.argv[1:])
assert a == b, (a, b)' <(disk info --output json $1) <(qemu-img info -U --output json $2)
}

@test "convert -c packs what qemu-img packs, as small, in every variant" {
    need_qemu
    make_mixed a.raw
    for kind in zlib zstd; do
        for v in cluster_size=512 refcount_bits=1,cluster_size=1k refcount_bits=2,cluster_size=4k cluster_size=64k \
            lazy_refcounts=on cluster_size=2M refcount_bits=64 compat=0.10; do
            [ $kind/$v != zstd/compat=0.10 ] || continue
            echo "$kind $v"
            disk convert -c -f raw -O qcow2 -o $v,compression_type=$kind a.raw ours.qcow2
            qemu-img convert -c -f raw -O qcow2 -o $v,compression_type=$kind a.raw theirs.qcow2
            qemu-img check -q ours.qcow2
            qemu-img compare -f raw -F qcow2 a.raw ours.qcow2
            disk check -q ours.qcow2
            disk compare -q -f raw a.raw ours.qcow2
            for key in allocated-clusters compressed-clusters; do
                [ "$(qemu-img check --output json ours.qcow2 | field $key)" = \
                    "$(qemu-img check --output json theirs.qcow2 | field $key)" ]
            done
            same_info ours.qcow2 theirs.qcow2
        done
    done
    # As qemu-img's, on the whole: two clusters more at most.
    disk convert -c -f raw -O qcow2 a.raw ours.qcow2
    qemu-img convert -c -f raw -O qcow2 a.raw theirs.qcow2
    [ "$(stat -c %s ours.qcow2)" -le $(($(stat -c %s theirs.qcow2) + 131072)) ]
    # What is packed is written to like anything else.
    disk create -b ours.qcow2 -F qcow2 top.qcow2
    qemu-io -f qcow2 -c "write -P 5 10k 300k" -c "write -z 3M 100k" top.qcow2 >/dev/null
    qemu-img convert -O raw top.qcow2 want.raw
    disk commit top.qcow2
    qemu-img check -q ours.qcow2
    qemu-img compare -f raw -F qcow2 want.raw ours.qcow2
}

@test "preallocation takes the space that qemu-img's takes" {
    need_qemu
    make_mixed a.raw
    about() { [ "$1" -ge $(($2 * 9 / 10)) ] && [ "$1" -le $(($2 * 11 / 10 + 64)) ]; }
    for how in metadata falloc full; do
        for v in cluster_size=1k cluster_size=64k,lazy_refcounts=on cluster_size=2M; do
            echo "$how $v"
            disk create -o $v,preallocation=$how ours.qcow2 9M
            qemu-img create -q -f qcow2 -o $v,preallocation=$how theirs.qcow2 9M
            qemu-img check -q ours.qcow2
            about "$(stat -c %s ours.qcow2)" "$(stat -c %s theirs.qcow2)"
            [ $how = metadata ] || about "$(stat -c %b ours.qcow2)" "$(stat -c %b theirs.qcow2)"
            qemu-img compare -q ours.qcow2 theirs.qcow2
            disk convert -f raw -O qcow2 -o $v,preallocation=$how a.raw ours.qcow2
            disk resize --preallocation $how ours.qcow2 +3M
            qemu-img check -q ours.qcow2
            qemu-img compare -q -f raw -F qcow2 a.raw ours.qcow2
            # Every byte has its place.
            [ "$(qemu-img map --output json ours.qcow2 | python3 -c '
import json, sys
print(sum(e["length"] for e in json.load(sys.stdin) if "offset" in e))')" -eq $((5000704 + 3 * 1024 * 1024)) ]
        done
    done
    for how in falloc full; do
        disk create -f raw -o preallocation=$how p.raw 4M
        [ "$(stat -c %b p.raw)" -ge 8192 ]
        disk resize -f raw --preallocation $how p.raw +4M
        [ "$(stat -c '%s %b' p.raw)" = "8388608 16384" ]
        [ -z "$(tr -d '\0' <p.raw | head -c 1)" ]
    done
    refuses 2 "no metadata" "$TRAPEZE" disk create -f raw -o preallocation=metadata p.raw 4M
    refuses 2 "shows nothing of a backing image" "$TRAPEZE" disk create -o preallocation=full -b a.raw -F raw t.qcow2
    refuses 2 "grows" "$TRAPEZE" disk resize -f raw --shrink --preallocation full p.raw 1M
    refuses 2 "cannot be preallocated" "$TRAPEZE" disk convert -c -f raw -O qcow2 -o preallocation=full a.raw t.qcow2
}

@test "convert -B makes an overlay of the old base's copy" {
    need_qemu
    make_mixed base.raw
    disk create -b base.raw -F raw top.qcow2 6M
    qemu-io -f qcow2 -c "write -P 9 100k 300k" -c "write -z 1M 256k" -c "write -P 3 5500k 100k" top.qcow2 >/dev/null
    cp base.raw moved.raw
    for args in "" -c "-o compat=0.10" "-o cluster_size=512" "-c -o cluster_size=2M"; do
        echo "$args"
        disk convert -O qcow2 $args -B moved.raw -F raw top.qcow2 ours.qcow2
        qemu-img check -q ours.qcow2
        qemu-img compare top.qcow2 ours.qcow2
        [ "$(qemu-img info --output json ours.qcow2 | field backing-filename)" = moved.raw ]
    done
    disk convert -O qcow2 -o cluster_size=4k -B moved.raw -F raw top.qcow2 ours.qcow2
    # The base's data is not in it.
    [ "$(stat -c %b ours.qcow2)" -lt 1500 ]
    # Of an image that stands on nothing, everything is copied, zeros too.
    qemu-img create -q -f qcow2 alone.qcow2 5000704
    qemu-io -f qcow2 -c "write -P 1 1M 64k" alone.qcow2 >/dev/null
    disk convert -O qcow2 -B base.raw -F raw alone.qcow2 ours.qcow2
    qemu-img compare alone.qcow2 ours.qcow2
    refuses 2 "never guessed" "$TRAPEZE" disk convert -O qcow2 -B base.raw top.qcow2 x.qcow2
    refuses 2 "raw images have no backing" "$TRAPEZE" disk convert -B base.raw -F raw top.qcow2 x.raw
}

@test "convert -n writes into what is there" {
    need_qemu
    make_mixed a.raw
    for v in cluster_size=512 compat=0.10 cluster_size=64k,lazy_refcounts=on; do
        for packed in "" -c; do
            qemu-img create -q -f qcow2 -o $v there.qcow2 7M
            qemu-io -f qcow2 -c "write -P 1 0 7M" there.qcow2 >/dev/null
            inode=$(stat -c %i there.qcow2)
            disk convert -n $packed -f raw -O qcow2 a.raw there.qcow2
            [ "$(stat -c %i there.qcow2)" = "$inode" ]
            qemu-img check -q there.qcow2
            qemu-io -r -f qcow2 -c "read -P 1 5000704 2339328" there.qcow2
            disk resize --shrink there.qcow2 5000704
            qemu-img compare -f raw -F qcow2 a.raw there.qcow2
        done
    done
    head -c 6000000 /dev/zero | tr '\0' x >there.raw
    disk convert -n -f raw -O raw a.raw there.raw
    cmp -n 5000704 a.raw there.raw
    [ "$(tail -c 999296 there.raw | tr -d x | head -c 1)" = "" ]
    qemu-img create -q -f raw zeros.raw 5000704
    disk convert -n --target-is-zero -f raw -O raw a.raw zeros.raw
    cmp a.raw zeros.raw
    # Without a format, the one that is there.
    qemu-img create -q -f qcow2 there.qcow2 5000704
    disk convert -n -f raw a.raw there.qcow2
    qemu-img compare -f raw -F qcow2 a.raw there.qcow2
    qemu-img create -q -f qcow2 small.qcow2 1M
    refuses 4 "are needed" "$TRAPEZE" disk convert -n -f raw -O qcow2 a.raw small.qcow2
    disk check -q small.qcow2
    refuses 4 "No such file" "$TRAPEZE" disk convert -n -f raw -O qcow2 a.raw nothing.qcow2
    refuses 2 "makes none" "$TRAPEZE" disk convert -n -o compat=1.1 -f raw -O qcow2 a.raw small.qcow2
    refuses 2 "for --no-create" "$TRAPEZE" disk convert --target-is-zero -f raw a.raw b.raw
}

@test "convert -S says which zeros become holes" {
    need_qemu
    head -c 4194304 /dev/zero >a.raw
    for at in 0 64 128 192; do
        printf x | dd of=a.raw conv=notrunc status=none bs=1k seek=$at
    done
    disk convert -S 0 -f raw a.raw full.raw
    [ "$(stat -c %b full.raw)" -ge 8192 ]
    cmp a.raw full.raw
    disk convert -S 0 -f raw -O qcow2 a.raw full.qcow2
    qemu-img convert -S 0 -f raw -O qcow2 a.raw theirs.qcow2
    [ "$(qemu-img check --output json full.qcow2 | field allocated-clusters)" -eq 64 ]
    [ "$(qemu-img check --output json theirs.qcow2 | field allocated-clusters)" -eq 64 ]
    disk convert -S 256k -f raw a.raw some.raw
    cmp a.raw some.raw
    [ "$(stat -c %b some.raw)" -eq 512 ]
    disk convert -f raw a.raw least.raw
    [ "$(stat -c %b least.raw)" -lt 512 ]
    refuses 2 "multiple of 512" "$TRAPEZE" disk convert -S 1000 -f raw a.raw x.raw
}

@test "map of a part of the disk" {
    need_qemu
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c "write -P 1 1M 1M" a.qcow2 >/dev/null
    for args in "--start-offset 512k" "--max-length 1536k" "--start-offset 1280k --max-length 1M" "--start-offset 3M --max-length 9M"; do
        # One after the other: qemu-img opens nothing that we have locked. Later versions of it say what is compressed, too.
        disk map --output json $args a.qcow2 >ours
        diff <(sed 's/, "compressed": false//g' ours | python3 -m json.tool) \
            <(qemu-img map -U --output json $args a.qcow2 | sed 's/, "compressed": false//g' | python3 -m json.tool)
    done
}

@test "info -U of a chain in other folders has qemu-img's keys and values" {
    need_qemu
    mkdir -p sub
    qemu-img create -q -f raw sub/low.raw 1M
    qemu-img create -q -f qcow2 -b low.raw -F raw sub/mid.qcow2
    qemu-img create -q -f qcow2 -b "$PWD/sub/mid.qcow2" -F qcow2 sub/top.qcow2
    diff <(disk info -U --backing-chain --output json sub/top.qcow2 | python3 -m json.tool --sort-keys) \
        <(qemu-img info -U --backing-chain --output json sub/top.qcow2 | python3 -m json.tool --sort-keys)
    diff <(disk info --backing-chain sub/top.qcow2 | grep "backing file") <(qemu-img info -U --backing-chain sub/top.qcow2 |
        grep "backing file")
}

@test "commit -b goes down by several images, and empties none" {
    need_qemu
    make_mixed base.raw
    disk create -b base.raw -F raw mid.qcow2
    qemu-io -f qcow2 -c "write -P 8 200k 1M" mid.qcow2 >/dev/null
    disk create -b mid.qcow2 -F qcow2 top.qcow2 6M
    qemu-io -f qcow2 -c "write -P 9 100k 300k" -c "write -z 1M 64k" -c "write -P 7 5200k 10k" top.qcow2 >/dev/null
    qemu-img convert -O raw top.qcow2 want.raw
    for name in base.raw mid.qcow2 top.qcow2; do
        cp $name theirs-$name
    done
    disk commit -b base.raw top.qcow2
    cmp want.raw base.raw
    qemu-img compare -f raw -F qcow2 want.raw top.qcow2
    qemu-img rebase -u -b theirs-base.raw -F raw theirs-mid.qcow2
    qemu-img rebase -u -b theirs-mid.qcow2 -F qcow2 theirs-top.qcow2
    qemu-img commit -q -b theirs-base.raw theirs-top.qcow2
    cmp theirs-base.raw base.raw
    [ -n "$(qemu-img map top.qcow2 | grep top.qcow2)" ]
    refuses 4 "does not stand on" "$TRAPEZE" disk commit -b want.raw top.qcow2
}

@test "exit statuses of compare and check, quiet or not" {
    need_qemu
    make_mixed a.raw
    disk convert -f raw -O qcow2 a.raw a.qcow2
    cp a.raw longer.raw
    truncate -s 6M longer.raw
    status_of() {
        run --separate-stderr "$TRAPEZE" disk "$@"
        [ -z "$output$stderr" ] || [[ $* != *" -q "* ]]
        echo "$status"
    }
    [ "$(status_of compare -q -f raw a.raw a.qcow2)" = 0 ]
    [ "$(status_of compare -q -f raw -F raw a.raw longer.raw)" = 0 ]
    [ "$(status_of compare -s -q -f raw -F raw a.raw longer.raw)" = 1 ]
    printf x | dd of=longer.raw conv=notrunc status=none bs=1 seek=100
    [ "$(status_of compare -q -f raw -F raw a.raw longer.raw)" = 1 ]
    [[ $(disk compare -p -f raw a.raw a.qcow2) == *"(100.00/100%)"* ]]
    run disk compare -f raw -F raw a.raw nothing.raw
    [ "$status" -ge 2 ]
    [ "$(status_of check -q a.qcow2)" = 0 ]
    # A cluster nobody refers to; then one that is in use and counts none.
    block=$((16#$(xxd -p -s $((16#$(xxd -p -s 48 -l 8 a.qcow2))) -l 8 a.qcow2)))
    printf '\0\1' | dd of=a.qcow2 conv=notrunc status=none bs=1 seek=$((block + 2 * ($(stat -c %s a.qcow2) / 65536)))
    truncate -s +64k a.qcow2
    [ "$(status_of check -q a.qcow2)" = 3 ]
    cp a.qcow2 b.qcow2
    [ "$(status_of check -q -r leaks b.qcow2)" = 0 ]
    printf '\0\0' | dd of=a.qcow2 conv=notrunc status=none bs=1 seek=$((block + 10))
    [ "$(status_of check -q a.qcow2)" = 1 ]
    [ "$(status_of check -q -r leaks a.qcow2)" = 1 ]
    [ "$(status_of check -q -r all a.qcow2)" = 0 ]
    qemu-img compare -f raw -F qcow2 a.raw a.qcow2
    run disk check -f raw a.raw
    [ "$status" -ge 4 ]
}

@test "-o help, sizes by -o, and a backing image that is not there yet" {
    need_qemu
    run disk create -o help -f qcow2 x.qcow2
    [ "$status" -eq 0 ]
    [[ $output == *cluster_size*preallocation* ]]
    [ ! -e x.qcow2 ]
    disk create -q -o size=3M,cluster_size=4k x.qcow2
    [ "$(qemu-img info --output json x.qcow2 | field virtual-size)" -eq 3145728 ]
    refuses 2 "twice" "$TRAPEZE" disk create -o size=3M x.qcow2 4M
    disk create -o backing_file=x.qcow2,backing_fmt=qcow2 top.qcow2
    [ "$(qemu-img info --output json top.qcow2 | field backing-filename)" = x.qcow2 ]
    disk create -u -b later.qcow2 -F qcow2 top.qcow2 5M
    refuses 4 "backing image" "$TRAPEZE" disk create -b later.qcow2 -F qcow2 top.qcow2 5M
    refuses 2 "size is missing" "$TRAPEZE" disk create -u -b later.qcow2 -F qcow2 top.qcow2
}

@test "what qemu-img has and we do not is said, with what to do instead" {
    disk create a.qcow2 1M
    for args in "convert --bitmaps" "convert -C" "convert --image-opts" "convert --target-image-opts" "convert --object x" \
        "convert -l one" "convert -r 1M" "convert --salvage" "compare --image-opts"; do
        refuses 2 "is not offered: " "$TRAPEZE" disk $args a.qcow2 b.qcow2
    done
    for args in "check --image-opts" "info --image-opts" "map --image-opts" "rebase -U" "commit -r 1M" "commit --image-opts" \
        "rebase --object x"; do
        refuses 2 "is not offered: " "$TRAPEZE" disk $args a.qcow2
    done
    refuses 2 "is not offered: " "$TRAPEZE" disk resize --image-opts a.qcow2 +1M
    refuses 2 "one operand too many" "$TRAPEZE" disk convert a.qcow2 b.qcow2 c.qcow2
    refuses 2 "external data files" "$TRAPEZE" disk create -o data_file=x b.qcow2 1M
    refuses 2 "cryptsetup" "$TRAPEZE" disk create -o encryption=on b.qcow2 1M
    refuses 2 "-o help" "$TRAPEZE" disk create -o colour=red b.qcow2 1M
    refuses 2 "cache mode" "$TRAPEZE" disk convert -t fast a.qcow2 b.qcow2
    refuses 2 "for qcow2" "$TRAPEZE" disk convert -c a.qcow2 b.raw
    [ ! -e b.qcow2 ]
    for mode in none directsync writethrough writeback unsafe; do
        disk convert -t $mode -T none -W -m 4 -O qcow2 a.qcow2 b.qcow2
    done
    disk compare -q a.qcow2 b.qcow2
}

@test "an image that somebody writes to is read with -U only" {
    need_qemu
    disk create a.qcow2 1M
    python3 - "$TRAPEZE" <<'END'
import fcntl, struct, subprocess, sys
f = open('a.qcow2', 'r+b')
fcntl.fcntl(f, 37, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
for args in (['convert', 'a.qcow2', 'b.raw'], ['compare', 'a.qcow2', 'a.qcow2'], ['map', 'a.qcow2'], ['check', 'a.qcow2']):
    for share, status in (([], 4), (['-U'], 0)):
        run = subprocess.run([sys.argv[1], 'disk', args[0], *share, *args[1:]], capture_output=True, text=True)
        assert run.returncode == status, (args, share, run)
END
    refuses 2 "cannot be mended" "$TRAPEZE" disk check -U -r all a.qcow2
}

@test "a convert that is stopped leaves nothing, or something that is no image" {
    need_qemu
    seq 1 4000000 >text.raw
    truncate -s 32M text.raw
    python3 - "$TRAPEZE" <<'END'
import fcntl, glob, os, signal, struct, subprocess, sys, termios, time

# As where somebody sits at a terminal, even if these tests run in the background.
for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT:
    signal.signal(number, signal.SIG_DFL)

def stopped(number, *args):
    """Sends the signal once the copy has begun. A megabyte of text is packed in ten milliseconds at best."""
    p = subprocess.Popen([sys.argv[1], 'disk', 'convert', '-p', '-c', '-m', '1', '-f', 'raw', *args, 'text.raw', 'new.qcow2'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b'%' in p.stdout.read1(15)
    p.send_signal(number)
    said = p.communicate()[1].decode()
    assert p.returncode == -number, (args, p.returncode, said)
    return said

def leftovers():
    return glob.glob('new.qcow2*')

for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT:
    stopped(number, '-O', 'qcow2')
    assert not leftovers(), leftovers()
open('new.qcow2', 'w').write('mine')
for number in signal.SIGINT, signal.SIGKILL:
    stopped(number, '-O', 'qcow2')
    assert open('new.qcow2').read() == 'mine'
parts = [name for name in leftovers() if name != 'new.qcow2']
assert len(parts) == 1 and parts[0].endswith('.part'), parts
for name in leftovers():
    os.unlink(name)
# Into an image that is there: it is not taken away, and nobody takes it for a whole one.
for number in signal.SIGINT, signal.SIGKILL:
    subprocess.run([sys.argv[1], 'disk', 'create', 'new.qcow2', '40M'], check=True)
    said = stopped(number, '-n', '-O', 'qcow2')
    assert number == signal.SIGKILL or 'new.qcow2: stopped; it holds only a part now: make it anew' in said, said
    for command in (['qemu-img', 'check', '-f', 'qcow2', 'new.qcow2'], [sys.argv[1], 'disk', 'check', 'new.qcow2']):
        assert subprocess.run(command, capture_output=True).returncode not in (0, 3), command
# A raw one cannot say so itself. Nobody reads the progress, and there is no room for its second line: it stands still there.
subprocess.run([sys.argv[1], 'disk', 'create', '-f', 'raw', 'new.raw', '40M'], check=True)
for number in signal.SIGINT, signal.SIGTERM:
    r, w = os.pipe()
    before = fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096) - 20
    os.write(w, b'x' * before)
    p = subprocess.Popen([sys.argv[1], 'disk', 'convert', '-p', '-n', '-f', 'raw', '-O', 'raw', 'text.raw', 'new.raw'], stdout=w,
                         stderr=subprocess.PIPE, text=True)
    while struct.unpack('i', fcntl.ioctl(r, termios.FIONREAD, b'0000'))[0] == before and p.poll() is None:
        time.sleep(0.01)
    p.send_signal(number)
    said = p.communicate()[1]
    assert p.returncode == -number and 'new.raw: stopped; it holds only a part now: make it anew' in said, (p.returncode, said)
    os.close(r), os.close(w)
# Who starts it in the background of a script wants it to go on.
p = subprocess.run(['sh', '-c', 'trap "" INT; "$0" disk convert -p -c -m 1 -f raw -O qcow2 text.raw new.qcow2 & '
                    'kill -INT $!; wait $!', sys.argv[1]], capture_output=True)
assert p.returncode == 0, p
assert subprocess.run(['qemu-img', 'compare', '-q', '-f', 'raw', 'text.raw', 'new.qcow2']).returncode == 0
END
}

@test "a preallocation that fails leaves nothing" {
    python3 - "$TRAPEZE" <<'END'
import glob, resource, subprocess, sys
# SIGXFSZ would end the program: a file that may not grow that far is an error of a write like others.
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))
p = subprocess.run([sys.argv[1], 'disk', 'create', '-o', 'preallocation=full', 'a.qcow2', '20M'], preexec_fn=limit,
                   capture_output=True, text=True)
assert p.returncode == 4 and 'was not made' in p.stderr, p
assert not glob.glob('a.qcow2*')
END
}

@test "a new image replaces the old one as a whole, behind links, with its permissions" {
    disk create old.qcow2 1M
    chmod 600 old.qcow2
    ln -s old.qcow2 link.qcow2
    disk create link.qcow2 2M
    [ -L link.qcow2 ]
    [ "$(stat -c %a old.qcow2)" = 600 ]
    [[ $(disk info old.qcow2) == *"2097152 bytes"* ]]
    disk create new.qcow2 1M
    chmod a-w old.qcow2
    refuses 4 "write-protected" "$TRAPEZE" disk create old.qcow2 3M
    refuses 4 "write-protected" "$TRAPEZE" disk convert -O qcow2 new.qcow2 old.qcow2
    ln -s nowhere/x.qcow2 dangling.qcow2
    refuses 4 "leads to nothing" "$TRAPEZE" disk create dangling.qcow2 1M
    refuses 4 "neither a regular file" "$TRAPEZE" disk create /dev/null 1M
}

@test "resize takes less without --, as qemu-img does" {
    disk create a.qcow2 5M
    refuses 2 "--shrink" "$TRAPEZE" disk resize a.qcow2 -1M
    disk resize --shrink a.qcow2 -1M
    [[ $(disk info a.qcow2) == *"4194304 bytes"* ]]
}

@test "block devices hold images of any size" {
    need_qemu
    command -v losetup >/dev/null || skip "losetup is not installed"
    make_mixed a.raw
    truncate -s 5000100 a.raw
    head -c 9437184 /dev/zero | tr '\0' x >device
    loop=$(losetup -f --show device) || skip "no loop device can be made here"
    for args in "-O qcow2" "-O qcow2 -c" "-O qcow2 -o cluster_size=512" "-O qcow2 -o preallocation=metadata,cluster_size=4k"; do
        echo "$args"
        disk convert -f raw $args a.raw "$loop"
        qemu-img check -q -f qcow2 "$loop"
        disk check -q -f qcow2 "$loop"
        qemu-img compare -f raw -F qcow2 a.raw "$loop"
    done
    disk convert -f raw -O raw a.raw "$loop"
    cmp -n 5000100 a.raw "$loop"
    refuses 4 "has the size that it has" "$TRAPEZE" disk resize -f raw --shrink "$loop" 4M
    refuses 4 "has the size that it has" "$TRAPEZE" disk resize -f raw "$loop" 1G
    disk create -f qcow2 "$loop" 6M
    disk convert -n -f raw -O qcow2 a.raw "$loop"
    qemu-img compare -f raw -F qcow2 a.raw "$loop"
    head -c 99000000 /dev/zero | tr '\0' y >large.raw
    refuses 4 "is no image any more" "$TRAPEZE" disk convert -f raw -O qcow2 large.raw "$loop"
    refuses 4 "not a qcow2 image" "$TRAPEZE" disk check -f qcow2 "$loop"
}

@test "an image that would stand on itself is refused, and nobody is said to use it" {
    disk create -q base.qcow2 1M
    disk create -q -b base.qcow2 -F qcow2 mid.qcow2
    disk create -q -b mid.qcow2 -F qcow2 top.qcow2
    refuses 4 "mid.qcow2: stands on base.qcow2, which would be its own" "$TRAPEZE" disk rebase -b mid.qcow2 -F qcow2 base.qcow2
    refuses 4 "mid.qcow2: stands on base.qcow2, which would be its own" "$TRAPEZE" disk rebase -b top.qcow2 -F qcow2 base.qcow2
    disk rebase -u -b mid.qcow2 -F qcow2 base.qcow2
    refuses 4 "base.qcow2: stands on mid.qcow2, which would be its own" "$TRAPEZE" disk commit mid.qcow2
}
