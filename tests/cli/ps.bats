#!/usr/bin/env bats
# `trapeze run -d` and `trapeze ps`: guests in the background and what is known of them.

load guests

@test "nobody: a heading, an empty array, nothing" {
    trapeze ps
    [[ $output == "ID "*NAME*STATE* ]]
    [ "${#lines[@]}" -eq 1 ]
    trapeze ps -a --format json
    [ "$output" = "[]" ]
    trapeze ps -aq
    [ -z "$output" ]
}

@test "run -d: the id, a record, a log; names are given or made" {
    guest b
    first=$ID
    guest i --name web
    trapeze ps -q
    [ "$(sort <<<"$output")" = "$(printf '%s\n' "$first" "$ID" | sort)" ]
    trapeze ps
    [[ $output == *"$first  vm1   up "* ]]
    [[ $output == *"$ID  web   up "*" 1     16M "* ]]
    [ -f "$TRAPEZE_ROOT/guests/$ID/console.log" ]
    [ "$(state web)" = running ]
    trapeze ps --format json
    [ "$(jq -r '.[] | select(.name == "web") | .memory, .cpus, .pid' <<<"$output" | wc -l)" -eq 3 ]
}

@test "run -d holds nothing open of who started it" {
    exec 8> >(cat >"$BATS_TEST_TMPDIR/pipe"; echo ended >"$BATS_TEST_TMPDIR/ended")
    guest i
    exec 8>&-
    until_is ended cat "$BATS_TEST_TMPDIR/ended"
    run readlink "/proc/$(pid_of "$ID")/fd/0"
    [ "$output" = /dev/null ]
}

@test "run -d: a debug console without a file has one among the guest's own" {
    timeout 60 "$TRAPEZE" run -d -k "$ENDS" -a i -m 16M --net none --debug-console 0xe9 --name web \
        >/dev/null 2> >(cat >"$BATS_TEST_TMPDIR/said"; echo ended >"$BATS_TEST_TMPDIR/ended")
    until_is ended cat "$BATS_TEST_TMPDIR/ended" # nobody holds our standard error
    [ -f "$TRAPEZE_ROOT"/guests/*/debug.log ]
    trapeze rm -f web
    [ -z "$(ls -A "$TRAPEZE_ROOT/guests")" ]
}

@test "run -d: what fails is said, with its status, and leaves no record" {
    refuses 4 "/nonexistent" "$TRAPEZE" run -d -k /nonexistent --net none
    head -c 4096 /dev/zero >"$BATS_TEST_TMPDIR/nothing"
    refuses 4 "is no kernel this machine can start" "$TRAPEZE" run -d -k "$BATS_TEST_TMPDIR/nothing" --net none
    refuses 4 "no-such-disk" "$TRAPEZE" run -d -k "$ENDS" --net none --disk "$BATS_TEST_TMPDIR/no-such-disk"
    refuses 2 "--serial stdio: a machine in the background has no terminal" "$TRAPEZE" run -d -k "$ENDS" --serial stdio
    refuses 2 "--kernel is missing" "$TRAPEZE" run -d
    # Too late for the process to clean up itself: it has locked itself in before it loads the kernel.
    truncate -s 40M "$BATS_TEST_TMPDIR/initrd"
    refuses 4 "trapeze run: " "$TRAPEZE" run -d -k "$ENDS" -m 16M --net none -i "$BATS_TEST_TMPDIR/initrd"
    trapeze ps -aq
    [ -z "$output" ]
    [ -z "$(ls -A "$TRAPEZE_ROOT/guests")" ]
}

@test "a name is there once: two at the same time, one wins" {
    guest i --name web
    refuses 4 "--name: 'web' is the name of a running guest ($ID)" "$TRAPEZE" run -d --name web -k "$ENDS" --net none
    refuses 4 "--name: 'web' is the name of a running guest ($ID)" "$TRAPEZE" run --name web -k "$ENDS" --net none
    trapeze kill web
    refuses 4 "a guest that has ended ($ID): 'trapeze start web' starts it again" "$TRAPEZE" run -d --name web -k "$ENDS" --net none
    pids=()
    for i in 1 2 3 4 5 6; do
        timeout 60 "$TRAPEZE" run -d --name one -k "$ENDS" -a i -m 16M --net none >"$BATS_TEST_TMPDIR/out$i" 2>&1 &
        pids+=($!)
    done
    won=0
    for pid in "${pids[@]}"; do
        if wait "$pid"; then won=$((won + 1)); fi
    done
    cat "$BATS_TEST_TMPDIR"/out*
    [ "$won" -eq 1 ]
    [ "$(grep -l "is the name of" "$BATS_TEST_TMPDIR"/out* | wc -l)" -eq 5 ]
}

@test "an end is noted with its status" {
    guest p --name off
    guest d --name chosen
    guest t --name triple
    guest c --name panic
    until_is "" "$TRAPEZE" ps -q
    trapeze ps -a --format json
    [ "$(jq -r 'map("\(.name) \(.status) \(.reason)") | sort | .[]' <<<"$output")" = "chosen 43 null
off 0 null
panic 6 the guest panicked
triple 8 triple fault: a processor of the guest shut down" ]
    trapeze ps -a
    [[ $output == *"chosen  ended (43) "* ]]
}

@test "kill -9 of a guest: noticed, said once, noted; in the foreground nothing is left" {
    guest b --name web
    kill -9 "$(pid_of web)"
    until_is ended state web
    trapeze ps -a
    [[ $output == *"web   died "* ]]
    [ ! -e "$TRAPEZE_ROOT/run/$ID.sock" ]

    guest b --name again
    pid=$(pid_of again)
    kill -9 "$pid"
    timeout 30 tail -s 0.02 --pid="$pid" -f /dev/null
    run --separate-stderr "$TRAPEZE" ps
    [[ $stderr == *"guest again ($ID) has died without a word"* ]]
    trapeze ps

    MARK=$BATS_TEST_TMPDIR/mark
    mkfifo "$MARK"
    exec 7<>"$MARK"
    start i
    [ "$(state vm1)" = running ]
    kill -9 "$VM"
    wait "$VM" || true
    VM=
    run --separate-stderr "$TRAPEZE" ps -a
    [[ $stderr == *"guest vm1 ("*"its record is removed"* ]]
    [ "$(ls "$TRAPEZE_ROOT/guests" | wc -l)" -eq 2 ]
}

@test "a guest in the foreground is listed while it runs" {
    MARK=$BATS_TEST_TMPDIR/mark
    mkfifo "$MARK"
    exec 7<>"$MARK"
    start i
    [ "$(state vm1)" = running ]
    trapeze stop -t 0 vm1
    ends 10
    trapeze ps -aq
    [ -z "$output" ]
}

@test "a root that cannot be written: one line in the foreground, an error with a name or in the background" {
    touch "$BATS_TEST_TMPDIR/file"
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/file/root
    run --separate-stderr timeout 60 "$TRAPEZE" run -k "$ENDS" -a p -m 16M --net none
    [ "$status" -eq 0 ]
    [[ $stderr == *"no record is kept of this machine"*"file/root"* ]]
    refuses 4 "file/root" "$TRAPEZE" run -d -k "$ENDS" -a p --net none
    refuses 4 "file/root" "$TRAPEZE" run --name x -k "$ENDS" -a p --net none
    refuses 4 "file/root" "$TRAPEZE" ps
}

@test "another root is another host" {
    guest i --name web
    trapeze ps -aq --root "$BATS_TEST_TMPDIR/other"
    [ -z "$output" ]
    refuses 4 "there is no guest 'web'" "$TRAPEZE" kill --root "$BATS_TEST_TMPDIR/other" web
    guest i --name web --root "$BATS_TEST_TMPDIR/other"
    trapeze kill --root "$BATS_TEST_TMPDIR/other" web
    [ "$(state web)" = running ]
}

@test "a long root: sockets have short addresses" {
    long=$BATS_TEST_TMPDIR/$(printf 'long%.0s' {1..50})/root
    guest i --root "$long"
    trapeze ps --root "$long"
    [[ $output == *" up "* ]]
    trapeze kill --root "$long" "$ID"
}

@test "damaged records, and those of a newer version, are refused by name" {
    trapeze ps
    head -c 8192 /dev/urandom >"$TRAPEZE_ROOT/trapeze.db"
    rm -f "$TRAPEZE_ROOT"/trapeze.db-*
    refuses 4 "trapeze.db' are damaged" "$TRAPEZE" ps
    command -v python3 >/dev/null || return 0
    rm "$TRAPEZE_ROOT/trapeze.db"
    trapeze ps
    python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA user_version = 99")' \
        "$TRAPEZE_ROOT/trapeze.db"
    refuses 4 "have version 99, made by a newer trapeze" "$TRAPEZE" ps
}

@test "a root that cannot be made: why" {
    refuses 4 "cannot make the folder '/dev/null/x': Not a directory" "$TRAPEZE" ps --root /dev/null/x
    mkdir /sys/trapeze-test 2>/dev/null && skip "folders can be made in /sys"
    run "$TRAPEZE" ps --root /sys/trapeze-test
    [ "$status" -eq 4 ]
    [[ $output == *"cannot make the folder '/sys/trapeze-test': "* ]]
    [[ $output != *"No such file"* ]]
}
