#!/usr/bin/env bats
# The verbs that tell about guests, inspect and stats.

load guests

@test "inspect: the record, the options, and the machine's own words while it runs" {
    truncate -s 1M "$BATS_TEST_TMPDIR/a,b"
    guest b --name web --disk "$BATS_TEST_TMPDIR/a,,b,ro" -c 2
    trapeze inspect web
    [ "$(jq -r '.[0] | .id, .name, .state, .machine.cpus, .machine.memory, .options.memory' <<<"$output" | paste -sd' ')" = \
        "$ID web running 2 16777216 16M" ]
    [ "$(jq -r '.[0].machine.disks[0] | .path, .size, .readonly' <<<"$output" | paste -sd' ')" = \
        "$BATS_TEST_TMPDIR/a,b 1048576 true" ]
    [ -S "$(jq -r '.[0].socket' <<<"$output")" ]
    [ -d "$(jq -r '.[0].folder' <<<"$output")" ]
    trapeze kill web
    trapeze inspect web
    [ "$(jq -r '.[0] | .state, .status, .machine' <<<"$output" | paste -sd' ')" = "ended 10 null" ]
    run --separate-stderr "$TRAPEZE" inspect nobody web
    [ "$status" -eq 4 ]
    [[ $stderr == *"there is no guest 'nobody'"* ]]
    [ "$(jq length <<<"$output")" -eq 1 ]
}

@test "stats: a busy guest uses a processor, an idle one none" {
    guest b --name busy
    guest i --name idle
    trapeze stats --no-stream
    [[ ${lines[0]} == NAME*"CPU %"*MEMORY*READ*"NET IN"*PACKETS ]]
    [[ $output == *busy*16.0M* ]]
    trapeze stats --no-stream --format json
    [ "$(jq -r 'map(.name) | sort | join(" ")' <<<"$output")" = "busy idle" ]
    [ "$(jq -r '.[] | select(.name == "busy") | .cpu_percent > 0 and .memory_touched > 0 and .memory_host > .memory_touched' <<<"$output")" = true ]
    trapeze stats --no-stream --format json idle
    [ "$(jq length <<<"$output")" -eq 1 ]
    refuses 2 "--format: 'xml' is not known; allowed: json, table" "$TRAPEZE" stats --format xml
    refuses 4 "there is no guest 'nobody'" "$TRAPEZE" stats nobody
}

@test "stats ends with the last guest; a stopped process is shown as such" {
    guest b --name busy
    kill -STOP "$(pid_of busy)"
    trapeze stats --no-stream
    [[ $output == *"busy "*"not answering"* ]]
    kill -CONT "$(pid_of busy)"
    timeout 60 "$TRAPEZE" stats >"$BATS_TEST_TMPDIR/watched" &
    watcher=$!
    until_is 1 grep -c -m1 "busy .*16.0M" "$BATS_TEST_TMPDIR/watched"
    trapeze kill busy
    wait "$watcher"
    grep -q "busy .*ended" "$BATS_TEST_TMPDIR/watched"
}
