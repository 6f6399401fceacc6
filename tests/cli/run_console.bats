#!/usr/bin/env bats
# The serial port's host side and the terminal.

load machine

@test "--serial stdio: bytes come back" {
    machine e
    coproc "${COMMAND[@]}" 2>"$BATS_TEST_TMPDIR/err" 7<&-
    booted
    echo "through the guest and back" >&"${COPROC[1]}"
    read -r -t 30 line <&"${COPROC[0]}"
    [ "$line" = "through the guest and back" ]
    kill -HUP "$COPROC_PID"
}

@test "--serial file and null" {
    start e --serial "file:$BATS_TEST_TMPDIR/serial"
    [ -f "$BATS_TEST_TMPDIR/serial" ]
    kill -HUP "$VM"
    ends 10
    start i --serial null
    kill -HUP "$VM"
    ends 10
}

@test "--serial unix: one connection after the other" {
    start e --serial "unix:$BATS_TEST_TMPDIR/socket"
    for word in first second; do
        run timeout 30 python3 - "$BATS_TEST_TMPDIR/socket" "$word" <<'PYTHON'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode())
got = b''
while len(got) < len(sys.argv[2]):
    got += s.recv(100)
print(got.decode())
PYTHON
        echo "$output"
        [ "$output" = "$word" ]
    done
    kill -HUP "$VM"
    ends 10
}

# on_terminal INPUT ARGUMENT...: runs the machine on a terminal of its own, types INPUT once the guest runs, and leaves
# the terminal's modes before and after in before, raw and after.
on_terminal() {
    run timeout 60 python3 "$BATS_TEST_DIRNAME/terminal.py" "$@" 7<&-
    echo "status $status; $output"
}

@test "on a terminal: Ctrl-A X stops the machine, the terminal is restored" {
    machine e
    on_terminal "$MARK" '\x01x' "${COMMAND[@]:4}"
    [ "$status" -eq 0 ]
    [[ $output == *"status 10"* ]]
    [[ $output == *"raw while running: yes"* ]]
    [[ $output == *"restored: yes"* ]]
}

@test "on a terminal: Ctrl-A H shows the keys, Ctrl-A Ctrl-A types one" {
    machine e
    on_terminal "$MARK" '\x01hq\x01\x01 => q\x01 => \x01x' "${COMMAND[@]:4}"
    [ "$status" -eq 0 ]
    [[ $output == *"Ctrl-A X  stop the machine"* ]]
    [[ $output == *$'q\x01'* ]]
}

@test "on a terminal: it is restored after kill -9 too" {
    machine e
    on_terminal "$MARK" KILL "${COMMAND[@]:4}"
    [ "$status" -eq 0 ]
    [[ $output == *"raw while running: yes"* ]]
    [[ $output == *"restored: yes"* ]]
}
