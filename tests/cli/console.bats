#!/usr/bin/env bats
# A guest's console without a terminal of its own: the log, attach, and which of the two consoles it is.

load guests

# says TEXT GUEST ARGUMENT...: types it into the guest, which returns every byte, and waits until it comes back.
says() {
    local text=$1
    shift
    run timeout 60 python3 "$BATS_TEST_DIRNAME/attach.py" "$text" "$TRAPEZE" attach "$@"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "attach: what is typed reaches the guest, what it says comes back, and both are in the log" {
    guest e --name echo
    says "one of many" echo
    says "another" "$ID"
    trapeze logs echo
    [ "$output" = "one of many
another" ]
    trapeze logs --tail 1 echo
    [ "$output" = another ]
    trapeze logs -n 0 echo
    [ -z "$output" ]
    [ "$(state echo)" = running ]
}

@test "attach: several at once, and one that only looks on" {
    guest e --name echo
    timeout 60 "$TRAPEZE" attach --no-stdin echo <<<"not for the guest" >"$BATS_TEST_TMPDIR/seen" &
    for i in $(seq 100); do
        says "word" echo
        if grep -q word "$BATS_TEST_TMPDIR/seen"; then break; fi
    done
    trapeze kill echo
    wait
    grep -q word "$BATS_TEST_TMPDIR/seen"
    trapeze logs echo
    [[ $output != *"not for the guest"* ]]
}

@test "attach on a terminal: Ctrl-A D detaches, the terminal is restored, the guest runs on" {
    guest e --name echo
    run timeout 60 python3 "$BATS_TEST_DIRNAME/attach.py" --terminal 'ab\x01\x01c' "$TRAPEZE" attach echo
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"Attached to echo; Ctrl-A D detaches."* ]]
    [[ $output == *"Ctrl-A D  leave the guest running and detach"* ]]
    [[ $output == *"Detached from echo"* ]]
    [[ $output == *"restored: yes"* ]]
    trapeze logs echo
    [ "$output" = $'ab\001c' ]
    [ "$(state echo)" = running ]
}

@test "attach: what a pipe or a file holds is typed, and when the guest is silent, it ends" {
    guest e --name echo
    run timeout -k 5 60 "$TRAPEZE" attach echo <<<"of a file"
    [ "$status" -eq 0 ]
    [ "$output" = "of a file" ]
    seq 20000 >"$BATS_TEST_TMPDIR/typed" # more than any buffer on the way
    run bash -c 'cat "$2" | timeout -k 5 60 "$0" attach --time "$1" echo' "$TRAPEZE" 3 "$BATS_TEST_TMPDIR/typed"
    [ "$status" -eq 0 ]
    [[ $output == *$'\n20000' ]]
    # It needs not look on until the guest has taken it all.
    run timeout -k 5 60 "$TRAPEZE" attach -t 0 echo <"$BATS_TEST_TMPDIR/typed"
    [ "$status" -eq 0 ]
    until_is "$( (echo of a file; seq 20000; seq 20000) | md5sum)" bash -c '"$0" logs echo | md5sum' "$TRAPEZE"
    [ "$(state echo)" = running ]
    refuses 2 "--time: 'x' is not" "$TRAPEZE" attach --time x echo
}

# size_of GUEST: of its virtio console, as the machine's state has it: columns and rows, the lower byte first.
size_of() {
    "$TRAPEZE" snapshot create "$1" now >/dev/null 2>&1
    "$TRAPEZE" snapshot show --format json now | jq -r '."virtio 16".config[5:13]'
    "$TRAPEZE" snapshot rm now
}

@test "attach: the guest's console has the terminal's size, and follows it" {
    guest e --name sized --console log --serial null
    mkfifo "$BATS_TEST_TMPDIR/sizes"
    timeout 120 python3 "$BATS_TEST_DIRNAME/attach.py" --sizes "$TRAPEZE" attach sized <"$BATS_TEST_TMPDIR/sizes" &
    exec 8>"$BATS_TEST_TMPDIR/sizes"
    echo 77 33 >&8
    until_is 4d002100 size_of sized
    echo 258 3 >&8
    until_is 02010300 size_of sized
    exec 8>&-
    wait
}

@test "attach to a guest in the foreground" {
    MARK=$BATS_TEST_TMPDIR/mark
    mkfifo "$MARK"
    exec 7<>"$MARK"
    start e
    says "from aside" vm1
    grep -q "from aside" "$BATS_TEST_TMPDIR/out"
    trapeze kill vm1
    ends 10
}

@test "a caller that never reads its console holds nobody up" {
    guest e --name echo
    python3 - "$TRAPEZE_ROOT/run/$ID.sock" <<'PYTHON'
import os, socket, sys
def attach():
    s = socket.socket(socket.AF_UNIX)
    folder = os.open(os.path.dirname(sys.argv[1]), os.O_PATH)
    s.connect(f'/proc/self/fd/{folder}/{os.path.basename(sys.argv[1])}')
    s.sendall(b'{"do":"attach"}\n')
    assert s.recv(100) == b'{"ok":true}\n'
    return s
deaf, typist = attach(), attach()
sent = got = 0
while got < 1000000:
    sent += typist.send(b'x' * min(1000, 1000000 - sent)) if sent < 1000000 and sent - got < 30000 else 0
    got += len(typist.recv(65536))
left = 0
deaf.settimeout(1)
try:
    while True:
        left += len(deaf.recv(65536))
except TimeoutError:
    pass
assert 0 < left < 800000, left
PYTHON
    [ "$(wc -c <"$TRAPEZE_ROOT/guests/$ID/console.log")" -eq 1000000 ]
}

@test "--console log: the virtio console is the guest's, the serial port leads nowhere" {
    dumps console=null
    run "$TRAPEZE" run --dump-config --console log -k k
    grep -qx serial=null <<<"$output"
    run "$TRAPEZE" run --dump-config --console stdio -k k
    grep -qx serial=null <<<"$output"
    run "$TRAPEZE" run --dump-config --console log --serial stdio -k k
    grep -qx serial=stdio <<<"$output"
    refuses 2 "--console stdio: --serial has standard input and output already" \
        "$TRAPEZE" run -k k --console stdio --serial stdio
    refuses 2 "--console log: --serial has the log already" "$TRAPEZE" run -k k --console log --serial log
    refuses 2 "--console stdio: a machine in the background" "$TRAPEZE" run -d -k k --console stdio
    guest e --name quiet --console log
    trapeze logs quiet
    says "to the serial port" --port serial quiet
    trapeze logs quiet
    [ -z "$output" ]
}

@test "consoles that are elsewhere" {
    guest e --name file --serial "file:$BATS_TEST_TMPDIR/out"
    says "to the file" file
    until_is "to the file" cat "$BATS_TEST_TMPDIR/out"
    refuses 4 "its console has no log" "$TRAPEZE" logs file
    guest e --name sock --serial "unix:$BATS_TEST_TMPDIR/s"
    refuses 4 "its console is a socket of its own: connect to '$BATS_TEST_TMPDIR/s'" "$TRAPEZE" attach sock
    trapeze kill sock
    refuses 4 "trapeze attach: sock: it is not running" "$TRAPEZE" attach sock
    refuses 2 "--port: 'x' is not known" "$TRAPEZE" attach --port x sock
}

@test "logs -f: goes on until the guest ends" {
    guest e --name echo
    timeout 60 "$TRAPEZE" logs -f echo >"$BATS_TEST_TMPDIR/followed" &
    says "while it is read" echo
    until_is "while it is read" cat "$BATS_TEST_TMPDIR/followed"
    trapeze kill echo
    wait $!
    trapeze logs --messages echo
    [ -z "$output" ]
}

@test "logs -f: ends when nobody reads it any more, though the guest says nothing" {
    guest e --name echo
    until_is yes sh -c 'echo hello | timeout 2 "$0" attach echo >/dev/null; "$0" logs echo | grep -q hello && echo yes' "$TRAPEZE"
    run bash -c 'set -o pipefail; timeout 60 "$0" logs -f echo | grep -m 1 hello' "$TRAPEZE"
    echo "$status; $output"
    [ "$status" -eq 0 ]
}
