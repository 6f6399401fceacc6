#!/usr/bin/env bats
# The running process as the kernel sees it from outside.

load machine

# field NAME FILE: of a /proc/PID/status
field() {
    sed -n "s/^$1:[[:space:]]*//p" "$2"
}

@test "every thread: filtered, without privileges, and no way to gain any" {
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    NET=user start i -c 3 --disk "$BATS_TEST_TMPDIR/disk"
    threads=0
    for task in "/proc/$VM/task"/*; do
        status=$task/status
        echo "$(cat "$task/comm")"
        [ "$(field Seccomp "$status")" = 2 ]
        [ "$(field NoNewPrivs "$status")" = 1 ]
        for set in CapInh CapPrm CapEff CapAmb; do
            [ "$(field "$set" "$status")" = 0000000000000000 ]
        done
        if [ "$(id -u)" = 0 ]; then
            [ "$(field CapBnd "$status")" = 0000000000000000 ]
            [ -z "$(field Groups "$status" | tr -d ' ')" ]
        fi
        threads=$((threads + 1))
    done
    # The main loop, three processors, and the disk's.
    [ "$threads" -ge 5 ]
    kill -HUP "$VM"
    ends 10
}

@test "no descriptor leads to a folder, and none was inherited by accident" {
    exec 9<"$BATS_TEST_DIRNAME/sandbox.bats"
    start i
    for fd in "/proc/$VM/fd"/*; do
        target=$(readlink "$fd") || continue
        echo "$fd $target"
        [ ! -d "$target" ]
    done
    kill -HUP "$VM"
    ends 10
    exec 9<&-
}

@test "nothing in memory is writable and executable" {
    start b
    run grep -c ' rwx' "/proc/$VM/maps"
    echo "$output"
    [ "$output" = 0 ]
    kill -HUP "$VM"
    ends 10
}
