#!/usr/bin/env bats
# Verbs that change an image in its place, when they end half-way; and what a disk leaves that gets smaller.

load disk

# limited BYTES ARGUMENT...: no file may become longer than that.
limited() { ( trap '' XFSZ; ulimit -f $(($1 / 1024)); shift; "$TRAPEZE" disk "$@" ); }

@test "resize: a preallocation that fails leaves the disk as it was, and takes no space" {
    need_qemu
    disk create -q a.qcow2 4M
    qemu-io -c 'write -P 7 1M 2M' a.qcow2 >/dev/null
    cp a.qcow2 before.qcow2
    disk convert a.qcow2 a.raw
    cp a.raw before.raw
    for how in falloc full; do
        refuses 4 "the disk keeps its size" limited $((16 << 20)) resize --preallocation $how a.qcow2 30M
        disk compare -q --strict a.qcow2 before.qcow2
        qemu-img check -q a.qcow2
        [ "$(stat -c %s a.qcow2)" -le $(($(stat -c %s before.qcow2) + 131072)) ]
        refuses 4 "a.raw" limited $((16 << 20)) resize --preallocation $how -f raw a.raw 30M
        cmp a.raw before.raw
    done
}

@test "a disk that gets smaller, or is emptied, has a shorter file" {
    need_qemu
    disk create -q a.qcow2 40M
    qemu-io -c 'write -P 1 0 1M' -c 'write -P 7 20M 20M' a.qcow2 >/dev/null
    cp a.qcow2 b.qcow2
    disk resize --shrink a.qcow2 10M
    qemu-img resize -q --shrink b.qcow2 10M
    [ "$(stat -c %s a.qcow2)" -le "$(stat -c %s b.qcow2)" ]
    qemu-img check -q a.qcow2
    disk compare -q --strict a.qcow2 b.qcow2
    disk create -q -b b.qcow2 -F qcow2 top.qcow2
    qemu-io -c 'write -P 3 0 1M' -c 'write -P 5 1M 9M' top.qcow2 >/dev/null
    disk commit top.qcow2
    [ "$(stat -c %s top.qcow2)" -lt $((2 << 20)) ]
    qemu-img check -q top.qcow2
}

@test "commit and rebase that are stopped say what is to be done, and harm nothing" {
    need_qemu
    qemu-img create -q -f qcow2 base.qcow2 64M
    qemu-io -c 'write -P 1 0 64M' base.qcow2 >/dev/null
    qemu-img create -q -f qcow2 new.qcow2 64M
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    qemu-io -c 'write -P 2 8M 48M' top.qcow2 >/dev/null
    disk convert top.qcow2 truth.raw
    cp top.qcow2 other.qcow2
    python3 - "$TRAPEZE" <<'END'
import fcntl, os, signal, struct, subprocess, sys, termios, time

for number in signal.SIGINT, signal.SIGTERM:
    signal.signal(number, signal.SIG_DFL)

def stopped(number, *args):
    """Ends it with the signal in the midst: nobody reads its progress, and the second line of it has no room."""
    r, w = os.pipe()
    before = fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096) - 20
    os.write(w, b'x' * before)
    p = subprocess.Popen([sys.argv[1], 'disk', *args], stdout=w, stderr=subprocess.PIPE)
    while struct.unpack('i', fcntl.ioctl(r, termios.FIONREAD, b'0000'))[0] == before and p.poll() is None:
        time.sleep(0.01)
    p.send_signal(number)
    said = p.communicate()[1].decode()
    assert p.returncode == -number, (args, p.returncode, said)
    os.close(r), os.close(w)
    return said

def right(name):
    for command in (['disk', 'compare', '-q', '-F', 'raw', name, 'truth.raw'], ['disk', 'check', '-q', name]):
        status = subprocess.run([sys.argv[1], *command]).returncode
        assert status in (0, 3 if 'check' in command else 0), (command, status)

for number in signal.SIGINT, signal.SIGTERM, signal.SIGKILL:
    said = stopped(number, 'rebase', '-p', '-b', 'new.qcow2', '-F', 'qcow2', 'other.qcow2')
    assert number == signal.SIGKILL or 'other.qcow2 shows what it did: rebase it again' in said, said
    right('other.qcow2')
    said = stopped(number, 'commit', '-p', 'top.qcow2')
    assert number == signal.SIGKILL or 'top.qcow2 shows what it did' in said and 'commit it again' in said, said
    right('top.qcow2')
END
    disk rebase -b new.qcow2 -F qcow2 other.qcow2
    disk commit top.qcow2
    for name in other top base; do
        disk compare -q -F raw $name.qcow2 truth.raw
        disk check -q -r leaks $name.qcow2
    done
}
