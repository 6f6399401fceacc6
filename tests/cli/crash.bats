#!/usr/bin/env bats
# kill -9 of anything at any moment, and many guests at once. TRAPEZE_CRASH_ROUNDS makes it longer.

load guests

# healthy: records can be read, what they say is true, and a guest can be made and removed.
healthy() {
    "$TRAPEZE" ps -a >/dev/null 2>"$BATS_TEST_TMPDIR/said"
    trapeze ps -a --format json
    local id
    for id in $(jq -r '.[] | select(.state != "ended") | .id' <<<"$output"); do
        kill -0 "$(pid_of "$id")"
    done
    guest i --name "healthy"
    trapeze rm -f healthy
}

@test "kill -9 of run -d, of its guest, of ps and of rm, at every moment" {
    for i in $(seq "${TRAPEZE_CRASH_ROUNDS:-12}"); do
        "$TRAPEZE" run -d -k "$ENDS" -a i -m 16M --net none --name "g$i" >/dev/null 2>&1 &
        run_pid=$!
        "$TRAPEZE" ps -a >/dev/null 2>&1 &
        ps_pid=$!
        # Moments from right away to long after; a sleep here is a moment, not a wait.
        sleep "0.0$((i * 7 % 10))$((i % 10))"
        kill -9 "$run_pid" "$ps_pid" 2>/dev/null || true
        wait "$run_pid" "$ps_pid" 2>/dev/null || true
        if [ $((i % 3)) -eq 0 ]; then
            "$TRAPEZE" rm -f "g$i" >/dev/null 2>&1 &
            rm_pid=$!
            sleep "0.00$((i % 10))"
            kill -9 "$rm_pid" 2>/dev/null || true
            wait "$rm_pid" 2>/dev/null || true
        elif [ $((i % 3)) -eq 1 ]; then
            pid=$(pid_of "g$i")
            if [ -n "$pid" ]; then kill -9 "$pid"; fi
        fi
    done
    healthy
    "$TRAPEZE" ps -aq 2>/dev/null | xargs -r "$TRAPEZE" rm -f
    trapeze ps -aq
    [ -z "$output" ]
    [ -z "$(ls "$TRAPEZE_ROOT/run")" ]
}

@test "20 guests at once: all run, all answer, all stop" {
    for i in $(seq 20); do
        timeout 120 "$TRAPEZE" run -d -k "$ENDS" -a i -m 16M --net none >"$BATS_TEST_TMPDIR/out$i" 2>&1 &
    done
    wait
    cat "$BATS_TEST_TMPDIR"/out*
    [ "$("$TRAPEZE" ps --format json | jq 'map(select(.state == "running")) | length')" -eq 20 ]
    [ "$("$TRAPEZE" ps --format json | jq -r 'map(.name) | unique | length')" -eq 20 ]
    trapeze stats --no-stream --format json
    [ "$(jq 'map(select(.answers)) | length' <<<"$output")" -eq 20 ]
    # shellcheck disable=SC2046
    trapeze kill $("$TRAPEZE" ps -q)
    trapeze ps -q
    [ -z "$output" ]
}
